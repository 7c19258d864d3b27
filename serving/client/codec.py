"""What a client sends and gets: the bodies of infer requests and answers, metadata, errors.

The other side may be any server, or none at all: what is not of the protocol is a `ServerError`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_blocks.contract import Contract, Dim, FlatTensor, TensorSpec
from keras_blocks.contract.dtypes import BFLOAT16, PROTOCOL, from_bfloat16
from keras_blocks.errors import ContractError
from keras_blocks.serving.errors import ServerError
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.protocol.tensor_data import read_tensor, to_bytes

_DTYPES = {protocol: dtype for dtype, protocol in PROTOCOL.items()}
_NO_LIMITS = Limits(empty_elements=2**62)
_MOST_SHOWN = 200


@contextlib.contextmanager
def understood(content: bytes) -> Iterator[None]:
    """Inside of it an answer is read; whatever it cannot be read as is a `ServerError`."""
    try:
        yield
    except (
        *(AttributeError, ContractError, LookupError, OverflowError),
        *(RecursionError, TypeError, ValueError),
    ) as error:
        shown = content[:_MOST_SHOWN].decode(errors="replace")
        raise ServerError(200, f"the answer is not of the protocol: {shown}") from error


def infer_request(
    contract: Contract, arrays: Mapping[str, np.ndarray], outputs: Sequence[str] | None
) -> tuple[str, bytes]:
    """The body of an infer request with binary tensors, and the length of its JSON."""
    inputs, raw = [], []
    for tensor in contract.flat_inputs():
        array = arrays[tensor.name]
        raw.append(b"".join([to_bytes(array)]))
        inputs.append(
            {
                "name": tensor.name,
                "datatype": PROTOCOL[tensor.dtype],
                "shape": list(array.shape),
                "parameters": {"binary_data_size": len(raw[-1])},
            }
        )
    body: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if outputs is not None:
        body["outputs"] = [{"name": n, "parameters": {"binary_data": True}} for n in outputs]
    head = json.dumps(body).encode()
    return str(len(head)), head + b"".join(raw)


def infer_outputs(
    content: bytes, length: str | None, wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    """The arrays of an answer.

    Args:
        content: the body.
        length: of its JSON, where binary tensors stand behind it.
        wanted: the outputs that must be there.
    """
    with understood(content):
        json_bytes = len(content) if length is None else int(length)
        rest = memoryview(content)[json_bytes:]
        outputs = {}
        for item in json.loads(content[:json_bytes])["outputs"]:
            dtype = _DTYPES[item["datatype"]]
            tensor = FlatTensor(item["name"], dtype, tuple(item["shape"]))
            size = (item.get("parameters") or {}).get("binary_data_size")
            data: Any = item.get("data")
            if size is not None:
                data, rest = rest[:size], rest[size:]
            array = read_tensor(tensor, item["datatype"], item["shape"], data, _NO_LIMITS)
            outputs[item["name"]] = from_bfloat16(array) if dtype == BFLOAT16 else array
    missing = [name for name in wanted if name not in outputs]
    if missing:
        raise ServerError(200, f"the answer lacks output '{missing[0]}'; it has {list(outputs)}")
    return outputs


def contract_of_metadata(content: bytes) -> Contract:
    """What a model takes and gives, by the server's metadata; ours tell there what is ragged."""
    with understood(content):
        metadata = json.loads(content)
        return Contract(*(tuple(_specs(metadata[side])) for side in ("inputs", "outputs")))


def error_message(status: int, content: bytes, location: str | None) -> str:
    """What a server said of an error."""
    try:
        message = json.loads(content)["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        message = None
    if isinstance(message, str):
        return message
    elsewhere = f" and points to {location}" if location else ""
    shown = content[:_MOST_SHOWN].decode(errors="replace")
    return f"the server answered {status}{elsewhere}{': ' if shown else ''}{shown}"


def _specs(tensors: Sequence[Mapping[str, Any]]) -> list[TensorSpec]:
    specs = []
    for tensor in tensors:
        parameters = tensor.get("parameters") or {}
        if parameters.get("ragged") == "row_splits":
            continue
        unnamed = [f"{tensor['name']}.{axis}" for axis in range(len(tensor["shape"]))]
        names = parameters.get("dims", unnamed)
        shape: tuple[Dim, ...] = tuple(
            size if size >= 0 else names[axis] for axis, size in enumerate(tensor["shape"])
        )
        ragged = parameters.get("ragged") == "values"
        specs.append(TensorSpec(tensor["name"], _DTYPES[tensor["datatype"]], shape, ragged=ragged))
    return specs
