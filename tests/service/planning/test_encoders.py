"""The encoder's file, held against the weights of models and a graph that export traces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from torch import Tensor, nn

from service.planning.encoders import MINILM, encoder_bytes, weights_of
from service.planning.workload import Method, Wishes, resolved
from tests.benchmarks.capacity.bundles import traced, untrained


def numbers(modules: Iterable[nn.Module]) -> int:
    """Weights and, of text encoders, what tokens weigh."""
    tensors: list[Tensor] = [tensor for module in modules for tensor in module.state_dict().values()]
    return sum(tensor.numel() for tensor in tensors)


def served(model: Any) -> list[nn.Module]:
    """What of a model becomes the graph."""
    names = ("encoder", "encoders", "head", "heads", "encoder_head", "classifier_head")
    return [module for name, module in model.named_children() if name in names]


@pytest.mark.parametrize("method", ["mach", "declare", "unidec", "ova"])
@pytest.mark.parametrize("dimension", [None, 64])
def test_a_bag_encoder_has_as_many_weights_as_planned(method: Method, dimension: int | None) -> None:
    workload = resolved(Wishes(method, 2_000, dimension=dimension, vocabulary=3_000))
    assert weights_of(workload).count == numbers(served(untrained(workload)))


def test_a_transformer_has_as_many_weights_as_planned() -> None:
    workload = resolved(Wishes("unidec", 2_000, encoder="transformer"))
    assert weights_of(workload).count == pytest.approx(numbers(served(untrained(workload))), rel=1e-3)
    assert weights_of(workload).table > MINILM.vocabulary * MINILM.width


def test_a_graph_is_as_large_as_its_weights() -> None:
    workload = resolved(Wishes("mach", 2_000, vocabulary=3_000))
    assert traced(workload).ByteSize() == pytest.approx(encoder_bytes(workload), rel=0.01)
