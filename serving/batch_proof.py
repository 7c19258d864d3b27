"""The proof that a model's rows do not see one another: a joint run equals the runs alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from keras_blocks.contract import TensorSpec
from keras_blocks.serving.batching import BatchPlan, plan_batches
from keras_blocks.serving.datatypes import STRING, numpy_dtype
from keras_blocks.serving.example import example_elements, example_inputs
from keras_blocks.serving.model import Model
from keras_blocks.serving.session import RunError

_MOST_ELEMENTS = 2**22
# A product of another height is summed in another order; rows that see one another differ by more.
_TOLERANCE = 1e-3
_ROUNDS = 2


def proven_plan(model: Model) -> BatchPlan | None:
    """The plan by which requests to a model share runs; None where they must not.

    Named dims say which axis counts the rows, not that each row is computed for itself: a sum or a
    softmax over the batch keeps the names. So the model is run on a few requests, alone and joined.
    """
    plan = plan_batches(model.contract)
    if plan is None or example_elements(model.contract) > _MOST_ELEMENTS:
        return None
    generator = np.random.default_rng(0)
    try:
        for _ in range(_ROUNDS):
            if not _equal_alone(model, plan, generator):
                return None
    except (RunError, ValueError):  # it does not take these inputs, so nothing is proven
        return None
    return plan


def _equal_alone(model: Model, plan: BatchPlan, generator: np.random.Generator) -> bool:
    whole = _random_request(model, plan, generator)
    first = _first_row(plan, _random_request(model, plan, generator))
    requests = [first, whole, first]
    for inputs in requests:
        model.check(inputs)
    joined = plan.split(requests, model.run(plan.join(requests)))
    return all(
        _same(model.run(inputs), outputs) for inputs, outputs in zip(requests, joined, strict=True)
    )


def _same(alone: Mapping[str, np.ndarray], joined: Mapping[str, np.ndarray]) -> bool:
    return all(_close(array, joined[name]) for name, array in alone.items())


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or one.dtype.kind != "f":
        return np.array_equal(one, other)
    scale = np.abs(one[np.isfinite(one)]).max(initial=1e-6)
    return np.allclose(one, other, rtol=0, atol=_TOLERANCE * scale, equal_nan=True)


def _random_request(
    model: Model, plan: BatchPlan, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    inputs = example_inputs(model.contract)
    for spec in model.contract.inputs:
        array = inputs[spec.name]
        if not spec.ragged and plan.count_rows(inputs) != len(array):
            array = np.repeat(array[:1], plan.count_rows(inputs), axis=0)
        structural = spec.tree_of is not None or spec.siblings_differ
        inputs[spec.name] = array if structural else _random_like(spec, array, generator)
    return inputs


def _random_like(spec: TensorSpec, array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if spec.dtype == STRING:
        return array
    kind = numpy_dtype(spec.dtype).kind
    if kind == "f":
        low = -2.0 if spec.minimum is None else spec.minimum
        high = low + 4.0 if spec.maximum is None else min(spec.maximum, low + 4.0)
        return generator.uniform(low, high, array.shape).astype(array.dtype)
    least = 0 if spec.minimum is None else math.ceil(spec.minimum)
    most = least + 1 if spec.maximum is None else min(math.floor(spec.maximum), least + 1000)
    if spec.edge_labels is not None:
        most = min(most, spec.edge_labels - 1)
    return generator.integers(least, most, array.shape, endpoint=True).astype(array.dtype)


def _first_row(plan: BatchPlan, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    first = {name: inputs[name][:1] for name in plan.values}
    for name in plan.row_splits:
        first[name] = inputs[name][:2]
        values = name.removesuffix(".row_splits")
        first[values] = inputs[values][: int(inputs[name][1])]
    return first
