"""The service's image, made by the instructions of its Dockerfile, answers as nobody from a tree that is not written.

There is no container engine here: `tests.image` carries the instructions out, and starts what they made as an engine
would with `--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges`.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.bundles import Spec, write_bundle
from tests.contract.conftest import COMPILE_KERNELS, ROOT, Yard
from tests.image.builder import BuildError
from tests.image.dockerfile import read_dockerfile
from tests.image.image import Image
from tests.image.machine import Mount

pytestmark = pytest.mark.image

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
REVISION = "0123456789abcdef0123456789abcdef01234567"
NOBODY = "65532"

ASK = """
import json, sys, urllib.error, urllib.request
body = sys.argv[2].encode() if len(sys.argv) > 2 else None
request = urllib.request.Request("http://127.0.0.1:8000" + sys.argv[1], body, {"Content-Type": "application/json"})
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read().decode())
"""


@pytest.fixture(scope="module")
def image(yard: Yard) -> Image:
    with yard.lock:
        return yard.builder(REVISION=REVISION, SOURCE="https://forge.example/xmcserve").build()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_bundle(path, Spec(method="unidec", reranked=True))
    return path


def ask(image: Image, container: subprocess.Popen[str], path: str, body: object = None) -> str:
    """What the service answers to a request from within its container."""
    sent = [] if body is None else [json.dumps(body)]
    answer = image.execute(container, "python", "-c", ASK, path, *sent)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def wait_until_ready(container: subprocess.Popen[str]) -> None:
    assert container.stdout is not None
    lines = []
    for line in container.stdout:
        lines.append(line)
        if line.startswith("{") and "ready" in json.loads(line)["message"]:
            return
    raise AssertionError(f"the container ended before it was ready: {''.join(lines)}")


def status(container: subprocess.Popen[str]) -> dict[str, list[str]]:
    """What the kernel says of the process."""
    lines = Path("/proc", str(container.pid), "status").read_text(encoding="utf-8").splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def test_it_serves_as_nobody_from_a_tree_that_is_not_written(image: Image, bundle: Path) -> None:
    """From start to drained end, with the image's own variables, command and health check, and no HOME."""
    with image.start("--bundle", "/models", "--drain-seconds", "0", mounts=[Mount(bundle, "/models")]) as container:
        try:
            wait_until_ready(container)
            process = status(container)
            assert process["Uid"] == process["Gid"] == [NOBODY] * 4
            assert process["Groups"] == []
            assert process["NoNewPrivs"] == ["1"]
            assert {int(process[name][0], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {0}
            variables = Path("/proc", str(container.pid), "environ").read_text(encoding="utf-8").split("\0")
            assert "HOME" not in {pair.partition("=")[0] for pair in variables}

            assert ask(image, container, "/readyz") == "ok"
            assert json.loads(ask(image, container, "/v2"))["version"] == VERSION
            answer = json.loads(ask(image, container, "/predict", {"queries": ["a fast web server"], "k": 3}))
            assert [len(prediction["labels"]) for prediction in answer["predictions"]] == [3]

            assert image.execute(container, *image.healthcheck).returncode == 0
            assert image.execute(container, *image.healthcheck, XMC_PORT="8001").returncode != 0

            writable = image.execute(container, "find", "/", "-xdev", "-writable", "-not", "-type", "l")
            assert [path for path in writable.stdout.split() if not path.startswith(("/dev", "/proc"))] == ["/tmp"]
            as_root = image.execute(container, "touch", "/opt/xmc/written", user="0:0")
            assert "Read-only file system" in as_root.stderr

            container.terminate()
            rest, _ = container.communicate()
            assert container.returncode == 0, rest
        finally:
            container.kill()


def test_layers_hold_the_environment_and_nothing_else(image: Image) -> None:
    """No cache, no source, nothing temporary, no tool to install more with."""
    _, _, *layers = image.layers
    files = {path.relative_to(layer.files) for layer in layers for path in layer.files.rglob("*") if not path.is_dir()}
    assert {path.parts[:2] for path in files} == {("opt", "xmc")}
    packages = {
        path.parts[5] for path in files if path.match("opt/xmc/lib/*/site-packages/**/*") and len(path.parts) > 5
    }
    assert "service" in packages
    assert {"pip", "setuptools", "training", "model_export", "torch"}.isdisjoint(packages)
    assert not [path for path in files if "tests" in path.parts]
    programs = {path.name for path in files if path.match("opt/xmc/bin/*")}
    assert "xmc-serve" in programs
    assert {"xmc-train", "xmc-export", "pip"}.isdisjoint(programs)


def test_every_module_is_compiled(image: Image) -> None:
    """Nobody can write the tree: what is not compiled in it would be compiled at every start."""
    packages = [path for layer in image.layers[2:] for path in layer.files.glob("opt/xmc/lib/*/site-packages")]
    sources = [source for path in packages for source in path.rglob("*.py")]
    compiled = {(path.parent.parent, path.name.partition(".")[0]) for root in packages for path in root.rglob("*.pyc")}
    assert sources
    assert [source for source in sources if (source.parent, source.stem.partition(".")[0]) not in compiled] == []


def test_labels_say_where_it_comes_from(image: Image) -> None:
    prefix = "org.opencontainers.image."
    assert image.labels[f"{prefix}version"] == VERSION
    assert image.labels[f"{prefix}revision"] == REVISION
    assert image.labels[f"{prefix}source"] == "https://forge.example/xmcserve"
    assert image.labels[f"{prefix}licenses"] == "Apache-2.0"


def test_a_label_with_another_version_than_the_wheels_ends_the_build(yard: Yard, image: Image) -> None:
    with yard.lock, pytest.raises(BuildError, match=r"xmcserve-9\.9\.9-py3-none-any\.whl"):
        yard.builder(VERSION="9.9.9").build()


def test_what_is_left_out_here_is_an_instruction() -> None:
    stages = read_dockerfile(ROOT / "docker" / "service.Dockerfile").stages
    assert COMPILE_KERNELS in [one.text for stage in stages for one in stage.instructions if one.word == "RUN"]
