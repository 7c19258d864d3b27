"""How a layer that has never heard of ragged tensors is run on ragged sequences.

Every row must give what it would give alone. A layer that treats each step by itself gets the
steps of all rows as one long sequence, so nothing is padded. A layer that mixes steps and heeds
masks gets padded rows and their mask. For any other layer there is no way that is right, and it is
refused.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import call_on_vectors
from keras_blocks.ragged import (
    AcceptsRagged,
    is_ragged,
    ragged_spec,
    to_padded,
    unpad_like,
)

STEPWISE = (
    keras.layers.Activation,
    keras.layers.AlphaDropout,
    keras.layers.BatchNormalization,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.Embedding,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.LayerNormalization,
    keras.layers.LeakyReLU,
    keras.layers.Normalization,
    keras.layers.RMSNormalization,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.Softmax,
    keras.layers.TimeDistributed,
    keras.layers.UnitNormalization,
)
"""Stock layers that give the same for a step whatever the other steps are, at inference."""

MASKED = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.GlobalAveragePooling1D)
"""Stock layers that mix steps, and leave masked ones out of it."""


REMEDIES = {
    "Convolution": ("Conv1D", "SeparableConv1D", "DepthwiseConv1D"),
    "MaxPooling": ("MaxPooling1D",),
    "GlobalMaxPooling": ("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D"),
    "GlobalAveragePooling": (
        "GlobalAveragePooling1D",
        "GlobalAveragePooling2D",
        "GlobalAveragePooling3D",
    ),
    "MultiHeadAttention": ("MultiHeadAttention", "Attention", "AdditiveAttention"),
    "RepeatVector": ("RepeatVector",),
    "ToDense": ("Flatten", "Masking"),
    **{
        name: (name,)
        for name in (
            *("Add", "Average", "Concatenate", "Embedding", "GRU", "LSTM", "Maximum", "Minimum"),
            *("Multiply", "Softmax", "Subtract"),
        )
    },
    "Recurrence": ("RNN", "SimpleRNN", "GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"),
    "Vanilla": ("Dense",),
    "Map": ("TimeDistributed",),
}
"""For each block the stock layers in whose place it stands on ragged rows."""


def block_for(stock_name: str) -> str | None:
    """The block that stands for a stock layer on ragged rows, by its full name."""
    for block, stock_names in REMEDIES.items():
        if stock_name in stock_names:
            return f"keras_blocks.{block}"
    return None


def call_on_ragged(layer: keras.layers.Layer, x: Any) -> Any:
    """Calls a lifted layer on a ragged tensor, real or symbolic.

    Returns:
        What the layer gives: ragged where it keeps the time axis.
    Raises:
        TypeError: the layer cannot be right on ragged sequences; the message says what to do.
    """
    if _takes_ragged(layer):
        return layer(x)
    if _is_stock(layer, keras.Sequential):
        for inner in layer.layers:
            x = call_on_ragged(inner, x) if is_ragged(x) else inner(x)
        return x
    if _is_stepwise(layer, len(x.shape)):
        return _by_step(layer, x)
    if _heeds_masks(layer):
        return _by_padding(layer, x)
    raise TypeError(_refusal(layer))


def _takes_ragged(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, AcceptsRagged):
        return True
    inputs = getattr(layer, "inputs", None) if isinstance(layer, keras.Model) else None
    return any(is_ragged(tensor) for tensor in keras.tree.flatten(inputs or []))


def _is_stock(layer: keras.layers.Layer, kinds: Any) -> bool:
    """Whether it is one of Keras's own layers of these kinds; a subclass may do anything."""
    return isinstance(layer, kinds) and type(layer).__module__.partition(".")[0] == "keras"


def _is_stepwise(layer: keras.layers.Layer, rank: int) -> bool:
    if not _is_stock(layer, STEPWISE) or layer.activity_regularizer is not None:
        return False
    if getattr(layer, "noise_shape", None) or getattr(layer, "mask_zero", False):
        return False
    axes = keras.tree.flatten(getattr(layer, "axis", None))
    return all(axis is None or axis % rank >= 2 for axis in axes)


