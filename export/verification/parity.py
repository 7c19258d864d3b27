"""The proof: Keras against onnxruntime over sampled shapes, with the first layer that differs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import tensorflow as tf

from keras_blocks.contract.sampling.samples import Sample
from keras_blocks.contract.values import cast
from keras_blocks.export.conversion.loading import as_model
from keras_blocks.export.progress import bars
from keras_blocks.export.reports.report import ParityReport
from keras_blocks.export.results.checks import LayerCheck
from keras_blocks.export.signature.signature import Signature
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.export.verification.effort import Budget, Verify, level_of
from keras_blocks.export.verification.keras_side import mismatched_signature
from keras_blocks.export.verification.padding import proven_signature
from keras_blocks.export.verification.stages.order import Verification
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError


def check_parity(
    model: keras.Model | str | Path,
    filepath: str | Path,
    *,
    inputs: Any = None,
    input_signature: Any = None,
    signature_key: str | None = None,
    verify: Verify = True,
    time_budget: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    verbose: bool | None = None,
) -> ParityReport:
    """Whether an ONNX file computes what a Keras model computes.

    Both run on samples of many shapes, with empty, single and masked rows, and every output is
    compared: integers exactly, floats within rounding (see `comparison`). The file runs again after
    other inputs, and by several threads, for kernels that read what they never wrote, or race. On a
    difference the report names the first layer from which the file departs.

    Args:
        model: the Keras model, or the path of one; see `export_onnx`.
        filepath: str, the ONNX file.
        inputs: the model's argument, or a dict of the file's flat inputs by name; None draws
            samples from the model's contract.
        input_signature: for a model that does not say what it takes; see `export_onnx`.
        signature_key: str, which of the signatures of a SavedModel; see `export_onnx`.
        verify: "fast", "usual" (or True) or "thorough": how much is tried (see `levels`).
        time_budget: float, seconds after which nothing more is begun; the report names what was
            left out. None takes as long as it takes.
        rtol: float, the allowed error relative to the largest magnitude of an output; None chooses
            by dtype.
        atol: float, the allowed absolute error; None chooses by dtype.
        seed: int, of the samples.
        verbose: bool, False shows no progress bar; None shows one beyond a second.
    Returns:
        A `ParityReport`; `report.ok` tells, `report.raise_if_wrong()` raises `ParityError`.
    Raises:
        FileNotFoundError: there is no such file.
        ExportError: no sample could be drawn, or the model refuses every one.
        ValueError: `verify` or `time_budget` is none.

    Example:

    >>> import keras, keras_blocks as kb
    >>> from keras_blocks.export import check_parity, export_onnx
    >>> model = keras.Sequential([keras.Input((None, 4)), kb.GRU(8)])
    >>> result = export_onnx(model, "gru.onnx", verify=False)
    >>> check_parity(model, "gru.onnx").ok
    True
    """
    if not Path(filepath).is_file():
        raise FileNotFoundError(f"There is no ONNX file at filepath={str(filepath)!r}.")
    model = as_model(model, signature_key)
    signature = proven_signature(model, input_signature)
    given = None if inputs is None else [sample_of(signature, inputs)]
    return verify_file(
        model,
        signature,
        filepath,
        samples=given,
        verify=verify,
        time_budget=time_budget,
        rtol=rtol,
        atol=atol,
        seed=seed,
        verbose=verbose,
    )


def verify_file(
    model: keras.Model,
    signature: Signature,
    filepath: str | Path,
    *,
    name: str | None = None,
    samples: Iterable[Sample] | None = None,
    verify: Verify = True,
    time_budget: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    verbose: bool | None = None,
) -> ParityReport:
    """`check_parity` for a signature that is known; `name` is what the report calls the file."""
    level, budget = level_of(verify), Budget(time_budget)
    proof = VerificationRun(model, signature, rtol, atol, budget)
    path, layers = Path(filepath), list[LayerCheck]()
    try:
        onnx = OnnxRunner(path)
        problem = mismatched_signature(signature.contract, onnx)
    except SampleRejectedError as error:
        problem = f"onnxruntime does not load it: {error}"
    if problem is None:
        with bars(verbose) as shown_bars:
            examination = Verification(proof, onnx, path, level, seed, shown_bars)
            examination.run(samples)
            layers = examination.layers
    return ParityReport(
        filepath=name or str(filepath),
        model=model.name,
        seed=seed if samples is None else None,
        checks=tuple(proof.checks),
        skipped=tuple(proof.skipped),
        problem=problem,
        first_difference=proof.difference,
        level=level.name,
        time_budget=time_budget,
        left_out=tuple(proof.left_out),
        notes=tuple(proof.notes),
        not_numbers=tuple(proof.not_numbers),
        sides=tuple(proof.sides),
        layers=tuple(layers),
        tolerance=str(proof.tolerance),
        versions=_versions(),
        seconds=budget.spent,
    )


def sample_of(signature: Signature, inputs: Any) -> Sample:
    """A sample from the model's argument, or from a dict of inputs or of flat inputs by name.

    Raises:
        ValueError: it has other names, or another number of tensors.
    """
    flat = signature.contract.flat_inputs()
    leaves = _in_order(signature, inputs)
    parts = [
        part
        for leaf in leaves
        for part in ([leaf.values, leaf.row_splits] if _is_ragged(leaf) else [leaf])
    ]
    if len(parts) != len(flat):
        raise ValueError(f"{_asked(signature)} Received {len(parts)} tensors.")
    arrays = {
        tensor.name: cast(np.asarray(part), tensor)
        for tensor, part in zip(flat, parts, strict=True)
    }
    return Sample("given inputs", arrays)


def _in_order(signature: Signature, inputs: Any) -> list[Any]:
    """The tensors in the order of the contract."""
    if not isinstance(inputs, dict):
        return keras.tree.flatten(inputs)
    contract = signature.contract
    for named in (contract.flat_inputs(), contract.inputs):
        names = [tensor.name for tensor in named]
        if set(inputs) == set(names):
            return [inputs[name] for name in names]
    # A model may call an input by another key than its name.
    own = signature.structure.nests[0]
    if not (isinstance(own, dict) and set(inputs) == set(own)):
        raise ValueError(f"{_asked(signature)} Received a dict with {sorted(map(str, inputs))}.")
    return keras.tree.flatten(inputs)


def _asked(signature: Signature) -> str:
    names = [tensor.name for tensor in signature.contract.flat_inputs()]
    return f"inputs must be what the model takes, or a dict with the flat inputs {names}."


def _is_ragged(value: Any) -> bool:
    return isinstance(value, tf.RaggedTensor)


def _versions() -> dict[str, str]:
    return {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
