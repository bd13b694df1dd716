"""What comes from real servers, whole or not, honest or not."""

from __future__ import annotations

import shutil
import tarfile
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from threading import Thread
from urllib.request import Request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BundleError
from service.fetching import fetch
from service.fetching.archive import MOST_FILES, Redirects
from tests.service.fetching.archives import Shelf, archive_of, contents, digest, member, order, packed, require_nothing


def test_a_body_that_is_cut_off_is_refused(shelf: Shelf, into: Path) -> None:
    whole = shelf.archives["/tiny"]
    shelf.promised = len(whole)
    shelf.archives["/tiny"] = whole[: len(whole) // 2]
    with pytest.raises(BundleError, match=rf"expected {len(whole)} bytes, found the end after {len(whole) // 2}"):
        fetch(order(shelf.url("/tiny"), into))
    require_nothing(into)


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (member("../../evil"), "expected names within the archive"),
        (member("/evil"), "expected names within the archive"),
        (member("tags/../../evil"), "expected names within the archive"),
        (member("tags/deeper/evil"), "expected files in one folder"),
        (member("evil", tarfile.SYMTYPE, "/etc/passwd"), "expected regular files"),
        (member("evil", tarfile.LNKTYPE, "manifest.json"), "expected regular files"),
        (member("evil", tarfile.FIFOTYPE), "expected regular files"),
        (member("evil", tarfile.CHRTYPE), "expected regular files"),
        (member("evil", tarfile.BLKTYPE), "expected regular files"),
        (member("../evil", tarfile.DIRTYPE), "expected names within the archive"),
    ],
    ids=lambda value: f"{value.name} {value.type!r}" if isinstance(value, tarfile.TarInfo) else "",
)
def test_what_a_bundle_does_not_have_is_not_unpacked(
    shelf: Shelf, into: Path, hostile: tarfile.TarInfo, message: str
) -> None:
    shelf.archives["/evil"] = archive_of([(hostile, b"")])
    with pytest.raises(BundleError, match=message):
        fetch(order(shelf.url("/evil"), into))
    require_nothing(into)
    assert not (into.parents[1] / "evil").exists()


def test_files_of_two_bundles_are_not_one(shelf: Shelf, into: Path) -> None:
    shelf.archives["/two"] = archive_of([(member("one/a"), b""), (member("two/b"), b"")])
    with pytest.raises(BundleError, match="expected the files of one bundle, found more: 'two/b'"):
        fetch(order(shelf.url("/two"), into))
    shelf.archives["/many"] = archive_of([(member(f"{number}"), b"") for number in range(MOST_FILES + 1)])
    with pytest.raises(BundleError, match="expected the files of one bundle, found more"):
        fetch(order(shelf.url("/many"), into))
    shelf.archives["/twice"] = archive_of([(member("a"), b""), (member("a"), b"")])
    with pytest.raises(BundleError, match="File exists"):
        fetch(order(shelf.url("/twice"), into))
    require_nothing(into)


def test_too_large_an_archive_is_refused(shelf: Shelf, bundle: Path, into: Path) -> None:
    size = len(shelf.archives["/tiny"])
    with pytest.raises(BundleError, match=f"expected an archive of at most {size - 1} bytes, found more"):
        fetch(order(shelf.url("/tiny"), into, bound=size - 1))
    shelf.archives["/zipped"] = packed(bundle, "w:gz")
    total = sum(len(content) for content in contents(bundle).values())
    assert len(shelf.archives["/zipped"]) < total
    with pytest.raises(BundleError, match=f"expected files of at most {total - 1} bytes in all, found more"):
        fetch(order(shelf.url("/zipped"), into, bound=total - 1))
    require_nothing(into)
    assert fetch(order(shelf.url("/zipped"), into, bound=total)).is_new


def test_a_body_without_a_length_is_bounded_as_it_comes(bundle: Path, into: Path, tmp_path: Path) -> None:
    """An answer that ends with its connection."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + packed(bundle))

    with TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            with pytest.raises(BundleError, match="expected an archive of at most 9999 bytes"):
                fetch(order(url, into, bound=9999))
            assert fetch(order(url, into)).is_new
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"", "expected a tar archive of a bundle, found: empty file"),
        (b"no archive" * 100, "expected a tar archive of a bundle"),
        (archive_of([(member("tags/encoder.onnx"), b"x")]), "with manifest.json, found: .*No such file"),
        (archive_of([(member("manifest.json"), b"{}")]), "expected schema_version"),
    ],
)
def test_what_is_no_bundle_is_refused(shelf: Shelf, into: Path, archive: bytes, message: str) -> None:
    shelf.archives["/x"] = archive
    with pytest.raises(BundleError, match=message):
        fetch(order(shelf.url("/x"), into))
    require_nothing(into)


@pytest.mark.parametrize("name", ["encoder.onnx", "labels.jsonl"])
def test_what_the_manifest_contradicts_is_refused(
    shelf: Shelf, bundle: Path, into: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(bundle, tmp_path / "damaged")
    with (tmp_path / "damaged" / name).open("r+b") as file:
        file.write(b"\0")
    shelf.archives["/damaged"] = packed(tmp_path / "damaged")
    with pytest.raises(BundleError, match=f"{name}: expected sha256"):
        fetch(order(shelf.url("/damaged"), into, digest(bundle)))
    require_nothing(into)


def test_a_refusal_is_told_by_its_status_and_no_secret_is(shelf: Shelf, into: Path) -> None:
    with pytest.raises(BundleError, match="/gone: expected an archive, found status 403") as caught:
        fetch(order(shelf.url("/gone?signature=secret"), into))
    assert "secret" not in str(caught.value)
    assert shelf.asked == ["/gone?signature=secret"]


def test_it_goes_where_it_is_sent(shelf: Shelf, into: Path) -> None:
    shelf.redirects = {"/latest": "/tiny", "/round": "/round", "/out": "file:///etc/passwd"}
    assert fetch(order(shelf.url("/latest"), into)).manifest.name == "tiny"
    for path in ("/round", "/out"):
        with pytest.raises(BundleError, match="found status 302"):
            fetch(order(shelf.url(path), into))


@pytest.mark.parametrize(("target", "follows"), [("https://b/", True), ("http://b/", False), ("/c", False)])
def test_nobody_leads_it_from_https_to_http(target: str, follows: bool) -> None:
    found = Redirects().redirect_request(Request("https://a/"), BytesIO(), 302, "Found", HTTPMessage(), target)
    assert (found is not None) is follows


def test_proxies_of_the_environment_are_asked(shelf: Shelf, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", shelf.url("/"))
    shelf.archives["http://models.invalid/tiny"] = shelf.archives["/tiny"]
    assert fetch(order("http://models.invalid/tiny", into)).is_new
    assert shelf.asked == ["http://models.invalid/tiny"]


@settings(max_examples=40)
@given(place=st.integers(0, 1 << 16), value=st.binary(min_size=1, max_size=16), cut=st.booleans())
def test_no_archive_does_more_than_fail(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory, place: int, value: bytes, cut: bool
) -> None:
    """Any bytes changed anywhere, or the rest cut off: a bundle as it was, or an error."""
    folder = tmp_path_factory.mktemp("fuzz")
    archive = bytearray(packed(bundle))
    place %= len(archive)
    archive[place : place + len(value)] = value
    (folder / "x.tar").write_bytes(archive[:place] if cut else archive)
    into = folder / "models" / "tags"
    try:
        fetch(order((folder / "x.tar").as_uri(), into))
    except BundleError:
        require_nothing(into)
    else:
        assert contents(into) == contents(bundle)
