"""How long the axes of a model's inputs must be for the windows inside it to fit.

A window asks for a length where it stands. That is led back through convolutions and what works
element by element to the input that the axis comes from, and noted there. The contract says so, and
the file refuses what is shorter (see `passes.short_inputs`), so that nothing has to be asked in the
midst of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework.func_graph import FuncGraph

from keras_blocks.windows.short_inputs import windows_of

_NOTE = "_least_sizes"
# fmt: off
_ELEMENTWISE = frozenset([
    "Abs", "AddN", "BiasAdd", "Cast", "Elu", "EnsureShape", "Erf", "Exp", "FusedBatchNormV3",
    "Identity", "IdentityN", "LeakyRelu", "Log", "Neg", "Relu", "Relu6", "Rsqrt", "Selu",
    "Sigmoid", "Snapshot", "Softmax", "Softplus", "Softsign", "Sqrt", "Square", "StopGradient",
    "Tanh",
])
# fmt: on
_BROADCASTING = frozenset(
    ["Add", "AddV2", "Maximum", "Minimum", "Mul", "RealDiv", "SquaredDifference", "Sub"]
)
_CONVOLUTIONS = frozenset(["Conv2D", "Conv3D", "DepthwiseConv2dNative"])
_POOLINGS = frozenset(["AvgPool", "AvgPool3D", "MaxPool", "MaxPool3D"])

Sizes = dict[int, int]
"""The least size by the axis."""


def are_asked_for(tensor: tf.Tensor, sizes: Mapping[int, int]) -> bool:
    """Whether the model's inputs ask for as much as these sizes of a tensor's axes take.

    Args:
        tensor: a tensor of a graph to whose inputs the least sizes were noted.
        sizes: the least size by the axis.
    """
    found = _led_back(tensor, sizes)
    if found is None:
        return False
    origin, wanted = found
    return all(least_sizes(origin)[axis] >= size for axis, size in wanted.items())


def ask_for_windows(layer: keras.layers.Layer, tensor: tf.Tensor) -> None:
    """Notes what a convolution or pooling without padding asks of the input that it is called on.

    Where no window fits TensorFlow fails, and on what comes of an empty image it may end the whole
    process.
    """
    widths = getattr(layer, "pool_size", None)
    if widths is None:
        each = zip(layer.kernel_size, layer.dilation_rate, strict=True)
        # Each step of none at all has a window of one; of poolings onnxruntime has one too many.
        widths = [(width - 1) * dilation + 1 if width > 1 else 0 for width, dilation in each]
    first = 1 if layer.data_format == "channels_last" else 2
    ask(tensor, dict(enumerate(widths, first)))


def ask_for_a_step(layer: keras.layers.Layer, tensor: tf.Tensor) -> None:
    """Notes what a pooling over all steps asks of inputs that have windows before it.

    Of no steps there is no mean and no maximum. Where there is no window the model says itself what
    it makes of an empty input.
    """
    first = 1 if layer.data_format == "channels_last" else 2
    axes = range(first, first + tensor.shape.rank - 2)
    found = _led_back(tensor, dict.fromkeys(axes, 1))
    if found is not None and any(size > 1 for size in found[1].values()):
        ask(tensor, dict.fromkeys(axes, 1))


def ask(tensor: tf.Tensor, sizes: Mapping[int, int]) -> None:
    """Notes the least sizes of a tensor's axes at the input that they come from, if any.

    Args:
        tensor: a tensor of the graph that is being traced.
        sizes: the least size by the axis.
    """
    found = _led_back(tensor, sizes)
    if found is not None and found[1]:
        origin, wanted = found
        known = least_sizes(origin)
        note(origin, [max(size, wanted.get(axis, 0)) for axis, size in enumerate(known)])


def note(placeholder: tf.Tensor, least: Sequence[int]) -> None:
    """Notes the least sizes of an input's axes, in their order."""
    sizes = attr_value_pb2.AttrValue.ListValue(i=least)
    placeholder.op._set_attr(_NOTE, attr_value_pb2.AttrValue(list=sizes))


def least_sizes(tensor: tf.Tensor) -> tuple[int, ...]:
    """What was noted at an input; 0 for each axis where nothing was."""
    try:
        noted = tuple(tensor.op.get_attr(_NOTE))
    except ValueError:
        noted = ()
    return noted or (0,) * tensor.shape.rank


