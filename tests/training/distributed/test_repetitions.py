"""Repetitions as tasks of Ray: the model of one machine, whatever becomes of the nodes meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.ray_nodes import have_nodes
from tests.training.synthetic import load, tiny
from tests.training.test_resume import assert_same_artifact
from training.distributed import repetitions
from training.distributed.repetitions import RayTasks, fit_repetition
from training.loop import RunError
from training.loop import fit as fit_one
from training.parts import PartLost, fit, part_of
from training.recipes import RunConfig

REPETITIONS = 3
# So many that a node can be removed in the midst of them.
EPOCHS = 80


def apart(epochs: int = EPOCHS, **training: object) -> RunConfig:
    run = tiny("mach-independent", seed=5, epochs=epochs, **training)
    return run.model_copy(update={"method": run.method.model_copy(update={"repetitions": REPETITIONS})})


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run on one machine, without Ray."""
    out = tmp_path_factory.mktemp("ray") / "whole"
    dataset, run = load(texts, apart())
    fit(run, dataset, out, resume=False, log=print)
    return out


@pytest.fixture(autouse=True)
def _eager_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs are so short here that half a second is many of them."""
    monkeypatch.setattr(repetitions, "POLL_SECONDS", 0.05)


class Killer:
    """Takes a run's lines, and removes the first node of which it hears that a repetition has a checkpoint there."""

    def __init__(self, cluster: Cluster) -> None:
        self.lines: list[str] = []
        self.killed: str | None = None
        self._cluster = cluster

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        found = re.match(r"(repetition \d/3)  epoch", line)
        if found is None or self.killed is not None:
            return
        for node in set(self._cluster.worker_nodes):
            if list(task_processes(node, found[1])):
                self._cluster.remove_node(node, allow_graceful=False)
                self.killed = found[1]


def task_processes(node: Any, name: str) -> Iterator[int]:
    """Processes of a node in which the task of that name runs: Ray gives them its name."""
    raylet = node.all_processes["raylet"][0].process.pid
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            title = (folder / "cmdline").read_text(encoding="utf-8")
            parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            if parent == raylet and title.startswith(f"ray::{name}"):
                yield int(folder.name)


def test_a_run_whose_node_dies_gives_the_same_model(texts: Path, tmp_path: Path, whole: Path, cluster: Cluster) -> None:
    have_nodes(cluster, 3)
    dataset, run = load(texts, apart())
    killer = Killer(cluster)
    kept = fit(run, dataset, tmp_path / "out", resume=False, log=killer, trainer=RayTasks(cluster.address))
    assert killer.lines[0] == f"0 of 3 repetitions are done; by Ray ({cluster.address})"
    name = killer.killed
    (found,) = filter(None, (re.match(r"(.*)  resuming after epoch (\d+) of 80", line) for line in killer.lines))
    assert (found[1], 1 <= int(found[2]) < EPOCHS) == (name, True)
    # Nothing before the checkpoint is done again.
    after = killer.lines[killer.lines.index(found.string) + 1 :]
    epochs = [int(line.split()[3].partition("/")[0]) for line in after if line.startswith(f"{name}  epoch")]
    assert epochs == list(range(int(found[2]) + 1, EPOCHS + 1))
    assert sorted(line.split()[1] for line in killer.lines if "kept epoch" in line) == ["1/3", "2/3", "3/3"]
    assert_same_artifact(whole, tmp_path / "out")
    assert kept == json.loads((whole / "metrics.json").read_text())
    assert not (tmp_path / "out.part").exists()
    assert len(cluster.list_all_nodes()) == 2


def test_a_repetition_that_dies_too_often_ends_the_run_and_can_be_continued(
    texts: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, run = load(texts, apart())
    folder = tmp_path / "out.part" / "parts" / "001"
    folder.parent.parent.mkdir()
    lines: list[str] = []

    def kill(line: str) -> None:
        for node in cluster.list_all_nodes():
            for process in task_processes(node, "repetition 2/3"):
                os.kill(process, signal.SIGKILL)

    with RayTasks(cluster.address).ready(run, dataset) as train:
        with monkeypatch.context() as patch:
            patch.setattr(repetitions, "RETRIES", 0)
            with pytest.raises(PartLost, match="a repetition could not be finished; fit --resume continues the run"):
                train({1: folder}, kill)
        assert not folder.exists()
        train({1: folder}, lines.append)
    assert re.fullmatch(r"repetition 2/3  resuming after epoch \d+ of 80", lines[0])
    fit_one(part_of(run, 1), dataset, tmp_path / "alone", resume=False, log=print)
    assert_same_artifact(tmp_path / "alone", folder)


def test_what_no_node_has_the_memory_for_is_refused(texts: Path, tmp_path: Path, cluster: Cluster) -> None:
    """The nodes say that they have 4,096 MiB."""
    dataset, run = load(texts, apart())
    large = run.model_copy(update={"encoder": run.encoder.model_copy(update={"widths": (20_000, 20_000)})})
    with pytest.raises(RunError, match=r"expected a node with \d,\d{3} MiB for a repetition, found 4,096 MiB at most"):
        fit(large, dataset, tmp_path / "out", resume=False, log=print, trainer=RayTasks(cluster.address))
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_does_not_see_the_run_says_so(texts: Path, tmp_path: Path, cluster: Cluster) -> None:
    """What a task raises is raised here as it is."""
    dataset, run = load(texts, apart())
    folder = tmp_path / "elsewhere.part" / "parts" / "001"
    with (
        RayTasks(cluster.address).ready(run, dataset) as train,
        pytest.raises(RunError, match=r"^/.*\.part: expected the run's folder, found none on .*all nodes see$"),
    ):
        train({1: folder}, print)


def test_a_repetition_that_was_finished_before_its_node_died_is_not_trained_again(texts: Path, tmp_path: Path) -> None:
    class Lines:
        put = staticmethod(print)

    dataset, run = load(texts, apart(epochs=2))
    folder = tmp_path / "parts" / "001"
    kept = fit_repetition((run, dataset), 1, folder, Lines())  # type: ignore[arg-type]
    before = (folder / "config.json").stat()
    assert fit_repetition((run, dataset), 1, folder, None) == kept  # type: ignore[arg-type]
    assert (folder / "config.json").stat() == before
