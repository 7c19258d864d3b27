"""The layer beside the formulas, node by node, and what it is told and given."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tree_reference as reference
from tree_cases import (
    ARITY,
    KINDS,
    UNITS,
    WIDTH,
    batch_of,
    chain,
    expected_nodes,
    expected_roots,
    ragged,
    random_rows,
    star,
)

import keras_blocks as kb
from keras_blocks.mechanisms.trees.cells.base import TreeCell

FLOAT32 = 1e-5  # single precision against double, a few levels deep, sums of 20 products
SAME_FORMULA = 1e-6  # the same sums in another order
DEEP = 1e-5  # a thousand levels of single precision, whose errors a gate below 1 forgets

each_kind = pytest.mark.parametrize("name", KINDS)
each_form = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
each_direction = pytest.mark.parametrize("direction", ["up", "down", "both"])
LENGTHS = [[5, 3, 1, 0, 8], [1], [0], [], [0, 0], [1, 1], [12, 1, 4]]


def assert_nodes(layer, kind, batch, inputs, training=None):
    """The vectors of all nodes are those of the formula, in the order of the nodes."""
    result = layer(inputs, training=training)
    np.testing.assert_array_equal(result.row_splits, batch.splits)
    for got, want in zip(result, expected_nodes(layer, kind, batch), strict=True):
        np.testing.assert_allclose(got, want, atol=FLOAT32)


@each_kind
def test_the_root_vectors_are_those_of_the_formula_node_by_node(name):
    kind = KINDS[name]
    layer = kind.layer()
    for lengths in LENGTHS:
        batch = batch_of(random_rows(lengths, kind.arity), kind, slots=len(lengths) > 2)
        for training in False, True:
            result = layer(batch.inputs(), training=training)
            assert result.shape == (len(lengths), UNITS)
            np.testing.assert_allclose(result, expected_roots(layer, kind, batch), atol=FLOAT32)


@each_kind
@each_direction
def test_all_node_vectors_are_those_of_the_formula_in_the_callers_order(name, direction):
    kind = KINDS[name]
    layer = kind.layer(direction=direction, return_nodes=True)
    rows = [*random_rows([5, 0, 1, 9], kind.arity), chain(6), star(3)]
    for slots in [False, True] if kind.arity else [False]:
        batch = batch_of(rows, kind, slots)
        for training in False, True:
            assert_nodes(layer, kind, batch, batch.inputs(), training)


@each_kind
@each_direction
def test_features_on_leaves_are_those_of_nodes_with_zeros_inside(name, direction):
    kind = KINDS[name]
    layer = kind.layer(direction=direction, return_nodes=True, features_on="leaves")
    batch = batch_of(random_rows([5, 0, 1, 9, 2], kind.arity), kind).on_leaves()
    for training in False, True:
        assert_nodes(layer, kind, batch, batch.inputs(), training)


@pytest.mark.parametrize("merge_mode", reference.MERGES)
def test_both_directions_are_merged_as_the_argument_says(merge_mode):
    kind = KINDS["gru"]
    layer = kind.layer(direction="both", return_nodes=True, merge_mode=merge_mode)
    batch = batch_of(random_rows([5, 0, 1, 9]))
    assert_nodes(layer, kind, batch, batch.inputs())
    symbol = keras.Input((None, WIDTH), ragged=True), keras.Input((None,), dtype="int32")
    assert layer(symbol).shape[-1] == layer(batch.inputs()).shape[-1]


def test_the_two_directions_have_weights_of_their_own():
    layer = kb.TreeRecursive(kb.TreeGRUCell(UNITS), direction="both", return_nodes=True)
    layer.build([(None, None, WIDTH), (None, None)])
    assert len(layer.trainable_weights) == 6
    up, down = layer.cell.kernel, layer.down_cell.kernel
    assert np.abs(up - down).max() > 0.1


@each_kind
def test_the_roots_of_a_forest_are_summed_when_asked(name):
    kind = KINDS[name]
    layer = kind.layer(forests="sum")
    generator = np.random.default_rng(3)
    # Two trees and a lone node, three lone nodes, no node, one tree, two deep chains.
    rows = [[-1, 0, -1, 2, 2, -1], [-1, -1, -1], [], *random_rows([4], kind.arity)]
    rows.append([-1, 0, 1, -1, 3, 4])
    batch = batch_of(rows, kind, generator=generator)
    for training in False, True:
        got = layer(batch.inputs(), training=training)
        np.testing.assert_allclose(got, expected_roots(layer, kind, batch), atol=FLOAT32)
    for direction in "up", "both":
        layer = kind.layer(forests="sum", return_nodes=True, direction=direction)
        assert_nodes(layer, kind, batch, batch.inputs())


@each_form
@pytest.mark.parametrize("nodes", [False, True], ids=["roots", "nodes"])
def test_a_graph_gives_what_the_eager_layer_gives_for_any_batch(training, nodes):
    layer = KINDS["child_sum"].layer(return_nodes=nodes)
    specs = [
        tf.RaggedTensorSpec([None, None, WIDTH], tf.float32, 1, tf.int64),
        tf.RaggedTensorSpec([None, None], tf.int32, 1, tf.int64),
    ]
    graph = tf.function(lambda x, p: layer([x, p], training=training), specs, autograph=False)
    for lengths in LENGTHS:
        inputs = batch_of(random_rows(lengths)).inputs()
        got, expected = graph(*inputs), layer(inputs, training=training)
        if nodes:
            got, expected = got.values, expected.values
        np.testing.assert_allclose(got, expected, atol=SAME_FORMULA)


def test_the_order_of_children_matters_to_slots_and_not_to_the_sum():
    inputs = batch_of([[-1, 0, 0]]).inputs()
    swapped = [tf.gather(inputs[0], [0, 2, 1], axis=1), inputs[1]]
    for name in "child_sum", "gru", "layer_sum", "layer_mean", "layer_max":
        summed = KINDS[name].layer()
        np.testing.assert_allclose(summed(swapped), summed(inputs), atol=SAME_FORMULA)
    for name in "n_ary", "tensor", "layer":
        placed = KINDS[name].layer()
        assert np.abs(placed(swapped) - placed(inputs)).max() > 0.01, name


def test_slots_that_are_given_take_the_place_of_the_order():
    layer = KINDS["n_ary"].layer()
    features, parents = batch_of([[-1, 0, 0]]).inputs()
    in_order = layer([features, parents])
    # Roots may say anything.
    numbered = layer([features, parents, tf.ragged.constant([[99, 0, 1]])])
    np.testing.assert_allclose(numbered, in_order, atol=SAME_FORMULA)
    swapped = layer([features, parents, tf.ragged.constant([[-7, 1, 0]])])
    other = tf.gather(features, [0, 2, 1], axis=1)
    np.testing.assert_allclose(swapped, layer([other, parents]), atol=SAME_FORMULA)


@each_form
def test_chains_of_a_thousand_nodes_beside_shallow_trees(training):
    rows = [chain(1000), *random_rows([6]), chain(1000)]
    batch = batch_of(rows)
    layer = KINDS["child_sum"].layer()
    layer.set_weights([weight * 0.5 for weight in layer.get_weights()])
    graph = tf.function(lambda x, p: layer([x, p], training=training), autograph=False)
    expected = expected_roots(layer, KINDS["child_sum"], batch)
    np.testing.assert_allclose(graph(*batch.inputs()), expected, atol=DEEP)


@pytest.mark.parametrize("name", ["child_sum", "gru", "layer_mean", "layer_max"])
def test_a_star_of_five_thousand_leaves_is_combined_right(name):
    layer, batch = KINDS[name].layer(), batch_of([star(5000), [-1, 0]])
    layer.set_weights([weight * 0.01 for weight in layer.get_weights()])
    expected = expected_roots(layer, KINDS[name], batch)
    np.testing.assert_allclose(layer(batch.inputs()), expected, rtol=1e-3)


def test_dense_inputs_are_trees_of_one_size():
    inputs = batch_of(random_rows([4, 4, 4])).inputs()
    dense = [part.to_tensor() for part in inputs]
    layer = KINDS["child_sum"].layer(return_nodes=True)
    result = layer(dense)
    assert isinstance(result, tf.Tensor)
    np.testing.assert_allclose(result, layer(inputs).to_tensor(), atol=SAME_FORMULA)
    assert layer([tf.zeros([0, 4, WIDTH]), tf.zeros([0, 4], tf.int32)]).shape == (0, 4, UNITS)
    slots = [*dense, tf.zeros([3, 4], tf.int32)]
    chains = KINDS["n_ary"].layer()([dense[0], tf.constant([[-1, 0, 1, 2]] * 3), slots[2]])
    assert chains.shape == (3, UNITS)


@pytest.mark.parametrize("splits_dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_parents_edges_and_row_splits_may_be_int32_or_int64(dtype, splits_dtype):
    kind = KINDS["child_sum_labels"]
    features, parents, edges = batch_of(random_rows([4, 2]), kind).inputs()
    layer = kind.layer()
    others = [tf.cast(x, dtype).with_row_splits_dtype(splits_dtype) for x in (parents, edges)]
    got = layer([features, *others])
    np.testing.assert_array_equal(got, layer([features, parents, edges]))


def test_a_level_of_the_whole_batch_is_one_call_of_the_cell():
    calls = []

    class Counting(keras.layers.Dense):
        def call(self, x):
            calls.append(len(x))
            return super().call(x)

    inputs = batch_of([chain(4), chain(3), [-1, 0, 0]]).inputs()
    layer = kb.TreeRecursive(Counting(UNITS))
    layer.build([(None, None, WIDTH), (None, None)])
    layer(inputs)
    # All leaves, then depth 2, 1 and 0.
    assert calls == [4, 1, 2, 3]


def test_wrong_ranks_dtypes_and_numbers_of_inputs_say_what_is_expected():
    features, parents = batch_of(random_rows([3, 2])).inputs()
    layer = KINDS["child_sum"].layer()
    with pytest.raises(ValueError, match="`parents` must be int32 or int64"):
        layer([features, tf.cast(parents, tf.float32)])
    with pytest.raises(ValueError, match=r"list of tensors, \[features, parents\]"):
        layer(features)
    with pytest.raises(ValueError, match="ChildSumTreeLSTMCell takes no edges"):
        layer([features, parents, parents])
    with pytest.raises(ValueError, match="a known size"):
        kb.TreeRecursive(kb.ChildSumTreeLSTMCell(UNITS))([parents, parents])
    with pytest.raises(ValueError, match=r"parents of shape \(batch, nodes\)"):
        kb.TreeRecursive(kb.ChildSumTreeLSTMCell(UNITS))([features, features])
    labelled = KINDS["child_sum_labels"].layer()
    with pytest.raises(ValueError, match="edge_labels=3, and needs the labels"):
        labelled([features, parents])
    with pytest.raises(ValueError, match="`edges` must be int32 or int64, the label of the edge"):
        labelled([features, parents, tf.cast(parents, tf.float32)])


def test_arguments_without_a_meaning_are_refused_by_name():
    n_ary, dense = kb.NaryTreeLSTMCell(UNITS, 2), keras.layers.Dense(UNITS)
    with pytest.raises(ValueError, match="Leave `arity` out"):
        kb.TreeRecursive(n_ary, arity=3)
    with pytest.raises(ValueError, match="Leave `combine` out"):
        kb.TreeRecursive(n_ary, combine="max")
    with pytest.raises(ValueError, match="`arity` must be a positive integer"):
        kb.TreeRecursive(dense, arity=0)
    with pytest.raises(ValueError, match=r"combine='sum' and arity=3\. Leave one of them out"):
        kb.TreeRecursive(dense, arity=3, combine="sum")
    with pytest.raises(ValueError, match=r"`combine` must be one of .* Received: 'most'"):
        kb.TreeRecursive(dense, combine="most")
    with pytest.raises(TypeError, match="must be a Keras layer"):
        kb.TreeRecursive(np.tanh)
    for name in "direction", "merge_mode", "features_on", "forests":
        with pytest.raises(ValueError, match=f"`{name}` must be one of .* Received: 'sideways'"):
            kb.TreeRecursive(dense, **{name: "sideways"})
    for share in -0.1, 1, "0.5":
        with pytest.raises(ValueError, match=f"`recurrent_dropout` must be .* {share!r}"):
            kb.TreeRecursive(dense, recurrent_dropout=share)
    with pytest.raises(ValueError, match="Say return_nodes=True"):
        kb.TreeRecursive(dense, direction="down")


class MeanCell(TreeCell):
    """The user's own cell of the class's docstring, with any combination."""

    def __init__(self, units, combine="mean", **kwargs):
        super().__init__(**kwargs)
        self.state_size = units
        self.combine = combine
        self.dense = keras.layers.Dense(units, "tanh")

    def call(self, inputs, children):
        return self.dense(tf.concat([inputs, children], axis=-1))


@each_form
@pytest.mark.parametrize("combine", ["sum", "mean", "max"])
def test_a_cell_of_ones_own_takes_ten_lines(combine, training):
    kind = KINDS[f"layer_{combine}"]
    layer = kb.TreeRecursive(MeanCell(UNITS, combine), direction="up", return_nodes=True)
    batch = batch_of(random_rows([6, 0, 3, 1]))
    assert len(layer(batch.inputs()).shape) == 3
    assert len(layer.trainable_weights) == 2
    assert_nodes(layer, kind, batch, batch.inputs(), training)


class Relation(TreeCell):
    """A user's cell with all there is: prepared inputs, messages in parts, labels, two states."""

    state_size = (UNITS, 1)
    edge_labels = 2
    combine = "sum"

    def prepare(self, features):
        return tf.nn.relu(features), 2 * features

    def message(self, inputs, children):
        vector, count = children.states
        flipped = tf.where(children.edges[:, None] == 1, -vector, vector)
        return flipped * children.of_owner(inputs[1]), count

    def call(self, inputs, children):
        vectors, counts = children
        return tf.tanh(inputs[0] + vectors), counts + 1


