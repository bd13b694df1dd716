from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import httpx
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.access.keys import line_of
from service.http.lifecycle import Phase
from tests.service.inference.tritons import (
    TEXTS,
    VECTORS,
    feature_inputs,
    labels_of,
    predicted,
    serve_models,
    text_input,
    write_models,
)
from tests.service.serving import Process, Service, ask, blocked, in_this_process, running, wait_for_metric

ENDPOINT = 'endpoint="/inference.GRPCInferenceService/ModelInfer",model="mach"'
RETRYING = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.01s",
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }
)


class Live(NamedTuple):
    """A server in this process, so that a test can hold up its engine."""

    service: Service
    port: int
    address: str
    stub: service_pb2_grpc.GRPCInferenceServiceStub


@pytest.fixture
def live(folder: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Live]:
    caplog.set_level("INFO")
    with in_this_process(folder / "mach", grpc_port=0, queue_rows=4, max_queries=4) as (service, port):
        (line,) = [record.getMessage() for record in caplog.records if record.name == "service.rpc.server"]
        place = line.removeprefix("gRPC on ")
        with grpc.insecure_channel(place) as channel:
            yield Live(service, port, place, service_pb2_grpc.GRPCInferenceServiceStub(channel))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[Process]:
    with running(*serve_models(folder), "--drain-seconds", "0", "--grpc-port", "0") as process:
        yield process


def address(process: Process) -> str:
    """Where it answers gRPC, by its log."""
    (line,) = [line["message"] for line in process.log if line["message"].startswith("gRPC on ")]
    return str(line.removeprefix("gRPC on "))


@pytest.fixture(scope="module")
def client(process: Process) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(process)) as client:
        yield client


def predict(process: Process, **body: Any) -> Any:
    return httpx.post(f"{process.url}/predict", json=body).json()["predictions"]


@pytest.mark.parametrize("column", [True, False])
def test_the_triton_client_gets_the_labels_of_predict(
    process: Process, client: triton.InferenceServerClient, column: bool
) -> None:
    result = client.infer("mach", text_input(triton, TEXTS, column), parameters={"k": 7}, request_id="mine")
    assert labels_of(result) == predicted(predict(process, queries=TEXTS, k=7, model="mach"))
    assert result.get_response().id == "mine"
    assert list(result.get_output("label").shape) == [3, 7]


def test_the_triton_client_sends_sparse_vectors(process: Process, client: triton.InferenceServerClient) -> None:
    result = client.infer("vectors", feature_inputs(triton, VECTORS))
    features = [{"indices": list(one.indices), "values": list(one.values)} for one in VECTORS]
    assert labels_of(result) == predicted(predict(process, features=features, model="vectors"))


def test_label_texts_come_when_they_are_asked_for(process: Process, client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("text", "score")]
    result = client.infer("mach", text_input(triton, TEXTS), outputs=outputs)
    expected = [
        [label["text"].encode() for label in one["labels"]] for one in predict(process, queries=TEXTS, model="mach")
    ]
    assert result.as_numpy("text").tolist() == expected
    assert [output.name for output in result.get_response().outputs] == ["text", "score"]


def test_a_version_is_the_one_that_is_asked_for(process: Process, client: triton.InferenceServerClient) -> None:
    versions = list(client.get_model_metadata("mach").versions)
    assert len(set(versions)) == 2
    for version in versions:
        result = client.infer("mach", text_input(triton, TEXTS), model_version=version)
        assert result.get_response().model_version == version
        assert labels_of(result) == predicted(predict(process, queries=TEXTS, model=f"mach:{version}"))
        assert client.is_model_ready("mach", version)


