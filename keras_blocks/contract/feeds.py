"""From what a Python caller gives to the flat arrays of the graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.array_files import read_arrays
from keras_blocks.contract.rows import join_rows
from keras_blocks.contract.validation import InputChecks
from keras_blocks.contract.values import refuse, to_array
from keras_blocks.errors import ContractError

Feed = dict[str, np.ndarray]
"""The flat inputs of one run, by name."""
ROWS = 64  # of given data in one run, where they can be told apart; keeps the memory small


def flat_inputs(contract: Contract, given: Any) -> dict[str, np.ndarray]:
    """Arrays in the dtypes of the contract.

    What is no mapping is the value of the model's one input.

    A ragged input `x` is a list of rows of any lengths, `x` (all rows after one another) with
    `x.row_splits`, or an object with `values` and `row_splits`, such as a `tf.RaggedTensor`.
    Names that the contract lacks are kept, so that validation can name them.

    Raises:
        ContractError: a value cannot become an array of its input's dtype.
    """
    if not isinstance(given, Mapping):
        names = [spec.name for spec in contract.inputs]
        if len(names) != 1:
            came = f"inputs is of type {type(given).__name__}"
            raise ContractError(f"{came}, a mapping expected: the model takes {names}")
        given = {names[0]: given}
    flat: dict[str, Any] = dict(given)
    for spec in contract.inputs:
        if spec.name not in given:
            continue
        splits = getattr(given[spec.name], "row_splits", None)
        if spec.ragged and splits is not None:
            flat[spec.name], flat[spec.row_splits_name] = given[spec.name].values, splits
        if spec.ragged and spec.row_splits_name not in flat:
            flat[spec.name], flat[spec.row_splits_name] = join_rows(spec, given[spec.name])
            continue
        for tensor in spec.flat():
            flat[tensor.name] = to_array(flat[tensor.name], tensor)
    return flat


def as_feeds(contract: Contract, data: Any, argument: str) -> list[Feed]:
    """A user's data as flat inputs that fit the contract, some rows at a time.

    Args:
        contract: of the file.
        data: what `flat_inputs` takes; an iterable of these, each a batch; or the name of an `.npz`
            file that holds an array for each input, or an `.npy` file that of the only one.
        argument: str, what the data is called in errors.
    Raises:
        ContractError: the data does not fit the inputs, or there is none.
    """
    if isinstance(data, (str, Path)):
        data = read_arrays(Path(data))
    one = isinstance(data, (Mapping, np.ndarray)) or not isinstance(data, Iterable)
    checks = InputChecks(contract)
    feeds: list[Feed] = []
    try:
        for batch in [data] if one else data:
            feed = flat_inputs(contract, batch)
            checks.check(feed)
            _refuse_empty(contract, feed)
            feeds += _rows_of(contract, feed)
    except ContractError as error:
        raise ContractError(f"{argument}: {error}", error.input_name) from None
    if not feeds:
        raise ContractError(f"{argument} holds no batch; give at least one")
    return feeds


def _refuse_empty(contract: Contract, feed: Feed) -> None:
    for spec in contract.inputs:
        if not spec.ragged and not feed[spec.name].size:
            raise refuse(spec.name, "it is empty, and there is nothing to run")


def _rows_of(contract: Contract, feed: Feed) -> Iterator[Feed]:
    """A batch as several of `ROWS` rows, if every input tells its rows apart."""
    firsts = {spec.shape[0] if spec.shape else 0 for spec in contract.inputs if not spec.ragged}
    if any(isinstance(dim, int) for dim in firsts) or len(firsts) > 1:
        yield feed
        return
    spec = contract.inputs[0]
    rows = len(feed[spec.row_splits_name]) - 1 if spec.ragged else len(feed[spec.name])
    for start, end in itertools.pairwise([*range(0, rows, ROWS), rows]):
        part: Feed = {}
        for spec in contract.inputs:
            if spec.ragged:
                splits = feed[spec.row_splits_name][start : end + 1]
                part[spec.name] = feed[spec.name][splits[0] : splits[-1]]
                part[spec.row_splits_name] = splits - splits[0]
            else:
                part[spec.name] = feed[spec.name][start:end]
        yield part
