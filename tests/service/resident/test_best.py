from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import TensorProto

from service.resident import best
from service.resident.graph import Nodes, ResidentGraph
from tests.reference import best_labels
from tests.service.resident.devices import DEVICES, on


def chosen(
    scores_QN: NDArray[np.float32], k: int, device: str = "cpu"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best scores and their places, by the graph; rows are filled up as decoders do it."""
    Q, N = scores_QN.shape
    sizes = best.sizes(N)
    filled = np.full((Q, sizes[0]), -np.inf, dtype=np.float32)
    filled[:, :N] = scores_QN
    nodes = Nodes()
    values, places = best.add_best(nodes, "scores", sizes)
    model = nodes.model(
        {"scores": (TensorProto.FLOAT, ["Q", sizes[0]]), **best.inputs(sizes)},
        {"values": (values, (TensorProto.FLOAT, ["Q", "K"])), "places": (places, (TensorProto.INT64, ["Q", "K"]))},
    )
    found, where = ResidentGraph(model, {}, device).run({"scores": on(device, filled)}, best.counts(sizes, k))
    return found, where


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 5, 40, 300])
@pytest.mark.parametrize("count", [300, 131_072, 131_073, 200_000])
def test_the_best_are_those_of_a_sort(count: int, k: int, device: str) -> None:
    scores = np.random.default_rng(count).permutation(3 * count).reshape(3, count).astype(np.float32)
    values, places = chosen(scores, k, device)
    expected = best_labels(scores, k)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, axis=1))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scores=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=90),
        elements=st.floats(-100, 100, width=32),
    ),
    k=st.integers(1, 90),
    group=st.integers(2, 5),
    sorted_at_once=st.integers(1, 9),
)
def test_in_any_number_of_rounds(
    monkeypatch: pytest.MonkeyPatch, scores: NDArray[np.float32], k: int, group: int, sorted_at_once: int
) -> None:
    """The scores are the best, whatever the sizes; of equal ones the device may choose any."""
    monkeypatch.setattr(best, "GROUP", group)
    monkeypatch.setattr(best, "SORTED", sorted_at_once)
    k = min(k, scores.shape[1])
    values, places = chosen(scores, k)
    np.testing.assert_array_equal(values, -np.sort(-scores, axis=1)[:, :k])
    np.testing.assert_array_equal(values, np.take_along_axis(scores, places, axis=1))
    assert all(len(set(row)) == k for row in places.tolist())


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [1]),
        (1 << 17, [1 << 17]),
        ((1 << 17) + 1, [4097 * 32, 4097]),
        (50_000_000, [48829 * 1024, 48829 * 32, 48829]),
    ],
)
def test_sizes(count: int, expected: list[int]) -> None:
    assert best.sizes(count) == expected
