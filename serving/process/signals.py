"""SIGTERM and SIGINT as requests for an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn


@contextlib.contextmanager
def stop_signals(stopping: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for the end; a second one is as abrupt as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        stopping.set()
        restore()

    def restore() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    # The loop's own handlers wake it up, whichever thread the signal reaches.
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        restore()


@contextlib.contextmanager
def reload_signal(reload: Callable[[], None]) -> Iterator[None]:
    """SIGHUP has files read again, where there is such a signal."""
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(hang_up, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(hang_up)


def exit_now() -> NoReturn:
    """Ends the process as one that did its work, whatever its threads still do.

    Python would wait for a thread that loads a model, and nobody waits for the model.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
