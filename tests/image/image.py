"""A stage of a Dockerfile that was built, and containers of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.image import machine
from tests.image.machine import Mount

# What pip is told by its user holds within a build, as an engine's settings for proxies do.
PASSED_ON = ("PIP_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class Layer:
    """What one instruction wrote.

    Attributes:
        files: folder of it, laid out from the root.
        made_by: the instruction.
        seconds: how long that took.
    """

    files: Path
    made_by: str
    seconds: float


@dataclass(frozen=True)
class Image:
    """A stage that was built.

    Attributes:
        layers: the lowest first; the first stands for the base image.
        variables: set by ENV, and the base's search path.
        arguments: values of the ARGs of the stage.
        labels: set by LABEL.
        folder: where commands start.
        user: numbers of user and group.
        shell: what RUN runs in.
        entrypoint: command that a container starts with.
        healthcheck: command that says whether it is well.
    """

    layers: tuple[Layer, ...]
    variables: Mapping[str, str]
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    folder: str = "/"
    user: str = "0:0"
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    entrypoint: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()

    def start(self, *arguments: str, mounts: Sequence[Mount] = ()) -> subprocess.Popen[str]:
        """Start a container whose root cannot be written, as the image's user, with its variables and no others."""
        command = [*self.entrypoint, *arguments]
        return machine.run(command, self.roots(), None, self.variables, self.folder, mounts, self.user)

    def execute(
        self, container: subprocess.Popen[str], *command: str, user: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container that was started, with further variables."""
        environment = {**self.variables, **variables}
        return machine.execute(container, command, environment, self.folder, user or self.user)

    def try_out(self, work: Path, *command: str, mounts: Sequence[Mount] = ()) -> str:
        """Run a command as root in a root that may be written, throw away what it wrote, and return what it printed.

        Raises:
            AssertionError: the command failed.
        """
        upper = upper_folder(work)
        process = machine.run(command, self.roots(), upper, self.build_variables(), self.folder, mounts)
        printed, _ = process.communicate()
        shutil.rmtree(upper)
        assert process.returncode == 0, printed
        return printed

    def roots(self) -> list[Path]:
        """Its layers' folders, the highest first."""
        return [layer.files for layer in reversed(self.layers)]

    def build_variables(self) -> dict[str, str]:
        """What instructions see that build on it."""
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        return {"HOME": "/root", **passed, **self.variables, **self.arguments}


def upper_folder(folder: Path) -> Path:
    """An empty folder for what is written, and one that the file system works in."""
    for name in ("files", "work"):
        (folder / name).mkdir(parents=True)
    return folder
