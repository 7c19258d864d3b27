"""A folder of models, `DIR/<name>/<version>/model.onnx`, and what could be loaded from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keras_blocks.errors import KerasBlocksError, ModelLoadError
from keras_blocks.serving.model import Model

MODEL_FILE = "model.onnx"


class ModelNotFoundError(KerasBlocksError, LookupError):
    """A model or version was asked for that is not loaded."""


@dataclass(frozen=True)
class Repository:
    """Loaded models.

    Args:
        models: name -> version -> model.
        problems: one line for each file or folder that could not be loaded.
    """

    models: Mapping[str, Mapping[int, Model]]
    problems: tuple[str, ...] = field(default=())

    def get(self, name: str, version: str | int | None = None) -> Model:
        """The model of a name; its highest version where none is asked for.

        Raises:
            ModelNotFoundError: says which names or versions there are.
        """
        versions = self.versions(name)
        if version is None:
            return self.models[name][versions[-1]]
        wanted = next((number for number in versions if str(number) == str(version)), None)
        if wanted is None:
            raise ModelNotFoundError(
                f"model '{name}' has no version '{str(version)[:100]}'; "
                f"its versions are {', '.join(map(str, versions))}"
            )
        return self.models[name][wanted]

    def versions(self, name: str) -> list[int]:
        """The loaded versions of a model, the highest last."""
        if name not in self.models:
            known = ", ".join(f"'{known}'" for known in sorted(self.models))
            raise ModelNotFoundError(f"model '{name[:100]}' is unknown; the models are {known}")
        return sorted(self.models[name])

    def all_models(self) -> list[Model]:
        """Every loaded model, by name and version."""
        return [self.get(name, v) for name in sorted(self.models) for v in self.versions(name)]


def load_repository(directory: str | os.PathLike[str], threads: int | None = None) -> Repository:
    """Loads every version of every model of a folder.

    A file that does not load is reported in `problems`, the others are served.

    Args:
        directory: str or path of the folder that holds `<name>/<version>/model.onnx`.
        threads: int, the threads that one run may use; None leaves it to onnxruntime.
    Raises:
        ModelLoadError: there is no such folder, or nothing in it could be loaded.
    """
    root = Path(directory)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise ModelLoadError(f"{root} {what}; a folder with <name>/<version>/{MODEL_FILE} expected")
    models: dict[str, dict[int, Model]] = {}
    problems: list[str] = []
    for folder in _folders(root):
        versions = _load_versions(folder, threads, problems)
        if versions:
            models[folder.name] = versions
    if not models:
        raise ModelLoadError(
            "; ".join([f"no model in {root} could be loaded", *problems])
            if problems
            else f"{root} holds no models; put them at {root}/<name>/<version>/{MODEL_FILE}"
        )
    return Repository(models, tuple(problems))


def _load_versions(folder: Path, threads: int | None, problems: list[str]) -> dict[int, Model]:
    # "01" and "1" would be the same version, so only one spelling counts.
    numbered = {
        int(path.name): path
        for path in _folders(folder)
        if path.name.isdecimal() and path.name == str(int(path.name))
    }
    if not numbered:
        problems.append(f"{folder}: no version in it; {folder}/1/{MODEL_FILE} expected")
    models = {}
    for version, path in sorted(numbered.items()):
        try:
            models[version] = Model.load(
                path / MODEL_FILE, name=folder.name, version=version, threads=threads
            )
        except ModelLoadError as error:
            problems.append(str(error))
    return models


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and path.name[0] != ".")
