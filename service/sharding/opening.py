"""Opening the shards that a bundle names: those that it was cut into, and no others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from service.bundle import Bundle, layout, open_bundle
from service.bundle.files import read_whole
from service.bundle.reader import MANIFEST_BYTES
from service.bundle.shards import ShardEntry
from service.decoders import decoder_class
from service.decoders.base import Decoder
from service.errors import BundleError
from service.sharding.shards import LocalShards


def open_local(bundle: Bundle, *, threads: int) -> LocalShards:
    """Open all shards in this process.

    Args:
        bundle: a verified one that names shards, which lie beside it.
        threads: that one search may use.

    Raises:
        BundleError: a shard is not there, damaged or another one.
    """
    return LocalShards(
        [shard_decoder(open_shard(bundle.path, entry), threads=threads) for entry in bundle.manifest.shards]
    )


def shard_decoder(shard: Bundle, *, threads: int) -> Decoder:
    """What searches one shard.

    Args:
        shard: see `open_shard`.
        threads: that one search may use.

    Raises:
        BundleError: a file of it cannot be used.
    """
    return decoder_class(shard.manifest.method.name).from_bundle(shard, threads=threads)


def open_shard(path: Path, entry: ShardEntry) -> Bundle:
    """The verified bundle of one shard.

    Args:
        path: of the bundle that names it.
        entry: what it says of it.

    Raises:
        BundleError: see `open_local`.

    Signatures are not looked at: the digest in a signed manifest says as much.
    """
    folder = path.resolve().parent / entry.folder
    file = folder / layout.MANIFEST
    try:
        found = hashlib.sha256(read_whole(file, MANIFEST_BYTES)).hexdigest()
    except OSError as error:
        raise BundleError(f"bundle {path}: expected its shard {entry.folder} beside it, found: {error}") from error
    if found != entry.sha256:
        raise BundleError(f"{file}: expected sha256 {entry.sha256} as {path / layout.MANIFEST} says, found {found}")
    return open_bundle(folder)
