"""The proof passes right files of every kind, and says plainly why it cannot judge the others."""

from __future__ import annotations

import json

import cases
import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import numpy_helper

import keras_blocks as kb
from keras_blocks.contract import PROOF_METADATA_KEY
from keras_blocks.errors import ExportError, ParityError
from keras_blocks.export import check_parity, export_onnx
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.results.comparison import TOLERANCES, Tolerance, compare, compute_dtype
from keras_blocks.export.verification.padding import proven_signature
from keras_blocks.export.verification.parity import sample_of
from keras_blocks.export.verification.rounding_noise import rounding_noise

layers = keras.layers


def save(model, path, **options):
    return export_onnx(model, path, verify=False, **options)


def small_model(name: str = "small") -> keras.Model:
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(3, name="y")(x), name=name)


def two_inputs() -> keras.Model:
    ids = keras.Input((None,), dtype="int32", name="ids")
    picture = keras.Input((6, None, 3), name="picture")
    words = layers.GRU(5)(layers.Embedding(30, 4, mask_zero=True)(ids))
    pixels = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same")(picture))
    joined = layers.Concatenate()([words, pixels])
    outputs = {"score": layers.Dense(2)(joined), "words": words}
    return keras.Model({"ids": ids, "picture": picture}, outputs)


class Doubled(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(3)

    def call(self, x):
        return 2 * self.inner(x)


def subclassed() -> keras.Model:
    model = Doubled()
    model(np.zeros((2, 4), "float32"))
    return model


def float16_model() -> keras.Model:
    keras.config.set_dtype_policy("mixed_float16")
    x = keras.Input((None, 4), name="x")
    return keras.Model(x, layers.Dense(3, dtype="float32")(layers.Dense(8, "tanh")(x)))


def integer_model() -> keras.Model:
    x = keras.Input((None,), dtype="int32", name="x")
    return keras.Model(x, layers.Lambda(lambda v: v * 2 > 5, name="large", dtype="int32")(x))


GOOD = {
    "two inputs and two outputs": two_inputs,
    "subclassed": subclassed,
    "mixed_float16": float16_model,
    "booleans": integer_model,
    "ragged": lambda: cases.BY_NAME["gru_ragged"].model(),
    "trees": lambda: cases.BY_NAME["tree_child_sum"].model(),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_right_file_passes(kind, tmp_path):
    model = GOOD[kind]()
    save(model, tmp_path / "model.onnx")
    report = check_parity(model, tmp_path / "model.onnx")
    report.raise_if_wrong()
    assert report.ok
    assert report.samples >= 5
    outputs = {tensor.name for tensor in proven_signature(model).contract.flat_outputs()}
    assert {check.output for check in report.checks} == outputs
    assert report.first_difference is None
    assert report.notes == (), "every input matters, and nothing is left of training"


def test_the_proof_travels_in_the_file_in_short_form(tmp_path):
    result = export_onnx(small_model(), tmp_path / "model.onnx")
    file = onnx.load(str(tmp_path / "model.onnx"))
    (proof,) = (entry.value for entry in file.metadata_props if entry.key == PROOF_METADATA_KEY)
    assert json.loads(proof) == result.parity.summary()
    assert json.loads(proof)["ok"] is True
    assert result.size_bytes == (tmp_path / "model.onnx").stat().st_size
    save(small_model(), tmp_path / "model.onnx")
    file = onnx.load(str(tmp_path / "model.onnx"))
    assert PROOF_METADATA_KEY not in {entry.key for entry in file.metadata_props}


def test_the_proof_leaves_the_model_as_it_was(tmp_path):
    x = keras.Input(batch_shape=(2, 3, 4), name="x")
    model = keras.Model(x, layers.GRU(5, stateful=True, name="memory")(x))
    model(np.ones((2, 3, 4), "float32"))
    before = [weight.numpy() for weight in model.weights]
    state = model.get_layer("memory").states[0].numpy()
    save(model, tmp_path / "model.onnx")
    check_parity(model, tmp_path / "model.onnx").raise_if_wrong()
    assert np.abs(state).max() > 0
    np.testing.assert_array_equal(model.get_layer("memory").states[0].numpy(), state)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_the_same_seed_gives_the_same_report(tmp_path):
    model = small_model()
    save(model, tmp_path / "model.onnx")
    first, second, other = (
        check_parity(model, tmp_path / "model.onnx", seed=seed) for seed in (3, 3, 4)
    )
    # How many rows there is time for is another matter.
    fixed = [[c for c in report.checks if c.fixed] for report in (first, second, other)]
    assert fixed[0] == fixed[1] != fixed[2]
    assert first.summary() == second.summary()


def test_a_fast_proof_tries_less_and_a_thorough_one_more(tmp_path):
    model, path = small_model(), tmp_path / "model.onnx"
    fast, usual, thorough = (
        export_onnx(model, path, verify=verify).parity for verify in ("fast", True, "thorough")
    )
    assert [report.level for report in (fast, usual, thorough)] == ["fast", "usual", "thorough"]
    assert fast.samples < usual.samples < thorough.samples
    assert [check.layer for check in thorough.layers] == ["y", "small"]
    assert fast.layers == usual.layers == ()
    assert any(check.input_shapes["x"][0] == 0 for check in thorough.checks)


def test_a_time_budget_ends_the_proof_and_the_report_says_so(tmp_path):
    model = small_model()
    report = export_onnx(model, tmp_path / "model.onnx", time_budget=1e-6).parity
    assert report.ok
    assert report.samples == 1
    assert len(report.left_out) > 3
    assert report.summary()["left_out"] == len(report.left_out)
    assert "the time budget of 1e-06 s was spent" in str(report)


@pytest.mark.parametrize("wrong", [{"verify": "slow"}, {"time_budget": 0}])
def test_a_wrong_level_or_budget_is_refused_before_the_work(wrong, tmp_path):
    with pytest.raises(ValueError, match="Received: "):
        export_onnx(None, tmp_path / "model.onnx", **wrong)


def test_the_tolerance_and_its_reason_are_reported(tmp_path):
    report = export_onnx(small_model(), tmp_path / "model.onnx", verify="fast").parity
    assert "2e-05 of the largest magnitude; 170 roundings of float32" in report.tolerance
    given = check_parity(small_model(), tmp_path / "model.onnx", rtol=1.0, atol=1.0)
    assert given.tolerance == "1 and 1 of the largest magnitude; given"


def test_samples_that_the_model_refuses_are_skipped_with_its_reason(tmp_path):
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.Conv1D(3, 11, name="window")(layers.UpSampling1D(2)(x)))
    save(model, tmp_path / "model.onnx")
    report = check_parity(model, tmp_path / "model.onnx")
    assert report.ok
    sizes = {check.input_shapes["x"][1] for check in report.checks}
    assert min(sizes) >= 6
    assert max(sizes) > 16
    refused = {skip.sample: skip.reason for skip in report.skipped}
    assert "output size would be negative" in refused["batch 2, x.time 2"]


def test_a_size_that_tensorflow_lets_pass_but_no_layer_allows_is_skipped(tmp_path):
    # Of a window one step longer than the image, TensorFlow gives uninitialised memory.
    x = keras.Input((None, None, 3), name="x")
    y = layers.MaxPooling2D(3, padding="same")(layers.UpSampling2D(2)(x))
    y = layers.Conv2D(4, 5, name="window")(y)
    model = keras.Model(x, layers.GlobalAveragePooling2D()(y))
    save(model, tmp_path / "model.onnx")
    report = check_parity(model, tmp_path / "model.onnx")
    assert report.ok
    assert any(skip.sample.startswith("batch 17, x.height 5, x.width 6") for skip in report.skipped)


def test_a_model_that_refuses_every_sample_is_not_called_proven(tmp_path):
    x = keras.Input((None, 2), name="x")
    y = layers.Conv1D(1, 6000, name="wide")(layers.UpSampling1D(2)(x))
    model = keras.Model(x, y, name="picky")
    save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"Nothing was proven.*'picky' refuses every sample"):
        check_parity(model, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", inputs=np.ones((1, 3001, 2), "f4")).ok
    with pytest.raises(ExportError, match=r"refuses the inputs that were given .*that it takes\.$"):
        check_parity(model, tmp_path / "model.onnx", inputs=np.ones((1, 3, 2), "f4"))


def test_given_inputs_are_checked_in_place_of_samples(tmp_path):
    model = two_inputs()
    save(model, tmp_path / "model.onnx")
    given = {
        "picture": np.ones((2, 6, 5, 3), "float32"),
        "ids": np.array([[1, 2, 0], [29, 0, 0]], "int32"),
    }
    report = check_parity(model, tmp_path / "model.onnx", inputs=given)
    assert report.ok
    assert {check.sample for check in report.checks if not check.again} == {"given inputs"}
    assert report.samples == 1
    assert report.checks[0].input_shapes == {"ids": (2, 3), "picture": (2, 6, 5, 3)}
    assert report.seed is None


def test_given_ragged_inputs_may_be_tensors_or_flat():
    signature = proven_signature(cases.BY_NAME["vanilla_ragged"].model())
    values, row_splits = np.ones((3, 6), "float32"), np.array([0, 1, 3])
    ragged = tf.RaggedTensor.from_row_splits(values, row_splits)
    whole = sample_of(signature, ragged)
    flat = sample_of(signature, {"x0": values, "x0.row_splits": row_splits})
    for name in ("x0", "x0.row_splits"):
        np.testing.assert_array_equal(whole.feed[name], flat.feed[name])
    with pytest.raises(ValueError, match=r"flat inputs \['x0', 'x0.row_splits'\]. Received 3"):
        sample_of(signature, [ragged, values])


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict, all keys")
def test_given_inputs_by_name_are_never_taken_by_position():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"one": a, "other": b}, layers.Subtract()([a, b]))
    signature = proven_signature(model)
    ones, twos = np.ones((3, 2), "float32"), np.full((3, 2), 2, "float32")
    for names in (("a", "b"), ("one", "other")):
        feed = sample_of(signature, dict(zip(names[::-1], (twos, ones), strict=True))).feed
        assert (feed["a"].max(), feed["b"].max()) == (1, 2)
    with pytest.raises(ValueError, match=r"flat inputs \['a', 'b'\]. .* dict with \['b', 'c'\]"):
        sample_of(signature, {"c": ones, "b": twos})


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no ONNX file at filepath='.*gone.onnx'"):
        check_parity(small_model(), tmp_path / "gone.onnx")


