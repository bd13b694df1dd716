"""From an artifact to a bundle: files first, then the bundle's own answers, the manifest last.

What was written is opened by the service's reader and answered by the service's engine before it takes the target's
place, so a bundle that cannot be served or does not do what its model does never appears.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch
from pydantic import TypeAdapter, ValidationError

from model_export.changes import FoldedChanges, fold
from model_export.errors import UsageError
from model_export.exporters import EXPORTERS
from model_export.exporters.base import Exporter
from model_export.groups import read_groups
from model_export.label_index import IndexChoice, WantedIndex
from model_export.onnx_encoder import save_encoder, trace
from model_export.quantise import quantised
from model_export.replacement import replacing
from model_export.reranker import write_reranker
from model_export.row_texts import read_row_texts
from model_export.scores import Scores, calibration_section, inverse_propensities, propensity_section
from model_export.verify import Comparison, compare, golden_answers, query_of, require_equal
from service.bundle import Manifest, content_version, file_entry, layout, load_bundle, write_labels
from service.bundle.files import write_manifest
from service.bundle.manifest import (
    BundleName,
    CalibrationSection,
    ChangesSection,
    FeaturesInput,
    MethodSection,
    Precision,
    PropensitySection,
    RerankSection,
    TextInput,
)
from service.bundle.row_texts import write_row_texts
from service.engine import Engine
from service.live.label_encoder import LEARNED
from training.artifact import TOKENIZER, Artifact
from training.data.records import open_named


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        name: under which the service offers the bundle; None for the artifact folder's.
        precision: of the encoder's weights.
        index: type of UniDEC's label index.
        recall: that the label index must have; None for `WANTED_RECALL`.
        scores: what is served; None for probabilities where the artifact has a calibration.
        propensity_weight: power of the inverse propensities that answers are re-ranked by; 0 for not at all.
        groups: file of named groups of labels; None for none.
        journal: file of changes of labels that were made while an older bundle was served; None for none.
        neighbour_texts: data that DECLARE was trained on, for the texts of its rows; None for none.
    """

    name: str | None = None
    precision: Precision = "fp32"
    index: IndexChoice = "auto"
    recall: float | None = None
    scores: Scores | None = None
    propensity_weight: float = 0.0
    groups: Path | None = None
    journal: Path | None = None
    neighbour_texts: str | None = None


@dataclass(frozen=True)
class Sections:
    """What a manifest says of method, scores and labels; see there."""

    method: MethodSection
    rerank: RerankSection | None
    calibration: CalibrationSection | None
    propensity: PropensitySection | None
    groups: dict[str, int]
    changes: ChangesSection | None


@dataclass(frozen=True)
class Built:
    """A finished bundle: its manifest, how it compares with the trained model, and what a journal came to."""

    manifest: Manifest
    comparison: Comparison
    changes: FoldedChanges


def build(artifact: Artifact, out: Path, options: Options) -> Built:
    """Write the bundle of an artifact to ``out``, in place of a bundle that is there.

    Raises:
        UsageError: options do not fit the artifact, the journal cannot be read, or ``out`` holds something else than a
            bundle.
        DataError: the file of groups, or the data for the texts, is wrong.
        ExportError: the bundle's answers are not the trained model's, or it cannot be written as asked.
        BundleError: the service's reader refuses what was written.
    """
    name = _name(artifact, options)
    index = _wanted_index(artifact, options)
    changes = FoldedChanges() if options.journal is None else fold(options.journal, artifact.label_ids)
    label_ids = [*artifact.label_ids, *changes.added]
    calibration = calibration_section(artifact, options.scores)
    propensity = propensity_section(len(label_ids), options.propensity_weight, calibration)
    groups = None if options.groups is None else read_groups(options.groups, label_ids)
    row_texts = None
    if options.neighbour_texts is not None:
        row_texts = read_row_texts(artifact, open_named(options.neighbour_texts))
    exporter = EXPORTERS[artifact.config.run.method.name](artifact, list(changes.added.values()))
    _require_reading(exporter)
    with replacing(out) as folder:
        method = _write_files(exporter, folder, options.precision, index, changes)
        if row_texts is not None:
            write_row_texts(folder, row_texts)
            method = method.model_copy(update={"texts": True})
        if propensity is not None:
            np.save(folder / layout.INVERSE_PROPENSITIES, inverse_propensities(artifact, len(label_ids)))
        if groups is not None:
            np.save(folder / layout.LABEL_GROUPS, groups.bits_GW)
        rerank = None
        if artifact.reranker is not None:
            rerank = write_reranker(artifact.reranker, folder, options.precision, len(label_ids))
        sizes = {} if groups is None else groups.sizes
        sections = Sections(method, rerank, calibration, propensity, sizes, changes.section)
        draft = _draft(artifact, folder, name, options.precision, len(label_ids), sections)
        engine = Engine.open(load_bundle(folder, draft), device="cpu")
        comparison = compare(engine, exporter)
        require_equal(comparison, draft)
        golden = golden_answers(engine, map(query_of, artifact.samples))
        manifest = draft.model_copy(update={"parity": comparison.parity, "golden": golden})
        write_manifest(folder, manifest)
    return Built(manifest, comparison, changes)


