"""The command ``xmc-serve``: run, check, fetch, load and plan a server, make a key, examine a machine.

The thread pools of the numerical libraries are sized before those libraries are imported; so each command imports what
it needs only when it runs.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from service.errors import BundleError, SettingsError
from service.kernels import bring
from service.planning.options import add_options
from service.settings import Settings, default_text, flag, load_settings, options, variable

if TYPE_CHECKING:
    from service.engine import Engine

Number = TypeVar("Number", int, float)

OK, FAILED, WRONG_USE = 0, 1, 2

MOST_OPEN_FILES = 1 << 20

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line; the process's own when None.

    Returns:
        Exit code: 0 done, 1 failed, 2 wrong use or bad settings.
    """
    chosen = _parser().parse_args(arguments)
    try:
        code: int = chosen.command(chosen)
        return code
    except SettingsError as error:
        return _fail(error, WRONG_USE)
    except BundleError as error:
        return _fail(error, FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xmc-serve", description="Answer top-k label queries over HTTP.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve bundles", description="Serve bundles until SIGTERM or SIGINT.")
    _add_settings(run)
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "check",
        help="verify a bundle",
        description="Verify every file of a bundle, open it and have it answer its golden queries.",
    )
    check.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    check.add_argument("--device", default="auto", choices=options()["device"].choices, help="where it runs")
    check.add_argument(
        "--key", type=Path, action="append", default=[], metavar="FILE", help="public key that must have signed it"
    )
    check.add_argument(
        "--time",
        type=_count,
        metavar="N",
        help="also ask the golden queries one at a time, N in all, and print the latencies",
    )
    check.add_argument("--json", type=Path, metavar="FILE", help="write the latencies there too")
    check.set_defaults(command=_check)

    _add_fetch(commands)

    bench = commands.add_parser(
        "bench",
        help="measure a running server",
        description="Load a running server and print its throughput and latencies. Without --rate, closed loop: each "
        "connection sends the next request when it has the answer. With --rate, open loop: requests are sent at their "
        "times whatever the server does, and latency counts from those times.",
    )
    bench.add_argument("url", metavar="URL", help="of the server, e.g. http://127.0.0.1:8000")
    bench.add_argument(
        "--concurrency",
        type=_positive(int),
        default=(1, 8, 64),
        metavar="N,…",
        help="connections of each closed loop (default: 1,8,64)",
    )
    bench.add_argument(
        "--rate", type=_positive(float), default=(), metavar="R,…", help="requests per second of each open loop"
    )
    bench.add_argument(
        "--arrivals", default="poisson", choices=("poisson", "constant"), help="of the open loop (default: poisson)"
    )
    bench.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default: 5)")
    bench.add_argument("--queries", type=Path, metavar="FILE", help="one text or one JSON body a line")
    bench.add_argument("--model", help="model to ask (default: the first one)")
    bench.add_argument("--key-file", type=Path, metavar="FILE", help="file with the key to send")
    bench.add_argument("--k", type=int, default=5, help="labels for each query (default: 5)")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    bench.add_argument("--plot", type=Path, metavar="FILE", help="draw latency against load there, as PNG")
    bench.set_defaults(command=_bench)

    key = commands.add_parser(
        "key",
        help="make a key for a client",
        description=f"Make a key: print it, once, and the line for the file that {variable('api_keys_file')} or "
        f"{variable('admin_keys_file')} names.",
    )
    key.add_argument("name", metavar="NAME", help="of the key, for logs: letters, digits, '.', '_' and '-'")
    key.add_argument("--read-only", action="store_true", help="it may read models and metrics, and not ask for labels")
    key.add_argument("--rate", metavar="N", help="most queries a second in the long run (default: no limit)")
    key.add_argument("--burst", metavar="N", help="most queries at once after a pause (default: one second's)")
    key.set_defaults(command=_key)

    doctor = commands.add_parser(
        "doctor",
        help="say what would keep a server from starting or working",
        description="Look at what a server with these settings would find here, and say what is wrong and what to do.",
    )
    _add_settings(doctor)
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    doctor.set_defaults(command=_doctor)

    plan = commands.add_parser(
        "plan",
        help="tell what a service will need",
        description="Print disk, memory, latency and pods of a model that need not exist yet, from measured constants.",
    )
    add_options(plan)
    plan.set_defaults(command=_plan)
    return parser


