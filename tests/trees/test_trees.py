import ast
import subprocess
import sys
from itertools import chain
from xml.etree import ElementTree

import nltk
import numpy as np
import pytest
import tensorflow as tf
from cases import random_parents
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_blocks as kb
from keras_blocks import trees
from keras_blocks.errors import TreeError
from keras_blocks.trees import Tree, Vocabulary

DEEP = 20_000
SENTENCE = Tree(
    ("S", "NP", "I", "VP", "V", "saw", "NP", "stars"),
    (-1, 0, 1, 0, 3, 4, 3, 6),
)


def test_every_notation_of_a_sentence_gives_the_same_tree():
    nested = ["S", ["NP", "I"], ("VP", ["V", "saw"], ["NP", "stars"])]
    text = "(S (NP I) (VP (V saw) (NP stars)))"
    assert trees.from_nested(nested) == SENTENCE
    assert trees.from_sexpr(text) == SENTENCE
    assert trees.from_nltk(nltk.Tree.fromstring(text)) == SENTENCE
    assert trees.from_parents(SENTENCE.labels, np.array(SENTENCE.parents)) == SENTENCE


def test_a_tree_knows_its_size_and_children():
    assert len(SENTENCE) == 8
    assert SENTENCE.children() == [[1, 3], [2], [], [4, 6], [5], [], [7], []]


def test_nested_lists_may_hold_nothing_but_children():
    tree = trees.from_nested([["very", "good"], "film", []], inner_label="*")
    assert tree == Tree(("*", "*", "very", "good", "film", "*"), (-1, 0, 1, 1, 0, 0))
    assert trees.from_nested("alone") == Tree(("alone",), (-1,))


def test_a_list_without_a_label_is_named():
    with pytest.raises(TreeError, match=r"node 1 of tree 0 is the list \[\], which has no label"):
        trees.from_nested(["S", []])
    with pytest.raises(TreeError, match="`inner_label`"):
        trees.from_nested([["a"], "b"])


def test_a_list_without_a_label_is_named_however_deep_it_is():
    nested: list = ["x"]
    for _ in range(DEEP):
        nested = ["x", nested]
    with pytest.raises(TreeError, match="node 0 of tree 0 is the list"):
        trees.from_nested([nested])


def test_chains_may_be_deeper_than_the_recursion_limit():
    nested: list = ["x"]
    for _ in range(DEEP):
        nested = ["x", nested]
    text = "(x " * DEEP + "y" + ")" * DEEP
    deep = nltk.Tree("x", [])
    for _ in range(DEEP):
        deep = nltk.Tree("x", [deep])
    expression: ast.expr = ast.Constant(1)
    for _ in range(DEEP):
        expression = ast.UnaryOp(ast.Not(), expression)
    assert trees.from_nested(nested).parents == tuple(range(-1, DEEP))
    assert len(trees.from_sexpr(text)) == len(trees.from_nltk(deep)) == DEEP + 1
    assert len(trees.from_ast(expression)) == 2 * DEEP + 1
    while nested:  # Freeing it at once would recurse in C.
        nested = nested[1] if len(nested) > 1 else []


def test_a_text_holds_several_trees_and_the_unlabelled_brackets_of_treebanks():
    text = "( (S (NP I)) )\n\n(3 (2 It)\n   (4 works))"
    first, second = trees.from_sexprs(text)
    assert first == Tree(("", "S", "NP", "I"), (-1, 0, 1, 2))
    assert second == Tree(("3", "2", "It", "4", "works"), (-1, 0, 1, 0, 3))
    assert trees.from_sexprs(" \n") == []


def test_escaped_brackets_are_restored_in_leaves_and_kept_in_labels():
    tree = trees.from_sexpr("(NP (-LRB- -LRB-) (X -LSB- a-RRB-b -RCB-) (-RRB- -RRB-))")
    assert tree.labels == ("NP", "-LRB-", "(", "X", "[", "a-RRB-b", "}", "-RRB-", ")")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(S (NP I)", "line 1, column 1: the bracket is never closed"),
        ("(S\n  (NP I)\n  (VP", "line 3, column 3: the bracket is never closed"),
        ("(S I))", r"line 1, column 6: '\)' stands outside any tree"),
        ("(S I)\nword", "line 2, column 1: 'word' stands outside any tree"),
        ("(S ())", "line 1, column 5: the brackets are empty"),
    ],
)
def test_a_broken_s_expression_names_line_and_column(text, message):
    with pytest.raises(TreeError, match=message):
        trees.from_sexprs(text)


