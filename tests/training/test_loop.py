"""The training loop: reproducible to the bit, keeps the best epoch, refuses before it works, follows its rate curve."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.synthetic import load, tiny, write_texts
from training.artifact import new_model, read_artifact
from training.data.batches import Batch
from training.data.dataset import Dataset, UnsuitableData
from training.encoders import BagConfig
from training.evaluation import calibrated, evaluate
from training.loop import Diverged, RunError, fit, rate_curve, steps_per_epoch
from training.methods.base import Shape
from training.methods.mach import Mach
from training.recipes import RunConfig, TrainingConfig

METHODS = ("mach", "declare", "unidec", "ova")


def history(out: Path) -> list[dict[str, Any]]:
    """Lines of the history without what the clock says."""
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_seconds")} for line in lines]


def train(folder: Path, out: Path, run: RunConfig) -> dict[str, float]:
    dataset, resolved = load(folder, run)
    return fit(resolved, dataset, out, resume=False, log=print)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_weights(texts: Path, tmp_path: Path, method: str) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        torch.rand(3)  # what was drawn before the run must not matter
        train(texts, tmp_path / name, tiny(method, seed=seed))
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again", "other")}
    assert weights["one"] == weights["again"]
    assert history(tmp_path / "one") == history(tmp_path / "again")
    assert weights["one"] != weights["other"]
    assert history(tmp_path / "one") != history(tmp_path / "other")


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls_and_the_labels_are_learned(texts: Path, tmp_path: Path, method: str) -> None:
    kept = train(texts, tmp_path / "out", tiny(method, epochs=25, learning_rate=0.03))
    losses = [line["loss"] for line in history(tmp_path / "out")]
    assert losses[-1] < 0.7 * losses[0]
    assert kept["P@1"] >= 80 > kept["constant_P@1"]


def test_seed_and_epoch_decide_the_order(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: dict[tuple[str, int, int], list[int]] = {}
    whole_loss = Mach.loss
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        seen: list[int] = []

        def note(self: Mach, batch: Batch, seen: list[int] = seen) -> torch.Tensor:
            seen.extend(batch.rows.tolist())
            return whole_loss(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Mach, "loss", note)
            train(texts, tmp_path / name, tiny("mach", seed=seed, epochs=2))
        half = len(seen) // 2
        orders |= {(name, seed, 1): seen[:half], (name, seed, 2): seen[half:]}
    assert all(sorted(order) == list(range(len(order))) for order in orders.values())
    assert orders["one", 0, 1] == orders["again", 0, 1]
    assert len({tuple(order) for order in orders.values()}) == 4


@pytest.fixture(scope="module")
def noisy(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, RunConfig, Path]:
    """A run at a rate far too high, whose measures go up and down: data, configuration, artifact."""
    run = tiny("mach", epochs=8, learning_rate=0.3, schedule="constant")
    dataset, resolved = load(texts, run)
    out = tmp_path_factory.mktemp("noisy") / "out"
    fit(resolved, dataset, out, resume=False, log=print)
    return dataset, resolved, out


def best_epoch(lines: list[dict[str, Any]], measure: str) -> int:
    return int(max(lines, key=lambda line: line[measure])["epoch"])


def test_the_best_epoch_is_kept_not_the_last(noisy: tuple[Dataset, RunConfig, Path]) -> None:
    dataset, _, out = noisy
    lines = history(out)
    best = best_epoch(lines, "nDCG@5")
    assert best < len(lines) == 8
    kept = json.loads((out / "metrics.json").read_text())
    assert {name: kept[name] for name in lines[best - 1]} == lines[best - 1]
    measures = evaluate(
        read_artifact(out).restore(),
        dataset.validation,
        dataset.label_counts,
        len(dataset.train),
        dataset.card,
        [1, 3, 5],
    )
    assert {name: lines[best - 1][name] for name in ("P@1", "nDCG@5", "R@3")} == {
        name: pytest.approx(measures[name]) for name in ("P@1", "nDCG@5", "R@3")
    }


def test_the_calibration_is_that_of_the_kept_weights_and_the_validation_rows(
    noisy: tuple[Dataset, RunConfig, Path],
) -> None:
    dataset, run, out = noisy
    artifact = read_artifact(out)
    assert artifact.calibration == calibrated(artifact.restore(), dataset.validation, run.training.seed)
    assert artifact.calibration != calibrated(artifact.restore(), dataset.train, run.training.seed)


def test_option_selection(noisy: tuple[Dataset, RunConfig, Path], tmp_path: Path) -> None:
    dataset, run, out = noisy
    lines = history(out)
    by_measure = {name: best_epoch(lines, name) for name in lines[0] if "@" in name and name != "constant_P@1"}
    usual = by_measure["nDCG@5"]
    other = next(name for name, epoch in by_measure.items() if epoch != usual)
    training = run.training.model_copy(update={"selection": other})
    kept = fit(run.model_copy(update={"training": training}), dataset, tmp_path / "out", resume=False, log=print)
    assert history(tmp_path / "out") == lines
    assert kept["epoch"] == by_measure[other]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != (out / "model.safetensors").read_bytes()


def test_of_equal_epochs_the_first_is_kept(texts: Path, tmp_path: Path) -> None:
    # Three validation rows: their precision has four values, so epochs tie.
    dataset, run = load(texts, tiny("mach", epochs=8, selection="P@1", validation_fraction=0.05))
    weights: list[dict[str, torch.Tensor]] = []
    checkpoint = tmp_path / "out.part" / "checkpoint.safetensors"
    kept = fit(run, dataset, tmp_path / "out", resume=False, log=lambda line: weights.append(load_file(checkpoint)))
    values = [line["P@1"] for line in history(tmp_path / "out")]
    assert values.count(max(values)) > 1
    assert kept["epoch"] == values.index(max(values)) + 1
    first = weights[values.index(max(values))]
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, first[f"model.{name}"])


def test_every_epoch_is_logged(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, tiny("mach", epochs=3))
    lines: list[str] = []
    fit(run, dataset, tmp_path / "out", resume=False, log=lines.append)
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert [line["epoch"] for line in history(tmp_path / "out")] == [1, 2, 3]
    for line in map(json.loads, (tmp_path / "out" / "history.jsonl").read_text().splitlines()):
        assert line["train_seconds"] > 0
        assert line["evaluate_seconds"] > 0
        assert {"loss", "P@1", "P@3", "P@5", "nDCG@5", "PSP@1", "constant_P@1"} <= set(line)


def test_nothing_is_left_beside_the_artifact(texts: Path, tmp_path: Path) -> None:
    train(texts, tmp_path / "deep" / "out", tiny("mach", epochs=1))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_existing_target_is_refused_before_any_work(texts: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    out.mkdir() if kind == "folder" else out.write_text("mine")
    dataset, run = load(texts, tiny("mach"))
    with pytest.raises(RunError, match=r"out exists already"):
        fit(run, dataset, out, resume=True, log=print)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_refused_data_leaves_nothing_behind(tmp_path: Path) -> None:
    """Else the next try would be told of an unfinished run that never began."""
    folder = write_texts(tmp_path / "data", label_texts=False)
    with pytest.raises(UnsuitableData, match="unidec encodes label texts"):
        train(folder, tmp_path / "out", tiny("unidec"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_three_labels_are_enough(tmp_path: Path) -> None:
    """Ranks beyond the labels are misses; the default selection, nDCG@5, still says which epoch was best."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.txt").write_text("12 4 3\n" + "".join(f"{row % 3} {row % 3}:1 3:1\n" for row in range(12)))
    kept = train(folder, tmp_path / "out", tiny("mach", epochs=1))
    assert 0 <= kept["nDCG@5"] <= 100


