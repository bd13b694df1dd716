"""Filtered answers against brute force: all labels in order, and those that are not allowed taken out.

`python -m tests.properties.test_filters [METHOD …]` draws 10,000 cases for each method, or for some.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.bags import Bag
from service.bundle import open_bundle
from service.engine import Engine
from service.filters import search
from service.filters.allowed import Allowed, bits_of
from service.filters.search import Wanted
from service.search.codes import Codes
from tests.bundles import METHODS, WORDS, Method, Spec, write_bundle

LABELS = 60
CASES = 10_000

# What a bundle of each method may be, beside what it makes of scores.
KINDS: dict[Method, list[dict[str, Any]]] = {
    "mach": [
        {"aggregation": aggregation, "activation": activation}
        for aggregation, activation in product(("sum_logits", "mean_prob", "unbiased", "min", "median"), ("sigmoid",))
    ],
    "declare": [
        {},
        {"recovery": "rows"},
        {"merged": True, "divided": True},
        {"alike": True, "temperature": 0.5},
    ],
    "unidec": [{}, {"leading": 4}, {"index": "ivf"}, {"index": "hnsw"}],
    "ova": [{}, {"leading": 4}, {"index": "ivf"}, {"index": "hnsw"}],
}
SERVED: list[dict[str, Any]] = [
    {},
    {"calibrated": True},
    {"propensity_weight": 0.5},
    {"propensity_weight": 0.5, "candidates": 2},
    {"reranked": True},
    {"reranked": True, "terms": True, "propensity_weight": 1.0},
]


@cache
def engine_of(method: Method, kind: int, served: int) -> Engine:
    fields = {"candidates": 12} | KINDS[method][kind] | SERVED[served]
    if "index" in fields:  # one that names all labels as candidates answers as its codes do
        fields["candidates"] = LABELS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        write_bundle(path, Spec(method=method, label_count=LABELS, row_count=30, **fields))
        return Engine.open(open_bundle(path), device="cpu")  # files stay mapped after the folder is gone


def allowed_of(rows: list[int]) -> Allowed:
    return Allowed.of_bits(bits_of(np.array(rows, dtype=np.int64), LABELS))


@st.composite
def filters(draw: st.DrawFn) -> list[int]:
    """Rows that are allowed: few, some or nearly all."""
    chosen = draw(st.sets(st.integers(0, LABELS - 1), max_size=12))
    return sorted(chosen if draw(st.booleans()) else set(range(LABELS)) - chosen)


def check(method: Method, kind: int, served: int, texts: list[str], wanted: list[Wanted | None], k: int) -> list[str]:
    """Ask once with filters and once for everything: how the filtered queries were answered."""
    engine = engine_of(method, kind, served)
    bags: list[Bag] = engine.prepare(texts)
    whole = engine.run(bags, LABELS)
    given_filters = {place: one for place, one in enumerate(wanted) if one is not None}
    answer = engine.run(bags, k, given_filters)
    assert answer.filtered.keys() == given_filters.keys()
    for place, (k_own, allowed) in given_filters.items():
        ids_L, scores_L = whole.top.ids_QK[place], whole.top.scores_QK[place]
        expected = [row for row, kept in zip(ids_L.tolist(), allowed.keeps(ids_L), strict=True) if kept][:k_own]
        own = dict(zip(ids_L.tolist(), scores_L.tolist(), strict=True))
        found = answer.filtered[place]
        np.testing.assert_allclose(found.scores_K, [own[row] for row in expected], rtol=2e-5, atol=2e-6)
        # Labels whose scores differ by rounding alone may change places.
        np.testing.assert_allclose([own[row] for row in found.ids_K.tolist()], found.scores_K, rtol=2e-5, atol=2e-6)
        assert len(set(found.ids_K.tolist())) == min(k_own, allowed.count)
        assert allowed.keeps(found.ids_K).all()
    np.testing.assert_array_equal(answer.top.ids_QK, whole.top.ids_QK[:, : min(k, LABELS)])
    return [found.mode for found in answer.filtered.values()]


TEXTS = st.lists(st.sampled_from([*WORDS, "\n"]), max_size=6).map(" ".join)


def cases(method: Method) -> st.SearchStrategy[tuple[Any, ...]]:
    wanted = st.builds(Wanted, st.integers(1, 25), filters().map(allowed_of))
    queries = st.lists(st.tuples(TEXTS, st.none() | wanted), min_size=1, max_size=4)
    kinds = st.integers(0, len(KINDS[method]) - 1)
    return st.tuples(kinds, st.integers(0, len(SERVED) - 1), queries, st.integers(1, 25))


@pytest.mark.parametrize("method", METHODS)
def test_a_filtered_answer_is_what_is_left_of_the_whole(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = drawn(method, 150, monkeypatch)
    assert modes.keys() == ({"within", "direct"} if method == "declare" else {"within", "overfetch", "direct"})


def drawn(method: Method, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Check so many cases: how often queries were answered in which way."""
    modes: Counter[str] = Counter()

    @settings(max_examples=count, suppress_health_check=list(HealthCheck), deadline=None, database=None)
    @given(cases(method), st.sampled_from([0, 20, LABELS]), st.sampled_from([30, LABELS]), st.integers(3, 17))
    def run(case: tuple[Any, ...], cheap_labels: int, most_fetched: int, scored_at_once: int) -> None:
        kind, served, queries, k = case
        scorer = engine_of(method, kind, served).live.view.decoder.scorer
        with monkeypatch.context() as patch:
            patch.setattr(search, "SCORED_AT_ONCE", scored_at_once)
            if method != "declare":  # which has nothing to gain from more labels
                patch.setattr(scorer, "cheap_labels", cheap_labels, raising=False)
                patch.setattr(scorer, "most_fetched", most_fetched, raising=False)
            texts, wanted = [text for text, _ in queries], [one for _, one in queries]
            modes.update(check(method, kind, served, texts, wanted, k))

    run()
    return modes


