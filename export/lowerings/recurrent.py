"""GRU and LSTM layers, stock ones and ours, one way or both, as the native ONNX ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.errors import ExportError
from keras_blocks.export.hooks import Call
from keras_blocks.export.lowerings.activations import activation_attributes
from keras_blocks.export.lowerings.cells import NativeCell, native_cell, stacked
from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.lowerings.row_groups import NativeOp, run_in_groups
from keras_blocks.export.lowerings.sequences import Dense, Masked, Sequences, sequences_of
from keras_blocks.export.standins import onnx_node
from keras_blocks.ragged import is_ragged
from keras_blocks.ragged_rnn import RaggedRNN

_FLOATS = ("float32", "float16")
_RECURRENT = (
    keras.layers.GRU,
    keras.layers.LSTM,
    keras.layers.RNN,
    keras.layers.SimpleRNN,
    kb.GRU,
    kb.LSTM,
    kb.Recurrence,
)


@lowers(*_RECURRENT)
def lower_recurrent(layer: keras.layers.RNN) -> Call | None:
    """Native ops, whatever the mask, the direction and the initial states."""
    native = _native(layer)
    if native is None:
        return _rolled(layer) if layer.unroll else None
    own_call = layer.call

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        if not _is_native_call([layer], sequences, mask, training):
            return own_call(sequences, initial_state=initial_state, mask=mask, training=training)
        steps = sequences_of(sequences, _only(mask))
        initial = None
        if initial_state is not None:
            initial = [tf.expand_dims(state, 0) for state in keras.tree.flatten(initial_state)]
        run = _run(native, [layer], steps, initial)
        if layer.return_sequences:
            result = run.sequences(steps, layer.go_backwards, not layer.zero_output_for_mask)
        else:
            result = _last_output(layer, steps, tf.squeeze(run.last, 0))
        return _returned(layer, result, [tf.squeeze(state, 0) for state in run.states])

    return call


@lowers(keras.layers.Bidirectional)
def lower_bidirectional(layer: keras.layers.Bidirectional) -> Call | None:
    """Native ops for both directions at once where they are of one kind; else each has its own."""
    both = [layer.forward_layer, layer.backward_layer]
    if any(type(direction) not in _RECURRENT for direction in both):
        return None
    native, other = (_native(direction) for direction in both)
    if native is None or native != other or both[0].go_backwards:
        return None
    if both[0].cell.use_bias != both[1].cell.use_bias:
        return None
    own_call = layer.call

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: bool | None = None
    ) -> Any:
        if not _is_native_call(both, sequences, mask, training):
            return own_call(sequences, initial_state=initial_state, mask=mask, training=training)
        steps = sequences_of(sequences, _only(mask))
        run = _run(native, both, steps, _both_initial(initial_state))
        if layer.return_sequences:
            result = run.sequences(steps)
        else:
            result = tf.concat(tf.unstack(run.last), axis=-1)
        merged = _merged(layer.merge_mode, _cast(result, layer.compute_dtype))
        if not layer.return_state:
            return merged
        # All states of the forward layer, then those of the backward layer.
        each = [_cast(state[d], layer.compute_dtype) for d in range(2) for state in run.states]
        return (*merged, *each) if layer.merge_mode is None else (merged, *each)

    return call


def _rolled(layer: keras.layers.RNN) -> Call:
    """The layer's own call, as a loop where the steps to unroll cannot be counted."""
    own_call = layer.call

    def call(sequences: Any, **options: Any) -> Any:
        asked = layer.unroll
        layer.unroll = asked and sequences.shape[1] is not None
        try:
            return own_call(sequences, **options)
        finally:
            layer.unroll = asked

    return call


def _native(layer: keras.layers.RNN) -> NativeCell | None:
    native = native_cell(layer.cell)
    if native is not None and layer.compute_dtype not in _FLOATS:
        raise ExportError(
            f"layer '{layer.name}' computes in {layer.compute_dtype}; onnxruntime's recurrent ops "
            f"know {' and '.join(_FLOATS)}. Build the model with one of these."
        )
    return native


def _is_native_call(layers: Sequence[Any], sequences: Any, mask: Any, training: Any) -> bool:
    """Whether this call is one that the native op can stand for; else the layer's own runs."""
    mask = _only(mask)
    drops = training and any(
        getattr(layer.cell, name, 0)
        for layer in layers
        for name in ("dropout", "recurrent_dropout")
    )
    return (
        not drops
        and sequences.shape.rank == 3
        and sequences.shape[2] is not None
        and (mask is None or (mask.shape.rank == 2 and not is_ragged(sequences)))
    )


