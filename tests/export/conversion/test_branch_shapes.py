"""Convolutions, whose weights come from outside, in branches and in loops."""

import keras
import pytest
import tensorflow as tf
from onnx_runs import Exported, images, random_weights

layers, ops = keras.layers, keras.ops


class OnlyPositive(layers.Layer):
    """Convolves where the sum is positive."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return ops.cond(ops.sum(x) > 0, lambda: self.inner(x), lambda: ops.zeros_like(x))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape)


class Repeated(OnlyPositive):
    """Does so three times, in a loop."""

    def call(self, x):
        def step(i, y):
            return i + 1, ops.tanh(self.inner(y)) + super(Repeated, self).call(y)

        return ops.while_loop(lambda i, _: i < 3, step, (0, x))[1]


@pytest.mark.parametrize("outer", [OnlyPositive, Repeated])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_stands_in_a_branch(outer, groups, tmp_path):
    image = keras.Input((None, None, 4))
    convolution = layers.Conv2D(4, 3, padding="same", groups=groups)
    model = random_weights(keras.Model(image, outer(convolution)(image)))
    file = Exported(model, tmp_path / "m.onnx")
    assert file.ops["Conv"]
    for sign in (1, -1):
        file.check(sign * abs(images(2, 5, 4, 4)), tolerance=1e-4)


def test_a_loop_variable_that_grows_has_no_fixed_size(tmp_path):
    class Grown(layers.Layer):
        def call(self, x):
            def step(i, y):
                grown = ops.cond(ops.sum(y) > 0, lambda: ops.concatenate([y, x], 1), lambda: y)
                return i + 1, grown

            shapes = [tf.TensorShape([]), tf.TensorShape([None, None, 3])]
            return tf.while_loop(lambda i, _: i < 3, step, [0, x], shape_invariants=shapes)[1]

        def compute_output_spec(self, x):
            return keras.KerasTensor((None, None, 3))

    x = keras.Input((2, 3))
    file = Exported(keras.Model(x, Grown()(x)), tmp_path / "m.onnx")
    file.check(abs(images(2, 2, 3)))
