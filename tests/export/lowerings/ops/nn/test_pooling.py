"""Pooling whose windows leave gaps, over sizes that only the run knows."""

import keras
import pytest
import tensorflow as tf
from onnx_runs import Exported, images

import keras_blocks as kb

layers = keras.layers

POOLINGS = {
    "average_1d": (layers.AveragePooling1D(2, 5, "same"), 1),
    "average_2d": (layers.AveragePooling2D(2, 3, "same"), 2),
    "average_3d": (layers.AveragePooling3D(1, 2, "same"), 3),
    "max_1d": (layers.MaxPooling1D(2, 5, "same"), 1),
    "max_2d": (layers.MaxPooling2D((3, 1), (2, 4), "same"), 2),
    "max_3d": (layers.MaxPooling3D(2, 3, "same"), 3),
}


@pytest.mark.parametrize(("layer", "rank"), POOLINGS.values(), ids=POOLINGS)
def test_windows_with_gaps_give_the_same_at_every_size(layer, rank, tmp_path):
    x = keras.Input((*[None] * rank, 2), name="x")
    exported = Exported(keras.Model(x, layer(x)), tmp_path / "m.onnx")
    for size in range(1, 12):
        exported.check(images(2, *[size] * rank, 2))


def test_windows_without_gaps_are_one_op(tmp_path):
    x = keras.Input((None, None, 2), name="x")
    model = keras.Model(x, layers.MaxPooling2D(3, 2, "same")(x))
    assert Exported(model, tmp_path / "m.onnx").ops == {"Transpose": 2, "MaxPool": 1}


SHORT = {
    "average_1d": (layers.AveragePooling1D, 1),
    "average_2d": (layers.AveragePooling2D, 2),
    "max_1d": (layers.MaxPooling1D, 1),
    "max_2d": (layers.MaxPooling2D, 2),
    "max_3d": (layers.MaxPooling3D, 3),
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("layer", "rank"), SHORT.values(), ids=SHORT)
def test_an_input_shorter_than_the_window_is_refused(layer, rank, data_format, tmp_path):
    free = [None] * rank
    x = keras.Input((*free, 2) if data_format == "channels_last" else (2, *free), name="x")
    model = keras.Model(x, layer(3, 2, "valid", data_format)(x))
    exported = Exported(model, tmp_path / "m.onnx")
    for size in (7, 3):
        exported.check(images(2, *[n or size for n in x.shape[1:]]))
    # Keras cannot be asked: under some windows TensorFlow's max pooling ends the process.
    for size in (2, 1):
        with pytest.raises(Exception, match=f"axis_{x.shape.index(None, 1)}_is_at_least_3"):
            exported.run(images(2, *[n or size for n in x.shape[1:]]))


def ours(x):
    return kb.Convolution(kb.Vanilla(4), window_size=(3,) * (len(x.shape) - 2))(x)


BEFORE_ALL_STEPS = {
    "mean_1d": (1, 3, lambda x: layers.GlobalAveragePooling1D()(ours(x))),
    "max_1d": (1, 2, lambda x: layers.GlobalMaxPooling1D()(kb.MaxPooling(2)(x))),
    "strided": (
        1,
        5,
        lambda x: layers.GlobalMaxPooling1D()(kb.MaxPooling(2)(kb.MaxPooling(3, 2)(x))),
    ),
    "mean_2d": (2, 4, lambda x: layers.GlobalAveragePooling2D()(kb.MaxPooling(2)(ours(x)))),
    "max_2d": (2, 5, lambda x: layers.GlobalMaxPooling2D()(layers.Conv2D(2, 3)(ours(x)))),
}


