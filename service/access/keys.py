"""Keys of clients: what one is, how a file lists them, and how the one that a client sent is found.

A file has one key a line: its name, the SHA-256 of the key, options. Blank lines and lines that begin with # are left
out.

    # the shop's search
    shop     sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9  rate=100 burst=200
    grafana  sha256:486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7  read-only

A key is 256 random bits, so that guessing has no hope and a plain hash is enough: slow hashes protect what people
choose and remember. Who reads the file learns no key.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from service.errors import SettingsError

PREFIX = "xmc_"
SECRET_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LINE = "a line 'NAME sha256:DIGEST [read-only] [rate=QUERIES_PER_SECOND] [burst=QUERIES]'"


class Role(IntEnum):
    """What a key allows; each role includes those below it."""

    READ = 1
    PREDICT = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Key:
    """One line of a file.

    Attributes:
        name: of the key, which is no secret.
        digest: SHA-256 of the key (32 bytes).
        role: what it allows.
        rate: queries a second that it may ask for in the long run; infinite without a limit.
        burst: queries that it may ask for at once after a pause.
    """

    name: str
    digest: bytes
    role: Role
    rate: float = math.inf
    burst: float = math.inf


class KeyRing:
    """Keys by what clients send.

    Args:
        keys: with distinct names and digests.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        # A dictionary's time depends on what it compares. Its entries are digests under a secret of this process, so
        # that nobody who sends keys can choose or guess them, and time tells nothing of a key.
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._keys = {self._place(key.digest): key for key in keys}

    def find(self, sent: bytes) -> Key | None:
        """The key that a client has sent, or None when it is not one of these."""
        digest = hashlib.sha256(sent).digest()
        key = self._keys.get(self._place(digest))
        return key if key is not None and hmac.compare_digest(key.digest, digest) else None

    def __len__(self) -> int:
        return len(self._keys)

    def _place(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._secret).digest()


def new_secret() -> str:
    """A key that nobody has yet."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def line_of(name: str, secret: str, options: Iterable[str]) -> str:
    """The line that a file needs for a key.

    Args:
        name: for it.
        secret: the key.
        options: as the file writes them.

    Raises:
        SettingsError: the name or an option is not what a file may hold.
    """
    line = " ".join((name, f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}", *options))
    parse_keys(line, Role.PREDICT)
    return line


def parse_keys(text: str, role: Role) -> list[Key]:
    """The keys of a file.

    Args:
        text: of the file.
        role: of keys without ``read-only``.

    Raises:
        SettingsError: a line is none of a key's, two are alike, or there is none; the sentence names the line, and no
            digest.
    """
    keys: dict[str, Key] = {}
    digests: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            key = _parse_key(words, role)
            if key.name in keys:
                raise ValueError(f"expected distinct names, found {key.name} twice")
            if key.digest in digests:
                raise ValueError(f"expected a key of its own for {key.name}, found that of {digests[key.digest]}")
        except ValueError as error:
            raise SettingsError(f"line {number}: {error}") from None
        keys[key.name] = key
        digests[key.digest] = key.name
    if not keys:
        raise SettingsError(f"expected {_LINE} for each key, found no key")
    return list(keys.values())


def _parse_key(words: list[str], role: Role) -> Key:
    name, *rest = words
    if not _NAME.fullmatch(name):
        # Not shown: it may be a key that was put where its name belongs.
        raise ValueError("expected a name of at most 64 letters, digits, '.', '_' and '-', found something else")
    digest = _DIGEST.fullmatch(rest[0]) if rest else None
    if digest is None:
        raise ValueError(f"expected {_LINE}, found no digest of 64 hexadecimal digits after the name")
    numbers = {"rate": math.inf, "burst": math.inf}
    for option in rest[1:]:
        option_name, _, value = option.partition("=")
        if option == "read-only" and role is not Role.ADMIN:
            role = Role.READ
        elif option_name in numbers and _is_number(value):
            numbers[option_name] = float(value)
        else:
            raise ValueError(f"expected {_LINE}, found an option that is none of these")
    rate, burst = numbers["rate"], numbers["burst"]
    if burst < math.inf and rate == math.inf:
        raise ValueError("expected a rate beside the burst, found none")
    if burst < 1:
        raise ValueError(f"expected a burst of at least 1 query, found {burst:g}")
    if rate < math.inf and burst == math.inf:
        burst = max(1.0, rate)
    return Key(name, bytes.fromhex(digest[1]), role, rate, burst)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is not None and float(text) > 0
