"""Does the bundle do what the trained model does? Asked through the service's engine, the door that production uses.

Letters: Q queries, K answers, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from model_export.errors import ExportError
from model_export.exporters import EXPORTERS
from model_export.exporters.base import SCORE_TOLERANCE, Exporter, alike
from model_export.scores import calibration_section
from service.bundle import Manifest, open_bundle
from service.bundle.manifest import FeatureQuery, GoldenAnswer, Parity, ScoredLabel
from service.bundle.searching import SearchSection
from service.engine import Engine
from service.models.queries import Features, Query
from service.search.topk import select
from training.artifact import Artifact

COMPARED_K = 5
GOLDEN_QUERIES = 8
GOLDEN_K = 5

# What 8-bit codes may take from or add to a score, absolute below 1 and relative above.
CODE_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Comparison:
    """The bundle's answers to the artifact's samples beside the trained model's.

    Attributes:
        parity: what the manifest records.
        equal_scores: whether all compared scores are the trained model's up to rounding.
        largest_score: magnitude of the compared scores, that their differences are to be seen against.
        undecided: samples left out, because rounding alone decides their answer.
    """

    parity: Parity
    equal_scores: bool
    largest_score: float
    undecided: int


@dataclass(frozen=True)
class Verified:
    """A bundle that answered its golden queries, compared with its artifact where one was given."""

    manifest: Manifest
    comparison: Comparison | None


def compare(engine: Engine, exporter: Exporter[Any]) -> Comparison:
    """Ask both for the artifact's samples.

    Raises:
        ExportError: there is no sample to compare.
    """
    artifact = exporter.artifact
    if not artifact.samples:
        raise ExportError(f"{artifact.path}: expected sample queries to verify the bundle with, found none")
    reference = exporter.reference()
    decided_Q = reference.decided_Q
    if not decided_Q.any():
        raise ExportError(f"{artifact.path}: expected a sample whose answer is more than rounding, found none")
    scores_QL = reference.scores_QL[decided_Q]
    bags = engine.prepare([query_of(sample) for sample in artifact.samples])
    decided = [bag for bag, is_decided in zip(bags, decided_Q, strict=True) if is_decided]
    # Probabilities of far apart scores may be equal, and re-ranking changes the order: raw scores hide nothing.
    top = engine.run(decided, COMPARED_K, raw=True).top
    own_QK = np.take_along_axis(scores_QL, top.ids_QK, axis=1)
    best_QK = select(scores_QL, COMPARED_K).scores_QK
    parity = Parity(
        queries=len(scores_QL),
        k=best_QK.shape[1],
        max_score_difference=float(np.abs(top.scores_QK - own_QK).max()),
        # Judged by what the reference gives to the labels of each rank: ties may swap.
        equal_top_k=float(alike(own_QK, best_QK).mean()),
    )
    return Comparison(
        parity=parity,
        equal_scores=bool(alike(top.scores_QK, own_QK).all()),
        largest_score=float(np.abs(own_QK).max()),
        undecided=int((~decided_Q).sum()),
    )


def require_equal(comparison: Comparison, manifest: Manifest) -> None:
    """Hold full precision to the trained model; what lower precision loses is only recorded.

    An approximate index loses labels, and digits of the scores too: it holds 8-bit codes. So its labels are recorded
    only, and its scores held to what such codes may lose.

    Raises:
        ExportError: scores differ by more than rounding, or the best labels do.
    """
    if manifest.precision != "fp32":
        return
    parity = comparison.parity
    if not _is_exact(manifest):
        allowed = CODE_TOLERANCE * max(1.0, comparison.largest_score)
        if parity.max_score_difference > allowed:
            raise ExportError(
                f"{manifest.name}: expected scores within {allowed:g} of the trained model's, as its index has 8-bit "
                f"codes, found a difference of {parity.max_score_difference:.2g}"
            )
        return
    if not comparison.equal_scores:
        raise ExportError(
            f"{manifest.name}: expected scores within {SCORE_TOLERANCE:g} of the trained model's (relative above 1), "
            f"found a difference of {parity.max_score_difference:.2g}"
        )
    if parity.equal_top_k < 1:
        raise ExportError(
            f"{manifest.name}: expected the trained model's best {parity.k} labels for all {parity.queries} samples, "
            f"found others for {1 - parity.equal_top_k:.1%}"
        )


def golden_answers(engine: Engine, queries: Iterable[Query]) -> tuple[GoldenAnswer, ...]:
    """The engine's answers to the first queries, each asked alone."""
    return tuple(_golden(engine, query) for query in islice(queries, GOLDEN_QUERIES))


