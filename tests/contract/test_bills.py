"""Every extra has a bill of materials with all that it installs, and licences that somebody has looked at."""

from __future__ import annotations

import json
import zipfile
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.test_make import pins
from tests.release import bills
from tests.release.closure import EXTRAS, PROJECT, closure, find_distributions, requirements
from tests.release.licences import ACCEPTED, READ, is_allowed, licence_of, objections

INSTALLED = [extra for extra in EXTRAS if extra != "gpu"]
FOUND = find_distributions()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes for everything that is installed."""
    out = tmp_path_factory.mktemp("bills")
    assert bills.main([*INSTALLED, "--out", str(out)]) == 0
    return out


def wheel(folder: Path, name: str, version: str, *lines: str) -> None:
    """A wheel of metadata alone."""
    metadata = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines])
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", metadata + "\n")


@pytest.mark.parametrize("extra", INSTALLED)
def test_a_bill_names_every_package_with_version_and_licence(written: Path, extra: str) -> None:
    """In the schema of CycloneDX, which the command holds it against."""
    bill = json.loads((written / "sbom" / f"{extra}.cdx.json").read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"], root["type"]) == ("xmcserve", PROJECT["version"], "application")
    parts = {canonicalize_name(part["name"]): part for part in bill["components"]}
    assert parts.keys() == closure(requirements(extra), FOUND).keys()
    for name, part in parts.items():
        assert part["version"] == FOUND[name].version
        assert part["purl"].startswith("pkg:pypi/")
        assert part["licenses"], name
    assert {canonicalize_name(ref.split("@")[0]) for ref in depends_on(bill, root)} == {
        canonicalize_name(Requirement(line).name) for line in requirements(extra)
    }


def depends_on(bill: dict[str, Any], component: dict[str, Any]) -> list[str]:
    (entry,) = (entry for entry in bill["dependencies"] if entry["ref"] == component["bom-ref"])
    refs: list[str] = entry["dependsOn"]
    return refs


@pytest.mark.parametrize("extra", INSTALLED)
def test_a_list_of_licences_has_a_row_for_each_package(written: Path, extra: str) -> None:
    text = (written / "licences" / f"{extra}.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    needed = closure(requirements(extra), FOUND)
    assert {canonicalize_name(name): licence for name, _, licence in rows} == {
        name: licence_of(FOUND[name]) for name in needed
    }


def test_bills_say_what_is_pinned() -> None:
    """A bill is of what this environment holds: the pins, as tests/contract/test_make.py holds it."""
    needed = closure(requirements("serve"), FOUND)
    assert {name: FOUND[name].version for name in needed} == {name: str(pins()[name]) for name in needed}


def test_a_closure_goes_through_extras_and_markers() -> None:
    needed = closure(["tritonclient[http]"], FOUND)
    assert "geventhttpclient" in needed["tritonclient"]
    assert "gevent" in needed
    assert "geventhttpclient" not in closure(["tritonclient"], FOUND)
    assert "pytest" not in closure(["numpy"], FOUND)


def test_the_gpus_bill_is_made_from_wheels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NVIDIA's licence is accepted for its libraries, with a reason, and for nothing else."""
    out = tmp_path / "out"
    assert bills.main(["gpu", "--out", str(out)]) == 1
    assert "onnxruntime-gpu is neither installed nor among the wheels" in capsys.readouterr().err
    proprietary = "License-Expression: LicenseRef-NVIDIA-Proprietary"
    asks = ["Requires-Dist: numpy", 'Requires-Dist: nvidia-cublas; extra == "cuda"', "Provides-Extra: cuda"]
    wheel(tmp_path, "onnxruntime-gpu", "1.2.3", "License-Expression: MIT", *asks, "Provides-Extra: cudnn")
    wheel(tmp_path, "nvidia-cublas", "13.0", proprietary)
    assert bills.main(["gpu", "--out", str(out), "--wheels", str(tmp_path)]) == 0
    bill = json.loads((out / "sbom" / "gpu.cdx.json").read_text(encoding="utf-8"))
    parts = {part["name"]: part for part in bill["components"]}
    assert parts["nvidia-cublas"]["version"] == "13.0"
    assert "LicenseRef-NVIDIA-Proprietary" in json.dumps(parts["nvidia-cublas"]["licenses"])
    assert ACCEPTED["nvidia-cublas"] in (out / "licences" / "gpu.md").read_text(encoding="utf-8")
    wheel(tmp_path, "onnxruntime-gpu", "1.2.3", proprietary)
    assert bills.main(["gpu", "--out", str(out), "--wheels", str(tmp_path)]) == 1
    assert "onnxruntime-gpu 1.2.3: LicenseRef-NVIDIA-Proprietary is not among" in capsys.readouterr().err


def test_unknown_extras_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bills.main(["tpu", "--out", str(tmp_path)])
    assert "but found: tpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "objection"),
    [
        (["License-Expression: MIT OR GPL-3.0-only"], None),
        (["License: Apache 2.0"], None),
        (["Classifier: License :: OSI Approved :: MIT License"], None),
        (["License-Expression: MIT AND GPL-3.0-only"], "MIT AND GPL-3.0-only is not among"),
        (["License: AGPL-3.0-or-later"], "AGPL-3.0-or-later is not among"),
        (["Classifier: License :: OSI Approved :: BSD License"], "names no licence that is known here"),
        (["License: as is"], "names no licence that is known here"),
        ([], "names no licence that is known here"),
    ],
)
def test_licences_that_nobody_has_looked_at_are_objected_to(
    lines: list[str], objection: str | None, tmp_path: Path
) -> None:
    wheel(tmp_path, "some-package", "1.0", *lines)
    (one,) = Distribution.discover(path=[str(next(tmp_path.glob("*.whl")))])
    found = objections([one])
    assert [objection in sentence for sentence in found] == ([True] if objection else [])


def test_nothing_is_listed_without_need() -> None:
    """Packages whose metadata has come to say it, or that are gone."""
    needed = {name for extra in INSTALLED for name in closure(requirements(extra), FOUND)}
    assert READ.keys() <= needed
    assert {name for name in ACCEPTED if not name.startswith("nvidia-")} <= needed
    assert [name for name in ACCEPTED if name in FOUND and is_allowed(licence_of(FOUND[name]) or "")] == []
