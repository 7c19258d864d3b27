"""Small ONNX files made by hand, for the tests of serving: each computes something checkable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from keras_blocks.contract import METADATA_KEY, Contract, TensorSpec

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
tensor = helper.make_tensor_value_info
node = helper.make_node


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Sequence[Any] = (),
    contract: Contract | None = None,
    metadata: str | None = None,
) -> Path:
    """Writes a graph; its contract, or other text in its place, goes into the metadata."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(constants))
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="tests"
    )
    text = contract.to_json() if contract else metadata
    if text is not None:
        helper.set_model_props(model, {METADATA_KEY: text})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def constant(name: str, kind: int, shape: Sequence[int], values: Sequence[Any]) -> Any:
    return helper.make_tensor(name, kind, list(shape), list(values))


def double(path: Path) -> Path:
    """y = x + x, x is FP32 [batch, 3]; no contract."""
    shape = ["batch", 3]
    return save(
        path,
        [node("Add", ["x", "x"], ["y"])],
        [tensor("x", FLOAT, shape)],
        [tensor("y", FLOAT, shape)],
    )


def identity(path: Path, kind: int, shape: Sequence[Any] | None = ("batch",)) -> Path:
    """y = x in any dtype; no contract."""
    dims = None if shape is None else list(shape)
    return save(
        path,
        [node("Identity", ["x"], ["y"])],
        [tensor("x", kind, dims)],
        [tensor("y", kind, dims)],
    )


def add_bias(path: Path) -> Path:
    """y = x + bias, both share the dim `batch`: FP32 [batch, 2] and [batch, 1]; no contract."""
    return save(
        path,
        [node("Add", ["x", "bias"], ["y"]), node("Neg", ["x"], ["minus_x"])],
        [tensor("x", FLOAT, ["batch", 2]), tensor("bias", FLOAT, ["batch", 1])],
        [tensor("y", FLOAT, ["batch", 2]), tensor("minus_x", FLOAT, ["batch", 2])],
    )


def center(path: Path) -> Path:
    """y = x - mean of x over the rows: its dims say [batch, 3], but each row sees all others."""
    shape = ["batch", 3]
    return save(
        path,
        [
            node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
            node("Sub", ["x", "mean"], ["y"]),
        ],
        [tensor("x", FLOAT, shape)],
        [tensor("y", FLOAT, shape)],
        [constant("axes", INT64, [1], [0])],
    )


def quantized(path: Path) -> Path:
    """y = x in eight bits, by the largest and the smallest value of all rows."""
    return save(
        path,
        [
            node("DynamicQuantizeLinear", ["x"], ["bits", "scale", "zero"]),
            node("DequantizeLinear", ["bits", "scale", "zero"], ["y"]),
        ],
        [tensor("x", FLOAT, ["batch", 3])],
        [tensor("y", FLOAT, ["batch", 3])],
    )


def products(path: Path) -> Path:
    """y[i, j] = x[i] * x[j]: the rows count both axes."""
    return save(
        path,
        [node("Transpose", ["x"], ["across"]), node("MatMul", ["x", "across"], ["y"])],
        [tensor("x", FLOAT, ["batch", 1])],
        [tensor("y", FLOAT, ["batch", "batch"])],
    )


