"""The parent of several processes that answer on the same sockets: it starts them, starts those
anew that end, and has all of them hold the same models. It loads none itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass, field, replace
from typing import Any

from keras_blocks.errors import KerasBlocksError, ModelLoadError
from keras_blocks.runtime.cores import available_cores
from keras_blocks.serving.inference.statistics import Counts, merged
from keras_blocks.serving.process.config import ServerOptions
from keras_blocks.serving.process.ipc import GoneError, RpcChannel
from keras_blocks.serving.process.signals import reload_signal, stop_signals
from keras_blocks.serving.repository.folders import RepositoryState
from keras_blocks.serving.repository.model_settings import BatchSettings
from keras_blocks.serving.repository.watch import watch
from keras_blocks.serving.transport.sockets import Listeners, open_listeners

# One that lives this long was no failed start.
_SETTLED_SECONDS = 10.0
_LONGEST_DELAY = 30.0
_COUNT_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0

_log = logging.getLogger("keras_blocks.serving")


def serve_together(options: ServerOptions) -> None:
    """Answers in several processes until SIGTERM or SIGINT."""
    share = max(1, available_cores() // options.workers)
    batching = options.batching or BatchSettings()
    batching = replace(batching, runs_at_once=min(batching.runs_at_once, max(2, share)))
    options = replace(options, threads=options.threads or share, batching=batching)
    with open_listeners(options) as listeners:
        asyncio.run(Supervisor(options, listeners).run())


@dataclass(eq=False)
class WorkerHandle:
    """A worker as its parent sees it."""

    process: asyncio.subprocess.Process
    channel: RpcChannel
    counts: Counts = field(default_factory=dict)

    def kill(self) -> None:
        """Ends it at once. `Process.kill` would also wait for one that has ended, ahead of
        asyncio, which then warns and does not know how it ended (python/cpython#87744).
        """
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)


class Supervisor:
    """Keeps so many workers going.

    Args:
        options: how the server is run.
        listeners: the sockets that the workers share.
    """

    def __init__(self, options: ServerOptions, listeners: Listeners):
        self._options = options
        self._listeners = listeners
        self._live: list[WorkerHandle] = []
        self._children: set[WorkerHandle] = set()
        self._agreed: RepositoryState | None = None
        self._dead: Counts = {}
        self._changing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._started = False

    async def run(self) -> None:
        """Returns when the workers have answered what came after SIGTERM or SIGINT."""
        keepers = [asyncio.create_task(self._keep(n + 1)) for n in range(self._options.workers)]
        others = [asyncio.create_task(self._count()), asyncio.create_task(self._watch())]
        try:
            with stop_signals(self._stopping), reload_signal(self._hang_up):
                stop = asyncio.create_task(self._stopping.wait())
                while not stop.done():
                    await asyncio.wait((stop, *keepers), return_when=asyncio.FIRST_COMPLETED)
                    for keeper in keepers:
                        if keeper.done():
                            keeper.result()  # raises why it gave up
                for listener in self._listeners.all():
                    listener.close()
                stops = (_quietly(child.channel.call("stop")) for child in self._children)
                await asyncio.gather(*stops)
                patience = self._options.exit_timeout_seconds + self._options.drain_seconds
                patience += _PATIENCE_SECONDS
                await asyncio.wait(keepers, timeout=patience)
        finally:
            for task in (*keepers, *others):
                task.cancel()
            for child in self._children:
                child.kill()
                await child.process.wait()

    def _hang_up(self) -> None:
        for child in self._children:
            if child.process.returncode is None:
                child.process.send_signal(signal.SIGHUP)

    # What workers ask for

    async def load(self, name: str) -> None:
        """Loads a model in all workers, or in none."""
        async with self._changing:
            method = "abandon"
            try:
                read = await self._all("prepare", name)
                if any(entry != read[0] for entry in read):
                    raise ModelLoadError(
                        f"the files of model '{name}' changed while they were read; load it again"
                    )
                method = "commit"
            finally:
                self._agreed = (await self._all("change", method, name))[0]

    async def unload(self, name: str) -> None:
        """Takes a model out of service in all workers."""
        async with self._changing:
            self._agreed = (await self._all("change", "remove", name))[0]

    async def forget(self, name: str) -> None:
        """Takes a model out of service that the folder has no more."""
        async with self._changing:
            self._agreed = (await self._all("change", "drop", name))[0]

    async def counts(self) -> Counts:
        """What all workers counted, those that are gone too."""
        live = list(self._live)
        asked = (
            asyncio.wait_for(child.channel.call("counts"), _PATIENCE_SECONDS) for child in live
        )
        for child, counts in zip(
            live, await asyncio.gather(*asked, return_exceptions=True), strict=True
        ):
            if not isinstance(counts, BaseException):
                child.counts = counts
        return merged([self._dead, *(child.counts for child in self._live)])

    async def _all(self, method: str, *arguments: Any) -> list[Any]:
        calls = (child.channel.call(method, *arguments) for child in list(self._live))
        results = await asyncio.gather(*calls, return_exceptions=True)
        given = [result for result in results if not isinstance(result, GoneError)]
        for result in given:
            if isinstance(result, BaseException):
                raise result
        if not given:
            raise KerasBlocksError("no worker is there")
        return given

    async def _count(self) -> None:
        # What a worker counted is not lost with it, but for what came since.
        while True:
            await asyncio.sleep(_COUNT_SECONDS)
            await self.counts()

    async def _watch(self) -> None:
        def holding() -> RepositoryState:
            return self._agreed or RepositoryState()

        seconds = self._options.poll_seconds
        if seconds:
            while self._agreed is None:  # they still load what is there
                await asyncio.sleep(seconds)
            await watch(self._options.directory, seconds, holding, self.load, self.forget)

    # The lives of workers

    async def _keep(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set():
            begun = loop.time()
            child = await self._launch()
            why = ""
            try:
                await self._join(child)
                await child.channel.closed.wait()
            except KerasBlocksError as error:
                why = str(error)
                if not isinstance(error, GoneError):
                    child.kill()
                    if not self._started:
                        raise
            code = await child.process.wait()
            self._bury(child)
            if self._stopping.is_set():
                return
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            if not self._started:
                raise KerasBlocksError(f"worker {number} {how} before it could answer")
            failures = failures + 1 if loop.time() - begun < _SETTLED_SECONDS else 0
            delay = min(2.0 ** (failures - 2), _LONGEST_DELAY) if failures > 1 else 0.0
            _log.error("worker %d %s%s; it starts again in %g s", number, how,
                       f" ({why})" if why else "", delay)  # fmt: skip
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay or 0.001)

    async def _launch(self) -> WorkerHandle:
        ours, theirs = socket.socketpair()
        with theirs:
            passed = (theirs.fileno(), *self._listeners.numbers().values())
            # In a group of its own Ctrl+C does not reach it: the parent asks it to stop.
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "keras_blocks.serving.process.worker",
                    str(theirs.fileno()),
                ),
                pass_fds=passed,
                process_group=0,
            )
        channel = RpcChannel({"load": self.load, "unload": self.unload, "counts": self.counts})
        await channel.open(ours)
        child = WorkerHandle(process, channel)
        self._children.add(child)
        return child

    async def _join(self, child: WorkerHandle) -> None:
        numbers = self._listeners.numbers()
        agreed = self._agreed if self._live else None
        holding = await child.channel.call("start", self._options, numbers, agreed)
        async with self._changing:
            if self._agreed is None or not self._live:
                self._agreed = holding
            else:
                await self._bring_up_to_date(child, holding)
            await child.channel.call("accept", self._agreed)
            self._live.append(child)
            if len(self._live) == self._options.workers and not self._started:
                self._started = True
                await self._live[0].channel.call("announce")

    async def _bring_up_to_date(self, child: WorkerHandle, holding: RepositoryState) -> None:
        """A worker that loaded while the others changed follows them, or does not take part."""
        agreed = self._agreed or RepositoryState()
        for name in {*agreed.versions, *holding.versions}:
            if agreed.loaded_files(name) == holding.loaded_files(name):
                continue
            if name in agreed.versions:
                await child.channel.call("prepare", name, agreed.versions[name])
                holding = await child.channel.call("change", "commit", name)
            else:
                holding = await child.channel.call("change", "remove", name)
                continue
            if agreed.loaded_files(name) != holding.loaded_files(name):
                raise ModelLoadError(
                    f"the files of model '{name}' are not those that the other workers answer with"
                )

    def _bury(self, child: WorkerHandle) -> None:
        self._children.discard(child)
        if child in self._live:
            self._live.remove(child)
            for counts in child.counts.values():
                counts.waiting = 0
            self._dead = merged([self._dead, child.counts])


async def _quietly(call: Any) -> None:
    with contextlib.suppress(KerasBlocksError):
        await call
