"""Keras models to ONNX files that are proven to compute the same.

from keras_blocks.export import export_onnx

result = export_onnx(model, "model.onnx")   # raises if the file does not equal the model
print(result)                               # what was checked, worst error, op counts
"""

from __future__ import annotations

try:
    import keras  # noqa: F401
    import onnx  # noqa: F401
    import tensorflow  # noqa: F401
    import tf2onnx  # noqa: F401
except ModuleNotFoundError as error:
    from keras_blocks.errors import MissingExtraError

    raise MissingExtraError("keras_blocks.export", "tensorflow", str(error.name)) from None

from keras_blocks.export.exporting import export_onnx
from keras_blocks.export.lowerings import converts, lowers
from keras_blocks.export.parity import check_parity
from keras_blocks.export.report import ExportResult, ParityReport
from keras_blocks.export.standins import onnx_node

__all__ = [
    "ExportResult",
    "ParityReport",
    "check_parity",
    "converts",
    "export_onnx",
    "lowers",
    "onnx_node",
]
