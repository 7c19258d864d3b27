"""The weights of recurrent cells in ONNX's layout.

Keras keeps (features, gates * units), the gates side by side; ONNX wants (gates * units, features)
in another order of the gates:

    GRU:   Keras z r h,   ONNX z r h
    LSTM:  Keras i f c o, ONNX i o f c
    RNN:   one each
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export.lowerings.recurrent.activations import OnnxActivation, onnx_activation


@dataclass(frozen=True)
class NativeCell:
    """How a cell runs as a recurrent ONNX op.

    Args:
        op_type: the ONNX op.
        units: int.
        activations: those of the op, in its order.
        gates: for each gate of the op, the gate of Keras and the sign of its weights.
        state_count: int, 1 or 2.
        attributes: further attributes of the op.
        most_numbers: int, with more numbers than these in a step of all rows the op is slower than
            a loop; None where it never is.
    """

    op_type: str
    units: int
    activations: tuple[OnnxActivation, ...]
    gates: tuple[tuple[int, float], ...]
    state_count: int
    attributes: tuple[tuple[str, Any], ...] = ()
    most_numbers: int | None = None

    def weights(self, cell: keras.layers.Layer) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """The op's W, R and B (or None) of one direction, as float32."""
        kernel = self._ordered(_float(cell.kernel))
        recurrent = self._ordered(_float(cell.recurrent_kernel))
        if not cell.use_bias:
            return tf.transpose(kernel), tf.transpose(recurrent), None
        bias = _float(cell.bias)
        if bias.shape.rank == 1:
            bias = tf.stack([bias, tf.zeros_like(bias)])
        return tf.transpose(kernel), tf.transpose(recurrent), tf.reshape(self._ordered(bias), [-1])

    def _ordered(self, weights: tf.Tensor) -> tf.Tensor:
        parts = tf.split(weights, len(self.gates), axis=-1)
        return tf.concat([sign * parts[gate] for gate, sign in self.gates], axis=-1)


def native_cell(cell: Any) -> NativeCell | None:
    """How a cell runs as a recurrent ONNX op, or None where it does not."""
    make = _native_cells().get(type(cell))
    if make is None:
        return None
    output = onnx_activation(cell.activation)
    gate = onnx_activation(getattr(cell, "recurrent_activation", cell.activation))
    return None if gate is None or output is None else make(cell, gate, output)


def _gru(cell: Any, gate: OnnxActivation, output: OnnxActivation) -> NativeCell:
    return _gru_of(cell, gate, output, update_sign=1.0)


def _gru_of_guide(cell: Any, gate: OnnxActivation, output: OnnxActivation) -> NativeCell | None:
    # z takes the proposal here and keeps the old state in ONNX. The gate of the negated sum is one
    # minus the gate, for gates that are symmetric about one half.
    return _gru_of(cell, gate, output, update_sign=-1.0) if gate.odd_gate else None


def _gru_of(
    cell: Any, gate: OnnxActivation, output: OnnxActivation, update_sign: float
) -> NativeCell:
    return NativeCell(
        op_type="GRU",
        units=cell.units,
        activations=(gate, output),
        gates=((0, update_sign), (1, 1.0), (2, 1.0)),
        state_count=1,
        attributes=(("linear_before_reset", int(cell.reset_after)),),
    )


def _lstm(cell: Any, gate: OnnxActivation, output: OnnxActivation) -> NativeCell:
    return NativeCell(
        op_type="LSTM",
        units=cell.units,
        activations=(gate, output, output),
        gates=((0, 1.0), (3, 1.0), (1, 1.0), (2, 1.0)),
        state_count=2,
    )


def _simple(cell: Any, gate: OnnxActivation, output: OnnxActivation) -> NativeCell:
    # onnxruntime computes the activation of an RNN number by number: 1 row of 128 units takes 0.4
    # to 0.8 of the time of a loop, 4 of 32 take 0.6, 32 of 32 twice as long, 32 of 256 six times.
    return NativeCell(
        op_type="RNN",
        units=cell.units,
        activations=(output,),
        gates=((0, 1.0),),
        state_count=1,
        most_numbers=256,
    )


def _native_cells() -> dict[type, Callable[..., NativeCell | None]]:
    return {
        keras.layers.GRUCell: _gru,
        keras.layers.LSTMCell: _lstm,
        keras.layers.SimpleRNNCell: _simple,
        kb.GRUCell: _gru_of_guide,
        kb.LSTMCell: _lstm,
    }


def _float(weight: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(weight), tf.float32)


def stacked(parts: Sequence[tf.Tensor | None]) -> tf.Tensor | None:
    """One tensor with a leading axis of directions; None where the directions have none."""
    if any(part is None for part in parts):
        return None
    return tf.stack(list(parts))
