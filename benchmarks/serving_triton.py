"""A model of Triton's Python backend: onnxruntime over the requests that Triton batched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.name = self.session.get_inputs()[0].name

    def execute(self, requests: list[Any]) -> list[Any]:
        inputs = [backend.get_input_tensor_by_name(r, self.name).as_numpy() for r in requests]
        (outputs,) = self.session.run(["y"], {self.name: np.concatenate(inputs)})
        ends = np.cumsum([len(array) for array in inputs])[:-1]
        return [
            backend.InferenceResponse([backend.Tensor("y", part)])
            for part in np.split(outputs, ends)
        ]
