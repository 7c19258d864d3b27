"""Normalizations become the ops that ONNX has for them, and compute what Keras does."""

import keras
import numpy as np
import pytest
from onnx_runs import Exported, images, random_weights

layers = keras.layers
ONE_OP = {
    "layer": (lambda: layers.LayerNormalization(), "LayerNormalization"),
    "layer_two_axes": (lambda: layers.LayerNormalization(axis=(-2, -1)), "LayerNormalization"),
    "layer_bare": (lambda: layers.LayerNormalization(center=False, scale=False), None),
    "layer_no_scale": (lambda: layers.LayerNormalization(scale=False), "LayerNormalization"),
    "rms": (lambda: layers.RMSNormalization(), "RMSNormalization"),
    "rms_two_axes": (lambda: layers.RMSNormalization(axis=(-1, -2)), "RMSNormalization"),
}
GROUPS = {
    "some": lambda: layers.GroupNormalization(2),
    "one": lambda: layers.GroupNormalization(1, scale=False),
    "each": lambda: layers.GroupNormalization(-1, center=False),
    "first": lambda: layers.GroupNormalization(5, axis=1),
}


def exported_of(layer, path, shape=(5, None, 6), **options):
    x = keras.Input(shape, name="x")
    return Exported(random_weights(keras.Model(x, layer(x))), path / "m.onnx", **options)


@pytest.mark.parametrize(("layer", "op"), ONE_OP.values(), ids=ONE_OP)
def test_a_normalization_over_the_last_axes_is_one_op(layer, op, tmp_path):
    shape = (None, 5, 6)
    exported = exported_of(layer(), tmp_path, shape)
    assert exported.ops == {op or "LayerNormalization": 1}
    for batch, free in [(3, 4), (1, 1), (0, 2)]:
        exported.check(images(batch, free, 5, 6))


def test_other_axes_keep_the_formula(tmp_path):
    exported = exported_of(layers.LayerNormalization(axis=1), tmp_path)
    assert "LayerNormalization" not in exported.ops
    exported.check(images(2, 5, 3, 6))


@pytest.mark.parametrize("layer", GROUPS.values(), ids=GROUPS)
def test_groups_are_normalized_as_instances(layer, tmp_path):
    exported = exported_of(layer(), tmp_path)
    assert exported.ops["InstanceNormalization"] == 1
    for batch, free in [(3, 4), (1, 1), (0, 2)]:
        exported.check(images(batch, 5, free, 6))


@pytest.mark.parametrize("layer", [*(make for make, _ in ONE_OP.values()), GROUPS["some"]])
def test_half_precision_is_added_up_in_float32(layer, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    exported = exported_of(layer(), tmp_path, (4, 5, 6))
    # Of 120 numbers near 300 the squares add up past the largest half, 65504.
    far = 300 + images(2, 4, 5, 6)
    exported.check(far, tolerance=2e-3)


@pytest.mark.parametrize(("opset", "left"), [(16, ["LayerNormalization"]), (22, [])])
def test_an_op_that_the_opset_lacks_is_written_out(opset, left, tmp_path):
    x = keras.Input((4, 6), name="x")
    model = keras.Model(x, layers.RMSNormalization()(layers.LayerNormalization()(x)))
    exported = Exported(random_weights(model), tmp_path / "m.onnx", opset_version=opset)
    assert "RMSNormalization" not in exported.ops
    assert all(op not in exported.ops for op in left)
    exported.check(images(2, 4, 6))


def test_the_formula_is_that_of_a_plain_loop(tmp_path):
    layer = layers.GroupNormalization(3, epsilon=0.1)
    exported = exported_of(layer, tmp_path, (2, 2, 6))
    x = images(2, 2, 2, 6).numpy()
    wanted = np.empty_like(x)
    for row, group in np.ndindex(2, 3):
        part = x[row, :, :, 2 * group : 2 * group + 2]
        wanted[row, :, :, 2 * group : 2 * group + 2] = (part - part.mean()) / np.sqrt(
            part.var() + 0.1
        )
    wanted = wanted * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(exported.run(x)[0], wanted, atol=1e-5)
