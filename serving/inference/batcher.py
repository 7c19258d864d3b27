"""The queue before a model: what arrives while it runs, runs together next."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from keras_blocks.contract import METADATA_KEY
from keras_blocks.runtime.malloc import resident_bytes
from keras_blocks.serving.errors import DeadlineError, OverloadedError, StoppingError
from keras_blocks.serving.inference.batch_plan import BatchPlan
from keras_blocks.serving.inference.request import Outputs, QueuedRequest, RunTiming
from keras_blocks.serving.inference.statistics import ModelStatistics
from keras_blocks.serving.model import Model
from keras_blocks.serving.repository.model_settings import BatchSettings
from keras_blocks.serving.status import without_frames

# A run this short costs less than handing it to a thread and back. Seconds of processor time.
_QUICK_SECONDS = 0.002
# After one run on the event loop that took this much, the model's runs leave it for a while.
_TOO_LONG_SECONDS = 0.05
_AWAY_SECONDS = 10
# What a run on the event loop may exceed the largest quick one by.
_GROWTH = 2
# How often the deadlines are looked at while something waits or runs.
_SWEEP_SECONDS = 0.05
# After a run that left the process so much larger, what onnxruntime keeps of it goes back.
_LARGE_BYTES = 16 * 2**20
_KEPT_SECONDS = 0.5
# The time of these depends on what is in a tensor, not on its size alone.
_LOOPS = frozenset({"Loop", "Scan"})
# So does the size of what these make; in files of our export it follows the sizes of the inputs.
_MAKERS = frozenset({"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile"})


@dataclass(slots=True)
class _Run:
    jobs: list[QueuedRequest]
    outcomes: list[Outputs | Exception] = field(default_factory=list)
    started: float = 0.0
    seconds: float = 0.0
    work: float = 0.0


class Batcher:
    """The queue of one model. All of it happens on the event loop, but the long runs.

    Args:
        model: what runs.
        plan: how requests share runs, or None if they must not.
        settings: sizes and times.
        executor: where long runs go.
        statistics: what is counted.
    """

    def __init__(
        self,
        model: Model,
        plan: BatchPlan | None,
        settings: BatchSettings,
        executor: Executor,
        statistics: ModelStatistics | None = None,
    ):
        self.model = model
        self.plan = plan
        self.settings = settings
        self.statistics = statistics or ModelStatistics()
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._groups: dict[
            Hashable, deque[QueuedRequest]
        ] = {}  # in each: the longest waiting first
        self._waiting = 0
        self._in_flight: dict[int, _Run] = {}
        self._woken = False
        self._sweep: asyncio.TimerHandle | None = None
        self._delay: asyncio.TimerHandle | None = None
        self._giving: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event | None = None
        unsteady = _LOOPS if METADATA_KEY in model.session.metadata else _LOOPS | _MAKERS
        self._away_until = math.inf if unsteady & set(model.facts.ops) else 0.0
        self._quick_size = 0
        self._most_rows, self._most_elements = settings.max_batch_size, settings.max_batch_elements
        if plan is not None:
            self._most_rows = min(self._most_rows, plan.most_rows)
            self._most_elements = min(self._most_elements, plan.most_elements)

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return self._waiting

    def submit(self, job: QueuedRequest) -> None:
        """Queues a request.

        Raises:
            OverloadedError: the queue is full.
            StoppingError: the model is being unloaded.
        """
        if self._idle is not None:
            raise StoppingError(f"model '{self.model.name}' is being unloaded")
        if self._waiting >= self.settings.max_queue_size:
            self.statistics.refused += 1
            raise OverloadedError(
                f"model '{self.model.name}' has {self._waiting} requests waiting, "
                f"at most {self.settings.max_queue_size} may; try again later"
            )
        job.arrived = self._loop.time()
        timeout = self.settings.timeout_seconds if job.timeout is None else job.timeout
        job.deadline = job.arrived + timeout
        job.key = job
        if self.plan is not None:
            job.rows = self.plan.count_rows(job.inputs)
            job.elements = self.plan.count_elements(job.inputs)
            if job.rows:  # without rows there is nothing to share
                job.key = self.plan.key(job.inputs)
        job.queued = True
        self._groups.setdefault(job.key, deque()).append(job)
        self._waiting += 1
        self._wake()

    def cancel(self, job: QueuedRequest) -> None:
        """Forgets a request: it leaves the queue, and nobody is told of its outcome."""
        if not job.finished:
            job.finished = True
            job.done = None
            self.statistics.cancelled += 1
            self._drop(job)

    async def stop(self) -> None:
        """Takes no more requests and returns when the queue is empty and nothing runs."""
        self._idle = asyncio.Event()
        if self._giving is not None:
            self._giving.cancel()
        if self._waiting or self._in_flight:
            await self._idle.wait()

    # The queue

    def _wake(self) -> None:
        # At the end of this turn of the loop: all requests that came in with it run together.
        if not self._woken and len(self._in_flight) < self.settings.runs_at_once:
            self._woken = True
            self._loop.call_soon(self._start_runs)

    def _start_runs(self) -> None:
        self._woken = False
        while self._waiting and len(self._in_flight) < self.settings.runs_at_once:
            jobs = self._take()
            if not jobs:
                break
            self._start(_Run(jobs))
        busy = bool(self._waiting or self._in_flight)
        if busy and self._sweep is None:
            self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._expire)
        if self._idle is not None and not busy:
            self._idle.set()

    def _take(self) -> list[QueuedRequest]:
        """The next jobs that run together; none while all wait for company."""
        waits = []
        for key, group in self._groups.items():
            count, full = self._fitting(group)
            left = self._left_to_wait(group[0])
            if full or left <= 0:
                return self._leave(key, count)
            waits.append(left)
        if self._delay is not None:
            self._delay.cancel()
        self._delay = self._loop.call_later(min(waits), self._end_delay)
        return []

    def _end_delay(self) -> None:
        self._delay = None
        self._start_runs()

    def _fitting(self, group: deque[QueuedRequest]) -> tuple[int, bool]:
        """How many jobs fit into one run, and whether no more would."""
        rows = elements = 0
        most_rows, most_elements = self._most_rows, self._most_elements
        for count, job in enumerate(group):
            rows += job.rows
            elements += job.elements
            if rows > most_rows or elements > most_elements:
                return max(count, 1), True  # one that is too large by itself runs alone
        return len(group), rows == most_rows or group[0].key is group[0]

    def _left_to_wait(self, oldest: QueuedRequest) -> float:
        delay = self.settings.max_queue_delay_ms / 1000
        return 0 if not delay or self._idle else oldest.arrived + delay - self._loop.time()

    def _leave(self, key: Hashable, count: int) -> list[QueuedRequest]:
        group = self._groups.pop(key)
        jobs = [group.popleft() for _ in range(count)]
        if group:
            self._groups[key] = group  # behind the other groups: each has its turn
        self._waiting -= count
        for job in jobs:
            job.queued = False
            job.key = None  # it may be the job itself
        return jobs

    def _drop(self, job: QueuedRequest) -> None:
        if job.queued:
            job.queued = False
            key, job.key = job.key, None
            group = self._groups[key]
            group.remove(job)
            if not group:
                del self._groups[key]
            self._waiting -= 1

    def _expire(self) -> None:
        self._sweep = None
        now = self._loop.time()
        queued = [job for group in self._groups.values() for job in group]
        running = [job for run in self._in_flight.values() for job in run.jobs]
        for job in queued + running:
            if job.deadline <= now and not job.finished:
                self._drop(job)
                self.statistics.expired += 1
                self._finish(job, DeadlineError("the request was not answered within its time"))
        self._start_runs()

    # The runs

    def _start(self, run: _Run) -> None:
        size = sum(array.size for job in run.jobs for array in job.inputs.values())
        if size <= self._quick_size * _GROWTH and self._loop.time() >= self._away_until:
            self._compute(run)
            if run.work > _TOO_LONG_SECONDS:
                self._away_until = self._loop.time() + _AWAY_SECONDS
            self._deliver(run, size)
            return
        number = id(run)
        self._in_flight[number] = run
        self._executor.submit(self._compute_apart, number, run, size)

    def _compute_apart(self, number: int, run: _Run, size: int) -> None:
        before = resident_bytes()
        self._compute(run)
        grown = resident_bytes() - before > _LARGE_BYTES
        self._loop.call_soon_threadsafe(self._on_computed, number, run, size)
        if grown:
            self._loop.call_soon_threadsafe(self._give_back_soon)

    def _give_back_soon(self) -> None:
        # Not after each of many large runs: the next one would have to take it all again.
        if self._giving is None and self._idle is None:
            self._giving = self._loop.call_later(_KEPT_SECONDS, self._give_back)

    def _give_back(self) -> None:
        self._giving = None
        if self._idle is None:
            self._executor.submit(self.model.give_back_memory)

    def _on_computed(self, number: int, run: _Run, size: int) -> None:
        del self._in_flight[number]
        self._deliver(run, size)
        self._start_runs()

    def _compute(self, run: _Run) -> None:
        run.started, worked = time.monotonic(), time.thread_time()
        run.outcomes = self._together(run.jobs) or [self._alone(job) for job in run.jobs]
        # Of this thread alone: on a busy machine a short run may last long.
        run.work = time.thread_time() - worked
        run.seconds = time.monotonic() - run.started

    def _together(self, jobs: list[QueuedRequest]) -> list[Outputs | Exception]:
        """The outputs of all jobs from one run; nothing where there is no such run."""
        if len(jobs) == 1 or self.plan is None:
            return []
        wanted = self.plan.outputs_needed(frozenset().union(*(job.outputs for job in jobs)))
        names = [name for name in self.model.output_names if name in wanted]
        inputs = [job.inputs for job in jobs]
        try:
            parts = self.plan.split(inputs, self.model.run(self.plan.join(inputs), names))
        except Exception:  # one of them is to blame; the others must not suffer
            return []
        return [{n: part[n] for n in job.outputs} for job, part in zip(jobs, parts, strict=True)]

    def _alone(self, job: QueuedRequest) -> Outputs | Exception:
        try:
            return self.model.run(job.inputs, job.outputs)
        except Exception as error:
            return without_frames(error)

    def _deliver(self, run: _Run, size: int) -> None:
        if run.work < _QUICK_SECONDS:
            self._quick_size = max(self._quick_size, size)
        ran = RunTiming(run.started, run.seconds, sum(job.rows for job in run.jobs))
        self.statistics.ran(
            ran.rows,
            [job.arrived for job in run.jobs],
            self._loop.time(),
            run.seconds,
            sum(isinstance(outcome, Exception) for outcome in run.outcomes),
        )
        for job, outcome in zip(run.jobs, run.outcomes, strict=True):
            if not job.finished:
                job.ran = ran
                self._finish(job, outcome)

    def _finish(self, job: QueuedRequest, outcome: Any) -> None:
        job.finished = True
        done, job.done = job.done, None
        try:
            if done is not None:
                done(outcome)
        except Exception as error:  # one answer that cannot be sent must not keep back the others
            self._loop.call_exception_handler({"message": "an answer failed", "exception": error})
