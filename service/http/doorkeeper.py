"""Keys on the way in: which one a request needs, and which it has sent. `service/README.md` has the table."""

from __future__ import annotations

from pathlib import Path

from service.access.keyfile import KeyFile
from service.access.keys import Key, Role
from service.access.rates import Rates
from service.errors import Forbidden, KeyRequired, RequestError
from service.http.asgi import Headers, header
from service.http.exchange import Exchange
from service.http.playground import WEB
from service.settings import Settings, variable

ADMIN = "/admin"

# Health, and pages: browsers send no keys for these, and they name no model.
OPEN = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"})

_ADMIN_FILE = variable("admin_keys_file")
_READING = frozenset({"GET", "HEAD"})
_BEARER = b"bearer "
_NEEDS = {
    Role.READ: "a key",
    Role.PREDICT: "a key that is not read-only",
    Role.ADMIN: "an admin key",
}


class Doorkeeper:
    """Lets requests in by their keys.

    Args:
        settings: of the process.

    Raises:
        SettingsError: a file of keys cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._api_keys = _key_file(settings.api_keys_file, Role.PREDICT)
        self._admin_keys = _key_file(settings.admin_keys_file, Role.ADMIN)
        self._rates = Rates()

    def refusal(self, exchange: Exchange, method: str, path: str, headers: Headers) -> RequestError | None:
        """Why a request is refused on its head alone, or None; the exchange learns its key.

        Args:
            exchange: of the request.
            method: in upper case.
            path: decoded, as routes are matched.
            headers: names in lower case.
        """
        if path == ADMIN or path.startswith(ADMIN + "/"):
            if self._admin_keys is None:
                return Forbidden(f"{ADMIN} is closed; it opens to the keys of a file that {_ADMIN_FILE} names")
            return self._unless_allowed(exchange, Role.ADMIN, headers)
        if self._api_keys is None or path in OPEN:
            return None
        if method in _READING:
            if path.startswith(WEB):
                return None
            return self._unless_allowed(exchange, Role.READ, headers)
        return self._unless_allowed(exchange, Role.PREDICT, headers) or self.rate_refusal(exchange)

    def rate_refusal(self, exchange: Exchange) -> RequestError | None:
        """Why the key of a request may not ask for anything now, or None."""
        return None if exchange.key is None else self._rates.refusal(exchange.key, exchange.started)

    def charge(self, exchange: Exchange, queries: int) -> None:
        """Count the queries of a request that was taken against the rate of its key."""
        if exchange.key is not None:
            self._rates.charge(exchange.key, queries, exchange.started)

    def _unless_allowed(self, exchange: Exchange, needed: Role, headers: Headers) -> RequestError | None:
        sent = _sent_key(headers)
        if sent is None:
            return KeyRequired(f"expected {_NEEDS[needed]} as Authorization: Bearer KEY or X-API-Key: KEY, found none")
        key = self._find(sent, exchange.started)
        if key is None:
            return KeyRequired(f"expected {_NEEDS[needed]}, found one that is not known")
        exchange.key = key
        if key.role < needed:
            return Forbidden(f"expected {_NEEDS[needed]}, found the key {key.name}")
        return None

    def _find(self, sent: bytes, now: float) -> Key | None:
        """The key with the larger role, if both files have it."""
        for file in (self._admin_keys, self._api_keys):
            if file is not None and (key := file.find(sent, now)) is not None:
                return key
        return None


def _key_file(path: Path | None, role: Role) -> KeyFile | None:
    return None if path is None else KeyFile(path, role)


def _sent_key(headers: Headers) -> bytes | None:
    """The key in the head of a request; X-API-Key goes before Authorization, which a proxy may have use for."""
    if (key := header(headers, b"x-api-key")) is not None:
        return key
    written = header(headers, b"authorization")
    if written is None or written[: len(_BEARER)].lower() != _BEARER:
        return None
    return written[len(_BEARER) :].strip()
