"""Exported trees under onnxruntime beside the layer: one export for each setting, any batch."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from onnx_runs import Exported, flat, random_weights
from tree_cases import KINDS, WIDTH, batch_of, batches, chain, random_rows, star

import keras_blocks as kb
from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.trees import upward as tree_climb

OTHER_ORDER = 5e-6  # float32, sums in another order, a few levels deep
MANY = 2e-5  # and hundreds of levels
SUMMANDS = 5e-4  # thousands of them in groups: either order is off by 3e-4 now and then

# A file goes another way over small batches. With this bound the batches here go both.
FEW_NODES = 10
THREADED_RUNS = 20  # sums that race went wrong in a tenth of the runs

# Each cell once, and each setting; the slow tests cross them.
CHOSEN = {
    "child_sum": {},
    "child_sum_labels": {"direction": "both", "return_nodes": True},
    "n_ary": {"return_nodes": True},
    "n_ary_wide": {},
    "gru": {"direction": "down", "return_nodes": True, "features_on": "leaves"},
    "tensor": {"features_on": "leaves"},
    "layer": {"direction": "both", "return_nodes": True, "features_on": "leaves"},
    "layer_sum": {"direction": "down", "return_nodes": True},
    "layer_mean": {"forests": "sum"},
    "layer_max": {"return_nodes": True},
}
# The other cells with an arity number the children themselves.
WITH_SLOTS = ("n_ary", "layer")
CROSSED = [
    (name, {"return_nodes": nodes, "direction": direction, "features_on": features_on})
    for name in KINDS
    for nodes, direction in [(False, "up"), (True, "up"), (True, "down"), (True, "both")]
    for features_on in ("nodes", "leaves")
]
FILES = {}


def exported(name, folder, chosen, few_nodes=FEW_NODES, **options):
    """The model of a setting beside its file, which is slow to make."""
    kind = KINDS[name]
    key = name, few_nodes, *chosen.items(), *options.items()
    if key not in FILES:
        inputs = [
            keras.Input((None, WIDTH), ragged=True, name="features"),
            keras.Input((None,), dtype="int32", ragged=True, name="parents"),
        ]
        if kind.labels or name in WITH_SLOTS:
            inputs.append(keras.Input((None,), dtype="int32", ragged=True, name="edges"))
        layer = kb.TreeRecursive(kind.cell(), **dict(kind.options), **chosen)
        model = random_weights(keras.Model(inputs, layer(inputs)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tree_climb, "FEW_NODES", few_nodes)
            FILES[key] = Exported(model, folder / "m.onnx", **options)
    return FILES[key]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trees")


def assert_equal(file, batch, chosen, tolerance=OTHER_ORDER):
    """The file gives what the model gives."""
    if chosen.get("features_on") == "leaves":
        batch = batch.on_leaves()
    expected = flat(file.model(batch.inputs(), training=False))
    for got, want in zip(file.run(batch.inputs()), expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CHOSEN)
def test_any_batch_gives_under_onnxruntime_what_it_gives_in_keras(name, folder):
    assert_any_batch(name, folder, CHOSEN[name], examples=8)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chosen"), CROSSED, ids=str)
def test_every_setting_of_every_cell_equals_its_file(name, chosen, folder):
    assert_any_batch(name, folder, chosen, examples=20)


def assert_any_batch(name, folder, chosen, examples):
    kind = KINDS[name]
    file = exported(name, folder, chosen)
    roots = 3 if "forests" in chosen else 1

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(batch=batches(kind, name in WITH_SLOTS, roots))
    def check(batch):
        assert_equal(file, batch, chosen)

    check()
    # Deep and wide, and what has no node.
    wide = star(3000 if kind.arity is None else kind.arity)
    # The tensor network is chaotic: over many levels it doubles every error.
    deep = chain(9 if name == "tensor" else 200)
    for rows in [deep, [-1]], [[]], [], [[], []]:
        assert_equal(file, batch_of(rows, kind, name in WITH_SLOTS), chosen, MANY)
    assert_equal(file, batch_of([[-1], wide], kind, name in WITH_SLOTS), chosen, SUMMANDS)


@pytest.mark.parametrize(("name", "opset"), [("child_sum", 16), ("n_ary", 23)])
def test_loops_over_levels_are_left_and_nothing_of_the_checks(name, opset, folder):
    file = exported(name, folder, CHOSEN[name], opset_version=opset)
    # One finds the levels; of two one goes over them, in small batches the other.
    assert file.ops["Loop"] == 3
    assert not {"Assert", "Scan", "StringFormat"} & file.ops.keys()
    # Where any number is summed: rows of slots if need be; in each loop two children, one, or more.
    assert file.ops["If"] == (1 + 1 + 2 * 3 if name == "child_sum" else 1)
    batch = batch_of(random_rows([5, 0, 9], KINDS[name].arity), KINDS[name], slots=True)
    assert_equal(file, batch, CHOSEN[name])


@pytest.mark.parametrize(("name", "opset"), [("child_sum", 15), ("layer_max", 16)])
def test_an_opset_without_the_scatter_of_a_cell_is_refused_with_the_one_that_has_it(
    name, opset, folder
):
    needed = {"child_sum": 16, "layer_max": 18}[name]
    with pytest.raises(ExportError, match=f"Choose opset_version={needed} or more"):
        exported(name, folder, CHOSEN[name], opset_version=opset)


def complete(arity, depth):
    """The parents of a tree whose inner nodes have so many children."""
    nodes = sum(arity**level for level in range(depth + 1))
    return (np.arange(nodes) - 1) // arity


@pytest.mark.parametrize("few_nodes", [FEW_NODES, tree_climb.FEW_NODES])
@pytest.mark.parametrize("name", ["child_sum", "layer_mean", "layer_max"])
def test_children_beyond_the_slots_of_a_node_count_as_the_others_do(name, few_nodes, folder):
    file = exported(name, folder, CHOSEN[name], few_nodes)
    # The many narrow nodes keep the slots few: nodes of 6 have two rows of them, those of 9 three.
    rows = [complete(6, 3), chain(3), [], star(5), complete(9, 2), [-1], complete(2, 7)]
    batch, _ = batch_of(rows, KINDS[name]).permuted(np.random.default_rng(1))
    assert_equal(file, batch, CHOSEN[name], SUMMANDS)


@pytest.mark.parametrize("few_nodes", [FEW_NODES, tree_climb.FEW_NODES])
@pytest.mark.parametrize("name", ["child_sum", "layer_mean", "layer_max"])
def test_one_child_and_two_count_as_any_number_does(name, few_nodes, folder):
    file = exported(name, folder, CHOSEN[name], few_nodes)
    chains = [chain(4), [], chain(20), [-1], chain(9)]
    pairs = [complete(2, 5), [-1], [], complete(2, 2)]
    either = [*pairs, *chains, *random_rows([20] * 10, arity=2)]
    for rows in chains, pairs, either:
        batch, _ = batch_of(rows, KINDS[name]).permuted(np.random.default_rng(1))
        assert_equal(file, batch, CHOSEN[name], MANY)


def test_threads_lose_no_child(folder):
    file = exported("child_sum", folder, CHOSEN["child_sum"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 4
    path = folder / "threads.onnx"
    onnx.save(file.proto, path)
    session = onnxruntime.InferenceSession(path, options)
    rows = [complete(6, 3)] * 20 + random_rows([40] * 100)
    names = [tensor.name for tensor in file.proto.graph.input]
    feed = dict(zip(names, flat(batch_of(rows).inputs()), strict=True))
    for _ in range(THREADED_RUNS):
        (got,) = session.run(None, feed)
        np.testing.assert_array_equal(got, file.session.run(None, feed)[0])
