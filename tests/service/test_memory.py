from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.memory import resident_bytes


def test_a_process_has_memory_until_it_has_ended() -> None:
    assert resident_bytes(os.getpid()) > 1 << 20
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert resident_bytes(process.pid) == 0


def test_a_process_may_end_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: Path) -> str:
        raise ProcessLookupError

    monkeypatch.setattr(Path, "read_text", end)
    assert resident_bytes(os.getpid()) == 0
