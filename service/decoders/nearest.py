"""The training rows nearest to a query without a look at most of them, exactly; compiled.

A row's similarity is the sum of its votes times its labels' scores t, divided by its length. With the size of a label's
factors taken out of t, c = t / size, it is a sum of a * c, where a = vote * size / length is the label's share of the
row. The shares of a row add up to its reach A, which is 1 for a row of one label and seldom above 3. A row that is as
near as s therefore has a label whose c is at least s / A, and it is found in that label's list.

1. Seeds. The rows of the few labels with the largest c are put in the order of what these labels alone give them; of
   the best, the similarities are computed, and those of enough neighbours are at least s.
2. Add. Walking the lists of labels with A * c > p * s, p a constant below 1, every row collects what they give it. Its
   other labels give it no more than p * s in all. With p = 1 a row that is met might always reach s; with p = 0.8
   that can be said of one in ten. Lists are in the order of A, falling: often their beginnings are enough.
3. Take. The similarities of rows that may reach s are computed.

Where rows are far from a query, walks get long. After so many steps that computing all similarities is cheaper, the
caller is told.

Shares are bounded by those of the row's largest vote, so that lists hold no number but the row.

Reading a member of a named tuple counts a reference, at the price of several steps: loops read none.

Letters: G rows, B blocks of them, L labels, P votes, N nearest, S seeding labels, M seeds. Lists hold rows by their
rank: the number that they have in the order of A.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.search.compiled import compiled
from service.search.heap import NOTHING, clear, push, sort_heap
from service.search.votes import Votes, row_product

Floats = NDArray[np.float32]
Integers = NDArray[Any]
Scalar = Any  # of Python or of numpy: compiled code takes either

# p. Measured on 600,000 training rows: a smaller one makes longer walks, a larger one leaves more rows to compute.
PART = 0.8
SEEDING_LABELS, SEEDING_STEPS, SEEDS_PER_ROW = 32, 1 << 14, 2
# Ranks of a block have nearly the same reach.
BLOCK_BITS = 8
# Rows that may be so much nearer than the bound are computed first: they raise it.
TAKEN_ABOVE = (1.3, 1.15, 1.0)
# A step along a list costs as much as so many votes when all similarities are computed.
STEP_COST = 6
# More than the roundings of a sum amount to, relative to it and for each of its terms.
ROUNDING = 2.0**-21

# Labels whose factors are all 0 have some size too, and no bound is so small that rounding could hide it.
TINY = 1e-20
# Keeps the sum of a row that was met above 0.
LEAST = np.float32(1e-30)


class Lists(NamedTuple):
    """What a search reads beside the votes; see the module.

    Attributes:
        sizes_L: length of each label's factors.
        peaks_L: largest reach in each label's list.
        starts_L: where each label's list begins, and the end: (L + 1,).
        ranks_P: rows by label, then rank.
        rows_G: row of each rank.
        reaches_B: largest A in each block of ranks, falling: few enough for a processor's nearest cache.
        masses_G: sum of the sizes of each rank's labels.
        longest: votes of the row that has most.
    """

    sizes_L: Floats
    peaks_L: Floats
    starts_L: Integers
    ranks_P: Integers
    rows_G: NDArray[np.int32]
    reaches_B: Floats
    masses_G: Floats
    longest: int


class Rows(NamedTuple):
    """Rows of votes, what similarities are divided by, and how many neighbours a row stands for."""

    starts_G: Integers
    labels_P: Integers
    values: Floats
    lengths_G: Floats
    counts_G: NDArray[np.int32]
    alike: bool


def fixed_rows(votes: Votes, lengths_G: Floats, counts_G: NDArray[np.int32]) -> Rows:
    """Read-only views: then compiled code is of one kind, whether arrays are mapped from files or not."""
    starts_G, labels_P, values = map(_fixed, (votes.starts_G, votes.labels_P, votes.values))
    return Rows(starts_G, labels_P, values, _fixed(lengths_G), _fixed(counts_G), votes.alike)


def _fixed(array: NDArray[Any]) -> NDArray[Any]:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


class Room(NamedTuple):
    """What a search works in.

    Attributes:
        sums_G: 0 before and after.
        ranks_G: ranks that were met; one place more than ranks.
        gains_G: what each of them has collected.
    """

    sums_G: Floats
    ranks_G: NDArray[np.int32]
    gains_G: Floats


def make_room(rows: int) -> Room:
    """Room for one search at a time among so many rows."""
    return Room(np.zeros(rows, np.float32), np.empty(rows + 1, np.int32), np.empty(rows, np.float32))


def make_lists(votes: Votes, factors_LC: Floats, lengths_G: Floats) -> Lists:
    """Lists of rows by label.

    Args:
        votes: of the rows.
        factors_LC: of the labels.
        lengths_G: of the rows, above 0.
    """
    counts_G = np.diff(votes.starts_G)
    sizes_L = np.maximum(np.linalg.norm(factors_LC, axis=1), TINY).astype(np.float32)
    is_label_GL = csr_array(
        (np.ones(len(votes.labels_P), np.int8), votes.labels_P.astype(np.int32), votes.starts_G),
        (votes.row_count, votes.label_count),
    )
    masses_G = is_label_GL @ sizes_L
    reaches_G = masses_G.astype(np.float64) * votes.largest_G() / lengths_G
    rows_G = np.argsort(-reaches_G, kind="stable").astype(np.int32)
    by_label = is_label_GL[rows_G].tocsc()  # ranks rise in each list: a transposition takes them in order
    starts_L, ranks_P = by_label.indptr, by_label.indices.astype(np.int32, copy=False)
    slack = 1 + (int(counts_G.max()) + 8) * ROUNDING
    reaches_B = (reaches_G[rows_G[:: 1 << BLOCK_BITS]] * slack).astype(np.float32)
    peaks_L = np.zeros(len(sizes_L), dtype=np.float32)
    listed_L = np.diff(starts_L) > 0
    peaks_L[listed_L] = reaches_B[ranks_P[starts_L[:-1][listed_L]] >> BLOCK_BITS]
    return Lists(sizes_L, peaks_L, starts_L, ranks_P, rows_G, reaches_B, masses_G[rows_G], longest=int(counts_G.max()))


@compiled
def search(scores_L: Floats, rows: Rows, lists: Lists, room: Room, ids_N: NDArray[np.int64], best_N: Floats) -> bool:
    """Nearest rows of one query, nearest first, ties by row: as many as stand for N neighbours.

    Args:
        scores_L: t, finite.
        rows: of votes.
        lists: made of them.
        room: that no other thread has.
        ids_N: takes the rows, and after them rows that are no neighbours, or none: 0. N is at most G.
        best_N: takes their similarities; of none, minus infinity.

    Returns:
        Whether they were found, and all have similarities above 0. If not, computing all similarities is cheaper.
    """
    cosines_L = np.empty(len(scores_L), np.float32)
    _fill_cosines(scores_L, lists, cosines_L)
    bound = _seed(scores_L, cosines_L, rows, lists, room, ids_N, best_N)
    if bound <= TINY:
        return False
    met = _add(cosines_L, lists, bound, room)
    if met < 0:
        return False
    clear(ids_N, best_N)
    _take(scores_L, rows, lists, bound, room, met, ids_N, best_N)
    sort_heap(ids_N, best_N)
    return True


@compiled
def _fill_cosines(scores_L: Floats, lists: Lists, cosines_L: Floats) -> None:
    """Every c, with what rounding may hide in a sum of as many as the longest row has."""
    sizes_L, largest = lists.sizes_L, np.float32(0)
    for label in range(len(scores_L)):
        cosine = scores_L[label] / sizes_L[label]
        cosines_L[label] = cosine
        largest = max(largest, abs(cosine))
    margin = np.float32(largest * (lists.longest + 8) * ROUNDING)
    for label in range(len(scores_L)):
        cosines_L[label] += margin


@compiled
def _seed(
    scores_L: Floats,
    cosines_L: Floats,
    rows: Rows,
    lists: Lists,
    room: Room,
    ids_N: NDArray[np.int64],
    best_N: Floats,
) -> Scalar:
    """A similarity that rows which stand for N neighbours reach, or 0."""
    rows_G, reaches_B, (_, ranks_G, gains_G) = lists.rows_G, lists.reaches_B, room
    met = _add_best(cosines_L, lists, room)
    ranks_M = np.empty(SEEDS_PER_ROW * len(ids_N), np.int64)
    best_M = np.empty(len(ranks_M), np.float32)
    clear(ranks_M, best_M)
    for place in range(met):
        gained = gains_G[place] * reaches_B[ranks_G[place] >> BLOCK_BITS]
        if gained > best_M[0]:
            push(ranks_M, best_M, ranks_G[place], gained)
    clear(ids_N, best_N)
    for place in range(len(ranks_M)):
        if best_M[place] > NOTHING:
            row = rows_G[ranks_M[place]]
            push(ids_N, best_N, row, _similarity(scores_L, rows, row))
    sort_heap(ids_N, best_N)
    return _last(rows, ids_N, best_N)


@compiled
def _add_best(cosines_L: Floats, lists: Lists, room: Room) -> int:
    """Collect what the labels with the largest c give to rows: how many rows were met."""
    sizes_L, starts_L, ranks_P = lists.sizes_L, lists.starts_L, lists.ranks_P
    sums_G, ranks_G, gains_G = room
    labels_S, cosines_S = np.empty(SEEDING_LABELS, np.int64), np.empty(SEEDING_LABELS, np.float32)
    _fill_best(cosines_L, lists.peaks_L, labels_S, cosines_S)
    met, left = 0, SEEDING_STEPS
    for seed in range(SEEDING_LABELS):
        if cosines_S[seed] <= 0 or left <= 0:
            break
        label = labels_S[seed]
        gain = max(sizes_L[label] * cosines_S[seed], LEAST)
        first, last = starts_L[label], starts_L[label + 1]
        for entry in range(first, min(last, first + left)):
            met = _collect(ranks_P[entry], gain, sums_G, ranks_G, met)
        left -= last - first
    _settle(lists.masses_G, sums_G, ranks_G, gains_G, met)
    return met


@compiled
def _collect(rank: Scalar, gain: Scalar, sums_G: Floats, ranks_G: NDArray[np.int32], met: int) -> int:
    """Add to a row's sum: how many rows were met."""
    total = sums_G[rank]
    sums_G[rank] = total + gain
    ranks_G[met] = rank
    return met + int(total == 0)  # no branch: a processor would often guess it wrong


