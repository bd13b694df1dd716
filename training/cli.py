"""`xmc-train`: prepare | fit | join | evaluate | compare | list | cite.

Exit codes: 0 done, 1 failed, 2 wrong use or bad input.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.memory import use_huge_pages

DONE, FAILED, WRONG_USE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    arguments.typed = sys.argv[1:] if argv is None else list(argv)
    command: Callable[[argparse.Namespace], None] = arguments.command
    use_huge_pages()
    # Imported here, so that `--help` does not wait for torch.
    from training.artifact import ArtifactError
    from training.compare.command import ModelsFailed
    from training.data.dataset import UnsuitableData
    from training.data.files import DataError
    from training.encoders import EncoderError
    from training.loop import Diverged, RunError
    from training.overrides import WrongOption
    from training.ranking import RankingError

    try:
        command(arguments)
    except (Diverged, ModelsFailed) as error:
        print(f"xmc-train: {error}", file=sys.stderr)
        return FAILED
    except (
        DataError,
        UnsuitableData,
        EncoderError,
        RunError,
        ArtifactError,
        RankingError,
        WrongOption,
        _WrongUse,
    ) as error:
        print(f"xmc-train: {error}", file=sys.stderr)
        return WRONG_USE
    except ValidationError as error:
        print(f"xmc-train: {_configuration_errors(error)}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print("xmc-train: interrupted; `fit --resume` continues after the last finished epoch", file=sys.stderr)
        return FAILED
    return DONE


class _WrongUse(Exception):
    """Arguments that argparse cannot check alone."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xmc-train", description="Train extreme multi-label classifiers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_fit(commands)
    _add_join(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    listing = commands.add_parser("list", help="print the methods and recipes")
    listing.set_defaults(command=_list)
    cite = commands.add_parser("cite", help="print the papers behind a recipe as BibTeX")
    cite.add_argument("recipe", metavar="RECIPE")
    cite.set_defaults(command=_cite)
    return parser


def _add_prepare(commands: Any) -> None:
    prepare = commands.add_parser("prepare", help="turn JSONL, CSV or Parquet tables into a data folder")
    prepare.add_argument("inputs", nargs="+", type=Path, metavar="INPUT")
    prepare.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    prepare.add_argument("--text-column", required=True, metavar="NAME", help="text of a point, or its title")
    prepare.add_argument("--content-column", metavar="NAME", help="what follows the title; may be empty")
    prepare.add_argument("--label-column", required=True, metavar="NAME", help="a list, or text to be split")
    prepare.add_argument("--id-column", metavar="NAME", help="ids of the points; without it, their positions")
    prepare.add_argument(
        "--label-texts", type=Path, metavar="FILE", help="table of columns id and text; unidec needs it"
    )
    prepare.add_argument("--label-separator", default=",", metavar="TEXT", help="between labels given as one text")
    split = prepare.add_mutually_exclusive_group()
    split.add_argument(
        "--test", nargs="+", type=Path, default=[], metavar="INPUT", help="the test split, where it is given"
    )
    split.add_argument(
        "--test-fraction", type=float, default=0.1, metavar="SHARE", help="of the rows, drawn by the seed"
    )
    prepare.add_argument("--seed", type=int, default=0)
    prepare.set_defaults(command=_prepare)


def _add_fit(commands: Any) -> None:
    fit = commands.add_parser("fit", help="train a model and write an artifact")
    fit.add_argument("--data", required=True, metavar="DIR", help='data folder, or "sample" for the embedded data set')
    fit.add_argument(
        "--method",
        metavar="NAME",
        help="mach, declare, unidec or ova, re-ranked by words; alone with --recipe NAME",
    )
    fit.add_argument("--recipe", metavar="NAME", help="a named configuration; see `xmc-train list`")
    fit.add_argument("--config", type=Path, metavar="FILE.toml", help="options that replace the recipe's")
    fit.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="single options, e.g. training.epochs=3",
    )
    fit.add_argument("--out", type=Path, required=True, metavar="ARTIFACT", help="folder to write")
    fit.add_argument("--resume", action="store_true", help="continue an interrupted run, if there is one")
    fit.add_argument(
        "--processes", type=int, default=1, metavar="N", help="parts at a time, where networks are independent"
    )
    fit.add_argument("--part", metavar="I/N", help="train one of the N parts alone; `join` makes a model of all")
    fit.add_argument("--json", type=Path, metavar="FILE", help="also write what the run cost: seconds and memory")
    fit.add_argument("--dry-run", action="store_true", help="print sizes, memory and steps; train nothing")
    fit.set_defaults(command=_fit)


