"""Convolution: one layer, applied to every window of the input."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import (
    PACKAGE,
    Affine,
    Lifting,
    Shape,
    affine_parts,
    build_layer,
    call_on_vectors,
    output_spec,
)
from keras_blocks.ragged import AcceptsRagged, from_row_splits, is_ragged, map_values, ragged_spec
from keras_blocks.refusals import check_features, check_mask
from keras_blocks.windows.short_inputs import guard_short_input
from keras_blocks.windows.sliding import (
    PADDINGS,
    Window,
    dense_mask,
    dense_windows,
    place_windows,
    ragged_windows,
    spatial_lengths,
)

_OF_LAYER = (
    "It belongs to the lifted layer: Convolution(kb.Vanilla(filters, activation=...), window_size)."
)


@keras.saving.register_keras_serializable(PACKAGE)
class Convolution(AcceptsRagged, Lifting):
    """A layer applied to sliding, overlapping windows of the input.

    y[t] = layer(concat(x[t * stride], x[t * stride + dilation], ...)), width inputs in all

    The same along two or three axes. The positions of a window are major and its channels minor in
    the vector that the layer gets. The result is one rank higher than the layer's own: a layer
    that gives vectors gives a sequence (an image, a volume) of vectors.

    A layer that computes `activation(x W + b)` (`Vanilla`, `keras.layers.Dense`) runs as one real
    convolution with W as its kernel; no window is copied. Any other layer is called once, on the
    windows of the whole batch: for that call the batch axis is batch times windows.

    A mask (batch, spatial...) makes the masked steps zero. Under "valid" a window is masked if it
    holds a masked step, under "same" and "causal" if the step it stands on (`t * stride`) is.
    In a ragged sequence every row is convolved alone.

    Args:
        layer: any layer of vectors: a block, a stock layer, a layer of your own, a whole model.
        window_size: int for sequences, else a tuple of 1 to 3 ints: the width of the window along
            each spatial axis.
        strides: int or tuple, the steps from one window to the next.
        padding: "valid" for windows within the input only, "same" to pad zeros on both sides so
            that stride 1 keeps the length, "causal" (sequences only) to pad in front.
        dilation_rate: int or tuple, the steps between two positions of a window.
        **kwargs: `name`, `dtype` and `trainable`, as for every layer.

    Input shape:
        (batch, time, channels), (batch, rows, columns, channels), (batch, depth, rows, columns,
        channels), or ragged (batch, time, channels).

    Output shape:
        (batch, steps..., *output of the layer). Along an axis of n positions there are
        max(0, 1 + (n - extent) // stride) steps under "valid", with extent = 1 + (width - 1) *
        dilation_rate, and ceil(n / stride) steps else (n of 1 or more). Ragged where the input is.

    Raises:
        TypeError: `layer` is no layer.
        ValueError: a size is no positive integer, the padding is unknown, or the input has not
            the rank that `window_size` asks for.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> kb.Convolution(kb.Vanilla(4), window_size=3)(np.ones((2, 10, 5))).shape
        TensorShape([2, 8, 4])
        >>> kb.Convolution(kb.Vanilla(4), window_size=(3, 3), padding="same")(
        ...     np.ones((2, 6, 6, 1))
        ... ).shape
        TensorShape([2, 6, 6, 4])
    """

    twin_arguments: ClassVar = {
        "kernel_size": "window_size",
        "pool_size": "window_size",
        "width": "window_size",
        "stride": "strides",
        "dilation": "dilation_rate",
        "dilations": "dilation_rate",
        "filters": _OF_LAYER,
        "out_channels": _OF_LAYER,
        "units": _OF_LAYER,
        "activation": _OF_LAYER,
        "use_bias": _OF_LAYER,
        "kernel_initializer": _OF_LAYER,
        "data_format": "Channels are the last axis: move them there with keras.layers.Permute.",
        "groups": "One layer sees all channels of its window: split them before.",
    }

    def __init__(
        self,
        layer: keras.layers.Layer,
        window_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        dilation_rate: int | tuple[int, ...] = 1,
        **kwargs: Any,
    ):
        super().__init__(layer, **kwargs)
        size = _sizes("window_size", window_size, None)
        if padding not in PADDINGS or (padding == "causal" and len(size) > 1):
            raise ValueError(
                "Convolution: `padding` must be 'valid', 'same' or, for sequences, 'causal'. "
                f"Received: padding={padding!r} with window_size={window_size}."
            )
        self.window_size = size
        self.strides = _sizes("strides", strides, len(size))
        self.padding = padding
        self.dilation_rate = _sizes("dilation_rate", dilation_rate, len(size))
        self.supports_masking = True
        self.features: int | None = None

    @property
    def window(self) -> Window:
        """The window's geometry."""
        return Window(self.window_size, self.strides, self.dilation_rate, self.padding)

    def build(self, input_shape: Any) -> None:
        """Builds the layer for the flattened window."""
        build_layer(self.layer, self._window_shape(input_shape))
        self.features = input_shape[-1]
        self._output_spec(input_shape)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Applies the layer to every window."""
        self._check_input(inputs.shape, mask)
        affine = affine_parts(self.layer, self.compute_dtype)
        if is_ragged(inputs):
            return self._call_rows(inputs, affine)
        if mask is not None:
            kept = tf.cast(mask, tf.bool)[..., tf.newaxis]
            inputs = tf.where(kept, inputs, tf.zeros([], inputs.dtype))
        if affine is not None and self._is_native:
            return affine.finish(self._convolve(inputs, affine.kernel))
        return self._call_windows(dense_windows(inputs, self.window))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the windows; `previous_mask` is the one of the steps."""
        # A symbol gets none: the real call puts a real mask on its output.
        if mask is None or is_ragged(inputs) or isinstance(mask, keras.KerasTensor):
            return None
        return dense_mask(tf.cast(mask, tf.bool), self.window)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(batch, steps..., *output of the layer)."""
        return tuple(self._output_spec(input_shape).shape)

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        """The symbolic output, ragged where the input is."""
        self._check_input(inputs.shape, mask)
        spec = self._output_spec(inputs.shape)
        if not is_ragged(inputs):
            return spec
        self._check_rows()
        # XLA has no ragged tensors; Keras looks here when a model is compiled.
        self.supports_jit = False
        return ragged_spec(spec.shape, spec.dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "window_size": self.window_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
        }

    @property
    def _is_native(self) -> bool:
        # TensorFlow has no convolution with both.
        return max(self.strides) == 1 or max(self.dilation_rate) == 1

    def _output_spec(self, input_shape: Any) -> keras.KerasTensor:
        inner = output_spec(self.layer, self._window_shape(input_shape), "Convolution")
        steps = self.window.steps(tuple(input_shape[1:-1]))
        return keras.KerasTensor((input_shape[0], *steps, *inner.shape[1:]), inner.dtype)

    def _window_shape(self, input_shape: Any) -> Shape:
        rank = self.window.rank
        if len(input_shape) != rank + 2:
            raise ValueError(
                f"Convolution: window_size={self.window_size} has {rank} spatial axes, so the "
                f"input must have rank {rank + 2}: (batch, {rank} spatial, channels). "
                f"Received an input of shape {tuple(input_shape)}."
            )
        channels = input_shape[-1]
        return None, None if channels is None else channels * self.window.positions

    def _check_input(self, shape: Any, mask: Any) -> None:
        self._window_shape(shape)
        check_features(self, self.features, shape)
        check_mask(self, mask, shape, self.window.rank + 1)

    def _call_windows(self, windows: tf.Tensor) -> tf.Tensor:
        """The layer on (batch, steps..., flat), in one call."""
        outputs = call_on_vectors(self.layer, tf.reshape(windows, [-1, windows.shape[-1]]))
        shape = tf.concat([tf.shape(windows)[:-1], tf.shape(outputs)[1:]], axis=0)
        known = windows.shape[:-1].concatenate(outputs.shape[1:])
        outputs = tf.reshape(outputs, shape)
        outputs.set_shape(known)
        return outputs

    def _convolve(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """(batch, spatial..., channels) -> (batch, steps..., units), as one convolution."""
        window, padding = self.window, self.padding
        units = kernel.shape[-1]
        steps = window.steps(tuple(inputs.shape[1:-1]))
        if 0 in (inputs.shape[0], *steps):
            lengths = window.steps(spatial_lengths(inputs, window.rank))
            return tf.zeros([tf.shape(inputs)[0], *lengths, units], self.compute_dtype)
        if padding == "causal":
            inputs = tf.pad(inputs, [(0, 0), (window.extents[0] - 1, 0), (0, 0)])
            padding = "valid"

        def convolve() -> tf.Tensor:
            return keras.ops.conv(
                inputs,
                keras.ops.reshape(kernel, (*window.size, inputs.shape[-1], units)),
                strides=window.strides,
                padding=padding,
                data_format="channels_last",
                dilation_rate=window.dilation,
            )

        # Zeros around the input leave room for a window wherever there is a step at all.
        if None not in steps or window.padding != "valid":
            return convolve()
        return guard_short_input(
            inputs, window.extents, convolve, window.steps, units, window.strides
        )

    def _call_rows(self, x: tf.RaggedTensor, affine: Affine | None) -> tf.RaggedTensor:
        self._check_rows()
        if affine is not None and self.window.strides == (1,):
            return map_values(affine.finish, self._convolve_rows(x, affine.kernel))
        windows = ragged_windows(x, self.window)
        return map_values(lambda vectors: call_on_vectors(self.layer, vectors), windows)

    def _check_rows(self) -> None:
        if self.window.rank != 1:
            raise ValueError(
                f"Convolution: a ragged input is a batch of sequences, so window_size must be one "
                f"int. Received: window_size={self.window_size}."
            )

    def _convolve_rows(self, x: tf.RaggedTensor, kernel: Any) -> tf.RaggedTensor:
        """One convolution over all rows laid end to end, from which the right windows are taken."""
        window = self.window
        place = place_windows(x, window)
        gap = 0 if window.padding == "valid" else window.extents[0] - 1
        splits = x.row_splits
        ((before, _),) = window.pads((x.row_lengths(),))
        before = tf.cast(before, splits.dtype)
        begins = splits[:-1] + gap * tf.range(tf.size(splits, splits.dtype) - 1) + before
        # The zeros behind the last row leave room for one window even if there are no steps.
        line = _in_line(x, begins, window.extents[0] + gap)
        products = keras.ops.conv(
            line[tf.newaxis],
            keras.ops.reshape(kernel, (*window.size, line.shape[-1], kernel.shape[-1])),
            padding="valid",
            data_format="channels_last",
            dilation_rate=window.dilation,
        )[0]
        found = tf.gather(products, tf.gather(begins, place.rows) + place.starts)
        return from_row_splits(found, place.row_splits)


def _in_line(x: tf.RaggedTensor, begins: tf.Tensor, behind: int) -> tf.Tensor:
    """The values of all rows, each row at its place in `begins`, zeros between and behind them."""
    steps = x.row_splits
    shifts = tf.gather(begins - steps[:-1], x.value_rowids())
    positions = tf.range(steps[-1]) + shifts
    length = tf.reduce_max(tf.concat([begins + x.row_lengths(), steps[:1]], axis=0)) + behind
    shape = tf.stack([length, tf.constant(x.values.shape[-1], length.dtype)])
    return tf.scatter_nd(positions[:, tf.newaxis], x.values, shape)


def _sizes(name: str, value: Any, rank: int | None) -> tuple[int, ...]:
    """The value as a tuple of positive ints, one for each axis."""
    sizes = tuple(value) if isinstance(value, (list, tuple)) else (value,) * (rank or 1)
    positive = all(isinstance(n, int) and n > 0 for n in sizes)
    if positive and (len(sizes) == rank if rank else 1 <= len(sizes) <= 3):
        return sizes
    expected = f"a tuple of {rank}" if rank else "a tuple of 1 to 3"
    raise ValueError(
        f"Convolution: `{name}` must be a positive int or {expected} of them. "
        f"Received: {name}={value!r}."
    )
