"""Lookups in tables of numbers (IntegerLookup, `tf.lookup`) as ONNX's LabelEncoder.

TensorFlow keeps a table outside of the graph, as a resource. What it holds is read here, once, and
goes into the node that looks it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.graphs import set_all
from keras_blocks.export.tracing.stand_ins import STAND_IN_OP, OnnxNode

_LOOKUP = "LookupTableFindV2"
_SUFFIXES = {"i": "int64s", "f": "floats"}


def replace_lookups(graph_def: Any, tables: Mapping[str, tf.Tensor]) -> dict[str, OnnxNode]:
    """Puts stand-ins in place of the lookups, and gives what they stand for by token.

    Args:
        graph_def: the frozen graph.
        tables: the handles by the names of the nodes that stand for them there.

    Raises:
        ExportError: a table is used in another way.
    """
    if not tables:
        return {}
    nodes = {node.name: node for node in graph_def.node}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    found: dict[str, OnnxNode] = {}
    kept = []
    for node in graph_def.node:
        if node.name in tables:
            continue
        table = tables.get(_source(node.input[0])) if node.op == _LOOKUP else None
        if table is None:
            kept.append(node)
            continue
        found[node.name] = _label_encoder(node, table, nodes[_source(node.input[2])])
        keys, _, index = node.input[1].partition(":")
        kept += _stand_in(node, graph.get_tensor_by_name(f"{keys}:{index or 0}").shape.as_proto())
    used = {_source(name) for node in kept for name in node.input}
    _refuse(used.intersection(tables))
    set_all(graph_def.node, [_copied(node) for node in kept])
    return found


def _label_encoder(node: Any, table: tf.Tensor, default: Any) -> OnnxNode:
    keys_type, values_type = (tf.as_dtype(node.attr[name].type) for name in ("Tin", "Tout"))
    if default.op != "Const":
        _refuse({node.name})
    keys, values = tf.raw_ops.LookupTableExportV2(
        table_handle=table, Tkeys=keys_type, Tvalues=values_type
    )
    otherwise = tf.make_ndarray(default.attr["value"].tensor).astype(values_type.as_numpy_dtype)
    order = np.argsort(keys.numpy())  # TensorFlow's order is another in every process
    attributes = {
        **_listed("keys", keys.numpy()[order]),
        **_listed("values", values.numpy()[order]),
    }
    kind = _SUFFIXES[otherwise.dtype.kind].removesuffix("s")
    return OnnxNode(
        "LabelEncoder", (0,), {**attributes, f"default_{kind}": otherwise.item()}, "ai.onnx.ml"
    )


def _listed(name: str, values: np.ndarray) -> dict[str, list[Any]]:
    kind = values.dtype.kind
    wide = values.dtype in (np.int64, np.float32)
    if kind not in _SUFFIXES or not wide:
        raise ExportError(
            f"a lookup table has {name} of type {values.dtype}; ONNX's have int64 or float32"
        )
    return {f"{name}_{_SUFFIXES[kind]}": values.tolist()}


def _stand_in(node: Any, shape: Any) -> list[Any]:
    """The node that the conversion replaces, and one that keeps the shape of what it gives."""
    standing = _copied(node)
    standing.op, standing.name = STAND_IN_OP, f"{node.name}/lookup"
    standing.input[:] = [node.input[1]]
    for name in ("Tin", "Tout"):
        element = node.attr[name].type
        standing.attr[name].Clear()
        standing.attr[name].list.type.append(element)
    standing.attr["token"].s = node.name.encode()
    shaped = _copied(node)
    shaped.op, shaped.input[:] = "EnsureShape", [standing.name]
    shaped.attr["T"].type = node.attr["Tout"].type
    for name in ("Tin", "Tout"):
        del shaped.attr[name]
    shaped.attr["shape"].shape.CopyFrom(shape)
    return [standing, shaped]


def _refuse(names: set[str]) -> None:
    if names:
        raise ExportError(
            f"the model uses a resource ('{min(names)}') that has no ONNX form: a lookup table "
            "inside a loop or a branch, or one that is no table and no weight. Look keys up "
            "before the model."
        )


def _source(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]


def _copied(node: Any) -> Any:
    return type(node).FromString(node.SerializeToString())
