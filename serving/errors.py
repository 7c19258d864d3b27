"""What can go wrong with a request, as exceptions."""

from __future__ import annotations

from collections.abc import Mapping

from keras_blocks.errors import KerasBlocksError


class AccessError(KerasBlocksError):
    """A request without a key, or with a wrong one."""


class ClosedError(KerasBlocksError):
    """A request that would change the server, where it may not be changed."""


class ModelNotFoundError(KerasBlocksError, LookupError):
    """A model or version was asked for that is not loaded."""


class OverloadedError(KerasBlocksError):
    """The queue is full."""


class DeadlineError(KerasBlocksError):
    """A request was not answered within its time."""


class StoppingError(KerasBlocksError):
    """The model takes no more requests."""


class ServerError(KerasBlocksError):
    """The server refused a request; the message is the server's.

    Args:
        status: the HTTP status.
        message: what the server said.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class RequestError(Exception):
    """A request that cannot be taken, whatever it asks for.

    Args:
        status: the HTTP status.
        message: what came and what was expected.
        headers: further headers of the answer.
        closes: whether the connection cannot go on.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ):
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.closes = closes


class LoadingError(KerasBlocksError):
    """The models of the start are still being loaded."""
