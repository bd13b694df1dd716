"""``xmc-serve check``: verify a bundle, and time its queries."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from service.commands.arguments import OK, Commands, count
from service.errors import BundleError, SettingsError
from service.kernels import bring
from service.settings import Settings, options
from service.threads import limit_threads

if TYPE_CHECKING:
    from service.engine import Engine


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check",
        help="verify a bundle",
        description="Verify every file of a bundle, open it and have it answer its golden queries.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--device", default="auto", choices=options()["device"].choices, help="where it runs")
    parser.add_argument(
        "--key", type=Path, action="append", default=[], metavar="FILE", help="public key that must have signed it"
    )
    parser.add_argument(
        "--time",
        type=count,
        metavar="N",
        help="also ask the golden queries one at a time, N in all, and print the latencies",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the latencies there too")
    parser.set_defaults(command=_check)


def _check(chosen: argparse.Namespace) -> int:
    if chosen.json is not None and chosen.time is None:
        raise SettingsError("--json writes latencies: expected --time N beside it")
    settings = Settings(device=chosen.device, bundle_keys=tuple(chosen.key))
    limit_threads(settings.batch_threads)
    bring()

    from service.models.launch import Order
    from service.models.worker import opened

    with opened(Order(chosen.bundle, settings)) as engine:
        _tell(engine, signed=bool(chosen.key))
        return OK if chosen.time is None else _time(engine, chosen.time, chosen.json)


def _tell(engine: Engine, *, signed: bool) -> None:
    manifest = engine.manifest
    size_bytes = sum(entry.size for entry in manifest.files.values())
    print(f"{manifest.name}:{manifest.version} is good")
    print(f"  method     {manifest.method.name}, {manifest.precision}, {manifest.input.kind} in")
    print(f"  labels     {manifest.label_count:,}{'' if manifest.has_label_texts else ', without texts'}")
    print(f"  files      {len(manifest.files)}, {size_bytes / 1e6:,.1f} MB, all as the manifest says")
    if manifest.shards:
        print(f"  shards     {len(manifest.shards)}, whose files are their own")
    print(f"  signature  {'good' if signed else 'not looked at: --key'}")
    print(f"  golden     {len(manifest.golden)} queries answered as at export")
    print(f"  device     {engine.device} ({', '.join(engine.providers)})")


def _time(engine: Engine, queries: int, file: Path | None) -> int:
    from service.measuring.timing import TIMED_K, time_queries

    if not engine.golden_queries:
        raise BundleError("the bundle holds no golden query to time")
    latency = time_queries(engine, engine.golden_queries, queries, TIMED_K)
    print(
        f"  one query  p50 {latency.p50_ms:.2f} ms, p99 {latency.p99_ms:.2f} ms for {TIMED_K} labels, "
        f"after {latency.prepare_p50_ms:.2f} ms of reading it"
    )
    if file is not None:
        file.write_text(latency.as_json(), encoding="utf-8")
    return OK
