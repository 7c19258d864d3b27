"""Batches of trees, and every kind of cell beside its formula: what the tests of trees share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tree_reference as reference
from hypothesis import strategies as st

import keras_blocks as kb
from keras_blocks import trees
from keras_blocks.contract.sampling.random_trees import SHAPES, random_edges, random_parents

UNITS = WIDTH = 4  # the tensor network's features are vectors like its own
ARITY = 3
WIDE = 6  # so many slots are no more kept for all nodes at once
LABELS = 3


@dataclass(frozen=True)
class Kind:
    """A cell and the formula that it stands for.

    Args:
        cell: makes the cell, or the plain layer.
        formula: the same in NumPy.
        arity: the most children of a node, or None.
        labels: how many labels edges have, or None.
        options: what `TreeRecursive` must be told about a plain layer.
    """

    cell: Callable[[], keras.layers.Layer]
    formula: Callable[..., tuple[np.ndarray, ...]]
    arity: int | None = None
    labels: int | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def layer(self, **settings: Any) -> kb.TreeRecursive:
        """The layer of this cell, with weights that are not small."""
        layer = kb.TreeRecursive(self.cell(), **dict(self.options), **settings)
        shapes: list[Any] = [(None, None, WIDTH), (None, None)]
        layer.build([*shapes, (None, None)] if self.labels else shapes)
        return randomized(layer)


def randomized(layer: keras.layers.Layer) -> Any:
    """The layer itself, its biases no longer zero and its gates no longer half open."""
    generator = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(size=weight.shape, scale=0.5))
    return layer


def plain() -> keras.layers.Layer:
    return keras.layers.Dense(UNITS, "tanh")


KINDS = {
    "child_sum": Kind(lambda: kb.ChildSumTreeLSTMCell(UNITS), reference.child_sum),
    "child_sum_labels": Kind(
        lambda: kb.ChildSumTreeLSTMCell(UNITS, edge_labels=LABELS),
        reference.child_sum,
        labels=LABELS,
    ),
    "n_ary": Kind(lambda: kb.NaryTreeLSTMCell(UNITS, ARITY), reference.n_ary, ARITY),
    "gru": Kind(lambda: kb.TreeGRUCell(UNITS), reference.gru),
    "n_ary_wide": Kind(lambda: kb.NaryTreeLSTMCell(UNITS, WIDE), reference.n_ary, WIDE),
    "tensor": Kind(lambda: kb.RecursiveTensorCell(UNITS, ARITY), reference.tensor, ARITY),
    "layer": Kind(plain, reference.dense_tanh(ARITY), ARITY, options=(("arity", ARITY),)),
    "layer_sum": Kind(plain, reference.dense_tanh_of(np.sum), options=(("combine", "sum"),)),
    "layer_mean": Kind(plain, reference.dense_tanh_of(np.mean), options=(("combine", "mean"),)),
    "layer_max": Kind(plain, reference.dense_tanh_of(np.max), options=(("combine", "max"),)),
}


@dataclass(frozen=True)
class Batch:
    """A batch of trees: for each its parents, its features, and the labels of its edges, if any."""

    parents: list[np.ndarray]
    features: list[np.ndarray]
    edges: list[np.ndarray] | None = None

    @property
    def splits(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.parents)])

    def inputs(self, scheduled: bool = False, forests: str = "refuse") -> list[tf.RaggedTensor]:
        """What the layer takes."""
        parents = ragged(self.parents, "int32")
        if scheduled:
            parents = trees.schedule(parents, forests)
        given = [ragged(self.features, "float32", WIDTH), parents]
        return given if self.edges is None else [*given, ragged(self.edges, "int32")]

    def on_leaves(self) -> Batch:
        """The same trees, with the features of their leaves alone."""
        leaves = [
            x[np.setdiff1d(np.arange(len(p)), p)]
            for x, p in zip(self.features, self.parents, strict=True)
        ]
        return replace(self, features=leaves)

    def permuted(self, generator: np.random.Generator) -> tuple[Batch, list[np.ndarray]]:
        """The same trees with their nodes in another order, and the order of each."""
        orders = [generator.permutation(len(p)) for p in self.parents]
        parents = []
        for old, order in zip(self.parents, orders, strict=True):
            place = np.append(np.argsort(order), -1)
            parents.append(place[old[order]])
        features = [x[order] for x, order in zip(self.features, orders, strict=True)]
        edges = self.edges and [e[order] for e, order in zip(self.edges, orders, strict=True)]
        return Batch(parents, features, edges), orders

    def alone(self, tree: int) -> Batch:
        """One of the trees."""
        return Batch(*(part and part[tree : tree + 1] for part in vars(self).values()))


def ragged(rows: list[np.ndarray], dtype: str, width: int | None = None) -> tf.RaggedTensor:
    """The rows as a ragged tensor."""
    nothing = np.zeros((0,) if width is None else (0, width))
    values = np.concatenate([nothing, *rows]).astype(dtype)
    return tf.RaggedTensor.from_row_splits(values, np.cumsum([0, *map(len, rows)]))


def batch_of(
    rows: list[Any], kind: Kind = KINDS["child_sum"], slots: bool = False, generator: Any = 0
) -> Batch:
    """Random features for these rows of parents, and what the kind asks for on the edges.

    `slots` says whether children get slots of their own where the kind has an arity.
    """
    generator = np.random.default_rng(generator)
    parents = [np.asarray(row, "int64").reshape(-1) for row in rows]
    features = [generator.normal(size=(len(row), WIDTH)).astype("float32") for row in parents]
    labels = kind.labels or (kind.arity if slots else None)
    edges = labels and [random_edges(p, labels, bool(kind.arity), generator) for p in parents]
    return Batch(parents, features, edges)


def random_rows(lengths: list[int], arity: int | None = None, seed: int = 0) -> list[np.ndarray]:
    """The parents of random trees of these sizes, their nodes in random order."""
    generator = np.random.default_rng(seed)
    return [random_parents(length, "random", generator, arity) for length in lengths]


def chain(length: int) -> np.ndarray:
    return np.arange(length) - 1


def star(leaves: int) -> np.ndarray:
    return np.append(-1, np.zeros(leaves, int))


@st.composite
def batches(draw: Any, kind: Kind, slots: bool | None = None, roots: int = 1) -> Batch:
    """Batches of trees of every shape and any order of nodes; with `roots`, forests of up to so
    many trees in a row. `slots` is drawn where it is None."""
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = []
    for length in draw(st.lists(st.integers(0, 9), max_size=4)):
        shape, count = draw(st.sampled_from(SHAPES)), draw(st.integers(1, roots))
        rows.append(random_parents(length, shape, generator, kind.arity, count))
    return batch_of(rows, kind, draw(st.booleans()) if slots is None else slots, generator)


def expected_nodes(layer: kb.TreeRecursive, kind: Kind, batch: Batch) -> list[np.ndarray]:
    """The vectors of all nodes of each tree, by the formula."""
    results = []
    for tree, parents in enumerate(batch.parents):
        features = batch.features[tree]
        if layer.features_on == "leaves":
            features = reference.on_all_nodes(features, parents)
        edges = None if batch.edges is None else batch.edges[tree]
        vectors = {}
        for way, cell in (("up", layer.cell), ("down", layer.down_cell or layer.cell)):
            # On the way down a parent stands in the first slot, whatever slots are given.
            given = edges if way == "up" or kind.labels else None
            of_way = reference.node_vectors(
                kind.formula, cell.get_weights(), features, parents, given, way
            )
            vectors[way] = of_way.reshape(len(parents), UNITS)
        vectors["both"] = reference.MERGES[layer.merge_mode](vectors["up"], vectors["down"])
        results.append(vectors[layer.direction])
    return results


def expected_roots(layer: kb.TreeRecursive, kind: Kind, batch: Batch) -> np.ndarray:
    """The vector of each tree's root, by the formula; those of a forest are summed."""
    vectors = expected_nodes(layer, kind, batch)
    pairs = zip(vectors, batch.parents, strict=True)
    sums = [x[p == -1].sum(axis=0) if len(p) else np.zeros(UNITS) for x, p in pairs]
    return np.reshape(sums, (len(sums), UNITS))
