"""A file of keys that may be changed while the service runs."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from service.access.keys import Key, KeyRing, Role, parse_keys
from service.errors import SettingsError

logger = logging.getLogger(__name__)

# How long a key that was taken out of the file may still be used.
CHECK_SECONDS = 1.0


class KeyFile:
    """The keys of one file, read again when it has changed; a file that cannot be read leaves the keys as they were.

    Args:
        path: of the file; it may be a link that is put elsewhere, as Kubernetes does with a mounted secret.
        role: of its keys without ``read-only``.

    Raises:
        SettingsError: it cannot be read.
    """

    def __init__(self, path: Path, role: Role) -> None:
        self._path = path
        self._role = role
        self._state = _state(path)
        self._ring = self._read()
        self._next_check = time.monotonic() + CHECK_SECONDS

    def find(self, sent: bytes, now: float) -> Key | None:
        """The key that a client has sent, or None when the file has no such key.

        Args:
            sent: the key.
            now: second of `time.monotonic`.
        """
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self._renew()
        return self._ring.find(sent)

    def _renew(self) -> None:
        state = _state(self._path)
        if state == self._state:
            return
        self._state = state  # of a bad file too: it is bad news once
        try:
            self._ring = self._read()
        except SettingsError as error:
            logger.error("the keys stay as they were: %s", error)
        else:
            logger.info("read %d keys from %s", len(self._ring), self._path)

    def _read(self) -> KeyRing:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self._path}: expected a readable file of keys, found: {error}") from None
        try:
            return KeyRing(parse_keys(text, self._role))
        except SettingsError as error:
            raise SettingsError(f"{self._path}: {error}") from None


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells one content from the next; None when there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