def test_a_file_that_is_not_onnx_fails(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("this is not ONNX")
    report = check_parity(small_model(), path)
    assert not report.ok
    with pytest.raises(ParityError, match="onnxruntime does not load it"):
        report.raise_if_wrong()


def test_a_file_with_an_op_that_no_runtime_knows_fails(tmp_path):
    model = small_model()
    file = to_onnx(model, proven_signature(model))
    file.graph.node[-1].op_type = "Erfc"
    (tmp_path / "model.onnx").write_bytes(file.SerializeToString())
    with pytest.raises(ParityError, match=r"does not load it: .*Erfc"):
        check_parity(model, tmp_path / "model.onnx").raise_if_wrong()


def test_the_file_of_another_model_fails(tmp_path):
    save(small_model(), tmp_path / "model.onnx")
    x = keras.Input((4,), name="z")
    other = keras.Model(x, layers.Dense(3, name="y")(x))
    with pytest.raises(ParityError, match=r"inputs are named \['x'\], those of the model \['z'\]"):
        check_parity(other, tmp_path / "model.onnx").raise_if_wrong()


def test_a_file_with_another_vocabulary_fails(tmp_path):
    def model(words: int) -> keras.Model:
        ids = keras.Input((None,), dtype="int32", name="ids")
        return keras.Model(ids, layers.Embedding(words, 4, name="words")(ids))

    save(model(20), tmp_path / "model.onnx")
    with pytest.raises(ParityError, match=r"contract gives 'ids' maximum=19, the model .*=29"):
        check_parity(model(30), tmp_path / "model.onnx").raise_if_wrong()


def test_a_file_without_a_contract_is_judged_by_what_it_computes(tmp_path):
    model = small_model()
    file = to_onnx(model, proven_signature(model))
    del file.metadata_props[:]
    (tmp_path / "model.onnx").write_bytes(file.SerializeToString())
    assert check_parity(model, tmp_path / "model.onnx").ok


def test_a_thousand_steps_of_rounding_pass(tmp_path):
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.LSTM(16)(x))
    save(model, tmp_path / "model.onnx")
    long = np.random.default_rng(0).normal(size=(2, 1000, 4)).astype("float32")
    assert check_parity(model, tmp_path / "model.onnx", inputs=long).ok


