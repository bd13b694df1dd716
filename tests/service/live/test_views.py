"""Views of labels that change, held against sorting all labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle import open_bundle
from service.engine import Answer, Engine
from service.errors import Conflict, EngineFailed
from service.filters.search import Wanted
from service.live.proposals import Decision, Reception
from tests.bundles import METHODS, WORDS, Method, Spec, write_bundle
from tests.changes import change, make

L = 24
TEXTS = ("a fast web server", "font data", "mail", "unheard-of words", "python library for image data")
QUERIES = (*TEXTS[:3], "small game editor", "")
SERVED: tuple[dict[str, Any], ...] = (
    {},
    {"calibrated": True},
    {"reranked": True, "terms": True},
    {"reranked": True, "propensity_weight": 1.0},
)
INDEXES: tuple[dict[str, Any], ...] = ({}, {"leading": 3}, {"index": "hnsw", "directions": 6})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("views")


def opened(folder: Path, spec: Spec) -> Engine:
    """An engine of its own over a bundle that is written once."""
    path = folder / f"{abs(hash(spec))}"
    if not path.exists():
        write_bundle(path, spec)
    return Engine.open(open_bundle(path), device="cpu")


def answers(engine: Engine, query: str, k: int) -> list[tuple[str, float]]:
    """Ids and scores of a query's labels, asked in company."""
    bags = engine.prepare([*QUERIES, query])
    return labels_of(engine, engine.run(bags, k), len(bags) - 1)


def labels_of(engine: Engine, answer: Answer, place: int) -> list[tuple[str, float]]:
    """Ids and scores of one query's labels."""
    one = answer.filtered.get(place)
    ids_K, scores_K = (answer.top.ids_QK[place], answer.top.scores_QK[place]) if one is None else one[:2]
    return [(engine.labels.id(row), score) for row, score in zip(ids_K.tolist(), scores_K.tolist(), strict=True)]


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(
    method=st.sampled_from(METHODS),
    served=st.sampled_from(SERVED),
    disabled=st.sets(st.integers(0, L - 1)),
    query=texts,
    k=st.integers(1, L + 2),
)
def test_disabled_labels_leave_the_others_as_they_were(
    folder: Path, method: Method, served: dict[str, Any], disabled: set[int], query: str, k: int
) -> None:
    engine = opened(folder, Spec(method=method, label_count=L, **served))
    all_labels = answers(engine, query, L)
    off = {f"label-{row:02d}" for row in disabled}
    assert make(engine, change(disable=sorted(off))) == Reception()
    expected = [(id_, score) for id_, score in all_labels if id_ not in off][:k]
    assert alike(answers(engine, query, k), expected)
    make(engine, change(enable=sorted(off)))
    assert answers(engine, query, L) == all_labels


@settings(deadline=None, max_examples=60)
@given(
    index=st.sampled_from(INDEXES),
    new=st.lists(texts, min_size=1, max_size=5),
    removed=st.integers(0, 5),
    query=texts,
    k=st.integers(1, L + 6),
)
def test_added_labels_are_ranked_by_the_cosines_of_the_dual_encoder(
    folder: Path, index: dict[str, Any], new: list[str], removed: int, query: str, k: int
) -> None:
    engine = opened(folder, Spec(method="unidec", label_count=L, **index))
    own = answers(engine, query, L)
    added = {f"new-{place}": text for place, text in enumerate(new)}
    for id_, text in added.items():
        assert make(engine, change(add={id_: text})) == Reception()
    gone = list(added)[:removed]
    make(engine, change(remove=gone))
    expected = [*own, *((id_, cosine(engine, query, text)) for id_, text in added.items() if id_ not in gone)]
    order = sorted(range(len(expected)), key=lambda place: -expected[place][1])
    assert alike(answers(engine, query, k), [expected[place] for place in order][:k])


@settings(deadline=None, max_examples=40)
@given(
    method=st.sampled_from(METHODS),
    served=st.sampled_from(SERVED),
    disabled=st.sets(st.integers(0, L - 1)),
    ks=st.lists(st.integers(1, L), min_size=len(QUERIES), max_size=len(QUERIES)),
)
def test_company_changes_no_answer_where_labels_are_disabled(
    folder: Path, method: Method, served: dict[str, Any], disabled: set[int], ks: list[int]
) -> None:
    engine = opened(folder, Spec(method=method, label_count=L, **served))
    make(engine, change(disable=[f"label-{row:02d}" for row in sorted(disabled)]))
    bags = engine.prepare(QUERIES)
    together = engine.run(bags, max(ks), ks=ks)
    for place, (bag, k) in enumerate(zip(bags, ks, strict=True)):
        alone = engine.run([bag], k)
        assert alike(labels_of(engine, together, place)[:k], labels_of(engine, alone, 0))


def cosine(engine: Engine, query: str, text: str) -> float:
    """Of the first halves of two texts' vectors."""
    one, other = engine._encoder.vectors(engine.prepare([query, text]), "query").astype(np.float64)
    half = one.size // 2
    lengths = np.linalg.norm(one[:half]) * np.linalg.norm(other[:half])
    return float(one[:half] @ other[:half] / max(lengths, 1e-12))


