"""The one list of block cases, which the contract, save/load, parity and speed tests all read.

A new block adds its case here, and is then built, saved, cloned, trained, differentiated, exported
and proven by the tests that run over `CASES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.ragged import AcceptsRagged


@dataclass(frozen=True)
class Input:
    """One input of a case: `shape` without the batch axis, None where the size is free."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    ragged: bool = False
    below: int = 10  # integer inputs are drawn from range(below)
    parents: bool = False  # the parents of random trees, with the rows of the first input

    def symbol(self, name: str) -> Any:
        return keras.Input(self.shape, dtype=self.dtype, ragged=self.ragged, name=name)


@dataclass(frozen=True)
class Case:
    """A block on its inputs.

    Args:
        name: unique, a Python identifier.
        block: makes the layer anew.
        inputs: one or more; more are passed to the layer as a list.
        twin: makes the stock Keras layer that computes the same with other weights, for the speed
            tests; None where Keras has none.
        jit: whether the block compiles under XLA.
        shortest: int, the fewest steps that a dense row of the tests has: more than 1 for a
            softmax over time, which is idle on one step, and for a pooling window before a layer
            that needs a step.
        onnx_ops: ONNX ops that the exported graph must have ("GRU"), with `no_onnx_ops` those it
            must not have ("Loop").
    """

    name: str
    block: Callable[[], keras.layers.Layer]
    inputs: tuple[Input, ...] = field(default=(Input((None, 6)),))
    twin: Callable[[], keras.layers.Layer] | None = None
    jit: bool = True
    shortest: int = 1
    onnx_ops: tuple[str, ...] = ()
    no_onnx_ops: tuple[str, ...] = ("Loop", "Scan")

    @property
    def ragged(self) -> bool:
        return any(spec.ragged for spec in self.inputs)

    def model(self) -> keras.Model:
        """A functional model of the block alone."""
        symbols = [spec.symbol(f"x{i}") for i, spec in enumerate(self.inputs)]
        argument = symbols if len(symbols) > 1 else symbols[0]
        return keras.Model(argument, self.block()(argument), name=self.name)

    def sample(self, lengths: list[int], seed: int = 0) -> Any:
        """Random input. Free axes and ragged rows have the given lengths, one a batch row; a
        dense free axis takes the largest."""
        generator = np.random.default_rng(seed)
        drawn = [_draw(spec, lengths, generator) for spec in self.inputs]
        return drawn if len(drawn) > 1 else drawn[0]


def _draw(spec: Input, lengths: list[int], generator: np.random.Generator) -> tf.Tensor:
    if spec.parents:
        flat = [random_parents(n, generator) for n in lengths]
        values = np.concatenate([np.zeros(0, "int32"), *flat]).astype("int32")
    else:
        leading = (sum(lengths),) if spec.ragged else (len(lengths),)
        inner = spec.shape[1:] if spec.ragged else spec.shape
        shape = leading + tuple(max(lengths, default=0) if n is None else n for n in inner)
        if np.dtype(spec.dtype).kind in "iu":
            values = generator.integers(0, spec.below, shape).astype(spec.dtype)
        else:
            values = generator.normal(size=shape).astype(spec.dtype)
    if not spec.ragged:
        return tf.constant(values)
    return tf.RaggedTensor.from_row_splits(values, np.cumsum([0, *lengths]))


def random_parents(nodes: int, generator: np.random.Generator) -> np.ndarray:
    """The parents of a random tree whose nodes are in random order; -1 marks the root."""
    order = generator.permutation(nodes)
    parents = np.full(nodes, -1, dtype="int32")
    for position in range(1, nodes):
        parents[order[position]] = order[generator.integers(0, position)]
    return parents


SEQUENCE = (Input((None, 6)),)
RAGGED = (Input((None, 6), ragged=True),)
TOKENS = (Input((None,), dtype="int32"),)
RAGGED_TOKENS = (Input((None,), dtype="int32", ragged=True),)
VECTOR = (Input((6,)),)
TREES = (
    Input((None, 6), ragged=True),
    Input((None,), dtype="int32", ragged=True, parents=True),
)


LABELLED_TREES = (*TREES, Input((None,), dtype="int32", ragged=True, below=3))


def tree_case(
    name: str, block: Callable[[], keras.layers.Layer], inputs: tuple[Input, ...] = TREES
) -> Case:
    """A case over trees: loops over levels, whose sizes XLA cannot know."""
    return Case(name, block, inputs, jit=False, onnx_ops=("Loop",), no_onnx_ops=("Scan",))


