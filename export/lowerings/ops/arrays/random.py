"""Random numbers that are drawn in inference, refused with the reason."""

from __future__ import annotations

from typing import Any

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import converts


@converts(
    "StatelessMultinomial",
    "StatelessRandomBinomial",
    "StatelessRandomGammaV3",
    "StatelessRandomNormalV2",
    "StatelessRandomPoisson",
    "StatelessRandomUniformFullIntV2",
    "StatelessRandomUniformIntV2",
    "StatelessRandomUniformV2",
    "StatelessShuffle",
    "StatelessTruncatedNormalV2",
)
def refuse_random_draw(context: Any, node: Any, name: str, args: Any) -> None:
    """Names the layer, whose path stands before the operation's own name."""
    raise ExportError(
        f"node '{name}', whose name begins with the path of its layer, draws random numbers in "
        "inference too: no file can equal a model that gives other outputs each time. Do not call "
        "a layer that is random in training (dropout, noise, augmentation) with training=True; "
        "numbers that are wanted in inference draw outside, and make them an input of the model."
    )
