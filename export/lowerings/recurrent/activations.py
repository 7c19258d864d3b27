"""The activations that onnxruntime's recurrent ops know, from Keras's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class OnnxActivation:
    """An activation of a recurrent ONNX op; `odd_gate` means f(-x) = 1 - f(x)."""

    name: str
    alpha: float | None = None
    beta: float | None = None
    odd_gate: bool = False


_K = keras.activations
_ACTIVATIONS: dict[Callable[..., Any], OnnxActivation] = {
    _K.tanh: OnnxActivation("Tanh"),
    _K.sigmoid: OnnxActivation("Sigmoid", odd_gate=True),
    _K.hard_sigmoid: OnnxActivation("HardSigmoid", 1 / 6, 0.5, odd_gate=True),
    _K.relu: OnnxActivation("Relu"),
    _K.leaky_relu: OnnxActivation("LeakyRelu", 0.2),
    _K.elu: OnnxActivation("Elu", 1.0),
    _K.softsign: OnnxActivation("Softsign"),
    _K.softplus: OnnxActivation("Softplus"),
    _K.linear: OnnxActivation("Affine", 1.0, 0.0),
}


def onnx_activation(function: Callable[..., Any]) -> OnnxActivation | None:
    """The ONNX form of a Keras activation, or None where onnxruntime has none."""
    try:
        return _ACTIVATIONS.get(function)
    except TypeError:  # an activation that cannot be hashed is none of Keras's own
        return None


def activation_attributes(activations: Sequence[OnnxActivation]) -> dict[str, Any]:
    """The attributes of a recurrent node; only the parameters that are taken are listed."""
    attributes: dict[str, Any] = {"activations": [a.name for a in activations]}
    alphas = [a.alpha for a in activations if a.alpha is not None]
    betas = [a.beta for a in activations if a.beta is not None]
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes
