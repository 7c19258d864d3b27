"""Map: one layer, applied to every step by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import PACKAGE, Lifting, Shape, build_layer, output_spec
from keras_blocks.ragged import AcceptsRagged, is_ragged, ragged_spec


@keras.saving.register_keras_serializable(PACKAGE)
class Map(AcceptsRagged, Lifting):
    """A layer applied to every step of a sequence, to every window, to every node of a tree.

    y[t] = layer(x[t])

    The layer is called once, on the steps of all rows: for that call the batch axis is steps. So
    it computes what `keras.layers.TimeDistributed` does, in one call and for ragged rows too; a
    step may have any shape that the layer takes: a vector, an image, a sequence of its own. Layers
    that look across the batch, as `BatchNormalization` in training, see the steps of all rows.

    A mask (batch, time) goes on to the layers behind. A mask of more axes, (batch, time, ...),
    tells the layer what to leave out within a step.

    Which stock layers take ragged rows through `Map`, by themselves, through
    `keras_blocks.Stacked` or not at all is said by docs/ragged_layers.md.

    Args:
        layer: any layer: a block, a stock layer, a layer of your own, a whole model.
        **kwargs: `name`, `dtype` and `trainable`, as for every layer.

    Input shape:
        (batch, time, ...), dense or ragged.

    Output shape:
        (batch, time, *output of the layer), ragged where the input is.

    Raises:
        TypeError: `layer` is no layer.
        ValueError: the input has no axis of time, or the layer gives more than one tensor.

    Example:
        >>> import keras, keras_blocks as kb, numpy as np, tensorflow as tf
        >>> images = np.ones((2, 5, 8, 8, 3))  # two films of five images
        >>> kb.Map(keras.layers.Conv2D(4, 3))(images).shape
        TensorShape([2, 5, 6, 6, 4])
        >>> films = tf.RaggedTensor.from_row_lengths(images[0], [3, 2])
        >>> kb.Map(kb.GlobalMaxPooling())(films).shape
        TensorShape([2, None, 3])
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Builds the layer for a batch of steps."""
        build_layer(self.layer, self._step_shape(input_shape))

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Applies the layer to every step."""
        return self.apply(self._call_layer, inputs, mask)

    def apply(self, function: Callable[..., Any], inputs: Any, mask: Any = None) -> Any:
        """Applies a function of a batch of steps, and of their mask or None, to every step."""
        if is_ragged(inputs):
            return inputs.with_values(function(inputs.values, None))
        kept = None if mask is None or len(mask.shape) == 2 else _merge_axes(mask)
        outputs = function(_merge_axes(inputs), kept)
        sizes = tf.concat([tf.shape(inputs)[:2], tf.shape(outputs)[1:]], axis=0)
        result = tf.reshape(outputs, sizes)
        return tf.ensure_shape(result, [*inputs.shape[:2], *outputs.shape[1:]])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the steps; one that masks all within is masked."""
        if mask is None or len(mask.shape) == 2:
            return mask
        return keras.ops.any(mask, axis=tuple(range(2, len(mask.shape))))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(batch, time, *output of the layer)."""
        inner = output_spec(self.layer, self._step_shape(input_shape), "Map")
        return (*input_shape[:2], *inner.shape[1:])

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        """The symbolic output, ragged where the input is."""
        inner = output_spec(self.layer, self._step_shape(inputs.shape), "Map")
        shape = (*inputs.shape[:2], *inner.shape[1:])
        if not is_ragged(inputs):
            return keras.KerasTensor(shape, inner.dtype)
        # XLA has no ragged tensors; Keras looks here when a model is compiled.
        self.supports_jit = False
        return ragged_spec(shape, inner.dtype)

    def _call_layer(self, steps: tf.Tensor, mask: Any) -> Any:
        # Several stock layers fail in TensorFlow on a batch of none. It copies nothing to pad by 0.
        count = tf.shape(steps)[0]
        steps = _with_a_row(steps, count)
        if mask is not None:
            steps._keras_mask = _with_a_row(mask, count)
        outputs = self.layer(steps)
        # The gradient of an index copies, that of a slice does not.
        sizes = [count, *(-1 for _ in outputs.shape[1:])]
        kept = tf.slice(outputs, [0 for _ in sizes], sizes)
        return tf.ensure_shape(kept, [None, *outputs.shape[1:]])

    def _step_shape(self, input_shape: Any) -> Shape:
        if len(input_shape) < 2:
            raise ValueError(
                "Map: the input must be (batch, time, ...). Received an input of shape "
                f"{tuple(input_shape)}."
            )
        return (None, *input_shape[2:])


def _with_a_row(x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.pad(x, [(0, tf.maximum(1 - count, 0)), *((0, 0) for _ in x.shape[1:])])


def _merge_axes(x: tf.Tensor) -> tf.Tensor:
    """(batch, time, ...) -> (batch * time, ...)."""
    x = tf.convert_to_tensor(x)
    shape = tf.shape(x)
    # No size of -1: it could not be found where a step has no elements.
    merged = tf.reshape(x, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    return tf.ensure_shape(merged, [None, *x.shape[2:]])
