from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.access.keys import line_of
from service.errors import SettingsError
from tests.bundles import Spec, write_bundle
from tests.service.http.test_app import is_problem
from tests.service.http.test_protocol import JSON, connect, exchange, read, request
from tests.service.serving import BODY, TEXT, Service, in_this_process, make_service, serving


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path, Spec(name="mach"))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    lines = [
        line_of("shop", "full", []),
        line_of("grafana", "reader", ["read-only"]),
        line_of("slow", "limited", ["rate=0.001", "burst=2"]),
    ]
    (folder / "api").write_text("\n".join(lines))
    (folder / "admin").write_text(line_of("root", "admin", []))
    return {"api_keys_file": folder / "api", "admin_keys_file": folder / "admin"}


@pytest.fixture(scope="module")
def service(bundle: Path, files: dict[str, Path]) -> Iterator[Service]:
    with serving(bundle, **files) as service:
        yield service


@pytest.fixture(scope="module")
def server(bundle: Path, files: dict[str, Path]) -> Iterator[tuple[Service, int]]:
    with in_this_process(bundle, **files) as (service, port):
        yield service, port


def get(service: Service, path: str, key: str | None) -> Any:
    return service.client.get(path, headers={} if key is None else {"X-API-Key": key})


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/livez", {"none": 200, "wrong": 200, "reader": 200, "full": 200, "admin": 200}),
        ("/readyz", {"none": 200, "wrong": 200, "reader": 200, "full": 200, "admin": 200}),
        ("/docs", {"none": 200, "wrong": 200, "reader": 200, "full": 200, "admin": 200}),
        ("/", {"none": 200, "wrong": 200, "reader": 200, "full": 200, "admin": 200}),
        ("/web/main.js", {"none": 200, "wrong": 200, "reader": 200, "full": 200, "admin": 200}),
        ("/v1/models", {"none": 401, "wrong": 401, "reader": 200, "full": 200, "admin": 200}),
        ("/metrics", {"none": 401, "wrong": 401, "reader": 200, "full": 200, "admin": 200}),
        ("/nope", {"none": 401, "wrong": 401, "reader": 404, "full": 404, "admin": 404}),
        ("/admin", {"none": 401, "wrong": 401, "reader": 403, "full": 403, "admin": 404}),
        ("/admin/models", {"none": 401, "wrong": 401, "reader": 403, "full": 403, "admin": 405}),
        ("/%61dmin/models", {"none": 401, "wrong": 401, "reader": 403, "full": 403, "admin": 405}),
        ("/predict", {"none": 401, "wrong": 401, "reader": 403, "full": 200, "admin": 200}),
    ],
)
def test_each_path_needs_its_key(service: Service, path: str, statuses: dict[str, int]) -> None:
    for key, status in statuses.items():
        headers = {} if key == "none" else {"X-API-Key": key}
        if path == "/predict":
            response = service.predict({"queries": [TEXT]}, **headers)
        else:
            response = service.client.get(path, headers=headers)
        assert response.status_code == status, (path, key)
        assert ("www-authenticate" in response.headers) == (status == 401)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer full"}, 200),
        ({"Authorization": "bearer  full "}, 200),
        ({"Authorization": "Basic full"}, 401),
        ({"Authorization": "full"}, 401),
        ({"Authorization": "Basic x", "X-API-Key": "full"}, 200),
        ({"Authorization": "Bearer full", "X-API-Key": "wrong"}, 401),
        ({"X-API-Key": ""}, 401),
    ],
)
def test_a_key_is_sent_in_either_of_two_headers(service: Service, headers: dict[str, str], status: int) -> None:
    assert service.client.get("/v1/models", headers=headers).status_code == status


def test_refusals_say_what_was_expected_and_are_counted(service: Service) -> None:
    def counted(reason: str) -> float:
        return service.metrics.registry.get_sample_value("xmc_rejected_total", {"reason": reason}) or 0

    before = counted("key"), counted("forbidden")
    assert is_problem(get(service, "/v1/models", None), 401, "expected a key as Authorization: Bearer KEY or X-API-Key")
    assert is_problem(get(service, "/v1/models", "wrong"), 401, "expected a key, found one that is not known")
    refused = service.predict({"queries": [TEXT]}, **{"X-API-Key": "reader"})
    assert is_problem(refused, 403, "expected a key that is not read-only, found the key grafana")
    assert is_problem(get(service, "/admin", "full"), 403, "expected an admin key, found the key shop")
    assert (counted("key"), counted("forbidden")) == (before[0] + 2, before[1] + 2)


