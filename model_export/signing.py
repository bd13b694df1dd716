"""Keys and signatures of bundles, see `service.bundle.signature`."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from model_export.errors import UsageError
from service.bundle import layout, open_bundle


def make_keys(private: Path, public: Path) -> None:
    """Write a new pair of keys in PEM; the private one is for its owner's eyes alone.

    Raises:
        UsageError: a file is there already.
    """
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_new(private, secret, mode=0o600)
    _write_new(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), mode=0o644)


def sign(bundle: Path, private: Path) -> None:
    """Sign a bundle in its place; a signature that is there is replaced.

    Raises:
        UsageError: the key cannot be read, or is of another kind.
        BundleError: the bundle is not whole.
    """
    key = _private_key(private)
    open_bundle(bundle)
    signature = key.sign((bundle / layout.MANIFEST).read_bytes())
    (bundle / layout.SIGNATURE).write_bytes(signature)


def _private_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{file}: expected a private key in PEM without a password, found: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{file}: expected an Ed25519 key, found {type(key).__name__}")
    return key


def _write_new(file: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise UsageError(f"{file}: expected no file yet, found one") from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
