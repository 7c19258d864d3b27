"""Generation: one step, unfolded over its own output."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.copying import restore_layers, store_layers
from keras_blocks.mechanisms.lifting import (
    PACKAGE,
    build_layer,
    check_layer,
    output_shape,
)
from keras_blocks.mechanisms.step_cell import StepCell
from keras_blocks.mechanisms.symbol_choice import best, draw, score_of, uniform_numbers
from keras_blocks.ragged import from_padded, ragged_spec

METHODS = ("greedy", "sample", "beam")
NEVER = -1e9  # the score of what must not be chosen; infinities would give NaN


@keras.saving.register_keras_serializable(PACKAGE)
class Generation(keras.layers.Layer):
    """Unfolds a step over its own output: each symbol it gives is what it reads next.

    y_t, s_t = step(embedding(symbol_{t-1}), s_{t-1})
    symbol_t = choice(scores(y_t)), until it is `stop`, at most `max_length` times

    The choice is, by `method`:
        "greedy": the symbol with the highest score.
        "sample": drawn by softmax(scores / temperature), among the `top_k` best and among the best
            that have `top_p` of the shares together, if these are given.
        "beam": of the `beam_width` rows of symbols that are kept at every step, the one with the
            highest sum of log softmax(scores), divided by length ** length_penalty.

    Train the same layers by `Recurrence`, `GRU(...)` or `LSTM(...)`, whose `cell` is the step, over
    the symbols that should have come.

    Args:
        step: a cell, a list of cells to stack, or any layer, as of `Recurrence`.
        embedding: layer from symbols to vectors.
        scores: layer from the step's output to a score for each symbol (logits).
        max_length: int, the most symbols of a row.
        stop: int, the symbol that ends a row, and is not part of it; None ends none.
        method: str, "greedy", "sample" or "beam".
        temperature: float, above 0: less than 1 sharpens what is drawn from, more flattens it.
        top_k: int, how many symbols may be drawn; None for all.
        top_p: float up to 1, the shares of the best symbols that may be drawn; None for all.
        beam_width: int, the rows that "beam" keeps.
        length_penalty: float, 0 for none; with 1 the mean of the scores counts, the stop included.
        return_scores: bool, whether to give the sum of the log shares of each row too, with that
            of the stop.
        **kwargs: `name`, `dtype` and the like, as for every layer.

    Call arguments:
        inputs: int (batch,), the symbol that each row begins after; it is not part of the output.
        initial_state: the states before the first step, say an encoder's: a tensor, or a list of
            as many as the step has. Zeros if None.
        seed: int (batch,), what the symbols of each row are drawn by; "sample" needs it. The same
            seed draws the same symbols, whatever the other rows are, and in an exported file too.

    Input shape:
        (batch,).

    Output shape:
        Ragged (batch, time) of int32; with `return_scores` a tuple of that and (batch,).

    Raises:
        TypeError: `embedding` or `scores` is no layer.
        ValueError: an argument is none of the above, the state has other parts than the step's.

    Example:
        >>> import keras, keras_blocks as kb, numpy as np
        >>> step, words = kb.GRUCell(8), kb.Embedding(20, 4)
        >>> scores = kb.Vanilla(20, activation=None)
        >>> writer = kb.Generation(step, words, scores, max_length=5, method="sample", top_k=3)
        >>> writer(np.array([1, 1]), seed=np.array([3, 4])).row_lengths().numpy()
        array([5, 5])

    Reference:
        Graves, 2012, Sequence Transduction with Recurrent Neural Networks; Holtzman et al., 2020,
        The Curious Case of Neural Text Degeneration (`top_p`).
    """

    def __init__(
        self,
        step: Any,
        embedding: keras.layers.Layer,
        scores: keras.layers.Layer,
        max_length: int,
        stop: int | None = None,
        method: str = "greedy",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        beam_width: int = 4,
        length_penalty: float = 0.0,
        return_scores: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.max_length, self.stop, self.method = max_length, stop, method
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.beam_width, self.length_penalty = beam_width, length_penalty
        self.return_scores = return_scores
        self._check_settings()
        self.embedding = check_layer(embedding, "Generation", "embedding")
        self.scores = check_layer(scores, "Generation", "scores")
        if isinstance(step, (list, tuple)):
            step = keras.layers.StackedRNNCells(list(step))
        if not hasattr(step, "state_size"):
            step = StepCell(check_layer(step, "Generation", "step"), name="step")
        self.step = step
        # Its output is ragged, and its loop ends when all rows have.
        self.supports_jit = False

    def _check_settings(self) -> None:
        right = {
            "max_length": self.max_length >= 1,
            "method": self.method in METHODS,
            "temperature": self.temperature > 0,
            "top_k": self.top_k is None or self.top_k >= 1,
            "top_p": self.top_p is None or 0 < self.top_p <= 1,
            "beam_width": self.beam_width >= 1,
        }
        for name, is_right in right.items():
            if not is_right:
                raise ValueError(
                    f"Generation: {name} must be {_EXPECTED[name]}. "
                    f"Received: {name}={getattr(self, name)!r}."
                )

    def build(self, input_shape: Any) -> None:
        """Creates the weights of the three layers, where they have none yet."""
        build_layer(self.embedding, (None,))
        vectors = output_shape(self.embedding, (None,))
        build_layer(self.step, vectors)
        output = self._known_states()[0].shape
        if hasattr(self.step, "output_size"):
            output = (None, self.step.output_size)
        build_layer(self.scores, tuple(output))

    def call(self, inputs: Any, initial_state: Any = None, seed: Any = None) -> Any:
        """Gives the symbols of each row."""
        start = tf.convert_to_tensor(inputs)
        if start.shape.rank != 1:
            raise ValueError(
                "Generation: the input is the symbol before the first one, of shape (batch,). "
                f"Received: shape {start.shape}."
            )
        states = self._states(tf.shape(start)[0], initial_state)
        if self.method == "beam":
            symbols, is_kept, scores = self._search(start, states)
        else:
            symbols, is_kept, scores = self._follow(start, states, self._draws(seed))
        ends = tf.cumsum(tf.reduce_sum(tf.cast(is_kept, tf.int64), axis=1))
        rows = from_padded(symbols, is_kept, tf.concat([tf.zeros(1, tf.int64), ends], axis=0))
        return (rows, scores) if self.return_scores else rows

    def _draws(self, seed: Any) -> tf.Tensor | None:
        if self.method != "sample":
            return None
        if seed is None:
            raise ValueError(
                "Generation: method='sample' needs a seed for each row, so that what it draws can "
                "be drawn again: call it with seed=, integers of shape (batch,)."
            )
        return uniform_numbers(tf.convert_to_tensor(seed), self.max_length)

    def _known_states(self) -> list[tf.Tensor]:
        return keras.tree.flatten(self._zero_states(1))

    def _zero_states(self, rows: Any) -> Any:
        if isinstance(self.step, StepCell):
            return [tf.zeros((rows, *self.step.known_state_shape()), self.compute_dtype)]
        return self.step.get_initial_state(batch_size=rows)

    def _states(self, rows: tf.Tensor, initial_state: Any) -> list[tf.Tensor]:
        """The parts of the state before the first step, in the order of the step's own."""
        if initial_state is None:
            return keras.tree.flatten(self._zero_states(rows))
        given, known = keras.tree.flatten(initial_state), self._known_states()
        same = [tuple(state.shape[1:]) for state in given] == [s.shape[1:] for s in known]
        if not same:
            raise ValueError(
                "Generation: initial_state must have the parts of the step's state, of shapes "
                f"{[(None, *s.shape[1:]) for s in known]}. "
                f"Received: {[tuple(state.shape) for state in given]}."
            )
        return [tf.cast(state, zero.dtype) for state, zero in zip(given, known, strict=True)]

    def _advance(self, x: Any, states: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """One step: the scores of the symbols that may follow, and the states after it."""
        states = keras.tree.pack_sequence_as(self._zero_states(1), list(states))
        output, states = self.step(x, states)
        return tf.cast(self.scores(output), tf.float32), keras.tree.flatten(states)

    def _unfold(self, body: Any, values: tuple, any_alive: Any) -> tuple:
        """Runs `body(t, *values)` while a row is alive, 1 to `max_length` times."""

        def next_values(t: tf.Tensor, *values: Any) -> tuple:
            new = keras.tree.map_structure(_keep_shape, body(t, *values), values)
            return (t + 1, *new)

        def goes_on(t: tf.Tensor, *values: Any) -> tf.Tensor:
            is_next = t < self.max_length
            return is_next if self.stop is None else is_next & ((t < 1) | any_alive(*values))

        return tf.while_loop(goes_on, next_values, (tf.constant(0), *values))[1:]

    def _follow(
        self, start: tf.Tensor, states: list[tf.Tensor], draws: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """One row of symbols for each start: (batch, time), which of them count, their scores."""
        # Carried where it is asked for: the loop of an exported file pays for each node.
        carried = {}
        if self.stop is not None:
            carried["alive"] = tf.ones_like(start, tf.bool)
        if self.return_scores:
            carried["total"] = tf.zeros_like(start, tf.float32)

        def body(t: Any, x: Any, states: Any, written: tf.TensorArray, carried: Any) -> tuple:
            scores, states = self._advance(x, states)
            if draws is None:
                chosen = best(scores)
            else:
                uniform = tf.gather(draws, t, axis=1)
                chosen = draw(scores, uniform, self.temperature, self.top_k, self.top_p)
            after = {}
            if self.return_scores:
                counts = tf.where(carried["alive"], 1.0, 0.0) if self.stop is not None else 1.0
                after["total"] = carried["total"] + counts * score_of(scores, chosen)
            if self.stop is not None:
                after["alive"] = carried["alive"] & (chosen != self.stop)
            return self.embedding(chosen), tuple(states), written.write(t, chosen), after

        array = tf.TensorArray(tf.int32, self.max_length, element_shape=start.shape)
        values = (self.embedding(start), tuple(states), array, carried)
        found = self._unfold(body, values, lambda *values: tf.reduce_any(values[3]["alive"]))
        # In a file the steps that were not run are not there; here they are zeros behind a stop.
        symbols = tf.transpose(found[2].stack())
        is_kept = tf.ones_like(symbols, tf.bool)
        if self.stop is not None:
            is_kept = tf.cumsum(tf.cast(symbols == self.stop, tf.int32), axis=1) < 1
        return symbols, is_kept, found[3].get("total")

    def _search(
        self, start: tf.Tensor, states: list[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The best row of symbols for each start: (batch, time), which of them count, their scores.

        The kept rows of a start are rows of the step's batch, after one another.
        """
        rows, width = tf.shape(start)[0], self.beam_width
        firsts = tf.range(rows)[:, tf.newaxis] * width
        places = tf.range(self.max_length)[tf.newaxis, :]

        def body(
            t: Any, x: Any, states: Any, symbols: Any, lengths: Any, alive: Any, total: Any
        ) -> tuple:
            scores, states = self._advance(x, states)
            size = scores.shape[-1]
            # A row that has ended stays as it is, by one symbol that costs nothing.
            at_rest = tf.one_hot(self.stop or 0, size, 0.0, NEVER)[tf.newaxis, :]
            scores = tf.where(alive[:, tf.newaxis], tf.nn.log_softmax(scores), at_rest)
            each = tf.reshape(total[:, tf.newaxis] + scores, (rows, width * size))
            totals, found = tf.math.top_k(each, width)
            before = tf.reshape(firsts + found // size, (-1,))
            chosen = tf.reshape(found % size, (-1,))
            symbols = tf.where(places == t, chosen[:, tf.newaxis], tf.gather(symbols, before))
            lengths, alive = tf.gather(lengths, before), tf.gather(alive, before)
            lengths += tf.cast(alive, tf.int32)  # the stop counts
            if self.stop is not None:
                alive &= chosen != self.stop
            states = tuple(tf.gather(state, before) for state in states)
            return (
                self.embedding(chosen),
                states,
                symbols,
                lengths,
                alive,
                tf.reshape(totals, (-1,)),
            )

        values = (
            tf.repeat(self.embedding(start), width, axis=0),
            tuple(tf.repeat(state, width, axis=0) for state in states),
            tf.zeros((rows * width, self.max_length), tf.int32),
            tf.zeros(rows * width, tf.int32),
            tf.ones(rows * width, tf.bool),
            tf.tile(tf.one_hot(0, width, 0.0, NEVER), [rows]),  # all begin alike: one counts
        )
        found = self._unfold(body, values, lambda *values: tf.reduce_any(values[4]))
        _, _, symbols, lengths, alive, total = found
        judged = total / tf.maximum(tf.cast(lengths, tf.float32), 1.0) ** self.length_penalty
        judged = tf.reshape(judged, (rows, width))
        first = firsts[:, 0] + tf.argmax(judged, axis=-1, output_type=tf.int32)
        symbols, total = tf.gather(symbols, first), tf.gather(total, first)
        kept = tf.gather(lengths - tf.cast(~alive, tf.int32), first)
        return symbols, places < kept[:, tf.newaxis], total

    def compute_output_spec(self, inputs: Any, initial_state: Any = None, seed: Any = None) -> Any:
        """Ragged rows of symbols, and their scores."""
        if self.method == "sample" and seed is None:
            self._draws(seed)
        if not self.built:
            self.build(inputs.shape)
        rows = ragged_spec((inputs.shape[0], None), "int32")
        scores = keras.KerasTensor(inputs.shape[:1], "float32")
        return (rows, scores) if self.return_scores else rows

    def get_config(self) -> dict[str, Any]:
        """The arguments, the three layers serialised among them."""
        step = self.step.layer if isinstance(self.step, StepCell) else self.step
        layers = {"step": step, "embedding": self.embedding, "scores": self.scores}
        layers = dict(zip(layers, store_layers([*layers.values()]), strict=True))
        return {**layers, **{n: getattr(self, n) for n in _SETTINGS}, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`."""
        config = dict(config)
        names = ("step", "embedding", "scores")
        layers = restore_layers([config.pop(name) for name in names], custom_objects)
        return cls(*layers, **config)


_EXPECTED = {
    "max_length": "at least 1",
    "method": f"one of {METHODS}",
    "temperature": "above 0 (method='greedy' is what a temperature of 0 means)",
    "top_k": "at least 1, or None",
    "top_p": "above 0 and at most 1, or None",
    "beam_width": "at least 1",
}
_SETTINGS = (
    "max_length",
    "stop",
    "method",
    "temperature",
    "top_k",
    "top_p",
    "beam_width",
    "length_penalty",
    "return_scores",
)


def _keep_shape(new: Any, old: Any) -> Any:
    if tf.is_tensor(new):
        new.set_shape(old.shape)
    return new
