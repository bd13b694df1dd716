from __future__ import annotations

from pathlib import Path

import numpy as np

from service.bundle import open_bundle
from service.decoders.ova import OvaDecoder
from tests.bundles import Spec, write_bundle
from tests.reference import assert_best


def test_the_best_labels_have_the_largest_logits(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "bundle", Spec(method="ova"))
    decoder = OvaDecoder.from_bundle(open_bundle(tmp_path / "bundle"), threads=1)
    assert decoder.required_outputs == {"query": (8,)}
    queries = np.random.default_rng(0).standard_normal((25, 8)).astype(np.float32)
    top = decoder.decode({"query": queries}, 6)
    assert_best(top, queries.astype(float) @ model.tables["vectors"].T.astype(float), 6)
