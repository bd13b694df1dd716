"""A bundle in its place: verified and meant, or no change at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_export.cli import main as export
from service import cli
from service.bundle import layout
from service.errors import BundleError, SettingsError
from service.fetching import Fetched, fetch
from tests.service.fetching.archives import Shelf, contents, digest, order, packed, require_nothing


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("folder", ["", "tiny", "./tiny"])
def test_a_bundle_is_fetched_however_it_was_packed(
    shelf: Shelf, bundle: Path, into: Path, mode: str, folder: str
) -> None:
    shelf.archives["/packed"] = packed(bundle, mode, folder)
    found = fetch(order(shelf.url("/packed"), into))
    assert (found.manifest.name, found.sha256, found.is_new) == ("tiny", digest(bundle), True)
    assert contents(into) == contents(bundle)
    assert {file.name for file in into.parent.iterdir()} == {"tags", ".tags.lock"}


def test_a_file_is_an_address_too(bundle: Path, into: Path, tmp_path: Path) -> None:
    (tmp_path / "a bundle.tar").write_bytes(packed(bundle))
    assert fetch(order((tmp_path / "a bundle.tar").as_uri(), into)).is_new
    with pytest.raises(BundleError, match="No such file"):
        fetch(order((tmp_path / "none.tar").as_uri(), into))


def test_a_bundle_with_the_digest_is_not_fetched_again(shelf: Shelf, bundle: Path, into: Path) -> None:
    wanted = order(shelf.url("/tiny"), into, digest(bundle))
    assert [fetch(wanted).is_new for _ in range(3)] == [True, False, False]
    assert shelf.asked == ["/tiny"]


def test_a_bundle_that_is_there_needs_no_writable_folder(shelf: Shelf, bundle: Path, into: Path) -> None:
    shutil.copytree(bundle, into)
    (into.parent / ".tags.lock").mkdir()  # whoever were to write would fail, root too
    assert not fetch(order(shelf.url("/tiny"), into, digest(bundle))).is_new
    with pytest.raises(BundleError, match=r"expected a folder that can be written, found: .*Is a directory"):
        fetch(order(shelf.url("/tiny"), into))
    assert contents(into) == contents(bundle)


def test_a_damaged_bundle_is_fetched_again(shelf: Shelf, bundle: Path, into: Path) -> None:
    shutil.copytree(bundle, into)
    (into / layout.ENCODER).write_bytes(b"")
    assert fetch(order(shelf.url("/tiny"), into, digest(bundle))).is_new
    assert contents(into) == contents(bundle)


def test_without_a_digest_what_is_there_now_is_fetched(shelf: Shelf, bundle: Path, other: Path, into: Path) -> None:
    fetch(order(shelf.url("/tiny"), into))
    mapped = (into / layout.ENCODER).open("rb")
    assert fetch(order(shelf.url("/other"), into)).manifest.name == "other"
    assert contents(into) == contents(other)
    with mapped:
        assert mapped.read() == (bundle / layout.ENCODER).read_bytes()


def test_another_bundle_than_is_meant_changes_nothing(shelf: Shelf, bundle: Path, other: Path, into: Path) -> None:
    fetch(order(shelf.url("/tiny"), into))
    with pytest.raises(BundleError, match=rf"expected manifest.json with sha256 .*, found {digest(other)}"):
        fetch(order(shelf.url("/other"), into, "0" * 64))
    assert contents(into) == contents(bundle)


def test_a_signature_is_asked_for(shelf: Shelf, bundle: Path, into: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert export(["keygen", str(tmp_path / name)]) == 0
    keys = (tmp_path / "one.pub",)
    with pytest.raises(BundleError, match="expected a signature"):
        fetch(order(shelf.url("/tiny"), into, keys=keys))
    require_nothing(into)
    signed = tmp_path / "signed"
    shutil.copytree(bundle, signed)
    assert export(["sign", str(signed), "--key", str(tmp_path / "one")]) == 0
    shelf.archives["/signed"] = packed(signed)
    assert fetch(order(shelf.url("/signed"), into, keys=keys)).is_new
    with pytest.raises(BundleError, match=r"by two\.pub, found another"):
        fetch(order(shelf.url("/signed"), into, keys=(tmp_path / "two.pub",)))


def test_other_things_than_bundles_are_not_replaced(shelf: Shelf, into: Path) -> None:
    into.mkdir(parents=True)
    (into / "letters.txt").write_text("mine")
    with pytest.raises(BundleError, match="expected a bundle to replace, or nothing, found a folder of other files"):
        fetch(order(shelf.url("/tiny"), into))
    assert (into / "letters.txt").read_text() == "mine"
    shutil.rmtree(into)
    into.symlink_to(into.parent)
    with pytest.raises(BundleError, match="found a link or file"):
        fetch(order(shelf.url("/tiny"), into))
    assert shelf.asked == []
    into.unlink()
    into.mkdir()
    assert fetch(order(shelf.url("/tiny"), into)).is_new


def test_a_fetch_that_was_killed_leaves_nothing_in_the_way(shelf: Shelf, bundle: Path, into: Path) -> None:
    shelf.stall = True
    command = [sys.executable, "-m", "service.cli", "fetch", shelf.url("/tiny"), "--into", str(into)]
    with subprocess.Popen(command) as process:
        assert shelf.reached.wait(60)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not into.exists()
    shelf.stall = False
    assert fetch(order(shelf.url("/tiny"), into)).is_new
    assert contents(into) == contents(bundle)
    assert {file.name for file in into.parent.iterdir()} == {"tags", ".tags.lock"}


def test_a_fetch_that_was_killed_between_two_renames_is_undone(shelf: Shelf, bundle: Path, into: Path) -> None:
    shutil.copytree(bundle, into.parent / ".tags.old")
    with pytest.raises(BundleError, match="status 403"):
        fetch(order(shelf.url("/gone"), into))
    assert contents(into) == contents(bundle)
    assert not (into.parent / ".tags.old").exists()


def test_of_several_one_fetches_and_the_others_wait(shelf: Shelf, bundle: Path, into: Path) -> None:
    def one(_: int) -> Fetched:
        return fetch(order(shelf.url("/tiny"), into, digest(bundle)))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert sorted(each.is_new for each in found) == [False, False, False, True]
    assert shelf.asked == ["/tiny"]


@pytest.mark.parametrize(
    "url", ["ftp://host/x.tar", "models/tiny.tar", "http://host/a b", "http://host/\nx", "https://me:secret@host/x.tar"]
)
def test_an_address_is_one_of_three_kinds(url: str, into: Path) -> None:
    with pytest.raises(SettingsError, match="expected an address that begins with http://") as caught:
        order(url, into)
    assert "secret" not in str(caught.value)


def test_the_command_says_what_is_where(
    shelf: Shelf, bundle: Path, into: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fetch", shelf.url("/tiny"), "--into", str(into), "--sha256", digest(bundle)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"tiny:{fetch(order(shelf.url('/tiny'), into, digest(bundle))).manifest.version} is in {into}",
        f"  manifest   sha256 {digest(bundle)}",
    ]
    assert cli.main(command) == 0
    assert f"is in {into} already" in capsys.readouterr().out


def test_every_option_of_the_command_counts(
    shelf: Shelf, into: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fetch", shelf.url("/tiny"), "--into", str(into)]
    assert export(["keygen", str(tmp_path / "key")]) == 0
    for options, code, message in (
        (["--sha256", "0" * 64], 1, "expected manifest.json with sha256 000"),
        (["--sha256", "many"], 2, "--sha256 must be 64 digits"),
        (["--key", str(tmp_path / "key.pub")], 1, "expected a signature"),
        (["--max-bytes", "1000"], 1, "expected an archive of at most 1000 bytes"),
    ):
        assert cli.main([*command, *options]) == code
        assert message in capsys.readouterr().err
    assert not into.exists()
    assert os.listdir(into.parent) == [".tags.lock"]  # noqa: PTH208
