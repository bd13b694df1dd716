"""One model by workers of Ray Train: that of the same workers without Ray, whatever becomes of them meanwhile."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.training.distributed.conftest import three_nodes
from tests.training.distributed.pair import SIZE, Pair, fit_by
from tests.training.distributed.test_repetitions import task_processes
from tests.training.synthetic import load, tiny
from tests.training.test_resume import assert_same_artifact
from training.distributed import one_model
from training.distributed.one_model import fit_together
from training.loop import RunError

# So many that a node can be removed in the midst of them.
EPOCHS = 40
WORKER = "RayTrainWorker"

# Ray sets options of its own that it no longer wants to be set.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:ray.data.context")


class Killer:
    """Takes a run's lines, and removes a node that has a worker when it hears of the first checkpoint."""

    def __init__(self, cluster: Cluster) -> None:
        self.lines: list[str] = []
        self._cluster = cluster
        self._killed = False

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("epoch") and not self._killed:
            node = next(node for node in self._cluster.worker_nodes if list(task_processes(node, WORKER)))
            self._cluster.remove_node(node, allow_graceful=False)
            self._killed = True


def test_workers_one_of_which_dies_train_the_same_model(
    texts: Path, tmp_path: Path, cluster: Cluster, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_model, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    three_nodes(cluster)
    dataset, run = load(texts, tiny("unidec", seed=5, epochs=EPOCHS))
    fit_by(pair, run, dataset, tmp_path / "whole")
    killer = Killer(cluster)
    fit_together(run, dataset, tmp_path / "out", cluster.address, SIZE, resume=False, log=killer)
    assert killer.lines[0] == f"2 workers by Ray ({cluster.address}), each on a processor"
    (found,) = filter(None, (re.match(r"resuming after epoch (\d+) of 40", line) for line in killer.lines))
    assert 1 <= int(found[1]) < EPOCHS
    # Nothing before the checkpoint is done again.
    after = killer.lines[killer.lines.index(found.string) + 1 :]
    epochs = [int(line.split()[1].partition("/")[0]) for line in after]
    assert epochs == list(range(int(found[1]) + 1, EPOCHS + 1))
    assert_same_artifact(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out.part").exists()


def test_a_cluster_that_is_too_small_is_refused(texts: Path, tmp_path: Path, cluster: Cluster) -> None:
    """Ray would wait for nodes to come."""
    dataset, run = load(texts, tiny("depsl"))
    with pytest.raises(RunError, match=r"--workers: expected at most the \d processors of the cluster, found 9"):
        fit_together(run, dataset, tmp_path / "out", cluster.address, 9, resume=False, log=print)
    large = run.model_copy(update={"encoder": run.encoder.model_copy(update={"widths": (20_000, 20_000)})})
    with pytest.raises(RunError, match=r"expected a node with \d,\d{3} MiB for a worker, found 4,096 MiB at most"):
        fit_together(large, dataset, tmp_path / "out", cluster.address, 1, resume=False, log=print)
    assert list(tmp_path.iterdir()) == []
