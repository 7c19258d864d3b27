"""Sums of products of two tensors, as one product of matrices.

onnxruntime's Einsum arranges its matrices anew each time it runs, and tf2onnx's own rewriting tries
every order of the letters: minutes for an attention over two axes. Dense layers over several axes
and attention are such sums; as products they take 0.5 to 0.8 of the time.

The letters of `btnh,bsnh->bnts` are of four kinds: those in all three parts run along both (`b`,
`n`), those in the inputs alone are summed over (`h`), and each input has its own (`t`; `s`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from onnx import TensorProto
from tf2onnx.onnx_opset.math import Einsum

from keras_blocks.export.lowerings.ops.node_builder import constant
from keras_blocks.export.lowerings.registry import converts

_NATIVE = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
# In the shape that a Reshape takes, the size that the input has at that place.
_COPIED = 0
_UNKNOWN = -1


@converts("Einsum")
def convert_einsum(context: Any, node: Any, name: str, args: Any) -> None:
    """A MatMul between reshapes and transposes; ONNX's Einsum where it is none."""
    equation = _Equation.of(context, node)
    products = [] if equation is None else equation.products()
    if not products:
        Einsum.version_12(context, node)
        return
    _build(context, node, min(products, key=lambda product: product.transposes))


@dataclass(frozen=True)
class _Equation:
    """The letters of both inputs and of the result, and what is known of their sizes."""

    inputs: tuple[str, str]
    result: str
    sizes: Mapping[str, int]
    constants: tuple[bool, bool]

    @classmethod
    def of(cls, context: Any, node: Any) -> _Equation | None:
        """None where it has not two inputs of known rank, each letter once."""
        text = node.get_attr_value("equation").decode().replace(" ", "")
        given, arrow, result = text.partition("->")
        inputs = given.split(",")
        shapes = [context.get_shape(tensor) for tensor in node.input]
        if not arrow or len(inputs) != 2 or None in shapes:
            return None
        if context.get_dtype(node.input[0]) not in _NATIVE:
            return None
        if "..." in text:
            if sum("..." in letters for letters in inputs) != 1 or "..." not in result:
                return None  # what both have in common may be of size 1 in one of them
            inputs, result = _spelled_out(inputs, result, shapes)
        if any(len(set(part)) < len(part) for part in (*inputs, result)):
            return None
        sizes: dict[str, int] = {}
        for letters, shape in zip(inputs, shapes, strict=True):
            for letter, size in zip(letters, shape, strict=True):
                sizes[letter] = max(size, sizes.get(letter, _UNKNOWN))
        constants = tuple(part.is_const() for part in node.inputs)
        return cls((inputs[0], inputs[1]), result, sizes, (constants[0], constants[1]))

    def products(self) -> list[_Product]:
        """The products of matrices that give it, with the one or the other input first."""
        found = [_Product.of(self, first) for first in (0, 1)]
        return [product for product in found if product is not None]


@dataclass(frozen=True)
class _Reordered:
    """A tensor transposed, then reshaped; None for what is not needed."""

    permutation: tuple[int, ...] | None
    shape: tuple[int, ...] | None

    @classmethod
    def of(cls, letters: str, groups: Sequence[str], sizes: Mapping[str, int]) -> _Reordered | None:
        """Each group of letters becomes one axis. None where a size would have to be known."""
        order = "".join(groups)
        permutation = None if order == letters else tuple(letters.index(c) for c in order)
        if all(len(group) == 1 for group in groups):
            return cls(permutation, None)
        shape, place = [], 0
        for axis, group in enumerate(groups):
            known = [sizes[c] for c in group]
            if _UNKNOWN not in known:
                shape.append(prod(known))
            elif len(group) == 1 and place == axis:
                shape.append(_COPIED)
            else:
                return None
            place += len(group)
        return cls(permutation, tuple(shape))


