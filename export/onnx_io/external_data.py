"""Weights in a file of their own beside the graph, which ONNX calls external data.

One protobuf message holds 2 GB, and a TensorFlow graph is such a message too. So the large weights
of a model beyond that enter neither: while it is traced they are inputs of the graph, afterwards
initializers that name a place in `model.onnx.data`, and only when that file is written are their
values read from where Keras keeps them.
"""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx.helper

from keras_blocks.export.onnx_io.atomic_write import serialized
from keras_blocks.export.onnx_io.graphs import copied, set_all
from keras_blocks.runtime.external_data import data_files

Apart = dict[str, np.ndarray]
"""The values of weights that no message holds, by the location that their initializers give."""

_SMALLEST_OUTSIDE = 1024  # bytes; onnxruntime wants to see the smaller ones in the graph
_PAGE = 4096  # bytes; onnxruntime maps what begins on a page into memory instead of reading it


def attach(graph: onnx.GraphProto, apart: Apart) -> None:
    """Makes initializers without values of the tensors that are weights."""
    graph.initializer.extend(_reference(name, value) for name, value in apart.items())
    set_all(graph.input, [copied(value) for value in graph.input if value.name not in apart])


def _is_outside(weight: onnx.TensorProto) -> bool:
    """Whether the values of an initializer are not in the graph."""
    return weight.data_location == onnx.TensorProto.EXTERNAL


def graph_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model as the checks of ONNX take it: the weights that are outside are inputs."""
    outside = [weight for weight in model.graph.initializer if _is_outside(weight)]
    if not outside:
        return model
    alone = copied(model)
    inside = [copied(weight) for weight in alone.graph.initializer if not _is_outside(weight)]
    set_all(alone.graph.initializer, inside)
    alone.graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        for weight in outside
    )
    return alone


def data_file(target: Path) -> Path:
    """The file with the weights of the model at `target`."""
    return target.with_name(f"{target.name}.data")


@contextmanager
def pair_beside(target: Path, model: onnx.ModelProto, apart: Apart) -> Iterator[Path]:
    """Writes a model and its weights into a folder beside the target, and puts both in place if
    the context ends well. The weights leave the model; where all are small there is no such file.
    """
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    folder.mkdir()
    written = folder / target.name
    try:
        with data_file(written).open("wb") as file:
            _move_out(model, file, data_file(target).name, apart)
        written.write_bytes(serialized(model))
        if not data_file(written).stat().st_size:
            data_file(written).unlink()
        yield written
        if data_file(written).exists():
            if data_file(target).exists():
                # Rather none than one with the weights of another.
                target.unlink(missing_ok=True)
            os.replace(data_file(written), data_file(target))
        os.replace(written, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def without_older_data(target: Path) -> Iterator[None]:
    """Removes the weights of the model that was at the target, once one without stands there."""
    was_pair = _is_pair(target)
    yield
    if was_pair and not _is_pair(target):
        data_file(target).unlink(missing_ok=True)


def _move_out(model: onnx.ModelProto, file: BinaryIO, location: str, apart: Apart) -> None:
    for weight in model.graph.initializer:
        large = _is_outside(weight)
        size = apart[_location(weight)].nbytes if large else len(weight.raw_data)
        if size < _SMALLEST_OUTSIDE and not large:
            continue
        file.seek(math.ceil(file.tell() / _PAGE) * _PAGE)
        place: dict[str, str | int] = {"location": location, "offset": file.tell(), "length": size}
        if large:
            file.write(np.ascontiguousarray(apart[_location(weight)]).data.cast("B"))
        else:
            file.write(weight.raw_data)
            weight.ClearField("raw_data")
        _set_place(weight, place)


def _reference(name: str, value: np.ndarray) -> onnx.TensorProto:
    weight = onnx.TensorProto(name=name, dims=value.shape)
    weight.data_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    _set_place(weight, {"location": name})
    return weight


def _set_place(weight: onnx.TensorProto, place: dict[str, str | int]) -> None:
    weight.data_location = onnx.TensorProto.EXTERNAL
    del weight.external_data[:]
    for key, value in place.items():
        weight.external_data.add(key=key, value=str(value))


def _location(weight: onnx.TensorProto) -> str:
    return next(entry.value for entry in weight.external_data if entry.key == "location")


def _is_pair(target: Path) -> bool:
    return data_file(target).name in data_files(target)
