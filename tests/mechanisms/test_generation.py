"""A step fed with its own output, beside NumPy that takes one row and one step at a time."""

import itertools

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export import export_onnx
from keras_blocks.mechanisms.symbol_choice import best, uniform_numbers

SYMBOLS, WIDTH, UNITS, LONGEST, STOP = 12, 4, 6, 9, 3
START = np.array([1, 2, 5, 7, 2, 11], "int32")
SEED = np.array([0, 1, 2, -3, 2**40, 1], "int64")
CLOSE = 1e-4  # sums of some ten logs of float32

WAYS = {
    "greedy": {"method": "greedy"},
    "sample": {"method": "sample"},
    "cold": {"method": "sample", "temperature": 0.3},
    "top_k": {"method": "sample", "top_k": 3},
    "top_p": {"method": "sample", "top_p": 0.6},
    "top_k and top_p": {"method": "sample", "top_k": 5, "top_p": 0.9, "temperature": 2.0},
    "beam": {"method": "beam", "beam_width": 3},
    "beam of means": {"method": "beam", "beam_width": 3, "length_penalty": 1.0},
    "one beam": {"method": "beam", "beam_width": 1},
    "beam without a stop": {"method": "beam", "beam_width": 3, "stop": None},
    "greedy without a stop": {"method": "greedy", "stop": None},
}


def writer(step=None, **settings):
    """A generation with weights that are not small."""
    layers = kb.Embedding(SYMBOLS, WIDTH), kb.Vanilla(SYMBOLS, activation=None)
    settings = {"stop": STOP, "max_length": LONGEST, "return_scores": True, **settings}
    layer = kb.Generation(step or kb.GRUCell(UNITS), *layers, **settings)
    layer.build((None,))
    generator = np.random.default_rng(6)
    for weight in layer.weights:
        weight.assign(generator.normal(size=weight.shape))
    # So that some rows end early and some do not.
    bias = layer.scores.weights[-1]
    bias.assign(bias + 2.0 * np.eye(SYMBOLS)[STOP])
    return layer


def run(layer, start=START, **given):
    given = {"seed": SEED, **given} if layer.method == "sample" else given
    rows, scores = layer(start, **given)
    return rows.to_list(), scores.numpy()


# The reference: one row, one step, plain numbers


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(weights, x, h):
    """The formula of the guide."""
    kernel, recurrent, bias = weights
    z, r = np.split(
        sigmoid(x @ kernel[:, : 2 * UNITS] + h @ recurrent[:, : 2 * UNITS] + bias[: 2 * UNITS]), 2
    )
    proposal = np.tanh(
        x @ kernel[:, 2 * UNITS :] + (r * h) @ recurrent[:, 2 * UNITS :] + bias[2 * UNITS :]
    )
    return (1 - z) * h + z * proposal


def log_shares(scores):
    return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()


