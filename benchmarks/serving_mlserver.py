"""The models as MLServer serves them, run by the Python that has it."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        uri = self._settings.parameters.uri
        self.session = onnxruntime.InferenceSession(
            uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {item.name: NumpyCodec.decode_input(item) for item in payload.inputs}
        (outputs,) = self.session.run(["y"], inputs)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("y", outputs)]
        )
