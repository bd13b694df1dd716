"""Training points whose text is that of a label: whether points and labels are of one kind.

Letters: L labels.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy.sparse import csr_array

from training.data.batches import Rows


def rows_with_label_texts(train: Rows, label_bags: csr_array) -> dict[int, int]:
    """The last training row for each label whose text, as a bag, is that of one."""
    labels_of = defaultdict(list)
    for label in range(label_bags.shape[0]):
        labels_of[_key(label_bags, label)].append(label)
    rows = {}
    for row in range(len(train)):
        for label in labels_of.get(_key(train.inputs, row), ()):
            rows[label] = row
    return rows


def have_their_labels(train: Rows, twins: dict[int, int]) -> bool:
    """Whether training rows with a label's text mostly have that label; true without such rows.

    Where points and labels are of one kind (products that are bought together, packages that need each other), a text
    is hardly ever labelled with itself, and to teach that it is would be wrong for every query of that kind.
    """
    indptr, indices = train.targets.indptr, train.targets.indices
    found = [label in indices[indptr[row] : indptr[row + 1]] for label, row in twins.items()]
    return not found or bool(np.mean(found) >= 0.5)


def _key(bags: csr_array, row: int) -> bytes:
    """Equal for equal bags."""
    low, high = bags.indptr[row : row + 2]
    return bytes(bags.indices[low:high].tobytes() + bags.data[low:high].tobytes())