@compiled
def _settle(masses_G: Floats, sums_G: Floats, ranks_G: NDArray[np.int32], gains_G: Floats, met: int) -> None:
    """Turn the sums of the rows that were met into gains, for each unit of mass, and clear them."""
    for place in range(met):
        rank = ranks_G[place]
        gains_G[place] = sums_G[rank] / masses_G[rank]
        sums_G[rank] = 0


@compiled
def _fill_best(cosines_L: Floats, peaks_L: Floats, labels_S: NDArray[np.int64], cosines_S: Floats) -> None:
    """The labels with the largest c of those that have rows, best first."""
    clear(labels_S, cosines_S)
    for label in range(len(cosines_L)):
        if cosines_L[label] > cosines_S[0] and peaks_L[label] > 0:
            push(labels_S, cosines_S, label, cosines_L[label])
    sort_heap(labels_S, cosines_S)


@compiled
def _last(rows: Rows, ids_N: NDArray[np.int64], best_N: Floats) -> Scalar:
    """Similarity of the last of N neighbours, where rows are listed nearest first; 0 if they are too few."""
    missing = len(ids_N)
    for place in range(len(ids_N)):
        if best_N[place] > 0:
            missing -= rows.counts_G[ids_N[place]]
            if missing <= 0:
                return best_N[place]
    return np.float32(0)