def chaotic_model() -> keras.Model:
    """One layer with large weights over and over: a rounding error doubles every few steps."""
    x = keras.Input((32,), name="x")
    layer = layers.Dense(32, "tanh", use_bias=False, kernel_initializer="orthogonal", name="chaos")
    y = x
    for _ in range(30):
        y = layer(y)
    layer.kernel.assign(2.5 * layer.kernel)
    return keras.Model(x, y)


def test_a_model_that_amplifies_rounding_is_allowed_what_it_amplifies(tmp_path):
    model = chaotic_model()
    save(model, tmp_path / "model.onnx")
    report = check_parity(model, tmp_path / "model.onnx")
    usual = TOLERANCES["float32"]
    assert report.max_error > usual.atol + usual.rtol, "too tame a model to show anything"
    assert report.ok
    strict = check_parity(model, tmp_path / "model.onnx", rtol=2e-5, atol=1e-7)
    assert not strict.ok


def test_a_fault_in_a_model_that_amplifies_rounding_is_still_caught(tmp_path):
    model = chaotic_model()
    path = tmp_path / "model.onnx"
    save(model, path)
    file = onnx.load(str(path))
    weight = next(t for t in file.graph.initializer if np.prod(t.dims) == 32 * 32)
    array = numpy_helper.to_array(weight).copy()
    array.reshape(-1)[17] += 1e-2
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    path.write_bytes(file.SerializeToString())
    report = check_parity(model, path)
    assert not report.ok
    assert report.first_difference.layer == "chaos"