def mix(x):
    for factor in (0x7FEB352D, 0x2C1B3C6D, 0x297A2D39):
        high, low = divmod(x, 2**16)
        x = (low * 2**16 + (high + low * low // 2**9) % 2**16) * factor % 2**32
    return x


def uniform(seed, step):
    place = (mix(int(seed) % 2**32) + (step + 1) * 0x9E3779B9) % 2**32
    return (mix(place) >> 8) / 2**24


def drawn(scores, number, temperature, top_k, top_p):
    order = np.arange(len(scores))
    if top_k or top_p:
        order = np.argsort(-scores, kind="stable")[:top_k]
    shares = np.exp(log_shares(scores[order] / temperature))
    if top_p:
        shares = shares[: np.searchsorted(np.cumsum(shares), top_p) + 1]
    return order[np.searchsorted(np.cumsum(shares), number * shares.sum(), side="right")]


class Reference:
    """What a generation should give."""

    def __init__(self, layer):
        self.layer = layer
        self.cell = [weight.numpy().astype("float64") for weight in layer.step.weights]
        self.table = layer.embedding.weights[0].numpy().astype("float64")
        self.head = [weight.numpy().astype("float64") for weight in layer.scores.weights]

    def step(self, symbol, h):
        h = gru(self.cell, self.table[symbol], h)
        return h @ self.head[0] + self.head[1], h

    def row(self, symbol, h, seed):
        layer, symbols, total = self.layer, [], 0.0
        for t in range(layer.max_length):
            scores, h = self.step(symbol, h)
            symbol = int(scores.argmax())
            if layer.method == "sample":
                settings = layer.temperature, layer.top_k, layer.top_p
                symbol = int(drawn(scores, uniform(seed, t), *settings))
            total += log_shares(scores)[symbol]
            if symbol == layer.stop:
                break
            symbols.append(symbol)
        return symbols, total

    def best_row(self, symbol, h):
        layer, kept = self.layer, [(0.0, [], symbol, h, False)]
        for _ in range(layer.max_length):
            after = []
            for total, symbols, last, state, done in kept:
                if done:
                    after.append((total, symbols, last, state, True))
                    continue
                scores, state = self.step(last, state)
                for chosen, share in enumerate(log_shares(scores)):
                    ends = chosen == layer.stop
                    after.append(
                        (total + share, symbols + [chosen] * (not ends), chosen, state, ends)
                    )
            kept = sorted(after, key=lambda row: -row[0])[: layer.beam_width]
        length = [len(symbols) + done for _, symbols, _, _, done in kept]
        judged = [row[0] / n**layer.length_penalty for row, n in zip(kept, length, strict=True)]
        total, symbols, *_ = kept[int(np.argmax(judged))]
        return symbols, total

    def run(self, states):
        if self.layer.method == "beam":
            found = [self.best_row(*row) for row in zip(START, states, strict=True)]
        else:
            found = [self.row(*row) for row in zip(START, states, SEED, strict=True)]
        rows, scores = zip(*found, strict=True)
        return list(rows), scores


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "state"])
def test_it_equals_a_decode_of_one_row_and_step_at_a_time(way, given):
    layer = writer(**WAYS[way])
    states = np.zeros((len(START), UNITS), "float32")
    if given:
        states = np.random.default_rng(1).normal(size=states.shape).astype("float32")
    rows, scores = run(layer, **({"initial_state": states} if given else {}))
    wanted, wanted_scores = Reference(layer).run(states)
    assert rows == wanted
    np.testing.assert_allclose(scores, wanted_scores, rtol=CLOSE, atol=CLOSE)
    lengths = {len(row) for row in rows}
    assert (lengths == {LONGEST}) == (layer.stop is None)
    assert len(lengths) > 1 or layer.stop is None


def test_a_beam_of_all_rows_finds_the_best_of_all():
    layer = writer(method="beam", beam_width=SYMBOLS**2, max_length=3, stop=None)
    reference = Reference(layer)
    (rows, scores) = run(layer, START[:2])
    for start, row, score in zip(START[:2], rows, scores, strict=True):
        totals = {}
        for symbols in itertools.product(range(SYMBOLS), repeat=3):
            total, h = 0.0, np.zeros(UNITS)
            for before, symbol in zip((start, *symbols), symbols, strict=False):
                shares, h = reference.step(before, h)
                total += log_shares(shares)[symbol]
            totals[symbols] = total
        assert row == list(max(totals, key=totals.get))
        assert score == pytest.approx(max(totals.values()), rel=CLOSE)


def test_a_row_is_what_it_would_be_alone():
    for way in "greedy", "top_k and top_p", "beam of means":
        layer = writer(**WAYS[way])
        rows, scores = run(layer)
        for i in range(len(START)):
            given = {"seed": SEED[i : i + 1]} if layer.method == "sample" else {}
            alone, score = run(layer, START[i : i + 1], **given)
            assert alone == [rows[i]]
            np.testing.assert_allclose(score, scores[i : i + 1], rtol=CLOSE)


def test_rows_that_begin_alike_differ_by_their_seeds():
    rows, _ = run(writer(method="sample", stop=None), np.array([2, 2, 2]), seed=np.array([1, 2, 1]))
    assert rows[0] == rows[2] != rows[1]


def test_no_rows_give_no_rows():
    for way in "greedy", "sample", "beam":
        layer = writer(**WAYS[way])
        rows, scores = run(layer, START[:0], **({"seed": SEED[:0]} if way == "sample" else {}))
        assert (rows, scores.shape) == ([], (0,))


