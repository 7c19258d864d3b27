"""Numbers as JSON can hold them: it has no NaN and no infinities."""

from __future__ import annotations

import numpy as np

NOT_FINITE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def json_floats(flat: np.ndarray) -> list[float | str]:
    """The numbers, with strings for those that JSON lacks, as the JSON mapping of Protocol Buffers
    has them."""
    # Through the array's own text: a float32 of 0.1 is 0.1, not 0.10000000149011612.
    texts = flat.astype(str).tolist()
    return [NOT_FINITE.get(text) or float(text) for text in texts]
