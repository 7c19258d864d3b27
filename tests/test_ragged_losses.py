"""Keras's losses, metrics and weights on ragged outputs, beside NumPy and padded rows."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb
from keras_blocks import ragged_losses

CLASSES, WIDTH = 3, 4
UNEQUAL, EQUAL = [3, 0, 4, 1], [2, 2, 2]
CLOSE = 1e-5  # float32, sums in another order
EPSILON = 1e-7  # keras.config.epsilon()


def ragged(values, lengths):
    return tf.RaggedTensor.from_row_lengths(values, lengths)


@dataclass(frozen=True)
class Kind:
    """A way from rows to an output for each step: dense, padded with a mask, ragged, or a tree."""

    lengths: list[int]
    is_ragged: bool
    inputs: list
    outputs: object
    x: list

    def rows(self, steps):
        """The values of all steps in the form that the model's output has."""
        rows = ragged(steps, self.lengths)
        return rows if self.is_ragged else rows.to_tensor()

    def steps(self, rows):
        rows = rows if self.is_ragged else tf.RaggedTensor.from_tensor(rows, self.lengths)
        return rows.values.numpy()

    def weights(self, of):
        """No weights, one for each row, or one for each step; and as one for each step."""
        if of == "none":
            return None, np.ones(sum(self.lengths), "float32")
        if of == "row":
            rows = np.arange(1, 1 + len(self.lengths), dtype="float32")
            return rows if self.is_ragged else rows[:, None], np.repeat(rows, self.lengths)
        steps = np.arange(sum(self.lengths), dtype="float32") % 3
        return self.rows(steps), steps


def scores(x, classes=CLASSES, activation="hard_sigmoid"):
    # Keras looks behind a softmax or sigmoid for its logits, whatever the loss.
    return kb.Vanilla(classes, activation=activation)(kb.GRU(5, return_sequences=True)(x))


def kind_of(name, activation="hard_sigmoid", classes=CLASSES):
    lengths = EQUAL if name == "dense" else UNEQUAL
    features = np.random.default_rng(0).normal(size=(sum(lengths), WIDTH)).astype("float32")
    rows = ragged(features, lengths)
    x = keras.Input((None, WIDTH), ragged=name in ("ragged", "tree"))
    if name == "tree":
        parents = keras.Input((None,), dtype="int32", ragged=True)
        cell = kb.ChildSumTreeLSTMCell(5)
        nodes = kb.TreeRecursive(cell, return_nodes=True)([x, parents])
        up = ragged(np.array([-1, 0, 0, 1, 2, -1, 0, -1], "int32"), lengths)
        outputs = kb.Vanilla(classes, activation=activation)(nodes)
        return Kind(lengths, True, [x, parents], outputs, [rows, up])
    if name == "ragged":
        return Kind(lengths, True, x, scores(x, classes, activation), rows)
    first = keras.layers.Masking()(x) if name == "masked" else x
    return Kind(lengths, False, x, scores(first, classes, activation), rows.to_tensor())


def shares(p):
    return np.clip(p / p.sum(-1, keepdims=True), EPSILON, 1 - EPSILON)


def binary(y, p):
    p = np.clip(p, EPSILON, 1 - EPSILON)
    return -y * np.log(p) - (1 - y) * np.log(1 - p)


def focal(y, p):
    return binary(y, p) * (1 - (y * p + (1 - y) * (1 - p))) ** 2


def true_class(y, p):
    return np.take_along_axis(p, y[:, None], -1)[:, 0]


def unit(v):
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def hinge_of_classes(y, p):
    return np.maximum(0, 1 + ((1 - y) * p).max(-1) - (y * p).sum(-1))


def overlap(y, p):
    """One number for all steps."""
    return np.repeat(1 - 2 * (y * p).sum() / (y.sum() + p.sum()), len(y))


def huber(e):
    return np.where(e <= 1, e**2 / 2, e - 0.5)


