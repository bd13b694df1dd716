"""The hooks before a commit find nothing in what is committed, and are the environment's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIGURATION = ".pre-commit-config.yaml"
SCRIPTS = Path(sysconfig.get_path("scripts"))
HOOKS = {
    hook["id"]: hook
    for repository in yaml.safe_load((ROOT / CONFIGURATION).read_text(encoding="utf-8"))["repos"]
    for hook in repository["hooks"]
}


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command there, with none of git's own variables: an outer hook has set them for another repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | variables
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it is, in a repository of its own, as hooks repair what they find; this environment is its .venv."""
    folder = tmp_path_factory.mktemp("repository")
    kept = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout.split("\0")
    for name in (name for name in kept if name and (ROOT / name).is_file()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(SCRIPTS.parent)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    return folder


def check(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    home = str(folder.parent / "pre-commit")
    return run(
        folder, str(SCRIPTS / "pre-commit"), "run", "--color=never", *arguments, PRE_COMMIT_HOME=home, **variables
    )


def test_nothing_is_found(copy: Path) -> None:
    """mypy, which `make lint` runs too, is left to it: it takes a minute."""
    process = check(copy, "--all-files", SKIP="mypy")
    assert process.returncode == 0, process.stdout
    passed = [line for line in process.stdout.splitlines() if line.endswith("Passed")]
    assert len(passed) == len(HOOKS) - 1


@pytest.mark.parametrize(
    ("hook", "name", "wrong"),
    [
        ("ruff", "service/wrong.py", '"""A module."""\n\nimport os\n'),
        ("ruff-format", "service/wrong.py", '"""A module."""\n\nx = ( 1 )\n'),
        ("hadolint", "docker/wrong.Dockerfile", "FROM debian:latest\n"),
        ("check-yaml", "k8s/wrong.yaml", "a: [\n"),
        ("check-json", "docker/wrong.json", "{\n"),
        ("check-toml", "wrong.toml", "a = \n"),
        ("end-of-file", "wrong.txt", "no end"),
        ("trailing-whitespace", "wrong.txt", "a line \n"),
    ],
)
def test_each_hook_finds_what_it_is_for(copy: Path, hook: str, name: str, wrong: str) -> None:
    file = copy / name
    file.write_text(wrong, encoding="utf-8")
    run(copy, "git", "add", name)
    try:
        process = check(copy, hook, "--files", name)
    finally:
        run(copy, "git", "rm", "--force", "--quiet", name)
    assert process.returncode == 1, process.stdout
    assert "Failed" in process.stdout


def test_hooks_are_tools_of_the_environment_and_fetch_nothing() -> None:
    """mypy's among them, which no test above runs."""
    assert {hook["language"] for hook in HOOKS.values()} == {"system"}
    for hook in HOOKS.values():
        program = Path(hook["entry"].split()[0])
        assert program.parent == Path(".venv/bin")
        assert (SCRIPTS / program.name).exists()
    assert HOOKS["mypy"]["pass_filenames"] is False