def alike(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> bool:
    """Whether answers are the same but for rounding, by which labels that tie may swap."""
    scores = np.allclose([score for _, score in found], [score for _, score in expected], atol=1e-5)
    by_id = dict(expected)
    known = all(id_ not in by_id or abs(score - by_id[id_]) < 1e-5 for id_, score in found)
    last = expected[-1][1] if expected else 0.0
    strangers = [score for id_, score in found if id_ not in by_id]
    return len(found) == len(expected) and scores and known and all(abs(score - last) < 1e-5 for score in strangers)


@pytest.mark.parametrize("served", SERVED)
def test_an_added_label_does_not_change_what_others_are_found(folder: Path, served: dict[str, Any]) -> None:
    """Ranks of calibration and candidates of words are ranks among all labels, and so shift by one."""
    engine = opened(folder, Spec(method="unidec", label_count=L, **served))
    make(engine, change(add={"new": TEXTS[0]}))
    found = answers(engine, TEXTS[0], L + 1)
    assert sorted(id_ for id_, _ in found) == sorted(["new", *(f"label-{row:02d}" for row in range(L))])
    assert found[0][0] == "new"


def test_words_have_no_say_in_labels_that_they_do_not_know(folder: Path) -> None:
    engine = opened(folder, Spec(method="unidec", label_count=L, reranked=True))
    make(engine, change(add={"new": TEXTS[0]}))
    (own, words), rank = explained_first(engine)
    assert rank == 1
    # Half of each share: the method's probability of a cosine of 1, by the tiny bundle's curve.
    assert own == pytest.approx(words) == pytest.approx(0.5 / (1 + np.exp(-1)), abs=1e-5)


def explained_first(engine: Engine) -> tuple[tuple[float, float], int]:
    answer = engine.run(engine.prepare([TEXTS[0]]), 1, explained=[0])
    (first,) = answer.explainers[0].explain(answer.top.ids_QK[0], answer.top.scores_QK[0])
    assert first.reranked is not None
    return first.reranked, first.rank


def test_labels_that_were_disabled_at_export_are_not_answered_until_they_are_enabled(folder: Path) -> None:
    engine = opened(folder, Spec(method="declare", label_count=L, disabled=(0, 5)))
    assert not {"label-00", "label-05"} & {id_ for id_, _ in answers(engine, TEXTS[0], L)}
    assert len(answers(engine, TEXTS[0], L)) == L - 2
    make(engine, change(enable=["label-05"]))
    assert len(answers(engine, TEXTS[0], L)) == L - 1


def test_raw_answers_have_all_labels(folder: Path) -> None:
    engine = opened(folder, Spec(method="mach", label_count=L, disabled=tuple(range(20))))
    top = engine.run(engine.prepare([TEXTS[0]]), L, raw=True).top
    assert sorted(top.ids_QK[0].tolist()) == list(range(L))


def test_a_filter_that_was_read_before_a_change_is_used_after_it(folder: Path) -> None:
    engine = opened(folder, Spec(method="unidec", label_count=L))
    denied = engine.filters.resolve((None, b'["label-00"]', None))
    make(engine, change(add={f"new-{place}": TEXTS[0] for place in range(9)}, disable=["label-01"]))
    answer = engine.run(engine.prepare([TEXTS[0]]), L, {0: Wanted(L, denied)})
    assert sorted(answer.filtered[0].ids_K.tolist()) == list(range(2, L))


def test_what_is_dropped_is_never_seen(folder: Path) -> None:
    engine = opened(folder, Spec(method="unidec", label_count=L))
    before = answers(engine, TEXTS[0], L)
    engine.live.propose(change(add={"new": TEXTS[0]}, disable=["label-00"]))
    assert answers(engine, TEXTS[0], L) == before
    engine.live.decide(Decision.DROPPED)
    engine.live.decide(Decision.DONE)
    assert answers(engine, TEXTS[0], L) == before


def test_a_version_says_what_it_cannot_do(folder: Path) -> None:
    engine = opened(folder, Spec(method="unidec", label_count=L))
    asked = change(add={"label-00": "x", "new": "y"}, disable=["x"], enable=["z"], remove=["label-01"])
    assert make(engine, asked) == Reception(unknown=("x", "z"), own=("label-00", "label-01"))
    assert len(answers(engine, TEXTS[0], L + 2)) == L + 1


def test_labels_that_cannot_be_found_cannot_be_changed(folder: Path) -> None:
    engine = opened(folder, Spec(method="unidec", label_count=L))
    engine.live._bundle.labels.slots = None
    with pytest.raises(Conflict, match="exported before labels could be found by their ids"):
        engine.live.propose(change(disable=["label-00"]))


def test_too_many_added_labels_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.live.views.MOST_ADDED", 2)
    engine = opened(folder, Spec(method="unidec", label_count=L))
    make(engine, change(add={"a": "web", "b": "mail"}))
    with pytest.raises(Conflict, match="expected at most 2 labels added to tiny since it was loaded, found more"):
        engine.live.propose(change(add={"c": "font"}))


def test_a_text_without_a_vector_is_our_bug(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened(folder, Spec(method="unidec", label_count=L))
    monkeypatch.setattr(engine._encoder, "vectors", lambda bags, _: np.full((len(bags), 8), np.nan, np.float32))
    with pytest.raises(EngineFailed, match="the text of a label"):
        engine.live.propose(change(add={"a": "web"}))
