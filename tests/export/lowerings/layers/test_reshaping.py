"""Rows of known sizes are reshaped by constants, and any others by Keras's own way."""

import keras
import pytest
from onnx_runs import Exported, images

layers = keras.layers

KNOWN = {
    "flatten": (layers.Flatten(), (3, 4, 2)),
    "flatten_numbers": (layers.Flatten(), ()),
    "reshape": (layers.Reshape((2, 12)), (3, 4, 2)),
    "reshape_the_rest": (layers.Reshape((4, -1, 3)), (3, 4, 2)),
}


@pytest.mark.parametrize(("layer", "shape"), KNOWN.values(), ids=KNOWN)
def test_rows_of_known_sizes_are_one_op(layer, shape, tmp_path):
    x = keras.Input(shape, name="x")
    exported = Exported(keras.Model(x, layer(x)), tmp_path / "m.onnx")
    assert exported.ops == {"Reshape": 1}
    for batch in (1, 5, 0):
        exported.check(images(batch, *shape))


FREE = {
    "flatten": (layers.Flatten(), (None, 4)),
    "flatten_channels_first": (layers.Flatten("channels_first"), (2, 3, 4)),
    "reshape": (layers.Reshape((-1, 2)), (None, 4)),
}


@pytest.mark.parametrize(("layer", "shape"), FREE.values(), ids=FREE)
def test_other_rows_are_reshaped_as_keras_does(layer, shape, tmp_path):
    x = keras.Input(shape, name="x")
    exported = Exported(keras.Model(x, layer(x)), tmp_path / "m.onnx")
    for batch in (1, 5):
        exported.check(images(batch, *[6 if size is None else size for size in shape]))
