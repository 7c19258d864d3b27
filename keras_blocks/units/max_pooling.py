"""Max pooling: the greatest element of each region."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, from_padded, is_ragged, to_padded
from keras_blocks.refusals import check_mask
from keras_blocks.windows.short_inputs import guard_short_input


@keras.saving.register_keras_serializable("keras_blocks")
class MaxPooling(AcceptsRagged, keras.layers.Layer):
    """Maximum over windows of the input, along 1, 2 or 3 spatial axes.

    y[t] = max(x[t * stride : t * stride + width]), along every spatial axis

    The rank of the input says how many spatial axes there are. A row of a ragged sequence is
    pooled by itself, and one that is shorter than the window gives no step; so does a dense input.
    A mask (batch, time) is handed on: a step of the output is masked where its window holds a
    masked step.

    Args:
        pool_size: int or one int for each spatial axis, the width of the window in steps.
        strides: int or one int for each spatial axis, the steps from a window to the next; None
            for `pool_size`.
        padding: "valid" for the windows that lie within the input, "same" for enough windows to
            cover it, `ceil(time / stride)`; what lies outside never is the maximum.
        data_format: "channels_last", "channels_first", or None for the one in Keras's settings.
            Ragged sequences are "channels_last".
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Input shape:
        (batch, time, features), (batch, rows, columns, features), (batch, x, y, z, features), or
        ragged (batch, time, features).

    Output shape:
        The same rank; time becomes `max(0, 1 + (time - width) // stride)` steps if "valid",
        `ceil(time / stride)` if "same".

    Raises:
        ValueError: a size that is no positive integer, an unknown padding, an input without
            spatial axes or with more than three, or with other axes than `pool_size` has.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> x = np.array([3.0, 1.0, 4.0, 1.0, 5.0]).reshape(1, 5, 1)
        >>> [float(y) for y in kb.MaxPooling(2, strides=1)(x)[0, :, 0]]
        [3.0, 4.0, 4.0, 5.0]
    """

    twin_arguments: ClassVar = {
        "kernel_size": "pool_size",
        "window_size": "pool_size",
        "stride": "strides",
        "dilation_rate": "Windows of a pooling have no gaps: leave it out.",
    }

    def __init__(
        self,
        pool_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.pool_size = _sizes("pool_size", pool_size)
        self.strides = None if strides is None else _sizes("strides", strides)
        if padding not in ("valid", "same"):
            raise ValueError(
                f"MaxPooling: padding must be 'valid' or 'same'. Received: padding={padding!r}."
            )
        self.padding = padding
        self.data_format = data_format or keras.config.image_data_format()
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Checks that the input has the axes to pool."""
        self._windows(input_shape)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Pools along the spatial axes."""
        widths, strides = self._windows(inputs.shape)
        self._check_mask(mask, inputs.shape)
        if is_ragged(inputs):
            return self._pool_rows(inputs, widths[0], strides[0])
        if self.data_format == "channels_last":
            return self._pool(inputs, widths, strides)
        axes = list(range(len(inputs.shape)))
        pooled = self._pool(tf.transpose(inputs, [0, *axes[2:], 1]), widths, strides)
        return tf.transpose(pooled, [0, axes[-1], *axes[1:-1]])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Masks a step of the output where its window holds a masked step."""
        # A symbol gets none: the real call puts a real mask on its output.
        if mask is None or isinstance(mask, keras.KerasTensor):
            return None
        if len(inputs.shape) != 3 or self.data_format == "channels_first":
            return None
        masked = tf.expand_dims(tf.cast(tf.logical_not(mask), self.compute_dtype), -1)
        return tf.squeeze(self._pool(masked, *self._windows(inputs.shape)), -1) < 0.5

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        """The symbolic output, ragged where the input is."""
        self._check_mask(mask, inputs.shape)
        return super().compute_output_spec(inputs, mask)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape after pooling."""
        widths, strides = self._windows(input_shape)
        sizes = input_shape[1:-1] if self.data_format == "channels_last" else input_shape[2:]
        pooled = [
            None if size is None else self._count(size, width, stride)
            for size, width, stride in zip(sizes, widths, strides, strict=True)
        ]
        if self.data_format == "channels_last":
            return (input_shape[0], *pooled, input_shape[-1])
        return (input_shape[0], input_shape[1], *pooled)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
        }

    def _check_mask(self, mask: Any, shape: Any) -> None:
        if self.data_format == "channels_last":
            # Of images a mask is not used; Keras may hand on one of their first spatial axis.
            check_mask(self, mask, shape, 2 if len(shape) == 3 or mask is None else len(mask.shape))

    def _count(self, size: Any, width: int, stride: int) -> Any:
        """How many windows an axis of this size has, which may be an int or a tensor."""
        if self.padding == "same":
            return (size + stride - 1) // stride
        whole = 1 + (size - width) // stride
        return max(whole, 0) if isinstance(size, int) else tf.maximum(whole, 0)

    def _windows(self, shape: Any) -> tuple[list[int], list[int]]:
        """Width and stride for each spatial axis of an input of this shape."""
        rank = len(shape) - 2
        if rank not in (1, 2, 3):
            raise ValueError(
                "MaxPooling: the input must have 1 to 3 spatial axes between the batch and the "
                f"features. Received an input of shape {tuple(shape)}."
            )
        widths = self.pool_size
        strides = widths if self.strides is None else self.strides
        for name, sizes in (("pool_size", widths), ("strides", strides)):
            if not isinstance(sizes, int) and len(sizes) != rank:
                raise ValueError(
                    f"MaxPooling: {name} must be an int or have one int for each of the "
                    f"{rank} spatial axes of the input. Received: {name}={sizes}, and an input "
                    f"of shape {tuple(shape)}."
                )
        return _for_each_axis(widths, rank), _for_each_axis(strides, rank)

    def _pool(self, x: tf.Tensor, widths: list[int], strides: list[int]) -> tf.Tensor:
        """Pools a dense tensor whose last axis holds the features."""

        def pool() -> tf.Tensor:
            return _max_pool(x, widths, strides, self.padding.upper())

        if self.padding == "same":
            return pool()

        def count(sizes: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
            return [self._count(*axis) for axis in zip(sizes, widths, strides, strict=True)]

        return guard_short_input(x, widths, pool, count, strides=strides)

    def _pool_rows(self, x: tf.RaggedTensor, width: int, stride: int) -> tf.RaggedTensor:
        """Pools each row by itself."""
        if self.data_format != "channels_last":
            raise ValueError(
                "MaxPooling: a ragged input has its features in the last axis, so data_format "
                f"must be 'channels_last'. Received: data_format={self.data_format!r}."
            )
        lengths = x.row_lengths()
        counts = self._count(lengths, width, stride)
        offsets = None
        if self.padding == "same":
            # What the windows reach over is split between both ends, the odd step at the end.
            offsets = tf.maximum((counts - 1) * stride + width - lengths, 0) // 2
        row_splits = tf.concat([x.row_splits[:1], tf.cumsum(counts)], axis=0)
        # As long as the last window of the longest row needs.
        longest = tf.reduce_max(tf.concat([counts, tf.ones([1], counts.dtype)], axis=0))
        padded, _ = to_padded(
            x, at_least=(longest - 1) * stride + width, fill=x.dtype.min, offsets=offsets
        )
        pooled = tf.nn.max_pool1d(padded, width, stride, "VALID")
        kept = tf.range(tf.shape(pooled, out_type=counts.dtype)[1]) < counts[:, tf.newaxis]
        return from_padded(pooled, kept, row_splits)


def _max_pool(x: tf.Tensor, widths: list[int], strides: list[int], padding: str) -> tf.Tensor:
    if len(widths) < 3 or x.dtype in (tf.float32, tf.bfloat16):
        return tf.nn.max_pool(x, widths, strides, padding)
    # TensorFlow pools other dtypes along two axes at most: here the first two, then the third.
    flat = tf.concat([tf.shape(x)[:3], [-1]], axis=0)
    pooled = tf.nn.max_pool2d(tf.reshape(x, flat), widths[:2], strides[:2], padding)
    rows = tf.concat([tf.shape(x)[:1], [-1], tf.shape(x)[3:]], axis=0)
    pooled_rows = tf.nn.max_pool2d(
        tf.reshape(pooled, rows), [1, widths[2]], [1, strides[2]], padding
    )
    sizes = [tf.shape(pooled)[:3], tf.shape(pooled_rows)[2:]]
    return tf.reshape(pooled_rows, tf.concat(sizes, axis=0))


def _sizes(name: str, value: Any) -> int | tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not sizes or any(not isinstance(size, int) or size <= 0 for size in sizes):
        raise ValueError(
            f"MaxPooling: {name} must be a positive int, or one for each spatial axis. "
            f"Received: {name}={value}."
        )
    return sizes if isinstance(value, (list, tuple)) else sizes[0]


def _for_each_axis(sizes: int | tuple[int, ...], rank: int) -> list[int]:
    return [sizes] * rank if isinstance(sizes, int) else list(sizes)
