"""From the inputs and outputs of a Keras model to flat, named tensors with named dims, and back.

A ragged input `x` is two tensors of the ONNX graph, the flat values `x` and `x.row_splits`. The
model is traced once, as it is, to see what it returns and which layers read its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings import lowered_call
from keras_blocks.export.signature.input_specs import (
    Arguments,
    InputSpec,
    named_dims,
    symbols_of,
    unique_names,
)
from keras_blocks.export.signature.value_ranges import InputUsage, ValueRange
from keras_blocks.export.tracing.call_overrides import Call, overridden_calls
from keras_blocks.export.tracing.file_dtypes import file_dtype, in_file_dtype
from keras_blocks.export.tracing.recorded_calls import calls_unrecorded
from keras_blocks.export.tracing.stand_ins import stand_ins
from keras_blocks.ragged import from_row_splits

# Keras does not name this base of all of them.
_DataLayer = keras.layers.Rescaling.__bases__[0]


@dataclass(frozen=True)
class Signature:
    """How the flat tensors of a contract map to the call of a model.

    Args:
        contract: the inputs and outputs by name.
        structure: the arguments of the model, as nests of `InputSpec`.
        traced: the model's own call as a concrete function of `specs()`; None where it asks for
            sizes in Python, which a graph cannot answer.
    """

    contract: Contract
    structure: Arguments
    traced: Any = None

    @property
    def symbols(self) -> list[InputSpec]:
        """The inputs, in the order of the contract."""
        return self.structure.symbols

    def specs(self) -> list[tf.TensorSpec]:
        """The TensorFlow specs of `contract.flat_inputs()`, in order."""
        return [spec for symbol in self.symbols for spec in symbol.tensor_specs()]

    def arguments(self, flat: Sequence[Any]) -> Arguments:
        """The arguments of the model, from the tensors of `contract.flat_inputs()`."""
        return _arguments(self.structure, flat)

    def apply(self, model: Callable[..., Any], flat: Sequence[Any], *before: Any) -> Any:
        """What a model gives in inference for flat tensors.

        Args:
            model: the model, or a function that is called as it is.
            flat: the tensors of `contract.flat_inputs()` in order.
            *before: what the function takes before the model's own arguments.
        """
        return _apply(model, _arguments(self.structure, flat), *before)

    def pack(self, flat: Sequence[Any]) -> Any:
        """The model's one argument, from the tensors of `contract.flat_inputs()` in order."""
        arguments = self.arguments(flat)
        if len(arguments.nests) != 1:
            raise ExportError(
                f"the model takes {len(arguments.nests)} arguments, not one; "
                "use Signature.arguments(flat)"
            )
        return arguments.nests[0]

    def unpack(self, outputs: Any) -> list[Any]:
        """The tensors of `contract.flat_outputs()` in order, from what the model returned."""
        return [part for tensor in _leaves(outputs) for part in _parts(tensor)]

    def call(self, model: keras.Model, flat: Sequence[Any]) -> list[Any]:
        """What the model gives in inference for flat tensors, as flat tensors.

        Stateful layers start afresh, as they do in every run of the exported file, and keep the
        state they had before.
        """
        with overridden_calls(model, _as_in_a_graph):
            return self._call(model, flat)

    def _call(self, model: keras.Model, flat: Sequence[Any]) -> list[Any]:
        stateful = [layer for layer in model._flatten_layers() if _state_of(layer)]
        kept = [[state.numpy() for state in _state_of(layer)] for layer in stateful]
        for layer in stateful:
            layer.reset_state()
        try:
            return self.unpack(self.apply(model, flat))
        finally:
            for layer, values in zip(stateful, kept, strict=True):
                for state, value in zip(_state_of(layer), values, strict=True):
                    state.assign(value)