def test_rounding_noise_is_small_where_a_model_is_tame_and_leaves_it_alone():
    model = small_model()
    weights = model.get_weights()
    signature = proven_signature(model)
    x = np.ones((5, 4), "float32")
    expected = model(x).numpy()
    (noise,) = rounding_noise(model, signature, [x], [expected])
    assert 0 < noise < 1e-4
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_tolerance_follows_the_coarsest_dtype_that_computes():
    assert compute_dtype(small_model()) == "float32"
    assert compute_dtype(float16_model()) == "float16"


TIGHT = Tolerance(rtol=0.0, atol=0.5)


@pytest.mark.parametrize(
    ("expected", "got", "max_error"),
    [
        ([1.0, np.nan, np.inf], [1.25, np.nan, np.inf], 0.25),
        ([1.0, np.nan], [1.0, 1.0], np.inf),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([], [], 0.0),
    ],
)
def test_floats_are_compared_by_place_nan_and_infinity_included(expected, got, max_error):
    found = compare(np.array(expected, "float32"), np.array(got, "float32"), TIGHT)
    assert found.max_error == max_error
    assert (found.problem is None) == (max_error <= TIGHT.atol)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool"])
def test_integers_and_booleans_must_be_equal(dtype):
    right, wrong = np.array([[1, 0]], dtype), np.array([[1, 1]], dtype)
    assert compare(right, right, TIGHT).problem is None
    found = compare(right, wrong, TIGHT)
    assert found.worst.index == (0, 1)
    assert "but must equal" in found.problem


def test_large_integers_are_not_rounded_before_they_are_compared():
    right = np.array([2**60], "int64")
    assert compare(right, right + 1, TIGHT).problem is not None


def test_argmax_agreement_leaves_ties_out():
    expected = np.array([[0.0, 1.0], [1.0, 0.9999999], [2.0, 1.0], [0.0, 5.0]], "float32")
    got = np.array([[0.0, 1.0], [0.9999999, 1.0], [1.0, 2.0], [0.0, 5.0]], "float32")
    assert compare(expected, got, Tolerance(0.0, 1e-6)).argmax_agreement == 0.75


def test_a_ragged_output_whose_row_splits_are_off_is_caught(tmp_path):
    model = kb_ragged()
    path = tmp_path / "model.onnx"
    save(model, path)
    file = onnx.load(str(path))
    splits = file.graph.output[1].name
    for node in file.graph.node:
        node.output[:] = ["before" if name == splits else name for name in node.output]
    file.graph.initializer.append(numpy_helper.from_array(np.array(1, "int64"), "one"))
    file.graph.node.append(onnx.helper.make_node("Add", ["before", "one"], [splits]))
    path.write_bytes(file.SerializeToString())
    report = check_parity(model, path)
    assert {check.output for check in report.failures()} == {splits}
    assert "but must equal" in report.failure_text()


def kb_ragged() -> keras.Model:
    x = keras.Input((None, 4), ragged=True, name="x")
    return keras.Model(x, kb.Vanilla(3, name="y")(x))


def nowhere_finite(*outputs: str) -> keras.Model:
    """NaN from the named outputs of two."""
    x = keras.Input((4,), name="x")
    named = {name: layers.Dense(3, name=name)(x) for name in ("first", "second")}
    model = keras.Model(x, named)
    for name in outputs:
        model.get_layer(name).bias.assign([np.nan] * 3)
    return model


def test_outputs_that_are_never_finite_prove_nothing(tmp_path):
    with pytest.raises(ExportError, match=r"Nothing was proven: .* NaN or infinite"):
        export_onnx(nowhere_finite("first", "second"), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    report = export_onnx(nowhere_finite("second"), tmp_path / "model.onnx").parity
    assert report.ok
    assert [note for note in report.notes if "'second' was NaN or infinite" in note]


def test_sizes_begin_where_there_is_room_for_the_windows(tmp_path):
    x = keras.Input((None, None, 3), name="x")
    y = layers.Conv2D(2, 3)(layers.MaxPooling2D(3, 2)(layers.Conv2D(2, 3)(x)))
    report = export_onnx(keras.Model(x, y), tmp_path / "model.onnx").parity
    assert report.skipped == ()
    assert min(min(check.input_shapes["x"][1:3]) for check in report.checks) == 9
    assert min(check.input_shapes["x"][1] for check in report.checks) == 9
