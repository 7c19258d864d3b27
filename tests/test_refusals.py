"""What does not fit is refused by name: what was received, what was expected, how to mend it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_blocks as kb


def ragged(lengths, width=4):
    values = np.ones((sum(lengths), width), "float32")
    return tf.RaggedTensor.from_row_lengths(values, lengths)


TREE = tf.ragged.constant([[-1, 0, 0]], dtype="int32")
X = np.ones((2, 5, 4), "float32")

TWINS = [
    (lambda: kb.Convolution(kb.Vanilla(3), kernel_size=3), "`kernel_size`.*`window_size`"),
    (lambda: kb.Convolution(kb.Vanilla(3), 3, stride=2), "`stride`.*=2.*`strides`"),
    (lambda: kb.Convolution(filters=3, kernel_size=3), r"`filters`.*kb.Vanilla\(filters"),
    (lambda: kb.MaxPooling(kernel_size=2), "`kernel_size`.*`pool_size`"),
    (lambda: kb.MaxPooling(2, stride=2), "`stride`.*`strides`"),
    (lambda: kb.Vanilla(hidden_size=3), "`hidden_size`.*`units`"),
    (lambda: kb.Embedding(num_embeddings=3, embedding_dim=2), "`num_embeddings`.*`input_dim`"),
    (lambda: kb.GRU(hidden_size=3), "GRU: .*`units`"),
    (lambda: kb.LSTMCell(hidden_size=3), "LSTMCell: .*`units`"),
    (lambda: kb.Recurrence(cell=kb.GRUCell(2)), "`cell`.*`layer`"),
    (lambda: kb.TreeRecursive(cell=kb.Vanilla(3)), "`cell`.*`layer`"),
    (lambda: kb.ChildSumTreeLSTMCell(hidden_size=3), "`hidden_size`.*`units`"),
    (lambda: kb.Softmax(dim=1), "`dim`.*`axis`"),
    (
        lambda: layers.Bidirectional(kb.Stacked([kb.GRU(2)])),
        "Stacked: .*keras.layers.Bidirectional",
    ),
]


@pytest.mark.parametrize(("make", "message"), TWINS)
def test_the_names_of_other_libraries_are_guessed(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_subclass_may_take_what_the_base_does_not():
    class Windows(kb.Convolution):
        def __init__(self, kernel_size, **kwargs):
            super().__init__(kb.Vanilla(3), kernel_size, **kwargs)

    assert Windows(kernel_size=2)(X).shape == (2, 4, 3)


def tree(features):
    parents = TREE
    if isinstance(features, keras.KerasTensor):
        parents = keras.Input((None,), dtype="int32", ragged=True)
    return [features, parents]


WIDTHS = {
    "convolution": (lambda: kb.Convolution(kb.Vanilla(3), 2), lambda x: x),
    "recurrence": (lambda: kb.Recurrence(kb.Vanilla(3)), lambda x: x),
    "cell": (lambda: kb.Recurrence(kb.GRUCell(3)), lambda x: x),
    "stacked": (lambda: kb.Stacked([kb.Convolution(kb.Vanilla(3), 2)]), lambda x: x),
    "tree": (lambda: kb.TreeRecursive(kb.Vanilla(3)), tree),
}


@pytest.mark.parametrize(("make", "inputs"), WIDTHS.values(), ids=WIDTHS)
def test_another_width_than_it_was_built_for_is_refused_by_real_and_symbolic_calls(make, inputs):
    layer = make()
    layer(inputs(ragged([3])))
    for x in (ragged([3], 6), keras.Input((None, 6), ragged=True)):
        with pytest.raises(
            ValueError, match=r"built for inputs with 4 features.* with 6. Give it 4"
        ):
            layer(inputs(x))
    if inputs is not tree:
        for x in (np.ones((2, 5, 6), "float32"), keras.Input((None, 6))):
            with pytest.raises(ValueError, match="built for inputs with 4 features"):
                layer(x)


MASKED = [
    lambda: kb.MaxPooling(2),
    lambda: kb.Convolution(kb.Vanilla(2), 2),
    lambda: kb.GRU(2),
    lambda: kb.Recurrence(kb.Vanilla(2)),
    lambda: kb.Recurrence(kb.GRUCell(2)),
]


@pytest.mark.parametrize("make", MASKED)
@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 5, 1)])
def test_a_mask_has_an_entry_for_each_step(make, shape):
    with pytest.raises(
        ValueError, match=r"`mask` must have one entry .*\(2, 5\).* Received a mask of shape"
    ):
        make()(X, mask=np.ones(shape, bool))


def test_two_ragged_axes_are_refused_with_what_makes_one():
    for layer, x in (
        (kb.Embedding(9, 2), tf.ragged.constant([[[1, 2], [3]]])),
        (kb.MaxPooling(2), tf.ragged.constant([[[[1.0], [2.0]], [[3.0]]]], ragged_rank=2)),
        (kb.GRU(2), tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0]]])),
        (kb.Stacked([kb.Vanilla(2)]), tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0]]])),
    ):
        with pytest.raises(ValueError, match=r"with 2 ragged axes.*ragged_rank=1.*merge_dims"):
            layer(x)


def test_a_stack_says_which_layer_gives_what_the_next_cannot_take():
    for first, second in (
        (kb.LSTM(3, return_state=True), kb.Vanilla(2)),
        (layers.LSTM(3, return_state=True), layers.Dense(2)),
        (kb.GRU(3, return_state=True), kb.Sigmoid()),
    ):
        with pytest.raises(ValueError, match=rf"'{first.name}' gives outputs .*return_state"):
            kb.Stacked([first, second])(X)
    with pytest.raises(ValueError, match=r"gives an output of shape .*None.* must be known"):
        kb.Stacked([kb.Sigmoid(), kb.Vanilla(2)])(keras.Input((None, None)))
    split = layers.Lambda(lambda x: [x, x], output_shape=lambda shape: [shape, shape])
    np.testing.assert_array_equal(kb.Stacked([split, layers.Add()])(X), X + X)


class Adds(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, x):
        y = self.dense(x)
        self.add_loss(tf.reduce_sum(y))
        return y

    def get_config(self):
        return {}


def test_a_loss_that_cannot_leave_a_loop_is_refused_and_others_are_kept():
    for block, x in ((kb.Recurrence, X), (kb.Recurrence, ragged([2, 1]))):
        with pytest.raises(ValueError, match=r"layer 'adds.* `add_loss`"):
            block(Adds())(x)
    with pytest.raises(ValueError, match=r"layer 'adds.* `add_loss`"):
        kb.TreeRecursive(Adds())(tree(ragged([3])))
    for block, count in ((kb.Recurrence(Adds(), unroll=True), 5), (kb.Convolution(Adds(), 2), 1)):
        block(X)
        assert len(block.losses) == count


def test_bad_trees_in_fit_are_told_in_one_line_before_the_traceback(capfd):
    inputs = [keras.Input((None, 4), ragged=True), keras.Input((None,), None, "int32", ragged=True)]
    model = keras.Model(inputs, kb.TreeRecursive(kb.Vanilla(3))(inputs))
    model.compile("sgd", "mse")
    bad = [ragged([3]), tf.ragged.constant([[1, 1, 1]], dtype="int32")]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"node 1 of tree 0 is its own parent"):
        model.fit(bad, np.zeros((1, 3)), verbose=0)
    said = [line for line in capfd.readouterr().err.splitlines() if "TreeRecursive" in line]
    assert said[0].startswith("TreeRecursive: node 1 of tree 0 is its own parent.")