def two_layers() -> keras.layers.Layer:
    """A layer that no mechanism knows a shortcut for."""
    return kb.Stacked([kb.Vanilla(5), keras.layers.Dropout(0.3, seed=3), kb.Vanilla(4)])


@keras.saving.register_keras_serializable("keras_blocks_tests")
class Pairwise(AcceptsRagged, keras.layers.Layer):
    """A layer of two arguments, called on a pair."""

    def __init__(self, layer: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, input_shape: Any) -> None:
        if not self.layer.built:
            self.layer.build(*input_shape)

    def call(self, inputs: Any) -> Any:
        return self.layer(*inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(*input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(keras.saving.deserialize_keras_object(config.pop("layer")), **config)


@keras.saving.register_keras_serializable("keras_blocks_tests")
class SelfAttention(Pairwise):
    """Rows that attend to themselves."""

    def __init__(self, heads: int, size: int, use_causal_mask: bool = False, **kwargs: Any):
        super().__init__(kb.MultiHeadAttention(heads, size), **kwargs)
        self.options = {"heads": heads, "size": size, "use_causal_mask": use_causal_mask}

    def build(self, input_shape: Any) -> None:
        self.layer.build(input_shape, input_shape)

    def call(self, inputs: Any) -> Any:
        return self.layer(inputs, inputs, use_causal_mask=self.options["use_causal_mask"])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape, input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**keras.layers.Layer.get_config(self), **self.options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


@keras.saving.register_keras_serializable("keras_blocks_tests")
class Positioned(AcceptsRagged, keras.layers.Layer):
    """Steps with their positions added, and then what they met repeated beside them."""

    def __init__(self, trained: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.trained = trained
        self.positions = kb.PositionEmbedding(3000) if trained else kb.SinePositionEncoding()
        self.merged = [kb.Add(), kb.GlobalAveragePooling(), kb.RepeatVector(), kb.Concatenate()]

    def build(self, input_shape: Any) -> None:
        self.positions.build(input_shape)

    def call(self, inputs: Any) -> Any:
        add, pool, repeat, concatenate = self.merged
        x = add([inputs, self.positions(inputs)])
        return concatenate([x, repeat([pool(x), x])])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], 2 * input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trained": self.trained}


CASES: list[Case] = [
    # units and nonlinearities
    Case("vanilla", lambda: kb.Vanilla(5), VECTOR, twin=lambda: keras.layers.Dense(5, "tanh")),
    Case("vanilla_sequence", lambda: kb.Vanilla(5, activation=None, use_bias=False), SEQUENCE),
    Case("vanilla_ragged", lambda: kb.Vanilla(5), RAGGED),
    Case("softmax", lambda: kb.Softmax(), VECTOR, twin=lambda: keras.layers.Softmax()),
    Case("softmax_over_time", lambda: kb.Softmax(axis=1), SEQUENCE, shortest=2),
    Case("softmax_ragged", lambda: kb.Softmax(), RAGGED),
    Case(
        "softmax_over_ragged_time",
        lambda: kb.Softmax(),
        (Input((None,), ragged=True),),
        shortest=2,
    ),
    Case(
        "embedding",
        lambda: kb.Embedding(10, 5),
        TOKENS,
        twin=lambda: keras.layers.Embedding(10, 5),
    ),
    Case("embedding_ragged", lambda: kb.Embedding(10, 5), RAGGED_TOKENS),
    Case(
        "max_pooling_1d",
        lambda: kb.MaxPooling(2),
        SEQUENCE,
        twin=lambda: keras.layers.MaxPooling1D(2),
    ),
    Case(
        "max_pooling_2d",
        lambda: kb.MaxPooling((2, 3), strides=1, padding="same"),
        (Input((5, None, 3)),),
        twin=lambda: keras.layers.MaxPooling2D((2, 3), strides=1, padding="same"),
        onnx_ops=("MaxPool",),
    ),
    Case(
        "max_pooling_3d",
        lambda: kb.MaxPooling(2),
        (Input((4, 5, 3, 2)),),
        twin=lambda: keras.layers.MaxPooling3D(2),
        onnx_ops=("MaxPool",),
    ),
    Case("max_pooling_ragged", lambda: kb.MaxPooling(2), RAGGED),
    Case("max_pooling_same_ragged", lambda: kb.MaxPooling(3, 2, padding="same"), RAGGED),
    Case(
        "global_max_pooling",
        lambda: kb.GlobalMaxPooling(),
        (Input((5, None, 3)),),
        twin=lambda: keras.layers.GlobalMaxPooling2D(),
        onnx_ops=("ReduceMax",),
    ),
    Case(
        "global_average_pooling_masked",
        lambda: kb.Stacked([kb.Embedding(10, 6, mask_zero=True), kb.GlobalAveragePooling()]),
        TOKENS,
        twin=lambda: keras.Sequential(
            [keras.layers.Embedding(10, 6, mask_zero=True), keras.layers.GlobalAveragePooling1D()]
        ),
        onnx_ops=("ReduceSum",),
    ),
    Case("global_sum_pooling", lambda: kb.GlobalSumPooling(), onnx_ops=("ReduceSum",)),
    Case(
        "global_max_pooling_ragged",
        lambda: kb.GlobalMaxPooling(keepdims=True),
        RAGGED,
        onnx_ops=("ReduceMax", "Gather"),
        no_onnx_ops=("Loop", "Scan", "ScatterElements"),
    ),
    Case(
        "global_average_pooling_ragged",
        lambda: kb.GlobalAveragePooling(),
        RAGGED,
        onnx_ops=("ReduceSum", "Gather"),
        no_onnx_ops=("Loop", "Scan", "ScatterElements"),
    ),
    Case(
        "attention_pooling",
        lambda: kb.AttentionPooling(5),
        shortest=2,
        onnx_ops=("MatMul", "Softmax"),
    ),
    Case(
        "attention_pooling_ragged",
        lambda: kb.AttentionPooling(5),
        RAGGED,
        shortest=2,
        onnx_ops=("MatMul", "Softmax", "ReduceSum"),
        no_onnx_ops=("Loop", "Scan", "ScatterElements"),
    ),
    Case(
        "attention",
        lambda: SelfAttention(2, 3),
        shortest=2,
        onnx_ops=("MatMul", "Softmax"),
    ),
    Case(
        "attention_ragged",
        lambda: SelfAttention(2, 3, use_causal_mask=True),
        RAGGED,
        shortest=2,
        onnx_ops=("MatMul", "Softmax", "If"),
    ),
    Case(
        "attention_ragged_to_another",
        lambda: Pairwise(kb.MultiHeadAttention(2, 3, value_dim=4)),
        (*RAGGED, *RAGGED),
        shortest=2,
        onnx_ops=("MatMul", "Softmax", "If"),
    ),
    Case("sine_positions", lambda: Positioned(trained=False), onnx_ops=("Sin", "Cos")),
    Case("sine_positions_ragged", lambda: Positioned(trained=False), RAGGED),
    Case("position_embedding", lambda: Positioned(trained=True), onnx_ops=("Gather",)),
    Case("position_embedding_ragged", lambda: Positioned(trained=True), RAGGED),
    Case("repeat_vector", lambda: kb.RepeatVector(3), VECTOR, jit=False),
    Case(
        "to_dense",
        lambda: kb.Stacked([kb.ToDense(), kb.LSTM(4)]),
        RAGGED,
        onnx_ops=("LSTM",),
    ),
    Case(
        "to_dense_and_back",
        lambda: kb.Stacked(
            [kb.ToDense(), keras.layers.Dense(4), kb.ToRagged(), kb.GlobalSumPooling()]
        ),
        RAGGED,
    ),
    Case("multiply_ragged", lambda: kb.Multiply(), (*RAGGED, *RAGGED)),
    Case("sigmoid", lambda: kb.Sigmoid(), VECTOR, twin=lambda: keras.layers.Activation("sigmoid")),
    Case("tanh", lambda: kb.Tanh(), SEQUENCE, twin=lambda: keras.layers.Activation("tanh")),
    Case("rectifier", lambda: kb.Rectifier(), VECTOR, twin=lambda: keras.layers.ReLU()),
    Case("rectifier_ragged", lambda: kb.Rectifier(), RAGGED),
    Case(
        "gru",
        lambda: kb.GRU(4),
        twin=lambda: keras.layers.GRU(4, reset_after=False),
        onnx_ops=("GRU",),
    ),
    Case(
        "gru_backwards_sequences_states",
        lambda: kb.GRU(4, return_sequences=True, return_state=True, go_backwards=True),
        onnx_ops=("GRU",),
    ),
    Case("gru_reset_after", lambda: kb.GRU(4, reset_after=True), onnx_ops=("GRU",)),
    Case(
        "gru_unrolled",
        lambda: kb.GRU(4, unroll=True, dropout=0.3, recurrent_dropout=0.2, seed=3),
        (Input((3, 6)),),
    ),
    Case(
        "gru_masked",
        lambda: kb.Stacked([kb.Embedding(10, 6, mask_zero=True), kb.GRU(4)]),
        TOKENS,
        twin=lambda: keras.Sequential(
            [
                keras.layers.Embedding(10, 6, mask_zero=True),
                keras.layers.GRU(4, reset_after=False),
            ]
        ),
        onnx_ops=("GRU",),
    ),
    Case("gru_ragged", lambda: kb.GRU(4), RAGGED, onnx_ops=("GRU",)),
    Case(
        "gru_ragged_backwards_sequences_states",
        lambda: kb.GRU(4, return_sequences=True, return_state=True, go_backwards=True),
        RAGGED,
        onnx_ops=("GRU",),
    ),
    Case(
        "gru_bidirectional",
        lambda: keras.layers.Bidirectional(kb.GRU(4, return_sequences=True)),
        twin=lambda: keras.layers.Bidirectional(
            keras.layers.GRU(4, reset_after=False, return_sequences=True)
        ),
        onnx_ops=("GRU",),
    ),
    Case(
        "gru_bidirectional_ragged",
        lambda: keras.layers.Bidirectional(kb.GRU(4)),
        RAGGED,
        onnx_ops=("GRU",),
    ),
    Case("lstm", lambda: kb.LSTM(4), twin=lambda: keras.layers.LSTM(4), onnx_ops=("LSTM",)),
    Case(
        "lstm_sequences_states",
        lambda: kb.LSTM(4, return_sequences=True, return_state=True, unit_forget_bias=False),
        onnx_ops=("LSTM",),
    ),
    Case(
        "lstm_masked_sequences",
        lambda: kb.Stacked(
            [kb.Embedding(10, 6, mask_zero=True), kb.LSTM(4, return_sequences=True)]
        ),
        TOKENS,
        twin=lambda: keras.Sequential(
            [
                keras.layers.Embedding(10, 6, mask_zero=True),
                keras.layers.LSTM(4, return_sequences=True),
            ]
        ),
        onnx_ops=("LSTM",),
    ),
    Case(
        "lstm_ragged_sequences_states",
        lambda: kb.LSTM(4, return_sequences=True, return_state=True),
        RAGGED,
        onnx_ops=("LSTM",),
    ),
    Case(
        "lstm_ragged_backwards",
        lambda: kb.LSTM(4, go_backwards=True, use_bias=False),
        RAGGED,
        onnx_ops=("LSTM",),
    ),
    Case(
        "lstm_bidirectional_ragged",
        lambda: keras.layers.Bidirectional(kb.LSTM(4), merge_mode="sum"),
        RAGGED,
        onnx_ops=("LSTM",),
    ),
    # mechanisms
    Case(
        "stacked",
        lambda: kb.Stacked([kb.Vanilla(5), keras.layers.Dropout(0.3, seed=3), kb.Vanilla(4)]),
        VECTOR,
        twin=lambda: keras.Sequential(
            [
                keras.layers.Dense(5, "tanh"),
                keras.layers.Dropout(0.3, seed=3),
                keras.layers.Dense(4, "tanh"),
            ]
        ),
    ),
    Case(
        "stacked_ragged_blocks",
        lambda: kb.Stacked(
            [kb.Embedding(10, 6), kb.Vanilla(5), kb.MaxPooling(2, padding="same"), kb.GRU(4)]
        ),
        RAGGED_TOKENS,
        onnx_ops=("GRU",),
    ),
    Case(
        "stacked_ragged_stock",
        lambda: kb.Stacked(
            [
                keras.layers.Dense(5),
                keras.layers.Dropout(0.3, seed=3),
                keras.layers.LayerNormalization(),
                keras.layers.LSTM(4, return_sequences=True),
                keras.layers.Dense(3),
            ]
        ),
        RAGGED,
    ),
    Case(
        "convolution_1d",
        lambda: kb.Convolution(kb.Vanilla(4), 3),
        SEQUENCE,
        twin=lambda: keras.layers.Conv1D(4, 3, activation="tanh"),
        onnx_ops=("Conv",),
    ),
    Case(
        "convolution_causal_dilated",
        lambda: kb.Convolution(kb.Vanilla(4), 3, padding="causal", dilation_rate=2),
        SEQUENCE,
        twin=lambda: keras.layers.Conv1D(
            4, 3, padding="causal", dilation_rate=2, activation="tanh"
        ),
        onnx_ops=("Conv",),
    ),
    Case(
        "convolution_2d",
        lambda: kb.Convolution(kb.Vanilla(4), (3, 2), strides=2, padding="same"),
        (Input((5, None, 3)),),
        twin=lambda: keras.layers.Conv2D(4, (3, 2), 2, padding="same", activation="tanh"),
        onnx_ops=("Conv",),
    ),
    Case(
        "convolution_3d",
        lambda: kb.Convolution(kb.Vanilla(4), (2, 2, 3)),
        (Input((4, 5, 4, 2)),),
        twin=lambda: keras.layers.Conv3D(4, (2, 2, 3), activation="tanh"),
        onnx_ops=("Conv",),
    ),
    Case("convolution_of_stack", lambda: kb.Convolution(two_layers(), 3, strides=2), SEQUENCE),
    Case(
        "convolution_of_stack_2d",
        lambda: kb.Convolution(two_layers(), (3, 3), padding="same"),
        (Input((5, None, 2)),),
    ),
    Case(
        "convolution_ragged",
        lambda: kb.Convolution(kb.Vanilla(4), 3),
        RAGGED,
        onnx_ops=("Conv",),
    ),
    Case(
        "convolution_same_ragged",
        lambda: kb.Convolution(kb.Vanilla(4), 3, padding="same"),
        RAGGED,
        onnx_ops=("Conv",),
    ),
    Case(
        "convolution_of_stack_ragged",
        lambda: kb.Convolution(two_layers(), 3, strides=2, padding="same"),
        RAGGED,
    ),
    Case(
        "recurrence",
        lambda: kb.Recurrence(kb.Vanilla(4)),
        SEQUENCE,
        twin=lambda: keras.layers.SimpleRNN(4),
        no_onnx_ops=(),
    ),
    Case(
        "recurrence_of_stack_backwards_states",
        lambda: kb.Recurrence(
            two_layers(), return_sequences=True, return_state=True, go_backwards=True
        ),
        SEQUENCE,
        no_onnx_ops=(),
    ),
    Case(
        "recurrence_of_cells",
        lambda: kb.Recurrence([keras.layers.GRUCell(3), keras.layers.LSTMCell(4)]),
        SEQUENCE,
        no_onnx_ops=(),
    ),
    Case(
        "recurrence_masked",
        lambda: kb.Stacked(
            [
                kb.Embedding(10, 6, mask_zero=True),
                kb.Recurrence(kb.Vanilla(4), return_sequences=True),
            ]
        ),
        TOKENS,
        no_onnx_ops=(),
    ),
    Case(
        "recurrence_ragged",
        lambda: kb.Recurrence(two_layers(), return_sequences=True),
        RAGGED,
        no_onnx_ops=(),
    ),
    Case(
        "recurrence_of_convolution_of_stack",
        lambda: kb.Recurrence(kb.Convolution(two_layers(), 3, padding="same")),
        (Input((None, 5, 3)),),
        no_onnx_ops=(),
    ),
    Case(
        "map",
        lambda: kb.Map(two_layers()),
        twin=lambda: keras.layers.TimeDistributed(keras.layers.Dense(5)),
    ),
    Case("map_ragged", lambda: kb.Map(two_layers()), RAGGED),
    Case(
        "map_of_a_convolution_ragged",
        lambda: kb.Map(keras.layers.Conv2D(3, 2)),
        (Input((None, 4, 5, 2), ragged=True),),
        onnx_ops=("Conv",),
    ),
    Case("map_of_a_recurrence", lambda: kb.Map(kb.GRU(3)), (Input((None, 4, 5)),)),
    # trees
    tree_case("tree_child_sum", lambda: kb.TreeRecursive(kb.ChildSumTreeLSTMCell(5))),
    tree_case(
        "tree_child_sum_labels_both_ways",
        lambda: kb.TreeRecursive(
            kb.ChildSumTreeLSTMCell(5, edge_labels=3), direction="both", return_nodes=True
        ),
        LABELLED_TREES,
    ),
    tree_case(
        "tree_n_ary_nodes",
        lambda: kb.TreeRecursive(kb.NaryTreeLSTMCell(5, arity=30), return_nodes=True),
    ),
    tree_case(
        "tree_gru_downwards",
        lambda: kb.TreeRecursive(kb.TreeGRUCell(5), direction="down", return_nodes=True),
    ),
    tree_case(
        "tree_tensor",
        lambda: kb.TreeRecursive(kb.RecursiveTensorCell(6, arity=30)),
    ),
    tree_case("tree_of_a_layer", lambda: kb.TreeRecursive(kb.Vanilla(5), arity=30)),
    tree_case(
        "tree_of_a_stack_mean_forests",
        lambda: kb.TreeRecursive(two_layers(), combine="mean", forests="sum"),
    ),
    tree_case(
        "tree_of_a_layer_max_nodes",
        lambda: kb.TreeRecursive(kb.Vanilla(5), combine="max", return_nodes=True),
    ),
]
BY_NAME = {case.name: case for case in CASES}
