"""An infer request of the protocol, whatever carried it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_blocks.errors import ContractError

_SEQUENCES = "no state is kept between requests; send a sequence whole"
_SHARED_MEMORY = "shared memory is not read; send the data"
_MEANT_ELSEWHERE = {
    "classification": "classes are not made here; take the scores",
    "priority": "requests have no priorities here",
    "sequence_id": _SEQUENCES,
    "sequence_start": _SEQUENCES,
    "sequence_end": _SEQUENCES,
    "shared_memory_region": _SHARED_MEMORY,
    "shared_memory_offset": _SHARED_MEMORY,
    "shared_memory_byte_size": _SHARED_MEMORY,
    "triton_enable_empty_final_response": "each request has one answer, which is its last",
}
_PLAIN_CONTENT = frozenset({"", "np", "str"})


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


def check_parameters(parameters: Mapping[str, Any], what: str) -> None:
    """Refuses what would be wrong to pass over in silence; what nobody knows is passed over.

    Args:
        parameters: of a request, an input or an output.
        what: whose they are, for the error.
    """
    for name, value in parameters.items():
        if name in _MEANT_ELSEWHERE and value not in (None, False, 0, "", "0"):
            raise ContractError(f"{what}: {name}: {_MEANT_ELSEWHERE[name]}")
        if name == "content_type" and not (isinstance(value, str) and value in _PLAIN_CONTENT):
            raise ContractError(
                f"{what}: content_type is {value!r:.40}: data is taken as it is; decode it "
                f"before it is sent"
            )


def check_change_parameters(parameters: Any, known: Collection[str]) -> None:
    """Refuses the parameters of a request to load or unload a model, but those without effect.

    Args:
        parameters: what came.
        known: those that ask for nothing that is not done anyway.
    """
    if not isinstance(parameters, Mapping):
        raise ContractError("'parameters' must be an object")
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ContractError(
            f"parameter '{unknown[0][:40]}' is unknown: a model is loaded and unloaded as it is in "
            f"the repository, without parameters"
        )
