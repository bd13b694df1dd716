from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.lifecycle import Phase
from service.http.routes import PROBLEMS
from service.schemas import PredictRequest, PredictResponse, Problem
from tests.bundles import DIMENSION, METHODS, Spec, write_bundle
from tests.service.serving import TEXT, Service, blocked, make_service, serving

LABELS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for method in METHODS:
        write_bundle(folder / method, Spec(method=method, name=method, label_count=LABELS))
    write_bundle(folder / "vectors", Spec(input="features", name="vectors"))
    write_bundle(folder / "older", Spec(name="mach", seed=1))
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with serving(folder / "mach", max_queries=4, max_body_bytes=2000) as service:
        yield service


def is_problem(response: Any, status: int, words: str) -> bool:
    document = Problem.model_validate(response.json())
    assert response.headers["content-type"] == "application/problem+json"
    assert document.status == response.status_code == status
    assert document.request_id == response.headers["x-request-id"]
    assert re.search(words, document.detail), document.detail
    return True


@pytest.mark.parametrize("method", METHODS)
def test_a_query_gets_what_the_engine_answers(folder: Path, method: str) -> None:
    with serving(folder / method) as service:
        response = service.predict({"queries": [TEXT, "python image library"], "k": 3})
        answer = PredictResponse.model_validate_json(response.content)
        engine = service.engine
        top = engine.run(engine.prepare([TEXT, "python image library"]), 3).top
    assert response.status_code == 200
    assert (answer.model, answer.version) == (method, engine.manifest.version)
    for prediction, ids_K, scores_K in zip(answer.predictions, top.ids_QK, top.scores_QK, strict=True):
        assert [label.id for label in prediction.labels] == [engine.labels.id(row) for row in ids_K]
        assert [label.text for label in prediction.labels] == [engine.labels.text(row) for row in ids_K]
        assert [label.score for label in prediction.labels] == pytest.approx(scores_K.tolist(), rel=1e-5)


def test_features_are_queries_too(folder: Path) -> None:
    with serving(folder / "vectors") as service:
        response = service.predict({"features": [{"indices": [7, 0], "values": [0.5, 1]}]})
        assert len(response.json()["predictions"][0]["labels"]) == 5
        too_large = {"features": [{"indices": [DIMENSION], "values": [1]}]}
        assert is_problem(
            service.predict(too_large), 422, rf"features\[0\].indices: expected numbers below {DIMENSION}"
        )
        assert is_problem(service.predict({"queries": ["a"]}), 422, "expected features, because model vectors")


def test_k_labels_come_back_or_all_that_there_are(service: Service) -> None:
    for k, count in ((1, 1), (7, 7), (100, LABELS)):
        labels = service.predict({"queries": [TEXT], "k": k}).json()["predictions"][0]["labels"]
        scores = [label["score"] for label in labels]
        assert len(labels) == len({label["id"] for label in labels}) == count
        assert scores == sorted(scores, reverse=True)


def test_a_smaller_k_is_a_prefix(service: Service) -> None:
    few, many = (service.predict({"queries": [TEXT], "k": k}).json()["predictions"][0]["labels"] for k in (3, 9))
    assert many[:3] == few


def test_min_score_leaves_out_what_is_below_it(service: Service) -> None:
    everything = service.predict({"queries": [TEXT], "k": 100}).json()["predictions"][0]["labels"]
    bound = everything[4]["score"]
    kept = service.predict({"queries": [TEXT], "k": 100, "min_score": bound}).json()["predictions"][0]["labels"]
    assert kept == [label for label in everything if label["score"] >= bound]
    assert len(service.predict({"queries": [TEXT], "k": 2, "min_score": bound}).json()["predictions"][0]["labels"]) == 2


