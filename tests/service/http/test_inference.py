from __future__ import annotations

import asyncio
import json
import socket
import struct
import urllib.parse
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from service.http.lifecycle import Phase
from tests.bundles import DIMENSION
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
from tests.service.serving import Process, Service, blocked, in_this_process, running, serving, wait_for_metric

LABELS = 40
LEAST = float(np.finfo(np.float32).min)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[Process]:
    with running(*serve_models(folder), "--drain-seconds", "0") as process:
        yield process


@pytest.fixture
def client(process: Process) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{process.port}") as client:
        yield client


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with serving(folder / "mach", max_queries=4, max_body_bytes=2000) as service:
        yield service


def predict(process: Process, **body: Any) -> Any:
    """The predictions of `POST /predict`."""
    client = triton.InferenceServerClient(f"127.0.0.1:{process.port}")
    with client:
        response = client._post("predict", json.dumps(body), {"Content-Type": "application/json"}, None)
        return json.loads(response.read())["predictions"]


def infer(service: Service, document: object, path: str = "/v2/models/mach/infer", **headers: str) -> Any:
    return service.client.post(path, content=json.dumps(document), headers=headers)


def texts(*values: str) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": [len(values)], "data": list(values)}


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
@pytest.mark.parametrize("column", [True, False])
def test_triton_clients_get_the_labels_of_predict(
    process: Process, client: triton.InferenceServerClient, binary: bool, column: bool
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "score")]
    inputs = text_input(triton, TEXTS, column, binary_data=binary)
    result = client.infer("mach", inputs, outputs=outputs, parameters={"k": 7}, request_id="mine")
    expected = predict(process, queries=TEXTS, k=7, model="mach")
    assert labels_of(result) == predicted(expected)
    assert result.get_response()["id"] == "mine"
    assert result.get_output("label")["shape"] == [3, 7]
    assert ("data" in result.get_output("label")) is not binary


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
def test_triton_clients_send_sparse_vectors(
    process: Process, client: triton.InferenceServerClient, binary: bool
) -> None:
    result = client.infer("vectors", feature_inputs(triton, VECTORS, binary_data=binary))
    features = [{"indices": list(one.indices), "values": list(one.values)} for one in VECTORS]
    assert labels_of(result) == predicted(predict(process, features=features, model="vectors"))


def test_the_asynchronous_triton_client_gets_the_same(process: Process) -> None:
    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{process.port}") as client:
            return await client.infer("mach", text_input(triton_aio, TEXTS))

    assert labels_of(asyncio.run(ask())) == predicted(predict(process, queries=TEXTS, model="mach"))


def test_all_outputs_come_raw_where_a_client_names_none(client: triton.InferenceServerClient) -> None:
    response = client.infer("mach", text_input(triton, TEXTS)).get_response()
    assert [output["name"] for output in response["outputs"]] == ["label", "score"]
    assert all("binary_data_size" in output["parameters"] for output in response["outputs"])


def test_label_texts_come_when_they_are_asked_for(process: Process, client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("text")]
    result = client.infer("mach", text_input(triton, TEXTS), outputs=outputs)
    expected = [
        [label["text"].encode() for label in one["labels"]] for one in predict(process, queries=TEXTS, model="mach")
    ]
    assert result.as_numpy("text").tolist() == expected
    assert result.as_numpy("label") is None
    with pytest.raises(InferenceServerException, match="expected some of label, score, found 'text'"):
        client.infer("vectors", feature_inputs(triton, VECTORS), outputs=outputs)


def test_a_version_is_the_one_that_is_asked_for(process: Process, client: triton.InferenceServerClient) -> None:
    versions = client.get_model_metadata("mach")["versions"]
    assert len(set(versions)) == 2
    for version in versions:
        result = client.infer("mach", text_input(triton, TEXTS), model_version=version)
        assert result.get_response()["model_version"] == version
        assert labels_of(result) == predicted(predict(process, queries=TEXTS, model=f"mach:{version}"))
        assert client.is_model_ready("mach", version)
    assert client.infer("mach", text_input(triton, TEXTS)).get_response()["model_version"] == versions[-1]
    assert not client.is_model_ready("mach", "none")


