import keras
import numpy as np
import pytest
import tensorflow as tf
import tree_reference as reference
from cases import random_parents
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_blocks as kb
from keras_blocks.errors import TreeError
from keras_blocks.mechanisms.tree_cell import TreeCell

WIDTH = 3
UNITS = 4
ARITY = 12
FLOAT32 = 2e-6  # single precision against double, a few levels deep
SAME_FORMULA = 1e-6  # the same sums in another order
DEEP = 1e-5  # a thousand levels of single precision

CELLS = {
    "child_sum": (lambda: kb.ChildSumTreeLSTMCell(UNITS), None, reference.child_sum),
    "n_ary": (lambda: kb.NaryTreeLSTMCell(UNITS, ARITY), None, reference.n_ary),
    "layer": (lambda: keras.layers.Dense(UNITS, "tanh"), ARITY, reference.dense_tanh(ARITY)),
}
each_cell = pytest.mark.parametrize("cell", CELLS)
each_form = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
SPECS = [
    tf.RaggedTensorSpec([None, None, WIDTH], tf.float32, 1, tf.int64),
    tf.RaggedTensorSpec([None, None], tf.int32, 1, tf.int64),
]
LENGTHS = [[5, 3, 1, 0, 8], [1], [0], [], [0, 0], [1, 1], [12, 1, 4]]


def batch(rows, seed=0):
    """Random features, and the ragged pair, of these rows of parents."""
    generator = np.random.default_rng(seed)
    splits = np.cumsum([0, *map(len, rows)])
    values = generator.normal(size=(splits[-1], WIDTH)).astype("float32")
    parents = np.concatenate([np.zeros(0, "int32"), *rows]).astype("int32")
    pair = [tf.RaggedTensor.from_row_splits(part, splits) for part in (values, parents)]
    return pair, np.split(values, splits[1:-1]) if len(rows) else []


def random_rows(lengths, seed=0):
    generator = np.random.default_rng(seed)
    return [random_parents(length, generator) for length in lengths]


def chain(length):
    return np.arange(length) - 1


def built(cell, **kwargs):
    """The layer with weights that are not small, and its weights as NumPy arrays."""
    make, arity, _ = CELLS[cell]
    layer = kb.TreeRecursive(make(), arity=arity, **kwargs)
    layer.build([(None, None, WIDTH), (None, None)])
    generator = np.random.default_rng(1)
    layer.set_weights([generator.normal(size=w.shape, scale=0.5) for w in layer.weights])
    weights = {weight.name: np.asarray(weight) for weight in layer.weights}
    names = ["kernel", "bias", "recurrent_kernel", "forget_kernel"]
    return layer, [weights[name] for name in names if name in weights]


def roots_of(cell, weights, features, rows):
    formula = CELLS[cell][2]
    vectors = [
        reference.root_vector(formula, weights, x, p, UNITS)
        for x, p in zip(features, rows, strict=True)
    ]
    return np.reshape(vectors, (len(rows), UNITS))


@each_cell
@each_form
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_the_root_vectors_are_those_of_the_formula_node_by_node(cell, training, lengths):
    rows = random_rows(lengths)
    inputs, features = batch(rows)
    layer, weights = built(cell)
    result = layer(inputs, training=training)
    assert result.shape == (len(rows), UNITS)
    np.testing.assert_allclose(result, roots_of(cell, weights, features, rows), atol=FLOAT32)


@each_cell
@each_form
def test_all_node_vectors_are_those_of_the_formula_in_the_callers_order(cell, training):
    rows = random_rows([5, 0, 1, 9])
    inputs, features = batch(rows)
    layer, weights = built(cell, return_nodes=True)
    result = layer(inputs, training=training)
    assert isinstance(result, tf.RaggedTensor)
    np.testing.assert_array_equal(result.row_splits, inputs[0].row_splits)
    for vectors, x, p in zip(result, features, rows, strict=True):
        expected = reference.node_vectors(CELLS[cell][2], weights, x, p)
        np.testing.assert_allclose(vectors, np.reshape(expected, (len(p), UNITS)), atol=FLOAT32)


@each_form
@pytest.mark.parametrize("nodes", [False, True], ids=["roots", "nodes"])
def test_a_graph_gives_what_the_eager_layer_gives_for_any_batch(training, nodes):
    layer, _ = built("child_sum", return_nodes=nodes)
    graph = tf.function(lambda x, p: layer([x, p], training=training), SPECS, autograph=False)
    for lengths in LENGTHS:
        inputs, _ = batch(random_rows(lengths))
        got, expected = graph(*inputs), layer(inputs, training=training)
        if nodes:
            got, expected = got.values, expected.values
        np.testing.assert_allclose(got, expected, atol=SAME_FORMULA)


