"""Two ONNX files whose inputs and outputs belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_blocks.contract.feeds import Feed
from keras_blocks.runtime.runner import OnnxRunner, element_type


@dataclass(frozen=True)
class Pair:
    """Two files whose inputs and outputs belong together.

    Args:
        original, other: the files.
        inputs: name in the original -> name and NumPy dtype in the other.
        outputs: name in the original -> name in the other.
    """

    original: OnnxRunner
    other: OnnxRunner
    inputs: Mapping[str, tuple[str, str]]
    outputs: Mapping[str, str]

    def other_feed(self, feed: Feed) -> Feed:
        """The inputs of the original as those of the other file."""
        return {
            name: feed[own].astype(dtype, copy=False) for own, (name, dtype) in self.inputs.items()
        }

    def run_other(self, feed: Feed) -> dict[str, np.ndarray]:
        """The outputs of the other file, under the original's names."""
        found = self.other.run(self.other_feed(feed))
        return {name: found[theirs] for name, theirs in self.outputs.items()}


def paired(original: OnnxRunner, other: OnnxRunner) -> tuple[Pair | None, str | None, list[str]]:
    """The pair, or why there is none, and what a reader should know of it."""
    notes: list[str] = []
    matched = []
    for side, mine, theirs in (
        ("input", original.session.get_inputs(), other.session.get_inputs()),
        ("output", original.session.get_outputs(), other.session.get_outputs()),
    ):
        names = [node.name for node in mine], [node.name for node in theirs]
        if len(mine) != len(theirs):
            problem = f"the {side}s of one are {names[0]}, those of the other {names[1]}"
            return None, problem, notes
        if set(names[0]) == set(names[1]):
            by_name = {node.name: node for node in theirs}
            theirs = [by_name[name] for name in names[0]]
        else:
            notes.append(f"The {side}s have other names; they were matched in their order")
        for one, two in zip(mine, theirs, strict=True):
            misfit = _misfit(side, one, two)
            if misfit is not None:
                return None, misfit, notes
            if element_type(one) != element_type(two):
                notes.append(
                    f"{side.capitalize()} '{one.name}' is {element_type(one)} in one file and "
                    f"{element_type(two)} in the other"
                )
        matched.append(list(zip(mine, theirs, strict=True)))
    inputs = {one.name: (two.name, element_type(two)) for one, two in matched[0]}
    outputs = {one.name: two.name for one, two in matched[1]}
    return Pair(original, other, inputs, outputs), None, notes


def _misfit(side: str, one: Any, two: Any) -> str | None:
    """Why an input or output cannot belong to one of the other file."""
    shapes = list(one.shape or ()), list(two.shape or ())
    # onnxruntime gives an unknown rank as it gives a single number.
    known = all(shapes)
    fit = len(shapes[0]) == len(shapes[1]) and all(
        a == b for a, b in zip(*shapes, strict=True) if isinstance(a, int) and isinstance(b, int)
    )
    if known and not fit:
        return (
            f"{side} '{one.name}' has shape {shapes[0]} in one file, and '{two.name}' "
            f"{shapes[1]} in the other"
        )
    return None
