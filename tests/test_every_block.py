"""What every block must do, run over the cases of `cases.py`."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import BY_NAME, CASES, Case

DENSE_LENGTHS = [[1], [3, 1, 4]]
RAGGED_LENGTHS = [*DENSE_LENGTHS, [2, 0, 3], [0], []]

SAME_SUMS = 1e-6  # float32, the same sums in the same order
OTHER_ORDER = 1e-5  # float32, sums in another order: padded, fused by XLA
HALF = 2e-2  # float16 keeps 11 bits, and a few sums and steps add up
GRADIENT = 1e-5  # float64 central differences with steps of 1e-6

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
ragged_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if case.ragged], ids=lambda case: case.name
)
jit_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if case.jit and not case.ragged], ids=lambda case: case.name
)


@keras.saving.register_keras_serializable("keras_blocks_tests")
class Summed(keras.layers.Layer):
    """The sum of each example's outputs, whatever their shapes: gives every block a loss."""

    def call(self, outputs):
        return sum(_sum_of_examples(part) for part in keras.tree.flatten(outputs))

    def compute_mask(self, outputs, mask=None):
        return None

    def compute_output_spec(self, outputs):
        batch = keras.tree.flatten(outputs)[0].shape[0]
        return keras.KerasTensor((batch, 1), dtype=self.compute_dtype)


@keras.saving.register_keras_serializable("keras_blocks_tests")
class Subclassed(keras.Model):
    """A user's own model around a block."""

    def __init__(self, block, **kwargs):
        super().__init__(**kwargs)
        self.block = block
        self.summed = Summed()
        self.head = keras.layers.Dense(2)

    def call(self, inputs):
        return self.head(self.summed(self.block(inputs)))

    def get_config(self):
        return {"block": keras.saving.serialize_keras_object(self.block), **super().get_config()}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("block")), **config)


def _sum_of_examples(x):
    if isinstance(x, tf.RaggedTensor):
        per_step = tf.reshape(x.values, (-1, int(np.prod(x.shape[2:], dtype=int))))
        sums = tf.math.segment_sum(tf.reduce_sum(per_step, 1), x.value_rowids())
        return tf.pad(sums, [(0, x.nrows() - tf.shape(sums, tf.int64)[0])])[:, None]
    return tf.reduce_sum(x, axis=list(range(1, len(x.shape))))[:, None]


def _parts(outputs):
    return keras.tree.flatten(outputs)


def _arrays(outputs):
    """The outputs as flat arrays, the row splits of ragged ones among them."""
    arrays = []
    for part in _parts(outputs):
        ragged = isinstance(part, tf.RaggedTensor)
        arrays += [part.values, part.row_splits] if ragged else [part]
    return [np.asarray(array) for array in arrays]


def _assert_equal(actual, expected, tolerance):
    actual, expected = _arrays(actual), _arrays(expected)
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(
            a.astype("float64"), e.astype("float64"), rtol=tolerance, atol=tolerance
        )


def _lengths(case: Case):
    if case.ragged:
        return RAGGED_LENGTHS
    return [[max(n, case.shortest) for n in lengths] for lengths in DENSE_LENGTHS]


def _randomize(layer, seed=5):
    """Random values for all weights, so that no bias is zero and no gate is half open."""
    generator = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        weight.assign(0.5 * generator.normal(size=weight.shape))


def _model(case: Case) -> keras.Model:
    model = case.model()
    _randomize(model)
    return model


def _headed(case: Case) -> keras.Model:
    model = case.model()
    return keras.Model(model.inputs, keras.layers.Dense(1)(Summed()(model.output)))


def _block(case: Case) -> keras.layers.Layer:
    return case.model().layers[-1]


@each_case
def test_a_config_makes_the_same_block(case):
    block = case.block()
    stored = json.dumps(keras.saving.serialize_keras_object(block))
    again = keras.saving.deserialize_keras_object(json.loads(stored))
    assert type(again) is type(block)
    assert json.dumps(keras.saving.serialize_keras_object(again)) == stored


