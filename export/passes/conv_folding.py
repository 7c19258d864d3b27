"""Takes what scales and shifts the channels behind a convolution into its weights.

So a BatchNormalization behind a convolution of any rank, grouped or not, costs nothing.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.numpy_helper

from keras_blocks.export.onnx_io.graphs import copied, nested_graphs, read_instead, reads, set_all

_CHANNELS = 1
# A convolution over time is one over images of one row, which is then taken off.
_ROW = 2


def fold_into_convolutions(graph: onnx.GraphProto) -> None:
    """Folds constant factors and terms, one for each channel, into the convolutions before them.

    The nodes of a graph must stand behind those that they read.
    """
    for inner in nested_graphs(graph):
        _Folding(graph, inner).run()


class _Folding:
    """One graph, whose new weights go to the outermost."""

    def __init__(self, outermost: onnx.GraphProto, graph: onnx.GraphProto):
        self._outermost, self._graph = outermost, graph
        self._weights = {w.name: w for w in (*outermost.initializer, *graph.initializer)}
        self._readers = Counter(name for node in graph.node for name in reads(node))
        self._readers.update(value.name for value in graph.output)
        # By what they give: the convolution, and how many axes its result has there.
        self._behind: dict[str, tuple[onnx.NodeProto, int]] = {}
        self._same: dict[str, str] = {}

    def run(self) -> None:
        """Folds what can be."""
        outputs = {value.name for value in self._graph.output}
        kept = []
        for node in [copied(node) for node in self._graph.node]:
            read_instead(node, self._same)
            if not outputs.intersection(node.output) and self._fold(node):
                continue
            kept.append(node)
            self._follow(node)
        set_all(self._graph.node, kept)

    def _follow(self, node: onnx.NodeProto) -> None:
        alone = len(node.output) == 1 and self._readers[node.output[0]] == 1
        if node.op_type == "Conv" and alone:
            if all(name in self._weights for name in node.input[1:]):
                rank = len(self._weights[node.input[1]].dims)
                self._behind[node.output[0]] = node, rank
        elif node.op_type == "Squeeze" and alone and node.input[0] in self._behind:
            convolution, rank = self._behind[node.input[0]]
            axes = self._values(node.input[1]) if len(node.input) > 1 else None
            if rank == 4 and axes is not None and axes.tolist() == [_ROW]:
                self._behind[node.output[0]] = convolution, rank - 1

    def _fold(self, node: onnx.NodeProto) -> bool:
        """Whether a node is now a part of the convolution before it."""
        if node.op_type not in ("Mul", "Add", "Sub"):
            return False
        for place in (0, 1) if node.op_type != "Sub" else (0,):
            given, constant = node.input[place], self._values(node.input[1 - place])
            if given not in self._behind or constant is None:
                continue
            convolution, rank = self._behind[given]
            channels = self._weights[convolution.input[1]].dims[0]
            by_channel = _by_channel(constant, rank, channels)
            if by_channel is None:
                return False
            self._change(convolution, node.op_type, by_channel)
            # What read the node reads what it read, of which it was the one reader.
            self._same[node.output[0]] = given
            if self._readers[node.output[0]] != 1:
                del self._behind[given]
            return True
        return False

    def _change(self, convolution: onnx.NodeProto, op_type: str, values: np.ndarray) -> None:
        kernel, *given = (
            onnx.numpy_helper.to_array(self._weights[name]) for name in convolution.input[1:]
        )
        bias = given[0] if given else np.zeros(len(kernel), kernel.dtype)
        if op_type == "Mul":
            self._set(convolution, 1, kernel * values.reshape(-1, *[1] * (kernel.ndim - 1)))
        if op_type != "Mul" or given:
            change = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract}[op_type]
            self._set(convolution, 2, change(bias, values))

    def _set(self, convolution: onnx.NodeProto, place: int, values: np.ndarray) -> None:
        """A weight of its own: others may read the present one."""
        scope = convolution.name.rpartition("/")[0]
        name = f"{scope}/{('kernel', 'bias')[place - 1]}__{len(self._outermost.initializer)}"
        weight = onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        self._outermost.initializer.append(weight)
        self._weights[name] = weight
        convolution.input.extend([""] * (place + 1 - len(convolution.input)))
        convolution.input[place] = name

    def _values(self, name: str) -> np.ndarray | None:
        weight = self._weights.get(name)
        return None if weight is None else onnx.numpy_helper.to_array(weight)


def _by_channel(constant: np.ndarray, rank: int, channels: int) -> np.ndarray | None:
    """A value for each channel, if the constant has one for each or one for all."""
    shape = [1] * (rank - constant.ndim) + list(constant.shape)
    if len(shape) != rank or shape[_CHANNELS] not in (1, channels):
        return None
    if any(size != 1 for axis, size in enumerate(shape) if axis != _CHANNELS):
        return None
    return np.broadcast_to(constant.reshape(-1), (channels,))
