"""Models from where they are stored: `.keras` files, and folders that TensorFlow saved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.errors import ExportError

DEFAULT_SIGNATURE = "serving_default"


def as_model(model: Any, signature_key: str | None = None) -> Any:
    """The model at a path; anything but a path as it is.

    Args:
        model: a model, or the path of a `.keras` or `.h5` file, or of a folder that
            `model.export` or `tf.saved_model.save` wrote.
        signature_key: str, which of the signatures of a SavedModel; None takes the one for serving,
            or the only one.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ExportError: what is there cannot be loaded.
    """
    if not isinstance(model, str | Path):
        if signature_key is not None:
            raise ValueError(
                f"signature_key={signature_key!r} is for the path of a SavedModel. Received: a "
                f"{type(model).__name__}"
            )
        return model
    path = Path(model)
    if not path.exists():
        raise FileNotFoundError(f"There is no model at {str(path)!r}.")
    if path.is_dir():
        return _saved_model(path, signature_key)
    if signature_key is not None:
        raise ValueError(
            f"signature_key={signature_key!r} is for a SavedModel, which is a folder; "
            f"'{path}' is a file."
        )
    return _keras_file(path)


def _keras_file(path: Path) -> keras.Model:
    for name in kb.__all__:
        getattr(kb, name)  # Keras knows a class once its module is imported
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds
        reason = _reason(error)
        raise ExportError(f"{path} cannot be loaded as a Keras model: {reason}") from error


def _reason(error: Exception) -> str:
    text = str(error).strip()
    if "safe_mode" in text or "enable_unsafe_deserialization" in text:
        return (
            "it holds Python code (a Lambda layer), which is not run unasked. If you trust the "
            "file, load it yourself and export the model: keras.saving.load_model(path, "
            "safe_mode=False), or call keras.config.enable_unsafe_deserialization() first."
        )
    # Keras buries it in a config.
    unknown = re.search(r"(Could not locate (class|function)|Unknown layer:) '[^']*'", text)
    if unknown:
        return (
            f"{unknown[0]}. Import the code that defines it first (--import MODULE or FILE.py on "
            f"the command line), or export the model itself where its layers are defined: "
            f"keras_blocks.export.export_onnx(model, 'model.onnx')."
        )
    # Keras goes on to tell about formats of its past.
    return " ".join(re.split(r"(?<=\.) ", text.partition("\n")[0])[:2])


def _saved_model(path: Path, signature_key: str | None) -> keras.Model:
    """A signature as a model of named inputs."""
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises many kinds
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"'{path}' cannot be loaded as a SavedModel: {reason}") from error
    functions = dict(getattr(loaded, "signatures", {}))
    name = _chosen(path, sorted(functions), signature_key)
    if _holds_trees(functions[name]):
        raise ExportError(
            f"'{path}' holds a model of trees, and a SavedModel has lost that its inputs are "
            "ragged: export the .keras file, or the model itself."
        )
    _, specs = functions[name].structured_input_signature
    inputs = {key: _input(path, key, spec) for key, spec in specs.items()}
    outputs = _Function(loaded, functions[name], name=path.name)(inputs)
    return keras.Model(inputs, outputs, name=path.name)


def _chosen(path: Path, names: list[str], key: str | None) -> str:
    if not names:
        raise ExportError(
            f"'{path}' has no signature, which says what it takes and gives. Save it by "
            "model.export(path) or with tf.saved_model.save(module, path, signatures=function)."
        )
    if key is None and DEFAULT_SIGNATURE not in names and len(names) > 1:
        raise ExportError(
            f"'{path}' has no signature '{DEFAULT_SIGNATURE}' but the signatures {names}. Choose "
            f"one: signature_key={names[0]!r} (--signature {names[0]})."
        )
    if key is not None and key not in names:
        raise ExportError(f"'{path}' has no signature '{key}'; it has {names}.")
    return key or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0])


def _holds_trees(function: Any) -> bool:
    """Whether it has the complaint of `TreeRecursive` about parents that make no tree."""
    return any(
        node.op == "StringFormat" and node.attr["template"].s.startswith(b"TreeRecursive: ")
        for inner in function.graph.as_graph_def().library.function
        for node in inner.node_def
    )


def _input(path: Path, name: str, spec: tf.TensorSpec) -> keras.KerasTensor:
    if spec.shape.rank is None:
        raise ExportError(f"input '{name}' of '{path}' has no known rank")
    return keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype.name, name=name)


class _Function(keras.layers.Layer):
    """A function of a SavedModel, which takes and gives its tensors by name."""

    def __init__(self, loaded: Any, function: Any, name: str):
        super().__init__(name=name, autocast=False)
        self.loaded = loaded  # it owns the variables
        self.function = function

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self.function(**inputs)
