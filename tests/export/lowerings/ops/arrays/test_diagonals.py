"""Diagonals of matrices, of any number and alignment; gathers behind batch axes."""

import tensorflow as tf
from onnx_runs import Exported, function_model, images


def test_diagonals_are_put_set_and_taken(tmp_path):
    def every(x):
        linalg, row = tf.linalg, x[:, 0]
        band = linalg.diag_part(x, k=(-2, 1), padding_value=9.0)
        return [
            linalg.diag(row),
            linalg.diag(row, k=-2, padding_value=5.0),
            linalg.diag(row, k=1, num_rows=4, num_cols=5),
            linalg.diag(band, k=(-2, 1), num_rows=5, num_cols=4),
            linalg.set_diag(x, x[:, 1]),
            linalg.set_diag(x, x[:, 2, :3], k=1),
            linalg.diag_part(x, k=(-2, 1), align="LEFT_LEFT"),
            linalg.diag_part(x, k=-1),
            linalg.band_part(x, 1, -1),
            linalg.trace(x),
            band,
        ]

    Exported(function_model(every, (5, 4)), tmp_path / "m.onnx").check(images(2, 5, 4), 1e-6)


def test_gathers_of_any_axis_keep_the_batch(tmp_path):
    def every(x, places):
        return [
            tf.gather(x, places, axis=-1, batch_dims=1),
            tf.gather(x, places, axis=2, batch_dims=1),
            tf.gather(x, places, axis=1, batch_dims=1),
        ]

    model = function_model(every, (5, 4, 3), (2,), dtypes=("float32", "int32"))
    places = tf.constant([[0, 2], [1, 1]])
    Exported(model, tmp_path / "m.onnx").check([images(2, 5, 4, 3), places], 0)
