"""Images are resized at the very places where TensorFlow takes its pixels."""

import keras
import pytest
import tensorflow as tf
from onnx_runs import Exported, function_model, images

from keras_blocks.export import export_onnx

SIZES = [(29, 32), (38, 24), (22, 9), (11, 7), (5, 1)]
# Between two neighbours far apart a place that is off by its last digit shows.
EXACT = 1e-6


def resized(x, size, **options):
    return keras.ops.image.resize(x, (size, size), **options)


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_a_resize_is_that_of_keras_to_the_last_digits(old, new, free, tmp_path):
    def every(x):
        return [resized(x, new), resized(x, new, interpolation="nearest")]

    shape = (None, None, 3) if free else (old, old, 3)
    exported = Exported(function_model(every, shape), tmp_path / "m.onnx")
    exported.check(images(2, old, old, 3), EXACT)


def test_about_corners_and_by_area_too(tmp_path):
    def every(x):
        resize = tf.compat.v1.image.resize
        return [
            resize(x, (7, 5), align_corners=True),
            resize(x, (7, 5), method="nearest", align_corners=True),
            resize(x, (7, 5)),
            tf.image.resize(x, (8, 5), method="area"),
        ]

    Exported(function_model(every, (16, 12, 3)), tmp_path / "m.onnx").check(images(2, 16, 12, 3))


def test_ratios_without_rounding_are_left_to_the_runtime(tmp_path):
    model = function_model(lambda x: [resized(x, 16), resized(x, 4)], (8, 8, 3))
    exported = Exported(model, tmp_path / "m.onnx")
    assert exported.ops["Resize"] == 2
    exported.check(images(2, 8, 8, 3), EXACT)


@pytest.mark.parametrize("shape", [(5, 4, 3), (None, None, 3)], ids=["fixed", "free"])
def test_up_sampling_by_two_is_one_resize(shape, tmp_path):
    layer = keras.layers.UpSampling2D((2, 4), interpolation="bilinear")
    exported = Exported(keras.Sequential([keras.Input(shape), layer]), tmp_path / "m.onnx")
    assert exported.ops["Resize"] == 1
    exported.check(images(2, 5, 4, 3), EXACT)


@pytest.mark.parametrize("size", [(5, 9), (12, 5)])
def test_an_image_too_small_for_its_crop_keeps_its_proportions(size, tmp_path):
    model = keras.Sequential([keras.Input((*size, 3)), keras.layers.CenterCrop(8, 6)])
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast", verbose=False).parity.ok