def test_from_sexpr_wants_one_tree():
    with pytest.raises(TreeError, match="the text holds 2 trees, expected one"):
        trees.from_sexpr("(A a) (B b)")


def test_code_becomes_the_classes_of_its_syntax():
    tree = trees.from_ast("def f(a):\n    return a + 1")
    assert tree.labels == (
        *("Module", "FunctionDef", "arguments", "arg", "Return", "BinOp"),
        *("Name", "Add", "Constant"),
    )
    assert tree.parents == (-1, 0, 1, 2, 1, 4, 5, 5, 5)
    assert trees.from_ast(ast.parse("x").body[0]).labels == ("Expr", "Name")


def test_fields_and_identifiers_of_code_can_be_added():
    code = "import os\nx.y = f('text')"
    fields = trees.from_ast(code, fields=True)
    assert fields.labels[:4] == ("Module", "body:Import", "names:alias", "body:Assign")
    names = trees.from_ast(code, identifiers=True).labels
    assert {"os", "x", "y", "f"} <= set(names)
    assert "text" not in names
    both = trees.from_ast("x", fields=True, identifiers=True)
    assert both.labels == ("Module", "body:Expr", "value:Name", "id:x")


def test_a_vocabulary_numbers_the_most_frequent_first_and_keeps_zero_for_the_unknown():
    words = Vocabulary.of([Tree(("b", "a", "b"), (-1, 0, 0)), Tree(("c", "b", "a"), (1, -1, 1))])
    assert words.labels == ("b", "a", "c")
    assert [words[label] for label in "abcd"] == [2, 1, 3, 0]
    assert len(words) == 4
    assert "a" in words
    assert "d" not in words
    assert Vocabulary(words.labels).labels == words.labels


def test_a_vocabulary_can_be_cut_by_size_and_by_count():
    some = [Tree(("a", "a", "b", "b", "b", "c"), (-1, 0, 0, 0, 0, 0))]
    assert Vocabulary.of(some, size=2).labels == ("b",)
    assert Vocabulary.of(some, min_count=2).labels == ("b", "a")
    with pytest.raises(ValueError, match="'a' is given more than once"):
        Vocabulary(["a", "b", "a"])


def test_going_through_a_vocabulary_ends_and_gives_its_labels():
    words = iter(Vocabulary(["a", "b"]))
    assert [next(words, None) for _ in range(3)] == ["a", "b", None]


def test_a_batch_is_two_ragged_tensors_with_the_same_rows():
    some = [SENTENCE, Tree((), ()), Tree(("NP", "new"), (1, -1))]
    tokens, parents = trees.batch(some, Vocabulary.of([SENTENCE]))
    assert tokens.dtype == parents.dtype == tf.int32
    assert tokens.row_splits is parents.row_splits
    assert parents.to_list() == [list(tree.parents) for tree in some]
    assert tokens.to_list()[1:] == [[], [1, 0]]
    nodes = kb.Embedding(9, 4)(tokens)
    assert kb.TreeRecursive(kb.ChildSumTreeLSTMCell(3))([nodes, parents]).shape == (3, 3)


def test_an_empty_batch_is_a_batch():
    tokens, parents = trees.batch([], Vocabulary([]))
    assert tokens.to_list() == parents.to_list() == []
    assert trees.batch([])[0].dtype == tf.int32


@pytest.mark.parametrize(
    ("labels", "dtype", "shape"),
    [
        ((4, 5), tf.int32, [1, None]),
        (("a", "b"), tf.string, [1, None]),
        ((0.5, 1.0), tf.float32, [1, None]),
        (([1.0, 2.0, 3.0], np.zeros(3)), tf.float32, [1, None, 3]),
    ],
)
def test_labels_without_a_vocabulary_are_taken_as_they_are(labels, dtype, shape):
    tokens, _ = trees.batch([Tree(labels, (-1, 0))])
    assert tokens.dtype == dtype
    assert tokens.shape.as_list() == shape


def test_integers_that_no_int32_holds_are_refused_and_not_wrapped_around():
    with pytest.raises(ValueError, match=r"from 1 to 1099511627776, .* int32"):
        trees.batch([Tree((1, 2**40), (-1, 0))])


def test_text_reaches_the_batch_whole():
    tokens, _ = trees.batch([Tree(("a\0", "é"), (-1, 0))])
    assert tokens.to_list() == [[b"a\0", "é".encode()]]


