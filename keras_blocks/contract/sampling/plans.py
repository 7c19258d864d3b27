"""Which shapes a proof tries, and what is put into them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.sampling.values import bounds, is_ids, is_image

MOST_IDS = 8192  # of a larger vocabulary this many ids are drawn


@dataclass(frozen=True)
class Plan:
    """What a sample looks like.

    Args:
        lengths: of the rows, whose number is the batch; only ragged inputs read the values.
        size: of the named dims; 1, the case most often frozen, is the least that a dim allows.
        apart: the second, third ... named dim and ragged input get other sizes than the first.
        blanks: "front", "middle", "tail", "rows" or None: where zeros are put.
        trees: the shape of the trees.
        scale: of the floats.
        pixels: whether images hold whole numbers from 0 to 255.
        as_one: whether all named dims have one size, from the most that any of them asks for on.
    """

    lengths: tuple[int, ...]
    size: int = 4
    apart: bool = False
    blanks: str | None = None
    trees: str = "binary"
    scale: float = 1.0
    pixels: bool = False
    as_one: bool = False

    @property
    def kind(self) -> tuple[bool, str | None, float, bool]:
        """All but the sizes."""
        return self.apart, self.blanks, self.scale, self.pixels


def dense(batch: int, size: int, **rest: object) -> Plan:
    """The plan of `batch` rows as long as the named dims."""
    return Plan((size,) * batch, size, **rest)  # type: ignore[arg-type]


# Sizes: 1, primes, powers of two and one more, for kernels that work in blocks of 4, 8 or 16.
DENSE_PLANS = (
    dense(1, 1),
    dense(1, 7, blanks="tail"),
    dense(2, 2),
    dense(2, 3, apart=True),
    dense(3, 16, blanks="front"),
    dense(5, 17, blanks="rows"),
    dense(7, 3, blanks="middle"),
    dense(3, 9, scale=10.0),
    dense(17, 5, apart=True, blanks="middle"),
    dense(1, 33),
)
RAGGED_PLANS = (
    Plan((1,), 1),
    Plan((7,), 2),
    Plan((3, 1), 3, blanks="tail"),
    Plan((0, 4, 2), 5, trees="chain"),
    Plan((5, 0, 0, 7), 2, blanks="front"),
    Plan((6, 0), 1, apart=True, trees="star"),
    Plan((0,), 3),
    Plan((0, 0, 0), 2),
    Plan((), 2),
    Plan((1, 1, 1), 7, blanks="rows"),
    Plan((9, 4, 2), 3, scale=10.0, trees="chain"),
    Plan((16, 1, 17, 3, 2), 16, trees="random", blanks="middle"),
    Plan((16, 1, 17, 3, 2), 5, trees="binary"),
    Plan((2, 9, 5), 17, apart=True, trees="random"),
    Plan((33, 2, 0, 5, 11, 7, 1), 17, trees="chain"),
)
# One of each kind of trap: a single step, dims of their own, a mask in front and between, large
# numbers, an empty row, no rows, trees of any shape.
_FEW_DENSE = tuple(DENSE_PLANS[i] for i in (0, 3, 4, 7, 8))
_FEW_RAGGED = tuple(RAGGED_PLANS[i] for i in (2, 5, 8, 10, 11))
# In an export small batches of trees take a way of their own; these nodes are too many for it, also
# where the model has one row.
_MANY_NODES = Plan((1040, 33, 0, 5), 5, trees="random")
# For models that refuse short inputs: deep stacks of unpadded windows, image backbones.
LARGER_PLANS = tuple(
    dense(batch, size, apart=True) for batch, size in ((2, 47), (1, 65), (3, 128), (2, 225))
)
# For models that take none of them, such as sound beside its mask, both of one length.
AS_ONE_PLANS = tuple(
    dense(batch, size, as_one=True) for batch, size in ((2, 47), (1, 128), (2, 225), (1, 1024))
)
_MAGNITUDES = (0.01, 100.0)
_CROWD_LENGTHS = (16, 1, 17, 3, 2, 0, 33, 9)


def plans_of(contract: Contract, shapes: str = "all") -> tuple[Plan, ...]:
    """The plans for a contract, small ones first.

    Args:
        contract: the inputs.
        shapes: "few", "all" or "many" (see `levels`).
    """
    ragged = any(spec.ragged for spec in contract.inputs)
    plans: tuple[Plan, ...] = RAGGED_PLANS if ragged else DENSE_PLANS
    if shapes == "few":
        plans = _FEW_RAGGED if ragged else _FEW_DENSE
    if any(map(is_image, contract.inputs)):
        plans += (dense(2, 8, pixels=True),)
    plans += tuple(_vocabulary_plans(contract))
    if any(spec.tree_of for spec in contract.inputs):
        plans += (_MANY_NODES,)
    if shapes == "many":
        middle = plans[len(plans) // 2]
        again = tuple(replace(plan, blanks=_next_blanks(plan.blanks)) for plan in plans)
        magnitudes = tuple(replace(middle, scale=scale) for scale in _MAGNITUDES)
        plans += again + magnitudes + (() if ragged else LARGER_PLANS[:2])
    return plans


def moved_plans(tried: Iterable[tuple[Plan, bool]]) -> tuple[Plan, ...]:
    """What the model never met, since it refused the sizes for it, in sizes that it takes.

    Args:
        tried: plans of dense inputs, and whether the model took them.
    """
    tried = list(tried)
    sizes = sorted({plan.size for plan, taken in tried if taken})
    met = {plan.kind for plan, taken in tried if taken}
    moved: dict[tuple[bool, str | None, float, bool], Plan] = {}
    for plan, taken in tried:
        if sizes and not taken and plan.kind not in met:
            size = next((size for size in sizes if size > plan.size), sizes[-1])
            rows = (size,) * len(plan.lengths)
            moved.setdefault(plan.kind, replace(plan, size=size, lengths=rows))
    return tuple(moved.values())


def crowd(plan: Plan, rows: int, ragged: bool) -> Plan:
    """A plan with as many rows, for kernels that share large inputs out among threads."""
    lengths = _CROWD_LENGTHS if ragged else plan.lengths or (plan.size,)
    cycled = tuple(itertools.islice(itertools.cycle(lengths), rows))
    return replace(plan, lengths=cycled, trees="random", blanks="tail")


def with_fixed_batch(plan: Plan, contract: Contract) -> Plan:
    """The plan with as many rows as the model has, where that number is fixed."""
    first_dims = [spec.shape[0] for spec in contract.inputs if spec.shape and not spec.ragged]
    fixed = [dim for dim in first_dims if isinstance(dim, int)]
    if len(fixed) < len(first_dims):
        fixed = [dim for dim in fixed if dim > 1]  # one row for all is no batch
    if not fixed:
        return plan
    rows = plan.lengths or (1,)
    return replace(plan, lengths=tuple(rows[i % len(rows)] for i in range(fixed[0])))


def _next_blanks(blanks: str | None) -> str | None:
    """Another place for the blanks, so that each shape meets two."""
    order = ("front", "middle", "tail", "rows", None)
    return order[(order.index(blanks) + 1) % len(order)]


def _vocabulary_plans(contract: Contract) -> Iterator[Plan]:
    """One plan with room for every token id, in rows so short that no id is forgotten again."""
    counts = [bounds(spec)[1] - bounds(spec)[0] + 1 for spec in contract.inputs if is_ids(spec)]
    if counts:
        steps = min(_steps(spec) for spec in contract.inputs if is_ids(spec))
        rows = math.ceil(min(max(counts), MOST_IDS) / steps)
        yield Plan((steps,) * rows, steps, trees="chain")


def _steps(spec: TensorSpec) -> int:
    if spec.leaves_of:
        return 1  # a chain has one leaf
    fixed = math.prod(n for n in spec.shape[1:] if isinstance(n, int))
    dynamic = spec.ragged or any(isinstance(n, str) for n in spec.shape[1:])
    return 3 * fixed if dynamic else max(fixed, 1)
