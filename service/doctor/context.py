"""What all checks start from: the settings that a server would have, and where it would run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.errors import SettingsError
from service.settings import Settings, salvage_settings


@dataclass(frozen=True)
class Context:
    """The circumstances of a server that is not started.

    Attributes:
        settings: that it would have, with defaults where they are wrong.
        errors: what is wrong with them.
        environment: the process's variables.
        root: of the file system that holds ``proc`` and ``sys``.
    """

    settings: Settings
    errors: tuple[SettingsError, ...]
    environment: Mapping[str, str]
    root: Path = Path("/")

    @classmethod
    def of(cls, flags: Mapping[str, str], environment: Mapping[str, str], root: Path = Path("/")) -> Context:
        """The circumstances of ``xmc-serve run`` with these flags and variables; see `load_settings`."""
        settings, errors = salvage_settings(flags, environment)
        return cls(settings, errors, environment, root)
