"""The contract of a loaded file: the one it brings, or one derived from its graph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras_blocks.contract import METADATA_KEY, Contract, Dim, FlatTensor, TensorSpec
from keras_blocks.contract.dtypes import ANY_SHAPE, PROTOCOL
from keras_blocks.errors import ExportError, ModelLoadError
from keras_blocks.runtime.runner import OnnxRunner, element_type
from keras_blocks.runtime.session import Session

_NO_NAME = re.compile(
    r"none|null|nan|n/?a|any|free|\?+|\*+|-\d+|_+|unk(nown)?[_\d]*|dyn(amic)?(_axes)?[_\d]*|undef(ined)?",
    re.IGNORECASE,
)


def contract_of(session: Session) -> Contract:
    """What the inputs of a session must be.

    Raises:
        ModelLoadError: the contract in the metadata is broken, or does not fit the graph.
    """
    text = session.metadata.get(METADATA_KEY)
    if text is None:
        inputs = _untied(session.inputs)
        return Contract(*(tuple(map(_spec, side)) for side in (inputs, session.outputs)))
    try:
        contract = Contract.from_json(text)
    except ValueError as error:
        raise ModelLoadError(f"its metadata holds a broken contract: {error}") from error
    _check_side("input", contract.flat_inputs(), session.inputs)
    _check_side("output", contract.flat_outputs(), session.outputs)
    _check_trees(contract)
    return contract


def _untied(tensors: Sequence[FlatTensor]) -> list[FlatTensor]:
    """The same without the names that say nothing but that a dim is free, where several have one.

    Equal names mean equal sizes; those that exporters write for want of a name do not.
    """
    named = Counter(dim for t in tensors for dim in t.shape if isinstance(dim, str))
    empty = {dim for dim, count in named.items() if count > 1 and _NO_NAME.fullmatch(dim)}
    return [
        replace(t, shape=tuple(f"{t.name}.axis{i}" if d in empty else d
                               for i, d in enumerate(t.shape)))
        for t in tensors
    ]  # fmt: skip


def _spec(tensor: FlatTensor) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.dtype, tensor.shape)


def _check_side(
    side: str, promised: tuple[FlatTensor, ...], present: tuple[FlatTensor, ...]
) -> None:
    graph = {tensor.name: tensor for tensor in present}
    names = [tensor.name for tensor in promised]
    if sorted(names) != sorted(graph):
        raise ModelLoadError(
            f"its contract names the {side}s {sorted(names)}, its graph has {sorted(graph)}"
        )
    for tensor in promised:
        other = graph[tensor.name]
        if tensor.dtype not in PROTOCOL or tensor.dtype != other.dtype:
            raise ModelLoadError(
                f"its contract says that {side} '{tensor.name}' is {tensor.dtype}, "
                f"its graph says {other.dtype}"
            )
        if not _fit(tensor.shape, other.shape):
            raise ModelLoadError(
                f"its contract gives {side} '{tensor.name}' the shape {list(tensor.shape)}, "
                f"its graph {list(other.shape)}"
            )


def _fit(promised: tuple[Dim, ...], present: tuple[Dim, ...]) -> bool:
    return present == ANY_SHAPE or (
        len(promised) == len(present)
        and all(
            one == other or not (isinstance(one, int) and isinstance(other, int))
            for one, other in zip(promised, present, strict=True)
        )
    )


def _check_trees(contract: Contract) -> None:
    by_name = {spec.name: spec for spec in contract.inputs if spec.ragged}
    for spec in contract.inputs:
        for relation, other in (
            ("the parents of the trees", spec.tree_of),
            ("features of the leaves", spec.leaves_of),
            ("the edges", spec.edges_of),
        ):
            if other is not None and not {spec.name, other} <= set(by_name):
                raise ModelLoadError(
                    f"its contract says that input '{spec.name}' holds {relation} of '{other}', "
                    f"but both must be ragged inputs"
                )
        parents = spec.leaves_of or spec.edges_of
        if parents is not None and by_name[parents].tree_of is None:
            raise ModelLoadError(
                f"its contract says that input '{spec.name}' belongs to the parents '{parents}', "
                f"but not that those are the parents of trees"
            )


def file_contract(side: OnnxRunner) -> Contract:
    """The contract in a file's metadata, or one that says what its graph says.

    Raises:
        ExportError: what is there is no contract.
    """
    try:
        stored = side.contract()
    except ValueError as error:
        raise ExportError(f"its metadata holds a broken contract: {error}") from error
    if stored is not None:
        return stored
    inputs, outputs = side.session.get_inputs(), side.session.get_outputs()
    return Contract(tuple(map(_graph_spec, inputs)), tuple(map(_graph_spec, outputs)))


def _graph_spec(node: Any) -> TensorSpec:
    shape = tuple(
        dim if isinstance(dim, int) else dim or ("batch" if axis == 0 else f"{node.name}.{axis}")
        for axis, dim in enumerate(node.shape or ())
    )
    return TensorSpec(node.name, element_type(node), shape)
