"""The version stands in pyproject.toml; whatever else names it names the same one, and the changelog tells of it."""

from __future__ import annotations

import datetime
import re
import shutil
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

import model_export.cli
import service.cli
import training.cli
from service.inference.metadata import server_metadata
from tests.contract.test_make import make

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
# A tag of an image, the tag that a kustomization sets, the version that an image is labelled with.
NAMED = re.compile(r"(?:xmcserve[a-z-]*:|newTag: *[\"']?|ARG VERSION=)(\d[0-9a-z.]*)")
DEPLOYED = ("Dockerfile", ".yaml", ".yml", ".md", ".json")
SECTION = re.compile(r"## (?P<version>\S+) \((?P<when>unreleased|\d{4}-\d{2}-\d{2})\)")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def named(tree: Path) -> dict[str, set[str]]:
    """The versions that each file of images and deployments names, wherever it lies."""
    files = [
        path
        for folder in ("docker", "k8s", "service", "training", "model_export")
        for path in (tree / folder).rglob("*")
    ]
    files += tree.glob("*.md")
    texts = {
        path: path.read_text(encoding="utf-8") for path in files if path.is_file() and path.name.endswith(DEPLOYED)
    }
    found = {path.relative_to(tree).as_posix(): set(NAMED.findall(text)) for path, text in texts.items()}
    return {path: versions for path, versions in found.items() if versions}


def test_every_tag_and_label_of_an_image_is_this_version() -> None:
    found = named(ROOT)
    assert found.keys() >= {"docker/service.Dockerfile", "docker/README.md", "k8s/overlays/cpu/kustomization.yaml"}
    assert {path: versions for path, versions in found.items() if versions != {VERSION}} == {}


def test_make_version_writes_it_everywhere(tmp_path: Path) -> None:
    for folder in ("docker", "k8s"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("Makefile", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    before = named(tmp_path)
    process = make("version", "NEW=12.34.56rc1", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert named(tmp_path) == {path: {"12.34.56rc1"} for path in before}
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == "12.34.56rc1"
    assert list(tmp_path.rglob("*.old")) == []


@pytest.mark.parametrize("wrong", ["", "1.2", "v1.2.3", "1.2.3-gpu"])
def test_make_version_refuses_what_is_none(wrong: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    process = make("version", f"NEW={wrong}", cwd=tmp_path)
    assert process.returncode != 0
    assert f"but found: {wrong}" in process.stderr
    assert (tmp_path / "pyproject.toml").read_bytes() == (ROOT / "pyproject.toml").read_bytes()


def test_what_is_installed_is_this_version() -> None:
    assert version("xmcserve") == VERSION
    assert server_metadata().version == VERSION


@pytest.mark.parametrize(
    ("command", "main"),
    [("xmc-serve", service.cli.main), ("xmc-train", training.cli.main), ("xmc-export", model_export.cli.main)],
)
def test_commands_tell_it(command: str, main: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])  # type: ignore[operator]
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{command} {VERSION}\n"


def test_the_changelog_tells_of_this_version_first() -> None:
    """Then of older ones, each with its date; what is new is not of a version that was released."""
    headings = [line for line in lines_of_changelog() if line.startswith("## ")]
    sections = [SECTION.fullmatch(heading) for heading in headings]
    assert [heading for heading, section in zip(headings, sections, strict=True) if section is None] == []
    versions = [Version(section["version"]) for section in sections if section]
    assert versions[0] == Version(VERSION)
    assert versions == sorted(set(versions), reverse=True)
    dates = [section["when"] for section in sections if section and section["when"] != "unreleased"]
    assert len(dates) >= len(sections) - 1
    assert dates == sorted(dates, reverse=True)
    assert all(datetime.date.fromisoformat(date) <= datetime.datetime.now(datetime.UTC).date() for date in dates)


def test_the_changelog_sorts_its_lines_by_kind() -> None:
    kinds = [line.removeprefix("### ") for line in lines_of_changelog() if line.startswith("### ")]
    assert kinds
    assert set(kinds) <= set(KINDS)


def lines_of_changelog() -> list[str]:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
