from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from service.bags import Bag, FeatureReader, TextReader, pad
from service.errors import BundleError, InvalidRequest
from service.models.queries import Features

VOCABULARY = {"[UNK]": 0, "[CLS]": 1, "a": 5, "b": 2, "c": 9}


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def reader(max_tokens: int = 100, heading_weight: float = 0.0) -> TextReader:
    return TextReader(tokenizer(), max_tokens, heading_weight=heading_weight)


def contents(bag: Bag) -> dict[int, float]:
    return dict(zip(bag.ids.tolist(), bag.values.tolist(), strict=True))


def words(bag: Bag) -> list[tuple[int, float]]:
    assert bag.words is not None
    ids, counts = bag.words
    assert (ids.dtype, counts.dtype) == (np.int64, np.float32)
    return list(zip(ids.tolist(), counts.tolist(), strict=True))


def test_texts_become_distinct_ascending_ids_with_counts() -> None:
    (bag,) = reader().read(["c a c zzz a c"])
    assert (bag.ids.tolist(), bag.values.tolist()) == ([0, 5, 9], [1.0, 2.0, 3.0])
    assert (bag.ids.dtype, bag.values.dtype, bag.truncated) == (np.int64, np.float32, False)


def test_tokens_beyond_the_limit_are_cut_and_reported() -> None:
    exact, longer = reader(max_tokens=3).read(["a b c", "a b c a"])
    assert contents(exact) == contents(longer) == {2: 1.0, 5: 1.0, 9: 1.0}
    assert (exact.truncated, longer.truncated) == (False, True)


def test_texts_without_tokens_make_empty_bags() -> None:
    bags = reader().read(["", "  ", "a"])
    assert [bag.ids.size for bag in bags] == [0, 0, 1]


def test_tokens_of_a_heading_count_more() -> None:
    headed, first_line_only, plain = reader(heading_weight=4).read(["a b\nb c", "a\nb\nb", "a b b"])
    assert contents(headed) == {2: 6.0, 5: 5.0, 9: 1.0}
    assert words(headed) == [(5, 5.0), (2, 5.0), (2, 1.0), (9, 1.0)]
    assert words(first_line_only) == [(5, 5.0), (2, 1.0), (2, 1.0)]
    assert words(plain) == [(5, 1.0), (2, 1.0), (2, 1.0)]
    assert contents(reader().read(["a b\nb c"])[0]) == {2: 2.0, 5: 1.0, 9: 1.0}


@pytest.mark.parametrize("text", ["a b", "a b\n", "a b\n \n\t", "\na b", " \na b"])
def test_a_text_of_one_line_has_no_heading(text: str) -> None:
    (bag,) = reader(heading_weight=4).read([text])
    assert words(bag) == [(5, 1.0), (2, 1.0)]


def test_what_follows_a_heading_is_cut_first() -> None:
    exact, longer = reader(3, heading_weight=4).read(["a b\nc", "a b\nc a"])
    assert words(exact) == words(longer) == [(5, 5.0), (2, 5.0), (9, 1.0)]
    assert (exact.truncated, longer.truncated) == (False, True)
    heading_alone, cut_heading = reader(2, heading_weight=4).read(["a b\nc", "a b c\nc"])
    assert words(heading_alone) == words(cut_heading) == [(5, 5.0), (2, 5.0)]
    assert heading_alone.truncated
    assert cut_heading.truncated


def test_what_the_tokenizer_file_says_of_lengths_and_special_tokens_is_overruled(tmp_path: Path) -> None:
    stored = tokenizer()
    stored.enable_truncation(2)
    stored.enable_padding(length=10)
    stored.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    stored.save(str(tmp_path / "tokenizer.json"))
    (bag,) = TextReader.open(tmp_path / "tokenizer.json", 100).read(["a a b c"])
    assert contents(bag) == {2: 1.0, 5: 2.0, 9: 1.0}


def sequence_reader(max_tokens: int = 100) -> TextReader:
    made = tokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [UNK]", special_tokens=[("[CLS]", 1), ("[UNK]", 0)]
    )
    return TextReader(made, max_tokens, "sequence")


def test_sequences_keep_order_repeats_and_special_tokens() -> None:
    (bag,) = sequence_reader().read(["c a c zzz a"])
    assert (bag.ids.tolist(), bag.values.tolist()) == ([1, 9, 5, 9, 0, 5, 0], [1.0] * 7)
    assert (bag.ids.dtype, bag.values.dtype, bag.truncated) == (np.int64, np.float32, False)


def test_sequences_have_no_headings() -> None:
    made = TextReader(sequence_reader()._tokenizer, 100, "sequence", heading_weight=4)
    (bag,) = made.read(["c a\nb"])
    assert (bag.ids.tolist(), bag.values.tolist(), bag.words) == ([1, 9, 5, 2, 0], [1.0] * 5, None)
    assert bag.reading[0] is bag.ids
    assert bag.reading[1] is bag.values


def test_a_sequence_that_is_cut_keeps_the_special_token_at_its_end() -> None:
    exact, longer, empty = sequence_reader(max_tokens=4).read(["c a", "c a b", ""])
    assert (exact.ids.tolist(), exact.truncated) == ([1, 9, 5, 0], False)
    assert (longer.ids.tolist(), longer.truncated) == ([1, 9, 5, 0], True)
    assert (empty.ids.tolist(), empty.truncated) == ([1, 0], False)


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "?"]), max_size=12), min_size=1, max_size=8), st.integers(3, 10)
)
def test_sequences_are_those_of_the_library_with_truncation(texts: list[list[str]], max_tokens: int) -> None:
    cutting = sequence_reader()._tokenizer
    cutting.enable_truncation(max_tokens)
    joined = [" ".join(words) for words in texts]
    bags = sequence_reader(max_tokens).read(joined)
    assert [bag.ids.tolist() for bag in bags] == [cutting.encode(text).ids for text in joined]
    assert [bag.truncated for bag in bags] == [len(words) + 2 > max_tokens for words in texts]


