"""The outputs of the layers inside a functional model, to find the first one that differs."""

from __future__ import annotations

import keras

from keras_blocks.errors import ExportError


def inner_model(model: keras.Model) -> tuple[keras.Model, list[str]]:
    """A model of the same layers that gives the output of each of them.

    Args:
        model: a functional or sequential model.

    Returns:
        The model, whose outputs are a list in the order of computation, and for each output the
        name of its layer.

    Raises:
        ExportError: the model is subclassed: which layers it has is known, what it does between
            them is not.
    """
    functional = getattr(model, "_functional", None) or model
    nodes_by_depth = getattr(functional, "_nodes_by_depth", None)
    if nodes_by_depth is None:
        raise ExportError(
            f"model '{model.name}' is subclassed; layer outputs are known of functional and "
            "sequential models only"
        )
    outputs, layers = [], []
    for depth in sorted(nodes_by_depth, reverse=True):
        for node in nodes_by_depth[depth]:
            if not node.is_input:
                outputs += node.output_tensors
                layers += [node.operation.name] * len(node.output_tensors)
    return keras.Model(functional.input, outputs, name=f"{model.name}_inner"), layers
