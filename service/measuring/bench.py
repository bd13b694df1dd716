"""``xmc-serve bench``: the plan of a measurement, its requests, and the table of what came back."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import uvloop

from service.errors import LoadError
from service.measuring.load import Generator, Tally

OPEN_LOOP_CONNECTIONS = 256
ARRIVAL_SEED = 0
ANSWER_SECONDS = 10
# Above this share of a processor the generator itself is what is measured.
BOTTLENECK_LOAD = 0.9
MEAN_STAGES = ("queue", "encode", "search")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        url: of the server.
        concurrency: connections of each closed loop.
        rates: requests per second of each open loop; when there are any, there is no closed loop.
        arrivals: how an open loop spaces its requests.
        seconds: of each measurement.
        queries: file with one text or one JSON body a line; None takes the model's examples.
        model: to ask; None takes the first one.
        k: labels for each query.
        key_file: file with the key to send; None where the server asks for none.
    """

    url: str
    concurrency: tuple[int, ...] = (1, 8, 64)
    rates: tuple[float, ...] = ()
    arrivals: Literal["poisson", "constant"] = "poisson"
    seconds: float = 5.0
    queries: Path | None = None
    model: str | None = None
    k: int = 5
    key_file: Path | None = None

    @property
    def key_headers(self) -> dict[str, str]:
        """The header that lets requests in; the key itself stands in no figures."""
        return {} if self.key_file is None else {"Authorization": f"Bearer {self.key_file.read_text().strip()}"}


@dataclass(frozen=True)
class Figures:
    """One line of the table; latencies are those of the answers with status 200.

    Attributes:
        load: "64 connections" or "500/s poisson".
        offered_per_second: requests that were due; None in a closed loop.
        answered_per_second: answers with status 200.
        p50_ms: median latency; likewise p90_ms, p99_ms and p999_ms.
        refused_p99_ms: latency of the other answers.
        statuses: answers by status.
        broken: requests without an answer.
        mean_ms: mean of the Server-Timing stages.
        generator_load: share of one processor that the load generator took itself; near 1, it is what was measured.
    """

    load: str
    offered_per_second: float | None
    answered_per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    refused_p99_ms: float | None
    statuses: dict[str, int]
    broken: int
    mean_ms: dict[str, float]
    generator_load: float


def bench(plan: Plan) -> list[Figures]:
    """Measure a running server.

    Raises:
        LoadError: it cannot be reached or there is nothing to ask it.
    """
    host, port = _address(plan.url)
    requests = [_request(host, port, plan.key_headers, body) for body in request_bodies(plan)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if plan.rates:
            return [
                figures_of(
                    f"{rate:g}/s {plan.arrivals}", rate, runner.run(_open_loop(plan, host, port, requests, rate))
                )
                for rate in plan.rates
            ]
        return [
            figures_of(
                f"{connections} connection{'s' * (connections > 1)}",
                None,
                runner.run(_closed_loop(plan, host, port, requests, connections)),
            )
            for connections in plan.concurrency
        ]


def table(figures: Sequence[Figures]) -> str:
    """The figures for a terminal."""
    heads = ["load", "answers/s", "p50 ms", "p90", "p99", "p99.9", "status", *(f"{name} ms" for name in MEAN_STAGES)]
    rows = [heads]
    for line in figures:
        latencies = [_shown(value) for value in (line.p50_ms, line.p90_ms, line.p99_ms, line.p999_ms)]
        statuses = [f"{status}: {count}" for status, count in line.statuses.items()]
        statuses += [f"broken: {line.broken}"] * (line.broken > 0)
        means = [_shown(line.mean_ms.get(stage)) for stage in MEAN_STAGES]
        rows.append([line.load, f"{line.answered_per_second:,.0f}", *latencies, " ".join(statuses), *means])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    lines += [_warning(line) for line in figures if line.generator_load > BOTTLENECK_LOAD]
    return "".join(f"{line}\n" for line in lines)


def _warning(line: Figures) -> str:
    share = f"{100 * line.generator_load:.0f} % of a processor"
    return f"At {line.load} the load generator took {share}: this is its limit, and not only the server's."


def as_json(plan: Plan, figures: Sequence[Figures]) -> str:
    """The figures for a program, with the plan that they answer."""
    described = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(plan).items()}
    return json.dumps({"plan": described, "figures": [asdict(line) for line in figures]}, indent=1) + "\n"


