"""What waits in a queue, how it may wait, and what may become of it but an answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from keras_blocks.errors import KerasBlocksError

Outputs = dict[str, np.ndarray]


class OverloadedError(KerasBlocksError):
    """The queue is full."""


class DeadlineError(KerasBlocksError):
    """A request was not answered within its time."""


class StoppingError(KerasBlocksError):
    """The model takes no more requests."""


@dataclass(frozen=True)
class BatchSettings:
    """How requests wait and share runs.

    Args:
        max_batch_size: int, most rows of one run; a larger request runs alone.
        max_batch_elements: int, most ragged values of one run, the inputs taken together.
        max_queue_delay_ms: float, how long a request may wait for company while nothing runs.
        max_queue_size: int, most requests that wait; further ones are refused.
        timeout_seconds: float, how long a request may take that names no time of its own.
        runs_at_once: int, how many runs of the model go on at once; by default as many as cores.
    """

    max_batch_size: int = 64
    max_batch_elements: int = 2**16
    max_queue_delay_ms: float = 0.0
    max_queue_size: int = 1024
    timeout_seconds: float = 60.0
    runs_at_once: int = field(default_factory=lambda: max(2, os.cpu_count() or 1))


class Ran(NamedTuple):
    """The run that a request was part of: its start as of time.monotonic, its length, its rows."""

    started: float
    seconds: float
    rows: int


@dataclass(eq=False, slots=True)
class Job:
    """One request in the queue.

    Args:
        inputs: checked arrays.
        outputs: the wanted outputs.
        done: called once on the event loop, with the outputs or the exception.
        timeout: seconds, or None for the model's own.
    """

    inputs: dict[str, np.ndarray]
    outputs: Sequence[str]
    done: Callable[[Outputs | Exception], None]
    timeout: float | None = None
    rows: int = 1
    elements: int = 0
    key: Hashable = None
    arrived: float = 0.0
    deadline: float = 0.0
    queued: bool = False
    finished: bool = False
    ran: Ran | None = None
