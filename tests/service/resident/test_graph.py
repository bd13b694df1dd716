from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from service.errors import BundleError
from tests.service.resident.devices import resident_search


def test_tables_that_find_no_room_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, by which the process that loads the bundle can end; the device's own words are long."""

    def refuse(*_: object) -> None:
        raise RuntimeError("Failed to allocate memory\nwith a stack")

    monkeypatch.setattr(onnxruntime, "OrtValue", type("OrtValue", (), {"ortvalue_from_numpy": refuse}))
    vectors = np.zeros((1_000_000, 16), dtype=np.float32)
    with pytest.raises(
        BundleError, match=r"device cpu: expected room for 0\.1 GB of tables, found: Failed to allocate memory$"
    ):
        resident_search(vectors, "cpu")
