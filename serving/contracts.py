"""The contract of a loaded file: the one it brings, or one derived from its graph."""

from __future__ import annotations

from keras_blocks.contract import METADATA_KEY, Contract, Dim, FlatTensor, TensorSpec
from keras_blocks.errors import ModelLoadError
from keras_blocks.serving.datatypes import PROTOCOL
from keras_blocks.serving.session import ANY_SHAPE, Session


def contract_of(session: Session) -> Contract:
    """What the inputs of a session must be.

    Raises:
        ModelLoadError: the contract in the metadata is broken, or does not fit the graph.
    """
    text = session.metadata.get(METADATA_KEY)
    if text is None:
        return Contract(*(tuple(map(_spec, side)) for side in (session.inputs, session.outputs)))
    try:
        contract = Contract.from_json(text)
    except ValueError as error:
        raise ModelLoadError(f"its metadata holds a broken contract: {error}") from error
    _check_side("input", contract.flat_inputs(), session.inputs)
    _check_side("output", contract.flat_outputs(), session.outputs)
    _check_trees(contract)
    return contract


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
