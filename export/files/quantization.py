"""`quantize`: weights and arithmetic in int8, by onnxruntime's own tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from keras_blocks.contract import PROCESSORS
from keras_blocks.errors import ExportError
from keras_blocks.export.files.changes import Changed, Trial, change_file
from keras_blocks.export.files.int8.left_in_float import left_in_float
from keras_blocks.export.files.int8.tools import (
    MIN_ELEMENTS,
    Choice,
    Scales,
    calibration_feeds,
    choices,
)
from keras_blocks.export.files.regions import change_regions
from keras_blocks.export.files.stored_weights import store_weights
from keras_blocks.export.onnx_io.graphs import copied
from keras_blocks.export.reports.file_report import ChangeReport

LOWEST_OPSET = 13  # of a scale for each channel


def quantize(
    filepath: str | Path,
    output: str | Path | None = None,
    *,
    calibration: Any = None,
    weights_only: bool = False,
    ops: Sequence[str] | None = None,
    min_elements: int | None = None,
    target: str = "any",
    per_channel: bool = True,
    reduce_range: bool = False,
    inputs: Any = None,
    labels: Any = None,
    max_error: float | None = None,
    overwrite: bool = False,
    seed: int = 0,
    verbose: bool | None = None,
) -> ChangeReport:
    """Writes an ONNX file with weights in int8, and says what that wins and costs.

        w = scale * q,    q = round(w / scale) in -64 ... 64 (-127 ... 127 for `target="vnni"`)

    Three ways, each of an ordinary file that needs nothing but onnxruntime:

    - dynamic, the default: the range of what goes into a product is found in every run, over all
      of its rows; `keras-blocks serve` lets requests share no run of such a file;
    - static, with `calibration`: it is fixed beforehand, from data; best for convolutions;
    - `weights_only`: all arithmetic stays float32, and every op can have it. A quarter of the
      size, the same speed.

    The file is right on every processor: weights that are multiplied in int8 have seven bits, for
    x86 processors without VNNI add pairs of such products in 16 bits. Where it will run on others
    alone, `target="vnni"` gives them the eighth bit: the same speed, and 15 to 35% less error.
    Embeddings, convolutions without calibration and `weights_only` have all eight bits anyway.
    The report and `keras-blocks inspect` say which processors a file is right on.

    The contract in the file is kept; the proof in it was of the float file, and is noted as such.

    Args:
        filepath: str, the ONNX file, exported by us or not. It stays as it is.
        output: str, the file to write; `model.int8.onnx` beside `model.onnx` by default.
        calibration: inputs like those to come, for static quantisation: arrays, a dict by input,
            an iterable of batches or an `.npz` file; see `inputs`.
        weights_only: bool, whether to store the weights in int8 and compute in float32.
        ops: the ONNX ops to quantise; None takes those that are no slower for it: `Gather`
            (embeddings), `Gemm`, `LSTM`, `MatMul`, and with calibration `Conv` and `ConvTranspose`.
            `Conv` can be named without, for its size.
        min_elements: int, smaller weights stay as they are; None is 4096, and 0 for convolutions
            that are calibrated.
        target: str, the processors to run on: "any"; or "vnni" for x86 processors that have it
            (AVX-512 VNNI, AVX-VNNI or AMX).
        per_channel: bool, a scale for each column or channel of a weight instead of one for all.
        reduce_range: bool, whether to keep to seven bits with `target="vnni"` too.
        inputs: what both files run on to be compared: an array, for a file of one input; a dict of
            arrays by input, where a ragged input is a list of rows; an iterable of these; or the
            name of an `.npz` file. None takes the calibration data, else draws samples.
        labels: what the outputs of `inputs` should be, for the accuracy of both files.
        max_error: float, the largest absolute error that is accepted.
        overwrite: bool, whether `output` may be the file itself.
        seed: int, of drawn samples.
        verbose: bool, False shows no progress; None shows it beyond a second.

    Returns:
        A `ChangeReport`: errors, sizes, times, accuracy, what was quantised, and `processors`.

    Raises:
        FileNotFoundError: there is no such file.
        ModelLoadError: it is no ONNX file.
        ContractError: the given data does not fit the inputs, or is empty.
        ParityError: the error exceeds `max_error`; nothing is written.
        ExportError: onnxruntime's tools fail on the model.

    Example:

    >>> import keras, keras_blocks as kb
    >>> from keras_blocks.export import export_onnx, quantize
    >>> model = keras.Sequential([keras.Input((256,)), kb.Vanilla(256)])
    >>> result = export_onnx(model, "large.onnx")
    >>> report = quantize("large.onnx", "small.onnx")
    >>> report.changed, report.size_ratio < 0.3, report.comparison.outputs[0].mean_error < 0.05
    ({'MatMul': 1}, True, True)
    >>> report.processors
    'any'

    Reference: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    source = Path(filepath)
    static = calibration is not None
    if weights_only and (static or ops is not None):
        raise ValueError("weights_only stores all large weights; it takes no calibration, ops")
    if target not in PROCESSORS:
        raise ValueError(f"target: {' or '.join(map(repr, PROCESSORS))} expected, got {target!r}")
    scales = Scales(per_channel, seven_bits=reduce_range or target == "any")
    feeds = calibration_feeds(source, calibration) if static else []
    chosen = choices(feeds, ops, min_elements)

    def change(model: onnx.ModelProto) -> Changed:
        if weights_only:
            return _stored(model, MIN_ELEMENTS if min_elements is None else min_elements)
        return _quantised(model, chosen, scales)

    judged_on = calibration if inputs is None and static else inputs
    trial = Trial(judged_on, labels, max_error, seed, verbose)
    return change_file(source, output, "int8", overwrite, change, trial)


def _quantised(model: onnx.ModelProto, chosen: Sequence[Choice], scales: Scales) -> Changed:
    opset = next((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), 0)
    if opset < LOWEST_OPSET:
        raise ExportError(
            f"the file has opset {opset}, and int8 needs {LOWEST_OPSET} or more; export it again, "
            f"or lift it with onnx.version_converter"
        )
    counts: Counter[str] = Counter()

    def change(part: onnx.ModelProto) -> onnx.ModelProto | None:
        nodes = choice.nodes(part.graph)
        if not nodes:
            return None
        changed = choice.tool(changing, part, nodes, scales)
        counts.update(op for name, op in nodes.items() if choice.tool.did(changed, name))
        return changed

    changing = model
    for choice in chosen:
        changing = change_regions(changing, change, choice.tool.everywhere)
    way = chosen[0].tool.way
    return Changed(changing, way, dict(counts.most_common()), left_in_float(changing, chosen))


def _stored(model: onnx.ModelProto, min_elements: int) -> Changed:
    model = copied(model)
    counts = store_weights(model, "int8", min_elements)
    return Changed(model, "weights in int8, arithmetic in float32", counts)