# The loss of each step, from labels (steps, classes) or classes (steps,).
FORMULAS = {
    "BinaryCrossentropy": lambda y, p: binary(y, p).mean(-1),
    "BinaryFocalCrossentropy": lambda y, p: focal(y, p).mean(-1),
    "CategoricalCrossentropy": lambda y, p: -(y * np.log(shares(p))).sum(-1),
    "CategoricalFocalCrossentropy": lambda y, p: (
        -(0.25 * (1 - shares(p)) ** 2 * y * np.log(shares(p))).sum(-1)
    ),
    "CategoricalGeneralizedCrossEntropy": lambda y, p: (1 - true_class(y, p) ** 0.5) / 0.5,
    "CategoricalHinge": hinge_of_classes,
    "CosineSimilarity": lambda y, p: -(unit(y) * unit(p)).sum(-1),
    "Dice": overlap,
    "Hinge": lambda y, p: np.maximum(0, 1 - y * p).mean(-1),
    "Huber": lambda y, p: huber(abs(y - p)).mean(-1),
    "KLDivergence": lambda y, p: (y * np.log(y / np.clip(p, EPSILON, 1))).sum(-1),
    "LogCosh": lambda y, p: np.log(np.cosh(p - y)).mean(-1),
    "MeanAbsoluteError": lambda y, p: abs(y - p).mean(-1),
    "MeanAbsolutePercentageError": lambda y, p: 100 * (abs(y - p) / y).mean(-1),
    "MeanSquaredError": lambda y, p: ((y - p) ** 2).mean(-1),
    "MeanSquaredLogarithmicError": lambda y, p: (np.log((1 + y) / (1 + p)) ** 2).mean(-1),
    "Poisson": lambda y, p: (p - y * np.log(p + EPSILON)).mean(-1),
    "SparseCategoricalCrossentropy": lambda y, p: -np.log(true_class(y, shares(p))),
    "SquaredHinge": lambda y, p: (np.maximum(0, 1 - y * p) ** 2).mean(-1),
    "Tversky": overlap,
}
OF_CLASSES = {"CategoricalGeneralizedCrossEntropy", "SparseCategoricalCrossentropy"}
# Of whole rows, and of all pairs of steps: they have tests of their own.
OTHERS = {"CTC", "Circle"}


def labels_of(name, steps):
    generator = np.random.default_rng(1)
    if name in OF_CLASSES:
        return generator.integers(0, CLASSES, steps).astype("int32")
    return generator.uniform(0.1, 0.9, (steps, CLASSES)).astype("float32")


def test_the_table_has_every_loss_of_keras():
    found = {
        name
        for name, loss in vars(keras.losses).items()
        if isinstance(loss, type) and issubclass(loss, keras.Loss) and loss is not keras.Loss
    }
    assert found == FORMULAS.keys() | OTHERS


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("dense", "row"),
        ("masked", "step"),
        ("ragged", "none"),
        ("ragged", "row"),
        ("ragged", "step"),
        ("tree", "step"),
    ],
)
def test_every_loss_fits_and_evaluates_as_its_formula_over_all_steps(name, weights):
    kind = kind_of(name)
    # These two of Keras add up padded steps too, whatever the mask.
    names = FORMULAS.keys() - ({"Dice", "Tversky"} if name == "masked" else set())
    model = keras.Model(kind.inputs, dict.fromkeys(names, kind.outputs))
    losses = {loss: getattr(keras.losses, loss)() for loss in names}
    model.compile(keras.optimizers.SGD(1e-3), losses)
    given, of_steps = kind.weights(weights)
    y = {loss: labels_of(loss, sum(kind.lengths)) for loss in names}
    given = None if given is None else dict.fromkeys(names, given)
    data = kind.x, {loss: kind.rows(labels) for loss, labels in y.items()}

    def expected():
        outputs = kind.steps(model(kind.x)["Huber"]).astype("float64")
        of_loss = {loss: f(y[loss], outputs) for loss, f in FORMULAS.items() if loss in names}
        return {loss: np.mean(of_steps * found) for loss, found in of_loss.items()}

    with tf.GradientTape() as tape:
        outputs = model(kind.x)["Huber"]
        if kind.is_ragged:
            outputs = outputs.values
        else:
            outputs = tf.boolean_mask(outputs, tf.sequence_mask(kind.lengths))
        total = sum(losses[loss](y[loss], outputs, of_steps) for loss in names)
    gradients = tape.gradient(total, model.trainable_variables)
    starts = model.get_weights()

    def check(found, wanted):
        for loss, value in wanted.items():
            assert found[f"{loss}_loss"] == pytest.approx(value, rel=1e-4, abs=CLOSE), loss
        assert found["loss"] == pytest.approx(sum(wanted.values()), rel=1e-4)

    before = expected()
    history = model.fit(*data, sample_weight=given, verbose=0).history
    check({key: value for key, (value,) in history.items()}, before)
    check(model.evaluate(*data, sample_weight=given, verbose=0, return_dict=True), expected())
    for weight, start, gradient in zip(model.get_weights(), starts, gradients, strict=True):
        np.testing.assert_allclose(weight, start - 1e-3 * gradient, rtol=1e-4, atol=CLOSE)


