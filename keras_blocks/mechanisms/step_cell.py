"""Any layer as the cell of a recurrence: h_t = layer(concat(h_{t-1}, x_t))."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import (
    PACKAGE,
    Lifting,
    Shape,
    affine_parts,
    build_layer,
    output_shape,
)
from keras_blocks.recurrent.loop import States, Step


@keras.saving.register_keras_serializable(PACKAGE)
class StepCell(Lifting):
    """A layer as a cell with one state, its last output.

    Args:
        layer: any layer.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        super().__init__(layer, **kwargs)
        # Keras wants a number before there is an input; `build` finds it out.
        self.state_size: Any = 0
        self.state_shape: Shape = ()

    def build(self, step_shape: Any) -> None:
        """Finds the shape of the state and builds the layer for it."""
        step = tuple(step_shape[1:])
        self.state_shape = self.compute_state_shape(step)
        self.state_size = self.state_shape if len(self.state_shape) > 1 else self.state_shape[0]
        build_layer(self.layer, _joined(self.state_shape, step))
        for layer in self.layer._flatten_layers():
            if layer.activity_regularizer is not None:
                raise ValueError(
                    f"Recurrence: layer '{layer.name}' has an activity_regularizer, whose loss "
                    "cannot leave the loop. Give it to the Recurrence instead."
                )

    def call(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """One step."""
        output = self.layer(tf.concat([states[0], inputs], axis=-1))
        output.set_shape(states[0].shape)
        return output, [output]

    def loop_parts(self, sequences: tf.Tensor) -> tuple[tf.Tensor, Step]:
        """What a loop over all steps reads, and what it does with it at each step.

        An affine layer, `activation(concat(h, x) W + b)`, multiplies h and x each by its part of
        W, which saves the copy. (To multiply the x of all steps before the loop was slower.)
        """
        affine = affine_parts(self.layer, self.compute_dtype)
        if affine is None:
            return sequences, lambda x, states: tuple(self(x, states)[1])
        width = self.state_shape[-1]
        kernel = tf.convert_to_tensor(affine.kernel)
        recurrent, kernel = kernel[:width], kernel[width:]
        matmul = keras.ops.matmul

        def step(x: tf.Tensor, states: States) -> States:
            return (affine.finish(matmul(x, kernel) + matmul(states[0], recurrent)),)

        return sequences, step

    def compute_state_shape(self, step: Shape) -> Shape:
        """The shape of h, without the batch, for steps x_t of this shape without the batch.

        Raises:
            ValueError: from concat(h, x) the layer gives no h of the same shape.
        """
        state = _guess_state(self.layer, step)
        if state[:-1] == step[:-1] and isinstance(state[-1], int):
            after = tuple(output_shape(self.layer, _joined(state, step))[1:])
            if after == state:
                return state
            state = after
        raise ValueError(
            f"Recurrence: layer '{self.layer.name}' must give h in the shape in which it takes it. "
            f"For steps of shape {step} it gives {state}, which concat(h, x_t) turns into "
            f"{_joined(state, step)[1:]}. Expected {(*step[:-1], 'units')}: the axes before the "
            "last as in the input (a convolution needs padding='same' or 'causal'), and the last "
            "one whatever the width of the input."
        )

    def known_state_shape(self) -> tuple[int, ...]:
        """The shape of the state where it does not depend on the input.

        Raises:
            ValueError: it does.
        """
        known = tuple(n for n in self.state_shape if n is not None)
        if len(known) == len(self.state_shape):
            return known
        raise ValueError(
            f"Recurrence: the state has the shape {self.state_shape}, in which None is an axis of "
            "any length. A state that is kept from batch to batch needs known lengths: give the "
            "model's input a full shape."
        )

    def state_like(self, sequences: tf.Tensor) -> Any:
        """The shape of the state for this input (batch, time, ..., features)."""
        shape, known = tf.shape(sequences), sequences.shape
        space = [shape[i] if known[i] is None else known[i] for i in range(2, len(known) - 1)]
        return (shape[0], *space, self.state_shape[-1])


def _joined(state: Shape, step: Shape) -> Shape:
    """The shape of concat(h, x_t), the batch in front."""
    width = None if state[-1] is None or step[-1] is None else state[-1] + step[-1]
    return (None, *step[:-1], width)


def _guess_state(layer: keras.layers.Layer, step: Shape) -> Shape:
    """The shape of what the layer gives from an h of unknown width; it may still be wrong."""
    # A layer that is built refuses other widths than its own, one that is not refuses none at all.
    width = None if layer.built else 1
    try:
        shape = output_shape(layer, _joined((*step[:-1], width), step))
    except (TypeError, ValueError):
        # Of layers within a layer that is not built, some are.
        shape = output_shape(layer, _joined((*step[:-1], None), step))
    return tuple(shape[1:])
