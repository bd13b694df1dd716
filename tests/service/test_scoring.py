"""Scores by hand, and what the engine and the HTTP interface make of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from service.bundle import layout, open_bundle
from service.bundle.manifest import CalibrationSection, IsotonicMap, PlattMap, RankMap, ScoredLabel
from service.bundle.reader import read_manifest
from service.engine import Engine
from service.errors import BundleError
from service.scoring import CalibratedScoring, PropensityScoring, RawScoring
from service.search.topk import TopK
from tests.bundles import CALIBRATION, GOLDEN_TEXTS, METHODS, Method, Spec, resign, write_bundle, write_manifest
from tests.service.serving import TEXT, serving

FOUND = TopK(np.array([[7, 3, 5]]), np.array([[2.0, 1.0, -1.0]], dtype=np.float32))


def opened(path: Path, spec: Spec) -> Engine:
    write_bundle(path, spec)
    return Engine.open(open_bundle(path), device="cpu")


def test_raw_scores_are_served_as_they_are() -> None:
    scoring = RawScoring()
    ranked = scoring.serve(FOUND, 3)
    assert scoring.wanted(3) == 3
    assert ranked.top is FOUND
    assert ranked.keys_QK is FOUND.scores_QK


def test_probabilities_by_hand() -> None:
    """Rank 1: 1 / (1 + e^-1). Rank 2: half way between the knots. Rank 3: 0.9 by its map, held down to rank 2's."""
    maps = (
        RankMap(first_rank=1, map=PlattMap(slope=0.5, intercept=0.0)),
        RankMap(first_rank=2, map=IsotonicMap(scores=(0.0, 2.0), probabilities=(0.2, 0.6))),
        RankMap(first_rank=3, map=IsotonicMap(scores=(-5.0,), probabilities=(0.9,))),
    )
    found = CalibratedScoring(CalibrationSection(ranks=maps)).serve(FOUND, 3)
    assert found.top.scores_QK[0].tolist() == pytest.approx([1 / (1 + np.exp(-1)), 0.4, 0.4])
    assert found.top.ids_QK.tolist() == [[7, 3, 5]]
    assert found.keys_QK.tolist() == [[2, 1, -1]]


def test_scores_far_out_are_neither_lost_nor_warned_of() -> None:
    section = CalibrationSection(ranks=(RankMap(first_rank=1, map=PlattMap(slope=1e6, intercept=0.0)),))
    found = CalibratedScoring(section).probabilities(np.array([[3e38, 0.0, -3e38]], dtype=np.float32))
    assert found.tolist() == [[1, 0.5, 0]]


def test_re_ranking_by_hand() -> None:
    """Keys 0.5 * 1, 0.4 * 9^(1/2), 0.3 * 4^(1/2): the third is no candidate, so it stays behind, whatever its key."""
    levels = (
        RankMap(first_rank=rank, map=IsotonicMap(scores=(0.0,), probabilities=(share,)))
        for rank, share in ((1, 0.5), (2, 0.4), (3, 0.3))
    )
    calibrated = CalibratedScoring(CalibrationSection(ranks=tuple(levels)))
    inverse_L = np.ones(8, dtype=np.float32)
    inverse_L[[3, 5]] = 9, 4
    for candidates, order in ((2, [3, 7, 5]), (3, [3, 5, 7])):
        scoring = PropensityScoring(calibrated, inverse_L, 0.5, candidates)
        assert scoring.wanted(1) == candidates
        assert scoring.wanted(9) == 9
        ranked = scoring.serve(FOUND, 3)
        assert ranked.top.ids_QK.tolist() == [order]
        own = {7: 0.5, 3: 0.4, 5: 0.3}
        assert ranked.top.scores_QK[0].tolist() == pytest.approx([own[label] for label in order])
        keys = {7: 0.5, 3: 1.2, 5: 0.6}
        assert ranked.keys_QK[0].tolist() == pytest.approx([keys[label] for label in order])


@pytest.mark.parametrize("method", METHODS)
def test_a_calibrated_bundle_gives_the_same_labels_and_raw_scores_when_asked(tmp_path: Path, method: Method) -> None:
    raw = opened(tmp_path / "raw", Spec(method=method))
    calibrated = opened(tmp_path / "calibrated", Spec(method=method, calibrated=True))
    bags = raw.prepare(GOLDEN_TEXTS)
    expected, served = raw.run(bags, 7), calibrated.run(bags, 7)
    np.testing.assert_array_equal(served.top.ids_QK, expected.top.ids_QK)
    assert ((served.top.scores_QK >= 0) & (served.top.scores_QK <= 1)).all()
    assert not np.array_equal(served.top.scores_QK, expected.top.scores_QK)
    np.testing.assert_array_equal(served.keys_QK, expected.top.scores_QK)
    again = calibrated.run(bags, 7, raw=True)
    np.testing.assert_array_equal(again.top.scores_QK, expected.top.scores_QK)
    calibrated.warm_up()
    calibrated.check_golden()


