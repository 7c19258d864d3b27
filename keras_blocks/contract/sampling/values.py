"""The values of a sample: within the bounds of an input, with blanks where steps may be missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from keras_blocks.contract import TensorSpec
from keras_blocks.errors import ExportError

DEFAULT_INTEGERS = (0, 7)  # for integers of which the contract gives no bounds
GIVE_INPUTS = (
    "Write the file without the proof (verify=False, --no-verify), and prove it on inputs that the "
    "model accepts: check_parity(model, filepath, inputs=...), or keras-blocks check --inputs."
)


def draw_values(
    spec: TensorSpec,
    shape: tuple[int, ...],
    scale: float,
    generator: np.random.Generator,
    pixels: bool = False,
) -> np.ndarray:
    """Random values for an input: normal floats times `scale`, integers over all they may be.

    Integers without bounds are small ids, or with a larger `scale` that many times as large, and
    negative ones too; a model that looks them up refuses those.

    With `pixels` an image holds whole numbers from 0 to 255.

    Raises:
        ExportError: nothing can be drawn for the input's dtype.
    """
    kind = kind_of(spec)
    if kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if kind in "iu":
        return _draw_integers(spec, shape, scale, generator)
    if kind != "f":
        raise ExportError(
            f"No samples can be drawn for input '{spec.name}' of dtype {spec.dtype}. {GIVE_INPUTS}"
        )
    values = generator.normal(scale=scale, size=shape)
    if pixels and is_image(spec):
        values = generator.integers(0, 256, shape).astype("float64")
    if spec.minimum is not None and spec.maximum is not None:
        values = generator.uniform(spec.minimum, spec.maximum, shape)
    return np.clip(values, spec.minimum, spec.maximum).astype(spec.dtype)


def _draw_integers(
    spec: TensorSpec, shape: tuple[int, ...], scale: float, generator: np.random.Generator
) -> np.ndarray:
    low, high = bounds(spec)
    if scale > 1 and is_any_integer(spec):
        low, high = -round(scale * high), round(scale * high)
    values = generator.integers(low, high, shape, endpoint=True).astype(spec.dtype)
    flat = values.reshape(-1)
    if is_ids(spec) and flat.size > high - low:
        flat[: high - low + 1] = generator.permutation(np.arange(low, high + 1))
    elif flat.size:
        # Both bounds; a blank may still come over one of them.
        flat[[-1, 0]] = low, high
    return values


def bounds(spec: TensorSpec) -> tuple[int, int]:
    """The least and the greatest integer to draw; a bound that is not given is guessed."""
    low, high = DEFAULT_INTEGERS if kind_of(spec) == "i" else (0, 255)
    if spec.minimum is not None:
        low, high = int(spec.minimum), int(spec.minimum) + high
    if spec.maximum is not None:
        high = int(spec.maximum)
    return min(low, high), high


def put_blanks(values: np.ndarray, spec: TensorSpec, lengths: Iterable[int], blanks: str) -> None:
    """Zeros, or what is masked, in some steps of the rows, in place; the first row stays."""
    nothing = spec.padding or 0
    if spec.ragged:
        ends = np.cumsum([0, *lengths])
        rows = [values[start:end] for start, end in itertools.pairwise(ends)]
    else:
        rows = list(values)
    for number, row in enumerate(rows):
        steps = len(row)
        # Rows differ in how many steps are blank, from none to all but one.
        blank = number % max(steps, 1)
        if blanks == "front":
            row[:blank] = nothing
        elif blanks == "tail":
            row[steps - blank :] = nothing
        elif blanks == "middle":
            row[1 : steps - 1 : 2] = nothing
        elif number % 2:
            row[:] = nothing
    if len(rows) == 1 and len(rows[0]) > 1:
        rows[0][0 if blanks == "front" else -1] = nothing


BLANKS_TEXT = {
    "front": "zeros in front",
    "middle": "zeros in between",
    "tail": "zeros at the end",
    "rows": "rows of zeros",
}


def has_steps(spec: TensorSpec) -> bool:
    """Whether zeros may mean steps that are not there."""
    above = spec.minimum is not None and spec.minimum > 0
    below = spec.maximum is not None and spec.maximum < 0
    if spec.tree_of or spec.edges_of or above or below:
        return False
    return len(spec.shape) + spec.ragged >= (3 if kind_of(spec) == "f" else 2)


def is_ids(spec: TensorSpec) -> bool:
    """Whether an input holds the ids of a vocabulary of known size."""
    drawn_freely = spec.tree_of is None and spec.edges_of is None
    return kind_of(spec) in "iu" and spec.maximum is not None and drawn_freely


def is_any_integer(spec: TensorSpec) -> bool:
    """Whether an input holds integers of which the contract gives no bounds: ids mostly, that a
    layer looks up without telling, and now and then numbers that may be below 0."""
    free = spec.minimum is None and spec.maximum is None
    return kind_of(spec) == "i" and free and spec.tree_of is None and spec.edges_of is None


def is_image(spec: TensorSpec) -> bool:
    """Whether an input of floats looks like images: one, three or four channels at either end."""
    if kind_of(spec) != "f" or spec.ragged or len(spec.shape) != 4:
        return False
    return bool({1, 3, 4} & {spec.shape[1], spec.shape[-1]})


def kind_of(spec: TensorSpec) -> str:
    """NumPy's letter for the kind of the dtype; "?" for one that NumPy does not have."""
    try:
        return np.dtype(spec.dtype).kind
    except TypeError:
        return "?"