def column_sums(path: Path) -> Path:
    """y[j] = sum over i of x[i, j], both dims free: no rows and many columns cost memory."""
    return save(
        path,
        [node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [tensor("x", FLOAT, ["rows", "columns"])],
        [tensor("y", FLOAT, ["columns"])],
        [constant("axes", INT64, [1], [0])],
    )


def log(path: Path) -> Path:
    """y = log(x): NaN below zero, minus infinity at zero."""
    return save(
        path,
        [node("Log", ["x"], ["y"])],
        [tensor("x", FLOAT, ["n"])],
        [tensor("y", FLOAT, ["n"])],
    )


def gather(path: Path) -> Path:
    """A table of 3 rows without a contract: only onnxruntime knows that 7 is outside."""
    return save(
        path,
        [node("Gather", ["table", "x"], ["y"])],
        [tensor("x", INT64, ["n"])],
        [tensor("y", FLOAT, ["n", 2])],
        [constant("table", FLOAT, [3, 2], range(6))],
    )


def rows_of_four(path: Path) -> Path:
    """x in rows of four; only onnxruntime knows that six elements make no such rows."""
    return save(
        path,
        [node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x", FLOAT, ["n"])],
        [tensor("y", FLOAT, ["rows", 4])],
        [constant("shape", INT64, [2], [-1, 4])],
    )


def expand(path: Path) -> Path:
    """Zeros of any asked shape: as much memory as a client likes."""
    return save(
        path,
        [node("Expand", ["zero", "shape"], ["y"])],
        [tensor("shape", INT64, ["rank"])],
        [tensor("y", FLOAT, None)],
        [constant("zero", FLOAT, [1], [0.0])],
    )


def row_sums(path: Path) -> Path:
    """The sum of each ragged row of ids 0 to 9, with a contract: y[i] = sum(x[i])."""
    sums = [
        node("Concat", ["zero", "x"], ["padded"], axis=0),
        node("CumSum", ["padded", "axis"], ["running"]),
        node("Slice", ["x.row_splits", "one", "end"], ["ends"]),
        node("Slice", ["x.row_splits", "start", "minus_one"], ["starts"]),
        node("Gather", ["running", "ends"], ["upper"]),
        node("Gather", ["running", "starts"], ["lower"]),
        node("Sub", ["upper", "lower"], ["y"]),
    ]
    constants = [
        constant("zero", INT32, [1], [0]),
        constant("axis", INT64, [], [0]),
        constant("start", INT64, [1], [0]),
        constant("one", INT64, [1], [1]),
        constant("minus_one", INT64, [1], [-1]),
        constant("end", INT64, [1], [2**62]),
    ]
    contract = Contract(
        (TensorSpec("x", "int32", ("x.values",), ragged=True, minimum=0, maximum=9),),
        (TensorSpec("y", "int32", ("batch",)),),
    )
    return save(
        path,
        sums,
        [tensor("x", INT32, ["x.values"]), tensor("x.row_splits", INT64, ["batch+1"])],
        [tensor("y", INT32, ["batch"])],
        constants,
        contract,
    )


def steps(path: Path, op: str = "ReduceSum", padding: float | None = 0) -> Path:
    """y[i] = sum (or another reduction) over the steps of x, z = x + x; x is FP32 [batch, time, 2].

    The contract says that steps of zeros are masked, which is true of the sum alone.
    """
    shape = ("batch", "time", 2)
    contract = Contract(
        (TensorSpec("x", "float32", shape, padding=padding),),
        (TensorSpec("y", "float32", ("batch", 2)), TensorSpec("z", "float32", shape)),
    )
    return save(
        path,
        [node(op, ["x", "axes"], ["y"], keepdims=0), node("Add", ["x", "x"], ["z"])],
        [tensor("x", FLOAT, list(shape))],
        [tensor("y", FLOAT, ["batch", 2]), tensor("z", FLOAT, list(shape))],
        [constant("axes", INT64, [1], [1])],
        contract,
    )


def tree(path: Path) -> Path:
    """y = tokens + parents over the nodes of trees, ragged in and out, with a contract."""
    ragged = {"ragged": True}
    contract = Contract(
        (
            TensorSpec("tokens", "int32", ("tokens.values",), minimum=0, maximum=9, **ragged),
            TensorSpec("parents", "int32", ("parents.values",), tree_of="tokens", **ragged),
        ),
        (TensorSpec("y", "int32", ("y.values",), **ragged),),
    )
    flat = [*contract.flat_inputs(), *contract.flat_outputs()]
    kinds = {"int32": INT32, "int64": INT64}
    values = {t.name: tensor(t.name, kinds[t.dtype], t.shape) for t in flat}
    return save(
        path,
        [
            node("Add", ["tokens", "parents"], ["y"]),
            node("Identity", ["tokens.row_splits"], ["y.row_splits"]),
        ],
        [values[t.name] for t in contract.flat_inputs()],
        [values[t.name] for t in contract.flat_outputs()],
        contract=contract,
    )


def parse(path: Path) -> Path:
    """shown = words, placed = slots + parents: forests with words on their leaves and slots."""
    ragged = {"ragged": True}
    contract = Contract(
        (
            TensorSpec("slots", "int32", ("slots.values",), edges_of="parents", edge_labels=2,
                       siblings_differ=True, **ragged),
            TensorSpec("words", "int32", ("words.values",), leaves_of="parents", **ragged),
            TensorSpec("parents", "int32", ("parents.values",), tree_of="parents", max_children=2,
                       forest=True, **ragged),
        ),
        (
            TensorSpec("shown", "int32", ("words.values",), **ragged),
            TensorSpec("placed", "int32", ("parents.values",), **ragged),
        ),
    )  # fmt: skip
    kinds = {"int32": INT32, "int64": INT64}
    inputs, outputs = (
        [tensor(t.name, kinds[t.dtype], t.shape) for t in flat]
        for flat in (contract.flat_inputs(), contract.flat_outputs())
    )
    nodes = [
        node("Identity", ["words"], ["shown"]),
        node("Identity", ["words.row_splits"], ["shown.row_splits"]),
        node("Add", ["slots", "parents"], ["placed"]),
        node("Identity", ["parents.row_splits"], ["placed.row_splits"]),
    ]
    return save(path, nodes, inputs, outputs, contract=contract)


def slow(path: Path, more: int = 0) -> Path:
    """Squares a matrix `steps` times in a loop, and `more` times: as slow as asked."""
    body = helper.make_graph(
        [
            node("MatMul", ["m_in", "m_in"], ["m_out"]),
            node("Add", ["count_in", "one"], ["count_out"]),
            node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            tensor("i", INT64, []),
            tensor("go_in", TensorProto.BOOL, []),
            tensor("m_in", FLOAT, [256, 256]),
            tensor("count_in", INT64, []),
        ],
        [
            tensor("go_out", TensorProto.BOOL, []),
            tensor("m_out", FLOAT, [256, 256]),
            tensor("count_out", INT64, []),
        ],
        [constant("one", INT64, [], [1])],
    )
    return save(
        path,
        [
            node("Squeeze", ["steps"], ["asked"]),
            node("Add", ["asked", "more"], ["trips"]),
            node("Loop", ["trips", "go", "matrix", "zero"], ["last", "y"], body=body),
        ],
        [tensor("steps", INT64, [1])],
        [tensor("y", INT64, []), tensor("last", FLOAT, [256, 256])],
        [
            constant("go", TensorProto.BOOL, [], [True]),
            constant("zero", INT64, [], [0]),
            constant("more", INT64, [], [more]),
            constant("matrix", FLOAT, [256, 256], [0.001] * 65536),
        ],
    )


def recurrent(path: Path, op: str = "GRU", lengths: bool = False) -> Path:
    """A GRU or LSTM over x, FP32 [time, batch, 3], with or without `sequence_lens`."""
    gates, hidden = {"GRU": 3, "LSTM": 4}[op], 2
    inputs = [tensor("x", FLOAT, ["time", "batch", 3])]
    names = ["x", "W", "R"]
    if lengths:
        inputs.append(tensor("lengths", INT32, ["batch"]))
        names += ["", "lengths"]
    return save(
        path,
        [node(op, names, ["", "y"], hidden_size=hidden)],
        inputs,
        [tensor("y", FLOAT, [1, "batch", hidden])],
        [
            constant("W", FLOAT, [1, gates * hidden, 3], [0.5] * gates * hidden * 3),
            constant("R", FLOAT, [1, gates * hidden, hidden], [0.5] * gates * hidden * hidden),
        ],
    )
