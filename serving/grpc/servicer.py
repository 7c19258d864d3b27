"""gRPC calls on the streams of HTTP/2, and the methods of the Open Inference Protocol v2."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from keras_blocks.errors import ContractError
from keras_blocks.serving.auth import OPEN, ModelControl
from keras_blocks.serving.errors import AccessError, ModelNotFoundError
from keras_blocks.serving.grpc.call import Call, OneMessageCall
from keras_blocks.serving.grpc.codec import ModelInferRequest, decode_message, encode_message
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.inference.batcher import Batcher
from keras_blocks.serving.inference.request import Outputs, QueuedRequest
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.protocol.descriptions import (
    describe_config,
    describe_index,
    describe_model,
    describe_statistics,
    server_metadata,
)
from keras_blocks.serving.protocol.infer_request import check_change_parameters
from keras_blocks.serving.status import CANCELLED, OK, UNAVAILABLE, UNIMPLEMENTED, status_of
from keras_blocks.serving.telemetry.request_record import Observer, RequestRecord
from keras_blocks.serving.transport.http2_frames import Headers
from keras_blocks.serving.transport.http2_stream import Stream

_HEALTH = "/grpc.health.v1.Health/Check"
# Who watches a server needs no key.
_OPEN = frozenset({_HEALTH, f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"})
# Of one stream; what more of its messages came is read when some are answered.
_MOST_UNANSWERED = 256
_StreamResponse = message_class("ModelStreamInferResponse")


class Rpc:
    """Answers calls.

    Args:
        service: what answers them.
        control: whether models may be loaded and unloaded here.
        observer: who watches the calls, or None.
    """

    def __init__(
        self, service: Service, control: ModelControl = OPEN, observer: Observer | None = None
    ):
        self.service = service
        self._observer = observer
        self._control = control
        self._tasks: set[asyncio.Task[None]] = set()
        self._unary: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
            f"/{SERVICE}/{name}": (message_class(f"{name}Request"), _response(name), method)
            for name, method in {
                "ServerLive": lambda _: {"live": True},
                "ServerReady": lambda _: {"ready": service.ready},
                "ModelReady": self._model_ready,
                "ServerMetadata": lambda _: server_metadata(),
                "ModelMetadata": lambda m: describe_model(service, m.name, m.version),
                "ModelConfig": lambda m: {"config": describe_config(service, m.name, m.version)},
                "ModelStatistics": lambda m: describe_statistics(service, m.name, m.version),
                "RepositoryIndex": self._index,
                "RepositoryModelLoad": self._load,
                "RepositoryModelUnload": self._unload,
            }.items()
        }
        health = message_class("HealthCheckRequest"), message_class("HealthCheckResponse")
        self._unary[_HEALTH] = (*health, self._health)

    def open(self, stream: Stream, headers: Headers) -> Call:
        """The call of a new stream."""
        path = headers.get(b":path", b"").decode("latin-1")
        if path not in _OPEN:
            try:
                self.service.keys.check(headers.get(b"authorization"))
            except AccessError as error:
                call = Call(stream, headers, self.service.limits.body_bytes, self.see(headers))
                call.fail(error)
                return call
        if path == f"/{SERVICE}/ModelInfer":
            return _InferCall(self, stream, headers)
        if path == f"/{SERVICE}/ModelStreamInfer":
            return _StreamCall(self, stream, headers)
        if path in self._unary:
            return _UnaryCall(self, stream, headers, *self._unary[path])
        call = Call(stream, headers, self.service.limits.body_bytes, self.see(headers))
        call.finish(UNIMPLEMENTED, f"there is no method '{path[:200]}'")
        return call

    def see(self, headers: Headers) -> RequestRecord | None:
        """Who watches a request, if somebody does."""
        if self._observer is None:
            return None
        return self._observer.request("grpc", headers.get(b":path", b"").decode("latin-1"), headers)

    def later(self, work: Any) -> None:
        """Runs a coroutine."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def infer(
        self,
        data: Any,
        call: Call,
        seen: RequestRecord | None,
        done: Callable[[Batcher, str, Outputs | Exception], None],
    ) -> tuple[Batcher, QueuedRequest]:
        """Queues the request of a message.

        Args:
            data: the bytes of a ModelInferRequest.
            call: whose message it is.
            seen: who watches it, or None.
            done: called once with the model's queue, the request's id, and the outcome.
        Raises:
            ContractError: an input does not fit.
        """
        message = _parse(ModelInferRequest, data)
        service, name = self.service, message.id
        if seen is not None:
            seen.asks(message.model_name, message.model_version, name)
        batcher = service.batcher_for(message.model_name, message.model_version)
        request = decode_message(message, batcher.model.contract, service.limits)
        timeouts = [t for t in (request.timeout, call.timeout) if t is not None]
        job = service.infer(
            batcher,
            request.inputs,
            request.outputs,
            min(timeouts, default=None),
            lambda outcome: done(batcher, name, outcome),
        )
        if seen is not None:
            seen.version, seen.job = str(batcher.model.version), job
        return batcher, job

    def _index(self, message: Any) -> dict[str, Any]:
        if message.repository_name:
            raise ContractError("there is one repository; leave repository_name out")
        return {"models": describe_index(self.service, message.ready)}

    def _model_ready(self, message: Any) -> dict[str, bool]:
        try:
            self.service.batcher_for(message.name, message.version)
        except ModelNotFoundError:
            return {"ready": False}
        return {"ready": True}

    def _unload(self, message: Any) -> Any:
        self._control.check()
        _check_change(message, {"unload_dependents"})  # no model depends on another
        return self.service.unload(message.model_name)

    def _load(self, message: Any) -> Any:
        self._control.check()
        _check_change(message, frozenset())
        return self.service.load(message.model_name)

    def _health(self, message: Any) -> dict[str, int]:
        if message.service not in ("", SERVICE):
            raise ModelNotFoundError(f"there is no service '{message.service[:100]}'")
        return {"status": 1 if self.service.ready else 2}