# Labels and weights of other kinds


def ragged_model(activation=None, classes=CLASSES):
    kind = kind_of("ragged", activation, classes)
    return keras.Model(kind.inputs, kind.outputs), kind


def log_shares(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_labels_to_ignore_do_not_count():
    model, kind = ragged_model()
    classes = np.array([0, -1, 2, 1, -1, 0, 2, 1], "int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile("sgd", loss)
    known = classes >= 0
    log = log_shares(model(kind.x).values.numpy())
    wanted = -np.mean(log[known, classes[known]])
    assert model.evaluate(kind.x, kind.rows(classes), verbose=0) == pytest.approx(wanted, CLOSE)


@pytest.mark.parametrize("form", ["classes", "one-hot", "nested"])
@pytest.mark.parametrize("way", ["arrays", "dataset", "batch"])
def test_class_weights_weigh_each_step_by_its_own_class(way, form):
    model, kind = ragged_model()
    classes = np.array([0, 1, 2, 1, 3, 0, 2, 1], "int32") % CLASSES
    y, loss = kind.rows(classes), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if form != "classes":
        y = kind.rows(np.eye(CLASSES, dtype="float32")[classes])
        y = tf.ragged.constant(y.to_list(), "float32") if form == "nested" else y
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=way == "arrays")
    weights = {0: 0.5, 2: 3.0}
    log = log_shares(model(kind.x).values.numpy())[range(8), classes]
    wanted = -np.mean(np.array([0.5, 1.0, 3.0])[classes] * log)
    if way == "batch":
        found = model.train_on_batch(kind.x, y, class_weight=weights)
    else:
        data = (kind.x, y)
        if way == "dataset":
            data = (tf.data.Dataset.from_tensor_slices(data).batch(4),)
        history = model.fit(*data, class_weight=weights, shuffle=False, verbose=0).history
        (found,) = history["loss"]
    assert found == pytest.approx(wanted, rel=CLOSE)


def test_dense_and_ragged_outputs_share_the_weights_of_rows():
    kind = kind_of("ragged", None, 1)
    last = keras.layers.Dense(1)(kb.GRU(4)(kind.inputs))
    model = keras.Model(kind.inputs, {"steps": kind.outputs, "last": last})
    model.compile("sgd", "mse", weighted_metrics={"steps": ["mae"], "last": ["mae"]})
    weights = np.array([1.0, 2.0, 0.0, 4.0], "float32")
    y = {"steps": kind.rows(np.ones((8, 1), "float32")), "last": np.zeros((4, 1), "float32")}
    found = model.evaluate(kind.x, y, sample_weight=weights, verbose=0, return_dict=True)
    outputs = model(kind.x)
    steps, of_steps = outputs["steps"].values.numpy()[:, 0], np.repeat(weights, UNEQUAL)
    ends = outputs["last"].numpy()[:, 0]
    assert found["steps_loss"] == pytest.approx(np.mean(of_steps * (steps - 1) ** 2), rel=CLOSE)
    assert found["last_loss"] == pytest.approx(np.mean(weights * ends**2), rel=CLOSE)
    mean = np.average(abs(steps - 1), weights=of_steps)
    assert found["steps_mae"] == pytest.approx(mean, rel=CLOSE)
    assert found["last_mae"] == pytest.approx(np.average(abs(ends), weights=weights), rel=CLOSE)


def test_an_output_may_be_a_number_for_each_step():
    x = keras.Input((None, 4), ragged=True)
    summed = keras.layers.Lambda(
        lambda rows: rows.with_values(tf.reduce_sum(rows.values, -1)), output_shape=(None,)
    )
    rows = kind_of("ragged").x
    model = keras.Model(x, summed(x))
    model.compile("sgd", "mse", weighted_metrics=["mae"])
    weights = rows.with_values(np.arange(8.0, dtype="float32"))
    y = rows.with_values(np.ones(8, "float32"))
    loss, mae = model.evaluate(rows, y, sample_weight=weights, verbose=0)
    error = rows.values.numpy().sum(-1) - 1
    assert loss == pytest.approx(np.mean(np.arange(8) * error**2), rel=CLOSE)
    assert mae == pytest.approx(np.average(abs(error), weights=np.arange(8)), rel=CLOSE)


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
def test_a_batch_of_empty_rows_costs_nothing(eager):
    model, _ = ragged_model()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["acc"], run_eagerly=eager)
    x, y = ragged(np.zeros((0, WIDTH), "float32"), [0, 0]), ragged(np.zeros(0, "int32"), [0, 0])
    before = model.get_weights()
    assert model.fit(x, y, verbose=0).history == {"loss": [0.0], "acc": [0.0]}
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_mask_of_ragged_rows_leaves_steps_out():
    y_pred = ragged(np.array([[1.0], [2.0], [4.0]], "float32"), [2, 1])
    y_pred._keras_mask = ragged([True, False, True], [2, 1])
    y_true = y_pred.with_values(np.zeros((3, 1), "float32"))
    assert float(keras.losses.MeanSquaredError()(y_true, y_pred)) == pytest.approx((1 + 16) / 2)


