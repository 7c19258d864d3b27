"""Outputs so small that the absolute error that passes is no small share of them.

A file that gives zeros would pass for them. Most grow with the inputs, untrained backbones among
them. What stays tiny may be the rounding of terms that cancel out, or a function that runs out, of
which onnxruntime has no digit right either: that is noted, and zeros fail.
"""

from __future__ import annotations

from dataclasses import replace

from keras_blocks.contract import Contract
from keras_blocks.contract.sampling.plans import Plan
from keras_blocks.contract.sampling.samples import draw_samples
from keras_blocks.export.results.checks import Difference
from keras_blocks.export.results.comparison import (
    Comparison,
    Tolerance,
    compare,
    compute_dtype,
    magnitude_of,
)
from keras_blocks.export.verification.comparisons import Outcome, VerificationRun
from keras_blocks.export.verification.rounding_noise import rounding_noise
from keras_blocks.runtime.runner import OnnxRunner

_SHARE = 0.01
_WITHIN = Tolerance(_SHARE, 0.0)
_MOST_OF_IT = Tolerance(0.5, 0.0)  # more than this is off where zeros are given
_NO_LAYER = Difference("It is too small throughout for a layer to be named.")
_SCALES = (1e2, 1e4, 1e6, 1e8)
_LARGEST = {"float16": 1e4}  # beyond it all is infinite


def are_tiny(proof: VerificationRun) -> bool:
    """Whether some output has been so small on every sample; a tolerance that is given stands."""
    return proof.allow_noise and any(_is_tiny(proof, size) for size in proof.magnitudes.values())


def run_with_large_inputs(
    proof: VerificationRun, onnx: OnnxRunner, contract: Contract, seed: int
) -> None:
    """Compares all that was tried on inputs so many times as large that no output is tiny.

    Args:
        proof: has outcomes to go on from.
        onnx: the file.
        contract: its inputs.
        seed: int, of the samples.
    """
    taken = [s.plan for s, accepted in proof.tried if accepted and s.plan is not None]
    most = _LARGEST.get(compute_dtype(proof.keras.model), max(_SCALES))

    def run(plans: list[Plan], scale: float) -> None:
        scaled = tuple(replace(plan, scale=plan.scale * scale, pixels=False) for plan in plans)
        proof.run(onnx, proof.untried(draw_samples(contract, seed, scaled)))

    for scale in _SCALES:
        if scale > most or proof.failed is not None:
            return
        run(taken[-1:], scale)
        if not are_tiny(proof):
            run([plan for plan in taken if plan.scale == 1], scale)
            return


def fail_lost_outputs(proof: VerificationRun) -> None:
    """Fails outputs that are tiny throughout and have lost most of what they are.

    Args:
        proof: has outcomes to judge; the model's rounding is allowed as usual.
    """
    side = proof.keras
    for index, size in sorted(proof.magnitudes.items()):
        if not _is_tiny(proof, size) or proof.failed is not None:
            continue
        outcome = _clearest(proof, index)
        if outcome is None or _judged(outcome, index, _MOST_OF_IT).problem is None:
            continue
        flat = [outcome.sample.feed[name] for name in side.names]
        noise = rounding_noise(side.model, side.signature, flat, outcome.expected)[index]
        found = _judged(outcome, index, replace(_MOST_OF_IT, atol=noise))
        if found.problem is not None:
            check = proof.check(index, outcome.sample, outcome.expected[index], **vars(found))
            proof.checks.append(check)
            proof.fail(outcome.sample, _NO_LAYER)


def note_lost_outputs(proof: VerificationRun) -> None:
    """Notes the outputs of which most may pass for rounding, and not all of it is right."""
    if not proof.allow_noise:
        return
    for index, size in sorted(proof.magnitudes.items()):
        name, outcome = proof.outputs[index].name, _clearest(proof, index)
        allowed = max(check.tolerance for check in proof.checks if check.output == name)
        lost = (_is_tiny(proof, size) or allowed >= size) and bool(proof.finite.get(index))
        if lost and not (outcome and _judged(outcome, index, _WITHIN).problem is None):
            proof.notes.append(
                f"Output '{name}' was {size:.2g} at most, and errors of {allowed:.2g} pass as "
                f"rounding: its values are proven no closer."
            )


def _clearest(proof: VerificationRun, index: int) -> Outcome | None:
    """The outcome with the largest values of an output, of those that are kept; none for zeros."""

    def size(outcome: Outcome) -> float:
        return magnitude_of(outcome.expected[index])

    kept = [*proof.first, *([] if proof.largest is None else [proof.largest])]
    return max((one for one in kept if one.got and size(one)), key=size, default=None)


def _judged(outcome: Outcome, index: int, tolerance: Tolerance) -> Comparison:
    assert outcome.got is not None
    return compare(outcome.expected[index], outcome.got[index], tolerance)


def _is_tiny(proof: VerificationRun, size: float) -> bool:
    return proof.tolerance.atol > _SHARE * size
