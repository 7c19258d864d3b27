"""A report says where inference gives other shapes than a layer declares."""

import keras

from keras_blocks.export import export_onnx

layers = keras.layers


def notes_of(tmp_path, *model_layers):
    model = keras.Sequential([keras.Input((9, 8, 3)), *model_layers])
    return export_onnx(model, tmp_path / "m.onnx", verify="fast", verbose=False).parity.notes


def test_a_random_crop_declares_the_sizes_of_training(tmp_path):
    (note,) = notes_of(tmp_path, layers.RandomCrop(4, 5))
    assert "declared as (None, 4, 5, 3)" in note
    assert "(2, 9, 8, 3)" in note


def test_other_layers_say_what_they_give(tmp_path):
    assert notes_of(tmp_path, layers.CenterCrop(4, 5)) == ()
