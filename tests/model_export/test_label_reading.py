"""What bundles say of reading label texts is enough to make the vectors that training made of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.exporters import EXPORTERS
from model_export.exporters.unidec import UnidecExporter
from model_export.writer import Options, build
from service.bags import TextReader
from service.bundle import layout, open_bundle
from service.bundle.manifest import TextInput
from service.bundle.searching import UnidecSection
from service.encoder import Encoder
from tests.artifacts import Workshop
from tests.methods.test_parity import TOLERANCE, TRANSFORMER_TOLERANCE
from training.artifact import Artifact, read_artifact
from training.data.batches import Bags
from training.tokens import as_encoded, label_limit, read_words

READING = ["unidec", "depsl", "unidec-own", "unidec-transformer", "depsl-own-transformer"]
WORDS = ["abook", "address", "browser", "daemon", "for", "game", "library", "of", "zzz", "é", "\n", "\n\n"]


class LabelReader:
    """Reads labels as the service does: out of nothing but the bundle."""

    def __init__(self, path: Path, *, resident: bool = False) -> None:
        manifest = open_bundle(path).manifest
        assert isinstance(manifest.method, UnidecSection)
        assert isinstance(manifest.input, TextInput)
        self.method, self.reading = manifest.method, manifest.method.reading
        assert self.reading is not None
        self.width = self.method.dimension // (2 if self.method.heads == "both" else 1)
        output = self.reading.output
        shapes = {output: (self.method.dimension if output == "query" else self.width,)}
        self.encoder = Encoder.open(path / layout.ENCODER, shapes, device="cpu", threads=1, resident=resident)
        order, heading_weight = manifest.input.order, manifest.input.heading_weight
        self.reader = TextReader.open(path / layout.TOKENIZER, self.reading.max_tokens, order, heading_weight)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of the dual encoder, (Q, D)."""
        assert self.reading is not None
        output_QD = self.encoder.run(self.reader.read(texts)).outputs[self.reading.output]
        halves_QD: NDArray[np.float32] = output_QD[:, : self.width]
        return halves_QD / np.linalg.norm(halves_QD, axis=1, keepdims=True)


def tolerance(artifact: Artifact, precision: str) -> float:
    return (TRANSFORMER_TOLERANCE if artifact.config.run.texts.order == "sequence" else TOLERANCE)[precision]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", READING)
def test_labels_are_read_as_in_training(workshop: Workshop, kind: str, precision: str) -> None:
    artifact = read_artifact(workshop.artifact(kind))
    expected_LD = UnidecExporter(artifact).model.label_vectors("encoder").detach().numpy()[:300]
    assert artifact.label_texts is not None
    found_LD = LabelReader(workshop.bundle(kind, precision)).vectors(artifact.label_texts[:300])  # type: ignore[arg-type]
    np.testing.assert_allclose(found_LD, expected_LD, rtol=0, atol=tolerance(artifact, precision))


@cache
def parts(bundle: Path, artifact: Path) -> tuple[LabelReader, UnidecExporter]:
    return LabelReader(bundle), UnidecExporter(read_artifact(artifact))


@pytest.mark.parametrize("kind", READING)
def test_other_texts_are_read_as_training_would(workshop: Workshop, kind: str) -> None:
    """Texts with a heading, too short to read and too long to be read whole."""
    reader, exporter = parts(workshop.bundle(kind), workshop.artifact(kind))
    tokenizer, config = exporter.artifact.tokenizer, exporter.artifact.config.run.texts
    assert tokenizer is not None

    @settings(max_examples=20)
    @given(st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), min_size=1, max_size=4))
    @torch.no_grad()
    def holds(texts: list[str]) -> None:
        words = read_words(tokenizer, texts, config, label_limit(config))
        hidden = exporter.model.encoder(Bags.from_csr(as_encoded(words, config)))
        expected_QD = exporter.model.encode_labels(hidden).numpy()
        np.testing.assert_allclose(
            reader.vectors(texts), expected_QD, rtol=0, atol=tolerance(exporter.artifact, "fp32")
        )

    holds()


@pytest.mark.parametrize(("kind", "limit"), [("unidec", 32), ("unidec-own", 3), ("depsl-own-transformer", 8)])
def test_the_limit_is_that_of_labels(workshop: Workshop, kind: str, limit: int) -> None:
    reader = LabelReader(workshop.bundle(kind))
    assert reader.reading is not None
    assert reader.reading.max_tokens == limit
    long = " ".join(["address", "browser", "library", "game"] * 20)
    cut, whole = reader.reader.read([long])[0], TextReader.open(workshop.bundle(kind) / layout.TOKENIZER, 99)
    assert cut.values.sum() <= limit < whole.read([long])[0].values.sum()


@pytest.mark.parametrize("kind", ["unidec-own", "depsl-own-transformer"])
def test_an_output_that_nobody_asks_for_is_in_nobodys_way(workshop: Workshop, kind: str) -> None:
    """Queries want one of two outputs, whether it is fetched or stays where it was computed."""
    path = workshop.bundle(kind)
    method = open_bundle(path).manifest.method
    assert isinstance(method, UnidecSection)
    bags = LabelReader(path).reader.read(["text editor", "a web browser for the desktop", ""])
    shapes = {"query": (method.dimension,)}
    fetched = Encoder.open(path / layout.ENCODER, shapes, device="cpu", threads=1).run(bags).outputs
    kept = Encoder.open(path / layout.ENCODER, shapes, device="cpu", threads=1, resident=True).run(bags).outputs
    assert list(fetched) == list(kept) == ["query"]
    np.testing.assert_array_equal(fetched["query"], kept["query"].numpy())


def test_queries_and_labels_pass_projections_of_their_own(workshop: Workshop) -> None:
    path = workshop.bundle("depsl-own-transformer")
    reader = LabelReader(path)
    bags = reader.reader.read(["text editor"])
    asked = Encoder.open(path / layout.ENCODER, {"query": (24,), "label": (24,)}, device="cpu", threads=1)
    outputs = asked.run(bags).outputs
    assert float((outputs["query"] * outputs["label"]).sum()) < 0.9
    np.testing.assert_allclose(np.linalg.norm(outputs["label"], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["mach", "declare", "ova", "unidec-features"])
def test_other_models_read_no_labels(workshop: Workshop, kind: str) -> None:
    artifact = read_artifact(workshop.artifact(kind))
    exporter = EXPORTERS[artifact.config.run.method.name](artifact)
    assert exporter.reading is None
    assert exporter.outputs == (exporter.output,)
    assert getattr(open_bundle(workshop.bundle(kind)).manifest.method, "reading", None) is None


@pytest.mark.parametrize(
    ("inference", "heads", "reads"), [("encoder", "encoder", True), ("classifier", "classifier", False)]
)
def test_who_answers_by_the_classifier_alone_reads_no_labels(
    workshop: Workshop, tmp_path: Path, inference: str, heads: str, reads: bool
) -> None:
    """Both heads are trained, and one of them is served."""
    shutil.copytree(workshop.artifact("unidec-own"), tmp_path / "artifact")
    file = tmp_path / "artifact" / "config.json"
    config = file.read_text()
    assert '"inference": "both"' in config
    file.write_text(config.replace('"inference": "both"', f'"inference": "{inference}"'))
    method = build(read_artifact(tmp_path / "artifact"), tmp_path / "bundle", Options()).manifest.method
    assert isinstance(method, UnidecSection)
    assert method.heads == heads
    assert (method.reading is not None) is reads
