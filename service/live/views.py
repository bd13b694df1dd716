"""The labels as queries see them at one moment, and what a change makes of that.

A view never changes: who computes keeps the one it began with, and another takes its place for those who come later.
Rows are never given anew, so what one view has found means the same to all that follow it.

Letters: L labels of the bundle, A labels that were ever added, D dimensions, W bytes of a bitmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import orjson
from numpy.typing import NDArray

from service.bundle import Bundle, LabelTable, layout
from service.bundle.searching import UnidecSection
from service.decoders.base import Decoder
from service.decoders.widened import WidenedDecoder
from service.errors import Conflict
from service.filters.allowed import Allowed, Bits, all_bits, bits_of, widened
from service.filters.resolver import Resolver
from service.live.changes import LabelChange, NewLabel
from service.live.proposals import Decision, Reception
from service.live.table import WidenedTable

# Each query is multiplied with the vectors of all of them.
MOST_ADDED = 10_000

Vectors = NDArray[np.float32]
# Vectors of labels from their texts, (N, D).
Encode = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class View:
    """Labels at one moment.

    Attributes:
        labels: the bundle's, and those that were ever added behind them.
        decoder: finds the best of all these.
        filters: finds labels by ids and groups.
        disabled_W: bitmap of the labels that are not answered, those among them that were removed.
        allowed: all others; None where that is all.
        ever: labels that were ever added, in the order of their rows.
        rows: by id, the rows of those that have not been removed.
        vectors_AD: of those that were ever added.
    """

    labels: LabelTable
    decoder: Decoder
    filters: Resolver
    disabled_W: Bits
    allowed: Allowed | None
    ever: tuple[NewLabel, ...]
    rows: Mapping[str, int]
    vectors_AD: Vectors

    @property
    def denied(self) -> int:
        """How many labels are not answered."""
        return 0 if self.allowed is None else len(self.labels) - self.allowed.count


class LiveLabels:
    """A bundle's labels, which may change; one thread at a time may change them, while any read them.

    Args:
        bundle: verified.
        decoder: of the bundle.
        encode: makes vectors of new labels; a sentence that says why there is none.

    Attributes:
        view: of now.
    """

    def __init__(self, bundle: Bundle, decoder: Decoder, encode: Encode | str) -> None:
        self._bundle = bundle
        self._decoder = decoder
        self._encode = encode
        self.view = self._first()
        self._ready: View | None = None

    def propose(self, change: LabelChange) -> Reception:
        """Make a change ready, but for what cannot be done, which is left out and said.

        Raises:
            Conflict: labels of this bundle cannot be found by their ids, or too many are added.
            EngineFailed: the text of a label has no vector.
        """
        self._ready = None
        self._ready, reception = self._after(self.view, change)
        return reception

    def decide(self, decision: Decision) -> None:
        """Show the change that is ready, or drop it."""
        if decision is Decision.DONE and self._ready is not None:
            self.view = self._ready
        self._ready = None

    def _first(self) -> View:
        bundle, count = self._bundle, len(self._bundle.labels)
        disabled_W = bundle.arrays.get(layout.LABELS_DISABLED, bits_of(np.empty(0, dtype=np.int64), count))
        empty = np.empty((0, 0), dtype=np.float32)
        allowed = _allowed(disabled_W, count)
        return View(bundle.labels, self._decoder, Resolver(bundle), disabled_W, allowed, (), {}, empty)

    def _after(self, view: View, change: LabelChange) -> tuple[View, Reception]:
        if self._bundle.labels.slots is None:
            raise Conflict(
                f"{self._bundle.manifest.name} was exported before labels could be found by their ids: export it again"
            )
        named = [*(label.id for label in change.add), *change.remove]
        own = {id_: row for id_, row in _rows(self._bundle.labels, named).items() if row >= 0}
        new = [label for label in change.add if label.id not in own and label.id not in view.rows]
        refusal = self._encode if new and isinstance(self._encode, str) else None
        before, view = view, self._with(view, new if refusal is None else (), set(change.remove))
        gone = [row for id_, row in before.rows.items() if id_ not in view.rows]
        off, on = _rows(view.labels, change.disable), _rows(view.labels, change.enable)
        disabled_W = widened(view.disabled_W, len(view.labels)) & ~_bits(on.values(), view)
        disabled_W |= _bits([*off.values(), *gone], view)
        unknown = [id_ for id_, row in (off | on).items() if row < 0]
        shown = replace(view, disabled_W=disabled_W, allowed=_allowed(disabled_W, len(view.labels)))
        return shown, Reception(tuple(unknown), tuple(own), refusal)

    def _with(self, view: View, new: Sequence[NewLabel], removed: Set[str]) -> View:
        """A view with other added labels; that of which are disabled stays as it is."""
        if not new and removed.isdisjoint(view.rows):
            return view
        if len(view.ever) + len(new) > MOST_ADDED:
            raise Conflict(
                f"expected at most {MOST_ADDED:,} labels added to {self._bundle.manifest.name} since it was loaded, "
                "found more: export it with its journal"
            )
        vectors_AD = view.vectors_AD
        if new:
            assert not isinstance(self._encode, str)
            vectors_ND = self._encode([label.text for label in new])
            vectors_AD = np.concatenate([vectors_AD, vectors_ND]) if view.ever else vectors_ND
            vectors_AD.flags.writeable = False  # like those of bundles, for which kernels are compiled beforehand
        bundle, ever = self._bundle, (*view.ever, *new)
        added = {label.id: len(view.labels) + place for place, label in enumerate(new)}
        rows = {id_: row for id_, row in view.rows.items() if id_ not in removed} | added
        labels = WidenedTable(bundle.labels, ever, rows)
        section = bundle.manifest.method
        assert isinstance(section, UnidecSection)
        decoder = WidenedDecoder(self._decoder, section, vectors_AD, len(bundle.labels))
        filters = Resolver(bundle, labels)
        return View(labels, decoder, filters, view.disabled_W, view.allowed, ever, rows, vectors_AD)


def _rows(labels: LabelTable, ids: Sequence[str]) -> dict[str, int]:
    """Rows by id, -1 where there is none."""
    return dict(zip(ids, labels.find(orjson.dumps(ids)).tolist(), strict=True))


def _bits(rows: Iterable[int], view: View) -> Bits:
    known = [row for row in rows if row >= 0]
    return bits_of(np.array(known, dtype=np.int64), len(view.labels))


def _allowed(disabled_W: Bits, count: int) -> Allowed | None:
    return Allowed.of_bits(all_bits(count) & ~disabled_W) if disabled_W.any() else None
