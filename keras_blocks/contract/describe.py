"""What a contract asks for, in words for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_blocks.contract import Contract, Dim, TensorSpec
from keras_blocks.contract.dtypes import PROTOCOL

_MOST_SHOWN = 20  # dims; a request may claim any number of them


def notes_of(spec: TensorSpec) -> str:
    """What else is known of an input or output."""
    notes = []
    if spec.ragged:
        notes.append(f"ragged ({spec.row_splits_name})")
    notes.extend(_tree_notes(spec))
    if spec.minimum is not None or spec.maximum is not None:
        low = "..." if spec.minimum is None else f"{spec.minimum:g}"
        high = "..." if spec.maximum is None else f"{spec.maximum:g}"
        notes.append(f"{low} to {high}")
    asked = [f"{dim} at least {n}" for dim, n in zip(spec.shape, spec.least, strict=False) if n]
    notes.extend(asked)
    return ", ".join(notes)


def _tree_notes(spec: TensorSpec) -> Iterator[str]:
    if spec.tree_of is not None:
        tree = "forest" if spec.forest else "tree"
        yield tree if spec.tree_of == spec.name else f"{tree} of {spec.tree_of}"
    if spec.max_children is not None:
        yield f"{spec.max_children} children at most"
    if spec.leaves_of is not None:
        yield f"leaves of {spec.leaves_of}"
    if spec.edges_of is not None:
        yield f"edges of {spec.edges_of}"
    if spec.edge_labels is not None:
        yield f"labels 0 to {spec.edge_labels - 1}"
    if spec.siblings_differ:
        yield "siblings differ"


def describe_inputs(contract: Contract) -> str:
    """The inputs in a sentence: 'tokens' (INT32 [tokens.values]), ..."""
    return ", ".join(
        f"'{tensor.name}' ({PROTOCOL[tensor.dtype]} {show_shape(tensor.shape)})"
        for tensor in contract.flat_inputs()
    )


def show_shape(shape: Sequence[Dim]) -> str:
    """A shape with its named dims, for people."""
    shown = [str(dim) for dim in shape[:_MOST_SHOWN]]
    return f"[{', '.join(shown)}{', ...' if len(shape) > _MOST_SHOWN else ''}]"