@st.composite
def forests(draw):
    """Rows of parents of random trees, every shape and order of nodes."""
    rows = []
    for length in draw(st.lists(st.integers(0, 9), max_size=5)):
        order = draw(st.permutations(range(length)))
        parents = [-1] * length
        for place in range(1, length):
            parents[order[place]] = order[draw(st.integers(0, place - 1))]
        rows.append(np.array(parents, "int32"))
    return rows


LAYERS = {}


def cached(cell, **kwargs):
    """Layers are slow to build, and hypothesis calls often."""
    key = cell, *kwargs.items()
    if key not in LAYERS:
        LAYERS[key] = built(cell, **kwargs)
    return LAYERS[key]


@each_cell
@settings(max_examples=15, deadline=None, derandomize=True)
@given(rows=forests())
def test_any_forest_gives_what_the_formula_gives(cell, rows):
    inputs, features = batch(rows)
    layer, weights = cached(cell)
    np.testing.assert_allclose(layer(inputs), roots_of(cell, weights, features, rows), atol=FLOAT32)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(rows=forests(), seed=st.integers(0, 99))
def test_permuted_nodes_give_the_permuted_vectors(rows, seed):
    generator = np.random.default_rng(seed)
    (features, _), _ = inputs, parts = batch(rows)
    permuted_rows, permuted_features, orders = [], [], []
    for x, parents in zip(parts, rows, strict=True):
        order = generator.permutation(len(parents))
        place = np.argsort(order)
        permuted_rows.append(np.array([-1 if p < 0 else place[p] for p in parents[order]], "int32"))
        permuted_features.append(x[order])
        orders.append(order)
    (_, parents), _ = batch(permuted_rows)
    values = np.concatenate([np.zeros((0, WIDTH), "float32"), *permuted_features])
    layer, _ = cached("child_sum", return_nodes=True)
    expected = layer(inputs)
    result = layer([tf.RaggedTensor.from_row_splits(values, features.row_splits), parents])
    for got, want, order in zip(result, expected, orders, strict=True):
        np.testing.assert_allclose(got, want.numpy()[order], atol=SAME_FORMULA)


@each_cell
def test_a_tree_in_a_batch_gives_what_it_gives_alone(cell):
    rows = random_rows([7, 2, 0, 11, 1])
    inputs, _ = batch(rows)
    layer, _ = built(cell)
    together = layer(inputs)
    for i in range(len(rows)):
        alone = layer([part[i : i + 1] for part in inputs])
        np.testing.assert_allclose(alone[0], together[i], atol=SAME_FORMULA)


def test_the_order_of_children_matters_to_slots_and_not_to_the_sum():
    inputs, _ = batch([np.array([-1, 0, 0])])
    swapped = [tf.gather(inputs[0], [0, 2, 1], axis=1), inputs[1]]
    summed, _ = built("child_sum")
    np.testing.assert_allclose(summed(swapped), summed(inputs), atol=SAME_FORMULA)
    placed, _ = built("n_ary")
    assert np.abs(placed(swapped) - placed(inputs)).max() > 0.01


@each_form
def test_chains_of_a_thousand_nodes_beside_shallow_trees(training):
    rows = [chain(1000), random_rows([6])[0], chain(1000)]
    inputs, features = batch(rows)
    layer, weights = built("child_sum")
    layer.set_weights([weight * 0.5 for weight in layer.get_weights()])
    weights = [weight * 0.5 for weight in weights]
    graph = tf.function(lambda x, p: layer([x, p], training=training), autograph=False)
    expected = []
    for x, parents in zip(features, rows, strict=True):
        if len(parents) < 1000:
            expected.append(reference.root_vector(reference.child_sum, weights, x, parents, UNITS))
            continue
        states = []
        for node in reversed(range(1000)):
            states = [reference.child_sum(weights, x[node].astype("float64"), states)]
        expected.append(states[0][0])
    np.testing.assert_allclose(graph(*inputs), expected, atol=DEEP)


def test_a_star_of_five_thousand_leaves_is_summed_right():
    rows = [np.r_[-1, np.zeros(5000)].astype("int32")]
    inputs, features = batch(rows)
    layer, weights = built("child_sum")
    layer.set_weights([weight * 0.01 for weight in layer.get_weights()])
    expected = roots_of("child_sum", [weight * 0.01 for weight in weights], features, rows)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-3)


