"""Outputs of another shape in inference than their layers declare, which training has it from."""

from __future__ import annotations

import keras

from keras_blocks.export.verification.comparisons import VerificationRun


def note_undeclared_shapes(proof: VerificationRun) -> None:
    """Notes each output that never had the shape that the model declares (`RandomCrop`)."""
    declared = keras.tree.flatten(getattr(proof.keras.model, "outputs", None) or [])
    if len(declared) != len(proof.outputs) or not proof.first:
        return
    for index, (tensor, output) in enumerate(zip(declared, proof.outputs, strict=True)):
        shapes = [outcome.expected[index].shape for outcome in proof.first]
        if not any(_fits(shape, tensor.shape) for shape in shapes):
            seen = ", ".join(str(shape) for shape in sorted(set(shapes)))
            proof.notes.append(
                f"Output '{output.name}' is declared as {tuple(tensor.shape)}, and in inference "
                f"the model gives {seen}, as the file does: a layer that changes sizes in training "
                "only (RandomCrop) declares those of training."
            )


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(
        want in (None, have) for have, want in zip(shape, declared, strict=True)
    )
