"""DECLARE's factors by tasks of Ray: those of one machine to the bit, whatever becomes of the nodes meanwhile."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from scipy.sparse import csr_array

from tests.properties.test_svd import label_matrix
from tests.ray_nodes import have_nodes
from tests.training.synthetic import load, random_dataset, tiny
from tests.training.test_resume import assert_same_artifact
from training import shards
from training.data.batches import Rows
from training.distributed import factors
from training.distributed.cluster import WORKER_BYTES, connected
from training.distributed.factors import FACTORS, RayFactors, placed_by_ray
from training.loop import RunError
from training.loop import fit as fit_one
from training.methods.declare import DeclareConfig
from training.parts import PartLost
from training.recipes import RunConfig
from training.shards import Floats, placed_here, shard_product
from training.svd import right_factors

MIB = 2**20
# Products are so large that they stay on the node of the task that made them, as they do in earnest.
LABELS, ROWS, RANK = 300, 2000, 50


@pytest.fixture(scope="module")
def matrix_NL() -> csr_array:
    """Label rows whose relevances are the number of their shard, of which there are seven."""
    matrix = label_matrix(ROWS, LABELS, 0, density=0.05)
    matrix.data[:] = 1 + np.repeat(np.arange(ROWS), np.diff(matrix.indptr)) // LABELS
    return matrix


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS_AT_ONCE", 10)


def test_a_stopped_run_goes_on_with_its_factors_and_gives_the_same_model(
    texts: Path, tmp_path: Path, cluster: Cluster
) -> None:
    dataset, run = load(texts, tiny("declare", seed=5, epochs=3))
    fit_one(run, dataset, tmp_path / "whole", resume=False, log=print)
    lines: list[str] = []

    def stop_after_an_epoch(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch   2/3"):
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        RayFactors(cluster.address).fit(run, dataset, out, resume=False, log=stop_after_an_epoch)
    assert not ray.is_initialized()
    passes = [line for line in lines if line.startswith("label matrix  pass")]
    assert [line.split(",")[0] for line in passes] == [f"label matrix  pass {number}/5" for number in range(1, 6)]
    assert ", 3 shards  " in passes[0]
    with pytest.raises(RunError, match="holds an unfinished run"):
        RayFactors("nowhere").fit(run, dataset, out, resume=False, log=print)
    kept = np.load(tmp_path / "out.part" / FACTORS)
    assert kept.shape == (8, 4)
    again: list[str] = []  # and the nodes are not needed any more
    RayFactors("nowhere").fit(run, dataset, out, resume=True, log=again.append)
    assert again[:2] == ["the label matrix is compressed already", "resuming after epoch 2 of 3"]
    assert_same_artifact(tmp_path / "whole", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_shard_whose_node_dies_is_multiplied_again(
    matrix_NL: csr_array, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first task on a node that can be removed waits there for ever, and is heard of by a named pipe."""
    have_nodes(cluster, 2)
    head = cluster.list_all_nodes()[0].node_id
    started, never = tmp_path / "started", tmp_path / "never"
    os.mkfifo(started)
    os.mkfifo(never)

    def stuck_once(rows_SL: csr_array, basis_LW: Floats) -> Floats:
        node = ray.get_runtime_context().get_node_id()
        if node != head and rows_SL.data[0] > 1:
            try:
                (tmp_path / "once").touch(exist_ok=False)
            except FileExistsError:
                return shard_product(rows_SL, basis_LW)
            started.write_text(node)
            never.read_text()
        return shard_product(rows_SL, basis_LW)

    monkeypatch.setattr(factors, "shard_product", stuck_once)
    basis_LW = np.random.default_rng(0).standard_normal((LABELS, RANK))
    with connected(cluster.address):
        products = iter(placed_by_ray(1, print, matrix_NL)(basis_LW))
        found = [next(products)]
        node = started.read_text()
        (dying,) = (other for other in cluster.worker_nodes if other.node_id == node)
        cluster.remove_node(dying, allow_graceful=False)
        found.extend(products)
    for left, right in zip(found, placed_here(matrix_NL)(basis_LW), strict=True):
        assert left.tobytes() == right.tobytes()
    assert len(found) == 7


def test_a_shard_that_dies_too_often_ends_the_run(
    matrix_NL: csr_array, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(rows_SL: csr_array, basis_LW: Floats) -> Floats:
        os._exit(1)

    monkeypatch.setattr(factors, "shard_product", dies)
    monkeypatch.setattr(factors, "RETRIES", 0)
    expected = "a shard of the label matrix could not be multiplied; fit --resume continues the run"
    with connected(cluster.address), pytest.raises(PartLost, match=expected):
        right_factors(matrix_NL, 3, 0, lambda matrix: placed_by_ray(1, print, matrix))


def test_what_a_worker_holds_is_what_the_plan_says(cluster: Cluster) -> None:
    """Beside Ray's store, whose pages are shared."""
    cells = np.ones(64_000, np.float32), (np.repeat(np.arange(8000), 8), np.arange(64_000) * 7919 % 8000)
    targets = csr_array(cells, shape=(8000, 8000))
    data = random_dataset()
    dataset = replace(data, train=Rows(targets, targets))
    run = RunConfig(method=DeclareConfig(rank=290))
    planned = RayFactors(cluster.address).worker_peak(run, dataset)

    @ray.remote
    def measured(rows_SL: csr_array, basis_LW: Floats) -> int:
        shard_product(rows_SL, basis_LW)
        status = Path("/proc/self/status").read_text().splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in status if line.endswith("kB")}
        return 1024 * (kib["VmHWM"] - kib["RssShmem"])

    with connected(cluster.address):
        peak = ray.get(measured.remote(targets, np.ones((8000, 300))))
    assert peak == pytest.approx(planned.bytes, rel=0.25), f"{peak / MIB:.0f} MiB, planned {planned}"
    assert planned.bytes > WORKER_BYTES + 8000 * 600 * 8


def test_what_no_node_has_the_memory_for_is_refused(
    texts: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes say that they have 4,096 MiB."""
    dataset, run = load(texts, tiny("declare"))
    monkeypatch.setattr(factors, "WORKER_BYTES", 5000 * MIB)
    expected = r"expected a node with 5,000 MiB for a shard of rows, found 4,096 MiB at most"
    with pytest.raises(RunError, match=expected):
        RayFactors(cluster.address).fit(run, dataset, tmp_path / "out", resume=False, log=print)
    assert list(tmp_path.iterdir()) == []
