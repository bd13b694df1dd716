"""``xmc-serve bench``: measure a running server."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.commands.arguments import OK, Commands, positive
from service.errors import LoadError, SettingsError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure a running server",
        description="Load a running server and print its throughput and latencies. Without --rate, closed loop: each "
        "connection sends the next request when it has the answer. With --rate, open loop: requests are sent at their "
        "times whatever the server does, and latency counts from those times.",
    )
    parser.add_argument("url", metavar="URL", help="of the server, e.g. http://127.0.0.1:8000")
    parser.add_argument(
        "--concurrency",
        type=positive(int),
        default=(1, 8, 64),
        metavar="N,…",
        help="connections of each closed loop (default: 1,8,64)",
    )
    parser.add_argument(
        "--rate", type=positive(float), default=(), metavar="R,…", help="requests per second of each open loop"
    )
    parser.add_argument(
        "--arrivals", default="poisson", choices=("poisson", "constant"), help="of the open loop (default: poisson)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default: 5)")
    parser.add_argument("--queries", type=Path, metavar="FILE", help="one text or one JSON body a line")
    parser.add_argument("--model", help="model to ask (default: the first one)")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="file with the key to send")
    parser.add_argument("--k", type=int, default=5, help="labels for each query (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw latency against load there, as PNG")
    parser.set_defaults(command=_bench)


def _bench(chosen: argparse.Namespace) -> int:
    from service.measuring.bench import Plan, as_json, bench, table
    from service.measuring.chart import can_draw, draw

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
    except OSError as error:
        raise LoadError(str(error)) from error
    return OK
