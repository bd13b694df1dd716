"""Texts as sequences: those of the tokenizers library itself, in rows that keep order and repeats wherever they go."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, vstack
from tokenizers import Tokenizer

from tests.training.synthetic import MINILM, count_tokens, matrix
from training.data.batches import Bags, Batch, Rows
from training.encoders import TransformerConfig
from training.encoders.pretrained import read_tokenizer
from training.team import ALONE
from training.tokens import TextConfig, as_encoded, label_limit, read_words, token_sequences
from training.twins import rows_with_label_texts
from training.vocabulary import VocabularyConfig

texts = st.lists(
    st.one_of(
        st.lists(st.sampled_from(["the", "red house", "[SEP]", "[CLS]", "größe", "unbelievably", "日本", "--"])).map(
            " ".join
        ),
        st.text(max_size=30),
    ),
    max_size=6,
)
ids = st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return read_tokenizer(Path(MINILM))


@pytest.fixture(scope="module")
def cutting() -> Tokenizer:
    """The same, for truncation by the library."""
    return read_tokenizer(Path(MINILM))


def sequences(rows: Sequence[Sequence[int]], width: int = 7) -> csr_array:
    """Rows as `token_sequences` makes them."""
    flat = np.array([id_ for row in rows for id_ in row], dtype=np.int64)
    return csr_array((np.ones(len(flat), np.float32), flat, np.cumsum([0, *map(len, rows)])), shape=(len(rows), width))


def rows_of(matrix: csr_array) -> list[list[int]]:
    assert (matrix.data == 1).all()
    return [matrix.indices[low:high].tolist() for low, high in pairwise(matrix.indptr)]


@settings(max_examples=50)
@given(texts=texts, max_tokens=st.integers(3, 12))
def test_sequences_are_those_of_the_library_with_truncation(
    tokenizer: Tokenizer, cutting: Tokenizer, texts: list[str], max_tokens: int
) -> None:
    cutting.enable_truncation(max_tokens)
    found = token_sequences(tokenizer, texts, max_tokens)
    assert (found.shape, found.dtype) == ((len(texts), tokenizer.get_vocab_size()), np.float32)
    assert rows_of(found) == [cutting.encode(text).ids for text in texts]


def test_truncation_keeps_the_special_token_at_the_end(tokenizer: Tokenizer) -> None:
    first, last = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    (short,), (cut,) = (rows_of(token_sequences(tokenizer, [text], 5)) for text in ("a red", "a red house by a river"))
    assert (short[0], short[-1], len(short)) == (first, last, 4)
    assert (cut[0], cut[-1], len(cut)) == (first, last, 5)
    assert cut[1:4] == tokenizer.encode("a red house", add_special_tokens=False).ids


def encoded(tokenizer: Tokenizer, texts: Sequence[str], config: TextConfig) -> csr_array:
    return as_encoded(read_words(tokenizer, texts, config, 9), config)


def test_a_bag_has_neither_order_nor_special_tokens(tokenizer: Tokenizer) -> None:
    one, other = ("a red red house", "red house a red")
    bags = encoded(tokenizer, [one, other], VocabularyConfig())
    assert (bags != count_tokens(tokenizer, [one, other], 9)).nnz == 0
    assert (bags[[0]] != bags[[1]]).nnz == 0
    as_sequence = TransformerConfig(model=MINILM)
    assert rows_of(encoded(tokenizer, [one], as_sequence)) != rows_of(encoded(tokenizer, [other], as_sequence))


def test_labels_may_have_a_limit_of_their_own() -> None:
    assert label_limit(VocabularyConfig(max_tokens=9)) == 9
    assert label_limit(VocabularyConfig(max_tokens=9, max_label_tokens=4)) == 4


@given(rows=ids, data=st.data())
def test_rows_keep_order_and_repeats_wherever_they_go(rows: list[list[int]], data: st.DataObject) -> None:
    """Taking, slicing, stacking and batching must not sort ids or add up repeats, as canonical form would have it."""
    made = sequences(rows)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1)), dtype=np.int64)
    start = data.draw(st.integers(0, len(rows)))
    assert rows_of(made[chosen]) == [rows[row] for row in chosen]
    assert rows_of(made[start:]) == rows[start:]
    assert rows_of(csr_array(vstack([made[chosen], made], format="csr"))) == [*(rows[row] for row in chosen), *rows]
    split = Rows(made, matrix([{}] * len(rows), 2))
    assert rows_of(split.take(chosen).inputs) == [rows[row] for row in chosen]
    flat = [id_ for row in chosen for id_ in rows[row]]
    assert Batch.from_rows(split, chosen).bags.ids.tolist() == flat
    batches = list(ALONE.batches(split, chosen, 2))
    assert [id_ for batch in batches for id_ in batch.bags.ids.tolist()] == flat
    assert Bags.from_csr(made).offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    assert rows_of(made) == rows


@given(rows=ids, labels=ids)
def test_a_label_text_is_a_points_if_it_reads_the_same(rows: list[list[int]], labels: list[list[int]]) -> None:
    train = Rows(sequences(rows), matrix([{}] * len(rows), 2))
    found = rows_with_label_texts(train, sequences(labels))
    assert set(found) == {label for label, row in enumerate(labels) if row in rows}
    assert all(rows[row] == labels[label] for label, row in found.items())
