"""`xmc-train`: prepare | fit | join | evaluate | compare | list | cite.

Exit codes: 0 done, 1 failed, 2 wrong use or bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.memory import use_huge_pages

DONE, FAILED, WRONG_USE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    arguments.typed = sys.argv[1:] if argv is None else list(argv)
    use_huge_pages()
    # Imported here, so that `--help` does not wait for torch.
    from training.commands import COMMANDS, FAILURES, REFUSALS

    try:
        COMMANDS[arguments.command](arguments)
    except FAILURES as error:
        print(f"xmc-train: {error}", file=sys.stderr)
        return FAILED
    except REFUSALS as error:
        print(f"xmc-train: {error}", file=sys.stderr)
        return WRONG_USE
    except ValidationError as error:
        print(f"xmc-train: {_configuration_errors(error)}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print("xmc-train: interrupted; `fit --resume` continues after the last finished epoch", file=sys.stderr)
        return FAILED
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xmc-train", description="Train extreme multi-label classifiers.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('xmcserve')}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_prepare(commands)
    _add_fit(commands)
    _add_join(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    commands.add_parser("list", help="print the methods and recipes")
    cite = commands.add_parser("cite", help="print the papers behind a recipe as BibTeX")
    cite.add_argument("recipe", metavar="RECIPE")
    return parser


def _add_prepare(commands: Any) -> None:
    prepare = commands.add_parser("prepare", help="turn JSONL, CSV or Parquet tables into a data folder")
    prepare.add_argument("inputs", nargs="+", type=Path, metavar="INPUT")
    prepare.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    prepare.add_argument("--text-column", required=True, metavar="NAME", help="text of a point, or its title")
    prepare.add_argument("--content-column", metavar="NAME", help="what follows the title; may be empty")
    prepare.add_argument("--label-column", required=True, metavar="NAME", help="a list, or text to be split")
    prepare.add_argument("--id-column", metavar="NAME", help="ids of the points; without it, their positions")
    prepare.add_argument(
        "--label-texts", type=Path, metavar="FILE", help="table of columns id and text; unidec needs it"
    )
    prepare.add_argument("--label-separator", default=",", metavar="TEXT", help="between labels given as one text")
    split = prepare.add_mutually_exclusive_group()
    split.add_argument(
        "--test", nargs="+", type=Path, default=[], metavar="INPUT", help="the test split, where it is given"
    )
    split.add_argument(
        "--test-fraction", type=float, default=0.1, metavar="SHARE", help="of the rows, drawn by the seed"
    )
    prepare.add_argument("--seed", type=int, default=0)


def _add_fit(commands: Any) -> None:
    fit = commands.add_parser("fit", help="train a model and write an artifact")
    fit.add_argument("--data", required=True, metavar="DIR", help='data folder, or "sample" for the embedded data set')
    fit.add_argument(
        "--method",
        metavar="NAME",
        help="mach, declare, unidec or ova, re-ranked by words; alone with --recipe NAME",
    )
    fit.add_argument("--recipe", metavar="NAME", help="a named configuration; see `xmc-train list`")
    fit.add_argument("--config", type=Path, metavar="FILE.toml", help="options that replace the recipe's")
    fit.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="single options, e.g. training.epochs=3",
    )
    fit.add_argument("--out", type=Path, required=True, metavar="ARTIFACT", help="folder to write")
    fit.add_argument("--resume", action="store_true", help="continue an interrupted run, if there is one")
    fit.add_argument(
        "--processes", type=int, default=1, metavar="N", help="parts at a time, where networks are independent"
    )
    fit.add_argument(
        "--ray",
        metavar="ADDRESS|local",
        help="train parts or --workers, or compress DECLARE's label matrix, on the nodes of a Ray cluster (auto, "
        "HOST:PORT), of which this machine is one, or on this machine's processors (local); parts and workers need "
        "--out on storage that all see",
    )
    fit.add_argument(
        "--workers",
        type=int,
        metavar="W",
        help="with --ray and UniDEC, DEPSL or one-vs-all: processes that train one model together, each with its share "
        "of rows and labels",
    )
    fit.add_argument("--part", metavar="I/N", help="train one of the N parts alone; `join` makes a model of all")
    fit.add_argument("--json", type=Path, metavar="FILE", help="also write what the run cost: seconds and memory")
    fit.add_argument("--dry-run", action="store_true", help="print sizes, memory and steps; train nothing")


def _add_join(commands: Any) -> None:
    join = commands.add_parser("join", help="make one artifact of parts that were trained alone")
    join.add_argument("parts", nargs="+", type=Path, metavar="PART", help="artifacts written by `fit --part`")
    join.add_argument("--data", required=True, metavar="DIR", help="what they were trained on")
    join.add_argument("--out", type=Path, required=True, metavar="ARTIFACT", help="folder to write")


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="measure an artifact on a split, or a service's answers by feedback"
    )
    evaluate.add_argument(
        "artifact", type=Path, nargs="?", metavar="ARTIFACT", help="with --predictions only needed for PSP"
    )
    evaluate.add_argument("--data", metavar="DIR", help='data folder, or "sample"')
    evaluate.add_argument(
        "--predictions", type=Path, metavar="FOLDER", help="in place of a split: a service's prediction log"
    )
    evaluate.add_argument(
        "--feedback", type=Path, metavar="FILE", help="table of columns request_id, labels and perhaps position"
    )
    evaluate.add_argument("--split", choices=("trn", "dev", "tst"), help="of the data folder (default: tst)")
    evaluate.add_argument("--k", default="1,3,5", metavar="1,3,5", help="ranks, separated by commas")
    evaluate.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write the measures, in percent, as one flat object, or of a log one a model",
    )
    evaluate.add_argument(
        "--ranking", type=Path, metavar="FILE.npy", help="also write the best 100 labels of every row, best first"
    )


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="train recipes on one split and report accuracy, bytes, seconds, memory and latency"
    )
    compare.add_argument("--data", required=True, metavar="DIR", help='data folder, or "sample"')
    compare.add_argument("--recipes", required=True, metavar="A,B,…", help="recipes, or folders of trained artifacts")
    compare.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="options for every recipe"
    )
    compare.add_argument(
        "--peers", nargs="+", type=Path, default=[], metavar="FILE", help="models of other libraries, measured already"
    )
    compare.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    compare.add_argument("--resume", action="store_true", help="go on with a folder; what is done is not done again")


def _configuration_errors(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        found = "" if item["type"] == "extra_forbidden" else f", found {item['input']!r}"
        parts.append(f"{place}: {item['msg']}{found}")
    return "configuration: " + "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
