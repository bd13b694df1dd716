"""Two workers of one torch process group against one process that has everything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.training.distributed.pair import SIZE, Pair, fit_by
from tests.training.synthetic import load, tiny
from tests.training.test_resume import assert_same_artifact
from training.distributed.workers import Workers
from training.loop import Diverged, fit
from training.recipes import RunConfig
from training.topk import top


def steady(run: RunConfig, method: dict[str, object], encoder: dict[str, object] | None = None) -> RunConfig:
    """A run without dropout, whose masks are another thing on every worker."""
    if run.method.name == "unidec":
        method = {"dropout": 0.0} | method
    updates = {
        "method": run.method.model_copy(update=method),
        "encoder": run.encoder.model_copy(update={"dropout": 0.0} | (encoder or {})),
    }
    return run.model_copy(update=updates)


RUNS = {
    "unidec": steady(tiny("unidec", epochs=4), {}),
    "other losses": steady(
        tiny("unidec", epochs=4),
        {"classifier_loss": "supcon+bce", "symmetric_classifier": True, "fill": "positives"},
    ),
    "classifier alone": steady(tiny("unidec", epochs=4, accumulate=2), {"encoder_weight": 0.0}),
    "depsl": steady(tiny("depsl", epochs=4), {"encoder_loss": "decoupled_softmax+bce"}),
    "table by rows": steady(tiny("depsl", epochs=4), {}, {"table_updates": "rows"}),
    "ova-full": steady(tiny("ova-full", epochs=4), {"negatives": "all"}),
    "ova-pruned": steady(tiny("ova-pruned", epochs=4, batch_size=16), {"negatives": "all", "weights_kept": 50}),
    # Batches of two rows: often a worker has none of them.
    "astra": steady(tiny("astra", epochs=4), {}),
}


@pytest.mark.parametrize("name", RUNS)
def test_two_workers_train_the_model_of_one(texts: Path, tmp_path: Path, pair: Pair, name: str) -> None:
    dataset, run = load(texts, RUNS[name])
    fit(run, dataset, tmp_path / "alone", resume=False, log=print)
    first, second = fit_by(pair, run, dataset, tmp_path / "out")
    epochs = run.training.epochs
    assert [line.split()[1] for line in first] == [f"{epoch + 1}/{epochs}" for epoch in range(epochs or 0)]
    assert second == []
    assert_near(tmp_path / "alone", tmp_path / "out")


def assert_near(expected: Path, found: Path) -> None:
    """The same weights and losses, up to the rounding of sums."""
    weights = [load_file(folder / "model.safetensors") for folder in (found, expected)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
    lines = [(folder / "history.jsonl").read_text().splitlines() for folder in (found, expected)]
    losses = [[json.loads(line)["loss"] for line in each] for each in lines]
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("name", ["unidec", "astra"])
def test_workers_or_one_process_go_on_where_workers_stopped(texts: Path, tmp_path: Path, pair: Pair, name: str) -> None:
    """What each has of its own (moments, labels mined before epoch 2) is whole in the checkpoint."""
    dataset, run = load(texts, RUNS[name])
    fit_by(pair, run, dataset, tmp_path / "out")
    shutil.copytree(tmp_path / "after2.part", tmp_path / "again" / "out.part")
    again = fit_by(pair, run, dataset, tmp_path / "again" / "out", resume=True)
    assert again[0][0] == "resuming after epoch 2 of 4"
    assert_same_artifact(tmp_path / "out", tmp_path / "again" / "out")
    lines: list[str] = []
    fit(run, dataset, tmp_path / "after2", resume=True, log=lines.append)
    assert lines[0] == "resuming after epoch 2 of 4"
    assert lines[1].startswith("epoch   3/4")
    assert_near(tmp_path / "after2", tmp_path / "out")


def test_all_workers_hear_of_a_loss_that_is_no_number(texts: Path, tmp_path: Path, pair: Pair) -> None:
    dataset, run = load(texts, tiny("depsl", learning_rate=1e30, table_rate=1e8))
    with pytest.raises(Diverged, match=r"the loss of epoch \d is (nan|inf)"):
        fit_by(pair, run, dataset, tmp_path / "out")
    pair(draws)  # neither is left waiting


def draws() -> list[Tensor]:
    team = Workers()
    team.seed(7)
    found = [torch.rand(3)]
    for _ in range(2):
        with team.common_draws():
            found.append(torch.rand(3))
        found.append(torch.rand(3 + team.rank)[:3])
    return found


def test_workers_draw_labels_together_and_masks_alone(pair: Pair) -> None:
    first, second = pair(draws)
    torch.manual_seed(7)
    alone = [torch.rand(3), torch.rand(3)]
    for place in (1, 3):
        assert torch.equal(first[place], alone[place // 2])
        assert torch.equal(second[place], alone[place // 2])
    own = [*first[::2], *second[::2]]
    assert all(not torch.equal(one, other) for place, one in enumerate(own) for other in own[:place])


def best_of(scores_QL: Tensor, k: int) -> tuple[Tensor, Tensor]:
    team = Workers()
    return team.best(scores_QL[:, team.mine].clone(), k)


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_the_best_labels_of_all_workers(pair: Pair, k: int) -> None:
    """Ties go to the lower label, whoever has it; what is no prediction is padding."""
    scores_QL = torch.tensor(
        [[1.0, 2.0, 2.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [-torch.inf, 3.0, torch.nan, 1.0, -torch.inf]]
    )
    for found in pair(best_of, scores_QL, k):
        torch.testing.assert_close(found, top(scores_QL.clone(), k), equal_nan=True)


def smallest_of(values: Tensor, rank: int) -> Tensor:
    team = Workers()
    return team.smallest(values[team.mine], rank)


def test_a_value_by_its_rank_among_all_workers(pair: Pair) -> None:
    values = torch.tensor([0.0, 3.5, 1e-42, 3.5, 1e30, 0.25, 7.0])
    for rank in range(1, len(values) + 1):
        assert pair(smallest_of, values, rank) == [values.sort().values[rank - 1]] * SIZE


def parts_of(whole: Tensor) -> tuple[Tensor, Tensor, str]:
    team = Workers()
    part = whole[team.mine]
    return team.whole(part), team.at_first(part), team.decided(lambda: f"of {team.rank}")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_what_is_divided_is_put_together_again(pair: Pair, count: int) -> None:
    whole = torch.arange(3 * count).view(count, 3)
    first, second = pair(parts_of, whole)
    assert torch.equal(first[0], whole)
    assert torch.equal(second[0], whole)
    assert torch.equal(first[1], whole)
    assert len(second[1]) == 0
    assert first[2] == second[2] == "of 0"


def joined(rows_Q: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Rows of a batch that are the numbers of the training rows; and the gradient of a worker's own."""
    team = Workers()
    own = torch.from_numpy(team.places(rows_Q)).float()[:, None] * team.size + team.rank
    if len(own):
        own.requires_grad_()
    found_Q1 = team.joined(own, rows_Q)
    found_Q1.square().sum().backward()  # type: ignore[no-untyped-call]
    return found_Q1.detach(), own.grad if own.grad is not None else own