def test_without_a_reduction_each_step_has_its_loss():
    y_pred = ragged(np.array([[1.0], [2.0], [4.0]], "float32"), [2, 1])
    y_true = y_pred.with_values(np.zeros((3, 1), "float32"))
    loss = keras.losses.MeanSquaredError(reduction="none")
    assert loss(y_true, y_pred, np.array([1.0, 2.0])).numpy().tolist() == [1.0, 4.0, 32.0]


def paths_to(row, classes, steps):
    """All ways to write a row of classes in so many steps, with blanks and repetitions."""
    for path in np.ndindex(*[classes] * steps):
        merged = [c for c, before in zip(path, (None, *path), strict=False) if c != before]
        if [c for c in merged if c != 0] == row:
            yield path


def test_ctc_is_that_of_each_row_alone():
    logits = np.random.default_rng(2).normal(size=(8, CLASSES)).astype("float32")
    y_pred, labels = ragged(logits, [3, 4, 1]), [[1], [2, 2], []]
    log = [log_shares(row) for row in y_pred.to_list() for row in [np.array(row)]]
    alone = [
        -np.log(sum(np.exp(row[range(len(row)), path].sum()) for path in paths))
        for row, paths in (
            (row, paths_to(wanted, CLASSES, len(row)))
            for row, wanted in zip(log, labels, strict=True)
        )
    ]
    weights = np.array([1.0, 2.0, 0.5], "float32")
    for y_true in tf.ragged.constant(labels), tf.constant([[1, 0], [2, 2], [0, 0]]):
        found = keras.losses.CTC()(y_true, y_pred, weights)
        assert float(found) == pytest.approx(np.mean(weights * alone), rel=1e-4)


