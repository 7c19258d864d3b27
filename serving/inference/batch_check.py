"""The proof that a model's rows do not see one another: a joint run equals the runs alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from keras_blocks.contract import TensorSpec
from keras_blocks.contract.dtypes import (
    BFLOAT16,
    STRING,
    from_bfloat16,
    numpy_dtype,
    to_bfloat16,
)
from keras_blocks.contract.example import example_inputs, is_small
from keras_blocks.errors import RunError
from keras_blocks.serving.inference.batch_plan import BatchPlan, plan_batches
from keras_blocks.serving.model import Model

# A product of another height is summed in another order; rows that see one another differ by more.
_TOLERANCE = 1e-3
# The same for 8 to 11 bits: ten roundings of bfloat16.
_HALF_TOLERANCE = 4e-2
_HALVES = frozenset({"float16", BFLOAT16})
# The second round's values are far from those of the request beside them.
_SPREADS = (2.0, 2e4)
# One scale for all rows of a run, so large values beside small ones take their digits.
_MIXES_ROWS = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"})
_FEWEST = 3  # requests that share the run
_SHORTER = 8


def checked_batch_plan(model: Model) -> BatchPlan | None:
    """The plan by which requests to a model share runs; None where they must not.

    Named dims say which axis counts the rows, not that each row is computed for itself: a sum or a
    softmax over the batch keeps the names. So the model is run on a few requests, alone and joined.
    Some ops are known to mix rows in a way that few requests may not show.
    Where the padding that the contract allows changes an answer, equal shapes are left.
    """
    plan = plan_batches(model.contract)
    if plan is None or _MIXES_ROWS & set(model.facts.ops) or not is_small(model.contract):
        return None
    if plan.padding.values and not _proven(model, plan):
        plan = plan_batches(model.contract, padded=False)
    return plan if plan is not None and _proven(model, plan) else None


def _proven(model: Model, plan: BatchPlan) -> bool:
    generator = np.random.default_rng(0)
    try:
        return all(_equal_alone(model, plan, generator, spread) for spread in _SPREADS)
    except (RunError, ValueError):  # it does not take these inputs, so nothing is proven
        return False


def _equal_alone(
    model: Model, plan: BatchPlan, generator: np.random.Generator, spread: float
) -> bool:
    whole = _random_request(model, plan, generator, spread)
    first = _first_row(plan, _random_request(model, plan, generator))
    requests = [first, whole, first]
    if plan.padding.values:
        requests += _shorter_requests(model, plan, generator)
    # What has no step of its own is never padded.
    requests = [inputs for inputs in requests if plan.padding.fits(inputs)]
    if len(requests) < _FEWEST:
        return False
    for inputs in requests:
        model.check(inputs)
    joined = plan.split(requests, model.run(plan.join(requests)))
    dtypes = model.output_dtypes
    return all(
        _same(model.run(inputs), outputs, dtypes)
        for inputs, outputs in zip(requests, joined, strict=True)
    )


def _shorter_requests(
    model: Model, plan: BatchPlan, generator: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    drawn = [_random_request(model, plan, generator) for _ in range(_SHORTER)]
    return [
        {n: array[:, :1] if n in plan.padding.values else array for n, array in inputs.items()}
        for inputs in drawn
    ]


def _same(
    alone: Mapping[str, np.ndarray], joined: Mapping[str, np.ndarray], dtypes: Mapping[str, str]
) -> bool:
    return all(_close(array, joined[name], dtypes[name]) for name, array in alone.items())


def _close(one: np.ndarray, other: np.ndarray, dtype: str) -> bool:
    if dtype == BFLOAT16:
        one, other = from_bfloat16(one), from_bfloat16(other)
    if one.shape != other.shape or one.dtype.kind != "f":
        return np.array_equal(one, other)
    scale = np.abs(one[np.isfinite(one)]).max(initial=1e-6)
    tolerance = _HALF_TOLERANCE if dtype in _HALVES else _TOLERANCE
    return np.allclose(one, other, rtol=0, atol=tolerance * scale, equal_nan=True)


def _random_request(
    model: Model, plan: BatchPlan, generator: np.random.Generator, spread: float = _SPREADS[0]
) -> dict[str, np.ndarray]:
    inputs = example_inputs(model.contract)
    for spec in model.contract.inputs:
        array = inputs[spec.name]
        if not spec.ragged and plan.count_rows(inputs) != len(array):
            array = np.repeat(array[:1], plan.count_rows(inputs), axis=0)
        structural = spec.tree_of is not None or spec.siblings_differ
        inputs[spec.name] = array if structural else _random_like(spec, array, generator, spread)
    return inputs


def _random_like(
    spec: TensorSpec, array: np.ndarray, generator: np.random.Generator, spread: float
) -> np.ndarray:
    if spec.dtype == STRING:
        return array
    if spec.dtype == BFLOAT16:
        return to_bfloat16(_uniform(spec, array.shape, generator, spread))
    kind = numpy_dtype(spec.dtype).kind
    if kind == "f":
        return _uniform(spec, array.shape, generator, spread).astype(array.dtype)
    least = 0 if spec.minimum is None else math.ceil(spec.minimum)
    most = least + 1 if spec.maximum is None else min(math.floor(spec.maximum), least + 1000)
    if spec.edge_labels is not None:
        most = min(most, spec.edge_labels - 1)
    return generator.integers(least, most, array.shape, endpoint=True).astype(array.dtype)


def _uniform(
    spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator, spread: float
) -> np.ndarray:
    low = -spread if spec.minimum is None else spec.minimum
    high = low + 2 * spread if spec.maximum is None else min(spec.maximum, low + 2 * spread)
    return generator.uniform(low, high, shape)


def _first_row(plan: BatchPlan, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    first = {name: inputs[name][:1] for name in plan.values}
    for name in plan.row_splits:
        first[name] = inputs[name][:2]
        values = name.removesuffix(".row_splits")
        first[values] = inputs[values][: int(inputs[name][1])]
    return first
