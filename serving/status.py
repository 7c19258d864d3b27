"""What an error means to a client, by either protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from keras_blocks.errors import ContractError, ModelLoadError, RunError
from keras_blocks.serving.errors import (
    AccessError,
    ClosedError,
    DeadlineError,
    LoadingError,
    ModelNotFoundError,
    OverloadedError,
    RequestError,
    StoppingError,
)

_Error = TypeVar("_Error", bound=Exception)

_RETRY = {"Retry-After": "1"}

# gRPC's codes.
OK, CANCELLED = 0, 1
INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED = 7, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16


@dataclass(frozen=True)
class ErrorStatus:
    """How a request is refused.

    Args:
        status: the HTTP status.
        code: gRPC's code.
        message: for the client.
        headers: further headers over HTTP.
    """

    status: int
    code: int
    message: str
    headers: Mapping[str, str]


def without_frames(error: _Error) -> _Error:
    """The error without the frames it came through, where it is one of ours and kept for long:
    they hold the request, and what keeps the error.
    """
    if status_of(error).status != 500:
        error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def status_of(error: Exception) -> ErrorStatus:
    """What to answer; anything unexpected is the server's own fault, and says nothing of it."""
    message = str(error)
    match error:
        case RequestError():
            return ErrorStatus(error.status, INVALID_ARGUMENT, message, error.headers)
        case AccessError():
            return ErrorStatus(401, UNAUTHENTICATED, message, {"WWW-Authenticate": "Bearer"})
        case ClosedError():
            return ErrorStatus(403, PERMISSION_DENIED, message, {})
        case ModelNotFoundError():
            return ErrorStatus(404, NOT_FOUND, message, {})
        case OverloadedError():
            return ErrorStatus(429, RESOURCE_EXHAUSTED, message, _RETRY)
        case StoppingError() | LoadingError():
            return ErrorStatus(503, UNAVAILABLE, message, _RETRY)
        case DeadlineError():
            return ErrorStatus(503, DEADLINE_EXCEEDED, message, _RETRY)
        case RunError(out_of_memory=True):
            message = "the inputs need more memory than there is; send fewer rows"
            return ErrorStatus(413, RESOURCE_EXHAUSTED, message, {})
        case RunError():
            # The file loaded, so what fails when run fails because of these inputs.
            message = f"the model cannot run on these inputs: {error}"
            return ErrorStatus(400, INVALID_ARGUMENT, message, {})
        case ContractError() | ModelLoadError():
            return ErrorStatus(400, INVALID_ARGUMENT, message, {})
    return ErrorStatus(500, INTERNAL, "internal error", {})
