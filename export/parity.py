"""The proof: Keras against onnxruntime over sampled shapes, with the first layer that differs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.comparison import (
    TOLERANCES,
    Comparison,
    Tolerance,
    compare,
    compute_dtype,
    rounding_noise,
)
from keras_blocks.export.execution import (
    KerasSide,
    OnnxSide,
    RefusedError,
    mismatched_signature,
)
from keras_blocks.export.first_difference import find_first_difference
from keras_blocks.export.progress import tracked
from keras_blocks.export.report import Check, Difference, ParityReport, Skipped
from keras_blocks.export.sampling import LARGER_PLANS, Sample, draw_samples
from keras_blocks.export.signature import Signature, signature_of


def check_parity(
    model: keras.Model,
    filepath: str | Path,
    *,
    inputs: Any = None,
    input_signature: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    verbose: bool | None = None,
) -> ParityReport:
    """Whether an ONNX file computes what a Keras model computes.

    Both run on samples of many shapes, with empty, single and masked rows, and every output is
    compared: integers exactly, floats within rounding (see `comparison`). On a difference the
    report names the first layer from which the file departs.

    Args:
        model: the Keras model.
        filepath: str, the ONNX file.
        inputs: the model's argument, or a dict of the file's flat inputs by name; None draws
            samples from the model's contract.
        input_signature: for a model that does not say what it takes; see `export_onnx`.
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
    signature = signature_of(model, input_signature)
    given = None if inputs is None else [sample_of(signature, inputs)]
    return prove(
        model, signature, filepath, samples=given, rtol=rtol, atol=atol, seed=seed, verbose=verbose
    )


def prove(
    model: keras.Model,
    signature: Signature,
    filepath: str | Path,
    *,
    name: str | None = None,
    samples: Iterable[Sample] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    verbose: bool | None = None,
) -> ParityReport:
    """`check_parity` for a signature that is known; `name` is what the report calls the file."""
    started = time.perf_counter()
    proof = Proof(model, signature, rtol, atol)

    def report(problem: str | None = None, difference: Difference | None = None) -> ParityReport:
        return ParityReport(
            filepath=name or str(filepath),
            model=model.name,
            seed=seed if samples is None else None,
            checks=tuple(proof.checks),
            skipped=tuple(proof.skipped),
            problem=problem,
            first_difference=difference,
            versions=_versions(),
            seconds=time.perf_counter() - started,
        )

    try:
        onnx = OnnxSide(Path(filepath))
    except RefusedError as error:
        return report(f"onnxruntime does not load it: {error}")
    problem = mismatched_signature(signature.contract, onnx)
    if problem is not None:
        return report(problem)
    drawn = list(draw_samples(signature.contract, seed)) if samples is None else list(samples)
    proof.run(onnx, tracked(drawn, "proving", verbose))
    if samples is None and len(proof.skipped) > len(drawn) // 2:
        larger = list(draw_samples(signature.contract, seed, LARGER_PLANS))
        proof.run(onnx, tracked(larger, "proving larger inputs", verbose))
    if not proof.checks:
        reasons = "; ".join(f"{skip.sample}: {skip.reason}" for skip in proof.skipped[:3])
        raise ExportError(
            f"Nothing was proven: the model '{model.name}' refuses every sample ({reasons}). "
            f"Pass inputs that it accepts: check_parity(model, filepath, inputs=...)."
        )
    failed = proof.failed
    if failed is None:
        return report()
    return report(
        difference=find_first_difference(
            model,
            signature,
            Path(filepath),
            failed.feed,
            agrees=lambda other: _all_ok(proof.compare(other, failed, eager=True)),
        )
    )