@pytest.mark.parametrize("method", METHODS)
def test_a_re_ranked_bundle_gives_raw_answers_when_asked(tmp_path: Path, method: Method) -> None:
    raw = opened(tmp_path / "raw", Spec(method=method))
    other = opened(tmp_path / "other", Spec(method=method, propensity_weight=2.0))
    bags = raw.prepare(GOLDEN_TEXTS)
    expected, served = raw.run(bags, 20), other.run(bags, 20)
    assert not np.array_equal(served.top.ids_QK, expected.top.ids_QK)
    # Twelve candidates change places among themselves, the rest follows.
    np.testing.assert_array_equal(np.sort(served.top.ids_QK[:, :12]), np.sort(expected.top.ids_QK[:, :12]))
    np.testing.assert_array_equal(served.top.ids_QK[:, 12:], expected.top.ids_QK[:, 12:])
    np.testing.assert_array_equal(other.run(bags, 5).top.ids_QK, served.top.ids_QK[:, :5])
    np.testing.assert_array_equal(other.run(bags, 20, raw=True).top.ids_QK, expected.top.ids_QK)
    other.warm_up()
    other.check_golden()


def swap_golden(path: Path) -> Engine:
    """An engine whose first golden query expects the labels of ranks 1 and 2 swapped, with the same scores."""
    first, second, *others = read_manifest(path).golden[0].labels
    swapped = (first.model_copy(update={"id": second.id}), second.model_copy(update={"id": first.id}))
    return expect_golden(path, (*swapped, *others))


def expect_golden(path: Path, labels: tuple[ScoredLabel, ...]) -> Engine:
    """An engine of a bundle whose only golden query is the first, with the given answer."""
    manifest = read_manifest(path)
    golden = (manifest.golden[0].model_copy(update={"labels": labels}),)
    write_manifest(path, manifest.model_copy(update={"golden": golden}))
    return Engine.open(open_bundle(path), device="cpu")


def test_tied_labels_may_swap_in_golden_answers_although_their_probabilities_differ(tmp_path: Path) -> None:
    """A probability belongs to a rank as much as to a label; what must not differ is what the order is by."""
    write_bundle(tmp_path / "tied", Spec(repetitions=1, buckets=2, calibrated=True))
    swap_golden(tmp_path / "tied").check_golden()
    labels = read_manifest(tmp_path / "tied").golden[0].labels
    assert abs(labels[0].score - labels[1].score) > 0.05
    write_bundle(tmp_path / "apart", Spec(calibrated=True))
    with pytest.raises(BundleError, match="golden query 0"):
        swap_golden(tmp_path / "apart").check_golden()


def test_labels_that_re_ranking_ties_may_swap_in_golden_answers(tmp_path: Path) -> None:
    """Inverse propensities that make the keys of the first query's candidates equal: there, scores go with labels."""
    path = tmp_path / "bundle"
    write_bundle(path, Spec(propensity_weight=1.0, candidates=6))
    engine = Engine.open(open_bundle(path), device="cpu")
    bags = engine.prepare([GOLDEN_TEXTS[0]])
    found = engine.run(bags, 6, raw=True).top
    inverse_L = np.ones(40, dtype=np.float32)
    inverse_L[found.ids_QK[0]] = 1 / CalibratedScoring(CALIBRATION).probabilities(found.scores_QK)[0]
    np.save(path / layout.INVERSE_PROPENSITIES, inverse_L)
    resign(path)
    top = Engine.open(open_bundle(path), device="cpu").run(bags, 6).top
    labels = tuple(
        ScoredLabel(id=engine.labels.id(row), score=score)
        for row, score in zip(top.ids_QK[0].tolist(), top.scores_QK[0].tolist(), strict=True)
    )
    assert abs(labels[0].score - labels[5].score) > 0.1
    for order in (labels, labels[::-1]):
        expect_golden(path, order).check_golden()
    halved = labels[0].model_copy(update={"score": labels[0].score / 2})
    with pytest.raises(BundleError, match="golden query 0"):
        expect_golden(path, (halved, *labels[1:])).check_golden()


def test_a_model_says_what_its_scores_are(tmp_path: Path) -> None:
    specs = {
        "raw": Spec(),
        "calibrated": Spec(calibrated=True),
        "re-ranked": Spec(propensity_weight=0.5),
    }
    found = {}
    for name, spec in specs.items():
        write_bundle(tmp_path / name, spec)
        with serving(tmp_path / name) as service:
            found[name] = service.client.get("/v1/models/tiny").json()
    assert [detail["scores"] for detail in found.values()] == ["raw", "calibrated", "calibrated"]
    assert [detail.get("propensity_weight") for detail in found.values()] == [None, None, 0.5]
    assert len({detail["version"] for detail in found.values()}) == 3


def test_min_score_is_of_served_scores_in_whatever_order(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(propensity_weight=3.0))
    with serving(tmp_path / "bundle") as service:
        body = {"queries": [TEXT], "k": 20}
        labels = service.predict(body).json()["predictions"][0]["labels"]
        scores = [label["score"] for label in labels]
        assert scores != sorted(scores, reverse=True)
        bound = sorted(scores)[10]
        kept = service.predict(body | {"min_score": bound}).json()["predictions"][0]["labels"]
    assert kept == [label for label in labels if label["score"] >= bound]


def test_the_best_score_is_watched_wherever_it_stands(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(propensity_weight=3.0))
    with serving(tmp_path / "bundle") as service:
        labels = service.predict({"queries": [TEXT], "k": 20}).json()["predictions"][0]["labels"]
        text = service.client.get("/metrics").text
    first, best = labels[0]["score"], max(label["score"] for label in labels)
    buckets = re.findall(r'xmc_top_score_bucket\{le="([^"]+)".*\} (\S+)', text)
    limits = [float(limit) for limit, _ in buckets]
    assert any(first <= limit < best for limit in limits), "this test needs two scores in different buckets"
    assert [float(count) for _, count in buckets] == [float(limit >= best) for limit in limits]
