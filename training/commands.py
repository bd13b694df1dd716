"""What the commands of `xmc-train` do, from parsed arguments on. Imports torch, which `training.cli` waits for."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.artifact import ArtifactError, read_artifact
from training.citations import CITATIONS
from training.compare.command import Comparison, ModelsFailed, compare
from training.cost import Meter, epoch_seconds
from training.data.dataset import UnsuitableData
from training.data.files import DataError
from training.data.prepare import prepare
from training.data.records import open_named
from training.encoders import EncoderError
from training.evaluation import RECALL_AT, measure_artifact, rank_artifact
from training.feedback import score_log
from training.loop import Diverged, RunError, WorkersLost, check_device, check_target, work_folder
from training.methods import METHODS
from training.overrides import WrongOption, configured
from training.parts import PartLost, Processes, fit, join, part_count, part_of, whole_of
from training.planning import expected_peak, plan
from training.ranking import RankingError, write_ranking
from training.recipes import DEFAULTS, RECIPES, RunConfig, prepared

if TYPE_CHECKING:
    from training.distributed.trainers import RayTrainer


class WrongUse(Exception):
    """Arguments that argparse cannot check alone."""


# What a command raises that began well and failed, and what it raises that was used wrongly or got bad input.
FAILURES = (Diverged, ModelsFailed, PartLost, WorkersLost)
REFUSALS = (DataError, UnsuitableData, EncoderError, RunError, ArtifactError, RankingError, WrongOption, WrongUse)


def _prepare(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.test_fraction < 1:
        raise WrongUse(f"--test-fraction: expected a share between 0 and 1, found {arguments.test_fraction}")
    if not arguments.label_separator:
        raise WrongUse("--label-separator: expected at least one character, found none")
    written = prepare(
        arguments.inputs,
        arguments.out,
        text_column=arguments.text_column,
        label_column=arguments.label_column,
        content_column=arguments.content_column,
        id_column=arguments.id_column,
        label_texts=arguments.label_texts,
        label_separator=arguments.label_separator,
        test_inputs=arguments.test,
        test_fraction=arguments.test_fraction,
        seed=arguments.seed,
    )
    print(
        f"wrote {arguments.out}: {written.train_points:,} training points, {written.test_points:,} test points, "
        f"{written.labels:,} labels"
    )


def _fit(arguments: argparse.Namespace) -> None:
    run = _run_config(arguments)
    check_device(run.training)
    if arguments.processes < 1:
        raise WrongUse(f"--processes: expected at least 1, found {arguments.processes}")
    if arguments.workers is not None and arguments.ray is None:
        raise WrongUse("--workers: expected with --ray, whose workers they are")
    by_ray = None if arguments.ray is None else _by_ray(arguments)
    _check_parent("--json", arguments.json)
    if not arguments.dry_run:
        check_target(arguments.out, resume=arguments.resume)
    meter = Meter()
    run, dataset = prepared(run, open_named(arguments.data))
    meter.data_is_read()
    if arguments.part is not None:
        run = _part(run, arguments.part)
    if part_count(run) == 1 and arguments.processes > 1:
        raise WrongUse("--processes: this run has no parts to train side by side; method.networks=independent has")
    cluster = None if by_ray is None else by_ray(run, arguments.ray, arguments.workers)
    peak = expected_peak(run, dataset)
    for line in plan(run, dataset, peak):
        print(line, flush=True)
    if cluster is not None:
        print(f"workers    each a processor and, beside Ray's own store, {cluster.worker_peak(run, dataset)}")
    if arguments.dry_run:
        return

    earlier_seconds = epoch_seconds(work_folder(arguments.out).history)
    if cluster is None:
        trainer = Processes(arguments.processes)
        kept = fit(run, dataset, arguments.out, resume=arguments.resume, log=_say, trainer=trainer)
    else:
        kept = cluster.fit(run, dataset, arguments.out, resume=arguments.resume, log=_say)
    what = f"kept epoch {kept['epoch']}" if "epoch" in kept else f"joined {part_count(run)} parts"
    print(f"{what} (validation P@1 {kept['P@1']:.2f}); wrote {arguments.out}")
    if arguments.json is not None:
        meter.cost(peak.bytes, earlier_seconds).write(arguments.json)


def _by_ray(arguments: argparse.Namespace) -> Callable[[RunConfig, str, int | None], RayTrainer]:
    """What chooses the trainer behind ``--ray``.

    Raises:
        WrongUse: other options do not go with it, or Ray is not installed.
    """
    if arguments.workers is not None and arguments.workers < 1:
        raise WrongUse(f"--workers: expected at least 1, found {arguments.workers}")
    if arguments.part is not None:
        raise WrongUse("--part: expected without --ray, which trains all parts")
    if arguments.processes != 1:
        raise WrongUse("--processes: expected without --ray, which trains as many parts at a time as processors allow")
    if arguments.json is not None:
        raise WrongUse("--json: expected without --ray, as what other machines spent is not known here")
    try:
        from training.distributed.trainers import ray_trainer
    except ModuleNotFoundError as error:
        raise WrongUse(f"--ray: expected the extra xmcserve[ray], found {error}") from error
    return ray_trainer


def _say(line: str) -> None:
    print(line, flush=True)


def _join(arguments: argparse.Namespace) -> None:
    check_target(arguments.out, resume=False)
    _, dataset = prepared(whole_of(read_artifact(arguments.parts[0]).config.run), open_named(arguments.data))
    kept = join(arguments.parts, dataset, arguments.out, log=_say)
    print(f"joined {len(arguments.parts)} parts (validation P@1 {kept['P@1']:.2f}); wrote {arguments.out}")


def _part(run: RunConfig, text: str) -> RunConfig:
    """The run's part that ``I/N`` names."""
    index, slash, count = text.partition("/")
    expected = part_count(run)
    if not (slash and index.isdecimal() and count == str(expected) and 1 <= int(index) <= expected):
        raise WrongUse(f"--part: expected I/{expected} with I from 1, as this run has {expected} parts, found {text!r}")
    if expected == 1:
        raise WrongUse("--part: this run has no parts; method.networks=independent has")
    return part_of(run, int(index) - 1)


