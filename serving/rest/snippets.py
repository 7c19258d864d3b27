"""Calls to copy: the working example of a model by curl, in Python, and by gRPC."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.dtypes import BFLOAT16, PROTOCOL, STRING, from_bfloat16
from keras_blocks.contract.example import example_inputs
from keras_blocks.contract.rows import split_rows
from keras_blocks.serving.model import Model
from keras_blocks.serving.protocol.example_requests import example_request
from keras_blocks.serving.protocol.names import model_path

URL = "http://localhost:8080"
GRPC = "localhost:8081"
_MOST_WRITTEN_OUT = 16


def curl_call(model: Model, url: str = URL, version: int | None = None) -> str:
    """A command that sends the example as JSON."""
    body = json.dumps(example_request(model.contract)).replace("'", "'\\''")
    path = model_path(model.name, version)
    return f"curl {url}{path}/infer -H 'Content-Type: application/json' \\\n    -d '{body}'"


def python_call(model: Model, url: str = URL, version: int | None = None) -> str:
    """A program that asks with the `Client`; ragged inputs are lists of rows."""
    arguments = ["inputs"] if version is None else ["inputs", f"version={version}"]
    lines = [
        "import numpy as np",
        "from keras_blocks.serving import Client",
        "",
        "inputs = {",
        *(f"    {name!r}: {text}," for name, text in _client_inputs(model.contract).items()),
        "}",
        f"with Client({url!r}) as client:",
        f"    print(client.infer({model.name!r}, {', '.join(arguments)}))",
    ]
    return "\n".join(lines if "np." in "".join(lines) else lines[1:])


def grpc_call(model: Model, address: str = GRPC, version: int | None = None) -> str:
    """A program that asks by gRPC, with the package `tritonclient[grpc]`."""
    dtypes = {tensor.name: tensor.dtype for tensor in model.contract.flat_inputs()}
    arrays = []
    for name, array in example_inputs(model.contract).items():
        text = _array_text(array, dtypes[name])
        text += ".astype(ml_dtypes.bfloat16)" if dtypes[name] == BFLOAT16 else ""
        arrays.append(f"    ({name!r}, {PROTOCOL[dtypes[name]]!r}, {text}),")
    version_text = "" if version is None else f", model_version='{version}'"
    lines = [
        *(["import ml_dtypes"] if BFLOAT16 in dtypes.values() else []),
        "import numpy as np",
        "import tritonclient.grpc as grpc",
        "",
        "inputs = []",
        "for name, datatype, array in [",
        *arrays,
        "]:",
        "    tensor = grpc.InferInput(name, array.shape, datatype)",
        "    inputs.append(tensor.set_data_from_numpy(array))",
        f"with grpc.InferenceServerClient({address!r}) as client:",
        f"    answer = client.infer({model.name!r}, inputs{version_text})",
        *(f"    print(answer.as_numpy({name!r}))" for name in model.output_names),
    ]
    return "\n".join(lines)


def _client_inputs(contract: Contract) -> dict[str, str]:
    arrays = example_inputs(contract)
    texts = {}
    for spec in contract.inputs:
        values = arrays[spec.name]
        if spec.ragged:
            rows = split_rows(values, arrays[spec.row_splits_name])
            texts[spec.name] = repr([row.tolist() for row in rows])
        else:
            texts[spec.name] = _array_text(values, spec.dtype)
    return texts


def _array_text(array: np.ndarray, dtype: str) -> str:
    if dtype == BFLOAT16:
        array, dtype = from_bfloat16(array), "float32"
    kind = "object" if dtype == STRING else dtype
    items: list[Any] = array.reshape(-1).tolist()
    if array.size > _MOST_WRITTEN_OUT and len(set(items)) == 1:
        return f"np.full({array.shape}, {items[0]!r}, {kind!r})"
    shaped = "" if array.ndim == 1 else f".reshape({list(array.shape)})"
    return f"np.array({items}, {kind!r}){shaped}"
