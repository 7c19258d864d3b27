"""A progress bar for work that turns out to take longer than a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

PATIENCE = 1.0  # seconds; shorter work needs no bar

Item = TypeVar("Item")


def tracked(items: Sequence[Item], text: str, verbose: bool | None = None) -> Iterator[Item]:
    """Yields the items, with a bar on stderr once that takes more than `PATIENCE`.

    Args:
        items: what to go through.
        text: what is being done, shown beside the bar.
        verbose: bool, False never shows a bar, True shows it from the start; None waits.
    """
    started = time.perf_counter()
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(text, total=len(items))
    shown = False
    try:
        for done, item in enumerate(items):
            bar.update(task, completed=done)
            late = time.perf_counter() - started > PATIENCE
            if not shown and (verbose or (verbose is None and late)):
                bar.start()
                shown = True
            yield item
    finally:
        if shown:
            bar.stop()


@contextmanager
def shown(text: str, verbose: bool | None = None) -> Iterator[None]:
    """Shows on stderr that something is being done, once it takes more than `PATIENCE`.

    Args:
        text: what is being done.
        verbose: bool, False never shows it, True shows it from the start; None waits.
    """
    status = Console(stderr=True).status(text)
    timer = threading.Timer(0.0 if verbose else PATIENCE, status.start)
    if verbose is not False:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join() if timer.ident else None
        status.stop()
