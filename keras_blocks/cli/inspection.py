"""What is in an ONNX file: signature, size, ops, proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keras_blocks.contract import CHANGES_METADATA_KEY, PROOF_METADATA_KEY
from keras_blocks.runtime.external_data import count_bytes
from keras_blocks.runtime.releases import loads_in
from keras_blocks.serving.model import Model
from keras_blocks.serving.protocol.descriptions import model_metadata


def inspect_file(path: Path) -> dict[str, Any]:
    """The facts about an ONNX file, in JSON's types.

    `contract` says where the signature is from: the file's metadata, or the graph alone; `proof` is
    the summary that an export wrote, or None; `changes` is what was done to the file since.

    Raises:
        ModelLoadError: onnxruntime cannot load the file.
    """
    model = Model.load(path)
    metadata = model_metadata(model, [])
    ops = sorted(model.facts.ops.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "file": str(path),
        "bytes": count_bytes(path),
        "producer": model.session.producer,
        "contract": "metadata" if model.brings_contract else "graph",
        "inputs": metadata["inputs"],
        "outputs": metadata["outputs"],
        "opset": model.facts.opset,
        "ir_version": model.facts.ir_version,
        "loads_in": loads_in(model.facts.opset, model.facts.ir_version),
        "ops": dict(ops),
        "proof": _stored(model, PROOF_METADATA_KEY, dict, None),
        "changes": [
            change
            for change in _stored(model, CHANGES_METADATA_KEY, list, [])
            if isinstance(change, dict)
        ],
    }


def _stored(model: Model, key: str, kind: type, otherwise: Any) -> Any:
    """What the metadata holds under a key, if it is of that kind."""
    try:
        value = json.loads(model.session.metadata.get(key, ""))
    except ValueError:
        return otherwise
    return value if isinstance(value, kind) else otherwise
