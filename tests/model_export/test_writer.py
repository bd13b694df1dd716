"""Whole builds: what is in a bundle, which option decides what, and what a failed build leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from model_export import leading
from model_export.errors import ExportError, UsageError
from model_export.exporters.mach import MachGraph
from model_export.label_index import Chosen, WantedIndex
from model_export.writer import Options, build
from service.bundle import Manifest, layout, open_bundle
from service.bundle.manifest import FeatureQuery, GoldenAnswer
from service.bundle.searching import IndexSection, SearchSection
from service.engine import Engine
from service.models.queries import Features
from tests.artifacts import KINDS, Workshop
from training.artifact import SAMPLES, TOKENIZER, read_artifact


def manifest_of(path: Path) -> Manifest:
    return open_bundle(path).manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_model_becomes_a_bundle_that_serves(workshop: Workshop, kind: str, precision: str) -> None:
    bundle = open_bundle(workshop.bundle(kind, precision))  # type: ignore[arg-type]
    artifact = read_artifact(workshop.artifact(kind))
    manifest = bundle.manifest
    assert manifest.precision == precision
    assert manifest.method.name == artifact.config.run.method.name
    assert manifest.label_count == len(artifact.label_ids)
    assert [bundle.labels.id(row) for row in range(len(bundle.labels))] == artifact.label_ids
    assert [bundle.labels.text(row) for row in range(5)] == (artifact.label_texts or [None] * 5)[:5]
    assert manifest.has_label_texts == (artifact.label_texts is not None)
    assert {"xmcserve", "torch", "onnx", "onnxscript", "onnxruntime", "faiss"} == set(manifest.created_with)
    assert manifest.parity is not None
    assert 0 < manifest.parity.queries <= len(artifact.samples)
    Engine.open(bundle, device="cpu").check_golden()


@pytest.mark.parametrize("kind", KINDS)
def test_full_precision_answers_as_the_trained_model(workshop: Workshop, kind: str) -> None:
    parity = manifest_of(workshop.bundle(kind)).parity
    assert parity is not None
    assert parity.max_score_difference < 1e-4
    assert parity.equal_top_k == 1


@pytest.mark.parametrize("kind", ["mach", "unidec", "declare-features"])
def test_lower_precision_is_smaller_and_its_loss_is_measured(workshop: Workshop, kind: str) -> None:
    full, half, small = (manifest_of(workshop.bundle(kind, precision)) for precision in ("fp32", "fp16", "int8"))
    sizes = [manifest.files[layout.ENCODER].size for manifest in (full, half, small)]
    losses = [manifest.parity.max_score_difference for manifest in (full, half, small) if manifest.parity]
    assert sizes == sorted(sizes, reverse=True)
    assert losses == sorted(losses)
    assert losses[0] < losses[1] < losses[2] < 1
    assert half.precision == "fp16"


def test_texts_bring_their_tokenizer_and_limit(workshop: Workshop) -> None:
    artifact = read_artifact(workshop.artifact("mach"))
    bundle = open_bundle(workshop.bundle("mach"))
    assert bundle.manifest.input.model_dump() == {"kind": "text", "max_tokens": 32, "heading_weight": 15.0}
    assert bundle.file(layout.TOKENIZER).read_bytes() == (artifact.path / TOKENIZER).read_bytes()


def test_sequences_have_no_headings(workshop: Workshop) -> None:
    texts = manifest_of(workshop.bundle("ova-transformer-reranked")).input
    assert texts.model_dump() == {"kind": "text", "max_tokens": 32, "order": "sequence"}


@pytest.mark.parametrize("kind", ["mach-reranked", "ova-transformer-reranked", "declare-features-reranked"])
def test_classifiers_of_texts_bring_their_terms(workshop: Workshop, kind: str) -> None:
    reranker = read_artifact(workshop.artifact(kind)).reranker
    bundle = open_bundle(workshop.bundle(kind))
    assert reranker is not None
    assert bundle.manifest.rerank is not None
    terms = reranker.weighing.terms
    assert bundle.manifest.rerank.terms is (terms is not None) is ("features" not in kind)
    if terms is None:
        assert not [name for name in (layout.RERANK_PIECES, layout.RERANK_PAIRS) if name in bundle.arrays]
        return
    for name, expected in (
        (layout.RERANK_PIECE_OFFSETS, terms.piece_offsets),
        (layout.RERANK_PIECES, terms.pieces),
        (layout.RERANK_PAIRS, terms.pairs),
    ):
        np.testing.assert_array_equal(bundle.arrays[name], expected)
    assert terms.pairs.size > 100
    # A transformer's tokens are pieces already.
    assert (terms.pieces.size > 100) is (kind == "mach-reranked")


@pytest.mark.parametrize("kind", ["mach-reranked", "declare-features-reranked"])
def test_offsets_are_as_narrow_as_they_can_be(workshop: Workshop, kind: str) -> None:
    arrays = open_bundle(workshop.bundle(kind)).arrays
    offsets = {name: array.dtype for name, array in arrays.items() if "offsets" in name or "indptr" in name}
    assert len(offsets) >= 3
    assert set(offsets.values()) == {np.dtype(np.int32)}


def test_features_bring_their_number(workshop: Workshop) -> None:
    bundle = open_bundle(workshop.bundle("mach-features"))
    assert bundle.manifest.input.model_dump() == {"kind": "features", "dimension": 60}
    assert not bundle.file(layout.TOKENIZER).exists()


@pytest.mark.parametrize("kind", ["mach", "declare-features"])
def test_golden_answers_are_the_engines_own(workshop: Workshop, kind: str) -> None:
    artifact = read_artifact(workshop.artifact(kind))
    bundle = open_bundle(workshop.bundle(kind))
    engine = Engine.open(bundle, device="cpu")
    golden = bundle.manifest.golden
    assert len(golden) == 8
    assert [sample_of(answer) for answer in golden] == artifact.samples[:8]
    for answer in golden:
        query = answer.query if isinstance(answer.query, str) else Features(answer.query.indices, answer.query.values)
        top = engine.run(engine.prepare([query]), 5).top
        assert [label.id for label in answer.labels] == [engine.labels.id(row) for row in top.ids_QK[0].tolist()]
        assert [label.score for label in answer.labels] == top.scores_QK[0].tolist()


def sample_of(answer: GoldenAnswer) -> object:
    if isinstance(answer.query, FeatureQuery):
        return {"indices": list(answer.query.indices), "values": list(answer.query.values)}
    return answer.query


def test_the_same_model_exported_twice_is_the_same_version(workshop: Workshop, tmp_path: Path) -> None:
    artifact = read_artifact(workshop.artifact("mach-features"))
    again = build(artifact, tmp_path / "again", Options(precision="int8", name="other")).manifest
    first = manifest_of(workshop.bundle("mach-features", "int8"))
    assert (again.version, again.files) == (first.version, first.files)
    assert (again.name, first.name) == ("other", "mach-features")


def test_a_build_replaces_the_bundle_that_is_there(workshop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(workshop.bundle("declare"), tmp_path / "bundle")
    build(read_artifact(workshop.artifact("declare-features")), tmp_path / "bundle", Options())
    assert manifest_of(tmp_path / "bundle").name == "declare-features"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_that_answers_otherwise_is_not_written(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workshop.bundle("declare"), tmp_path / "bundle")
    before = contents(tmp_path / "bundle")
    spoil(monkeypatch, by=0.01)
    with pytest.raises(ExportError, match=r"mach-features: expected scores within 0\.0001 of the trained model's"):
        build(read_artifact(workshop.artifact("mach-features")), tmp_path / "bundle", Options())
    assert contents(tmp_path / "bundle") == before
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_what_lower_precision_loses_is_recorded_and_no_fault(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, by=0.01)
    built = build(read_artifact(workshop.artifact("mach-features")), tmp_path / "bundle", Options(precision="fp16"))
    assert built.comparison.parity.max_score_difference > 0.01
    assert built.manifest.parity == built.comparison.parity


def spoil(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """Make the graph compute something else than the model: every second bucket's logit is shifted."""
    true_forward = MachGraph.forward

    def forward(self: MachGraph, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        logits_QRB = true_forward(self, ids_QT, values_QT)
        return logits_QRB + by * (logits_QRB > 0)

    monkeypatch.setattr(MachGraph, "forward", forward)


@pytest.mark.parametrize(("option", "choice"), [("index", "hnsw"), ("index", "ivf"), ("index", "flat")])
def test_only_unidec_has_an_index_to_choose(workshop: Workshop, tmp_path: Path, option: str, choice: str) -> None:
    with pytest.raises(UsageError, match=f"--index {choice}: declare has no label index to choose; expected auto"):
        build(read_artifact(workshop.artifact("declare")), tmp_path / "bundle", Options(**{option: choice}))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_only_unidec_has_a_recall_to_choose(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--recall 0\.9: declare has no label index to measure; expected none"):
        build(read_artifact(workshop.artifact("declare")), tmp_path / "bundle", Options(recall=0.9))


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.01, float("nan")])
def test_a_recall_that_is_no_share_is_refused(workshop: Workshop, tmp_path: Path, recall: float) -> None:
    with pytest.raises(UsageError, match="--recall: expected a number above 0 and at most 1, found"):
        build(read_artifact(workshop.artifact("unidec")), tmp_path / "bundle", Options(recall=recall))


