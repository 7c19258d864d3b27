"""A client of this server, and of any other that speaks the Open Inference Protocol over HTTP."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import os
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.feeds import flat_inputs
from keras_blocks.contract.validation import check_names
from keras_blocks.serving.client.codec import (
    contract_of_metadata,
    error_message,
    infer_outputs,
    infer_request,
    understood,
)
from keras_blocks.serving.errors import ServerError
from keras_blocks.serving.protocol.names import HEADER_LENGTH, JSON, OCTETS, model_path

_OVERLOADED = frozenset({429, 503})
_LONGEST_WAIT = 10.0
_MODEL_URL = re.compile(r"(https?://.+)/v2/models/([^/?#]+)(?:/versions/(\d+))?(?:/infer)?/?")


class Client:
    """Asks a server, from any number of threads, and on after `os.fork`. It can be pickled.

    Args:
        url: str, where the server is: "http://localhost:8080".
        timeout: float, seconds to wait for the next piece of an answer.
        retries: int, how often to ask again where the server has too much to do; nothing else is
            tried again.
        api_key: str, where the server wants one.
        headers: further headers of every request.
        tls: what to trust of an https server; what the system trusts by default.
    Example:
        client = Client("http://localhost:8080")
        client.infer("trees", {"tokens": [[4, 7, 7], [9]], "parents": [[-1, 0, 0], [-1]]})
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ):
        parts = urlsplit(url if "//" in url else f"//{url}", "http")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url is {url!r}, expected one like http://localhost:8080")
        self._connect: Callable[[], http.client.HTTPConnection] = functools.partial(
            http.client.HTTPConnection, parts.netloc, timeout=timeout
        )
        if parts.scheme == "https":
            self._connect = functools.partial(
                http.client.HTTPSConnection, parts.netloc, timeout=timeout, context=tls
            )
        self._tls = tls
        self._prefix = parts.path.rstrip("/")
        self._retries = retries
        self._access = dict(headers or {})
        if api_key:
            self._access["Authorization"] = f"Bearer {api_key}"
        self._free = _Connections()
        self._contracts: dict[str, Contract] = {}

    def infer(
        self,
        model: str,
        inputs: Any,
        outputs: Sequence[str] | None = None,
        *,
        version: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a model on one batch.

        Args:
            model: str, its name.
            inputs: name -> array or nested list; of a model with one input, that alone. A ragged
                input `x` is a list of rows, or `x` with `x.row_splits`; the parents of trees are
                such an input too.
            outputs: names of the wanted outputs; all by default.
            version: int, the server's latest by default.
        Returns:
            name -> array; a ragged output `y` is `y` and `y.row_splits`.
        Raises:
            ContractError: an input cannot become what the model takes.
            ServerError: what the server refused, with its message.
        """
        path = model_path(model, version)
        contract = self.contract(model, version)
        arrays = flat_inputs(contract, inputs)
        check_names(contract, arrays)
        head, body = infer_request(contract, arrays, outputs)
        try:
            headers, content = self._ask("POST", f"{path}/infer", body, {HEADER_LENGTH: head})
        except ServerError as error:
            if error.status in (400, 404):  # the model may be another one by now
                self._contracts.pop(path, None)
            raise
        wanted = outputs or [tensor.name for tensor in contract.flat_outputs()]
        return infer_outputs(content, headers.get(HEADER_LENGTH), wanted)

    def contract(self, model: str, version: int | None = None) -> Contract:
        """The inputs and outputs of a model, as far as the server tells; asked for once."""
        path = model_path(model, version)
        if path not in self._contracts:
            self._contracts[path] = contract_of_metadata(self._ask("GET", path, b"", {})[1])
        return self._contracts[path]

    def metadata(self, model: str, version: int | None = None) -> dict[str, Any]:
        """What the server says of a model: its inputs, outputs and versions."""
        return self._json("GET", model_path(model, version))

    def ready(self, model: str | None = None, version: int | None = None) -> bool:
        """Whether the server, or one of its models, answers."""
        path = "/v2/health" if model is None else model_path(model, version)
        try:
            answer = self._json("GET", f"{path}/ready", retries=0)
        except (ServerError, OSError):
            return False
        return isinstance(answer, dict) and answer.get("ready") is True

    def index(self) -> list[dict[str, str]]:
        """The models of the server's repository and their states."""
        return self._json("POST", "/v2/repository/index")

    def load(self, model: str) -> None:
        """Has the server load a model again."""
        self._json("POST", f"/v2/repository/models/{quote(model, safe='')}/load")

    def unload(self, model: str) -> None:
        """Has the server take a model out of service."""
        self._json("POST", f"/v2/repository/models/{quote(model, safe='')}/unload")

    def close(self) -> None:
        """Closes the connections; a later call opens new ones."""
        self._free.close()

    def __getstate__(self) -> dict[str, Any]:
        """All but the connections, which belong to this process."""
        if self._tls is not None:
            raise TypeError("a Client with `tls` cannot be pickled; make one in each process")
        return {**self.__dict__, "_free": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _free=_Connections())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _json(self, method: str, path: str, retries: int | None = None) -> Any:
        content = self._ask(method, path, b"", {}, retries)[1]
        with understood(content):
            return json.loads(content)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        retries: int | None = None,
    ) -> tuple[Any, bytes]:
        left = self._retries if retries is None else retries
        for turn in range(left + 1):
            status, answered, content = self._send(method, path, body, headers)
            if status == 200:
                return answered, content
            if status not in _OVERLOADED or turn == left:
                break
            time.sleep(_wait(turn, answered.get("Retry-After")))
        raise ServerError(status, error_message(status, content, answered.get("Location")))

    def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Any, bytes]:
        connection = self._free.take()
        used = connection is not None
        connection = connection or self._connect()
        media = {"Content-Type": OCTETS if headers else JSON}
        try:
            given = {**media, **self._access, **headers}
            connection.request(method, self._prefix + path, body or None, given)
            answer = connection.getresponse()
            content = answer.read()
        except ConnectionRefusedError as error:
            where = f"{connection.host}:{connection.port}"
            message = f"no server answers at {where}; start it with `keras-blocks serve`"
            raise ConnectionRefusedError(error.errno, message) from None
        except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
            connection.close()
            if not used:
                raise
            # The server may have closed an idle connection just now; a new one tells.
            self.close()
            return self._send(method, path, body, headers)
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(f"what came is no whole answer of HTTP: {error!r}") from error
        except BaseException:
            connection.close()
            raise
        if not answer.will_close:
            self._free.give_back(connection)
        return answer.status, answer.headers, content


