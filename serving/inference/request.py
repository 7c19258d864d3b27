"""What waits in a queue, how it may wait, and what may become of it but an answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Outputs = dict[str, np.ndarray]


class RunTiming(NamedTuple):
    """The run that a request was part of: its start as of time.monotonic, its length, its rows."""

    started: float
    seconds: float
    rows: int


@dataclass(eq=False, slots=True)
class QueuedRequest:
    """One request in the queue.

    Args:
        inputs: checked arrays.
        outputs: the wanted outputs.
        done: called once on the event loop, with the outputs or the exception, and then let go of:
            it holds what asks, which holds the job. Python frees both at once then.
        timeout: seconds, or None for the model's own.
    """

    inputs: dict[str, np.ndarray]
    outputs: Sequence[str]
    done: Callable[[Outputs | Exception], None] | None
    timeout: float | None = None
    rows: int = 1
    elements: int = 0
    key: Hashable = None
    arrived: float = 0.0
    deadline: float = 0.0
    queued: bool = False
    finished: bool = False
    ran: RunTiming | None = None