def verify_bundle(path: Path, artifact: Artifact | None = None, keys: Sequence[Path] = ()) -> Verified:
    """Open a bundle, have it answer its golden queries and, where an artifact is given, compare it with that.

    Args:
        path: of the bundle.
        artifact: that it should do the same as.
        keys: files of public keys, one of which must have signed it; without any, no signature is looked at.

    Raises:
        BundleError: the bundle is damaged, not signed by one of the keys, or answers otherwise than at export.
        ExportError: it is not this artifact's bundle, or does not do what the artifact does.
    """
    engine = Engine.open(open_bundle(path, keys), device="cpu")
    engine.check_golden()
    if artifact is None:
        return Verified(engine.manifest, None)
    _check_same_model(engine, artifact)
    exporter = EXPORTERS[artifact.config.run.method.name](artifact, _added_texts(engine))
    if exporter.added_texts and exporter.reading is None:
        raise ExportError(f"{artifact.path}: expected an artifact that reads label texts, found one that reads none")
    comparison = compare(engine, exporter)
    require_equal(comparison, engine.manifest)
    return Verified(engine.manifest, comparison)


def query_of(sample: str | dict[str, list[float]]) -> Query:
    """A sample as the service takes it."""
    if isinstance(sample, str):
        return sample
    return Features([int(index) for index in sample["indices"]], sample["values"])


def _golden(engine: Engine, query: Query) -> GoldenAnswer:
    found = engine.answer_alone(query, GOLDEN_K)
    labels = tuple(ScoredLabel(id=one.label, score=one.score) for one in found)
    if isinstance(query, str):
        return GoldenAnswer(query=query, labels=labels)
    return GoldenAnswer(query=FeatureQuery(indices=tuple(query.indices), values=tuple(query.values)), labels=labels)


def _check_same_model(engine: Engine, artifact: Artifact) -> None:
    manifest, config = engine.manifest, artifact.config
    method = config.run.method.name
    if manifest.method.name != method:
        raise ExportError(f"{artifact.path}: expected a {manifest.method.name} artifact, found {method}")
    kind = "text" if config.shape.text else "features"
    if manifest.input.kind != kind:
        raise ExportError(f"{artifact.path}: expected an artifact for {manifest.input.kind}, found one for {kind}")
    ids = [engine.labels.id(row) for row in range(manifest.trained_count)]
    if ids != artifact.label_ids:
        raise ExportError(f"{artifact.path}: expected the {len(ids):,} labels of {manifest.name}, found other ones")
    if manifest.calibration is not None and manifest.calibration != calibration_section(artifact, None):
        raise ExportError(f"{artifact.path}: expected the calibration of {manifest.name}, found another or none")


def _added_texts(engine: Engine) -> list[str]:
    """Texts of the labels that were added to the artifact's."""
    manifest = engine.manifest
    texts = [engine.labels.text(row) for row in range(manifest.trained_count, manifest.label_count)]
    found = [text for text in texts if text is not None]
    if len(found) < len(texts):
        raise ExportError(f"{manifest.name}: expected the text of every label that was added, found labels without")
    return found


def _is_exact(manifest: Manifest) -> bool:
    method = manifest.method
    return not isinstance(method, SearchSection) or method.index.type == "flat"