@pytest.mark.parametrize("rows", [[5, 0, 2, 3], [4, 2]], ids=["of both", "of one"])
def test_rows_are_joined_and_gradients_come_back(pair: Pair, rows: list[int]) -> None:
    """Each worker's loss is that of all rows: gradients are those of twice the loss."""
    for rank, (found, gradient) in enumerate(pair(joined, np.array(rows))):
        assert found.flatten().tolist() == rows
        assert gradient.flatten().tolist() == [4.0 * row for row in rows if row % SIZE == rank]


def added(size: int) -> list[Tensor | None]:
    """Four weights: with gradients on both workers, on the second one alone, on none; and of rows alone, on one."""
    team = Workers()
    weights = [nn.Parameter(torch.zeros(size, 2)) for _ in range(4)]
    weights[0].grad = torch.full((size, 2), 1.0 + team.rank)
    if team.rank == 1:
        weights[1].grad = torch.ones(size, 2)
        weights[3].grad = torch.sparse_coo_tensor([[1]], [[5.0, 6.0]], (size, 2), check_invariants=True)
    team.add_gradients(weights)
    return [weight.grad if weight.grad is None else weight.grad.to_dense() for weight in weights]


@pytest.mark.parametrize("size", [3, 1 << 17], ids=["small", "large"])
def test_gradients_are_added_wherever_there_are_any(pair: Pair, size: int) -> None:
    rows = torch.zeros(size, 2)
    rows[1] = torch.tensor([5.0, 6.0])
    for both, one, none, sparse in pair(added, size):
        assert torch.equal(both, torch.full((size, 2), 3.0))
        assert torch.equal(one, torch.ones(size, 2))
        assert none is None
        assert torch.equal(sparse, rows)
