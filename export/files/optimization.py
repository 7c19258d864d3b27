"""`optimize`: what onnxruntime does to a graph whenever it loads one, done once and saved."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime

from keras_blocks.errors import ExportError
from keras_blocks.export.files.changes import Changed, Trial, change_file
from keras_blocks.export.onnx_io.atomic_write import serialized
from keras_blocks.export.onnx_io.graphs import op_counts
from keras_blocks.export.reports.file_report import ChangeReport
from keras_blocks.runtime.runner import first_line

Level = Literal["basic", "extended", "all"]
_LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def optimize(
    filepath: str | Path,
    output: str | Path | None = None,
    *,
    level: Level = "basic",
    inputs: Any = None,
    labels: Any = None,
    max_error: float | None = None,
    overwrite: bool = False,
    seed: int = 0,
    verbose: bool | None = None,
) -> ChangeReport:
    """Writes an ONNX file with its graph optimised by onnxruntime, and says what that wins.

    onnxruntime does the same whenever it loads a file: mostly loading gains. Runs gain where
    another runtime optimises less.

    | level | what | the file runs |
    | --- | --- | --- |
    | `"basic"` | constants folded, needless nodes removed, simple fusions | everywhere |
    | `"extended"` | more fusions, into operators of onnxruntime's own | under onnxruntime |
    | `"all"` | layouts for the processor of this machine too | on processors like this one |

    Args:
        filepath: str, the ONNX file, exported by us or not. It stays as it is.
        output: str, the file to write; `model.optimized.onnx` beside `model.onnx` by default.
        level: str, see above.
        inputs: what both files run on to be compared; see `quantize`.
        labels: what the outputs of `inputs` should be, for the accuracy of both files.
        max_error: float, the largest absolute error that is accepted.
        overwrite: bool, whether `output` may be the file itself.
        seed: int, of drawn samples.
        verbose: bool, False shows no progress; None shows it beyond a second.

    Returns:
        A `ChangeReport`: errors, sizes, times, and which nodes went.

    Raises:
        FileNotFoundError: there is no such file.
        ModelLoadError: it is no ONNX file.
        ContractError: the given data does not fit the inputs.
        ParityError: the error exceeds `max_error`; nothing is written.
        ExportError: onnxruntime cannot save the optimised graph.

    Example:

    >>> import keras, keras_blocks as kb
    >>> from keras_blocks.export import export_onnx, optimize
    >>> model = keras.Sequential([keras.Input((4,)), kb.Vanilla(2)])
    >>> result = export_onnx(model, "model.onnx")
    >>> optimize("model.onnx").max_error
    0.0

    Reference: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html
    """
    if level not in _LEVELS:
        raise ValueError(f"level is one of {', '.join(_LEVELS)}. Received: level={level!r}")

    def change(model: onnx.ModelProto) -> Changed:
        return _optimized(model, level)

    trial = Trial(inputs, labels, max_error, seed, verbose)
    return change_file(filepath, output, "optimized", overwrite, change, trial)


def _optimized(model: onnx.ModelProto, level: str) -> Changed:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it warns that the file is for this machine, as we do
        options.graph_optimization_level = _LEVELS[level]
        options.optimized_model_filepath = str(target)
        try:
            onnxruntime.InferenceSession(
                serialized(model), options, providers=["CPUExecutionProvider"]
            )
            changed = onnx.load(target)
        except Exception as error:  # onnxruntime's errors share no base class
            reason = first_line(error)
            raise ExportError(f"onnxruntime cannot optimise the model: {reason}") from error
    before, after = op_counts(model), op_counts(changed)
    gone = {op: count - after.get(op, 0) for op, count in before.items()}
    here = f"it is made for processors like this one ({platform.machine()})"
    return Changed(
        changed,
        f"optimised by onnxruntime, level {level}",
        {op: count for op, count in gone.items() if count > 0},
        (here,) if level == "all" else (),
    )
