"""Keras's losses, metrics and class weights on ragged outputs.

Keras 3 takes ragged outputs as far as the loss, and ends there with an error about shapes; class
weights of ragged labels are silently those of other steps. A model has no place to hook into: its
losses and metrics are Keras's own objects, called by Keras's own trainer. So this module, the only
one that does, replaces four functions of Keras by ones that look for a ragged output first:

    keras.losses.Loss.__call__                                                public
    keras.src.trainers.compile_utils.MetricsList.update_state                 private
    keras.src.trainers.data_adapters.data_adapter_utils.class_weight_to_sample_weights     private
    keras.src.trainers.data_adapters.tf_dataset_adapter.make_class_weight_map_fn           private

Where nothing is ragged each calls what it replaced, with the same arguments. Where the output is,
Keras's own losses and metrics get the steps of all rows as one dense batch:

    loss = sum over rows i and steps t of w[i, t] * l(y[i, t], output[i, t]), divided by the steps

which is what they give for the padded rows and their mask. Losses and metrics of your own get the
ragged tensors, as they always did.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import tensorflow as tf
from keras.src.trainers import compile_utils
from keras.src.trainers.data_adapters import data_adapter_utils, tf_dataset_adapter

from keras_blocks.ragged import to_padded

SURELY = 1e9  # a logit that leaves no room for other classes


def to_steps(
    y_true: Any, y_pred: tf.RaggedTensor, sample_weight: Any = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """The labels, outputs and weights of all steps of all rows, as one dense batch of steps.

    Args:
        y_true: ragged, with the rows of `y_pred`: classes (batch, time), or (batch, time, ...).
        y_pred: ragged (batch, time, ...), what a model gives for every step or node.
        sample_weight: None, or one weight for each row (batch,), or ragged (batch, time).
    Returns:
        (steps, ...) of labels and outputs, (steps,) of weights or None. Numbers become vectors of
        one number.
    Raises:
        ValueError: labels or weights have no rows, or not one for each.
        tf.errors.InvalidArgumentError: their rows are not as long as those of `y_pred`; only the
            values tell, so that it is raised while the model runs.
    Example:
        >>> output = tf.ragged.constant([[[0.1, 0.9], [0.8, 0.2]], [[0.3, 0.7]]], ragged_rank=1)
        >>> classes = tf.ragged.constant([[1, 0], [1]])
        >>> labels, outputs, weights = to_steps(classes, output, [1.0, 5.0])
        >>> labels.numpy(), outputs.shape.as_list(), weights.numpy()
        (array([1, 0, 1], dtype=int32), [3, 2], array([1., 1., 5.], dtype=float32))
    """
    labels = _values_at(y_true, y_pred, "y_true")
    outputs = y_pred.flat_values
    mask = getattr(y_pred, "_keras_mask", None)
    if mask is not None:
        outputs = tf.identity(outputs)
        outputs._keras_mask = _values_at(mask, y_pred, "mask")
    if outputs.shape.rank == 1:
        outputs, labels = outputs[:, tf.newaxis], tf.reshape(labels, (-1, 1))
    if sample_weight is None:
        return labels, outputs, None
    return labels, outputs, _weights_at(sample_weight, y_pred)


def _values_at(x: Any, like: tf.RaggedTensor, name: str) -> tf.Tensor:
    """The values of `x` at the steps of `like`, of which it must have all rows."""
    if not isinstance(x, tf.RaggedTensor) or x.ragged_rank < like.ragged_rank:
        raise ValueError(
            f"The output is ragged, so {name} must be ragged too, with the same rows. Received: "
            f"{name} of shape {x.shape}, the output {like.shape}. Padded rows become ragged by "
            "tf.RaggedTensor.from_tensor(rows, lengths)."
        )
    checks = []
    for splits in like.nested_row_splits:
        checks += _equal(
            x.row_splits,
            splits,
            f"{name} has rows of other lengths than the output: every step, or node of a tree, "
            f"needs a value of its own. Compared are the row_splits of {name} and of the output.",
        )
        x = x.values
    with tf.control_dependencies(checks):
        return _as_vectors(x, like, name) if isinstance(x, tf.RaggedTensor) else tf.identity(x)


def _as_vectors(x: tf.RaggedTensor, like: tf.RaggedTensor, name: str) -> tf.Tensor:
    """The dense form of vectors, which `tf.ragged.constant` makes ragged if not told their size."""
    sizes = tf.shape(like.flat_values, out_type=x.row_splits.dtype)[1:]
    checks = []
    for axis, lengths in enumerate(x.nested_row_lengths()):
        checks += _equal(
            lengths,
            tf.fill(tf.shape(lengths), sizes[axis]),
            f"{name} has vectors of other sizes than the output. Compared are these sizes.",
        )
    with tf.control_dependencies(checks):
        return x.to_tensor(shape=like.flat_values.shape)


def _equal(ours: tf.Tensor, theirs: tf.Tensor, message: str) -> list[tf.Operation]:
    """The checks, none when it is done at once, that two tensors are equal."""
    check = tf.debugging.assert_equal(tf.cast(ours, "int64"), tf.cast(theirs, "int64"), message)
    return [] if check is None else [check]


def _weights_at(weights: Any, like: tf.RaggedTensor) -> tf.Tensor:
    """(steps,): for each step of `like` its own weight, or that of its row."""
    if isinstance(weights, tf.RaggedTensor):
        return _values_at(weights, like, "sample_weight")
    weights = tf.convert_to_tensor(weights)
    if weights.shape.rank == 0 or any(size != 1 for size in weights.shape[1:]):
        raise ValueError(
            "The output is ragged, so sample_weight must be one weight for each row, of shape "
            "(batch,), or one for each step, ragged like the output. Received: sample_weight of "
            f"shape {weights.shape}."
        )
    weights = tf.reshape(weights, (-1,))
    for splits in like.nested_row_splits:
        weights = tf.repeat(weights, splits[1:] - splits[:-1])
    return weights


def _of_keras(function: Any) -> bool:
    """Whether a function is one of Keras's own."""
    function = getattr(function, "func", function)  # of functools.partial
    return (getattr(function, "__module__", None) or "").partition(".")[0] == "keras"


