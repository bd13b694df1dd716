"""Groups of labels from a file to a bundle, and every way in which the file may be wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from model_export.cli import main
from model_export.diff import compare_bundles
from model_export.groups import read_groups
from service.bundle import layout, open_bundle
from tests.artifacts import Workshop
from training.data.files import DataError

IDS = ["a", 'b,"c"', "é"]
CSV = 'id,group\na,de\n\n"b,""c""",fr\na,fr\né,de\na,de\n'
JSON = '{"id": "a", "groups": ["de", "fr"]}\n\n{"groups": ["fr"], "id": "b,\\"c\\""}\n{"id": "é", "groups": ["de"]}\n'


@pytest.mark.parametrize("text", [CSV, JSON, CSV.replace("\n", "\r\n"), f"\ufeff{CSV}"])
@pytest.mark.parametrize("name", ["groups.txt", "groups.gz"])
def test_both_kinds_of_files_say_the_same(tmp_path: Path, text: str, name: str) -> None:
    file, content = tmp_path / name, text.encode()
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    groups = read_groups(file, IDS)
    assert groups.sizes == {"de": 2, "fr": 2}
    np.testing.assert_array_equal(groups.bits_GW, np.array([[0b101], [0b011]], dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected at least one group, found none"),
        ("id,group\n", "expected at least one group, found none"),
        ("label,group\na,de\n", "line 1: expected the header id,group, or JSON lines, found 'label,group'"),
        ("id,group\na\n", "line 2: expected an id and a group, found 'a'"),
        ("id,group\na,de,fr\n", "line 2: expected an id and a group, found 'a,de,fr'"),
        ("id,group\na,de\nx,de\n", "line 3: expected the id of a label of the artifact, found 'x'"),
        ("id,group\na,\n", "line 2: expected a group's name of 1 to 128 characters, found ''"),
        ('{"id": "a", "groups": ["de"]}\n{"id": "a"}\n', 'line 2: expected an object like {"id": "a", "groups": '),
        ('{"id": "a", "groups": "de"}\n', "line 1: expected an object like "),
        ('{"id": "a", "groups": ["de"], "x": 1}\n', "line 1: expected an object like "),
        ('{"id": "a"\n', "line 1: expected an object like "),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "groups"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as info:
        read_groups(file, IDS)
    assert sentence in str(info.value)
    assert str(info.value).startswith(str(file))


def test_a_bundle_has_the_groups(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, file = workshop.artifact("mach-features"), tmp_path / "groups.csv"
    plain = workshop.bundle("mach-features")
    ids = [open_bundle(plain).labels.id(row) for row in range(3)]
    file.write_text("id,group\n" + f"{ids[0]},de\n{ids[2]},de\n{ids[1]},at\n", encoding="utf-8")
    assert main(["build", str(artifact), "--out", str(tmp_path / "bundle"), "--groups", str(file)]) == 0
    assert "  groups     at 1, de 2" in capsys.readouterr().out.splitlines()
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.manifest.groups == {"at": 1, "de": 2}
    assert bundle.arrays[layout.LABEL_GROUPS][:, 0].tolist() == [0b010, 0b101]
    difference = compare_bundles(plain, tmp_path / "bundle")
    assert "groups.de: none -> 2" in difference.fields
    assert any(line.startswith("version: ") for line in difference.fields)


def test_a_wrong_file_ends_the_command_with_2(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("id,group\nx,de\n")
    build = ["build", str(workshop.artifact("mach-features")), "--out", str(tmp_path / "bundle")]
    assert main([*build, "--groups", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"xmc-export: {file}, line 2: expected the id of a label")
    assert main([*build, "--groups", str(tmp_path / "nowhere")]) == 2
    assert "nowhere, line 1: expected a readable file" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
