"""Archives of bundles, a real server on the loopback that gives them out, and what came of it: for tests only."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

from service.bundle import layout
from service.fetching import Order

BOUND = 1 << 24


def packed(bundle: Path, mode: str = "w", folder: str = "") -> bytes:
    """A tar archive of a bundle's files: at its top, or in a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        archive.add(bundle, arcname=folder or ".")
    return buffer.getvalue()


def archive_of(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive of any members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member of an archive, whatever it is."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@dataclass
class Shelf:
    """What the server gives out, by path; `asked` are the paths that it was asked for, in order.

    Attributes:
        promised: the length that it tells, where that is not the true one.
        redirects: where it sends who asks for a path.
        stall: whether it falls silent in the middle of every archive, until `leave` is set.
    """

    port: int
    archives: dict[str, bytes] = field(default_factory=dict)
    promised: int | None = None
    redirects: dict[str, str] = field(default_factory=dict)
    stall: bool = False
    reached: Event = field(default_factory=Event)
    leave: Event = field(default_factory=Event)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def serving(**archives: bytes) -> Iterator[Shelf]:
    """A server of archives, each at the path of its name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            shelf.asked.append(self.path)
            if path in shelf.redirects:
                self.send_response(302)
                self.send_header("Location", shelf.redirects[path])
                self.end_headers()
            elif path in shelf.archives:
                self._give(shelf.archives[path])
            else:
                self.send_error(403)

        def _give(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) if shelf.promised is None else shelf.promised))
            self.end_headers()
            half = len(content) // 2 if shelf.stall else len(content)
            self.wfile.write(content[:half])
            self.wfile.flush()
            shelf.reached.set()
            if shelf.stall:
                shelf.leave.wait()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shelf = Shelf(server.server_port, {f"/{name}": content for name, content in archives.items()})
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shelf
    finally:
        shelf.leave.set()
        server.shutdown()
        server.server_close()
        thread.join()


def order(url: str, into: Path, sha256: str | None = None, *, keys: tuple[Path, ...] = (), bound: int = BOUND) -> Order:
    return Order(url, into, sha256, keys, bound)


def digest(bundle: Path) -> str:
    return hashlib.sha256((bundle / layout.MANIFEST).read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def require_nothing(into: Path) -> None:
    """Neither the bundle nor a part of it is there."""
    assert {file.name for file in into.parent.iterdir()} == {f".{into.name}.lock"}
