"""`export_onnx`: convert, write beside the target, prove, and only then put the file in place."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import onnx

from keras_blocks.contract import PROOF_METADATA_KEY
from keras_blocks.errors import ExportError
from keras_blocks.export.convert import DEFAULT_OPSET, to_onnx
from keras_blocks.export.execution import OnnxSide, RefusedError
from keras_blocks.export.finish import op_counts
from keras_blocks.export.parity import prove
from keras_blocks.export.progress import shown
from keras_blocks.export.report import ExportResult
from keras_blocks.export.signature import signature_of


def export_onnx(
    model: keras.Model,
    filepath: str | Path,
    *,
    opset_version: int | None = None,
    input_signature: Any = None,
    verify: bool = True,
    verbose: bool | None = None,
) -> ExportResult:
    """Writes a Keras model as an ONNX file, and proves that the file computes the same.

    The file is written under another name, run by onnxruntime on many shapes beside the model, and
    takes its own name only when all outputs agree. Whatever fails before leaves nothing, and an
    older file of that name as it was.

    Inputs and outputs have their Keras names; a ragged input `x` is the flat values `x` and
    `x.row_splits`; free dims have names (`batch`, `x.time`, `x.values`). The contract with all of
    it is in the file's metadata. Stateful layers start from zero states in every run.

    Args:
        model: a functional, sequential or subclassed Keras model; it need not have been called.
        filepath: str, where the file goes; `.onnx` by custom. Missing folders are made.
        opset_version: int, the version of the ONNX operators, 15 or more; None takes the default.
        input_signature: for a subclassed model that has never been called: a list with a
            `keras.InputSpec`, `tf.TensorSpec` or `tf.RaggedTensorSpec` (or a nest of them) for
            each positional argument.
        verify: bool, whether to prove the file. Without, it is only loaded once.
        verbose: bool, False shows no progress; None shows it beyond a second.

    Returns:
        An `ExportResult`; printed, it tells what was checked, the worst error and the ops.

    Raises:
        ParityError: the file does not compute what the model does; its `report` says where.
        ExportError: the model has no ONNX form; the message gives the reason.
        OSError: the file cannot be written there.

    Example:

    >>> import keras, keras_blocks as kb
    >>> from keras_blocks.export import export_onnx
    >>> model = keras.Sequential([keras.Input((4,)), kb.Vanilla(2, use_bias=False)])
    >>> result = export_onnx(model, "vanilla.onnx")
    >>> result.op_counts
    {'MatMul': 1, 'Tanh': 1}
    """
    target = Path(filepath)
    _check_target(target)
    opset = DEFAULT_OPSET if opset_version is None else opset_version
    with shown("converting", verbose):
        signature = signature_of(model, input_signature)
        converted = to_onnx(model, signature, opset)
        content = _serialized(converted)
    with _beside(target, content) as written:
        if verify:
            parity = prove(model, signature, written, name=str(target), verbose=verbose)
            parity.raise_if_wrong()
            entry = converted.metadata_props.add()
            entry.key, entry.value = PROOF_METADATA_KEY, json.dumps(parity.summary())
            content = _serialized(converted)
            written.write_bytes(content)
        else:
            parity = None
            _load(written)
    return ExportResult(
        filepath=str(target),
        contract=signature.contract,
        opset_version=opset,
        op_counts=op_counts(converted),
        size_bytes=len(content),
        parity=parity,
    )


def _check_target(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(f"filepath='{target}' is a folder; give the name of a file")
    # Before the work, so that a folder that cannot be written to does not cost it.
    target.parent.mkdir(parents=True, exist_ok=True)


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf's own type differs between its versions
        raise ExportError(f"the ONNX file would be larger than protobuf's 2 GB: {error}") from error


@contextmanager
def _beside(target: Path, content: bytes) -> Iterator[Path]:
    """Writes the content beside the target, and puts it in place if the context ends well."""
    written = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        written.write_bytes(content)
        yield written
        os.replace(written, target)
    finally:
        written.unlink(missing_ok=True)


def _load(written: Path) -> None:
    try:
        OnnxSide(written)
    except RefusedError as error:
        raise ExportError(f"onnxruntime does not load the converted model: {error}") from error