def test_the_server_and_its_models_say_what_they_are(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    mach, vectors = client.get_model_metadata("mach"), client.get_model_metadata("vectors")
    assert mach["platform"] == "xmcserve_mach"
    assert mach["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in mach["outputs"]] == ["label", "score", "text"]
    assert [one["name"] for one in vectors["inputs"]] == ["indptr", "indices", "values"]
    assert [output["name"] for output in vectors["outputs"]] == ["label", "score"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed(process: Process, client: triton.InferenceServerClient, algorithm: str) -> None:
    result = client.infer(
        "mach",
        text_input(triton, TEXTS),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert labels_of(result) == predicted(predict(process, queries=TEXTS, model="mach"))


def test_errors_reach_triton_clients_with_their_sentences(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no model 'x' is loaded") as caught:
        client.infer("x", text_input(triton, TEXTS))
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="k: expected at most 100, found 101"):
        client.infer("mach", text_input(triton, TEXTS), parameters={"k": 101})
    with pytest.raises(InferenceServerException, match="inputs: expected indptr, indices, values for model vectors"):
        client.infer("vectors", text_input(triton, TEXTS))


def test_rows_without_enough_labels_are_padded(service: Service) -> None:
    everything = service.predict({"queries": TEXTS[:2], "k": LABELS}).json()["predictions"]
    bound = everything[0]["labels"][3]["score"]
    document = {"inputs": [texts(*TEXTS[:2])], "parameters": {"k": 100, "min_score": bound}}
    label, score = infer(service, document).json()["outputs"]
    assert label["shape"] == score["shape"] == [2, LABELS]
    for row, one in enumerate(everything):
        kept = [(label["id"], label["score"]) for label in one["labels"] if label["score"] >= bound]
        begin, end = row * LABELS, (row + 1) * LABELS
        found = list(zip(label["data"][begin:end], score["data"][begin:end], strict=True))
        assert found == kept + [("", LEAST)] * (LABELS - len(kept))


def test_scores_in_json_have_the_digits_of_predict(service: Service) -> None:
    expected = service.predict({"queries": TEXTS, "k": 9}).json()["predictions"]
    outputs = infer(service, {"inputs": [texts(*TEXTS)], "parameters": {"k": 9}}).json()["outputs"]
    assert outputs[1]["data"] == [label["score"] for one in expected for label in one["labels"]]


def test_inputs_may_come_in_rows(service: Service) -> None:
    column = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": [[TEXTS[0]], [TEXTS[1]]]}
    flat = infer(service, {"inputs": [texts(*TEXTS[:2])]})
    assert infer(service, {"inputs": [column]}).json() == flat.json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": []}, "inputs: expected text for model mach, found none"),
        ({"inputs": [texts("a") | {"shape": [2]}]}, r"text: expected 2 values of shape \[2\], found 1"),
        ({"inputs": [texts("a") | {"shape": [1, 1, 1]}]}, r"text: expected a shape \[-1\] or \[-1, 1\]"),
        ({"inputs": [texts("a") | {"datatype": "INT32"}]}, "text: expected a datatype among BYTES, INT64, FP32"),
        ({"inputs": [texts("a") | {"datatype": "INT64", "data": [1]}]}, "text: expected BYTES, found INT64"),
        ({"inputs": [texts("a") | {"data": [1]}]}, "text: expected values of BYTES, found one of type int"),
        ({"inputs": [texts("a") | {"data": None}]}, "text: expected either data or binary_data_size, found neither"),
        ({"inputs": [texts("a") | {"parameters": {"binary_data_size": 5}}]}, "found both"),
        ({"inputs": [texts("a") | {"parameters": {"x": 5}}]}, r"inputs\[0\].parameters.x: .* known are binary_data"),
        ({"inputs": [texts("a") | {"x": 5}]}, r"inputs\[0\].x: .* known are name, shape, datatype, parameters, data"),
        ({"x": 1}, "x: this field is unknown; known are id, parameters, inputs, outputs"),
        ({"parameters": {"sequence_id": 1}}, "parameters.sequence_id: this field is unknown; known are k, min_score"),
        ({"parameters": {"timeout": 5, "timeout_ms": 5}}, "expected either timeout or timeout_ms, found both"),
        ({"inputs": [texts(*"abcde")]}, "queries: expected 1 to 4 entries, found 5"),
        ({"inputs": [texts("a", " ")]}, r"queries\[1\]: expected a text, found an empty one"),
        ({"outputs": [{"name": "score"}, {"name": "score"}]}, "outputs: expected each once, found score, score"),
        ({"outputs": [{"name": "logits"}]}, "outputs: expected some of label, score, text, found 'logits'"),
    ],
)
def test_bad_requests_are_refused_with_a_sentence(service: Service, change: dict[str, Any], words: str) -> None:
    response = infer(service, {"inputs": [texts("a")]} | change)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/json"
    assert [*response.json()] == ["error"]
    assert response.json()["error"]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(response.json()["error"])


@pytest.mark.parametrize(
    ("indptr", "indices", "values", "words"),
    [
        ([0, 1], [DIMENSION], [1.0], rf"features\[0\].indices: expected numbers below {DIMENSION}"),
        ([0, 2], [1, 1], [1.0, 1.0], "expected distinct indices"),
        ([0, 1, 1], [1], [1.0], r"features\[1\]: expected at least one index"),
        ([0, 2, 1, 3], [1, 2, 3], [1.0] * 3, "indptr: expected numbers that rise from 0 to 3"),
        ([0, 2], [1], [1.0], "indptr: expected numbers that rise from 0 to 1"),
        ([1, 2], [1, 2], [1.0] * 2, "indptr: expected numbers that rise from 0 to 2"),
        ([0, 1], [1], [1.0, 2.0], "values: expected as many as indices, 1, found 2"),
        ([0], [], [], "features: expected 1 to 64 entries, found 0"),
        ([], [], [], "features: expected 1 to 64 entries, found 0"),
        ([0, 1], [-1], [1.0], r"features\[0\].indices\[0\]: .* greater than or equal to 0"),
        ([0, 1], [1], [float("inf")], r"features\[0\].values\[0\]: "),
    ],
)
def test_bad_matrices_are_refused_with_a_sentence(
    client: triton.InferenceServerClient, indptr: list[int], indices: list[int], values: list[float], words: str
) -> None:
    inputs = []
    arrays = (("indptr", "INT64", indptr, np.int64), ("indices", "INT64", indices, np.int64))
    for name, datatype, numbers, dtype in (*arrays, ("values", "FP32", values, np.float32)):
        one = triton.InferInput(name, [len(numbers)], datatype)
        inputs.append(one.set_data_from_numpy(np.array(numbers, dtype)))
    with pytest.raises(InferenceServerException, match=words):
        client.infer("vectors", inputs)


def raw(sizes: object, data: bytes, **headers: str) -> dict[str, Any]:
    """A request whose text comes raw."""
    document = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "parameters": sizes}]}
    head = json.dumps(document).encode()
    return {"content": head + data, "headers": {"Inference-Header-Content-Length": str(len(head))} | headers}


