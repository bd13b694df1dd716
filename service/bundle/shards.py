"""The manifest's section on a bundle whose method's tables lie in others, its shards, each with a part of the rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from service.bundle.strict import Count, Sha256, Strict

# The folder of a bundle that names shards, which lie beside it.
HEAD = "head"


class ShardEntry(Strict):
    """One shard: a bundle of its own, beside the one that names it.

    Attributes:
        folder: its name.
        sha256: of its ``manifest.json``, which holds the digests of all its other files.
        first: row that is its row 0: of a label, or of a training row of DECLARE.
        count: of its rows.
    """

    folder: Annotated[str, Field(pattern=r"^shard-\d+$")]
    sha256: Sha256
    first: Annotated[int, Field(ge=0)]
    count: Count


def first_gap(shards: tuple[ShardEntry, ...]) -> int | None:
    """The place of the first shard that does not begin where the one before it ends; None where there is none."""
    end = 0
    for place, shard in enumerate(shards):
        if shard.first != end:
            return place
        end += shard.count
    return None


def row_count(shards: tuple[ShardEntry, ...]) -> int:
    """Rows of all of them."""
    return sum(shard.count for shard in shards)
