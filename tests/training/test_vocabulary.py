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

from tests.training.synthetic import matrix
from training.vocabulary import (
    VocabularyConfig,
    chunks,
    count_tokens,
    inverse_document_frequency,
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
