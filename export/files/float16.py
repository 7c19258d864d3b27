"""`to_float16`: half the size, and on hardware that has it half the work."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx.shape_inference

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.feeds import Feed, as_feeds
from keras_blocks.contract.sampling.samples import draw_samples
from keras_blocks.errors import ExportError
from keras_blocks.export.files.changes import Changed, Trial, change_file
from keras_blocks.export.files.regions import change_regions
from keras_blocks.export.files.stored_weights import store_weights
from keras_blocks.export.onnx_io.atomic_write import serialized
from keras_blocks.export.onnx_io.graphs import copied, op_counts
from keras_blocks.export.reports.file_report import ChangeReport
from keras_blocks.runtime.file_contract import file_contract
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError, first_line

MIN_ELEMENTS = 1024  # a smaller weight saves less than the node takes that reads it
# "... while running ScatterElements node", "... an implementation for CumSum(14) node"
_REFUSED_OP = re.compile(r"(?:running|implementation for) (\w+)[ (]")


def to_float16(
    filepath: str | Path,
    output: str | Path | None = None,
    *,
    keep_io_types: bool = True,
    weights_only: bool = False,
    keep_ops: Sequence[str] = (),
    inputs: Any = None,
    labels: Any = None,
    max_error: float | None = None,
    overwrite: bool = False,
    seed: int = 0,
    verbose: bool | None = None,
) -> ChangeReport:
    """Writes an ONNX file in float16, and says what that wins and costs.

        w = round(w) to 11 bits, from 6e-8 to 65504

    What onnxruntime cannot run in float16 on a processor stays float32, and so do the insides of
    loops and branches, whose large weights are stored in float16 all the same. Most processors
    compute float16 as float32 and cast in between, which is no faster; graphics cards gain.
    The report is of this processor: where float16 is computed, errors may be larger.
    `weights_only` stores weights in float16 and leaves all arithmetic in float32: half the size,
    the same speed everywhere.

    Args:
        filepath: str, the ONNX file, exported by us or not. It stays as it is.
        output: str, the file to write; `model.float16.onnx` beside `model.onnx` by default.
        keep_io_types: bool, whether inputs and outputs stay float32.
        weights_only: bool, whether to store the weights in float16 and compute in float32.
        keep_ops: names of ONNX ops that stay float32, `"Softmax"` for instance.
        inputs: what both files run on to be compared; see `quantize`.
        labels: what the outputs of `inputs` should be, for the accuracy of both files.
        max_error: float, the largest absolute error that is accepted.
        overwrite: bool, whether `output` may be the file itself.
        seed: int, of drawn samples.
        verbose: bool, False shows no progress; None shows it beyond a second.

    Returns:
        A `ChangeReport`: errors, sizes, times, accuracy, and what was changed.

    Raises:
        FileNotFoundError: there is no such file.
        ModelLoadError: it is no ONNX file.
        ContractError: the given data does not fit the inputs.
        ParityError: the error exceeds `max_error`; nothing is written.
        ExportError: onnxruntime's tool fails on the model.
        ValueError: the model has no such op as `keep_ops` names.

    Example:

    >>> import keras, keras_blocks as kb
    >>> from keras_blocks.export import export_onnx, to_float16
    >>> model = keras.Sequential([keras.Input((64,)), kb.Vanilla(64)])
    >>> result = export_onnx(model, "model.onnx")
    >>> report = to_float16("model.onnx", weights_only=True)
    >>> report.filepath, report.size_ratio < 0.6, report.max_error < 0.01
    ('model.float16.onnx', True, True)
    """

    def change(model: onnx.ModelProto) -> Changed:
        if weights_only:
            model = copied(model)
            counts = store_weights(model, "float16", MIN_ELEMENTS)
            return Changed(model, "weights in float16, arithmetic in float32", counts)
        return _halved(model, set(keep_ops), keep_io_types, inputs, seed)

    trial = Trial(inputs, labels, max_error, seed, verbose)
    return change_file(filepath, output, "float16", overwrite, change, trial)


def _halved(
    model: onnx.ModelProto, kept: set[str], keep_io_types: bool, inputs: Any, seed: int
) -> Changed:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    ops = op_counts(model)
    for op in sorted(kept - ops.keys()):
        raise ValueError(f"keep_ops: the model has no '{op}'; it has {', '.join(sorted(ops))}")
    contract = file_contract(OnnxRunner(serialized(model)))
    feeds = _feeds(contract, inputs, seed)
    kept = kept | set(DEFAULT_OP_BLOCK_LIST)
    while True:
        changed = _converted(model, kept, True)
        refused = _refused_op(changed, feeds)
        if refused is None:
            break
        kept.add(refused)
    if not keep_io_types:
        changed = _converted(model, kept, False)
        contract = Contract(*(tuple(map(_half, s)) for s in (contract.inputs, contract.outputs)))
    halved, left = _by_precision(changed)
    store_weights(changed, "float16", MIN_ELEMENTS)
    text = ", ".join(f"{count} {op}" for op, count in left.items())
    return Changed(
        changed,
        "float16",
        halved,
        (f"left in float32: {text}",) if text else (),
        None if keep_io_types else contract,
    )


def _by_precision(model: onnx.ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    """How many nodes of each op give float16, and how many float32; casts left out."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    elements = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)
    }
    counts = [
        Counter(
            node.op_type
            for node in graph.node
            if node.op_type != "Cast" and wanted in {elements.get(name) for name in node.output}
        )
        for wanted in (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
    ]
    return dict(counts[0].most_common()), dict(counts[1].most_common())


def _converted(model: onnx.ModelProto, kept: Collection[str], keep_io: bool) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    outer = {value.name for value in (*model.graph.input, *model.graph.output)}

    def half(part: onnx.ModelProto) -> onnx.ModelProto:
        border = [value.name for value in (*part.graph.input, *part.graph.output)]
        try:
            return convert_float_to_float16(
                part,
                keep_io_types=[name for name in border if keep_io or name not in outer],
                op_block_list=list(kept),
            )
        except Exception as error:  # the tool raises whatever goes wrong inside
            reason = first_line(error)
            raise ExportError(f"onnxruntime cannot bring it to float16: {reason}") from error

    changed = change_regions(model, half, inner=False)
    for values, before in (
        (changed.graph.input, model.graph.input),
        (changed.graph.output, model.graph.output),
    ):
        for value, old in zip(values, before, strict=True):
            if not keep_io and _is_float(old):
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return changed


def _refused_op(model: onnx.ModelProto, feeds: Sequence[Feed]) -> str | None:
    """The op that onnxruntime does not run in float16, or None."""
    try:
        side = OnnxRunner(serialized(model), threads=1)
        for feed in feeds:
            side.run(feed)
    except SampleRejectedError as error:
        found = _REFUSED_OP.search(str(error))
        known = {node.op_type for node in model.graph.node}
        if found is None or found[1] not in known:
            raise ExportError(f"onnxruntime does not run it in float16: {error}") from error
        return found[1]
    return None


def _feeds(contract: Contract, inputs: Any, seed: int) -> list[Feed]:
    if inputs is not None:
        return as_feeds(contract, inputs, "inputs")
    return [sample.feed for sample in draw_samples(contract, seed)]


def _half(spec: TensorSpec) -> TensorSpec:
    return replace(spec, dtype="float16") if spec.dtype == "float32" else spec


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