def test_rounding_lets_no_label_overtake_those_it_ties_with() -> None:
    """Alone, the votes for label 49 add up to a little more than in a batch, where six labels have the same score."""
    texts = ["", "the the the the the network"]
    assert check("declare", 3, 1, texts, [None, Wanted(1, allowed_of([0, 49]))], 1) == ["direct"]


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_labels_that_an_index_misses_are_found_when_they_are_scored_directly(tmp_path: Path, index: Any) -> None:
    """Exactly as the codes of all vectors order them, however few candidates the index names."""
    write_bundle(tmp_path / "bundle", Spec(method="unidec", label_count=300, index=index, candidates=10))
    bundle = open_bundle(tmp_path / "bundle")
    engine, codes = Engine.open(bundle, device="cpu"), Codes.from_arrays(bundle.arrays)
    bags = engine.prepare([f"{left} {right}" for left in WORDS[:10] for right in WORDS[10:]])
    rows = np.arange(0, 300, 3)
    allowed = Allowed.of_bits(bits_of(rows, 300))
    answer = engine.run(bags, 10, dict.fromkeys(range(len(bags)), Wanted(10, allowed)))
    whole = codes.search(engine._encoder.run(bags).outputs["query"], 300)
    direct = [place for place, found in answer.filtered.items() if found.mode == "direct"]
    assert len(direct) > 50
    for place in direct:
        ids_L, scores_L = whole.ids_QK[place], whole.scores_QK[place]
        kept = allowed.keeps(ids_L)
        np.testing.assert_array_equal(answer.filtered[place].ids_K, ids_L[kept][:10])
        np.testing.assert_array_equal(answer.filtered[place].scores_K, scores_L[kept][:10])


if __name__ == "__main__":
    for name in [method for method in METHODS if method in sys.argv[1:] or not sys.argv[1:]]:
        started = time.perf_counter()
        with pytest.MonkeyPatch.context() as patch:
            modes = drawn(name, CASES, patch)
        sys.stdout.write(f"{name}: {CASES:,} cases, {dict(modes)}, {time.perf_counter() - started:.0f} s\n")
