"""The options of ``xmc-serve plan``. Nothing that computes is imported here: every command reads this."""

from __future__ import annotations

import argparse
import math
import re

from service.planning.defaults import (
    LABEL_BYTES,
    MEMORY,
    PROCESSORS,
    ROW_LABELS,
    ROWS_PER_LABEL,
    TOKENS,
    UTILISATION,
    VOCABULARY,
)

METHODS, ENCODERS = ("mach", "declare", "unidec", "ova"), ("bag", "transformer")
INDEXES, DEVICES = ("auto", "flat", "ivf", "hnsw"), ("cpu", "cuda")
QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?$")
FACTORS = {None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
FACTORS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the command's parser."""
    parser.add_argument("--method", required=True, choices=METHODS, help="that finds labels")
    parser.add_argument("--labels", required=True, type=_count, metavar="L", help="how many there are")
    parser.add_argument("--qps", required=True, type=_positive, metavar="N", help="queries a second")
    model = parser.add_argument_group("model", "Left out, sizes are those that training and export derive.")
    model.add_argument(
        "--dim",
        type=_count,
        metavar="D",
        dest="dimension",
        help="of label vectors (unidec, ova), of the rank (declare), of the hidden layer (mach)",
    )
    model.add_argument("--repetitions", type=_count, metavar="R", help="of MACH")
    model.add_argument("--buckets", type=_count, metavar="B", help="of each repetition of MACH")
    model.add_argument(
        "--rows", type=_count, metavar="N", help=f"distinct training rows of DECLARE (default: {ROWS_PER_LABEL} L)"
    )
    model.add_argument(
        "--row-labels", type=_positive, metavar="N", help=f"labels of a row, on average (default: {ROW_LABELS})"
    )
    model.add_argument("--index", choices=INDEXES, help="of unidec and ova (default: auto, as export chooses)")
    model.add_argument("--leading", type=_count, metavar="C", help="coordinates that an exact search looks at first")
    model.add_argument("--encoder", choices=ENCODERS, default="bag", help="default: bag; transformer is MiniLM")
    model.add_argument(
        "--vocabulary", type=_count, metavar="V", help=f"tokens of a bag encoder (default: {VOCABULARY:,})"
    )
    model.add_argument("--encoder-bytes", type=_count, metavar="N", help="of encoder.onnx (default: in float32)")
    model.add_argument(
        "--label-bytes",
        type=_positive,
        default=LABEL_BYTES,
        metavar="N",
        help=f"of a label's id and text, on average (default: {LABEL_BYTES})",
    )
    model.add_argument(
        "--rerank-weights",
        type=_positive,
        default=0.0,
        metavar="N",
        help="of a label's word classifier, on average (default: answers are not re-ranked)",
    )
    model.add_argument("--tokens", type=_count, default=TOKENS, metavar="T", help=f"of a query (default: {TOKENS})")
    pod = parser.add_argument_group("pod")
    pod.add_argument("--device", choices=DEVICES, default="cpu", help="where the model runs (default: cpu)")
    pod.add_argument(
        "--cpu", type=_positive, default=PROCESSORS, metavar="N", help=f"processors (default: {PROCESSORS:g})"
    )
    pod.add_argument("--memory", type=_quantity, default=MEMORY, metavar="SIZE", help=f"as 8Gi (default: {MEMORY})")
    pod.add_argument(
        "--utilisation", type=_share, default=UTILISATION, metavar="S", help=f"to plan for (default: {UTILISATION})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _count(text: str) -> int:
    number = int(text.replace(",", "").replace("_", ""))
    if number < 1:
        raise ValueError
    return number


def _positive(text: str) -> float:
    number = float(text.replace(",", ""))
    if not 0 < number < math.inf:
        raise ValueError
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise ValueError
    return number


def _quantity(text: str) -> int:
    """Bytes, as Kubernetes writes them."""
    found = QUANTITY.match(text)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a size above 0 such as 512Mi or 8Gi, found {text!r}")
    return int(float(found[1]) * FACTORS[found[2]])


# argparse puts these after "invalid".
_count.__name__, _positive.__name__, _share.__name__ = "whole number above 0", "number above 0", "share up to 1"