def _evaluate(arguments: argparse.Namespace) -> None:
    ks = _ranks(arguments.k)
    for option, file in (("--json", arguments.json), ("--ranking", arguments.ranking)):
        _check_parent(option, file)
    if arguments.predictions is not None or arguments.feedback is not None:
        _evaluate_log(arguments, ks)
        return
    if arguments.artifact is None or arguments.data is None:
        raise WrongUse("evaluate: expected ARTIFACT and --data DIR, or --predictions FOLDER and --feedback FILE")
    artifact = read_artifact(arguments.artifact)
    most = max(*ks, RECALL_AT)
    ranked_NK, scores_NK, targets_NL = rank_artifact(
        artifact, open_named(arguments.data), arguments.split or "tst", most
    )
    measures = measure_artifact(artifact, ranked_NK, scores_NK, targets_NL, ks)
    _print_measures(measures)
    if arguments.json is not None:
        _write_json(arguments.json, measures)
    if arguments.ranking is not None:
        write_ranking(arguments.ranking, ranked_NK)


def _evaluate_log(arguments: argparse.Namespace, ks: Sequence[int]) -> None:
    if arguments.predictions is None or arguments.feedback is None:
        raise WrongUse("evaluate: expected --predictions and --feedback together, found one of them")
    of_splits = {"--data": arguments.data, "--split": arguments.split, "--ranking": arguments.ranking}
    for option, value in of_splits.items():
        if value is not None:
            raise WrongUse(f"{option}: expected without --predictions, whose answers are given")
    artifact = None if arguments.artifact is None else read_artifact(arguments.artifact)
    measures = score_log(arguments.predictions, arguments.feedback, ks, artifact)
    for identity, found in measures.items():
        print(f"{identity}: {found['predictions']:,} predictions, {found['with_feedback']:,} with feedback")
        _print_measures({name: value for name, value in found.items() if "@" in name})
    if arguments.json is not None:
        _write_json(arguments.json, measures)


def _print_measures(measures: Mapping[str, float]) -> None:
    for name, value in measures.items():
        print(f"{name:<13} {value:6.2f}")


def _write_json(file: Path, measures: Mapping[str, object]) -> None:
    file.write_text(json.dumps(measures, indent=1) + "\n", encoding="utf-8")


def _compare(arguments: argparse.Namespace) -> None:
    wanted = Comparison(
        data=arguments.data,
        recipes=arguments.recipes,
        assignments=tuple(arguments.set),
        peers=tuple(arguments.peers),
        out=arguments.out,
        resume=arguments.resume,
        command=shlex.join(["xmc-train", *arguments.typed]),
    )
    compare(wanted, open_named(arguments.data), _say)
    print(f"wrote {arguments.out}: report.md, report.html, report.json")


def _check_parent(option: str, file: Path | None) -> None:
    if file is not None and not file.parent.is_dir():
        raise WrongUse(f"{option}: expected a file in a folder that exists, found {file}")


def _list(arguments: argparse.Namespace) -> None:
    print("methods")
    for name, method in METHODS.items():
        print(f"  {name:<18} {_first_line(sys.modules[method.__module__])}")
    print("recipes")
    for name, recipe in RECIPES.items():
        print(f"  {name:<18} {_first_line(recipe)}")


def _cite(arguments: argparse.Namespace) -> None:
    if arguments.recipe not in CITATIONS:
        raise WrongUse(f"no recipe named {arguments.recipe!r}; expected one of {', '.join(CITATIONS)}")
    print("\n\n".join(CITATIONS[arguments.recipe]))


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").splitlines()[0]


def _ranks(text: str) -> list[int]:
    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError:
        ks = []
    if not ks or min(ks) < 1:
        raise WrongUse(f"--k: expected positive ranks separated by commas, found {text!r}")
    return ks


def _run_config(arguments: argparse.Namespace) -> RunConfig:
    name = arguments.recipe
    if name is None and arguments.method is None:
        raise WrongUse("fit needs --method or --recipe")
    if name is None and arguments.method not in DEFAULTS:
        raise WrongUse(f"no method named {arguments.method!r}; expected one of {', '.join(DEFAULTS)}")
    name = name or DEFAULTS[arguments.method]
    run = configured(name, arguments.config, arguments.set)
    if arguments.method is not None and run.method.name != arguments.method:
        raise WrongUse(f"recipe {name!r} is of method {run.method.name}, not {arguments.method}")
    return run


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "prepare": _prepare,
    "fit": _fit,
    "join": _join,
    "evaluate": _evaluate,
    "compare": _compare,
    "list": _list,
    "cite": _cite,
}
