"""What holds for every image: linted, ready for digests, nobody's, labelled, and made of what is asked for alone."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

from service.settings import load_settings
from tests.image.dockerfile import Dockerfile, Instruction, Stage, read_dockerfile

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SERVICE = ROOT / "docker" / "service.Dockerfile"
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
LABELS = {"title", "description", "version", "revision", "source", "licenses"}


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def dockerfile(file: Path) -> Dockerfile:
    return read_dockerfile(file)


def of(word: str, *stages: Stage) -> list[Instruction]:
    """All instructions of a kind."""
    return [instruction for stage in stages for instruction in stage.of(word)]


def test_there_are_images_to_look_at() -> None:
    assert {file.name for file in FILES} >= {"service.Dockerfile", "offline.Dockerfile"}


def test_hadolint_finds_nothing(file: Path) -> None:
    linter = Path(sysconfig.get_path("scripts"), "hadolint")
    process = subprocess.run([linter, file], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout


def test_every_base_is_an_argument_that_a_digest_can_take(dockerfile: Dockerfile) -> None:
    own = {stage.name for stage in dockerfile.stages}
    foreign = {stage.base for stage in dockerfile.stages} - own - {"service-${FLAVOUR}"}
    assert foreign == {"${PYTHON_IMAGE}"}
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", dockerfile.arguments["PYTHON_IMAGE"])


def test_nothing_is_installed_but_pinned_and_nothing_is_cached(dockerfile: Dockerfile) -> None:
    installs = [run.text for run in of("RUN", *dockerfile.stages) if re.search(r"\binstall\b", run.text)]
    assert installs
    for text in installs:
        assert "--no-cache-dir" in text
        assert "constraints.txt" in text or "--no-deps" in text
        assert not re.search(r"apt-get|apk|curl|wget", text)


def test_images_are_nobodys_and_start_a_command(dockerfile: Dockerfile) -> None:
    """By number, in the stages that make them; whatever root did before."""
    finals = [stage for stage in dockerfile.stages if of("ENTRYPOINT", stage)]
    assert finals
    for stage in finals:
        assert of("USER", stage)[-1].text == "65532:65532"
        assert of("ENTRYPOINT", stage)[-1].command()[0] in ("xmc-serve", "xmc-train", "xmc-export")


def test_labels_name_version_revision_and_source(dockerfile: Dockerfile) -> None:
    named = {name: value for label in of("LABEL", *dockerfile.stages) for name, value in label.pairs().items()}
    assert named.keys() == {f"org.opencontainers.image.{name}" for name in LABELS}
    assert named["org.opencontainers.image.version"] == "${VERSION}"
    assert named["org.opencontainers.image.revision"] == "${REVISION}"
    assert named["org.opencontainers.image.source"] == "${SOURCE}"


def test_what_enters_the_build_is_what_is_copied(file: Path, dockerfile: Dockerfile) -> None:
    """A Dockerfile's own list of what is ignored comes before the tree's, as BuildKit has it."""
    own = file.with_name(f"{file.name}.dockerignore")
    lines = (own if own.exists() else ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copies = [copy.words()[:-1] for copy in of("COPY", *dockerfile.stages) if "from" not in copy.flags]
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == {
        name for copy in copies for name in copy
    }


def test_torch_comes_from_another_index_where_one_is_named() -> None:
    (install,) = (
        run.text
        for run in of("RUN", *read_dockerfile(ROOT / "docker" / "offline.Dockerfile").stages)
        if "training.txt" in run.text and "pip" in run.text
    )
    (option,) = re.findall(r"\$\{TORCH_INDEX:\+[^}]*\}\"\}", install)
    for index, expected in (("", ""), ("https://index.example/cpu", "--extra-index-url https://index.example/cpu")):
        shell = subprocess.run(
            ["bash", "-c", f"echo {option}"], env={"TORCH_INDEX": index}, capture_output=True, text=True, check=True
        )
        assert shell.stdout.strip() == expected


def required(file: str, extras: str) -> set[str]:
    """What the Dockerfile's own program says is to be installed, of this tree, with such an argument."""
    runs = read_dockerfile(ROOT / "docker" / file).stage("dependencies").of("RUN")
    (program,) = (found[0] for run in runs if (found := re.search(r'python -c "import tomllib.*?"(?= >)', run.text)))
    environment = {"PATH": sysconfig.get_path("scripts"), "FLAVOUR": "cpu", "EXTRAS": extras}
    process = subprocess.run(
        ["/bin/bash", "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return set(process.stdout.splitlines())


@pytest.mark.parametrize(("file", "default"), [("service.Dockerfile", "otel"), ("offline.Dockerfile", "")])
def test_an_argument_adds_extras_such_as_ray(file: str, default: str) -> None:
    """Images that KubeRay starts are these, with Ray in them."""
    arguments = [argument.text for argument in read_dockerfile(ROOT / "docker" / file).stage("dependencies").of("ARG")]
    assert f"EXTRAS={default}" in arguments
    ray = set(PROJECT["optional-dependencies"]["ray"])
    assert ray
    before, after = required(file, default), required(file, f"{default} ray")
    assert before >= set(PROJECT["dependencies"])
    assert after - before == ray


def test_kuberays_shell_finds_the_commands() -> None:
    """It starts containers by `/bin/bash -c`, with the variables of the image: Debian's slim images have one."""
    for stage in (
        read_dockerfile(SERVICE).stage("service"),
        read_dockerfile(ROOT / "docker" / "offline.Dockerfile").stage("training"),
    ):
        assert stage.environment()["PATH"].startswith("/opt/xmc/bin:")


@pytest.mark.parametrize(("flavour", "device"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_the_services_variables_are_settings(flavour: str, device: str) -> None:
    """Both flavours: a runtime extra of that name, a final stage, variables that the service accepts."""
    dockerfile = read_dockerfile(SERVICE)
    assert flavour in PROJECT["optional-dependencies"]
    variables = dockerfile.stage("service").environment() | dockerfile.stage(f"service-{flavour}").environment()
    settings = load_settings({}, variables)
    assert settings.device == device
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 8000, 9090)
    assert settings.log_format == "json"
    assert dockerfile.stages[-1].base == "service-${FLAVOUR}"


def test_the_service_can_be_watched_and_holds_no_other_package() -> None:
    dockerfile = read_dockerfile(SERVICE)
    (health,) = dockerfile.stage("service").of("HEALTHCHECK")
    assert health.command()[:2] == ["python", "-c"]
    assert "/livez" in health.command()[2]
    compile(health.command()[2], "HEALTHCHECK", "exec")
    assert [expose.text for expose in dockerfile.stage("service").of("EXPOSE")] == ["8000 9090"]
    copied = {name for copy in of("COPY", *dockerfile.stages) for name in copy.words()}
    assert copied.isdisjoint({"training", "model_export", "tests"})