@dataclass(frozen=True)
class _Product:
    """How a product of two matrices, or of stacks of them, gives an equation.

    Args:
        first: int, the input that is the first factor.
        factors: how the inputs become (along..., rows, summed) and (along..., summed, columns).
        split: the shape that gives rows and columns their axes back, or None.
        permutation: the order of the result's axes in it, or None.
        transposes: int, how many are left when constants are arranged once.
    """

    first: int
    factors: tuple[_Reordered, _Reordered]
    split: tuple[int, ...] | None
    permutation: tuple[int, ...] | None
    transposes: int

    @classmethod
    def of(cls, equation: _Equation, first: int) -> _Product | None:
        """None where it is no such product, or a size would have to be known."""
        left, right = equation.inputs[first], equation.inputs[1 - first]
        result, sizes = equation.result, equation.sizes
        along = [c for c in result if c in left and c in right]
        rows = "".join(c for c in result if c in left and c not in along)
        columns = "".join(c for c in result if c in right and c not in along)
        summed = "".join(c for c in left if c in right and c not in result)
        complete = {*along, *rows, *columns, *summed} == {*left, *right}
        if not complete or len(along) + len(rows) + len(columns) != len(result):
            return None
        if 0 in sizes.values():
            return None  # in a shape it would be a size to copy
        # A stack of matrices by one matrix.
        leading = along or list(rows[:-1])
        rows = rows if along else rows[-1:]
        ordered = _Reordered.of(left, [*leading, rows, summed], sizes)
        other = _Reordered.of(right, [*along, summed, columns], sizes)
        split = _split(leading, rows, columns, sizes)
        if ordered is None or other is None or split is None:
            return None
        given = "".join(leading) + rows + columns
        permutation = None if given == result else tuple(given.index(c) for c in result)
        constants = equation.constants[first], equation.constants[1 - first]
        moved = [
            factor.permutation is not None and not is_constant
            for factor, is_constant in zip((ordered, other), constants, strict=True)
        ]
        transposes = sum(moved) + (permutation is not None)
        return cls(first, (ordered, other), split or None, permutation, transposes)


def _split(
    leading: Sequence[str], rows: str, columns: str, sizes: Mapping[str, int]
) -> tuple[int, ...] | None:
    """The shape that takes merged rows and columns apart; empty where they are single axes, None
    where a size would have to be known."""
    if len(rows) == len(columns) == 1:
        return ()
    tail = [sizes[c] for c in rows + columns]
    if len(rows) == 1 and tail[0] == _UNKNOWN:
        tail[0] = _COPIED
    return None if _UNKNOWN in tail else (*(_COPIED for _ in leading), *tail)


def _spelled_out(
    inputs: Sequence[str], result: str, shapes: Sequence[Sequence[int]]
) -> tuple[list[str], str]:
    """With letters in place of the dots."""
    used = set("".join(inputs))
    spare = (chr(code) for code in range(ord("A"), ord("z") + 1) if chr(code).isalpha())
    free = [letter for letter in spare if letter not in used]
    (count,) = (
        len(shape) - len(letters) + len("...")
        for letters, shape in zip(inputs, shapes, strict=True)
        if "..." in letters
    )
    dots = "".join(free[:count])
    return [letters.replace("...", dots) for letters in inputs], result.replace("...", dots)


def _build(context: Any, node: Any, product: _Product) -> None:
    given = [node.input[product.first], node.input[1 - product.first]]
    outputs, shapes, dtypes = list(node.output), node.output_shapes, node.output_dtypes
    name = node.name
    context.remove_node(name)
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    factors = [
        _reordered(context, name, tensor, factor)
        for tensor, factor in zip(given, product.factors, strict=True)
    ]
    steps.append(("MatMul", factors, {}))
    if product.split is not None:
        steps.append(("Reshape", [constant(context, name, product.split)], {}))
    if product.permutation is not None:
        steps.append(("Transpose", [], {"perm": list(product.permutation)}))
    before: list[str] = []
    for index, (op_type, inputs, attributes) in enumerate(steps):
        last = index == len(steps) - 1
        to = {"outputs": outputs, "shapes": shapes, "dtypes": dtypes, "name": name} if last else {}
        before = context.make_node(op_type, [*before, *inputs], attr=attributes, **to).output[:1]


def _reordered(context: Any, name: str, tensor: str, how: _Reordered) -> str:
    if how.permutation is not None:
        attributes = {"perm": list(how.permutation)}
        tensor = context.make_node("Transpose", [tensor], attr=attributes).output[0]
    if how.shape is not None:
        shape = constant(context, name, how.shape)
        tensor = context.make_node("Reshape", [tensor, shape]).output[0]
    return tensor
