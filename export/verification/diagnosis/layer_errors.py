"""What every layer of a model gives, in Keras and in a fresh export that gives all of it."""

from __future__ import annotations

import keras
import numpy as np

from keras_blocks.export.conversion.layer_probe import Probe, Seen, kind_of_layer, probe_signature
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.results.checks import LayerCheck
from keras_blocks.export.results.comparison import TOLERANCES, compare, compute_dtype
from keras_blocks.export.signature.signature import Signature
from keras_blocks.export.verification.keras_side import KerasRunner
from keras_blocks.runtime.runner import OnnxRunner


class OpenModel:
    """A model whose layers' outputs are all seen, and its export.

    Args:
        model: the Keras model.
        signature: its signature.
        opset: int, of the export.
    Raises:
        ExportError: it has no ONNX form once it gives all of its layers' outputs.
    """

    def __init__(self, model: keras.Model, signature: Signature, opset: int):
        self.model, self.signature = model, signature
        self.probe = Probe(model)
        self.exported = to_onnx(self.probe, probe_signature(self.probe, signature), opset)
        self._seen, self._calls = list(self.probe.seen), dict(self.probe.calls)

    def layer_checks(self, feed: dict[str, np.ndarray]) -> list[LayerCheck]:
        """The layers in the order in which they are done.

        Raises:
            RefusedError: the export fails on these inputs.
        """
        values = OnnxRunner(self.exported.SerializeToString()).run(feed)
        got = dict(zip(self._seen, values.values(), strict=True))
        given = KerasRunner(self.probe, self.signature).run(feed, eager=True)
        expected = dict(zip(self.probe.seen, given, strict=True))
        found: dict[tuple[str, int], LayerCheck] = {}
        for seen, value in got.items():
            # A lowering may call a layer once where Keras calls it at every step.
            if seen in expected and self._calls[seen.layer] == self.probe.calls[seen.layer]:
                check = self._check(seen, expected[seen], value)
                key = seen.layer, seen.call_number
                if key not in found or _worse(check, found[key]):
                    found[key] = check
        return list(found.values())

    def _check(self, seen: Seen, expected: np.ndarray, value: np.ndarray) -> LayerCheck:
        result = compare(expected, value, TOLERANCES[compute_dtype(self.model)])
        return LayerCheck(
            layer=seen.layer,
            kind=kind_of_layer(self.model, seen.layer),
            call=seen.call_number,
            shape=expected.shape,
            max_error=result.max_error,
            relative_error=result.relative_error,
            tolerance=result.tolerance,
            worst=result.worst,
            problem=result.problem,
        )


def _worse(check: LayerCheck, other: LayerCheck) -> bool:
    return (not check.ok, check.relative_error) > (not other.ok, other.relative_error)
