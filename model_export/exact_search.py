"""Exact inner-product search as files: vectors that can be mapped, and a graph that multiplies queries with them.

The graph is small: its large constant lies in a file of vectors, behind the header, so it may be of any size.

Letters: Q queries, D dimensions, N vectors, C leading coordinates.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from service.search.exact import QUERIES, SCORES
from service.search.leading import LEADING

# Gemm is as it is since version 13; the older the version, the more programs read it.
OPSET = 13
VECTORS, AXES = "vectors", "axes"


def write_exact_search(vectors_ND: NDArray[np.float32], vectors_path: Path, graph_path: Path) -> None:
    """Write both files, into one folder, as the graph names the other by its file name alone."""
    np.save(vectors_path, np.ascontiguousarray(vectors_ND, dtype=np.float32))
    _write(_graph([_product(QUERIES)], {SCORES: len(vectors_ND)}, vectors_ND.shape[1], vectors_path), graph_path)


def write_leading_search(
    leading_NC: NDArray[np.float32], axes_DC: NDArray[np.float32], leading_path: Path, graph_path: Path
) -> None:
    """Write a search by leading coordinates, see `service.search.leading`: theirs, and the graph.

    Args:
        leading_NC: of the vectors.
        axes_DC: to which they belong.
        leading_path: of the coordinates.
        graph_path: of the graph, in the same folder.
    """
    np.save(leading_path, np.ascontiguousarray(leading_NC, dtype=np.float32))
    nodes = [helper.make_node("MatMul", [QUERIES, AXES], [LEADING]), _product(LEADING)]
    (N, C), D = leading_NC.shape, len(axes_DC)
    axes = numpy_helper.from_array(np.ascontiguousarray(axes_DC, dtype=np.float32), AXES)
    _write(_graph(nodes, {SCORES: N, LEADING: C}, D, leading_path, axes), graph_path)


def _product(queries: str) -> NodeProto:
    return helper.make_node("Gemm", [queries, VECTORS], [SCORES], transB=1)


def _graph(
    nodes: list[NodeProto], outputs: dict[str, int], dimension: int, vectors_path: Path, *constants: TensorProto
) -> ModelProto:
    """Queries (Q, D) to outputs of some widths, with the vectors of an ``.npy`` file."""
    vectors = np.lib.format.open_memmap(vectors_path, mode="r")
    place = {"location": vectors_path.name, "offset": vectors.offset, "length": vectors.nbytes}
    constant = TensorProto(
        name=VECTORS, data_type=TensorProto.FLOAT, dims=vectors.shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in place.items():
        constant.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        nodes,
        "search",
        inputs=[helper.make_tensor_value_info(QUERIES, TensorProto.FLOAT, ["Q", dimension])],
        outputs=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["Q", width]) for name, width in outputs.items()
        ],
        initializer=[*constants, constant],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))


def _write(model: ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))
    checker.check_model(str(path))
