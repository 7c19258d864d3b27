"""The shortest and the longest size that a model takes: where it begins or ends, exports break."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from keras_blocks.contract import Contract
from keras_blocks.contract.sampling.plans import dense
from keras_blocks.contract.sampling.samples import BATCH, draw_samples
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

_SECONDS, _SHARE = 0.05, 0.25  # the time for it, and the share of what the proof took before


def run_boundaries(
    proof: VerificationRun, onnx: OnnxRunner, contract: Contract, seed: int, end: int
) -> None:
    """Compares the two sides on the sizes next to those that the model refuses.

    Args:
        proof: has tried some sizes before.
        onnx: the file.
        contract: its inputs; nothing is done where no dim but the batch is free.
        seed: int, of the samples.
        end: int, how far the longest size is looked for.
    """
    if not _sizes_are_free(contract):
        return
    search = _Search(proof, onnx, contract, seed)
    taken = {
        sample.plan.size: accepted
        for sample, accepted in proof.tried
        if sample.plan is not None and not sample.plan.apart
    }
    size = max((size for size, accepted in taken.items() if accepted), default=end)
    while size == max(taken) and 2 * size <= end and not search.late(growth=2):
        # Larger images are no squares: what takes the one side for the other would not show.
        taken[2 * size] = search.accepts(2 * size, apart=True)
        size *= 1 + taken[2 * size]
    for inside, outside in _gaps(taken):
        while abs(outside - inside) > 1 and not search.late():
            middle = (inside + outside) // 2
            if search.accepts(middle):
                inside = middle
            else:
                outside = middle


class _Search:
    """Asks a model for sizes, with one row, and adds to the proof what it took."""

    def __init__(self, proof: VerificationRun, onnx: OnnxRunner, contract: Contract, seed: int):
        self.proof, self.onnx, self.contract, self.seed = proof, onnx, contract, seed
        self._end = proof.budget.spent * (1 + _SHARE) + _SECONDS
        self._took = 0.0

    def late(self, growth: int = 1) -> bool:
        """Whether there is no time for one that takes so many times as long as the last did."""
        spent = self.proof.budget.spent
        return self.proof.spent or spent + growth * self._took > self._end

    def accepts(self, size: int, apart: bool = False) -> bool:
        """Whether the model takes this size; it is compared if so."""
        started = self.proof.budget.spent
        try:
            for sample in draw_samples(self.contract, self.seed, (dense(1, size, apart=apart),)):
                timed = replace(sample, fixed=False)
                self.proof.add(self.proof.examine(self.onnx, timed, eager=False))
                return True
        except SampleRejectedError:
            pass
        finally:
            self._took = self.proof.budget.spent - started
        return False


def _sizes_are_free(contract: Contract) -> bool:
    dims = [dim for spec in contract.inputs for dim in spec.shape if isinstance(dim, str)]
    ragged = any(spec.ragged for spec in contract.inputs)
    return not ragged and any(dim != BATCH for dim in dims)


def _gaps(taken: dict[int, bool]) -> Iterator[tuple[int, int]]:
    """Neighbouring sizes of which the model takes the first of the pair and refuses the second."""
    for one, other in itertools.pairwise(sorted(taken)):
        if taken[one] != taken[other]:
            yield (one, other) if taken[one] else (other, one)
