"""A repository's folder as the disk shows it: which models it holds, and when they change.

The standard library is all it needs, so that the parent of several workers stays small.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keras_blocks.errors import ModelLoadError

MODEL_FILE = "model.onnx"

FolderState = tuple[tuple[str, int, int], ...]

_log = logging.getLogger("keras_blocks.serving")


@dataclass(frozen=True)
class RepositoryState:
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
