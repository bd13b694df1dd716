"""From a request's ids and names of groups to the labels that it allows."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np

from service.bundle import Bundle, LabelTable, layout
from service.errors import InvalidRequest, shown
from service.filters.allowed import Allowed, Bits, Rows, all_bits, bits_of, widened
from service.models.queries import Filter

# A tenant's list comes with every request of his. Of 10,000 among 1,000,000 ids, finding the labels takes 3 to 10 ms.
KEPT = 32
SHOWN_GROUPS = 8


class Resolver:
    """Finds a bundle's labels; ``resolve`` may be called from several threads.

    Args:
        bundle: with a table of ids or groups, or without both.
        labels: the bundle's and others behind them, that are in no group; None: the bundle's.
    """

    def __init__(self, bundle: Bundle, labels: LabelTable | None = None) -> None:
        self._manifest = bundle.manifest
        self._labels = bundle.labels if labels is None else labels
        names = sorted(bundle.manifest.groups)
        self._groups: dict[str, Bits] = dict(zip(names, bundle.arrays.get(layout.LABEL_GROUPS, ()), strict=True))
        self.resolve = lru_cache(KEPT)(self._resolved)

    def _resolved(self, wanted: Filter) -> Allowed:
        """The labels that a filter allows: those of the list, if there is one, in any of the groups, if some are named.

        Raises:
            InvalidRequest: an id or a group is unknown; the sentence names the first.
        """
        allow, deny, groups = wanted
        count = len(self._labels)
        bits_W = all_bits(count) if allow is None else bits_of(self._rows("allow", allow), count)
        if groups is not None:
            named_W = np.bitwise_or.reduce([self._group(place, name) for place, name in enumerate(groups)])
            bits_W &= widened(named_W, count)
        if deny is not None:
            bits_W &= ~bits_of(self._rows("deny", deny), count)
        return Allowed.of_bits(bits_W)

    def _rows(self, field: str, ids: bytes) -> Rows:
        if self._labels.slots is None:
            raise InvalidRequest(
                f"filter.{field}: expected a bundle with {layout.LABEL_SLOTS}, by which labels are found; "
                f"{self._manifest.name} was exported before there was such a file"
            )
        rows_N = self._labels.find(ids)
        unknown = np.flatnonzero(rows_N < 0)
        if unknown.size:
            place = int(unknown[0])
            raise InvalidRequest(
                f"filter.{field}[{place}]: expected the id of a label of {self._manifest.name}, "
                f"found {shown(json.loads(ids)[place])}"
            )
        return rows_N

    def _group(self, place: int, name: str) -> Bits:
        if name not in self._groups:
            known = [shown(group) for group in list(self._groups)[:SHOWN_GROUPS]]
            more = ["others"] * (len(self._groups) > SHOWN_GROUPS)
            raise InvalidRequest(
                f"filter.groups[{place}]: expected a group of {self._manifest.name} "
                f"({', '.join(known + more) or 'it has none'}), found {shown(name)}"
            )
        return self._groups[name]
