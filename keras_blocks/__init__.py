"""The building blocks of neural networks as Keras layers.

The names below load on first use (PEP 562), so that `import keras_blocks` and
`import keras_blocks.serving` bring in neither TensorFlow nor Keras.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from keras_blocks.errors import KerasBlocksError, MissingExtraError, ParityError, TreeError
from keras_blocks.lazy import member

# onnxruntime (from 1.32 on) asks a host for where to send telemetry and leaves a folder in ~/.cache
# when it is imported, unless this is set by then. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from keras_blocks.mechanisms.convolution import Convolution
    from keras_blocks.mechanisms.generation import Generation
    from keras_blocks.mechanisms.map import Map
    from keras_blocks.mechanisms.recurrence import Recurrence
    from keras_blocks.mechanisms.stacked import Stacked
    from keras_blocks.mechanisms.trees.cells.base import TreeCell
    from keras_blocks.mechanisms.trees.cells.gru import TreeGRUCell
    from keras_blocks.mechanisms.trees.cells.lstm import ChildSumTreeLSTMCell, NaryTreeLSTMCell
    from keras_blocks.mechanisms.trees.cells.tensor import RecursiveTensorCell
    from keras_blocks.mechanisms.trees.tree_recursive import TreeRecursive
    from keras_blocks.nonlinearities import Rectifier, Sigmoid, Tanh
    from keras_blocks.units.attention import MultiHeadAttention
    from keras_blocks.units.attention_pooling import AttentionPooling
    from keras_blocks.units.dense_rows import ToDense, ToRagged
    from keras_blocks.units.embedding import Embedding
    from keras_blocks.units.global_pooling import (
        GlobalAveragePooling,
        GlobalMaxPooling,
        GlobalSumPooling,
    )
    from keras_blocks.units.gru import GRU, GRUCell
    from keras_blocks.units.lstm import LSTM, LSTMCell
    from keras_blocks.units.max_pooling import MaxPooling
    from keras_blocks.units.merging import (
        Add,
        Average,
        Concatenate,
        Maximum,
        Minimum,
        Multiply,
        Subtract,
    )
    from keras_blocks.units.positions import PositionEmbedding, SinePositionEncoding
    from keras_blocks.units.repeat_vector import RepeatVector
    from keras_blocks.units.softmax import Softmax
    from keras_blocks.units.vanilla import Vanilla

__version__ = "0.1.0"

_HOMES = {
    "Vanilla": "units.vanilla",
    "Softmax": "units.softmax",
    "Embedding": "units.embedding",
    "MaxPooling": "units.max_pooling",
    "GlobalMaxPooling": "units.global_pooling",
    "GlobalAveragePooling": "units.global_pooling",
    "GlobalSumPooling": "units.global_pooling",
    "AttentionPooling": "units.attention_pooling",
    "MultiHeadAttention": "units.attention",
    "GRU": "units.gru",
    "GRUCell": "units.gru",
    "LSTM": "units.lstm",
    "LSTMCell": "units.lstm",
    "RepeatVector": "units.repeat_vector",
    "SinePositionEncoding": "units.positions",
    "PositionEmbedding": "units.positions",
    "ToDense": "units.dense_rows",
    "ToRagged": "units.dense_rows",
    "Add": "units.merging",
    "Subtract": "units.merging",
    "Multiply": "units.merging",
    "Average": "units.merging",
    "Maximum": "units.merging",
    "Minimum": "units.merging",
    "Concatenate": "units.merging",
    "Sigmoid": "nonlinearities",
    "Tanh": "nonlinearities",
    "Rectifier": "nonlinearities",
    "Stacked": "mechanisms.stacked",
    "Map": "mechanisms.map",
    "Convolution": "mechanisms.convolution",
    "Recurrence": "mechanisms.recurrence",
    "Generation": "mechanisms.generation",
    "TreeRecursive": "mechanisms.trees.tree_recursive",
    "TreeCell": "mechanisms.trees.cells.base",
    "ChildSumTreeLSTMCell": "mechanisms.trees.cells.lstm",
    "NaryTreeLSTMCell": "mechanisms.trees.cells.lstm",
    "TreeGRUCell": "mechanisms.trees.cells.gru",
    "RecursiveTensorCell": "mechanisms.trees.cells.tensor",
}
_SUBMODULES = frozenset({"contract", "errors", "export", "ragged", "serving", "trees"})

__all__ = [
    "GRU",
    "LSTM",
    "Add",
    "AttentionPooling",
    "Average",
    "ChildSumTreeLSTMCell",
    "Concatenate",
    "Convolution",
    "Embedding",
    "GRUCell",
    "Generation",
    "GlobalAveragePooling",
    "GlobalMaxPooling",
    "GlobalSumPooling",
    "KerasBlocksError",
    "LSTMCell",
    "Map",
    "MaxPooling",
    "Maximum",
    "Minimum",
    "MissingExtraError",
    "MultiHeadAttention",
    "Multiply",
    "NaryTreeLSTMCell",
    "ParityError",
    "PositionEmbedding",
    "Rectifier",
    "Recurrence",
    "RecursiveTensorCell",
    "RepeatVector",
    "Sigmoid",
    "SinePositionEncoding",
    "Softmax",
    "Stacked",
    "Subtract",
    "Tanh",
    "ToDense",
    "ToRagged",
    "TreeCell",
    "TreeError",
    "TreeGRUCell",
    "TreeRecursive",
    "Vanilla",
]


def __getattr__(name: str) -> Any:
    return member(__name__, name, _HOMES, "tensorflow", {"keras", "tensorflow"}, _SUBMODULES)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES) | _SUBMODULES)


def _register_with_keras() -> None:
    with contextlib.suppress(KerasBlocksError):
        importlib.import_module(f"{__name__}.ragged_losses")
        for name in _HOMES:
            __getattr__(name)


class _AfterKeras:
    """Finds Keras and the modules of this package as Python does, and registers the classes once
    the outermost of these imports is over and Keras is there: not before, for a module that brings
    Keras in is not whole until then.
    """

    def __init__(self) -> None:
        self._inside = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if self._inside or not (name == "keras" or name.startswith(f"{__name__}.")):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (f.find_spec(name, path, target) for f in others)), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_register(module: Any) -> None:
                self._inside = True
                try:
                    run(module)
                finally:
                    self._inside = False
                if "keras" in sys.modules:
                    with contextlib.suppress(ValueError):
                        sys.meta_path.remove(self)
                    _register_with_keras()

            spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


# Keras finds the classes of a saved model only if they have been imported. Where it is in use, now
# or later, that costs little.
if "keras" in sys.modules:
    _register_with_keras()
else:
    sys.meta_path.insert(0, _AfterKeras())
