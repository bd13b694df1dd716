"""What `kubectl kustomize` makes of the folders in ``k8s/``: every overlay, and every component on top of one."""

from __future__ import annotations

import copy
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[3]
K8S = ROOT / "k8s"

OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (K8S / "components").iterdir())
# As a user adds it in an overlay of his own. Two that exclude each other are never together here.
COMBINATIONS = [f"cpu+{name}" for name in COMPONENTS] + ["gpu+fetch+keda", "prod+fetch", "canary+fetch"]
SETS = OVERLAYS + COMBINATIONS


def render(name: str) -> list[Manifest]:
    """The objects of a set: the name of an overlay, then those of components, joined by ``+``; the caller's own."""
    return copy.deepcopy(_rendered(name))


@lru_cache(maxsize=64)
def _rendered(name: str) -> list[Manifest]:
    overlay, *components = name.split("+")
    folder = K8S / "overlays" / overlay
    if not components:
        return _kustomize(folder)
    fields: Manifest = {}
    # What a user's own overlay has to say once more, and what a component asks of it.
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    if "namespace" in kustomization:
        fields["namespace"] = kustomization["namespace"]
    if "fetch" in components:
        fields["configMapGenerator"] = [bundle_to_fetch("0" * 64)]
    return compose([folder], [K8S / "components" / component for component in components], **fields)


def bundle_to_fetch(sha256: str) -> Manifest:
    """The generator of the ConfigMap that `components/fetch` asks for."""
    literals = ["url=https://models.example.com/tags.tar", f"sha256={sha256}"]
    return {"name": "xmcserve-bundle", "literals": literals}


def compose(resources: Sequence[Path], components: Sequence[Path] = (), **fields: Any) -> list[Manifest]:
    """The objects of a kustomization of these folders, with further fields."""
    with tempfile.TemporaryDirectory() as folder:
        near = Path(folder).resolve()
        content = {
            "resources": [os.path.relpath(path, near) for path in resources],
            "components": [os.path.relpath(path, near) for path in components],
        }
        (near / "kustomization.yaml").write_text(yaml.safe_dump(content | fields), encoding="utf-8")
        return _kustomize(near)


def _kustomize(folder: Path) -> list[Manifest]:
    process = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    # Warnings of fields that kustomize is about to drop.
    assert not process.stderr, process.stderr
    return list(yaml.safe_load_all(process.stdout))
