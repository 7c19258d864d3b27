"""The signature names what a model takes and gives, and packs flat tensors into its call."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import flat, ragged, sequences

import keras_blocks as kb
from keras_blocks.contract import TensorSpec
from keras_blocks.errors import ExportError
from keras_blocks.export.signature.signature import signature_of

layers = keras.layers


class Branches(keras.Model):
    def __init__(self, ragged=False):
        super().__init__()
        self.look_up = kb.Embedding(20, 6)
        self.gru = kb.GRU(4)

    def call(self, inputs):
        return {"state": self.gru(self.look_up(inputs["ids"])), "twice": 2 * inputs["x"]}


def test_a_functional_model_that_was_never_called_has_one():
    x = keras.Input((None, 6), name="x")
    contract = signature_of(keras.Model(x, layers.Dense(3, name="y")(x))).contract
    assert contract.inputs == (TensorSpec("x", "float32", ("batch", "x.time", 6)),)
    assert contract.outputs == (TensorSpec("y", "float32", ("batch", "y.time", 3)),)


def test_a_ragged_input_is_values_and_row_splits():
    x = keras.Input((None, 6), name="x", ragged=True)
    contract = signature_of(keras.Model(x, kb.Vanilla(3, name="y")(x))).contract
    assert [t.name for t in contract.flat_inputs()] == ["x", "x.row_splits"]
    assert contract.inputs[0].shape == ("x.values", 6)
    assert contract.outputs == (TensorSpec("y", "float32", ("y.values", 3), ragged=True),)


@pytest.mark.parametrize("container", ["list", "tuple", "dict", "nested"])
def test_pack_and_unpack_mirror_the_model(container):
    a, b = keras.Input((None, 6), name="a", ragged=True), keras.Input((4,), name="b")
    inputs = {
        "list": [a, b],
        "tuple": (a, b),
        "dict": {"b": b, "a": a},
        "nested": {"a": [a], "b": (b,)},
    }[container]
    model = keras.Model(inputs, [kb.Vanilla(3)(a), layers.Dense(2)(b)])
    signature = signature_of(model)
    values, dense = ragged([2, 0, 1]), sequences(1, 3, 4)[0]
    packed = signature.pack([values.values, values.row_splits, dense])
    keras.tree.assert_same_structure(packed, model.input)
    outputs = signature.unpack(model(packed))
    assert [tuple(t.shape) for t in outputs] == [(3, 3), (4,), (3, 2)]
    for got, want in zip(signature.call(model, flat([values, dense])), outputs, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_subclassed_model_takes_an_input_signature():
    spec = {
        "ids": tf.RaggedTensorSpec((None, None), tf.int32),
        "x": keras.InputSpec(shape=(None, 5), dtype="float32"),
    }
    contract = signature_of(Branches(), [spec]).contract
    assert contract.inputs == (
        TensorSpec("ids", "int32", ("ids.values",), ragged=True, minimum=0, maximum=19),
        TensorSpec("x", "float32", ("batch", 5)),
    )
    assert [spec.name for spec in contract.outputs] == ["state", "twice"]


def test_a_subclassed_model_that_was_called_knows_its_input():
    model = Branches()
    model({"ids": np.ones((2, 7), "int32"), "x": np.ones((2, 5), "float32")})
    ids, x = signature_of(model).contract.inputs
    # Keras keeps the shapes only; the embedding tells that these are ids.
    assert ids == TensorSpec("ids", "int32", ("batch", 7), minimum=0, maximum=19)
    assert x == TensorSpec("x", "float32", ("batch", 5))


@pytest.mark.parametrize("model", [Branches(), keras.Sequential([layers.Dense(3)])])
def test_a_model_that_does_not_say_what_it_takes_is_refused(model):
    with pytest.raises(ExportError, match="input_signature"):
        signature_of(model)


@pytest.mark.parametrize("given", [5, "x", (None, 4), [None], {"x": 3}, [[4, 5]]], ids=str)
def test_an_input_signature_that_holds_no_specs_says_what_it_should_hold(given):
    with pytest.raises(TypeError, match=r"must hold a keras\.InputSpec.*Received: .*Write input_"):
        signature_of(Branches(), given)


@pytest.mark.parametrize("spec", [keras.InputSpec(ndim=3), tf.TensorSpec(None)], ids=str)
def test_a_spec_without_a_shape_is_refused(spec):
    with pytest.raises(ExportError, match="needs a shape and a dtype"):
        signature_of(Branches(), [spec])


def test_a_model_whose_calls_were_not_seen_asks_for_all_it_may_take():
    class Sum(keras.Model):
        def call(self, a, b, bias=None, scale=1.0):
            return a + b

    model = Sum()
    keras.layers.Layer.__call__(model, np.ones((2, 3), "float32"), b=np.ones((2, 3), "float32"))
    with pytest.raises(
        ExportError, match="takes a, b, bias, and Keras keeps the shape of the firs"
    ):
        signature_of(model)


class Everything(keras.Model):
    """Takes tensors in every way that there is."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, ids, attention=None, *, more=None, twice=False, training=None, **rest):
        x = self.dense(keras.ops.cast(ids, "float32"))
        for part in keras.tree.flatten([attention, more, rest]):
            x = x if part is None else x + keras.ops.sum(keras.ops.cast(part, "float32"))
        return 2 * x if twice else x


