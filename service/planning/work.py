"""Amounts of work and of memory that laws are about, by name.

Letters: L labels, R repetitions, N rows, P votes, D dimensions.
"""

from __future__ import annotations

import math

from service.planning import index_file
from service.planning.constants import Files, Work
from service.planning.encoders import FLOAT_BYTES, encoder_bytes, weights_of
from service.planning.sizes import rerank_weights
from service.planning.workload import Workload

# As the decoders decide: tables with fewer entries are scored as a whole, fewer votes without lists.
SEARCHED_ENTRIES, SEARCHED_VOTES = 1 << 20, 1 << 18
# A search that reads as much leaves nothing of the encoder in the processor's caches for the next query.
CACHE_BYTES = 1 << 25
# Numbers that a processor's caches keep from query to query while others use them, too.
NEAR_NUMBERS = 1 << 21
# Arrays of DECLARE's search beside the votes, see `decoders.nearest`: bytes of a label, of a vote and of a row; and of
# a row in the room of each thread.
LIST_LABEL_BYTES, LIST_VOTE_BYTES, LIST_ROW_BYTES, ROOM_ROW_BYTES = 12, 4, 8, 12

NAMES = {
    "encoder_bytes": "bytes of the encoder",
    "dense_weights": "weights that a query is multiplied with",
    "outputs": "numbers that the encoder gives",
    "cold": "of the caches",
    "scattered": "places that a search reads",
    "body_weights": "weights of a transformer",
    "token_weights": "weights times tokens",
    "labels": "labels",
    "steps": "repetitions times the root of the labels",
    "entries": "labels times repetitions",
    "numbers": "numbers that are searched",
    "far_numbers": "numbers that are searched and no cache holds",
    "leading_numbers": "leading coordinates of labels",
    "factors": "numbers of label factors",
    "votes": "labels of training rows",
    "root_codes": "dimensions times the root of the labels",
    "held_bytes": "bytes of vectors and lists",
    "word_weights": "weights of word classifiers times tokens",
}


def work_of(workload: Workload, files: Files) -> Work:
    """All amounts; those that the workload has no use for are 0."""
    weights = weights_of(workload)
    scale = encoder_bytes(workload) / (FLOAT_BYTES * weights.count)
    factors = workload.labels * workload.dimension if workload.rows and workload.by_factors else 0
    numbers = exact_numbers(workload)
    index_bytes = index_file.index_bytes(workload, files.projection_share)
    return {
        "encoder_bytes": encoder_bytes(workload),
        "dense_weights": scale * weights.dense,
        "outputs": workload.outputs,
        "cold": min(1.0, FLOAT_BYTES * (numbers + factors) / CACHE_BYTES),
        "scattered": float(index_bytes > 0 or factors > 0),
        "body_weights": scale * weights.body,
        "token_weights": scale * weights.body * workload.tokens,
        "labels": workload.labels,
        "steps": workload.repetitions * math.sqrt(workload.labels),
        "entries": workload.labels * workload.repetitions,
        "numbers": numbers,
        "far_numbers": max(0, numbers - NEAR_NUMBERS),
        "leading_numbers": workload.labels * workload.leading,
        "factors": factors,
        "votes": workload.votes,
        "root_codes": math.sqrt(workload.labels) * workload.dimension if index_bytes else 0,
        "held_bytes": FLOAT_BYTES * held_numbers(workload) + lists_bytes(workload) + held_index_bytes(workload, files),
        "word_weights": rerank_weights(workload) * workload.tokens,
    }


def exact_numbers(workload: Workload) -> int:
    """Numbers that an exact search multiplies with every query.

    Those beyond leading coordinates count as well: how many labels are read whole depends on the vectors.
    """
    match workload.method:
        case "mach":
            return 0
        case "declare":
            return 0 if workload.by_factors else workload.rows * workload.dimension
        case "unidec" | "ova":
            return workload.labels * workload.dimension if workload.index == "flat" else 0


def held_numbers(workload: Workload) -> int:
    """Numbers that an exact search holds beside the files of them."""
    return workload.labels * workload.leading if workload.leading else exact_numbers(workload)


def held_index_bytes(workload: Workload, files: Files) -> int:
    """What a process holds of an index of candidates, beside what it maps."""
    if workload.index is None or workload.index == "flat":
        return 0
    size = index_file.index_bytes(workload, files.projection_share)
    return round((1 - files.mapped_index_shares[workload.index]) * size)


def lists_bytes(workload: Workload) -> int:
    """What DECLARE's search holds beside the votes, with the room of one thread."""
    if not (workload.rows and workload.by_factors) or workload.votes < SEARCHED_VOTES:
        return 0
    rows = (LIST_ROW_BYTES + ROOM_ROW_BYTES) * workload.rows
    return LIST_LABEL_BYTES * workload.labels + LIST_VOTE_BYTES * workload.votes + rows
