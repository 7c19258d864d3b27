"""Recurrence: one layer, applied to a sequence, which hears its own last output."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_blocks.copying import restore_layers, store_layers
from keras_blocks.mechanisms.lifting import (
    PACKAGE,
    Shape,
    check_layer,
    keeping_losses_out,
)
from keras_blocks.mechanisms.step_cell import StepCell
from keras_blocks.ragged import is_ragged
from keras_blocks.recurrent.ragged_rnn import RaggedRNN


@keras.saving.register_keras_serializable(PACKAGE)
class Recurrence(RaggedRNN):
    """A layer applied to a sequence, step by step, with its own last output beside the step.

    h_t = layer(concat(h_{t-1}, x_t)), h_0 = 0; for a cell: y_t, s_t = cell(x_t, s_{t-1})

    The vectors are put together along the last axis, h first. The layer may be any that gives h in
    the shape in which it takes it: of vectors, or of more axes than one, say a convolution over
    space in a recurrence over time. A cell (a layer with a `state_size`) is run as by
    `keras.layers.RNN`, which this is, with all that it does: masks, initial states,
    `keras.layers.Bidirectional`. Rows of a ragged sequence are run each within its own length.

    Args:
        layer: any layer (a block, a stock layer, a layer of your own, a whole model), or a cell,
            or a list of cells to stack.
        return_sequences: bool, whether to give every output or the last only.
        return_state: bool, whether to give the last state (of a layer: its last output) as well.
        go_backwards: bool, whether to start at the end; outputs then come in that order.
        stateful: bool, whether a batch goes on from the last states of the one before.
        unroll: bool, whether to write the loop out; needs a known number of steps.
        zero_output_for_mask: bool, whether masked steps of a returned sequence are zeros, instead
            of the output before them.
        **kwargs: `name`, `dtype` and the like, as for every layer.

    Call arguments:
        sequences: the input.
        initial_state: h_0, or the list of the cell's states; zeros if None.
        mask: (batch, time), False at the steps to skip; the state stands still there.
        training: bool, handed on to the layer.

    Input shape:
        (batch, time, features), (batch, time, ..., features), or ragged over time.

    Output shape:
        (batch, *h), with `return_sequences` (batch, time, *h), ragged where the input is. With
        `return_state` a tuple of that and the states.

    Raises:
        TypeError: `layer` is neither a layer nor a cell.
        ValueError: the layer's output has another shape than the h that it was given.

    Example:
        >>> import keras, keras_blocks as kb, numpy as np
        >>> x = np.ones((2, 7, 5))
        >>> kb.Recurrence(kb.Vanilla(3))(x).shape
        TensorShape([2, 3])
        >>> deep = kb.Stacked([kb.Vanilla(8), keras.layers.Dense(3)])
        >>> kb.Recurrence(deep, return_sequences=True)(x).shape
        TensorShape([2, 7, 3])

    Reference:
        Elman, 1990, Finding Structure in Time: the recurrence of a `Vanilla`.
    """

    twin_arguments: ClassVar = {
        "cell": "layer",
        "units": "It belongs to the lifted layer: Recurrence(kb.Vanilla(units)).",
        "activation": "It belongs to the lifted layer: Recurrence(kb.Vanilla(units, activation)).",
        "bidirectional": "Put keras.layers.Bidirectional around the layer.",
        "reverse": "go_backwards",
    }

    def __init__(
        self,
        layer: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ):
        cell = layer
        if not _is_cell(layer):
            check_layer(layer, "Recurrence")
            cell = StepCell(layer, name="cell", dtype=kwargs.get("dtype"))
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
        self.input_spec = keras.layers.InputSpec(min_ndim=3)

    @property
    def layer(self) -> Any:
        """The layer, or the cell, that is lifted."""
        return self.cell.layer if self._lifts_layer else self.cell

    @property
    def _lifts_layer(self) -> bool:
        return isinstance(self.cell, StepCell)

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        """Runs the layer over the steps."""
        starts_new = initial_state is None and self._lifts_layer and not self.stateful
        if starts_new and not is_ragged(sequences):
            # Axes between time and features may have any length: it is that of the input.
            initial_state = [tf.zeros(self.cell.state_like(sequences), self.cell.compute_dtype)]
        return super().call(sequences, initial_state=initial_state, mask=mask, training=training)

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        """Returns the last output, all outputs and the last states."""
        with keeping_losses_out(self, self.unroll):
            if not self._lifts_layer:
                return super().inner_loop(sequences, initial_state, mask, training=training)
            inputs, step = self.cell.loop_parts(sequences)
            return self.run_steps(step, inputs, tuple(initial_state), mask)

    def get_initial_state(self, batch_size: Any) -> list[Any]:
        """Zeros in the shape of the states."""
        if not self._lifts_layer:
            return super().get_initial_state(batch_size)
        shape = (batch_size, *self.cell.known_state_shape())
        return [tf.zeros(shape, self.cell.compute_dtype)]

    def state_shapes(self) -> list[Shape]:
        """The shape of each state, without the batch."""
        if not self._lifts_layer:
            return super().state_shapes()
        *space, width = self.cell.state_shape
        return [(*(None for _ in space), width)]  # as many as the input has

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        """The shape of the output, with `return_state` a tuple of it and the states'."""
        if not self._lifts_layer:
            return super().compute_output_shape(sequences_shape, initial_state_shape)
        batch, time, *step = sequences_shape
        state = self.cell.compute_state_shape(tuple(step))
        output: Shape = (batch, time, *state) if self.return_sequences else (batch, *state)
        return (output, (batch, *state)) if self.return_state else output

    def get_config(self) -> dict[str, Any]:
        """The arguments, the layer serialised among them."""
        # Not by RNN's own: that stores the cell too, and a layer that is stored twice while a
        # model is saved or loaded counts as shared, by both directions of a Bidirectional as well.
        settings = {name: getattr(self, name) for name in _SETTINGS}
        base = keras.layers.Layer.get_config(self)
        return {"layer": store_layers([self.layer])[0], **settings, **base}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`."""
        config = dict(config)
        return cls(*restore_layers([config.pop("layer")], custom_objects), **config)


_SETTINGS = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
)


def _is_cell(layer: Any) -> bool:
    """A recurrent LAYER has a `state_size` too, but takes whole sequences: it is no cell."""
    if isinstance(layer, (list, tuple)):
        return bool(layer) and all(map(_is_cell, layer))
    return hasattr(layer, "state_size") and not isinstance(layer, keras.layers.RNN)
