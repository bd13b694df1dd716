"""Memory: what the container may have, and what bundles and processes take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import service.planning
from service.doctor.context import Context
from service.doctor.findings import Finding, fault, ok
from service.memory import machine_bytes, memory_limit_bytes
from service.ray_address import LOCAL

# What the models of this file and of a manifest need may be what is missing: both are read as plain JSON.
CONSTANTS = Path(str(service.planning.__file__)).with_name("constants.json")


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    machine = machine_bytes()
    limit = memory_limit_bytes(context.root)
    most = machine if limit is None else min(limit, machine)
    has = f"{_megabytes(machine)} of the machine" if most == machine else f"a limit of {_megabytes(most)}"
    bundles = context.settings.bundles
    # With a cluster, shards are in the memory of its nodes.
    here = context.settings.ray in (None, LOCAL)
    files = sum(_size([bundle, *(_shards(bundle) if here else ())]) for bundle in bundles)
    needed = round(processes_bytes(len(bundles))) + files
    need = f"bundles ({_megabytes(files)}) and processes ({1 + len(bundles)}) take about {_megabytes(needed)}"
    if needed > most:
        advice = f"raise the container's memory limit above {_megabytes(needed)}, or serve fewer or smaller bundles"
        yield fault("limit", f"{need}, found {has}", advice)
    else:
        yield ok("limit", f"{has}; {need}")


def processes_bytes(models: int) -> float:
    """What the process that speaks HTTP takes, and those of models beside their bundles' files, as plans count them."""
    memory: dict[str, Any] = json.loads(CONSTANTS.read_text(encoding="utf-8"))["memory"]
    one: float = memory["model"]["costs"]["always"] + memory["model_code"]
    http: float = memory["http"] + memory["http_code"]
    return http + models * one


def _size(folders: Sequence[Path]) -> int:
    """Bytes of a bundle's files and shards; none where they cannot be looked at, which the check of bundles tells."""
    try:
        return sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    except OSError:
        return 0


def _shards(bundle: Path) -> list[Path]:
    try:
        shards = json.loads((bundle / "manifest.json").read_bytes()).get("shards", [])
        return [bundle.resolve().parent / shard["folder"] for shard in shards]
    except (ValueError, AttributeError, TypeError, KeyError, OSError):
        return []


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.0f} MB"
