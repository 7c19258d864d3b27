"""Where a file that failed the proof departs from its model.

Does a fresh export go wrong too? Then the conversion is at fault, and running it layer by layer
shows the first layer. If not, the file is not what this model gives now, and its graph is compared
with the fresh one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.comparison import TOLERANCES, compare, compute_dtype
from keras_blocks.export.convert import to_onnx
from keras_blocks.export.execution import KerasSide, OnnxSide, RefusedError, first_line
from keras_blocks.export.graph_difference import GraphWalk, layer_of
from keras_blocks.export.hooks import Call, replaced_calls
from keras_blocks.export.probe import Probe, probe_signature
from keras_blocks.export.report import Difference
from keras_blocks.export.signature import Signature, trace


def find_first_difference(
    model: keras.Model,
    signature: Signature,
    filepath: Path,
    feed: dict[str, np.ndarray],
    agrees: Callable[[OnnxSide], bool],
) -> Difference:
    """The first layer or node of a file that is not as the model has it.

    Args:
        model: the Keras model.
        signature: its signature.
        filepath: the ONNX file.
        feed: flat inputs on which the two differ.
        agrees: whether another ONNX model agrees with Keras on these inputs.
    """
    file = onnx.load(str(filepath))
    opset = next((o.version for o in file.opset_import if o.domain in ("", "ai.onnx")), 0)
    try:
        fresh = to_onnx(model, signature, opset)
        if agrees(OnnxSide(fresh.SerializeToString())):
            altered = _first_alteration(model, signature, fresh, file)
            return altered or Difference("A fresh export of the same graph is right.")
        differs = _first_layer(model, signature, opset, feed)
    except (ExportError, RefusedError) as error:
        return Difference(f"Where the difference begins could not be found: {first_line(error)}.")
    return differs or Difference("Each layer on its own gives what Keras gives.")


def _first_layer(
    model: keras.Model, signature: Signature, opset: int, feed: dict[str, np.ndarray]
) -> Difference | None:
    """The first layer whose output differs in a fresh export that gives every layer's output."""
    probe = Probe(model)
    exported = to_onnx(probe, probe_signature(probe, signature), opset)
    try:
        values = OnnxSide(exported.SerializeToString()).run(feed)
    except RefusedError as error:
        return _failed_node(model, probe, signature, exported, str(error))
    got = dict(zip(probe.seen, values.values(), strict=True))
    calls_in_onnx = dict(probe.calls)
    given = KerasSide(probe, signature).run(feed, eager=True)
    expected = dict(zip(probe.seen, given, strict=True))
    tolerance = TOLERANCES[compute_dtype(model)]
    for seen, value in got.items():
        # A lowering may call a layer once where Keras calls it at every step.
        if seen not in expected or calls_in_onnx[seen.layer] != probe.calls[seen.layer]:
            continue
        found = compare(expected[seen], value, tolerance)
        if found.problem is not None:
            where = _described(model, seen.layer)
            return Difference(
                f"The first layer that differs is {where}: {found.problem}.", seen.layer
            )
    return None


def _first_alteration(
    model: keras.Model, signature: Signature, fresh: onnx.ModelProto, file: onnx.ModelProto
) -> Difference | None:
    alterations = GraphWalk(fresh, file).alterations
    if not alterations:
        return None
    first = alterations[0]
    layer = layer_of(fresh.graph, first.node, _scopes(model, signature), first.position)
    where = f"in {_described(model, layer)}" if layer else "in no layer that can be named"
    return Difference(
        "The model exports right today, so this file was altered, or made from other weights. "
        f"The first difference is {where}: node '{first.node}' {first.message}.",
        layer,
    )


def _failed_node(
    model: keras.Model,
    probe: Probe,
    signature: Signature,
    exported: onnx.ModelProto,
    reason: str,
) -> Difference:
    named = re.search(r"Name:'([^']*)'", reason)
    layer = layer_of(exported.graph, named[1], _scopes(probe, signature)) if named else None
    where = f"in {_described(model, layer)}" if layer else "before any layer can be compared"
    return Difference(f"A fresh export fails {where}: {reason}.", layer)


def _described(model: keras.Model, layer: str) -> str:
    found: Any = {known.name: known for known in model._flatten_layers()}.get(layer)
    return f"layer '{layer}'" + (f" ({type(found).__name__})" if found is not None else "")


def _scopes(model: keras.Model, signature: Signature) -> dict[str, str]:
    """The name scope in which each layer is traced; the nodes of an export begin with it."""
    scopes: dict[str, str] = {}

    def noting(layer: keras.layers.Layer) -> Call:
        call = layer.call

        def noted(*args: Any, **kwargs: Any) -> Any:
            scopes.setdefault(tf.compat.v1.get_default_graph().get_name_scope(), layer.name)
            return call(*args, **kwargs)

        return noted

    def run(*flat: tf.Tensor) -> list[tf.Tensor]:
        return signature.unpack(model(*signature.arguments(flat), training=False))

    with replaced_calls(model, noting):
        trace(run, signature.specs())
    return scopes