def _led_back(tensor: tf.Tensor, sizes: Mapping[int, int]) -> tuple[tf.Tensor, Sizes] | None:
    """The model's input that the axes come from, and what is wanted of it; None if none is found.

    Where nothing is wanted that an input could lack, it is the tensor that settled it.
    """
    wanted = dict(sizes)
    while True:
        wanted = {axis: n for axis, n in wanted.items() if tensor.shape[axis] is None and n > 0}
        if not wanted:
            return tensor, wanted
        if tensor.op.type == "Placeholder":
            # That of a loop's body gets no input of the model.
            inner = isinstance(tensor.graph.outer_graph, FuncGraph)
            return None if inner else (tensor, wanted)
        step = _before(tensor, wanted)
        if step is None:
            return None
        tensor, wanted = step


def _before(tensor: tf.Tensor, wanted: Sizes) -> tuple[tf.Tensor, Sizes] | None:
    """A tensor that this one is made of, and what is wanted of that; None if it is not known."""
    op = tensor.op
    given = list(op.inputs)
    noted = windows_of(tensor)
    if noted is not None:
        x, windows = noted
        axes = dict(enumerate(windows, start=1))
        return x, {axis: _reach(n, *axes[axis]) for axis, n in wanted.items() if axis in axes}
    if op.type in _ELEMENTWISE:
        return given[tensor.value_index], wanted
    if op.type in _BROADCASTING:
        # One that has a single step along an axis is repeated along it.
        free = [x for x in given if x.shape.rank == tensor.shape.rank and _is_free(x, wanted)]
        return (free[0], wanted) if free else None
    if op.type in _CONVOLUTIONS | _POOLINGS:
        return _before_windows(op, wanted)
    if op.type in ("ConcatV2", "ExpandDims", "Squeeze", "Transpose", "Pad", "PadV2", "MirrorPad"):
        return _before_moved(tensor, wanted)
    return None


def _is_free(tensor: tf.Tensor, wanted: Sizes) -> bool:
    return all(tensor.shape[axis] is None for axis in wanted)


def _reach(windows: int, width: int, stride: int) -> int:
    """How many steps so many windows reach over."""
    return (windows - 1) * stride + width


def _before_windows(op: tf.Operation, wanted: Sizes) -> tuple[tf.Tensor, Sizes] | None:
    """The same for windows; padded ones need one step for the last."""
    padding, strides = op.get_attr("padding"), op.get_attr("strides")
    pooling = op.type in _POOLINGS
    # Keras dilates by moving steps into the batch, which leads nowhere here.
    if padding not in (b"SAME", b"VALID") or not (pooling or set(op.get_attr("dilations")) == {1}):
        return None
    if padding == b"SAME":
        return op.inputs[0], {axis: _reach(n, 1, strides[axis]) for axis, n in wanted.items()}
    first_spatial = 2 if op.get_attr("data_format").startswith(b"NC") else 1
    widths = op.get_attr("ksize")[first_spatial:] if pooling else op.inputs[1].shape.as_list()
    return op.inputs[0], {
        axis: _reach(n, widths[axis - first_spatial], strides[axis]) for axis, n in wanted.items()
    }


def _before_moved(tensor: tf.Tensor, wanted: Sizes) -> tuple[tf.Tensor, Sizes] | None:
    """The same for ops that join, pad or turn axes."""
    op, rank = tensor.op, tensor.shape.rank
    given = op.inputs[0]
    if op.type == "Squeeze":
        gone = {axis % given.shape.rank for axis in op.get_attr("squeeze_dims")}
        kept = [axis for axis in range(given.shape.rank) if axis not in gone]
        return (given, {kept[axis]: n for axis, n in wanted.items()}) if gone else None
    constant = tf.get_static_value(op.inputs[-1 if op.type == "ConcatV2" else 1])
    if constant is None:
        return None
    if op.type == "ConcatV2":
        return None if int(constant) % rank in wanted else (given, wanted)
    if op.type == "ExpandDims":
        new = int(constant) % rank
        return given, {axis - (axis > new): n for axis, n in wanted.items()}
    if op.type == "Transpose":
        return given, {int(constant[axis]): n for axis, n in wanted.items()}
    return given, {axis: n - int(constant[axis].sum()) for axis, n in wanted.items()}
