"""Every kind of damage to a bundle is refused with one sentence: file, expected, found."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bundle import file_entry, layout, open_bundle
from service.errors import BundleError
from tests.service.bundle.damage import change_entry, change_manifest, replace_file, sign

Copy = Callable[..., Path]


def truncated(path: Path) -> None:
    file = path / layout.ENCODER
    file.write_bytes(file.read_bytes()[:-1])


def edited(path: Path) -> None:
    file = path / layout.ENCODER
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def renamed(path: Path) -> None:
    (path / layout.TOKENIZER).rename(path / "tokeniser.json")


def linked(path: Path) -> None:
    outside = path.parent / "outside.json"
    (path / layout.TOKENIZER).rename(outside)
    (path / layout.TOKENIZER).symlink_to(outside)


def named_by_two_dots(path: Path) -> None:
    (path.parent / "outside.json").write_text("{}")
    entry = {"size": 2, "sha256": "0" * 64, "dtype": None, "shape": None}
    change_manifest(path, lambda content: content["files"].update({"../outside.json": entry}))
    sign(path)


def pickled(path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.empty((4, 40), dtype=object), allow_pickle=True)
    replace_file(path, layout.MACH_BUCKETS, stream.getvalue())


def longer_than_its_header(path: Path) -> None:
    replace_file(path, layout.MACH_BUCKETS, (path / layout.MACH_BUCKETS).read_bytes() + b"\0")


def missing_entry(path: Path) -> None:
    change_manifest(path, lambda content: content["files"].pop(layout.MACH_BUCKETS))
    sign(path)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (truncated, r"encoder\.onnx: expected \d+ bytes, found \d+"),
    (edited, r"encoder\.onnx: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"),
    (lambda path: (path / layout.MACH_BUCKETS).unlink(), r"expected file 'buckets\.npy', found none"),
    (lambda path: (path / "notes.txt").touch(), r"expected only the files of its manifest, found 'notes\.txt' as well"),
    (lambda path: (path / "more").mkdir(), r"expected only the files of its manifest, found 'more' as well"),
    (renamed, r"expected file 'tokenizer\.json', found none"),
    (linked, r"expected regular files, found a link or folder: 'tokenizer\.json'"),
    (named_by_two_dots, r"expected only files of this method and input, found '\.\./outside\.json'"),
    (pickled, r"buckets\.npy: expected a plain array, found: .*Python objects in dtype"),
    (
        lambda path: replace_file(path, layout.MACH_BUCKETS, pickle.dumps([1, 2])),
        r"buckets\.npy: expected a plain array, found: the magic string is not correct",
    ),
    (
        lambda path: replace_file(path, layout.MACH_BUCKETS, (path / layout.MACH_BUCKETS).read_bytes()[:-1]),
        r"buckets\.npy: expected a plain array, found: mmap length is greater than file size",
    ),
    (longer_than_its_header, r"buckets\.npy: expected a plain array, found: \d+ bytes where its header says \d+"),
    (
        lambda path: change_entry(path, layout.MACH_BUCKETS, dtype="uint16"),
        r"buckets\.npy: expected uint16 \(40, 4\) by the manifest, found uint8 \(40, 4\)",
    ),
    (
        lambda path: change_entry(path, layout.MACH_BUCKETS, shape=[4, 40]),
        r"buckets\.npy: expected uint8 \(4, 40\) by the manifest, found uint8 \(40, 4\)",
    ),
    (
        lambda path: change_entry(path, layout.ENCODER, dtype="uint8", shape=[1]),
        r"encoder\.onnx is no array: expected no dtype and shape, found uint8 \(1,\)",
    ),
    (missing_entry, r"manifest\.json: expected an entry for 'buckets\.npy', found none"),
    (
        lambda path: change_manifest(path, lambda content: content["method"].update(buckets=17)),
        r"manifest\.json: expected version [0-9a-f]{12} by its contents, found [0-9a-f]{12}",
    ),
    (lambda path: (path / layout.MANIFEST).unlink(), r"expected a folder with manifest\.json, found: .*No such file"),
    (
        lambda path: (path / layout.MANIFEST).write_text("{"),
        r"manifest\.json: expected a JSON object, found: Expecting",
    ),
    (lambda path: (path / layout.MANIFEST).write_text("[]"), r"manifest\.json: expected a JSON object, found: a list"),
    (lambda path: (path / layout.MANIFEST).write_bytes(b"\xff\xfe\xfd"), r"manifest\.json: expected a JSON object"),
    (
        lambda path: (path / layout.MANIFEST).write_text("[" * 100_000),
        r"manifest\.json: expected a JSON object, found: .*recursion",
    ),
    (
        lambda path: change_manifest(path, lambda content: content.update(schema_version=2)),
        r"manifest\.json: expected schema_version 1, found 2",
    ),
    (
        lambda path: change_manifest(path, lambda content: content.update(schema_version=True)),
        r"manifest\.json: expected schema_version 1, found True",
    ),
    (
        lambda path: change_manifest(path, lambda content: content.pop("schema_version")),
        r"manifest\.json: expected schema_version 1, found None",
    ),
    (
        lambda path: change_manifest(path, lambda content: content.update(colour="red")),
        r"manifest\.json: colour: Extra inputs are not permitted",
    ),
    (
        lambda path: change_manifest(path, lambda content: content["method"].update(colour="red")),
        r"manifest\.json: method\.mach\.colour: Extra inputs are not permitted",
    ),
    (
        lambda path: change_manifest(path, lambda content: content.update(label_count="40")),
        r"manifest\.json: label_count: Input should be a valid integer",
    ),
    (
        lambda path: change_manifest(path, lambda content: content["method"].update(name="tree")),
        r"manifest\.json: method: Input tag 'tree' .* not match any of the expected tags: 'mach', 'declare', 'unidec'",
    ),
    (
        lambda path: change_manifest(path, lambda content: content.clear() or content.update(schema_version=1)),
        r"manifest\.json: name: Field required \(and \d+ more\)",
    ),
]


def knots(path: Path, **change: object) -> None:
    """Change the second rank's map."""
    change_manifest(path, lambda content: content["calibration"]["ranks"][1]["map"].update(change))


