"""Fourier transforms become ONNX's DFT."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, images

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

LENGTH = 24
# The transforms add in other orders; magnitudes here go up to twenty.
TOLERANCE = 1e-4


class Spectrum(keras.layers.Layer):
    """What `take` makes of the transform of the last axis."""

    def __init__(self, take, fft_length=None):
        super().__init__()
        self.take = take
        self.fft_length = fft_length

    def call(self, x):
        length = None if self.fft_length is None else [self.fft_length]
        return self.take(tf.signal.rfft(x, length))


def model_of(*layers, shape=(LENGTH,)):
    x = keras.Input(shape, name="x")
    return keras.Model(x, keras.Sequential(list(layers))(x))


PARTS = {"real": tf.math.real, "imaginary": tf.math.imag, "magnitude": tf.abs}


@pytest.mark.parametrize("opset_version", [17, 18])
@pytest.mark.parametrize("fft_length", [None, 16, 40], ids=["whole", "cut", "filled"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_of_a_transform_is_that_of_numpy(part, fft_length, opset_version, tmp_path):
    model = model_of(Spectrum(part, fft_length))
    exported = Exported(model, tmp_path / "m.onnx", opset_version=opset_version)
    assert exported.ops["DFT"] == 1
    x = images(3, LENGTH)
    (got,) = exported.run(x)
    transform = np.fft.rfft(x, fft_length)
    expected = {tf.abs: np.abs, tf.math.real: np.real, tf.math.imag: np.imag}[part](transform)
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_mel_spectrogram_of_any_length_gives_the_same(tmp_path):
    layer = keras.layers.MelSpectrogram(fft_length=64, sequence_stride=16, num_mel_bins=8)
    exported = Exported(model_of(layer, shape=(None,)), tmp_path / "m.onnx")
    for length in (100, 333):
        exported.check(images(2, length), TOLERANCE)


def test_complex_numbers_that_go_elsewhere_are_refused(tmp_path):
    model = model_of(Spectrum(lambda z: tf.math.real(z * z)))
    with pytest.raises(ExportError, match="complex numbers to Mul, and ONNX has none"):
        export_onnx(model, tmp_path / "m.onnx")


def test_an_opset_without_the_transform_is_refused_with_one_that_has_it(tmp_path):
    with pytest.raises(ExportError, match="opset_version=17"):
        export_onnx(model_of(Spectrum(tf.abs)), tmp_path / "m.onnx", opset_version=16)
