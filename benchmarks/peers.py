"""The blocks beside the stock Keras layers that compute the same, at sizes that do some work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

import keras_blocks as kb

BATCH, TIME, FEATURES, WORDS = 32, 100, 64, 1000
Make = Callable[[], keras.layers.Layer]


@dataclass(frozen=True)
class Pair:
    """A block and its peer on the same input.

    Args:
        ours, peer: make the layers anew.
        shape: of the input, without the batch, None where it is free.
        drawn: the same shape for the benchmark, with the sizes in place of None.
        tokens: bool, whether the input is token ids, 0 behind the end of each row.
        ragged: bool, whether ours takes the rows ragged; stock Keras has no ragged layers, so the
            peer takes them padded and masked.
        lengths: how long the rows of tokens are: "spread" evenly up to the longest, all "equal", or
            "unequal", a third of the longest on average.
        batch: int.
    """

    name: str
    ours: Make
    peer: Make
    shape: tuple[int | None, ...] = (None, FEATURES)
    drawn: tuple[int, ...] = (TIME, FEATURES)
    tokens: bool = False
    ragged: bool = False
    lengths: str = "spread"
    batch: int = BATCH

    def models(self) -> tuple[keras.Model, keras.Model]:
        """Ours and the peer, each alone in a functional model."""
        return self._model(self.ours, self.ragged), self._model(self.peer, False)

    def _model(self, make: Make, ragged: bool) -> keras.Model:
        dtype = "int32" if self.tokens else "float32"
        x = keras.Input(self.shape, dtype=dtype, ragged=ragged, name="x")
        return keras.Model(x, make()(x))

    def inputs(self) -> tuple[tf.Tensor | tf.RaggedTensor, tf.Tensor]:
        """The same random input for both."""
        generator = np.random.default_rng(0)
        shape = (self.batch, *self.drawn)
        if not self.tokens:
            x = tf.constant(generator.normal(size=shape).astype("float32"))
            return x, x
        longest = self.drawn[0]
        lengths = {
            "spread": generator.integers(1, longest + 1, self.batch),
            "equal": np.full(self.batch, longest),
            "unequal": 1 + (longest - 1) * generator.permutation(self.batch) ** 2 // self.batch**2,
        }[self.lengths]
        lengths[0] = longest
        values = generator.integers(1, WORDS, shape).astype("int32")
        padded = tf.constant(np.where(np.arange(self.drawn[0]) < lengths[:, None], values, 0))
        rows = tf.RaggedTensor.from_tensor(padded, lengths.tolist()) if self.ragged else padded
        return rows, padded


def embedded(layer: keras.layers.Layer, block: bool, mask: bool = True) -> keras.layers.Layer:
    """Token ids through an embedding into a layer, of blocks or of stock layers."""
    if block:
        return kb.Stacked([kb.Embedding(WORDS, FEATURES, mask_zero=mask), layer])
    return keras.Sequential([keras.layers.Embedding(WORDS, FEATURES, mask_zero=mask), layer])


def stock_gru(units: int, **options: bool) -> keras.layers.Layer:
    """The guide's gated unit resets before the product, which stock Keras does when asked to."""
    return keras.layers.GRU(units, reset_after=False, **options)


IMAGE = {"shape": (None, None, 16), "drawn": (48, 48, 16)}
VOLUME = {"shape": (None, None, None, 8), "drawn": (12, 12, 12, 8)}
TOKENS = {"shape": (None,), "drawn": (TIME,), "tokens": True}
VECTORS = {"shape": (512,), "drawn": (512,), "batch": 512}

BLOCKS = [
    Pair("Vanilla", lambda: kb.Vanilla(512), lambda: keras.layers.Dense(512, "tanh"), **VECTORS),
    Pair("Softmax", kb.Softmax, keras.layers.Softmax, **VECTORS),
    Pair(
        "Embedding",
        lambda: kb.Embedding(WORDS, FEATURES),
        lambda: keras.layers.Embedding(WORDS, FEATURES),
        **TOKENS,
    ),
    Pair("MaxPooling 1-D", lambda: kb.MaxPooling(2), lambda: keras.layers.MaxPooling1D(2)),
    Pair("MaxPooling 2-D", lambda: kb.MaxPooling(2), lambda: keras.layers.MaxPooling2D(2), **IMAGE),
    Pair(
        "MaxPooling 3-D", lambda: kb.MaxPooling(2), lambda: keras.layers.MaxPooling3D(2), **VOLUME
    ),
    Pair("Sigmoid", kb.Sigmoid, lambda: keras.layers.Activation("sigmoid"), **VECTORS),
    Pair("Tanh", kb.Tanh, lambda: keras.layers.Activation("tanh"), **VECTORS),
    Pair("Rectifier", kb.Rectifier, keras.layers.ReLU, **VECTORS),
    Pair("GRU", lambda: kb.GRU(64), lambda: stock_gru(64)),
    Pair("LSTM", lambda: kb.LSTM(64), lambda: keras.layers.LSTM(64)),
    Pair(
        "Stacked",
        lambda: kb.Stacked([kb.Vanilla(512), kb.Vanilla(512)]),
        lambda: keras.Sequential(
            [keras.layers.Dense(512, "tanh"), keras.layers.Dense(512, "tanh")]
        ),
        **VECTORS,
    ),
    Pair(
        "Convolution 1-D",
        lambda: kb.Convolution(kb.Vanilla(64), 3),
        lambda: keras.layers.Conv1D(64, 3, activation="tanh"),
    ),
    Pair(
        "Convolution 2-D",
        lambda: kb.Convolution(kb.Vanilla(16), (3, 3), padding="same"),
        lambda: keras.layers.Conv2D(16, 3, padding="same", activation="tanh"),
        **IMAGE,
    ),
    Pair(
        "Convolution 3-D",
        lambda: kb.Convolution(kb.Vanilla(8), (3, 3, 3)),
        lambda: keras.layers.Conv3D(8, 3, activation="tanh"),
        **VOLUME,
    ),
    Pair("Recurrence", lambda: kb.Recurrence(kb.Vanilla(64)), lambda: keras.layers.SimpleRNN(64)),
    Pair("GlobalMaxPooling", kb.GlobalMaxPooling, keras.layers.GlobalMaxPooling2D, **IMAGE),
    Pair(
        "GlobalAveragePooling",
        kb.GlobalAveragePooling,
        keras.layers.GlobalAveragePooling2D,
        **IMAGE,
    ),
    Pair(
        "Map",
        lambda: kb.Map(keras.layers.Dense(64)),
        lambda: keras.layers.TimeDistributed(keras.layers.Dense(64)),
        (TIME, FEATURES),
    ),
]


