"""`export_onnx`: convert, write beside the target, prove, and only then put the file in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import onnx

from keras_blocks.contract import PROOF_METADATA_KEY
from keras_blocks.errors import ExportError
from keras_blocks.export.conversion.loading import as_model
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.onnx_io.atomic_write import beside, folders_for, serialized
from keras_blocks.export.onnx_io.external_data import Apart, pair_beside, without_older_data
from keras_blocks.export.onnx_io.graphs import op_counts
from keras_blocks.export.passes.opset.newest import (
    LOWEST_DEFAULT_OPSET,
    opset_of,
    opsets_of,
    withheld_ops,
)
from keras_blocks.export.progress import shown
from keras_blocks.export.reports.report import ExportResult, Price
from keras_blocks.export.tracing.file_dtypes import computes_in
from keras_blocks.export.verification.effort import Budget, Verify, level_of
from keras_blocks.export.verification.padding import proven_signature
from keras_blocks.export.verification.parity import verify_file
from keras_blocks.runtime.external_data import count_bytes
from keras_blocks.runtime.releases import loads_in
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError


def export_onnx(
    model: keras.Model | str | Path,
    filepath: str | Path,
    *,
    opset_version: int | None = None,
    input_signature: Any = None,
    external_data: bool = False,
    signature_key: str | None = None,
    verify: Verify = True,
    time_budget: float | None = None,
    verbose: bool | None = None,
) -> ExportResult:
    """Writes a Keras model as an ONNX file, and proves that the file computes the same.

    The file is written under another name, run by onnxruntime on many shapes beside the model, and
    takes its own name only when all outputs agree. Whatever fails before leaves nothing, and an
    older file of that name as it was.

    Inputs and outputs have their Keras names; a ragged input `x` is the flat values `x` and
    `x.row_splits`; free dims have names (`batch`, `x.time`, `x.values`). The contract with all of
    it is in the file's metadata. Stateful layers start from zero states in every run. A sparse
    input is a dense one in the file, and what the model computes in bfloat16 the file computes in
    float32.

    Args:
        model: a functional, sequential or subclassed Keras model; it need not have been called. Or
            the path of one: of a `.keras` file, or of a folder that `model.export` or
            `tf.saved_model.save` wrote.
        filepath: str, where the file goes; `.onnx` by custom. Missing folders are made.
        opset_version: int, the version of the ONNX operators, 15 or more. None takes the lowest, 17
            at least, with which the file is as small and as fast as with the newest, so that as
            many runtimes as possible load it. Below it the result's `price` says what it costs.
        input_signature: for a subclassed model that has never been called; one that was, since this
            was imported, is exported with all arguments of its last call. A list with a
            `keras.InputSpec`, `tf.TensorSpec` or `tf.RaggedTensorSpec` (or a nest of them) for
            each positional argument.
        signature_key: str, which of the signatures of a SavedModel; None takes `serving_default`,
            or the only one.
        external_data: bool, whether the weights go into a file of their own, `filepath` and
            `.data`, which must stay beside it. Those beyond 2 GB always do.
        verify: True or "usual", "fast" or "thorough" for less or more of the proof (see `levels`).
            False proves nothing: the file is only loaded once.
        time_budget: float, seconds after which the proof begins nothing more; its report names
            what was left out. None takes as long as it takes.
        verbose: bool, False shows no progress; None shows it beyond a second.

    Returns:
        An `ExportResult`; printed, it tells what was checked, the worst error and the ops.

    Raises:
        ParityError: the file does not compute what the model does; its `report` says where.
        ExportError: the model has no ONNX form; the message gives the reason.
        OSError: the file cannot be written there.
        ValueError: `verify` or `time_budget` is none.

    Example:

    >>> import keras, keras_blocks as kb
    >>> from keras_blocks.export import export_onnx
    >>> model = keras.Sequential([keras.Input((4,)), kb.Vanilla(2, use_bias=False)])
    >>> result = export_onnx(model, "vanilla.onnx")
    >>> result.op_counts
    {'MatMul': 1, 'Tanh': 1}
    """
    if verify is not False:
        level_of(verify), Budget(time_budget)  # before the work, so that an error costs none
    target = Path(filepath)
    with folders_for(target):
        model = as_model(model, signature_key)
        apart: Apart = {}
        with shown("converting", verbose):
            signature = proven_signature(model, input_signature)
            with withheld_ops() as withheld:
                converted = to_onnx(model, signature, opset_version, apart)
            price = None
            if opset_version is not None and (withheld or opset_version < LOWEST_DEFAULT_OPSET):
                price = _price(converted, to_onnx(model, signature, None, {}))
        if external_data or apart:
            place = pair_beside(target, converted, apart)
        else:
            place = beside(target, serialized(converted))
        with without_older_data(target), place as written:
            if computes_in(model, "float64"):
                _load(written, " Build the model in float32: onnxruntime knows few ops in float64.")
            if verify:
                parity = verify_file(
                    model,
                    signature,
                    written,
                    name=str(target),
                    verify=verify,
                    time_budget=time_budget,
                    verbose=verbose,
                )
                parity.raise_if_wrong()
                entry = converted.metadata_props.add()
                entry.key, entry.value = PROOF_METADATA_KEY, json.dumps(parity.summary())
                written.write_bytes(serialized(converted))
            else:
                parity = None
                _load(written)
        return ExportResult(
            filepath=str(target),
            contract=signature.contract,
            opset_version=opset_of(converted),
            op_counts=op_counts(converted),
            size_bytes=count_bytes(target),
            parity=parity,
            loads_in=loads_in(opsets_of(converted), converted.ir_version),
            price=price,
        )


def _price(converted: onnx.ModelProto, default: onnx.ModelProto) -> Price | None:
    """What an opset costs that lacks what the default one offers; None if it is nothing."""
    nodes, fewest = (sum(op_counts(each).values()) for each in (converted, default))
    if nodes <= fewest:
        return None
    loads = loads_in(opsets_of(default), default.ir_version)
    return Price(nodes, fewest, opset_of(default), loads)


def _load(written: Path, advice: str = "") -> None:
    try:
        OnnxRunner(written)
    except SampleRejectedError as error:
        raise ExportError(
            f"onnxruntime does not load the converted model: {error}.{advice}"
        ) from error
