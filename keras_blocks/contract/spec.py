"""A model's inputs and outputs, as they are stored in the metadata of the ONNX file.

The contract is what a server knows of a model: names, dtypes, named dims, which inputs are ragged,
which values are allowed, and how the ragged inputs of a tree belong together. It needs nothing but
the standard library, so that the exporter writes it and the server reads it with the same code.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

METADATA_KEY = "keras_blocks.contract"
PROOF_METADATA_KEY = "keras_blocks.proof"
"""Where the exporter leaves a short JSON summary of the proof."""
CHANGES_METADATA_KEY = "keras_blocks.changes"
"""What was done to the file since it was exported: a JSON list, the first change first."""
PROCESSORS = {
    "any": "right on every processor",
    "vnni": "right on x86 processors with VNNI; on those without, int8 products saturate",
}
"""Which processors the int8 products of a changed file are right on, as its changes note it."""
FORMAT_VERSION = 4
"""1 knew of a tree only `tree_of` and `max_children`, 2 of no padding, 3 of no least sizes."""
ROW_SPLITS_DTYPE = "int64"

Dim = int | str
"""A fixed size, or the name of a dynamic one; equal names mean equal sizes."""


@dataclass(frozen=True)
class FlatTensor:
    """One tensor of the ONNX graph; its `least` sizes are those of the `TensorSpec`."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    least: tuple[int, ...] = ()

    def short_axis(self, shape: Sequence[int]) -> int | None:
        """The first axis of a shape that is shorter than its least size, or None."""
        if not self.least:
            return None
        sizes = enumerate(zip(shape, self.least, strict=False))
        return next((axis for axis, (size, least) in sizes if size < least), None)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the Keras model.

    Args:
        name: str, the Keras name.
        dtype: str, NumPy's name of the element type.
        shape: the named dims of the tensor in the ONNX graph. For a ragged tensor it is the shape
            of the flat values: all rows after one another, so the first dim is `<name>.values`.
        ragged: bool, the tensor is two in the graph: `<name>` and `<name>.row_splits`.
        minimum: least allowed value, or None.
        maximum: greatest allowed value, or None; token ids end at the vocabulary's last.
        tree_of: for the parents of a tree, the name of the ragged input that holds the features of
            its nodes: both must have the same rows. Their own name where no input does.
        max_children: for the parents of a tree, how many children a node may have, or None for
            any number.
        forest: bool, for the parents of a tree: a row may have several roots.
        leaves_of: for the features of a tree's leaves, the name of its parents: a row of features
            has as many steps as the tree has nodes without children, in their order.
        edges_of: for what stands above the nodes of a tree, an integer for each, the name of its
            parents: both must have the same rows. What stands at roots means nothing.
        edge_labels: for edges, how many labels there are, from 0 on.
        siblings_differ: bool, for edges: no two children of a node have the same label.
        padding: for a dense input, what masks a step of it, or None. Rows that hold other steps
            too may be followed by steps of this value, and by any where other inputs have the same
            second dim: no output changes, but those that have that dim get as many steps more.
        least: of an input, the least size of each of its dims, in the order of `shape`: windows
            inside the model would not fit into less. 0 where any size will do, fixed dims among
            them; empty where any will do for all. What is shorter the file refuses.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    ragged: bool = False
    minimum: float | None = None
    maximum: float | None = None
    tree_of: str | None = None
    max_children: int | None = None
    forest: bool = False
    leaves_of: str | None = None
    edges_of: str | None = None
    edge_labels: int | None = None
    siblings_differ: bool = False
    padding: float | None = None
    least: tuple[int, ...] = ()

    @cached_property
    def row_splits_name(self) -> str:
        """The name of the row splits in the ONNX graph; row i is values[splits[i]:splits[i+1]]."""
        return f"{self.name}.row_splits"

    def flat(self) -> tuple[FlatTensor, ...]:
        """The tensors of the ONNX graph that carry this one, in order."""
        values = FlatTensor(self.name, self.dtype, self.shape, self.least)
        if not self.ragged:
            return (values,)
        return values, FlatTensor(self.row_splits_name, ROW_SPLITS_DTYPE, ("batch+1",))


@dataclass(frozen=True)
class Contract:
    """All inputs and outputs of a model, in the order of the Keras model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def flat_inputs(self) -> tuple[FlatTensor, ...]:
        """The inputs of the ONNX graph, in order."""
        return self._flat_inputs

    def flat_outputs(self) -> tuple[FlatTensor, ...]:
        """The outputs of the ONNX graph, in order."""
        return self._flat_outputs

    @cached_property
    def input_names(self) -> frozenset[str]:
        """The names of the inputs of the ONNX graph."""
        return frozenset(tensor.name for tensor in self._flat_inputs)

    # A server asks for them with every request.
    @cached_property
    def _flat_inputs(self) -> tuple[FlatTensor, ...]:
        return tuple(tensor for spec in self.inputs for tensor in spec.flat())

    @cached_property
    def _flat_outputs(self) -> tuple[FlatTensor, ...]:
        return tuple(tensor for spec in self.outputs for tensor in spec.flat())

    def least_sizes(self) -> dict[str, int]:
        """The least size of each named dim of the inputs; 0 where any will do."""
        least: dict[str, int] = {}
        for spec in self.inputs:
            for dim, size in itertools.zip_longest(spec.shape, spec.least, fillvalue=0):
                if isinstance(dim, str):
                    least[dim] = max(size, least.get(dim, 0))
        return least

    def to_json(self) -> str:
        """The text stored under `METADATA_KEY`; the same contract always gives the same text."""
        body = {"format": FORMAT_VERSION, **asdict(self)}
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: the text is no contract, or one of a newer format.
        """
        try:
            body = json.loads(text)
            version = body["format"]
            if version > FORMAT_VERSION:
                raise ValueError(
                    f"the contract has format {version}, this keras_blocks reads up to "
                    f"{FORMAT_VERSION}; upgrade keras-blocks"
                )
            return cls(
                *(tuple(_spec(item) for item in body[side]) for side in ("inputs", "outputs"))
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a keras_blocks contract: {text[:80]!r}") from error


def _spec(item: dict[str, Any]) -> TensorSpec:
    least = item.get("least", [])
    spec = TensorSpec(**{**item, "shape": tuple(item["shape"]), "least": tuple(least)})
    well_typed = (
        all(isinstance(sizes, list) for sizes in (item["shape"], least))
        and len(least) in (0, len(spec.shape))
        and all(type(size) is int and size >= 0 for size in least)
        and all(isinstance(dim, str) or (type(dim) is int and dim >= 0) for dim in spec.shape)
        and all(isinstance(text, str) for text in (spec.name, spec.dtype))
        and all(isinstance(flag, bool) for flag in (spec.ragged, spec.forest, spec.siblings_differ))
        and all(
            number is None or type(number) in (int, float)
            for number in (spec.minimum, spec.maximum, spec.padding)
        )
        and all(
            name is None or isinstance(name, str)
            for name in (spec.tree_of, spec.leaves_of, spec.edges_of)
        )
        and all(
            count is None or type(count) is int for count in (spec.max_children, spec.edge_labels)
        )
    )
    if not well_typed:
        raise TypeError("a field of another type")
    return spec
