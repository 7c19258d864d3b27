"""The loop of the recurrent blocks: a step function over the steps of a dense batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

States = tuple[tf.Tensor, ...]
Step = Callable[[tf.Tensor, States], States]
"""From a step's input and the states before it to the states after it."""


def run_steps(
    step: Step,
    sequences: tf.Tensor,
    states: States,
    mask: tf.Tensor | None,
    *,
    go_backwards: bool,
    return_sequences: bool,
    unroll: bool,
    zero_output_for_mask: bool,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Runs over (batch, time, ...); the first state is the output of a step.

    It does what the loop of `keras.layers.RNN` does, and is faster, as it carries nothing but the
    states.

    Returns:
        The last output, all outputs (without `return_sequences` the last alone), the last states.
    """
    if mask is not None:
        mask = _swapped(tf.cast(mask, tf.bool))
        mask = mask[(..., *(tf.newaxis for _ in states[0].shape[1:]))]
    outputs, states = _scan(
        step,
        _swapped(sequences),
        states,
        mask,
        go_backwards=go_backwards,
        return_sequences=return_sequences,
        unroll=unroll,
    )
    last = states[0]
    if mask is not None:
        # Before the first step that is not masked there is no output to hold.
        last = tf.where(tf.reduce_any(mask, axis=0), last, 0)
    if outputs is None:
        return last, last, list(states)
    if mask is not None:
        kept = tf.reverse(mask, [0]) if go_backwards else mask
        shown = kept if zero_output_for_mask else tf.cumsum(tf.cast(kept, tf.int32)) > 0
        outputs = tf.where(shown, outputs, 0)
    return last, _swapped(outputs), list(states)


def _swapped(x: tf.Tensor) -> tf.Tensor:
    """Time and batch in each other's place."""
    return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


def _scan(
    step: Step,
    inputs: tf.Tensor,
    states: States,
    mask: tf.Tensor | None,
    *,
    go_backwards: bool,
    return_sequences: bool,
    unroll: bool,
) -> tuple[tf.Tensor | None, States]:
    """Runs over time-major inputs; returns the first state after every step, and all at the end.

    A masked step leaves the states as they are.
    """
    count = inputs.shape[0] if inputs.shape[0] is not None else tf.shape(inputs)[0]

    def advance(x: tf.Tensor, kept: tf.Tensor | None, states: States) -> States:
        new_states = step(x, states)
        if kept is not None:
            pairs = zip(new_states, states, strict=True)
            new_states = tuple(tf.where(kept, new, old) for new, old in pairs)
        for new, old in zip(new_states, states, strict=True):
            new.set_shape(old.shape)
        return new_states

    if unroll:
        outputs = []
        for time in reversed(range(count)) if go_backwards else range(count):
            states = advance(inputs[time], None if mask is None else mask[time], states)
            outputs.append(states[0])
        return (tf.stack(outputs) if return_sequences else None), states

    read = tf.TensorArray(inputs.dtype, count).unstack(inputs).read
    kept = (lambda at: None) if mask is None else tf.TensorArray(tf.bool, count).unstack(mask).read
    written: tuple[tf.TensorArray, ...] = ()
    if return_sequences:
        # Carried only where it is written to: else the loop does not convert to ONNX.
        written = (tf.TensorArray(states[0].dtype, count, element_shape=states[0].shape),)

    def body(time: tf.Tensor, written: tuple[tf.TensorArray, ...], states: States) -> Any:
        at = count - 1 - time if go_backwards else time
        states = advance(read(at), kept(at), states)
        return time + 1, tuple(array.write(time, states[0]) for array in written), states

    _, written, states = tf.while_loop(
        lambda time, *_: time < count,
        body,
        (tf.constant(0), written, states),
        maximum_iterations=count,
    )
    return (written[0].stack() if return_sequences else None), states
