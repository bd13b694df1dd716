"""Fetching a bundle: from an archive at some address to a folder that holds a verified bundle, or to no change at all.

The archive is a tar file, compressed or not, of the files of one bundle, with or without their folder. It is unpacked
while it comes, so that it needs no room of its own, into a folder beside the target. There the bundle is verified as
the service does when it opens one, and only then it takes the target's place.

What is meant is said by the SHA-256 of `manifest.json`, which holds those of all other files, or by who signed it: so
it does not matter how an archive was packed, and a bundle that is there already is known without its archive.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from service.bundle import Manifest, layout, open_bundle
from service.bundle.files import sha256_of
from service.errors import BundleError, SettingsError
from service.fetching.archive import download

SCHEMES = ("http", "https", "file")


@dataclass(frozen=True)
class Order:
    """What to fetch.

    Attributes:
        url: of the archive: http, https or file. What is behind its path (a signature, as a rule) is told to nobody.
        into: folder that becomes the bundle; what is in the folder above it stays.
        sha256: of the bundle's ``manifest.json``, in lower-case hexadecimal digits; None for whatever comes.
        keys: public keys, one of which must have signed it; none: no signature is looked at.
        max_bytes: most bytes of the archive, and most bytes of the files in it.

    Raises:
        SettingsError: the address or the digest is none.
    """

    url: str
    into: Path
    sha256: str | None
    keys: tuple[Path, ...]
    max_bytes: int

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in SCHEMES or "@" in parts.netloc or re.search(r"[\s\x00-\x1f\x7f]", self.url):
            expected = ", ".join(f"{scheme}://" for scheme in SCHEMES) + ", without blanks or a password"
            raise SettingsError(f"expected an address that begins with {expected}, found {self.shown_url!r}")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise SettingsError(f"--sha256 must be 64 digits of 0-9 and a-f, found {self.sha256!r}")

    @property
    def shown_url(self) -> str:
        """The address without what may be secret: a name with a password before the host, the query behind the path."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


@dataclass(frozen=True)
class Fetched:
    """A verified bundle in its place.

    Attributes:
        manifest: of the bundle.
        sha256: of its ``manifest.json``: an order that names it does nothing from now on.
        is_new: whether it was fetched now; else it was there already.
    """

    manifest: Manifest
    sha256: str
    is_new: bool


def fetch(order: Order) -> Fetched:
    """Have a folder hold the bundle that is meant, in place of a bundle that may be there.

    An order with a digest that the folder's bundle has already does nothing, whatever the address; one without a digest
    fetches. Of several orders for one folder, one fetches and the others wait.

    Raises:
        BundleError: the archive cannot be had, is none of a bundle, or holds another one than is meant, or the folder
            cannot be written. Then the folder is as it was.
    """
    into = Path(os.path.abspath(order.into))  # noqa: PTH100 (Path.resolve would follow links)
    if (found := _present(into, order)) is not None:
        return found
    try:
        with _alone(into):
            if (found := _present(into, order)) is not None:
                return found
            with _staged(into) as folder:
                _download(order, folder)
                manifest = _verified(folder, order)
                _swap(folder, into)
    except OSError as error:
        raise BundleError(f"{into}: expected a folder that can be written, found: {error}") from error
    return Fetched(manifest, sha256_of(into / layout.MANIFEST), is_new=True)


def _present(into: Path, order: Order) -> Fetched | None:
    """The bundle that is meant, where it is there already and good."""
    if order.sha256 is None:
        return None
    try:
        return Fetched(_verified(into, order), order.sha256, is_new=False)
    except BundleError:
        return None


def _verified(folder: Path, order: Order) -> Manifest:
    if order.sha256 is not None:
        try:
            digest = sha256_of(folder / layout.MANIFEST)
        except OSError as error:
            raise BundleError(f"{order.shown_url}: expected {layout.MANIFEST}, found: {error}") from error
        if digest != order.sha256:
            raise BundleError(
                f"{order.shown_url}: expected {layout.MANIFEST} with sha256 {order.sha256}, found {digest}"
            )
    try:
        return open_bundle(folder, order.keys).manifest
    except BundleError as error:
        raise BundleError(f"{order.shown_url}: {error}") from error


@contextmanager
def _alone(into: Path) -> Iterator[None]:
    """Wait until nobody else fetches into a folder: several pods may share a volume.

    Raises:
        OSError: the folder above cannot be written.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    with (into.parent / f".{into.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _staged(into: Path) -> Iterator[Path]:
    """An empty folder beside the target; what a fetch that was killed has left behind is cleared away first."""
    retired = _retired(into)
    if retired.exists() and not into.exists():
        retired.rename(into)
    shutil.rmtree(retired, ignore_errors=True)
    _require_replaceable(into)
    staged = into.parent / f".{into.name}.partial"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _retired(into: Path) -> Path:
    return into.parent / f".{into.name}.old"


def _require_replaceable(into: Path) -> None:
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        raise BundleError(f"{into}: expected a bundle to replace, or nothing, found a link or file")
    if into.exists() and any(into.iterdir()) and not (into / layout.MANIFEST).is_file():
        raise BundleError(f"{into}: expected a bundle to replace, or nothing, found a folder of other files")


def _swap(staged: Path, into: Path) -> None:
    """Between the two renames there is no target; whoever has files of the old one open keeps them."""
    if into.exists():
        into.rename(_retired(into))
    staged.rename(into)
    shutil.rmtree(_retired(into), ignore_errors=True)


def _download(order: Order, folder: Path) -> None:
    try:
        download(order.url, folder, order.max_bytes)
    except BundleError as error:
        raise BundleError(f"{order.shown_url}: {error}") from error
