"""The errors that `xmc-export` turns into one sentence and an exit code."""

from __future__ import annotations


class ExportError(Exception):
    """An artifact cannot become a bundle, or a bundle does not do what its artifact does: exit code 1."""


class UsageError(Exception):
    """Options contradict each other or the artifact: exit code 2."""
