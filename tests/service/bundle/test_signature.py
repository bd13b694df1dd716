from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.bundle import layout, open_bundle
from service.bundle.reader import MANIFEST_BYTES
from service.errors import BundleError
from tests.service.bundle.damage import change_manifest
from tests.service.serving import ask, running

Copy = Callable[..., Path]


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def public(file: Path, key: Ed25519PrivateKey) -> Path:
    file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return file


def sign(path: Path, key: Ed25519PrivateKey) -> None:
    (path / layout.SIGNATURE).write_bytes(key.sign((path / layout.MANIFEST).read_bytes()))


def test_one_of_the_keys_must_have_signed_it(copy: Copy, tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path, ours = copy(), public(tmp_path / "ours.pub", key)
    other = public(tmp_path / "other.pub", Ed25519PrivateKey.generate())
    sign(path, key)
    assert open_bundle(path, [ours]).manifest == open_bundle(path, [other, ours]).manifest == open_bundle(path).manifest
    with pytest.raises(
        BundleError, match=r"bundle .*: manifest.sig: expected a signature of manifest.json by other.pub, found another"
    ):
        open_bundle(path, [other])


def test_an_unsigned_bundle_is_refused_where_keys_are_given(copy: Copy, tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path = copy()
    with pytest.raises(BundleError, match=r"expected a signature in manifest\.sig, found: .*No such file"):
        open_bundle(path, [public(tmp_path / "ours.pub", key)])
    assert open_bundle(path)


def test_nothing_of_a_manifest_counts_before_its_signature(copy: Copy, tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path, ours = copy(), public(tmp_path / "ours.pub", key)
    sign(path, key)
    change_manifest(path, lambda content: content.update(schema_version=99))
    with pytest.raises(BundleError, match=r"by ours\.pub, found another"):
        open_bundle(path, [ours])
    (path / layout.MANIFEST).write_bytes(b"no JSON")
    with pytest.raises(BundleError, match=r"by ours\.pub, found another"):
        open_bundle(path, [ours])


def test_the_signature_covers_every_file(copy: Copy, tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path, ours = copy(), public(tmp_path / "ours.pub", key)
    sign(path, key)
    for file in sorted(set(path.iterdir()) - {path / layout.MANIFEST, path / layout.SIGNATURE}):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BundleError, match=f"{file.name}: expected sha256"):
            open_bundle(path, [ours])
        file.write_bytes(content)
    assert open_bundle(path, [ours])


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_has_its_size(copy: Copy, tmp_path: Path, key: Ed25519PrivateKey, length: int) -> None:
    path = copy()
    (path / layout.SIGNATURE).write_bytes(bytes(length))
    with pytest.raises(BundleError, match=r"manifest\.sig.*found"):
        open_bundle(path, [public(tmp_path / "ours.pub", key)])


def test_a_file_that_is_no_public_key_is_named(copy: Copy, tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path = copy()
    sign(path, key)
    (tmp_path / "empty.pub").touch()
    elliptic = generate_private_key(SECP256R1()).public_key()
    (tmp_path / "elliptic.pub").write_bytes(elliptic.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for name, sentence in (
        ("nothing.pub", "nothing.pub: expected a public key in PEM, found: .*No such file"),
        ("empty.pub", "empty.pub: expected a public key in PEM, found: "),
        ("elliptic.pub", "elliptic.pub: expected an Ed25519 key, found EC"),
    ):
        with pytest.raises(BundleError, match=sentence):
            open_bundle(path, [tmp_path / name])


def test_without_the_extra_a_sentence_says_what_is_missing(
    copy: Copy, tmp_path: Path, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ours = copy(), public(tmp_path / "ours.pub", key)
    sign(path, key)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(BundleError, match="install the extra 'signing'"):
        open_bundle(path, [ours])


@pytest.mark.parametrize("name", [layout.MANIFEST, layout.SIGNATURE])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large"])
def test_what_is_read_whole_is_a_file_of_its_size(
    copy: Copy, tmp_path: Path, key: Ed25519PrivateKey, name: str, kind: str
) -> None:
    path, ours = copy(), public(tmp_path / "ours.pub", key)
    sign(path, key)
    file = path / name
    content = file.read_bytes()
    file.unlink()
    match kind:
        case "link":
            (tmp_path / "outside").write_bytes(content)
            file.symlink_to(tmp_path / "outside")
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "large":
            with file.open("wb") as stream:
                stream.truncate(MANIFEST_BYTES + 1)
    with pytest.raises(BundleError, match=f"{name}, found: "):
        open_bundle(path, [ours])


def test_a_server_serves_what_was_signed_and_nothing_else(copy: Copy, tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path, ours = copy(), public(tmp_path / "ours.pub", key)
    sign(path, key)
    with running("--bundle", path, "--bundle-key", ours) as process:
        assert ask(process.port)[0] == 200
    other = public(tmp_path / "other.pub", Ed25519PrivateKey.generate())
    with running("--bundle", path, "--bundle-key", other, until="expected a signature") as process:
        assert process.wait() == 1
