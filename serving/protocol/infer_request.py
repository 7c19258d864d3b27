"""An infer request of the protocol, whatever carried it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_blocks.errors import ContractError

_UNKNOWN_PARAMETERS = {
    "shared_memory_region": "shared memory is not read; send the data",
    "classification": "classes are not made here; take the scores",
}


@dataclass(slots=True)
class InferRequest:
    """One decoded request.

    Args:
        inputs: the flat arrays of the graph.
        outputs: the wanted outputs, or None for all.
        id: what the client calls the request.
        binary: the outputs that are wanted as raw bytes; True for all.
        nested: whether ragged outputs are wanted as lists of rows.
        timeout: the seconds that the client waits, or None.
    """

    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...] | None = None
    id: str | None = None
    binary: Mapping[str, bool] = field(default_factory=dict)
    binary_by_default: bool = False
    nested: bool = False
    timeout: float | None = None


def read_timeout(microseconds: Any) -> float | None:
    """The seconds of a `timeout` parameter, which counts microseconds; 0 means none."""
    if microseconds is None or microseconds == 0:
        return None
    if type(microseconds) is not int or not 0 < microseconds < 2**63:
        raise ContractError(f"'timeout' must be a number of microseconds, got {microseconds!r:.40}")
    return microseconds / 1e6


def check_parameters(names: Any, what: str) -> None:
    """Refuses what would be wrong to pass over in silence."""
    for name in names:
        if name in _UNKNOWN_PARAMETERS:
            raise ContractError(f"{what}: {_UNKNOWN_PARAMETERS[name]}")