def test_a_selection_that_is_no_measure_is_refused_before_any_work(texts: Path, tmp_path: Path) -> None:
    with pytest.raises((ValueError, RunError), match="selection"):
        train(texts, tmp_path / "out", tiny("mach", epochs=1, selection="P@7"))
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_stops_the_run(texts: Path, tmp_path: Path) -> None:
    dataset, run = load(texts, tiny("declare", epochs=3, learning_rate=1e30, table_rate=1e8))
    expected = r"the loss of epoch \d is (nan|inf): lower training.learning_rate \(now 1e\+30\)"
    with pytest.raises(Diverged, match=expected):
        fit(run, dataset, tmp_path / "out", resume=False, log=print)
    assert not (tmp_path / "out").exists()


def multipliers(epochs: int = 2, steps: int = 10, **options: Any) -> list[float]:
    curve = rate_curve(TrainingConfig(epochs=epochs, batch_size=1, **options), steps)
    return [curve(step) for step in range(epochs * steps)]


def test_the_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    assert multipliers(warmup=0.2, schedule="linear") == pytest.approx(
        [0.25, 0.5, 0.75, 1.0] + [1 - step / 16 for step in range(16)]
    )


def test_schedules() -> None:
    assert multipliers(warmup=0, schedule="constant") == [1.0] * 20
    assert multipliers(warmup=0, schedule="linear") == pytest.approx([1 - step / 20 for step in range(20)])
    cosine = [(1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert multipliers(warmup=0, schedule="cosine") == pytest.approx(cosine)


@pytest.mark.parametrize(("epochs", "steps", "warmup"), [(1, 1, 0.99), (1, 1, 0.0), (1, 2, 0.5), (3, 1, 0.05)])
def test_the_rate_of_the_shortest_runs(epochs: int, steps: int, warmup: float) -> None:
    for schedule in ("constant", "linear", "cosine"):
        rates = multipliers(epochs, steps, warmup=warmup, schedule=schedule)
        assert all(0 < rate <= 1 for rate in rates)
        assert max(rates) == 1


def test_steps_per_epoch_count_the_last_partial_batch() -> None:
    assert [steps_per_epoch(rows, TrainingConfig(batch_size=4)) for rows in (1, 4, 5)] == [1, 1, 2]
    assert [steps_per_epoch(rows, TrainingConfig(batch_size=4, accumulate=3)) for rows in (1, 12, 13)] == [1, 1, 2]


def test_rates_of_tables_encoders_and_other_weights(texts: Path, tmp_path: Path) -> None:
    """The first step of AdamW moves every weight that has a gradient by the rate of its group."""
    rates = {"learning_rate": 1e-3, "table_rate": 7, "encoder_rate": 0.5}
    run = tiny("declare", epochs=1, batch_size=1000, warmup=0, weight_decay=0, **rates)
    dataset, resolved = load(texts, run)
    fit(resolved, dataset, tmp_path / "one", resume=False, log=print)
    after = load_file(tmp_path / "one" / "model.safetensors")
    torch.manual_seed(resolved.training.seed)
    before = new_model(resolved, Shape.of(dataset)).state_dict()
    for name, step in (("encoder.bag.weight", 7e-3), ("encoder.bias", 5e-4), ("head.weight", 1e-3)):
        assert (after[name] - before[name]).abs().max().item() == pytest.approx(step, rel=1e-2)


def test_the_rate_falls_over_all_epochs_not_over_each(texts: Path, tmp_path: Path) -> None:
    """At a tiny rate gradients stay the same, and AdamW moves a weight by the sum of the rates so far."""
    run = tiny("declare", epochs=4, batch_size=1000, warmup=0, learning_rate=1e-5)
    dataset, run = load(texts, run.model_copy(update={"encoder": BagConfig(widths=(12,))}))
    checkpoint = tmp_path / "out.part" / "checkpoint.safetensors"
    biases: list[torch.Tensor] = []
    fit(
        run,
        dataset,
        tmp_path / "out",
        resume=False,
        log=lambda line: biases.append(load_file(checkpoint)["model.head.bias"]),
    )
    moved = [(bias - biases[0]).abs().max().item() for bias in biases]
    assert moved == pytest.approx([0, 0.75e-5, 1.25e-5, 1.5e-5], rel=0.05, abs=1e-8)


@pytest.mark.parametrize(
    ("rows", "epochs", "batch_size"),
    [(100, 40, 128), (5_000, 40, 128), (10_000, 20, 128), (10_001, 20, 256), (50_000, 4, 256), (10**6, 3, 256)],
)
def test_epochs_and_batches_are_derived_from_the_rows(rows: int, epochs: int, batch_size: int) -> None:
    shape = Shape(input_width=5, label_count=5, train_rows=rows, text=True, single_label=False)
    derived = TrainingConfig().resolved(shape)
    assert (derived.epochs, derived.batch_size) == (epochs, batch_size)
    assert TrainingConfig(epochs=9, batch_size=8).resolved(shape) == TrainingConfig(epochs=9, batch_size=8)
