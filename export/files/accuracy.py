"""How many of the labels that a user gives an output meets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_blocks.errors import ContractError

_LIKELY = 0.5  # an output of a single value says "yes" above it


def by_output(labels: Any, outputs: list[str]) -> dict[str, np.ndarray]:
    """Labels by output; those without a name belong to the first."""
    named = labels if isinstance(labels, Mapping) else {outputs[0]: labels}
    for name in named:
        if name not in outputs:
            raise ContractError(
                f"labels: output '{name}' is unknown; the file has {', '.join(outputs)}", name
            )
    return {name: np.asarray(values) for name, values in named.items()}


def accuracy(output: np.ndarray, labels: np.ndarray, name: str) -> float:
    """The share of labels that an output meets.

    Of several values in the last axis the largest is the class; a single one is a yes above 0.5.

    Args:
        output: array of shape (..., classes), (..., 1) or (...).
        labels: class numbers of shape (...) or (..., 1), or as many values as the output has.
        name: str, of the output, for errors.
    Raises:
        ContractError: the labels have another shape.
    """
    classes = output.shape[-1] if output.ndim > 1 else 1
    if labels.shape == output.shape and classes > 1:
        labels = labels.argmax(-1)
    said = output.argmax(-1) if classes > 1 else (output > _LIKELY).astype("int64")
    for fitting in (labels, labels[..., 0] if labels.ndim else labels, labels[..., np.newaxis]):
        if fitting.shape == said.shape and said.size:
            return float((said == (fitting > _LIKELY if classes == 1 else fitting)).mean())
    raise ContractError(
        f"labels of output '{name}' have shape {list(labels.shape)}, but the given inputs make an "
        f"output of shape {list(output.shape)}; give one label for each of its rows",
        name,
    )
