from __future__ import annotations

import gzip
import http.client
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.errors import SettingsError
from service.metrics import Metrics
from service.settings import Settings
from service.telemetry import export
from service.telemetry.telemetry import Telemetry
from tests.bundles import Spec, write_bundle
from tests.service.serving import BODY, TEXT, in_this_process, running, serving

JSON = {"Content-Type": "application/json"}
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["receive", "queue", "tokenize", "encode", "search", "respond"]


@dataclass
class Collector:
    """A receiver of OTLP over HTTP."""

    url: str
    paths: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, str] = field(default_factory=dict)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest.FromString(
                gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
            )
            found.paths.append(self.path)
            for resource_spans in request.resource_spans:
                for item in resource_spans.resource.attributes:
                    found.resource[item.key] = item.value.string_value
                for scope in resource_spans.scope_spans:
                    found.spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path, Spec(name="mach"))
    return path


def post(port: int, body: bytes, **headers: str) -> http.client.HTTPMessage:
    """Ask for labels by the short way; gives the answer's headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/predict", body, {**JSON, **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.headers


def is_sampled(flags: str) -> bool:
    return bool(int(flags, 16) & 1)


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


def test_a_request_is_a_span_with_its_stages(bundle: Path, collector: Collector) -> None:
    body = json.dumps({"queries": [TEXT, "images"], "k": 2}).encode()
    with in_this_process(bundle, otlp_endpoint=collector.url, trace_ratio=1.0) as (service, port):
        answer = post(port, body, **{"X-Request-Id": "abc"})
        version = service.model.version
    # What waits is sent when the service ends.
    assert set(collector.paths) == {"/v1/traces"}
    assert collector.resource["service.name"] == "xmcserve"
    (server,) = collector.named("POST /predict")
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.parent_span_id == b""
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "url.scheme": "http",
        "xmc.request_id": "abc",
        "xmc.model": "mach",
        "xmc.version": version,
        "xmc.rows": 2,
        "xmc.k": 2,
    }
    children = [span for span in collector.spans if span.parent_span_id == server.span_id]
    assert [span.name for span in children] == STAGES
    assert len(collector.spans) == 1 + len(STAGES)
    moments = [server.start_time_unix_nano]
    for child in children:
        assert child.trace_id == server.trace_id
        assert child.start_time_unix_nano == moments[-1]
        moments.append(child.end_time_unix_nano)
    assert moments == sorted(moments)
    assert moments[-1] == server.end_time_unix_nano
    timing = {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", answer["server-timing"])}
    for child in children[1:-1]:
        milliseconds = (child.end_time_unix_nano - child.start_time_unix_nano) / 1e6
        assert milliseconds == pytest.approx(timing[child.name], abs=0.001)
    *ids, flags = answer["traceresponse"].split("-")
    assert ids == ["00", server.trace_id.hex(), server.span_id.hex()]
    assert is_sampled(flags)


def test_a_client_decides_for_its_trace(bundle: Path, collector: Collector) -> None:
    with in_this_process(bundle, otlp_endpoint=collector.url, trace_ratio=0.0) as (_, port):
        unasked = post(port, BODY)
        untaken = post(port, BODY, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00")
        taken = post(port, BODY, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01", tracestate="shop=7")
        post(port, BODY, traceparent="forged")
    (server,) = collector.named("POST /predict")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert server.trace_state == "shop=7"
    assert taken["traceresponse"].startswith(f"00-{TRACE_ID}-")
    assert not is_sampled(untaken["traceresponse"][-2:])
    assert "traceresponse" not in unasked


def test_refused_and_failed_requests_are_spans_too(
    bundle: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    with in_this_process(bundle, otlp_endpoint=collector.url, trace_ratio=1.0) as (service, port):
        post(port, b"{}")
        monkeypatch.setattr(service.engine, "run", fail)
        post(port, BODY)
    refused, failed = collector.named("POST /predict")
    assert attributes(refused)["http.response.status_code"] == 422
    assert attributes(refused)["xmc.problem"] == "Invalid request"
    assert "error.type" not in attributes(refused)
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert attributes(failed)["error.type"] == "500"
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert failed.status.message == "Internal error"
    assert not failed.events
    assert [span.name for span in collector.spans if span.parent_span_id == refused.span_id] == []
    assert [span.name for span in collector.spans if span.parent_span_id == failed.span_id] == ["receive"]


def test_other_endpoints_are_spans_but_for_probes(bundle: Path, collector: Collector) -> None:
    with serving(bundle, otlp_endpoint=collector.url, trace_ratio=1.0) as service:
        service.client.get("/v1/models/mach")
        service.client.request("PROPFIND", "/nowhere/1")
        service.client.get("/livez")
        service.client.get("/metrics")
    assert sorted(span.name for span in collector.spans) == ["GET /v1/models/{name}", "HTTP"]
    (unknown,) = collector.named("HTTP")
    assert attributes(unknown)["http.request.method"] == "_OTHER"
    assert "http.route" not in attributes(unknown)


def test_the_log_names_the_trace(bundle: Path, collector: Collector) -> None:
    arguments = ("--drain-seconds", "0", "--access-log", "all", "--otlp-endpoint", collector.url)
    with running("--bundle", bundle, *arguments) as server:
        post(server.port, BODY, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
        assert server.wait_for("POST /predict 200")["trace_id"] == TRACE_ID
        assert server.stop() == 0
    assert len(collector.named("POST /predict")) == 1


def test_a_collector_that_is_not_there_harms_nobody_and_is_told_once(
    bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with in_this_process(bundle, otlp_endpoint=url, trace_ratio=1.0) as (_, port):
        while not (told := [record for record in caplog.records if record.name == export.logger.name]):
            assert "server-timing" in post(port, BODY)
        post(port, BODY)
    assert [record.levelno for record in told] == [logging.WARNING]
    assert f"traces are lost until {url} takes them" in told[0].getMessage()
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_without_a_collector_nothing_is_traced(bundle: Path) -> None:
    with in_this_process(bundle) as (_, port):
        assert "traceresponse" not in post(port, BODY)


def test_without_the_extra_the_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "service.telemetry.export")
    with pytest.raises(SettingsError, match=r"XMC_OTLP_ENDPOINT needs the extra otel"):
        Telemetry(Settings(otlp_endpoint="http://127.0.0.1:4318"), Metrics())
