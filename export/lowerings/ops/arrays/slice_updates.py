"""A block put into a tensor, as a decoder writes into its cache of keys and values.

onnxruntime's ScatterND writes into the buffer that it was given where nobody else reads it, so that
a cache in a loop is not copied; the places of one block differ, so nothing races.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.registry import converts


@converts("XlaDynamicUpdateSlice")
def convert_slice_update(context: Any, node: Any, name: str, args: Any) -> None:
    """ScatterND over the axes that the block does not fill; it is moved inside where it sticks out.

    `keras.ops.slice_update` and `tfxla.dynamic_update_slice`.
    """
    (data, block, starts), outputs = node.input, list(node.output)
    to = {"outputs": outputs, "shapes": node.output_shapes, "dtypes": node.output_dtypes}
    axes = _axes_to_place(context, node)
    context.remove_node(name)
    if not axes:
        context.make_node("Identity", [block], name=name, **to)
        return
    zero = constant(context, name, 0)
    sizes, room = (context.make_node("Shape", [x], {"end": axes}).output[0] for x in (block, data))
    first = _first_places(context, name, starts, room, sizes, axes)
    places = []
    for axis in range(axes):
        number = constant(context, name, axis)
        size, start = (context.make_node("Gather", [x, number]).output[0] for x in (sizes, first))
        steps = context.make_node("Range", [zero, size, constant(context, name, 1)]).output[0]
        moved = context.make_node("Add", [steps, start]).output[0]
        others = constant(context, name, [i for i in range(axes + 1) if i != axis])
        places.append(context.make_node("Unsqueeze", [moved, others]).output[0])
    if axes > 1:
        one = constant(context, name, [1])
        shape = context.make_node("Concat", [sizes, one], {"axis": 0}).output[0]
        spread = [context.make_node("Expand", [part, shape]).output[0] for part in places]
        places = context.make_node("Concat", spread, {"axis": -1}).output
    context.make_node("ScatterND", [data, places[0], block], name=name, **to)


def _axes_to_place(context: Any, node: Any) -> int:
    """How many of the first axes the block may fill in part."""
    data, block = (context.get_shape(x) for x in node.input[:2])
    if data is None or block is None:
        raise ExportError(f"node '{node.name}' puts a slice into a tensor of unknown rank")
    partly = [a for a, (n, m) in enumerate(zip(data, block, strict=True)) if n != m or n < 0]
    return max(partly, default=-1) + 1


def _first_places(context: Any, name: str, starts: str, room: str, sizes: str, axes: int) -> str:
    """The first place along each of these axes, such that the block fits in."""
    starts = cast(context, starts, TensorProto.INT64)
    ends = [constant(context, name, [at]) for at in (0, axes)]
    starts = context.make_node("Slice", [starts, *ends]).output[0]
    last = context.make_node("Sub", [room, sizes]).output[0]
    least = context.make_node("Min", [starts, last]).output[0]
    return context.make_node("Max", [least, constant(context, name, 0)]).output[0]
