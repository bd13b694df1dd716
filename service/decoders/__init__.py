"""The decoders by their short names, the same as in the manifest."""

from __future__ import annotations

from service.decoders.base import BundleDecoder
from service.decoders.declare import DeclareDecoder
from service.decoders.mach import MachDecoder
from service.decoders.ova import OvaDecoder
from service.decoders.unidec import UnidecDecoder

DECODERS: dict[str, type[BundleDecoder]] = {
    "mach": MachDecoder,
    "declare": DeclareDecoder,
    "unidec": UnidecDecoder,
    "ova": OvaDecoder,
}
