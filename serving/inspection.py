"""What is in an ONNX file: signature, size, and its ops where the package onnx is installed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from keras_blocks.serving.codec import model_metadata
from keras_blocks.serving.model import Model


def inspect_file(path: Path) -> dict[str, Any]:
    """The facts about an ONNX file, in JSON's types.

    `ops` and `opset` are None without the package onnx; `contract` says where the signature is
    from: the file's metadata, or the graph alone; `proof` is the summary that an export wrote.

    Raises:
        ModelLoadError: onnxruntime cannot load the file.
    """
    model = Model.load(path)
    metadata = model_metadata(model, [])
    ops, opset = _graph_facts(path)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "producer": model.session.producer,
        "contract": "metadata" if model.brings_contract else "graph",
        "inputs": metadata["inputs"],
        "outputs": metadata["outputs"],
        "opset": opset,
        "ops": ops,
        "proof": _proof(model),
    }


def _proof(model: Model) -> Any:
    text = model.session.metadata.get("keras_blocks.proof")
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None


def _graph_facts(path: Path) -> tuple[dict[str, int] | None, dict[str, int] | None]:
    try:
        import onnx
    except ModuleNotFoundError:
        return None, None
    proto = onnx.load(path, load_external_data=False)
    counts: Counter[str] = Counter()
    graphs = [proto.graph, *proto.functions]
    while graphs:
        for node in graphs.pop().node:
            counts[node.op_type] += 1
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs
    opset = {item.domain or "ai.onnx": item.version for item in proto.opset_import}
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))), opset
