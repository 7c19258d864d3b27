"""The models as Mosec serves them, run by the Python that has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from mosec import Runtime, Server, Worker


class OnnxWorker(Worker):
    model = ""
    dtype = ""

    def __init__(self) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(os.environ["SERVING_REPOSITORY"]) / self.model / "1" / "model.onnx"
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.name = self.session.get_inputs()[0].name

    def forward(self, data: list[Any]) -> list[Any]:
        (outputs,) = self.session.run(["y"], {self.name: np.array(data, dtype=self.dtype)})
        return list(outputs.tolist())


class Tiny(OnnxWorker):
    model, dtype = "tiny", "float32"


class Seq(OnnxWorker):
    model, dtype = "seq", "int32"


if __name__ == "__main__":
    server, workers = Server(), int(os.environ["SERVING_WORKERS"])
    server.register_runtime(
        {
            f"/{worker.model}": [Runtime(worker, num=workers, max_batch_size=64, max_wait_time=1)]
            for worker in (Tiny, Seq)
        }
    )
    server.run()
