"""The REST endpoints of the Open Inference Protocol v2, with Triton's extensions."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

import orjson

from keras_blocks.errors import ContractError
from keras_blocks.serving.auth import OPEN, ModelControl
from keras_blocks.serving.errors import RequestError
from keras_blocks.serving.inference.request import Outputs
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.origins import NO_OTHERS, Origins
from keras_blocks.serving.protocol.descriptions import (
    describe_config,
    describe_index,
    describe_model,
    describe_statistics,
    server_metadata,
)
from keras_blocks.serving.protocol.infer_request import check_change_parameters
from keras_blocks.serving.protocol.names import HEADER_LENGTH, JSON, OCTETS
from keras_blocks.serving.rest.codec import (
    decode_request,
    encode_response,
)
from keras_blocks.serving.rest.openapi import DOCUMENT, openapi_document
from keras_blocks.serving.rest.web_files import FIRST_FILE, web_files
from keras_blocks.serving.status import status_of
from keras_blocks.serving.telemetry.logs import fields
from keras_blocks.serving.telemetry.metrics import MEDIA_TYPE, metrics_text, process_metrics
from keras_blocks.serving.telemetry.request_record import request_id
from keras_blocks.serving.transport.compression import inflate
from keras_blocks.serving.transport.exchange import HttpExchange

# curl sends the form type unless told otherwise.
_JSON_TYPES = frozenset({"", JSON, "application/x-www-form-urlencoded"})
_OPEN = frozenset({"live", "ready", "page"})  # who watches a server needs no key

_PREFIX = re.compile(r"(/[\w.~%-]+)*", re.ASCII)
_LONGEST_KNOWN = 512  # bytes of a path that is remembered

_log = logging.getLogger("keras_blocks.serving")


class Rest:
    """Answers exchanges.

    Args:
        service: what answers them.
        control: whether models may be loaded and unloaded here.
        origins: which web pages of other origins may ask.
        base_path: what stands before each path, where a proxy leaves it there; paths without it are
            answered too, as who watches the server asks for them.
    """

    def __init__(
        self,
        service: Service,
        control: ModelControl = OPEN,
        origins: Origins = NO_OTHERS,
        base_path: str = "",
    ):
        self._service = service
        self._control = control
        self._origins = origins
        self._base_path = base_path
        self._base = quote(base_path).encode()
        self._tasks: set[asyncio.Task[None]] = set()
        self._get: Mapping[str, Callable[..., Any]] = {
            "server": server_metadata,
            "live": lambda: {"live": True},
            "models": lambda: {"models": sorted(service.repository.models)},
            "model": partial(describe_model, service),
            "config": partial(describe_config, service),
        }

    def handle(self, exchange: HttpExchange) -> None:
        """Answers, now or later."""
        if self._origins:
            exchange.more = self._origins.answer_headers(exchange.headers)
        try:
            endpoint, arguments = self._route(exchange)
            if endpoint == "infer":
                self._infer(exchange, *arguments)
            elif endpoint in self._get:
                exchange.respond(200, _to_json(self._get[endpoint](*arguments)))
            else:
                getattr(self, f"_{endpoint}")(exchange, *arguments)
        except Exception as error:
            self.refuse(exchange, error)

    def authorize(self, method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Refuses who has no key, before a body is taken in.

        Raises:
            AccessError: a key is needed for what is asked, and this is none.
        """
        keys = self._service.keys
        if not keys or method == b"OPTIONS":  # a browser asks that without the key
            return
        endpoints = set(_endpoints(self._local(target))[0].values())
        if not endpoints or not endpoints <= _OPEN:  # a path that is none needs one too
            keys.check(headers.get(b"authorization"))

    def refuse(self, exchange: HttpExchange, error: Exception, own_id: str | None = None) -> None:
        """Answers with what is wrong; `own_id` is what the client calls the request."""
        fault = status_of(error)
        if self._origins:
            exchange.more = self._origins.answer_headers(exchange.headers)
        if fault.status == 500:
            named = fields(request_id=request_id(exchange.headers, own_id))
            _log.error("a request failed", exc_info=error, extra=named)
        closes = isinstance(error, RequestError) and error.closes
        body = _to_json({"error": fault.message})
        exchange.respond(fault.status, body, headers=fault.headers, closes=closes)

    def _route(self, exchange: HttpExchange) -> tuple[str, tuple[str, ...]]:
        if self._base and exchange.target == self._base:
            raise RequestError(308, "the page is there", {"Location": f"{self._base_path}/"})
        target = self._local(exchange.target) if self._base else exchange.target
        methods, arguments = _endpoints(target)
        method = exchange.method.decode("latin-1")
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is not None:
            return endpoint, arguments
        if method == "OPTIONS" and (methods or target == b"*"):
            return "options", tuple(methods)
        shown = unquote(exchange.target.partition(b"?")[0].decode("latin-1"))[:200]
        if not methods:
            raise RequestError(404, f"no such path: '{shown}'; {DOCUMENT} describes the paths")
        allowed = {"Allow": ", ".join(methods)}
        raise RequestError(405, f"{method[:20]} is not allowed on '{shown}'", allowed)

    def _local(self, target: bytes) -> bytes:
        """A target without the base path."""
        base = self._base
        if not base or not target.startswith(base):
            return target
        rest = target[len(base) :] or b"/"
        return rest if rest.startswith(b"/") else target

    def _options(self, exchange: HttpExchange, *methods: str) -> None:
        allowed = [*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]
        headers = self._origins.preflight_headers(exchange.headers, allowed)
        exchange.respond(200, b"", headers={"Allow": ", ".join(allowed), **headers})

    def _document(self, exchange: HttpExchange) -> None:
        service, prefix = self._service, exchange.header(b"x-forwarded-prefix").rstrip("/")
        if not _PREFIX.fullmatch(prefix):
            prefix = ""
        document = openapi_document(
            service.repository, bool(service.keys), prefix or self._base_path
        )
        exchange.respond(200, _to_json(document))

    def _infer(self, exchange: HttpExchange, name: str, version: str | None = None) -> None:
        seen = exchange.seen
        if seen is not None:
            seen.asks(name, version)
        batcher = self._service.batcher_for(name, version)
        limits = self._service.limits
        text, binary_data = _read_body(exchange, limits.body_bytes)
        request = decode_request(_from_json(text), batcher.model.contract, limits, binary_data)
        if seen is not None:
            seen.asks(name, batcher.model.version, request.id)

        def done(outcome: Outputs | Exception) -> None:
            if isinstance(outcome, Exception):
                self.refuse(exchange, outcome, request.id)
                return
            answer, binary = encode_response(batcher.model, outcome, request)
            head = _to_json(answer)
            if binary:
                headers = {HEADER_LENGTH: str(len(head))}
                exchange.respond(200, [head, *binary], OCTETS, headers)
            else:
                exchange.respond(200, head)

        job = self._service.infer(batcher, request.inputs, request.outputs, request.timeout, done)
        if seen is not None:
            seen.job = job
        exchange.on_gone = functools.partial(batcher.cancel, job)

    def _page(self, exchange: HttpExchange, name: str) -> None:
        file = web_files()[name]
        status = 200
        if file.is_kept(exchange.header(b"if-none-match")):
            # Like HEAD: the length of what a 200 would bring, and no body.
            status, exchange.method = 304, b"HEAD"
        exchange.respond(status, file.content, file.media_type, file.headers)

    def _metrics(self, exchange: HttpExchange) -> None:
        async def metrics() -> bytes:
            return (metrics_text(await self._service.counts()) + process_metrics()).encode()

        self._later(exchange, metrics(), MEDIA_TYPE)

    def _stats(self, exchange: HttpExchange, name: str = "", version: str = "") -> None:
        self._later(exchange, describe_statistics(self._service, name, version))

    def _ready(self, exchange: HttpExchange) -> None:
        reason = self._service.unready
        if reason:
            exchange.respond(503, _to_json({"ready": False, "reason": reason}))
        else:
            exchange.respond(200, _to_json({"ready": True}))

    def _model_ready(self, exchange: HttpExchange, name: str, version: str | None = None) -> None:
        model = self._service.batcher_for(name, version).model
        exchange.respond(200, _to_json({"name": model.name, "ready": True}))

    def _index(self, exchange: HttpExchange) -> None:
        content = _from_json(exchange.body) if exchange.body else {}
        if not isinstance(content, dict):
            raise ContractError('the body must be an object: {"ready": true or false}')
        only_ready = content.get("ready", False)
        if not isinstance(only_ready, bool):
            raise ContractError(f"'ready' must be true or false, got {only_ready!r:.40}")
        exchange.respond(200, _to_json(describe_index(self._service, only_ready)))

    def _load(self, exchange: HttpExchange, name: str) -> None:
        self._control.check()
        self._origins.check_change(exchange.headers)
        _check_change(exchange, frozenset())
        self._later(exchange, self._service.load(name))

    def _unload(self, exchange: HttpExchange, name: str) -> None:
        self._control.check()
        self._origins.check_change(exchange.headers)
        _check_change(exchange, {"unload_dependents"})  # no model depends on another
        self._later(exchange, self._service.unload(name))

    def _later(self, exchange: HttpExchange, work: Awaitable[Any], media_type: str = JSON) -> None:
        async def wait() -> None:
            try:
                result = await work
                body = result if isinstance(result, bytes) else _to_json(result or {})
                exchange.respond(200, body, media_type)
            except Exception as error:
                self.refuse(exchange, error)

        task = asyncio.ensure_future(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _endpoints(target: bytes) -> tuple[Mapping[str, str], tuple[str, ...]]:
    return (route if len(target) <= _LONGEST_KNOWN else route.__wrapped__)(target)


@functools.lru_cache(maxsize=1024)
def route(target: bytes) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """What may be done at a path: method -> endpoint, and the endpoint's arguments.

    Example:
        >>> route(b"/v2/models/trees/versions/3/infer")
        ({'POST': 'infer'}, ('trees', '3'))
    """
    path = target.partition(b"?")[0].decode("latin-1")
    parts = [unquote(part) for part in path.split("/")[1:]]
    if len(parts) > 1 and not parts[-1]:  # a slash at the end changes nothing
        parts.pop()
    match parts:
        case [""]:
            return {"GET": "page"}, (FIRST_FILE,)
        case ["web", name] if name in web_files():
            return {"GET": "page"}, (name,)
        case ["v2"]:
            return {"GET": "server"}, ()
        case ["metrics"]:
            return {"GET": "metrics"}, ()
        case ["v2", "openapi.json"]:
            return {"GET": "document"}, ()
        case ["v2", "health", ("live" | "ready") as state]:
            return {"GET": state}, ()
        case ["v2", "models"]:
            return {"GET": "models"}, ()
        case ["v2", "models", "stats"]:
            return {"GET": "stats"}, ()
        case ["v2", "repository", "index"]:
            return {"POST": "index"}, ()
        case ["v2", "repository", "models", name, ("load" | "unload") as change]:
            return {"POST": change}, (name,)
        case ["v2", "models", name, "versions", version, *rest]:
            return _model_endpoint(rest), (name, version)
        case ["v2", "models", name, *rest]:
            return _model_endpoint(rest), (name,)
    return {}, ()


def _model_endpoint(rest: list[str]) -> Mapping[str, str]:
    match rest:
        case []:
            return {"GET": "model"}
        case ["infer"]:
            return {"POST": "infer"}
        case ["ready"]:
            return {"GET": "model_ready"}
        case [("config" | "stats") as endpoint]:
            return {"GET": endpoint}
    return {}


def _read_body(exchange: HttpExchange, limit: int) -> tuple[bytes | memoryview, bytes | memoryview]:
    """The JSON, and the binary tensors behind it."""
    body: bytes | memoryview = exchange.body
    if b"content-encoding" in exchange.headers:
        body = inflate(body, exchange.header(b"content-encoding").lower(), limit)
    length = exchange.header(b"inference-header-content-length")
    _check_media_type(exchange, binary=bool(length))
    if not length:
        return body, b""
    if not (length.isascii() and length.isdecimal() and int(length[:20]) <= len(body)):
        raise RequestError(
            400, f"{HEADER_LENGTH} is {length[:40]!r}, but the body has {len(body)} bytes"
        )
    view = memoryview(body)
    return view[: int(length)], view[int(length) :]


def _check_media_type(exchange: HttpExchange, binary: bool) -> None:
    if exchange.headers.get(b"content-type") == b"application/json":
        return
    media_type = exchange.header(b"content-type").partition(";")[0].strip().lower()
    if media_type in _JSON_TYPES or media_type.endswith("+json"):
        return
    if not (binary and media_type == OCTETS):
        raise RequestError(
            415,
            f"content type '{media_type[:40]}' is not read; send {JSON}, or "
            f"{OCTETS} with the header {HEADER_LENGTH}",
        )


def _check_change(exchange: HttpExchange, known: Collection[str]) -> None:
    content = _from_json(exchange.body) if exchange.body else {}
    if isinstance(content, dict):
        check_change_parameters(content.get("parameters", {}), known)


def _from_json(body: bytes | memoryview) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        problem = f"the body is not valid JSON: {error}"
    text = bytes(body)
    if b"NaN" not in text and b"Infinity" not in text:
        raise ContractError(problem)
    try:  # Python and JavaScript's libraries write them bare
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        raise ContractError(problem) from None


def _to_json(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
