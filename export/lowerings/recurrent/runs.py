"""Runs of recurrent ONNX ops over sequences of any form, over one cell or several in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from keras_blocks.export.lowerings.recurrent.activations import activation_attributes
from keras_blocks.export.lowerings.recurrent.cells import NativeCell, stacked
from keras_blocks.export.lowerings.recurrent.row_groups import NativeOp, run_in_groups
from keras_blocks.export.lowerings.recurrent.sequences import Dense, Sequences
from keras_blocks.export.tracing.stand_ins import onnx_node


@dataclass(frozen=True)
class Result:
    """What a native run gave.

    Args:
        steps: what it ran over.
        outputs: those of the op, or of its groups.
        last: (directions, batch, units), the last output; zeros for a row without steps.
        states: each (directions, batch, units), the initial ones for a row without steps.
        rows: the rows that ran, None where all steps of a dense input did.
    """

    steps: Sequences
    outputs: Any
    last: tf.Tensor
    states: list[tf.Tensor]
    rows: Any = None

    def sequences(self, backwards: bool = False, hold: bool = False) -> Any:
        """Every output, in the order of the input or back to front."""
        if isinstance(self.steps, Dense):
            return self.steps.sequences(self.outputs, backwards)
        return self.steps.sequences(self.outputs, self.rows, backwards, hold)


@dataclass(frozen=True)
class Run:
    """How a recurrent layer runs: each cell over what the one before it gave.

    Args:
        natives: the cells as ONNX ops.
        cells: for each of them the cells themselves, one for each direction.
        sequences: bool, whether every output of the last cell is wanted.
        backwards: bool, whether one direction runs from the end.
    """

    natives: tuple[NativeCell, ...]
    cells: tuple[tuple[Any, ...], ...]
    sequences: bool
    backwards: bool

    def ops(self) -> list[NativeOp]:
        """The op of each cell, with its weights in the graph that is being traced now: in that of a
        branch, little would be known of them."""
        return [self._op(place) for place in range(len(self.natives))]

    def over(
        self, ops: Sequence[NativeOp], steps: Sequences, initial: Sequence[tf.Tensor] | None
    ) -> list[Result]:
        """The results of all cells; `initial` are their states, each (directions, batch, units)."""
        results: list[Result] = []
        before = iter(initial or ())
        for place, (native, op) in enumerate(zip(self.natives, ops, strict=True)):
            if results:
                steps = replace(steps, inputs=results[-1].sequences())
            own = [] if initial is None else [next(before) for _ in range(native.state_count)]
            wanted = self.sequences or place + 1 < len(self.natives)
            results.append(self._over_one(op, len(self.cells[place]), steps, own, wanted))
        return results

    @staticmethod
    def _over_one(
        op: NativeOp, directions: int, steps: Sequences, initial: list[tf.Tensor], wanted: bool
    ) -> Result:
        before = [tf.cast(value, tf.float32) for value in initial]
        if isinstance(steps, Dense):
            outputs, *states = op(steps.time_major(), None, before)
            return Result(steps, outputs, states[0], states)
        rows = steps.rows()
        outputs, states = run_in_groups(op, rows, before, directions, wanted)
        last = states[0]
        if before:
            # onnxruntime gives zeros for a row without steps; its state is still the initial one.
            empty = tf.equal(rows.lengths, 0)[:, tf.newaxis]
            states = [tf.where(empty, old, new) for new, old in zip(states, before, strict=True)]
        return Result(steps, outputs, last, states, rows)

    def _op(self, place: int) -> NativeOp:
        """The op of a cell in its directions, with their weights."""
        native, cells = self.natives[place], self.cells[place]
        weights = [native.weights(cell) for cell in cells]
        kernel, recurrent, bias = (stacked(parts) for parts in zip(*weights, strict=True))
        directions = len(cells)
        one_way = "reverse" if self.backwards else "forward"

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