def request_bodies(plan: Plan) -> list[bytes]:
    """The JSON bodies to send in turn: from the plan's file, else the model's examples.

    Raises:
        LoadError: there are none, or the server does not tell them.
    """
    common = {"k": plan.k} if plan.model is None else {"k": plan.k, "model": plan.model}
    if plan.queries is not None:
        lines = plan.queries.read_text(encoding="utf-8").splitlines()
        bodies = [_body(line, common) for line in lines if line.strip()]
        if not bodies:
            raise LoadError(f"{plan.queries}: expected one text or JSON body a line, found no line")
        return bodies
    models = _get(plan, "/v1/models")["models"]
    if not models:
        raise LoadError(f"{plan.url} has loaded no model yet")
    name = plan.model or models[0]["name"]
    detail = _get(plan, f"/v1/models/{urllib.parse.quote(name)}")
    field = "queries" if detail["input"] == "text" else "features"
    return [json.dumps({field: [example], **common, "model": name}).encode() for example in detail["examples"]]


def _body(line: str, common: dict[str, Any]) -> bytes:
    """A line as it is if it is a JSON object, else as the text of a query."""
    if line.lstrip().startswith("{"):
        return line.encode()
    return json.dumps({"queries": [line], **common}).encode()


def _get(plan: Plan, path: str) -> Any:
    url = plan.url + path
    try:
        # A proxy from the environment must not see requests to this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, headers=plan.key_headers), timeout=ANSWER_SECONDS) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise LoadError(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from None
    except OSError as error:
        raise LoadError(f"no answer from {url}: {error}") from None


def _address(url: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise LoadError(f"expected a URL like http://127.0.0.1:8000, found {url!r}")
    return parts.hostname, parts.port or 80


def _request(host: str, port: int, headers: Mapping[str, str], body: bytes) -> bytes:
    fields = {"Host": f"{host}:{port}", "Content-Type": "application/json", "Content-Length": len(body), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /predict HTTP/1.1\r\n{lines}\r\n".encode() + body


async def _closed_loop(plan: Plan, host: str, port: int, requests: Sequence[bytes], connections: int) -> Tally:
    return await Generator(host, port, requests, connections).closed_loop(plan.seconds)


async def _open_loop(plan: Plan, host: str, port: int, requests: Sequence[bytes], rate: float) -> Tally:
    generator = Generator(host, port, requests, OPEN_LOOP_CONNECTIONS)
    return await generator.open_loop(_gaps(plan.arrivals, rate), plan.seconds)


def _gaps(arrivals: str, rate: float) -> Iterator[float]:
    """Seconds between requests, without end."""
    if arrivals == "constant":
        return itertools.repeat(1 / rate)
    source = random.Random(ARRIVAL_SEED)
    return (source.expovariate(rate) for _ in itertools.count())


def figures_of(load: str, offered_per_second: float | None, tally: Tally) -> Figures:
    """The figures of one load, from what came back."""
    answered, refused = sorted(tally.answered_ms), sorted(tally.refused_ms)
    return Figures(
        load=load,
        offered_per_second=offered_per_second,
        answered_per_second=len(answered) / tally.seconds,
        p50_ms=_quantile(answered, 0.5),
        p90_ms=_quantile(answered, 0.9),
        p99_ms=_quantile(answered, 0.99),
        p999_ms=_quantile(answered, 0.999),
        refused_p99_ms=_quantile(refused, 0.99),
        statuses={str(status): count for status, count in sorted(tally.statuses.items())},
        broken=tally.broken,
        mean_ms=tally.mean_ms(),
        generator_load=tally.busy_seconds / tally.seconds,
    )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed, or None without values."""
    if not ordered:
        return None
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