@each_case
def test_a_clone_computes_the_same_with_the_same_weights(case):
    model = _model(case)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = case.sample([3, 1, 4])
    _assert_equal(clone(x), model(x), SAME_SUMS)


@each_case
def test_a_saved_model_computes_the_same(case, tmp_path):
    x = case.sample([3, 1, 4])
    models = {"functional": _model(case), "subclassed": Subclassed(_block(case))}
    if len(case.inputs) == 1:
        models["sequential"] = keras.Sequential([case.inputs[0].symbol("x"), case.block()])
    for style, model in models.items():
        expected = model(x)
        model.save(tmp_path / f"{style}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{style}.keras")
        assert len(loaded.weights) == len(model.weights), style
        _assert_equal(loaded(x), expected, SAME_SUMS)


@each_case
def test_symbolic_calls_agree_with_real_ones(case):
    model = _model(case)
    for lengths in _lengths(case):
        x = case.sample(lengths)
        outputs = model(x)
        for symbol, real in zip(_parts(model.output), _parts(outputs), strict=True):
            assert symbol.ragged == isinstance(real, tf.RaggedTensor)
            assert symbol.dtype == real.dtype.name
            assert _fits(symbol.shape, real.shape)
        shapes = keras.tree.map_structure(lambda part: tuple(part.shape), x)
        computed = _flat_shapes(model.layers[-1].compute_output_shape(shapes))
        for shape, real in zip(computed, _parts(outputs), strict=True):
            assert _fits(shape, real.shape)


def _flat_shapes(shapes):
    if all(size is None or isinstance(size, int) for size in shapes):
        return [tuple(shapes)]
    return [tuple(shape) for part in shapes for shape in _flat_shapes(part)]


def _fits(symbolic, real):
    pairs = zip(symbolic, real, strict=True)
    return all(None in (s, r) or s == r for s, r in pairs)


@ragged_cases
def test_a_ragged_row_gives_what_it_gives_alone(case):
    block = _block(case)
    _randomize(block)
    for lengths in [[3, 1, 4], [2, 0, 3]]:
        x = case.sample(lengths)
        together = block(x)
        for row, length in enumerate(lengths):
            alone = keras.tree.map_structure(lambda part, row=row: part[row : row + 1], x)
            of_row = keras.tree.map_structure(lambda part, row=row: part[row : row + 1], together)
            _assert_equal(of_row, block(alone), OTHER_ORDER)
            if length >= case.shortest:
                dense = keras.tree.map_structure(lambda part: part.to_tensor(), alone)
                of_row = keras.tree.map_structure(_dense, of_row)
                _assert_equal(of_row, block(dense), OTHER_ORDER)


def _dense(x):
    return x.to_tensor() if isinstance(x, tf.RaggedTensor) else x


@jit_cases
def test_a_dense_block_compiles_under_xla(case):
    model = _model(case)
    x = case.sample([3, 1, 4])
    compiled = tf.function(lambda x: model(x), jit_compile=True)
    _assert_equal(compiled(x), model(x), OTHER_ORDER)


@each_case
def test_mixed_precision_computes_in_float16(case):
    x = case.sample([3, 1, 4])
    full = _model(case)
    keras.config.set_dtype_policy("mixed_float16")
    half = _model(case)
    half.set_weights(full.get_weights())
    outputs = half(x)
    for symbol, real in zip(_parts(half.output), _parts(outputs), strict=True):
        assert symbol.dtype == real.dtype.name == "float16"
        assert symbol.ragged == isinstance(real, tf.RaggedTensor)
    _assert_equal(outputs, full(x), HALF)


