"""The proof that a model's rows do not see one another: a joint run equals the runs alone."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

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
from keras_blocks.serving.inference.batch_plan import Arrays, BatchPlan, plan_batches
from keras_blocks.serving.model import Model
from keras_blocks.serving.repository.model_settings import BatchSettings

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
# Rows whose answers are known, which all runs consist of.
_WITNESSES = 8
_SHARE_SHORTER = 0.5
_ROW_GROWTH = 1.5
_ELEMENT_GROWTH = 4
_PATIENCE_SECONDS = 3.0
_LONG_STEPS = 16


def checked_batch_plan(model: Model, settings: BatchSettings | None = None) -> BatchPlan | None:
    """The plan by which requests to a model share runs; None where they must not.

    Named dims say which axis counts the rows, not that each row is computed for itself: a sum or a
    softmax over the batch keeps the names. So the model is run on a few requests, alone and joined,
    and then in runs of more and more rows: some see one another in large runs only. No run that
    requests share is larger than the largest that was tried.
    Some ops are known to mix rows in a way that few requests may not show.
    Where the padding that the contract allows changes an answer, equal shapes are left.

    Args:
        model: what runs.
        settings: how large runs may be.
    """
    plan = plan_batches(model.contract)
    if plan is None or _MIXES_ROWS & set(model.facts.ops) or not is_small(model.contract):
        return None
    if plan.padding.values and not _proven(model, plan):
        plan = plan_batches(model.contract, padded=False)
    if plan is None or not _proven(model, plan):
        return None
    return _proven_sizes(model, plan, settings or BatchSettings())


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


def _proven_sizes(model: Model, plan: BatchPlan, settings: BatchSettings) -> BatchPlan | None:
    """The plan with the sizes up to which rows were seen to be computed for themselves."""
    generator = np.random.default_rng(1)
    witnesses = [
        (request, model.run(request))
        for request in (_one_row(model, plan, generator) for _ in range(_WITNESSES))
        if plan.padding.fits(request)
    ]
    if len(witnesses) < _FEWEST:
        return None
    clock = _Patience()
    rows = elements = 0
    try:
        for size in _growing(_FEWEST, settings.max_batch_size, _ROW_GROWTH):
            asked = [witnesses[index % len(witnesses)] for index in range(size)]
            if not clock.allows(_ROW_GROWTH):
                break
            if not _joined_equal(model, plan, asked):
                return None
            rows, elements = size, sum(plan.count_elements(request) for request, _ in asked)
        for size in _growing(elements, settings.max_batch_elements, _ELEMENT_GROWTH):
            if not elements or not clock.allows(_ELEMENT_GROWTH):
                break
            long = _long_rows(model, plan, generator, rows - 2, size)
            if not _joined_equal(model, plan, [witnesses[0], (long, None), witnesses[1]]):
                return None
            elements = plan.count_elements(long)
        if rows and not _long_steps_equal(model, plan, generator, rows, clock):
            return None
    except (RunError, ValueError):  # it takes no more; what was tried is proven
        pass
    if not rows:
        return None
    return replace(plan, most_rows=rows, most_elements=elements or plan.most_elements)


def _long_steps_equal(
    model: Model, plan: BatchPlan, generator: np.random.Generator, rows: int, clock: _Patience
) -> bool:
    """The same with as many rows, and with more of whatever else may be of any size."""
    dims = {
        dim
        for spec in model.contract.inputs
        if spec.name in (*plan.free, *plan.padding.values)
        for dim in spec.shape[1:]
        if isinstance(dim, str)
    }
    if not dims or not clock.allows(_LONG_STEPS):
        return True
    sizes = {dim: max(_LONG_STEPS, size) for dim, size in _least(model, dims).items()}
    example = example_inputs(model.contract, free_sizes=sizes)
    whole = _random_values(model, plan, generator, _SPREADS[0], example)
    first = _first_row(plan, whole)
    model.check(first)
    return _joined_equal(model, plan, [(first, model.run(first))] * rows)


def _least(model: Model, dims: Collection[str]) -> dict[str, int]:
    least = model.contract.least_sizes()
    return {dim: least.get(dim, 0) for dim in dims}


def _joined_equal(
    model: Model, plan: BatchPlan, asked: Sequence[tuple[Arrays, Arrays | None]]
) -> bool:
    """Whether a run of several requests gives what is known of some of them."""
    requests = [request for request, _ in asked]
    joined = plan.split(requests, model.run(plan.join(requests)))
    return all(
        alone is None or _same(alone, outputs, model.output_dtypes)
        for (_, alone), outputs in zip(asked, joined, strict=True)
    )


def _growing(first: int, last: int, growth: float) -> Iterator[int]:
    """Sizes up to the last one, each larger by a factor.

    Example:
        >>> list(_growing(3, 10, 1.5))
        [3, 5, 8, 10]
    """
    size = first
    while size < last:
        yield size
        size = max(size + 1, math.ceil(size * growth))
    yield last


class _Patience:
    """How long larger and larger runs may be tried."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()

    def allows(self, growth: float) -> bool:
        """Whether there is time for another that takes so many times what the last one took."""
        now = time.monotonic()
        expected, self._last = growth * (now - self._last), now
        return now - self._begun + expected < _PATIENCE_SECONDS


def _one_row(model: Model, plan: BatchPlan, generator: np.random.Generator) -> Arrays:
    request = _first_row(plan, _random_request(model, plan, generator))
    if plan.padding.values and generator.random() < _SHARE_SHORTER:
        request = _shortened(plan, request)
    model.check(request)
    return request


def _long_rows(
    model: Model, plan: BatchPlan, generator: np.random.Generator, rows: int, elements: int
) -> Arrays:
    steps = max(1, elements // (max(1, rows) * len(plan.row_splits)))
    example = example_inputs(model.contract, [steps] * max(1, rows))
    request = _random_values(model, plan, generator, _SPREADS[0], example)
    model.check(request)
    return request


def _shorter_requests(
    model: Model, plan: BatchPlan, generator: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    return [_shortened(plan, _random_request(model, plan, generator)) for _ in range(_SHORTER)]


def _shortened(plan: BatchPlan, inputs: Arrays) -> dict[str, np.ndarray]:
    return {n: array[:, :1] if n in plan.padding.values else array for n, array in inputs.items()}


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
    return _random_values(model, plan, generator, spread, example_inputs(model.contract))


def _random_values(
    model: Model,
    plan: BatchPlan,
    generator: np.random.Generator,
    spread: float,
    inputs: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
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