def test_circle_compares_the_steps_of_all_rows():
    y_pred = ragged(unit(np.random.default_rng(3).normal(size=(8, 4))).astype("float32"), UNEQUAL)
    y_true = y_pred.with_values(np.array([0, 1, 0, 1, 2, 2, 0, 1], "int32"))
    loss = keras.losses.Circle()
    assert float(loss(y_true, y_pred)) == float(loss(y_true.values, y_pred.values))


# Metrics

ARGUMENTS = {
    "IoU": {"num_classes": 3, "target_class_ids": [0, 1], "sparse_y_pred": False},
    "MeanIoU": {"num_classes": 3, "sparse_y_pred": False},
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [0, 1]},
    "OneHotMeanIoU": {"num_classes": 3},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "TopKCategoricalAccuracy": {"k": 2},
    "SparseTopKCategoricalAccuracy": {"k": 2},
}
NOT_OF_OUTPUTS = {"Mean", "MeanMetricWrapper", "Metric", "Sum"}
METRICS = sorted(
    name
    for name, metric in vars(keras.metrics).items()
    if isinstance(metric, type) and issubclass(metric, keras.Metric) and name not in NOT_OF_OUTPUTS
)


def metric_of(name):
    return getattr(keras.metrics, name)(**ARGUMENTS.get(name, {}), name=name)


@pytest.mark.filterwarnings("ignore:You are passing weight as `float`")
@pytest.mark.parametrize("weights", ["none", "row", "step"])
def test_every_metric_is_that_of_all_steps(weights):
    kind = kind_of("ragged")
    # The weights of BinaryIoU are those of single numbers, in Keras too.
    names = [name for name in METRICS if weights == "none" or name != "BinaryIoU"]
    model = keras.Model(kind.inputs, dict.fromkeys(names, kind.outputs))
    of_metric = {name: [metric_of(name)] for name in names}
    no_loss = [lambda y, outputs: tf.zeros(1)] * len(names)
    model.compile("sgd", no_loss, weighted_metrics=of_metric, run_eagerly=True)
    given, of_steps = kind.weights(weights)
    y = {}
    for name in names:
        generator = np.random.default_rng(4)
        sparse = name.startswith("Sparse") or name in ("IoU", "MeanIoU")
        classes = generator.integers(0, CLASSES, sum(kind.lengths))
        y[name] = classes if sparse else np.eye(CLASSES, dtype="float32")[classes]
    given = None if given is None else dict.fromkeys(names, given)
    data = kind.x, {name: kind.rows(labels) for name, labels in y.items()}
    found = model.evaluate(*data, sample_weight=given, verbose=0, return_dict=True)
    outputs = model(kind.x)[names[0]].values
    for name in names:
        alone = metric_of(name)
        alone.update_state(y[name], outputs, None if weights == "none" else of_steps)
        np.testing.assert_allclose(
            found[f"{name}_{name}"], alone.result(), rtol=CLOSE, err_msg=name
        )


def test_accuracy_is_of_the_classes_that_the_shapes_tell():
    model, kind = ragged_model("softmax")
    classes = np.array([0, 1, 2, 1, 0, 0, 2, 1], "int32")
    right = model(kind.x).values.numpy().argmax(-1) == classes
    model.compile(
        "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["acc"]
    )
    weights = np.array([1.0, 7.0, 2.0, 4.0], "float32")
    found = model.evaluate(
        kind.x, kind.rows(classes), sample_weight=weights, verbose=0, return_dict=True
    )
    assert found["accuracy"] == pytest.approx(right.mean())
    weighted = np.average(right, weights=np.repeat(weights, UNEQUAL))
    assert found["acc"] == pytest.approx(weighted)


# In a model that is saved, over several batches, and of one's own


