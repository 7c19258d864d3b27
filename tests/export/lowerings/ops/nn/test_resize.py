"""Images are resized by every kernel, at sizes that are known or not."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, images

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

KERNELS = [
    ("bicubic", False),
    ("bicubic", True),
    ("lanczos3", False),
    ("lanczos3", True),
    ("lanczos5", True),
    ("bilinear", True),
]


@pytest.mark.parametrize(("interpolation", "antialias"), KERNELS)
@pytest.mark.parametrize("size", [(5, 7), (13, 20)])
def test_a_resize_is_the_same_through_its_file(interpolation, antialias, size, tmp_path):
    x = keras.Input((None, None, 3), name="x")
    y = keras.ops.image.resize(x, size, interpolation=interpolation, antialias=antialias)
    exported = Exported(keras.Model(x, y), tmp_path / "m.onnx")
    for shape in ((1, 8, 9, 3), (2, 17, 6, 3), (2, 1, 1, 3)):
        exported.check(images(*shape))


def test_the_weights_are_those_of_the_kernel(tmp_path):
    """A plain loop over one axis, by the formula of Lanczos with three lobes."""
    x = keras.Input((10, 1, 1), name="x")
    y = keras.ops.image.resize(x, (4, 1), interpolation="lanczos3", antialias=True)
    column = images(1, 10, 1, 1).numpy()
    (got,) = Exported(keras.Model(x, y), tmp_path / "m.onnx").run(column)
    wider = 10 / 4
    for o in range(4):
        distances = np.abs(np.arange(10) + 0.5 - (o + 0.5) * wider) / wider
        weights = np.sinc(distances) * np.sinc(distances / 3) * (distances < 3)
        expected = (weights * column[0, :, 0, 0]).sum() / weights.sum()
        np.testing.assert_allclose(got[0, o, 0, 0], expected, rtol=1e-5)


def test_bytes_are_resized_to_floats_as_the_layer_says(tmp_path):
    # Run eagerly, Keras rounds them to bytes again; `predict` and the declared type do not.
    x = keras.Input((12, 10, 3), dtype="uint8", name="x")
    layer = keras.layers.Resizing(6, 6, interpolation="bicubic", antialias=True)
    model = keras.Model(x, keras.layers.Rescaling(1 / 255)(layer(x)))
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast").parity.ok
    exported = Exported(model, tmp_path / "again.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 10, 3)).astype("uint8")
    (got,) = exported.run(pixels)
    np.testing.assert_allclose(got, model.predict(pixels, verbose=0), atol=2e-6)


def test_a_resize_that_moves_the_image_too_is_refused_by_name(tmp_path):
    def moved(z):
        return tf.raw_ops.ScaleAndTranslate(
            images=z, size=[4, 4], scale=[1.0, 1.0], translation=[1.0, 0.0], kernel_type="lanczos3"
        )

    x = keras.Input((4, 4, 3), name="x")
    model = keras.Model(x, keras.layers.Lambda(moved, output_shape=(4, 4, 3))(x))
    with pytest.raises(ExportError, match="without a translation"):
        export_onnx(model, tmp_path / "m.onnx")
