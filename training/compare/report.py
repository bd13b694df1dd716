"""The comparison as data: one line for each model, from what its stages made and how its ranking scores."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from training.artifact import LIBRARIES
from training.compare.peers import Peer
from training.compare.stages import Made
from training.compare.truth import Part, Scores, Truth, constant_ranking, score
from training.data.card import Card
from training.ranking import read_ranking

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Line:
    """One model; what was not measured is None.

    Attributes:
        name: of the recipe, artifact or peer.
        kind: where it comes from.
        scores: None where there is no model.
        artifact_bytes: all files of the trained model; of a peer, its saved model.
        bundle_bytes: all files of the exported bundle.
        read_seconds: from opening the data to its rows.
        train_seconds: of training.
        cpu_seconds: of both, all threads.
        peak_bytes: the most memory that training held beyond the libraries' own.
        planned_bytes: what a dry run says that would be.
        p50_ms: median latency of one query alone, its text left out.
        p99_ms: 99th percentile.
        prepare_p50_ms: median of what turns a text into tokens or a vector.
        note: why something is missing, or what a peer is.
    """

    name: str
    kind: Literal["ours", "peer", "constant"]
    scores: Scores | None = None
    artifact_bytes: int | None = None
    bundle_bytes: int | None = None
    read_seconds: float | None = None
    train_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    planned_bytes: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    prepare_p50_ms: float | None = None
    note: str = ""

    @property
    def serving_bytes(self) -> int | None:
        """What serving needs on disk: the bundle; of peers the saved model."""
        return self.artifact_bytes if self.kind == "peer" else self.bundle_bytes


@dataclass(frozen=True)
class Report:
    """All that a comparison says.

    Attributes:
        command: what was typed.
        day: ISO date.
        machine: processor, cores and library versions, in words.
        card: of the data.
        train_rows: training points.
        test_rows: test points.
        parts: head, torso and tail.
        lines: one for each model.
    """

    command: str
    day: str
    machine: str
    card: Card
    train_rows: int
    test_rows: int
    parts: tuple[Part, ...]
    lines: tuple[Line, ...]

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for a program."""
        return asdict(self)


def make_report(command: str, card: Card, truth: Truth, lines: Sequence[Line]) -> Report:
    """The lines with what they are about, and the constant predictor at their end."""
    constant = Line("constant", "constant", score(constant_ranking(truth), truth), note="the most frequent labels")
    return Report(
        command=command,
        day=date.today().isoformat(),
        machine=machine(),
        card=card,
        train_rows=truth.train_rows,
        test_rows=int(truth.targets_NL.shape[0]),
        parts=truth.parts,
        lines=(*lines, constant),
    )


def own_line(name: str, made: Made, truth: Truth) -> Line:
    """The line of a recipe or an artifact.

    Raises:
        RankingError: its ranking is not one of these rows.
    """
    cost, latency = made.cost, made.latency
    return Line(
        name,
        "ours",
        _scored(made.ranking, truth),
        artifact_bytes=_folder_bytes(made.artifact),
        bundle_bytes=None if made.bundle is None else _folder_bytes(made.bundle),
        read_seconds=None if cost is None else cost.read_seconds,
        train_seconds=made.epoch_seconds if cost is None else cost.train_seconds,
        cpu_seconds=None if cost is None else cost.cpu_seconds,
        peak_bytes=None if cost is None else cost.peak_bytes - cost.libraries_bytes,
        planned_bytes=None if cost is None else cost.planned_bytes - cost.libraries_bytes,
        p50_ms=None if latency is None else latency.p50_ms,
        p99_ms=None if latency is None else latency.p99_ms,
        prepare_p50_ms=None if latency is None else latency.prepare_p50_ms,
        note="; ".join(made.notes),
    )


def peer_line(peer: Peer, file: Path, truth: Truth) -> Line:
    """The line of another library's model.

    Raises:
        RankingError: its ranking is not one of these rows.
    """
    return Line(
        peer.name,
        "peer",
        _scored(file.parent / peer.ranking, truth),
        artifact_bytes=peer.model_bytes,
        read_seconds=peer.read_seconds,
        train_seconds=peer.train_seconds,
        cpu_seconds=peer.cpu_seconds,
        peak_bytes=peer.peak_bytes - peer.libraries_bytes,
        p50_ms=peer.p50_ms,
        p99_ms=peer.p99_ms,
        prepare_p50_ms=peer.prepare_p50_ms,
        note=f"{peer.library}: {peer.settings}",
    )


def machine() -> str:
    """What the figures were measured on: processor, cores, Python and libraries."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{_processor()}, {cores} cores, {device}; Python {platform.python_version()}, {libraries}"


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _scored(ranking: Path, truth: Truth) -> Scores:
    rows, labels = truth.targets_NL.shape
    return score(read_ranking(ranking, rows, labels), truth)


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
