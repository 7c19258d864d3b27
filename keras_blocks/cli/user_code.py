"""Code of the user's own, imported so that Keras knows the layers in it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import click

from keras_blocks.errors import UnreadableError

imported_code = click.option(
    "--import",
    "code",
    multiple=True,
    metavar="MODULE|FILE.py",
    help="Import this first, for the layers of your own that it defines; repeatable.",
)


def import_code(names: Iterable[str]) -> None:
    """Imports modules, or `.py` files as such, and tells Keras of what they define.

    Raises:
        UnreadableError: one of them fails.
    """
    import keras

    for name in names:
        try:
            module = _imported(name)
        except Exception as error:  # whatever the user's code raises
            raise UnreadableError(f"--import {name}: {type(error).__name__}: {error}") from error
        # By name, for a file that was `__main__` when the model was saved.
        keras.saving.get_custom_objects().update(_definitions(module))


def _imported(name: str) -> ModuleType:
    """A module as `python -m` finds it, or a file with its neighbours as `python FILE.py` does."""
    if not name.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(name)
    path = Path(name).resolve(strict=True)
    sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    if getattr(module, "__file__", None) != str(path):
        raise ImportError(f"another module is called '{path.stem}'; give the file another name")
    return module


def _definitions(module: ModuleType) -> dict[str, object]:
    """The classes and functions of a module and of its package."""
    home = module.__name__.partition(".")[0]
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and str(getattr(value, "__module__", "")).partition(".")[0] == home
    }
