"""The exceptions of keras_blocks, and the one-line answer to a missing extra."""

from __future__ import annotations


class KerasBlocksError(Exception):
    """Base class: what the command line prints as one line instead of a traceback."""


class MissingExtraError(KerasBlocksError, ImportError):
    """A part of the package was asked for whose optional dependencies are not installed."""

    def __init__(self, what: str, extra: str, missing: str):
        super().__init__(
            f"{what} needs the package '{missing}', which is not installed. "
            f"Install it with: pip install 'keras-blocks[{extra}]'"
        )
        self.extra = extra


class UnreadableError(KerasBlocksError):
    """What was given cannot be read, or is not what is needed; nothing was tried with it."""


class TreeError(UnreadableError, ValueError):
    """A tree is malformed; the message names the tree and the node."""


class ContractError(UnreadableError, ValueError):
    """Data does not fit a model's contract; `input_name` says which input."""

    def __init__(self, message: str, input_name: str | None = None):
        super().__init__(message)
        self.input_name = input_name


class ExportError(KerasBlocksError):
    """A model cannot be exported; the message gives the reason."""


class ParityError(ExportError):
    """An ONNX file does not compute what the Keras model computes."""

    def __init__(self, message: str, report: object = None):
        super().__init__(message)
        self.report = report


class ModelLoadError(UnreadableError):
    """A file in a model repository cannot be loaded or served."""


class RunError(KerasBlocksError):
    """onnxruntime refused to compute; the message says which op and why."""

    def __init__(self, message: str, out_of_memory: bool = False):
        super().__init__(message)
        self.out_of_memory = out_of_memory
