"""What a proof tries, stage by stage, and where to look when a stage fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import onnx

from keras_blocks.contract.sampling.plans import (
    AS_ONE_PLANS,
    LARGER_PLANS,
    Plan,
    dense,
    moved_plans,
    plans_of,
)
from keras_blocks.contract.sampling.samples import Sample, draw_samples
from keras_blocks.contract.sampling.values import GIVE_INPUTS
from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.graphs import nested_graphs
from keras_blocks.export.passes.opset.newest import opset_of
from keras_blocks.export.progress import Bars
from keras_blocks.export.results.checks import Difference, LayerCheck
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.export.verification.diagnosis.first_difference import find_first_difference
from keras_blocks.export.verification.diagnosis.layer_errors import OpenModel
from keras_blocks.export.verification.effort import Level
from keras_blocks.export.verification.stages.data_sizes import run_data_sizes
from keras_blocks.export.verification.stages.declared_shapes import note_undeclared_shapes
from keras_blocks.export.verification.stages.integer_edges import run_integer_edges
from keras_blocks.export.verification.stages.not_numbers import run_not_numbers
from keras_blocks.export.verification.stages.races import find_racing_node, race_on, run_scatters
from keras_blocks.export.verification.stages.repeated_runs import (
    UNSTEADY,
    Race,
    run_again,
    run_with_threads,
)
from keras_blocks.export.verification.stages.size_limits import run_boundaries
from keras_blocks.export.verification.stages.tiny_outputs import (
    are_tiny,
    fail_lost_outputs,
    note_lost_outputs,
    run_with_large_inputs,
)
from keras_blocks.export.verification.stages.training_mode import (
    computes_training,
    training_difference,
    training_traces,
)
from keras_blocks.export.verification.stages.unused_inputs import run_with_other_inputs
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError, first_line

_ENDS_ON_NOTHING = frozenset(["GRU", "LSTM", "RNN"])
_EMPTY_PLANS = (Plan((), 3), dense(2, 0))


class Verification:
    """The stages of a proof, each of them only while all is right.

    Args:
        proof: where it is all kept.
        onnx_side: the file.
        filepath: where the file is.
        level: what is to be tried.
        seed: int, of the samples.
        bars: shows how far it is.
    """

    def __init__(
        self,
        proof: VerificationRun,
        onnx_side: OnnxRunner,
        filepath: Path,
        level: Level,
        seed: int,
        bars: Bars,
    ):
        self.proof, self.onnx, self.filepath = proof, onnx_side, filepath
        self.level, self.seed, self.bars = level, seed, bars
        self.model, self.signature = proof.keras.model, proof.keras.signature
        self.contract = self.signature.contract
        self.layers: list[LayerCheck] = []
        self._file = onnx.load(str(filepath), load_external_data=False)
        self._race: Race | None = None
        self._steady, self._blind = True, False

    def run(self, given: Iterable[Sample] | None = None) -> None:
        """Tries the given samples, or shapes that it draws, and what follows from them."""
        self._shapes(given)
        for name, stage in self._stages(drawn=given is None).items():
            if self.proof.failed is not None:
                break
            if self.proof.spent:
                self.proof.left_out.append(name)
            else:
                stage()
        if self.proof.failed is not None:
            self.proof.difference = self._difference(self.proof.failed)
        else:
            self._never_finite()
            note_lost_outputs(self.proof)
            note_undeclared_shapes(self.proof)
        for node, what in training_traces(self._file):
            self.proof.notes.append(f"Node '{node.name}' ({node.op_type}) {what}.")

    def _stages(self, drawn: bool) -> dict[str, Callable[[], None]]:
        """What this level does after the first shapes, those that take the longest last."""
        level = self.level
        stages = (
            ("larger inputs for tiny outputs", are_tiny(self.proof), self._tiny_outputs),
            ("integers to the ends of their type", drawn, self._integer_edges),
            (
                "branches and sizes that the data decides",
                True,
                lambda: self._data_sizes(drawn),
            ),
            ("NaN and infinities", level.matters, self._not_numbers),
            ("other values in each input", drawn and level.matters, self._other_inputs),
            ("the longest and the shortest size", drawn and level.longest, self._boundaries),
            ("batches without rows", drawn and level.empty, self._nothing),
            ("values for one place", True, self._scatters),
            ("the same inputs again", True, self._again),
            ("several threads", level.threads, self._threads),
            ("each layer", level.layers or level.matters, self._layers),
            ("more shapes", drawn and level.shapes == "many", self._more_shapes),
        )
        return {name: stage for name, wanted, stage in stages if wanted}

    def _shapes(self, given: Iterable[Sample] | None) -> None:
        plans = plans_of(self.contract, "few" if self.level.shapes == "few" else "all")
        if given is not None:
            self._compare(list(given), "comparing")
        else:
            self._compare_drawn(plans, "comparing")
            if len(self.proof.skipped) > len(self.proof.tried) // 2:
                self._compare_drawn(LARGER_PLANS, "comparing larger inputs")
            if not self.proof.checks:
                self._compare_drawn(AS_ONE_PLANS, "comparing inputs of one size")
            self._move_refused()
        if not self.proof.checks:
            reasons = "; ".join(f"{s.sample}: {s.reason}" for s in self.proof.skipped[:3])
            which, advice = "every sample", GIVE_INPUTS
            if given is not None:
                which, advice = "the inputs that were given", "Give inputs that it takes."
            raise ExportError(
                f"Nothing was proven: the model '{self.model.name}' refuses {which} "
                f"({reasons}). {advice}"
            )

    def _never_finite(self) -> None:
        """NaN beside NaN are equal, and say nothing about the file."""
        finite = self.proof.finite
        if finite and not any(finite.values()):
            raise ExportError(
                f"Nothing was proven: all that the model '{self.model.name}' gives is NaN or "
                f"infinite, on every sample. Look for such values in its weights. {GIVE_INPUTS}"
            )
        self.proof.notes += [
            f"Output '{self.proof.outputs[index].name}' was NaN or infinite throughout, in the "
            f"model and in the file: its values are not proven."
            for index, some in sorted(finite.items())
            if not some
        ]

    def _tiny_outputs(self) -> None:
        self.bars.doing("enlarging tiny outputs")
        run_with_large_inputs(self.proof, self.onnx, self.contract, self.seed)
        fail_lost_outputs(self.proof)

    def _more_shapes(self) -> None:
        self._compare_drawn(plans_of(self.contract, "many"), "comparing more shapes")
        self._move_refused()

    def _move_refused(self) -> None:
        """Puts what was to be in sizes that the model refuses into others."""
        if not any(spec.ragged for spec in self.contract.inputs):
            tried = [(s.plan, taken) for s, taken in self.proof.tried if s.plan is not None]
            self._compare_drawn(moved_plans(tried), "comparing in other sizes")

    def _compare_drawn(self, plans: tuple[Plan, ...], text: str) -> None:
        drawn = draw_samples(self.contract, self.seed, plans)
        self._compare(self.proof.untried(drawn), text)

    def _compare(self, samples: list[Sample], text: str) -> None:
        self.proof.run(self.onnx, self.bars.of(samples, text), self.level.eager_every)

    def _other_inputs(self) -> None:
        self.bars.doing("changing one input after the other")
        idle = run_with_other_inputs(self.proof, self.onnx, self.contract, self.seed)
        self._blind = len(idle) == len(self.contract.inputs)

    def _integer_edges(self) -> None:
        self.bars.doing("trying the ends of the integers")
        run_integer_edges(self.proof, self.onnx, self.seed)

    def _data_sizes(self, drawn: bool) -> None:
        self.bars.doing("looking for branches and sizes that the data decides")
        run_data_sizes(self.proof, self.filepath, self._file, self.onnx, drawn)

    def _not_numbers(self) -> None:
        self.bars.doing("trying NaN and infinities")
        run_not_numbers(self.proof, self.onnx)

    def _boundaries(self) -> None:
        self.bars.doing("looking for the longest inputs")
        run_boundaries(self.proof, self.onnx, self.contract, self.seed, self.level.longest)

    def _nothing(self) -> None:
        """Batches without rows; what onnxruntime cannot run there is noted, for few want it."""
        if any(spec.ragged for spec in self.contract.inputs):
            return  # ragged inputs are drawn without rows anyway
        ops = {node.op_type for graph in nested_graphs(self._file.graph) for node in graph.node}
        if ops & _ENDS_ON_NOTHING:
            self.proof.notes.append(
                f"Batches without rows were not tried: onnxruntime's "
                f"{', '.join(sorted(ops & _ENDS_ON_NOTHING))} ends the whole process on them."
            )
            return
        for sample in self.proof.untried(draw_samples(self.contract, self.seed, _EMPTY_PLANS)):
            try:
                outcome = self.proof.compare(self.onnx, sample, eager=True)
            except SampleRejectedError:
                continue
            if outcome.ok:
                self.proof.checks += outcome.checks
            else:
                problem = next(check.problem for check in outcome.checks if not check.ok)
                self.proof.notes.append(f"Not as in Keras for {sample.description}: {problem}.")

    def _scatters(self) -> None:
        run_scatters(self.proof, self.filepath, self._file)

    def _again(self) -> None:
        self._steady = run_again(self.proof, self.onnx)

    def _threads(self) -> None:
        self.bars.doing("running with several threads")
        self._race = run_with_threads(
            self.proof, self.filepath, self.contract, self.level, self.seed
        )

    def _layers(self) -> None:
        # An untrained backbone may give the same for every image; its layers do not.
        if not (self.level.layers or self._blind):
            return
        self.bars.doing("comparing layer by layer")
        try:
            opened = OpenModel(self.model, self.signature, opset_of(self._file))
            self.layers = opened.layer_checks(self.proof.first[-1].sample.feed)
        except (ExportError, SampleRejectedError) as error:
            self.proof.notes.append(f"The layers could not be compared: {first_line(error)}.")
        wrong = next((check for check in self.layers if not check.ok), None)
        if wrong is not None:
            self.proof.notes.append(
                f"The outputs agree, but in a fresh export layer '{wrong.name}' differs: "
                f"{wrong.problem}."
            )

    def _difference(self, failed: Sample) -> Difference:
        if self.proof.difference is not None:
            return self.proof.difference
        self.bars.doing("looking for the first difference")
        race = self._race or race_on(self.proof, self.filepath, failed)
        if race is not None:
            return find_racing_node(self.proof, self.filepath, race)
        if not self._steady:
            return UNSTEADY
        in_training = training_difference(self.proof, self._file, failed)
        if in_training is not None:
            return in_training
        found = find_first_difference(
            self.model,
            self.signature,
            self.filepath,
            failed.feed,
            agrees=lambda other: self.proof.compare(other, failed, eager=True).ok,
        )
        if computes_training(self.proof, self.onnx, failed):
            said = "The file computes what the model computes with training=True."
            return Difference(f"{said} {found.message}", found.layer)
        return found
