"""Models and files that version 0.1.0 wrote, before its modules moved, load and answer the same."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_blocks.serving import Model

FOLDER = Path(__file__).parent / "data" / "version_0_1_0"
NAMES = ("image", "sequence", "trees")


def stored(name):
    """The flat inputs that the older version was given, and what its file answered."""
    arrays = np.load(FOLDER / f"{name}.npz")
    return (
        {key[len(side) :]: arrays[key] for key in arrays.files if key.startswith(side)}
        for side in ("in ", "out ")
    )


def as_keras_takes_them(flat):
    ragged = {key.removesuffix(".row_splits") for key in flat if key.endswith(".row_splits")}
    inputs = {
        name: tf.RaggedTensor.from_row_splits(flat[name], flat[f"{name}.row_splits"])
        if name in ragged
        else flat[name]
        for name in flat
        if not name.endswith(".row_splits")
    }
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))


def as_flat(outputs, names):
    for name, value in zip(names, keras.tree.flatten(outputs), strict=True):
        yield name, value.values if isinstance(value, tf.RaggedTensor) else value


@pytest.mark.parametrize("name", NAMES)
def test_an_older_onnx_file_is_served_with_the_same_answers(name):
    inputs, answers = stored(name)
    found = Model.load(FOLDER / f"{name}.onnx").predict(inputs)
    assert set(found) == set(answers)
    for key, value in answers.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_older_keras_file_loads_and_equals_its_onnx_file(name):
    inputs, answers = stored(name)
    model = keras.saving.load_model(FOLDER / f"{name}.keras", compile=False)
    outputs = model(as_keras_takes_them(inputs))
    names = sorted(key for key in answers if not key.endswith(".row_splits"))
    for key, value in as_flat(outputs, names):
        np.testing.assert_allclose(value, answers[key], rtol=1e-4, atol=1e-5)
