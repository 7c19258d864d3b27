"""A progress bar for work that turns out to take longer than a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, TaskID

PATIENCE = 1.0  # seconds; shorter work needs no bar

Item = TypeVar("Item")


class Bars:
    """The bars of one piece of work, which come up together."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._uncounted: TaskID | None = None

    def of(self, items: Sequence[Item], text: str) -> Iterator[Item]:
        """Yields the items, with their number and a bar beside the text."""
        task = self._progress.add_task(text, total=len(items))
        for number, item in enumerate(items, start=1):
            self._progress.update(task, description=f"{text} {number}/{len(items)}")
            yield item
            self._progress.advance(task)

    def doing(self, text: str) -> None:
        """Shows what is being done where it cannot be counted."""
        if self._uncounted is None:
            self._uncounted = self._progress.add_task(text, total=None)
        self._progress.update(self._uncounted, description=text)


@contextmanager
def bars(verbose: bool | None = None) -> Iterator[Bars]:
    """Bars on stderr, once the context takes more than `PATIENCE`.

    Args:
        verbose: bool, False never shows them, True shows them from the start; None waits.
    """
    progress = Progress(console=Console(stderr=True), transient=True)

    def stop() -> None:
        if progress.live.is_started:
            progress.stop()

    with _late(progress.start, stop, verbose):
        yield Bars(progress)


def tracked(items: Sequence[Item], text: str, verbose: bool | None = None) -> Iterator[Item]:
    """Yields the items, with a bar on stderr once that takes more than `PATIENCE`.

    Args:
        items: what to go through.
        text: what is being done, shown beside the bar.
        verbose: bool, False never shows a bar, True shows it from the start; None waits.
    """
    with bars(verbose) as shown_bars:
        yield from shown_bars.of(items, text)


@contextmanager
def shown(text: str, verbose: bool | None = None) -> Iterator[None]:
    """Shows on stderr that something is being done, once it takes more than `PATIENCE`.

    Args:
        text: what is being done.
        verbose: bool, False never shows it, True shows it from the start; None waits.
    """
    status = Console(stderr=True).status(text)
    with _late(status.start, status.stop, verbose):
        yield


@contextmanager
def _late(
    start: Callable[[], None], stop: Callable[[], None], verbose: bool | None
) -> Iterator[None]:
    """Calls `start` when the context has lasted for `PATIENCE`, and `stop` when it ends."""
    timer = threading.Timer(PATIENCE, start)
    if verbose:
        start()
    elif verbose is None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.ident:
            timer.join()
        stop()
