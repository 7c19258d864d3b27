"""The remainder of a division that rounds towards zero, which has the sign of the dividend."""

from __future__ import annotations

from typing import Any

from keras_blocks.export.lowerings.registry import converts


@converts("Mod", "TruncateMod")
def convert_remainder(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's Mod as C computes it."""
    given, outputs = list(node.input), list(node.output)
    to = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    context.remove_node(name)
    context.make_node("Mod", given, {"fmod": 1}, outputs=outputs, name=name, **to)
