"""Folders that appear whole: replaced at once, and untouched by whatever fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_export.errors import UsageError
from model_export.replacement import replacing
from service.bundle import layout


def old_bundle(out: Path) -> Path:
    """Just enough of a bundle, of a version that nobody reads any more."""
    out.mkdir()
    (out / layout.MANIFEST).write_text(json.dumps({"schema_version": 0}))
    return out


def write(out: Path, text: str = "new") -> None:
    with replacing(out) as folder:
        (folder / "file").write_text(text)
        assert not (out / "file").exists()


def test_the_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "down" / "bundle")
    assert (tmp_path / "deep" / "down" / "bundle" / "file").read_text() == "new"


def test_an_empty_folder_and_an_older_bundle_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", old_bundle(tmp_path / "old")):
        write(out)
        assert [file.name for file in out.iterdir()] == ["file"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "old"]


def test_the_current_folder_can_be_named_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = old_bundle(tmp_path / "bundle")
    monkeypatch.chdir(out)
    write(Path())
    assert (out / "file").read_text() == "new"


def write_half(out: Path, error: type[BaseException]) -> None:
    with replacing(out) as folder:
        (folder / "file").write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_bundle_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    out = old_bundle(tmp_path / "bundle")
    with pytest.raises(error):
        write_half(out, error)
    assert [file.name for file in out.iterdir()] == [layout.MANIFEST]
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_the_old_bundle_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = old_bundle(tmp_path / "bundle")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError("no more renames")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="no more renames"):
        write(out)
    assert [file.name for file in out.iterdir()] == [layout.MANIFEST]
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_files_links_and_other_folders_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(old_bundle(tmp_path / "bundle"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / layout.MANIFEST).write_text('{"name": "a web page"}')
    found = {"file": "a file", "link": "a link", "folder": "a folder of other files"}
    for name, kind in found.items():
        with pytest.raises(UsageError, match=f"{name}: expected a bundle to replace, or nothing, found {kind}$"):
            write(tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["bundle", *found])
    assert (tmp_path / "folder" / layout.MANIFEST).exists()
