"""Sliding windows of dense and ragged inputs, each flattened to one vector.

Positions within the window are major, channels minor: the order in which the kernel of a
convolution is stored. Everything is written with slices and one gather, which convert to ONNX.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.ragged import from_row_splits

PADDINGS = ("valid", "same", "causal")


@dataclass(frozen=True)
class Window:
    """The window of a convolution.

    Args:
        size: tuple of int, the positions along each spatial axis.
        strides: tuple of int, the steps from one window to the next.
        dilation: tuple of int, the steps from one position of a window to the next.
        padding: "valid", "same" or "causal".
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.size)

    @property
    def positions(self) -> int:
        """The number of positions in a window."""
        return math.prod(self.size)

    @property
    def extents(self) -> tuple[int, ...]:
        """The steps from a window's first position to its last, both counted."""
        return tuple((n - 1) * d + 1 for n, d in zip(self.size, self.dilation, strict=True))

    def steps(self, lengths: tuple[Any, ...]) -> tuple[Any, ...]:
        """The number of windows along each axis; a length is an int, None or an integer tensor."""
        return tuple(
            None if length is None else self._axis_steps(length, extent, stride)
            for length, extent, stride in zip(lengths, self.extents, self.strides, strict=True)
        )

    def _axis_steps(self, length: Any, extent: int, stride: int) -> Any:
        steps = length - (extent if self.padding == "valid" else 1)
        # Integer division takes ONNX many nodes.
        steps = (steps if stride == 1 else steps // stride) + 1
        if isinstance(steps, int):
            return max(steps, 0)
        return tf.maximum(steps, 0)

    def pads(self, lengths: tuple[Any, ...]) -> list[tuple[Any, Any]]:
        """The zero steps before and behind each axis."""
        axes = zip(lengths, self.steps(lengths), self.extents, self.strides, strict=True)
        return [self._axis_pads(*axis) for axis in axes]

    def _axis_pads(self, length: Any, steps: Any, extent: int, stride: int) -> tuple[Any, Any]:
        if self.padding == "valid":
            return 0, 0
        if self.padding == "causal":
            return extent - 1, 0
        total = (steps - 1) * stride + extent - length
        total = max(total, 0) if isinstance(total, int) else tf.maximum(total, 0)
        return total // 2, total - total // 2


def spatial_lengths(x: tf.Tensor, rank: int) -> tuple[Any, ...]:
    """The lengths of the spatial axes of (batch, spatial..., channels): ints where known."""
    dynamic = tf.shape(x)
    return tuple(
        dynamic[axis] if x.shape[axis] is None else x.shape[axis] for axis in range(1, rank + 1)
    )


def dense_windows(x: tf.Tensor, window: Window) -> tf.Tensor:
    """(batch, spatial..., channels) -> (batch, steps..., positions * channels)."""
    lengths = spatial_lengths(x, window.rank)
    padded = tf.pad(x, [(0, 0), *window.pads(lengths), (0, 0)]) if window.padding != "valid" else x
    steps = window.steps(lengths)
    return keras.ops.concatenate(list(_slices(padded, window, steps)), axis=-1)


def dense_mask(mask: tf.Tensor, window: Window) -> tf.Tensor:
    """The mask (batch, steps...) of the windows of masked steps (batch, spatial...).

    Under "valid" a window counts when all its steps do; else when the step it stands on does.
    """
    steps = window.steps(spatial_lengths(mask, window.rank))
    if window.padding == "valid":
        return tf.reduce_all(tf.stack(list(_slices(mask, window, steps))), axis=0)
    return mask[(slice(None), *(slice(None, None, stride) for stride in window.strides))]


def _slices(x: tf.Tensor, window: Window, steps: tuple[Any, ...]) -> Any:
    """For each position of the window, what all windows have there."""
    for position in itertools.product(*(range(n) for n in window.size)):
        cut = [slice(None)]
        for index, dilation, stride, count in zip(
            position, window.dilation, window.strides, steps, strict=True
        ):
            start = index * dilation
            # `count` may be 0: the end must not fall before the start.
            stop = start + (count - 1) * stride + 1
            stop = max(stop, start) if isinstance(stop, int) else tf.maximum(stop, start)
            cut.append(slice(start, stop, stride))
        yield x[tuple(cut)]


@dataclass(frozen=True)
class RaggedWindows:
    """Where the windows of a ragged sequence lie: each within its own row.

    Args:
        starts: int tensor, for each window the index of its first position, counted from the
            start of its row; below 0 where the window begins in the padding.
        rows: int tensor, the row of each window.
        row_splits: int tensor, the row splits of the windows.
    """

    starts: tf.Tensor
    rows: tf.Tensor
    row_splits: tf.Tensor


def place_windows(x: tf.RaggedTensor, window: Window) -> RaggedWindows:
    """Places the windows of every row; a row that has room for none gets none."""
    lengths = x.row_lengths()
    (counts,) = window.steps((lengths,))
    ((before, _),) = window.pads((lengths,))
    row_splits = tf.concat([tf.zeros([1], counts.dtype), tf.cumsum(counts)], axis=0)
    windows = tf.range(row_splits[-1])
    rows = from_row_splits(windows, row_splits).value_rowids()
    index_in_row = windows - tf.gather(row_splits, rows)
    before = tf.broadcast_to(tf.cast(before, lengths.dtype), tf.shape(lengths))
    starts = index_in_row * window.strides[0] - tf.gather(before, rows)
    return RaggedWindows(starts, rows, row_splits)


def ragged_windows(x: tf.RaggedTensor, window: Window) -> tf.RaggedTensor:
    """Ragged (batch, time, channels) -> ragged (batch, steps, positions * channels)."""
    place = place_windows(x, window)
    dtype = x.row_splits.dtype
    offsets = tf.range(window.size[0], dtype=dtype) * window.dilation[0]
    in_row = place.starts[:, tf.newaxis] + offsets
    lengths = tf.gather(x.row_lengths(), place.rows)[:, tf.newaxis]
    first = tf.gather(x.row_splits, place.rows)[:, tf.newaxis]
    # Positions outside the row read the zero step that is put behind the last value.
    past_end = tf.shape(x.values, out_type=dtype)[0]
    indices = tf.where((in_row >= 0) & (in_row < lengths), first + in_row, past_end)
    channels = x.values.shape[-1]
    zero = tf.zeros([1, channels], x.values.dtype)
    gathered = tf.gather(tf.concat([x.values, zero], axis=0), indices)
    flat = tf.reshape(gathered, [-1, window.size[0] * channels])
    return from_row_splits(flat, place.row_splits)
