"""What Keras gives for the same rows in a larger batch, for samples on which it contradicts itself.

`keras.ops.add` takes a column of as many numbers as there are channels for a bias, and adds it to
the channels: so wherever the batch happens to be as large as they are, and its size is known, as it
is op by op. A file is not wrong for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_blocks.contract.sampling.samples import BATCH
from keras_blocks.export.verification.keras_side import KerasRunner
from keras_blocks.runtime.runner import SampleRejectedError

_MORE_ROWS = (1, 2)  # the first of them may make the batch as large as other channels are


def outputs_in_larger_batches(
    side: KerasRunner, feed: dict[str, np.ndarray]
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The sizes of larger batches, and the outputs for the rows of this one, run op by op.

    There are none where some input or output is no batch of rows, nor for a single row: what a
    model does with that may be its own way.

    Args:
        side: the Keras model.
        feed: its flat inputs by name.
    """
    contract = side.signature.contract
    tensors = (*contract.inputs, *contract.outputs)
    if any(spec.ragged or not spec.shape or spec.shape[0] != BATCH for spec in tensors):
        return
    rows = len(feed[contract.inputs[0].name])
    for more in _MORE_ROWS if rows > 1 else ():
        larger = {name: np.concatenate([value, value[:more]]) for name, value in feed.items()}
        try:
            outputs = side.run(larger, eager=True)
        except SampleRejectedError:
            continue
        yield rows + more, [value[:rows] for value in outputs]