def _add_fetch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fetch = commands.add_parser(
        "fetch",
        help="fetch a bundle",
        description="Fetch a tar archive of a bundle, verify every file, and put the bundle in its place: whole, or "
        "not at all. Proxies are those of the environment.",
    )
    fetch.add_argument("url", metavar="URL", help="of the archive: http://, https:// or file://")
    fetch.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="that becomes the bundle")
    fetch.add_argument(
        "--sha256",
        metavar="DIGEST",
        help="of the bundle's manifest.json; nothing is fetched where FOLDER has that bundle already",
    )
    fetch.add_argument(
        "--key", type=Path, action="append", default=[], metavar="FILE", help="public key that must have signed it"
    )
    fetch.add_argument(
        "--max-bytes", type=_count, default=1 << 36, metavar="N", help="most bytes to take (default: 2^36, 69 GB)"
    )
    fetch.set_defaults(command=_fetch)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Make every setting a flag."""
    for name, option in options().items():
        help_text = f"{option.summary} (default: {default_text(name)}; variable: {variable(name)})"
        parser.add_argument(flag(name), dest=name, action="append", metavar="VALUE", help=help_text.replace("%", "%%"))


def _flags(chosen: argparse.Namespace) -> dict[str, str]:
    """The settings among the flags, as their variables would hold them."""
    flags = {}
    for name, option in options().items():
        given: list[str] | None = getattr(chosen, name)
        if given is not None:
            flags[name] = os.pathsep.join(given) if option.repeated else given[-1]
    return flags


def _run(chosen: argparse.Namespace) -> int:
    settings = load_settings(_flags(chosen), os.environ)
    if not settings.bundles:
        raise SettingsError(f"no bundle to serve: expected {flag('bundles')} or {variable('bundles')}")
    _limit_threads(settings.batch_threads)
    _allow_open_files()
    # Its library would write lines of its own among the log's.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    bring()

    from service.models.launch import Order, launch

    # Before the rest is imported, which takes most of a second.
    workers = [launch(Order(path, settings)) for path in settings.bundles]

    from service.http.server import serve
    from service.logs import configure_logging

    log = configure_logging(settings.log_format)
    code = serve(settings, workers, lambda: log.lost)
    # Not sys.exit: a bundle that is still being verified on its thread must not hold up, or crash, the way out.
    logging.shutdown()
    os._exit(code)


def _check(chosen: argparse.Namespace) -> int:
    if chosen.json is not None and chosen.time is None:
        raise SettingsError("--json writes latencies: expected --time N beside it")
    settings = Settings(device=chosen.device, bundle_keys=tuple(chosen.key))
    _limit_threads(settings.batch_threads)
    bring()

    from service.models.worker import open_engine

    engine = open_engine(chosen.bundle, settings)
    manifest = engine.manifest
    size_bytes = sum(entry.size for entry in manifest.files.values())
    print(f"{manifest.name}:{manifest.version} is good")
    print(f"  method     {manifest.method.name}, {manifest.precision}, {manifest.input.kind} in")
    print(f"  labels     {manifest.label_count:,}{'' if manifest.has_label_texts else ', without texts'}")
    print(f"  files      {len(manifest.files)}, {size_bytes / 1e6:,.1f} MB, all as the manifest says")
    print(f"  signature  {'good' if chosen.key else 'not looked at: --key'}")
    print(f"  golden     {len(manifest.golden)} queries answered as at export")
    print(f"  device     {engine.device} ({', '.join(engine.providers)})")
    return OK if chosen.time is None else _time(engine, chosen.time, chosen.json)


def _time(engine: Engine, count: int, file: Path | None) -> int:
    from service.measuring.timing import TIMED_K, time_queries

    if not engine.golden_queries:
        return _fail(BundleError("the bundle holds no golden query to time"), FAILED)
    latency = time_queries(engine, engine.golden_queries, count, TIMED_K)
    print(
        f"  one query  p50 {latency.p50_ms:.2f} ms, p99 {latency.p99_ms:.2f} ms for {TIMED_K} labels, "
        f"after {latency.prepare_p50_ms:.2f} ms of reading it"
    )
    if file is not None:
        file.write_text(latency.as_json(), encoding="utf-8")
    return OK


def _fetch(chosen: argparse.Namespace) -> int:
    bring()

    from service.fetching import Order, fetch

    found = fetch(Order(chosen.url, chosen.into, chosen.sha256, tuple(chosen.key), chosen.max_bytes))
    manifest = found.manifest
    print(f"{manifest.name}:{manifest.version} is in {chosen.into}{'' if found.is_new else ' already'}")
    print(f"  manifest   sha256 {found.sha256}")
    print(f"  signature  {'good' if chosen.key else 'not looked at: --key'}")
    return OK


def _bench(chosen: argparse.Namespace) -> int:
    from service.measuring.bench import Plan, as_json, bench, table
    from service.measuring.chart import can_draw, draw
    from service.measuring.load import LoadError

    if chosen.plot is not None and not can_draw():
        raise SettingsError("--plot draws with matplotlib, which is not installed: pip install matplotlib")
    plan = Plan(
        url=chosen.url.rstrip("/"),
        concurrency=chosen.concurrency,
        rates=chosen.rate,
        arrivals=chosen.arrivals,
        seconds=chosen.seconds,
        queries=chosen.queries,
        model=chosen.model,
        k=chosen.k,
        key_file=chosen.key_file,
    )
    try:
        figures = bench(plan)
        print(table(figures), end="")
        if chosen.json is not None:
            chosen.json.write_text(as_json(plan, figures), encoding="utf-8")
        if chosen.plot is not None:
            draw(figures, f"{plan.url}, {plan.k} labels a query", chosen.plot)
    except (LoadError, OSError) as error:
        return _fail(error, FAILED)
    return OK


def _key(chosen: argparse.Namespace) -> int:
    from service.access.keys import line_of, new_secret

    options = ["read-only"] if chosen.read_only else []
    options += [f"{name}={value}" for name in ("rate", "burst") if (value := getattr(chosen, name)) is not None]
    secret = new_secret()
    line = line_of(chosen.name, secret, options)
    print(f"the key, which is shown this once: {secret}", f"the line for the file of keys:\n{line}", sep="\n")
    return OK


def _doctor(chosen: argparse.Namespace) -> int:
    from service.doctor.context import Context
    from service.doctor.examination import examine, is_healthy
    from service.doctor.report import as_json, as_table

    examined = examine(Context.of(_flags(chosen), os.environ))
    print(as_json(examined) if chosen.json else as_table(examined), end="")
    return OK if is_healthy(examined) else FAILED


def _plan(chosen: argparse.Namespace) -> int:
    from service.planning.command import answer

    print(answer(chosen), end="")
    return OK


def _count(text: str) -> int:
    """One whole number above 0."""
    (number,) = _positive(int)(text)
    return number


def _positive(kind: Callable[[str], Number]) -> Callable[[str], tuple[Number, ...]]:
    """A parser of numbers above 0 that are separated by commas."""

    def parse(text: str) -> tuple[Number, ...]:
        numbers = tuple(kind(part) for part in text.split(","))
        if not all(0 < number < math.inf for number in numbers):
            raise ValueError
        return numbers

    parse.__name__ = "list of numbers above 0"  # argparse puts it after "invalid"
    return parse


def _limit_threads(threads: int) -> None:
    """Give the numerical libraries this many threads each, unless the user has decided otherwise."""
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(threads))
    # OpenMP's threads would spin while they wait for each other, on the processor that the event loop needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _allow_open_files() -> None:
    """Raise the soft limit, which many systems set at 1,024: every connection is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _fail(error: Exception, code: int) -> int:
    print(f"xmc-serve: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
