"""Repetitions as tasks of Ray: the model of one machine, whatever becomes of the nodes meanwhile."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.training.distributed.conftest import three_nodes
from tests.training.synthetic import load, tiny
from tests.training.test_resume import assert_same_artifact
from training.distributed import repetitions
from training.distributed.repetitions import RayTasks, fit_repetition
from training.loop import Diverged, RunError
from training.parts import PartLost, fit
from training.recipes import RunConfig

REPETITIONS = 3
# So many that a node can be removed in the midst of them.
EPOCHS = 150


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


class Killer:
    """Takes a run's lines, and removes a node when each repetition has a checkpoint."""

    def __init__(self, cluster: Cluster) -> None:
        self.lines: list[str] = []
        self._cluster, self._seen, self.killed_at = cluster, set[str](), 0

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        print(line)
        if found := re.match(r"repetition (\d)/3  epoch", line):
            self._seen.add(found[1])
        if len(self._seen) == REPETITIONS and not self.killed_at:
            self.killed_at = len(self.lines)
            node = next(iter(self._cluster.worker_nodes))
            self._cluster.remove_node(node, allow_graceful=False)


def test_a_run_whose_node_dies_gives_the_same_model(texts: Path, tmp_path: Path, whole: Path, cluster: Cluster) -> None:
    three_nodes(cluster)
    dataset, run = load(texts, apart())
    killer = Killer(cluster)
    kept = fit(run, dataset, tmp_path / "out", resume=False, log=killer, trainer=RayTasks(cluster.address))
    assert killer.lines[0] == f"0 of 3 repetitions are done; by Ray ({cluster.address})"
    resumed = [re.match(r"repetition (\d)/3  resuming after epoch (\d+) of 150", line) for line in killer.lines]
    (found,) = filter(None, resumed)
    assert 1 <= int(found[2]) < EPOCHS
    # Nothing before the checkpoint is done again.
    name = f"repetition {found[1]}/3"
    after = killer.lines[killer.lines.index(found.string) + 1 :]
    epochs = [int(line.split()[3].partition("/")[0]) for line in after if line.startswith(f"{name}  epoch")]
    assert epochs == list(range(int(found[2]) + 1, EPOCHS + 1))
    assert sorted(line.split()[1] for line in killer.lines if "kept epoch" in line) == ["1/3", "2/3", "3/3"]
    assert_same_artifact(whole, tmp_path / "out")
    assert kept == json.loads((whole / "metrics.json").read_text())
    assert not (tmp_path / "out.part").exists()
    assert len(cluster.list_all_nodes()) == 2


def test_a_run_that_lost_a_repetition_ends_and_continues_where_it_stopped(
    texts: Path, tmp_path: Path, whole: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_nodes(cluster)
    dataset, run = load(texts, apart())
    out, trainer = tmp_path / "out", RayTasks(cluster.address)
    with monkeypatch.context() as patch:
        patch.setattr(repetitions, "RETRIES", 0)
        with pytest.raises(PartLost, match="a repetition could not be finished; fit --resume continues it"):
            fit(run, dataset, out, resume=False, log=Killer(cluster), trainer=trainer)
    with pytest.raises(RunError, match=r"out\.part holds an unfinished run; continue it with --resume"):
        fit(run, dataset, out, resume=False, log=print, trainer=trainer)
    lines: list[str] = []
    fit(run, dataset, out, resume=True, log=lines.append, trainer=trainer)
    assert any("resuming after epoch" in line for line in lines)
    assert_same_artifact(whole, out)


def test_a_repetition_that_diverges_ends_the_run(texts: Path, tmp_path: Path, cluster: Cluster) -> None:
    dataset, run = load(texts, apart(epochs=3, learning_rate=1e38))
    with pytest.raises(Diverged, match=r"the loss of epoch \d is nan: lower training.learning_rate"):
        fit(run, dataset, tmp_path / "out", resume=False, log=print, trainer=RayTasks(cluster.address))


def test_what_no_node_has_the_memory_for_is_refused(texts: Path, tmp_path: Path, cluster: Cluster) -> None:
    """The nodes say that they have 4,096 MiB."""
    dataset, run = load(texts, apart())
    large = run.model_copy(update={"encoder": run.encoder.model_copy(update={"widths": (20_000, 20_000)})})
    with pytest.raises(RunError, match=r"expected a node with \d,\d{3} MiB for a repetition, found 4,096 MiB at most"):
        fit(large, dataset, tmp_path / "out", resume=False, log=print, trainer=RayTasks(cluster.address))
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_does_not_see_the_run_says_so(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, apart())
    folder = tmp_path / "elsewhere.part" / "parts" / "001"
    with pytest.raises(RunError, match=r"elsewhere\.part: expected the run's folder, found none on .*all nodes see"):
        fit_repetition((run, dataset), 1, folder, None)  # type: ignore[arg-type]


def test_a_repetition_that_was_finished_before_its_node_died_is_not_trained_again(texts: Path, tmp_path: Path) -> None:
    class Lines:
        put = print

    dataset, run = load(texts, apart(epochs=2))
    folder = tmp_path / "parts" / "001"
    kept = fit_repetition((run, dataset), 1, folder, Lines())  # type: ignore[arg-type]
    before = (folder / "config.json").stat()
    assert fit_repetition((run, dataset), 1, folder, None) == kept  # type: ignore[arg-type]
    assert (folder / "config.json").stat() == before