@compiled
def _add(cosines_L: Floats, lists: Lists, bound: Scalar, room: Room) -> int:
    """Collect what labels give to rows: how many rows were met, or -1 if there are too many steps."""
    sizes_L, peaks_L, starts_L = lists.sizes_L, lists.peaks_L, lists.starts_L
    ranks_P, reaches_B, (sums_G, ranks_G, gains_G) = lists.ranks_P, lists.reaches_B, room
    part, met, left = np.float32(PART * bound), 0, len(ranks_P) // STEP_COST
    for label in range(len(cosines_L)):
        cosine, size = cosines_L[label], sizes_L[label]
        if cosine * peaks_L[label] <= part:
            continue
        first, entry, end = starts_L[label], starts_L[label], starts_L[label + 1]
        while entry < end:
            rank = ranks_P[entry]
            excess = reaches_B[rank >> BLOCK_BITS] * cosine - part
            if excess <= 0:
                break
            met = _collect(rank, max(size * excess, LEAST), sums_G, ranks_G, met)
            entry += 1
        left -= entry - first
        if left < 0:
            break
    _settle(lists.masses_G, sums_G, ranks_G, gains_G, met)
    return met if left >= 0 else -1


@compiled
def _take(
    scores_L: Floats,
    rows: Rows,
    lists: Lists,
    bound: Scalar,
    room: Room,
    met: int,
    ids_N: NDArray[np.int64],
    best_N: Floats,
) -> None:
    """Compute the similarities of rows that may reach the bound."""
    rows_G, (_, ranks_G, gains_G) = lists.rows_G, room
    slack = 1 + (lists.longest + 8) * ROUNDING
    for above in TAKEN_ABOVE:
        need = _need(bound, above, best_N[0], slack)
        for place in range(met):
            if gains_G[place] > need:
                row = rows_G[ranks_G[place]]
                push(ids_N, best_N, row, _similarity(scores_L, rows, row))
                gains_G[place] = 0
                need = _need(bound, above, best_N[0], slack)


@compiled
def _need(bound: Scalar, above: Scalar, worst: Scalar, slack: float) -> Scalar:
    """What a row must have gained to reach so many bounds and the worst of the best."""
    return np.float32((max(above * bound, worst) - PART * bound) / slack)


@compiled
def _similarity(scores_L: Floats, rows: Rows, row: Scalar) -> Scalar:
    """Of one row, to the bit as where all are computed."""
    starts_G, labels_P, values, lengths_G, _, alike = rows
    return row_product(starts_G, labels_P, values, alike, scores_L, row) / lengths_G[row]
