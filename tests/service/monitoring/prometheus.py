"""A real Prometheus that scrapes ports of this machine, and what it answers."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from service.monitoring.rules import JOB

# Who scrapes more often gives a busy service less time to answer, and takes what it had said for gone.
EVERY = "1s"
ATTEMPTS = 6


class NoAnswer(AssertionError):
    """A query has no answer, though it has been asked for long enough."""


class Prometheus:
    """A Prometheus that runs.

    Attributes:
        url: where it listens.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, endpoint: str, **parameters: str) -> Any:
        """The data of an answer, as soon as there is one; a query that it does not understand is an error."""
        url = f"{self.url}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        while self._process.poll() is None:
            try:
                with self._opener.open(url) as response:
                    return json.load(response)["data"]
            except urllib.error.HTTPError as error:
                if error.code != 503:  # it has not read its data yet
                    raise AssertionError(f"{parameters}: {error.read().decode()}") from error
            except OSError:  # it does not listen yet
                continue
        raise AssertionError("prometheus has ended")

    def query(self, expr: str) -> list[Any]:
        """Series and values of now."""
        found: list[Any] = self.get("query", query=expr)["result"]
        return found

    def value(self, expr: str) -> float:
        """What a query gives, as soon as it gives anything."""
        while not (found := self.query(expr)):
            continue
        return float(found[0]["value"][1])

    def seen(self, expr: str, is_enough: Callable[[list[Any]], bool] = bool) -> list[Any]:
        """What a query gives, at the latest some evaluations from now: a scrape may fail on a busy machine.

        Args:
            expr: the query.
            is_enough: whether this is what is waited for.

        Raises:
            NoAnswer: it is not.
        """
        for _ in range(ATTEMPTS):
            if is_enough(found := self.query(expr)):
                return found
            self.await_evaluations(1)
        raise NoAnswer(f"expected an answer to {expr}, found {found}")

    def await_true(self, expr: str) -> None:
        """Wait until a comparison holds, at least for one series."""
        while not self.query(expr):
            continue

    def rules(self) -> list[dict[str, Any]]:
        """The rules with what became of their last evaluation."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> dict[str, str]:
        """States of the alerts that are pending or firing; where there are several of a name, of one."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in self.get("alerts")["alerts"]}

    def await_evaluations(self, count: int = 2) -> None:
        """Wait until each rule has been evaluated so often after all that is known now was scraped."""
        iterations = "sum(prometheus_rule_group_iterations_total)"
        until = self.value(iterations) + count
        self.await_true(f"{iterations} >= {until}")


@contextmanager
def prometheus(target: int, folder: Path, *, rules: Sequence[Path] = (), history: str = "") -> Iterator[Prometheus]:
    """Scrape a port of this machine, and itself.

    Args:
        target: the port.
        folder: for the configuration and the data.
        rules: files of rules.
        history: what was measured before, in the OpenMetrics format.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    config, data = folder / "prometheus.yaml", folder / "data"
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY},
                "rule_files": [str(path) for path in rules],
                "scrape_configs": [_scraping(JOB, target), _scraping("prometheus", own)],
            }
        )
    )
    if history:
        (folder / "history").write_text(history)
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "history"), str(data)]
        subprocess.run(command, check=True, capture_output=True)
    flags = [f"--config.file={config}", f"--storage.tsdb.path={data}", "--log.level=error"]
    with subprocess.Popen(["prometheus", *flags, f"--web.listen-address=127.0.0.1:{own}"]) as process:
        try:
            yield Prometheus(process, own)
        finally:
            process.terminate()


def _scraping(job: str, port: int) -> dict[str, Any]:
    return {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
