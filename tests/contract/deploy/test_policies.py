"""Every set keeps every promise, and no line of it can be lost without a policy that says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.deploy.mutations import FREE, HELD, mutations
from tests.contract.deploy.policies import POLICIES, faults
from tests.contract.deploy.release import Release
from tests.contract.deploy.rendering import K8S, SETS, Manifest, compose, render

pytestmark = pytest.mark.kubectl


@pytest.mark.parametrize("name", SETS)
def test_every_set_keeps_every_promise(name: str) -> None:
    assert faults(Release(render(name))) == []


@pytest.mark.parametrize("name", SETS)
def test_no_line_is_lost_unnoticed(name: str) -> None:
    """Each line of each object is taken away, and each value turned: at least one policy must say so."""
    unnoticed, count = [], 0
    for words, objects in mutations(render(name)):
        count += 1
        if not faults(Release(objects)):
            unnoticed.append(words)
    assert unnoticed == []
    assert count > 200


def test_a_new_line_that_no_policy_holds_is_named() -> None:
    objects = render("cpu")
    (deployment,) = (manifest for manifest in objects if manifest["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["dnsPolicy"] = "Default"
    unnoticed = [words for words, changed in mutations(objects) if not faults(Release(changed))]
    place = "Deployment xmcserve: spec.template.spec.dnsPolicy"
    assert unnoticed == [f"{place} is gone", f"{place} is 'other'"]


POD = ("Deployment", "spec.template.spec")
CONTAINER = ("Deployment", "spec.template.spec.containers.0")
# What may be added to an object at a place: nothing of it is there now.
WEAKENINGS: list[tuple[tuple[str, str], Any]] = [
    (POD, {"hostNetwork": True}),
    (POD, {"hostPID": True}),
    (POD, {"hostIPC": True}),
    (POD, {"hostUsers": True}),
    (POD, {"shareProcessNamespace": True}),
    (POD, {"tolerations": [{"operator": "Exists"}]}),
    (("Deployment", "spec.template.spec.containers"), {"name": "sidecar", "image": "sidecar"}),
    (("Deployment", "spec.template.spec.volumes"), {"name": "node", "hostPath": {"path": "/"}}),
    (("Deployment", "spec.template.spec.volumes"), {"name": "room", "emptyDir": {}}),
    (("Deployment", "spec.template.spec.securityContext"), {"fsGroup": 0}),
    ((CONTAINER[0], f"{CONTAINER[1]}.ports.0"), {"hostPort": 80}),
    ((CONTAINER[0], f"{CONTAINER[1]}.securityContext"), {"runAsUser": 0}),
    ((CONTAINER[0], f"{CONTAINER[1]}.securityContext.capabilities"), {"add": ["NET_ADMIN"]}),
    ((CONTAINER[0], f"{CONTAINER[1]}.resources.limits"), {"cpu": "2"}),
    ((CONTAINER[0], f"{CONTAINER[1]}.resources.limits"), {"nvidia.com/gpu": "1"}),
    ((CONTAINER[0], f"{CONTAINER[1]}.env"), {"name": "XMC_UNKNOWN", "value": "1"}),
    ((CONTAINER[0], f"{CONTAINER[1]}.volumeMounts"), {"name": "tmp", "mountPath": "/var"}),
    (("Service", "spec"), {"type": "LoadBalancer"}),
    (("Service", "spec.ports"), {"name": "more", "port": 1, "targetPort": 1}),
    (("NetworkPolicy", "spec"), {"egress": [{}]}),
    (("NetworkPolicy", "spec.ingress"), {}),
    (("NetworkPolicy", "spec.ingress.0.from"), {"ipBlock": {"cidr": "0.0.0.0/0"}}),
]


@pytest.mark.parametrize(("place", "addition"), WEAKENINGS, ids=str)
def test_what_weakens_is_noticed(place: tuple[str, str], addition: Any) -> None:
    assert faults(Release(weakened(place, addition)))


def test_every_policy_notices_something() -> None:
    """One that never does would be no policy."""
    names = ("prod", "kserve", "cpu+canary", "gpu+fetch+keda")
    changed = [objects for name in names for _, objects in mutations(render(name))]
    changed += [weakened(*weakening) for weakening in WEAKENINGS]
    assert {fault.partition(":")[0] for objects in changed for fault in faults(Release(objects))} == set(POLICIES)


def weakened(place: tuple[str, str], addition: Any) -> list[Manifest]:
    """The objects of the CPU's overlay with something more in one place of the first object that has it."""
    objects = render("cpu")
    for manifest in objects:
        holder: Any = manifest
        for step in place[1].split("."):
            if holder is not None:
                holder = holder[int(step)] if isinstance(holder, list) else holder.get(step)
        if manifest["kind"] == place[0] and holder is not None:
            holder.append(addition) if isinstance(holder, list) else holder.update(addition)
            return objects
    raise AssertionError(f"expected {place}")


def test_autoscalers_exclude_each_other() -> None:
    components = [K8S / "components" / name for name in ("hpa", "keda")]
    objects = compose([K8S / "overlays" / "cpu"], components)
    assert faults(Release(objects)) == ["one_decides: expected one autoscaler, found several"]


@pytest.mark.parametrize("name", SETS)
def test_every_kind_is_held_or_free(name: str) -> None:
    assert {manifest["kind"] for manifest in render(name)} <= set(HELD) | FREE
