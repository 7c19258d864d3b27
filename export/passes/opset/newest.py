"""The versions of the ONNX operators: which a file may have, and graphs brought to a newer one.

tf2onnx writes opset 18 at most. What came after changed few operators but for further element
types: a node means the same if its call does, and two are written anew. `onnx.version_converter`
is not used: it takes no graph beyond 2 GB, and none with operators newer than its own version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

import onnx
import onnx.defs
import onnx.helper
import onnx.numpy_helper
from onnx.defs import OpSchema, SchemaError

from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.graphs import nested_graphs
from keras_blocks.runtime.releases import loads_in, newest_opset

LOWEST_OPSET = 15
# Below it normalizations are written out, and no runtime in use today stops there.
LOWEST_DEFAULT_OPSET = 17
# The newest that tf2onnx writes.
NEWEST_DIRECT_OPSET = 18
# The newest that the installed onnxruntime loads and the installed onnx describes.
NEWEST_OPSET = min(newest_opset(version("onnxruntime")), onnx.defs.onnx_opset_version())

# Of the other domains; the second version of LabelEncoder came with 2.
_DOMAIN_VERSIONS = {"ai.onnx.ml": 3}

_withheld: ContextVar[set[int] | None] = ContextVar("withheld", default=None)


def checked_opset(opset: int) -> int:
    """The opset, if files can have it.

    Raises:
        ExportError: it is none from 15 to the newest.
    """
    if not isinstance(opset, int) or not LOWEST_OPSET <= opset <= NEWEST_OPSET:
        raise ExportError(
            f"opset_version must be an int from {LOWEST_OPSET} to {NEWEST_OPSET}; got {opset!r}"
        )
    return opset


def direct_opset(opset: int) -> int:
    """The opset that tf2onnx writes for a file that is to have this one.

    It is the same for all from 17 on, so that the same graph is brought to each of them.
    """
    return opset if opset < LOWEST_DEFAULT_OPSET else NEWEST_DIRECT_OPSET


def offers(opset: int, since: int) -> bool:
    """Whether a file of an opset may hold an op that came with another; if not, it is noted."""
    noted = _withheld.get()
    if opset < since and noted is not None:
        noted.add(since)
    return opset >= since


@contextmanager
def withheld_ops() -> Iterator[set[int]]:
    """Gives the opsets of the ops that were asked for within the context and not offered."""
    noted: set[int] = set()
    token = _withheld.set(noted)
    try:
        yield noted
    finally:
        _withheld.reset(token)


def set_opset(model: onnx.ModelProto, opset: int) -> None:
    """Says of a model that its nodes are of an opset, with the IR version that goes with it."""
    graphs = nested_graphs(model.graph)
    domains = {node.domain for graph in graphs for node in graph.node} - {"", "ai.onnx"}
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    model.opset_import.extend(
        onnx.helper.make_opsetid(domain, _DOMAIN_VERSIONS.get(domain, 1))
        for domain in sorted(domains)
    )
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), True)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return opsets_of(model).get("ai.onnx", 0)


def opsets_of(model: onnx.ModelProto) -> dict[str, int]:
    """Domain -> version."""
    return {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}


def version_facts(model: onnx.ModelProto) -> dict[str, str]:
    """What the metadata of a file says of its versions."""
    return {
        "keras_blocks.opset": str(opset_of(model)),
        "keras_blocks.loads_in": loads_in(opsets_of(model), model.ir_version),
    }


def lift(model: onnx.ModelProto, opset: int) -> None:
    """Makes a model one of a later opset, with the IR version that goes with it.

    Raises:
        ExportError: an operator means something else there.
    """
    present = opset_of(model)
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            if not node.domain:
                _lift_node(graph, node, present, opset)
    set_opset(model, opset)


def _lift_node(graph: onnx.GraphProto, node: onnx.NodeProto, present: int, opset: int) -> None:
    old, new = schema_of(node.op_type, present), schema_of(node.op_type, opset)
    if old is None or new is None or old.since_version == new.since_version:
        return
    since, rewrite = _REWRITES.get(node.op_type, (0, None))
    if rewrite is not None and old.since_version < since <= opset:
        rewrite(graph, node)
    elif new.deprecated or not _same_call(old, new):
        raise ExportError(
            f"node '{node.name}' is a {node.op_type} of opset {present}, which opset {opset} "
            f"calls in another way. Choose opset_version={present} or less (--opset)."
        )


def schema_of(op_type: str, opset: int) -> OpSchema | None:
    """How an opset calls one of ONNX's own operators; None if it has no such operator."""
    try:
        return onnx.defs.get_schema(op_type, opset)
    except SchemaError:
        return None


def _same_call(old: OpSchema, new: OpSchema) -> bool:
    """Whether inputs and attributes mean in the new version what they did in the old one."""
    inputs, more = list(new.inputs)[: len(old.inputs)], list(new.inputs)[len(old.inputs) :]
    return (
        [(value.name, value.option) for value in old.inputs]
        == [(value.name, value.option) for value in inputs]
        and all(value.option == OpSchema.FormalParameterOption.Optional for value in more)
        and all(
            name in new.attributes and attribute.default_value == new.attributes[name].default_value
            for name, attribute in old.attributes.items()
        )
        and not any(
            new.attributes[name].required for name in new.attributes.keys() - old.attributes
        )
    )


def _dft(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """The axis became an input."""
    axis = taken(node, "axis", 1)
    name = f"{node.name or node.output[0]}/axis"
    graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [], [axis]))
    node.input.extend([""] * (2 - len(node.input)))
    node.input.append(name)


def _grid_sample(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Two modes have other names."""
    mode = taken(node, "mode", b"bilinear")
    names = {b"bilinear": b"linear", b"bicubic": b"cubic"}
    node.attribute.append(onnx.helper.make_attribute("mode", names.get(mode, mode)))


def taken(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute, which is taken off the node."""
    for index, attribute in enumerate(node.attribute):
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            del node.attribute[index]
            return value
    return default


_REWRITES: dict[str, tuple[int, Callable[[onnx.GraphProto, onnx.NodeProto], None]]] = {
    "DFT": (20, _dft),
    "GridSample": (20, _grid_sample),
}
"""By operator: the opset that calls it in another way, and how a node is brought there."""
