"""A journal of labels that were changed while they were served, and what of it goes into an export.

Labels that were added become the last of the bundle's labels, and those that are disabled a bitmap. The artifact may
have been trained with labels that were added once, and without labels that were disabled: nothing is left to do there.

Letters: L labels, W bytes of a bitmap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.errors import UsageError
from service.bundle.manifest import ChangesSection
from service.errors import BundleError
from service.filters.allowed import bits_of
from service.live.journal import read_journal


@dataclass(frozen=True)
class FoldedChanges:
    """What changes come to in a bundle.

    Attributes:
        added: texts of the labels that come behind the artifact's, by their ids, in their order.
        disabled: rows of the labels that are not answered, rising.
        known: labels that were added and that the artifact has.
        unknown: labels that are disabled and that there are not.
    """

    added: Mapping[str, str] = field(default_factory=dict)
    disabled: Sequence[int] = ()
    known: int = 0
    unknown: int = 0

    @property
    def section(self) -> ChangesSection | None:
        """What the manifest says; None where nothing changes."""
        if not self.added and not self.disabled:
            return None
        return ChangesSection(zero_shot=len(self.added), disabled=len(self.disabled))

    def bits_W(self, label_count: int) -> NDArray[np.uint8]:
        """Bitmap of the labels that are not answered; see `service.filters.allowed`."""
        return bits_of(np.array(self.disabled, dtype=np.int64), label_count)


def fold(journal: Path, label_ids: Sequence[str]) -> FoldedChanges:
    """Read a journal for an export.

    Args:
        journal: the file.
        label_ids: of the artifact.

    Raises:
        UsageError: it is not there or no journal, or would leave no label to answer.
    """
    if not journal.exists():
        raise UsageError(f"--journal {journal}: expected a journal of labels, found nothing")
    try:
        changes = read_journal(journal)
    except BundleError as error:
        raise UsageError(f"--journal {error}") from error
    trained = set(label_ids)
    added = {id_: text for id_, text in changes.added.items() if id_ not in trained}
    rows = {id_: row for row, id_ in enumerate([*label_ids, *added])}
    disabled = sorted(rows[id_] for id_ in changes.disabled if id_ in rows)
    if len(disabled) == len(rows):
        raise UsageError(
            f"--journal {journal}: expected a label that is not disabled, found all {len(rows):,} disabled"
        )
    return FoldedChanges(
        added=added,
        disabled=disabled,
        known=len(changes.added) - len(added),
        unknown=len(changes.disabled) - len(disabled),
    )