def test_the_server_and_its_models_say_what_they_are(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mach")
    assert client.get_server_metadata().name == "xmcserve"
    metadata = client.get_model_metadata("vectors", as_json=True)
    assert metadata["platform"] == "xmcserve_mach"
    assert metadata["inputs"] == [
        {"name": "indptr", "datatype": "INT64", "shape": ["-1"]},
        {"name": "indices", "datatype": "INT64", "shape": ["-1"]},
        {"name": "values", "datatype": "FP32", "shape": ["-1"]},
    ]
    assert [output["name"] for output in metadata["outputs"]] == ["label", "score"]


def message(*texts: bytes, **changes: Any) -> service_pb2.ModelInferRequest:
    """A request whose values come in its inputs."""
    one = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "contents": {"bytes_contents": texts}}
    return service_pb2.ModelInferRequest(**({"model_name": "mach", "inputs": [one]} | changes))


@pytest.fixture(scope="module")
def stub(process: Process) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(address(process)) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def test_values_come_as_those_of_the_request_did(
    process: Process, stub: service_pb2_grpc.GRPCInferenceServiceStub
) -> None:
    answer = stub.ModelInfer(message(*(text.encode() for text in TEXTS)))
    assert not answer.raw_output_contents
    label, score = answer.outputs
    found = zip([id_.decode() for id_ in label.contents.bytes_contents], score.contents.fp32_contents, strict=True)
    expected = predicted(predict(process, queries=TEXTS, model="mach"))
    assert list(found) == [pair for row in expected for pair in row]


def test_numbers_may_come_in_the_inputs_too(process: Process, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    contents = {
        "indptr": ("INT64", {"int64_contents": [0, 2]}, 2),
        "indices": ("INT64", {"int64_contents": [7, 0]}, 2),
        "values": ("FP32", {"fp32_contents": [0.5, 1]}, 2),
    }
    inputs = [
        {"name": name, "datatype": datatype, "shape": [size], "contents": values}
        for name, (datatype, values, size) in contents.items()
    ]
    answer = stub.ModelInfer(message(model_name="vectors", inputs=inputs))
    (row,) = predicted(predict(process, features=[{"indices": [7, 0], "values": [0.5, 1]}], model="vectors"))
    assert list(answer.outputs[1].contents.fp32_contents) == [score for _, score in row]


INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (message(b"a", model_name="x"), grpc.StatusCode.NOT_FOUND, "no model 'x' is loaded"),
        (message(b" "), INVALID, "queries[0]: expected a text, found an empty one"),
        (message(b"\xff"), INVALID, "text: expected texts in UTF-8"),
        (message(b"a", inputs=[]), INVALID, "inputs: expected text for model mach, found none"),
        (message(b"a", outputs=[{"name": "x"}]), INVALID, "outputs: expected some of label, score, text, found 'x'"),
        (message(b"a", parameters={"x": {"int64_param": 1}}), INVALID, "x: this field is unknown; known are k, min_"),
        (message(b"a", parameters={"k": {"string_param": "1"}}), INVALID, "k: input should be a valid integer"),
        (
            message(b"a", outputs=[{"name": "label", "parameters": {"classification": {"int64_param": 1}}}]),
            INVALID,
            "label: expected no parameters, found classification",
        ),
        (
            message(b"a", raw_input_contents=[b""]),
            INVALID,
            "expected all of 1 inputs and no contents beside them",
        ),
        (
            message(b"a", inputs=[{"name": "text", "datatype": "FP64", "shape": [1]}]),
            INVALID,
            "text: expected a datatype among BYTES, INT64, FP32, found 'FP64'",
        ),
        (message(b"a" * 2_000_000), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    ],
)
def test_errors_have_a_code_and_a_sentence(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, request_: Any, code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request_)
    assert caught.value.code() is code
    assert words in caught.value.details()


def test_a_message_that_is_none_is_refused(process: Process) -> None:
    with grpc.insecure_channel(address(process)) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match="the message is no ModelInferRequest") as caught:
            call(b"\xff")
        with pytest.raises(grpc.RpcError) as unknown:
            channel.unary_unary("/inference.GRPCInferenceService/ModelConfig")(b"")
    assert caught.value.code() is INVALID
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: message(data).SerializeToString()))
def test_no_message_makes_the_service_fail(process: Process, data: bytes) -> None:
    with grpc.insecure_channel(address(process)) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        code = call.future(data).code()
    assert code in (grpc.StatusCode.OK, INVALID, grpc.StatusCode.NOT_FOUND)


