"""What a model takes: the nest of its inputs, each with a name, an element type and a shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.contract import ROW_SPLITS_DTYPE, Dim
from keras_blocks.errors import ExportError
from keras_blocks.export.tracing.file_dtypes import file_dtype
from keras_blocks.export.tracing.recorded_calls import ArgumentSpec, recorded_call

TIME_AXIS = 1
_KERAS_ARGUMENTS = frozenset(["training", "mask"])  # Keras fills them in itself
_EXAMPLE = 'keras.InputSpec(shape=(None, 4), dtype="float32")'


@dataclass(frozen=True)
class InputSpec:
    """One input of a model; `shape` has the batch axis, and None where a size is free.

    `dtype_known` is False where Keras kept only the shape, and `dtype` is that of the model.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    ragged: bool = False
    dtype_known: bool = True

    def tensor_specs(self) -> list[tf.TensorSpec]:
        """The flat tensors that carry it."""
        dtype = file_dtype(self.dtype)
        if not self.ragged:
            return [tf.TensorSpec(self.shape, dtype)]
        # The rows lie after one another: batch and time are one axis.
        values = tf.TensorSpec((None, *self.shape[2:]), dtype)
        return [values, tf.TensorSpec((None,), ROW_SPLITS_DTYPE)]


@dataclass(frozen=True)
class Arguments:
    """What a model is called with: nests of `InputSpec`; what is no tensor is as it was given."""

    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nests(self) -> list[Any]:
        """All of them, those by position first."""
        return [*self.positional, *self.keywords.values()]

    @property
    def symbols(self) -> list[InputSpec]:
        """The inputs in order."""
        leaves = [leaf for nest in self.nests for leaf in keras.tree.flatten(nest)]
        return [leaf for leaf in leaves if isinstance(leaf, InputSpec)]

    def filled(self, value: Callable[[InputSpec], Any]) -> Arguments:
        """The same nests with something in place of each symbol, asked for in order."""

        def fill(leaf: Any) -> Any:
            return value(leaf) if isinstance(leaf, InputSpec) else leaf

        def filled(nest: Any) -> Any:
            leaves = [fill(leaf) for leaf in keras.tree.flatten(nest)]
            return keras.tree.pack_sequence_as(nest, leaves)

        positional = tuple(map(filled, self.positional))
        return Arguments(positional, {key: filled(nest) for key, nest in self.keywords.items()})


def symbols_of(model: keras.Model, input_signature: Any = None) -> Arguments:
    """The arguments of a model, as nests of `InputSpec`."""
    if input_signature is not None:
        arguments = Arguments(_as_arguments(input_signature))
    elif isinstance(model, keras.Sequential):
        arguments = Arguments((_first_input(model),) if model.built and model.inputs else ())
    elif getattr(model, "inputs", None):
        arguments = Arguments((model.input,))
    else:
        arguments = _called_arguments(model) or Arguments(_recorded_arguments(model))
    if not keras.tree.flatten(arguments.nests):
        raise ExportError(
            f"model '{model.name}' does not say what it takes: it has no keras.Input and has never "
            "been called. Pass input_signature=[keras.InputSpec(shape=(None, ...), dtype=...)], or "
            "call the model once."
        )
    return _named(arguments, [parameter.name for parameter in _positional(model)])


def named_dims(name: str, shape: Iterable[int | None], ragged: bool) -> tuple[Dim, ...]:
    """The dims of the flat tensor of an input or output, free ones by name."""
    sizes = list(shape)
    if ragged:
        return f"{name}.values", *_free_dims(name, sizes[2:], first_axis=2)
    if not sizes:
        return ()
    batch: Dim = "batch" if sizes[0] is None else sizes[0]
    return batch, *_free_dims(name, sizes[1:], first_axis=1)