def test_dense_inputs_are_trees_of_one_size():
    rows = random_rows([4, 4, 4])
    inputs, _ = batch(rows)
    dense = [part.to_tensor() for part in inputs]
    layer, _ = built("child_sum", return_nodes=True)
    result = layer(dense)
    assert isinstance(result, tf.Tensor)
    np.testing.assert_allclose(result, layer(inputs).to_tensor(), atol=SAME_FORMULA)
    assert layer([tf.zeros([0, 4, WIDTH]), tf.zeros([0, 4], tf.int32)]).shape == (0, 4, UNITS)


@pytest.mark.parametrize("splits_dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_parents_and_row_splits_may_be_int32_or_int64(dtype, splits_dtype):
    (features, parents), _ = batch(random_rows([4, 2]))
    layer, _ = built("child_sum")
    other = tf.cast(parents, dtype).with_row_splits_dtype(splits_dtype)
    np.testing.assert_array_equal(layer([features, other]), layer([features, parents]))


@each_cell
def test_both_forms_have_the_same_gradient(cell):
    inputs, _ = batch(random_rows([9, 0, 1, 6]))
    layer, _ = built(cell, return_nodes=True)

    def gradients(training):
        with tf.GradientTape() as tape:
            tape.watch(inputs[0].values)
            loss = tf.reduce_sum(layer(inputs, training=training).values ** 2)
        return tape.gradient(loss, [*layer.trainable_variables, inputs[0].values])

    for ours, other in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(
            tf.convert_to_tensor(ours), tf.convert_to_tensor(other), rtol=1e-4, atol=1e-5
        )


def test_a_level_of_the_whole_batch_is_one_call_of_the_cell():
    calls = []

    class Counting(keras.layers.Dense):
        def call(self, x):
            calls.append(len(x))
            return super().call(x)

    rows = [chain(4), chain(3), np.array([-1, 0, 0])]
    inputs, _ = batch(rows)
    layer = kb.TreeRecursive(Counting(UNITS))
    layer.build([(None, None, WIDTH), (None, None)])
    layer(inputs)
    # All leaves, then depth 2, 1 and 0.
    assert calls == [4, 1, 2, 3]


MALFORMED = {
    "a parent out of range": (
        [[-1], [-1, 0, 5]],
        "node 2 of tree 1 has parent 5, but the tree has 3 nodes",
    ),
    "a parent below -1": ([[-1, -2]], "node 1 of tree 0 has parent -2"),
    "a node that is its own parent": ([[-1, 0], [-1, 1]], "node 1 of tree 1 is its own parent"),
    "two roots": ([[-1], [-1, 0, 0], [-1, 0, -1]], "node 2 of tree 2 is a second root"),
    "no root": ([[], [-1], [1, 0]], "tree 2 has no root"),
    "a cycle": ([[-1, 0, 3, 2], [-1]], "node 2 of tree 0 never reaches the root"),
    "a node below a cycle": ([[-1, 2, 3, 2], [-1]], "node 1 of tree 0 never reaches the root"),
    "too many children": (
        [[-1], [1, -1, 1, 1]],
        "node 1 of tree 1 has 3 children, but the cell takes 2",
    ),
}


def malformed(rows):
    (features, parents), _ = batch([np.array(row, "int32") for row in rows])
    return kb.TreeRecursive(kb.NaryTreeLSTMCell(UNITS, 2)), features, parents


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_trees_are_refused_by_name(kind):
    rows, message = MALFORMED[kind]
    layer, features, parents = malformed(rows)
    with pytest.raises(TreeError, match=f"TreeRecursive: {message}"):
        layer([features, parents])


@pytest.fixture(scope="module")
def graph_of_arity_two():
    layer = kb.TreeRecursive(kb.NaryTreeLSTMCell(UNITS, 2))
    layer.build([(None, None, WIDTH), (None, None)])
    return tf.function(lambda x, p: layer([x, p]), SPECS, autograph=False)


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_trees_are_refused_with_the_same_words_in_a_graph(kind, graph_of_arity_two):
    rows, message = MALFORMED[kind]
    _, features, parents = malformed(rows)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"TreeRecursive: {message}"):
        graph_of_arity_two(features, parents)


def unequal(lengths):
    (features, _), _ = batch(random_rows([3, 2]))
    (_, parents), _ = batch(random_rows(lengths))
    return features, parents


UNEQUAL = {
    (3, 1): "tree 1 has features for 2 nodes, but parents for 1",
    (2, 3): "tree 0 has features for 3 nodes, but parents for 2",
    (3, 2, 1): "the features hold 2 trees, but the parents 3",
}


