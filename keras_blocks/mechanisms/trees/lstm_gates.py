"""The gates of the Tree-LSTMs with gradients written out.

A level has few rows, so that each operation costs more than its arithmetic. TensorFlow's gradients
of sums and products look for axes to sum over, which these never have.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensors = tuple[tf.Tensor, ...]


@tf.custom_gradient
def product(vectors: tf.Tensor, kernel: tf.Tensor, added: tf.Tensor) -> Any:
    """vectors @ kernel + added, where `added` has as many rows as the vectors."""

    def gradient(upstream: tf.Tensor) -> Any:
        of_vectors = tf.matmul(upstream, kernel, transpose_b=True)
        return of_vectors, tf.matmul(vectors, upstream, transpose_a=True), upstream

    return tf.matmul(vectors, kernel) + added, gradient


@tf.custom_gradient
def forget(gates: tf.Tensor, memory: tf.Tensor) -> Any:
    """sigmoid(gates) * memory, both of one shape."""
    kept = tf.sigmoid(gates)

    def gradient(upstream: tf.Tensor) -> Any:
        return _sigmoid_gradient(kept, upstream * memory), upstream * kept

    return kept * memory, gradient


@tf.custom_gradient
def memory_and_output(gates: tf.Tensor, kept: tf.Tensor) -> Any:
    """h and c of the gates i, o, c side by side and what was kept of the children's memory."""
    units = kept.shape[-1]
    before_sigmoid, before_tanh = tf.split(gates, [2 * units, units], axis=-1)
    squashed, proposal = tf.sigmoid(before_sigmoid), tf.tanh(before_tanh)
    let_in, let_out = tf.split(squashed, 2, axis=-1)
    memory = let_in * proposal + kept
    shown = tf.tanh(memory)

    def gradient(of_hidden: tf.Tensor, of_memory: tf.Tensor) -> Any:
        of_memory += _tanh_gradient(shown, of_hidden * let_out)
        of_squashed = tf.concat([of_memory * proposal, of_hidden * shown], axis=-1)
        of_gates = [
            _sigmoid_gradient(squashed, of_squashed),
            _tanh_gradient(proposal, of_memory * let_in),
        ]
        return tf.concat(of_gates, axis=-1), of_memory

    return (let_out * shown, memory), gradient


def n_ary(gates: tf.Tensor, below: tf.Tensor) -> tuple[Tensors, Tensors]:
    """h and c of the gates i, o, c and f of each child, and what `n_ary_gradient` needs.

    Args:
        gates: (nodes, (3 + arity) * units) before their nonlinearity.
        below: (nodes, arity * units), c of the children.
    """
    width = below.shape[1]
    units = (gates.shape[1] - width) // 3
    squashed, proposal, forget = tf.split(gates, [2 * units, units, width], axis=1)
    let_in, let_out = tf.split(tf.sigmoid(squashed), 2, axis=1)
    proposal, forget = tf.tanh(proposal), tf.sigmoid(forget)
    memory = tf.add_n([let_in * proposal, *tf.split(forget * below, width // units, axis=1)])
    shown = tf.tanh(memory)
    return (let_out * shown, memory), (let_in, let_out, proposal, shown, forget, below)


def n_ary_widths(units: int, arity: int) -> list[int]:
    """The widths of what `n_ary_gradient` needs."""
    return [units] * 4 + [arity * units] * 2


def n_ary_gradient(needed: Tensors, of_hidden: tf.Tensor, of_memory: tf.Tensor) -> Tensors:
    """The gradients of the gates and of the children's memory from those of h and c."""
    let_in, let_out, proposal, shown, forget, below = needed
    of_memory += _tanh_gradient(shown, of_hidden * let_out)
    of_kept = tf.tile(of_memory, [1, below.shape[1] // of_memory.shape[1]])
    of_gates = [
        _sigmoid_gradient(let_in, of_memory * proposal),
        _sigmoid_gradient(let_out, of_hidden * shown),
        _tanh_gradient(proposal, of_memory * let_in),
        _sigmoid_gradient(forget, of_kept * below),
    ]
    return tf.concat(of_gates, axis=1), of_kept * forget


def _sigmoid_gradient(y: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.SigmoidGrad(y=y, dy=upstream)


def _tanh_gradient(y: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.TanhGrad(y=y, dy=upstream)
