"""Where a Ray cluster is, as `--ray` says it; for those who look without having Ray imported, too."""

from __future__ import annotations

import socket

LOCAL, AUTO = "local", "auto"
CONNECT_SECONDS = 5


def unreachable(address: str) -> str:
    """Why nothing can be had at ``HOST:PORT``, in words, or nothing where something listens."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        return str(error)
    return ""
