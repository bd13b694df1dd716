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

# Which labels a query wants: ids of labels that are allowed and of labels that are not, each a list as JSON, and names
# of groups. None: there is no such condition.
Filter = tuple[bytes | None, bytes | None, tuple[str, ...] | None]

# One query, how many labels it wants, the score below which it wants none, which (None: of all), whether it asks why.
Asked = tuple[Query, int, float | None, Filter | None, bool]

# Its answer: the JSON of a `Prediction`, and the seconds in which its batch was encoded and searched.
Labelled = tuple[bytes, float, float]