def signature_of(model: keras.Model, input_signature: Any = None) -> Signature:
    """The signature of a model.

    Args:
        model: a functional, sequential or subclassed Keras model.
        input_signature: for a model that does not say what it takes, such as a subclassed one
            that has never been called: `keras.InputSpec`, `tf.TensorSpec`, `tf.RaggedTensorSpec`
            or `keras.Input`, in a list of the positional arguments, as `model.export` takes it;
            or one dict or spec, for the one argument.

    Raises:
        ExportError: the inputs are not known, or the model does not run on them.
        TypeError: it is no model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: {model!r} (of type "
            f"{type(model).__name__}). Make a layer a model: "
            "keras.Sequential([keras.Input(...), layer])."
        )
    structure = symbols_of(model, input_signature)
    probed = _probe(model, structure)
    guessed = {s.name for s in structure.symbols if not s.dtype_known}
    ids = {name for name, found in probed.ranges.items() if found["maximum"] is not None} & guessed
    if ids:
        # An input that an embedding reads holds integers.
        structure = structure.filled(lambda s: replace(s, dtype="int32") if s.name in ids else s)
        probed = _probe(model, structure)
    inputs = tuple(_input_spec(symbol, probed.ranges) for symbol in structure.symbols)
    taken = [tensor.name for spec in inputs for tensor in spec.flat()]
    contract = Contract(inputs, _output_specs(model, probed.traced, taken))
    return Signature(contract, structure, probed.traced if probed.runs else None)


@dataclass(frozen=True)
class _Probed:
    """The traced call of a model, whether it runs, and the value ranges of the inputs by name."""

    traced: Any
    runs: bool
    ranges: dict[str, dict[str, Any]]


def _probe(model: keras.Model, structure: Arguments) -> _Probed:
    owners = [s for s in structure.symbols for _ in s.tensor_specs()]
    specs = [spec for s in structure.symbols for spec in s.tensor_specs()]
    reads = InputUsage()

    def traced_call() -> Any:
        with reads.watch(model):
            return trace(lambda *flat: _apply(model, _arguments(structure, flat)), specs)

    try:
        traced, runs = traced_call(), True
    except ExportError:
        # Some layers ask in Python for sizes, which a graph cannot answer; their lowering does
        # without, or says why there is no ONNX form.
        with stand_ins(), overridden_calls(model, lowered_call):
            traced, runs = traced_call(), False
    # Captured tensors follow the arguments.
    found = reads.ranges(traced.inputs[: len(specs)])
    ranges = {owners[i].name: _named_range(owners, value) for i, value in found.items()}
    return _Probed(traced, runs, ranges)


def trace(function: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> Any:
    """The concrete function of `function` on these specs.

    Raises:
        ExportError: the function does not run on them; with the first line of the reason.
    """
    try:
        return tf.function(function, autograph=False).get_concrete_function(*specs)
    except ExportError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{spec.dtype.name} {tuple(spec.shape)}" for spec in specs)
        reason = _ASKS_IN_PYTHON if _asks_in_python(error) else _reason(error)
        raise ExportError(
            f"the model does not run on inputs of its signature ({shapes}): {reason}"
        ) from error


# Keras runs such a model on batches of one length each, for which it is traced anew.
_ASKS_IN_PYTHON = (
    "an `if`, a `range` or the like in its code asks for a size or a value that is known only when "
    "it runs. Give the inputs fixed sizes, input_signature=[keras.InputSpec(shape=(None, 16), "
    'dtype="int32")] for the one argument or a dict of them by name; or write it with '
    "keras.ops.cond and keras.ops.while_loop."
)


def _asks_in_python(error: Exception) -> bool:
    """Whether a tensor of the graph was to be a number or a truth of Python."""
    refused = isinstance(error, tf.errors.OperatorNotAllowedInGraphError)
    return refused or "'SymbolicTensor' object cannot be interpreted" in str(error)


def _reason(error: Exception) -> str:
    """The first line of what went wrong, in bold within what Keras puts around it."""
    said = str(error).rpartition("\x1b[1m")[2].partition("\x1b[0m")[0]
    return next(iter(said.strip().splitlines()), type(error).__name__)


def output_names(model: keras.Model, outputs: Any) -> list[str]:
    """The Keras names of the outputs: dict keys, or the names of a functional model's layers."""
    paths = [item for item in keras.tree.flatten_with_path(outputs) if item[1] is not None]
    if any(isinstance(key, str) for path, _ in paths for key in path):
        return [".".join(str(key) for key in path) for path, _ in paths]
    layers = getattr(getattr(model, "_functional", model), "output_names", None)
    if layers is not None and len(layers) == len(paths):
        return list(layers)
    return ["output"] if len(paths) == 1 else [f"output_{i}" for i in range(len(paths))]


