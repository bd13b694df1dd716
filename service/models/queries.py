"""Queries and answers as they cross between the process that speaks HTTP and one that computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Features:
    """A sparse query: values at distinct indices, in any order."""

    indices: Sequence[int]
    values: Sequence[float]


Query = str | Features

# Which labels a query wants: ids of labels that are allowed and of labels that are not, each a list as JSON, and names
# of groups. None: there is no such condition.
Filter = tuple[bytes | None, bytes | None, tuple[str, ...] | None]


class Wish(NamedTuple):
    """What a request wants of each of its queries.

    Attributes:
        k: so many labels.
        min_score: none with a score below it.
        filter: only these; None: of all.
        explain: why each has its score, too.
        partial: the best of some labels rather than none, where others cannot be searched.
    """

    k: int
    min_score: float | None = None
    filter: Filter | None = None
    explain: bool = False
    partial: bool = False


# One query and what is wanted of it, see `Wish`; plain, because a class takes longer to cross.
Asked = tuple[Query, int, float | None, Filter | None, bool, bool]

# Its answer: the JSON of a `Prediction`, and the seconds in which its batch was encoded and searched.
Labelled = tuple[bytes, float, float]
