"""What one request may ask for, so that a small body cannot take the machine's memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.values import refuse
from keras_blocks.errors import ContractError


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Args:
        body_bytes: greatest size of the body.
        padded_steps: greatest number of rows times steps of the longest row of a ragged input, and
            of rows times steps of an input of a recurrent model. Recurrent ops pad their rows, so
            one long row among many short ones costs this much, and each step some kilobytes.
        answer_bytes: greatest size of the arrays of an answer.
        empty_elements: greatest product of the other dims of a tensor without elements: the
            declared shape [0, 10**12] costs no byte here, but a sum over its first axis would.
        silent_seconds: how long to wait for the next piece of the body, or until the client takes
            the next piece of its answer; less than the time that the server takes for an orderly
            end.
        idle_seconds: how long a connection may stay open between two requests.
    """

    body_bytes: int = 16 * 2**20
    padded_steps: int = 2**20
    answer_bytes: int = 128 * 2**20
    empty_elements: int = 2**24
    silent_seconds: float = 20
    idle_seconds: float = 75


def check_limits(
    contract: Contract, inputs: Mapping[str, np.ndarray], limits: Limits, recurrent: bool = False
) -> None:
    """Checks valid inputs against the limits; `recurrent` says whether the model is.

    Raises:
        ContractError: names the input and the limit.
    """
    for spec in contract.inputs:
        if not spec.ragged:
            steps = math.prod(_free_sizes(spec, inputs[spec.name])) if recurrent else 0
            if steps > limits.padded_steps:
                raise refuse(
                    spec.name,
                    f"{steps} steps in all, at most {limits.padded_steps} allowed in one request "
                    f"(--max-steps)",
                )
            continue
        splits = inputs[spec.row_splits_name]
        if (len(splits) - 1) * len(inputs[spec.name]) <= limits.padded_steps:
            continue  # no row is longer than all of them
        sizes = splits[1:] - splits[:-1]
        longest = int(np.maximum.reduce(sizes, initial=0))
        if len(sizes) * longest > limits.padded_steps:
            raise refuse(
                spec.name,
                f"{len(sizes)} rows with a longest row of {longest} steps are "
                f"{len(sizes) * longest} steps when padded, at most {limits.padded_steps} "
                f"allowed (--max-steps); send long and short rows in separate requests",
            )


def _free_sizes(spec: TensorSpec, array: np.ndarray) -> list[int]:
    sizes = zip(array.shape, spec.shape, strict=False)
    return [size for size, dim in sizes if isinstance(dim, str)]


def check_answer(outputs: Mapping[str, np.ndarray], limits: Limits) -> None:
    """Checks the size of what a model gave.

    Raises:
        ContractError: it is too much for one answer.
    """
    size = sum(array.nbytes for array in outputs.values())
    if size > limits.answer_bytes:
        raise ContractError(
            f"the answer would have {size} bytes, at most {limits.answer_bytes} allowed; "
            f"send fewer rows, ask for fewer outputs, or have the server started with a larger "
            f"--max-answer-mb"
        )


def check_declared_shape(name: str, shape: list[int], limits: Limits) -> None:
    """Checks the shape of a tensor without elements; others are as large as their data."""
    if 0 not in shape:
        return
    others = math.prod(size for size in shape if size)
    if others > limits.empty_elements:
        raise refuse(
            name,
            f"shape {shape} has no elements, but its other dims multiply to {others}, "
            f"at most {limits.empty_elements} allowed",
        )
