from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.image.builder import Builder

ROOT = Path(__file__).parents[2]
# Takes a minute or two of both processors; that compiled kernels are those that a server calls, and are read from
# where it may not write, tests/service/test_kernels.py holds. The benchmark of the images' sizes carries it out.
COMPILE_KERNELS = "/opt/xmc/bin/python -m service.kernels"


class Yard:
    """Where the service's image is built, for all processes that run tests: one builds, the others wait.

    The last that leaves takes the half gigabyte away.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.lock = FileLock(folder / "lock")

    def enter(self) -> None:
        with self.lock:
            (self._folder / f"user-{os.getpid()}").touch()

    def leave(self) -> None:
        with self.lock:
            (self._folder / f"user-{os.getpid()}").unlink()
            if not list(self._folder.glob("user-*")):
                shutil.rmtree(self._folder / "layers", ignore_errors=True)

    def builder(self, **arguments: str) -> Builder:
        """A builder of the CPU's image; hold the lock while it builds."""
        file = ROOT / "docker" / "service.Dockerfile"
        return Builder(file, ROOT, self._folder / "layers", arguments, left_out=[COMPILE_KERNELS])


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    base = tmp_path_factory.getbasetemp()
    place = Yard((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "image")
    place.enter()
    yield place
    place.leave()