def _heeds_masks(layer: keras.layers.Layer) -> bool:
    if _is_stock(layer, keras.layers.Layer):
        return isinstance(layer, MASKED)
    return layer.supports_masking


def _by_step(layer: keras.layers.Layer, x: Any) -> Any:
    """Runs the layer on the steps of all rows, as if they were one row."""
    if isinstance(x, keras.KerasTensor):
        spec = layer(keras.KerasTensor(x.shape, x.dtype))
        return ragged_spec(spec.shape, spec.dtype)
    if isinstance(layer, keras.layers.TimeDistributed):
        return x.with_values(call_on_vectors(layer.layer, x.values))
    rows = call_on_vectors(layer, tf.expand_dims(x.values, 0))  # the gradient of an index is dearer
    return x.with_values(tf.squeeze(rows, 0))


def _by_padding(layer: keras.layers.Layer, x: Any) -> Any:
    """Runs the layer on the padded rows; what it hands the mask on to is a sequence again."""
    if isinstance(x, keras.KerasTensor):
        padded, steps = keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor(x.shape[:2], "bool")
    else:
        padded, steps = (_with_a_row(part) for part in to_padded(x, at_least=1))
    if isinstance(layer, keras.layers.GlobalAveragePooling1D):
        steps = _with_a_step(steps)
    padded._keras_mask = steps
    outputs = layer(padded)

    def unpad(output: Any) -> Any:
        is_sequence = getattr(output, "_keras_mask", None) is not None
        if isinstance(output, keras.KerasTensor):
            return ragged_spec(output.shape, output.dtype) if is_sequence else output
        if not is_sequence:
            return output[: x.nrows()]
        # A loop that ran backwards wrote the last step first, so the padding stands in front.
        kept = tf.reverse(steps, [1]) if getattr(layer, "go_backwards", False) else steps
        return unpad_like(x, output, kept)

    return keras.tree.map_structure(unpad, outputs)


def _with_a_step(steps: Any) -> Any:
    """Counts the first step of a row that has none: zeros, of which there is a mean."""
    if isinstance(steps, keras.KerasTensor):
        return steps
    empty = tf.logical_not(tf.reduce_any(steps, axis=1, keepdims=True))
    first = tf.range(tf.shape(steps)[1])[tf.newaxis, :] == 0
    return steps | (empty & first)


def _with_a_row(x: tf.Tensor) -> tf.Tensor:
    """Puts a zero row into an empty batch, on which several stock layers fail in TensorFlow."""
    missing = tf.maximum(1 - tf.shape(x)[0], 0)
    return tf.pad(x, [(0, missing), *((0, 0) for _ in x.shape[1:])])


def _refusal(layer: keras.layers.Layer) -> str:
    what = f"layer '{layer.name}' (a {type(layer).__name__}) was given a ragged sequence"
    if _is_stock(layer, keras.Model):
        return (
            f"Stacked: {what}, but the model was made for dense ones. Make it with "
            "keras.Input(..., ragged=True), or put its layers into the stack one by one."
        )
    if _is_stock(layer, keras.layers.Layer):
        block = block_for(type(layer).__name__)
        return (
            f"Stacked: {what}, but this stock layer, as it is set up, may mix the steps of a row "
            "with its padding or with other rows. "
            + (f"Use {block}, which takes ragged rows. " if block else "")
            + "Where the layer is for each step by itself, wrap it: keras_blocks.Map(layer). Else "
            "make the rows dense, with a mask: keras_blocks.ToDense()."
        )
    return (
        f"Stacked: {what}, but does not say that it can take one. If its class handles ragged "
        "tensors, derive it from keras_blocks.ragged.AcceptsRagged as well; if what it gives for "
        "a step never depends on masked steps, set `supports_masking = True` on it, and it gets "
        "padded rows with their mask."
    )
