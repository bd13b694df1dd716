from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export.exact_search import write_exact_search
from service.bundle import layout, open_bundle
from service.bundle.searching import IndexType
from service.decoders.unidec import UnidecDecoder
from service.errors import BundleError
from tests.bundles import Spec, resign, write_bundle
from tests.reference import assert_best

# What 8 bits of a coordinate may change a score by.
CODED = 0.02


def test_the_best_labels_have_the_largest_inner_products(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "bundle", Spec(method="unidec"))
    decoder = UnidecDecoder.from_bundle(open_bundle(tmp_path / "bundle"), threads=1)
    assert decoder.required_outputs == {"query": (8,)}
    queries = np.random.default_rng(0).standard_normal((25, 8)).astype(np.float32)
    top = decoder.decode({"query": queries}, 6)
    assert_best(top, queries.astype(float) @ model.tables["vectors"].T.astype(float), 6)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_indexes_give_every_label_when_asked_for_all(tmp_path: Path, kind: IndexType) -> None:
    model = write_bundle(tmp_path / "bundle", Spec(method="unidec", index=kind))
    decoder = UnidecDecoder.from_bundle(open_bundle(tmp_path / "bundle"), threads=1)
    queries = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    top = decoder.decode({"query": queries}, 100)
    assert_best(top, queries.astype(float) @ model.tables["vectors"].T.astype(float), 40, CODED)


def test_an_index_of_another_size_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(method="unidec", index="hnsw"))
    write_bundle(tmp_path / "other", Spec(method="unidec", index="hnsw", label_count=41))
    (tmp_path / "other" / layout.LABEL_INDEX).rename(tmp_path / "bundle" / layout.LABEL_INDEX)
    resign(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"labels\.faiss: expected .* 8, 40\), found .* 8, 41\)"):
        UnidecDecoder.from_bundle(open_bundle(tmp_path / "bundle"), threads=1)


def test_a_search_of_another_size_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(method="unidec"))
    write_exact_search(np.ones((39, 8), dtype=np.float32), tmp_path / layout.LABEL_VECTORS, tmp_path / "graph.onnx")
    (tmp_path / "graph.onnx").rename(tmp_path / "bundle" / layout.LABEL_SEARCH)
    resign(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"labels\.search\.onnx: expected .* \['Q', 40\], found .* \['Q', 39\]"):
        UnidecDecoder.from_bundle(open_bundle(tmp_path / "bundle"), threads=1)
