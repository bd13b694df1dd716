"""The bundle: the folder that export writes and the service opens. This package owns its format.

``manifest`` is the strict model of ``manifest.json``, ``layout`` the table of the other files, ``reader`` opens and
verifies, ``files`` holds what a writer needs to describe files so that the reader accepts them.
"""

from __future__ import annotations

from service.bundle.files import content_version, file_entry
from service.bundle.labels import LabelTable, encode_labels, write_labels
from service.bundle.manifest import Manifest
from service.bundle.reader import Bundle, load_bundle, open_bundle

__all__ = [
    "Bundle",
    "LabelTable",
    "Manifest",
    "content_version",
    "encode_labels",
    "file_entry",
    "load_bundle",
    "open_bundle",
    "write_labels",
]
