"""Several programs in turn, round after round, so that the machine's moods fall on all alike."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness import WARM_UPS, Timing, in_turns, seconds

FEWEST_ROUNDS = 7
# A turn takes at least so many seconds: one of 100 ms leaves the caches cold, and the first call of
# one of 1 ms behind it would be a third of three.
SHORTEST_TURN = 20e-3
# A contest that would take longer than this many seconds has fewer rounds.
LONGEST_CONTEST = 40.0
SLOW = 2.0

Clock = Callable[[int], float]
"""Called with a number of calls, it makes them and gives the seconds that one took."""


def clock(function: Callable[[], Any]) -> Clock:
    """The clock of a function of this process."""
    return lambda calls: seconds(function, calls)


def rounds(clocks: Mapping[str, Clock], runs: int) -> dict[str, list[float]]:
    """The seconds of a call of each, a figure for each round; see `in_turns`."""
    calls, expected = {}, 0.0
    for name, measure in clocks.items():
        quickest = min(_warm_ups(measure))
        calls[name] = max(1, round(SHORTEST_TURN / max(quickest, 1e-9)))
        expected += calls[name] * quickest
    runs = min(runs, max(FEWEST_ROUNDS, int(LONGEST_CONTEST / expected)))
    ready = [functools.partial(measure, calls[name]) for name, measure in clocks.items()]
    return dict(zip(clocks, in_turns(ready, runs), strict=True))


def _warm_ups(measure: Clock) -> Iterator[float]:
    """The first calls; a slow one is warm after one."""
    for _ in range(WARM_UPS):
        taken = measure(1)
        yield taken
        if taken > SLOW:
            break


def ratio(ours: Sequence[float], other: Sequence[float]) -> Timing:
    """Ours by the other: the median over the rounds, and the quartiles."""
    return Timing.of([a / b for a, b in zip(ours, other, strict=True)])
