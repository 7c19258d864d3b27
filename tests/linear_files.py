"""ONNX files of a few products, made by hand, with weights that a test knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_files
from onnx import numpy_helper
from onnx_files import FLOAT, node, tensor

SIZE = 96  # 9216 weights: more than the 4096 from which on they are quantised


def weights(seed: int = 0, rows: int = SIZE, columns: int = SIZE) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(scale=rows**-0.5, size=(rows, columns)).astype("float32")


def product(path: Path, matrix: np.ndarray, *, names: tuple[str, str] = ("x", "y")) -> Path:
    """y = x @ matrix; no contract."""
    x, y = names
    rows, columns = matrix.shape
    return onnx_files.save(
        path,
        [node("MatMul", [x, "matrix"], [y], name="layer/MatMul")],
        [tensor(x, FLOAT, ["batch", rows])],
        [tensor(y, FLOAT, ["batch", columns])],
        [numpy_helper.from_array(matrix, "matrix")],
    )


def branches(path: Path, matrix: np.ndarray) -> Path:
    """y = x @ matrix if the sum of x is above 0, else relu(x @ matrix); both read one weight."""
    from onnx import helper

    rows, columns = matrix.shape
    shape = [tensor("t", FLOAT, ["batch", columns]), tensor("e", FLOAT, ["batch", columns])]
    then = helper.make_graph(
        [node("MatMul", ["x", "matrix"], ["t"], name="then/MatMul")], "then", [], shape[:1]
    )
    orelse = helper.make_graph(
        [
            node("MatMul", ["x", "matrix"], ["p"], name="else/MatMul"),
            node("Relu", ["p"], ["e"], name="else/Relu"),
        ],
        "else",
        [],
        shape[1:],
    )
    nodes = [
        node("ReduceSum", ["x"], ["sum"], name="sum", keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"], name="positive"),
        node("If", ["positive"], ["y"], name="if", then_branch=then, else_branch=orelse),
    ]
    return onnx_files.save(
        path,
        nodes,
        [tensor("x", FLOAT, ["batch", rows])],
        [tensor("y", FLOAT, ["batch", columns])],
        [
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
