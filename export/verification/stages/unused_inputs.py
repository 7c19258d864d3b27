"""Inputs that do not matter: an output that never moves when an input does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.sampling.samples import Sample, draw_samples
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

# Seeds after that of the proof, and where zeros are: of the integers of a mask those alone matter.
# An input that moves nothing with any of them is noted.
_OTHERS = ((1, None), (2, None), (1, "front"), (2, "tail"))


def run_with_other_inputs(
    proof: VerificationRun, onnx: OnnxRunner, contract: Contract, seed: int
) -> list[str]:
    """Puts other values into one input after the other, and notes those that change nothing.

    Each such sample is compared like any other: a file that ignores an input that the model reads,
    or the other way round, fails.

    Args:
        proof: has outcomes to go on from.
        onnx: the file.
        contract: its inputs.
        seed: int, that of the proof.
    Returns:
        The names of the inputs that change nothing.
    """
    idle = []
    known = proof.first[-1].sample
    # Traced, as the others will be: op by op may round differently.
    before = proof.keras.run(known.feed)
    for spec in contract.inputs:
        others = list(_with_other_values(contract, known, spec.name, seed))
        if others and not any(_moves(proof, onnx, before, sample) for sample in others):
            idle.append(spec.name)
            proof.notes.append(
                f"No output depends on the input '{spec.name}', in the model or in the file: what "
                f"is done with it is not proven by the outputs."
            )
    return idle


def _with_other_values(contract: Contract, known: Sample, name: str, seed: int) -> Iterator[Sample]:
    """The sample with other values in this input, where others of the same shape can be drawn."""
    if known.plan is None:
        return
    for other, blanks in _OTHERS:
        for drawn in draw_samples(contract, seed + other, (replace(known.plan, blanks=blanks),)):
            value, before = drawn.feed[name], known.feed[name]
            if value.shape == before.shape and not np.array_equal(value, before):
                description = f"{known.description}, other values in {name}"
                yield Sample(description, {**known.feed, name: value})


def _moves(
    proof: VerificationRun, onnx: OnnxRunner, before: list[np.ndarray], sample: Sample
) -> bool:
    """Whether some output is another than before; an input that the model refuses may matter."""
    if proof.spent:
        return True
    try:
        outcome = proof.examine(onnx, sample, eager=False)
    except SampleRejectedError:
        return True
    proof.add(outcome)
    return any(
        now.tobytes() != then.tobytes() for now, then in zip(outcome.expected, before, strict=True)
    )
