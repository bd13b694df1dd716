"""Bundles that were cut answer as whole ones, and a shard that is not the one that was cut is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from model_export.cli import main
from service.bundle import Bundle, layout, open_bundle
from service.cli import main as serve
from service.engine import Answer, Engine
from service.errors import BundleError
from service.filters.allowed import Allowed, bits_of
from service.filters.search import Wanted
from service.golden import query_of
from tests.artifacts import Workshop

KINDS = [
    "mach",
    "mach-features",
    "mach-reranked",
    "declare",
    "declare-features",
    "unidec",
    "unidec-reranked",
    "ova",
]


def engine_of(path: Path) -> tuple[Bundle, Engine]:
    bundle = open_bundle(path)
    return bundle, Engine.open(bundle, device="cpu")


def assert_equal(found: Answer, expected: Answer) -> None:
    """Products of matrices of other sizes may round otherwise."""
    np.testing.assert_allclose(found.top.scores_QK, expected.top.scores_QK, rtol=1e-5, atol=1e-6)
    same = found.top.ids_QK == expected.top.ids_QK
    close = np.isclose(found.top.scores_QK, expected.top.scores_QK, rtol=1e-5, atol=1e-6)
    assert (same | close).all()
    assert same.mean() > 0.99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [3])
def test_a_cut_bundle_answers_as_the_whole(workshop: Workshop, tmp_path: Path, kind: str, shards: int) -> None:
    whole = workshop.bundle(kind)
    out = tmp_path / "cut"
    assert main(["shard", str(whole), "--shards", str(shards), "--out", str(out)]) == 0
    bundle, engine = engine_of(whole)
    head, cut = engine_of(out / "head")
    assert len(head.manifest.shards) == shards
    queries = [query_of(golden) for golden in bundle.manifest.golden]
    bags = engine.prepare(queries)
    for k in (1, 5, bundle.manifest.label_count):
        assert_equal(cut.run(bags, k), engine.run(bags, k))
    rows = np.arange(0, bundle.manifest.label_count, 3)
    wanted = Wanted(4, Allowed.of_bits(bits_of(rows, bundle.manifest.label_count)))
    one, other = (each.run(bags[:1], 4, {0: wanted}).filtered[0] for each in (cut, engine))
    assert one.ids_K.tolist() == other.ids_K.tolist()
    cut.warm_up()
    cut.check_golden()


def test_every_shard_is_a_bundle_that_answers(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cut"
    assert main(["shard", str(workshop.bundle("unidec")), "--shards", "3", "--out", str(out)]) == 0
    head = open_bundle(out / "head")
    for entry in head.manifest.shards:
        bundle, engine = engine_of(out / entry.folder)
        engine.check_golden()
        assert bundle.manifest.label_count == entry.count
        assert bundle.labels.id(0) == head.labels.id(entry.first)
        assert main(["verify", str(out / entry.folder)]) == 0
    capsys.readouterr()
    assert main(["verify", str(out / "head")]) == 0
    assert "  shards     3, whose files are their own\n" in capsys.readouterr().out
    assert serve(["check", str(out / "head")]) == 0
    assert "  shards     3, whose files are their own\n" in capsys.readouterr().out


def test_another_shard_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    assert main(["shard", str(workshop.bundle("mach")), "--shards", "2", "--out", str(out)]) == 0
    head = open_bundle(out / "head")
    manifest = out / "shard-1" / layout.MANIFEST
    changed = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(changed | {"name": "another"}))
    with pytest.raises(BundleError, match=r"shard-1/manifest.json: expected sha256 [0-9a-f]{64} as .*, found"):
        Engine.open(head, device="cpu")
    shutil.rmtree(out / "shard-1")
    with pytest.raises(BundleError, match="expected its shard shard-1 beside it, found"):
        Engine.open(head, device="cpu")


def test_the_head_has_the_version_of_its_shards(workshop: Workshop, tmp_path: Path) -> None:
    versions = []
    for shards in (2, 3, 3):
        out = tmp_path / "cut"
        assert main(["shard", str(workshop.bundle("mach")), "--shards", str(shards), "--out", str(out)]) == 0
        versions.append(open_bundle(out / "head").manifest.version)
    assert versions[0] != versions[1] == versions[2]


@pytest.mark.parametrize(
    ("shards", "sentence"), [(1, "--shards: expected 2 to "), (10**6, "found 1000000"), (0, "found 0")]
)
def test_a_wrong_number_of_shards_is_refused(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], shards: int, sentence: str
) -> None:
    assert main(["shard", str(workshop.bundle("mach")), "--shards", str(shards), "--out", str(tmp_path / "cut")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "cut").exists()


def test_what_cannot_be_cut_is_refused(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    approximate, out = workshop.bundle("unidec", index="hnsw"), tmp_path / "cut"
    assert main(["shard", str(approximate), "--shards", "2", "--out", str(out)]) == 2
    assert "expected an exact search, which can be merged to the same answers, found the index hnsw" in (
        capsys.readouterr().err
    )
    assert main(["shard", str(workshop.bundle("mach")), "--shards", "2", "--out", str(out)]) == 0
    assert main(["shard", str(out / "head"), "--shards", "2", "--out", str(tmp_path / "again")]) == 2
    assert "expected a whole bundle, found the head of 2 shards" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    assert main(["shard", str(workshop.bundle("mach")), "--shards", "2", "--out", str(other)]) == 2
    assert "found a folder of other files" in capsys.readouterr().err
