"""What a model would give without rounding: its own graph once more, in float64.

Where the file and Keras differ, it tells which of the two is right.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_blocks.export.conversion.capture import freeze
from keras_blocks.export.conversion.retracing import Retracing
from keras_blocks.export.signature.signature import Signature


def exact_outputs(
    signature: Signature, flat: list[np.ndarray], outputs: list[np.ndarray]
) -> list[np.ndarray] | None:
    """The outputs in float64, as the element types of `outputs`.

    None where the graph has no float64 form: not every op has kernels for it.
    """
    traced = signature.traced
    if traced is None:
        return None
    try:
        names = [tensor.name for tensor in traced.inputs[: len(flat)]]
        results = [tensor.name for tensor in traced.outputs]
        graph = Retracing(freeze(traced), names, results, {}, in_float64=True)
        values = tf.function(graph.run, autograph=False)(*map(tf.constant, flat))
        exact = [value.numpy() for value in values]
    except Exception:  # TensorFlow raises many kinds
        return None
    if [value.shape for value in exact] != [value.shape for value in outputs]:
        return None
    with np.errstate(over="ignore"):
        return [value.astype(want.dtype) for value, want in zip(exact, outputs, strict=True)]