def _add_join(commands: Any) -> None:
    join = commands.add_parser("join", help="make one artifact of parts that were trained alone")
    join.add_argument("parts", nargs="+", type=Path, metavar="PART", help="artifacts written by `fit --part`")
    join.add_argument("--data", required=True, metavar="DIR", help="what they were trained on")
    join.add_argument("--out", type=Path, required=True, metavar="ARTIFACT", help="folder to write")
    join.set_defaults(command=_join)


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser("evaluate", help="measure an artifact on a split")
    evaluate.add_argument("artifact", type=Path, metavar="ARTIFACT")
    evaluate.add_argument("--data", required=True, metavar="DIR", help='data folder, or "sample"')
    evaluate.add_argument("--split", default="tst", choices=("trn", "dev", "tst"))
    evaluate.add_argument("--k", default="1,3,5", metavar="1,3,5", help="ranks, separated by commas")
    evaluate.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the measures, in percent, as one flat object"
    )
    evaluate.add_argument(
        "--ranking", type=Path, metavar="FILE.npy", help="also write the best 100 labels of every row, best first"
    )
    evaluate.set_defaults(command=_evaluate)


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="train recipes on one split and report accuracy, bytes, seconds, memory and latency"
    )
    compare.add_argument("--data", required=True, metavar="DIR", help='data folder, or "sample"')
    compare.add_argument("--recipes", required=True, metavar="A,B,…", help="recipes, or folders of trained artifacts")
    compare.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="options for every recipe"
    )
    compare.add_argument(
        "--peers", nargs="+", type=Path, default=[], metavar="FILE", help="models of other libraries, measured already"
    )
    compare.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    compare.add_argument("--resume", action="store_true", help="go on with a folder; what is done is not done again")
    compare.set_defaults(command=_compare)


def _prepare(arguments: argparse.Namespace) -> None:
    from training.data.prepare import prepare

    if not 0 < arguments.test_fraction < 1:
        raise _WrongUse(f"--test-fraction: expected a share between 0 and 1, found {arguments.test_fraction}")
    if not arguments.label_separator:
        raise _WrongUse("--label-separator: expected at least one character, found none")
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
    from training.cost import Meter, epoch_seconds
    from training.loop import check_device, check_target, work_folder
    from training.parts import fit, part_count
    from training.planning import expected_peak, plan
    from training.recipes import prepared

    run = _run_config(arguments)
    check_device(run.training)
    if arguments.processes < 1:
        raise _WrongUse(f"--processes: expected at least 1, found {arguments.processes}")
    _check_parent("--json", arguments.json)
    if not arguments.dry_run:
        check_target(arguments.out, resume=arguments.resume)
    meter = Meter()
    run, dataset = prepared(run, _open(arguments.data))
    meter.data_is_read()
    if arguments.part is not None:
        run = _part(run, arguments.part)
    if part_count(run) == 1 and arguments.processes > 1:
        raise _WrongUse("--processes: this run has no parts to train side by side; method.networks=independent has")
    peak = expected_peak(run, dataset)
    for line in plan(run, dataset, peak):
        print(line, flush=True)
    if arguments.dry_run:
        return

    earlier_seconds = epoch_seconds(work_folder(arguments.out).history)
    kept = fit(run, dataset, arguments.out, resume=arguments.resume, log=_say, processes=arguments.processes)
    what = f"kept epoch {kept['epoch']}" if "epoch" in kept else f"joined {part_count(run)} parts"
    print(f"{what} (validation P@1 {kept['P@1']:.2f}); wrote {arguments.out}")
    if arguments.json is not None:
        meter.cost(peak.bytes, earlier_seconds).write(arguments.json)


def _say(line: str) -> None:
    print(line, flush=True)


def _join(arguments: argparse.Namespace) -> None:
    from training.artifact import read_artifact
    from training.loop import check_target
    from training.parts import join, whole_of
    from training.recipes import prepared

    check_target(arguments.out, resume=False)
    _, dataset = prepared(whole_of(read_artifact(arguments.parts[0]).config.run), _open(arguments.data))
    kept = join(arguments.parts, dataset, arguments.out, log=_say)
    print(f"joined {len(arguments.parts)} parts (validation P@1 {kept['P@1']:.2f}); wrote {arguments.out}")


