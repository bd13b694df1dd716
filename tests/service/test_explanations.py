"""Explanations: parts that add up to what is served, and are those of the method's definition."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from service.bundle import layout, open_bundle
from service.bundle.line_files import check_row_texts
from service.bundle.row_texts import MOST_CHARACTERS, RowTexts, write_row_texts
from service.decoders.mach import OUTPUT, bucket_scores
from service.engine import Engine
from service.explanations import encode_explanations
from service.filters.search import Wanted
from service.schemas import PredictResponse
from tests.bundles import GOLDEN_TEXTS, METHODS, WORDS, Method, Spec, TinyModel, row_text, write_bundle
from tests.properties.test_filters import KINDS, SERVED, allowed_of, engine_of
from tests.service.serving import TEXT, Service, serving

LABELS = 60
TEXTS = [*GOLDEN_TEXTS, "font", " ".join(WORDS)]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

CASES = [
    (method, kind, served) for method in METHODS for kind in range(len(KINDS[method])) for served in range(len(SERVED))
]


def explained(engine: Engine, ids_K: np.ndarray, scores_K: np.ndarray, explainer: Any) -> list[dict[str, Any]]:
    section = engine.manifest.method.model_dump()
    return [json.loads(one) for one in encode_explanations(section, explainer, ids_K, scores_K)]


def parts_of(explanation: dict[str, Any]) -> float:
    """The sum of what the method's parts bring."""
    lists = explanation.get("repetitions", explanation.get("neighbours"))
    if lists is not None:
        return float(sum(part["contribution"] for part in lists))
    return float(sum(explanation[name] for name in ("encoder", "classifier", "bias", "weights") if name in explanation))


@pytest.mark.parametrize(("method", "kind", "served"), CASES)
def test_parts_add_up_to_what_is_served(method: Method, kind: int, served: int) -> None:
    engine = engine_of(method, kind, served)
    bags = engine.prepare(TEXTS)
    raw = engine.live.view.decoder.decode(engine._encoder.run(bags).outputs, LABELS)
    plain = engine.run(bags, 20)
    few = Wanted(9, allowed_of([*range(0, LABELS, 4)]))
    answer = engine.run(bags, 20, {1: few}, range(len(TEXTS)))
    np.testing.assert_array_equal(answer.top.ids_QK, plain.top.ids_QK)
    for place in range(len(TEXTS)):
        ids_K, scores_K = answer.top.ids_QK[place], answer.top.scores_QK[place]
        if place == 1:
            ids_K, scores_K, *_ = answer.filtered[1]
        own = dict(zip(raw.ids_QK[place].tolist(), raw.scores_QK[place].tolist(), strict=True))
        for label, score, why in zip(
            ids_K.tolist(), scores_K.tolist(), explained(engine, ids_K, scores_K, answer.explainers[place]), strict=True
        ):
            assert why["method"] == method
            np.testing.assert_allclose(why["raw"], own[label], **CLOSE)
            np.testing.assert_allclose(parts_of(why), why["raw"], **CLOSE)
            reached = why["raw"]
            if "reranked" in SERVED[served]:
                np.testing.assert_allclose(why["rerank"]["own"] + why["rerank"]["words"], why["rerank"]["score"])
                reached = why["rerank"]["score"]
            if engine.manifest.calibration is not None:
                np.testing.assert_allclose(why["calibration"]["score"], reached, **CLOSE)
                reached = why["calibration"]["probability"]
            np.testing.assert_allclose(score, reached, **CLOSE)
            assert ("rerank" in why, "calibration" in why) == (
                engine.manifest.rerank is not None,
                engine.manifest.calibration is not None,
            )


def test_nobody_is_explained_who_does_not_ask() -> None:
    engine = engine_of("mach", 0, 0)
    bags = engine.prepare(TEXTS)
    assert not engine.run(bags, 5).explainers
    assert engine.run(bags, 5, {}, [2]).explainers.keys() == {2}


def test_ranks_are_those_among_all_labels() -> None:
    engine = engine_of("unidec", 0, 1)
    bags = engine.prepare([TEXT])
    whole = engine.run(bags, LABELS).top.ids_QK[0].tolist()
    answer = engine.run(bags, 3, {0: Wanted(3, allowed_of(whole[2:4]))}, [0])
    ids_K, scores_K, *_ = answer.filtered[0]
    assert [why["rank"] for why in explained(engine, ids_K, scores_K, answer.explainers[0])] == [3, 4]


def opened(path: Path, spec: Spec) -> tuple[TinyModel, Engine]:
    model = write_bundle(path, spec)
    return model, Engine.open(open_bundle(path), device="cpu")


