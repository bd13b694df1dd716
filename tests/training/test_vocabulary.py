"""Tokenizer and bags of counts: what is a word, what is cut up, and that every process learns the same."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.training.synthetic import count_tokens, matrix
from training.vocabulary import (
    VocabularyConfig,
    chunks,
    inverse_document_frequency,
    tokens_in_order,
    train_tokenizer,
)

ROOT = Path(__file__).parents[2]
TEXTS = [
    *["command-line tool for network monitoring"] * 6,
    *["network monitor, graphical"] * 5,
    *["Monitoring of graphs and graphics"] * 4,
    "photographic toolkit",
]
CONFIG = VocabularyConfig(words=8, min_count=4, subwords=48, max_tokens=50)


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, CONFIG)


def test_the_most_frequent_words_are_single_tokens(tokenizer: Tokenizer) -> None:
    # By count, then alphabetically: network 11, monitoring 10, then six of those that occur 6 times, 5 or 4.
    words = ("network", "monitoring", "command", "for", "line", "tool", "graphical", "monitor")
    for word in words:
        assert tokens(tokenizer, word) == [word]


def test_rare_and_unseen_words_are_cut_into_known_pieces(tokenizer: Tokenizer) -> None:
    for word in ("photographic", "graphing", "monitored"):
        pieces = tokens(tokenizer, word)
        assert len(pieces) > 1
        assert "".join(piece.removeprefix("##") for piece in pieces) == word
    assert set(tokens(tokenizer, "photographs")) & set(tokens(tokenizer, "photographic"))


def test_case_punctuation_and_compatibility_forms_do_not_count(tokenizer: Tokenizer) -> None:
    plain = tokens(tokenizer, "network tool")
    for same in ("Network,tool!", "NETWORK_tool", "  network\n\ttool ", "ｎｅｔｗｏｒｋ tool"):
        assert tokens(tokenizer, same) == plain


def test_characters_never_seen_are_unknown_not_lost(tokenizer: Tokenizer) -> None:
    assert tokens(tokenizer, "日本 network") == ["[UNK]", "network"]


def test_words_of_other_scripts_are_words() -> None:
    tokenizer = train_tokenizer(["Ἑλλάς größe кошка 日本"] * 3, VocabularyConfig(min_count=2, subwords=100))
    assert tokens(tokenizer, "КОШКА Größe 日本 ἑλλάς") == ["кошка", "größe", "日本", "ἑλλάς"]


@pytest.mark.parametrize("texts", [[], [""], ["...", " "]])
def test_nothing_to_learn_from(texts: list[str]) -> None:
    tokenizer = train_tokenizer(texts, CONFIG)
    assert count_tokens(tokenizer, ["anything", ""], 5).shape == (2, tokenizer.get_vocab_size())


def test_ids_have_no_gaps(tokenizer: Tokenizer) -> None:
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))


def test_every_process_learns_the_same_tokenizer() -> None:
    """A resumed run, and a run with the same seed, must give every token the id it had."""
    program = (
        "from tests.training.test_vocabulary import CONFIG, TEXTS\n"
        "from training.vocabulary import train_tokenizer\n"
        "print(train_tokenizer(TEXTS, CONFIG).to_str())"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, encoding="utf-8")
    assert run.stdout == train_tokenizer(TEXTS, CONFIG).to_str() + "\n"


def test_option_words(tokenizer: Tokenizer) -> None:
    fewer = train_tokenizer(TEXTS, CONFIG.model_copy(update={"words": 2}))
    assert tokenizer.get_vocab_size() == fewer.get_vocab_size() + 6


def test_option_min_count() -> None:
    config = CONFIG.model_copy(update={"words": 100})
    known = {count: train_tokenizer(TEXTS, config.model_copy(update={"min_count": count})) for count in (1, 2)}
    assert tokens(known[1], "toolkit") == ["toolkit"]
    assert len(tokens(known[2], "toolkit")) > 1
    assert tokens(known[2], "graphics") == ["graphics"]


def test_option_subwords() -> None:
    rich, poor = (
        train_tokenizer(TEXTS, CONFIG.model_copy(update={"words": 0, "subwords": subwords})) for subwords in (120, 45)
    )
    assert len(tokens(rich, "monitoring")) < len(tokens(poor, "monitoring"))


def test_option_max_tokens(tokenizer: Tokenizer) -> None:
    counted = count_tokens(tokenizer, ["network tool network for line"], 3)
    network, tool = (tokenizer.token_to_id(word) for word in ("network", "tool"))
    assert dict(zip(counted.indices.tolist(), counted.data.tolist(), strict=True)) == {network: 2.0, tool: 1.0}


def in_order(
    tokenizer: Tokenizer, text: str, max_tokens: int = 50, heading_weight: float = 4
) -> list[tuple[str, float]]:
    """Tokens of a text, each with what it counts."""
    row = tokens_in_order(tokenizer, [text], max_tokens, heading_weight)
    assert (row.shape, row.dtype) == ((1, tokenizer.get_vocab_size()), np.float32)
    assert row.indptr.tolist() == [0, len(row.indices)]
    return [
        (tokenizer.id_to_token(id_), count) for id_, count in zip(row.indices.tolist(), row.data.tolist(), strict=True)
    ]


def test_tokens_of_a_heading_count_more(tokenizer: Tokenizer) -> None:
    text = "network tool\ntool for\nnetwork"
    heading, rest = [("network", 5), ("tool", 5)], [("tool", 1), ("for", 1), ("network", 1)]
    assert in_order(tokenizer, text) == heading + rest
    assert in_order(tokenizer, text, heading_weight=0) == [(token, 1) for token, _ in heading + rest]
    bag = count_tokens(tokenizer, [text], 50, 4)
    assert {tokenizer.id_to_token(id_): bag[0, id_] for id_ in bag.indices} == {"network": 6, "tool": 6, "for": 1}


@pytest.mark.parametrize("text", ["network tool", "network tool\n", "network tool\n \n\t", "\nnetwork tool"])
def test_a_text_of_one_line_has_no_heading(tokenizer: Tokenizer, text: str) -> None:
    assert in_order(tokenizer, text) == [("network", 1), ("tool", 1)]


def test_what_follows_a_heading_is_cut_first(tokenizer: Tokenizer) -> None:
    text = "network tool\nfor line"
    assert in_order(tokenizer, text, max_tokens=3) == [("network", 5), ("tool", 5), ("for", 1)]
    assert in_order(tokenizer, text, max_tokens=2) == [("network", 5), ("tool", 5)]
    assert in_order(tokenizer, text, max_tokens=1) == [("network", 5)]


def test_sub_words_come_first(tokenizer: Tokenizer) -> None:
    """Where more are asked for than there are, words take their ids."""
    plain, alone = (train_tokenizer(TEXTS, CONFIG.model_copy(update={"words": words})) for words in (8, 0))
    assert CONFIG.piece_count == alone.get_vocab_size() == 48
    for id_ in range(CONFIG.piece_count):
        assert plain.id_to_token(id_) == alone.id_to_token(id_)


words = st.sampled_from(["network", "tool", "Monitoring", "graphs", "größe", "日本", "x", "--", "photo_graph", " "])


@given(
    texts=st.lists(st.one_of(st.lists(words, max_size=12).map(" ".join), st.text(max_size=20)), max_size=5),
    max_tokens=st.integers(1, 8),
)
def test_counts_are_those_of_a_counter(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> None:
    bags = count_tokens(tokenizer, texts, max_tokens)
    assert bags.shape == (len(texts), tokenizer.get_vocab_size())
    assert bags.dtype == np.float32
    for row, text in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens]
        bag = slice(bags.indptr[row], bags.indptr[row + 1])
        found = bags.indices[bag].tolist()
        assert found == sorted(set(ids))
        assert dict(zip(found, bags.data[bag].tolist(), strict=True)) == Counter(ids)


@given(
    texts=st.lists(st.lists(st.lists(words, max_size=4).map(" ".join), max_size=3).map("\n".join), max_size=5),
    max_tokens=st.integers(1, 8),
    heading_weight=st.sampled_from([0.0, 0.5, 15.0]),
)
def test_tokens_in_order_are_those_of_each_line(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, heading_weight: float
) -> None:
    rows = tokens_in_order(tokenizer, texts, max_tokens, heading_weight)
    bags = count_tokens(tokenizer, texts, max_tokens, heading_weight)
    assert rows.shape == bags.shape == (len(texts), tokenizer.get_vocab_size())
    np.testing.assert_array_equal(rows.toarray(), bags.toarray())
    assert bags.has_canonical_format
    for row, text in enumerate(texts):
        first, _, rest = text.partition("\n")
        lengths = [len(tokenizer.encode(part, add_special_tokens=False).ids) for part in (first, text)]
        heading = lengths[0] if rest.strip() else 0
        expected = [1 + heading_weight] * heading + [1.0] * (lengths[1] - heading)
        read = slice(rows.indptr[row], rows.indptr[row + 1])
        assert rows.indices[read].tolist() == tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens]
        assert rows.data[read].tolist() == expected[:max_tokens]


def test_inverse_document_frequency_by_hand() -> None:
    # Three texts; the tokens stand in 3, 1 and 0 of them, however often.
    bags = matrix([{0: 1.0, 1: 9.0}, {0: 2.0}, {0: 5.0}], 3)
    expected = [1.0, math.log(2) + 1, math.log(4) + 1]
    assert inverse_document_frequency(bags).tolist() == pytest.approx(expected)


@given(items=st.integers(0, 20), size=st.integers(1, 7))
def test_chunks_are_full_but_the_last(items: int, size: int) -> None:
    texts = [str(item) for item in range(items)]
    found = list(chunks(texts, size))
    assert [text for chunk in found for text in chunk] == texts
    assert all(len(chunk) == size for chunk in found[:-1])
    assert all(0 < len(chunk) <= size for chunk in found)
