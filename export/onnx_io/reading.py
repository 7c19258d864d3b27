"""ONNX files: read, and opened under onnxruntime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.external_data_helper

from keras_blocks.errors import ModelLoadError
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError


def load(path: Path, weights: bool = True) -> onnx.ModelProto:
    """Reads an ONNX file, with its external data if `weights` are asked for.

    Raises:
        FileNotFoundError: there is no such file.
        ModelLoadError: it is no ONNX file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own type differs between its versions
        raise ModelLoadError(f"{path}: it is no ONNX file") from error
    if not model.opset_import or not (model.graph.node or model.graph.output):
        raise ModelLoadError(f"{path}: it is no ONNX file")
    if weights:
        try:
            onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        except Exception as error:
            raise ModelLoadError(f"{path}: its external data cannot be read: {error}") from error
    return model


def opened(path: Path) -> OnnxRunner:
    """A file under onnxruntime, on one thread: what is compared and timed must not vary.

    Raises:
        ModelLoadError: onnxruntime does not load it.
    """
    try:
        return OnnxRunner(path, threads=1)
    except SampleRejectedError as error:
        raise ModelLoadError(f"{path}: onnxruntime does not load it: {error}") from error
