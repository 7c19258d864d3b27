"""What a server does, whichever protocol asks: its models, and the queues before them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from keras_blocks.errors import ContractError, ModelLoadError
from keras_blocks.runtime.cores import available_cores
from keras_blocks.serving.auth import ApiKeys
from keras_blocks.serving.errors import LoadingError, ModelNotFoundError
from keras_blocks.serving.inference.batch_check import checked_batch_plan
from keras_blocks.serving.inference.batch_plan import BatchPlan
from keras_blocks.serving.inference.batcher import Batcher
from keras_blocks.serving.inference.request import Outputs, QueuedRequest
from keras_blocks.serving.inference.statistics import Counts, ModelStatistics
from keras_blocks.serving.limits import Limits, check_answer, check_limits
from keras_blocks.serving.model import Model
from keras_blocks.serving.repository.folders import (
    FolderState,
    RepositoryState,
    folder_state,
    model_folders,
)
from keras_blocks.serving.repository.model_settings import BatchSettings, ModelSettings
from keras_blocks.serving.repository.repository import Repository, load_model
from keras_blocks.serving.repository.watch import watch
from keras_blocks.serving.status import without_frames

_START_POLL_SECONDS = 0.1

_Loaded = TypeVar("_Loaded")
_Plans = Mapping[Model, BatchPlan | None]
_Prepared = tuple[Mapping[int, Model], ModelSettings, _Plans]


class Service:
    """A repository behind queues. All of it happens on one event loop, but loading and long runs.

    Args:
        repository: the loaded models.
        limits: what one request may ask for.
        settings: how requests wait and share runs.
        workers: int, how many long runs go on at once; by default the number of cores, at least 4,
            so that those of one model do not hold up the others.
        keys: who may ask; all may by default.
        to_fill: bool, whether the models are loaded later, by `fill`; it starts then.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        limits: Limits | None = None,
        settings: BatchSettings | None = None,
        workers: int | None = None,
        keys: ApiKeys | None = None,
        to_fill: bool = False,
    ):
        self.repository = replace(repository, models={}, settings={}, states={})
        self.limits = limits or Limits()
        self.keys = keys or ApiKeys()
        self.settings = settings or BatchSettings()
        self._initial = None if to_fill else repository
        self.started = False
        """Whether the models of the start are there."""
        self.draining = False
        """Whether the server ends soon; it answers until then, but is not ready."""
        self._causes = dict(repository.causes)
        self._batchers: dict[Model, Batcher] = {}
        self._asked: dict[tuple[str, str | None], Batcher] = {}  # as `repository` is now
        self._counts: dict[tuple[str, int], ModelStatistics] = {}
        self._prepared: dict[str, _Prepared] = {}
        self._executor = ThreadPoolExecutor(workers or max(4, available_cores()), "infer")
        self._unloaded: set[str] = set()
        self._wanted = set(repository.models) | set(repository.states)
        self._states = dict(repository.states)  # of each model's files when they were last loaded
        self._changing = asyncio.Lock()
        self._stops: set[asyncio.Task[None]] = set()
        self._loads: set[asyncio.Future[Any]] = set()

    async def open(self) -> None:
        """Makes every model of the repository ready: each has run before the first request. Again
        does nothing.
        """
        initial, self._initial = self._initial, None  # what is unloaded later is to be freed
        if initial is None:
            return
        settings = {name: self._batching(initial.settings.get(name)) for name in initial.models}
        plans = await asyncio.to_thread(_plans, initial.all_models(), settings)
        self._take_over(initial, plans)
        self.started = True

    async def fill(self, load: Callable[[], Repository]) -> None:
        """Loads the models of the start, while requests are answered that there are none yet.

        Args:
            load: gives them.
        """
        async with self._changing:
            initial = await self._load_apart(load)
            self._wanted, self._states = {*initial.models, *initial.states}, dict(initial.states)
            self._causes = dict(initial.causes)
            settings = {name: self._batching(initial.settings.get(name)) for name in initial.models}
            plans = await self._load_apart(_plans, initial.all_models(), settings)
            self._take_over(initial, plans)

    async def close(self) -> None:
        """Takes no more requests and finishes those that came."""
        await asyncio.gather(*(batcher.stop() for batcher in self._batchers.values()), *self._stops)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def interrupt(self) -> None:
        """Ends the runs that go on: nobody waits for them any more."""
        for model in self._batchers:
            model.session.interrupt()

    def restore(self, holding: RepositoryState) -> None:
        """Takes over what another process, which loaded the same, is asked to serve."""
        self._wanted, self._unloaded = set(holding.wanted), set(holding.unloaded)
        self._states = dict(holding.states)

    # Requests

    def batcher_for(self, name: str, version: str | None = None) -> Batcher:
        """The queue of a model.

        Raises:
            ModelNotFoundError: says which names or versions there are.
        """
        batcher = self._asked.get((name, version))
        if batcher is None:
            if not self.started and self._initial is None and name not in self.repository.models:
                raise LoadingError("the models are being loaded; try again later")
            batcher = self._batchers[self.repository.get(name, version or None)]
            self._asked[name, version] = batcher
        return batcher

    def infer(
        self,
        batcher: Batcher,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str] | None,
        timeout: float | None,
        done: Callable[[Outputs | Exception], None],
    ) -> QueuedRequest:
        """Checks a request and queues it.

        Args:
            batcher: from `batcher_for`.
            inputs: the flat arrays of the graph, read from a request.
            outputs: the wanted outputs, or None for all.
            timeout: the seconds that the client waits, or None.
            done: called once with the outputs or the exception.
        Raises:
            ContractError: an input does not fit.
            OverloadedError: the queue is full.
        """
        model = batcher.model
        names = model.wanted(outputs)
        model.check_decoded(inputs)
        check_limits(model.contract, inputs, self.limits, model.facts.recurrent)

        def answer(outcome: Outputs | Exception) -> None:
            if not isinstance(outcome, Exception):
                try:
                    check_answer(outcome, self.limits)
                except ContractError as error:
                    outcome = without_frames(error)
            done(outcome)

        job = QueuedRequest(inputs, names, answer, timeout)
        batcher.submit(job)
        return job

    # What is known

    @property
    def ready(self) -> bool:
        """Whether every model that the folder holds answers, but those unloaded by hand."""
        return not self.unready

    @property
    def unready(self) -> str:
        """Why the server is not ready: which models do not answer, and why; empty if it is."""
        if self.draining:
            return "the server ends soon"
        if not self.started:
            return "the models are being loaded"
        missing = sorted(self._wanted - self._unloaded - set(self.repository.models))
        return "; ".join(f"model '{name}': {self.cause(name)}" for name in missing)

    def cause(self, name: str) -> str:
        """Why a model does not answer."""
        if name in self._unloaded:
            return "unloaded"
        return self._causes.get(name) or ("not loaded" if self.started else "loading")

    def own_counts(self) -> Counts:
        """What this process counted of the models that are loaded."""
        counts = {}
        for model in self.repository.all_models():
            batcher = self._batchers[model]
            batcher.statistics.waiting = batcher.waiting
            counts[model.name, model.version] = batcher.statistics
        return counts

    async def counts(self) -> Counts:
        """What was counted of the models that are loaded."""
        return self.own_counts()

    # Changes

    async def load(self, name: str) -> None:
        """Loads a model of the folder, or loads it again; the old one answers until then.

        Raises:
            ModelNotFoundError: the folder holds no such model.
            ModelLoadError: its files do not load; what was loaded goes on.
        """
        async with self._changing:
            await self.prepare(name)
            self.commit(name)

    async def unload(self, name: str) -> None:
        """Takes a model out of service once its queue is empty.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        async with self._changing:
            self.remove(name)

    async def forget(self, name: str) -> None:
        """Takes a model out of service that the folder has no more, loaded or not."""
        async with self._changing:
            self.drop(name)

    async def prepare(
        self, name: str, only: Collection[int] = ()
    ) -> tuple[tuple[int, ...], FolderState]:
        """Loads a model and warms it up beside what answers; `commit` puts it into service.

        Args:
            name: the model.
            only: its versions; those that its settings choose by default.
        Returns:
            Its versions, and what its files were.
        Raises:
            ModelNotFoundError: the folder holds no such model.
            ModelLoadError: its files do not load.
        """
        directory = self.repository.directory
        if directory is None or name not in await asyncio.to_thread(model_folders, directory):
            raise ModelNotFoundError(f"the repository holds no model '{name[:100]}'")
        self._wanted.add(name)
        self._states[name] = await asyncio.to_thread(folder_state, directory / name)
        try:
            versions, settings = await self._load_apart(
                load_model, directory / name, self.repository.threads, only, self.repository.links
            )
        except ModelLoadError as error:
            self._causes[name] = str(error)
            raise
        batching = {name: self._batching(settings)}
        plans = await self._load_apart(_plans, list(versions.values()), batching)
        self._prepared[name] = versions, settings, plans
        return tuple(sorted(versions)), self._states[name]

    async def _load_apart(self, function: Callable[..., _Loaded], *arguments: Any) -> _Loaded:
        # Shielded: a thread goes on when nobody waits for it any more, and is known until its end.
        load = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
        self._loads.add(load)
        load.add_done_callback(self._loads.discard)
        return await asyncio.shield(load)

    @property
    def loading(self) -> bool:
        """Whether a thread loads a model; no thread can be made to stop."""
        return bool(self._loads)

    def commit(self, name: str) -> None:
        """Puts what was prepared into service."""
        versions, settings, plans = self._prepared.pop(name)
        self._unloaded.discard(name)
        self._causes.pop(name, None)
        self._take_over(self.repository.with_model(name, versions, settings), plans)

    def abandon(self, name: str) -> None:
        """Forgets what was prepared."""
        self._prepared.pop(name, None)

    def remove(self, name: str) -> None:
        """Takes a model out of service; those of its requests that came are answered.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        self.repository.get(name)
        self._unloaded.add(name)
        self._take_over(self.repository.with_model(name, {}), {})

    def drop(self, name: str) -> None:
        """Takes a model out of service, loaded or not, and out of what is asked for."""
        self._wanted.discard(name)
        self._causes.pop(name, None)
        self._states.pop(name, None)
        if name in self.repository.models:
            self.remove(name)
        self._unloaded.discard(name)

    def holding(self) -> RepositoryState:
        """What is held of the repository now."""
        versions = {name: tuple(sorted(models)) for name, models in self.repository.models.items()}
        wanted, unloaded = frozenset(self._wanted), frozenset(self._unloaded)
        return RepositoryState(versions, dict(self._states), wanted, unloaded)

    async def watch(self, seconds: float) -> None:
        """Looks at the folder again and again; see `folders.watch`."""
        while not self.started:  # the models of the start are being loaded
            await asyncio.sleep(min(seconds, _START_POLL_SECONDS))
        if self.repository.directory is not None:
            await watch(self.repository.directory, seconds, self.holding, self.load, self.forget)

    def _batching(self, own: ModelSettings | None) -> BatchSettings:
        return replace(self.settings, **own.batching) if own is not None else self.settings

    def _take_over(self, repository: Repository, plans: _Plans) -> None:
        """In one turn of the event loop: a request finds all of the old, or all of the new."""
        self.repository = repository
        self._asked.clear()
        kept = set(repository.all_models())
        for model, plan in plans.items():
            settings = self._batching(repository.settings.get(model.name))
            counts = self._counts.setdefault((model.name, model.version), ModelStatistics())
            self._batchers[model] = Batcher(model, plan, settings, self._executor, counts)
        for model in set(self._batchers) - kept:
            task = asyncio.ensure_future(self._batchers.pop(model).stop())
            self._stops.add(task)
            task.add_done_callback(self._stops.discard)


def _plans(models: Sequence[Model], settings: Mapping[str, BatchSettings]) -> _Plans:
    plans = {}
    for model in models:
        plans[model] = checked_batch_plan(model, settings[model.name])
        if plans[model] is None:  # the proof would have run it
            model.warm_up()
    return plans
