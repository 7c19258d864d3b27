"""A repository's folder as the disk shows it: which models it holds, and when they change.

The standard library is all it needs, so that the parent of several workers stays small.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keras_blocks.errors import ModelLoadError

MODEL_FILE = "model.onnx"

FileState = tuple[str, tuple[int, ...], str]
"""A path below the folder of a model, what tells its content apart, where it leads as a link."""

FolderState = tuple[FileState, ...]

# What file systems and their tools leave anywhere.
_OF_THE_SYSTEM = frozenset(
    {"lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__pycache__"}
)

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
            and (len(parts := Path(entry[0]).parts) == 1 or _unpadded(parts[0]) in versions)
        )


def _unpadded(version: str) -> str:
    return version.lstrip("0") or "0"


def folder_state(folder: Path) -> FolderState:
    """What changes when a file of a model does: for each what tells its content apart, in order.

    Size and time alone do not: `mv` and `cp -p` keep the time, and files of OCI images all have the
    same. The file system's own number and time of a file's last change cannot be set by hand. Links
    are followed, those of folders too, and where they lead counts.

    Folders are there by their paths, with a slash behind: a version that is being deleted may have
    lost its file already, and goes with its folder.
    """
    return tuple(sorted(_entries(folder, "", frozenset())))


def _entries(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[FileState]:
    """The entries of a folder and of those in it; `above` are the folders that it is in."""
    try:
        own = folder.stat()
        paths = sorted(folder.iterdir())
    except OSError:  # it went while we looked, or may not be read
        return
    number = own.st_dev, own.st_ino
    if number in above:  # a link to a folder that it is in
        return
    for path in paths:
        name = f"{prefix}{path.name}"
        try:
            status = path.stat()
        except OSError:  # it went while we looked, or is a link that leads nowhere
            continue
        leads = os.path.realpath(path) if path.is_symlink() else ""
        if stat.S_ISDIR(status.st_mode):
            yield f"{name}/", (), leads
            if not _is_passed_over(path.name):
                yield from _entries(path, f"{name}/", above | {number})
        else:
            yield name, _identity(status), leads


def _identity(status: os.stat_result) -> tuple[int, ...]:
    changed = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *changed


def _is_passed_over(name: str) -> bool:
    """Whether a folder holds no model, whatever is in it."""
    return name.startswith(".") or name in _OF_THE_SYSTEM


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


def version_folders(folder: Path) -> dict[int, Path]:
    """The versions of a model, and where each is.

    A folder that is named by a number, as `3`; where there are none such, as `000003`; where there
    are no versions at all the model's own folder is version 1, if it holds the file.
    """
    numbers = [p for p in subfolders(folder) if p.name.isascii() and p.name.isdecimal()]
    plain = {int(p.name): p for p in numbers if p.name == str(int(p.name))}
    found = plain or {int(p.name): p for p in numbers}
    return found or ({1: folder} if (folder / MODEL_FILE).is_file() else {})


def subfolders(parent: Path) -> list[Path]:
    """The folders in a folder, in order, without hidden ones and those whose name is no text."""
    paths = (path for path in parent.iterdir() if not _is_passed_over(path.name))
    return sorted(path for path in paths if path.name.isprintable() and path.is_dir())
