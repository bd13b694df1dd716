"""Ports: whether a server could listen on them, and who does."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, note, ok
from service.doctor.listeners import Listener, find_listener
from service.settings import variable

NAMES = ("port", "metrics_port", "grpc_port")


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    for name in NAMES:
        port: int | None = getattr(context.settings, name)
        if port is not None:
            yield _port(name, context.settings.host, port)


def _port(name: str, host: str, port: int) -> Finding:
    subject = f"{variable(name)} {host}:{port}"
    try:
        _listen(host, port)
    except socket.gaierror as error:
        advice = f"set {variable('host')} to an address of this machine, or 0.0.0.0 for all"
        return fault(subject, f"expected an address, found {host}: {error.strerror}", advice)
    except OSError as error:
        return _refused(subject, name, port, error)
    return ok(subject, "any free port" if port == 0 else "free")


def _listen(host: str, port: int) -> None:
    """Listen for a moment, as uvloop does: on all addresses that the name has, in the families that the kernel has."""
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in infos:
        try:
            listener = socket.socket(family, kind, protocol)
        except OSError:
            continue
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen()


def _refused(subject: str, name: str, port: int, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        listener = find_listener(port)
        if listener is not None and _serves(listener):
            return note(
                subject, f"xmc-serve listens there: process {listener.pid}", "none, if that is the one you mean"
            )
        who = "another user's process" if listener is None else f"process {listener.pid}: {' '.join(listener.command)}"
        return fault(subject, f"in use by {who}", f"end it, or set {variable(name)} to a free port")
    if error.errno == errno.EACCES:
        return fault(subject, "this user may not listen there", f"set {variable(name)} to a port above 1023")
    return fault(subject, error.strerror or str(error), f"set {variable('host')} to an address of this machine")


def _serves(listener: Listener) -> bool:
    """Whether it is a server of ours, as where doctor looks at a container in which one runs."""
    words = [word.rpartition("/")[2] for word in listener.command]
    return "run" in words and bool({"xmc-serve", "service.cli"} & set(words))
