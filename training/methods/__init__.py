"""The training methods by their short names, which artifacts, bundles and commands use."""

from __future__ import annotations

from training.methods.base import Model
from training.methods.declare import Declare
from training.methods.mach import Mach
from training.methods.ova import Ova
from training.methods.unidec import Unidec

METHODS: dict[str, type[Model]] = {
    "mach": Mach,
    "declare": Declare,
    "unidec": Unidec,
    "ova": Ova,
}
