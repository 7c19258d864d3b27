"""Wherever a layer is copied, stored or mirrored: the same functions, the same sharing."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_blocks as kb
from keras_blocks.copying import extended_scope, unbuilt_copy

SAME_SUMS = 1e-6  # float32, the same sums


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def trees():
    features = tf.RaggedTensor.from_row_lengths(normal(3, 4), [3])
    return [features, tf.ragged.constant([[-1, 0, 0]], dtype="int32")]


def wave(x):
    return tf.sin(x)


def other_wave(x):
    return tf.cos(x)


other_wave.__name__ = "wave"


class Thirds(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return tf.fill(shape, tf.constant(1 / 3, dtype))

    def get_config(self):
        return {}


class Unregistered(layers.Layer):
    """A user's layer, its class known to nobody, with a function inside."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units, activation=wave)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {"units": self.units, **super().get_config()}


beyond_storing = object()
WITH_FUNCTIONS = {
    "function": lambda: kb.Vanilla(4, activation=wave),
    "two of one name": lambda: kb.Stacked(
        [kb.Vanilla(4, activation=wave), kb.Vanilla(4, activation=other_wave)]
    ),
    "lambda": lambda: layers.Dense(4, activation=lambda x: tf.sin(x)),
    "closure": lambda: kb.Stacked([kb.Vanilla(4), layers.Lambda(lambda x: (x, beyond_storing)[0])]),
    "partial": lambda: layers.Dense(4, functools.partial(tf.nn.leaky_relu, alpha=0.3)),
    "initializers": lambda: kb.Vanilla(
        4, kernel_initializer=Thirds(), bias_initializer=lambda shape, dtype: tf.ones(shape, dtype)
    ),
    "regularizer and constraint": lambda: kb.Vanilla(
        4, kernel_regularizer=lambda w: tf.reduce_sum(w), kernel_constraint=wave
    ),
    "model": lambda: keras.Sequential(
        [layers.Dense(4), layers.Activation(wave), layers.Activation(lambda x: 2 * x)]
    ),
    "class": lambda: Unregistered(4),
    "class in a model": lambda: keras.Sequential([Unregistered(4)]),
}


@pytest.mark.parametrize("make", WITH_FUNCTIONS.values(), ids=WITH_FUNCTIONS)
def test_any_function_is_lifted_over_trees_and_mirrored(make):
    tree = kb.TreeRecursive(make(), direction="both", return_nodes=True)
    tree(trees())
    tree.down_cell.set_weights(tree.cell.get_weights())
    x = normal(2, 12)
    up, down = tree.cell.layer(x), tree.down_cell.layer(x)
    np.testing.assert_array_equal(up, down)
    kb.Recurrence(kb.Convolution(make(), 3, padding="same"))(normal(2, 3, 5, 4))


def test_a_copy_has_the_very_functions_and_leaves_the_layer_as_it_was():
    scale = layers.Lambda(lambda x: (x, beyond_storing)[0])
    layer = kb.Stacked([kb.Vanilla(4, activation=wave), kb.Vanilla(4, other_wave), scale])
    before = layer.layers[2].function
    copy = unbuilt_copy(layer)
    assert [part.activation for part in copy.layers[:2]] == [wave, other_wave]
    assert copy.layers[2].function is layer.layers[2].function is before
    assert [part.activation for part in layer.layers[:2]] == [wave, other_wave]


