"""What was counted about a version of a model since the server started."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)
_MOST_TOLD_APART = 256  # rows; above it, counts are up to powers of two
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(slots=True)
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Counts `count` more, which took `seconds` together."""
        self.count += count
        self.seconds += seconds

    def merge(self, other: Duration) -> None:
        """Counts what another counted."""
        self.add(other.seconds, other.count)


class Histogram:
    """How often values up to each bound came.

    Args:
        bounds: rising; larger values are counted too.
    """

    __slots__ = ("_bounds", "_counts", "count", "total")

    def __init__(self, bounds: Sequence[float] = _SECONDS):
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.count += times
        self.total += value * times

    def merge(self, other: Histogram) -> None:
        """Counts what another one with the same bounds counted."""
        self._counts = [sum(pair) for pair in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.total += other.total

    def cumulative(self) -> list[tuple[str, int]]:
        """For each bound, and for +Inf, how many values were not larger.

        Example:
            >>> histogram = Histogram((1, 10))
            >>> for value in (1, 2, 99): histogram.add(value)
            >>> histogram.cumulative()
            [('1', 1), ('10', 2), ('+Inf', 3)]
        """
        sums, so_far = [], 0
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        for name, count in zip(names, self._counts, strict=True):
            so_far += count
            sums.append((name, so_far))
        return sums


@dataclass(slots=True)
class ModelStatistics:
    """Counts of one version of a model.

    Args:
        rows: rows that were computed.
        runs: runs of the graph; several requests may share one.
        refused: requests that found the queue full.
        expired: requests whose time was over before their answer.
        cancelled: requests whose client went away.
        success: requests with an answer, from their arrival to their outputs.
        fail: requests that the model could not run on.
        compute: what requests computed; those of one run share its time, each taking all of it.
        queue: what requests waited.
        latency: how long requests took, from their arrival to the end of their run.
        run: what runs took.
        batch_rows: rows of the runs.
        batches: rows of a run -> how long runs of so many rows took; large runs in classes.
        last: when the last run ended, in seconds since 1970.
        waiting: requests in the queue when the counts were taken.
    """

    rows: int = 0
    runs: int = 0
    refused: int = 0
    expired: int = 0
    cancelled: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    queue: Histogram = field(default_factory=Histogram)
    latency: Histogram = field(default_factory=Histogram)
    run: Histogram = field(default_factory=Histogram)
    batch_rows: Histogram = field(default_factory=lambda: Histogram(_ROWS))
    batches: dict[int, Duration] = field(default_factory=dict)
    last: float = 0.0
    waiting: int = 0

    def ran(
        self, rows: int, arrivals: Iterable[float], ended: float, seconds: float, failed: int
    ) -> None:
        """Counts one run of several requests.

        Args:
            rows: how many rows it had in all.
            arrivals: when each of its requests came.
            ended: when it was over, on the same clock.
            seconds: how long it took.
            failed: how many of its requests got no outputs.
        """
        began = ended - seconds
        waited, requests = 0.0, 0
        for arrival in arrivals:
            wait = max(began - arrival, 0.0)
            self.queue.add(wait)
            self.latency.add(wait + seconds)
            waited += wait
            requests += 1
        succeeded = requests - failed
        self.rows += rows
        self.runs += 1
        self.run.add(seconds)
        self.batch_rows.add(rows)
        self.compute.add(seconds * requests, requests)
        mean = waited / requests + seconds
        if succeeded:
            self.success.add(mean * succeeded, succeeded)
        if failed:
            self.fail.add(mean * failed, failed)
        known = rows if rows <= _MOST_TOLD_APART else 1 << (rows - 1).bit_length()
        self.batches.setdefault(known, Duration()).add(seconds)
        self.last = time.time()

    def merge(self, other: ModelStatistics) -> None:
        """Counts what another process counted of the same model."""
        for name in (entry.name for entry in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "last":
                self.last = max(mine, theirs)
            elif name == "batches":
                for rows, spent in theirs.items():
                    self.batches.setdefault(rows, Duration()).merge(spent)
            elif isinstance(mine, int):
                setattr(self, name, mine + theirs)
            else:
                mine.merge(theirs)


Counts = Mapping[tuple[str, int], ModelStatistics]
"""Model and version -> what was counted of it."""


def merged(parts: Iterable[Counts]) -> dict[tuple[str, int], ModelStatistics]:
    """What several processes counted together."""
    total: dict[tuple[str, int], ModelStatistics] = {}
    for part in parts:
        for key, counts in part.items():
            total.setdefault(key, ModelStatistics()).merge(counts)
    return total