def test_the_recall_is_what_was_asked_for(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choose(vectors_LD: object, queries_QD: object, wanted: WantedIndex) -> Chosen:
        asked.append(wanted)
        return Chosen(None, IndexSection(type="flat", recall=1.0))

    monkeypatch.setattr("model_export.exporters.search.choose_index", choose)
    for recall in (None, 0.7):
        build(read_artifact(workshop.artifact("unidec")), tmp_path / "bundle", Options(recall=recall))
    assert asked == [WantedIndex("auto", 0.99), WantedIndex("auto", 0.7)]


@pytest.mark.parametrize("choice", ["auto", "hnsw", "ivf"])
def test_the_index_is_of_the_chosen_type(workshop: Workshop, choice: str) -> None:
    manifest = manifest_of(workshop.bundle("unidec", index=choice))  # type: ignore[arg-type]
    assert manifest.method.name == "unidec"
    assert manifest.method.index.type == {"auto": "flat"}.get(choice, choice)
    assert manifest.method.index.recall >= 0.99
    assert (manifest.method.index.recall == 1) or choice != "auto"


@pytest.mark.parametrize("method", ["unidec", "ova"])
def test_an_exact_index_has_leading_coordinates_where_they_pay(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    artifact = read_artifact(workshop.artifact(method))
    plain = build(artifact, tmp_path / "plain", Options(index="flat"))
    for name, value in {"LEAST_NUMBERS": 1, "STEP": 2, "WORTH": 9.0}.items():
        monkeypatch.setattr(leading, name, value)
    built = build(artifact, tmp_path / "bundle", Options(index="flat"))
    assert isinstance(built.manifest.method, SearchSection)
    assert built.manifest.method.index.leading is not None
    assert built.comparison.parity.equal_top_k == 1
    assert {layout.LABEL_LEADING, layout.LABEL_RESTS} == set(built.manifest.files) - set(plain.manifest.files)


@pytest.mark.parametrize("name", ["", "my model", ".hidden", "a/b", "x" * 129])
def test_a_name_that_no_url_could_hold_is_refused(workshop: Workshop, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--name: expected at most 128 letters, digits"):
        build(read_artifact(workshop.artifact("mach-features")), tmp_path / "bundle", Options(name=name))


def test_an_artifact_without_samples_cannot_be_verified(workshop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(workshop.artifact("mach-features"), tmp_path / "artifact")
    (tmp_path / "artifact" / SAMPLES).write_text("")
    with pytest.raises(ExportError, match="expected sample queries to verify the bundle with, found none"):
        build(read_artifact(tmp_path / "artifact"), tmp_path / "bundle", Options())
    assert [file.name for file in tmp_path.iterdir()] == ["artifact"]