def test_a_request_id_is_echoed(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    _, call = stub.ModelInfer.with_call(message(b"a"), metadata=[("x-request-id", "mine")])
    assert ("x-request-id", "mine") in call.trailing_metadata()
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message(b" "), metadata=[("x-request-id", "mine")])
    assert ("x-request-id", "mine") in caught.value.trailing_metadata()


def test_a_deadline_is_the_clients_or_the_requests(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = f'{{model="mach",version="{live.service.model.version}"}}'
    with blocked(live.service.engine, monkeypatch) as wants_to_run:
        first = live.stub.ModelInfer.future(message(b"a"))
        wants_to_run.wait()
        for microseconds in ({"timeout_ms": {"int64_param": 10}}, {"timeout": {"int64_param": 10_000}}):
            with pytest.raises(grpc.RpcError, match="timeout_ms passed before the answer was there") as caught:
                live.stub.ModelInfer(message(b"a", parameters=microseconds))
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.RpcError) as caught:
            live.stub.ModelInfer(message(b"a"), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for_metric(live.port, f'xmc_requests_total{{code="504",{ENDPOINT}}} 3.0')
    assert first.result().outputs
    assert live.stub.ModelInfer(message(b"a"), timeout=60).outputs
    wait_for_metric(live.port, f"xmc_batch_rows_sum{labels} 2.0")


def test_a_client_that_leaves_takes_its_queries_out_of_the_queue(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = f'{{model="mach",version="{live.service.model.version}"}}'
    with blocked(live.service.engine, monkeypatch) as wants_to_run:
        first = live.stub.ModelInfer.future(message(b"a"))
        wants_to_run.wait()
        leaves = live.stub.ModelInfer.future(message(b"a"))
        wait_for_metric(live.port, f"xmc_queue_rows{labels} 1.0")
        leaves.cancel()
        wait_for_metric(live.port, f'xmc_requests_total{{code="499",{ENDPOINT}}} 1.0')
    assert first.result().outputs
    wait_for_metric(live.port, f"xmc_cancelled_total{labels} 1.0")
    wait_for_metric(live.port, f"xmc_batch_rows_sum{labels} 1.0")


def test_a_full_queue_refuses_and_says_when_to_come_back(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with grpc.insecure_channel(live.address, [("grpc.service_config", RETRYING)]) as channel:
        with blocked(live.service.engine, monkeypatch) as wants_to_run:
            answered = [live.stub.ModelInfer.future(message(b"a"))]
            wants_to_run.wait()
            answered.append(live.stub.ModelInfer.future(message(*[b"a"] * 4)))
            while live.service.model.has_room():
                ask(live.port, "/livez")
            with pytest.raises(grpc.RpcError, match="4 of the queue's 4 places are taken") as caught:
                live.stub.ModelInfer(message(b"a"))
            # gRPC itself comes back when it is told, where a channel is set up for that.
            answered.append(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(message(b"a")))
            wait_for_metric(live.port, 'xmc_rejected_total{reason="queue_full"} 2.0')
            refused = time.monotonic()
        assert all(one.result().outputs for one in answered)
        assert time.monotonic() - refused >= 0.9  # the second, less what it took to see the refusal
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("retry-after", "1") in caught.value.trailing_metadata()


def test_an_unexpected_error_is_no_secret_told(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("service.rpc.methods.question", fail)
    with pytest.raises(grpc.RpcError, match="an unexpected error, which is our bug") as caught:
        live.stub.ModelInfer(message(b"a"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()


def test_the_phases_of_a_life(live: Live) -> None:
    def states() -> list[bool | grpc.StatusCode]:
        try:
            live.stub.ModelInfer(message(b"a"))
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
        ready = live.stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        return [ready, live.stub.ModelReady(service_pb2.ModelReadyRequest(name="mach")).ready, code]

    assert states() == [True, True, grpc.StatusCode.OK]
    live.service.lifecycle.phase = Phase.LOADING
    assert states() == [False, False, grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(grpc.RpcError, match="models are still loading"):
        live.stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="mach"))
    assert live.stub.ServerLive(service_pb2.ServerLiveRequest()).live
    live.service.lifecycle.phase = Phase.SERVING


def test_a_shutdown_answers_what_it_has_taken(folder: Path) -> None:
    """Calls without a pause, until they are refused: none is lost."""
    with running("--bundle", folder / "mach", "--drain-seconds", "0.3", "--grpc-port", "0") as process:
        codes: list[grpc.StatusCode] = []
        has_asked = threading.Event()

        def call() -> None:
            with grpc.insecure_channel(address(process)) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                while grpc.StatusCode.UNAVAILABLE not in codes:
                    try:
                        stub.ModelInfer(message(b"a"))
                        codes.append(grpc.StatusCode.OK)
                    except grpc.RpcError as error:
                        codes.append(error.code())
                    has_asked.set()

        with ThreadPoolExecutor(1) as pool:
            calling = pool.submit(call)
            has_asked.wait()
            assert process.stop() == 0
            calling.result()
    assert set(codes[:-1]) == {grpc.StatusCode.OK}


def test_a_taken_port_ends_the_process_with_a_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running("--bundle", folder / "mach", "--grpc-port", str(port), until="cannot listen for gRPC") as process:
            assert process.wait() == 1
    (fault,) = [line["message"] for line in process.log if line["level"] == "critical"]
    assert fault.startswith(f"cannot listen for gRPC on 127.0.0.1:{port}: ")


def test_calls_need_the_keys_that_http_needs(folder: Path, tmp_path: Path) -> None:
    """Health is for everybody."""
    keys = tmp_path / "keys"
    keys.write_text(f"{line_of('full', 'xmc_full', ())}\n{line_of('reader', 'xmc_reader', ('read-only',))}\n")
    arguments = ("--bundle", folder / "mach", "--grpc-port", "0", "--api-keys-file", keys)
    with running(*arguments) as process, grpc.insecure_channel(address(process)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def codes(*metadata: tuple[str, str]) -> list[grpc.StatusCode]:
            found = []
            for call, asked in (
                (stub.ServerLive, service_pb2.ServerLiveRequest()),
                (stub.ServerReady, service_pb2.ServerReadyRequest()),
                (stub.ModelReady, service_pb2.ModelReadyRequest(name="mach")),
                (stub.ServerMetadata, service_pb2.ServerMetadataRequest()),
                (stub.ModelMetadata, service_pb2.ModelMetadataRequest(name="mach")),
                (stub.ModelInfer, message(b"a")),
            ):
                try:
                    call(asked, metadata=metadata)
                    found.append(grpc.StatusCode.OK)
                except grpc.RpcError as error:
                    found.append(error.code())
            return found

        ok, unknown = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
        assert codes() == [ok, ok, ok, unknown, unknown, unknown]
        assert codes(("x-api-key", "xmc_guess")) == [ok, ok, ok, unknown, unknown, unknown]
        assert codes(("x-api-key", "xmc_reader")) == [ok, ok, ok, ok, ok, grpc.StatusCode.PERMISSION_DENIED]
        assert codes(("authorization", "Bearer xmc_full")) == [ok] * 6


def test_a_call_has_a_line_in_the_log_and_a_row_in_the_prediction_log(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings: dict[str, Any] = {"grpc_port": 0, "access_log": "all", "prediction_log": tmp_path}
    with in_this_process(folder / "mach", **settings):
        (place,) = [entry.getMessage() for entry in caplog.records if entry.name == "service.rpc.server"]
        client = triton.InferenceServerClient(place.removeprefix("gRPC on "))
        client.infer("mach", text_input(triton, TEXTS[:1]), headers={"x-request-id": "abc"})
        client.close()
    (line,) = [entry for entry in caplog.records if getattr(entry, "request_id", None) == "abc"]
    assert line.getMessage() == "POST /inference.GRPCInferenceService/ModelInfer 200"
    (file,) = tmp_path.iterdir()
    assert parquet.read_table(file, columns=["request_id", "text"]).to_pylist() == [
        {"request_id": "abc", "text": TEXTS[0]}
    ]
