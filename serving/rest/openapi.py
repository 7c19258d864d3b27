"""The OpenAPI document of the REST endpoints, with each loaded model's own inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras_blocks
from keras_blocks.contract.describe import describe_inputs
from keras_blocks.contract.dtypes import PROTOCOL
from keras_blocks.contract.example import example_elements
from keras_blocks.serving.model import Model
from keras_blocks.serving.protocol.example_requests import example_lists, example_request
from keras_blocks.serving.protocol.names import HEADER_LENGTH, JSON, OCTETS, model_path
from keras_blocks.serving.repository.repository import Repository
from keras_blocks.serving.rest.json_schemas import (
    COUNT,
    FLAG,
    TEXT,
    Schema,
    array_of,
    infer_request,
    infer_response,
    record,
)
from keras_blocks.serving.rest.snippets import curl_call, grpc_call, python_call
from keras_blocks.serving.telemetry.metrics import MEDIA_TYPE

DOCUMENT = "/v2/openapi.json"

_LONGEST_EXAMPLE = 5000  # elements; larger examples would be most of the document
_LARGEST_EXAMPLE = 2**22  # elements; larger examples are not even made
_ABOUT = (
    "The Open Inference Protocol v2 with binary tensors, model repository, statistics and model "
    "configuration. What the schemas cannot say, such as that data have as many elements as their "
    "shape, the server checks; it says what came and what was expected."
)
_REFUSALS = {
    400: "What came is not valid; the message names what, and what was expected.",
    401: "No API key came, or one that is not the server's.",
    403: "Models are not loaded and unloaded here.",
    404: "There is no such path, model or version.",
    405: "The path has no such method; the header `Allow` names those it has.",
    408: "The rest of the request did not come in time.",
    413: "The body is too large, or what it asks for needs more memory than there is.",
    415: "The body is of a kind that is not read.",
    429: "Too many requests wait; try again after the seconds of `Retry-After`.",
    431: "The headers are too long.",
    503: "Not ready, stopping, or not answered in time.",
}
_ALWAYS = (400, 405, 408, 413, 431)
_WITH_RETRY = (429, 503)
_DURATION = record({"count": COUNT, "ns": COUNT})
_TENSOR = record(
    {
        "name": TEXT,
        "datatype": {"enum": sorted(PROTOCOL.values())},
        "shape": array_of({"type": "integer", "minimum": -1}),
        "parameters": record({"dims": array_of(TEXT)}),
    }
)
_BATCH = record(
    {
        "batch_size": COUNT,
        "compute_input": _DURATION,
        "compute_infer": _DURATION,
        "compute_output": _DURATION,
    }
)
_MODEL_STATISTICS = record(
    {
        "name": TEXT,
        "version": TEXT,
        "last_inference": COUNT,
        "inference_count": COUNT,
        "execution_count": COUNT,
        "inference_stats": {"type": "object", "additionalProperties": _DURATION},
        "batch_stats": array_of(_BATCH),
    }
)
_SCHEMAS: dict[str, Schema] = {
    "Error": record({"error": {"type": "string", "minLength": 1}}),
    "Server": record({"name": TEXT, "version": TEXT, "extensions": array_of(TEXT)}),
    "Live": record({"live": FLAG}),
    "Ready": record({"ready": FLAG}),
    "ModelReady": record({"name": TEXT, "ready": FLAG}),
    "Model": record(
        {
            "name": TEXT,
            "versions": array_of(TEXT),
            "platform": TEXT,
            "inputs": array_of(_TENSOR),
            "outputs": array_of(_TENSOR),
        }
    ),
    "Configuration": record(
        {
            "name": TEXT,
            "platform": TEXT,
            "max_batch_size": COUNT,
            "input": array_of({"type": "object"}),
            "output": array_of({"type": "object"}),
        }
    ),
    "Statistics": record({"model_stats": array_of(_MODEL_STATISTICS)}),
    "Names": record({"models": array_of(TEXT)}),
    "Index": array_of(
        record(
            {"name": TEXT, "version": TEXT, "state": {"enum": ["READY", "UNAVAILABLE"]}}
            | {"reason": TEXT},
            required=("name", "state", "reason"),
        )
    ),
    "Nothing": {"type": "object"},
    "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
}


def openapi_document(repository: Repository, keyed: bool, base_path: str = "") -> dict[str, Any]:
    """The document of a server.

    Args:
        repository: the loaded models.
        keyed: whether the server wants an API key.
        base_path: what stands before the paths.
    """
    paths = _server_paths() | _model_paths(repository)
    for model in repository.all_models():
        paths[f"{model_path(model.name, model.version)}/infer"] = _infer(model, versioned=True)
        if model is repository.get(model.name):
            paths[f"{model_path(model.name)}/infer"] = _infer(model, versioned=False)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "keras-blocks",
            "version": keras_blocks.__version__,
            "description": _ABOUT,
        },
        "servers": [{"url": base_path or "/"}],
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "responses": {str(status): _refusal(status) for status in _REFUSALS},
        },
    }
    if keyed:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        _add_key_refusal(paths)
    return document


def _server_paths() -> dict[str, Any]:
    metrics = {"description": "Text for Prometheus.", "content": {MEDIA_TYPE: {"schema": TEXT}}}
    index = {"content": {JSON: {"schema": record({"ready": FLAG}, required=())}}}
    return {
        "/v2": {"get": _operation("What the server is", "Server")},
        "/v2/health/live": {"get": _operation("Whether the server runs", "Live", open=True)},
        "/v2/health/ready": {
            "get": _operation("Whether every model answers", "Ready", unready="Ready", open=True)
        },
        DOCUMENT: {"get": _operation("This document", "Document")},
        "/v2/models": {"get": _operation("The names of the loaded models", "Names")},
        "/v2/models/stats": {"get": _operation("The counts of all models", "Statistics")},
        "/v2/repository/index": {
            "post": _operation("The models of the repository", "Index", requestBody=index)
        },
        "/metrics": {"get": _operation("The counts of all models for Prometheus", metrics)},
    }


def _model_paths(repository: Repository) -> dict[str, Any]:
    """What is the same for every model."""
    versions = sorted({str(model.version) for model in repository.all_models()}, key=int)
    model = _path_parameter("model", sorted(repository.models))
    version = _path_parameter("version", versions)
    reads = {
        "": ("A model's inputs and outputs", "Model"),
        "/ready": ("Whether a model answers", "ModelReady"),
        "/config": ("A model's configuration", "Configuration"),
        "/stats": ("A model's counts", "Statistics"),
    }
    paths: dict[str, Any] = {}
    for end, (summary, answer) in reads.items():
        for start, parameters in (
            ("/v2/models/{model}", [model]),
            ("/v2/models/{model}/versions/{version}", [model, version]),
        ):
            operation = _operation(summary, answer, further=(404,))
            paths[start + end] = {"parameters": parameters, "get": operation}
    for change, summary in (
        ("load", "Loads a model of the folder, or loads it again"),
        ("unload", "Takes a model out of service"),
    ):
        operation = _operation(summary, "Nothing", further=(403, 404))
        paths[f"/v2/repository/models/{{model}}/{change}"] = {
            "parameters": [model],
            "post": operation,
        }
    return paths


def _infer(model: Model, versioned: bool) -> dict[str, Any]:
    contract = model.contract
    which = f" version {model.version}" if versioned else ""
    body: dict[str, Any] = {"schema": infer_request(contract)}
    if example_elements(contract) <= _LONGEST_EXAMPLE:
        body["examples"] = {
            "flat": {"value": example_request(contract)},
            "lists": {"value": example_lists(contract)},
        }
    length = {"name": HEADER_LENGTH, "schema": COUNT}
    length["description"] = "The bytes of the JSON, where binary tensors stand behind it."
    answer = {
        "description": "The outputs.",
        "headers": {HEADER_LENGTH: {key: length[key] for key in ("description", "schema")}},
        "content": {JSON: {"schema": infer_response(contract)}, OCTETS: {}},
    }
    operation = _operation(
        f"Runs {model.name}{which}",
        answer,
        further=(404, 415, 429, 503),
        description=f"The model takes {describe_inputs(contract)}.",
        parameters=[{**length, "in": "header"}],
        requestBody={"required": True, "content": {JSON: body, OCTETS: {}}},
    )
    operation["x-codeSamples"] = _samples(model, model.version if versioned else None)
    return {"post": operation}


def _samples(model: Model, version: int | None) -> list[dict[str, str]]:
    elements = example_elements(model.contract)
    samples = []
    if elements <= _LONGEST_EXAMPLE:
        samples.append(("curl", "Shell", curl_call(model, version=version)))
    if elements <= _LARGEST_EXAMPLE:
        samples.append(("Python", "Python", python_call(model, version=version)))
        samples.append(("gRPC", "Python", grpc_call(model, version=version)))
    return [{"label": label, "lang": lang, "source": text} for label, lang, text in samples]


def _operation(
    summary: str,
    answer: str | dict[str, Any],
    *,
    further: Iterable[int] = (),
    unready: str | None = None,
    open: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    """One method of a path.

    Args:
        summary: what it does.
        answer: the name of its answer's schema, or the whole answer.
        further: the statuses of refusals that not every path has.
        unready: the name of the schema of its answer with 503.
        open: whether it needs no key.
        fields: further fields.
    """
    responses: dict[str, Any] = {
        "200": _answer(answer) if isinstance(answer, str) else answer,
        **{str(n): {"$ref": f"#/components/responses/{n}"} for n in (*_ALWAYS, *further)},
    }
    if unready:
        responses["503"] = {**_answer(unready), "description": _REFUSALS[503]}
    if open:
        fields["security"] = []
    return {"summary": summary, **fields, "responses": responses}


def _answer(schema: str) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": schema, "content": content}


def _refusal(status: int) -> dict[str, Any]:
    refusal = {**_answer("Error"), "description": _REFUSALS[status]}
    if status in _WITH_RETRY:
        refusal["headers"] = {"Retry-After": {"schema": COUNT}}
    if status == 405:
        refusal["headers"] = {"Allow": {"schema": TEXT}}
    return refusal


def _add_key_refusal(paths: dict[str, Any]) -> None:
    for path in paths.values():
        for method in ("get", "post"):
            if method in path and "security" not in path[method]:
                path[method]["responses"]["401"] = {"$ref": "#/components/responses/401"}


def _path_parameter(name: str, values: list[str]) -> dict[str, Any]:
    schema = {"enum": values} if values else TEXT  # an enum of nothing is no schema
    return {"name": name, "in": "path", "required": True, "schema": schema}
