"""Pooling whose windows leave gaps, over sizes that only the run knows."""

import keras
import pytest
from onnx_runs import Exported, images

layers = keras.layers

POOLINGS = {
    "average_1d": (layers.AveragePooling1D(2, 5, "same"), 1),
    "average_2d": (layers.AveragePooling2D(2, 3, "same"), 2),
    "average_3d": (layers.AveragePooling3D(1, 2, "same"), 3),
    "max_1d": (layers.MaxPooling1D(2, 5, "same"), 1),
    "max_2d": (layers.MaxPooling2D((3, 1), (2, 4), "same"), 2),
    "max_3d": (layers.MaxPooling3D(2, 3, "same"), 3),
}


@pytest.mark.parametrize(("layer", "rank"), POOLINGS.values(), ids=POOLINGS)
def test_windows_with_gaps_give_the_same_at_every_size(layer, rank, tmp_path):
    x = keras.Input((*[None] * rank, 2), name="x")
    exported = Exported(keras.Model(x, layer(x)), tmp_path / "m.onnx")
    for size in range(1, 12):
        exported.check(images(2, *[size] * rank, 2))


def test_windows_without_gaps_are_one_op(tmp_path):
    x = keras.Input((None, None, 2), name="x")
    model = keras.Model(x, layers.MaxPooling2D(3, 2, "same")(x))
    assert Exported(model, tmp_path / "m.onnx").ops == {"Transpose": 2, "MaxPool": 1}


SHORT = {
    "average_1d": (layers.AveragePooling1D, 1),
    "average_2d": (layers.AveragePooling2D, 2),
    "max_1d": (layers.MaxPooling1D, 1),
    "max_2d": (layers.MaxPooling2D, 2),
    "max_3d": (layers.MaxPooling3D, 3),
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("layer", "rank"), SHORT.values(), ids=SHORT)
def test_an_axis_shorter_than_the_window_gives_no_steps(layer, rank, data_format, tmp_path):
    free = [None] * rank
    x = keras.Input((*free, 2) if data_format == "channels_last" else (2, *free), name="x")
    model = keras.Model(x, layer(3, 2, "valid", data_format)(x))
    exported = Exported(model, tmp_path / "m.onnx")
    for size in (7, 3):
        exported.check(images(2, *[n or size for n in x.shape[1:]]))
    # Keras cannot be asked: under some windows TensorFlow's max pooling ends the process.
    for size in (2, 1):
        shape = [n or size for n in x.shape[1:]]
        (got,) = exported.run(images(2, *shape))
        assert got.shape == (2, *(0 if n is None else n for n in x.shape[1:]))