def test_a_request_id_is_echoed_if_it_is_sane_and_made_otherwise(service: Service) -> None:
    assert service.client.get("/livez", headers={"X-Request-Id": "a-1.b:c_D"}).headers["x-request-id"] == "a-1.b:c_D"
    for insane in ("", "a b", "x" * 129, "<script>"):
        made = service.client.get("/livez", headers={"X-Request-Id": insane}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


def test_server_timing_has_the_four_stages(service: Service) -> None:
    header = service.predict({"queries": [TEXT]}).headers["server-timing"]
    assert re.fullmatch(r"queue;dur=[\d.]+, tokenize;dur=[\d.]+, encode;dur=[\d.]+, search;dur=[\d.]+", header)


def test_json_may_carry_parameters_and_suffixes(service: Service) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"):
        response = service.client.post("/predict", content=b'{"queries": ["a"]}', headers={"Content-Type": kind})
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"{", "application/json", 400, "the body is not JSON"),
        (b'{"queries": ["a"]}', "text/plain", 415, "expected Content-Type: application/json, found text/plain"),
        (b'{"queries": ["a"], "model": "x"}', "application/json", 404, "no model 'x' is loaded; loaded are mach:"),
        (b'{"queries": ["a"], "nope": 1}', "application/json", 422, "nope: this field is unknown"),
        (b'{"queries": ["a"], "k": 101}', "application/json", 422, "k: expected at most 100, found 101"),
        (
            b'{"queries": ["a", "a", "a", "a", "a"]}',
            "application/json",
            422,
            "queries: expected 1 to 4 entries, found 5",
        ),
        (
            b'{"features": [{"indices": [1], "values": [1]}]}',
            "application/json",
            422,
            "expected queries, because model",
        ),
        (b" " * 2001, "application/json", 413, "more than 2000 bytes, the most that XMC_MAX_BODY_BYTES allows"),
    ],
)
def test_bad_input_is_answered_with_a_problem_document(
    service: Service, content: bytes, kind: str, status: int, words: str
) -> None:
    assert is_problem(service.client.post("/predict", content=content, headers={"Content-Type": kind}), status, words)


def test_a_body_without_content_type_is_no_json(service: Service) -> None:
    assert is_problem(service.client.post("/predict", content=b"{}"), 415, "found no Content-Type")


def test_a_body_without_length_is_bounded_too(service: Service) -> None:
    def parts() -> Iterator[bytes]:
        yield from [b" " * 1000] * 3

    response = service.client.post("/predict", content=parts(), headers={"Content-Type": "application/json"})
    assert "content-length" not in response.request.headers
    assert is_problem(response, 413, "more than 2000 bytes")