@pytest.mark.parametrize(
    ("sizes", "data", "status", "words"),
    [
        ({"binary_data_size": 5}, b"\x01\0\0\0a", 200, "label"),
        ({"binary_data_size": 6}, b"\x01\0\0\0a", 422, "text: expected 6 bytes after the JSON, found 5"),
        ({"binary_data_size": 5}, b"\x01\0\0\0ab", 422, "the body has 1 bytes more than its inputs"),
        ({"binary_data_size": 5}, b"\x02\0\0\0a", 422, "text: the last text ends 1 bytes too early"),
        ({"binary_data_size": 2}, b"\x02\0", 422, "text: the last text ends 4 bytes too early"),
        ({"binary_data_size": 5}, b"\x01\0\0\0\xff", 422, "text: expected texts in UTF-8, but number 0 is none"),
        ({}, b"", 422, "text: expected either data or binary_data_size, found neither"),
    ],
)
def test_raw_tensors_are_what_they_say(
    service: Service, sizes: dict[str, int], data: bytes, status: int, words: str
) -> None:
    response = service.client.post("/v2/models/mach/infer", **raw(sizes, data))
    assert response.status_code == status
    assert words in response.text


@pytest.mark.parametrize("written", ["x", "-1", "9" * 30, "1999"])
def test_the_length_of_the_json_is_a_number_within_the_body(service: Service, written: str) -> None:
    request = raw({"binary_data_size": 5}, b"\x01\0\0\0a") | {"headers": {"Inference-Header-Content-Length": written}}
    response = service.client.post("/v2/models/mach/infer", **request)
    assert response.status_code == 400
    assert "expected" in response.json()["error"]


