"""What each method writes beside its graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.exporters import declare
from model_export.exporters.base import alike
from model_export.exporters.declare import DeclareExporter, smaller_recovery
from model_export.exporters.mach import MachExporter, write_inverted_lists
from model_export.exporters.unidec import UnidecExporter
from model_export.verify import query_of
from model_export.writer import Options, build
from service.bundle import layout, open_bundle
from service.bundle.manifest import DeclareSection
from service.decoders.unidec import UnidecDecoder
from service.engine import Engine
from tests.artifacts import Workshop
from training import hashing
from training.artifact import Artifact, read_artifact


@given(st.integers(1, 5), st.sampled_from([2, 9, 256]), st.integers(1, 900), st.integers(0, 9))
def test_inverted_lists_hold_every_buckets_labels_in_order(R: int, B: int, L: int, seed: int) -> None:
    """Steps of 255 and more take several entries where buckets are bytes."""
    buckets_LR = np.random.default_rng(seed).integers(0, B, (L, R), dtype=np.uint8)
    with TemporaryDirectory() as folder:
        write_inverted_lists(Path(folder), buckets_LR, B)
        steps_N = np.load(Path(folder) / layout.MACH_INVERTED_STEPS)
        partners_N = np.load(Path(folder) / layout.MACH_INVERTED_PARTNERS)
        offsets_RB = np.load(Path(folder) / layout.MACH_INVERTED_OFFSETS)
    assert (steps_N.dtype, partners_N.dtype, offsets_RB.dtype) == (np.uint8, np.uint8, np.int32)
    assert offsets_RB[0, 0] == 0
    assert offsets_RB[-1, -1] == len(steps_N) == len(partners_N)
    for repetition, bounds_B in enumerate(offsets_RB):
        other = min(repetition ^ 1, R - 1)
        for bucket, (low, high) in enumerate(pairwise(bounds_B)):
            is_label = steps_N[low:high] != 255
            labels = np.cumsum(steps_N[low:high], dtype=int)[is_label]
            np.testing.assert_array_equal(labels, np.flatnonzero(buckets_LR[:, repetition] == bucket))
            np.testing.assert_array_equal(partners_N[low:high][is_label], buckets_LR[labels, other])


@pytest.mark.parametrize(("kind", "dtype"), [("mach", "uint16"), ("mach-features", "uint8")])
def test_the_hash_table_is_trainings_in_the_narrowest_type(workshop: Workshop, kind: str, dtype: str) -> None:
    bundle = open_bundle(workshop.bundle(kind))
    section = bundle.manifest.method
    assert section.name == "mach"
    table = hashing.bucket_table(len(bundle.labels), section.repetitions, section.buckets, section.hash.seed)
    assert bundle.arrays[layout.MACH_BUCKETS].dtype == dtype
    np.testing.assert_array_equal(bundle.arrays[layout.MACH_BUCKETS], table.T)


def test_the_seed_of_the_hash_is_the_runs(workshop: Workshop, tmp_path: Path) -> None:
    artifact = changed(workshop.artifact("mach-features"), tmp_path / "artifact", '"seed": 0', '"seed": 77')
    assert MachExporter(artifact).write_tables(tmp_path, "auto").hash.seed == 77


@pytest.mark.parametrize(
    ("option", "family", "key"),
    [
        ('"assignment": "balanced"', "permutation", "label row"),
        ('"assignment": "hashed"', "murmur3_x86_32", "label row, uint32 little-endian"),
    ],
)
def test_the_section_says_what_put_labels_into_buckets(
    workshop: Workshop, tmp_path: Path, option: str, family: str, key: str
) -> None:
    artifact = changed(workshop.artifact("mach-features"), tmp_path / "artifact", '"assignment": "hashed"', option)
    section = MachExporter(artifact).write_tables(tmp_path, "auto")
    assert (section.hash.family, section.hash.key) == (family, key)


@pytest.mark.parametrize(("loss", "activation"), [("bce", "sigmoid"), ("softmax", "softmax")])
@pytest.mark.parametrize("aggregation", ["sum_logits", "mean_prob", "unbiased", "min", "median"])
def test_the_section_says_how_scores_are_merged(
    workshop: Workshop, tmp_path: Path, aggregation: str, loss: str, activation: str
) -> None:
    artifact = changed(workshop.artifact("mach-features"), tmp_path / "artifact", '"loss": "bce"', f'"loss": "{loss}"')
    artifact = changed(artifact.path, tmp_path / "other", '"sum_logits"', f'"{aggregation}"')
    section = MachExporter(artifact).write_tables(tmp_path, "auto")
    assert (section.aggregation, section.activation) == (aggregation, activation)


def changed(source: Path, target: Path, old: str, new: str) -> Artifact:
    """A copy of an artifact whose configuration was edited."""
    shutil.copytree(source, target)
    config = (target / "config.json").read_text()
    assert old in config
    (target / "config.json").write_text(config.replace(old, new))
    return read_artifact(target)


@pytest.mark.parametrize(
    ("rows", "labels", "recovery"), [(10, 9, "factors"), (10, 10, "factors"), (10, 11, "rows"), (1, 10**7, "rows")]
)
def test_declare_stores_the_smaller(rows: int, labels: int, recovery: str) -> None:
    assert smaller_recovery(rows, labels) == recovery


@pytest.mark.parametrize(("kind", "recovery"), [("declare", "rows"), ("declare-features", "factors")])
def test_both_recoveries_answer_alike(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, recovery: str
) -> None:
    artifact, made = read_artifact(workshop.artifact(kind)), workshop.bundle(kind)
    other = {"rows": "factors", "factors": "rows"}[recovery]
    monkeypatch.setattr(declare, "smaller_recovery", lambda rows, labels: other)
    build(artifact, tmp_path / "other", Options())
    decided_Q = DeclareExporter(artifact).reference().decided_Q
    assert decided_Q.mean() > 0.8
    tops = []
    for path, expected in ((made, recovery), (tmp_path / "other", other)):
        engine = Engine.open(open_bundle(path), device="cpu")
        assert isinstance(engine.manifest.method, DeclareSection)
        assert engine.manifest.method.recovery == expected
        tops.append(engine.run(engine.prepare([query_of(sample) for sample in artifact.samples]), 20).top)
    scores, others = (top.scores_QK[decided_Q] for top in tops)
    assert scores.max() > 0.1
    np.testing.assert_allclose(scores, others, rtol=1e-4, atol=1e-5)


def with_tables(source: Path, target: Path, change: Callable[[dict[str, NDArray[Any]]], None]) -> Artifact:
    """A copy of an artifact whose tables were edited in place."""
    shutil.copytree(source, target)
    tables = {file.stem: np.load(file) for file in (target / "tables").glob("*.npy")}
    change(tables)
    for name, table in tables.items():
        np.save(target / "tables" / f"{name}.npy", table)
    return read_artifact(target)


def test_neighbours_that_only_rounding_chooses_decide_no_comparison(workshop: Workshop, tmp_path: Path) -> None:
    """With equal factors for all labels, rows of equally many labels are equally near, whatever their labels."""

    def blur(tables: dict[str, NDArray[Any]]) -> None:
        tables["factors"][:] = tables["factors"][0]
        tables["votes.data"][:] = 1
        tables["lengths"][:] = 1

    artifact = with_tables(workshop.artifact("declare-features"), tmp_path / "artifact", blur)
    exporter = DeclareExporter(artifact)
    towards_Q = (exporter.model(exporter.samples) @ exporter.model.factors_LC[0]).detach().numpy()
    # Negative similarities count as 0, so queries on the far side have no votes, and that is decided.
    np.testing.assert_array_equal(exporter.reference().decided_Q, towards_Q < 0)


def test_equal_rows_may_vote_for_each_other(workshop: Workshop, tmp_path: Path) -> None:
    """All rows hold the same label: every neighbour is a tie, and no answer hangs on it."""

    def repeat(tables: dict[str, NDArray[Any]]) -> None:
        tables["votes.indptr"] = np.arange(101)
        tables["votes.indices"] = np.zeros(100, dtype=np.int32)
        tables["votes.data"] = np.ones(100, dtype=np.float32)
        tables["votes.counts"], tables["lengths"] = np.ones(100, dtype=np.int32), np.ones(100, dtype=np.float32)

    artifact = with_tables(workshop.artifact("declare-features"), tmp_path / "artifact", repeat)
    assert DeclareExporter(artifact).reference().decided_Q.all()


def test_fewer_rows_than_neighbours_all_vote(workshop: Workshop, tmp_path: Path) -> None:
    def shorten(tables: dict[str, NDArray[Any]]) -> None:
        rows = 5
        tables["votes.indptr"] = tables["votes.indptr"][: rows + 1]
        tables["votes.indices"] = tables["votes.indices"][: tables["votes.indptr"][-1]]
        tables["votes.data"] = tables["votes.data"][: tables["votes.indptr"][-1]]
        tables["votes.counts"], tables["lengths"] = tables["votes.counts"][:rows], tables["lengths"][:rows]

    artifact = with_tables(workshop.artifact("declare-features"), tmp_path / "artifact", shorten)
    assert DeclareExporter(artifact).reference().decided_Q.all()
    built = build(artifact, tmp_path / "bundle", Options())
    assert built.manifest.parity is not None
    assert isinstance(built.manifest.method, DeclareSection)
    assert built.manifest.method.recovery == "rows"  # 5 rows for 20 labels


@pytest.mark.parametrize(
    ("scores", "reference", "expected"),
    [
        ([[0.5, 0.5]], [[0.5, 0.50009]], [True]),
        ([[0.5, 0.5]], [[0.5, 0.50011]], [False]),
        ([[100, 0.0]], [[100, 0.009]], [True]),
        ([[100, 0.0]], [[100, 0.011]], [False]),
        ([[100, 0.0], [1, 0.0]], [[100, 0.009], [1, 0.009]], [True, False]),
    ],
)
def test_scores_are_alike_within_a_tolerance_of_the_querys_largest(
    scores: list[list[float]], reference: list[list[float]], expected: list[bool]
) -> None:
    assert alike(np.float32(scores), np.float32(reference)).tolist() == expected


def test_label_vectors_are_found_by_themselves(workshop: Workshop) -> None:
    """The search knows the model's label vectors by row: each one's best match is itself, with a score of 1."""
    exporter = UnidecExporter(read_artifact(workshop.artifact("unidec")))
    vectors_LD = exporter.model.label_vectors().detach().numpy()[:50]
    search = UnidecDecoder.from_bundle(open_bundle(workshop.bundle("unidec")), threads=1)
    top = search.decode({"query": vectors_LD}, 1)
    assert top.ids_QK[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(top.scores_QK, 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["declare", "declare-features"])
def test_a_bundle_holds_distinct_rows_with_their_numbers(workshop: Workshop, kind: str) -> None:
    artifact, bundle = read_artifact(workshop.artifact(kind)), open_bundle(workshop.bundle(kind))
    indptr, counts = bundle.arrays[layout.DECLARE_VOTES_INDPTR], bundle.arrays[layout.DECLARE_VOTES_COUNTS]
    assert counts.sum() == artifact.config.shape.train_rows
    assert len(counts) == len(indptr) - 1 < artifact.config.shape.train_rows


def test_lengths_are_written_where_similarities_are_divided(workshop: Workshop, tmp_path: Path) -> None:
    def set_lengths(tables: dict[str, NDArray[Any]], value: float) -> None:
        tables["lengths"][:] = value

    for value, divided in ((1.0, None), (0.5, True)):
        source, target = workshop.artifact("declare-features"), tmp_path / f"artifact-{value}"
        artifact = with_tables(source, target, lambda tables, value=value: set_lengths(tables, value))  # type: ignore[misc]
        folder = tmp_path / str(value)
        folder.mkdir()
        section = DeclareExporter(artifact).write_tables(folder, "auto")
        assert (section.recovery, section.divided) == ("factors", divided)
        assert (folder / layout.DECLARE_LENGTHS).exists() == bool(divided)
