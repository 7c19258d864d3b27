"""Labels, ranks and counts are read off predictions as TensorFlow reads them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, function_model, images


@pytest.mark.parametrize("merge", [False, True])
def test_greedy_decoding_drops_blanks_and_repeats(merge, tmp_path):
    def decoded(x):
        lengths = keras.ops.full((keras.ops.shape(x)[0],), keras.ops.shape(x)[1] - 1, "int32")
        (labels,), score = tf.nn.ctc_greedy_decoder(
            tf.transpose(x, (1, 0, 2)), lengths, merge_repeated=merge
        )
        return [tf.sparse.to_dense(labels, -1), score]

    exported = Exported(function_model(decoded, (None, 4)), tmp_path / "m.onnx")
    exported.check(images(3, 9, 4))
    only_blanks = tf.one_hot(tf.fill((2, 5), 3), 4)
    exported.check(only_blanks)


def test_ranks_of_targets_and_counts_in_bins(tmp_path):
    def every(x, target):
        ranked = [tf.math.in_top_k(target[:, 0], x, k) for k in (1, 3)]
        return [*ranked, tf.histogram_fixed_width(x, [-1.0, 1.0], 5)]

    model = function_model(every, (6,), (1,), dtypes=("float32", "int32"))
    x = images(4, 6).numpy()
    x[0, 1] = x[0, 2]  # a tie is in
    x[1, 0] = np.inf  # nobody can say
    target = np.array([[1], [3], [7], [0]], "int32")
    got = Exported(model, tmp_path / "m.onnx").run([x, target])
    expected = [tf.math.in_top_k(target[:, 0], x, k) for k in (1, 3)]
    for have, want in zip(
        got, [*expected, tf.histogram_fixed_width(x, [-1.0, 1.0], 5)], strict=True
    ):
        np.testing.assert_array_equal(have, want)
