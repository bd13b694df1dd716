"""The README's tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_export import __file__ as package
from model_export.cli import main
from service.bundle import layout

README = (Path(package).parent / "README.md").read_text(encoding="utf-8")


def test_every_file_of_a_bundle_is_described() -> None:
    table = README.split("## What is in a bundle")[1].split("\n\n")[1]
    described = re.findall(r"`([^`]+)`", "".join(line.split("|")[1] for line in table.splitlines()))
    names = [value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)]
    assert sorted(described) == sorted(names)


def test_every_module_is_described() -> None:
    described = re.findall(r"^\| `([^`]+)` \|", README.split("## Where things are")[1], flags=re.MULTILINE)
    modules = {path.name for path in Path(package).parent.glob("*.py")} - {"__init__.py"}
    assert set(described) == modules | {"exporters/"}


@pytest.mark.parametrize("command", ["build", "verify", "diff", "plot", "shard", "keygen", "sign"])
def test_every_option_is_described(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help"}
    usage = next(line for line in README.splitlines() if line.startswith(f"xmc-export {command} "))
    assert set(re.findall(r"--[a-z]+", usage)) == options
