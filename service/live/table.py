"""The labels of a bundle and those that were added since, in one table: added rows come behind the bundle's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.bundle import LabelTable
from service.bundle.labels import record_of
from service.live.changes import NewLabel


class WidenedTable(LabelTable):
    """A bundle's table with more labels behind its own; see `LabelTable`.

    A label that was removed keeps its row, so that no row ever means another label: what was found before still says
    what it said.

    Args:
        base: of the bundle, with slots.
        ever: the labels behind it in the order of their rows.
        rows: by id, the rows of those that can be found.
    """

    def __init__(self, base: LabelTable, ever: Sequence[NewLabel], rows: Mapping[str, int]) -> None:
        self.slots = base.slots
        self._base = base
        self._count = len(base)
        self._rows = rows
        self._records = [record_of(label.id, label.text, zero_shot=True)[:-1] for label in ever]

    def __len__(self) -> int:
        return self._count + len(self._records)

    def open_records(self, rows: Iterable[int]) -> list[bytes]:
        """See `LabelTable.open_records`."""
        count, records = self._count, self._records
        return [records[row - count] if row >= count else self._base.open_records([row])[0] for row in rows]

    def find(self, ids: bytes) -> NDArray[np.int64]:
        """See `LabelTable.find`."""
        rows_N = self._base.find(ids)
        unknown = np.flatnonzero(rows_N < 0)
        if unknown.size:
            names = json.loads(ids)
            rows_N[unknown] = [self._rows.get(names[place], -1) for place in unknown.tolist()]
        return rows_N
