"""Fourier transforms become ONNX's DFT, of any length, both ways and along several axes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, function_model, images

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


SIGNAL = images(2, LENGTH)
GRID = images(2, 8, 6)


def as_complex(x):
    return tf.complex(x, 0.5 * x)


def test_transforms_and_their_inverses_are_those_of_numpy(tmp_path):
    def every(x):
        z = as_complex(x)
        forward, back = tf.signal.fft(z), tf.signal.ifft(z)
        plane, plane_back = tf.signal.fft2d(z), tf.signal.ifft2d(z)
        half = tf.signal.rfft2d(x)
        parts = (forward, back, plane, plane_back, half)
        again = tf.signal.irfft2d(half), tf.signal.irfft(tf.signal.rfft(x), [5])
        return [part for z in parts for part in (tf.math.real(z), tf.math.imag(z))] + [*again]

    got = Exported(function_model(every, (8, 6)), tmp_path / "m.onnx").run(GRID)
    x = GRID.numpy()
    z = x + 0.5j * x
    transforms = (np.fft.fft, np.fft.ifft, np.fft.fft2, np.fft.ifft2)
    expected = [transform(z) for transform in transforms] + [np.fft.rfft2(x)]
    flat = [part for values in expected for part in (values.real, values.imag)]
    flat += [x, np.fft.irfft(np.fft.rfft(x), 5)]
    for have, want in zip(got, flat, strict=True):
        np.testing.assert_allclose(have, want, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_signal_of_free_length_comes_back_from_its_short_time_transform(tmp_path):
    def there_and_back(x):
        frames = tf.signal.stft(x, 16, 4)
        return tf.signal.inverse_stft(frames, 16, 4, window_fn=tf.signal.inverse_stft_window_fn(4))

    model = function_model(there_and_back, (None,))
    exported = Exported(model, tmp_path / "m.onnx")
    for length in (40, 64):
        x = images(2, length)
        (got,) = exported.run(x)
        np.testing.assert_allclose(got[:, 12:-12], x[:, 12:-12], atol=TOLERANCE)


def test_a_transform_whose_length_is_no_power_of_two_keeps_its_digits(tmp_path):
    x = images(4, 331)
    (got,) = Exported(
        function_model(lambda x: tf.math.real(tf.signal.rfft(x)), (331,)), tmp_path / "m.onnx"
    ).run(x)
    expected = np.fft.rfft(x.numpy().astype("float64")).real
    assert np.abs(got - expected).max() < 3e-6 * np.abs(expected).max()


def test_complex_outputs_are_refused(tmp_path):
    model = function_model(tf.signal.rfft, (LENGTH,))
    with pytest.raises(ExportError, match=r"complex|real"):
        export_onnx(model, tmp_path / "m.onnx")


def test_an_opset_without_the_transform_is_refused_with_one_that_has_it(tmp_path):
    with pytest.raises(ExportError, match="opset_version=17"):
        export_onnx(model_of(Spectrum(tf.abs)), tmp_path / "m.onnx", opset_version=16)
