"""The models whose files are raced, each with an input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

L = keras.layers
VOCABULARY, FEATURES, UNITS = 1000, 64, 128
WIDTH, HEADS, HIDDEN = 128, 4, 512


@dataclass(frozen=True)
class Case:
    """A model and what it is run on.

    Args:
        name: str.
        model: makes the model, with random weights.
        inputs: makes the inputs in the order of the model's.
        by_hand: str, the graph in `export_speed_hand`, or "" where there is none.
    """

    name: str
    model: Callable[[], keras.Model]
    inputs: Callable[[np.random.Generator], list[np.ndarray]]
    by_hand: str = ""

    def made(self) -> tuple[keras.Model, list[np.ndarray]]:
        """The model, called once, as the stock exporter wants it, and its inputs."""
        keras.utils.set_random_seed(0)
        generator = np.random.default_rng(0)
        model = self.model()
        for weight in model.weights:
            # Zero biases and unit scales would be optimized away. Variances stay positive.
            noise = generator.uniform(-0.1, 0.1, weight.shape)
            if weight.dtype == "float32":
                weight.assign(weight.numpy() + noise.astype("float32"))
        inputs = self.inputs(generator)
        model(inputs if len(inputs) > 1 else inputs[0])
        return model, inputs


def sequential(shape: tuple[int | None, ...], *layers: Any) -> Callable[[], keras.Model]:
    """A model of layers in a row; each is made by a function, as models share none."""

    def make() -> keras.Model:
        x = y = keras.Input(shape, name="x")
        for layer in layers:
            y = layer()(y)
        return keras.Model(x, y)

    return make


def over_words(*layers: Any) -> Callable[[], keras.Model]:
    """The layers over masked rows of words."""

    def make() -> keras.Model:
        x = keras.Input((None,), dtype="int32", name="x")
        y = L.Embedding(VOCABULARY, FEATURES, mask_zero=True)(x)
        for layer in layers:
            y = layer()(y)
        return keras.Model(x, y)

    return make


def floats(*shape: int) -> Callable[[np.random.Generator], list[np.ndarray]]:
    return lambda generator: [generator.normal(size=shape).astype("float32")]


def words(rows: int, time: int) -> Callable[[np.random.Generator], list[np.ndarray]]:
    """Rows of all lengths up to the longest, padded by zeros."""

    def make(generator: np.random.Generator) -> list[np.ndarray]:
        ids = generator.integers(1, VOCABULARY, (rows, time))
        lengths = np.linspace(1, time, rows).astype(int)
        return [np.where(np.arange(time) < lengths[:, np.newaxis], ids, 0).astype("int32")]

    return make


def transformer_block() -> keras.Model:
    x = keras.Input((None, WIDTH), name="x")
    h = L.LayerNormalization(name="first_norm")(x)
    h = L.Add()([x, L.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")(h, h)])
    y = L.LayerNormalization(name="second_norm")(h)
    y = L.Dense(WIDTH, name="narrow")(L.Dense(HIDDEN, activation="gelu", name="wide")(y))
    return keras.Model(x, L.Add()([h, y]))


def causal_block() -> keras.Model:
    x = keras.Input((None, WIDTH), name="x")
    h = L.RMSNormalization()(x)
    h = L.Add()([x, L.GroupQueryAttention(WIDTH // HEADS, HEADS, 2)(h, h, use_causal_mask=True)])
    y = L.Dense(HIDDEN, activation="silu")(L.RMSNormalization()(h))
    return keras.Model(x, L.Add()([h, L.Dense(WIDTH)(y)]))


def small_cnn() -> keras.Model:
    x = keras.Input((32, 32, 3), name="x")
    h = L.Conv2D(32, 3, padding="same", use_bias=False, name="first")(x)
    h = skipped = L.ReLU()(L.BatchNormalization(name="first_norm")(h))
    h = L.Conv2D(32, 3, padding="same", use_bias=False, name="second")(h)
    h = L.ReLU()(L.BatchNormalization(name="second_norm")(h))
    h = L.MaxPooling2D(2)(L.Add()([h, skipped]))
    h = L.Conv2D(64, 3, padding="valid", strides=2, activation="relu", name="third")(h)
    h = L.GlobalAveragePooling2D()(h)
    return keras.Model(x, L.Dense(10, activation="softmax", name="classes")(h))


def any_image() -> keras.Model:
    x = keras.Input((None, None, 3), name="x")
    h = L.Concatenate()([L.Conv2D(24, 3, padding="same")(x), L.Conv2D(8, 1)(x)])
    h = L.MaxPooling2D(2)(L.Activation("relu")(h))
    h = L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(h))
    h = L.AveragePooling2D(2)(L.Activation("silu")(h))
    return keras.Model(x, L.GlobalMaxPooling2D()(L.SeparableConv2D(32, 3, padding="same")(h)))


def inverted_bottleneck() -> keras.Model:
    x = h = keras.Input((16, 16, 32), name="x")
    h = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(192, 1, use_bias=False)(h)))
    h = L.DepthwiseConv2D(3, padding="same", use_bias=False)(h)
    h = L.ReLU(6.0)(L.BatchNormalization()(h))
    h = L.BatchNormalization()(L.Conv2D(32, 1, use_bias=False)(h))
    return keras.Model(x, L.Add()([x, h]))


def tower() -> keras.Model:
    return sequential(
        (None, FEATURES),
        lambda: L.Conv1D(FEATURES, 3, padding="causal", activation="relu"),
        lambda: L.Conv1D(FEATURES, 3, padding="same"),
        L.BatchNormalization,
        L.LeakyReLU,
        lambda: L.MaxPooling1D(2),
        L.GlobalAveragePooling1D,
    )()


def _rnn(kind: Any, units: int = UNITS, **options: Any) -> Callable[[], Any]:
    return lambda: kind(units, **options)


SEQUENCES = floats(16, 50, FEATURES)
CASES = (
    Case("dense layers", sequential((784,), *[lambda: L.Dense(256, activation="relu")] * 3),
         floats(32, 784)),
    Case("LSTM", sequential((None, FEATURES), _rnn(L.LSTM, return_sequences=True)), SEQUENCES,
         "lstm"),
    Case("GRU", sequential((None, FEATURES), _rnn(L.GRU, return_sequences=True)), SEQUENCES,
         "gru"),
    Case("LSTM, one row", sequential((None, FEATURES), _rnn(L.LSTM)), floats(1, 50, FEATURES)),
    Case("masked LSTM", over_words(_rnn(L.LSTM)), words(32, 100), "masked_lstm"),
    Case("masked GRU", over_words(_rnn(L.GRU)), words(32, 100)),
    Case("bidirectional LSTM", sequential(
        (None, FEATURES), lambda: L.Bidirectional(L.LSTM(UNITS // 2, return_sequences=True))),
        SEQUENCES, "bidirectional_lstm"),
    Case("bidirectional masked GRU",
         over_words(lambda: L.Bidirectional(L.GRU(UNITS // 2))), words(32, 100)),
    Case("stacked cells", sequential(
        (None, FEATURES), lambda: L.RNN([L.LSTMCell(FEATURES), L.GRUCell(FEATURES)])), SEQUENCES),
    Case("SimpleRNN", sequential((None, FEATURES), _rnn(L.SimpleRNN)), SEQUENCES),
    Case("SimpleRNN, one row", sequential((None, FEATURES), _rnn(L.SimpleRNN)),
         floats(1, 50, FEATURES)),
    Case("transformer block", transformer_block, floats(8, 64, WIDTH), "transformer_block"),
    Case("transformer block, one row", transformer_block, floats(1, 16, WIDTH),
         "transformer_block"),
    Case("causal block, grouped queries", causal_block, floats(4, 64, WIDTH)),
    Case("small CNN", small_cnn, floats(8, 32, 32, 3), "small_cnn"),
    Case("CNN over any image", any_image, floats(2, 40, 56, 3)),
    Case("inverted bottleneck", inverted_bottleneck, floats(4, 16, 16, 32)),
    Case("convolutions over time", tower, floats(16, 100, FEATURES)),
    Case("group normalization", sequential(
        (None, None, 32), lambda: L.GroupNormalization(8), L.ReLU), floats(4, 16, 16, 32)),
    Case("a CNN over every frame", sequential(
        (None, 16, 16, 3), lambda: L.TimeDistributed(L.Conv2D(16, 3, activation="relu")),
        lambda: L.TimeDistributed(L.GlobalAveragePooling2D()), lambda: L.GRU(32)),
        floats(4, 10, 16, 16, 3)),
)  # fmt: skip