def test_a_saved_model_goes_on_with_its_loss_and_metrics(tmp_path):
    kind = kind_of("tree", "softmax")
    model = keras.Model(kind.inputs, kind.outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    y = kind.rows(np.array([1, 0, -1, 2, 1, 0, 2, 2], "int32"))
    losses = model.fit(kind.x, y, batch_size=2, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    given = {"batch_size": 3, "verbose": 0}
    assert loaded.evaluate(kind.x, y, **given) == model.evaluate(kind.x, y, **given)
    assert loaded.fit(kind.x, y, **given).history["loss"][0] < losses[-1]


def test_a_loss_of_ones_own_gets_the_ragged_tensors_and_may_give_one_number_a_step():
    model, kind = ragged_model()
    y = kind.rows(np.ones((8, CLASSES), "float32"))
    weights = np.array([1.0, 7.0, 2.0, 4.0], "float32")
    error = (model(kind.x).values.numpy() - 1) ** 2

    def evaluate(loss, weights=None):
        model.compile("sgd", loss)
        return model.evaluate(kind.x, y, sample_weight=weights, verbose=0)

    of_steps = np.repeat(weights, UNEQUAL) * error.mean(-1)
    per_step = evaluate(lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1), weights)
    assert per_step == pytest.approx(of_steps.mean(), rel=CLOSE)
    whole = evaluate(lambda y, p: tf.reduce_sum((y.values - p.values) ** 2))
    assert whole == pytest.approx(error.sum(), rel=CLOSE)
    weights = kind.rows(np.arange(8.0, dtype="float32"))
    flat = evaluate(lambda y, p: keras.losses.mean_squared_error(y.values, p.values), weights)
    assert flat == pytest.approx(np.mean(np.arange(8) * error.mean(-1)), rel=CLOSE)


# What is refused


@pytest.mark.parametrize(
    ("y", "weights", "loss", "told"),
    [
        (np.zeros((4, 4, 3), "float32"), None, "mse", "y_true must be ragged too"),
        ("right", np.ones((4, 4), "float32"), "mse", r"sample_weight must be one weight for each"),
        ("right", None, keras.losses.CosineSimilarity(axis=1), "axis=1 .* axis=-1"),
        ("right", None, keras.losses.Dice(axis=(1, 2)), "axis=1 .* axis=-1"),
    ],
    ids=["dense labels", "padded weights", "axis", "axes"],
)
def test_what_does_not_fit_a_ragged_output_is_named(y, weights, loss, told):
    model, kind = ragged_model()
    y = kind.rows(np.zeros((8, CLASSES), "float32")) if isinstance(y, str) else y
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=told):
        model.fit(kind.x, y, sample_weight=weights, verbose=0)


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
def test_rows_of_other_lengths_are_refused_though_their_steps_add_up(eager):
    model, kind = ragged_model()
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=eager)
    y = ragged(np.zeros(8, "int32"), UNEQUAL[::-1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="y_true has rows of other lengths"):
        model.fit(kind.x, y, verbose=0)


def test_vectors_of_other_sizes_are_refused():
    y_pred = ragged(np.zeros((2, 3), "float32"), [2])
    y_true = tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="y_true has vectors of other sizes"):
        keras.losses.MeanSquaredError()(y_true, y_pred)


# Where nothing is ragged


def test_without_ragged_outputs_keras_gets_what_it_always_got():
    got = []

    def original(*arguments):
        got.append(arguments)
        return "given back"

    dense, weights = np.zeros((2, 3)), np.ones(2)
    for replacement in ragged_losses.call_loss, ragged_losses.update_metrics:
        assert replacement(original, "self", dense, dense, weights) == "given back"
        assert replacement(original, "self", dense, dense) == "given back"
    assert got == [("self", dense, dense, weights), ("self", dense, dense, None)] * 2
    assert ragged_losses.weigh_classes(original, dense, {0: 1.0}) == "given back"
    assert got[-1] == (dense, {0: 1.0})
    batches = ragged_losses.weigh_classes_of_batches(lambda _: original, {0: 1.0})
    assert batches(dense, dense) == "given back"
