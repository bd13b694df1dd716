from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from service.access.keyfile import CHECK_SECONDS, KeyFile
from service.access.keys import Role, line_of
from service.errors import SettingsError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(line_of("one", "first", []))
    return path


def test_a_file_is_read_again_when_it_has_changed_and_not_before_its_time(path: Path) -> None:
    file = KeyFile(path, Role.PREDICT)
    now = time.monotonic()
    path.write_text(line_of("two", "second", []))
    assert file.find(b"first", now) is not None
    now += CHECK_SECONDS
    assert file.find(b"first", now) is None
    assert file.find(b"second", now) is not None


def test_a_link_may_be_put_elsewhere(path: Path, tmp_path: Path) -> None:
    """Kubernetes renews a mounted secret so."""
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(path)
    file = KeyFile(link, Role.PREDICT)
    other.write_text(line_of("one", "other", []))
    link.unlink()
    link.symlink_to(other)
    assert file.find(b"other", time.monotonic() + CHECK_SECONDS) is not None


@pytest.mark.parametrize("damage", ["truncated", "missing", "no text"])
def test_a_bad_file_leaves_the_keys_and_says_so_once(path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    file = KeyFile(path, Role.PREDICT)
    match damage:
        case "truncated":
            path.write_text("one sha256:00")
        case "missing":
            path.unlink()
        case "no text":
            path.write_bytes(b"\xff\xfe")
    for round_ in (1, 2):
        assert file.find(b"first", time.monotonic() + round_ * 2 * CHECK_SECONDS) is not None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "the keys stay as they were" in record.getMessage()
    assert str(path) in record.getMessage()
    path.write_text(line_of("two", "second", []))
    assert file.find(b"first", time.monotonic() + 6 * CHECK_SECONDS) is None


def test_at_the_start_a_bad_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing: expected a readable file of keys"):
        KeyFile(tmp_path / "nothing", Role.PREDICT)
    (tmp_path / "bad").write_text("\nx")
    with pytest.raises(SettingsError, match="bad: line 2: expected"):
        KeyFile(tmp_path / "bad", Role.PREDICT)
