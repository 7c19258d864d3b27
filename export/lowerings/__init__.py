"""The native ONNX forms of layers and ops, one file a family; importing this registers them all."""

import importlib
import pkgutil

from keras_blocks.export.lowerings.registry import (
    converters,
    converts,
    exact_form_of,
    lowered_call,
    lowers,
    rewrite_of,
    rewrites,
)

__all__ = [
    "converters",
    "converts",
    "exact_form_of",
    "lowered_call",
    "lowers",
    "rewrite_of",
    "rewrites",
]

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