def test_compressed_bodies_are_bounded_and_whole(service: Service) -> None:
    def status(body: bytes, encoding: str) -> tuple[int, str]:
        response = service.client.post("/v2/models/mach/infer", content=body, headers={"Content-Encoding": encoding})
        return response.status_code, response.json()["error"]

    assert status(zlib.compress(b" " * 100_000), "deflate")[0] == 413
    assert status(zlib.compress(b"{}")[:-1], "deflate") == (
        400,
        "the body is not one whole deflate stream, as Content-Encoding says",
    )
    assert status(b"{}", "gzip")[1].startswith("the body is not gzip, as Content-Encoding says")
    assert status(b"{}", "br") == (415, "expected Content-Encoding: gzip or deflate, found br")
    assert status(b"{", "identity")[1].startswith("the body is not JSON")


def test_everything_under_v2_has_the_protocols_errors(service: Service) -> None:
    responses = {
        404: service.client.get("/v2/nope"),
        405: service.client.get("/v2/models/mach/infer"),
        413: service.client.post("/v2/models/mach/infer", content=b" " * 2001),
    }
    for status, response in responses.items():
        assert response.status_code == status
        assert [*response.json()] == ["error"]
    assert "title" in service.client.get("/v2x").json()


def test_an_unexpected_error_is_no_secret_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("service.http.inference.question", fail)
    response = infer(service, {"inputs": [texts("a")]})
    assert response.status_code == 500
    assert response.json()["error"].startswith("an unexpected error, which is our bug")


@pytest.mark.parametrize("parameters", [{"timeout_ms": 10}, {"timeout": 10_000}])
def test_a_deadline_that_passes_is_told_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, int]
) -> None:
    with blocked(service.engine, monkeypatch):
        response = infer(service, {"inputs": [texts("a")], "parameters": parameters})
    assert response.status_code == 504
    assert response.json() == {"error": "timeout_ms passed before the answer was there"}
    assert infer(service, {"inputs": [texts("a")], "parameters": {"timeout": 0}}).status_code == 200


def test_a_full_queue_refuses_and_says_when_to_come_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving(folder / "mach", queue_rows=2, max_queries=2) as service,
        ThreadPoolExecutor(2) as pool,
        blocked(service.engine, monkeypatch) as wants_to_run,
    ):
        answered = [pool.submit(infer, service, {"inputs": [texts("a")]})]
        wants_to_run.wait()
        answered.append(pool.submit(infer, service, {"inputs": [texts("a", "b")]}))
        while service.model.has_room():
            service.client.get("/livez")
        response = infer(service, {"inputs": [texts("a")]})
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert "2 of the queue's 2 places are taken" in response.json()["error"]
        metrics = service.client.get("/metrics").text
    assert [one.result().status_code for one in answered] == [200, 200]
    assert 'xmc_rejected_total{reason="queue_full"} 1.0' in metrics.splitlines()


