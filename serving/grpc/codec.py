"""The messages of infer calls over gRPC, to arrays and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.dtypes import PROTOCOL
from keras_blocks.contract.validation import check_names
from keras_blocks.contract.values import refuse
from keras_blocks.errors import ContractError
from keras_blocks.serving.grpc.messages import message_class
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.model import Model
from keras_blocks.serving.protocol.infer_request import InferRequest, check_parameters, read_timeout
from keras_blocks.serving.protocol.tensor_data import read_tensor, to_bytes

ModelInferRequest = message_class("ModelInferRequest")
ModelInferResponse = message_class("ModelInferResponse")

# datatype -> the field of the typed contents that carries it, and its numbers' dtype.
_CONTENTS: dict[str, tuple[str, str]] = {
    "BOOL": ("bool_contents", "bool"),
    **dict.fromkeys(("INT8", "INT16", "INT32"), ("int_contents", "int32")),
    "INT64": ("int64_contents", "int64"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), ("uint_contents", "uint32")),
    "UINT64": ("uint64_contents", "uint64"),
    "FP32": ("fp32_contents", "float32"),
    "FP64": ("fp64_contents", "float64"),
    "BYTES": ("bytes_contents", "object"),
}


def decode_message(message: Any, contract: Contract, limits: Limits) -> InferRequest:
    """Reads a ModelInferRequest.

    Raises:
        ContractError: an input does not fit.
    """
    tensors = {tensor.name: tensor for tensor in contract.flat_inputs()}
    raw = message.raw_input_contents
    inputs = {}
    for tensor in message.inputs:
        if tensor.name in inputs:
            raise ContractError(f"input '{tensor.name[:100]}' is given twice", tensor.name)
        inputs[tensor.name] = tensor
    check_names(contract, inputs)
    if raw and len(raw) != len(inputs):
        raise ContractError(
            f"{len(raw)} raw_input_contents came for {len(inputs)} inputs; give one for each"
        )
    arrays = {}
    for index, (name, item) in enumerate(inputs.items()):
        if item.parameters:
            check_parameters(_values(item.parameters), f"input '{name[:100]}'")
        if not raw:
            data = _contents(name, item)
        elif item.HasField("contents") and item.contents.ListFields():
            raise refuse(name, "both contents and raw_input_contents came; send one of them")
        else:
            data = memoryview(raw[index])
        arrays[name] = read_tensor(tensors[name], item.datatype, list(item.shape), data, limits)
    decoded = InferRequest(arrays, id=message.id)
    if message.outputs:
        for output in message.outputs:
            check_parameters(_values(output.parameters), f"output '{output.name[:100]}'")
        decoded.outputs = tuple(output.name for output in message.outputs)
        if len(set(decoded.outputs)) < len(decoded.outputs):
            raise ContractError("an output is given twice")
    if message.parameters:
        parameters = _values(message.parameters)
        check_parameters(parameters, "the request")
        if parameters.get("nested"):
            raise ContractError("the request: nested: answers over gRPC are raw tensors")
        decoded.timeout = read_timeout(parameters.get("timeout"))
    return decoded


def encode_message(model: Model, outputs: Mapping[str, np.ndarray], request_id: str) -> Any:
    """The ModelInferResponse, all outputs as raw bytes."""
    response = ModelInferResponse(
        model_name=model.name, model_version=str(model.version), id=request_id
    )
    for name, array in outputs.items():
        datatype = PROTOCOL[model.output_dtypes[name]]
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        raw = to_bytes(array)
        response.raw_output_contents.append(raw if isinstance(raw, bytes) else raw.tobytes())
    return response


def _values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as JSON has them."""
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: kind and getattr(parameters[name], kind) for name, kind in kinds.items()}


def _contents(name: str, item: Any) -> Any:
    if item.datatype not in _CONTENTS:
        return None  # of no datatype, or of one that comes as raw bytes alone
    field, dtype = _CONTENTS[item.datatype]
    given = [listed.name for listed, _ in item.contents.ListFields()]
    if given not in ([], [field]):
        raise refuse(name, f"{item.datatype} is expected in {field}, got {', '.join(given)}")
    items = getattr(item.contents, field)
    if dtype == "object":
        return _texts(name, items)
    return np.array(items, dtype=dtype)


def _texts(name: str, items: Any) -> list[str]:
    try:
        return [str(text, "utf-8") for text in items]
    except UnicodeDecodeError as error:
        raise refuse(name, f"text in UTF-8 expected: {error}") from None
