"""Behaviour of training that is left in inference: noise that is still drawn, batch statistics."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from keras_blocks.contract.sampling.samples import Sample
from keras_blocks.export.conversion.layer_probe import Probe, layer_scopes
from keras_blocks.export.onnx_io.graphs import nested_graphs
from keras_blocks.export.results.checks import Difference
from keras_blocks.export.results.comparison import compare
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.export.verification.diagnosis.first_difference import described
from keras_blocks.export.verification.diagnosis.graph_difference import layer_of
from keras_blocks.export.verification.keras_side import KerasRunner
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")
RANDOM_OPS = frozenset([*_RANDOM, "RandomNormalLike", "RandomUniformLike"])


def training_traces(file: onnx.ModelProto) -> list[tuple[onnx.NodeProto, str]]:
    """The nodes of a file that do something in training only, and what.

    Args:
        file: what is in the ONNX file, with or without its external data.
    """
    return [
        (node, what)
        for inner in nested_graphs(file.graph)
        for node in inner.node
        if (what := _in_training(node, inner)) is not None
    ]


def training_difference(
    proof: VerificationRun, file: onnx.ModelProto, failed: Sample
) -> Difference | None:
    """Why a file differs, if that is because of what belongs to training; else None.

    Args:
        proof: of the file, which failed.
        file: what is in the ONNX file.
        failed: the sample on which it did.
    """
    side = proof.keras
    first, second = (side.run(failed.feed, eager=True) for _ in range(2))
    if not _same(proof, first, second):
        layer = _random_layer(side, failed)
        where = described(side.model, layer) if layer else "the model"
        return Difference(
            f"The model gives other outputs each time, though it is called with training=False: "
            f"{where} draws random numbers. No file can equal it.",
            layer,
        )
    for node, what in training_traces(file):
        layer = layer_of(file.graph, node.name, layer_scopes(side.model, side.signature))
        where = f" in {described(side.model, layer)}" if layer else ""
        return Difference(
            f"The file holds what belongs to training{where}: node '{node.name}' "
            f"({node.op_type}) {what}.",
            layer,
        )
    return None


def computes_training(proof: VerificationRun, onnx_side: OnnxRunner, failed: Sample) -> bool:
    """Whether a file gives what the model gives with training=True.

    Args:
        proof: of the file.
        onnx_side: the file.
        failed: a sample on which it is not what the model gives in inference.
    """
    model, signature = proof.keras.model, proof.keras.signature
    arguments = signature.arguments([failed.feed[name] for name in proof.keras.names])
    weights = [
        [weight.value for weight in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    try:
        # Stateless, for moving averages must stay what they are.
        outputs, _ = model.stateless_call(
            *weights, *arguments.positional, **arguments.keywords, training=True
        )
        trained = [value.numpy() for value in signature.unpack(outputs)]
        found = onnx_side.run(failed.feed)
    except Exception:
        return False
    got = [found[tensor.name] for tensor in proof.outputs]
    inferred = proof.keras.run(failed.feed, eager=True)
    return _same(proof, trained, got) and not _same(proof, trained, inferred)


def _same(proof: VerificationRun, expected: list[np.ndarray], got: list[np.ndarray]) -> bool:
    pairs = zip(expected, got, strict=True)
    return all(compare(want, have, proof.tolerance).problem is None for want, have in pairs)


def _random_layer(side: KerasRunner, failed: Sample) -> str | None:
    """The first layer that gives other outputs in a second run."""
    probe = Probe(side.model)
    opened = KerasRunner(probe, side.signature)
    try:
        first, second = (opened.run(failed.feed, eager=True) for _ in range(2))
    except SampleRejectedError:
        return None
    for seen, one, other in zip(probe.seen, first, second, strict=True):
        if one.tobytes() != other.tobytes():
            return seen.layer
    return None


def _in_training(node: onnx.NodeProto, graph: onnx.GraphProto) -> str | None:
    """What a node does in training only, or None."""
    if node.op_type in RANDOM_OPS:
        return "draws random numbers in every run"
    if node.op_type == "Dropout" and len(node.input) > 2:
        off = {t.name for t in graph.initializer if not numpy_helper.to_array(t).any()}
        return None if node.input[2] in {"", *off} else "drops what it is given"
    modes = {a.name: a.i for a in node.attribute if a.name == "training_mode"}
    if node.op_type == "BatchNormalization" and modes.get("training_mode"):
        return "normalizes by the statistics of the batch"
    return None
