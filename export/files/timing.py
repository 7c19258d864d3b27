"""How long two things take beside each other: in turns, so that what else the machine does hits
both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

ROUNDS = 41  # of each; an odd number has a middle
FEWEST_ROUNDS = 3
SECONDS = 1.0  # for all of it, where the fewest rounds allow


def medians(
    runs: Sequence[Callable[[], object]], rounds: int = ROUNDS, seconds: float = SECONDS
) -> list[float]:
    """The median time of each in seconds; who goes first changes with every round."""
    for run in runs:
        run()  # the first one allocates what the others find
    times: list[list[float]] = [[] for _ in runs]
    ending = time.perf_counter() + seconds
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and time.perf_counter() > ending:
            break
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for index in order:
            started = time.perf_counter()
            runs[index]()
            times[index].append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]
