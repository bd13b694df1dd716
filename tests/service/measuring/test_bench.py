from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service import cli
from service.access.keys import line_of
from service.errors import LoadError
from service.measuring import chart
from service.measuring.bench import Plan, as_json, bench, figures_of, request_bodies, table
from service.measuring.load import Generator, Tally
from tests.bundles import Spec, write_bundle
from tests.service.serving import Process, running

SECONDS = 0.2

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Process:  # type: ignore[misc]
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "text", Spec(name="text"))
    write_bundle(folder / "vectors", Spec(name="vectors", input="features"))
    with running("--bundle", folder / "text", "--bundle", folder / "vectors", "--drain-seconds", "0") as process:
        yield process
        assert process.stop() == 0


def test_a_closed_loop_is_measured_at_each_concurrency(process: Process) -> None:
    figures = bench(Plan(process.url, concurrency=(1, 4), seconds=SECONDS))
    assert [line.load for line in figures] == ["1 connection", "4 connections"]
    for line in figures:
        assert set(line.statuses) == {"200"}
        assert line.broken == 0
        assert line.answered_per_second > 0
        assert 0 < line.p50_ms <= line.p90_ms <= line.p99_ms <= line.p999_ms  # type: ignore[operator]
        assert line.refused_p99_ms is None
        assert set(line.mean_ms) == {"queue", "tokenize", "encode", "search"}
        assert 0 < line.generator_load < 1


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_an_open_loop_sends_at_its_rate(process: Process, arrivals: str) -> None:
    (line,) = bench(Plan(process.url, rates=(200.0,), arrivals=arrivals, seconds=SECONDS))  # type: ignore[arg-type]
    sent = sum(line.statuses.values()) + line.broken
    assert line.load == f"200/s {arrivals}"
    assert sent in (40, 41) if arrivals == "constant" else 15 < sent < 80


def test_a_model_is_chosen_and_features_are_asked_too(process: Process) -> None:
    plan = Plan(process.url, concurrency=(1,), seconds=SECONDS, model="vectors", k=2)
    bodies = [json.loads(body) for body in request_bodies(plan)]
    assert all(body["features"] and body["k"] == 2 and body["model"] == "vectors" for body in bodies)
    assert set(bench(plan)[0].statuses) == {"200"}


def test_a_server_that_asks_for_keys_is_sent_one(tmp_path: Path) -> None:
    write_bundle(tmp_path / "text", Spec(name="text"))
    (tmp_path / "keys").write_text(line_of("bench", "a secret", []))
    (tmp_path / "key").write_text("a secret\n")
    with running("--bundle", tmp_path / "text", "--api-keys-file", tmp_path / "keys") as process:
        with pytest.raises(LoadError, match="answered 401"):
            bench(Plan(process.url))
        plan = Plan(process.url, concurrency=(1,), seconds=SECONDS, key_file=tmp_path / "key")
        figures = bench(plan)
    assert set(figures[0].statuses) == {"200"}
    assert "a secret" not in as_json(plan, figures)


def test_requests_come_from_a_file_of_texts_and_bodies(process: Process, tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    file.write_text('a fast web server\n\n{"queries": ["mail"], "model": "text"}\n')
    plan = Plan(process.url, concurrency=(1,), seconds=SECONDS, queries=file, model="text")
    assert [json.loads(body) for body in request_bodies(plan)] == [
        {"queries": ["a fast web server"], "k": 5, "model": "text"},
        {"queries": ["mail"], "model": "text"},
    ]
    assert set(bench(plan)[0].statuses) == {"200"}


def test_refusals_are_counted_apart(process: Process, tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text("{broken\n")
    (line,) = bench(Plan(process.url, concurrency=(2,), seconds=SECONDS, queries=file))
    assert set(line.statuses) == {"400"}
    assert (line.answered_per_second, line.p50_ms) == (0, None)
    assert line.refused_p99_ms is not None


def test_the_command_prints_a_table_and_writes_json(
    process: Process, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    arguments = ["bench", process.url, "--concurrency", "2", "--seconds", str(SECONDS), "--json", str(file)]
    assert cli.main(arguments) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["load", "answers/s", "p50"]
    assert "2 connections" in line
    written = json.loads(file.read_text())
    assert written["plan"]["concurrency"] == [2]
    assert written["figures"][0]["statuses"].keys() == {"200"}


@pytest.mark.parametrize("load", [("--concurrency", "1,2"), ("--rate", "100")])
def test_the_command_draws_latency_against_load(process: Process, tmp_path: Path, load: tuple[str, str]) -> None:
    file = tmp_path / "latency.png"
    assert cli.main(["bench", process.url, *load, "--seconds", str(SECONDS), "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chart, "find_spec", lambda _: None)
    assert cli.main(["bench", "http://127.0.0.1:1", "--plot", "x.png"]) == 2
    assert "--plot draws with matplotlib, which is not installed" in capsys.readouterr().err


def test_a_generator_that_is_the_limit_says_so() -> None:
    tally = Tally(seconds=1.0, busy_seconds=0.97)
    line = figures_of("64 connections", None, tally)
    assert table([line]).splitlines()[-1].startswith("At 64 connections the load generator took 97 % of a processor")
    tally.busy_seconds = 0.5
    assert len(table([figures_of("64 connections", None, tally)]).splitlines()) == 2


def test_a_server_that_is_not_there_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "http://127.0.0.1:1"]) == 1
    assert "no answer from http://127.0.0.1:1/v1/models" in capsys.readouterr().err
    assert cli.main(["bench", "https://127.0.0.1"]) == 1
    assert "expected a URL like http://127.0.0.1:8000" in capsys.readouterr().err


def test_a_file_without_queries_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(LoadError, match="expected one text or JSON body a line, found no line"):
        request_bodies(Plan("http://x", queries=tmp_path / "empty"))


def test_figures_that_are_not_there_are_dashes() -> None:
    plan = Plan("http://x", queries=Path("file"))
    assert json.loads(as_json(plan, []))["plan"]["queries"] == "file"
    assert table([]).split()[0] == "load"


def load_against(answer: Answer, connections: int = 1) -> Tally:
    """A short closed loop against a server that answers as the test says."""

    async def scenario() -> Tally:
        answering: list[asyncio.Task[None]] = []

        async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answering.append(asyncio.current_task())  # type: ignore[arg-type]
            with contextlib.suppress(ConnectionError):
                await answer(reader, writer)
                writer.close()
                await writer.wait_closed()

        server = await asyncio.start_server(answer_and_close, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            tally = await Generator("127.0.0.1", port, [b"request\n"], connections).closed_loop(SECONDS)
        await asyncio.gather(*answering)
        return tally

    return asyncio.run(scenario())


def test_a_connection_that_the_server_closes_after_an_answer_is_renewed() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    tally = load_against(once)
    assert tally.statuses[200] > 1
    assert tally.broken == 0


def test_an_answer_in_pieces_is_one_answer() -> None:
    async def piecemeal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            for piece in (
                b"HTTP/1.1 2",
                b"00 OK\r\nserver-timing: queue;dur=1.5\r\ncontent-le",
                b"ngth: 3\r\n\r\nab",
                b"c",
            ):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    tally = load_against(piecemeal)
    assert tally.statuses[200] == len(tally.answered_ms) > 0
    assert tally.mean_ms() == {"queue": 1.5}


def test_a_connection_that_ends_without_an_answer_is_broken_and_not_renewed() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()

    tally = load_against(hang_up, connections=3)
    assert (tally.broken, sum(tally.statuses.values())) == (3, 0)