def _takes_steps(thing: Any, method: str, function: str) -> bool:
    """Whether a loss or metric is computed by Keras's own code, which knows no ragged tensors."""
    wrapped = getattr(thing, function, None)
    return _of_keras(getattr(type(thing), method)) and (wrapped is None or _of_keras(wrapped))


def _refuse_axes(thing: Any, rank: int) -> None:
    """Steps stand in one axis, so that only the axes behind it are where they were."""
    for axis in keras.tree.flatten(getattr(thing, "_fn_kwargs", {}).get("axis")):
        if axis is not None and not 2 - rank <= axis < 0:
            raise ValueError(
                f"{type(thing).__name__}: axis={axis} of a ragged output is not known. Count it "
                "from the end: axis=-1 is that of the classes or features. Rows and steps are "
                "reduced by `reduction`."
            )


# What stands in Keras's place


def call_loss(
    original: Callable, loss: Any, y_true: Any, y_pred: Any, sample_weight: Any = None
) -> Any:
    """`keras.losses.Loss.__call__`."""
    if not isinstance(y_pred, tf.RaggedTensor):
        return original(loss, y_true, y_pred, sample_weight)
    if not _takes_steps(loss, "call", "fn"):
        return _call_own_loss(original, loss, y_true, y_pred, sample_weight)
    if getattr(loss, "fn", None) is keras.losses.ctc:
        return original(loss, *_padded_with_blanks(y_true, y_pred), sample_weight)
    _refuse_axes(loss, y_pred.shape.rank)
    reduced = original(loss, *to_steps(y_true, y_pred, sample_weight))
    # Keras leaves the losses of no steps as they are, eagerly.
    return reduced if loss.reduction in (None, "none") else tf.reduce_sum(reduced)


