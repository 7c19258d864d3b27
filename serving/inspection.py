"""What is in an ONNX file: signature, size, ops, proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keras_blocks.contract import PROOF_METADATA_KEY
from keras_blocks.serving.codec import model_metadata
from keras_blocks.serving.model import Model


def inspect_file(path: Path) -> dict[str, Any]:
    """The facts about an ONNX file, in JSON's types.

    `contract` says where the signature is from: the file's metadata, or the graph alone; `proof` is
    the summary that an export wrote, or None.

    Raises:
        ModelLoadError: onnxruntime cannot load the file.
    """
    model = Model.load(path)
    metadata = model_metadata(model, [])
    ops = sorted(model.facts.ops.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "producer": model.session.producer,
        "contract": "metadata" if model.brings_contract else "graph",
        "inputs": metadata["inputs"],
        "outputs": metadata["outputs"],
        "opset": model.facts.opset,
        "ops": dict(ops),
        "proof": _proof(model),
    }


def _proof(model: Model) -> Any:
    text = model.session.metadata.get(PROOF_METADATA_KEY)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None