def relation(weights, x, children, edges):
    total, count = np.zeros(UNITS), 1.0
    for (vector, below), edge in zip(children, edges, strict=True):
        total = total + (-vector if edge else vector) * 2 * x
        count = count + below
    return np.tanh(np.maximum(x, 0) + total), count


@each_form
@each_direction
def test_a_cell_of_ones_own_may_prepare_send_messages_and_read_labels(direction, training):
    kind = KINDS["child_sum_labels"]
    kind = type(kind)(Relation, relation, labels=2)
    layer = kb.TreeRecursive(Relation(), direction=direction, return_nodes=True)
    batch = batch_of(random_rows([6, 0, 3, 1]), kind)
    assert_nodes(layer, kind, batch, batch.inputs(), training)


def test_trees_may_hold_one_feature_per_node_and_units_of_one():
    features = ragged([np.array([[2.0], [1.0], [3.0]])], "float32", 1)
    layer = kb.TreeRecursive(keras.layers.Dense(1, use_bias=False), combine="sum")
    layer.build([(None, None, 1), (None, None)])
    layer.set_weights([np.array([[1.0], [1.0]])])
    np.testing.assert_allclose(layer([features, tf.ragged.constant([[-1, 0, 0]])]), [[6.0]])


def test_arity_is_two_unless_told_otherwise():
    layer = kb.TreeRecursive(keras.layers.Dense(UNITS))
    layer(batch_of(random_rows([5], 2)).inputs())
    assert layer.layer.kernel.shape == (WIDTH + 2 * UNITS, UNITS)
    assert ARITY != 2