def _call_own_loss(
    original: Callable, loss: Any, y_true: Any, y_pred: Any, sample_weight: Any
) -> Any:
    """A loss of the user's own gets the ragged tensors; a value for each step is reduced."""
    y_true, y_pred = (keras.ops.convert_to_tensor(x, dtype=loss.dtype) for x in (y_true, y_pred))
    values = loss.call(y_true, y_pred)
    if isinstance(values, tf.RaggedTensor):
        if sample_weight is not None:
            sample_weight = _weights_at(sample_weight, values)
        values = values.flat_values
    elif isinstance(sample_weight, tf.RaggedTensor):
        sample_weight = sample_weight.flat_values
    reduced = SimpleNamespace(
        name=loss.name, dtype=loss.dtype, reduction=loss.reduction, call=lambda _, values: values
    )
    return original(reduced, values, values, sample_weight)


def _padded_with_blanks(y_true: Any, y_pred: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows for CTC, the one loss of whole rows: what is padded is surely the blank, class 0."""
    logits, steps = to_padded(y_pred)
    blank = tf.one_hot(0, logits.shape[-1], SURELY, 0.0, dtype=logits.dtype)
    labels = to_padded(y_true)[0] if isinstance(y_true, tf.RaggedTensor) else y_true
    return labels, tf.where(steps[..., tf.newaxis], logits, blank)


def update_metrics(
    original: Callable, metrics: Any, y_true: Any, y_pred: Any, sample_weight: Any = None
) -> Any:
    """`MetricsList.update_state`: the metrics of one output."""
    if not isinstance(y_pred, tf.RaggedTensor):
        return original(metrics, y_true, y_pred, sample_weight)
    for metric in metrics.metrics:
        given = (y_true, y_pred, sample_weight)
        if _takes_steps(metric, "update_state", "_fn"):
            _refuse_axes(metric, y_pred.shape.rank)
            given = to_steps(*given)
        metric.update_state(given[0], given[1], sample_weight=given[2])


def weigh_classes(original: Callable, y: Any, class_weight: dict[int, float]) -> Any:
    """`class_weight_to_sample_weights`: for arrays."""
    if not isinstance(y, tf.RaggedTensor):
        return original(y, class_weight)
    return class_weights(y, class_weight)


def weigh_classes_of_batches(original: Callable, class_weight: dict[int, float]) -> Any:
    """`make_class_weight_map_fn`: for datasets."""
    dense = original(class_weight)

    def weigh(*data: Any) -> tuple[Any, Any, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not isinstance(y, tf.RaggedTensor) or sample_weight is not None:
            return dense(*data)
        return x, y, class_weights(y, class_weight)

    return weigh


def class_weights(y: tf.RaggedTensor, class_weight: dict[int, float]) -> tf.RaggedTensor:
    """For each step the weight of its class, 1 where the class has none.

    Args:
        y: ragged (batch, time) of classes, or (batch, time, classes) that are one-hot.
        class_weight: dict from classes to weights.
    """
    splits, classes = y.row_splits, y.values
    if isinstance(classes, tf.RaggedTensor):
        classes = classes.to_tensor()
    if classes.shape.rank == 2:
        one_hot = classes.shape[-1] != 1
        classes = tf.argmax(classes, axis=-1) if one_hot else tf.squeeze(classes, axis=-1)
    classes = tf.cast(tf.round(classes), tf.int64)
    keys, weights = zip(*sorted(class_weight.items()), strict=True)
    is_key = classes[:, tf.newaxis] == tf.constant(keys, tf.int64)
    chosen = tf.linalg.matvec(tf.cast(is_key, keras.config.floatx()), tf.constant(weights))
    weights = tf.where(tf.reduce_any(is_key, axis=-1), chosen, 1.0)
    return tf.RaggedTensor.from_row_splits(weights, splits, validate=False)


def _replace(owner: Any, name: str, replacement: Callable) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    setattr(owner, name, replaced)


_replace(keras.losses.Loss, "__call__", call_loss)
_replace(compile_utils.MetricsList, "update_state", update_metrics)
_replace(data_adapter_utils, "class_weight_to_sample_weights", weigh_classes)
_replace(tf_dataset_adapter, "make_class_weight_map_fn", weigh_classes_of_batches)
