"""A repository's folder, watched for models that come, change or go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from keras_blocks.errors import KerasBlocksError, ModelLoadError
from keras_blocks.serving.repository.folders import (
    FolderState,
    RepositoryState,
    _log,
    folder_state,
    model_folders,
)


async def watch(
    directory: Path,
    seconds: float,
    holding: Callable[[], RepositoryState],
    load: Callable[[str], Awaitable[None]],
    forget: Callable[[str], Awaitable[None]],
) -> None:
    """Looks at a folder again and again: what is new or changed is loaded, what is gone is
    forgotten. A file that is still being written is waited for; one that does not load is reported
    once, and what was loaded goes on. A folder that cannot be read changes nothing.

    Args:
        directory: the repository's folder.
        seconds: the time between two looks.
        holding: what is held now.
        load: loads a model of the folder, or loads it again.
        forget: unloads a model that the folder has no more.
    """
    before: dict[str, FolderState] = {}
    unreadable = False
    while True:
        await asyncio.sleep(seconds)
        try:
            names = await asyncio.to_thread(model_folders, directory)
        except ModelLoadError as error:
            if not unreadable:
                _log.error("%s; what is loaded goes on", error)
            unreadable = True
            continue
        unreadable = False
        for name in names:
            state = await asyncio.to_thread(folder_state, directory / name)
            rests, before[name] = before.get(name) == state, state
            # A model that was unloaded by hand stays so until its files change.
            if rests and state != holding().states.get(name):
                await _try(load(name), name, "loaded")
        for name in _gone(holding(), names):
            await _try(forget(name), name, "removed")


def _gone(holding: RepositoryState, names: Iterable[str]) -> Sequence[str]:
    return sorted({*holding.versions, *holding.states} - set(names))


async def _try(change: Awaitable[None], name: str, what: str) -> None:
    try:
        await change
    except KerasBlocksError as error:
        _log.error("model '%s' was not %s: %s", name, what, error)
    except Exception:  # whatever is wrong with one model, the others are watched on
        _log.exception("model '%s' was not %s", name, what)
    else:
        _log.info("model '%s' was %s", name, what)
