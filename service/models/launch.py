"""Starting the process that computes for a model, and what both sides say before the first query.

Nothing here loads the libraries that compute: the process that speaks HTTP needs none of them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Protocol

from service.batching.channel import Connection, SharedCount
from service.batching.queueing import Limits
from service.bundle.manifest import Manifest
from service.errors import BundleError
from service.settings import Settings

_PROGRAM = "from service.models.worker import main; main({end}, {proposals}, {left}, {log_format!r})"
_EXIT_SECONDS = 10


class Order(NamedTuple):
    """The first message to a worker: which bundle to open, and how.

    Attributes:
        path: of the bundle.
        settings: of the process.
        application: of Ray Serve that has the bundle's shards; None: it has none yet, where there shall be one.
    """

    path: Path
    settings: Settings
    application: str | None = None


class Loaded(NamedTuple):
    """The worker's answer when its model can be asked.

    Attributes:
        manifest: of the bundle.
        device: "cpu" or "cuda", as resolved.
        providers: ONNX Runtime's execution providers, first choice first.
        limits: of its batcher.
    """

    manifest: Manifest
    device: str
    providers: list[str]
    limits: Limits


class Process(Protocol):
    """What is needed of a running process; `subprocess.Popen` is one."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and give its exit code."""

    def kill(self) -> None:
        """End it."""


class Launched(NamedTuple):
    """A worker that has its order.

    Attributes:
        order: that it has.
        end: of the connection to it.
        proposals: of the connection on which its labels are changed.
        left: what its batcher counts.
        process: that it is.
        since: second of `time.perf_counter` at which it was started.
    """

    order: Order
    end: socket.socket
    proposals: socket.socket
    left: SharedCount
    process: Process
    since: float

    def wait_until_loaded(self) -> Loaded:
        """What it has loaded.

        Raises:
            BundleError: what it found against the bundle, or that it ended without a word.
        """
        # By a descriptor of its own: `abandon`, on another thread, closes the first one, whose number then becomes that
        # of something else, for which one could wait for ever.
        with self.end.dup() as end:
            answer = Connection(end).receive_one()
        if answer is None:
            code = self.process.wait()
            path = self.order.path
            raise BundleError(f"{path}: the process that loads it ended with code {code}; its log may have the cause")
        if isinstance(answer, BundleError):
            raise answer
        assert isinstance(answer, Loaded)
        return answer

    def abandon(self) -> None:
        """End a worker that is not wanted, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.end.close()
        self.proposals.close()

    def end_process(self) -> None:
        """Wait for the worker's end, which comes when the connection is closed; make it come if it does not."""
        try:
            self.process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.proposals.close()


def launch(order: Order) -> Launched:
    """Start a worker in a process of its own."""
    since = time.perf_counter()
    ours, theirs = socket.socketpair()
    our_proposals, their_proposals = socket.socketpair()
    left = os.memfd_create("xmcserve-left")
    os.truncate(left, SharedCount.BYTES)
    descriptors = {"end": theirs.fileno(), "proposals": their_proposals.fileno(), "left": left}
    program = _PROGRAM.format(**descriptors, log_format=order.settings.log_format)
    with theirs, their_proposals:
        process = start_process(program, *descriptors.values())
    count = SharedCount(left)
    os.close(left)
    Connection(ours).send(order)
    return Launched(order, ours, our_proposals, count, process, since)


def start_process(program: str, *descriptors: int) -> subprocess.Popen[bytes]:
    """Start this program anew, in a process that runs some statements.

    Args:
        program: the statements.
        descriptors: that it has under the same numbers.
    """
    # Not -m, which would look for the package in the current folder first.
    program = f"import sys; sys.path[:] = {sys.path!r}; {program}"
    # In a session of its own, signals from a terminal do not reach it: its connection tells it when to end.
    return subprocess.Popen([sys.executable, "-c", program], pass_fds=descriptors, start_new_session=True)
