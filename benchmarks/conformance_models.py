"""A case as a Keras model with free sizes, and what Keras gives for it at several sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from conformance_report import BATCH, MIXED, SPACE
from keras_cases import Case, Given

from keras_blocks.export.results.comparison import TOLERANCES, compare, compute_dtype
from keras_blocks.export.verification.keras_side import first_line

NONE, FIRST, ALL = slice(0), slice(1), slice(None)
_FREE = {BATCH: (NONE,), SPACE: (ALL, FIRST), MIXED: (NONE,)}
# Batch sizes, and by how much every free axis is longer than in the test. Not much shorter: under a
# window that is one step too long TensorFlow's own max pooling ends the process.
SAMPLES = ((3, 0), (1, 1), (7, 5), (2, -1))
LENGTH = 4  # of an axis that the test left open
SETTLED = 1e-3  # weights that a layer divides by its square root stay above it


class NoCaseError(Exception):
    """Keras does not build or run this; with its reason."""


Runs = list[tuple[list[np.ndarray], list[np.ndarray]]]
"""Inputs, and what Keras gives for them."""


def prepare(case: Case, variant: str) -> tuple[keras.Model, Runs]:
    """The model of a case and what Keras gives on the samples.

    Raises:
        NoCaseError: Keras does not build or run it, or computes something else in float16.
    """
    if variant != MIXED:
        model, free = model_of(case, variant)
        return model, list(reference_runs(case, model, free))
    if not case.mixed:
        raise NoCaseError("not tested in mixed precision")
    single, free = model_of(case, variant)
    expected = list(reference_runs(case, single, free))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, _ = model_of(case, variant)
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(single.get_weights())
    runs = list(reference_runs(case, model, free))
    if len(runs) != len(expected):
        raise NoCaseError("Keras runs other sizes in float16 than in float32")
    # TensorFlow's float16 is far off in places (an einsum with an ellipsis), or noise.
    for (_, exact), (_, rough) in zip(expected, runs, strict=True):
        for want, have in zip(exact, rough, strict=True):
            problem = compare(
                want.astype(have.dtype), have, TOLERANCES[compute_dtype(model)]
            ).problem
            if problem is not None:
                raise NoCaseError(f"Keras's own float16 is not its float32: {problem}")
    return model, runs


def model_of(case: Case, variant: str) -> tuple[keras.Model, bool]:
    """The case as a functional model with random weights, and whether its batch is free.

    Raises:
        NoCaseError: Keras does not take these free sizes.
    """
    problem = ""
    for free_batch, axes in itertools.product((True, False), _FREE[variant]):
        try:
            model = _build(case, free_batch, axes)
        except Exception as error:  # layers refuse in all ways
            problem = problem or first_line(error)
            continue
        # The states have the size of the batch.
        if free_batch and any(getattr(layer, "stateful", False) for layer in model.layers):
            continue
        _randomize(model)
        return model, free_batch
    raise NoCaseError(problem)


def _build(case: Case, free_batch: bool, axes: slice) -> keras.Model:
    layer = case.make()
    first = getattr(layer, "data_format", None) == "channels_first"
    free = {id(given): free_axes(given, first)[axes] for given in _givens(case)}
    if axes != NONE and not any(free.values()):
        raise NoCaseError("no axis can be free")

    def symbol(given: Given) -> Any:
        shape = [None if i in free[id(given)] else size for i, size in enumerate(given.shape)]
        if free_batch and shape:
            shape[0] = None
        return keras.Input(
            batch_shape=tuple(shape), dtype=given.dtype, sparse=case.sparse, ragged=case.ragged
        )

    symbols = keras.tree.map_structure(symbol, case.inputs)
    arguments, by_name = ((), symbols) if case.by_name else ((symbols,), {})
    outputs = layer(*arguments, **by_name, **case.options)
    inputs = keras.tree.flatten(symbols)
    if {id(tensor) for tensor in inputs} & {id(part) for part in keras.tree.flatten(outputs)}:
        # It says that it gives its very input, of which Keras makes no model.
        outputs = _Around(layer)(*arguments, **by_name, **case.options)
    return keras.Model(inputs, outputs)


class _Around(keras.layers.Layer):
    """A layer inside another, which finds out by itself what it gives."""

    def __init__(self, layer: keras.layers.Layer):
        super().__init__()
        self.layer = layer

    def call(self, *args: Any, training: bool = False, **kwargs: Any) -> Any:
        return self.layer(*args, training=training, **kwargs)


def free_axes(given: Given, channels_first: bool = False) -> list[int]:
    """The axes of time or space: all but the batch and the features."""
    rank = len(given.shape)
    if rank == 2:
        return [1] if np.issubdtype(_numpy(given.dtype), np.integer) else []
    axes = range(2, rank) if channels_first else range(1, rank - 1)
    # An axis of 1 is there to be broadcast.
    return [axis for axis in axes if given.shape[axis] != 1]


def reference_runs(
    case: Case, model: keras.Model, free_batch: bool
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Inputs, and what Keras gives for them.

    Raises:
        NoCaseError: Keras runs none.
    """
    problem, some = "", False
    for number, (batch, more) in enumerate(SAMPLES):
        generator = np.random.default_rng(number)
        sizes: list = []
        inputs = []
        for symbol, given in zip(model.inputs, _givens(case), strict=True):
            shape = [
                _size(given, axis, more) if size is None else size
                for axis, size in enumerate(symbol.shape)
            ]
            if free_batch and shape:
                shape[0] = batch
            inputs.append(draw(given, tuple(shape), generator))
            sizes.append(tuple(shape))
        try:
            expected = _run(model, inputs, case)
        except Exception as error:
            problem = problem or first_line(error)
            continue
        some = True
        yield _flat(inputs, case), expected
    if not some:
        raise NoCaseError(problem)