def test_a_body_in_parts_is_one_body(service: Service) -> None:
    response = service.client.post(
        "/predict", content=iter([b'{"queries"', b': ["a"]', b"}"]), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 200


def test_unknown_paths_and_methods_are_problems_too(service: Service) -> None:
    assert is_problem(service.client.get("/nope"), 404, "there is no /nope here")
    response = service.client.get("/predict")
    assert is_problem(response, 405, "/predict does not answer GET, only POST")
    assert response.headers["allow"] == "POST"


bodies = st.fixed_dictionaries(
    {},
    optional={
        "queries": st.lists(st.text(max_size=20) | st.integers(), max_size=6) | st.text(),
        "features": st.lists(st.dictionaries(st.sampled_from(["indices", "values", "x"]), st.lists(st.integers()))),
        "k": st.integers() | st.floats() | st.text(),
        "model": st.sampled_from(["mach", "mach:1", "", None]) | st.text(),
        "min_score": st.floats(),
        "timeout_ms": st.just(3_600_000) | st.integers(max_value=0),
        "other": st.none(),
    },
)


@given(st.binary(max_size=300) | bodies.map(lambda body: json.dumps(body).encode()))
def test_no_body_makes_the_service_fail(service: Service, body: bytes) -> None:
    response = service.client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    if response.status_code == 200:
        PredictResponse.model_validate_json(response.content)
    else:
        assert response.status_code in (400, 404, 413, 422)
        assert is_problem(response, response.status_code, ".")


def test_an_unexpected_error_is_answered_with_500_and_logged_with_its_stack(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("service.http.predict.parse_predict", fail)
    response = service.predict({"queries": [TEXT]})
    assert is_problem(response, 500, "an unexpected error, which is our bug")
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.name == "service.http.middleware"]
    assert record.exc_info is not None
    assert "a secret" in str(record.exc_info[1])
    assert record.__dict__["request_id"] == response.headers["x-request-id"]


def test_a_failing_model_is_answered_with_500_and_the_next_query_is_fine(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    with monkeypatch.context() as patch:
        patch.setattr(service.engine, "run", fail)
        response = service.predict({"queries": [TEXT]})
    assert is_problem(response, 500, "the model failed on this request")
    assert "secret" not in response.text
    assert service.predict({"queries": [TEXT]}).status_code == 200


def test_a_passed_timeout_is_answered_with_504(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with blocked(service.engine, monkeypatch):
        assert is_problem(service.predict({"queries": [TEXT], "timeout_ms": 1}), 504, "timeout_ms passed")
    assert service.predict({"queries": [TEXT], "timeout_ms": 60_000}).status_code == 200


def test_a_full_queue_is_answered_with_429_before_the_body_is_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(folder / "mach", queue_rows=2, max_queries=2) as service,
        ThreadPoolExecutor(2) as pool,
        blocked(service.engine, monkeypatch) as wants_to_run,
    ):
        first = pool.submit(service.predict, {"queries": [TEXT]})
        wants_to_run.wait()
        second = pool.submit(service.predict, {"queries": [TEXT, TEXT]})
        while service.model.has_room():
            service.client.get("/livez")
        refused = service.client.post("/predict", content=b"no JSON at all")
        assert is_problem(refused, 429, "2 of the queue's 2 places are taken")
        assert int(refused.headers["retry-after"]) >= 1
        assert 'xmc_rejected_total{reason="queue_full"} 1.0' in service.client.get("/metrics").text
    assert (first.result().status_code, second.result().status_code) == (200, 200)


def test_while_models_load_the_process_lives_but_is_not_ready() -> None:
    service = make_service(())
    assert service.client.get("/livez").text == "ok"
    assert is_problem(service.client.get("/readyz"), 503, "models are still loading")
    refused = service.client.post("/predict", content=b"no JSON at all")
    assert is_problem(refused, 503, "models are still loading")
    assert refused.headers["retry-after"] == "1"
    assert service.client.get("/v1/models").json() == {"models": []}


def test_a_bundle_that_fails_keeps_everything_from_being_ready_and_answers_name_no_folder(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(folder / "mach", tmp_path) as service:
        assert service.lifecycle.failure is not None
        for response in (service.client.get("/readyz"), service.predict({"queries": [TEXT]})):
            assert is_problem(response, 503, f"bundle {tmp_path.name}: expected a folder with manifest.json")
            assert str(tmp_path.parent) not in response.text
    assert str(tmp_path) in caplog.text


def test_the_same_bundle_twice_is_refused(folder: Path) -> None:
    with serving(folder / "mach", folder / "mach") as service:
        assert re.search(r"mach:\w{12} is given twice", service.lifecycle.failure or "")


def test_a_dead_thread_turns_readiness_and_liveness_red(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    with serving(folder / "mach") as service:
        monkeypatch.setattr(service.engine, "run", die)
        assert is_problem(service.predict({"queries": [TEXT]}), 500, "the model stopped")
        for path in ("/readyz", "/livez"):
            assert is_problem(service.client.get(path), 503, r"mach:\w+ stopped after an internal error")
        assert is_problem(service.predict({"queries": [TEXT]}), 503, "or restart the service")
        assert 'xmc_model_ready{model="mach"' in service.client.get("/metrics").text


def test_a_leaving_process_answers_but_says_that_it_leaves(folder: Path) -> None:
    with serving(folder / "mach") as service:
        service.lifecycle.phase = Phase.LEAVING
        response = service.predict({"queries": [TEXT]})
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        assert is_problem(service.client.get("/readyz"), 503, "shutting down")
        service.lifecycle.phase = Phase.CLOSED
        refused = service.predict({"queries": [TEXT]})
        assert is_problem(refused, 503, "shutting down")
        assert refused.headers["retry-after"] == "1"


def test_several_models_are_told_apart_by_name_and_version(folder: Path) -> None:
    with serving(folder / "mach", folder / "declare", folder / "older") as service:
        mach, declare, older = service.registry.models
        assert is_problem(
            service.predict({"queries": [TEXT]}), 422, "model: expected one of mach:.*, declare:.*, mach:"
        )
        for wanted, version in (
            ("declare", declare.version),
            ("mach", older.version),
            (f"mach:{mach.version}", mach.version),
            (f"mach:{older.version}", older.version),
        ):
            answer = service.predict({"queries": [TEXT], "model": wanted}).json()
            assert (answer["model"], answer["version"]) == (wanted.split(":")[0], version)
            assert service.client.get(f"/v1/models/{wanted}").json()["version"] == version
        assert is_problem(service.predict({"queries": [TEXT], "model": "mach:0"}), 404, "no model 'mach:0'")
        listed = service.client.get("/v1/models").json()["models"]
        assert [model["name"] for model in listed] == ["mach", "declare", "mach"]


def test_a_model_describes_itself(folder: Path) -> None:
    with serving(folder / "unidec") as service:
        found = service.client.get("/v1/models/unidec").json()
        assert is_problem(service.client.get("/v1/models/nope"), 404, "no model 'nope' is loaded")
    expected = {"method": "unidec", "input": "text", "label_count": LABELS, "device": "cpu", "ready": True}
    assert expected.items() <= found.items()
    assert (found["index"], found["recall"], found["providers"]) == ("flat", 1.0, ["CPUExecutionProvider"])
    assert TEXT in found["examples"]
    assert found["method_section"]["dimension"] == 8
    assert "rerank_section" not in found


def test_a_model_says_that_its_answers_are_reranked(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(reranked=True, candidates=7))
    with serving(tmp_path / "bundle") as service:
        section = service.client.get(f"/v1/models/{service.model.name}").json()["rerank_section"]
        assert section == service.engine.manifest.rerank.model_dump()
    assert section["candidates"] == 7


def test_metrics_count_what_happened(folder: Path) -> None:
    with serving(folder / "mach") as service:
        service.predict({"queries": [TEXT, " ".join(["web"] * 30)]})
        service.predict({"queries": []})
        service.client.get("/a/path/nobody/knows")
        response = service.client.get("/metrics")
        version = service.model.version
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    labels = f'{{model="mach",version="{version}"}}'
    for line in (
        'xmc_requests_total{code="200",endpoint="/predict",model="mach"} 1.0',
        'xmc_requests_total{code="422",endpoint="/predict",model=""} 1.0',
        'xmc_requests_total{code="404",endpoint="unknown",model=""} 1.0',
        f"xmc_batch_rows_sum{labels} 2.0",
        f"xmc_queue_seconds_count{labels} 1.0",
        f"xmc_top_score_count{labels} 2.0",
        f"xmc_truncated_inputs_total{labels} 1.0",
        f"xmc_model_ready{labels} 1.0",
        "xmc_inflight_requests 1.0",
    ):
        assert line in response.text.splitlines()


def test_the_documentation_is_complete_and_its_references_resolve(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    operation = document["paths"]["/predict"]["post"]
    assert {int(status) for status in operation["responses"]} == {200, *PROBLEMS}
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(PredictRequest.model_fields)
    for reference in re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(document)):
        place = document
        for step in reference.split("/"):
            place = place[step]
    assert service.client.get("/docs").status_code == 200