def _part(run: Any, text: str) -> Any:
    """The run's part that ``I/N`` names."""
    from training.parts import part_count, part_of

    index, slash, count = text.partition("/")
    expected = part_count(run)
    if not (slash and index.isdecimal() and count == str(expected) and 1 <= int(index) <= expected):
        raise _WrongUse(
            f"--part: expected I/{expected} with I from 1, as this run has {expected} parts, found {text!r}"
        )
    if expected == 1:
        raise _WrongUse("--part: this run has no parts; method.networks=independent has")
    return part_of(run, int(index) - 1)


def _evaluate(arguments: argparse.Namespace) -> None:
    from training.artifact import read_artifact
    from training.evaluation import RECALL_AT, measure_artifact, rank_artifact
    from training.ranking import write_ranking

    ks = _ranks(arguments.k)
    for option, file in (("--json", arguments.json), ("--ranking", arguments.ranking)):
        _check_parent(option, file)
    artifact = read_artifact(arguments.artifact)
    most = max(*ks, RECALL_AT)
    ranked_NK, scores_NK, targets_NL = rank_artifact(artifact, _open(arguments.data), arguments.split, most)
    measures = measure_artifact(artifact, ranked_NK, scores_NK, targets_NL, ks)
    for name, value in measures.items():
        print(f"{name:<13} {value:6.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(measures, indent=1) + "\n", encoding="utf-8")
    if arguments.ranking is not None:
        write_ranking(arguments.ranking, ranked_NK)


def _compare(arguments: argparse.Namespace) -> None:
    from training.compare.command import Comparison, compare

    wanted = Comparison(
        data=arguments.data,
        recipes=arguments.recipes,
        assignments=tuple(arguments.set),
        peers=tuple(arguments.peers),
        out=arguments.out,
        resume=arguments.resume,
        command=shlex.join(["xmc-train", *arguments.typed]),
    )
    compare(wanted, _open(arguments.data), lambda line: print(line, flush=True))
    print(f"wrote {arguments.out}: report.md, report.html, report.json")


def _check_parent(option: str, file: Path | None) -> None:
    if file is not None and not file.parent.is_dir():
        raise _WrongUse(f"{option}: expected a file in a folder that exists, found {file}")


def _list(arguments: argparse.Namespace) -> None:
    from training.methods import METHODS
    from training.recipes import RECIPES

    print("methods")
    for name, method in METHODS.items():
        print(f"  {name:<18} {_first_line(sys.modules[method.__module__])}")
    print("recipes")
    for name, recipe in RECIPES.items():
        print(f"  {name:<18} {_first_line(recipe)}")


def _cite(arguments: argparse.Namespace) -> None:
    from training.citations import CITATIONS

    if arguments.recipe not in CITATIONS:
        raise _WrongUse(f"no recipe named {arguments.recipe!r}; expected one of {', '.join(CITATIONS)}")
    print("\n\n".join(CITATIONS[arguments.recipe]))


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").splitlines()[0]


def _open(data: str) -> Any:
    from training.data import sample
    from training.data.records import open_source

    return open_source(sample.path() if data == "sample" and not Path(data).exists() else Path(data))


def _ranks(text: str) -> list[int]:
    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError:
        ks = []
    if not ks or min(ks) < 1:
        raise _WrongUse(f"--k: expected positive ranks separated by commas, found {text!r}")
    return ks


def _run_config(arguments: argparse.Namespace) -> Any:
    from training.overrides import configured
    from training.recipes import DEFAULTS

    name = arguments.recipe
    if name is None and arguments.method is None:
        raise _WrongUse("fit needs --method or --recipe")
    if name is None and arguments.method not in DEFAULTS:
        raise _WrongUse(f"no method named {arguments.method!r}; expected one of {', '.join(DEFAULTS)}")
    name = name or DEFAULTS[arguments.method]
    run = configured(name, arguments.config, arguments.set)
    if arguments.method is not None and run.method.name != arguments.method:
        raise _WrongUse(f"recipe {name!r} is of method {run.method.name}, not {arguments.method}")
    return run


def _configuration_errors(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        found = "" if item["type"] == "extra_forbidden" else f", found {item['input']!r}"
        parts.append(f"{place}: {item['msg']}{found}")
    return "configuration: " + "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