def test_a_layer_that_cannot_say_its_config_is_named():
    class Nameless(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    with pytest.raises(NotImplementedError, match=r"'nameless' \(a Nameless\) .* `get_config`"):
        kb.TreeRecursive(Nameless(wave))(trees())


def test_a_scope_within_a_scope_hides_nothing():
    with keras.saving.custom_object_scope({"outer": wave}), extended_scope({"inner": other_wave}):
        assert keras.saving.get_registered_object("outer") is wave
        assert keras.saving.get_registered_object("inner") is other_wave


UNREGISTERED = {
    "gru": lambda: kb.GRU(3, activation=wave),
    "lstm": lambda: kb.LSTM(3, recurrent_activation=wave),
    "bidirectional": lambda: layers.Bidirectional(kb.GRU(3, activation=wave)),
    "recurrence of a cell": lambda: kb.Recurrence(kb.LSTMCell(3, activation=wave)),
    "convolution": lambda: kb.Convolution(kb.Vanilla(3, activation=wave), 2),
    "stack": lambda: kb.Stacked([Unregistered(3), kb.GRU(3, activation=wave)]),
    "tree": lambda: kb.TreeRecursive(
        kb.Stacked([Unregistered(3), kb.Vanilla(3, wave)]), direction="both", return_nodes=True
    ),
}


@pytest.mark.parametrize("make", UNREGISTERED.values(), ids=UNREGISTERED)
def test_custom_objects_reach_all_layers_when_a_model_is_loaded(make, tmp_path):
    objects = {"wave": wave, "Unregistered": Unregistered}
    with keras.saving.custom_object_scope(objects):
        block = make()
    inputs, data = keras.Input((None, 4)), normal(2, 5, 4)
    if isinstance(block, kb.TreeRecursive):
        inputs = [
            keras.Input((None, 4), ragged=True),
            keras.Input((None,), None, "int32", ragged=True),
        ]
        data = trees()
    model = keras.Model(inputs, block(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=objects)
    with keras.saving.custom_object_scope(objects):
        clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for again in (loaded, clone):
        expected, found = (getattr(y, "values", y) for y in (model(data), again(data)))
        np.testing.assert_allclose(found, expected, rtol=SAME_SUMS, atol=SAME_SUMS)


def twice():
    one = kb.Vanilla(4)
    return kb.Stacked([layers.Dense(4), one, layers.Dropout(0.1), one])


def deep_after_flat():
    one = kb.Vanilla(4)
    return kb.Stacked([layers.Dense(4), one, kb.Stacked([kb.Vanilla(4), one])])


def flat_after_deep():
    one = kb.Vanilla(4)
    return kb.Stacked([layers.Dense(4), kb.Stacked([kb.Stacked([one]), kb.Vanilla(4)]), one])


def shared_stack():
    one = layers.Dense(4)
    pair = kb.Stacked([one, one])
    return kb.Stacked([layers.Dense(4), pair, layers.Dense(4), pair, one])


def in_a_sequential():
    one = kb.Vanilla(4)
    return kb.Stacked([layers.Dense(4), keras.Sequential([one, layers.Dense(4)]), one])


def in_a_functional():
    one, x = kb.Vanilla(4), keras.Input((4,))
    return kb.Stacked([layers.Dense(4), keras.Model(x, one(layers.Dense(4)(one(x))))])


SHARING = [twice, deep_after_flat, flat_after_deep, shared_stack, in_a_sequential, in_a_functional]
LIFTS = {
    "alone": lambda layer: layer,
    "time_distributed": layers.TimeDistributed,
    "convolution": lambda layer: kb.Convolution(layer, 2),
    "both ways": lambda layer: layers.Bidirectional(kb.Recurrence(layer)),
}
LIFTED = [
    *((make, "both ways") for make in SHARING),
    (twice, "alone"),
    (in_a_sequential, "time_distributed"),
    (deep_after_flat, "convolution"),
]


@pytest.mark.parametrize(("make", "lift"), LIFTED)
def test_a_layer_that_stands_twice_is_one_after_every_copy(make, lift, tmp_path):
    alone = make()
    alone.build((None, 4))
    x = keras.Input((None, 4))
    block = LIFTS[lift](make())
    model, data = keras.Model(x, block(x)), normal(2, 5, 4)
    directions = 2 if isinstance(block, layers.Bidirectional) else 1
    assert len(model.weights) == directions * len(alone.weights)
    again = {
        "clone": keras.models.clone_model(model),
        "json": keras.models.model_from_json(model.to_json()),
    }
    for copy in again.values():
        assert len(copy.weights) == len(model.weights)
        copy.set_weights(model.get_weights())
    model.save(tmp_path / "model.keras")
    again["keras"] = keras.saving.load_model(tmp_path / "model.keras")
    again["keras"].save(tmp_path / "again.keras")
    again["keras again"] = keras.saving.load_model(tmp_path / "again.keras")
    if not (make is in_a_functional and directions == 2):  # two weights of one name, as in Keras
        model.save(str(tmp_path / "model.h5"))
        again["h5"] = keras.saving.load_model(str(tmp_path / "model.h5"), compile=False)
    for copy in again.values():
        assert len(copy.weights) == len(model.weights)
        np.testing.assert_allclose(copy(data), model(data), rtol=SAME_SUMS, atol=SAME_SUMS)


@pytest.mark.parametrize("make", SHARING)
def test_the_way_down_shares_as_the_way_up_does(make, tmp_path):
    tree = kb.TreeRecursive(make(), direction="both", return_nodes=True)
    inputs = [keras.Input((None, 4), ragged=True), keras.Input((None,), None, "int32", ragged=True)]
    model = keras.Model(inputs, tree(inputs))
    assert len(tree.down_cell.weights) == len(tree.cell.weights)
    assert not {id(w) for w in tree.cell.weights} & {id(w) for w in tree.down_cell.weights}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    found, expected = loaded(trees()), model(trees())
    np.testing.assert_allclose(found.values, expected.values, rtol=SAME_SUMS, atol=SAME_SUMS)


@pytest.mark.parametrize("first", ["lifted", "called"])
def test_a_layer_that_is_lifted_once_and_called_once_is_one_after_loading(first, tmp_path):
    one, x = kb.Vanilla(4), keras.Input((None, 4))
    calls = [kb.Stacked([one, layers.Dropout(0.1)]), one]
    y = x
    for layer in calls if first == "lifted" else calls[::-1]:
        y = layer(y)
    model = keras.Model(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights) == 2
    data = normal(2, 5, 4)
    np.testing.assert_allclose(loaded(data), model(data), rtol=SAME_SUMS, atol=SAME_SUMS)


def test_a_config_says_which_layers_are_one_and_one_that_does_not_loads_too():
    config = twice().get_config()
    numbers = [layer.get("shared_layer") for layer in config["layers"]]
    assert numbers == [None, 0, None, 0]
    assert kb.Stacked.from_config(json.loads(json.dumps(config))).get_config() == config
    for layer in config["layers"]:
        layer.pop("shared_layer", None)
    stack = kb.Stacked.from_config(config)
    stack.build((None, 4))
    assert len(stack.weights) == 6