def unique_names(wanted: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names in order, repeated ones numbered: `y`, `y_1`, `y_2`."""
    used, names = set(taken), []
    for name in wanted:
        candidate, count = name, 0
        while candidate in used or f"{candidate}.row_splits" in used:
            count += 1
            candidate = f"{name}_{count}"
        used.add(candidate)
        names.append(candidate)
    return names


def _free_dims(name: str, sizes: list[int | None], first_axis: int) -> list[Dim]:
    names = {TIME_AXIS: "time"}
    if len(sizes) > 2 and sizes[-3:-1] == [None, None] and sizes[-1] is not None:
        # Two free axes before one of channels are those of an image.
        last = first_axis + len(sizes) - 1
        names |= {last - 2: "height", last - 1: "width"}
    return [
        f"{name}.{names.get(axis, f'axis{axis}')}" if size is None else size
        for axis, size in enumerate(sizes, first_axis)
    ]


def _as_arguments(input_signature: Any) -> tuple[Any, ...]:
    """A list or tuple holds the positional arguments; anything else is the one argument."""
    if isinstance(input_signature, list | tuple):
        return tuple(input_signature)
    return (input_signature,)


def _first_input(model: keras.Sequential) -> InputSpec:
    """That of the `keras.Input`, or what Keras made of the first call if there was none: a batch
    size that was chance, and an element type that is the first layer's own."""
    symbol = _symbol(model.inputs[0])
    stateful = any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
    shape = symbol.shape if stateful else (None, *symbol.shape[1:])
    name = model.inputs[0]._keras_history.operation.name
    return replace(symbol, name=name, shape=shape, dtype_known=symbol.dtype != model.compute_dtype)


def _called_arguments(model: keras.Model) -> Arguments | None:
    """Those of the model's calls so far, if they were seen."""
    call = recorded_call(model)
    if call is None:
        return None
    specs = keras.tree.flatten([*call.positional, *call.keywords.values()])
    first = next((spec for spec in specs if isinstance(spec, ArgumentSpec) and spec.shape), None)
    batch = None if first is None else first.shape[0]

    def symbol(leaf: Any) -> Any:
        if not isinstance(leaf, ArgumentSpec):
            return leaf
        # The batch size of the first call is chance; other sizes may be the model's own.
        free = leaf.shape[:1] == (batch,)
        shape = (None, *leaf.shape[1:]) if free else leaf.shape
        return InputSpec("", leaf.dtype, shape, leaf.ragged)

    def symbols(nest: Any) -> Any:
        return keras.tree.map_structure(symbol, nest)

    keywords = {name: symbols(nest) for name, nest in call.keywords.items()}
    return Arguments(tuple(map(symbols, call.positional)), keywords)


def _recorded_arguments(model: keras.Model) -> tuple[Any, ...]:
    """The shapes of a subclassed model's first call; Keras keeps neither dtypes nor raggedness.

    Nor does it say whether there were more tensors than the first: a mask must not be lost.
    """
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    parameters = _positional(model)
    required = [p.name for p in parameters if p.default is p.empty]
    perhaps = [
        p.name for p in parameters[1:] if p.default is None and p.name not in _KERAS_ARGUMENTS
    ]
    unknown = shapes and len(shapes) < len(required) + len(perhaps)
    if unknown and (len(required) > len(shapes) or perhaps):
        raise ExportError(
            f"model '{model.name}' takes {', '.join([*required, *perhaps])}, and Keras keeps the "
            "shape of the first alone. Call it once more now that keras_blocks.export is imported, "
            "which sees all arguments, or pass input_signature=[...] with one spec for each of "
            f"them, such as {_EXAMPLE}."
        )
    return tuple(_recorded(shape, model.compute_dtype) for shape in shapes.values())


def _positional(model: keras.Model) -> list[inspect.Parameter]:
    """The parameters of a model's call that can be given by position."""
    return [
        parameter
        for parameter in inspect.signature(model.call).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def _recorded(shape: Any, dtype: str) -> Any:
    if isinstance(shape, dict):
        return {key: _recorded(value, dtype) for key, value in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        # The batch size of the first call is chance; other sizes may be the model's own.
        return InputSpec("", dtype, (None, *shape[1:]), dtype_known=False)
    return [_recorded(value, dtype) for value in shape]


def _named(arguments: Arguments, parameters: list[str]) -> Arguments:
    """Names the symbols after keywords and keys, and several arguments after the parameters."""
    seen = bool(arguments.symbols) and len(arguments.nests) > 1
    keys = [*(parameters if seen else []), *[""] * len(arguments.positional)]
    nests = [*zip(keys, arguments.positional, strict=False), *arguments.keywords.items()]
    paths = [
        ([key, *path] if key else list(path), leaf)
        for key, nest in nests
        for path, leaf in keras.tree.flatten_with_path(nest)
        if not _is_no_tensor(arguments, leaf)
    ]
    many = len(paths) > 1
    names = [_name(path, leaf, i if many else None) for i, (path, leaf) in enumerate(paths)]
    symbols = iter(
        [
            replace(_symbol(leaf), name=name)
            for (_, leaf), name in zip(paths, unique_names(names), strict=True)
        ]
    )

    def named(nest: Any) -> Any:
        leaves = [
            leaf if _is_no_tensor(arguments, leaf) else next(symbols)
            for leaf in keras.tree.flatten(nest)
        ]
        return keras.tree.pack_sequence_as(nest, leaves)

    positional = tuple(map(named, arguments.positional))
    return Arguments(positional, {key: named(nest) for key, nest in arguments.keywords.items()})


def _is_no_tensor(arguments: Arguments, leaf: Any) -> bool:
    """Whether a leaf of a call that was seen is passed on as it was."""
    return bool(arguments.symbols) and not isinstance(leaf, InputSpec)


def _name(path: Sequence[Any], leaf: Any, index: int | None) -> str:
    history = getattr(leaf, "_keras_history", None)
    if history is not None:
        return history.operation.name
    keys = [str(key) for key in path if isinstance(key, str)]
    if keys:
        return ".".join(keys)
    given = getattr(leaf, "name", None) or getattr(leaf, "_name", None)
    return given or ("input" if index is None else f"input_{index}")


def _symbol(leaf: Any) -> InputSpec:
    if isinstance(leaf, InputSpec):
        return leaf
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        raise TypeError(
            "`input_signature` must hold a keras.InputSpec, tf.TensorSpec, tf.RaggedTensorSpec or "
            "keras.Input for every input, in a list of the model's positional arguments. "
            f"Received: {leaf!r} (of type {type(leaf).__name__}). "
            f"Write input_signature=[{_EXAMPLE}]."
        )
    if leaf.shape is None or leaf.dtype is None or getattr(leaf.shape, "rank", 0) is None:
        raise ExportError(
            f"an input needs a shape and a dtype; got {leaf!r}. Write {_EXAMPLE}, with None where "
            "a size is free."
        )
    ragged = isinstance(leaf, tf.RaggedTensorSpec) or bool(getattr(leaf, "ragged", False))
    if isinstance(leaf, tf.RaggedTensorSpec) and leaf.ragged_rank != 1:
        raise ExportError(
            f"a ragged input has rows of unequal length (ragged_rank 1); got {leaf!r}, "
            f"ragged_rank {leaf.ragged_rank}"
        )
    # ONNX has no sparse tensors: a sparse input is a dense one in the file.
    return InputSpec("", keras.backend.standardize_dtype(leaf.dtype), tuple(leaf.shape), ragged)
