"""Layers of images that ask for sizes in Python, or draw what they do not use."""

import keras
import numpy as np
import pytest
from onnx_runs import Exported, images

from keras_blocks.export import export_onnx

layers = keras.layers


def model_of(layer, shape=(None, None, 3)):
    x = keras.Input(shape, name="x")
    return keras.Model(x, layer(x))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_an_image_of_any_size_is_enlarged(interpolation, data_format, tmp_path):
    layer = layers.UpSampling2D((2, 3), data_format, interpolation)
    shape = (3, None, None) if data_format == "channels_first" else (None, None, 3)
    exported = Exported(model_of(layer, shape), tmp_path / "m.onnx")
    for size in (1, 4, 7):
        exported.check(images(2, *[n or size for n in shape]))


def test_a_model_that_keras_traces_at_no_free_size_is_proven_op_by_op(tmp_path):
    model = model_of(layers.UpSampling2D(2, interpolation="bilinear"))
    result = export_onnx(model, tmp_path / "m.onnx", verbose=False)
    assert result.parity.ok


def test_a_random_crop_crops_nothing_in_inference(tmp_path):
    exported = Exported(model_of(layers.RandomCrop(4, 5)), tmp_path / "m.onnx")
    assert exported.ops == {"Identity": 1}
    exported.check(images(2, 7, 6, 3))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_an_image_that_is_too_small_to_be_cropped_is_resized(data_format, tmp_path):
    layer = layers.CenterCrop(6, 4, data_format)
    shape = (3, None, None) if data_format == "channels_first" else (None, None, 3)
    exported = Exported(model_of(layer, shape), tmp_path / "m.onnx")
    for height, width in [(6, 4), (9, 8), (7, 4), (3, 9), (9, 3), (2, 2), (1, 1)]:
        sizes = iter((height, width))
        exported.check(images(2, *[n or next(sizes) for n in shape]))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("settings", [{}, {"clip_limit": 0, "value_range": (0, 1)}], ids=str)
def test_images_of_any_size_have_their_histograms_equalized(settings, data_format, tmp_path):
    layer = layers.ContrastLimitedAdaptiveHistogramEqualization(
        tile_grid_size=(3, 2), data_format=data_format, **settings
    )
    shape = (3, None, None) if data_format == "channels_first" else (None, None, 3)
    exported = Exported(model_of(layer, shape), tmp_path / "m.onnx")
    generator = np.random.default_rng(0)
    highest = layer.value_range[1]
    for height, width in [(6, 4), (7, 9), (3, 2), (20, 5), (2, 2)]:
        sizes = iter((height, width))
        values = generator.uniform(0, highest, (2, *[n or next(sizes) for n in shape]))
        # Each pixel is a whole value in a table, whichever way it is rounded on the way there.
        values = (np.floor(values / highest * 255) + 0.5) / 255 * highest
        exported.check(values.astype("float32"), tolerance=1e-5 * highest)


@pytest.mark.parametrize(
    "layer",
    [
        layers.RandomHue(0.5, (0, 1)),
        layers.RandomSaturation(0.5, (0, 1)),
        layers.RandomSharpness(0.5, (0, 1)),
        layers.RandomGrayscale(0.5),
        layers.RandomColorDegeneration(0.5),
        layers.MixUp(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_an_augmentation_that_counts_its_draws_is_exported(layer, tmp_path):
    Exported(model_of(layer), tmp_path / "m.onnx").check(images(2, 5, 6, 3))