def test_a_client_that_leaves_takes_its_queries_out_of_the_queue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"inputs": [texts("a")]}).encode()
    request = b"POST /v2/models/mach/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with in_this_process(folder / "mach") as (service, port):
        labels = f'{{model="mach",version="{service.model.version}"}}'
        endpoint = 'endpoint="/v2/models/{name}/infer",model="mach"'
        with socket.create_connection(("127.0.0.1", port)) as stays:
            with blocked(service.engine, monkeypatch) as wants_to_run:
                stays.sendall(request)
                wants_to_run.wait()
                with socket.create_connection(("127.0.0.1", port)) as leaves:
                    leaves.sendall(request)
                    wait_for_metric(port, f"xmc_queue_rows{labels} 1.0")
                wait_for_metric(port, f'xmc_requests_total{{code="499",{endpoint}}} 1.0')
            wait_for_metric(port, f"xmc_cancelled_total{labels} 1.0")
            wait_for_metric(port, f'xmc_requests_total{{code="200",{endpoint}}} 1.0')
        wait_for_metric(port, f"xmc_batch_rows_sum{labels} 1.0")


def test_the_phases_of_a_life(folder: Path) -> None:
    with serving(folder / "mach") as service:
        paths = ("/v2/health/ready", "/v2/models/mach/ready", "/v2/models/mach")

        def statuses() -> list[int]:
            posted = infer(service, {"inputs": [texts("a")]}).status_code
            return [*(service.client.get(path).status_code for path in paths), posted]

        assert statuses() == [200, 200, 200, 200]
        service.lifecycle.phase = Phase.LEAVING
        assert statuses() == [503, 200, 200, 200]
        service.lifecycle.phase = Phase.CLOSED
        assert statuses() == [503, 503, 503, 503]
        assert service.client.get("/v2/health/live").json() == {"live": True}
        service.lifecycle.phase = Phase.LOADING
        assert statuses() == [503, 503, 503, 503]


def test_requests_count_under_their_routes_template(service: Service) -> None:
    version = urllib.parse.quote(service.model.version)
    for _ in range(2):
        infer(service, {"inputs": [texts("a")]}, f"/v2/models/mach/versions/{version}/infer")
    lines = service.client.get("/metrics").text.splitlines()
    endpoint = "/v2/models/{name}/versions/{version}/infer"
    assert f'xmc_requests_total{{code="200",endpoint="{endpoint}",model="mach"}} 2.0' in lines


parts = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists)
inputs = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["text", "x"]),
        "datatype": st.sampled_from(["BYTES", "INT64", "FP32", "x"]),
        "shape": st.lists(st.integers(-1, 3), max_size=3),
    },
    optional={
        "data": st.lists(parts, max_size=3),
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(0, 9)}),
    },
)


@given(st.lists(inputs, max_size=2), st.binary(max_size=12), st.booleans())
def test_no_tensors_make_the_service_fail(service: Service, inputs: object, data: bytes, is_binary: bool) -> None:
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))} if is_binary else {}
    response = service.client.post("/v2/models/mach/infer", content=head + data, headers=headers)
    assert response.status_code in (200, 400, 413, 422)
    assert ("error" in response.json()) is (response.status_code != 200)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), min_size=1, max_size=4))
def test_raw_and_json_are_asked_the_same(service: Service, queries: list[str]) -> None:
    as_json = infer(service, {"inputs": [texts(*queries)]})
    packed = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in queries)
    request = raw({"binary_data_size": len(packed)}, packed)
    document = json.loads(request["content"][: int(request["headers"]["Inference-Header-Content-Length"])])
    document["inputs"][0]["shape"] = [len(queries)]
    head = json.dumps(document).encode()
    as_raw = service.client.post(
        "/v2/models/mach/infer", content=head + packed, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    assert as_raw.json() == as_json.json()
