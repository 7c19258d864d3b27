"""Gradients, dropout, precision, storage, and `fit` over trees."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tree_reference as reference
from tree_cases import (
    KINDS,
    UNITS,
    WIDTH,
    batch_of,
    chain,
    expected_roots,
    ragged,
    random_rows,
    star,
)

import keras_blocks as kb
from keras_blocks import trees

SAME_SUMS = 1e-6  # float32, the same sums in another order
GRADIENT = 1e-6  # float64 central differences with steps of 1e-6
HALF = 3e-2  # float16 keeps 11 bits, and a few sums and levels add up
DEEP = 1e-4  # ten thousand levels of single precision

each_kind = pytest.mark.parametrize("name", KINDS)
each_form = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])


def values_of(outputs):
    return outputs.values if isinstance(outputs, tf.RaggedTensor) else outputs


@each_kind
@pytest.mark.parametrize("direction", ["up", "both"])
def test_the_gradient_is_that_of_finite_differences(name, direction):
    keras.config.set_dtype_policy("float64")
    kind, nodes = KINDS[name], direction == "both"
    layer = kind.layer(direction=direction, return_nodes=nodes)
    rows = [*random_rows([4, 0, 1, 5], kind.arity), star(3), chain(4)]
    (features, *others) = batch_of(rows, kind, slots=True).inputs()
    values = tf.Variable(tf.cast(features.values, tf.float64))
    points = [*layer.trainable_variables, values]
    weights = np.random.default_rng(1).normal(size=(64, 2 * UNITS))

    def loss(training):
        vectors = values_of(
            layer([features.with_values(values.value()), *others], training=training)
        )
        return tf.reduce_sum(vectors * weights[: vectors.shape[0], : vectors.shape[1]])

    gradients = []
    for training in True, False:
        with tf.GradientTape() as tape:
            at_point = loss(training)
        gradients.append([tf.convert_to_tensor(g) for g in tape.gradient(at_point, points)])
    generator = np.random.default_rng(0)
    slope, starts = 0.0, [point.numpy() for point in points]
    directions = [generator.normal(size=point.shape) for point in points]
    for trained, other, along in zip(*gradients, directions, strict=True):
        np.testing.assert_allclose(trained, other, rtol=GRADIENT, atol=GRADIENT)
        assert np.abs(trained).max() > 1e-3
        slope += np.sum(trained * along)
    sides = []
    for step in 1e-6, -1e-6:
        for point, start, along in zip(points, starts, directions, strict=True):
            point.assign(start + step * along)
        sides.append(loss(False))
    np.testing.assert_allclose(slope, (sides[0] - sides[1]) / 2e-6, rtol=GRADIENT)


def counting_layer(units, share, seed=None, direction="up"):
    """y = x + sum of y_k, where dropout on the way shows as it is."""
    dense = keras.layers.Dense(units, use_bias=False)
    layer = kb.TreeRecursive(
        dense,
        combine="sum",
        recurrent_dropout=share,
        seed=seed,
        direction=direction,
        return_nodes=True,
    )
    layer.build([(None, None, units), (None, None)])
    layer.set_weights([np.concatenate([np.eye(units), np.eye(units)])])
    return layer


@pytest.mark.parametrize(("direction", "first"), [("up", -1), ("down", 0)])
def test_dropped_states_are_the_same_along_a_tree_and_others_in_another(direction, first):
    units, share = 64, 0.25
    rows = [chain(5), chain(5)]
    ones = [np.zeros((5, units)) for _ in rows]
    for features in ones:
        features[first] = 1
    inputs = [ragged(ones, "float32", units), ragged(rows, "int32")]
    layer = counting_layer(units, share, seed=3, direction=direction)
    np.testing.assert_array_equal(layer(inputs, training=False).values, np.ones((10, units)))
    vectors = np.array(
        [tree.numpy()[:: 1 if direction == "down" else -1] for tree in layer(inputs, training=True)]
    )
    kept = vectors[:, 1]
    assert set(np.unique(kept)) == {0, np.float32(1 / (1 - share))}
    assert 0.1 < np.mean(kept == 0) < 0.4
    assert np.any(kept[0] != kept[1])
    for step in range(5):
        np.testing.assert_allclose(vectors[:, step], kept**step, rtol=SAME_SUMS)


def test_dropout_follows_its_seed_and_is_drawn_anew_each_time():
    inputs = batch_of(random_rows([6, 4])).inputs()
    first, same, other = (counting_layer(WIDTH, 0.5, seed) for seed in (1, 1, 2))
    call = lambda layer: layer(inputs, training=True).values.numpy()  # noqa: E731
    drawn = call(first)
    np.testing.assert_array_equal(call(same), drawn)
    assert np.any(call(other) != drawn)
    assert any(np.any(call(first) != drawn) for _ in range(3))


@pytest.mark.parametrize("name", ["child_sum_labels", "n_ary", "layer_max"])
def test_dropout_trains_in_a_graph_and_rests_in_inference(name):
    kind = KINDS[name]
    plain, dropped = kind.layer(), kind.layer(recurrent_dropout=0.5, seed=1)
    inputs = batch_of(random_rows([7, 0, 5], kind.arity), kind).inputs()
    np.testing.assert_array_equal(dropped(inputs), plain(inputs))
    step = tf.function(lambda: dropped(inputs, training=True), autograph=False)
    assert any(np.abs(step() - plain(inputs)).max() > 0.01 for _ in range(3))


@pytest.mark.parametrize("name", ["child_sum_labels", "n_ary", "gru", "tensor"])
def test_recurrent_regularizers_count_what_comes_from_children(name):
    config = KINDS[name].cell().get_config() | {"recurrent_regularizer": "l2"}
    layer = kb.TreeRecursive(type(KINDS[name].cell()).from_config(config))
    kind = KINDS[name]
    layer(batch_of(random_rows([3], kind.arity), kind).inputs())
    of_children = [w for w in layer.weights if w.name not in ("kernel", "bias", "tensor")]
    expected = sum(0.01 * np.sum(np.square(weight)) for weight in of_children)
    np.testing.assert_allclose(sum(layer.losses), expected, rtol=1e-5)


@each_kind
@each_form
def test_mixed_precision_computes_in_float16(name, training):
    kind = KINDS[name]
    inputs = batch_of(random_rows([5, 0, 1, 7], kind.arity), kind).inputs()
    full = kind.layer(direction="both", return_nodes=True)
    keras.config.set_dtype_policy("mixed_float16")
    half = kind.layer(direction="both", return_nodes=True)
    assert {weight.dtype for weight in half.trainable_weights} == {"float32"}
    with tf.GradientTape() as tape:
        result = half(inputs, training=training)
        loss = tf.reduce_sum(tf.cast(result.values, tf.float32))
    assert result.dtype == tf.float16
    np.testing.assert_allclose(result.values, full(inputs).values, rtol=HALF, atol=HALF)
    for gradient in tape.gradient(loss, half.trainable_variables):
        assert np.all(np.isfinite(tf.convert_to_tensor(gradient)))


def model_of(kind):
    """A functional model with every direction of a kind."""
    inputs = [
        keras.Input((None, WIDTH), ragged=True, name="features"),
        keras.Input((None,), dtype="int32", ragged=True, name="parents"),
    ]
    if kind.labels or kind.arity:
        inputs.append(keras.Input((None,), dtype="int32", ragged=True, name="edges"))
    options = dict(kind.options)
    ways = [
        kb.TreeRecursive(kind.cell(), direction=way, return_nodes=way != "up", **options)
        for way in ("up", "down", "both")
    ]
    model = keras.Model(inputs, [way(inputs) for way in ways])
    generator = np.random.default_rng(4)
    for weight in model.trainable_weights:
        weight.assign(generator.normal(size=weight.shape))
    return model


@each_kind
def test_every_direction_of_every_cell_is_saved_with_its_weights(name, tmp_path):
    kind = KINDS[name]
    model = model_of(kind)
    inputs = batch_of(random_rows([5, 0, 1, 6], kind.arity), kind, slots=True).inputs()
    model.save(tmp_path / "trees.keras")
    loaded = keras.saving.load_model(tmp_path / "trees.keras")
    assert len(loaded.weights) == len(model.weights)
    for got, want in zip(loaded(inputs), model(inputs), strict=True):
        np.testing.assert_allclose(values_of(got), values_of(want), atol=SAME_SUMS)


@each_kind
def test_a_config_makes_the_same_layer(name):
    settings = {
        "direction": "both",
        "merge_mode": "ave",
        "features_on": "leaves",
        "forests": "sum",
        "return_nodes": True,
        "recurrent_dropout": 0.25,
        "seed": 3,
    }
    kind = KINDS[name]
    layer = kind.layer(**settings)
    config = layer.get_config()
    assert settings.items() <= config.items()
    assert dict(kind.options).items() <= config.items()
    again = kb.TreeRecursive.from_config(config)
    assert again.get_config() == config
    inputs = batch_of(random_rows([5, 1], kind.arity), kind).on_leaves().inputs()
    again(inputs)
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(again(inputs).values, layer(inputs).values, atol=SAME_SUMS)


class OfNodes(keras.losses.Loss):
    """A stock loss over the nodes of all trees: Keras has no ragged losses."""

    def __call__(self, labels, logits, sample_weight=None):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        weights = None if sample_weight is None else sample_weight.values
        return loss(labels.values, logits.values, weights)


@pytest.mark.parametrize("scheduled", [False, True], ids=["parents", "schedule"])
def test_every_node_can_be_trained_on_in_a_pipeline_with_weights_of_its_own(scheduled):
    batch = batch_of(random_rows([9, 1, 0, 6, 4, 7, 3, 8] * 3))
    # Whether a node has children; every third node has the wrong label, and no weight.
    truth = [np.isin(np.arange(len(p)), p) for p in batch.parents]
    weights = [np.arange(len(p)) % 3 != 1 for p in batch.parents]
    labels = [t == w for t, w in zip(truth, weights, strict=True)]
    rows = tuple(batch.inputs()), ragged(labels, "int32"), ragged(weights, "float32")
    rows = tf.data.Dataset.from_tensor_slices(rows).batch(6)
    if scheduled:
        rows = rows.map(lambda x, y, w: ((x[0], trees.schedule(x[1])), y, w))
    inputs = [
        keras.Input((None, WIDTH), ragged=True),
        keras.Input((None, 6) if scheduled else (None,), dtype="int32", ragged=True),
    ]
    nodes = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(8), return_nodes=True)(inputs)
    model = keras.Model(inputs, kb.Vanilla(2, activation=None)(nodes))
    model.compile(keras.optimizers.Adam(0.05), OfNodes())
    model.fit(rows.repeat(20), shuffle=False, verbose=0)
    predicted = np.argmax(model.predict(rows, verbose=0).values, axis=-1)
    assert np.mean(predicted == np.concatenate(truth)) > 0.9


def test_it_stacks_over_embedded_tokens_and_learns_to_tell_trees_apart():
    generator = np.random.default_rng(0)
    features, parents = batch_of(random_rows(generator.integers(1, 8, 40))).inputs()
    tokens = features.with_values(generator.integers(0, 5, len(features.values)).astype("int32"))
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


def test_a_chain_of_ten_thousand_nodes_has_its_vector_and_its_gradient():
    kind = KINDS["child_sum"]
    layer, batch = kind.layer(), batch_of([chain(10_000), [-1]])
    inputs = batch.inputs()
    values = inputs[0].values

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(values)
            roots = layer([inputs[0].with_values(values), inputs[1]], training=True)
            loss = tf.reduce_sum(roots**2)
        return roots, tape.gradient(loss, [values, *layer.trainable_variables])

    roots, gradients = step()
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    np.testing.assert_allclose(roots, expected_roots(layer, kind, batch), atol=DEEP)
    inference = tf.function(lambda: layer(inputs), autograph=False)
    np.testing.assert_allclose(inference(), roots, atol=DEEP)
    # Gates forget: the root hangs on the nodes near it.
    norms = np.linalg.norm(gradients[0], axis=1)
    assert norms[0] > 1e-3 > norms[1000]
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_one_tree_of_a_hundred_thousand_nodes_is_computed_in_both_forms():
    generator = np.random.default_rng(0)
    # The nodes stand in any order; the first of them is no root.
    parents = random_tree(100_000, generator)
    batch = batch_of([parents])
    layer = KINDS["gru"].layer(return_nodes=True)
    layer.set_weights([weight * 0.2 for weight in layer.get_weights()])
    inference, training = (layer(batch.inputs(), training=form).values for form in (False, True))
    np.testing.assert_allclose(inference, training, rtol=DEEP)
    # A vector is right if it is what the formula makes of the vectors of the children.
    vectors = inference.numpy().astype("float64")
    weights = [weight.astype("float64") for weight in layer.get_weights()]
    some = [*np.flatnonzero(parents == -1), *generator.integers(0, 100_000, 500)]
    for node in some:
        children = [(vectors[child],) for child in np.flatnonzero(parents == node)]
        (expected,) = reference.gru(weights, batch.features[0][node], children)
        np.testing.assert_allclose(vectors[node], expected, rtol=DEEP, atol=DEEP)


def random_tree(nodes, generator):
    """The parents of a tree of so many nodes, in a random order."""
    order = np.append(generator.permutation(nodes), -1)
    above = np.append(-1, generator.integers(0, np.arange(1, nodes)))
    parents = np.empty(nodes, int)
    parents[order[:-1]] = order[above]
    return parents
