"""Patches, crops, projective transforms, colours and fake quantisation of images."""

import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, function_model, images

X = images(2, 8, 6, 3)
COLOURS = tf.sigmoid(X) * 0.8 + 0.1


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_patches_are_the_windows_of_every_place(padding, tmp_path):
    def every(x):
        extract = tf.image.extract_patches
        return [
            extract(x, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], padding),
            extract(x, [1, 3, 2, 1], [1, 2, 1, 1], [1, 2, 2, 1], padding),
        ]

    exported = Exported(function_model(every, (None, 6, 3)), tmp_path / "m.onnx")
    exported.check(X, 0)
    exported.check(images(1, 7, 6, 3), 0)


def test_crops_lie_within_and_beyond_the_image(tmp_path):
    boxes = [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.5, 0.6], [-0.5, 0.5, 1.5, 0.1]]

    def every(x):
        crop = tf.image.crop_and_resize
        return [
            crop(x, boxes, [0, 1, 1], (4, 5), extrapolation_value=-2.0),
            crop(x, boxes, [0, 1, 0], (1, 3)),
            crop(x, boxes, [0, 1, 0], (3, 3), method="nearest"),
        ]

    Exported(function_model(every, (8, 6, 3)), tmp_path / "m.onnx").check(X)


@pytest.mark.parametrize("fill", ["CONSTANT", "REFLECT", "WRAP", "NEAREST"])
def test_projective_transforms_fill_what_lies_outside(fill, tmp_path):
    # Far enough out to reflect and to wrap more than once.
    maps = [[1.1, 0.2, -1.3, 0.1, 0.9, 0.7, 0.0, 0.0], [3.0, 0.0, -9.0, 0.4, 2.0, -7.0, 0.01, 0.02]]

    def every(x):
        return [
            tf.raw_ops.ImageProjectiveTransformV3(
                images=x,
                transforms=maps,
                output_shape=[7, 9],
                fill_value=0.25,
                interpolation=interpolation,
                fill_mode=fill,
            )
            for interpolation in ("NEAREST", "BILINEAR")
        ]

    Exported(function_model(every, (8, 6, 3)), tmp_path / "m.onnx").check(X)


def test_colours_go_to_hue_and_back(tmp_path):
    def every(x):
        hsv = tf.image.rgb_to_hsv(x)
        saturated, turned = tf.image.adjust_saturation(x, 1.4), tf.image.adjust_hue(x, 0.3)
        return [hsv, tf.image.hsv_to_rgb(hsv), saturated, turned]

    exported = Exported(function_model(every, (8, 6, 3)), tmp_path / "m.onnx")
    exported.check(COLOURS)
    assert np.allclose(exported.run(COLOURS)[1], COLOURS, atol=1e-6)


@pytest.mark.parametrize("narrow", [False, True])
def test_fake_quantisation_takes_the_same_steps(narrow, tmp_path):
    def every(x):
        options = {"narrow_range": narrow}
        fake = tf.quantization
        return [
            fake.fake_quant_with_min_max_vars(x, -1.5, 1.2, **options),
            fake.fake_quant_with_min_max_args(x, -0.7, 2.0, num_bits=4, **options),
            fake.fake_quant_with_min_max_vars_per_channel(
                x, [-1.0, 0.0, -3.0], [1.0, 2.0, 0.5], **options
            ),
        ]

    Exported(function_model(every, (8, 6, 3)), tmp_path / "m.onnx").check(X)
