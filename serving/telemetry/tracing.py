"""OpenTelemetry traces: a span for each infer request, with its wait and its run below it.

The spans are made when a request is answered, from the times that were taken on its way: nothing
of OpenTelemetry is between a request and its answer.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import keras_blocks
from keras_blocks.errors import KerasBlocksError, MissingExtraError
from keras_blocks.serving.status import DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, UNIMPLEMENTED
from keras_blocks.serving.telemetry.request_record import RequestRecord

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_NAME = "service.name"
_UNNAMED = "unknown_service"  # what the SDK calls a service without a name
_PARENT = (b"traceparent", b"tracestate")
_CLOSE_SECONDS = 2.0
# As OpenTelemetry's conventions have it for servers; the others are the client's own fault.
_FAILED_CALLS = frozenset({DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE})

_log = logging.getLogger("keras_blocks.serving")


def tracing_wanted() -> bool:
    """Whether OpenTelemetry's standard variables ask for traces, and this server can send them.

    Raises:
        MissingExtraError: they do, and the packages are missing.
        KerasBlocksError: they ask for another protocol than OTLP over HTTP.
    """
    endpoint = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    for name in _PROTOCOLS:
        protocol = os.environ.get(name, _PROTOCOL)
        if protocol != _PROTOCOL:
            raise KerasBlocksError(
                f"{name} is {protocol[:40]!r}, expected {_PROTOCOL!r}; traces are sent over HTTP"
            )
    what = f"Tracing, which {endpoint} asks for,"
    try:
        import opentelemetry.sdk.trace
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "tracing", "opentelemetry-sdk") from error
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ModuleNotFoundError as error:
        package = "opentelemetry-exporter-otlp-proto-http"
        raise MissingExtraError(what, "tracing", package) from error
    return True


def open_traces(exporter: Any = None) -> tuple[Callable[[RequestRecord], None], Callable[[], None]]:
    """Starts to send traces to where the standard variables say.

    Args:
        exporter: what sends them; over OTLP by default.
    Returns:
        What records a request, and what sends off the last ones and ends.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"process.pid": os.getpid()})
    if str(resource.attributes[_NAME]).startswith(_UNNAMED):
        resource = resource.merge(Resource({_NAME: "keras-blocks"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))

    def close() -> None:
        # The SDK asks a collector that is not there again and again.
        sending = threading.Thread(target=provider.shutdown, daemon=True)
        sending.start()
        sending.join(_CLOSE_SECONDS)
        if sending.is_alive():
            _log.warning("the last traces could not be sent within %g seconds", _CLOSE_SECONDS)

    return Traces(provider), close


class Traces:
    """Makes spans of requests.

    Args:
        provider: of the SDK.
    """

    def __init__(self, provider: Any):
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation import tracecontext

        self._tracer = provider.get_tracer("keras_blocks.serving", keras_blocks.__version__)
        self._propagator = tracecontext.TraceContextTextMapPropagator()
        self._server, self._inside = SpanKind.SERVER, set_span_in_context
        self._failed = Status(StatusCode.ERROR)

    def __call__(self, seen: RequestRecord) -> None:
        """Records a request that was answered."""
        if not seen.infers:
            return
        shift = time.time() - time.monotonic()

        def stamp(moment: float) -> int:
            return int((moment + shift) * 1e9)

        sent = {name.decode(): seen.headers.get(name, b"").decode("latin-1") for name in _PARENT}
        span = self._tracer.start_span(
            "infer",
            context=self._propagator.extract(sent),
            kind=self._server,
            attributes=_attributes(seen),
            start_time=stamp(seen.began),
        )
        seen.trace_id = f"{span.get_span_context().trace_id:032x}"
        if span.is_recording():
            if _failed(seen):
                span.set_status(self._failed)
            for name, began, ended in _parts(seen):
                part = self._tracer.start_span(
                    name, context=self._inside(span), start_time=stamp(began)
                )
                part.end(stamp(ended))
        span.end(stamp(seen.ended))


def _attributes(seen: RequestRecord) -> dict[str, str | int]:
    known: dict[str, str | int] = {
        "model": seen.model,
        "version": seen.version,
        "request.id": seen.id,
        "protocol": seen.protocol,
        "status": seen.status,
    }
    if seen.job is not None:
        known["rows"] = seen.job.rows
        if seen.job.ran is not None:
            known["batch.rows"] = seen.job.ran.rows
    return known


def _failed(seen: RequestRecord) -> bool:
    return seen.status in _FAILED_CALLS if seen.protocol == "grpc" else seen.status >= 500


def _parts(seen: RequestRecord) -> list[tuple[str, float, float]]:
    if seen.job is None or seen.job.ran is None:
        return []
    started, seconds = seen.job.ran.started, seen.job.ran.seconds
    return [("queue", seen.job.arrived, started), ("compute", started, started + seconds)]
