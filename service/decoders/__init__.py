"""The decoders by their short names, the same as in the manifest."""

from __future__ import annotations

import importlib
from typing import cast

from service.decoders.base import BundleDecoder

# Each is in the module of its name. A process loads that of its model alone: SciPy or FAISS would take as long to load
# as the rest of the service.
DECODERS = {
    "mach": "MachDecoder",
    "declare": "DeclareDecoder",
    "unidec": "UnidecDecoder",
    "ova": "OvaDecoder",
}


def decoder_class(method: str) -> type[BundleDecoder]:
    """The class of a method's decoders."""
    module = importlib.import_module(f"{__name__}.{method}")
    return cast(type[BundleDecoder], getattr(module, DECODERS[method]))
