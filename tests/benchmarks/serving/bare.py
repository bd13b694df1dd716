"""The ceiling: texts to labels in a loop, without HTTP, alone and in batches.

    python -m tests.benchmarks.serving.bare BUNDLE TEXTS --threads N

TEXTS holds one text a line. Printed is one JSON object: the median of a lone text in milliseconds, and the texts per
second by batch size.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from tests.benchmarks.serving.core import Core

BATCHES = (1, 4, 8, 16, 32, 64, 128)
K = 5
SECONDS = 2.0


def main() -> None:
    """Measure one number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    chosen = parser.parse_args()
    core = Core(chosen.bundle, chosen.threads)
    texts = cycle(chosen.texts.read_text(encoding="utf-8").splitlines())
    single_ms, rates = [], {}
    for batch in BATCHES:
        started, count = time.perf_counter(), 0
        while (now := time.perf_counter()) < started + SECONDS:
            core.predict(list(islice(texts, batch)), K)
            count += batch
            if batch == 1:
                single_ms.append(1000 * (time.perf_counter() - now))
        rates[batch] = count / (now - started)
    print(json.dumps({"single_p50_ms": median(single_ms), "per_second": rates}))


if __name__ == "__main__":
    main()
