"""A repository's folder as the disk shows it: which models it holds, and when they change.

The standard library is all it needs, so that the parent of several workers stays small.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keras_blocks.errors import KerasBlocksError, ModelLoadError

MODEL_FILE = "model.onnx"

FolderState = tuple[tuple[str, int, int], ...]

_log = logging.getLogger("keras_blocks.serving")


class ModelNotFoundError(KerasBlocksError, LookupError):
    """A model or version was asked for that is not loaded."""


@dataclass(frozen=True)
class Holding:
    """What a server holds of a repository.

    Args:
        versions: model -> its loaded versions.
        states: model -> what its files were when they were last read; see `folder_state`.
        wanted: the models that it is asked to serve, loaded or not.
        unloaded: the models that were unloaded by hand.
    """

    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    states: Mapping[str, FolderState] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()
    unloaded: frozenset[str] = frozenset()

    def loaded_files(self, name: str) -> FolderState:
        """What was read of a model: the files of its loaded versions, and those beside them."""
        versions = set(map(str, self.versions.get(name, ())))
        return tuple(
            entry
            for entry in self.states.get(name, ())
            if not entry[0].endswith("/")
            and (len(parts := Path(entry[0]).parts) == 1 or parts[0] in versions)
        )


def folder_state(folder: Path) -> FolderState:
    """What changes when a file of a model does: path, size and time of each, in order.

    Folders are there by their paths, with a slash behind: a version that is being deleted may have
    lost its file already, and goes with its folder.
    """
    found = []
    for path in _below(folder):
        try:
            status = path.stat()
        except OSError:  # it went while we looked, or is a link that leads nowhere
            continue
        name = str(path.relative_to(folder))
        is_folder = stat.S_ISDIR(status.st_mode)
        found.append(
            (f"{name}/", 0, 0) if is_folder else (name, status.st_size, status.st_mtime_ns)
        )
    return tuple(found)


def _below(folder: Path) -> list[Path]:
    try:
        return sorted(folder.rglob("*"))
    except OSError:  # a folder of it did
        return []


def check_repository(directory: Path) -> None:
    """Refuses what is no folder.

    Raises:
        ModelLoadError: says what is there.
    """
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise ModelLoadError(
            f"{directory} {what}; a folder with <name>/<version>/{MODEL_FILE} expected"
        )


def model_folders(directory: Path | None) -> list[str]:
    """The names of the models that a repository's folder holds, loaded or not.

    Raises:
        ModelLoadError: the folder cannot be read.
    """
    try:
        return [] if directory is None else [path.name for path in subfolders(directory)]
    except OSError as error:
        raise ModelLoadError(f"{directory} cannot be read: {error.strerror}") from None


def subfolders(parent: Path) -> list[Path]:
    """The folders in a folder, in order, without hidden ones and those whose name is no text."""
    paths = (path for path in parent.iterdir() if path.name[0] != "." and path.name.isprintable())
    return sorted(path for path in paths if path.is_dir())


async def watch(
    directory: Path,
    seconds: float,
    holding: Callable[[], Holding],
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


def _gone(holding: Holding, names: Iterable[str]) -> Sequence[str]:
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