@pytest.mark.parametrize("labels", [("a", 1), ([1.0], [1.0, 2.0]), (None, None)])
def test_labels_of_several_kinds_ask_for_a_vocabulary(labels):
    with pytest.raises(ValueError, match="Give a vocabulary"):
        trees.batch([Tree(labels, (-1, 0))])


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([-1, 0, 5], "node 2 of tree 3 has parent 5, but the tree has 3 nodes"),
        ([-1, -2], "node 1 of tree 3 has parent -2"),
        ([-1, 1], "node 1 of tree 3 is its own parent"),
        ([1, -1, -1], "node 2 of tree 3 is a second root .* beside node 1"),
        ([1, 0], "tree 3 has no root: none of its 2 nodes"),
        ([-1, 0, 3, 4, 2], "node 2 of tree 3 never reaches the root"),
        ([-1, 2, 3, 2], "node 1 of tree 3 never reaches the root"),
    ],
)
def test_validate_names_tree_and_node(parents, message):
    with pytest.raises(TreeError, match=message):
        trees.validate(parents, tree=3)
    with pytest.raises(TreeError):
        trees.from_parents(["x"] * len(parents), parents)


def test_a_tree_needs_a_parent_for_each_label():
    with pytest.raises(TreeError, match="features for 2 nodes, but parents for 1"):
        trees.from_parents(["a", "b"], [-1])
    with pytest.raises(TypeError):
        trees.validate([-1, 0.5])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(parents=st.lists(st.integers(-2, 6), max_size=6))
def test_validate_and_the_layer_refuse_the_same_parents_with_the_same_words(parents):
    refused = None
    try:
        trees.validate(parents)
    except TreeError as error:
        refused = str(error)
    features = tf.RaggedTensor.from_row_splits(tf.zeros([len(parents), 1]), [0, len(parents)])
    rows = tf.RaggedTensor.from_row_splits(tf.constant(parents, tf.int32), [0, len(parents)])
    if refused is None:
        LAYER([features, rows])
    else:
        with pytest.raises(TreeError) as caught:
            LAYER([features, rows])
        assert f"TreeRecursive: {refused}" in str(caught.value)


LAYER = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(1))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(nodes=st.integers(0, 30), seed=st.integers(0, 999))
def test_every_random_tree_is_valid_until_an_edge_is_bent_into_a_cycle(nodes, seed):
    parents = random_parents(nodes, np.random.default_rng(seed))
    trees.validate(parents)
    leaves = set(range(nodes)) - set(parents.tolist())
    inner = [node for node in range(nodes) if parents[node] >= 0 and node not in leaves]
    for node in inner[:1]:
        below = next(k for k in range(nodes) if parents[k] == node)
        bent = parents.copy()
        bent[node] = below
        with pytest.raises(TreeError, match="never reaches the root"):
            trees.validate(bent)


def sizes_of(batches):
    """The numbers of nodes in each batch of parents."""
    return [parents.row_lengths().numpy().tolist() for parents in batches]


def parents_of(sizes):
    generator = np.random.default_rng(0)
    rows = [random_parents(size, generator) for size in sizes]
    values = np.concatenate([np.zeros(0), *rows]).astype("int32")
    return tf.RaggedTensor.from_row_lengths(values, sizes)


def test_buckets_bring_trees_of_like_size_together_and_lose_none():
    sizes = np.random.default_rng(1).integers(0, 60, 300).tolist()
    dataset = tf.data.Dataset.from_tensor_slices(parents_of(sizes))
    batches = sizes_of(dataset.apply(trees.bucket_by_nodes(200)))
    assert sorted(chain(*batches)) == sorted(sizes)
    for batch in batches:
        assert sum(batch) <= 200
        assert max(batch) <= 1 + 1.25 * min(batch)
    plain = [sum(batch) for batch in sizes_of(dataset.batch(7))]
    full = [sum(batch) for batch in batches if sum(batch) > 100]
    assert np.std(full) < 0.5 * np.std(plain)
    # What is not full comes at the end, and can be left out.
    kept = sizes_of(dataset.apply(trees.bucket_by_nodes(200, drop_remainder=True)))
    assert kept == batches[: len(kept)]
    assert len(kept) > 30


@settings(max_examples=15, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(0, 40), max_size=30), most=st.integers(1, 50))
def test_no_batch_of_several_trees_has_more_nodes_than_the_bound(sizes, most):
    dataset = tf.data.Dataset.from_tensor_slices(parents_of(sizes))
    batches = sizes_of(dataset.apply(trees.bucket_by_nodes(most)))
    assert sorted(chain(*batches)) == sorted(sizes)
    assert all(sum(batch) <= most or len(batch) == 1 for batch in batches)


