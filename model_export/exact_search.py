"""Exact inner-product search as two files: vectors that can be mapped, and a graph that multiplies queries with them.

The graph is a few hundred bytes: its constant lies in the file of vectors, behind the header, so it may be of any size.

Letters: Q queries, D dimensions, N vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper

from service.exact import QUERIES, SCORES

# Gemm is as it is since version 13; the older the version, the more programs read it.
OPSET = 13
VECTORS = "vectors"


def write_exact_search(vectors_ND: NDArray[np.float32], vectors_path: Path, graph_path: Path) -> None:
    """Write both files, into one folder, as the graph names the other by its file name alone."""
    np.save(vectors_path, np.ascontiguousarray(vectors_ND, dtype=np.float32))
    graph_path.write_bytes(_search_graph(vectors_path).SerializeToString(deterministic=True))
    checker.check_model(str(graph_path))


def _search_graph(vectors_path: Path) -> ModelProto:
    """Queries (Q, D) times the vectors of an ``.npy`` file, (N, D), to scores (Q, N)."""
    vectors_ND = np.lib.format.open_memmap(vectors_path, mode="r")
    N, D = vectors_ND.shape
    place = {"location": vectors_path.name, "offset": vectors_ND.offset, "length": vectors_ND.nbytes}
    vectors = TensorProto(name=VECTORS, data_type=TensorProto.FLOAT, dims=(N, D), data_location=TensorProto.EXTERNAL)
    for key, value in place.items():
        vectors.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [helper.make_node("Gemm", [QUERIES, VECTORS], [SCORES], transB=1)],
        "search",
        inputs=[helper.make_tensor_value_info(QUERIES, TensorProto.FLOAT, ["Q", D])],
        outputs=[helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["Q", N])],
        initializer=[vectors],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
