"""What a file makes of NaN and infinities, beside what Keras makes of them.

onnxruntime passes some of them over: its maxima leave NaN out where TensorFlow gives NaN. A file is
not wrong for it on any number, so the difference is told and fails no proof.
"""

from __future__ import annotations

import numpy as np

from keras_blocks.export.results.comparison import is_floating
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

_VALUES = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf}
_ONE_IN = 8  # so many elements


def run_not_numbers(proof: VerificationRun, onnx: OnnxRunner) -> None:
    """Puts them into some places of all inputs of floats, and tells which outputs differ.

    Args:
        proof: has outcomes to go on from; `proof.not_numbers` gets a line for each difference.
        onnx: the file.
    """
    known = proof.first[-1]
    feed = known.sample.feed
    floats = [name for name, value in feed.items() if is_floating(value.dtype) and value.size]
    if not floats or known.got is None:
        return
    for said, number in _VALUES.items():
        generator = np.random.default_rng(0)
        other = dict(feed)
        for name in floats:
            places = generator.integers(0, _ONE_IN, feed[name].shape) == 0
            places.flat[generator.integers(feed[name].size)] = True
            other[name] = np.where(places, number, feed[name]).astype(feed[name].dtype)
        line = _difference(proof, onnx, other)
        if line is not None:
            proof.not_numbers.append(f"{said} inputs differ: {line}")


def _difference(
    proof: VerificationRun, onnx: OnnxRunner, feed: dict[str, np.ndarray]
) -> str | None:
    """The first output that is another kind of number in the file than in Keras, in words."""
    said = None
    # As a graph Keras fuses operations, and may lose NaN; the file is to be as it is either way.
    for eager in (False, True):
        try:
            expected = proof.keras.run(feed, eager)
        except SampleRejectedError:
            return None
        try:
            said = _other(proof, onnx.run(feed), expected)
        except SampleRejectedError as error:
            return f"onnxruntime fails where Keras does not: {error}"
        if said is None:
            return None
    return said


def _other(
    proof: VerificationRun, found: dict[str, np.ndarray], expected: list[np.ndarray]
) -> str | None:
    for tensor, want in zip(proof.outputs, expected, strict=True):
        got = found[tensor.name]
        if got.shape != want.shape:
            return (
                f"output '{tensor.name}' has shape {list(got.shape)}, in Keras {list(want.shape)}"
            )
        wrong = _kinds(got) != _kinds(want) if is_floating(want.dtype) else got != want
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            return (
                f"output '{tensor.name}' is {got[place]:.4g} at {list(place)} where Keras gives "
                f"{want[place]:.4g}"
            )
    return None


def _kinds(values: np.ndarray) -> np.ndarray:
    """0 for numbers, 1 and -1 for the infinities, 2 for NaN."""
    wide = values.astype("float64")
    signs = np.where(np.isinf(wide), np.sign(wide), 0)
    return np.where(np.isnan(wide), 2, signs)
