"""Lists of tensors are written, read and joined in any order, from inside any loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, function_model, images

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

X = images(2, 5, 4)


def make_list(size, shape=(None, 4), **options):
    return tf.TensorArray(tf.float32, size, element_shape=shape, **options)


def loop(steps, body, first, start=0):
    _, result = tf.while_loop(
        lambda i, _: i < steps, lambda i, items: (i + 1, body(i, items)), [start, first]
    )
    return result


def written_from_the_end(x):
    _, items = tf.while_loop(
        lambda i, _: i >= 0, lambda i, items: (i - 1, items.write(i, x[:, i])), [4, make_list(5)]
    )
    return items.stack()


def read_and_written(x):
    """Each element is the sum of the two before it."""
    items = make_list(6, clear_after_read=False).write(0, x[:, 0]).write(1, x[:, 1])

    def add(i, items):
        return items.write(i, items.read(i - 1) + items.read(i - 2))

    return loop(6, add, items, start=2).stack()


def written_in_nested_loops(x):
    def row(j, items):
        return loop(4, lambda i, items: items.write(j * 4 + i, x[0, j, i]), items)

    return loop(5, row, make_list(0, (), dynamic_size=True)).stack()


def with_gaps(x):
    """What is never written is zero."""
    return loop(2, lambda i, items: items.write(2 * i, x[:, i]), make_list(5)).stack()


def of_unequal_rows(x):
    items = make_list(3, infer_shape=False)
    for i in range(3):
        items = items.write(i, x[0, : i + 1])
    return items.concat()


def split_and_read(x):
    items = make_list(2).split(x[0], [2, 3])
    return tf.concat([items.read(1), items.read(0)], 0)


def in_a_branch(x):
    items = make_list(2).write(0, x[:, 0])
    items = tf.cond(
        tf.reduce_sum(x) > 0,
        lambda: items.write(1, x[:, 1]),
        lambda: items.write(1, -x[:, 2]),
    )
    return items.stack()


def fibonacci(x):
    rows = [x[:, 0], x[:, 1]]
    while len(rows) < 6:
        rows.append(rows[-1] + rows[-2])
    return np.stack(rows)


def gaps(x):
    zeros = np.zeros_like(x[:, 0])
    return np.stack([x[:, 0], zeros, x[:, 1], zeros, zeros])


def branch(x):
    return np.stack([x[:, 0], x[:, 1] if x.sum() > 0 else -x[:, 2]])


CASES = {
    "written from the end": (written_from_the_end, lambda x: x.transpose(1, 0, 2)),
    "read and written": (read_and_written, fibonacci),
    "in nested loops": (written_in_nested_loops, lambda x: x[0].ravel()),
    "with gaps": (with_gaps, gaps),
    "of unequal rows": (of_unequal_rows, lambda x: x[0, [0, 0, 1, 0, 1, 2]]),
    "split and read": (split_and_read, lambda x: np.concatenate([x[0, 2:], x[0, :2]])),
    "in a branch": (in_a_branch, branch),
}


@pytest.mark.parametrize("name", CASES)
def test_a_list_is(name, tmp_path):
    function, expected = CASES[name]
    exported = Exported(function_model(function, (5, 4)), tmp_path / "m.onnx")
    for x in (X.numpy(), -np.abs(X), images(1, 5, 4, seed=3).numpy()):
        (got,) = exported.run(x)
        np.testing.assert_allclose(got, expected(x), rtol=1e-5, atol=1e-6)


def test_a_list_that_is_written_in_order_is_what_a_loop_collects(tmp_path):
    def running_sum(x):
        steps = tf.shape(x)[1]
        body = lambda i, s, items: (i + 1, s + x[:, i], items.write(i, s + x[:, i]))  # noqa: E731
        state = [0, tf.zeros_like(x[:, 0]), tf.TensorArray(tf.float32, steps)]
        return tf.while_loop(lambda i, *_: i < steps, body, state)[2].stack()

    exported = Exported(function_model(running_sum, (None, 4)), tmp_path / "m.onnx")
    assert "ScatterND" not in exported.ops
    (got,) = exported.run(X)
    np.testing.assert_allclose(got, np.cumsum(X, 1).transpose(1, 0, 2), rtol=1e-5, atol=1e-6)


def test_a_loop_that_ends_early_leaves_zeros(tmp_path):
    """One value a round would be too few."""

    def stopped(x):
        limit = tf.reduce_sum(tf.cast(x[0, :, 0] > 0, "int32"))
        return loop(limit, lambda i, items: items.write(i, x[:, i]), make_list(5)).stack()

    x = np.ones((2, 5, 4), "float32")
    x[0, 3:, 0] = -1
    (got,) = Exported(function_model(stopped, (5, 4)), tmp_path / "m.onnx").run(x)
    expected = x.transpose(1, 0, 2).copy()
    expected[3:] = 0
    np.testing.assert_array_equal(got, expected)


def test_scans_are_proven_over_any_time(tmp_path):
    def scanned(x):
        time_first = keras.ops.transpose(x, (1, 0, 2))
        step = lambda c, t: (0.9 * c + t, c + t)  # noqa: E731
        return keras.ops.scan(step, keras.ops.zeros_like(x[:, 0]), time_first)[1]

    model = function_model(scanned, (None, 4))
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast", verbose=False).parity.ok


def test_a_list_of_which_nothing_is_known_is_refused_with_what_to_say(tmp_path):
    def unknown(x):
        size = tf.reduce_sum(tf.cast(x > 0, "int32"))
        pieces = tf.reshape(x, tf.ones(size, "int32") * 0 + 1)
        items = tf.TensorArray(tf.float32, 2, infer_shape=False).write(1, pieces)
        return tf.reshape(items.stack(), [1])

    model = function_model(unknown, (1,))
    with pytest.raises(ExportError, match="element_shape"):
        export_onnx(model, tmp_path / "m.onnx")
