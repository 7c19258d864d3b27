"""How the inputs of several requests join into one run, and how its outputs come apart again."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.dtypes import ANY_SHAPE
from keras_blocks.serving.inference.padding import Padding, plan_padding

Arrays = Mapping[str, np.ndarray]

RAGGED_ROWS = "batch"
"""The dim that counts the rows of every ragged tensor: its row splits are [batch+1]."""


@dataclass(frozen=True)
class BatchPlan:
    """What joins and splits the requests to one model.

    Dense tensors are laid after one another along their first axis. Ragged ones too, whatever the
    lengths of their rows: the values are joined, and the row splits moved on by the values before
    them. Parents of trees are indices within their own tree, so they join like any other values.
    Dense tensors of unequal lengths join where the model masks the steps that fill them up.

    Args:
        rows: the input that counts the rows.
        values: the inputs that are joined as they are.
        row_splits: the inputs that are row splits; each ends at the length of its values.
        free: the inputs of `values` whose further dims are not all fixed: only requests that agree
            in them share a run. What is padded is not among them.
        by_row: the outputs with one entry for each row.
        by_value: output -> the ragged input whose values it has one entry for.
        ragged: the ragged outputs.
        padding: the inputs of `values` that are filled up where requests differ in length.
        most_rows: the most rows of one run that several requests may share.
        most_elements: the most ragged values of such a run, the inputs taken together.
    """

    rows: str
    values: tuple[str, ...]
    row_splits: tuple[str, ...]
    free: tuple[str, ...]
    by_row: tuple[str, ...]
    by_value: tuple[tuple[str, str], ...]
    ragged: tuple[str, ...]
    padding: Padding
    most_rows: int = sys.maxsize
    most_elements: int = sys.maxsize

    def count_rows(self, inputs: Arrays) -> int:
        """How many rows a request has."""
        return len(inputs[self.rows]) - (self.rows in self.row_splits)

    def count_elements(self, inputs: Arrays) -> int:
        """How many ragged values a request has, its inputs taken together."""
        return sum([int(inputs[name][-1]) for name in self.row_splits])

    def key(self, inputs: Arrays) -> Hashable:
        """Requests of equal keys can share a run."""
        shapes = tuple(inputs[name].shape[1:] for name in self.free)
        return shapes, self.padding.key(inputs)

    def join(self, requests: Sequence[Arrays]) -> dict[str, np.ndarray]:
        """The inputs of one run.

        Example:
            >>> spec = TensorSpec("x", "int32", ("x.values",), ragged=True)
            >>> plan = plan_batches(Contract((spec,), (spec,)))
            >>> one = {"x": np.array([4, 7, 7]), "x.row_splits": np.array([0, 1, 3])}
            >>> two = {"x": np.array([9]), "x.row_splits": np.array([0, 1])}
            >>> {name: array.tolist() for name, array in plan.join([one, two]).items()}
            {'x': [4, 7, 7, 9], 'x.row_splits': [0, 1, 3, 4]}
        """
        joined = {n: self.padding.join(n, [inputs[n] for inputs in requests]) for n in self.values}
        for name in self.row_splits:
            joined[name] = _join_splits([inputs[name] for inputs in requests])
        return joined

    def split(self, requests: Sequence[Arrays], outputs: Arrays) -> list[dict[str, np.ndarray]]:
        """The outputs of each request.

        Raises:
            ValueError: the outputs do not have the sizes that the contract promises.
        """
        rows = _ends([self.count_rows(inputs) for inputs in requests])
        apart: list[dict[str, np.ndarray]] = [{} for _ in requests]
        for name in self.by_row:
            if name in outputs:
                _cut(name, outputs[name], rows, apart)
        for name, source in self.by_value:
            if name in outputs:
                _cut(name, outputs[name], _ends([len(i[source]) for i in requests]), apart)
        for name in self.ragged:
            splits_name = f"{name}.row_splits"
            if splits_name in outputs:
                splits = outputs[splits_name]
                _expect(splits_name, splits, rows[-1] + 1)
                ends = splits[rows]
                for index, part in enumerate(apart):
                    part[splits_name] = splits[rows[index] : rows[index + 1] + 1] - ends[index]
                if name in outputs:
                    _cut(name, outputs[name], ends.tolist(), apart)
        for name in self.padding.outputs:
            for inputs, part in zip(requests, apart, strict=True):
                if name in part:
                    part[name] = self.padding.cut(name, part[name], inputs)
        return apart

    def outputs_needed(self, outputs: frozenset[str]) -> frozenset[str]:
        """The outputs that a run must give so that `outputs` can be cut from it."""
        return outputs | {f"{name}.row_splits" for name in self.ragged if name in outputs}


def plan_batches(contract: Contract, padded: bool = True) -> BatchPlan | None:
    """The plan by the named dims of a contract; None where they do not allow one.

    Every input and output must follow the axis of rows, and no other axis may.

    Args:
        contract: the inputs and outputs.
        padded: whether inputs may be padded that the model masks.
    """
    ragged_inputs = [spec for spec in contract.inputs if spec.ragged]
    rows = _rows_dim(contract, bool(ragged_inputs))
    if rows is None or any(rows in spec.shape[1:] for spec in contract.inputs + contract.outputs):
        return None
    if any(not spec.ragged and spec.shape[:1] != (rows,) for spec in contract.inputs):
        return None
    by_row, by_value, ragged = [], [], []
    sources = {spec.shape[0]: spec.name for spec in ragged_inputs}
    for spec in contract.outputs:
        if spec.ragged:
            ragged.append(spec.name)
        elif spec.shape[:1] == (rows,):
            by_row.append(spec.name)
        elif spec.shape and spec.shape[0] in sources:
            by_value.append((spec.name, sources[spec.shape[0]]))
        else:
            return None
    first = contract.inputs[0]
    padding = plan_padding(contract) if padded else Padding()
    free = [spec.name for spec in contract.inputs if _is_free(spec)]
    return BatchPlan(
        rows=ragged_inputs[0].row_splits_name if ragged_inputs else first.name,
        values=tuple(spec.name for spec in contract.inputs),
        row_splits=tuple(spec.row_splits_name for spec in ragged_inputs),
        free=tuple(name for name in free if name not in padding.values),
        by_row=tuple(by_row),
        by_value=tuple(by_value),
        ragged=tuple(ragged),
        padding=padding,
    )


def _rows_dim(contract: Contract, ragged: bool) -> str | None:
    if ragged:
        return RAGGED_ROWS
    first = contract.inputs[0].shape if contract.inputs else ()
    return first[0] if first and first != ANY_SHAPE and isinstance(first[0], str) else None


def _is_free(spec: TensorSpec) -> bool:
    return any(isinstance(dim, str) for dim in spec.shape[1:])


def _join_splits(parts: Sequence[np.ndarray]) -> np.ndarray:
    ends = _ends([int(part[-1]) for part in parts])
    moved = [part[1:] + end for part, end in zip(parts, ends, strict=False)]
    return np.concatenate([parts[0][:1], *moved])


def _ends(sizes: Sequence[int]) -> list[int]:
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return ends


def _cut(
    name: str, array: np.ndarray, ends: Sequence[int], apart: list[dict[str, np.ndarray]]
) -> None:
    _expect(name, array, ends[-1])
    for index, part in enumerate(apart):
        part[name] = array[ends[index] : ends[index + 1]]


def _expect(name: str, array: np.ndarray, length: int) -> None:
    if array.ndim == 0 or len(array) != length:
        raise ValueError(
            f"output '{name}' has shape {list(array.shape)}, {length} entries expected"
        )
