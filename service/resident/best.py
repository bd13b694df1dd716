"""The best of many scores as nodes of a graph.

A sort of a whole row is slow on a GPU, where one block of threads does it. The k best of N scores lie in those k groups
of neighbours whose largest scores are best: so one pass leaves N / 32 scores, from which groups are chosen by the same
means, and the best are taken from the k * 32 members.

Letters: Q queries, N scores of each, G groups.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from service.resident.graph import Nodes, Value

GROUP = 32
# Scores that are sorted as they are. Measured on an H100: 40,000 took no longer than a second round of groups.
SORTED = 1 << 17


def sizes(count: int) -> list[int]:
    """N, a multiple of what it is divided by, and the number of groups in each round, for ``count`` scores or more."""
    rounds = 0
    while -(-count // GROUP**rounds) > SORTED:
        rounds += 1
    groups = -(-count // GROUP**rounds)
    return [groups * GROUP**left for left in range(rounds, -1, -1)]


def counts(sizes: list[int], k: int) -> dict[str, NDArray[np.int64]]:
    """Inputs of the graph: how many scores are chosen in each round to get the k best, k at most N."""
    return {_name(level): np.array([min(k, size)]) for level, size in enumerate(sizes)}


def inputs(sizes: list[int]) -> dict[str, Value]:
    """The types of these inputs."""
    return {_name(level): (TensorProto.INT64, [1]) for level in range(len(sizes))}


def add_best(nodes: Nodes, scores: str, sizes: list[int]) -> tuple[str, str]:
    """Add what finds the best of (Q, N) scores.

    Returns:
        The best, falling, and their places among the N, (Q, k) each.
    """
    rounds = [scores]
    for size, groups in pairwise(sizes):
        row = nodes.add("Reshape", rounds[-1], nodes.constant(np.array([0, 1, size])))
        largest = nodes.add("MaxPool", row, kernel_shape=[GROUP], strides=[GROUP])
        rounds.append(nodes.add("Reshape", largest, nodes.constant(np.array([0, groups]))))
    best, places = nodes.top(rounds[-1], _name(len(rounds) - 1))
    for level in range(len(rounds) - 2, -1, -1):
        best, places = _best_members(nodes, rounds[level], sizes[level + 1], places, _name(level))
    return best, places


def _best_members(nodes: Nodes, scores: str, groups: int, chosen: str, k: str) -> tuple[str, str]:
    """The best among the members of the chosen groups."""
    flat = nodes.constant(np.array([0, -1]))
    grouped = nodes.add("Reshape", scores, nodes.constant(np.array([0, groups, GROUP])))
    chosen = nodes.add("Unsqueeze", chosen, nodes.constant(np.array([2])))
    members = nodes.add("Reshape", nodes.add("GatherND", grouped, chosen, batch_dims=1), flat)
    first = nodes.add("Mul", chosen, nodes.constant(np.array(GROUP)))
    places = nodes.add("Reshape", nodes.add("Add", first, nodes.constant(np.arange(GROUP)[None, None])), flat)
    best, order = nodes.top(members, k)
    return best, nodes.add("GatherElements", places, order, axis=1)


def _name(level: int) -> str:
    return f"k.{level}"
