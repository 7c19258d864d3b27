"""A model that answers: a session and the contract its inputs must keep."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_blocks.contract import METADATA_KEY, Contract
from keras_blocks.contract.dtypes import BFLOAT16, from_bfloat16
from keras_blocks.contract.example import example_inputs, is_small
from keras_blocks.contract.feeds import flat_inputs
from keras_blocks.contract.validation import InputChecks
from keras_blocks.contract.values import refuse
from keras_blocks.errors import ContractError, ModelLoadError, RunError
from keras_blocks.runtime.file_contract import contract_of
from keras_blocks.runtime.graph_facts import GraphFacts, graph_facts
from keras_blocks.runtime.session import Session


class Model:
    """An ONNX file, ready to predict.

    Args:
        name: str, the name under which it is served.
        version: int, the version under which it is served.
        session: the loaded graph.
        contract: what its inputs must be.
        facts: what its nodes are.
    Example:
        model = Model.load("trees.onnx")
        model.predict({"tokens": [[4, 7, 7], [9]], "parents": [[-1, 0, 0], [-1]]})
    """

    def __init__(
        self, name: str, version: int, session: Session, contract: Contract, facts: GraphFacts
    ):
        self.name = name
        self.version = version
        self.contract = contract
        self.session = session
        self.facts = facts
        self._checks = InputChecks(contract)
        outputs = contract.flat_outputs()
        self.output_names = tuple(tensor.name for tensor in outputs)
        """The outputs of the graph, in the order of the contract."""
        self.output_dtypes = {tensor.name: tensor.dtype for tensor in outputs}

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        version: int = 1,
        threads: int | None = None,
        arena: bool = True,
        links: bool = True,
    ) -> Model:
        """Loads an ONNX file, with the contract it brings or one derived from its graph.

        Args:
            path: str or path of the file.
            name: str, the file's stem by default.
            version: int.
            threads: int, the threads that one run may use; None leaves it to onnxruntime.
            arena: bool, whether the memory of a run is kept for the next one, which is faster.
            links: bool, whether weights beside the file may be links to elsewhere.
        Raises:
            ModelLoadError: the file is missing, broken, or cannot be served.
        """
        try:
            session = Session(path, threads, arena=arena, links=links)
            contract = contract_of(session)
            facts = graph_facts(path)
        except ModelLoadError as error:
            raise ModelLoadError(f"{path}: {error}") from error
        return cls(name or Path(path).stem, version, session, contract, facts)

    def predict(self, inputs: Any, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Checks the inputs against the contract and runs the graph.

        Args:
            inputs: name -> array or nested list; of a model with one input, that alone. A ragged
                input `x` is a list of rows, or `x` with `x.row_splits`.
            outputs: names of the wanted outputs; all by default.
        Returns:
            name -> array; a ragged output `y` is `y` and `y.row_splits`, bfloat16 is float32.
        Raises:
            ContractError: names the input, what came and what was expected.
            RunError: the graph cannot take these inputs.
        """
        arrays = flat_inputs(self.contract, inputs)
        self.check(arrays)
        return {
            name: from_bfloat16(array) if self.output_dtypes[name] == BFLOAT16 else array
            for name, array in self.run(arrays, outputs).items()
        }

    def check(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Checks flat arrays against all that the model is known to need.

        Raises:
            ContractError: names the input, what came and what was expected.
        """
        self._checks.check(arrays)
        self._refuse_empty(arrays)

    def check_decoded(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The same for arrays that were read from a request, with the names, dtypes and shapes
        of the contract.
        """
        self._checks.check_values(arrays)
        self._refuse_empty(arrays)

    def _refuse_empty(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps from onnxruntime what would end the process; see `GraphFacts`."""
        if not self.facts.recurrent:
            return
        for spec in self.contract.inputs:
            if spec.ragged and not self.facts.lengths_unknown:
                continue  # the export puts a row into an empty ragged batch
            array = arrays[spec.name]
            if array.size == 0:
                raise refuse(
                    spec.name,
                    f"shape {list(array.shape)} is empty, and a GRU or LSTM of this model cannot "
                    f"run on no rows or no steps; send at least one",
                )

    def run(
        self, arrays: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Runs the graph on arrays that were checked already."""
        names = self.wanted(outputs)
        return dict(zip(names, self.session.run(arrays, names), strict=True))

    def warm_up(self) -> None:
        """Runs once, so that no request pays for what onnxruntime does in a first run."""
        if is_small(self.contract):
            # The contract of a file that is not ours may allow what the graph does not take.
            with contextlib.suppress(ContractError, RunError):
                self.predict(example_inputs(self.contract))

    def give_back_memory(self) -> None:
        """Gives back the memory that is kept from the runs so far, by a small run."""
        if is_small(self.contract):  # others give it back with every run
            with contextlib.suppress(ContractError, RunError):
                self.session.run(example_inputs(self.contract), self.output_names, give_back=True)

    def wanted(self, outputs: Sequence[str] | None) -> Sequence[str]:
        """The names of the wanted outputs; all where None are named.

        Raises:
            ContractError: the model gives no such output.
        """
        if outputs is None:
            return self.output_names
        known = self.output_dtypes
        unknown = next((name for name in outputs if name not in known), None)
        if unknown is not None:
            raise ContractError(
                f"output '{unknown[:100]}' is unknown; the model gives {', '.join(known)}", unknown
            )
        return outputs

    @property
    def brings_contract(self) -> bool:
        """Whether the contract was in the file; otherwise it was derived from the graph."""
        return METADATA_KEY in self.session.metadata
