from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bags import Bag
from service.bundle import open_bundle
from service.engine import Answer, Engine
from service.models.cost import LOOP_SECONDS, ROWS, measure, useful_runners
from service.search.topk import TopK
from tests.bundles import Spec, write_bundle
from tests.service.serving import serving

TOKENS = 10


class Stopwatch:
    """An engine whose batches take what it is told, whatever the clock says."""

    golden_queries = ("short", "long")

    def __init__(self, batch_seconds: float, token_seconds: float, search_seconds: float) -> None:
        self._batch, self._token, self._search = batch_seconds, token_seconds, search_seconds

    def prepare(self, queries: Sequence[str]) -> list[Bag]:
        return [Bag(np.arange(size), np.ones(size, np.float32)) for size in (1, TOKENS)]

    def run(self, bags: Sequence[Bag], k: int) -> Answer:
        encode_seconds = self._batch + self._token * sum(bag.ids.size for bag in bags)
        top: Any = TopK(np.zeros((len(bags), k), np.int64), np.zeros((len(bags), k), np.float32))
        return Answer(top, top.scores_QK, encode_seconds, self._search, 0.0)


@pytest.mark.parametrize(
    ("batch", "token", "search", "tokens"), [(3.0, 1.0, 2.0, 5.0), (0.0, 1.0, 0.0, 0.0), (3.0, 0.0, 2.0, math.inf)]
)
def test_a_batch_costs_what_is_left_of_a_lone_query_without_its_tokens(
    batch: float, token: float, search: float, tokens: float
) -> None:
    engine: Any = Stopwatch(batch, token, search)
    cost = measure(engine)
    assert cost.batch_in_tokens == pytest.approx(tokens)
    assert cost.lone_seconds == pytest.approx(batch + search + token * TOKENS)
    assert cost.query_seconds == pytest.approx((batch + search) / ROWS[1] + token * TOKENS)


def test_a_real_engine_has_a_cost(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec())
    engine = Engine.open(open_bundle(tmp_path / "bundle"), device="cpu")
    cost = measure(engine)
    assert cost.query_seconds > 0
    assert cost.batch_in_tokens >= 0


@pytest.mark.parametrize(
    ("processors", "loops", "runners"),
    [(1, 100, 1), (1, 0.01, 1), (2, 20, 2), (2, 5, 2), (2, 2, 1), (2, 0.1, 1), (16, 100, 16), (16, 3, 3), (16, 1, 1)],
)
def test_the_dearer_queries_are_the_more_runners_pay(processors: int, loops: float, runners: int) -> None:
    assert useful_runners(processors, loops * LOOP_SECONDS) == runners


@pytest.mark.parametrize(("given", "runners"), [(3, 3), (None, 2)])
def test_a_model_has_the_runners_that_are_asked_for_or_useful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int | None, runners: int
) -> None:
    monkeypatch.setattr("service.models.worker.useful_runners", lambda processors, seconds: 2)
    write_bundle(tmp_path / "bundle", Spec())
    with serving(tmp_path / "bundle", runners=given) as service:
        assert service.model.runners == runners
