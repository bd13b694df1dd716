"""What is at an address, unpacked: a tar archive of the files of one bundle, and nothing that none would have."""

from __future__ import annotations

import shutil
import tarfile
import urllib.request
from email.message import Message
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit

from service.errors import BundleError

# Without a byte; a large archive may take as long as it does.
SILENCE_SECONDS = 60
# Far more than any bundle has.
MOST_FILES = 256
BLOCK_BYTES = 1 << 20


def download(url: str, folder: Path, limit: int) -> None:
    """Unpack what is at an address.

    Args:
        url: http, https or file.
        folder: an empty one, for the files.
        limit: most bytes of the archive, and most bytes of its files.

    Raises:
        BundleError: it cannot be had, or is no archive of a bundle; the sentence does not name the address.
    """
    # Reading takes from a socket, unpacking from untrusted bytes: all that can go wrong there is the archive's fault.
    try:
        with _opener().open(url, timeout=SILENCE_SECONDS) as answer:
            _unpack(_Body(answer, limit), folder, limit)
    except HTTPError as error:
        error.close()
        # Not its own words: they may hold the whole address.
        raise BundleError(f"expected an archive, found status {error.code}") from None
    except (OSError, HTTPException, tarfile.TarError, EOFError, ValueError) as error:
        raise BundleError(f"expected a tar archive of a bundle, found: {error}") from error


def _opener() -> urllib.request.OpenerDirector:
    """Speaks what an address may begin with, through the proxies of the environment, and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        Redirects(),
        urllib.request.FileHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "xmc-serve")]
    return opener


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows where it is sent, but not from https to http: whoever listens there could send anything."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """The next request, or none where the answer is to stand as it is."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Answer(Protocol):
    headers: Message

    def read(self, size: int, /) -> bytes: ...


class _Body:
    """The bytes of an answer: no more than allowed, and as many as it said there would be.

    Args:
        answer: to read from.
        limit: most bytes.

    Raises:
        BundleError: it says that it has more.
    """

    def __init__(self, answer: _Answer, limit: int) -> None:
        self._answer = answer
        self._limit = limit
        length = answer.headers.get("Content-Length")
        self._promised = None if length is None else int(length)
        self._count = 0
        self._require_room(self._promised or 0)

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than asked for at the end.

        Raises:
            BundleError: there are too many, or the connection has ended too soon.
        """
        block = self._answer.read(size)
        self._count += len(block)
        self._require_room(self._count)
        if self._promised is not None and not block and self._count < self._promised:
            raise BundleError(f"expected {self._promised} bytes, found the end after {self._count}")
        return block

    def _require_room(self, count: int) -> None:
        if count > self._limit:
            raise BundleError(f"expected an archive of at most {self._limit} bytes, found more")


def _unpack(body: _Body, folder: Path, limit: int) -> None:
    """Write the files of an archive into a folder.

    A bundle is flat, so nothing is taken but regular files that lie at the top of the archive or in one folder.
    """
    tops: set[str] = set()
    total = count = 0
    with tarfile.open(fileobj=body, mode="r|*") as archive:  # type: ignore[call-overload]
        for member in archive:
            top, name = _place(member)
            tops.add(top)
            total += member.size
            count += 1
            if total > limit:
                raise BundleError(f"expected files of at most {limit} bytes in all, found more")
            if len(tops - {"."}) > 1 or count > MOST_FILES:
                raise BundleError(f"expected the files of one bundle, found more: {member.name!r}")
            if (content := archive.extractfile(member)) is not None:
                _write(content, folder / name)


def _place(member: tarfile.TarInfo) -> tuple[str, str]:
    """The folder and the name of a file, or a folder twice.

    Raises:
        BundleError: it is nothing that a bundle has.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise BundleError(f"expected names within the archive, found {member.name!r}")
    if not (member.isreg() or member.isdir()):
        raise BundleError(f"expected regular files, found a link, pipe or device: {member.name!r}")
    folder = path if member.isdir() else path.parent
    if len(folder.parts) > 1:
        raise BundleError(f"expected files in one folder, found {member.name!r}")
    return str(folder), path.name


def _write(content: IO[bytes], path: Path) -> None:
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, BLOCK_BYTES)
