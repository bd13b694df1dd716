"""The wheel holds the three packages and nothing else, and runs from it alone; so does what the sources build."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.contract.conftest import Yard
from tests.image.machine import Mount

ROOT = Path(__file__).parents[2]
PACKAGES = {"service", "training", "model_export"}

# Without the environment's variables and the folder it runs in, so that only what is installed can answer.
LOOK = """
import importlib, importlib.util, json, pathlib, subprocess, sys
found = importlib.util.find_spec
names = ("service", "training", "model_export", "torch", "transformers", "docker", "k8s", "tests")
importable = {name: found(name) is not None for name in names}
service = pathlib.Path(found("service").origin).parent
missing = {}
for file in sorted(service.rglob("*.py")):
    parts = ("service", *file.relative_to(service).with_suffix("").parts)
    try:
        importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    except ModuleNotFoundError as error:
        missing.setdefault(error.name.partition(".")[0], []).append("/".join(parts[1:]))
commands = ("xmc-serve", "xmc-train", "xmc-export")
bin = pathlib.Path(sys.prefix) / "bin"
print(json.dumps({
    "importable": importable,
    "missing": missing,
    "origins": sorted({module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "service"}),
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "versions": {name: subprocess.check_output([bin / name, "--version"], text=True) for name in commands},
}))
"""


def build(target: str, tree: Path, folder: Path) -> Path:
    """Build a distribution of a source tree as `pip` would, but without the network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source tree."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel") / "dist")


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


def test_the_source_distribution_makes_the_same_wheel(names: list[PurePosixPath], tmp_path: Path) -> None:
    """It holds what is needed to build, check and run the project, and nothing that was made here."""
    sources = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sources) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (tree,) = (tmp_path / "unpacked").iterdir()
    kept = {path.relative_to(tree).parts[0] for path in tree.rglob("*") if path.is_file()}
    assert kept >= PACKAGES | {"tests", "docker", "k8s", "pyproject.toml", "constraints.txt", "Makefile", "LICENSE"}
    assert kept.isdisjoint({".venv", "build", "dist", ".git"})
    assert list(tree.rglob("__pycache__")) == []
    with zipfile.ZipFile(build("wheel", tree, tmp_path / "wheel")) as archive:
        assert sorted(map(PurePosixPath, archive.namelist())) == sorted(names)


@pytest.fixture(scope="module")
def found(wheel: Path, yard: Yard, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is seen where the wheel is installed beside what a server needs, and nothing else is."""
    with yard.lock:
        environment = yard.builder().build("dependencies")
        pip = "pip --python /opt/xmc/bin/python"
        commands = [
            f"{pip} install --quiet --no-deps --no-compile /dist/{wheel.name}",
            f"{pip} check >&2",
            f"/opt/xmc/bin/python -I -c {shlex.quote(LOOK)}",
        ]
        work = tmp_path_factory.mktemp("clean") / "written"
        mounts = [Mount(wheel.parent, "/dist")]
        printed = environment.try_out(work, "bash", "-euc", "\n".join(commands), mounts=mounts)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


@pytest.mark.image
def test_the_service_is_imported_from_the_wheel_and_brings_no_torch(found: dict[str, Any]) -> None:
    assert all("/opt/xmc/lib/" in origin for origin in found["origins"])
    assert {"torch", "training", "model_export"}.isdisjoint(found["modules"])


@pytest.mark.image
def test_modules_of_other_extras_alone_cannot_be_imported(found: dict[str, Any]) -> None:
    """Those of the client, of gRPC, of the dashboard, of the GPU and of Ray, which the environment has not."""
    places = {name: {path.partition("/")[0] for path in paths} for name, paths in found["missing"].items()}
    of_extras = {"httpx": {"client"}, "grpc": {"rpc"}, "grafana_foundation_sdk": {"monitoring"}, "onnx": {"resident"}}
    of_extras["ray"] = {"distributed"}
    assert places == of_extras
    assert len(found["origins"]) > 100


@pytest.mark.image
def test_nothing_else_of_the_project_can_be_imported(found: dict[str, Any]) -> None:
    """Nor is there a torch that somebody could import by mistake."""
    assert found["importable"] == {"service": True, "training": True, "model_export": True} | dict.fromkeys(
        ("torch", "transformers", "docker", "k8s", "tests"), False
    )


@pytest.mark.image
@pytest.mark.parametrize("command", ["xmc-serve", "xmc-train", "xmc-export"])
def test_commands_start(found: dict[str, Any], command: str) -> None:
    """Each tells its version, the two others without what training needs."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert found["versions"][command] == f"{command} {version}\n"
