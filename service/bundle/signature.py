"""Signatures of bundles: Ed25519 over the bytes of the manifest, which holds the SHA-256 of every other file.

So ``openssl pkeyutl -verify -rawin -pubin -inkey KEY.pub -in manifest.json -sigfile manifest.sig`` says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.bundle import layout
from service.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_BYTES = 64


def check_signature(manifest: bytes, signature: bytes, keys: Sequence[Path]) -> None:
    """Hold a manifest against its signature.

    Args:
        manifest: its bytes.
        signature: what lies beside it.
        keys: files of public keys in PEM, one of which must have signed it.

    Raises:
        BundleError: none of them has, or a key cannot be read.
    """
    try:
        from cryptography.exceptions import InvalidSignature
    except ModuleNotFoundError as error:
        raise BundleError("signatures are checked with cryptography: install the extra 'signing'") from error
    for key in [read_public_key(file) for file in keys]:
        try:
            key.verify(signature, manifest)
        except InvalidSignature:
            continue
        return
    names = ", ".join(file.name for file in keys)
    raise BundleError(f"{layout.SIGNATURE}: expected a signature of {layout.MANIFEST} by {names}, found another")


def read_public_key(file: Path) -> Ed25519PublicKey:
    """A public key of a file in PEM.

    Raises:
        BundleError: it cannot be read, or is none of Ed25519.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{file}: expected a public key in PEM, found: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{file}: expected an Ed25519 key, found {type(key).__name__}")
    return key
