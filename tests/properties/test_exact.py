"""Exact search against a product in float64, for vectors whose products need no rounding: ties and all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model_export.exact_search import write_exact_search
from model_export.leading import leading_of, write_leading
from service.bundle import layout
from service.search.exact import ExactSearch
from service.search.leading import LeadingSearch
from tests.reference import assert_exact

FEW_LEVELS = st.sampled_from([-2.0, -0.5, 0.0, 1.0, 3.0])
SIZES = {"queries": st.integers(1, 9), "vectors": st.integers(1, 70), "dimension": st.integers(1, 40)}


@settings(deadline=None)  # files are written and sessions opened
@given(data=st.data(), k=st.integers(1, 80), threads=st.integers(1, 2), **SIZES)
def test_exact_search(data: st.DataObject, k: int, threads: int, queries: int, vectors: int, dimension: int) -> None:
    queries_QD = data.draw(hnp.arrays(np.float32, (queries, dimension), elements=FEW_LEVELS))
    vectors_ND = data.draw(hnp.arrays(np.float32, (vectors, dimension), elements=FEW_LEVELS))
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "search.onnx"
        write_exact_search(vectors_ND, graph.with_name("vectors.npy"), graph)
        top = ExactSearch.open(graph, dimension=dimension, size=vectors, threads=threads).search(queries_QD, k)
    assert_exact(top, queries_QD.astype(np.float64) @ vectors_ND.T.astype(np.float64), k)


@settings(deadline=None)  # as above
@given(data=st.data(), k=st.integers(1, 80), **SIZES)
def test_leading_search(data: st.DataObject, k: int, queries: int, vectors: int, dimension: int) -> None:
    """By any number of leading coordinates, which are rounded: the whole products are not."""
    queries_QD = data.draw(hnp.arrays(np.float32, (queries, dimension), elements=FEW_LEVELS))
    vectors_LD = data.draw(hnp.arrays(np.float32, (vectors, dimension), elements=FEW_LEVELS))
    leading = leading_of(vectors_LD, data.draw(st.integers(1, dimension)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_leading(folder, vectors_LD, leading)
        search = LeadingSearch.open(
            folder / layout.LABEL_SEARCH, vectors_LD, leading.rests_L, leading=leading.axes_DC.shape[1], threads=1
        )
        top = search.search(queries_QD, k)
    assert_exact(top, queries_QD.astype(np.float64) @ vectors_LD.T.astype(np.float64), k)
