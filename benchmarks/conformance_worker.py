"""A process of its own for the cases: what crashes or hangs in it ends a case, not the run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from conformance_report import CRASHED

# A worker is replaced after this many tasks: TensorFlow keeps what it has traced.
MOST_TASKS = 150
STARTING_SECONDS = 180
READY = "ready"


@dataclass(frozen=True)
class Task:
    """A case, how it is exported and by which exporter."""

    case: str
    variant: str
    exporter: str


class Worker:
    """One process at a time, started anew when it has died, hung or grown old.

    Args:
        limit: float, the seconds for a task.
        serving: what the process runs, `serve`.
    """

    def __init__(self, limit: float, serving: Callable[[Connection], None] | None = None):
        self.limit = limit
        self._serving = serving or serve
        self._process: Any = None
        self._pipe: Any = None
        self._tasks = 0

    def cases(self) -> list[dict[str, Any]]:
        """The facts of every case."""
        return self._ask(None, STARTING_SECONDS)

    def attempt(self, task: Task) -> dict[str, Any]:
        """What came of a task: status, reason, loops, seconds."""
        if self._tasks >= MOST_TASKS:
            self.stop()
        self._tasks += 1
        started = time.monotonic()
        try:
            outcome = self._ask(task, self.limit)
        except TimeoutError:
            outcome = {"status": CRASHED, "reason": f"no end within {self.limit:g} s"}
        except (EOFError, ConnectionError):
            self._process.join()
            outcome = {"status": CRASHED, "reason": f"exit code {self._process.exitcode}"}
            self.stop()
        return {"loops": 0, **outcome, "seconds": round(time.monotonic() - started, 1)}

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process, self._tasks = None, 0

    def _ask(self, message: Any, limit: float) -> Any:
        if self._process is None:
            self._start()
        self._pipe.send(message)
        if not self._pipe.poll(limit):
            self.stop()
            raise TimeoutError
        return self._pipe.recv()

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=self._serving, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            if self._pipe.poll(STARTING_SECONDS) and self._pipe.recv() == READY:
                return
        raise RuntimeError(
            "The worker process does not start. `python -c 'import conformance_trials'` in its "
            "folder tells why."
        )


def serve(pipe: Connection) -> None:
    """Answers tasks with outcomes, and None with the list of cases, until the pipe closes."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    # TensorFlow and tf2onnx talk past Python's own streams.
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    # Only now, and only here: TensorFlow is not to be loaded in the process that watches.
    import conformance_trials
    import keras_cases

    pipe.send(READY)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        if task is None:
            pipe.send([facts_of(case) for case in keras_cases.all_cases()])
        else:
            case = keras_cases.case_of(task.case)
            pipe.send(asdict(conformance_trials.attempt(case, task.variant, task.exporter)))


def facts_of(case: Any) -> dict[str, Any]:
    """What the table wants to know of a case."""
    return {"case": case.name, "group": case.group, "layer": case.layer, "plain": case.plain}
