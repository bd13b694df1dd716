"""Keys that are made here sign what the service opens."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from model_export.cli import main
from service.bundle import layout, open_bundle
from service.errors import BundleError
from tests.bundles import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_bundle_that_was_signed_is_opened_with_the_public_key(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "other"):
        assert run("keygen", tmp_path / name) == 0
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600
    assert run("sign", bundle, "--key", tmp_path / "one") == 0
    assert f"signed {bundle}" in capsys.readouterr().out
    open_bundle(bundle, [tmp_path / "one.pub"])
    with pytest.raises(BundleError, match=r"by other\.pub, found another"):
        open_bundle(bundle, [tmp_path / "other.pub"])
    assert run("sign", bundle, "--key", tmp_path / "other") == 0
    open_bundle(bundle, [tmp_path / "other.pub"])
    assert run("verify", bundle, "--key", tmp_path / "one.pub", "--key", tmp_path / "other.pub") == 0
    assert run("verify", bundle, "--key", tmp_path / "one.pub") == 1
    assert "by one.pub, found another" in capsys.readouterr().err


def test_keys_are_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keygen", tmp_path / "key") == 0
    before = (tmp_path / "key").read_bytes()
    assert run("keygen", tmp_path / "key") == 2
    assert "expected no file yet, found one" in capsys.readouterr().err
    assert (tmp_path / "key").read_bytes() == before


def test_what_is_damaged_is_not_signed(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keygen", tmp_path / "key") == 0
    (bundle / layout.ENCODER).write_bytes(b"")
    assert run("sign", bundle, "--key", tmp_path / "key") == 1
    assert "encoder.onnx: expected" in capsys.readouterr().err
    assert not (bundle / layout.SIGNATURE).exists()


@pytest.mark.parametrize("kind", ["nothing", "public", "text"])
def test_what_is_no_private_key_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert run("keygen", tmp_path / "key") == 0
    if kind == "public":
        shutil.copy(tmp_path / "key.pub", tmp_path / kind)
    if kind == "text":
        (tmp_path / kind).write_text("none")
    assert run("sign", bundle, "--key", tmp_path / kind) == 2
    assert f"{kind}: expected a private key in PEM without a password, found: " in capsys.readouterr().err
