"""The server's log lines, for people or for machines; and the line of each request."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any

from keras_blocks.serving.telemetry.request_record import RequestRecord

LOGGER = "keras_blocks.serving"
FORMATS = ("text", "json")
_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)

# By both protocols.
_PROBES = frozenset(
    {
        *(f"GET {path}" for path in ("/v2/health/live", "/v2/health/ready", "/metrics")),
        "/grpc.health.v1.Health/Check",
        *(f"/inference.GRPCInferenceService/{name}" for name in ("ServerLive", "ServerReady")),
    }
)
_FINE = frozenset({0, 200})

_log = logging.getLogger(LOGGER)
_access = logging.getLogger(f"{LOGGER}.access")


def start_logging(style: str) -> None:
    """Sends the log of this process to stderr, whichever library writes it.

    Args:
        style: one of `FORMATS`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(LOGGER).setLevel(logging.INFO)
    logging.captureWarnings(True)


def fields(**values: Any) -> dict[str, Any]:
    """What a log line says besides its message, for `extra`; what is not known is left out."""
    return {"fields": {name: value for name, value in values.items() if value not in (None, "")}}


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Time, level, logger and message, then name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, and its traceback where there is one."""
        shown = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{shown}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def log_request(seen: RequestRecord) -> None:
    """The line of the access log; who asks whether all is well has none, if it is."""
    if seen.call in _PROBES and seen.status in _FINE:
        return
    job = seen.job
    ran = None if job is None else job.ran
    _access.info(
        "request",
        extra=fields(
            request_id=seen.id,
            trace_id=seen.trace_id,
            protocol=seen.protocol,
            call=seen.call,
            model=seen.model,
            version=seen.version,
            status=seen.status,
            rows=None if job is None else job.rows,
            batch_rows=None if ran is None else ran.rows,
            queue_ms=None if job is None or ran is None else _ms(ran.started - job.arrived),
            compute_ms=None if ran is None else _ms(ran.seconds),
            total_ms=_ms(seen.ended - seen.began),
        ),
    )


def log_start(repository: Any, url: str, grpc: str | None) -> None:
    """The server takes requests: what it serves, where, and what could not be loaded."""
    for problem in repository.problems:
        _log.error("not loaded: %s", problem)
    models = [f"{model.name}/{model.version}" for model in repository.all_models()]
    _log.info("serving", extra=fields(url=url, grpc=grpc, models=models))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


def _shown(value: Any) -> str:
    # A client chooses its request's id: it must not be able to write lines of its own.
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
