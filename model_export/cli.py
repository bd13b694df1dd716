"""`xmc-export`: build | verify | diff | plot | shard | keygen | sign.

Exit codes: 0 done, 1 failed, 2 wrong use or bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_export.changes import FoldedChanges
    from model_export.verify import Comparison
    from service.bundle import Manifest
    from service.bundle.searching import IndexSection

DONE, FAILED, WRONG_USE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], None] = arguments.command
    # Imported here, so that `--help` does not wait for torch.
    from model_export.errors import ExportError, UsageError
    from service.errors import BundleError
    from training.artifact import ArtifactError
    from training.data.files import DataError

    try:
        command(arguments)
    except (UsageError, ArtifactError, DataError) as error:
        return _fail(error, WRONG_USE)
    except (ExportError, BundleError, OSError) as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was changed", FAILED)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xmc-export", description="Turn trained artifacts into bundles to serve.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('xmcserve')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="write an artifact's bundle, in place of an older one")
    build.add_argument("artifact", type=Path, metavar="ARTIFACT", help="folder that `xmc-train fit` wrote")
    build.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    build.add_argument("--name", help="name under which it is served (default: the artifact folder's)")
    build.add_argument(
        "--precision", default="fp32", choices=("fp32", "fp16", "int8"), help="of the weights (default: fp32)"
    )
    build.add_argument(
        "--index",
        default="auto",
        choices=("auto", "flat", "hnsw", "ivf"),
        help="type of the label index of UniDEC and one-vs-all (default: auto, which measures)",
    )
    build.add_argument(
        "--recall",
        type=float,
        metavar="R",
        help="share of the true 100 best labels that an approximate index must find (default: 0.99)",
    )
    build.add_argument(
        "--scores",
        choices=("calibrated", "raw"),
        help="serve probabilities or the method's own scores (default: probabilities where the artifact can tell them)",
    )
    build.add_argument(
        "--propensity-weight",
        type=float,
        default=0.0,
        metavar="W",
        help="prefer labels that annotators miss, by the power W of their inverse propensity (default: 0, not at all)",
    )
    build.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help='groups of labels that filters may name: CSV with a header id,group, or lines {"id": …, "groups": […]}',
    )
    build.add_argument(
        "--journal",
        type=Path,
        metavar="FILE",
        help="journal of the labels that were added and disabled while the model was served, as the service keeps it",
    )
    build.add_argument(
        "--neighbour-texts",
        metavar="DATA",
        help="data folder that DECLARE was trained on: explanations then quote the rows that voted",
    )
    build.set_defaults(command=_build)
    verify = commands.add_parser("verify", help="check a bundle's files and golden answers")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.add_argument("--artifact", type=Path, metavar="ARTIFACT", help="also compare it with the trained model")
    verify.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="public key that must have signed it; of several, one",
    )
    verify.set_defaults(command=_verify)
    diff = commands.add_parser("diff", help="print what sets two bundles apart")
    diff.add_argument("a", type=Path, metavar="A")
    diff.add_argument("b", type=Path, metavar="B")
    diff.set_defaults(command=_diff)
    plot = commands.add_parser("plot", help="draw what a bundle's index was chosen from, recall against latency")
    plot.add_argument("bundle", type=Path, metavar="BUNDLE")
    plot.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="picture to write")
    plot.set_defaults(command=_plot)
    shard = commands.add_parser("shard", help="cut a bundle into parts, to be served by several machines")
    shard.add_argument("bundle", type=Path, metavar="BUNDLE")
    shard.add_argument("--shards", type=int, required=True, metavar="S", help="parts, about as dear as each other")
    shard.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write: head, shard-0, ...")
    shard.set_defaults(command=_shard)
    keygen = commands.add_parser("keygen", help="make a pair of keys to sign bundles with")
    keygen.add_argument("private", type=Path, metavar="FILE", help="private key to write; the public one is FILE.pub")
    keygen.set_defaults(command=_keygen)
    sign = commands.add_parser("sign", help="sign a bundle, so that servers can tell whose it is")
    sign.add_argument("bundle", type=Path, metavar="BUNDLE")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key, Ed25519 in PEM")
    sign.set_defaults(command=_sign)
    return parser


def _keygen(arguments: argparse.Namespace) -> None:
    from model_export.signing import make_keys

    public = arguments.private.with_name(arguments.private.name + ".pub")
    make_keys(arguments.private, public)
    print(f"wrote {arguments.private}, which is secret, and {public}, which servers need")


def _sign(arguments: argparse.Namespace) -> None:
    from model_export.signing import sign

    sign(arguments.bundle, arguments.key)
    print(f"signed {arguments.bundle}")


def _build(arguments: argparse.Namespace) -> None:
    from model_export.writer import Options, build
    from training.artifact import read_artifact

    options = Options(
        name=arguments.name,
        precision=arguments.precision,
        index=arguments.index,
        recall=arguments.recall,
        scores=arguments.scores,
        propensity_weight=arguments.propensity_weight,
        groups=arguments.groups,
        journal=arguments.journal,
        neighbour_texts=arguments.neighbour_texts,
    )
    built = build(read_artifact(arguments.artifact), arguments.out, options)
    print(f"wrote {arguments.out}")
    _print_manifest(built.manifest)
    if options.journal is not None:
        _print_left_out(built.changes)
    _print_comparison(built.comparison)


def _verify(arguments: argparse.Namespace) -> None:
    from model_export.verify import verify_bundle
    from training.artifact import read_artifact

    artifact = None if arguments.artifact is None else read_artifact(arguments.artifact)
    verified = verify_bundle(arguments.bundle, artifact, arguments.key)
    _print_manifest(verified.manifest)
    if verified.comparison is not None:
        _print_comparison(verified.comparison)


def _diff(arguments: argparse.Namespace) -> None:
    from model_export.diff import compare_bundles

    difference = compare_bundles(arguments.a, arguments.b)
    for title, lines in (("manifest", difference.fields), ("files", difference.files), ("answers", difference.answers)):
        print(title if lines else f"{title}: equal")
        for line in lines:
            print(f"  {line}")
    asked = f"{arguments.b} asked {arguments.a}'s {difference.queries} golden queries"
    if isinstance(difference.agreement, str):
        print(f"agreement@{difference.k}: none, {difference.agreement}")
    else:
        print(f"agreement@{difference.k}: {difference.agreement:.3f} ({asked})")


def _shard(arguments: argparse.Namespace) -> None:
    from model_export.sharding import shard
    from service.bundle.shards import HEAD

    head = shard(arguments.bundle, arguments.shards, arguments.out)
    print(f"wrote {arguments.out}: {head.name}:{head.version} in {len(head.shards)} shards")
    for entry in head.shards:
        print(f"  {entry.folder}  rows {entry.first:,} to {entry.first + entry.count - 1:,}")
    print(f"serve it:  xmc-serve run --bundle {arguments.out / HEAD}")


def _plot(arguments: argparse.Namespace) -> None:
    from model_export.chart import draw
    from model_export.errors import UsageError
    from service.bundle.reader import read_manifest
    from service.bundle.searching import SearchSection
    from service.measuring.chart import can_draw

    if not can_draw():
        raise UsageError("plot draws with matplotlib, which is not installed: pip install matplotlib")
    manifest = read_manifest(arguments.bundle)
    if not isinstance(manifest.method, SearchSection) or not manifest.method.index.curve:
        raise UsageError(f"{arguments.bundle}: expected an index that was chosen by measurement, found none")
    draw(manifest.method.index, f"{manifest.name}: {manifest.label_count:,} labels", arguments.out)


def _print_manifest(manifest: Manifest) -> None:
    from service.bundle.searching import SearchSection

    size_bytes = sum(entry.size for entry in manifest.files.values())
    print(f"{manifest.name}:{manifest.version}")
    print(f"  method     {manifest.method.name}, {manifest.precision}, {manifest.input.kind} in")
    print(f"  labels     {manifest.label_count:,}{'' if manifest.has_label_texts else ', without texts'}")
    if manifest.groups:
        print(f"  groups     {', '.join(f'{name} {size:,}' for name, size in manifest.groups.items())}")
    if manifest.changes is not None:
        print(f"  changes    {manifest.changes.zero_shot:,} added, {manifest.changes.disabled:,} disabled")
    if isinstance(manifest.method, SearchSection):
        print(f"  index      {_index(manifest.method.index)}")
    print(f"  serves     {_scores(manifest)}")
    print(f"  files      {len(manifest.files)}, {size_bytes / 1e6:,.1f} MB")
    if manifest.shards:
        print(f"  shards     {len(manifest.shards)}, whose files are their own")
    print(f"  golden     {len(manifest.golden)} queries answered")


def _print_left_out(changes: FoldedChanges) -> None:
    if changes.section is None:
        print("  changes    none that the artifact does not have already")
    if changes.known:
        print(f"  left out   {changes.known:,} added, which the artifact has")
    if changes.unknown:
        print(f"  left out   {changes.unknown:,} disabled, which there are not")


def _index(index: IndexSection) -> str:
    if index.type == "flat":
        leading = "" if index.leading is None else f", by {index.leading} leading coordinates"
        return f"flat, exact{leading}"
    effort = "" if index.effort is None else f", effort {index.effort:,}"
    candidates = "" if index.candidates is None else f", {index.candidates:,} candidates"
    return f"{index.type}, recall@{index.recall_at} {index.recall:.3f}{effort}{candidates}"


def _scores(manifest: Manifest) -> str:
    if manifest.calibration is None:
        return "raw scores"
    kinds = ", ".join(f"{rank.first_rank} {rank.map.kind}" for rank in manifest.calibration.ranks)
    order = f", ordered by inverse propensity to the {manifest.propensity.weight:g}" if manifest.propensity else ""
    return f"calibrated scores (from rank {kinds}){order}"


def _print_comparison(comparison: Comparison) -> None:
    parity = comparison.parity
    left_out = f", {comparison.undecided} left out as ties" if comparison.undecided else ""
    print(f"  compared   {parity.queries} samples with the trained model{left_out}")
    print(
        f"  scores     differ by {parity.max_score_difference:.2g} at most, "
        f"the largest is {comparison.largest_score:.3g}"
    )
    print(f"  top {parity.k}      equal for {parity.equal_top_k:.1%}")


def _fail(error: Exception | str, code: int) -> int:
    print(f"xmc-export: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