def test_without_files_all_is_open_but_admin_is_closed(bundle: Path) -> None:
    with serving(bundle) as service:
        assert service.predict({"queries": [TEXT]}).status_code == 200
        assert service.client.get("/metrics").status_code == 200
        refused = get(service, "/admin/models", "admin")
        assert is_problem(refused, 403, "/admin is closed; it opens to .* XMC_ADMIN_KEYS_FILE names")


def test_admin_keys_alone_close_nothing_else(bundle: Path, files: dict[str, Path]) -> None:
    with serving(bundle, admin_keys_file=files["admin_keys_file"]) as service:
        assert service.predict({"queries": [TEXT]}, **{"X-API-Key": "nobody's"}).status_code == 200
        assert get(service, "/admin", None).status_code == 401
        assert get(service, "/admin", "admin").status_code == 404


def test_api_keys_alone_leave_admin_closed(bundle: Path, files: dict[str, Path]) -> None:
    with serving(bundle, api_keys_file=files["api_keys_file"]) as service:
        assert get(service, "/admin", "full").status_code == 403
        assert get(service, "/v1/models", "admin").status_code == 401


def test_a_file_that_cannot_be_read_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected a readable file of keys"):
        make_service((), api_keys_file=tmp_path / "nothing")


def test_a_rate_counts_queries_and_refuses_before_the_body(server: tuple[Service, int]) -> None:
    service, port = server
    slow = "X-API-Key: limited"
    five = json.dumps({"queries": [TEXT] * 5}).encode()
    assert exchange(port, request(b'{"queries": [""]}', JSON, slow)).status == 422  # costs nothing
    assert exchange(port, request(b'{"queries": ["a"]}', JSON, slow)).status == 200
    assert exchange(port, request(five, JSON, slow)).status == 200
    with connect(port) as connection:
        connection.sendall(request(BODY, JSON, slow)[: -len(BODY)])
        answer = read(connection)[0]
    assert answer.status == 429
    assert 4990 < int(answer.headers["retry-after"]) <= 5000  # four too many and one to come, a thousandth a second
    assert b"at most 0.001 queries a second with the key slow" in answer.body
    assert exchange(port, request(BODY, JSON, slow, version="1.0")).status == 429
    assert exchange(port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + slow.encode() + b"\r\n\r\n").status == 200
    assert exchange(port, request(BODY, JSON, "X-API-Key: full")).status == 200
    assert service.metrics.registry.get_sample_value("xmc_rejected_total", {"reason": "rate"}) == 2


def test_requests_whose_heads_came_together_are_held_to_the_rate_too(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(line_of("slow", "limited", ["rate=0.001"]))
    sent = request(BODY, JSON, "X-API-Key: limited")
    head, body = sent[: -len(BODY)], sent[-len(BODY) :]
    with (
        in_this_process(bundle, api_keys_file=tmp_path / "keys") as (service, port),
        connect(port) as one,
        connect(port) as other,
    ):
        one.sendall(head)
        other.sendall(head)
        while service.metrics.inflight_requests < 2:
            continue
        one.sendall(body)
        assert read(one)[0].status == 200
        other.sendall(body)
        assert read(other)[0].status == 429


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_both_ways_in_ask_for_the_key_before_the_body(server: tuple[Service, int], version: str) -> None:
    """HTTP/1.0 takes the way through the application."""
    _, port = server
    with connect(port) as connection:
        connection.sendall(request(BODY, JSON, version=version)[: -len(BODY)])
        answer = read(connection)[0]
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert exchange(port, request(BODY, JSON, "Authorization: Bearer full", version=version)).status == 200


def test_a_full_queue_tells_the_keyless_no_more_than_that_it_is_full(
    server: tuple[Service, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused unread like all others, and never taken."""
    service, port = server
    monkeypatch.setattr(service.model, "has_room", lambda: False)
    assert exchange(port, request(BODY, JSON)).status == 429
    monkeypatch.undo()
    assert exchange(port, request(BODY, JSON)).status == 401
