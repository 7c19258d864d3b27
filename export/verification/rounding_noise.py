"""How far rounding alone moves the outputs of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from keras_blocks.export.results.comparison import _float_errors, compute_dtype, is_floating
from keras_blocks.export.signature.signature import Signature

if TYPE_CHECKING:
    import keras

# Noise is one rounding of every weight and input; a run rounds every intermediate result too.
NOISE_FACTOR = 8.0
NOISE_DRAWS = 2


def rounding_noise(
    model: keras.Model, signature: Signature, flat: list[np.ndarray], expected: list[np.ndarray]
) -> list[float]:
    """What rounding does to each output: how far it moves when weights and inputs move by a bit.

    `NOISE_FACTOR` times the move, that is.

    The model itself is not touched. A model that cannot be called statelessly has noise 0.
    """
    # Here, because two ONNX files are compared without TensorFlow.
    import keras
    import tensorflow as tf

    eps = float(np.finfo(tf.as_dtype(compute_dtype(model)).as_numpy_dtype).eps)
    generator = np.random.default_rng(0)

    def nudged(value: np.ndarray) -> np.ndarray:
        if not is_floating(value.dtype):
            return value
        signs = generator.choice((-1.0, 1.0), value.shape)
        return (value.astype("float64") * (1 + eps * signs)).astype(value.dtype)

    def outputs_with(change: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
        variables = [
            [change(keras.ops.convert_to_numpy(v)) for v in group]
            for group in (model.trainable_variables, model.non_trainable_variables)
        ]
        changed = [change(value) for value in flat]
        outputs, _ = signature.apply(model.stateless_call, changed, *variables)
        return [value.numpy() for value in signature.unpack(outputs)]

    largest = [0.0] * len(expected)
    try:
        # A model that draws random numbers is no noisier for it.
        still, again = (outputs_with(lambda value: value) for _ in range(2))
        if any(one.tobytes() != other.tobytes() for one, other in zip(still, again, strict=True)):
            return largest
        for _ in range(NOISE_DRAWS):
            for i, (moved, fixed) in enumerate(zip(outputs_with(nudged), still, strict=True)):
                if is_floating(fixed.dtype) and moved.shape == fixed.shape and fixed.size:
                    errors = _float_errors(fixed, moved)
                    finite = errors[np.isfinite(errors)]
                    largest[i] = max(largest[i], float(finite.max(initial=0.0)))
    except Exception:
        return [0.0] * len(expected)
    return [NOISE_FACTOR * noise for noise in largest]
