"""The wheel holds the three packages and nothing else, and its service runs from it alone."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"service", "training", "model_export"}

# Runs without `site`, so that the environment's link to the source tree is not followed: only the wheel can answer.
IMPORT_SERVICE = """
import importlib, json, pathlib, sys
wheel, libraries = sys.argv[1:]
sys.path[:0] = [wheel]
sys.path.append(libraries)
for file in sorted(pathlib.Path(wheel, "service").rglob("*.py")):
    parts = file.relative_to(wheel).with_suffix("").parts
    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
print(json.dumps({
    "origins": sorted({module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "service"}),
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source tree, built as `pip` would build it but without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[PurePosixPath]:
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


def test_only_the_three_packages_are_at_the_top(names: list[PurePosixPath]) -> None:
    top = {name.parts[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


def test_every_file_of_the_packages_is_there(names: list[PurePosixPath]) -> None:
    """The data beside the code too: the embedded sample, schemas, readmes."""
    expected = {
        PurePosixPath(file.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if name.parts[0] in PACKAGES} == expected
    assert any(name.match("training/data/sample/*.json.gz") for name in expected)


def test_licence_and_commands_travel_with_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
        (commands,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        text = archive.read(commands).decode()
    assert [line.split(" = ")[0] for line in text.splitlines() if " = " in line] == [
        "xmc-export",
        "xmc-serve",
        "xmc-train",
    ]


def test_the_service_is_imported_from_the_wheel_and_brings_no_torch(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-S", "-I", "-c", IMPORT_SERVICE, str(tmp_path), sysconfig.get_path("purelib")]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert all(Path(origin).is_relative_to(tmp_path) for origin in found["origins"])
    assert {"torch", "training", "model_export"}.isdisjoint(found["modules"])