def attention(block: bool, causal: bool = False) -> keras.Model:
    """Token ids through an embedding into self-attention of four heads."""
    tokens = keras.Input((None,), dtype="int32", ragged=block)
    kind = kb.MultiHeadAttention if block else keras.layers.MultiHeadAttention
    embed = kb.Embedding if block else keras.layers.Embedding
    x = embed(WORDS, FEATURES, mask_zero=not block)(tokens)
    return keras.Model(tokens, kind(4, FEATURES // 4)(x, x, use_causal_mask=causal))


def attention_pooling() -> keras.Model:
    """What `AttentionPooling(64)` computes, of stock layers, for rows of one length."""
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(WORDS, FEATURES)(tokens)
    scores = keras.layers.Dense(1, use_bias=False)(keras.layers.Dense(64, "tanh")(x))
    weights = keras.layers.Softmax(axis=1)(scores)
    pooled = keras.layers.Dot(axes=1)([weights, x])
    return keras.Model(tokens, keras.layers.Flatten()(pooled))


def positions(block: bool) -> keras.Model:
    """Token ids with trained positions added, through a mapped layer."""
    tokens = keras.Input((None,), dtype="int32", ragged=block)
    if block:
        x = kb.Embedding(WORDS, FEATURES)(tokens)
        x = kb.Add()([x, kb.PositionEmbedding(TIME)(x)])
        return keras.Model(tokens, kb.Map(keras.layers.Dense(FEATURES))(x))
    x = keras.layers.Embedding(WORDS, FEATURES)(tokens)
    places = keras.layers.Lambda(lambda x: tf.range(tf.shape(x)[1]), output_shape=(None,))(tokens)
    x = keras.layers.Add()([x, keras.layers.Embedding(TIME, FEATURES)(places)])
    return keras.Model(tokens, keras.layers.Dense(FEATURES)(x))


def ragged_pairs() -> list[Pair]:
    """Blocks on ragged rows beside stock layers on padded ones, of equal and of unequal lengths."""
    stock = keras.layers
    made = {
        "GlobalMaxPooling": (
            lambda: embedded(kb.GlobalMaxPooling(), block=True, mask=False),
            lambda: embedded(stock.GlobalMaxPooling1D(), block=False, mask=False),
        ),
        "GlobalAveragePooling": (
            lambda: embedded(kb.GlobalAveragePooling(), block=True, mask=False),
            lambda: embedded(stock.GlobalAveragePooling1D(), block=False),
        ),
        "AttentionPooling": (
            lambda: embedded(kb.AttentionPooling(64), block=True, mask=False),
            attention_pooling,
        ),
        "MultiHeadAttention": (lambda: attention(True), lambda: attention(False)),
        "MultiHeadAttention causal": (
            lambda: attention(True, causal=True),
            lambda: attention(False, causal=True),
        ),
        "Positions, Add, Map": (lambda: positions(True), lambda: positions(False)),
    }
    return [
        Pair(f"{name}, {lengths}", *both, ragged=True, lengths=lengths, **TOKENS)
        for lengths in ("equal", "unequal")
        for name, both in made.items()
    ]


def recurrent(hidden: int) -> list[Pair]:
    """GRU and LSTM, masked, ragged, and in both directions: the exports that were slow."""
    pairs = []
    both = keras.layers.Bidirectional
    for name, block, stock in (("GRU", kb.GRU, stock_gru), ("LSTM", kb.LSTM, keras.layers.LSTM)):

        def ours(around: Callable, mask: bool, block: Callable = block) -> Make:
            return lambda: embedded(around(block(hidden)), block=True, mask=mask)

        def peer(around: Callable, mask: bool, stock: Callable = stock) -> Make:
            return lambda: embedded(around(stock(hidden)), block=False, mask=mask)

        def alone(layer: keras.layers.Layer) -> keras.layers.Layer:
            return layer

        for kind, around, mask, ragged in (
            ("masked", alone, True, False),
            ("ragged", alone, True, True),
            ("bidirectional", both, False, False),
            ("bidirectional masked", both, True, False),
            ("bidirectional ragged", both, True, True),
        ):
            pairs.append(
                Pair(
                    f"{name} {kind} {hidden}",
                    ours(around, mask and not ragged),
                    peer(around, mask),
                    ragged=ragged,
                    **TOKENS,
                )
            )
    return pairs
