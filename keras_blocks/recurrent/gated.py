"""What the gated recurrent units share: how a cell is asked for its step, and the loop over it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_blocks.copying import extended_scope
from keras_blocks.recurrent.loop import Step
from keras_blocks.recurrent.ragged_rnn import RaggedRNN
from keras_blocks.refusals import KnowsTwins

Masks = list[tf.Tensor]

_TWINS = {
    "hidden_size": "units",
    "num_units": "units",
    "output_dim": "units",
    "input_size": "The size of the input is taken from the first call: leave it out.",
    "num_layers": "Put as many layers into keras_blocks.Stacked.",
    "bidirectional": "Put keras.layers.Bidirectional around the layer.",
    "batch_first": "The batch is always the first axis: leave it out.",
}


class GatedCell(KnowsTwins):
    """Mixin for the cells; it goes in front of the twin, which makes the weights.

    The first state is also the output.
    """

    twin_arguments: ClassVar = _TWINS

    # What the twin brings.
    dropout: float
    recurrent_dropout: float
    get_dropout_mask: Callable[[tf.Tensor], Any]
    get_recurrent_dropout_mask: Callable[[tf.Tensor], Any]

    def __init__(self, units: int, **kwargs: Any):
        if not isinstance(units, int) or units <= 0:
            raise ValueError(
                f"{type(self).__name__}: units must be a positive int. Received: units={units!r}."
            )
        super().__init__(units, **kwargs)  # type: ignore[call-arg]

    def build(self, input_shape: Any) -> None:
        """Makes `kernel`, `recurrent_kernel` and `bias`."""
        if input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__}: the last axis of the input holds the features, and its "
                f"size must be known. Received an input of shape {tuple(input_shape)}."
            )
        super().build(input_shape)  # type: ignore[misc]

    def step_function(self, input_masks: Masks, recurrent_masks: Masks) -> Step:
        """The function from a step's input and the states before it to the states after it.

        It reads the weights now, so that a loop over the function does not read them every time.
        The masks are those of dropout: none, one for all gates, or one for each gate.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `step_function`.")

    def dropout_masks(
        self, inputs: tf.Tensor, state: tf.Tensor, training: bool
    ) -> tuple[Masks, Masks]:
        """The masks of `dropout` and `recurrent_dropout`, the same for all steps of a sequence."""
        found: list[Masks] = []
        for rate, make, like in (
            (self.dropout, self.get_dropout_mask, inputs),
            (self.recurrent_dropout, self.get_recurrent_dropout_mask, state),
        ):
            masks = make(like) if training and 0 < rate < 1 else []
            found.append(masks if isinstance(masks, list) else [masks])
        return found[0], found[1]

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """One step: returns the output and the new states."""
        states = tuple(states) if isinstance(states, (list, tuple)) else (states,)
        step = self.step_function(*self.dropout_masks(inputs, states[0], training))
        new_states = step(inputs, states)
        return new_states[0], list(new_states)


class GatedRNN(RaggedRNN):
    """Base of the gated recurrent layers: a subclass names its cell's class.

    The layer takes the arguments of its cell and those of `keras.layers.RNN`, and has each of them
    as an attribute. Its loop carries nothing but the states, which is faster than the stock one.
    """

    twin_arguments: ClassVar = _TWINS

    cell_class: type[keras.layers.Layer]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in _arguments(cls.cell_class):
            setattr(cls, name, _of_cell(name))

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        **kwargs: Any,
    ):
        of_cell = {k: kwargs.pop(k) for k in _arguments(self.cell_class) if k in kwargs}
        shared = {k: kwargs[k] for k in ("dtype", "trainable") if k in kwargs}
        cell = self.cell_class(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            name="cell",
            **of_cell,
            **shared,
        )
        super().__init__(cell, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Creates the weights of the cell for this number of features."""
        super().build(sequences_shape, initial_state_shape)
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: sequences_shape[-1]})

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        """Returns the last output, all outputs and the last states."""
        states = tuple(initial_state)
        dropout = self.cell.dropout_masks(sequences[:, 0], states[0], training)
        step = self.cell.step_function(*dropout)
        return self.run_steps(step, sequences, states, mask)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        of_layer = super().get_config()
        del of_layer["cell"]
        of_cell = self.cell.get_config()
        return {**{k: of_cell[k] for k in _arguments(self.cell_class)}, **of_layer}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> GatedRNN:
        """The layer of a config."""
        with extended_scope(custom_objects):
            return cls(**config)


def matmul(x: tf.Tensor, masks: Masks, kernel: tf.Tensor) -> tf.Tensor:
    """x W, where dropout masks x: not at all, or once for all gates in W, or for each gate."""
    if len(masks) <= 1:
        return tf.matmul(x * masks[0] if masks else x, kernel)
    gates = zip(masks, tf.split(kernel, len(masks), axis=1), strict=True)
    return tf.concat([tf.matmul(x * mask, gate) for mask, gate in gates], axis=1)


def _of_cell(name: str) -> property:
    return property(lambda self: getattr(self.cell, name), doc=f"`{name}` of the cell.")


def _arguments(cell_class: type[keras.layers.Layer]) -> list[str]:
    """The names of the arguments of a cell's constructors, less those that every layer has."""
    owners = cell_class.__mro__[: cell_class.__mro__.index(keras.layers.Layer)]
    constructors = [vars(owner)["__init__"] for owner in owners if "__init__" in vars(owner)]
    names = {name: None for make in constructors for name in inspect.signature(make).parameters}
    return [name for name in names if name not in ("self", "args", "kwargs")]
