"""The one place where a recurrent layer meets ragged sequences."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, is_ragged, to_padded, unpad_like
from keras_blocks.recurrent.loop import States, Step, run_steps
from keras_blocks.refusals import check_features, check_mask
from keras_blocks.windows.short_inputs import with_a_step


class RaggedRNN(AcceptsRagged, keras.layers.RNN):
    """A `keras.layers.RNN` that takes ragged sequences where it takes dense ones.

    The rows are padded and the padding is masked, which gives every row what it would give alone:
    the state stands still over masked steps, before the row begins (`go_backwards`) and after it
    has ended. An empty row gives a zero output and leaves its initial state as it is. With
    `return_sequences` the output is ragged, with the rows of the input.
    """

    zero_output_for_mask: bool
    features: int | None = None

    @property
    def ragged_output(self) -> bool:  # type: ignore[override]
        """Returned sequences are ragged, the last output is not."""
        return self.return_sequences

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Creates the weights of the cell for this number of features."""
        super().build(sequences_shape, initial_state_shape)
        self.features = sequences_shape[-1]

    def compute_output_spec(  # type: ignore[override]  # Keras passes it by the name in `call`
        self, sequences: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """The symbolic outputs, the first one ragged where the input is."""
        check_features(self, self.features, sequences.shape)
        return super().compute_output_spec(sequences, *args, **kwargs)

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        """Runs the cell over the steps; `keras.layers.RNN` says what the arguments are."""
        check_features(self, self.features, sequences.shape)
        self._check_initial_state(initial_state)
        if not is_ragged(sequences):
            for part in keras.tree.flatten(mask):
                check_mask(self, part, sequences.shape)
            return self._call_dense(tf.convert_to_tensor(sequences), initial_state, mask, training)
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

    def _call_dense(self, sequences: Any, initial_state: Any, mask: Any, training: bool) -> Any:
        """Of no steps at all the returned sequence is empty, the rest as after masked ones."""
        base = super().call

        def run(steps: Any, mask: Any) -> Any:
            outputs = base(steps, initial_state=initial_state, mask=mask, training=training)
            if not self.return_sequences:
                return outputs
            first, *states = outputs if self.return_state else (outputs,)
            first = first[:, : tf.shape(sequences)[1]] if steps is not sequences else first
            return (first, *states) if self.return_state else first

        return with_a_step(sequences, mask, run)

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

    def state_shapes(self) -> list[tuple[int | None, ...]]:
        """The shape of each state, without the batch."""
        # A `state_size` of (5, 3) may be one state or two: the cell's own states say which.
        states = keras.tree.flatten(self.get_initial_state(batch_size=1))
        return [tuple(state.shape[1:]) for state in states]

    def _check_initial_state(self, initial_state: Any) -> None:
        if initial_state is None:
            return
        expected = self.state_shapes()
        given = [tuple(state.shape) for state in keras.tree.flatten(initial_state)]
        if len(given) != len(expected) or not all(
            len(shape) == len(size) + 1
            and all(
                None in pair or pair[0] == pair[1] for pair in zip(shape[1:], size, strict=True)
            )
            for shape, size in zip(given, expected, strict=True)
        ):
            # Where axes stand between the batch and the only known one, the input says their sizes.
            sizes = [("...", *size[-1:]) if len(size) == 1 else size for size in expected]
            shapes = ", ".join(f"(batch, {', '.join(map(str, size))})" for size in sizes)
            raise ValueError(
                f"{type(self).__name__}: `initial_state` must hold tensors of shapes {shapes}. "
                f"Received shapes: {', '.join(map(str, given))}."
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
