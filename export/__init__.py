"""Keras models to ONNX files that are proven to compute the same; such files made smaller.

    from keras_blocks.export import export_onnx, quantize

    result = export_onnx(model, "model.onnx")   # raises if the file does not equal the model
    print(result)                               # what was checked, worst error, op counts
    print(quantize("model.onnx", "small.onnx")) # int8; what it won, and what it cost

The names load on first use. To export needs TensorFlow; to change and to compare files does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_blocks.lazy import member

if TYPE_CHECKING:
    from keras_blocks.export.files.file_comparison import compare_files
    from keras_blocks.export.files.float16 import to_float16
    from keras_blocks.export.files.optimization import optimize
    from keras_blocks.export.files.quantization import quantize
    from keras_blocks.export.generation import decoding_step, generation_loop
    from keras_blocks.export.lowerings import converts, lowers
    from keras_blocks.export.pipeline import export_onnx
    from keras_blocks.export.reports.file_report import ChangeReport, FileComparison
    from keras_blocks.export.reports.report import ExportResult, ParityReport
    from keras_blocks.export.tracing.stand_ins import onnx_node
    from keras_blocks.export.verification.parity import check_parity

_HOMES = {
    "ChangeReport": "reports.file_report",
    "ExportResult": "reports.report",
    "FileComparison": "reports.file_report",
    "ParityReport": "reports.report",
    "check_parity": "verification.parity",
    "compare_files": "files.file_comparison",
    "converts": "lowerings",
    "decoding_step": "generation",
    "export_onnx": "pipeline",
    "generation_loop": "generation",
    "lowers": "lowerings",
    "onnx_node": "tracing.stand_ins",
    "optimize": "files.optimization",
    "quantize": "files.quantization",
    "to_float16": "files.float16",
}

__all__ = [
    "ChangeReport",
    "ExportResult",
    "FileComparison",
    "ParityReport",
    "check_parity",
    "compare_files",
    "converts",
    "decoding_step",
    "export_onnx",
    "generation_loop",
    "lowers",
    "onnx_node",
    "optimize",
    "quantize",
    "to_float16",
]


def __getattr__(name: str) -> Any:
    return member(__name__, name, _HOMES, "tensorflow", {"keras", "onnx", "tensorflow", "tf2onnx"})


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
