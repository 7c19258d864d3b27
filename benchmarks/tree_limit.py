"""The limit: nothing but the matrix products of a batch of trees, in the engine that is measured.

Four counts, from the strictest on:

- `needed`: the products that the formulas need. W x for the gates i, o, u of leaves and i, o, u, f
  of inner nodes. Child-sum: U for i, o, u at each inner node, U_f at each child. N-ary: at each
  inner node arity * units times (3 + arity) * units. All nodes of the batch stand in one product,
  which no real tree can do for U, where a level waits for the level below. In training each weight
  has its gradient, one more product of the size, and U the gradient of its input, one more; the
  features are data, so nobody needs theirs.
- `with_features`: the same, and in training the gradient of the features too, which an embedding
  in front would need.
- `by_level`: `needed`, but every level is a product of its own, as the order of the tree demands.
- `all_gates`: four gates from W and from U at all nodes, leaves too, with both products of the
  backward pass for all: the looser figure that is often meant by "the arithmetic of a Tree-LSTM".

No sums over children, no gates, no gathering, no schedule: these are for the layer to pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
from one_thread import session_options
from tree_samples import Forest

OPSET, IR_VERSION = 18, 9


@dataclass(frozen=True)
class Product:
    """rows x inner by inner x columns.

    Args:
        passes_on: bool, whether training needs the gradient of the left side.
    """

    rows: int
    inner: int
    columns: int
    passes_on: bool = True

    def multiplications(self, training: bool = False) -> int:
        """How many there are, forward or in a step of training."""
        times = 2 + self.passes_on if training else 1
        return times * self.rows * self.inner * self.columns


def needed(forest: Forest, cell: str, features: int, units: int) -> list[Product]:
    """The products that the formulas need, each over all nodes at once."""
    is_inner = forest.children > 0
    inner, children = int(is_inner.sum()), int((forest.level > 0).sum())
    return _products(cell, forest.nodes - inner, inner, children, features, units)


def with_features(forest: Forest, cell: str, features: int, units: int) -> list[Product]:
    """The products that the formulas need when the features are to be trained."""
    products = needed(forest, cell, features, units)
    return [replace(product, passes_on=True) for product in products]


def by_level(forest: Forest, cell: str, features: int, units: int) -> list[Product]:
    """The products that the formulas need, level by level."""
    levels = forest.level.max() + 1
    nodes = np.bincount(forest.level, minlength=levels)
    inner = np.bincount(forest.level[forest.children > 0], minlength=levels)
    children = np.append(nodes[1:], 0)
    return [
        product
        for level in range(levels)
        for product in _products(
            cell,
            int(nodes[level] - inner[level]),
            int(inner[level]),
            int(children[level]),
            features,
            units,
        )
    ]


def _products(
    cell: str, leaves: int, inner: int, children: int, features: int, units: int
) -> list[Product]:
    own = [
        Product(leaves, features, 3 * units, passes_on=False),
        Product(inner, features, 4 * units, passes_on=False),
    ]
    if cell == "child-sum":
        states = [Product(inner, units, 3 * units), Product(children, units, units)]
    else:
        states = [Product(inner, 2 * units, 5 * units)]  # two children
    return [product for product in own + states if product.rows]


def all_gates(forest: Forest, cell: str, features: int, units: int) -> list[Product]:
    """Four gates (binary N-ary: five) at every node, leaf or not."""
    states = (units, 4 * units) if cell == "child-sum" else (2 * units, 5 * units)
    return [Product(forest.nodes, features, 4 * units), Product(forest.nodes, *states)]


def in_onnxruntime(products: Sequence[Product]) -> Callable[[], Any]:
    """The products in one file. Their results stay inside: giving them out costs, too."""
    file, feeds = onnx_file(products)
    session = onnxruntime.InferenceSession(file, unoptimized(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def unoptimized() -> onnxruntime.SessionOptions:
    """One thread, and no optimizer: it would drop products that nothing reads."""
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def onnx_file(products: Sequence[Product]) -> tuple[bytes, dict[str, np.ndarray]]:
    """The file, and what to feed it with. Products of one size share their operands."""
    make = onnx.helper
    feeds: dict[str, np.ndarray] = {}
    weights: dict[str, onnx.TensorProto] = {}
    nodes = [make.make_node("Shape", [_left(products[0])], ["shape"])]
    for place, product in enumerate(products):
        left, right = _left(product), f"w_{product.inner}_{product.columns}"
        feeds[left] = _random(product.rows, product.inner)
        kernel = _random(product.inner, product.columns)
        weights[right] = onnx.numpy_helper.from_array(kernel, right)
        nodes.append(make.make_node("MatMul", [left, right], [f"y_{place}"]))
    inputs = [
        make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        for name, array in feeds.items()
    ]
    outputs = [make.make_tensor_value_info("shape", onnx.TensorProto.INT64, [2])]
    graph = make.make_graph(nodes, "products", inputs, outputs, list(weights.values()))
    opsets = [make.make_opsetid("", OPSET)]
    model = make.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return model.SerializeToString(), feeds


def in_tensorflow(products: Sequence[Product], training: bool) -> Callable[[], Any]:
    """The products, in training with those of the backward pass."""
    # As variables, they are not folded into constants.
    taken = [
        tuple(
            tf.Variable(_random(*shape))
            for shape in (
                (product.rows, product.inner),
                (product.inner, product.columns),
                (product.rows, product.columns),
            )
        )
        for product in products
    ]

    @tf.function(jit_compile=False)
    def run() -> tf.Tensor:
        results = []
        for product, (left, right, gradient) in zip(products, taken, strict=True):
            results.append(tf.matmul(left, right))
            if training:
                results.append(tf.matmul(left, gradient, transpose_a=True))
            if training and product.passes_on:
                results.append(tf.matmul(gradient, right, transpose_b=True))
        # One number of each, so that none is dropped and none is given out.
        return tf.stack([result[0, 0] for result in results])

    return run


def _left(product: Product) -> str:
    return f"x_{product.rows}_{product.inner}"


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")