def test_all_that_belongs_to_a_tree_stays_with_it():
    parents = parents_of([4, 9, 1, 0, 5, 9, 1, 4])
    number = tf.ragged.range(parents.row_lengths())
    leaves = tf.RaggedTensor.from_row_lengths(tf.zeros([8, 3]), [1] * 8)
    vectors = tf.reshape(tf.range(16.0), [8, 2])
    elements = {"x": (number, parents, leaves), "id": tf.range(8), "vector": vectors}
    batches = list(tf.data.Dataset.from_tensor_slices(elements).apply(trees.bucket_by_nodes(18)))
    seen = []
    for batch in batches:
        numbers, rows, features = batch["x"]
        assert features.shape.as_list() == [len(batch["id"]), None, 3]
        assert rows.to_list() == tf.gather(parents, batch["id"]).to_list()
        assert numbers.to_list() == tf.gather(number, batch["id"]).to_list()
        np.testing.assert_array_equal(batch["vector"], tf.gather(vectors, batch["id"]))
        seen += batch["id"].numpy().tolist()
    assert sorted(seen) == list(range(8))
    assert len(batches) < 8


def test_buckets_of_generated_trees_feed_a_model_and_the_same_order_gives_the_same_batches():
    rows = [random_parents(size, np.random.default_rng(size)) for size in (3, 8, 2, 3, 8, 1)]
    spec = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, 2], tf.float32)
    generated = tf.data.Dataset.from_generator(
        lambda: ((row, np.ones((len(row), 2))) for row in rows), output_signature=spec
    )
    batches = generated.apply(trees.bucket_by_nodes(16))
    assert sizes_of(p for p, _ in batches) == sizes_of(p for p, _ in batches)
    layer = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(3))
    scheduled = batches.map(lambda parents, x: (trees.schedule(parents), parents, x))
    for schedule, parents, features in scheduled:
        np.testing.assert_allclose(
            layer([features, schedule]), layer([features, parents]), atol=1e-6
        )


@pytest.mark.parametrize("value", [0, -3, 2.5, True, "9"])
def test_buckets_hold_a_positive_number_of_nodes(value):
    with pytest.raises(ValueError, match=f"`nodes_per_batch` must be .* Received: {value!r}"):
        trees.bucket_by_nodes(value)


def test_buckets_are_for_single_trees():
    dataset = tf.data.Dataset.from_tensor_slices(parents_of([3, 2]))
    with pytest.raises(ValueError, match=r"must be single trees.* dataset\.unbatch\(\) first"):
        dataset.batch(2).apply(trees.bucket_by_nodes(9))
    dense = tf.data.Dataset.from_tensor_slices(tf.constant([[-1, 0], [-1, 0]]))
    with pytest.raises(ValueError, match=r"no tensor .* has a first axis of unknown size"):
        dense.apply(trees.bucket_by_nodes(9))


def test_building_trees_loads_neither_tensorflow_nor_nltk():
    script = (
        "import sys; from keras_blocks import trees;"
        "trees.from_sexpr('(A b)'); trees.from_ast('x'); trees.Vocabulary.of([]);"
        "sys.exit(bool({'tensorflow', 'keras', 'nltk'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


class Branching:
    children = ()


@pytest.mark.parametrize(
    ("item", "mend"),
    [
        ({"a": [1, 2]}, "has children or keys of its own.*nested lists"),
        (ElementTree.fromstring("<a><b/></a>"), r"\[element.tag, child"),
        (ast.parse("x"), "trees.from_ast"),
        (nltk.Tree("S", ["a"]), "trees.from_nltk"),
        ({1, 2}, "has children"),
        (Branching(), "has children"),
    ],
)
def test_what_has_parts_of_its_own_is_no_label(item, mend):
    with pytest.raises(TreeError, match=f"from_nested: node 1 of tree 0 is .*{mend}"):
        trees.from_nested(["S", item])


def test_what_has_parts_of_its_own_is_no_leaf_of_nltk():
    with pytest.raises(TreeError, match=r"from_nltk: node 1 of tree 0 is .* is no label"):
        trees.from_nltk(nltk.Tree("S", [["a"]]))


def test_vectors_and_numbers_are_labels():
    labels = trees.from_nested([np.ones(2), np.zeros(2), 3, None]).labels
    assert labels[2:] == (3, None)
    np.testing.assert_array_equal(labels[0], np.ones(2))
