"""The export of a case, and what came of the file under onnxruntime."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
from conformance_exporters import EXPORTERS, OURS
from conformance_models import NoCaseError, Runs, prepare
from conformance_report import BROKEN, CRASHED, NO_CASE, REFUSED, RIGHT, WRONG
from keras_cases import Case

from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.graphs import nested_graphs
from keras_blocks.export.results.comparison import TOLERANCES, compare, compute_dtype
from keras_blocks.export.verification.keras_side import OnnxRunner, SampleRejectedError, first_line

LOOPS = ("Loop", "Scan")


@dataclass(frozen=True)
class Outcome:
    """What came of an export: one of `OUTCOMES` or `NO_CASE`, why, and the loops in the file."""

    status: str
    reason: str = ""
    loops: int = 0


def attempt(case: Case, variant: str, exporter: str) -> Outcome:
    """Exports the case and compares the file with Keras on several shapes."""
    try:
        model, runs = prepare(case, variant)
    except NoCaseError as error:
        return Outcome(NO_CASE, str(error))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "case.onnx")
        try:
            EXPORTERS[exporter](model, path)
        except ExportError as error:
            loads = "onnxruntime does not load" not in str(error)
            return Outcome(REFUSED if loads else BROKEN, str(error))
        except Exception as error:
            status = CRASHED if exporter in OURS else REFUSED
            return Outcome(status, f"{type(error).__name__}: {first_line(error)}")
        return judge(path, model, runs)


def judge(path: Path, model: keras.Model, runs: Runs) -> Outcome:
    """Runs a file on the samples."""
    try:
        side = OnnxRunner(path)
    except SampleRejectedError as error:
        return Outcome(BROKEN, str(error))
    loops = _loops(path)
    tolerance = TOLERANCES[compute_dtype(model)]
    names = [node.name for node in side.session.get_inputs()]
    for inputs, expected in runs:
        shapes = ", ".join(str(part.shape) for part in inputs)
        if len(names) != len(inputs):
            return Outcome(WRONG, f"{len(names)} inputs, not {len(inputs)}: {names}", loops)
        try:
            found = list(side.run(dict(zip(names, inputs, strict=True))).values())
        except SampleRejectedError as error:
            if _are_too_short(side, inputs):
                return Outcome(REFUSED, "a size, of which its contract asks for more", loops)
            return Outcome(BROKEN, f"at {shapes}: {error}", loops)
        if len(found) != len(expected):
            return Outcome(WRONG, f"{len(found)} outputs, not {len(expected)}", loops)
        for want, have in zip(expected, found, strict=True):
            problem = compare(in_numpy_dtype(want), in_numpy_dtype(have), tolerance).problem
            if problem is not None:
                return Outcome(WRONG, f"at {shapes}: {problem}", loops)
    return Outcome(RIGHT, loops=loops)


def in_numpy_dtype(values: np.ndarray) -> np.ndarray:
    """bfloat16 as float32, which holds it: a file may give the one or the other."""
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def _are_too_short(side: OnnxRunner, inputs: list[np.ndarray]) -> bool:
    """Whether the contract of a file says that it takes no axes as short as these."""
    contract = side.contract()
    tensors = () if contract is None else contract.flat_inputs()
    pairs = zip(tensors, inputs, strict=False)
    return any(tensor.short_axis(array.shape) is not None for tensor, array in pairs)


def _loops(path: Path) -> int:
    graphs = nested_graphs(onnx.load(path, load_external_data=False).graph)
    return sum(node.op_type in LOOPS for graph in graphs for node in graph.node)
