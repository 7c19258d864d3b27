"""Models as users have them, not layers alone: each exports, and its file computes the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, random_weights, sequences

import keras_blocks as kb
from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

layers = keras.layers
# One rounding to bfloat16, of numbers up to 1, and some more on the way.
BFLOAT16_ROUNDING = 0.03


def ids(name, **kwargs):
    return keras.Input((None,), dtype="int32", name=name, **kwargs)


def nested_inputs():
    a, b, c = (keras.Input((size,), name=name) for size, name in ((4, "a"), (3, "b"), (2, "c")))
    h = layers.Concatenate()([a, b, c])
    outputs = {"o": {"p": layers.Dense(2)(h)}, "q": [layers.Dense(3)(h), h]}
    return keras.Model({"a": a, "rest": {"b": b, "list": [c]}}, outputs)


def translator():
    """The states of one LSTM are where the next begins."""
    source, target = ids("source"), ids("target")
    embedded = layers.Embedding(20, 5, mask_zero=True)(source)
    _, *states = layers.LSTM(6, return_state=True)(embedded)
    embedded = layers.Embedding(22, 5, mask_zero=True)(target)
    h = layers.LSTM(6, return_sequences=True)(embedded, initial_state=states)
    return keras.Model([source, target], layers.Dense(22, activation="softmax")(h))


def attending_translator():
    source, target = keras.Input((None, 4), name="source"), keras.Input((None, 4), name="target")
    encoder = layers.Bidirectional(layers.GRU(3, return_sequences=True, return_state=True))
    encoded, *states = encoder(source)
    decoder = kb.GRU(6, return_sequences=True, return_state=True)
    decoded, state = decoder(target, initial_state=layers.Concatenate()(states))
    attended = layers.Attention()([decoded, encoded])
    return keras.Model([source, target], [layers.Concatenate()([decoded, attended]), state])


def decoder_step():
    x, h, c = (keras.Input(s, name=n) for s, n in (((1, 4), "x"), ((6,), "h"), ((6,), "c")))
    return keras.Model([x, h, c], layers.LSTM(6, return_state=True)(x, initial_state=[h, c]))


class Twice(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x) + self.inner(2 * x)


class Classifier(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(3)
        self.drop = layers.Dropout(0.5)

    def call(self, x, training=True):
        y = self.inner(self.drop(x, training=training))
        return {"y": y, "nothing": None, "list": [y + 1]}


def models_inside_models():
    x = keras.Input((5,), name="x")
    inner = keras.Sequential([layers.Dense(4), keras.Sequential([layers.Dense(3)])])
    return keras.Model(x, [inner(x), Twice(inner)(x), inner(x + 1)])


def ragged_and_trees_in_nests():
    a, p = ids("a", ragged=True), ids("p", ragged=True)
    b = keras.Input((3,), name="b")
    nodes = kb.Embedding(9, 4)(a)
    root = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(3))([nodes, p])
    joined = layers.Concatenate()([kb.GRU(3)(nodes), root, b])
    return keras.Model({"tree": {"a": a, "p": [p]}, "b": (b,)}, {"o": joined, "s": {"n": nodes}})


def preprocessed():
    """Numbers as they come, made fit for a layer inside the model."""
    x, codes = keras.Input((3,), name="x"), keras.Input((2,), dtype="int64", name="codes")
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(size=(20, 3)))
    bins = layers.Discretization(bin_boundaries=[-1.0, 0.0, 0.5], output_mode="one_hot")(x)
    kinds = layers.IntegerLookup(vocabulary=[3, 5, 2], output_mode="multi_hot")(codes)
    parts = [normalization(x), layers.Flatten()(bins), kinds, layers.Rescaling(0.1, 1.0)(x)]
    return keras.Model([x, codes], layers.Dense(2)(layers.Concatenate()(parts)))


MODELS = {
    "inputs and outputs in nests": nested_inputs,
    "states passed on": translator,
    "states passed on, with attention": attending_translator,
    "states in and out": decoder_step,
    "models inside models": models_inside_models,
    "ragged rows and trees in nests": ragged_and_trees_in_nests,
    "preprocessing in front": preprocessed,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_is_proven(name, tmp_path):
    model = random_weights(MODELS[name]())
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast").parity.ok


def test_nested_inputs_and_outputs_are_named_by_their_keys(tmp_path):
    contract = export_onnx(nested_inputs(), tmp_path / "m.onnx", verify=False).contract
    assert [spec.name for spec in contract.inputs] == ["a", "b", "c"]
    assert [spec.name for spec in contract.outputs] == ["o.p", "q.0", "q.1"]


def test_what_a_subclassed_model_does_in_training_stays_out_and_none_is_no_output(tmp_path):
    signature = [keras.InputSpec(shape=(None, 4), dtype="float32")]
    model = Classifier()
    exported = Exported(model, tmp_path / "m.onnx", input_signature=signature)
    assert exported.output_names == ["list.0", "y"]
    assert "Dropout" not in exported.ops
    x = sequences(1, 3, 4)[0]
    y = model.inner(x).numpy()
    for got, want in zip(exported.run(x), [y + 1, y], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["build", "call"])
def test_a_sequential_model_may_learn_its_input_late(how, tmp_path):
    model = keras.Sequential([layers.Embedding(9, 3), layers.LSTM(2)])
    if how == "build":
        model.build((None, None))
    else:
        model(np.zeros((2, 7), "int32"))
    exported = Exported(model, tmp_path / "m.onnx")
    (ids,) = exported.session.get_inputs()
    assert (ids.type, ids.shape[0]) == ("tensor(int32)", "batch")
    exported.check(np.array([[1, 8, 0, 4, 4, 4, 2]] * 3, "int32"))


def test_a_network_of_a_norm_behind_a_convolution_of_single_pixels_is_right(tmp_path):
    # tf2onnx takes the norm over another axis: the shapes that it keeps are not those it made.
    class Norm(layers.Layer):
        def call(self, x):
            mean, variance = tf.nn.moments(x, [-1], keepdims=True)
            scale = tf.math.rsqrt(variance + 1e-3) * tf.constant([1.0, 2.0, 3.0, 4.0])
            return x * scale + (0.5 - mean * scale)

    x = keras.Input((1, 1, 4), name="x")
    model = keras.Model(x, Norm()(layers.Conv2D(4, 3, padding="same")(x)))
    exported = Exported(random_weights(model), tmp_path / "m.onnx")
    exported.check(tf.reshape(sequences(1, 3, 4), (3, 1, 1, 4)))


def image_model(dtype):
    x = keras.Input((8, 8, 3), name="x")
    h = layers.Conv2D(4, 3, activation="relu", dtype=dtype)(x)
    h = layers.Flatten(dtype=dtype)(layers.BatchNormalization(dtype=dtype)(h))
    return keras.Model(x, layers.Dense(3, activation="softmax", dtype=dtype)(h))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_a_model_in_bfloat16_is_computed_in_float32(dtype, tmp_path):
    model = image_model(dtype)
    result = export_onnx(model, tmp_path / "m.onnx", verify="fast")
    assert result.parity.ok
    assert result.contract.outputs[0].dtype == "float32"
    exact = image_model("float32")
    exact.set_weights([np.asarray(w, "float32") for w in model.get_weights()])
    x = tf.reshape(sequences(8, 8, 3 * 2), (2, 8, 8, 3))
    (got,) = Exported(model, tmp_path / "again.onnx").run(x)
    np.testing.assert_allclose(got, exact(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got, np.asarray(model(x), "float32"), atol=BFLOAT16_ROUNDING)


def test_a_recurrent_model_in_bfloat16_is_native(tmp_path):
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.GRU(3, dtype="mixed_bfloat16")(x))
    result = export_onnx(model, tmp_path / "m.onnx", verify="fast")
    assert result.op_counts["GRU"] == 1
    assert result.parity.ok


@pytest.mark.parametrize("verify", [True, False])
def test_a_transposed_convolution_in_float64_is_refused_by_name(verify, tmp_path):
    x = keras.Input((4, 4, 2), dtype="float64")
    model = keras.Model(x, layers.Conv2DTranspose(3, 2, dtype="float64")(x))
    with pytest.raises(ExportError, match=r"ConvTranspose\(.*Build the model in float32"):
        export_onnx(model, tmp_path / "m.onnx", verify=verify)
    assert not list(tmp_path.iterdir())


def test_a_sparse_input_is_a_dense_one_in_the_file(tmp_path):
    a, b = (keras.Input((4,), sparse=True, name=name) for name in "ab")
    model = keras.Model([a, b], [layers.Add()([a, b]), layers.Dense(3)(a)])
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast").parity.ok
    values = [tf.constant([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, -1.0]]), tf.eye(4)[:2]]
    got = Exported(model, tmp_path / "again.onnx").run(values)
    added, dense = model([tf.sparse.from_dense(part) for part in values])
    np.testing.assert_array_equal(got[0], tf.sparse.to_dense(added))
    np.testing.assert_allclose(got[1], dense, rtol=1e-5)


def test_a_model_of_integers_keeps_them(tmp_path):
    x = keras.Input((None,), dtype="int64", name="x")
    model = keras.Model(x, [x * 3 + 2**40, keras.ops.argmax(x, axis=-1), keras.ops.sort(x)])
    exported = Exported(model, tmp_path / "m.onnx")
    exported.check(tf.constant([[5, 2**50, -7]], tf.int64))


FAMILIES = {
    "convnext": lambda **options: keras.applications.ConvNeXtTiny(**options),
    "densenet": lambda **options: keras.applications.DenseNet121(**options),
    "efficientnet": lambda **options: keras.applications.EfficientNetB0(**options),
    "efficientnet_v2": lambda **options: keras.applications.EfficientNetV2B0(**options),
    "inception_resnet_v2": lambda **options: keras.applications.InceptionResNetV2(**options),
    "inception_v3": lambda **options: keras.applications.InceptionV3(**options),
    "mobilenet": lambda **options: keras.applications.MobileNet(alpha=0.25, **options),
    "mobilenet_v2": lambda **options: keras.applications.MobileNetV2(alpha=0.35, **options),
    "mobilenet_v3": lambda **options: keras.applications.MobileNetV3Small(**options),
    "nasnet": lambda **options: keras.applications.NASNetMobile(**options),
    "resnet": lambda **options: keras.applications.ResNet50(**options),
    "resnet_v2": lambda **options: keras.applications.ResNet50V2(**options),
    "vgg16": lambda **options: keras.applications.VGG16(**options),
    "vgg19": lambda **options: keras.applications.VGG19(**options),
    "xception": lambda **options: keras.applications.Xception(**options),
}
SMALLEST_IMAGE = {"inception_resnet_v2": 75, "inception_v3": 75, "xception": 71}


def settled(model, size):
    """With statistics of its norms as after training: a new model lets its signal fade to nothing,
    and every file would agree with it."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5, "float32"))
    images = np.random.default_rng(0).normal(100.0, 50.0, (4, size, size, 3))
    model(images.astype("float32"), training=True)
    return model


