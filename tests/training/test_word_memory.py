"""What word classifiers will hold: counted by hand on few rows. `test_memory` holds it to what the system says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.synthetic import feature_dataset, load, tiny
from training import word_memory
from training.reranker import RerankerConfig
from training.word_memory import (
    ASKING_THE_MODEL,
    ENTRY,
    KEPT,
    KERNELS,
    KEY,
    MARK,
    MOST_KEPT,
    RANK,
    expected_weights,
    word_moments,
)
from training.word_rows import word_rows

# Label 0 has features 0, 1 and 2, label 1 has 2 and 3, label 2 has none.
DATASET = feature_dataset(
    [{0: 1.0, 1: 1.0}, {1: 1.0, 2: 1.0}, {2: 1.0, 3: 1.0}], [{0: 1.0}, {0: 1.0}, {1: 1.0}], width=99, labels=3
)
PAIRS, TERMS_PER_ROW = 5, 2


@pytest.mark.parametrize(
    ("least_weight", "expected"), [(0.0, MOST_KEPT), (0.01, MOST_KEPT), (0.5, KEPT / (0.5 * np.sqrt(TERMS_PER_ROW)))]
)
def test_weights_are_so_many_times_the_pairs_of_labels_and_terms(least_weight: float, expected: float) -> None:
    rows = word_rows(DATASET, None, 0, 0)
    assert expected_weights(rows, RerankerConfig(least_weight=least_weight)) == int(PAIRS * expected)


def test_there_are_never_more_weights_than_terms_times_labels() -> None:
    narrow = feature_dataset([{0: 1.0, 1: 1.0}], [{0: 1.0, 1: 1.0}], width=2, labels=2)
    assert expected_weights(word_rows(narrow, None, 0, 0), RerankerConfig(least_weight=0)) == 4


def test_few_labels_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 labels with i + 1 rows of a feature of their own each, 10 tell how many pairs there are."""
    inputs = [{row: 1.0} for row in range(465)]
    targets = [{label: 1.0} for label in range(30) for _ in range(label + 1)]
    rows = word_rows(feature_dataset(inputs, targets, width=465, labels=30), None, 0, 0)
    monkeypatch.setattr(word_memory, "SAMPLED_LABELS", 10)
    assert expected_weights(rows, RerankerConfig(least_weight=0)) == 3 * 465


def test_moments_by_hand() -> None:
    """Three rows, three labels; all rows are asked about, for two candidates and three nominees each."""
    config = RerankerConfig(candidates=2, nominees=9, least_weight=0)
    moments = word_moments(DATASET, config, 0)
    inputs, targets, weights = ENTRY * 12, ENTRY * 6, ENTRY * 15  # the held-out rows are the training rows once more
    marks, last_marks = MARK * (3 * 2 + 3 * 3), MARK * (3 * 2 + 2 * 3 * 3)
    held = {"compiled kernels": KERNELS, "rows of words": inputs + targets}
    assert moments == {
        "learning terms": {"pairs, twice": 2 * KEY * 12},
        "reading words": {"words": ENTRY * 12, "rows of words, twice": 2 * inputs + targets},
        ASKING_THE_MODEL: held | {"classifiers": weights, "answers": 2 * marks + 2 * RANK * 9},
        "fitting classifiers": held | {"classifiers": 3 * weights, "what is confused": 2 * last_marks + targets},
    }


def test_label_texts_are_read_where_they_are_learned_from(texts: Path) -> None:
    dataset, run = load(texts, tiny("mach-reranked"))
    assert dataset.label_words is not None
    words = [
        word_moments(dataset, RerankerConfig(label_texts=label_texts), run.texts.piece_count)["reading words"]["words"]
        for label_texts in (1.0, 0.0)
    ]
    assert words[0] - words[1] == ENTRY * dataset.label_words.nnz > 0
    unasked = word_moments(replace(dataset, label_words=None), RerankerConfig(), run.texts.piece_count)
    assert unasked["reading words"]["words"] == words[1]
