from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.schemas import Problem
from tests.bundles import write_bundle
from tests.service.http.test_app import is_problem
from tests.service.serving import Service, ask, in_this_process, make_service

WEB = Path(__file__).parents[3] / "service" / "web"
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
)
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = make_service(())
    with service.client:
        yield service


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a real server: a client that tidies paths up, or that knows what HEAD is, would hide what is tested."""
    path = tmp_path_factory.mktemp("bundles") / "mach"
    write_bundle(path)
    with in_this_process(path) as (_, port):
        yield port


@pytest.mark.parametrize("file", sorted(WEB.iterdir()), ids=lambda file: file.name)
def test_every_file_of_the_page_is_sent_as_it_is(service: Service, file: Path) -> None:
    paths = [f"/web/{file.name}"] + ["/"] * (file.name == "index.html")
    for path in paths:
        response = service.client.get(path)
        assert response.content == file.read_bytes()
        assert response.headers["content-type"] == f"{MEDIA_TYPES[file.suffix]}; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/web/style.css", "/web/main.js"])
def test_headers_hold_the_browser_to_the_pages_own_files(service: Service, path: str) -> None:
    headers = service.client.get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/web/main.js"])
def test_a_file_that_the_client_has_is_not_sent_again(service: Service, path: str) -> None:
    first = service.client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for sent in (tag, f"W/{tag}", f'"other", {tag}'):
        again = service.client.get(path, headers={"If-None-Match": sent})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["content-security-policy"] == POLICY
    assert service.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_each_file_has_a_tag_of_its_own(service: Service) -> None:
    tags = {service.client.get(f"/web/{file.name}").headers["etag"] for file in WEB.iterdir()}
    assert len(tags) == len(list(WEB.iterdir()))


@pytest.mark.parametrize("path", ["/", "/web/main.js"])
def test_head_is_get_without_the_body(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with closing(connection):
        connection.request("HEAD", path)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
        # Were there a body all the same, the next answer would not be one.
        connection.request("GET", path)
        again = connection.getresponse()
        assert len(again.read()) == int(response.headers["content-length"]) > 0
        for name in ("content-length", "content-type", "etag", "content-security-policy"):
            assert response.headers[name] == again.headers[name]


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/nothing.js",
        "/web/../settings.py",
        "/web/..%2Fsettings.py",
        "/web/%2e%2e/settings.py",
        "/web/..%5Csettings.py",
        "/web//etc/passwd",
        "/web/%2Fetc%2Fpasswd",
        "/web/main.js%00",
        "/web/main.js/",
        "/web/.",
        "/web",
    ],
)
def test_nothing_but_the_pages_files_is_below_web(port: int, path: str) -> None:
    status, body, headers = ask(port, path)
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert "there is no " in Problem.model_validate_json(body).detail


def test_only_reading_is_answered(service: Service) -> None:
    assert is_problem(service.client.post("/web/main.js"), 405, r"/web/main\.js does not answer POST, only ")


def test_the_page_names_only_files_that_exist() -> None:
    for file in WEB.iterdir():
        text = file.read_text(encoding="utf-8")
        named = set(re.findall(r'"(?:web|\.)/(\w+\.\w+)"', text))
        assert named <= {other.name for other in WEB.iterdir()}
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