IDS, MASK, FLOATS = np.ones((2, 4), "int64"), np.ones((2, 4), bool), np.ones((2, 3))


@pytest.mark.parametrize(
    ("args", "kwargs", "wanted"),
    [
        ((), {"ids": IDS}, {"ids": "int64"}),
        ((IDS,), {}, {"input": "int64"}),
        ((IDS, MASK), {}, {"ids": "int64", "attention": "bool"}),
        ((IDS,), {"attention": MASK}, {"ids": "int64", "attention": "bool"}),
        ((), {"attention": MASK, "ids": IDS}, {"attention": "bool", "ids": "int64"}),
        ((IDS,), {"attention": None, "training": True}, {"ids": "int64"}),
        ((IDS,), {"twice": True, "more": FLOATS}, {"ids": "int64", "more": "float32"}),
        (
            (IDS,),
            {"more": {"b": [FLOATS, None], "a": IDS}},
            {"ids": "int64", "more.a": "int64", "more.b": "float32"},
        ),
        ((), {"ids": IDS, "own": MASK}, {"ids": "int64", "own": "bool"}),
    ],
    ids=["keyword", "position", "positions", "both", "order", "none", "flag", "nest", "rest"],
)
def test_a_model_takes_all_it_was_called_with(args, kwargs, wanted):
    model = Everything()
    expected = model(*args, **kwargs)
    signature = signature_of(model)
    assert {spec.name: spec.dtype for spec in signature.contract.inputs} == wanted
    assert all(spec.shape[0] == "batch" for spec in signature.contract.inputs)
    given = [leaf for leaf in keras.tree.flatten([args, list(kwargs.values())]) if leaf is not None]
    flat = [leaf for leaf in given if isinstance(leaf, np.ndarray)]
    np.testing.assert_allclose(signature.call(model, flat)[0], expected, rtol=1e-6)


def test_sizes_that_were_others_in_another_call_are_free():
    model = Everything()
    model(np.ones((2, 4), "int32"), more=np.ones((5, 5), "float32"))
    model(np.ones((3, 4), "int32"), more=np.ones((6, 5), "float32"))
    ids, more = signature_of(model).contract.inputs
    assert ids.shape == ("batch", 4)
    assert more.shape == ("batch", 5)
    # What the export does with the model is no call of the user's.
    signature_of(model, [tf.TensorSpec((None, None), "int32")])
    assert signature_of(model).contract.inputs == (ids, more)


def test_an_argument_without_the_batch_keeps_its_sizes():
    model = Everything()
    model(np.ones((2, 4), "int32"), more=[np.ones((5, 3), "float32"), np.float32(2)])
    _, matrix, number = signature_of(model).contract.inputs
    assert matrix.shape == (5, 3)
    assert number.shape == ()


def test_the_batch_of_a_sequential_model_is_free_though_its_first_call_had_one():
    model = keras.Sequential([layers.Dense(3, name="y")])
    model(np.ones((2, 5), "float32"))
    contract = signature_of(model).contract
    assert contract.inputs[0].shape == ("batch", 5)
    assert contract.outputs == (TensorSpec("y", "float32", ("batch", 3)),)


def test_outputs_that_are_none_have_no_names():
    class Half(keras.Model):
        def call(self, x):
            return {"a": x, "b": None, "c": (x, None)}

    signature = signature_of(Half(), [tf.TensorSpec((None, 3), tf.float32)])
    assert [spec.name for spec in signature.contract.outputs] == ["a", "c.0"]


def test_a_signature_that_the_model_does_not_run_on_is_refused():
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(3)(x))
    with pytest.raises(ExportError, match="does not run"):
        signature_of(model, [keras.InputSpec(shape=(None, 9), dtype="float32")])


def test_ids_are_bounded_by_the_smallest_embedding_that_reads_them():
    ids = keras.Input((None, 3), dtype="int64", name="ids")
    inner = keras.Sequential([keras.Input((None,), dtype="int64"), layers.Embedding(7, 2)])
    outputs = [layers.Embedding(9, 2)(ids), inner(ids[:, :, 1])]
    (spec,) = signature_of(keras.Model(ids, outputs)).contract.inputs
    assert (spec.minimum, spec.maximum) == (0, 6)


def test_the_parents_of_a_tree_know_their_features_and_how_many_children_the_cell_takes():
    nodes = keras.Input((None, 6), ragged=True, name="nodes")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    cells = kb.NaryTreeLSTMCell(3, arity=4), kb.Vanilla(2), kb.ChildSumTreeLSTMCell(3)
    roots = [kb.TreeRecursive(cell)([nodes, parents]) for cell in cells]
    for outputs, most in ((roots, 2), (roots[:1], 4), (roots[2:], None)):
        spec = signature_of(keras.Model([nodes, parents], outputs)).contract.inputs[1]
        assert (spec.tree_of, spec.minimum, spec.max_children) == ("nodes", -1, most)


