"""The REST endpoints of the Open Inference Protocol v2."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

import keras_blocks
from keras_blocks.errors import ContractError
from keras_blocks.serving.codec import decode_request, encode_response, model_metadata
from keras_blocks.serving.limits import Limits, check_limits
from keras_blocks.serving.model import Model
from keras_blocks.serving.repository import ModelNotFoundError, Repository
from keras_blocks.serving.session import RunError

# A refused body is read to its end, up to this much, or the client might not see the refusal.
_DRAINED_BYTES = 64 * 2**20
# curl sends the form type unless told otherwise.
_JSON_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded"})
_PATHS = "/v2, /v2/health/live, /v2/health/ready, /v2/models/NAME[/versions/V][/ready or /infer]"


class JSONResponse(Response):
    """A body in JSON; bytes are taken as they are."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return content if isinstance(content, bytes) else _to_json(content)


def create_app(
    repository: Repository, *, limits: Limits | None = None, workers: int | None = None
) -> Starlette:
    """The ASGI application that serves a repository.

    Args:
        repository: the loaded models.
        limits: what one request may ask for.
        workers: int, how many requests compute at once; the others wait. By default the number of
            cores, at least 4, so that one long run does not hold up the short ones.
    """
    executor = ThreadPoolExecutor(workers or max(4, os.cpu_count() or 1), "infer")
    api = _Api(repository, limits or Limits(), executor)
    model = "/v2/models/{model}"
    routes = [
        Route("/v2", api.server),
        Route("/v2/health/live", api.live),
        Route("/v2/health/ready", api.ready),
    ]
    for path in (model, f"{model}/versions/{{version}}"):
        routes += [
            Route(path, api.model),
            Route(f"{path}/ready", api.model_ready),
            Route(f"{path}/infer", api.infer, methods=["POST"]),
        ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        executor.shutdown(wait=False, cancel_futures=True)

    handlers: dict[Any, Any] = {
        HTTPException: _refuse_http,
        ContractError: _refuse_inputs,
        ModelNotFoundError: _refuse_model,
        RunError: _refuse_run,
        Exception: _broken,
    }
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False
    return app


class _Api:
    """The endpoints."""

    def __init__(self, repository: Repository, limits: Limits, executor: ThreadPoolExecutor):
        self._repository = repository
        self._limits = limits
        self._executor = executor

    async def server(self, request: Request) -> Response:
        version = keras_blocks.__version__
        return JSONResponse({"name": "keras-blocks", "version": version, "extensions": []})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def model(self, request: Request) -> Response:
        model = self._asked(request)
        return JSONResponse(model_metadata(model, self._repository.versions(model.name)))

    async def model_ready(self, request: Request) -> Response:
        return JSONResponse({"name": self._asked(request).name, "ready": True})

    async def infer(self, request: Request) -> Response:
        model = self._asked(request)
        _check_media_type(request)
        body = await _read_body(request, self._limits)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._executor, self._answer, model, body)
        return JSONResponse(answer)

    def _answer(self, model: Model, body: bytes) -> bytes:
        request = decode_request(_from_json(body), model.contract, self._limits)
        model.check(request.inputs)
        check_limits(model.contract, request.inputs, self._limits)
        outputs = model.run(request.inputs, request.outputs)
        return _to_json(encode_response(model, outputs, request.id))

    def _asked(self, request: Request) -> Model:
        return self._repository.get(
            request.path_params["model"], request.path_params.get("version")
        )


def _from_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ContractError(f"the body is not valid JSON: {error}") from None


def _to_json(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _check_media_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise HTTPException(415, f"content encoding '{encoding[:40]}' is not read; send plain JSON")
    if "inference-header-content-length" in request.headers:
        raise HTTPException(415, "binary tensors are not read; send 'data' as JSON")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _JSON_TYPES and not media_type.endswith("+json"):
        raise HTTPException(
            415, f"content type '{media_type[:40]}' is not read; send application/json"
        )


async def _read_body(request: Request, limits: Limits) -> bytes:
    limit, seconds = limits.body_bytes, limits.silent_seconds
    now = asyncio.get_running_loop().time
    chunks: list[bytes] = []
    size = 0
    declared = int(request.headers.get("content-length", 0))  # the HTTP parser has checked it
    too_large = declared > limit
    waits = request.headers.get("expect", "").lower() == "100-continue"
    if declared > limit + _DRAINED_BYTES or (too_large and waits):
        raise _too_large(limit)
    try:
        async with asyncio.timeout(seconds) as silence:
            async for chunk in request.stream():
                silence.reschedule(now() + seconds)
                size += len(chunk)
                too_large = too_large or size > limit
                if too_large:
                    chunks.clear()
                    if size > limit + _DRAINED_BYTES:
                        break
                else:
                    chunks.append(chunk)
    except TimeoutError:
        raise HTTPException(408, f"no more of the body came within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended early") from None
    if too_large:
        raise _too_large(limit)
    return b"".join(chunks)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body has more than the {limit} bytes that are allowed")


def _error(status: int, message: str, headers: Any = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


async def _refuse_http(request: Request, error: HTTPException) -> Response:
    message = error.detail
    if error.status_code == 404:
        message = f"no such path: '{request.url.path[:200]}'; the paths are {_PATHS}"
    elif error.status_code == 405:
        message = f"{request.method} is not allowed on '{request.url.path[:200]}'"
    return _error(error.status_code, message, error.headers)


async def _refuse_inputs(request: Request, error: ContractError) -> Response:
    return _error(400, str(error))


async def _refuse_model(request: Request, error: ModelNotFoundError) -> Response:
    return _error(404, str(error))


async def _refuse_run(request: Request, error: RunError) -> Response:
    # The file loaded, so what fails when run fails because of these inputs.
    if error.out_of_memory:
        return _error(413, "the inputs need more memory than there is; send fewer rows")
    return _error(400, f"the model cannot run on these inputs: {error}")


async def _broken(request: Request, error: Exception) -> Response:
    # The server's log has the traceback.
    return _error(500, "internal error")
