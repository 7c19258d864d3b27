"""How a server is run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_blocks.errors import KerasBlocksError
from keras_blocks.serving.auth import OPEN, ApiKeys, ModelControl
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.origins import Origins
from keras_blocks.serving.repository.model_settings import BatchSettings
from keras_blocks.serving.telemetry.logs import FORMATS, start_logging
from keras_blocks.serving.transport.sockets import Listeners, address

_BASE_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)
MODES = ("none", "poll", "explicit")


@dataclass(frozen=True)
class ServerOptions:
    """How a server is run.

    Args:
        directory: the folder that holds `<name>/<version>/model.onnx`.
        host: str, the address to listen on.
        port: int, 0 for any free one.
        grpc_port: int, 0 for any free one, None for no gRPC.
        limits: what one request may ask for.
        batching: how requests wait and share runs.
        threads: int, the threads that one run may use; by default onnxruntime decides, or the
            cores are divided among several workers.
        watch_seconds: float, how often the folder is looked at for new and changed models; 0 for
            never.
        keys: who may ask; all may by default.
        certificate: the files of a certificate and of its private key, for TLS by both protocols.
        on_start: called when the server takes requests, with the repository, the url, and where
            gRPC is, as host:port. With several workers one of them calls it: it must be a function
            of a module.
        workers: int, how many processes answer.
        model_control_mode: Triton's names. "none": what was loaded at the start is served; "poll":
            the folder is watched; "explicit": requests load and unload, and only `load_models` are
            loaded at the start. None: the folder is watched, and requests load and unload.
        load_models: the models that "explicit" loads at the start; "*" for all.
        admin_host: str, the address of `admin_port`.
        admin_port: int, the only port where requests load and unload, gRPC at the one after it; 0
            for any free ones; None for the same ports as everything else.
        exit_timeout_seconds: float, how long requests in flight may take after SIGTERM.
        log_format: "text" or "json", how this process and its workers log to stderr; None leaves
            Python's logging as it is.
        access_log: bool, whether each request is a line of the log.
        cors_origins: the origins whose web pages may ask, as "https://example.com"; "*" for all.
        allow_links: bool, whether models may be links out of the folder.
        drain_seconds: float, how long requests are taken after SIGTERM, while the server tells that
            it is not ready.
        client_ca: the file of the authorities whose certificates clients must show, or None.
        base_path: str, what stands before each path over HTTP, as "/models"; paths without it are
            answered too.
    """

    directory: Path
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    limits: Limits | None = None
    batching: BatchSettings | None = None
    threads: int | None = None
    watch_seconds: float = 5.0
    keys: ApiKeys | None = None
    certificate: tuple[Path, Path] | None = None
    on_start: Callable[[Any, str, str | None], None] | None = None
    workers: int = 1
    model_control_mode: str | None = None
    load_models: tuple[str, ...] = ()
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    exit_timeout_seconds: float = 30.0
    log_format: str | None = None
    access_log: bool = False
    cors_origins: tuple[str, ...] = ()
    base_path: str = ""
    allow_links: bool = False
    drain_seconds: float = 0.0
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        _ = self.origins  # raises what is wrong with them
        if self.base_path and not _BASE_PATH.fullmatch(self.base_path):
            raise KerasBlocksError(f"base_path is {self.base_path!r}, expected one like /models")
        if self.model_control_mode not in (None, *MODES):
            mode, modes = self.model_control_mode, ", ".join(MODES)
            raise KerasBlocksError(f"model_control_mode is {mode!r}, expected one of {modes}")
        if self.load_models and self.model_control_mode != "explicit":
            raise KerasBlocksError("--load-model needs --model-control-mode explicit")
        if self.admin_port is not None and self.model_control_mode in ("none", "poll"):
            raise KerasBlocksError(
                f"--admin-port has no use with --model-control-mode {self.model_control_mode}, "
                f"which lets nobody load or unload; use explicit, or leave the mode out"
            )
        if self.log_format not in (None, *FORMATS):
            formats = ", ".join(FORMATS)
            raise KerasBlocksError(f"log_format is {self.log_format!r}, expected one of {formats}")
        if self.client_ca is not None and self.certificate is None:
            raise KerasBlocksError("--client-ca needs --certificate")
        if self.workers < 1:
            raise KerasBlocksError(f"workers is {self.workers}, expected at least 1")

    def start_logging(self) -> None:
        """Has this process log as it was asked to."""
        if self.log_format is not None:
            start_logging(self.log_format)

    def announce(self, repository: Any, listeners: Listeners) -> None:
        """Tells that the server takes requests."""
        if self.on_start is not None:
            scheme = "https" if self.certificate else "http"
            url = f"{scheme}://{address(self.host, listeners.http)}"
            grpc = None if listeners.grpc is None else address(self.host, listeners.grpc)
            self.on_start(repository, url, grpc)

    def empty_repository(self) -> Any:
        """What a server starts with before its models are loaded."""
        from keras_blocks.serving.repository.repository import (
            Repository,  # it needs what parents do not load
        )

        return Repository({}, (), self.directory, self.threads, links=self.allow_links)

    @property
    def origins(self) -> Origins:
        """Which web pages of other origins may ask."""
        return Origins(self.cors_origins)

    @property
    def poll_seconds(self) -> float:
        """The seconds between two looks at the folder; 0 for none."""
        return self.watch_seconds if self.model_control_mode in (None, "poll") else 0

    @property
    def control(self) -> ModelControl:
        """Whether the ports that answer everybody load and unload."""
        if self.model_control_mode in ("none", "poll"):
            return ModelControl(
                f"the server runs with --model-control-mode {self.model_control_mode}"
            )
        if self.admin_port is not None:
            return ModelControl("the server has an --admin-port for that")
        return OPEN

    @property
    def only(self) -> dict[str, tuple[int, ...]] | None:
        """The models that are loaded at the start, for `load_repository`."""
        if self.model_control_mode != "explicit" or "*" in self.load_models:
            return None
        return dict.fromkeys(self.load_models, ())