def sample_of(signature: Signature, inputs: Any) -> Sample:
    """A sample from the model's argument, or from a dict of flat inputs by name."""
    contract = signature.contract
    flat_names = [tensor.name for tensor in contract.flat_inputs()]
    if isinstance(inputs, dict) and set(inputs) == set(flat_names):
        parts = [inputs[name] for name in flat_names]
    else:
        leaves = keras.tree.flatten(inputs)
        if isinstance(inputs, dict) and {spec.name for spec in contract.inputs} == set(inputs):
            leaves = [inputs[spec.name] for spec in contract.inputs]
        parts = [
            part
            for leaf in leaves
            for part in ([leaf.values, leaf.row_splits] if _is_ragged(leaf) else [leaf])
        ]
    if len(parts) != len(flat_names):
        raise ValueError(
            f"inputs must be what the model takes, or a dict with the flat inputs {flat_names}. "
            f"Received {len(parts)} tensors."
        )
    dtypes = [tensor.dtype for tensor in contract.flat_inputs()]
    arrays = [np.asarray(part).astype(dtype) for part, dtype in zip(parts, dtypes, strict=True)]
    return Sample("given inputs", dict(zip(flat_names, arrays, strict=True)))


class Proof:
    """Runs samples on both sides and keeps what came of them.

    Args:
        model: the Keras model.
        signature: its signature.
        rtol, atol: floats; None chooses by dtype. A tolerance that was asked for is kept to; the
            usual one gives way to the model's own rounding noise.
    """

    def __init__(
        self,
        model: keras.Model,
        signature: Signature,
        rtol: float | None = None,
        atol: float | None = None,
    ):
        self.keras = KerasSide(model, signature)
        self.outputs = signature.contract.flat_outputs()
        usual = TOLERANCES[compute_dtype(model)]
        self.tolerance = Tolerance(
            usual.rtol if rtol is None else rtol, usual.atol if atol is None else atol
        )
        self.allow_noise = rtol is None and atol is None
        self.checks: list[Check] = []
        self.skipped: list[Skipped] = []
        self.failed: Sample | None = None

    def run(self, onnx: OnnxSide, samples: Iterable[Sample]) -> None:
        """Compares the outputs on each sample."""
        for number, sample in enumerate(samples):
            # Every other one eagerly: a fault of tracing would be in the trace and in the file.
            eager = number % 2 == 0
            try:
                checks = self.compare(onnx, sample, eager)
                if not eager and not _all_ok(checks):
                    checks = self.compare(onnx, sample, eager=True)
                if not _all_ok(checks) and self.failed is None:
                    self.keras.refuse_shapes(sample.feed)
            except RefusedError as error:
                self.skipped.append(Skipped(sample.description, str(error)))
                continue
            if self.failed is None and not _all_ok(checks):
                self.failed = sample
            self.checks += checks

    def compare(self, onnx: OnnxSide, sample: Sample, eager: bool) -> list[Check]:
        """The checks of one sample; `eager` is how Keras runs it."""
        expected = self.keras.run(sample.feed, eager)
        try:
            found = onnx.run(sample.feed)
        except RefusedError as error:
            reason = f"onnxruntime fails where Keras does not: {error}"
            return [
                self._check(i, sample, value, problem=reason, max_error=np.inf)
                for i, value in enumerate(expected)
            ]
        got = [found[tensor.name] for tensor in self.outputs]
        compared = self._compare_all(expected, got, [0.0] * len(expected))
        near = any(result.problem and np.isfinite(result.max_error) for result in compared)
        if near and self.allow_noise:
            side = self.keras
            flat = [sample.feed[name] for name in side.names]
            noise = rounding_noise(side.model, side.signature, flat, expected)
            compared = self._compare_all(expected, got, noise)
        return [
            self._check(i, sample, value, **vars(result))
            for i, (value, result) in enumerate(zip(expected, compared, strict=True))
        ]

    def _compare_all(
        self, expected: list[np.ndarray], got: list[np.ndarray], noise: list[float]
    ) -> list[Comparison]:
        return [
            compare(want, have, replace(self.tolerance, atol=self.tolerance.atol + extra))
            for want, have, extra in zip(expected, got, noise, strict=True)
        ]

    def _check(self, index: int, sample: Sample, expected: np.ndarray, **found: Any) -> Check:
        return Check(
            sample=sample.description,
            input_shapes=sample.shapes,
            output=self.outputs[index].name,
            shape=expected.shape,
            dtype=str(expected.dtype),
            **found,
        )


def _all_ok(checks: list[Check]) -> bool:
    return all(check.ok for check in checks)


def _is_ragged(value: Any) -> bool:
    return isinstance(value, tf.RaggedTensor)


def _versions() -> dict[str, str]:
    return {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
