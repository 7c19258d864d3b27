"""The export of a KerasHub model, and what came of the file under onnxruntime."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from conformance_report import BROKEN, CRASHED, REFUSED, RIGHT, WRONG
from conformance_worker import READY, Task

OURS, STOCK = "ours", "stock"
SAMPLES = 3


def attempt(name: str, exporter: str) -> dict[str, Any]:
    """Exports a case by its name, and says what came of it."""
    import hub_tasks
    import keras

    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    model = hub_tasks.all_cases()[name]()
    signature = hub_tasks.signature_of_case(name, model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "case.onnx")
        status, reason = (_ours if exporter == OURS else _stock)(model, signature, path)
    return {"status": status, "reason": reason}


def _ours(model: Any, signature: Any, path: Path) -> tuple[str, str]:
    """With the proof, which compares many shapes."""
    from keras_blocks.errors import ExportError
    from keras_blocks.export import export_onnx

    try:
        export_onnx(model, path, input_signature=signature, verify="fast", verbose=False)
    except ExportError as error:
        return REFUSED, str(error)
    except Exception as error:
        return CRASHED, f"{type(error).__name__}: {error}"
    return RIGHT, ""


def _stock(model: Any, signature: Any, path: Path) -> tuple[str, str]:
    """Keras's own exporter; its file runs on some of the samples that our proof draws."""
    from keras_blocks.export.results.comparison import TOLERANCES, compare
    from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

    runs = list(_runs(model, signature))
    try:
        options = {} if signature is None else {"input_signature": signature}
        model.export(str(path), format="onnx", verbose=False, **options)
    except Exception as error:
        return REFUSED, f"{type(error).__name__}: {error}"
    try:
        side = OnnxRunner(path)
        nodes = [node.name for node in side.session.get_inputs()]
        names = {name.partition(":")[0]: name for name in nodes}
        for feed, expected in runs:
            given = {names[key]: value for key, value in feed.items() if key in names}
            if len(feed) == len(nodes) == 1:
                given = dict(zip(nodes, feed.values(), strict=True))
            found = list(side.run(given).values())
            for want, have in zip(expected, found, strict=True):
                problem = compare(want, have, TOLERANCES["float32"]).problem
                if problem is not None:
                    return WRONG, problem
    except (SampleRejectedError, ValueError) as error:
        return BROKEN, str(error)
    return RIGHT, ""


def _runs(model: Any, input_signature: Any) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Inputs that the model takes, and what it gives for them."""
    from keras_blocks.contract.sampling.samples import draw_samples
    from keras_blocks.export.signature.signature import signature_of
    from keras_blocks.export.verification.keras_side import KerasRunner
    from keras_blocks.runtime.runner import SampleRejectedError

    signature = signature_of(model, input_signature)
    keras_side, left = KerasRunner(model, signature), SAMPLES
    for sample in draw_samples(signature.contract):
        try:
            expected = keras_side.run(sample.feed, eager=True)
        except SampleRejectedError:
            continue
        yield sample.feed, expected
        left -= 1
        if not left:
            return


def serve(pipe: Connection) -> None:
    """Answers tasks with outcomes, and None with the list of cases, until the pipe closes."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    import hub_tasks

    pipe.send(READY)
    while True:
        try:
            task: Task | None = pipe.recv()
        except EOFError:
            return
        if task is None:
            pipe.send([{"case": name} for name in hub_tasks.all_cases()])
        else:
            pipe.send(attempt(task.case, task.exporter))