def draw(given: Given, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Values of a shape: the test's own, as often as they are needed, or random ones as Keras's
    tests draw them: integers from 0 to 2, but floats of both signs."""
    if given.values is not None:
        values = given.values
        for axis, size in enumerate(shape):
            values = np.take(values, np.arange(size) % max(values.shape[axis], 1), axis)
        return values if given.dtype == "string" else values.astype(_numpy(given.dtype))
    if np.issubdtype(_numpy(given.dtype), np.floating):
        return generator.normal(size=shape).astype(given.dtype)
    return generator.integers(0, 3, shape).astype(given.dtype)


def _size(given: Given, axis: int, more: int) -> int:
    return max((given.shape[axis] or LENGTH) + more, 1)


def _run(model: keras.Model, inputs: list[np.ndarray], case: Case) -> list[np.ndarray]:
    for layer in model.layers:
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()
    tensors: list[Any] = [tf.constant(part) for part in inputs]
    if case.sparse:
        tensors = [tf.sparse.from_dense(part) for part in tensors]
    if case.ragged:
        tensors = [tf.RaggedTensor.from_tensor(part) for part in tensors]
    outputs = model(tensors if len(tensors) > 1 else tensors[0], training=False)
    arrays = [part for leaf in keras.tree.flatten(outputs) for part in _arrays(leaf)]
    if case.ragged:
        return arrays
    dtypes = [_numpy(dtype) for dtype in _dtypes_in_a_graph(model)]
    return [
        part if part.dtype.kind in "OSU" else part.astype(dtype)
        for part, dtype in zip(arrays, dtypes, strict=True)
    ]


def _dtypes_in_a_graph(model: keras.Model) -> list[str]:
    """Eagerly some layers give another element type than they say, and than they give in a graph;
    and some say another than they give in either. Where no graph is to be had, what they say."""
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in model.inputs]
    try:
        graph = tf.function(
            lambda *x: model(list(x) if len(x) > 1 else x[0], training=False), autograph=False
        ).get_concrete_function(*specs)
        return [leaf.dtype.name for leaf in keras.tree.flatten(graph.structured_outputs)]
    except Exception:  # layers refuse in all ways
        return [output.dtype for output in model.outputs]


def _arrays(leaf: Any) -> list[np.ndarray]:
    if leaf is None:
        return []
    if isinstance(leaf, tf.RaggedTensor):
        return [leaf.values.numpy(), leaf.row_splits.numpy()]
    return [(tf.sparse.to_dense(leaf) if isinstance(leaf, tf.SparseTensor) else leaf).numpy()]


def _flat(inputs: list[np.ndarray], case: Case) -> list[np.ndarray]:
    if not case.ragged:
        return inputs
    return [part for x in inputs for part in _arrays(tf.RaggedTensor.from_tensor(tf.constant(x)))]


def _givens(case: Case) -> list[Given]:
    return keras.tree.flatten(case.inputs)


def _numpy(dtype: str) -> np.dtype:
    return tf.as_dtype(dtype).as_numpy_dtype


def _randomize(model: keras.Model) -> None:
    """New weights are zeros and ones where they can be, which would hide mistakes."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if not np.issubdtype(_numpy(weight.dtype), np.floating):
            continue
        values = generator.normal(scale=0.5, size=weight.shape)
        if "variance" in weight.path:
            values = np.abs(values) + SETTLED
        weight.assign(values.astype(_numpy(weight.dtype)))