@pytest.mark.parametrize(("rank", "least", "make"), BEFORE_ALL_STEPS.values(), ids=BEFORE_ALL_STEPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_input_too_short_for_our_windows_and_a_mean_over_all_is_refused(
    rank, least, make, dtype, tmp_path
):
    keras.config.set_dtype_policy(dtype)
    x = keras.Input((*[None] * rank, 2), name="x", dtype=dtype)
    exported = Exported(keras.Model(x, make(x)), tmp_path / "m.onnx")
    # Of no steps there is no mean: what is too short is refused, and needs no branch.
    assert "If" not in exported.ops
    for size in (least, least + 4):
        exported.check(tf.cast(images(2, *[size] * rank, 2), dtype))
    with pytest.raises(Exception, match=f"axis_1_is_at_least_{least}"):
        exported.run(tf.cast(images(2, *[least - 1] * rank, 2), dtype))


def test_our_windows_give_no_steps_where_nothing_is_made_of_all(tmp_path):
    x = keras.Input((None, 2), name="x")
    exported = Exported(keras.Model(x, ours(x)), tmp_path / "m.onnx")
    for size in (1, 2, 3, 9):
        exported.check(images(2, size, 2))


def network(x):
    """Windows of every kind before the last pooling."""
    h = layers.ZeroPadding2D(1)(layers.Conv2D(4, 3)(x))
    h = layers.Concatenate()([layers.Conv2D(2, 1)(h), layers.DepthwiseConv2D(3, padding="same")(h)])
    h = layers.Add()([h, layers.BatchNormalization()(layers.ReLU()(h))])
    h = h * layers.GlobalAveragePooling2D(keepdims=True)(h)
    h = layers.Conv2D(4, 3, strides=2, padding="same", activation="silu")(h)
    return layers.MaxPooling2D((3, 2), 2)(layers.AveragePooling2D(2)(h))


def test_the_least_size_of_an_input_is_that_of_the_whole_network(tmp_path):
    x = keras.Input((None, None, 3), name="x")
    exported = Exported(keras.Model(x, network(x)), tmp_path / "m.onnx")
    assert "If" not in exported.ops
    # 3 steps for the last pooling are 6 for the one before, and 11 for the convolution with
    # strides; the padding made up for what the first one took.
    exported.check(images(1, 11, 7, 3))
    with pytest.raises(Exception, match="axis_1_is_at_least_11_and_axis_2_is_at_least_7"):
        exported.run(images(1, 10, 7, 3))


def test_poolings_that_share_an_input_ask_for_the_longer_size(tmp_path):
    x = keras.Input((None, 2), name="x")
    parts = [layers.MaxPooling1D(width, 1)(x)[:, :1] for width in (2, 5, 3)]
    exported = Exported(keras.Model(x, layers.Add()(parts)), tmp_path / "m.onnx")
    exported.check(images(2, 5, 2))
    with pytest.raises(Exception, match="axis_1_is_at_least_5"):
        exported.run(images(2, 4, 2))


def test_where_no_input_is_found_to_refuse_a_short_axis_gives_no_steps(tmp_path):
    x = keras.Input((None, 2), name="x")
    exported = Exported(keras.Model(x, layers.AveragePooling1D(3)(x[:, 1:])), tmp_path / "m.onnx")
    exported.check(images(2, 7, 2))
    assert exported.ops["If"] == 1
    assert exported.run(images(2, 3, 2))[0].shape == (2, 0, 2)


CONVOLUTIONS = {
    "conv_1d": (layers.Conv1D(4, 3, strides=2), 1, 3),
    "conv_2d_dilated": (layers.Conv2D(4, 3, dilation_rate=2), 2, 5),
    "conv_3d": (layers.Conv3D(4, 2), 3, 2),
    "depthwise_2d": (layers.DepthwiseConv2D(3), 2, 3),
    "separable_1d": (layers.SeparableConv1D(4, 3), 1, 3),
    "separable_2d": (layers.SeparableConv2D(4, 3, strides=2), 2, 3),
}


@pytest.mark.parametrize(("layer", "rank", "least"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_refuses_what_is_shorter_than_its_window_and_the_contract_says_so(
    layer, rank, least, tmp_path
):
    x = keras.Input((*[None] * rank, 2), name="x")
    exported = Exported(keras.Model(x, layer(x)), tmp_path / "m.onnx")
    assert exported.contract.inputs[0].least == (0, *[least] * rank, 0)
    exported.check(images(2, *[least] * rank, 2))
    with pytest.raises(Exception, match=f"axis_1_is_at_least_{least}"):
        exported.run(images(2, *[least - 1] * rank, 2))


def test_windows_that_fit_into_anything_ask_for_no_size(tmp_path):
    x = keras.Input((None, None, 2), name="x")
    h = layers.Conv2D(3, 3, padding="same")(layers.Conv2D(3, 1)(x))
    exported = Exported(keras.Model(x, h), tmp_path / "m.onnx")
    assert exported.contract.inputs[0].least == ()
    assert "Where" not in exported.ops
