"""DECLARE's label matrix compressed by tasks of Ray; the network that is regressed to it is trained on this machine.

The truncated SVD is all of a fit that multiplies every training row with something wide (`training.svd`). Its passes
over the rows are cut into shards, each of which is sent to a node once; in each pass a task multiplies a shard with the
basis of that pass, and this machine adds up what comes back, in the shards' order. So which node did what, and how
often, changes no bit. A task whose node dies is done again elsewhere. The factors are kept in ``OUT.part``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray
from ray import ObjectRef
from scipy.sparse import csr_array

from training.checkpoint import temporary_beside
from training.data.dataset import Dataset
from training.distributed.cluster import RETRIES, WORKER_BYTES, check_memory, connected, result_of
from training.loop import check_target, open_work, work_folder
from training.loop import fit as fit_here
from training.methods.base import settled
from training.methods.declare import Declare, DeclareConfig
from training.planning import Peak
from training.recipes import RunConfig
from training.shards import Floats, Products, row_shards, shard_product, shard_rows
from training.svd import PASSES, basis_columns, right_factors

FACTORS = "factors.npy"

Log = Callable[[str], None]


class RayFactors:
    """Fits DECLARE: the SVD by tasks, the rest here."""

    def __init__(self, address: str) -> None:
        self._address = address

    def worker_peak(self, run: RunConfig, dataset: Dataset) -> Peak:
        """What a task holds at its highest, beside what nodes share: its shard, the basis, and what it gave."""
        targets = dataset.train.targets
        rows, labels = targets.shape
        shard = shard_rows(rows, labels)
        columns = basis_columns(settled(_method(run).rank), rows, labels)
        # SciPy multiplies a copy of the relevances, which is as precise as the basis.
        relevances = -(-targets.nnz * shard // rows)
        parts = {
            "libraries": WORKER_BYTES,
            "rows": relevances * np.float64().nbytes,
            "products": (shard + labels) * columns * np.float64().nbytes,
        }
        return Peak("multiplying rows", parts)

    def fit(self, run: RunConfig, dataset: Dataset, out: Path, *, resume: bool, log: Log) -> dict[str, float]:
        """As `training.loop.fit`, with the label matrix compressed by tasks, unless that is done already.

        Raises:
            RunError: as there; or there is no such cluster, or its nodes are too small.
            PartLost: a shard's node or process died too often.
        """
        check_target(out, resume=resume)
        file = work_folder(out).path / FACTORS
        method, seed = _method(run), run.training.seed
        if file.exists():
            open_work(out, run, dataset)
            log("the label matrix is compressed already")
            tables = Declare.make_tables(method, dataset, seed, lambda *_: np.load(file))
        else:
            memory = self.worker_peak(run, dataset).bytes
            with connected(self._address):
                check_memory(memory, "a shard of rows")
                open_work(out, run, dataset)
                tables = Declare.make_tables(method, dataset, seed, partial(_factorise, memory, file, log))
        # The nodes are free from here on.
        return fit_here(run, dataset, out, resume=True, log=log, tables=tables)


def _method(run: RunConfig) -> DeclareConfig:
    assert isinstance(run.method, DeclareConfig)
    return run.method


def _factorise(memory: int, file: Path, log: Log, matrix_GL: csr_array, rank: int, seed: int) -> NDArray[np.float32]:
    """The factors, which are kept in a file as well."""
    factors_LC = right_factors(matrix_GL, rank, seed, partial(placed_by_ray, memory, log))
    temporary = temporary_beside(file)
    with temporary.open("wb") as writer:
        np.save(writer, factors_LC)
    temporary.replace(file)
    return factors_LC


def placed_by_ray(memory: int, log: Log, matrix_NL: csr_array) -> Products:
    """Shards that tasks multiply, on whichever node has a processor and the memory to spare.

    Args:
        memory: bytes that a task needs.
        log: takes a line of text for each pass over the shards.
        matrix_NL: label rows.
    """
    shards = [ray.put(rows_SL) for rows_SL in row_shards(matrix_NL)]
    task = ray.remote(shard_product)
    passes = count(1)

    def products(basis_LW: Floats) -> Iterator[Floats]:
        started, number = time.perf_counter(), next(passes)
        given = ray.put(basis_LW)
        waiting: list[ObjectRef[Floats]] = []
        for place, shard in enumerate(shards, start=1):
            placed = task.options(
                name=f"pass {number}/{PASSES}  shard {place}/{len(shards)}",
                num_cpus=1,
                memory=memory,
                max_retries=RETRIES,
                scheduling_strategy="SPREAD",
            )
            waiting.append(placed.remote(shard, given))
        while waiting:
            yield result_of(waiting.pop(0), "a shard of the label matrix could not be multiplied")
        log(f"label matrix  pass {number}/{PASSES}, {len(shards)} shards  {time.perf_counter() - started:6.1f} s")

    return products
