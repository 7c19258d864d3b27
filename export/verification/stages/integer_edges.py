"""Integers at the ends of their types, where nothing in the model limits them.

Which inputs those are is seen from the traced graph: an input is led forward through operations
that take any integer for a value. One that is a length, a place, a divisor, or goes where it is not
followed (a loop, a function), keeps the small integers that are drawn elsewhere: a length of 2^31
would end the process. Only outputs that are made of such integers alone are compared, and exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from keras_blocks.contract import TensorSpec
from keras_blocks.contract.sampling.plans import Plan, dense
from keras_blocks.contract.sampling.samples import Sample, draw_samples
from keras_blocks.export.signature.signature import Signature
from keras_blocks.export.verification.accepted_values import free_integers
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

# The inputs of each operation that may hold any integer; None for all of them.
# fmt: off
_VALUES: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys([
        "Abs", "Add", "AddN", "AddV2", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Cast",
        "ClipByValue", "EnsureShape", "Equal", "Greater", "GreaterEqual", "Identity", "IdentityN",
        "Invert", "Less", "LessEqual", "LogicalAnd", "LogicalNot", "LogicalOr", "LowerBound",
        "Maximum", "Minimum", "Mul", "Neg", "NotEqual", "Pack", "PreventGradient", "Relu", "Relu6",
        "Select", "SelectV2", "Sign", "Snapshot", "Square", "SquaredDifference", "StopGradient",
        "Sub", "UpperBound",
    ]),
    **dict.fromkeys([
        "All", "Any", "ArgMax", "ArgMin", "BroadcastTo", "Cumprod", "Cumsum", "ExpandDims",
        "GatherNd", "GatherV2", "Max", "Mean", "Min", "MirrorPad", "OneHot", "Pad", "Prod",
        "Reshape", "ReverseV2", "Roll", "SegmentMax", "SegmentMean", "SegmentMin", "SegmentProd",
        "SegmentSum", "Slice", "SplitV", "Squeeze", "StridedSlice", "Sum", "Tile", "TopKV2",
        "Transpose", "Unpack", "UnsortedSegmentMax", "UnsortedSegmentMin", "UnsortedSegmentProd",
        "UnsortedSegmentSum",
    ], (0,)),
    **dict.fromkeys(["LookupTableFindV2", "ScatterNd", "Split"], (1,)),
    **dict.fromkeys([
        "PadV2", "TensorScatterAdd", "TensorScatterMax", "TensorScatterMin", "TensorScatterSub",
        "TensorScatterUpdate",
    ], (0, 2)),
}
# fmt: on
_DIVISIONS = frozenset(["Div", "FloorDiv", "FloorMod", "TruncateDiv", "TruncateMod"])
_NO_VALUES = frozenset(["Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "Where"])
_PLANS = (dense(4, 3), dense(3, 5, apart=True))
_RAGGED_PLANS = (Plan((3, 0, 4, 2), 3), Plan((5, 2), 4, apart=True))
_NEAR = tuple(2**bits + more for bits in (24, 31, 32, 53) for more in (-1, 0, 1))


@dataclass(frozen=True)
class _Flow:
    """Where an input of integers goes: the outputs made of them alone, if nothing limits it."""

    outputs: frozenset[int]
    limited: bool


def run_integer_edges(proof: VerificationRun, onnx: OnnxRunner, seed: int) -> None:
    """Compares on integers at the ends of their types.

    Args:
        proof: where what is found is kept.
        onnx: the file.
        seed: int, of the samples.
    """
    signature = proof.keras.signature
    flows = {spec.name: _flow(signature, spec) for spec in free_integers(signature.contract)}
    free = [name for name, flow in flows.items() if flow.outputs and not flow.limited]
    if not free:
        return
    outputs = frozenset[int]().union(*(flows[name].outputs for name in free))
    names = {proof.outputs[index].name for index in outputs}
    for sample in _samples(proof, free, seed):
        try:
            outcome = proof.compare(onnx, sample, eager=True)
        except SampleRejectedError:
            continue
        checks = [check for check in outcome.checks if check.output in names]
        proof.checks += checks
        proof.tried.append((sample, True))
        if any(not check.ok for check in checks):
            proof.fail(sample)
            return


def _samples(proof: VerificationRun, names: list[str], seed: int) -> Iterator[Sample]:
    contract = proof.keras.signature.contract
    plans = _RAGGED_PLANS if any(spec.ragged for spec in contract.inputs) else _PLANS
    generator = np.random.default_rng(seed)
    for sample in draw_samples(contract, seed, plans):
        feed = {
            name: _edges(value.dtype, value.shape, generator) if name in names else value
            for name, value in sample.feed.items()
        }
        said = f"{sample.description}, integers to the ends of their type"
        yield replace(sample, description=said, feed=feed)


def _edges(dtype: np.dtype, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Both ends of the type first, then what floats do not have, and any others."""
    info = np.iinfo(dtype)
    values = generator.integers(info.min, info.max, shape, dtype, endpoint=True)
    near = [sign * value for value in _NEAR for sign in (1, -1)]
    some = [info.max, info.min, info.max - 1, info.min + 1]
    some += [
        value for value in generator.permutation(near).tolist() if info.min <= value <= info.max
    ]
    flat = values.reshape(-1)
    count = min(len(some), (flat.size + 1) // 2)
    places = generator.permutation(flat.size)[:count]
    flat[places] = np.array(some[:count], dtype=dtype)
    return values


def _flow(signature: Signature, spec: TensorSpec) -> _Flow:
    traced = signature.traced
    if traced is None:
        return _Flow(frozenset(), limited=True)
    names = [tensor.name for tensor in signature.contract.flat_inputs()]
    stack, reached = [traced.inputs[names.index(spec.name)]], set[str]()
    while stack:
        tensor = stack.pop()
        if tensor.name in reached or tensor.dtype.is_floating or tensor.dtype.is_complex:
            continue
        reached.add(tensor.name)
        for reader in tensor.consumers():
            if reader.type in _NO_VALUES:
                continue
            if all(_is_value(reader, at) for at, x in enumerate(reader.inputs) if x is tensor):
                stack += reader.outputs
            elif tensor.dtype != tf.bool:
                return _Flow(frozenset(), limited=True)
    with traced.graph.as_default():
        outputs = signature.unpack(traced.graph.structured_outputs)
    found = (index for index, output in enumerate(outputs) if output.name in reached)
    return _Flow(frozenset(found), limited=False)


def _is_value(reader: Any, place: int) -> bool:
    """Whether an operation takes any integer in this place."""
    if reader.type in _DIVISIONS:
        divisor = tf.get_static_value(reader.inputs[1])
        # By 0 there is no quotient, and the least integer by -1 ends the process.
        return place == 0 and divisor is not None and not np.isin(divisor, (0, -1)).any()
    if reader.type == "Pow":
        exponent = tf.get_static_value(reader.inputs[1])
        return place == 0 and exponent is not None and bool((np.asarray(exponent) >= 0).all())
    places = _VALUES.get(reader.type, ())
    return places is None or place in places
