from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from service.bags import Bag
from service.bundle import layout, load_bundle, open_bundle
from service.bundle.reader import read_manifest
from service.decoders.mach import MachDecoder
from service.engine import Engine
from service.errors import BundleError, EngineFailed, InvalidRequest
from service.models.queries import Features, Query
from service.search.topk import TopK
from tests.bundles import (
    DIMENSION,
    GOLDEN_FEATURES,
    GOLDEN_TEXTS,
    INPUT_KINDS,
    METHODS,
    InputKind,
    Method,
    Spec,
    resign,
    write_bundle,
    write_manifest,
)


def opened(path: Path, **fields: Any) -> Engine:
    write_bundle(path, Spec(**fields))
    return Engine.open(open_bundle(path), device="cpu")


def queries(kind: InputKind) -> tuple[Query, ...]:
    return GOLDEN_TEXTS if kind == "text" else GOLDEN_FEATURES


@pytest.mark.parametrize("kind", INPUT_KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_bundle_answers(tmp_path: Path, method: Method, kind: InputKind) -> None:
    engine = opened(tmp_path / "bundle", method=method, input=kind)
    engine.warm_up()
    engine.check_golden()
    answer = engine.run(engine.prepare(queries(kind)), 7)
    assert answer.top.ids_QK.shape == answer.top.scores_QK.shape == (3, 7)
    assert min(answer.encode_seconds, answer.search_seconds) > 0
    assert 0 <= answer.padding_ratio < 1
    assert (engine.device, engine.providers) == ("cpu", ["CPUExecutionProvider"])
    assert engine.manifest.method.name == method


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_golden_answers_hold_no_disabled_labels(tmp_path: Path, method: Method, calibrated: bool) -> None:
    """The best of every query are disabled; the rest is answered in its order, and a later start finds it again."""
    plain = opened(tmp_path / "plain", method=method, calibrated=calibrated)
    rows = plain.run(plain.prepare(GOLDEN_TEXTS), 2).top.ids_QK
    engine = opened(tmp_path / "bundle", method=method, calibrated=calibrated, disabled=tuple(np.unique(rows).tolist()))
    engine.check_golden()
    off = {engine.labels.id(row) for row in rows.ravel().tolist()}
    for golden in engine.manifest.golden:
        assert isinstance(golden.query, str)
        found = engine.answer_alone(golden.query, 5)
        assert [(one.label, one.score) for one in found] == [(label.id, label.score) for label in golden.labels]
        others = [one.label for one in plain.answer_alone(golden.query, 40) if one.label not in off]
        assert [one.label for one in found] == others[:5]
        keys = [one.key for one in found]
        assert keys == sorted(keys, reverse=True)
    first, *rest = engine.manifest.golden[0].labels
    labels = (first.model_copy(update={"id": next(iter(off))}), *rest)
    wrong = (engine.manifest.golden[0].model_copy(update={"labels": labels}),)
    write_manifest(tmp_path / "bundle", engine.manifest.model_copy(update={"golden": wrong}))
    with pytest.raises(BundleError, match="golden query 0"):
        Engine.open(open_bundle(tmp_path / "bundle"), device="cpu").check_golden()


@pytest.mark.parametrize("method", METHODS)
def test_k_beyond_the_labels_gives_all_labels(tmp_path: Path, method: Method) -> None:
    engine = opened(tmp_path / "bundle", method=method)
    top = engine.run(engine.prepare(GOLDEN_TEXTS), 1000).top
    assert [sorted(row) for row in top.ids_QK.tolist()] == [list(range(40))] * 3


@pytest.mark.parametrize("method", METHODS)
def test_company_does_not_change_an_answer(tmp_path: Path, method: Method) -> None:
    """Alone, in any place of a batch, from any thread: the same labels, and scores up to rounding."""
    engine = opened(tmp_path / "bundle", method=method)
    bags = engine.prepare(GOLDEN_TEXTS)
    alone = [engine.run([bag], 5).top for bag in bags]
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda turn: engine.run((bags[turn % 3 :] + bags[: turn % 3]) * 7, 5).top, range(20)))
    for turn, top in enumerate(batches):
        for row in range(len(top.ids_QK)):
            expected = alone[(row + turn) % 3]
            np.testing.assert_array_equal(top.ids_QK[row], expected.ids_QK[0])
            np.testing.assert_allclose(top.scores_QK[row], expected.scores_QK[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", INPUT_KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_reranked_answer_is_the_beginning_of_any_longer_one(tmp_path: Path, method: Method, kind: InputKind) -> None:
    """With the others' labels in another order than without classifiers, and scores that never rise."""
    engine = opened(tmp_path / "bundle", method=method, input=kind, reranked=True, candidates=12)
    engine.check_golden()
    bags = engine.prepare(queries(kind))
    longest = engine.run(bags, 30)
    assert (np.diff(longest.top.scores_QK) <= 0).all()
    for k in (1, 12, 13):
        shorter = engine.run(bags, k)
        np.testing.assert_array_equal(shorter.top.ids_QK, longest.top.ids_QK[:, :k])
        np.testing.assert_array_equal(shorter.top.scores_QK, longest.top.scores_QK[:, :k])
    plain = opened(tmp_path / "plain", method=method, input=kind).run(bags, 30).top
    assert (plain.ids_QK != longest.top.ids_QK).any()
    nominated = 5
    for own_K, reranked_K in zip(plain.ids_QK.tolist(), longest.top.ids_QK.tolist(), strict=True):
        assert len(set(reranked_K)) == 30
        assert set(own_K[:12]) <= set(reranked_K[: 12 + nominated])


@pytest.mark.parametrize("terms", [False, True])
def test_the_order_of_words_counts_where_classifiers_know_pairs(tmp_path: Path, terms: bool) -> None:
    engine = opened(tmp_path / "bundle", reranked=True, terms=terms)
    engine.check_golden()
    one, other = (engine.run(engine.prepare([text]), 40).top.scores_QK for text in ("web server", "server web"))
    assert np.array_equal(one, other) is not terms


def test_features_that_are_only_ever_present_have_weights(tmp_path: Path) -> None:
    """The same classifiers answer otherwise than those of features as they are."""
    engines = [
        opened(tmp_path / str(present), input="features", reranked=True, present=present) for present in (False, True)
    ]
    query = Features((0, 7, 12), (1.0, 1.0, 1.0))
    plain, weighted = (engine.run(engine.prepare([query]), 40).top.scores_QK for engine in engines)
    assert not np.array_equal(plain, weighted)


@pytest.mark.parametrize("heading_weight", [0.0, 3.0])
@pytest.mark.parametrize("reranked", [False, True])
def test_headings_count_as_the_manifest_says(tmp_path: Path, heading_weight: float, reranked: bool) -> None:
    engine = opened(tmp_path / "bundle", reranked=reranked, terms=reranked, heading_weight=heading_weight)
    texts = ("web\nfast mail", "web fast mail", "web web web web fast mail")
    headed, plain, repeated = (engine.run(engine.prepare([text]), 40).top.scores_QK for text in texts)
    assert np.array_equal(headed, plain) is (heading_weight == 0)
    np.testing.assert_allclose(headed, repeated if heading_weight else plain, rtol=1e-5, atol=1e-5)


def test_long_texts_are_cut_at_the_manifests_limit(tmp_path: Path) -> None:
    engine = opened(tmp_path / "bundle")
    exact, longer = engine.prepare(["web " * 16, "web " * 17])
    assert (exact.truncated, longer.truncated) == (False, True)
    assert exact.values.tolist() == longer.values.tolist() == [16.0]


def test_wrong_queries_are_the_clients_fault(tmp_path: Path) -> None:
    engine = opened(tmp_path / "bundle", input="features")
    with pytest.raises(InvalidRequest, match=rf"query 0: expected feature indices in 0\.\.{DIMENSION - 1}, found 30"):
        engine.prepare([Features([DIMENSION], [1.0])])


def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that every run of an engine adds its number of rows to."""
    sizes: list[int] = []
    run = Engine.run

    def counted(self: Engine, bags: list[Bag], k: int) -> Any:
        answer = run(self, bags, k)
        sizes.append(len(answer.top.ids_QK))
        return answer

    monkeypatch.setattr(Engine, "run", counted)
    return sizes


@pytest.mark.parametrize("kind", INPUT_KINDS)
def test_warm_up_runs_batches_of_several_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: InputKind
) -> None:
    engine = opened(tmp_path / "bundle", input=kind)
    sizes = batch_sizes(monkeypatch)
    engine.warm_up()
    assert sizes == [1, 8]


def test_a_draft_without_golden_queries_warms_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "bundle", Spec())
    draft = read_manifest(tmp_path / "bundle").model_copy(update={"golden": (), "parity": None})
    sizes = batch_sizes(monkeypatch)
    Engine.open(load_bundle(tmp_path / "bundle", draft), device="cpu").warm_up()
    assert sizes == [1, 8]


def test_scores_that_are_not_finite_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened(tmp_path / "bundle")
    broken = TopK(np.zeros((1, 1), dtype=np.int64), np.full((1, 1), np.nan, dtype=np.float32))
    monkeypatch.setattr(MachDecoder, "decode", lambda *_: broken)
    with pytest.raises(EngineFailed, match="the decoder's scores are NaN or infinite for one of 1 queries"):
        engine.run(engine.prepare(["web"]), 1)


def test_the_index_gets_the_engines_threads(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(method="unidec", index="hnsw"))
    for threads in (2, 1):
        engine = Engine.open(open_bundle(tmp_path / "bundle"), device="cpu", threads=threads)
        engine.run(engine.prepare(["web"]), 1)
        assert faiss.omp_get_max_threads() == threads


def change_golden(path: Path, labels: list[dict[str, Any]]) -> Engine:
    """An engine whose manifest expects other labels from the second golden query."""
    manifest = read_manifest(path)
    content = manifest.golden[1].model_dump() | {"labels": tuple(labels)}
    golden = (manifest.golden[0], type(manifest.golden[1]).model_validate(content), *manifest.golden[2:])
    write_manifest(path, manifest.model_copy(update={"golden": golden}))
    return Engine.open(open_bundle(path), device="cpu")


def golden_labels(path: Path) -> list[dict[str, Any]]:
    return [label.model_dump() for label in read_manifest(path).golden[1].labels]


def test_golden_answers_may_differ_by_rounding_and_swap_within_it(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    labels = golden_labels(tmp_path / "bundle")
    for position, label in enumerate(labels):
        label["score"] += 5e-4 * (-1) ** position
    change_golden(tmp_path / "bundle", labels).check_golden()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda labels: labels[0].update(score=labels[0]["score"] + 0.1),
            r"expected 'label-\d\d' with .* at rank 1, found",
        ),
        (lambda labels: labels[4].update(score=labels[4]["score"] - 0.1), "at rank 5, found"),
        (lambda labels: labels[0].update(id="label-no-more"), "expected 'label-no-more' with .* at rank 1, found"),
        (lambda labels: labels.reverse(), "at rank 1, found"),
        (lambda labels: labels.extend(labels * 10), "expected 55 labels, found 40"),
    ],
)
def test_a_golden_answer_that_differs_names_the_query(tmp_path: Path, change: Any, sentence: str) -> None:
    write_bundle(tmp_path / "bundle")
    labels = golden_labels(tmp_path / "bundle")
    change(labels)
    with pytest.raises(BundleError, match=f"golden query 1 'python library for image data': .*{sentence}"):
        change_golden(tmp_path / "bundle", labels).check_golden()


def test_the_last_golden_label_may_be_another_that_ties_with_it(tmp_path: Path) -> None:
    """Which of two equal labels comes in at the boundary is rounding, on another machine."""
    write_bundle(tmp_path / "bundle")
    labels = golden_labels(tmp_path / "bundle")
    labels[-1]["id"] = "label-of-equal-score"
    change_golden(tmp_path / "bundle", labels).check_golden()


@pytest.mark.parametrize(("precision", "passes"), [("fp32", False), ("fp16", True), ("int8", True)])
def test_coarser_weights_are_allowed_larger_differences(tmp_path: Path, precision: str, passes: bool) -> None:
    write_bundle(tmp_path / "bundle", Spec(precision=precision))  # type: ignore[arg-type]
    labels = golden_labels(tmp_path / "bundle")
    for label in labels:
        label["score"] *= 1.005
    engine = change_golden(tmp_path / "bundle", labels)
    if passes:
        engine.check_golden()
        return
    with pytest.raises(BundleError, match="golden query 1"):
        engine.check_golden()


def test_a_tokenizer_that_cannot_be_read_ends_the_opening(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / layout.TOKENIZER).write_text("{}")
    resign(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"tokenizer\.json: expected a tokenizer"):
        Engine.open(open_bundle(tmp_path / "bundle"), device="cpu")