def ragged_ints(name, dtype="int32"):
    return keras.Input((None,), dtype=dtype, ragged=True, name=name)


def inputs_of(tensors, outputs):
    contract = signature_of(keras.Model(tensors, outputs)).contract
    return {spec.name: spec for spec in contract.inputs}


def test_words_on_leaves_know_their_parents_which_have_rows_of_their_own():
    words, parents = ragged_ints("words"), ragged_ints("parents")
    cell = kb.NaryTreeLSTMCell(3, arity=2)
    vectors = kb.Embedding(9, 4)(words)
    root = kb.TreeRecursive(cell, features_on="leaves", forests="sum")([vectors, parents])
    specs = inputs_of([words, parents], root)
    rest = {"dtype": "int32", "ragged": True}
    assert specs["words"] == TensorSpec(
        "words", shape=("words.values",), minimum=0, maximum=8, leaves_of="parents", **rest
    )
    assert specs["parents"] == TensorSpec(
        "parents",
        shape=("parents.values",),
        minimum=-1,
        tree_of="parents",
        max_children=2,
        forest=True,
        **rest,
    )


def test_edges_know_their_labels_and_whether_siblings_differ():
    x = keras.Input((None, 4), ragged=True, name="x")
    parents, edges, slots = (ragged_ints(n, "int64") for n in ("parents", "edges", "slots"))
    labelled = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(3, edge_labels=5))([x, parents, edges])
    placed = kb.TreeRecursive(kb.Vanilla(3), arity=4)([x, parents, slots])
    specs = inputs_of([x, parents, edges, slots], [labelled, placed])
    found = {n: (s.edges_of, s.edge_labels, s.siblings_differ) for n, s in specs.items()}
    assert found["edges"] == ("parents", 5, False)
    assert found["slots"] == ("parents", 4, True)
    assert found["parents"] == found["x"] == (None, None, False)
    assert (specs["parents"].tree_of, specs["parents"].max_children) == ("x", 4)


def test_layers_that_share_their_inputs_give_the_strictest_contract():
    words, parents, edges = (ragged_ints(name) for name in ("words", "parents", "edges"))
    x = keras.Input((None, 4), ragged=True, name="x")
    vectors = kb.Embedding(9, 4)(words)
    layers = [
        (kb.TreeRecursive(kb.TreeGRUCell(3), features_on="leaves", forests="sum"), [vectors]),
        (kb.TreeRecursive(kb.NaryTreeLSTMCell(3, arity=6)), [x, edges]),
        (kb.TreeRecursive(kb.ChildSumTreeLSTMCell(3, edge_labels=5), forests="sum"), [x, edges]),
    ]
    for order in (layers, layers[::-1]):
        roots = [layer([of_nodes, parents, *more]) for layer, (of_nodes, *more) in order]
        specs = inputs_of([words, parents, edges, x], roots)
        assert (specs["parents"].tree_of, specs["parents"].forest) == ("x", False)
        assert specs["words"].leaves_of == "parents"
        assert (specs["edges"].edge_labels, specs["edges"].siblings_differ) == (5, True)
        assert specs["parents"].max_children == 5, "siblings differ, and there are 5 labels"


def test_ids_that_are_computed_first_have_no_bounds():
    ids = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(ids, layers.Embedding(9, 2)(ids % 9))
    (spec,) = signature_of(model).contract.inputs
    assert (spec.minimum, spec.maximum) == (None, None)


def test_repeated_output_names_are_numbered():
    x = keras.Input((4,), name="x")
    layer = layers.Dense(2, name="y")
    model = keras.Model(x, [layer(x), layer(x + 1)])
    assert [spec.name for spec in signature_of(model).contract.outputs] == ["y", "y_1"]


def test_a_model_with_several_arguments_is_called_with_them():
    class Sum(keras.Model):
        def call(self, a, b):
            return a + b

    spec = tf.TensorSpec((None, 3), tf.float32)
    signature = signature_of(Sum(), [spec, spec])
    assert [s.name for s in signature.contract.inputs] == ["input_0", "input_1"]
    (result,) = signature.call(Sum(), [np.ones((2, 3), "float32")] * 2)
    np.testing.assert_array_equal(result, np.full((2, 3), 2.0))
    with pytest.raises(ExportError, match="takes 2 arguments"):
        signature.pack([1, 2])


class AsksInPython(layers.Layer):
    """Asks for a length in Python, as code that only ever ran on batches of one length does."""

    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def call(self, x):
        steps = keras.ops.shape(x)[1]
        if self.asked == "if":
            return x if steps > 3 else 2 * x
        return x + sum(range(steps))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape)


@pytest.mark.parametrize("asked", ["if", "range"])
def test_a_model_that_asks_for_a_free_length_in_python_is_told_to_fix_it(asked):
    x = keras.Input((None,))
    model = keras.Model(x, AsksInPython(asked)(x))
    with pytest.raises(ExportError, match="Give the inputs fixed sizes, input_signature="):
        signature_of(model)
    fixed = signature_of(model, [keras.InputSpec(shape=(None, 5), dtype="float32")])
    assert fixed.contract.inputs[0].shape == ("batch", 5)
