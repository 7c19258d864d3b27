"""Reports to look at: made up, one field or the other as a test wants it."""

from __future__ import annotations

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.export.reports.report import ExportResult, ParityReport
from keras_blocks.export.results.checks import Check, Worst

VERSIONS = {"keras": "3.15.1", "onnxruntime": "1.32.0"}


def check(sample: str = "batch 3, x.time 7", error: float = 2e-7, **changes) -> Check:
    fields = {
        "sample": sample,
        "input_shapes": {"x": (3, 7, 4)},
        "output": "y",
        "shape": (3, 5),
        "dtype": "float32",
        "max_error": error,
        "mean_error": error / 2,
        "relative_error": error,
        "tolerance": 1e-5,
        "argmax_agreement": 1.0,
        "worst": Worst((2, 1), 1.0 + error, 1.0),
    }
    return Check(**{**fields, **changes})


def wrong(**changes) -> Check:
    problem = "the worst element, at [2, 1] got 1.5, expected 1, is off by 0.5"
    return check(error=0.5, problem=problem, **changes)


def report(*checks: Check, **changes) -> ParityReport:
    fields = {"filepath": "model.onnx", "model": "reader", "seed": 7, "versions": VERSIONS}
    return ParityReport(**{**fields, "checks": checks, **changes})


def result(**changes) -> ExportResult:
    contract = Contract(
        (
            TensorSpec("tokens", "int32", ("tokens.values",), True, 0, 4999),
            TensorSpec("parents", "int32", ("parents.values",), True, -1, None, "tokens"),
        ),
        (TensorSpec("y", "float32", ("batch", 10)),),
    )
    fields = {
        "filepath": "trees.onnx",
        "contract": contract,
        "opset_version": 18,
        "op_counts": {"Add": 2, "Loop": 1, "MatMul": 5},
        "size_bytes": 1_234_567,
        "parity": report(check()),
    }
    return ExportResult(**{**fields, **changes})