class _UnaryCall(OneMessageCall):
    def __init__(
        self,
        rpc: Rpc,
        stream: Stream,
        headers: Headers,
        request: Any,
        response: Any,
        method: Callable[[Any], Any],
    ):
        super().__init__(stream, headers, rpc.service.limits.body_bytes, rpc.see(headers))
        self._rpc = rpc
        self._request, self._response, self._method = request, response, method

    def run(self, data: Any) -> None:
        result = self._method(_parse(self._request, data))
        if isinstance(result, dict):
            self._reply(result)
        else:
            self._rpc.later(self._wait(result))

    async def _wait(self, work: Any) -> None:
        try:
            self._reply(await work or {})
        except Exception as error:
            self.fail(error)

    def _reply(self, content: dict[str, Any]) -> None:
        # The REST bodies say some things that the messages have no field for.
        self.answer(json_format.ParseDict(content, self._response(), ignore_unknown_fields=True))


class _InferCall(OneMessageCall):
    def __init__(self, rpc: Rpc, stream: Stream, headers: Headers):
        super().__init__(stream, headers, rpc.service.limits.body_bytes, rpc.see(headers))
        self._rpc = rpc
        self._job: tuple[Batcher, QueuedRequest] | None = None

    def run(self, data: Any) -> None:
        self._job = self._rpc.infer(data, self, self.seen, self._done)

    def _done(self, batcher: Batcher, request_id: str, outcome: Outputs | Exception) -> None:
        if isinstance(outcome, Exception):
            self.own_id = request_id
            self.fail(outcome)
        else:
            self.answer(encode_message(batcher.model, outcome, request_id))

    def on_gone(self) -> None:
        super().on_gone()
        if self._job is not None:
            batcher, job = self._job
            batcher.cancel(job)


class _StreamCall(Call):
    """Infer requests one after another; their answers come in the same order."""

    def __init__(self, rpc: Rpc, stream: Stream, headers: Headers):
        super().__init__(stream, headers, rpc.service.limits.body_bytes)
        self._rpc = rpc
        stream.may_pause = True
        self._slots: deque[list[Any]] = deque()
        self._jobs: dict[int, tuple[Batcher, QueuedRequest, RequestRecord | None]] = {}
        self._ended = False

    def takes_more(self) -> bool:
        """Not while the client leaves answers lying, nor before a part of them is there."""
        return len(self._slots) < _MOST_UNANSWERED and not self._stream.pending

    def on_message(self, data: Any) -> None:
        slot: list[Any] = []
        self._slots.append(slot)
        seen = self._rpc.see(self._headers)

        def fill(code: int, response: Any) -> None:
            slot.append(response)
            if seen is not None:
                seen.end(code)
            self._send_ready()

        def refuse(error: Exception) -> None:
            fault = status_of(error)
            fill(fault.code, _StreamResponse(error_message=fault.message))

        def done(batcher: Batcher, request_id: str, outcome: Outputs | Exception) -> None:
            self._jobs.pop(id(slot), None)
            if isinstance(outcome, Exception):
                refuse(outcome)
            else:
                message = encode_message(batcher.model, outcome, request_id)
                fill(OK, _StreamResponse(infer_response=message))

        try:
            self._jobs[id(slot)] = (*self._rpc.infer(data, self, seen, done), seen)
        except Exception as error:
            refuse(error)

    def on_end(self) -> None:
        self._ended = True
        self._send_ready()

    def on_closing(self) -> None:
        if not self._slots and not self._stream.pending:
            self.finish(UNAVAILABLE, "the server ends; go on with another one")

    def on_gone(self) -> None:
        super().on_gone()
        for batcher, job, seen in list(self._jobs.values()):
            batcher.cancel(job)
            if seen is not None:
                seen.end(CANCELLED)

    def _send_ready(self) -> None:
        full = not self.takes_more()
        while self._slots and self._slots[0]:
            self.answer(self._slots.popleft()[0], last=False)
        if self._ended and not self._slots:
            self.finish(0, "")
        elif full:
            self.read_soon()


def _check_change(message: Any, known: Collection[str]) -> None:
    if message.repository_name:
        raise ContractError("there is one repository, without a name; leave repository_name out")
    check_change_parameters(message.parameters, known)


def _response(name: str) -> Any:
    return message_class(f"{name}Response")


def _parse(message: Any, data: Any) -> Any:
    try:
        return message.FromString(bytes(data))
    except DecodeError as error:
        raise ContractError(f"this is no {message.DESCRIPTOR.name}: {error}") from None
