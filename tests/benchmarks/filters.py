"""What filters cost: milliseconds of processor time for a lone query, without its encoding, by the list.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.filters mach --labels 1000000
    OMP_NUM_THREADS=1 python -m tests.benchmarks.filters unidec --labels 1000000 [--index ivf]

Bundles are those of the tests with more labels; ids that are allowed are drawn, those that are denied are the query's
own best. Each list is answered by scoring what is allowed (direct), by more of the best labels where the decoder gives
so many (overfetch), and as the service chooses; beside it stands what it takes to find the ids of a list.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from service.bundle import open_bundle
from service.engine import Engine
from service.filters.allowed import Allowed
from service.filters.resolver import Resolver
from service.filters.search import Wanted
from service.models.queries import Filter
from tests.bundles import WORDS, Spec, write_bundle

K, QUERIES, RUNS = 10, 8, 3
ALLOWED, DENIED = (10, 1_000, 100_000), (10, 1_000)
SIZES: dict[str, dict[str, Any]] = {
    "mach": {"repetitions": 16, "buckets": 4096, "aggregation": "mean_prob", "activation": "softmax"},
    "unidec": {"half_dimension": 64},
}
NEVER = 0


def main() -> None:
    """Print a Markdown table, one line a list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=SIZES)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--index", default="flat", choices=("flat", "ivf", "hnsw"))
    arguments = parser.parse_args()
    size = SIZES[arguments.method] | {"label_count": arguments.labels, "index": arguments.index, "candidates": 500}
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder) / "bundle", Spec(method=arguments.method, has_label_texts=False, **size))
        bundle = open_bundle(Path(folder) / "bundle")
        engine, resolver = Engine.open(bundle, device="cpu"), Resolver(bundle)
        texts = [f"{left} {right}" for left, right in zip(WORDS, WORDS[1:] + WORDS[:1], strict=True)][:QUERIES]
        print(f"{arguments.labels:,} labels, {arguments.method}, {arguments.index}; no filter: ", end="")
        print(f"{milliseconds(engine, texts, lambda _: None)[0]:.2f} ms")
        print("| list | ids ms | direct ms | overfetch ms | chosen |")
        print("| --- | ---: | ---: | ---: | --- |")
        rng = np.random.default_rng(0)
        for count in ALLOWED:
            rows = rng.choice(arguments.labels, count, replace=False)
            print_line(f"allow {count:,}", engine, resolver, texts, lambda _, rows=rows: (named(rows), None, None))
        for count in DENIED:

            def own_best(text: str, count: int = count) -> Filter:
                return None, named(engine.run(engine.prepare([text]), count).top.ids_QK[0]), None

            print_line(f"deny {count:,}", engine, resolver, texts, own_best)


def named(rows: Sequence[int] | np.ndarray) -> bytes:
    """Ids of labels, as a request has them."""
    return orjson.dumps([f"label-{row:02d}" for row in rows])


def print_line(
    name: str, engine: Engine, resolver: Resolver, texts: Sequence[str], filter_of: Callable[[str], Filter]
) -> None:
    """One list, found in each way."""
    filters = {text: filter_of(text) for text in texts}
    allowed = {text: resolver.resolve(wanted) for text, wanted in filters.items()}
    finding = 1000 * seconds(partial(resolver._resolved, filters[texts[0]]))
    scorer = engine.live.view.decoder.scorer
    chosen = scorer.cheap_labels, scorer.most_fetched
    times = []
    for cheap_labels, most_fetched in ((len(engine.labels), NEVER), (NEVER, len(engine.labels)), chosen):
        scorer.cheap_labels, scorer.most_fetched = cheap_labels, most_fetched  # type: ignore[misc]
        times.append(milliseconds(engine, texts, allowed.__getitem__))
    direct, overfetch, own = times
    print(f"| {name} | {finding:.2f} | {direct[0]:.2f} | {overfetch[0]:.2f} | {own[1]}, {own[0]:.2f} |", flush=True)


def milliseconds(
    engine: Engine, texts: Sequence[str], allowed_of: Callable[[str], Allowed | None]
) -> tuple[float, str]:
    """Median over queries, and how most were answered."""
    best, modes = [], []
    for text in texts:
        bags, allowed = engine.prepare([text]), allowed_of(text)
        filters = {} if allowed is None else {0: Wanted(K, allowed)}
        modes += [filtered.mode for filtered in engine.run(bags, K, filters).filtered.values()]
        best.append(seconds(partial(engine.run, bags, K, filters)) - seconds(partial(engine._encoder.run, bags)))
    return 1000 * float(np.median(best)), max(set(modes), key=modes.count, default="none")


def seconds(call: Callable[[], object]) -> float:
    """The least processor time of several runs."""
    times = []
    for _ in range(RUNS):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


if __name__ == "__main__":
    main()
