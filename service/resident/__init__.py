"""Decoders whose tables lie in the memory of the device that encodes, searched there by graphs of the same runtime.

A query's vector never leaves the device: one runtime owns its memory, its stream and its kernels. Graphs are made when
a bundle is opened, out of the arrays that the CPU reads, so a bundle is the same for both.
"""

from __future__ import annotations

from service.bundle import Bundle
from service.bundle.manifest import MachSection
from service.bundle.searching import SearchSection
from service.decoders.base import Decoder
from service.resident.mach import SUMMED, ResidentMach
from service.resident.search import ResidentSearch


def resident_decoder(bundle: Bundle, device: str) -> Decoder | None:
    """The decoder on the device, or None where there is none for this bundle.

    There is none for DECLARE, for labels in an approximate index, and for MACH's "min" and "median".

    Args:
        bundle: a verified bundle.
        device: "cpu" or "cuda", in ONNX Runtime's words.
    """
    method = bundle.manifest.method
    if isinstance(method, SearchSection) and method.index.type == "flat":
        return ResidentSearch.from_bundle(bundle, method, device)
    if isinstance(method, MachSection) and method.aggregation in SUMMED:
        return ResidentMach.from_bundle(bundle, method, device)
    return None