@each_case
def test_the_gradient_is_that_of_finite_differences(case):
    keras.config.set_dtype_policy("float64")
    block = _block(case)
    _randomize(block)
    x = [_float64(part) for part in _parts(case.sample([3, 1, 2]))]
    values = [_values(part) for part in x if part.dtype.is_floating]
    weights = [weight.value for weight in block.trainable_weights]
    generator = np.random.default_rng(0)

    def loss():
        filled = iter(values)
        parts = [_with_values(part, next(filled)) if part.dtype.is_floating else part for part in x]
        outputs = block(parts if len(parts) > 1 else parts[0])
        flat = [_values(part) for part in _parts(outputs)]
        draw = np.random.default_rng(1)
        return sum(tf.reduce_sum(part * draw.normal(size=part.shape)) for part in flat)

    values = [tf.Variable(value) for value in values]
    points = [*weights, *values]
    assert points
    with tf.GradientTape() as tape:
        at_point = loss()
    for point, gradient in zip(points, tape.gradient(at_point, points), strict=True):
        direction = generator.normal(size=point.shape)
        slope = np.sum(np.asarray(tf.convert_to_tensor(gradient)) * direction)
        step = 1e-6 * direction
        point.assign_add(step)
        ahead = loss()
        point.assign_sub(2 * step)
        behind = loss()
        point.assign_add(step)
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=GRADIENT, atol=GRADIENT)


def _float64(x):
    return tf.cast(x, tf.float64) if x.dtype.is_floating else x


def _values(x):
    return x.values if isinstance(x, tf.RaggedTensor) else x


def _with_values(x, values):
    values = tf.convert_to_tensor(values)
    return x.with_values(values) if isinstance(x, tf.RaggedTensor) else values


@each_case
def test_fit_lowers_the_loss_and_trains_every_weight(case):
    model = _headed(case)
    model.compile(keras.optimizers.SGD(0.02, clipnorm=0.1), "mse")
    x, y = case.sample([3, 1, 4, 2]), np.array([[1.0], [-1.0], [0.5], [2.0]], "float32")
    before, loss = [np.array(weight) for weight in model.trainable_weights], _loss(model, x, y)
    if case.ragged:
        rows = tf.data.Dataset.from_tensor_slices((tuple(_parts(x)), y)).batch(4)
        rows = rows.map(lambda x, y: (x if len(x) > 1 else x[0], y))
        model.fit(rows, epochs=8, shuffle=False, verbose=0)
    else:
        model.fit(x, y, batch_size=4, epochs=8, verbose=0)
    assert _loss(model, x, y) < loss
    for weight, start in zip(model.trainable_weights, before, strict=True):
        assert np.any(np.asarray(weight) != start), weight.path


def _loss(model, x, y):
    return float(tf.reduce_mean((model(x) - y) ** 2))


@each_case
def test_a_seed_makes_the_same_weights_and_the_same_dropout(case):
    x = case.sample([3, 1, 4])
    outputs = []
    for _ in range(2):
        keras.utils.set_random_seed(11)
        outputs.append(_block(case)(x, **_training(case)))
    _assert_equal(outputs[0], outputs[1], 0)


def _training(case):
    return {"training": True} if _block(case)._call_has_training_arg else {}


LOADS_IN_A_FRESH_PROCESS = """
import pathlib, sys
import keras
import keras_blocks

folder, tests = sys.argv[1:]
sys.path.insert(0, tests)
import numpy, cases, test_every_block as same
models = {path.stem: keras.saving.load_model(path) for path in pathlib.Path(folder).glob("*.keras")}
for name, model in models.items():
    with numpy.load(f"{folder}/{name}.npz") as expected:
        arrays = [expected[key] for key in expected.files]
    same._assert_equal(same._arrays(model(cases.BY_NAME[name].sample([3, 1, 4]))), arrays, 1e-6)
    print(name)
"""


def test_a_fresh_process_loads_every_saved_block(tmp_path):
    for case in CASES:
        model = _model(case)
        model.save(tmp_path / f"{case.name}.keras")
        np.savez(tmp_path / f"{case.name}.npz", *_arrays(model(case.sample([3, 1, 4]))))
    arguments = [str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", LOADS_IN_A_FRESH_PROCESS, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(done.stdout.split()) == sorted(BY_NAME)