def _apply(model: Callable[..., Any], arguments: Arguments, *before: Any) -> Any:
    with calls_unrecorded():
        return model(*before, *arguments.positional, **arguments.keywords, training=False)


def _arguments(structure: Arguments, flat: Sequence[Any]) -> Arguments:
    rest = iter(flat)

    def argument(symbol: InputSpec) -> Any:
        values = tf.cast(tf.convert_to_tensor(next(rest)), symbol.dtype)
        if not symbol.ragged:
            return values
        row_splits = tf.convert_to_tensor(next(rest))
        return from_row_splits(values, row_splits)

    # In order: the tensors of a ragged input follow one another.
    return structure.filled(argument)


def _leaves(outputs: Any) -> list[Any]:
    leaves = [leaf for leaf in keras.tree.flatten(outputs) if leaf is not None]
    return [leaf.value if isinstance(leaf, keras.Variable) else leaf for leaf in leaves]


def _parts(tensor: Any) -> list[Any]:
    if not isinstance(tensor, tf.RaggedTensor):
        return [in_file_dtype(tensor)]
    if tensor.ragged_rank != 1:
        raise ExportError(
            f"an output is ragged in {tensor.ragged_rank} axes; ONNX outputs carry one ragged axis"
        )
    return [in_file_dtype(tensor.values), tf.cast(tensor.row_splits, tf.int64)]


def _as_in_a_graph(layer: keras.layers.Layer) -> Call | None:
    """What makes a layer for data (`Resizing`, `CenterCrop`, ...) take its inputs as floats.

    It does so in a graph, and says so of its outputs, but rounds bytes to bytes when run eagerly.
    """
    if not isinstance(layer, _DataLayer):
        return None
    own_call = layer.call

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        floats = keras.tree.map_structure(lambda x: tf.cast(x, layer.compute_dtype), inputs)
        return own_call(floats, *args, **kwargs)

    return call


def _state_of(layer: keras.layers.Layer) -> list[Any]:
    if not getattr(layer, "stateful", False):
        return []
    return keras.tree.flatten(getattr(layer, "states", None) or [])


def _named_range(owners: list[InputSpec], found: ValueRange) -> dict[str, Any]:
    names = {
        key: None if index is None else owners[index].name
        for key, index in asdict(found).items()
        if key.endswith("_of")
    }
    return {**asdict(found), **names}


def _input_spec(symbol: InputSpec, ranges: dict[str, dict[str, Any]]) -> TensorSpec:
    shape = named_dims(symbol.name, symbol.shape, symbol.ragged)
    dtype = file_dtype(symbol.dtype)
    return TensorSpec(symbol.name, dtype, shape, symbol.ragged, **ranges.get(symbol.name, {}))


def _output_specs(model: keras.Model, traced: Any, taken: list[str]) -> tuple[TensorSpec, ...]:
    outputs = traced.structured_outputs
    leaves = _leaves(outputs)
    names = unique_names(output_names(model, outputs), taken)
    return tuple(map(_output_spec, names, leaves, _declared_shapes(model, len(leaves))))


def _declared_shapes(model: keras.Model, count: int) -> list[tuple[int | None, ...] | None]:
    """The shapes of the outputs as a functional model declares them; None where it does not."""
    declared = keras.tree.flatten(getattr(model, "outputs", None) or [])
    if len(declared) != count:
        return [None] * count
    return [tuple(tensor.shape) for tensor in declared]


def _output_spec(name: str, leaf: Any, declared: tuple[int | None, ...] | None) -> TensorSpec:
    known = declared if leaf.shape.rank is None else tuple(leaf.shape)
    if known is None:
        raise ExportError(
            f"output '{name}' has no known rank. Say it in the model: "
            "tf.ensure_shape(y, [None, 4]), with the sizes that are known."
        )
    ragged = isinstance(leaf, tf.RaggedTensor | tf.RaggedTensorSpec)
    shape = named_dims(name, known, ragged)
    return TensorSpec(name, file_dtype(leaf.dtype.name), shape, ragged)
