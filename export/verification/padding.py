"""Which inputs may be padded: layers mask a value, and the model gives the same with more of it.

A claim that the model does not bear out is left out of the contract, and nothing else happens: a
server then runs requests of equal length together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_blocks.contract import Contract, Dim, TensorSpec
from keras_blocks.contract.sampling.plans import dense
from keras_blocks.contract.sampling.samples import draw_samples
from keras_blocks.export.results.comparison import TOLERANCES, compare, compute_dtype
from keras_blocks.export.signature.signature import Signature, signature_of
from keras_blocks.export.verification.accepted_values import with_accepted_ranges

_TIME_AXIS = 1
_MORE = 3  # steps
# Many rows of one step, where a largest or mean value over time moves with any further step.
_PLANS = (dense(64, 1), dense(3, 5, blanks="middle"), dense(4, 6, blanks="tail", scale=10.0))

Arrays = Mapping[str, np.ndarray]


def proven_signature(model: keras.Model, input_signature: Any = None) -> Signature:
    """`signature_of` a model, whose contract says which inputs may be padded, and no more.

    What layers mask of an input is a candidate, and a mask that is an input itself, of booleans.
    """
    signature = with_accepted_ranges(model, signature_of(model, input_signature))
    contract = _candidates(signature.contract)
    if all(spec.padding is None for spec in contract.inputs):
        return replace(signature, contract=contract)
    for wanted in (contract, _of_one_length(contract)):
        proven = _proven(model, replace(signature, contract=wanted))
        if proven is not None:
            return replace(signature, contract=proven)
    cleared = tuple(replace(spec, padding=None) for spec in contract.inputs)
    return replace(signature, contract=replace(contract, inputs=cleared))


def _candidates(contract: Contract) -> Contract:
    def candidate(spec: TensorSpec) -> TensorSpec:
        noted = 0 if spec.dtype == "bool" else spec.padding
        return replace(spec, padding=noted if _has_free_time(spec) else None)

    return replace(contract, inputs=tuple(map(candidate, contract.inputs)))


def _of_one_length(contract: Contract) -> Contract:
    """The same where all inputs have as many steps as the first masked one."""
    time = next(spec.shape[_TIME_AXIS] for spec in contract.inputs if spec.padding is not None)
    renamed = tuple(
        replace(spec, shape=_with_dim(spec, _TIME_AXIS, time)) if _has_free_time(spec) else spec
        for spec in contract.inputs
    )
    return replace(contract, inputs=renamed)


def _proven(model: keras.Model, signature: Signature) -> Contract | None:
    """The contract, whose outputs have the padded dims by name; None where padding is felt."""
    inputs = signature.contract.inputs
    outputs = list(signature.contract.outputs)
    masked = [spec for spec in inputs if spec.padding is not None]
    tolerance = TOLERANCES[compute_dtype(model)]
    try:
        for sample in draw_samples(signature.contract, plans=_PLANS):
            feed = {**sample.feed, **{spec.name: _with_steps(spec, sample.feed) for spec in masked}}
            alone = _run(model, signature, feed)
            for dim in {spec.shape[_TIME_AXIS] for spec in masked}:
                longer = _run(model, signature, _padded(inputs, feed, dim))
                for place, spec in enumerate(outputs):
                    for flat in spec.flat():
                        outputs[place], got = _cut(
                            outputs[place], dim, alone[flat.name], longer[flat.name]
                        )
                        if compare(alone[flat.name], got, tolerance).problem:
                            return None
    except Exception:  # the model does not take these shapes: Keras and TensorFlow have no one base
        return None
    return replace(signature.contract, outputs=tuple(outputs))


def _run(model: keras.Model, signature: Signature, feed: Arrays) -> dict[str, np.ndarray]:
    flat = [feed[tensor.name] for tensor in signature.contract.flat_inputs()]
    names = [tensor.name for tensor in signature.contract.flat_outputs()]
    arrays = [np.asarray(tensor) for tensor in signature.call(model, flat)]
    return dict(zip(names, arrays, strict=True))


def _with_steps(spec: TensorSpec, feed: Arrays) -> np.ndarray:
    """Rows of nothing but padding get one step that is none: those are not padded."""
    array = feed[spec.name].copy()
    there = (array != spec.padding).reshape(len(array), -1).any(axis=1)
    array[~there, 0] = (spec.padding or 0) + 1 if spec.maximum is None else spec.maximum
    return array


def _padded(inputs: tuple[TensorSpec, ...], feed: Arrays, dim: Dim) -> dict[str, np.ndarray]:
    """The feed with more steps along a dim: masked ones, and any where another input masks them."""
    generator = np.random.default_rng(0)
    longer = dict(feed)
    for spec in inputs:
        if spec.ragged or spec.shape[_TIME_AXIS : _TIME_AXIS + 1] != (dim,):
            continue
        array = feed[spec.name]
        shape = (len(array), _MORE, *array.shape[_TIME_AXIS + 1 :])
        if spec.padding is not None:
            more = np.full(shape, spec.padding, array.dtype)
        else:
            more = generator.choice(array.reshape(-1), shape)
            more = more * 100 if array.dtype.kind == "f" else more
        longer[spec.name] = np.concatenate([array, more], axis=_TIME_AXIS)
    return longer


def _cut(
    spec: TensorSpec, dim: Dim, alone: np.ndarray, longer: np.ndarray
) -> tuple[TensorSpec, np.ndarray]:
    """An output with the dim wherever it got longer, and the longer one without the new steps."""
    for axis in range(alone.ndim):
        if longer.shape[axis] == alone.shape[axis] + _MORE and isinstance(spec.shape[axis], str):
            spec = replace(spec, shape=_with_dim(spec, axis, dim))
            longer = longer[(slice(None),) * axis + (slice(alone.shape[axis]),)]
    return spec, longer


def _with_dim(spec: TensorSpec, axis: int, dim: Dim) -> tuple[Dim, ...]:
    return (*spec.shape[:axis], dim, *spec.shape[axis + 1 :])


def _has_free_time(spec: TensorSpec) -> bool:
    free = len(spec.shape) > _TIME_AXIS and isinstance(spec.shape[_TIME_AXIS], str)
    return free and not spec.ragged
