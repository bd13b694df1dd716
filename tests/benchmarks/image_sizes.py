"""What each layer of the images weighs, and which packages that is.

    python -m tests.benchmarks.image_sizes [cpu gpu training export]

makes images by their Dockerfiles' own instructions, without a container engine (`tests.image`); the base image is not
among what is measured. Each is tried, from a tree that cannot be written. Needs root on Linux, the package
index, and on the disk twice an image's size for a while.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

from tests.image.builder import Builder
from tests.image.image import Image, Layer
from tests.image.machine import Mount, missing

ROOT = Path(__file__).parents[2]
# Dockerfile, stage, arguments.
IMAGES: dict[str, tuple[str, str | None, dict[str, str]]] = {
    "cpu": ("service.Dockerfile", None, {"FLAVOUR": "cpu"}),
    "gpu": ("service.Dockerfile", None, {"FLAVOUR": "gpu"}),
    "training": ("offline.Dockerfile", "training", {}),
    "export": ("offline.Dockerfile", "export", {}),
}
_FIT = "xmc-train fit --data sample --recipe mach --set training.epochs=1 --out /work/mach"
TRIES = {
    "cpu": ["xmc-serve --version"],
    "gpu": ["xmc-serve --version"],
    "training": [_FIT],
    "export": [_FIT, "xmc-export build /work/mach --out /work/bundle"],
}
GROUPS = {
    "CUDA and cuDNN": ("nvidia-",),
    "torch": ("torch",),
    "ONNX Runtime, ONNX": ("onnx", "flatbuffers", "protobuf", "ml_dtypes"),
    "numba, LLVM": ("numba", "llvmlite"),
    "NumPy, SciPy": ("numpy", "scipy"),
    "FAISS": ("faiss",),
    "pyarrow": ("pyarrow",),
    "transformers, tokenizers and the hub": (
        "transformers",
        "tokenizers",
        "huggingface",
        "hf-xet",
        "safetensors",
        "regex",
    ),
    "matplotlib": ("matplotlib", "fonttools", "pillow", "contourpy", "kiwisolver"),
    "xmcserve": ("xmcserve",),
}
OTHERS = "all others"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.image_sizes", description="Measure the images.")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(IMAGES)} (default: all)")
    chosen = parser.parse_args()
    if unknown := set(chosen.images) - set(IMAGES):
        parser.error(f"expected images of {', '.join(IMAGES)}, but found: {', '.join(sorted(unknown))}")
    if reason := missing():
        print(f"images cannot be made here: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        for name in chosen.images or IMAGES:
            file, stage, arguments = IMAGES[name]
            image = Builder(ROOT / "docker" / file, ROOT, Path(folder) / "layers", arguments).build(stage)
            print(report(name, image))
            print(f"\nAs {image.user}, read-only but for /tmp and {image.folder}:\n")
            print(tried(image, TRIES[name]), "\n", flush=True)
    return 0


def report(name: str, image: Image) -> str:
    """Tables of an image's layers and packages, as Markdown."""
    layers = {layer: bytes_of([layer]) for layer in image.layers[2:]}
    lines = [f"### {name}", "", "| Layer | MB | seconds |", "|---|---:|---:|"]
    for layer, count in layers.items():
        if count:
            lines.append(f"| `{shortened(layer.made_by)}` | {megabytes(count)} | {layer.seconds:.0f} |")
    lines.append(f"| together | {megabytes(sum(layers.values()))} | |")
    lines += ["", "| Packages | MB | of it compiled Python |", "|---|---:|---:|"]
    for group, (total, compiled) in sorted(by_group(layers).items(), key=lambda pair: -pair[1][0]):
        lines.append(f"| {group} | {megabytes(total)} | {megabytes(compiled)} |")
    return "\n".join(lines)


def tried(image: Image, commands: Iterable[str]) -> str:
    """The last line that each command prints, in a tree that cannot be written but for /tmp and /work."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.chown(work, *map(int, image.user.split(":")))
        for command in commands:
            container = replace(image, entrypoint=tuple(command.split())).start(
                mounts=[Mount(work, image.folder, True)]
            )
            printed, _ = container.communicate()
            if container.returncode != 0:
                raise SystemExit(f"{command} ended with code {container.returncode}:\n{printed}")
            lines.append(f"    {command}\n    {printed.splitlines()[-1]}")
    return "\n".join(lines)


def bytes_of(layers: Iterable[Layer]) -> int:
    """Bytes of all files."""
    return sum(path.lstat().st_size for layer in layers for path in layer.files.rglob("*") if not path.is_dir())


def by_group(layers: Iterable[Layer]) -> Mapping[str, tuple[int, int]]:
    """Bytes of each group's files, and those of compiled Python among them, which no package lists."""
    groups: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for layer in layers:
        for packages in layer.files.glob("opt/xmc/lib/*/site-packages"):
            owners = owners_of(packages)
            for path in packages.rglob("*"):
                if path.is_dir():
                    continue
                parts = path.relative_to(packages).parts
                group = owners.get(parts[:2], owners.get(parts[:1], OTHERS))
                size = path.lstat().st_size
                total, compiled = groups[group]
                groups[group] = (total + size, compiled + (size if path.suffix == ".pyc" else 0))
    return groups


def owners_of(packages: Path) -> dict[tuple[str, ...], str]:
    """The group of every folder, and of every folder within one, by the lists of files of what is installed."""
    owners: dict[tuple[str, ...], str] = {}
    for one in distributions(path=[str(packages)]):
        group = next((group for group, names in GROUPS.items() if one.name.startswith(names)), OTHERS)
        for row in csv.reader((one.read_text("RECORD") or "").splitlines()):
            parts = Path(row[0]).parts
            owners[parts[:1]] = owners[parts[:2]] = group
    return owners


def shortened(instruction: str) -> str:
    return instruction if len(instruction) <= 60 else f"{instruction[:57]}..."


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"


if __name__ == "__main__":
    sys.exit(main())
