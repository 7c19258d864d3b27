import json

import onnxruntime
import pytest
import tree_limit
from tree_limit import Product
from tree_samples import Forest, sentences

FEATURES, UNITS = 10, 4
# A root over a leaf and a node with two leaves; and a tree of a single node.
FOREST = Forest.of([[-1, 0, 0, 2, 2], [-1]])
LEAVES, INNER, CHILDREN = 4, 2, 4


def total(products, training=False):
    return sum(product.multiplications(training) for product in products)


def test_the_limit_counts_what_the_formulas_need():
    own = FEATURES * UNITS * (3 * LEAVES + 4 * INNER)
    child_sum = UNITS * UNITS * (3 * INNER + CHILDREN)
    n_ary = INNER * (2 * UNITS) * (5 * UNITS)
    assert total(tree_limit.needed(FOREST, "child-sum", FEATURES, UNITS)) == own + child_sum
    assert total(tree_limit.needed(FOREST, "N-ary", FEATURES, UNITS)) == own + n_ary


def test_training_needs_no_gradient_of_the_features():
    own = FEATURES * UNITS * (3 * LEAVES + 4 * INNER)
    states = UNITS * UNITS * (3 * INNER + CHILDREN)
    strict = tree_limit.needed(FOREST, "child-sum", FEATURES, UNITS)
    assert total(strict, training=True) == 2 * own + 3 * states
    loose = tree_limit.with_features(FOREST, "child-sum", FEATURES, UNITS)
    assert total(loose, training=True) == 3 * (own + states)


@pytest.mark.parametrize("cell", ["child-sum", "N-ary"])
def test_levels_need_the_same_in_smaller_products(cell):
    forest = sentences(6)
    whole = tree_limit.needed(forest, cell, FEATURES, UNITS)
    levels = tree_limit.by_level(forest, cell, FEATURES, UNITS)
    assert total(levels) == total(whole)
    assert len(levels) > len(whole)


@pytest.mark.parametrize("cell", ["child-sum", "N-ary"])
def test_all_gates_at_all_nodes_are_more(cell):
    strict = tree_limit.needed(FOREST, cell, FEATURES, UNITS)
    assert total(tree_limit.all_gates(FOREST, cell, FEATURES, UNITS)) > total(strict)


def test_onnxruntime_computes_every_product_although_nobody_reads_it(tmp_path):
    products = tree_limit.by_level(FOREST, "child-sum", FEATURES, UNITS)
    file, feeds = tree_limit.onnx_file(products)
    options = tree_limit.unoptimized()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    with open(session.end_profiling()) as profile:
        events = json.load(profile)
    ran = [e["name"] for e in events if e["name"].endswith("_kernel_time")]
    assert sum("MatMul" in name for name in ran) == len(products)


def test_tensorflow_computes_the_products_of_the_backward_pass_too():
    products = [Product(5, 3, 2), Product(4, 3, 2, passes_on=False)]
    assert len(tree_limit.in_tensorflow(products, training=False)()) == 2
    assert len(tree_limit.in_tensorflow(products, training=True)()) == 3 + 2
