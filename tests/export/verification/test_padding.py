"""Which inputs the contract lets a server pad, and whether it then gives what each gives alone."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_blocks.export import export_onnx
from keras_blocks.export.verification.padding import proven_signature
from keras_blocks.serving.inference.batch_check import checked_batch_plan
from keras_blocks.serving.model import Model

RNG = np.random.default_rng(0)
# Products of other heights are summed in another order.
CLOSE = {"rtol": 0, "atol": 1e-5}


def tokens_model(make_output, **embedding):
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embedded = layers.Embedding(20, 3, **{"mask_zero": True, **embedding})(tokens)
    return keras.Model(tokens, make_output(embedded))


def floats_model(make_output, mask_value=-1.0):
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, make_output(x, layers.Masking(mask_value)(x)))


def padding_of(model):
    return {spec.name: spec.padding for spec in proven_signature(model).contract.inputs}


def test_an_embedding_that_masks_zeros_is_padded_with_zeros():
    assert padding_of(tokens_model(layers.LSTM(4))) == {"tokens": 0}


def test_what_a_masking_layer_masks_pads():
    assert padding_of(floats_model(lambda x, masked: layers.GRU(4)(masked))) == {"x": -1.0}


def test_a_mask_that_is_an_input_pads_with_false_and_its_dim_is_that_of_what_it_masks():
    x = keras.Input((None, 3), name="x")
    mask = keras.Input((None,), dtype="bool", name="mask")
    contract = proven_signature(keras.Model([x, mask], layers.LSTM(4)(x, mask=mask))).contract
    assert [spec.padding for spec in contract.inputs] == [None, 0]
    assert [spec.shape[1] for spec in contract.inputs] == ["mask.time", "mask.time"]


def test_an_output_with_the_steps_of_the_input_has_its_dim():
    model = tokens_model(layers.Bidirectional(layers.LSTM(4, return_sequences=True)))
    (output,) = proven_signature(model).contract.outputs
    assert output.shape == ("batch", "tokens.time", 8)


def mean_beside(x, masked):
    return [layers.LSTM(4)(masked), keras.ops.mean(x, axis=1)]


FELT = {
    "no mask": lambda: tokens_model(layers.LSTM(4), mask_zero=False),
    "a mean of all steps beside": lambda: floats_model(mean_beside),
    "a largest of all steps": lambda: floats_model(
        lambda x, masked: keras.ops.max(masked, axis=1), mask_value=0.0
    ),
    "twice as many steps out": lambda: tokens_model(
        lambda x: layers.UpSampling1D(2)(layers.LSTM(4, return_sequences=True)(x))
    ),
    "the number of steps out": lambda: tokens_model(
        lambda x: keras.ops.sum(keras.ops.ones_like(x), axis=1)
    ),
}


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("case", FELT)
def test_a_model_that_feels_padding_is_not_padded(case):
    assert set(padding_of(FELT[case]()).values()) == {None}


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_layer_that_drops_the_mask_forbids_padding_though_no_sample_may_show_it():
    model = tokens_model(layers.GlobalMaxPooling1D())
    model.layers[1].embeddings.assign(np.abs(model.layers[1].embeddings.numpy()))
    weights = model.layers[1].embeddings.numpy()
    weights[0] = 0.0  # never the largest
    model.layers[1].embeddings.assign(weights)
    assert padding_of(model) == {"tokens": None}


MODELS = {
    "tokens": lambda: tokens_model(layers.Bidirectional(layers.LSTM(4, return_sequences=True))),
    "floats": lambda: floats_model(lambda x, masked: [layers.GRU(4)(masked), masked * 2.0]),
    "mean": lambda: tokens_model(layers.GlobalAveragePooling1D()),
}


@pytest.mark.parametrize("name", MODELS)
def test_padded_requests_in_one_run_get_what_the_keras_model_gives_each(name, tmp_path):
    model = MODELS[name]()
    export_onnx(model, tmp_path / "model.onnx", verify="fast")
    served = Model.load(tmp_path / "model.onnx", threads=1)
    plan = checked_batch_plan(served)
    (spec,) = served.contract.inputs
    requests = []
    for rows, steps in ((1, 1), (2, 5), (1, 7), (3, 4), (1, 2)):
        if spec.name == "tokens":
            array = RNG.integers(1, 20, (rows, steps)).astype("int32")
        else:
            array = RNG.normal(size=(rows, steps, 3)).astype("float32")
        array[:, 1::3] = spec.padding  # steps of its own that are masked
        requests.append({spec.name: array})
    parts = plan.split(requests, served.run(plan.join(requests)))
    for inputs, part in zip(requests, parts, strict=True):
        expected = keras.tree.flatten(model(inputs[spec.name], training=False))
        for wanted, got in zip(expected, part.values(), strict=True):
            np.testing.assert_allclose(got, wanted, **CLOSE)