def test_the_uniform_numbers_are_those_of_plain_integers():
    numbers = uniform_numbers(SEED, 50).numpy()
    wanted = [[uniform(seed, t) for t in range(50)] for seed in SEED]
    np.testing.assert_array_equal(numbers, np.array(wanted, "float32"))
    np.testing.assert_array_equal(uniform_numbers(SEED, 7), numbers[:, :7])


def test_the_uniform_numbers_fill_the_unit_interval_and_neighbours_are_independent():
    numbers = uniform_numbers(np.arange(2000), 50).numpy()
    cells = np.bincount((numbers.ravel() * 100).astype(int), minlength=100)
    expected = numbers.size / 100
    # Chi squared of 99 degrees of freedom: its mean is 99 and 5 deviations are 70.
    assert ((cells - expected) ** 2 / expected).sum() < 170
    few = 4 / np.sqrt(numbers.size)
    neighbours = [
        (numbers[:-1], numbers[1:]),
        (numbers[:, :-1], numbers[:, 1:]),
        (numbers[:-1, :-1], numbers[1:, 1:]),
        (numbers[: -(2**8)], numbers[2**8 :]),
    ]
    for left, right in neighbours:
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < few
        pairs = np.histogram2d(left.ravel(), right.ravel(), 10, [[0, 1], [0, 1]])[0]
        assert ((pairs - left.size / 100) ** 2 / (left.size / 100)).sum() < 170


@pytest.mark.parametrize("size", [1, 511, 600, 521 * 2, 2000])
def test_the_best_symbol_is_the_first_of_the_highest_scores(size):
    scores = np.random.default_rng(0).integers(0, 50, (20, size)).astype("float32")
    np.testing.assert_array_equal(best(scores), scores.argmax(-1))


def test_what_is_drawn_has_the_shares_of_the_softmax():
    layer = writer(method="sample", max_length=1, stop=None)
    many = 20_000
    rows, _ = run(layer, np.full(many, 5, "int32"), seed=np.arange(many))
    scores, _ = Reference(layer).step(5, np.zeros(UNITS))
    counted = np.bincount(np.ravel(rows), minlength=SYMBOLS) / many
    np.testing.assert_allclose(counted, np.exp(log_shares(scores)), atol=4 * 0.5 / np.sqrt(many))


STEPS = {
    "lstm": lambda: kb.LSTMCell(UNITS),
    "stacked": lambda: [keras.layers.LSTMCell(5), kb.GRUCell(UNITS)],
    "layer": lambda: kb.Stacked([kb.Vanilla(7), kb.Vanilla(UNITS)]),
}


@pytest.mark.parametrize("name", STEPS)
def test_every_kind_of_step_is_unfolded(name):
    layer = writer(STEPS[name](), method="greedy", stop=None, max_length=4)
    rows, _ = run(layer)
    # The same symbols come out of a recurrence over what was generated.
    step = layer.step.layer if name == "layer" else layer.step
    loop = keras.layers.RNN(step, return_sequences=True) if name != "layer" else None
    loop = loop or kb.Recurrence(step, return_sequences=True)
    before = np.concatenate([START[:, None], np.array(rows)[:, :-1]], axis=1)
    scores = layer.scores(loop(layer.embedding(before)))
    assert np.argmax(scores, -1).tolist() == rows