@pytest.mark.parametrize("lengths", UNEQUAL)
def test_rows_of_unequal_length_are_refused_by_name(lengths, graph_of_arity_two):
    layer, _ = built("child_sum")
    features, parents = unequal(lengths)
    with pytest.raises(TreeError, match=UNEQUAL[lengths]):
        layer([features, parents])
    with pytest.raises(tf.errors.InvalidArgumentError, match=UNEQUAL[lengths]):
        graph_of_arity_two(features, parents)


def test_wrong_ranks_and_dtypes_say_what_is_expected():
    (features, parents), _ = batch(random_rows([3, 2]))
    layer, _ = built("child_sum")
    with pytest.raises(ValueError, match="`parents` must be int32 or int64"):
        layer([features, tf.cast(parents, tf.float32)])
    with pytest.raises(ValueError, match="list of two tensors"):
        layer(features)
    with pytest.raises(ValueError, match=r"`parents` must have the shape \(batch, nodes\)"):
        layer([features, features])
    with pytest.raises(ValueError, match="a known size"):
        kb.TreeRecursive(kb.ChildSumTreeLSTMCell(UNITS))([parents, parents])


def test_arity_is_for_plain_layers_only():
    with pytest.raises(ValueError, match="Leave `arity` out"):
        kb.TreeRecursive(kb.NaryTreeLSTMCell(UNITS, 2), arity=3)
    with pytest.raises(ValueError, match="`arity` must be a positive integer"):
        kb.TreeRecursive(keras.layers.Dense(UNITS), arity=0)
    with pytest.raises(TypeError, match="must be a Keras layer"):
        kb.TreeRecursive(np.tanh)


def test_it_stacks_over_embedded_tokens_and_learns_to_tell_trees_apart():
    generator = np.random.default_rng(0)
    rows = random_rows(generator.integers(1, 8, 40))
    (features, parents), _ = batch(rows)
    tokens = tf.RaggedTensor.from_row_splits(
        generator.integers(0, 5, len(features.values)).astype("int32"), features.row_splits
    )
    # Whether the tree holds token 3.
    labels = np.array([3 in row for row in tokens.to_list()], "int32")
    sizes = {"batch_size": 40, "verbose": 0}
    x = {
        "tokens": keras.Input((None,), dtype="int32", ragged=True, name="tokens"),
        "parents": keras.Input((None,), dtype="int32", ragged=True, name="parents"),
    }
    nodes = kb.Embedding(5, 6)(x["tokens"])
    nodes = kb.TreeRecursive(kb.Vanilla(6), arity=8, return_nodes=True)([nodes, x["parents"]])
    root = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(6))([nodes, x["parents"]])
    model = keras.Model(x, keras.layers.Dense(2)(root))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.03), loss, metrics=["accuracy"])
    data = {"tokens": tokens, "parents": parents}
    model.fit(data, labels, epochs=40, **sizes)
    assert model.evaluate(data, labels, **sizes)[1] > 0.9
    assert model.predict(data, batch_size=27, verbose=0).shape == (40, 2)


def test_malformed_trees_stop_fit_and_predict_with_their_name():
    features = keras.Input((None, WIDTH), ragged=True)
    parents = keras.Input((None,), dtype="int32", ragged=True)
    root = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(UNITS))([features, parents])
    model = keras.Model([features, parents], root)
    inputs, _ = batch([np.array([-1]), np.array([-1, 0, 7])])
    with pytest.raises(tf.errors.InvalidArgumentError, match="node 2 of tree 1 has parent 7"):
        model.predict(inputs, verbose=0)


class MeanCell(TreeCell):
    """The user's own cell of the module's docstring."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = units
        self.dense = keras.layers.Dense(units, "tanh")

    def call(self, inputs, children):
        mean = children.sum(children.states[0]) / tf.maximum(children.number(), 1)
        return self.dense(tf.concat([inputs, mean], axis=-1))


@each_form
def test_a_cell_of_ones_own_takes_ten_lines(training):
    rows = random_rows([6, 0, 3, 1])
    inputs, features = batch(rows)
    layer = kb.TreeRecursive(MeanCell(UNITS))
    result = layer(inputs, training=training)
    assert len(layer.trainable_weights) == 2
    kernel, bias = layer.get_weights()

    def mean_cell(_, x, children):
        mean = np.mean([y for (y,) in children], axis=0) if children else np.zeros(UNITS)
        return (np.tanh(np.concatenate([x, mean]) @ kernel + bias),)

    expected = [
        reference.root_vector(mean_cell, [], x, p, UNITS)
        for x, p in zip(features, rows, strict=True)
    ]
    np.testing.assert_allclose(result, expected, atol=FLOAT32)
