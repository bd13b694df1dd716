"""One function in three forms: the trained model, its ONNX graph, and the engine that serves it.

The trained model is the reference. Graphs are held to it for random bags of every size, engines for every way of
merging scores; what lower precision may lose is bounded here once.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from model_export.exporters import EXPORTERS
from model_export.exporters.base import Exporter
from model_export.exporters.mach import MachExporter
from model_export.verify import compare, query_of
from service.bags import Bag
from service.bundle import content_version, layout, load_bundle, open_bundle
from service.bundle.manifest import MachSection
from service.encoder import Encoder
from service.engine import Engine
from tests.artifacts import KINDS, Workshop
from tests.reference import assert_best
from training.artifact import read_artifact
from training.data.batches import Bags
from training.methods.declare import Declare
from training.methods.ova import Ova
from training.methods.unidec import Unidec

# Largest difference of an output, as a share of the largest output.
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-3, "int8": 5e-2}
# A transformer rounds again in each of its products: tokens drawn at random, as no text has them, came to 0.17.
TRANSFORMER_TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 3e-1}

Batch = list[list[tuple[int, float]]]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Bags as (place in the vocabulary from 0 to 1, value); some empty, of different lengths."""
    cell = st.tuples(st.integers(0, 10**6), st.sampled_from([1.0, 2.0, 3.0, 7.0]))
    return draw(st.lists(st.lists(cell, max_size=9), min_size=1, max_size=5))


def as_bags(batch: Batch, width: int, order: str) -> list[Bag]:
    """The batch as the service makes it: distinct ids in rising order, or ids as they come, each with the value 1."""
    if order == "sequence":
        sequences = [np.array([place % width for place, _ in row], dtype=np.int64) for row in batch]
        return [Bag(ids, np.ones(ids.size, dtype=np.float32)) for ids in sequences]
    rows = [{place % width: value for place, value in row} for row in batch]
    return [
        Bag(np.array(sorted(row), dtype=np.int64), np.array([row[id_] for id_ in sorted(row)], dtype=np.float32))
        for row in rows
    ]


def as_csr(bags: list[Bag], width: int) -> csr_array:
    """The batch as training makes it."""
    ids, values = np.concatenate([bag.ids for bag in bags]), np.concatenate([bag.values for bag in bags])
    return csr_array((values, ids, np.cumsum([0, *(bag.ids.size for bag in bags)])), shape=(len(bags), width))


@torch.no_grad()
def trained_output(exporter: Exporter[Any], bags: Bags) -> NDArray[np.float32]:
    """What the graph should give, by the path that training takes: an embedding bag without padding."""
    model = exporter.model
    if isinstance(model, Unidec | Ova):
        return model.query_vectors(model.encoder(bags)).numpy()
    output = model(bags)
    return (model.embed(output) if isinstance(model, Declare) else output).numpy()


@cache
def parts(bundle: Path, artifact: Path) -> tuple[Encoder, Exporter[Any]]:
    """The graph of a bundle and the model that it was made from."""
    exporter = EXPORTERS[open_bundle(bundle).manifest.method.name](read_artifact(artifact))
    shape = trained_output(exporter, exporter.samples).shape[1:]
    encoder = Encoder.open(bundle / layout.ENCODER, {exporter.output: shape}, device="cpu", threads=1)
    return encoder, exporter


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        # A re-ranked model's graph is that of its method.
        *product([name for name, kind in KINDS.items() if not kind.reranked], ["fp32", "int8"]),
        ("mach", "fp16"),
        ("unidec", "fp16"),
        ("declare-features", "fp16"),
        ("unidec-transformer", "fp16"),
    ],
)
def test_the_graph_computes_what_was_trained(workshop: Workshop, kind: str, precision: str) -> None:
    encoder, exporter = parts(workshop.bundle(kind, precision), workshop.artifact(kind))  # type: ignore[arg-type]
    config = exporter.artifact.config
    tolerance = (TRANSFORMER_TOLERANCE if config.run.texts.order == "sequence" else TOLERANCE)[precision]

    @settings(max_examples=20)
    @given(batches())
    def holds(batch: Batch) -> None:
        bags = as_bags(batch, config.shape.input_width, config.run.texts.order)
        expected = trained_output(exporter, Bags.from_csr(as_csr(bags, config.shape.input_width)))
        found = encoder.run(bags).outputs[exporter.output]
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))

    holds()


def test_negative_and_large_feature_values_are_kept(workshop: Workshop) -> None:
    """Their squares leave the range of half floats; only weights are halved."""
    for precision in ("fp32", "fp16"):
        encoder, exporter = parts(workshop.bundle("mach-features", precision), workshop.artifact("mach-features"))
        bag = Bag(np.array([3, 5, 40]), np.array([-500.0, 4000.0, 0.25], dtype=np.float32))
        expected = trained_output(exporter, Bags.from_csr(as_csr([bag], 60)))
        found = encoder.run([bag]).outputs[exporter.output]
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[precision] * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_answers_what_was_trained(workshop: Workshop, kind: str) -> None:
    """From the query itself to labels: also the service's tokens and counts are training's."""
    artifact = read_artifact(workshop.artifact(kind))
    exporter = EXPORTERS[artifact.config.run.method.name](artifact)
    engine = Engine.open(open_bundle(workshop.bundle(kind)), device="cpu")
    reference = exporter.reference()
    bags = engine.prepare([query_of(sample) for sample in artifact.samples])
    decided = [bag for bag, is_decided in zip(bags, reference.decided_Q, strict=True) if is_decided]
    for k in (1, 7):
        assert_best(engine.run(decided, k, raw=True).top, reference.scores_QL[reference.decided_Q], k)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("aggregation", ["sum_logits", "mean_prob", "unbiased", "min", "median"])
@pytest.mark.parametrize("kind", ["mach", "mach-features"])
def test_mach_merges_scores_in_every_way_as_training_does(
    workshop: Workshop, tmp_path: Path, kind: str, aggregation: str, loss: str
) -> None:
    path = workshop.bundle(kind)
    exporter = MachExporter(read_artifact(workshop.artifact(kind)))
    exporter.model.config = exporter.model.config.model_copy(update={"aggregation": aggregation, "loss": loss})
    section = exporter.write_tables(tmp_path, "auto")
    assert isinstance(section, MachSection)
    manifest = open_bundle(path).manifest
    version = content_version(manifest.input, section, manifest.files, manifest.calibration)
    changed = load_bundle(path, manifest.model_copy(update={"method": section, "version": version}))
    comparison = compare(Engine.open(changed, device="cpu"), exporter)
    assert comparison.equal_scores
    assert comparison.parity.equal_top_k == 1
    assert comparison.parity.max_score_difference < 1e-4
