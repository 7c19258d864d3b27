"""onnxruntime on one thread: figures that do not hang on the number of cores."""

from __future__ import annotations

import onnxruntime


def session_options() -> onnxruntime.SessionOptions:
    """Options for a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options
