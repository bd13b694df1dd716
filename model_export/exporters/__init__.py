"""The exporters by their short names, the same as in artifacts and manifests."""

from __future__ import annotations

from typing import Any

from model_export.exporters.base import Exporter
from model_export.exporters.declare import DeclareExporter
from model_export.exporters.mach import MachExporter
from model_export.exporters.ova import OvaExporter
from model_export.exporters.unidec import UnidecExporter

EXPORTERS: dict[str, type[Exporter[Any]]] = {
    "mach": MachExporter,
    "declare": DeclareExporter,
    "unidec": UnidecExporter,
    "ova": OvaExporter,
}
