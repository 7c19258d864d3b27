"""Global pooling: a whole row, tree or image as one vector."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, is_ragged, map_values
from keras_blocks.rows.reductions import call_by_rows, max_rows, sum_rows

_HALF = ("float16", "bfloat16")


class GlobalPooling(AcceptsRagged, keras.layers.Layer):
    """Base of the global poolings: a subclass says how the steps become one.

    Args:
        data_format: "channels_last", "channels_first", or None for the one in Keras's settings.
            Ragged rows are "channels_last".
        keepdims: bool, whether the axes that were pooled stay, with size 1.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.
    """

    ragged_output = False

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                f"{type(self).__name__}: data_format must be 'channels_last', 'channels_first' or "
                f"None. Received: data_format={data_format!r}."
            )
        self.keepdims = keepdims
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Checks that the input has axes to pool."""
        if len(input_shape) < 3:
            raise ValueError(
                f"{type(self).__name__}: the input must have at least one axis of steps between "
                f"the batch and the features, (batch, steps..., features). Received an input of "
                f"shape {tuple(input_shape)}."
            )

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Pools all steps."""
        if not is_ragged(inputs):
            return self._pool(inputs, mask)
        if self.data_format != "channels_last":
            raise ValueError(
                f"{type(self).__name__}: a ragged input has its features in the last axis, so "
                f"data_format must be 'channels_last'. Received: data_format={self.data_format!r}."
            )
        # Rows of one length have a step; what lies within a step may still be nothing.
        has_steps = len(inputs.shape) == 3
        return call_by_rows(
            [inputs], lambda x: self._pool(x, count=1 if has_steps else None), self._pool_rows
        )

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None: no steps are left."""
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, features), with axes of 1 between them if `keepdims`."""
        pooled = self._axes(len(input_shape))
        shape = [1 if axis in pooled else size for axis, size in enumerate(input_shape)]
        if self.keepdims:
            return tuple(shape)
        return tuple(size for axis, size in enumerate(shape) if axis not in pooled)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "data_format": self.data_format,
            "keepdims": self.keepdims,
        }

    def reduce_dense(self, x: Any, axes: list[int], kept: Any, count: Any) -> Any:
        """The steps of a dense tensor as one; the pooled axes stay, with size 1.

        Args:
            x: the tensor.
            axes: the axes to pool.
            kept: bool tensor that broadcasts to `x`, False for what is masked; None for no mask.
            count: how many steps are kept: a tensor, or an int for "more than none".
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `reduce_dense`.")

    def reduce_rows(self, x: tf.RaggedTensor, count: tf.Tensor) -> tf.Tensor:
        """The steps (batch, time, features) of each row as one; `count` has how many there are."""
        raise NotImplementedError(f"{type(self).__name__} does not define `reduce_rows`.")

    def _axes(self, rank: int) -> list[int]:
        return list(range(1, rank - 1) if self.data_format == "channels_last" else range(2, rank))

    def _pool(self, x: Any, mask: Any = None, count: int | None = None) -> Any:
        axes = self._axes(len(x.shape))
        kept = None if mask is None else self._aligned(mask, len(x.shape))
        count = _count(x, axes, kept) if count is None else count
        pooled = self.reduce_dense(_summable(x), axes, kept, count)
        pooled = keras.ops.cast(pooled, x.dtype)
        return pooled if self.keepdims else keras.ops.squeeze(pooled, axes)

    def _pool_rows(self, x: tf.RaggedTensor) -> tf.Tensor:
        # The steps of a row, and what lies within a step, are pooled as one axis.
        inner = x.values.shape[1:-1]
        count = x.row_lengths()
        if inner.rank:
            each = inner.num_elements()
            if each is None:
                each = tf.reduce_prod(tf.shape(x.values, count.dtype)[1:-1])
            flat = tf.reshape(x.values, [-1, x.values.shape[-1]])
            x = tf.RaggedTensor.from_row_splits(flat, x.row_splits * each, validate=False)
            count = count * each
        rows = map_values(_summable, x)
        shape = [-1, *(1 for _ in range(inner.rank + 1)), x.shape[-1]]
        pooled = tf.cast(self.reduce_rows(rows, count[:, tf.newaxis]), x.dtype)
        return tf.reshape(pooled, shape) if self.keepdims else pooled

    def _aligned(self, mask: Any, rank: int) -> Any:
        """The mask with an axis for every axis of the input."""
        if not 2 <= len(mask.shape) < rank:
            raise ValueError(
                f"{type(self).__name__}: the mask must have one entry for each step, (batch, "
                f"steps...), so 2 to {rank - 1} axes for this input. Received a mask of shape "
                f"{tuple(mask.shape)}."
            )
        mask = keras.ops.cast(mask, "bool")
        if self.data_format == "channels_first":
            mask = keras.ops.expand_dims(mask, 1)
        for _ in range(rank - len(mask.shape)):
            mask = keras.ops.expand_dims(mask, -1)
        return mask


