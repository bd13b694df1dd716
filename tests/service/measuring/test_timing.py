"""Latencies of single queries: every query asked in turn, alone, through the engine."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from service.bundle import open_bundle
from service.engine import Engine
from service.measuring.timing import TIMED_K, time_queries
from service.models.queries import Query
from tests.bundles import Spec, write_bundle


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(path, Spec(name="tiny"))
    return Engine.open(open_bundle(path), device="cpu")


class Counting(Engine):
    """An engine that remembers what it was asked."""

    asked: list[list[Query]]

    def prepare(self, queries: Sequence[Query]) -> list:  # type: ignore[type-arg]
        self.asked.append(list(queries))
        return super().prepare(queries)


def test_queries_are_asked_in_turn_and_alone(engine: Engine) -> None:
    counting = Counting.__new__(Counting)
    counting.__dict__ |= engine.__dict__ | {"asked": []}
    golden = engine.golden_queries
    latency = time_queries(counting, golden, 2 * len(golden) + 1, TIMED_K)
    assert counting.asked == [[query] for query in [*golden, *golden, golden[0]]]
    assert latency.queries == 2 * len(golden) + 1
    assert 0 < latency.p50_ms <= latency.p99_ms
    assert latency.prepare_p50_ms > 0


def test_figures_are_one_flat_object(engine: Engine) -> None:
    latency = time_queries(engine, engine.golden_queries, 1, TIMED_K)
    assert json.loads(latency.as_json()) == {
        "queries": 1,
        "p50_ms": latency.p50_ms,
        "p99_ms": latency.p50_ms,
        "prepare_p50_ms": latency.prepare_p50_ms,
    }


def test_golden_queries_are_those_of_the_manifest(engine: Engine) -> None:
    assert engine.golden_queries == [golden.query for golden in engine.manifest.golden]
