"""Exact search by leading coordinates against whole products, among a trained model's labels, on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m tests.benchmarks.leading_search BUNDLE TEXTS

BUNDLE is one of UniDEC or one-vs-all with a flat index; TEXTS holds a query a line. The number of coordinates is chosen
by the last `SAMPLED` texts, as export does it by an artifact's samples, and the others are asked. Of several rounds the
best counts; every answer is held against the whole products'.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.exact_search import write_exact_search
from model_export.leading import choose_leading, write_leading
from service.bundle import layout, open_bundle
from service.decoders.search import OUTPUT
from service.encoder import Encoder
from service.engine import Engine
from service.search.exact import ExactSearch
from service.search.leading import LeadingSearch
from service.search.topk import TopK

SAMPLED, ASKED = 64, 320
ANSWERS = (5, 10, 100)
BATCHES = (1, 8, 32)
ROUNDS = 5
ROUNDING = 1e-5

Search = Callable[[NDArray[np.float32], int], TopK]


def main() -> None:
    """Print milliseconds a query for each number of answers and each batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path)
    chosen = parser.parse_args()
    bundle = open_bundle(chosen.bundle)
    vectors_LD = np.asarray(bundle.arrays[layout.LABEL_VECTORS])
    queries_QD = _queries(chosen.bundle, chosen.texts.read_text(encoding="utf-8").splitlines())
    L, D = vectors_LD.shape
    leading = choose_leading(vectors_LD, queries_QD[-SAMPLED:], ANSWERS[1])
    if leading is None:
        raise SystemExit(f"{L:,} vectors of {D} dimensions: no number of leading coordinates pays")
    count = leading.axes_DC.shape[1]
    print(f"{L:,} vectors of {D} dimensions, {count} leading coordinates")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_leading(folder, vectors_LD, leading)
        graph = folder / layout.LABEL_SEARCH
        by_leading = LeadingSearch.open(graph, vectors_LD, leading.rests_L, leading=count, threads=1)
        write_exact_search(vectors_LD, folder / "whole.npy", folder / "whole.onnx")
        whole = ExactSearch.open(folder / "whole.onnx", dimension=D, size=L, threads=1)
    asked = queries_QD[:ASKED]
    for k in ANSWERS:
        _require_equal(by_leading.search(asked, k), whole.search(asked, k))
        for rows in BATCHES:
            blocks = [asked[low : low + rows] for low in range(0, len(asked) - rows + 1, rows)]
            seconds = [_seconds(search, blocks, k) / rows for search in (whole.search, by_leading.search)]
            print(
                f"k={k:<4} batch {rows:<3} whole {1000 * seconds[0]:.3f} ms a query, by leading coordinates "
                f"{1000 * seconds[1]:.3f}: {seconds[0] / seconds[1]:.2f} times as fast",
                flush=True,
            )


def _queries(bundle: Path, texts: list[str]) -> NDArray[np.float32]:
    """Vectors of the texts that are asked and of those that are a sample."""
    engine = Engine.open(open_bundle(bundle), device="cpu")
    encoder = Encoder.open(
        bundle / layout.ENCODER, {OUTPUT: (engine.manifest.method.dimension,)}, device="cpu", threads=1
    )
    bags = engine.prepare(texts[: ASKED + SAMPLED])
    return np.concatenate([encoder.run([bag]).outputs[OUTPUT] for bag in bags])


def _seconds(search: Search, blocks: list[NDArray[np.float32]], k: int) -> float:
    def once() -> float:
        started = time.perf_counter()
        for block in blocks:
            search(block, k)
        return (time.perf_counter() - started) / len(blocks)

    return min(once() for _ in range(ROUNDS))


def _require_equal(found: TopK, expected: TopK) -> None:
    """Labels may swap where rounding decides between them."""
    np.testing.assert_allclose(found.scores_QK, expected.scores_QK, rtol=ROUNDING, atol=ROUNDING)
    different = found.ids_QK != expected.ids_QK
    if different.mean() > 1e-3:
        raise SystemExit(f"{different.mean():.2%} of the labels are not those of the whole products")


if __name__ == "__main__":
    main()
