"""Terms of texts: those of a plain counter; pieces are the tokenizers library's, pairs the most frequent neighbours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from training.terms import Terms
from training.vocabulary import UNKNOWN, VocabularyConfig, tokens_in_order, train_tokenizer

V = 6
CONFIG = VocabularyConfig(words=30, min_count=1, subwords=40, max_tokens=30)
TEXTS = ["network monitor\nmonitoring of a network", "graphs and graphics of networks", "tool for tools and toolkits"]

# A text as its heading's ids and those that follow.
Text = tuple[list[int], list[int]]
ids = st.lists(st.integers(0, V - 1), max_size=6)
texts_of_ids = st.lists(st.tuples(ids, ids), max_size=7)
pairs_of_ids = st.tuples(st.integers(0, V - 1), st.integers(0, V - 1))


def as_words(texts: Sequence[Text], weight: float) -> csr_array:
    """Rows as `tokens_in_order` makes them."""
    counts = [[1 + weight] * len(heading) + [1.0] * len(rest) for heading, rest in texts]
    flat = np.array([id_ for heading, rest in texts for id_ in heading + rest], dtype=np.int64)
    indptr = np.cumsum([0, *map(len, counts)])
    return csr_array((np.array(list(chain.from_iterable(counts)), np.float32), flat, indptr), shape=(len(texts), V))


def terms_of(pieces: Sequence[Sequence[int]], pairs: Sequence[tuple[int, int]]) -> Terms:
    keys = np.array(sorted(left * V + right for left, right in pairs), dtype=np.int64)
    flat = np.array(list(chain.from_iterable(pieces)), dtype=np.int32)
    return Terms(np.cumsum([0, *map(len, pieces)], dtype=np.int64), flat, keys)


@given(
    texts=texts_of_ids,
    pieces=st.lists(st.lists(st.integers(0, V - 1), max_size=3), min_size=V, max_size=V),
    pairs=st.lists(pairs_of_ids, unique=True, max_size=12),
    weight=st.sampled_from([0.5, 2.0, 15.0]),
    rows_at_once=st.integers(1, 4),
)
def test_terms_are_those_of_a_counter(
    texts: list[Text],
    pieces: list[list[int]],
    pairs: list[tuple[int, int]],
    weight: float,
    rows_at_once: int,
) -> None:
    terms, words = terms_of(pieces, pairs), as_words(texts, weight)
    before = words.indices.copy(), words.data.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.terms.ROWS_AT_ONCE", rows_at_once)
        found = terms.count(words)
    assert (found.shape, found.dtype) == ((len(texts), V + len(pairs)), np.float32)
    assert terms.width == V + len(pairs)
    assert found.has_canonical_format
    column = {pair: V + place for place, pair in enumerate(sorted(pairs))}
    for row, (heading, rest) in enumerate(texts):
        expected: defaultdict[int, float] = defaultdict(float)
        for part, count in ((heading, 1 + weight), (rest, 1.0)):
            pairs_inside = [column[pair] for pair in pairwise(part) if pair in column]
            for term in chain(part, *(pieces[id_] for id_ in part), pairs_inside):
                expected[term] += count
        cells = slice(found.indptr[row], found.indptr[row + 1])
        assert dict(zip(found.indices[cells].tolist(), found.data[cells].tolist(), strict=True)) == expected
    np.testing.assert_array_equal(words.indices, before[0])
    np.testing.assert_array_equal(words.data, before[1])


@given(parts=st.lists(texts_of_ids, min_size=1, max_size=3), most=st.integers(0, 12), weight=st.just(3.0))
def test_pairs_are_the_most_frequent_ones(parts: list[list[Text]], most: int, weight: float) -> None:
    counts = Counter(chain.from_iterable(pairwise(run) for part in parts for text in part for run in text))
    frequent = [pair for pair, count in counts.items() if count >= 2]
    kept = sorted(frequent, key=lambda pair: (-counts[pair], pair))[:most]
    learned = Terms.learn(Tokenizer(WordPiece({})), 0, most, [as_words(part, weight) for part in parts])
    assert learned.pairs.tolist() == sorted(left * V + right for left, right in kept)
    assert learned.pairs.dtype == np.int64
    assert learned.width == V + len(kept)


def pieces_of(terms: Terms, id_: int) -> list[int]:
    return terms.pieces[terms.piece_offsets[id_] : terms.piece_offsets[id_ + 1]].tolist()


def learned(texts: Sequence[str], config: VocabularyConfig) -> tuple[Tokenizer, Terms]:
    tokenizer = train_tokenizer(texts, config)
    return tokenizer, Terms.learn(tokenizer, config.piece_count, 9, [tokens_in_order(tokenizer, texts, 30)])


# At most nine sub-words are characters: fewer are asked for, as many, some more, and more than there are.
@settings(max_examples=40)
@given(
    texts=st.lists(st.text("abcä", min_size=1, max_size=9), min_size=1, max_size=12),
    subwords=st.sampled_from([5, 9, 12, 60]),
)
def test_pieces_are_those_of_the_pieces_alone(texts: list[str], subwords: int) -> None:
    """Whether or not there are as many sub-words as were asked for."""
    tokenizer, terms = learned(texts, CONFIG.model_copy(update={"subwords": subwords}))
    vocabulary = tokenizer.get_vocab()
    known = {token: id_ for token, id_ in vocabulary.items() if id_ < subwords}
    alone = Tokenizer(WordPiece(known, unk_token=UNKNOWN))
    assert terms.piece_offsets.shape == (len(vocabulary) + 1,)
    for token, id_ in vocabulary.items():
        pieces = alone.encode(token).ids
        assert pieces_of(terms, id_) == ([] if id_ < subwords or len(pieces) == 1 else pieces)
    assert (terms.piece_offsets.dtype, terms.pieces.dtype) == (np.int64, np.int32)


def test_pieces_by_hand() -> None:
    """Inflections and compounds share what they begin with."""
    tokenizer, terms = learned(TEXTS, CONFIG.model_copy(update={"subwords": 60}))
    expected = {
        "networks": ["network", "##s"],
        "toolkits": ["tool", "##k", "##it", "##s"],
        "graphics": ["graph", "##i", "##cs"],
        "monitoring": ["monitor", "##i", "##n", "##g"],
        "graphs": ["graph", "##s"],
    }
    found = {
        word: [tokenizer.id_to_token(id_) for id_ in pieces_of(terms, tokenizer.token_to_id(word))] for word in expected
    }
    assert found == expected
    for piece in ("network", "tool", "##s", UNKNOWN):
        assert pieces_of(terms, tokenizer.token_to_id(piece)) == []


def test_a_word_too_long_to_be_cut_has_no_pieces() -> None:
    word = "a" * 101
    tokenizer, terms = learned([word, word], VocabularyConfig(subwords=4))
    assert tokenizer.token_to_id(word) >= 4
    assert pieces_of(terms, tokenizer.token_to_id(word)) == []


def test_a_tokenizer_without_whole_words_has_no_pieces() -> None:
    tokenizer = train_tokenizer(TEXTS, CONFIG)
    terms = Terms.learn(tokenizer, 0, 9, [tokens_in_order(tokenizer, TEXTS, 30)])
    assert terms.pieces.size == 0
    assert terms.piece_offsets.tolist() == [0] * (tokenizer.get_vocab_size() + 1)
