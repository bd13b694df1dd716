"""Rows cut into batches: every row once an epoch, with its own bag and labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.synthetic import matrix
from training.data.batches import Bags, Batch, Positives, Rows
from training.team import ALONE

Cells = list[dict[int, float]]

cells = st.lists(st.dictionaries(st.integers(0, 6), st.floats(0.125, 9, width=32), max_size=4), min_size=1, max_size=9)


def bag_cells(bags: Bags) -> Cells:
    ends = bags.offsets.tolist()
    pairs = list(zip(bags.ids.tolist(), bags.values.tolist(), strict=True))
    return [dict(pairs[start:end]) for start, end in pairwise(ends)]


def label_cells(positives: Positives, queries: int) -> Cells:
    found: Cells = [{} for _ in range(queries)]
    for query, label, relevance in zip(positives.queries, positives.labels, positives.relevances, strict=True):
        found[int(query)][int(label)] = float(relevance)
    return found


@given(inputs=cells, data=st.data())
def test_a_batch_holds_the_cells_of_its_rows(inputs: Cells, data: st.DataObject) -> None:
    targets = data.draw(st.lists(cells.map(lambda rows: rows[0]), min_size=len(inputs), max_size=len(inputs)))
    rows = Rows(matrix(inputs, 7), matrix(targets, 7))
    order = np.array(data.draw(st.permutations(range(len(inputs)))))
    batch = Batch.from_rows(rows, order)
    assert len(batch) == len(batch.bags) == len(inputs)
    assert batch.rows.tolist() == order.tolist()
    assert bag_cells(batch.bags) == [inputs[row] for row in order]
    assert label_cells(batch.positives, len(order)) == [targets[row] for row in order]
    assert (batch.bags.ids.dtype, batch.bags.values.dtype) == (torch.int64, torch.float32)
    lengths = [len(inputs[row]) for row in order]
    assert batch.bags.rows().tolist() == np.repeat(np.arange(len(order)), lengths).tolist()


@given(order=st.permutations(range(20)), size=st.integers(1, 8))
def test_batches_follow_the_order_given(order: list[int], size: int) -> None:
    cells = matrix([{row: 1.0} for row in range(20)], 20)
    batches = list(ALONE.batches(Rows(cells, cells), np.array(order), size))
    assert [row for batch in batches for row in batch.rows.tolist()] == order
    assert torch.cat([batch.bags.ids for batch in batches]).tolist() == order
    assert torch.cat([batch.positives.labels for batch in batches]).tolist() == order
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