def best_of(engine: Engine, texts: list[str], k: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Query, label and explanation of each answer."""
    answer = engine.run(engine.prepare(texts), k, {}, range(len(texts)))
    for place, explainer in answer.explainers.items():
        ids_K, scores_K = answer.top.ids_QK[place], answer.top.scores_QK[place]
        whys = explained(engine, ids_K, scores_K, explainer)
        yield from ((place, *pair) for pair in zip(ids_K.tolist(), whys, strict=True))


@pytest.mark.parametrize("repetitions", [4, 5])
@pytest.mark.parametrize("aggregation", ["sum_logits", "mean_prob", "unbiased", "min", "median"])
def test_mach_names_each_bucket_and_those_that_decided(tmp_path: Path, aggregation: Any, repetitions: int) -> None:
    spec = Spec(aggregation=aggregation, repetitions=repetitions)
    model, engine = opened(tmp_path / "bundle", spec)
    logits_QRB = engine._encoder.run(engine.prepare(TEXTS)).outputs[OUTPUT]
    shown_QRB = logits_QRB if aggregation == "sum_logits" else bucket_scores(logits_QRB, "sigmoid", "min")
    for query, label, why in best_of(engine, TEXTS, 8):
        assert why["aggregation"] == aggregation
        parts = why["repetitions"]
        assert [part["bucket"] for part in parts] == model.tables[layout.MACH_BUCKETS][label].tolist()
        for scores_B, part in zip(shown_QRB[query], parts, strict=True):
            np.testing.assert_allclose(part["score"], scores_B[part["bucket"]], rtol=1e-6)
            assert part["rank"] == 1 + np.count_nonzero(scores_B > scores_B[part["bucket"]])
        deciding = sum(part["contribution"] != 0 for part in parts)
        if aggregation == "min":
            assert deciding == 1
            assert next(part["score"] for part in parts if part["contribution"]) == min(p["score"] for p in parts)
        elif aggregation == "median":
            assert deciding == (1 if repetitions % 2 else 2)
            np.testing.assert_allclose(parts_of(why), np.median([part["score"] for part in parts]), rtol=1e-6)


@pytest.mark.parametrize("merged", [False, True])
def test_declare_names_the_rows_that_voted(tmp_path: Path, merged: bool) -> None:
    spec = Spec(method="declare", merged=merged, row_count=30, label_count=20)
    model, engine = opened(tmp_path / "bundle", spec)
    indptr, indices, data = (
        model.tables[name]
        for name in (layout.DECLARE_VOTES_INDPTR, layout.DECLARE_VOTES_INDICES, layout.DECLARE_VOTES_DATA)
    )
    votes_NL = np.zeros((30, 20))
    for row in range(30):
        votes_NL[row, indices[indptr[row] : indptr[row + 1]]] = data[indptr[row] : indptr[row + 1]]
    counts_N = model.tables.get(layout.DECLARE_VOTES_COUNTS, np.ones(30, dtype=int))
    similarities_QN = model.encode(engine.prepare(TEXTS)) @ model.tables[layout.DECLARE_FACTORS].T @ votes_NL.T
    voters = 0
    for query, label, why in best_of(engine, TEXTS, 6):
        nearest = np.argsort(-similarities_QN[query], kind="stable")
        taken = np.clip(spec.neighbours - np.cumsum(counts_N[nearest]) + counts_N[nearest], 0, counts_N[nearest])
        expected = [
            (row, int(count), similarities_QN[query, row], votes_NL[row, label])
            for row, count in zip(nearest.tolist(), taken.tolist(), strict=True)
            if count and votes_NL[row, label] and similarities_QN[query, row] > 0
        ]
        found = [(part["row"], part["rows"], part["similarity"], part["vote"]) for part in why["neighbours"]]
        assert [one[:2] for one in found] == [one[:2] for one in expected]
        np.testing.assert_allclose([one[2:] for one in found], [one[2:] for one in expected], rtol=1e-4)
        for part in why["neighbours"]:
            np.testing.assert_allclose(part["weight"], part["similarity"] * part["rows"], rtol=1e-5)
            np.testing.assert_allclose(part["contribution"], part["weight"] * part["vote"], rtol=1e-5)
        voters += len(found)
    assert voters > 20


@pytest.mark.parametrize("recovery", ["factors", "rows"])
def test_declare_quotes_the_rows_where_the_bundle_has_their_texts(tmp_path: Path, recovery: Any) -> None:
    spec = Spec(method="declare", recovery=recovery, row_texts=True)
    _, engine = opened(tmp_path / "bundle", spec)
    parts = [part for _, _, why in best_of(engine, TEXTS, 6) for part in why["neighbours"]]
    assert {part.get("text") is None for part in parts} == {False, True}
    assert all(part.get("text") == row_text(part["row"]) for part in parts)


def test_long_texts_are_quoted_by_their_beginnings(tmp_path: Path) -> None:
    texts = ["é" * MOST_CHARACTERS, "é" * (MOST_CHARACTERS + 1), 'two\nlines "quoted"', "", None]
    write_row_texts(tmp_path, texts)
    offsets = np.load(tmp_path / layout.DECLARE_TEXT_OFFSETS)
    lines = np.fromfile(tmp_path / layout.DECLARE_TEXTS, dtype=np.uint8)
    check_row_texts(lines, offsets, len(texts))
    read = RowTexts(lines, offsets)
    assert [read[row] for row in range(5)] == [texts[0], "é" * (MOST_CHARACTERS - 1) + "…", *texts[2:]]


def test_unidec_tells_both_heads_apart(tmp_path: Path) -> None:
    model, engine = opened(tmp_path / "bundle", Spec(method="unidec"))
    queries_QD, vectors_LD = model.encode(engine.prepare(TEXTS)), model.tables["vectors"].astype(float)
    for query, label, why in best_of(engine, TEXTS, 6):
        np.testing.assert_allclose(why["encoder"], queries_QD[query, :4] @ vectors_LD[label, :4], **CLOSE)
        np.testing.assert_allclose(why["classifier"], queries_QD[query, 4:] @ vectors_LD[label, 4:], **CLOSE)


@pytest.mark.parametrize("heads", ["encoder", "classifier"])
def test_of_one_head_the_other_says_nothing(heads: Any) -> None:
    scorer = engine_of("unidec", 0, 0).live.view.decoder.scorer
    section = scorer._section  # type: ignore[attr-defined]
    scorer._section = section.model_copy(update={"heads": heads})  # type: ignore[attr-defined]
    try:
        (_, _, why), *_ = best_of(engine_of("unidec", 0, 0), [TEXT], 1)
    finally:
        scorer._section = section  # type: ignore[attr-defined]
    assert {"encoder", "classifier"} & set(why) == {heads}
    np.testing.assert_allclose(why[heads], why["raw"], **CLOSE)


def test_one_vs_all_tells_the_bias_from_the_weights(tmp_path: Path) -> None:
    model, engine = opened(tmp_path / "bundle", Spec(method="ova"))
    queries_QD, vectors_LD = model.encode(engine.prepare(TEXTS)), model.tables["vectors"].astype(float)
    for query, label, why in best_of(engine, TEXTS, 6):
        np.testing.assert_allclose(why["bias"], queries_QD[query, -1] * vectors_LD[label, -1], **CLOSE)
        np.testing.assert_allclose(why["weights"], queries_QD[query, :-1] @ vectors_LD[label, :-1], **CLOSE)


@pytest.fixture(scope="module", params=METHODS)
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("explanations") / "bundle"
    write_bundle(path, Spec(method=request.param, calibrated=True, reranked=True))
    with serving(path) as service:
        yield service


def test_answers_are_the_same_with_explanations_beside_them(service: Service) -> None:
    body = {"queries": [TEXT, "font"], "k": 7, "filter": {"deny": ["label-03"]}}
    plain = service.predict(body).json()
    response = service.predict(body | {"explain": True})
    PredictResponse.model_validate_json(response.content)
    for prediction, bare in zip(response.json()["predictions"], plain["predictions"], strict=True):
        labels = [{name: label[name] for name in label if name != "explanation"} for label in prediction["labels"]]
        assert orjson.dumps(labels) == orjson.dumps(bare["labels"])
        for label in prediction["labels"]:
            why = label["explanation"]
            assert why["method"] == service.engine.manifest.method.name
            assert why["calibration"]["probability"] == pytest.approx(label["score"], rel=1e-6)
    assert not any("explanation" in label for one in plain["predictions"] for label in one["labels"])


def test_only_labels_that_are_served_are_explained(service: Service) -> None:
    whole = service.predict({"queries": [TEXT], "k": 9}).json()["predictions"][0]["labels"]
    body = {"queries": [TEXT], "k": 9, "explain": True, "min_score": whole[3]["score"]}
    kept = service.predict(body).json()["predictions"][0]["labels"]
    assert [label["id"] for label in kept] == [label["id"] for label in whole if label["score"] >= whole[3]["score"]]
    assert all("explanation" in label for label in kept)
