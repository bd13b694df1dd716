"""What word classifiers will hold in memory while they are trained.

All is counted from the rows that they will learn from, but the number of their weights: that depends on what the
trained model confuses, and is estimated.

Letters: N rows, L labels, W terms or features.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from training.data.dataset import Dataset
from training.data.sparse import narrow_csr
from training.reranker import RerankerConfig
from training.rounds import MINED_ROWS, RANKED_ROWS
from training.word_rows import WordRows, word_rows

# Of one entry of a float32 or bool matrix with 32-bit indices, of one rank of an answer with its int64 label and its
# score, and of the key of a pair of tokens.
ENTRY, MARK, RANK, KEY = 8, 5, 12, 8
# Compiler and kernels, measured: `training.svm` and `training.products` are compiled when they are first called.
KERNELS = 140 * 2**20
SAMPLED_LABELS = 500
ASKING_THE_MODEL = "finding what is confused"
# Weights that are kept are so many times the pairs of a label and a term of its rows, where a term is worth the least
# weight in a row of unit length; measured between 0.25 and 0.40 on the embedded sample, eurlex57k, tibkat-gnd and
# yso-finna-en. Negatives' terms are others: without a least weight there are more weights than pairs.
KEPT, MOST_KEPT = 0.375, 3.0


def word_moments(dataset: Dataset, config: RerankerConfig, piece_count: int) -> dict[str, dict[str, int]]:
    """Moments at which memory may be highest: bytes of what is then held beside the model.

    Args:
        dataset: what the classifiers will be trained on.
        config: their options.
        piece_count: see `training.terms.Terms.learn`.
    """
    rows = word_rows(dataset, config.label_texts, config.pairs, piece_count)
    words = dataset.train.reading.nnz + dataset.validation.reading.nnz
    if rows.count > len(dataset.train) and dataset.label_words is not None:
        words += dataset.label_words.nnz
    inputs, targets = ENTRY * rows.unit_NW.nnz, ENTRY * rows.targets_NL.nnz
    weights = ENTRY * expected_weights(rows, config)
    ranks = min(config.candidates, dataset.label_count), min(config.nominees, dataset.label_count)
    asked = min(RANKED_ROWS, rows.count), min(MINED_ROWS, rows.count)
    found, nominated = (rows_asked * rank for rows_asked, rank in zip(asked, ranks, strict=True))
    marks, last_marks = MARK * (found + nominated), MARK * (found + (config.rounds - 1) * nominated)
    held = {"compiled kernels": KERNELS, "rows of words": inputs + targets}
    return {
        "learning terms": {"pairs, twice": 2 * KEY * words},
        "reading words": {"words": ENTRY * words, "rows of words, twice": 2 * inputs + targets},
        ASKING_THE_MODEL: held | {"classifiers": weights, "answers": 2 * marks + 2 * RANK * nominated},
        # Classifiers of the best round so far, and of the new one twice: by label, then by term. What the last round is
        # told of, by row and by label.
        "fitting classifiers": held | {"classifiers": 3 * weights, "what is confused": 2 * last_marks + targets},
    }


def expected_weights(rows: WordRows, config: RerankerConfig) -> int:
    """Weights that classifiers will have, roughly."""
    unit_NW, targets_NL = rows.learned
    counts_L = np.bincount(targets_NL.indices, minlength=targets_NL.shape[1])
    # Evenly drawn from the labels in order of frequency: few labels have most of the rows.
    step = max(1, len(counts_L) // SAMPLED_LABELS)
    sampled = np.argsort(counts_L, kind="stable")[step // 2 :: step]
    pairs = (_present(csr_array(targets_NL.tocsc()[:, sampled].T)) @ _present(unit_NW)).nnz
    terms_per_row = unit_NW.nnz / unit_NW.shape[0]
    worth = config.least_weight * np.sqrt(terms_per_row)
    kept = MOST_KEPT if worth == 0 else min(MOST_KEPT, KEPT / worth)
    most = unit_NW.shape[1] * len(counts_L)
    return int(min(most, kept * pairs * len(counts_L) / len(sampled)))


def _present(matrix: csr_array) -> csr_array:
    return narrow_csr(np.ones(matrix.nnz, dtype=np.bool_), matrix.indices, matrix.indptr, matrix.shape)
