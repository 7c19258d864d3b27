"""A request that a model answers, as an example."""

from __future__ import annotations

from typing import Any

from keras_blocks.contract import Contract
from keras_blocks.contract.dtypes import PROTOCOL
from keras_blocks.contract.example import example_inputs
from keras_blocks.contract.rows import split_rows


def example_request(contract: Contract) -> dict[str, Any]:
    """The same as the body of an infer request."""
    dtypes = {tensor.name: tensor.dtype for tensor in contract.flat_inputs()}
    tensors = [
        {
            "name": name,
            "datatype": PROTOCOL[dtypes[name]],
            "shape": list(array.shape),
            "data": array.reshape(-1).tolist(),
        }
        for name, array in example_inputs(contract).items()
    ]
    return {"inputs": tensors}


def example_lists(contract: Contract) -> dict[str, Any]:
    """The same as an infer request of nested lists, ragged inputs as lists of rows."""
    arrays = example_inputs(contract)
    tensors = []
    for spec in contract.inputs:
        values = arrays[spec.name]
        tensor: dict[str, Any] = {"name": spec.name, "datatype": PROTOCOL[spec.dtype]}
        if spec.ragged:
            rows = split_rows(values, arrays[spec.row_splits_name])
            tensor["data"] = [row.tolist() for row in rows]
        else:
            tensor |= {"shape": list(values.shape), "data": values.tolist()}
        tensors.append(tensor)
    return {"inputs": tensors}
