"""Queries and answers as they cross between the process that speaks HTTP and one that computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Features:
    """A sparse query: values at distinct indices, in any order."""

    indices: Sequence[int]
    values: Sequence[float]


Query = str | Features

# One query, how many labels it wants, and the score below which it wants none.
Asked = tuple[Query, int, float | None]

# Its answer: the JSON of a `Prediction`, and the seconds in which its batch was encoded and searched.
Labelled = tuple[bytes, float, float]
