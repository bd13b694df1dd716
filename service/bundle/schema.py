"""The manifest's JSON schema, for programs in other languages; ``python -m service.bundle.schema`` prints it.

The printed text is kept in ``manifest.schema.json`` beside this file, and a test holds the two together.
"""

from __future__ import annotations

import json
import sys

from service.bundle.manifest import Manifest


def manifest_schema() -> str:
    """The schema as indented JSON text with a final newline."""
    return json.dumps(Manifest.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(manifest_schema())
