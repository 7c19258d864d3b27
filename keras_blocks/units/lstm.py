"""Long short-term memory."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.recurrent.gated import GatedCell, GatedRNN, Masks, matmul
from keras_blocks.recurrent.loop import States, Step


@keras.saving.register_keras_serializable("keras_blocks")
class LSTMCell(GatedCell, keras.layers.LSTMCell):
    """One step of a long short-term memory; `LSTM` runs it over a sequence and gives the formula.

    Args:
        units: int, the size of the memory cell and of the output.
        **kwargs: as in `keras.layers.LSTMCell`.

    Input shape:
        (batch, features), and the states [output, memory cell], (batch, units) each.

    Output shape:
        (batch, units), and a list of the new states.

    Raises:
        ValueError: `units` is no positive int.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> zeros = np.zeros((2, 4))
        >>> output, (h, c) = kb.LSTMCell(4)(np.ones((2, 3)), [zeros, zeros])
        >>> output.shape
        TensorShape([2, 4])
    """

    def step_function(self, input_masks: Masks, recurrent_masks: Masks) -> Step:
        """The function (x, (h, c)) -> (h, c)."""
        w = tf.convert_to_tensor(self.kernel)
        u = tf.convert_to_tensor(self.recurrent_kernel)
        b: Any = tf.convert_to_tensor(self.bias) if self.use_bias else 0

        def step(x: tf.Tensor, states: States) -> States:
            h, c = states
            gates = matmul(x, input_masks, w) + matmul(h, recurrent_masks, u) + b
            i, f, proposal, o = tf.split(gates, 4, axis=1)
            i, f, o = (self.recurrent_activation(gate) for gate in (i, f, o))
            c = f * c + i * self.activation(proposal)
            return o * self.activation(c), c

        return step


@keras.saving.register_keras_serializable("keras_blocks")
class LSTM(GatedRNN):
    """Long short-term memory over a sequence.

    i[t] = sigmoid(x[t] Wi + h[t-1] Ui + bi)                 the input gate
    f[t] = sigmoid(x[t] Wf + h[t-1] Uf + bf)                 the forget gate
    o[t] = sigmoid(x[t] Wo + h[t-1] Uo + bo)                 the output gate
    c[t] = f[t] * c[t-1] + i[t] * tanh(x[t] Wc + h[t-1] Uc + bc)
    h[t] = o[t] * tanh(c[t])

    The same as `keras.layers.LSTM`, with its weights, fused in the order i, f, c, o; and for
    ragged sequences too. Their rows give what each would give alone, an empty row a zero output.

    Args:
        units: int, the size of the memory cell and of the output.
        activation: the nonlinearity of the proposed and of the shown memory cell.
        recurrent_activation: the nonlinearity of the gates.
        use_bias: bool, whether there are biases.
        unit_forget_bias: bool, whether the forget gate's bias begins at 1.
        **kwargs: as in `keras.layers.LSTM`: `return_sequences`, `return_state`, `go_backwards`,
            `stateful`, `unroll`, `zero_output_for_mask`, `dropout`, `recurrent_dropout`, `seed`,
            initializers, regularizers and constraints (`kernel_initializer`, ...), `name`, ...

    Call arguments:
        sequences: the input.
        initial_state: a list of two (batch, units), output and memory cell; None for zeros.
        mask: (batch, time), False for the steps to skip: the states stand still there.
        training: bool, whether dropout is on.

    Input shape:
        (batch, time, features), dense or ragged.

    Output shape:
        (batch, units); with `return_sequences` (batch, time, units), ragged where the input is;
        with `return_state` also the last output and memory cell, (batch, units) each.

    Raises:
        ValueError: `units` is no positive int, the input is not of rank 3, or `unroll` meets a
            ragged input.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], [], [[3.0]]], ragged_rank=1)
        >>> kb.LSTM(4, return_sequences=True)(rows).row_lengths().numpy().tolist()
        [2, 0, 1]

    Reference:
        Hochreiter and Schmidhuber, "Long short-term memory" (1997); Gers et al., "Learning to
        forget: continual prediction with LSTM" (2000).
    """

    cell_class = LSTMCell