def _name(artifact: Artifact, options: Options) -> str:
    name = artifact.path.resolve().name if options.name is None else options.name
    try:
        return TypeAdapter(BundleName).validate_python(name)
    except ValidationError as error:
        raise UsageError(
            "--name: expected at most 128 letters, digits, '.', '_' and '-', the first one a letter or digit, "
            f"found {name!r}"
        ) from error


def _wanted_index(artifact: Artifact, options: Options) -> WantedIndex:
    method, recall = artifact.config.run.method.name, options.recall
    if options.index != "auto" and not EXPORTERS[method].has_index:
        raise UsageError(f"--index {options.index}: {method} has no label index to choose; expected auto")
    if recall is None:
        return WantedIndex(options.index)
    if not EXPORTERS[method].has_index:
        raise UsageError(f"--recall {recall:g}: {method} has no label index to measure; expected none")
    if not 0 < recall <= 1:
        raise UsageError(f"--recall: expected a number above 0 and at most 1, found {recall:g}")
    return WantedIndex(options.index, recall)


def _require_reading(exporter: Exporter[Any]) -> None:
    """Refuse added labels where no vectors can be made of their texts."""
    count, method = len(exporter.added_texts), exporter.artifact.config.run.method.name
    if count and exporter.reading is None:
        raise UsageError(
            f"--journal: expected labels of {exporter.artifact.path} alone, found {count:,} others that were added, "
            f"and {LEARNED[method]}; train it with them"
        )


def _write_files(
    exporter: Exporter[Any], folder: Path, precision: Precision, index: WantedIndex, changes: FoldedChanges
) -> MethodSection:
    """What every bundle has, and the method's tables."""
    artifact = exporter.artifact
    model = trace(exporter.graph(), exporter.outputs)
    save_encoder(quantised(model, precision), folder / layout.ENCODER)
    if artifact.tokenizer is not None:
        shutil.copyfile(artifact.path / TOKENIZER, folder / layout.TOKENIZER)
    label_ids = [*artifact.label_ids, *changes.added]
    texts = None if artifact.label_texts is None else [*artifact.label_texts, *changes.added.values()]
    write_labels(folder, label_ids, texts, zero_shot=len(changes.added))
    if changes.disabled:
        np.save(folder / layout.LABELS_DISABLED, changes.bits_W(len(label_ids)))
    return exporter.write_tables(folder, index)


def _draft(
    artifact: Artifact,
    folder: Path,
    name: str,
    precision: Precision,
    label_count: int,
    sections: Sections,
) -> Manifest:
    """The manifest but for what only the opened bundle can tell."""
    config = artifact.config
    queries: TextInput | FeaturesInput = FeaturesInput(dimension=config.shape.input_width)
    if config.shape.text:
        texts = config.run.texts
        queries = TextInput(max_tokens=texts.max_tokens, order=texts.order, heading_weight=texts.heading_weight)
    files = {file.name: file_entry(file) for file in sorted(folder.iterdir())}
    scores = sections.calibration, sections.propensity, sections.rerank
    return Manifest(
        name=name,
        version=content_version(queries, sections.method, files, *scores, sections.groups, sections.changes),
        created_with=_libraries(),
        input=queries,
        label_count=label_count,
        has_label_texts=artifact.label_texts is not None,
        hashed_ids=True,
        groups=sections.groups,
        precision=precision,
        method=sections.method,
        rerank=sections.rerank,
        calibration=sections.calibration,
        propensity=sections.propensity,
        changes=sections.changes,
        files=files,
    )


def _libraries() -> dict[str, str]:
    """Versions of what wrote the files; modules know theirs whichever flavour is installed."""
    modules = {"torch": torch, "onnx": onnx, "onnxscript": onnxscript, "onnxruntime": onnxruntime, "faiss": faiss}
    return {"xmcserve": version("xmcserve")} | {name: str(module.__version__) for name, module in modules.items()}
