"""What single overlays and components are there for, and that they go together."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import cli
from service.bundle import open_bundle
from service.metrics import Metrics
from tests.bundles import Spec, write_bundle
from tests.contract.deploy.clusters import clusters
from tests.contract.deploy.policies import faults
from tests.contract.deploy.release import Pod, Release, environment
from tests.contract.deploy.rendering import COMPONENTS, K8S, OVERLAYS, bundle_to_fetch, compose, render
from tests.contract.deploy.validation import KUBERNETES_VERSIONS, validate
from tests.service.fetching.archives import digest, packed, serving

ADAPTER = K8S / "components" / "hpa" / "prometheus-adapter.yaml"
README = (K8S / "README.md").read_text(encoding="utf-8")


def pod_of(name: str) -> Pod:
    (pod,) = Release(render(name)).pods
    return pod


@pytest.mark.kubectl
@pytest.mark.parametrize(
    ("name", "device", "resource"),
    [("cpu", "cpu", None), ("gpu", "cuda", "nvidia.com/gpu"), ("gpu-mig", "cuda", "nvidia.com/mig-1g.10gb")],
)
def test_an_overlay_is_for_a_device(name: str, device: str, resource: str | None) -> None:
    pod = pod_of(name)
    limits = {limit: count for limit, count in pod.service["resources"]["limits"].items() if limit != "memory"}
    assert limits == ({} if resource is None else {resource: "1"})
    assert environment(pod.service)["XMC_DEVICE"] == device


@pytest.mark.kubectl
def test_production_asks_for_keys_and_three_pods() -> None:
    release = Release(render("prod"))
    (pod,) = release.pods
    variables = environment(pod.service)
    assert (variables["XMC_API_KEYS_FILE"], variables["XMC_BUNDLE_KEYS"]) == ("/keys/clients", "/keys/release.pub")
    (scaler,) = release.of_kind("HorizontalPodAutoscaler")
    assert scaler["spec"]["minReplicas"] == 3
    elsewhere = [found["kind"] for found in release.objects if found["metadata"].get("namespace") != "xmcserve"]
    assert elsewhere == ["Namespace"]


@pytest.mark.kubectl
@pytest.mark.parametrize("overlay", ["prod", "canary"])
def test_one_line_puts_it_on_gpus(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    file = tmp_path / "k8s" / "overlays" / overlay / "kustomization.yaml"
    lines = [line.replace("../cpu", "../gpu") for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("\n".join(lines), encoding="utf-8")
    release = Release(compose([file.parent]))
    assert faults(release) == []
    assert release.pods[0].service["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.kubectl
def test_a_canary_stands_beside_the_first_release_and_takes_nothing_of_it() -> None:
    first, canary = Release(render("cpu+canary")), Release(render("canary"))
    names = [{(found["kind"], found["metadata"]["name"]) for found in release.objects} for release in (first, canary)]
    assert names[0].isdisjoint(names[1])
    for one, other in ((first, canary), (canary, first)):
        (pod,) = other.pods
        for found in one.objects:
            spec = found.get("spec", {})
            selector = spec.get("podSelector") or spec.get("selector") or {}
            labels = selector.get("matchLabels", selector)
            assert not (labels and labels.items() <= pod.labels.items()), found["metadata"]["name"]


@pytest.mark.kubectl
def test_the_route_leads_to_services_of_both_releases() -> None:
    objects = render("cpu+canary") + render("canary")
    services = {
        found["metadata"]["name"]: {port["port"] for port in found["spec"]["ports"]}
        for found in objects
        if found["kind"] == "Service"
    }
    (route,) = (found for found in objects if found["kind"] == "HTTPRoute")
    for backend in route["spec"]["rules"][0]["backendRefs"]:
        assert backend["port"] in services[backend["name"]]


@pytest.mark.kubectl
def test_what_the_init_container_runs_fetches_what_the_service_serves(tmp_path: Path) -> None:
    """The command of the manifest itself, against a real server."""
    write_bundle(tmp_path / "tiny", Spec(name="tiny"))
    pod = pod_of("cpu+fetch")
    with serving(tiny=packed(tmp_path / "tiny")) as shelf:
        given = {"$(BUNDLE_URL)": shelf.url("/tiny"), "$(BUNDLE_SHA256)": digest(tmp_path / "tiny")}
        program, *arguments = [given.get(word, word) for word in pod.init[0]["command"]]
        assert program == "xmc-serve"
        assert cli.main([word.replace("/models", str(tmp_path / "models")) for word in arguments]) == 0
    served = str(environment(pod.service)["XMC_BUNDLES"]).replace("/models", str(tmp_path / "models"))
    assert open_bundle(Path(served)).manifest.name == "tiny"


@pytest.mark.kubectl
def test_another_bundle_rolls_the_pods() -> None:
    """A pod reads its configuration once: the name of it must change with it."""
    names = set()
    for sha256 in ("1" * 64, "2" * 64):
        folders = [K8S / "overlays" / "cpu"], [K8S / "components" / "fetch"]
        release = Release(compose(*folders, configMapGenerator=[bundle_to_fetch(sha256)]))
        (config,), (pod,) = release.of_kind("ConfigMap"), release.pods
        assert config["data"]["sha256"] == sha256
        reference: Any = environment(pod.init[0])["BUNDLE_SHA256"]
        assert reference["configMapKeyRef"]["name"] == config["metadata"]["name"]
        names.add(config["metadata"]["name"])
    assert len(names) == 2


@pytest.mark.kubectl
def test_a_registry_is_named_once_for_all_containers() -> None:
    folders = [K8S / "overlays" / "gpu"], [K8S / "components" / "fetch"]
    images = [{"name": "xmcserve", "newName": "registry.example/xmcserve"}]
    (pod,) = Release(compose(*folders, images=images)).pods
    tag = pod_of("gpu").service["image"].partition(":")[2]
    assert {container["image"] for container in pod.all} == {f"registry.example/xmcserve:{tag}"}


@pytest.mark.kubectl
def test_the_adapter_answers_what_the_autoscaler_asks() -> None:
    metric = "xmc_queue_rows"
    (scaler,) = Release(render("cpu+hpa")).of_kind("HorizontalPodAutoscaler")
    asked = [found["pods"]["metric"]["name"] for found in scaler["spec"]["metrics"]]
    (rule,) = yaml.safe_load(ADAPTER.read_text(encoding="utf-8"))["rules"]["custom"]
    assert asked == [rule["name"]["as"]] == [metric]
    assert re.fullmatch(rule["name"]["matches"], metric)
    assert rule["seriesQuery"].startswith(f"{metric}{{")
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    metrics = Metrics()
    metrics.model("name", "version", "mach", asked="cpu", device="cpu", provider="CPUExecutionProvider")
    assert metric in {family.name for family in metrics.registry.collect()}


@pytest.mark.kubectl
@pytest.mark.prometheus
def test_queries_of_autoscalers_are_queries(tmp_path: Path) -> None:
    (scaled,) = Release(render("cpu+keda")).of_kind("ScaledObject")
    (rule,) = yaml.safe_load(ADAPTER.read_text(encoding="utf-8"))["rules"]["custom"]
    filled = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="x"')
    queries = [scaled["spec"]["triggers"][0]["metadata"]["query"], rule["seriesQuery"], filled]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    process = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_every_overlay_and_component_is_in_the_readme() -> None:
    assert set(re.findall(r"^\| `overlays/([\w-]+)` \|", README, re.MULTILINE)) == set(OVERLAYS)
    assert set(re.findall(r"^\| `components/([\w-]+)` \|", README, re.MULTILINE)) == set(COMPONENTS)


def examples() -> list[str]:
    """Kustomizations in the README, as a user writes them beside the overlays."""
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    return [block for block in blocks if "kind: Kustomization" in block]


@pytest.mark.kubectl
@pytest.mark.parametrize("number", range(len(examples())))
def test_kustomizations_of_the_readme_render(number: int, tmp_path: Path) -> None:
    """In a copy of the folder, as one overlay more."""
    shutil.copytree(K8S, tmp_path / "k8s")
    mine = tmp_path / "k8s" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(examples()[number], encoding="utf-8")
    objects = compose([mine])
    for manifest in objects:
        validate(manifest, KUBERNETES_VERSIONS[-1])
    release = Release(objects)
    assert len(release.pods) + len(list(clusters(release))) == 1
    for pod in release.pods:
        assert all(container["image"].startswith("registry.example/") for container in pod.all)
        assert {mount["name"] for container in pod.all for mount in container["volumeMounts"]} == pod.volumes.keys()
    for cluster in clusters(release):
        assert all(node.ray["image"].startswith("registry.example/") for node in cluster.nodes)
        # Who names a registry or a bundle keeps every promise.
        assert not [fault for fault in faults(release) if not fault.startswith("ray_images_are_of_this_version:")]


def test_the_readme_has_examples() -> None:
    assert len(examples()) == 7
