"""The bodies of infer requests and answers over HTTP: JSON, with binary tensors behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.dtypes import PROTOCOL
from keras_blocks.contract.rows import join_rows
from keras_blocks.contract.validation import check_names
from keras_blocks.contract.values import refuse
from keras_blocks.errors import ContractError
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.model import Model
from keras_blocks.serving.protocol.infer_request import InferRequest, check_parameters, read_timeout
from keras_blocks.serving.protocol.names import HEADER_LENGTH
from keras_blocks.serving.protocol.tensor_data import read_tensor, to_bytes, to_json

_NO_LIMITS = Limits()
"""What other servers do something for that is not done here."""


def decode_request(
    request: Any, contract: Contract, limits: Limits = _NO_LIMITS, binary: bytes | memoryview = b""
) -> InferRequest:
    """Reads the body of an infer request.

    Names, datatypes, rank, fixed dims and the number of elements are checked here, before anything
    is allocated; the arrays are for `InputChecks` to check.

    Args:
        request: the parsed JSON.
        contract: what the inputs must be.
        limits: what one request may ask for.
        binary: the bytes behind the JSON: the tensors that have a `binary_data_size`, in order.
    Raises:
        ContractError: the body is no such request, or an input does not fit.
    """
    if not isinstance(request, dict):
        raise ContractError('the body must be an object: {"inputs": [...]}')
    parameters = request.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ContractError("'parameters' must be an object")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise ContractError("'id' must be a string")
    items = _named_items(request.get("inputs"), "input")
    arrays = _read_inputs(items, contract, limits, _cut_binary(items, binary))
    decoded = InferRequest(arrays, id=request_id)
    if parameters:
        check_parameters(parameters, "the request")
        decoded.binary_by_default = _flag(parameters, "binary_data_output")
        decoded.nested = _flag(parameters, "nested")
        decoded.timeout = read_timeout(parameters.get("timeout"))
    outputs = request.get("outputs")
    if outputs is not None and outputs != []:
        wanted = _named_items(outputs, "output")
        decoded.outputs = tuple(wanted)
        flags = {name: item["parameters"] for name, item in wanted.items() if "parameters" in item}
        decoded.binary = {
            n: _flag(f, "binary_data") for n, f in flags.items() if "binary_data" in f
        }
    return decoded


def is_request(body: Mapping[str, Any]) -> bool:
    """Whether an object is the body of an infer request, and not the inputs by their names."""
    items = body.get("inputs")
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item, dict) and "name" in item for item in items)
    )


def encode_response(
    model: Model, outputs: Mapping[str, np.ndarray], request: InferRequest | None = None
) -> tuple[dict[str, Any], list[Any]]:
    """The body of an infer answer: its JSON, and what stands behind it as raw bytes.

    A ragged output `y` is `y` and `y.row_splits`, or a list of rows where that was asked for.
    """
    request = request or InferRequest({})
    response: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if request.id is not None:
        response["id"] = request.id
    dtypes = model.output_dtypes
    tensors: list[dict[str, Any]] = []
    binary: list[Any] = []
    rows = _nested_rows(model.contract, outputs) if request.nested else {}
    for name, array in outputs.items():
        if name in rows:
            tensors += rows[name]
            continue
        tensor: dict[str, Any] = {"name": name, "datatype": PROTOCOL[dtypes[name]]}
        tensor["shape"] = list(array.shape)
        if request.binary.get(name, request.binary_by_default):
            raw = to_bytes(array)
            binary.append(raw)
            size = len(raw) if isinstance(raw, bytes) else raw.nbytes
            tensor["parameters"] = {"binary_data_size": size}
        else:
            tensor["data"] = to_json(array, dtypes[name])
        tensors.append(tensor)
    response["outputs"] = tensors
    return response, binary


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
        if "parameters" in item:
            if not isinstance(item["parameters"], dict):
                raise ContractError(f"{side} '{name[:100]}': 'parameters' must be an object", name)
            check_parameters(item["parameters"], f"{side} '{name[:100]}'")
        named[name] = item
    return named


def _cut_binary(
    items: Mapping[str, dict[str, Any]], binary: bytes | memoryview
) -> dict[str, memoryview]:
    """The bytes of each input that has some; they lie in the order of the inputs."""
    parts: dict[str, memoryview] = {}
    rest = memoryview(binary)
    for name, item in items.items():
        size = item["parameters"].get("binary_data_size") if "parameters" in item else None
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise refuse(
                name[:100],
                f"'binary_data_size' is {size!r:.40}, but {len(rest)} bytes are left behind the "
                f"JSON; send its length as the header {HEADER_LENGTH}",
            )
        parts[name], rest = rest[:size], rest[size:]
    if rest:
        raise ContractError(f"{len(rest)} bytes are left over behind the last binary tensor")
    return parts


def _read_inputs(
    items: dict[str, dict[str, Any]],
    contract: Contract,
    limits: Limits,
    binary: Mapping[str, memoryview],
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for spec in contract.inputs:
        if spec.ragged and spec.row_splits_name not in items and _holds_rows(items.get(spec.name)):
            arrays[spec.name], arrays[spec.row_splits_name] = _read_rows(
                spec, items[spec.name], limits
            )
    check_names(contract, items.keys() | arrays.keys() if arrays else items)
    for tensor in contract.flat_inputs():
        if tensor.name not in arrays:
            item = items[tensor.name]
            data = binary.get(tensor.name)
            if data is None:
                data = item.get("data")
            elif "data" in item:
                raise refuse(tensor.name, "both 'data' and binary data came")
            arrays[tensor.name] = read_tensor(
                tensor, item.get("datatype"), item.get("shape"), data, limits
            )
    return arrays


def _holds_rows(item: Any) -> bool:
    data = item.get("data") if item else None
    return isinstance(data, list) and (not data or isinstance(data[0], list))


def _read_rows(
    spec: TensorSpec, item: dict[str, Any], limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    if item.get("datatype") != PROTOCOL[spec.dtype]:
        came = f"{item.get('datatype')!r:.40}"
        raise refuse(spec.name, f"datatype '{PROTOCOL[spec.dtype]}' expected, got {came}")
    rows, shape = item["data"], item.get("shape")
    if shape is not None and (not isinstance(shape, list) or shape[:1] != [len(rows)]):
        raise refuse(
            spec.name, f"shape {shape!r:.40} does not begin with the {len(rows)} rows of its data"
        )
    if len(rows) > limits.padded_steps:  # before each of them is looked at
        raise refuse(spec.name, f"{len(rows)} rows came, at most {limits.padded_steps} allowed")
    return join_rows(spec, rows)


def _nested_rows(
    contract: Contract, outputs: Mapping[str, np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """For the two tensors of each ragged output what stands in their place."""
    nested: dict[str, list[dict[str, Any]]] = {}
    for spec in contract.outputs:
        if not spec.ragged or not {spec.name, spec.row_splits_name} <= set(outputs):
            continue
        values, splits = outputs[spec.name], outputs[spec.row_splits_name].tolist()
        flat = to_json(values, spec.dtype)
        steps = _fold(flat if isinstance(flat, list) else flat.tolist(), values.shape)
        data = [steps[start:end] for start, end in pairwise(splits)]
        shape = [len(data), -1, *values.shape[1:]]
        tensor = {"name": spec.name, "datatype": PROTOCOL[spec.dtype], "shape": shape, "data": data}
        nested[spec.name], nested[spec.row_splits_name] = [tensor], []
    return nested


def _fold(flat: list[Any], shape: Sequence[int]) -> Any:
    for size in reversed(shape[1:]):
        flat = [flat[i : i + size] for i in range(0, len(flat), size)] if size else []
    return flat


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise ContractError(f"'{name}' must be true or false, got {value!r:.40}")
    return value
