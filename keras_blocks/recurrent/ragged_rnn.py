"""The one place where a recurrent layer meets ragged sequences."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, is_ragged, to_padded, unpad_like
from keras_blocks.recurrent.loop import States, Step, run_steps


class RaggedRNN(AcceptsRagged, keras.layers.RNN):
    """A `keras.layers.RNN` that takes ragged sequences where it takes dense ones.

    The rows are padded and the padding is masked, which gives every row what it would give alone:
    the state stands still over masked steps, before the row begins (`go_backwards`) and after it
    has ended. An empty row gives a zero output and leaves its initial state as it is. With
    `return_sequences` the output is ragged, with the rows of the input.
    """

    zero_output_for_mask: bool

    @property
    def ragged_output(self) -> bool:  # type: ignore[override]
        """Returned sequences are ragged, the last output is not."""
        return self.return_sequences

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        """Runs the cell over the steps; `keras.layers.RNN` says what the arguments are."""
        self._check_initial_state(initial_state)
        if not is_ragged(sequences):
            self._check_mask(sequences, mask)
            return super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        self._check_ragged_call(mask)
        padded, steps = to_padded(sequences, at_least=1)
        outputs = super().call(padded, initial_state=initial_state, mask=steps, training=training)
        if not self.return_sequences:
            return outputs
        if self.go_backwards:
            # The loop wrote the last step first, so the padding stands in front.
            steps = tf.reverse(steps, [1])
        if not self.return_state:
            return unpad_like(sequences, outputs, steps)
        return unpad_like(sequences, outputs[0], steps), *outputs[1:]

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        """Runs the loop over dense steps."""
        # Stock Keras zeros the last output too if its step is masked, though it says that
        # `zero_output_for_mask` is for returned sequences only; here it is.
        asked = self.zero_output_for_mask
        self.zero_output_for_mask = asked and self.return_sequences
        try:
            return super().inner_loop(sequences, initial_state, mask, training=training)
        finally:
            self.zero_output_for_mask = asked

    def run_steps(
        self, step: Step, sequences: tf.Tensor, states: States, mask: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """What `inner_loop` returns, for a step function whose first state is its output."""
        return run_steps(
            step,
            sequences,
            states,
            mask,
            go_backwards=self.go_backwards,
            return_sequences=self.return_sequences,
            unroll=self.unroll,
            zero_output_for_mask=self.zero_output_for_mask,
        )

    def ragged_output_spec(self, outputs: Any) -> Any:
        """The first output may be ragged; the states are not."""
        if not self.return_state:
            return super().ragged_output_spec(outputs)
        return super().ragged_output_spec(outputs[0]), *outputs[1:]

    def state_widths(self) -> list[int]:
        """The size of each state's last axis."""
        return keras.tree.flatten(self.cell.state_size)

    def _check_initial_state(self, initial_state: Any) -> None:
        if initial_state is None:
            return
        sizes = self.state_widths()
        given = [tuple(state.shape) for state in keras.tree.flatten(initial_state)]
        widths = [shape[-1] if shape else None for shape in given]
        # Where axes stand between batch and features the last one says enough.
        if len(widths) != len(sizes) or any(
            width not in (None, size) for width, size in zip(widths, sizes, strict=True)
        ):
            expected = ", ".join(f"(batch, ..., {size})" for size in sizes)
            raise ValueError(
                f"{type(self).__name__}: `initial_state` must hold tensors of shapes {expected}. "
                f"Received shapes: {', '.join(map(str, given))}."
            )

    def _check_mask(self, sequences: Any, mask: Any) -> None:
        for part in () if mask is None else keras.tree.flatten(mask):
            known = zip(part.shape[:2], sequences.shape[:2], strict=False)
            if len(part.shape) < 2 or any(
                None not in pair and pair[0] != pair[1] for pair in known
            ):
                raise ValueError(
                    f"{type(self).__name__}: `mask` must have one entry for each step, "
                    f"{tuple(sequences.shape[:2])}. Received a mask of shape {tuple(part.shape)}."
                )

    def _check_ragged_call(self, mask: Any) -> None:
        if self.unroll:
            raise ValueError(
                f"{type(self).__name__}: unroll=True needs a fixed number of steps, but the input "
                "is ragged. Leave unroll=False, or pass a dense input."
            )
        if mask is not None:
            raise ValueError(
                f"{type(self).__name__}: a ragged input takes no mask, its rows already end where "
                "they end. Leave the masked steps out of the rows."
            )
