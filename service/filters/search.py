"""The best of the labels that a query allows, exactly, from what a whole batch was decoded to.

A label's place is decided among all labels: by its raw score, and in the head, the first labels, by what ranks,
classifiers and propensities make of it there. So a filtered query needs the head, which its batch found for all, and
behind it as many of its own labels as are missing. What lies between them, not allowed, changes no score: beyond the
head a label's score hangs on its raw score and the last of the head alone.

1. Within. Often enough of what was found is allowed.
2. Over-fetch. Where most labels are allowed, a few more are asked for, then four times as many.
3. Direct. Else, and where that has not sufficed, all allowed labels are scored.

Letters: N rows, K answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from service.decoders.base import Decoder, Scorer
from service.errors import EngineFailed
from service.filters.allowed import Allowed
from service.search.topk import TopK, merge, ranges, select

Mode = Literal["within", "overfetch", "direct"]

# The outputs of the encoder for one query: where its decoder reads them, and where its scorer does.
Outputs = Mapping[str, Any]

# Labels that are asked for, by as many times more than would do if they were allowed evenly; and the next time.
OVERSHOOT, GROWTH = 2, 4
# Labels that are scored at a time.
SCORED_AT_ONCE = 1 << 17


class Wanted(NamedTuple):
    """What a filtered query asks for.

    Attributes:
        k: labels, at least 1.
        allowed: of which.
    """

    k: int
    allowed: Allowed


class Found(NamedTuple):
    """What was found for it.

    Attributes:
        top: (1, K): the best of all labels, and among and after them min(k, count) of those allowed.
        mode: how.
    """

    top: TopK
    mode: Mode


def find(
    decoder: Decoder, plain: TopK, wanted: Wanted, label_count: int, outputs: Callable[[], tuple[Outputs, Outputs]]
) -> Found:
    """Find the best allowed labels of one query.

    Args:
        decoder: of the bundle.
        plain: (1, K), what it gave for the query among others.
        wanted: of the query.
        label_count: L.
        outputs: the encoder's for this query alone, for the decoder and for its scorer; asked for when needed.

    Raises:
        EngineFailed: scores are not finite.
    """
    need = min(wanted.k, wanted.allowed.count)
    if _allowed_among(plain, wanted.allowed) >= need:
        return Found(plain, "within")
    for_decoder, for_scorer = outputs()
    if wanted.allowed.count > decoder.scorer.cheap_labels:
        for width in _widths(plain, wanted.allowed, need, label_count, decoder.scorer.most_fetched):
            top = _finite(decoder.decode(for_decoder, width))
            if _allowed_among(top, wanted.allowed) >= need:
                return Found(_joined(plain, top, exact=decoder.scorer.exact), "overfetch")
    beyond = _best_beyond(plain, wanted, decoder.scorer, for_scorer)
    return Found(_finite(_joined(plain, beyond, exact=decoder.scorer.exact)), "direct")


def _widths(plain: TopK, allowed: Allowed, need: int, label_count: int, most: int) -> Iterator[int]:
    """How many labels to ask for, until enough of them are allowed."""
    # So many hold enough for certain.
    enough = need + label_count - allowed.count
    found = plain.ids_QK.shape[1]
    # Often it is the best that are denied: then those already found tell more than the count.
    share = min(allowed.count / label_count, (_allowed_among(plain, allowed) + 1) / (found + 1))
    width = max(math.ceil(OVERSHOOT * need / share), 2 * found)
    while min(width, enough) <= most:
        yield min(width, enough)
        width *= GROWTH


def _best_beyond(plain: TopK, wanted: Wanted, scorer: Scorer, outputs: Outputs) -> TopK:
    """The best k of the allowed labels that are not among those found, of which there are some."""
    rows_N = wanted.allowed.rows()
    rows_N = rows_N[~np.isin(rows_N, plain.ids_QK[0])]
    parts = []
    for low, high in ranges(len(rows_N), SCORED_AT_ONCE):
        best = select(scorer.score(outputs, rows_N[low:high])[None], wanted.k)
        parts.append(TopK(rows_N[low:high][best.ids_QK], best.scores_QK))
    return merge(parts, wanted.k)


def _joined(plain: TopK, more: TopK, *, exact: bool) -> TopK:
    """What the batch found, and what else was found since for the query alone.

    Behind all that an exact search has found comes nothing better. Only rounding could say otherwise, which is another
    in a batch than alone: labels that tie would change places.
    """
    others_N = ~np.isin(more.ids_QK[0], plain.ids_QK[0])
    others = TopK(more.ids_QK[:, others_N], more.scores_QK[:, others_N])
    if not exact:
        return merge([plain, others], plain.ids_QK.shape[1] + others.ids_QK.shape[1])
    capped_QK = np.minimum(others.scores_QK, plain.scores_QK[:, -1:])
    return TopK(
        np.concatenate([plain.ids_QK, others.ids_QK], axis=1), np.concatenate([plain.scores_QK, capped_QK], axis=1)
    )


def _allowed_among(found: TopK, allowed: Allowed) -> int:
    return int(np.count_nonzero(allowed.keeps(found.ids_QK)))


def _finite(found: TopK) -> TopK:
    if not np.isfinite(found.scores_QK).all():
        raise EngineFailed("scores of the labels that a filter allows are NaN or infinite")
    return found
