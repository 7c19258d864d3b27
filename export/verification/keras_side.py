"""The two sides of a proof: the Keras model and the ONNX file, both over flat, named tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_blocks.contract import Contract, FlatTensor, TensorSpec
from keras_blocks.export.signature.signature import Signature, trace
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError, element_type, first_line


class KerasRunner:
    """A Keras model, traced once for all shapes.

    Args:
        model: the Keras model.
        signature: its signature.
        traced: the model's call as a concrete function; None runs it op by op.
    """

    def __init__(self, model: keras.Model, signature: Signature, traced: Any = None):
        self.model = model
        self.signature = signature
        self.names = [tensor.name for tensor in signature.contract.flat_inputs()]
        stateful = any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
        # A stateful model starts afresh in every run, which a graph cannot do for it.
        self._traced = None if stateful else traced

    def run(self, feed: dict[str, np.ndarray], eager: bool = False) -> list[np.ndarray]:
        """The flat outputs in the contract's order.

        Args:
            feed: the flat inputs by name.
            eager: bool, whether to run op by op: that is what the user sees, and slower.

        Raises:
            RefusedError: the model does not take these inputs.
        """
        flat = [feed[name] for name in self.names]
        self._refuse_short(feed)
        with _kept_weights(self.model):
            return self._run(flat, eager)

    def _run(self, flat: list[np.ndarray], eager: bool) -> list[np.ndarray]:
        try:
            if self._traced is not None and not eager:
                try:
                    outputs = self.signature.unpack(self._traced(*map(tf.constant, flat)))
                    return [value.numpy() for value in outputs]
                except Exception:
                    # A graph may refuse what the model takes: it knew no sizes when it was traced.
                    pass
            return [value.numpy() for value in self.signature.call(self.model, flat)]
        except Exception as error:
            raise SampleRejectedError(first_line(error)) from error

    def run_traced(self, feed: dict[str, np.ndarray]) -> None:
        """Runs as a graph alone, where there is one, to see whether the model takes the inputs.

        Raises:
            RefusedError: it does not.
        """
        if self._traced is None:
            self.run(feed, eager=True)
            return
        self._refuse_short(feed)
        try:
            self._traced(*(tf.constant(feed[name]) for name in self.names))
        except Exception as error:
            raise SampleRejectedError(first_line(error)) from error

    def refuse_shapes(self, feed: dict[str, np.ndarray]) -> None:
        """Raises `SampleRejectedError` if the model refuses these very shapes, though it ran.

        Layers check sizes when they are traced. At run time TensorFlow lets some windows that are
        longer than the input pass, and gives an empty tensor, or even uninitialised memory.
        """
        specs = [tf.TensorSpec(feed[name].shape, feed[name].dtype) for name in self.names]
        try:
            trace(self._call, specs)
        except Exception as error:
            raise SampleRejectedError(first_line(error.__cause__ or error)) from error

    def _refuse_short(self, feed: dict[str, np.ndarray]) -> None:
        """TensorFlow may end the whole process where no window fits, instead of an error."""
        for tensor in self.signature.contract.flat_inputs():
            axis = tensor.short_axis(feed[tensor.name].shape)
            if axis is not None:
                least = tensor.least[axis]
                raise SampleRejectedError(
                    f"axis {axis} of '{tensor.name}' must be {least} at least"
                )

    def _call(self, *flat: Any) -> list[Any]:
        return self.signature.unpack(self.signature.apply(self.model, flat))


@contextmanager
def _kept_weights(model: keras.Model) -> Iterator[None]:
    """Puts back what a call changes, such as a counter: every run of the file starts from there.

    What random numbers are drawn from goes on: they must be seen to change.
    """
    weights = [weight for weight in model.non_trainable_weights if weight.shape is not None]
    before = [weight.value for weight in weights]
    kept = [value.numpy() if hasattr(value, "numpy") else None for value in before]
    try:
        yield
    finally:
        for weight, value in zip(weights, kept, strict=True):
            if value is not None and not np.array_equal(weight.numpy(), value, equal_nan=True):
                weight.assign(value)


def mismatched_signature(contract: Contract, onnx: OnnxRunner) -> str | None:
    """How a file's inputs and outputs differ from a model's, in words; None if they do not."""
    sides = (
        ("input", contract.flat_inputs(), onnx.session.get_inputs()),
        ("output", contract.flat_outputs(), onnx.session.get_outputs()),
    )
    for side, wanted, found in sides:
        have, want = [node.name for node in found], [tensor.name for tensor in wanted]
        if have != want:
            return f"Its {side}s are named {have}, those of the model {want}. {_OTHER_MODEL}"
        for tensor, node in zip(wanted, found, strict=True):
            problem = _mismatched_tensor(side, tensor, node)
            if problem is not None:
                return problem
    try:
        stored = onnx.contract()
    except ValueError as error:
        return f"The contract in its metadata cannot be read: {error}."
    if stored is None or stored == contract:
        return None
    return f"{_mismatched_contract(contract, stored)} {_OTHER_MODEL}"


_OTHER_MODEL = "It is the file of another model, or of an older version of this one: export again."


def _mismatched_tensor(side: str, tensor: FlatTensor, node: Any) -> str | None:
    dtype = element_type(node)
    if dtype != tensor.dtype:
        return f"Its {side} '{tensor.name}' has dtype {dtype}, the model's {tensor.dtype}."
    if node.shape is None or (side == "output" and not node.shape):
        return None
    if len(node.shape) != len(tensor.shape):
        return f"Its {side} '{tensor.name}' has dims {node.shape}, the model's {tensor.shape}."
    for axis, (want, have) in enumerate(zip(tensor.shape, node.shape, strict=True)):
        if isinstance(have, int) and isinstance(want, int) and have != want:
            return f"Axis {axis} of its {side} '{tensor.name}' is {have}, the model's is {want}."
        # Of an output, ONNX's shape inference may know more than Keras.
        if isinstance(have, int) and isinstance(want, str) and side == "input":
            return (
                f"Axis {axis} of its input '{tensor.name}' is frozen at {have}; in the model "
                f"it is the dynamic dim '{want}'."
            )
    return None


def _mismatched_contract(contract: Contract, stored: Contract) -> str:
    mine = (*contract.inputs, *contract.outputs)
    theirs = (*stored.inputs, *stored.outputs)
    for want, have in zip(mine, theirs, strict=False):
        for field in TensorSpec.__dataclass_fields__:
            if getattr(want, field) != getattr(have, field):
                return (
                    f"Its contract gives '{have.name}' {field}={getattr(have, field)!r}, the model "
                    f"'{want.name}' {field}={getattr(want, field)!r}."
                )
    return f"Its contract has {len(theirs)} inputs and outputs, the model {len(mine)}."