def translation(method="greedy", **settings):
    """A model from ragged rows to their translation, and the one that trains its layers."""
    words, scores = kb.Embedding(SYMBOLS, 16), kb.Vanilla(SYMBOLS, activation=None)
    decoder = kb.LSTM(32, return_sequences=True)
    source = keras.Input((None,), dtype="int32", ragged=True, name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    start = keras.Input((), dtype="int32", name="start")
    _, *states = kb.LSTM(32, return_state=True)(kb.Embedding(SYMBOLS, 16)(source))
    trainer = keras.Model([source, target], scores(decoder(words(target), initial_state=states)))
    layer = kb.Generation(decoder.cell, words, scores, 6, stop=0, method=method, **settings)
    return trainer, keras.Model([source, start], layer(start, initial_state=states))


def test_an_encoder_gives_its_state_to_a_decoder_that_was_trained_by_a_recurrence(tmp_path):
    trainer, translator = translation()
    generator = np.random.default_rng(0)
    rows = [generator.integers(2, 6, generator.integers(1, 4)).tolist() for _ in range(256)]
    source = tf.ragged.constant(rows, dtype="int32")
    # Each row backwards, the start in front of it and the stop behind it.
    answers = tf.ragged.constant([[*row[::-1], 0] for row in rows], dtype="int32").to_tensor()
    asked = np.concatenate([np.ones((256, 1), "int32"), answers[:, :-1]], axis=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.Adam(0.02), loss)
    trainer.fit([source, asked], answers, epochs=25, verbose=0)
    given = [source, np.ones(256, "int32")]
    found = translator.predict(given, verbose=0).to_list()
    right = np.mean([row == was[::-1] for row, was in zip(found, rows, strict=True)])
    assert right > 0.95
    translator.save(tmp_path / "translator.keras")
    loaded = keras.saving.load_model(tmp_path / "translator.keras")
    assert loaded.predict(given, verbose=0).to_list() == found


# Exported


@pytest.mark.parametrize("way", ["greedy", "top_k and top_p", "beam of means"])
def test_the_exported_file_is_one_loop_and_gives_every_symbol(way, tmp_path):
    layer = writer(**WAYS[way])
    start = keras.Input((), dtype="int32", name="start")
    state = keras.Input((UNITS,), name="state")
    seed = keras.Input((), dtype="int64", name="seed")
    given = {"seed": seed} if layer.method == "sample" else {}
    model = keras.Model(
        {"start": start, "state": state, **given}, layer(start, initial_state=state, **given)
    )
    result = export_onnx(model, tmp_path / "writer.onnx", verify="fast")
    assert result.parity.ok
    nodes = onnx.load(result.filepath).graph.node
    assert [node.op_type for node in nodes].count("Loop") == 1
    session = onnxruntime.InferenceSession(result.filepath)
    states = np.random.default_rng(1).normal(size=(len(START), UNITS)).astype("float32")
    feed = {"start": START, "state": states, **({"seed": SEED} if given else {})}
    symbols, splits, scores = session.run(None, feed)
    wanted, wanted_scores = Reference(layer).run(states)
    rows = np.split(symbols, splits[1:-1])
    assert [row.tolist() for row in rows] == wanted
    np.testing.assert_allclose(scores, wanted_scores, rtol=CLOSE, atol=CLOSE)


# Stored, and refused


def test_it_is_stored_with_its_layers():
    layer = writer([kb.GRUCell(5), kb.GRUCell(UNITS)], **WAYS["top_k and top_p"])
    again = kb.Generation.from_config(layer.get_config())
    again.build((None,))
    again.set_weights(layer.get_weights())
    assert run(again)[0] == run(layer)[0]
    assert again.get_config().keys() == layer.get_config().keys()


def test_half_precision_gives_rows_too():
    keras.config.set_dtype_policy("mixed_float16")
    rows, scores = run(writer(**WAYS["beam"]))
    assert len(rows) == len(START)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_length": 0}, r"max_length must be at least 1\. Received: max_length=0"),
        ({"method": "nucleus"}, r"method must be one of .*'beam'.*Received: method='nucleus'"),
        ({"temperature": 0.0}, r"temperature must be above 0 \(method='greedy'"),
        ({"top_k": 0}, r"top_k must be at least 1"),
        ({"top_p": 1.5}, r"top_p must be above 0 and at most 1"),
        ({"beam_width": 0}, r"beam_width must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, told):
    with pytest.raises(ValueError, match=told):
        writer(**settings)


def test_what_cannot_be_called_is_named():
    with pytest.raises(ValueError, match="needs a seed for each row"):
        writer(method="sample")(START)
    with pytest.raises(ValueError, match=r"initial_state must have .*\(None, 6\).*\(6, 5\)"):
        writer()(START, initial_state=np.zeros((6, 5), "float32"))
    with pytest.raises(ValueError, match=r"of shape \(batch,\)"):
        writer()(START[:, None])
    with pytest.raises(TypeError, match="`scores` must be a Keras layer"):
        kb.Generation(kb.GRUCell(3), kb.Embedding(5, 4), None, max_length=3)
