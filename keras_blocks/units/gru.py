"""Gated recurrent unit."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.recurrent.gated import GatedCell, GatedRNN, Masks, matmul
from keras_blocks.recurrent.loop import States, Step


@keras.saving.register_keras_serializable("keras_blocks")
class GRUCell(GatedCell, keras.layers.GRUCell):
    """One step of a gated recurrent unit; `GRU` runs it over a sequence and gives the formula.

    Args:
        units: int, the size of the state and of the output.
        **kwargs: as in `keras.layers.GRUCell`, but `reset_after` is False by default.

    Input shape:
        (batch, features), and the state (batch, units).

    Output shape:
        (batch, units), and a list of the new state.

    Raises:
        ValueError: `units` is no positive int.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> output, (state,) = kb.GRUCell(4)(np.ones((2, 3)), [np.zeros((2, 4))])
        >>> output.shape
        TensorShape([2, 4])
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(units, **{"reset_after": False, **kwargs})

    def step_function(self, input_masks: Masks, recurrent_masks: Masks) -> Step:
        """The function (x, (h,)) -> (h,)."""
        w_gates, w = self._gates_and_proposal(self.kernel)
        u_gates, u = self._gates_and_proposal(self.recurrent_kernel)
        b_gates, b, b_recurrent = self._biases()
        x_gates, x_proposal = _gates_and_proposal(input_masks)
        h_gates, h_proposal = _gates_and_proposal(recurrent_masks)

        def step(x: tf.Tensor, states: States) -> States:
            (h,) = states
            gates = matmul(x, x_gates, w_gates) + matmul(h, h_gates, u_gates) + b_gates
            z, r = tf.split(self.recurrent_activation(gates), 2, axis=1)
            if self.reset_after:
                recurrent = r * (matmul(h, h_proposal, u) + b_recurrent)
            else:
                recurrent = matmul(r * h, h_proposal, u)
            proposal = self.activation(matmul(x, x_proposal, w) + recurrent + b)
            return (h + z * (proposal - h),)

        return step

    def _gates_and_proposal(self, weights: Any) -> list[tf.Tensor]:
        return tf.split(tf.convert_to_tensor(weights), [2 * self.units, self.units], axis=-1)

    def _biases(self) -> tuple[Any, Any, Any]:
        """Of the gates, of the proposal, and of its recurrent part, which `reset_after` has."""
        if not self.use_bias:
            return 0, 0, 0
        if not self.reset_after:
            return *self._gates_and_proposal(self.bias), 0
        gates, proposal = self._gates_and_proposal(self.bias)
        return gates[0] + gates[1], proposal[0], proposal[1]


def _gates_and_proposal(masks: Masks) -> tuple[Masks, Masks]:
    return (masks[:2], masks[2:]) if len(masks) > 1 else (masks, masks)


@keras.saving.register_keras_serializable("keras_blocks")
class GRU(GatedRNN):
    """Gated recurrent unit over a sequence.

    z[t] = sigmoid(x[t] Wz + h[t-1] Uz + bz)                 the update gate
    r[t] = sigmoid(x[t] Wr + h[t-1] Ur + br)                 the reset gate
    p[t] = tanh(x[t] W + (r[t] * h[t-1]) U + b)              the proposal
    h[t] = (1 - z[t]) * h[t-1] + z[t] * p[t]

    The update gate near 1 takes the proposal, near 0 it carries the old state on.
    `keras.layers.GRU` and ONNX have it the other way round: negate the update gate's weights, the
    first `units` columns of the kernels and of the bias, to go from one to the other. Besides,
    `reset_after` is False by default here. The weights are fused in the twin's order: z, r, p.

    Ragged rows give what each would give alone, and an empty row a zero output.

    Args:
        units: int, the size of the state and of the output.
        activation: the nonlinearity of the proposal.
        recurrent_activation: the nonlinearity of the gates.
        use_bias: bool, whether there are biases.
        reset_after: bool, whether the reset gate acts on `h U` (with a bias of its own) instead of
            on `h`, as in `keras.layers.GRU`.
        **kwargs: as in `keras.layers.GRU`: `return_sequences`, `return_state`, `go_backwards`,
            `stateful`, `unroll`, `zero_output_for_mask`, `dropout`, `recurrent_dropout`, `seed`,
            initializers, regularizers and constraints (`kernel_initializer`, ...), `name`, ...

    Call arguments:
        sequences: the input.
        initial_state: (batch, units) or a list of that, the state to begin with; None for zeros.
        mask: (batch, time), False for the steps to skip: the state stands still there.
        training: bool, whether dropout is on.

    Input shape:
        (batch, time, features), dense or ragged.

    Output shape:
        (batch, units); with `return_sequences` (batch, time, units), ragged where the input is;
        with `return_state` also the last state (batch, units).

    Raises:
        ValueError: `units` is no positive int, the input is not of rank 3, or `unroll` meets a
            ragged input.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], [], [[3.0]]], ragged_rank=1)
        >>> kb.GRU(4)(rows).shape
        TensorShape([3, 4])

    Reference:
        Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
        machine translation" (2014); Chung et al., "Empirical evaluation of gated recurrent neural
        networks on sequence modeling" (2014), whose update gate this is.
    """

    cell_class = GRUCell
