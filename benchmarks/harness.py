"""Two programs raced side by side: interleaved runs, medians, one table, the versions beside it."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
RUNS = 25
# Shorter runs are repeated until the clock and the interpreter weigh little.
SHORTEST_RUN = 5e-3
WARM_UPS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median over the runs, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Race:
    """Ours beside the peer.

    Args:
        ratio: float, the median of our time by the peer's over neighbouring runs, which share the
            machine's moods: below 1 we are faster.
        spread: the quartiles of these ratios.
        runs: int, how many of each.
        calls: int, calls in a run.
    """

    ours: Timing
    peer: Timing
    ratio: float
    spread: tuple[float, float]
    runs: int
    calls: int


def race(ours: Callable[[], Any], peer: Callable[[], Any], runs: int = RUNS) -> Race:
    """Runs both in turn, each first in every other round, so that noise falls on both alike."""
    contestants = (ours, peer)
    for function in contestants:
        for _ in range(WARM_UPS):
            function()
    quickest = min(seconds(function, 1) for function in contestants)
    calls = max(1, round(SHORTEST_RUN / max(quickest, 1e-9)))
    clocks = [functools.partial(seconds, function, calls) for function in contestants]
    taken = in_turns(clocks, runs)
    pairs = Timing.of([a / b for a, b in zip(*taken, strict=True)])
    first, second = map(Timing.of, taken)
    return Race(first, second, pairs.median, (pairs.low, pairs.high), runs, calls)


def in_turns(clocks: Sequence[Callable[[], float]], runs: int) -> list[list[float]]:
    """What each clock says in each round; the rounds begin with each in turn.

    When all have begun once, the others follow backwards, so that none always follows the same.
    """
    taken: list[list[float]] = [[] for _ in clocks]
    places = list(range(len(clocks)))
    gc.collect()
    gc.disable()
    try:
        for turn in range(runs):
            cycle, start = divmod(turn, len(clocks))
            others = places[start + 1 :] + places[:start]
            for place in [start, *(others if cycle % 2 == 0 else reversed(others))]:
                taken[place].append(clocks[place]())
    finally:
        gc.enable()
    return taken


def seconds(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def surroundings(packages: Iterable[str]) -> dict[str, Any]:
    """What a figure hangs on: versions, processor, cores, and how busy the machine was."""
    return {
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def save(name: str, record: dict[str, Any], text: str, folder: Path = RESULTS) -> list[Path]:
    """Writes `name`.json and `name`.md; races in the record become plain JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    paths[0].write_text(json.dumps(record, indent=2, default=asdict) + "\n")
    paths[1].write_text(text)
    return paths


def milliseconds(timing: Timing) -> str:
    """A time for people."""
    value = 1e3 * timing.median
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def describe(facts: dict[str, Any]) -> str:
    """`surroundings` as a line of text."""
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    busy = facts["load_at_start"]
    return (
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores"
        + (f" (load {busy:.1f} when it started)" if busy is not None else "")
        + f", Python {facts['python']}, {packages}."
    )
