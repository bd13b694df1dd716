"""From texts to bags of token ids: a tokenizer trained on the data, and the counts the encoders read.

Frequent words are tokens of their own; every other word is cut into sub-words, so an unseen word still means something.
The tokenizer is a plain ``tokenizer.json``: greedy longest match (WordPiece) finds a whole word first where the
vocabulary holds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
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


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> csr_array:
    """Bags of token counts.

    Returns:
        float32 CSR of shape (N, V): how often each token stands among the first ``max_tokens`` of each text.
    """
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [encoding.ids[:max_tokens] for encoding in encodings]
    lengths = np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(ids))
    vocabulary = tokenizer.get_vocab_size()
    flat = np.fromiter((token for row in ids for token in row), dtype=np.int64, count=int(lengths.sum()))
    keys, counts = np.unique(np.repeat(np.arange(len(ids)), lengths) * vocabulary + flat, return_counts=True)
    indptr = np.searchsorted(keys, np.arange(len(ids) + 1) * vocabulary)
    return csr_array((counts.astype(np.float32), keys % vocabulary, indptr), shape=(len(ids), vocabulary))


def inverse_document_frequency(bags: csr_array) -> NDArray[np.float32]:
    """Smoothed IDF, ln((1 + N) / (1 + df)) + 1, of each column: float32 of shape (V,)."""
    documents = np.bincount(bags.indices, minlength=bags.shape[1])
    return (np.log((1 + bags.shape[0]) / (1 + documents)) + 1).astype(np.float32)
