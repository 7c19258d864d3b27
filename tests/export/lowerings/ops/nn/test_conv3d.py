"""Convolutions of volumes."""

import keras
import pytest
from onnx_runs import Exported, images, random_weights


@pytest.mark.parametrize("sizes", [(None, None, None), (5, 5, 5)], ids=["free", "fixed"])
def test_a_volume_is_convolved_in_groups(sizes, tmp_path):
    x = keras.Input((*sizes, 4), name="x")
    layer = keras.layers.Conv3D(6, 2, strides=2, padding="same", groups=2)
    exported = Exported(random_weights(keras.Model(x, layer(x))), tmp_path / "m.onnx")
    assert exported.ops["Conv"] == 1
    exported.check(images(2, 5, 5, 5, 4))
