"""Files of keys: what is in them, and whose they are."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from service.access.keys import Role, parse_keys
from service.doctor.context import Context
from service.doctor.findings import Finding, fault, note, ok
from service.errors import SettingsError
from service.settings import variable

ROLES = {"api_keys_file": Role.PREDICT, "admin_keys_file": Role.ADMIN}


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    for name, role in ROLES.items():
        path: Path | None = getattr(context.settings, name)
        if path is None:
            yield ok(variable(name), "not set: open to all" if role is Role.PREDICT else "not set: /admin is closed")
        else:
            yield _keys(variable(name), path, role)
    for path in context.settings.bundle_keys:
        yield _public(variable("bundle_keys"), path)


def _keys(name: str, path: Path, role: Role) -> Finding:
    subject = f"{name} {path}"
    try:
        keys = parse_keys(path.read_text(encoding="utf-8"), role)
    except (OSError, UnicodeDecodeError) as error:
        return fault(subject, f"expected a readable file of keys, found: {error}", _readable(path))
    except SettingsError as error:
        return fault(subject, str(error), "write the line that xmc-serve key NAME prints")
    return _mode(subject, path, f"keys: {', '.join(key.name for key in keys)}", is_public=False)


def _public(name: str, path: Path) -> Finding:
    from service.bundle.signature import read_public_key
    from service.errors import BundleError

    subject = f"{name} {path}"
    try:
        read_public_key(path)
    except ImportError as error:
        return fault(subject, f"signatures are checked with cryptography: {error}", "install the extra signing")
    except BundleError as error:
        return fault(subject, str(error), _readable(path))
    return _mode(subject, path, "an Ed25519 key", is_public=True)


def _mode(subject: str, path: Path, content: str, *, is_public: bool) -> Finding:
    """What others may do with the file, a mounted secret's as well, which is a link."""
    mode = path.stat().st_mode
    written = f"{content}; mode {stat.S_IMODE(mode):04o}"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return fault(subject, f"{written}: others may put their keys there", f"chmod go-w {path}")
    if mode & stat.S_IROTH and not is_public:
        advice = f"chmod o-r {path}; for a secret of Kubernetes set defaultMode: 0440 and fsGroup"
        return note(subject, f"{written}: all may read the names and hashes of keys, though no key", advice)
    return ok(subject, written)


def _readable(path: Path) -> str:
    return f"mount {path.name} where the server's user may read it"
