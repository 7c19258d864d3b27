"""One of several processes that answer on the same sockets; its parent is `workers`."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import sys

from keras_blocks.runtime.malloc import give_back_large_blocks
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.inference.statistics import Counts
from keras_blocks.serving.process.config import ServerOptions
from keras_blocks.serving.process.ipc import RpcChannel
from keras_blocks.serving.process.server import serving_as
from keras_blocks.serving.process.signals import exit_now, stop_signals
from keras_blocks.serving.repository.folders import FolderState, RepositoryState
from keras_blocks.serving.repository.repository import load_repository
from keras_blocks.serving.transport.sockets import Listeners


class SharedService(Service):
    """One of several services: what changes one changes all, and counts are those of all."""

    parent: RpcChannel

    async def load(self, name: str) -> None:
        """See `Service.load`; all workers have loaded it when this returns."""
        await self.parent.call("load", name)

    async def unload(self, name: str) -> None:
        """See `Service.unload`; no worker answers for it when this returns."""
        await self.parent.call("unload", name)

    async def counts(self) -> Counts:
        """What all workers counted."""
        counts: Counts = await self.parent.call("counts")
        return counts


class Worker:
    """Does what its parent asks for."""

    def __init__(self) -> None:
        self._open, self._stopping = asyncio.Event(), asyncio.Event()
        handlers = (self.start, self.prepare, self.change, self.counts, self.accept, self.announce)
        self.channel = RpcChannel({h.__name__: h for h in (*handlers, self.stop)})

    async def start(
        self, options: ServerOptions, numbers: dict[str, int], agreed: RepositoryState | None
    ) -> RepositoryState:
        """Loads what the others answer with, or what the folder holds where there are none."""
        self._options = options
        options.start_logging()
        give_back_large_blocks()
        self._listeners = Listeners.of_numbers(numbers)
        only = options.only if agreed is None else agreed.versions
        self.service = SharedService(
            options.empty_repository(),
            limits=options.limits,
            settings=options.batching,
            keys=options.keys,
            to_fill=True,
        )
        self.service.parent = self.channel
        if agreed is None:  # nobody else answers that the server is live
            self._open.set()
        await self.service.fill(
            functools.partial(
                load_repository, options.directory, options.threads, only, options.allow_links
            )
        )
        return self.service.holding()

    async def prepare(
        self, name: str, only: tuple[int, ...] = ()
    ) -> tuple[tuple[int, ...], FolderState]:
        """See `Service.prepare`; the versions and the files that were read."""
        return await self.service.prepare(name, only)

    async def change(self, method: str, name: str) -> RepositoryState:
        """Changes this worker alone: commit, abandon, remove or drop; see `Service`."""
        getattr(self.service, method)(name)
        return self.service.holding()

    async def counts(self) -> Counts:
        """What this worker counted."""
        return self.service.own_counts()

    async def accept(self, agreed: RepositoryState) -> None:
        """Takes connections."""
        self.service.restore(agreed)
        self.service.started = True
        self._open.set()

    async def announce(self) -> None:
        """Tells that the server takes requests."""
        self._options.announce(self.service.repository, self._listeners)

    async def stop(self) -> None:
        """Takes no more connections, and ends when what came is answered."""
        self._stopping.set()

    async def run(self, end: socket.socket) -> None:
        """Answers until the parent asks for the end, or is gone itself."""
        await self.channel.open(end)
        gone = asyncio.create_task(self._leave_with_parent())
        with stop_signals(self._stopping):
            stops = asyncio.create_task(self._stopping.wait())
            opens = asyncio.create_task(self._open.wait())
            await asyncio.wait((stops, opens), return_when=asyncio.FIRST_COMPLETED)
            if self._open.is_set():
                async with serving_as(self._options, self.service, self._listeners, shared=True):
                    await self._stopping.wait()
            opens.cancel()
        gone.cancel()

    async def _leave_with_parent(self) -> None:
        await self.channel.closed.wait()
        if self._stopping.is_set():  # the parent did not wait for the end, so nobody does
            os.kill(os.getpid(), signal.SIGKILL)
        self._stopping.set()


if __name__ == "__main__":

    async def _main() -> None:
        await Worker().run(socket.socket(fileno=int(sys.argv[1])))
        exit_now()

    asyncio.run(_main())
