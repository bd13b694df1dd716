"""What is served as a score: training's probabilities to the digit, and re-ranking as a plain sort would do it."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.bundle.manifest import CalibrationSection
from service.scoring import CalibratedScoring, PropensityScoring
from service.search.topk import TopK
from tests.bundles import CALIBRATION
from training.calibration import Calibration, IsotonicMap, PlattMap, RankMap

SCORES = st.floats(-1000, 1000, width=32)
SHARES = st.floats(0, 1)
LABELS = 30


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    """As training stores them: any maps, from any ranks on."""
    firsts = [1, *sorted(draw(st.sets(st.integers(2, 12), max_size=3)))]
    return Calibration(
        ranks=tuple(RankMap(first_rank=first, map=draw(st.one_of(PLATT, isotonic()))) for first in firsts)
    )


PLATT = st.builds(PlattMap, slope=st.floats(0, 50), intercept=st.floats(-100, 100))


@st.composite
def isotonic(draw: st.DrawFn) -> IsotonicMap:
    scores = sorted(draw(st.sets(SCORES, min_size=1, max_size=6)))
    shares = sorted(draw(st.lists(SHARES, min_size=len(scores), max_size=len(scores))))
    return IsotonicMap(scores=tuple(scores), probabilities=tuple(shares))


@st.composite
def answers(draw: st.DrawFn, most: int = LABELS) -> TopK:
    """What a decoder finds: distinct labels, raw scores that fall in each row."""
    queries, count = draw(st.integers(1, 4)), draw(st.integers(1, most))
    scores = draw(hnp.arrays(np.float32, (queries, count), elements=st.one_of(SCORES, st.sampled_from([0.0, 1.0]))))
    ids = [draw(st.permutations(range(LABELS)))[:count] for _ in range(queries)]
    return TopK(np.array(ids, dtype=np.int64), -np.sort(-scores, axis=1))


@given(calibrations(), answers())
def test_served_probabilities_are_trainings(calibration: Calibration, found: TopK) -> None:
    scoring = CalibratedScoring(CalibrationSection.model_validate(calibration.model_dump()))
    ranked = scoring.serve(found, found.ids_QK.shape[1])
    expected = calibration.probabilities(found.scores_QK)
    np.testing.assert_allclose(ranked.top.scores_QK, expected, rtol=1e-6, atol=1e-12)
    assert ranked.top.scores_QK.dtype == np.float32
    assert ((ranked.top.scores_QK >= 0) & (ranked.top.scores_QK <= 1)).all()
    assert (np.diff(ranked.top.scores_QK, axis=1) <= 0).all()
    np.testing.assert_array_equal(ranked.top.ids_QK, found.ids_QK)
    np.testing.assert_array_equal(ranked.keys_QK, found.scores_QK)


INVERSE = hnp.arrays(np.float32, LABELS, elements=st.floats(0.5, 40, width=32))


def reranker(inverse_L: NDArray[np.float32], weight: float, candidates: int) -> PropensityScoring:
    return PropensityScoring(CalibratedScoring(CALIBRATION), inverse_L, weight, candidates)


@given(answers(), INVERSE, st.sampled_from([0.25, 1.0, 3.0]), st.integers(1, LABELS), st.integers(1, LABELS))
def test_re_ranking_is_a_sort_of_the_candidates(
    found: TopK, inverse_L: NDArray[np.float32], weight: float, candidates: int, k: int
) -> None:
    scoring = reranker(inverse_L, weight, candidates)
    ranked = scoring.serve(found, k)
    probabilities_QK = CalibratedScoring(CALIBRATION).probabilities(found.scores_QK)
    for query, (ids, shares) in enumerate(zip(found.ids_QK.tolist(), probabilities_QK.tolist(), strict=True)):
        keys = [share * math.pow(inverse_L[id_], weight) for id_, share in zip(ids, shares, strict=True)]
        order = sorted(range(min(candidates, len(ids))), key=lambda place: -keys[place])
        order = (order + list(range(len(order), len(ids))))[:k]
        np.testing.assert_allclose(ranked.keys_QK[query], [keys[place] for place in order], rtol=1e-9)
        # Labels whose keys are equal but for rounding may stand in either order.
        if len(set(np.round(keys, 12))) == len(keys):
            assert ranked.top.ids_QK[query].tolist() == [ids[place] for place in order]
        own = dict(zip(ids, shares, strict=True))
        assert ranked.top.scores_QK[query].tolist() == [own[id_] for id_ in ranked.top.ids_QK[query].tolist()]


@given(answers(), INVERSE, st.integers(1, LABELS), st.integers(1, LABELS), st.integers(1, LABELS))
def test_a_shorter_answer_is_the_beginning_of_a_longer_one(
    found: TopK, inverse_L: NDArray[np.float32], candidates: int, few: int, many: int
) -> None:
    """Else the answer would hang on the company in its batch, which is decoded for the largest k."""
    scoring = reranker(inverse_L, 1.0, candidates)
    few, many = min(few, many), max(few, many)
    answers = []
    for k in (few, many):
        wanted = scoring.wanted(k)
        assert wanted >= k
        part = TopK(found.ids_QK[:, :wanted], found.scores_QK[:, :wanted])
        answers.append(scoring.serve(part, k))
    np.testing.assert_array_equal(answers[0].top.ids_QK, answers[1].top.ids_QK[:, :few])
    np.testing.assert_array_equal(answers[0].top.scores_QK, answers[1].top.scores_QK[:, :few])