def smallest_member(family, free=False):
    """A member for images of the least size, or of any."""
    size = SMALLEST_IMAGE.get(family, 32)
    side = None if free else size
    shape = (side, side, 3)
    build = FAMILIES[family]
    return settled(build(weights=None, include_top=False, pooling="avg", input_shape=shape), size)


def test_an_application_is_proven(tmp_path):
    assert export_onnx(smallest_member("mobilenet"), tmp_path / "m.onnx", verify="fast").parity.ok


# At sizes other than that of its statistics EfficientNetV2 grows its signal a millionfold, and its
# rounding with it; NASNet of free size failed in Keras itself on the one image that was tried.
OF_ANY_SIZE = [family for family in FAMILIES if family not in ("efficientnet_v2", "nasnet")]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_applications_is_proven(family, tmp_path):
    """Some five minutes in all, on two cores that do nothing else."""
    keras.utils.set_random_seed(0)
    model = smallest_member(family)
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast").parity.ok


@pytest.mark.slow
@pytest.mark.parametrize("family", OF_ANY_SIZE)
def test_families_over_images_of_any_size_are_proven_and_need_no_branch(family, tmp_path):
    """Some four minutes in all, on two cores that do nothing else."""
    keras.utils.set_random_seed(0)
    result = export_onnx(smallest_member(family, free=True), tmp_path / "m.onnx", verify="fast")
    assert result.parity.ok
    assert "If" not in result.op_counts
