"""Names of a package that are imported on first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Mapping
from typing import Any

from keras_blocks.errors import MissingExtraError


def member(
    package: str,
    name: str,
    homes: Mapping[str, str],
    extra: str,
    needs: Collection[str],
    submodules: Collection[str] = (),
) -> Any:
    """What the package has under a name; from then on the package holds it itself.

    Args:
        package: str, its full name.
        name: str, what is asked for.
        homes: the names, and the module below the package (or, by its full name, elsewhere in ours)
            that defines each.
        extra: str, the optional dependencies that bring what the modules need.
        needs: the modules that these dependencies bring, as imports name them.
        submodules: modules of the package that are members themselves.

    Raises:
        AttributeError: the package has no such name.
        MissingExtraError: one of `needs` is not installed.
    """
    if name not in homes and name not in submodules:
        raise AttributeError(f"module '{package}' has no attribute '{name}'")
    try:
        home = homes.get(name, name)
        absolute = home.startswith("keras_blocks.")
        module = importlib.import_module(home if absolute else f"{package}.{home}")
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is None or missing not in needs:
            raise
        raise MissingExtraError(f"{package}.{name}", extra, missing.partition(".")[0]) from None
    if name in submodules:
        return module
    value = getattr(module, name)
    setattr(sys.modules[package], name, value)
    return value
