"""What a server says about its models: metadata, configuration, statistics."""

from __future__ import annotations

from typing import Any

import keras_blocks
from keras_blocks.contract import (
    CHANGES_METADATA_KEY,
    PROOF_METADATA_KEY,
    Dim,
    FlatTensor,
    TensorSpec,
)
from keras_blocks.contract.dtypes import ANY_SHAPE, BFLOAT16, PROTOCOL, STRING
from keras_blocks.serving.inference.batch_plan import BatchPlan
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.inference.statistics import Duration, ModelStatistics
from keras_blocks.serving.model import Model
from keras_blocks.serving.repository.folders import model_folders
from keras_blocks.serving.repository.model_settings import BatchSettings

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
PLATFORM = "onnxruntime_onnx"
_SHOWN = (
    "least",
    "minimum",
    "maximum",
    "tree_of",
    "max_children",
    "forest",
    "leaves_of",
    "edges_of",
    "edge_labels",
    "siblings_differ",
    "padding",
)


def server_metadata() -> dict[str, Any]:
    """The body of the server metadata endpoint."""
    version = keras_blocks.__version__
    return {"name": "keras-blocks", "version": version, "extensions": list(_EXTENSIONS)}


def describe_index(service: Service, only_ready: bool = False) -> list[dict[str, Any]]:
    """The body of the repository index: every model of the folder, and whether it is loaded."""
    repository = service.repository
    entries = [
        {"name": model.name, "version": str(model.version), "state": "READY", "reason": ""}
        for model in repository.all_models()
    ]
    if not only_ready:
        for name in model_folders(repository.directory):
            if name not in repository.models:
                reason = service.cause(name)
                entries.append({"name": name, "state": "UNAVAILABLE", "reason": reason})
    return entries


def describe_model(service: Service, name: str, version: str | None = None) -> dict[str, Any]:
    """The body of the model metadata endpoint."""
    return model_metadata(
        service.batcher_for(name, version).model, service.repository.versions(name)
    )


def describe_config(service: Service, name: str, version: str | None = None) -> dict[str, Any]:
    """The body of the model configuration endpoint."""
    batcher = service.batcher_for(name, version)
    return model_config(batcher.model, batcher.plan, batcher.settings)


async def describe_statistics(
    service: Service, name: str = "", version: str = ""
) -> dict[str, Any]:
    """The body of the statistics endpoint: the counts of all models, of one, or of one version."""
    if name:
        service.repository.get(name, version or None)
    shown = [
        model_statistics(key[0], str(key[1]), counts)
        for key, counts in (await service.counts()).items()
        if name in ("", key[0]) and version in ("", str(key[1]))
    ]
    return {"model_stats": shown}


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


def model_config(model: Model, plan: BatchPlan | None, settings: BatchSettings) -> dict[str, Any]:
    """The model configuration, in the fields of Triton's that mean something here.

    A batched dense model has a `max_batch_size`, and its dims are those behind the batch axis, as
    Triton's clients expect. A ragged model has 0 and whole shapes: its row splits have one entry
    more than rows, so no axis of its requests is the batch.
    """
    rows = 0
    if plan is not None and not plan.row_splits:
        rows = min(settings.max_batch_size, plan.most_rows)
    sides = {
        side: [_tensor_config(tensor, bool(rows)) for tensor in flat]
        for side, flat in (
            ("input", model.contract.flat_inputs()),
            ("output", model.contract.flat_outputs()),
        )
    }
    config: dict[str, Any] = {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": rows,
        **sides,
        "instance_group": [
            {"name": model.name, "kind": "KIND_CPU", "count": settings.runs_at_once}
        ],
        "default_model_filename": "model.onnx",
        "parameters": {
            key: {"string_value": model.session.metadata[key]}
            for key in (PROOF_METADATA_KEY, CHANGES_METADATA_KEY)
            if key in model.session.metadata
        },
    }
    if plan is not None:
        delay = round(settings.max_queue_delay_ms * 1000)
        config["dynamic_batching"] = {"max_queue_delay_microseconds": delay}
    return config


def model_statistics(name: str, version: str, counts: ModelStatistics) -> dict[str, Any]:
    """The counts of one version of a model, in the fields of the statistics extension."""
    none = _duration(Duration())
    return {
        "name": name,
        "version": version,
        "last_inference": round(counts.last * 1000),
        "inference_count": counts.rows,
        "execution_count": counts.runs,
        "inference_stats": {
            "success": _duration(counts.success),
            "fail": _duration(counts.fail),
            "queue": _duration(Duration(counts.queue.count, counts.queue.total)),
            **_compute(counts.compute),
            "cache_hit": none,
            "cache_miss": none,
        },
        "batch_stats": [
            {"batch_size": rows, **_compute(spent)}
            for rows, spent in sorted(counts.batches.items())
        ],
    }


def _compute(spent: Duration) -> dict[str, dict[str, int]]:
    # Inputs are joined and outputs split within the run's time. The counts of the three must be
    # the same: perf_analyzer ends where they are not.
    apart = _duration(Duration(spent.count))
    return {"compute_input": apart, "compute_infer": _duration(spent), "compute_output": apart}


def _duration(spent: Duration) -> dict[str, int]:
    return {"count": spent.count, "ns": round(spent.seconds * 1e9)}


def _tensor_config(tensor: FlatTensor, batched: bool) -> dict[str, Any]:
    protocol = {STRING: "STRING", BFLOAT16: "BF16"}.get(tensor.dtype, PROTOCOL[tensor.dtype])
    dims = _sizes(tensor.shape)[1 if batched else 0 :]
    config: dict[str, Any] = {
        "name": tensor.name,
        "data_type": f"TYPE_{protocol}",
        "dims": dims or [1],
    }
    if not dims:  # one number a row; an empty list of dims would say nothing at all
        config["reshape"] = {"shape": []}
    return config


def _flat_pairs(specs: tuple[TensorSpec, ...]) -> list[tuple[TensorSpec, FlatTensor]]:
    return [(spec, tensor) for spec in specs for tensor in spec.flat()]


def _tensor_metadata(spec: TensorSpec, tensor: FlatTensor) -> dict[str, Any]:
    parameters: dict[str, Any] = {"dims": [str(dim) for dim in tensor.shape]}
    if spec.ragged:
        parameters["ragged"] = "values" if tensor.name == spec.name else "row_splits"
    if tensor.name == spec.name:
        for key in _SHOWN:
            value = getattr(spec, key)
            if value is not None and value is not False and value != ():
                parameters[key] = value
    return {
        "name": tensor.name,
        "datatype": PROTOCOL[tensor.dtype],
        "shape": _sizes(tensor.shape),
        "parameters": parameters,
    }


def _sizes(shape: tuple[Dim, ...]) -> list[int]:
    dims: tuple[Dim, ...] = () if shape == ANY_SHAPE else shape
    return [dim if isinstance(dim, int) else -1 for dim in dims]