def test_special_tokens_that_fill_a_sequence_are_refused(tmp_path: Path) -> None:
    sequence_reader()._tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BundleError, match="expected fewer special tokens than max_tokens 2, found 2"):
        TextReader.open(tmp_path / "tokenizer.json", 2, "sequence")
    assert TextReader.open(tmp_path / "tokenizer.json", 2, "bag").read(["a"])[0].ids.tolist() == [5]


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json: expected a tokenizer, found"):
        TextReader.open(tmp_path / "tokenizer.json", 100)


def test_a_text_that_is_no_unicode_names_its_query() -> None:
    with pytest.raises(InvalidRequest, match="query 1: expected Unicode text, found surrogates not allowed"):
        reader().read(["a", "\ud800"])


def test_features_for_a_text_model_and_the_reverse() -> None:
    with pytest.raises(InvalidRequest, match="query 1: this model takes texts, found features"):
        reader().read(["a", Features([1], [1.0])])
    with pytest.raises(InvalidRequest, match="query 0: this model takes features, found a text"):
        FeatureReader(3).read(["a"])


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "?"]), max_size=12), min_size=1, max_size=8), st.integers(1, 10)
)
def test_a_batch_of_texts_counts_each_text_alone(texts: list[list[str]], max_tokens: int) -> None:
    bags = reader(max_tokens).read([" ".join(words) for words in texts])
    for words, bag in zip(texts, bags, strict=True):
        expected = Counter(VOCABULARY.get(word, 0) for word in words[:max_tokens])
        assert contents(bag) == expected
        assert bag.ids.tolist() == sorted(expected)
        assert bag.truncated == (len(words) > max_tokens)


texts_of_lines = st.lists(st.lists(st.sampled_from("abc?"), max_size=4).map(" ".join), min_size=1, max_size=3)


@given(st.lists(texts_of_lines.map("\n".join), min_size=1, max_size=6), st.integers(1, 8))
def test_headings_of_a_batch_are_those_of_each_text_alone(texts: list[str], max_tokens: int) -> None:
    for text, bag in zip(texts, reader(max_tokens, heading_weight=2.5).read(texts), strict=True):
        first, _, rest = text.partition("\n")
        heading = first.split() if rest.strip() else []
        tokens = text.split()
        counts = [3.5 if place < len(heading) else 1.0 for place in range(len(tokens))]
        expected = [(VOCABULARY.get(word, 0), count) for word, count in zip(tokens, counts, strict=True)]
        assert words(bag) == expected[:max_tokens]
        summed: defaultdict[int, float] = defaultdict(float)
        for id_, count in expected[:max_tokens]:
            summed[id_] += count
        assert contents(bag) == summed
        assert bag.ids.tolist() == sorted(summed)
        assert bag.truncated == (len(tokens) > max_tokens)


def test_threads_share_a_reader() -> None:
    shared = reader()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: shared.read(["a b a", "c"]), range(200)))
    assert all([contents(bag) for bag in bags] == [{2: 1.0, 5: 2.0}, {9: 1.0}] for bags in answers)


def test_features_are_sorted_with_their_values() -> None:
    (bag,) = FeatureReader(8).read([Features([7, 0, 3], [0.5, -1.0, 0.0])])
    assert (bag.ids.tolist(), bag.values.tolist()) == ([0, 3, 7], [-1.0, 0.0, 0.5])
    assert (bag.ids.dtype, bag.values.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (Features([1, 2], [1.0]), r"expected as many values as indices, found 1 values and 2 indices"),
        (Features([8], [1.0]), r"expected feature indices in 0\.\.7, found 8"),
        (Features([0, -1], [1.0, 1.0]), r"expected feature indices in 0\.\.7, found -1"),
        (Features([2**70], [1.0]), r"expected feature indices in 0\.\.7, found 1180591620717411303424"),
        (Features([3, 1, 3], [1.0, 1.0, 2.0]), r"expected distinct feature indices, found 3 twice"),
        (Features([1], [float("nan")]), r"expected finite 32-bit feature values, found nan"),
        (Features([1, 2], [0.0, 1e39]), r"expected finite 32-bit feature values, found 1e\+39"),
    ],
)
def test_features_that_cannot_be_used_name_query_and_fault(features: Features, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=f"query 1: {sentence}"):
        FeatureReader(8).read([Features([0], [1.0]), features])


def test_padding_contributes_nothing() -> None:
    bags = FeatureReader(9).read([Features([4], [2.0]), Features([], []), Features([8, 5], [1.0, 3.0])])
    ids_QT, values_QT = pad(bags)
    assert ids_QT.tolist() == [[4, 0], [0, 0], [5, 8]]
    assert values_QT.tolist() == [[2.0, 0.0], [0.0, 0.0], [3.0, 1.0]]


def test_empty_bags_are_padded_to_one() -> None:
    ids_QT, values_QT = pad(FeatureReader(9).read([Features([], [])] * 2))
    assert ids_QT.shape == values_QT.shape == (2, 1)