@dataclass(frozen=True)
class _Result:
    """What a native run gave.

    Args:
        outputs: those of the op, or of its groups.
        last: (directions, batch, units), the last output; zeros for a row without steps.
        states: each (directions, batch, units), the initial ones for a row without steps.
        rows: the rows that ran, None where all steps of a dense input did.
    """

    outputs: Any
    last: tf.Tensor
    states: list[tf.Tensor]
    rows: Any = None

    def sequences(self, steps: Sequences, backwards: bool = False, hold: bool = False) -> Any:
        """Every output, in the order in which the layer gives them."""
        if isinstance(steps, Dense):
            return steps.sequences(self.outputs, backwards)
        return steps.sequences(self.outputs, self.rows, backwards, hold)


def _run(
    native: NativeCell,
    layers: Sequence[keras.layers.RNN],
    steps: Sequences,
    initial: list[tf.Tensor] | None,
) -> _Result:
    op = _native_op(native, layers)
    before = [tf.cast(value, tf.float32) for value in initial or ()]
    if isinstance(steps, Dense):
        outputs, *states = op(steps.time_major(), None, before)
        return _Result(outputs, states[0], states)
    rows = steps.rows()
    returned = layers[0].return_sequences
    outputs, states = run_in_groups(op, rows, before, len(layers), returned)
    last = states[0]
    if before:
        # onnxruntime gives zeros for a row without steps; its state is still the initial one.
        empty = tf.equal(rows.lengths, 0)[:, tf.newaxis]
        states = [tf.where(empty, old, new) for new, old in zip(states, before, strict=True)]
    return _Result(outputs, last, states, rows)


def _native_op(native: NativeCell, layers: Sequence[keras.layers.RNN]) -> NativeOp:
    """The op of these directions, with their weights."""
    weights = [native.weights(layer.cell) for layer in layers]
    kernel, recurrent, bias = (stacked(parts) for parts in zip(*weights, strict=True))
    directions = len(layers)
    one_way = "reverse" if layers[0].go_backwards else "forward"

    def op(inputs: tf.Tensor, lengths: Any, before: list[tf.Tensor]) -> list[tf.Tensor]:
        time, batch = inputs.shape[:2]
        state = tf.TensorSpec((directions, batch, native.units), tf.float32)
        every = tf.TensorSpec((time, directions, batch, native.units), tf.float32)
        return onnx_node(
            native.op_type,
            [inputs, kernel, recurrent, bias, lengths, *before],
            [every] + [state] * native.state_count,
            hidden_size=native.units,
            direction="bidirectional" if directions == 2 else one_way,
            **activation_attributes(native.activations * directions),
            **dict(native.attributes),
        )

    return op


def _last_output(layer: keras.layers.RNN, steps: Sequences, last: tf.Tensor) -> tf.Tensor:
    # Stock layers zero the last output too; ours only the returned sequences.
    zeroed = layer.zero_output_for_mask and not isinstance(layer, RaggedRNN)
    if not (zeroed and isinstance(steps, Masked)):
        return last
    final = steps.mask[:, 0] if layer.go_backwards else steps.mask[:, -1]
    return tf.where(final[:, tf.newaxis], last, tf.zeros_like(last))


def _returned(layer: keras.layers.RNN, result: Any, states: Sequence[tf.Tensor]) -> Any:
    result = _cast(result, layer.compute_dtype)
    if not layer.return_state:
        return result
    return (result, *(_cast(state, layer.compute_dtype) for state in states))


def _both_initial(initial_state: Any) -> list[tf.Tensor] | None:
    """The states of the forward layer come first, then those of the backward layer."""
    if initial_state is None:
        return None
    states = keras.tree.flatten(initial_state)
    half = len(states) // 2
    return [tf.stack(pair) for pair in zip(states[:half], states[half:], strict=True)]


def _merged(mode: str | None, joined: tf.Tensor) -> Any:
    if mode == "concat":
        return joined
    forward, backward = tf.split(joined, 2, axis=-1)
    if mode is None:
        return forward, backward
    if mode == "mul":
        return forward * backward
    total = forward + backward
    return total / 2 if mode == "ave" else total


def _only(mask: Any) -> Any:
    """One mask serves all inputs of a recurrent layer."""
    return next(iter(keras.tree.flatten(mask)), None) if mask is not None else None


def _cast(tensor: Any, dtype: str) -> Any:
    return tensor if tensor.dtype == dtype else tf.cast(tensor, dtype)
