"""Blocks go where `keras.ops.slice_update` puts them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported

ops = keras.ops


class Put(keras.layers.Layer):
    def __init__(self, starts):
        super().__init__()
        self.starts = starts

    def call(self, cache, block, position):
        return ops.slice_update(cache, self.starts(position[0]), block)

    def compute_output_spec(self, cache, block, position):
        return keras.KerasTensor(cache.shape, cache.dtype)


def exported(path, cache, block, starts, dtype="float32"):
    inputs = [
        keras.Input(batch_shape=cache, dtype=dtype, name="cache"),
        keras.Input(batch_shape=block, dtype=dtype, name="block"),
        keras.Input(batch_shape=(1,), dtype="int32", name="position"),
    ]
    return Exported(keras.Model(inputs, Put(starts)(*inputs)), path)


def arrays(dtype, *shapes):
    generator = np.random.default_rng(0)
    return [(100 * generator.normal(size=shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", ["float32", "int32", "float16"])
def test_one_step_goes_into_a_cache_of_any_batch(dtype, tmp_path):
    file = exported(
        tmp_path / "m.onnx", (None, 6, 2, 3), (None, 1, 2, 3), lambda at: (0, at, 0, 0), dtype
    )
    cache, block = arrays(dtype, (3, 6, 2, 3), (3, 1, 2, 3))
    for position in (0, 4, 5):
        wanted = cache.copy()
        wanted[:, position : position + 1] = block
        (got,) = file.run([cache, block, np.int32([position])])
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("position", [-3, 9])
def test_a_block_that_would_stick_out_is_moved_inside(position, tmp_path):
    file = exported(tmp_path / "m.onnx", (5, 4), (2, 3), lambda at: (at, at))
    cache, block = arrays("float32", (5, 4), (2, 3))
    wanted = cache.copy()
    if position < 0:
        wanted[:2, :3] = block
    else:
        wanted[3:, 1:] = block
    (got,) = file.run([cache, block, np.int32([position])])
    np.testing.assert_array_equal(got, wanted)


def test_several_steps_of_free_number_go_in_at_once(tmp_path):
    file = exported(tmp_path / "m.onnx", (None, None, 3), (None, None, 3), lambda at: (0, at, 0))
    cache, block = arrays("float32", (2, 7, 3), (2, 3, 3))
    wanted = cache.copy()
    wanted[:, 2:5] = block
    (got,) = file.run([cache, block, np.int32([2])])
    np.testing.assert_array_equal(got, wanted)


def test_a_block_of_the_whole_size_is_the_result(tmp_path):
    file = exported(tmp_path / "m.onnx", (2, 3), (2, 3), lambda at: (at, 0))
    cache, block = arrays("float32", (2, 3), (2, 3))
    (got,) = file.run([cache, block, np.int32([1])])
    np.testing.assert_array_equal(got, block)


def test_a_loop_fills_a_cache_step_by_step(tmp_path):
    class Fill(keras.layers.Layer):
        def call(self, x):
            def step(i, cache):
                return i + 1, ops.slice_update(cache, (0, i), x[:, i : i + 1] + cache[:, i - 1 : i])

            start = ops.slice_update(ops.zeros_like(x), (0, 0), x[:, :1])
            return tf.while_loop(lambda i, _: i < 5, step, [1, start])[1]

    x = keras.Input((5,), name="x")
    (values,) = arrays("float32", (3, 5))
    (got,) = Exported(keras.Model(x, Fill()(x)), tmp_path / "m.onnx").run(values)
    np.testing.assert_allclose(got, np.cumsum(values, axis=1), rtol=1e-5)
