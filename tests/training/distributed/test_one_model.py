"""One model by workers of Ray Train: that of the same workers without Ray, whatever becomes of them meanwhile."""

from __future__ import annotations

import re
from concurrent.futures import Future
from pathlib import Path
from queue import Queue

import pytest
from ray.cluster_utils import Cluster
from ray.train import WorkerGroupError

from tests.ray_nodes import have_nodes
from tests.training.distributed.pair import SIZE, Pair, fit_by
from tests.training.distributed.test_repetitions import task_processes
from tests.training.synthetic import load, tiny
from tests.training.test_resume import assert_same_artifact
from training import commands
from training.cli import DONE, main
from training.distributed import one_model
from training.distributed.one_model import RayWorkers, _follow
from training.loop import Diverged, RunError, WorkersLost
from training.overrides import configured

# So many that a worker can be lost in the midst of them.
EPOCHS = 40
OPTIONS = (
    f"training.epochs={EPOCHS}",
    "training.batch_size=16",
    "training.learning_rate=0.01",
    "encoder.widths=[8]",
    "vocabulary.subwords=60",
    "method.dimensions=8",
    "method.pool_size=8",
    "method.positives_per_query=1",
)
WORKER = "RayTrainWorker"

# Ray sets options of its own that it no longer wants to be set.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:ray.data.context")


class Killer:
    """Takes a run's lines, and removes a node that has a worker when it hears of the first checkpoint."""

    def __init__(self, cluster: Cluster) -> None:
        self.lines: list[str] = []
        self._cluster = cluster

    def __call__(self, line: str) -> None:
        if line.startswith("epoch") and not epochs_of(self.lines):
            node = next(node for node in self._cluster.worker_nodes if list(task_processes(node, WORKER)))
            self._cluster.remove_node(node, allow_graceful=False)
        self.lines.append(line)


def epochs_of(lines: list[str]) -> list[int]:
    return [int(line.split()[1].partition("/")[0]) for line in lines if line.startswith("epoch")]


def test_the_command_whose_node_dies_gives_the_model_of_its_workers(
    texts: Path, tmp_path: Path, cluster: Cluster, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs are so short here that half a second is many of them; nobody announces the end of a node."""
    monkeypatch.setattr(one_model, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    dataset, run = load(texts, configured("unidec", None, OPTIONS))
    fit_by(pair, run, dataset, tmp_path / "whole")
    have_nodes(cluster, 3)
    killer = Killer(cluster)
    monkeypatch.setattr(commands, "_say", killer)
    command = ["fit", "--data", str(texts), "--recipe", "unidec", "--out", str(tmp_path / "out"), "--set", *OPTIONS]
    assert main([*command, "--ray", cluster.address, "--workers", str(SIZE)]) == DONE
    assert killer.lines[0] == f"2 workers by Ray ({cluster.address}), each on a processor"
    (found,) = filter(None, (re.match(r"resuming after epoch (\d+) of 40", line) for line in killer.lines))
    assert 1 <= int(found[1]) < EPOCHS
    # Nothing before the checkpoint is done again.
    after = killer.lines[killer.lines.index(found.string) + 1 :]
    assert epochs_of(after) == list(range(int(found[1]) + 1, EPOCHS + 1))
    assert_same_artifact(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out.part").exists()
    assert main(["evaluate", str(tmp_path / "out"), "--data", str(texts)]) == DONE


def test_a_cluster_that_is_too_small_is_refused(texts: Path, tmp_path: Path, cluster: Cluster) -> None:
    """Ray would wait for nodes to come."""
    dataset, run = load(texts, tiny("depsl"))
    with pytest.raises(RunError, match=r"--workers: expected at most the \d processors of the cluster, found 7"):
        RayWorkers(cluster.address, 7).fit(run, dataset, tmp_path / "out", resume=False, log=print)
    large = run.model_copy(update={"encoder": run.encoder.model_copy(update={"widths": (20_000, 20_000)})})
    with pytest.raises(RunError, match=r"expected a node with \d,\d{3} MiB for a worker, found 4,096 MiB at most"):
        RayWorkers(cluster.address, 1).fit(large, dataset, tmp_path / "out", resume=False, log=print)
    assert list(tmp_path.iterdir()) == []


def given(*items: object) -> Queue[object]:
    """What workers say."""
    said: Queue[object] = Queue()
    for item in items:
        said.put(item)
    return said


def test_what_a_worker_raises_follows_its_lines() -> None:
    lines: list[str] = []
    with pytest.raises(Diverged, match="epoch 3"):
        _follow(Future(), given("epoch 1", "epoch 2", Diverged("the loss of epoch 3 is nan"), "late"), lines.append)
    assert lines == ["epoch 1", "epoch 2"]


def test_workers_that_died_too_often_can_be_continued() -> None:
    """All that they said comes first."""
    finished: Future[object] = Future()
    finished.set_exception(WorkerGroupError("two of them died", {0: RuntimeError("killed")}))
    lines: list[str] = []
    expected = r"^the workers could not finish; fit --resume continues the run: .*\ntwo of them died"
    with pytest.raises(WorkersLost, match=expected):
        _follow(finished, given("epoch 1", "epoch 2"), lines.append)
    assert lines == ["epoch 1", "epoch 2"]
