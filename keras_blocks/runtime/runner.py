"""An ONNX model run by names, one side of every comparison."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_blocks.contract import METADATA_KEY, Contract
from keras_blocks.contract.dtypes import FROM_ONNXRUNTIME
from keras_blocks.runtime.session import open_session, session_options

_REASON_LENGTH = 400
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m|\{\{[^}]*\}\} ?")
# Where in onnxruntime's C++ it happened, which helps nobody here.
_RUNTIME_SOURCE = re.compile(r"/onnxruntime_src/\S+ [^(]*\([^)]*\) (const )?")
# Lines that Keras and TensorFlow put before the reason.
_BEFORE_THE_REASON = (
    "Exception encountered when", "Graph execution error:", "Detected at node", "<stack traces",
)  # fmt: skip


class SampleRejectedError(Exception):
    """One side does not take a sample, or onnxruntime does not load a file; with the reason."""


class OnnxRunner:
    """An ONNX model under onnxruntime's defaults, as a server would run it.

    Args:
        model: path of the file, or what is in it.
        threads: int, those that one run may use; None leaves it to onnxruntime.
    Raises:
        SampleRejectedError: onnxruntime does not load it.
    """

    def __init__(self, model: Path | bytes, threads: int | None = None):
        try:
            self.session = open_session(model, session_options(threads))
        except Exception as error:
            raise SampleRejectedError(first_line(error)) from error

    def run(
        self, feed: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs by name; inputs that the graph does not have are left out.

        Raises:
            SampleRejectedError: onnxruntime fails on these inputs.
        """
        names = [node.name for node in self.session.get_inputs()]
        asked = [node.name for node in self.session.get_outputs()] if outputs is None else outputs
        try:
            values = self.session.run(list(asked), {name: np.asarray(feed[name]) for name in names})
        except Exception as error:
            raise SampleRejectedError(first_line(error)) from error
        return dict(zip(asked, values, strict=True))

    def contract(self) -> Contract | None:
        """The contract in the file's metadata, or None.

        Raises:
            ValueError: what is there is no contract.
        """
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        return None if text is None else Contract.from_json(text)


def element_type(node: Any) -> str:
    """The contract's name for the element type of an input or output of a session."""
    return FROM_ONNXRUNTIME.get(node.type, node.type.removeprefix("tensor(").removesuffix(")"))


def first_line(error: BaseException) -> str:
    """The reason of an exception, short enough for a table's foot."""
    plain = _RUNTIME_SOURCE.sub("", _TERMINAL_CODES.sub("", str(error)))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_BEFORE_THE_REASON)] or lines
    text = next(iter(lines), type(error).__name__).rstrip(".")
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]}..."
