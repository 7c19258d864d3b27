"""What may be set for one model: `DIR/<name>/model.toml`. Every setting has a default.

versions = "all"          # or a number: so many of the latest; or a list: [3, 7]
threads = 1               # the threads that one run may use
arena = true              # keep the memory of a run for the next one

[labels]                  # other names of versions: /v2/models/NAME/versions/stable
stable = 3

[batching]                # the fields of BatchSettings
max_batch_size = 64
max_queue_delay_ms = 0.0
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from keras_blocks.errors import ModelLoadError
from keras_blocks.runtime.cores import available_cores

pass

SETTINGS_FILE = "model.toml"
MOST_THREADS = 256
"""onnxruntime starts as many as it is told to, before anything else."""


_SETTINGS_OF_OTHERS = {
    "config.pbtxt": "Triton",
    "model-settings.json": "MLServer",
    "config.properties": "TorchServe",
    "mapping_config.json": "OpenVINO Model Server",
}

_log = logging.getLogger("keras_blocks.serving")


@dataclass(frozen=True)
class ModelSettings:
    """The settings of one model.

    Args:
        versions: "all", how many of the latest, or which.
        threads: int, the threads that one run may use; None leaves it to the server.
        batching: the fields of `BatchSettings` that differ from the server's.
        arena: bool, whether the memory of a run is kept for the next one, which is faster.
        labels: other names of versions, as "stable".
    """

    versions: str | int | tuple[int, ...] = "all"
    threads: int | None = None
    batching: dict[str, Any] = field(default_factory=dict)
    arena: bool = True
    labels: Mapping[str, int] = field(default_factory=dict)

    def chosen(self, versions: Iterable[int]) -> list[int]:
        """Those of a model's versions that are served.

        Example:
            >>> ModelSettings(versions=2).chosen([1, 10, 9])
            [9, 10]
        """
        present = sorted(versions)
        if isinstance(self.versions, tuple):
            return [version for version in present if version in self.versions]
        return present if isinstance(self.versions, str) else present[-self.versions :]


def read_settings(folder: Path) -> ModelSettings:
    """The settings of the model in a folder; the defaults where it has no file of them.

    Raises:
        ModelLoadError: names the setting, what it is and what was expected.
    """
    path = folder / SETTINGS_FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ModelSettings()
    except (ValueError, OSError, RecursionError) as error:
        raise ModelLoadError(f"{path}: {error}") from error
    try:
        return _settings(content)
    except ValueError as error:
        raise ModelLoadError(f"{path}: {error}") from error


def tell_settings_of_others(folder: Path) -> None:
    """Warns of the files in a model's folder by which other servers are told how to serve it."""
    for name, server in _SETTINGS_OF_OTHERS.items():
        if (folder / name).exists():
            _log.warning(
                "%s is not read: it is %s's; what is set there may be set in %s",
                *(folder / name, server, folder / SETTINGS_FILE),
            )


def _settings(content: dict[str, Any]) -> ModelSettings:
    _refuse_unknown(content, {"versions", "threads", "batching", "arena", "labels"}, "")
    versions = content.get("versions", "all")
    if isinstance(versions, list):
        versions = tuple(versions)
    if versions != "all" and not (
        _is_count(versions)
        or (isinstance(versions, tuple) and versions and all(map(_is_count, versions)))
    ):
        raise ValueError(f"versions is {versions!r}, expected 'all', a number from 1, or a list")
    threads = content.get("threads")
    if threads is not None and not (_is_count(threads) and threads <= MOST_THREADS):
        raise ValueError(f"threads is {threads!r}, expected a number from 1 to {MOST_THREADS}")
    arena = content.get("arena", True)
    if not isinstance(arena, bool):
        raise ValueError(f"arena is {arena!r}, expected true or false")
    return ModelSettings(versions, threads, _batching(content.get("batching", {})), arena,
                         _labels(content.get("labels", {})))  # fmt: skip


def _labels(content: Any) -> dict[str, int]:
    if not isinstance(content, dict) or not all(map(_is_count, content.values())):
        raise ValueError(f"labels is {content!r}, expected a table: label = version")
    for label in content:
        if label.isdecimal() or not label:
            raise ValueError(f"labels.{label} is the name of a version; a label has a letter")
    return content


def _batching(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"batching is {content!r}, expected a table")
    kinds = {setting.name: setting.type for setting in fields(BatchSettings)}
    _refuse_unknown(content, set(kinds), "batching.")
    for name, value in content.items():
        if kinds[name] == "int":
            if not _is_count(value):
                raise ValueError(f"batching.{name} is {value!r}, expected a number from 1")
        elif type(value) not in (int, float) or not 0 <= value < float("inf"):
            raise ValueError(f"batching.{name} is {value!r}, expected a number from 0")
    return content


def _refuse_unknown(content: dict[str, Any], known: set[str], prefix: str) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        raise ValueError(
            f"{prefix}{unknown[0]} is unknown; the settings are "
            f"{', '.join(prefix + name for name in sorted(known))}"
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


@dataclass(frozen=True)
class BatchSettings:
    """How requests wait and share runs.

    Args:
        max_batch_size: int, most rows of one run; a larger request runs alone.
        max_batch_elements: int, most ragged values of one run, the inputs taken together.
        max_queue_delay_ms: float, how long a request may wait for company while nothing runs.
        max_queue_size: int, most requests that wait; further ones are refused.
        timeout_seconds: float, how long a request may take that names no time of its own.
        runs_at_once: int, how many runs of the model go on at once; by default as many as there are
            cores for this process.
    """

    max_batch_size: int = 64
    max_batch_elements: int = 2**16
    max_queue_delay_ms: float = 0.0
    max_queue_size: int = 1024
    timeout_seconds: float = 60.0
    runs_at_once: int = field(default_factory=lambda: max(2, available_cores()))