class _Connections:
    """Those that no call uses now. After `os.fork` both processes hold the same sockets, and would
    read one another's answers: only the process that opened them goes on with them.
    """

    def __init__(self) -> None:
        self._free: deque[http.client.HTTPConnection] = deque()
        self._process = os.getpid()

    def take(self) -> http.client.HTTPConnection | None:
        """One of them, or None."""
        self._leave_to_parent()
        try:
            return self._free.pop()
        except IndexError:
            return None

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keeps one for the next call."""
        self._leave_to_parent()
        self._free.append(connection)

    def close(self) -> None:
        """Closes them."""
        while (connection := self.take()) is not None:
            connection.close()

    def _leave_to_parent(self) -> None:
        if self._process != os.getpid():
            # Closing them here closes this process's copies alone, and tells the server nothing.
            self._free, self._process = deque(), os.getpid()


class AsyncClient:
    """The same for asyncio: each call waits in a thread of the client's own.

    Args:
        url: str, where the server is.
        connections: int, how many calls may wait for the server at once.
        kwargs: those of `Client`.
    """

    def __init__(self, url: str, *, connections: int = 64, **kwargs: Any):
        self._client = Client(url, **kwargs)
        self._connections = connections
        self._start()

    def _start(self) -> None:
        self._threads = ThreadPoolExecutor(self._connections, "client")
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"_client": self._client, "_connections": self._connections}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    async def infer(
        self,
        model: str,
        inputs: Any,
        outputs: Sequence[str] | None = None,
        *,
        version: int | None = None,
    ) -> dict[str, np.ndarray]:
        """See `Client.infer`."""
        return await self._call(self._client.infer, model, inputs, outputs, version=version)

    async def metadata(self, model: str, version: int | None = None) -> dict[str, Any]:
        """See `Client.metadata`."""
        return await self._call(self._client.metadata, model, version)

    async def ready(self, model: str | None = None, version: int | None = None) -> bool:
        """See `Client.ready`."""
        return await self._call(self._client.ready, model, version)

    async def index(self) -> list[dict[str, str]]:
        """See `Client.index`."""
        return await self._call(self._client.index)

    async def load(self, model: str) -> None:
        """See `Client.load`."""
        await self._call(self._client.load, model)

    async def unload(self, model: str) -> None:
        """See `Client.unload`."""
        await self._call(self._client.unload, model)

    async def close(self) -> None:
        """Closes the connections; calls that wait are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._process != os.getpid():  # after `os.fork` there are none of its threads
            self._start()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, functools.partial(function, *args, **kwargs)
        )


def split_model_url(url: str) -> tuple[str, str, int | None]:
    """The server, the model and the version that a url names.

    Raises:
        ValueError: it names no model.

    Example:
        >>> split_model_url("http://localhost:8080/v2/models/trees/versions/3")
        ('http://localhost:8080', 'trees', 3)
    """
    found = _MODEL_URL.fullmatch(url)
    if found is None:
        raise ValueError(
            f"{url!r} names no model, expected one like http://localhost:8080/v2/models/NAME or "
            f"http://localhost:8080/v2/models/NAME/versions/3"
        )
    return found[1], unquote(found[2]), int(found[3]) if found[3] else None


def _wait(turn: int, retry_after: str | None) -> float:
    """Longer each time, and never the same for all clients."""
    least = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    own = 0.1 * 2**turn * random.uniform(0.5, 1.0)
    return min(least + own, _LONGEST_WAIT)
