"""Where a file that failed the proof departs from its model.

Does a fresh export go wrong too? Then the conversion is at fault, and running it layer by layer
shows the first layer. If not, the file is not what this model gives now, and its graph is compared
with the fresh one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx

from keras_blocks.errors import ExportError
from keras_blocks.export.conversion.layer_probe import kind_of_layer, layer_scopes
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.passes.opset.newest import opset_of
from keras_blocks.export.results.checks import Difference
from keras_blocks.export.signature.signature import Signature
from keras_blocks.export.verification.diagnosis.graph_difference import GraphWalk, layer_of
from keras_blocks.export.verification.diagnosis.layer_errors import OpenModel
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError, first_line


def find_first_difference(
    model: keras.Model,
    signature: Signature,
    filepath: Path,
    feed: dict[str, np.ndarray],
    agrees: Callable[[OnnxRunner], bool],
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
    opset = opset_of(file)
    try:
        fresh = to_onnx(model, signature, opset)
        if agrees(OnnxRunner(fresh.SerializeToString())):
            altered = _first_alteration(model, signature, fresh, file)
            return altered or Difference("A fresh export of the same graph is right.")
        differs = _first_layer(model, signature, opset, feed)
    except (ExportError, SampleRejectedError) as error:
        return Difference(f"Where the difference begins could not be found: {first_line(error)}.")
    return differs or Difference("Each layer on its own gives what Keras gives.")


def _first_layer(
    model: keras.Model, signature: Signature, opset: int, feed: dict[str, np.ndarray]
) -> Difference | None:
    """The first layer whose output differs in a fresh export that gives every layer's output."""
    opened = OpenModel(model, signature, opset)
    try:
        checks = opened.layer_checks(feed)
    except SampleRejectedError as error:
        return _failed_node(opened, str(error))
    for check in checks:
        if not check.ok:
            where = described(model, check.layer)
            return Difference(
                f"The first layer that differs is {where}: {check.problem}.", check.layer
            )
    return None


def _first_alteration(
    model: keras.Model, signature: Signature, fresh: onnx.ModelProto, file: onnx.ModelProto
) -> Difference | None:
    alterations = GraphWalk(fresh, file).alterations
    if not alterations:
        return None
    first = alterations[0]
    layer = layer_of(fresh.graph, first.node, layer_scopes(model, signature), first.position)
    where = f"in {described(model, layer)}" if layer else "in no layer that can be named"
    return Difference(
        "The model exports right today, so this file was altered, or made from other weights. "
        f"The first difference is {where}: node '{first.node}' {first.message}.",
        layer,
    )


def _failed_node(opened: OpenModel, reason: str) -> Difference:
    named = re.search(r"Name:'([^']*)'", reason)
    scopes = layer_scopes(opened.probe, opened.signature)
    layer = layer_of(opened.exported.graph, named[1], scopes) if named else None
    where = f"in {described(opened.model, layer)}" if layer else "before any layer can be compared"
    return Difference(f"A fresh export fails {where}: {reason}.", layer)


def described(model: keras.Model, layer: str) -> str:
    """A layer by name and class."""
    kind = kind_of_layer(model, layer)
    return f"layer '{layer}'" + (f" ({kind})" if kind else "")
