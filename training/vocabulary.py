"""From texts to bags of token ids: a tokenizer trained on the data, and the counts the encoders read.

Frequent words are tokens of their own; every other word is cut into sub-words, so an unseen word still means something.
The tokenizer is a plain ``tokenizer.json``: greedy longest match (WordPiece) finds a whole word first where the
vocabulary holds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFKC, Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import WordPieceTrainer

from training.data.sparse import narrow_csr

CHUNK_TEXTS = 8192
UNKNOWN = "[UNK]"
CONTINUATION = "##"


class VocabularyConfig(BaseModel):
    """How texts become bags of token ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    order: ClassVar[Literal["bag"]] = "bag"

    words: int = Field(default=40_000, ge=0, description="most frequent words that are tokens of their own")
    min_count: int = Field(default=2, ge=1, description="occurrences below which a word is not a token of its own")
    subwords: int = Field(default=8_000, ge=1, description="sub-word units for all other words")
    max_tokens: int = Field(default=256, ge=1, description="tokens of a text beyond which it is cut off")
    max_label_tokens: int | None = Field(
        default=None, ge=1, description="the same for the text of a label; None: as many as of a point"
    )
    heading_weight: float = Field(
        default=15.0,
        ge=0,
        allow_inf_nan=False,
        description="what a token counts more in the first line of a text that has several",
    )

    @property
    def piece_count(self) -> int:
        """Sub-words come first among the ids; where there are fewer than asked for, so do some words."""
        return self.subwords

    def tokenizer(self, texts: Iterable[str]) -> Tokenizer:
        """One that is learned from the texts."""
        return train_tokenizer(texts, self)


def train_tokenizer(texts: Iterable[str], config: VocabularyConfig) -> Tokenizer:
    """Learn words and sub-words from texts, read once.

    Memory grows with the number of distinct words, not with the texts.
    """
    tokenizer = Tokenizer(WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = NormalizerSequence([NFKC(), Lowercase()])
    tokenizer.pre_tokenizer = Split(Regex(r"[\W_]+"), behavior="removed")
    counts = _word_counts(tokenizer, texts)
    vocabulary = _subword_vocabulary(counts, config.subwords)
    ranked = sorted(
        (word for word, count in counts.items() if count >= config.min_count), key=lambda word: (-counts[word], word)
    )
    for word in ranked[: config.words]:
        vocabulary.setdefault(word, len(vocabulary))
    tokenizer.model = WordPiece(vocabulary, unk_token=UNKNOWN)
    return tokenizer


def _subword_vocabulary(counts: Counter[str], size: int) -> dict[str, int]:
    """Ids of sub-words, the same in every process.

    The trainer numbers characters inside words in the order of a hash map that is seeded anew in each process, and
    breaks ties by these numbers. Named as special tokens, they are numbered in the order given.
    """
    characters = sorted(set().union(*counts))
    pieces = [UNKNOWN, *characters, *(CONTINUATION + character for character in characters)]
    learner = Tokenizer(WordPiece(unk_token=UNKNOWN))
    trainer = WordPieceTrainer(vocab_size=size, special_tokens=pieces, show_progress=False)
    learner.train_from_iterator(_repeated(counts), trainer)
    return dict(sorted(learner.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1]))


def _word_counts(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(
            word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        )
    return counts


def _repeated(counts: Counter[str]) -> Iterator[str]:
    # Sub-words are learned from distinct words, damped to their logarithm: raw counts would let a few frequent words,
    # which are tokens of their own anyway, decide the pieces.
    for word, count in sorted(counts.items()):
        for _ in range(1 + int(np.log2(count))):
            yield word


def chunks(texts: Iterable[str], size: int = CHUNK_TEXTS) -> Iterator[list[str]]:
    """Cut an iterable into lists of at most ``size`` texts."""
    iterator = iter(texts)
    while chunk := list(islice(iterator, size)):
        yield chunk


def tokens_in_order(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, heading_weight: float = 0.0
) -> csr_array:
    """Token ids in reading order, each with what it counts.

    The first line of a text that has several is its heading: a few words that say what the text is about, and that
    would drown among the others.

    Args:
        tokenizer: of whole words, which a line break ends.
        texts: N of them.
        max_tokens: of a text; later ones are cut off.
        heading_weight: what a token of a heading counts beside 1.

    Returns:
        float32 CSR (N, V), not canonical: ids as they are read, repeats included.
    """
    parts = [_heading_and_rest(text) for text in texts] if heading_weight else [("", text) for text in texts]
    encodings = tokenizer.encode_batch_fast(list(chain.from_iterable(parts)), add_special_tokens=False)
    headings = [encoding.ids[:max_tokens] for encoding in encodings[::2]]
    rests = [
        encoding.ids[: max_tokens - len(heading)] for encoding, heading in zip(encodings[1::2], headings, strict=True)
    ]
    runs = list(chain.from_iterable(zip(headings, rests, strict=True)))
    lengths = np.fromiter((len(run) for run in runs), dtype=np.int64, count=len(runs))
    indptr = np.concatenate([[0], np.cumsum(lengths)[1::2]])
    ids = np.fromiter(chain.from_iterable(runs), dtype=np.int64, count=int(indptr[-1]))
    counts = np.repeat(np.tile(np.array([1 + heading_weight, 1], dtype=np.float32), len(texts)), lengths)
    return narrow_csr(counts, ids, indptr, (len(texts), tokenizer.get_vocab_size()))


def _heading_and_rest(text: str) -> tuple[str, str]:
    """A text of one line has no heading."""
    heading, _, rest = text.partition("\n")
    return (heading, rest) if rest.strip() else ("", text)


def summed(rows: csr_array) -> csr_array:
    """The same rows with what stands several times added up, columns rising."""
    result = rows.copy()
    result.sum_duplicates()
    return result


def inverse_document_frequency(bags: csr_array) -> NDArray[np.float32]:
    """Smoothed IDF, ln((1 + N) / (1 + df)) + 1, of each column: float32 of shape (V,)."""
    documents = np.bincount(bags.indices, minlength=bags.shape[1])
    return (np.log((1 + bags.shape[0]) / (1 + documents)) + 1).astype(np.float32)
