"""Recurrent layers, stock ones and ours, one way or both, as the native ONNX ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export.lowerings.recurrent.cells import NativeCell, native_cell
from keras_blocks.export.lowerings.recurrent.runs import Run
from keras_blocks.export.lowerings.recurrent.sequences import Masked, Sequences, sequences_of
from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call
from keras_blocks.ragged import is_ragged
from keras_blocks.recurrent.ragged_rnn import RaggedRNN

_FLOATS = ("float32", "float16", "bfloat16")
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
    natives = _natives(layer)
    own_call = _rolled(layer) if layer.unroll else layer.call
    if natives is None:
        return own_call if layer.unroll else None
    cells = tuple((cell,) for cell in _cells(layer))
    run = Run(natives, cells, layer.return_sequences, layer.go_backwards)

    def native_call(ops: Any, sequences: Any, initial_state: Any, mask: Any) -> Any:
        steps = sequences_of(sequences, _only(mask))
        initial = None
        if initial_state is not None:
            initial = [tf.expand_dims(state, 0) for state in keras.tree.flatten(initial_state)]
        results = run.over(ops, steps, initial)
        if layer.return_sequences:
            y = results[-1].sequences(layer.go_backwards, not layer.zero_output_for_mask)
        else:
            y = _last_output(layer, steps, tf.squeeze(results[-1].last, 0))
        states = [[tf.squeeze(state, 0) for state in result.states] for result in results]
        return _returned(layer, y, states)

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        def own() -> Any:
            return own_call(sequences, initial_state=initial_state, mask=mask, training=training)

        if not _is_native_call([layer], sequences, mask, training):
            return own()
        ops = run.ops()

        def native() -> Any:
            return native_call(ops, sequences, initial_state, mask)

        return _faster(natives, sequences, native, own)

    return call


@lowers(keras.layers.Bidirectional)
def lower_bidirectional(layer: keras.layers.Bidirectional) -> Call | None:
    """Native ops for both directions at once where they are of one kind; else each has its own."""
    both = [layer.forward_layer, layer.backward_layer]
    if any(type(direction) not in _RECURRENT for direction in both):
        return None
    natives, other = (_natives(direction) for direction in both)
    if natives is None or natives != other or both[0].go_backwards:
        return None
    # The second cell of a direction reads that direction alone.
    if len(natives) > 1 or natives[0].most_numbers is not None:
        return None
    if both[0].cell.use_bias != both[1].cell.use_bias:
        return None
    own_call = layer.call
    cells = tuple(direction.cell for direction in both)
    run = Run(natives, (cells,), both[0].return_sequences, backwards=False)

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: bool | None = None
    ) -> Any:
        if not _is_native_call(both, sequences, mask, training):
            return own_call(sequences, initial_state=initial_state, mask=mask, training=training)
        steps = sequences_of(sequences, _only(mask))
        (result,) = run.over(run.ops(), steps, _both_initial(initial_state))
        if layer.return_sequences:
            y = result.sequences()
        else:
            y = tf.concat(tf.unstack(result.last), axis=-1)
        merged = _merged(layer.merge_mode, _cast(y, layer.compute_dtype))
        if not layer.return_state:
            return merged
        # All states of the forward layer, then those of the backward layer.
        each = [_cast(state[d], layer.compute_dtype) for d in range(2) for state in result.states]
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


def _cells(layer: keras.layers.RNN) -> list[Any]:
    """The cells that a step of the layer goes through."""
    if type(layer.cell) is keras.layers.StackedRNNCells:
        return list(layer.cell.cells)
    return [layer.cell]


def _natives(layer: keras.layers.RNN) -> tuple[NativeCell, ...] | None:
    """The cells as ONNX ops, or None where one of them is none."""
    if layer.compute_dtype not in _FLOATS:
        return None  # onnxruntime's recurrent ops compute in float32; the layer's own loop does not
    natives = [native_cell(cell) for cell in _cells(layer)]
    known = tuple(native for native in natives if native is not None)
    return known if len(known) == len(natives) else None


def _is_native_call(layers: Sequence[Any], sequences: Any, mask: Any, training: Any) -> bool:
    """Whether this call is one that the native op can stand for; else the layer's own runs."""
    mask = _only(mask)
    drops = training and any(
        getattr(cell, name, 0)
        for layer in layers
        for cell in _cells(layer)
        for name in ("dropout", "recurrent_dropout")
    )
    return (
        not drops
        and sequences.shape.rank == 3
        and sequences.shape[2] is not None
        and (mask is None or (mask.shape.rank == 2 and not is_ragged(sequences)))
    )


def _faster(
    natives: Sequence[NativeCell], sequences: Any, native: Callable[[], Any], own: Callable[[], Any]
) -> Any:
    """The native ops, or the layer's own loop where the batch is so large that they are slower."""
    limits = [cell.most_numbers // cell.units for cell in natives if cell.most_numbers is not None]
    if not limits:
        return native()
    rows = sequences.shape[0]
    if rows is not None or min(limits) < 1:
        return native() if rows is not None and rows <= min(limits) else own()
    rows = sequences.nrows() if is_ragged(sequences) else tf.shape(sequences)[0]
    return tf.cond(rows <= min(limits), native, own)


def _last_output(layer: keras.layers.RNN, steps: Sequences, last: tf.Tensor) -> tf.Tensor:
    # Stock layers zero the last output too; ours only the returned sequences.
    zeroed = layer.zero_output_for_mask and not isinstance(layer, RaggedRNN)
    if not (zeroed and isinstance(steps, Masked)):
        return last
    final = steps.mask[:, 0] if layer.go_backwards else steps.mask[:, -1]
    return tf.where(final[:, tf.newaxis], last, tf.zeros_like(last))


def _returned(layer: keras.layers.RNN, result: Any, states: list[list[tf.Tensor]]) -> Any:
    """What the layer returns; the states of several cells stay apart."""
    result = _cast(result, layer.compute_dtype)
    if not layer.return_state:
        return result
    cast = keras.tree.map_structure(lambda state: _cast(state, layer.compute_dtype), states)
    return (result, *(cast[0] if len(cast) == 1 else cast))


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
