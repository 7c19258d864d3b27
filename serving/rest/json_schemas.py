"""JSON Schemas of what the REST endpoints take and give, from the contracts of the models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_blocks.contract import Contract, Dim, FlatTensor, TensorSpec
from keras_blocks.contract.dtypes import ANY_SHAPE, BFLOAT16, PROTOCOL, STRING, numpy_dtype
from keras_blocks.contract.json_numbers import NOT_FINITE
from keras_blocks.contract.validation import split_dim

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
_LARGEST_BFLOAT16 = 3.3895313892515355e38


def infer_request(contract: Contract) -> Schema:
    """The body of an infer request in JSON.

    What no schema can say is left to the server: that data have as many elements as their shape,
    that dims of one name agree, and what makes row splits and trees valid.
    """
    flat = [_flat_input(spec, tensor) for spec in contract.inputs for tensor in spec.flat()]
    forms = [_in_order(flat)]
    if any(spec.ragged for spec in contract.inputs):
        forms.append(_in_order([_input_of_rows(spec) for spec in contract.inputs]))
    outputs = [tensor.name for tensor in contract.flat_outputs()]
    wanted = record(
        {"name": {"enum": outputs}, "parameters": record({"binary_data": FLAG}, required=())},
        required=("name",),
    )
    return record(
        {
            "id": TEXT,
            "parameters": record(
                {"binary_data_output": FLAG, "nested": FLAG, "timeout": COUNT}, required=()
            ),
            "inputs": forms[0] if len(forms) == 1 else {"anyOf": forms},
            "outputs": {"type": "array", "items": wanted, "maxItems": len(outputs)},
        },
        required=("inputs",),
    )


def infer_response(contract: Contract) -> Schema:
    """The JSON of an infer answer."""
    tensors = []
    for spec in contract.outputs:
        for tensor in spec.flat():
            data: Schema = {"type": "array"}
            if not spec.ragged:  # a ragged one may be asked for as lists of rows
                data["items"] = _answered_item(tensor)
            fields = {
                "name": {"const": tensor.name},
                "datatype": {"const": PROTOCOL[tensor.dtype]},
                "shape": array_of({"type": "integer", "minimum": -1}),
                "data": data,
                "parameters": record({"binary_data_size": COUNT}),
            }
            tensors.append(record(fields, required=("name", "datatype", "shape")))
    return record(
        {
            "model_name": TEXT,
            "model_version": TEXT,
            "id": TEXT,
            "outputs": {"type": "array", "items": {"anyOf": tensors}},
        },
        required=("model_name", "model_version", "outputs"),
    )


def record(fields: dict[str, Schema], required: Iterable[str] | None = None) -> Schema:
    """An object with these fields, all of them required by default; further ones are allowed."""
    names = list(fields if required is None else required)
    return {"type": "object", "properties": fields, **({"required": names} if names else {})}


def array_of(items: Schema) -> Schema:
    """A list of such items."""
    return {"type": "array", "items": items}


def _in_order(tensors: Sequence[Schema]) -> Schema:
    """The server takes them in any order; so written, each stands once."""
    size = len(tensors)
    return {
        "type": "array",
        "prefixItems": list(tensors),
        "items": False,
        "minItems": size,
        "maxItems": size,
    }


def _flat_input(spec: TensorSpec, tensor: FlatTensor) -> Schema:
    item = _item(spec) if tensor.name == spec.name else {**_range(tensor.dtype), "minimum": 0}
    dims = tensor.shape
    data: Schema = {"type": "array"}
    if dims == ANY_SHAPE:
        shape = array_of(COUNT)
    else:
        shape = _in_order([_dim(dim) for dim in dims])
        flat = array_of(item)
        sizes = [dim for dim in dims if isinstance(dim, int)]
        if len(sizes) == len(dims):
            flat.update(minItems=math.prod(sizes), maxItems=math.prod(sizes))
        data = flat if len(dims) < 2 else {"anyOf": [flat, _nested(item, dims)]}
    return record(
        {
            "name": {"const": tensor.name},
            "datatype": {"const": PROTOCOL[tensor.dtype]},
            "shape": shape,
            "data": data,
        }
    )


def _input_of_rows(spec: TensorSpec) -> Schema:
    """A ragged input as a list of rows; any other as it always is."""
    if not spec.ragged:
        return _flat_input(spec, spec.flat()[0])
    fields = {
        "name": {"const": spec.name},
        "datatype": {"const": PROTOCOL[spec.dtype]},
        "data": array_of(_nested(_item(spec), spec.shape)),
    }
    return record(fields)


def _nested(item: Schema, dims: Sequence[Dim]) -> Schema:
    for dim in reversed(dims):
        item = array_of(item)
        if isinstance(dim, int):
            item.update(minItems=dim, maxItems=dim)
    return item


def _dim(dim: Dim) -> Schema:
    if isinstance(dim, int):
        return {"const": dim}
    return {"title": dim, "type": "integer", "minimum": split_dim(dim)[1]}


def _item(spec: TensorSpec) -> Schema:
    """One element that the contract allows."""
    item = _range(spec.dtype)
    if "minimum" in item:
        whole = item["type"] == "integer"
        for key, bound in (("minimum", spec.minimum), ("maximum", spec.maximum)):
            if bound is not None:
                item[key] = int(bound) if whole and float(bound).is_integer() else bound
    return item


def _range(dtype: str) -> Schema:
    """One element of a dtype."""
    if dtype == STRING:
        return dict(TEXT)
    kind = numpy_dtype(dtype).kind
    if dtype == BFLOAT16:
        return {"type": "number", "minimum": -_LARGEST_BFLOAT16, "maximum": _LARGEST_BFLOAT16}
    if kind == "b":
        return dict(FLAG)
    limits = np.finfo(dtype) if kind == "f" else np.iinfo(dtype)
    convert = float if kind == "f" else int
    return {
        "type": "number" if kind == "f" else "integer",
        "minimum": convert(limits.min),
        "maximum": convert(limits.max),
    }


def _answered_item(tensor: FlatTensor) -> Schema:
    item = _range(tensor.dtype)
    if item["type"] != "number":
        return item
    return {"anyOf": [{"type": "number"}, {"enum": sorted(set(NOT_FINITE.values()))}]}
