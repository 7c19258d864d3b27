"""Files are written beside their target and take its name only when all went well."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import onnx

from keras_blocks.errors import ExportError


@contextmanager
def folders_for(target: Path) -> Iterator[None]:
    """Makes missing folders, and takes them away again if the context does not end well; a target
    that is a folder itself is refused.
    """
    if target.is_dir():
        raise IsADirectoryError(f"'{target}' is a folder; give the name of a file")
    missing = [folder for folder in target.parents if not folder.exists()]
    # Before the work, so that a folder that cannot be written to does not cost it.
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # it is somebody else's by now
                folder.rmdir()
        raise


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of a file; the same model always gives the same."""
    try:
        return model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf's own type differs between its versions
        raise ExportError(f"the ONNX file would be larger than protobuf's 2 GB: {error}") from error


@contextmanager
def beside(target: Path, content: bytes) -> Iterator[Path]:
    """Writes the content beside the target, and puts it in place if the context ends well."""
    written = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        written.write_bytes(content)
        yield written
        os.replace(written, target)
    finally:
        written.unlink(missing_ok=True)
