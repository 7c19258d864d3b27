"""A folder of models, `DIR/<name>/<version>/model.onnx`, and what could be loaded from it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from keras_blocks.errors import ModelLoadError
from keras_blocks.serving.errors import ModelNotFoundError
from keras_blocks.serving.model import Model
from keras_blocks.serving.repository.folders import (
    MODEL_FILE,
    FolderState,
    check_repository,
    folder_state,
    model_folders,
    version_folders,
)
from keras_blocks.serving.repository.model_settings import (
    ModelSettings,
    read_settings,
    tell_settings_of_others,
)


@dataclass(frozen=True)
class Repository:
    """Loaded models.

    Args:
        models: name -> version -> model.
        problems: one line for each file or folder that could not be loaded.
        directory: where they were loaded from, if from a folder.
        threads: int, the threads that one run may use; None leaves it to onnxruntime.
        settings: name -> what is set for a model.
        states: name -> what its files were when they were read; see `folder_state`.
        links: bool, whether files may be links out of the folder.
        causes: name -> why no version of a model could be loaded.
    """

    models: Mapping[str, Mapping[int, Model]]
    problems: tuple[str, ...] = field(default=())
    directory: Path | None = None
    threads: int | None = None
    settings: Mapping[str, ModelSettings] = field(default_factory=dict)
    states: Mapping[str, FolderState] = field(default_factory=dict)
    links: bool = False
    causes: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str, version: str | int | None = None) -> Model:
        """The model of a name; its highest version where none is asked for.

        Raises:
            ModelNotFoundError: says which names or versions there are.
        """
        versions = self.versions(name)
        if version is None:
            return self.models[name][versions[-1]]
        labels = self.settings[name].labels if name in self.settings else {}
        asked = labels.get(str(version), version)
        wanted = next((number for number in versions if str(number) == str(asked)), None)
        if wanted is None:
            raise ModelNotFoundError(
                f"model '{name}' has no version '{str(version)[:100]}'; "
                f"its versions are {', '.join([*map(str, versions), *sorted(labels)])}"
            )
        return self.models[name][wanted]

    def versions(self, name: str) -> list[int]:
        """The loaded versions of a model, the highest last."""
        if name not in self.models:
            known = ", ".join(f"'{known}'" for known in sorted(self.models))
            raise ModelNotFoundError(
                f"model '{name[:100]}' is unknown; the models are {known or 'none'}"
            )
        return sorted(self.models[name])

    def with_model(
        self, name: str, versions: Mapping[int, Model], settings: ModelSettings | None = None
    ) -> Repository:
        """The same repository with other versions of one model; without it where there are none."""
        models = {**self.models, name: versions}
        return replace(
            self,
            models={n: given for n, given in models.items() if given},
            settings={**self.settings, name: settings or ModelSettings()},
        )

    def all_models(self) -> list[Model]:
        """Every loaded model, by name and version."""
        return [self.get(name, v) for name in sorted(self.models) for v in self.versions(name)]


def load_repository(
    directory: str | os.PathLike[str],
    threads: int | None = None,
    only: Mapping[str, Collection[int]] | None = None,
    links: bool = False,
) -> Repository:
    """Loads every version of every model of a folder.

    A file that does not load is reported in `problems`, the others are served. A folder without
    models is a repository too: they may come later.

    Args:
        directory: str or path of the folder that holds `<name>/<version>/model.onnx`.
        threads: int, the threads that one run may use; None leaves it to onnxruntime.
        only: model -> the versions of it that are loaded, empty for those that its settings
            choose; no other model is loaded. None for all.
        links: bool, whether files may be links out of the folder, as in caches of downloads.
    Raises:
        ModelLoadError: there is no such folder, or nothing of what is in it could be loaded.
    """
    root = Path(directory)
    check_repository(root)
    models: dict[str, dict[int, Model]] = {}
    settings: dict[str, ModelSettings] = {}
    problems: list[str] = []
    causes: dict[str, str] = {}
    states: dict[str, FolderState] = {}
    asked = dict.fromkeys(model_folders(root), ()) if only is None else only
    for name, chosen in sorted(asked.items()):
        states[name] = folder_state(root / name)
        own: list[str] = []
        try:
            settings[name] = read_settings(root / name)
            tell_settings_of_others(root / name)
            models[name] = _load_versions(root / name, settings[name], threads, own, chosen, links)
        except ModelLoadError as error:
            own.append(str(error))
        problems += own
        if not models.get(name):
            models.pop(name, None)
            causes[name] = "; ".join(own)
    if problems and not models and only is None:
        raise ModelLoadError("; ".join([f"no model in {root} could be loaded", *problems]))
    return Repository(models, tuple(problems), root, threads, settings, states, links, causes)


def load_model(
    folder: Path, threads: int | None = None, only: Collection[int] = (), links: bool = False
) -> tuple[dict[int, Model], ModelSettings]:
    """The versions of one model, or only some of them, and its settings.

    Raises:
        ModelLoadError: one of them does not load.
    """
    problems: list[str] = []
    settings = read_settings(folder)
    tell_settings_of_others(folder)
    versions = _load_versions(folder, settings, threads, problems, only, links)
    if problems:
        raise ModelLoadError("; ".join(problems))
    return versions, settings


def _load_versions(
    folder: Path,
    settings: ModelSettings,
    threads: int | None,
    problems: list[str],
    only: Collection[int],
    links: bool,
) -> dict[int, Model]:
    try:
        numbered = version_folders(folder)
    except OSError as error:
        problems.append(f"{folder}: {error.strerror}")
        return {}
    chosen = list(only) or settings.chosen(numbered)
    if not numbered:
        problems.append(f"{folder}: no version in it; {folder}/1/{MODEL_FILE} expected")
    elif not chosen:
        problems.append(f"{folder}: none of its versions is among those of its settings")
    models = {}
    repository = folder.parent.resolve()
    for version in chosen:
        path = numbered.get(version, folder / str(version)) / MODEL_FILE
        if not links and not path.resolve().is_relative_to(repository):
            problems.append(
                f"{path}: it is a link out of {repository}; put the file itself there, or allow "
                f"such links (--allow-links)"
            )
            continue
        used = threads if settings.threads is None else settings.threads
        try:
            models[version] = Model.load(
                path,
                name=folder.name,
                version=version,
                threads=used,
                arena=settings.arena,
                links=links,
            )
        except ModelLoadError as error:
            problems.append(str(error))
    return models
