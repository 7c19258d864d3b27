"""The way into a server: one process that answers, or a parent of several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# What a server needs beyond a model, so that one that is missing shows here.
import google.protobuf  # noqa: F401
import hpack  # noqa: F401
import httptools  # noqa: F401
import orjson  # noqa: F401

from keras_blocks.serving.auth import tls_context
from keras_blocks.serving.process.config import ServerOptions
from keras_blocks.serving.repository.folders import check_repository
from keras_blocks.serving.telemetry.tracing import tracing_wanted


def serve(directory: str | os.PathLike[str], **options: Any) -> None:
    """Serves a folder of models until SIGTERM or SIGINT; what is in flight is finished first.

    Args:
        directory: str or path of the folder that holds `<name>/<version>/model.onnx`.
        options: the fields of `ServerOptions`.
    Raises:
        ModelLoadError: nothing can be served from the folder.
        MissingExtraError: traces are asked for, and the packages for them are missing.
        KerasBlocksError: the certificate and its key do not belong together.
        OSError: the address cannot be listened on.
    """
    given = ServerOptions(Path(directory), **options)
    given.start_logging()
    # What is wrong with these shows before a port is taken and the models load.
    check_repository(given.directory)
    tracing_wanted()
    if given.certificate is not None:
        tls_context(*given.certificate, "http/1.1", given.client_ca)
    # The parent of several workers loads no model, and so no onnxruntime either.
    if given.workers == 1:
        from keras_blocks.serving.process.server import serve_alone

        serve_alone(given)
    else:
        from keras_blocks.serving.process.supervisor import serve_together

        serve_together(given)