CALIBRATION_DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda path: knots(path, scores=[3, 2, 1, 0]),
        r"manifest\.json: calibration\.ranks\.1\.map\.isotonic: .*expected strictly rising numbers",
    ),
    (
        lambda path: knots(path, probabilities=[0.1, 0.2, 0.3, 1.5]),
        r"manifest\.json: calibration\.ranks\.1\.map\.isotonic\.probabilities\.3: .* less than or equal to 1",
    ),
    (lambda path: knots(path, kind="spline"), r"manifest\.json: calibration\.ranks\.1\.map: .*'platt', 'isotonic'"),
    (
        lambda path: change_manifest(path, lambda content: content["calibration"]["ranks"].pop(0)),
        r"manifest\.json: calibration: .*expected first ranks that rise from 1, found \[2, 5\]",
    ),
    (
        lambda path: knots(path, scores=[-9, 0, 1, 2]),
        r"manifest\.json: expected version [0-9a-f]{12} by its contents, found [0-9a-f]{12}",
    ),
    (
        lambda path: change_manifest(path, lambda content: content["propensity"].update(weight=0.5)),
        r"manifest\.json: expected version [0-9a-f]{12} by its contents, found [0-9a-f]{12}",
    ),
    (
        lambda path: (path / layout.INVERSE_PROPENSITIES).unlink(),
        r"expected file 'inverse_propensities\.npy', found none",
    ),
]


@pytest.mark.parametrize(
    ("damage", "sentence"), CALIBRATION_DAMAGES, ids=[sentence for _, sentence in CALIBRATION_DAMAGES]
)
def test_each_damage_to_what_makes_scores_is_one_sentence(
    copy: Copy, damage: Callable[[Path], object], sentence: str
) -> None:
    path = copy(propensity_weight=1.0)
    damage(path)
    with pytest.raises(BundleError, match=sentence) as caught:
        open_bundle(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES, ids=[sentence for _, sentence in DAMAGES])
def test_each_damage_is_one_sentence(copy: Copy, damage: Callable[[Path], object], sentence: str) -> None:
    path = copy()
    damage(path)
    with pytest.raises(BundleError, match=sentence) as caught:
        open_bundle(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "file"),
    [({"method": "unidec"}, layout.LABEL_INDEX), ({"method": "declare", "recovery": "rows"}, "rows.faiss")],
)
def test_an_exact_search_as_it_was_before_is_refused(copy: Copy, fields: dict[str, str], file: str) -> None:
    """Exact searches were FAISS indexes once."""
    path = copy(**fields)
    gone = {each.name for each in path.iterdir() if ".search." in each.name or ".vectors." in each.name}
    for name in gone:
        (path / name).unlink()
    (path / file).write_bytes(b"IxFI")
    entry = file_entry(path / file).model_dump()

    def rewrite(content: dict[str, Any]) -> None:
        content["files"] = {name: old for name, old in content["files"].items() if name not in gone} | {file: entry}

    change_manifest(path, rewrite)
    sign(path)
    with pytest.raises(BundleError, match=r"expected an entry for '.*\.search\.onnx', '.*\.vectors\.npy', found"):
        open_bundle(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere: expected a folder with manifest\.json"):
        open_bundle(tmp_path / "nowhere")


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=r"file: expected a folder with manifest\.json"):
        open_bundle(tmp_path / "file")
