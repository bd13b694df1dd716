"""Times of bundles' encoders, on the session that serving opens.

    python -m tests.model_export.latency BUNDLE...

Bags are drawn at random over the whole vocabulary, which is harder on the caches than real texts. Each figure is the
median of many runs of a whole batch, in milliseconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from service.bags import Bag
from service.bundle import Bundle, layout, open_bundle
from service.bundle.manifest import FeaturesInput
from service.decoders import decoder_class
from service.encoder import Encoder

SIZES = ((1, 15), (64, 15))  # queries Q, ids of a bag T
THREADS = (1, 2)
ROWS_TIMED = 2000
FEWEST_RUNS = 40


def main(paths: Sequence[str]) -> None:
    """Print one line for each bundle, number of threads and size."""
    for path in paths:
        bundle = open_bundle(Path(path))
        outputs = decoder_class(bundle.manifest.method.name).from_bundle(bundle, threads=1).required_outputs
        for threads in THREADS:
            encoder = Encoder.open(bundle.file(layout.ENCODER), outputs, device="cpu", threads=threads)
            for queries, length in SIZES:
                milliseconds = 1000 * median_seconds(encoder, random_bags(bundle, queries, length))
                print(f"{path}  threads={threads} Q={queries:<3} T={length}  {milliseconds:8.3f} ms")


def random_bags(bundle: Bundle, queries: int, length: int) -> list[Bag]:
    rng = np.random.default_rng(0)
    width = vocabulary(bundle)
    rows = [np.sort(rng.choice(width, size=length, replace=False)) for _ in range(queries)]
    return [Bag(ids, np.ones(length, dtype=np.float32)) for ids in rows]


def vocabulary(bundle: Bundle) -> int:
    if isinstance(bundle.manifest.input, FeaturesInput):
        return bundle.manifest.input.dimension
    return Tokenizer.from_file(str(bundle.file(layout.TOKENIZER))).get_vocab_size()


def median_seconds(encoder: Encoder, bags: list[Bag]) -> float:
    seconds = []
    for _ in range(max(FEWEST_RUNS, ROWS_TIMED // len(bags))):
        started = time.perf_counter()
        encoder.run(bags)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