@keras.saving.register_keras_serializable("keras_blocks")
class GlobalMaxPooling(GlobalPooling):
    """Maximum over all steps: of a row, the nodes of a tree, an image, a volume.

    y = max over t of x[t]

    The rank of the input says how many axes of steps there are. Masked steps do not count. Where
    there is no step, as in an empty row, the result is 0.

    Args:
        data_format: "channels_last", "channels_first", or None for the one in Keras's settings.
            Ragged rows are "channels_last".
        keepdims: bool, whether the axes that were pooled stay, with size 1.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the steps.
        mask: bool (batch, steps...), False for the steps that do not count; Keras hands it on from
            layers such as `Embedding(mask_zero=True)`.

    Input shape:
        (batch, steps..., features) with one or more axes of steps, or ragged
        (batch, time, ..., features).

    Output shape:
        (batch, features), dense.

    Raises:
        ValueError: an input without an axis of steps, or a mask that has not one entry a step.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [3.0]], [], [[-2.0]]], inner_shape=(1,))
        >>> kb.GlobalMaxPooling()(rows).numpy().tolist()
        [[3.0], [0.0], [-2.0]]
    """

    def reduce_dense(self, x: Any, axes: list[int], kept: Any, count: Any) -> Any:
        """Their maximum, 0 for none."""
        if kept is not None:
            x = keras.ops.where(kept, x, keras.ops.cast(tf.as_dtype(x.dtype).min, x.dtype))
        greatest = keras.ops.amax(x, axes, keepdims=True)
        if isinstance(count, int):
            return greatest
        return keras.ops.where(count > 0, greatest, keras.ops.zeros_like(greatest))

    def reduce_rows(self, x: tf.RaggedTensor, count: tf.Tensor) -> tf.Tensor:
        """Their maximum, 0 for none."""
        return max_rows(x)


@keras.saving.register_keras_serializable("keras_blocks")
class GlobalSumPooling(GlobalPooling):
    """Sum over all steps: of a row, the nodes of a tree, an image, a volume.

    y = sum over t of x[t]

    The rank of the input says how many axes of steps there are. Masked steps do not count. Where
    there is no step, as in an empty row, the result is 0. Half precision is added up in float32.

    Args:
        data_format: "channels_last", "channels_first", or None for the one in Keras's settings.
            Ragged rows are "channels_last".
        keepdims: bool, whether the axes that were pooled stay, with size 1.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the steps.
        mask: bool (batch, steps...), False for the steps that do not count; Keras hands it on from
            layers such as `Embedding(mask_zero=True)`.

    Input shape:
        (batch, steps..., features) with one or more axes of steps, or ragged
        (batch, time, ..., features).

    Output shape:
        (batch, features), dense.

    Raises:
        ValueError: an input without an axis of steps, or a mask that has not one entry a step.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [3.0]], [], [[-2.0]]], inner_shape=(1,))
        >>> kb.GlobalSumPooling()(rows).numpy().tolist()
        [[4.0], [0.0], [-2.0]]
    """

    def reduce_dense(self, x: Any, axes: list[int], kept: Any, count: Any) -> Any:
        """Their sum."""
        if kept is not None:
            x = keras.ops.where(kept, x, keras.ops.zeros((), x.dtype))
        return keras.ops.sum(x, axes, keepdims=True)

    def reduce_rows(self, x: tf.RaggedTensor, count: tf.Tensor) -> tf.Tensor:
        """Their sum."""
        return sum_rows(x)


@keras.saving.register_keras_serializable("keras_blocks")
class GlobalAveragePooling(GlobalSumPooling):
    """Mean over all steps: of a row, the nodes of a tree, an image, a volume.

    y = (sum over t of x[t]) / (number of steps)

    The rank of the input says how many axes of steps there are. Masked steps do not count. Where
    there is no step, as in an empty row, the result is 0. Half precision is added up in float32.

    Args:
        data_format: "channels_last", "channels_first", or None for the one in Keras's settings.
            Ragged rows are "channels_last".
        keepdims: bool, whether the axes that were pooled stay, with size 1.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the steps.
        mask: bool (batch, steps...), False for the steps that do not count; Keras hands it on from
            layers such as `Embedding(mask_zero=True)`.

    Input shape:
        (batch, steps..., features) with one or more axes of steps, or ragged
        (batch, time, ..., features).

    Output shape:
        (batch, features), dense.

    Raises:
        ValueError: an input without an axis of steps, or a mask that has not one entry a step.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [3.0]], [], [[-2.0]]], inner_shape=(1,))
        >>> kb.GlobalAveragePooling()(rows).numpy().tolist()
        [[2.0], [0.0], [-2.0]]
    """

    def reduce_dense(self, x: Any, axes: list[int], kept: Any, count: Any) -> Any:
        """Their mean, 0 for none."""
        if isinstance(count, int):
            return keras.ops.mean(x, axes, keepdims=True)
        return _mean(super().reduce_dense(x, axes, kept, count), count)

    def reduce_rows(self, x: tf.RaggedTensor, count: tf.Tensor) -> tf.Tensor:
        """Their mean, 0 for none."""
        return _mean(super().reduce_rows(x, count), count)


def _mean(total: Any, count: Any) -> Any:
    return total / keras.ops.cast(keras.ops.maximum(count, 1), total.dtype)


def _summable(x: Any) -> Any:
    """Half precision as float32: a sum soon leaves its range, and a mean its digits."""
    return keras.ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) in _HALF else x


def _count(x: Any, axes: list[int], kept: Any) -> Any:
    """How many steps there are: an int where it is known and not 0, else a tensor."""
    sizes = [x.shape[axis] for axis in axes]
    if kept is None:
        whole = None if None in sizes else math.prod(sizes)
        return whole or tf.reduce_prod(tf.gather(tf.shape(x), axes))
    counted = keras.ops.sum(keras.ops.cast(kept, "int32"), axes, keepdims=True)
    # A mask of fewer axes than the input counts what lies within a step as well.
    for axis in axes:
        if kept.shape[axis] == 1:
            counted = counted * keras.ops.shape(x)[axis]
    return counted
