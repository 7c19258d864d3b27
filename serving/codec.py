"""The Open Inference Protocol's JSON bodies, to arrays and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_blocks.contract import Contract, Dim, FlatTensor, TensorSpec
from keras_blocks.errors import ContractError
from keras_blocks.serving.datatypes import PROTOCOL, STRING
from keras_blocks.serving.limits import Limits, check_declared_shape
from keras_blocks.serving.model import Model
from keras_blocks.serving.session import ANY_SHAPE
from keras_blocks.serving.validation import check_names, check_shape
from keras_blocks.serving.values import flatten, from_items, refuse

PLATFORM = "onnxruntime_onnx"
_SHOWN = (
    "minimum",
    "maximum",
    "tree_of",
    "max_children",
    "forest",
    "leaves_of",
    "edges_of",
    "edge_labels",
    "siblings_differ",
)
_NOT_FINITE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


@dataclass(frozen=True)
class InferRequest:
    """One decoded request; `outputs` is None where all are wanted."""

    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...] | None = None
    id: str | None = None


def decode_request(request: Any, contract: Contract, limits: Limits | None = None) -> InferRequest:
    """Reads the body of an infer request.

    Names, datatypes, rank, fixed dims and the number of elements are checked here, before anything
    is allocated; the arrays are for `check_inputs` to check.

    Args:
        request: the parsed JSON.
        contract: what the inputs must be.
        limits: what one request may ask for.
    Raises:
        ContractError: the body is no such request, or an input does not fit.
    """
    if not isinstance(request, dict):
        raise ContractError('the body must be an object: {"inputs": [...]}')
    if not isinstance(request.get("parameters", {}), dict):
        raise ContractError("'parameters' must be an object")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise ContractError("'id' must be a string")
    items = _named_items(request.get("inputs"), "input")
    check_names(contract, items)
    tensors = {tensor.name: tensor for tensor in contract.flat_inputs()}
    arrays = {
        name: _decode_tensor(items[name], tensor, limits or Limits())
        for name, tensor in tensors.items()
    }
    outputs = request.get("outputs")
    wanted = tuple(_named_items(outputs, "output")) if outputs else None
    return InferRequest(arrays, wanted, request_id)


def encode_response(
    model: Model, outputs: Mapping[str, np.ndarray], request_id: str | None = None
) -> dict[str, Any]:
    """The body of an infer response; its data are lists, or flat arrays that are fit for JSON.

    JSON has no NaN and no infinities: they become the strings "NaN", "Infinity" and "-Infinity",
    as in the JSON mapping of Protocol Buffers.
    """
    response: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if request_id is not None:
        response["id"] = request_id
    dtypes = {tensor.name: tensor.dtype for tensor in model.contract.flat_outputs()}
    response["outputs"] = [
        {
            "name": name,
            "datatype": PROTOCOL[dtypes[name]],
            "shape": list(array.shape),
            "data": _encode_data(array, dtypes[name]),
        }
        for name, array in outputs.items()
    ]
    return response


def json_floats(flat: np.ndarray) -> list[float | str]:
    """Numbers as JSON can hold them; see `encode_response`."""
    # Through the array's own text: a float32 of 0.1 is 0.1, not 0.10000000149011612.
    texts = flat.astype(str).tolist()
    return [_NOT_FINITE.get(text) or float(text) for text in texts]


def model_metadata(model: Model, versions: list[int]) -> dict[str, Any]:
    """The body of the model metadata endpoint. A dynamic dim is -1; its name, the bounds and the
    ragged structure stand in the parameters of the tensor."""
    return {
        "name": model.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [_tensor_metadata(*pair) for pair in _flat_pairs(model.contract.inputs)],
        "outputs": [_tensor_metadata(*pair) for pair in _flat_pairs(model.contract.outputs)],
    }


def _named_items(items: Any, side: str) -> dict[str, dict[str, Any]]:
    if not isinstance(items, list):
        raise ContractError(f"'{side}s' must be a list of tensors, each with its name")
    named: dict[str, dict[str, Any]] = {}
    for index, item in enumerate(items):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise ContractError(f"{side} {index} must be an object with a string as its 'name'")
        if name in named:
            raise ContractError(f"{side} '{name[:100]}' is given twice", name)
        if not isinstance(item.get("parameters", {}), dict):
            raise ContractError(f"{side} '{name[:100]}': 'parameters' must be an object", name)
        named[name] = item
    return named


def _decode_tensor(item: dict[str, Any], tensor: FlatTensor, limits: Limits) -> np.ndarray:
    datatype = item.get("datatype")
    if datatype != PROTOCOL[tensor.dtype]:
        came = f"'{datatype[:40]}'" if isinstance(datatype, str) else "no datatype"
        raise refuse(tensor.name, f"datatype '{PROTOCOL[tensor.dtype]}' expected, got {came}")
    shape = item.get("shape")
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise refuse(tensor.name, "'shape' must be a list of integers that are not negative")
    check_shape(tensor, shape)
    check_declared_shape(tensor.name, shape, limits)
    data = item.get("data")
    if not isinstance(data, list):
        came = "no 'data'" if data is None else f"'data' that is a {type(data).__name__}"
        raise refuse(tensor.name, f"{came}, a list of {PROTOCOL[tensor.dtype]} expected")
    return from_items(flatten(data, shape, tensor.name), tensor).reshape(shape)


def _encode_data(array: np.ndarray, dtype: str) -> Any:
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype == STRING:
        return flat.tolist()
    if flat.dtype.kind != "f" or np.isfinite(flat).all():
        return flat
    return json_floats(flat)


def _flat_pairs(specs: tuple[TensorSpec, ...]) -> list[tuple[TensorSpec, FlatTensor]]:
    return [(spec, tensor) for spec in specs for tensor in spec.flat()]


def _tensor_metadata(spec: TensorSpec, tensor: FlatTensor) -> dict[str, Any]:
    dims: tuple[Dim, ...] = () if tensor.shape == ANY_SHAPE else tensor.shape
    parameters: dict[str, Any] = {"dims": [str(dim) for dim in tensor.shape]}
    if spec.ragged:
        parameters["ragged"] = "values" if tensor.name == spec.name else "row_splits"
    if tensor.name == spec.name:
        for key in _SHOWN:
            value = getattr(spec, key)
            if value is not None and value is not False:
                parameters[key] = value
    return {
        "name": tensor.name,
        "datatype": PROTOCOL[tensor.dtype],
        "shape": [dim if isinstance(dim, int) else -1 for dim in dims],
        "parameters": parameters,
    }
