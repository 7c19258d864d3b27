"""A graph seen as its Keras layers: nodes of one layer are one box, and boxes stand in ranks.

The exporter names nodes by the path of their layer, `model/encoder/dense/MatMul`; so do others. The
boxes are the outermost layers, or the parts of those where they are only a few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx

from keras_blocks.export.onnx_io.graphs import reads

MOST_BOXES = 80
FEWEST_BOXES = 4  # fewer show little; parts of layers are shown then
_SWEEPS = 4  # over the ranks, to bring boxes near those that they read


@dataclass
class Group:
    """Nodes that are shown as one box.

    Args:
        label: str, the path of the layer within the model.
        nodes: those of the model's own graph, in order.
        rank: int, how far down it stands; it stands below all that it reads.
        place: float, how far to the right among its rank.
    """

    label: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    rank: int = 0
    place: float = 0.0

    @property
    def ops(self) -> Counter[str]:
        """How many nodes of each op."""
        return Counter(node.op_type for node in self.nodes)


@dataclass(frozen=True)
class Edge:
    """Tensors that one group gives another, by the numbers of the groups."""

    source: int
    target: int
    tensors: tuple[str, ...]


def grouped(graph: onnx.GraphProto) -> tuple[list[Group], list[Edge]]:
    """The groups of a graph, its inputs and outputs among them, and what goes between them."""
    weights = {weight.name for weight in graph.initializer}
    groups = [Group(value.name) for value in graph.input if value.name not in weights]
    makers = {group.label: number for number, group in enumerate(groups)}
    numbers: dict[str, int] = {}
    for node, label in zip(graph.node, _labels(graph.node), strict=True):
        if label not in numbers:
            numbers[label] = len(groups)
            groups.append(Group(label))
        groups[numbers[label]].nodes.append(node)
        makers.update((name, numbers[label]) for name in node.output if name)
    tensors: dict[tuple[int, int], dict[str, None]] = {}
    for target, group in enumerate(groups):
        for node in group.nodes:
            for name in reads(node):
                if makers.get(name, target) != target:
                    tensors.setdefault((makers[name], target), {})[name] = None
    for value in graph.output:
        tensors[makers.get(value.name, 0), len(groups)] = {value.name: None}
        groups.append(Group(value.name))
    edges = [Edge(*ends, tuple(names)) for ends, names in tensors.items()]
    _arrange(groups, edges)
    return groups, edges


def _labels(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """The label of each node: the layer in its name, as deep as it takes to see several."""
    paths = [[part for part in node.name.split("/") if part][:-1] for node in nodes]
    nameless = {number for number, path in enumerate(paths) if not path}
    while len({path[0] for path in paths if path}) == 1 and any(len(path) > 1 for path in paths):
        paths = [path[1:] for path in paths]  # the model's own name
    best = [""] * len(paths)
    for depth in range(1, 1 + max(map(len, paths), default=0)):
        labels = ["/".join(path[:depth]) for path in paths]
        if any(best) and len(set(labels)) > MOST_BOXES:
            break
        best = labels
        if len(set(labels)) >= FEWEST_BOXES:
            break
    _absorb(nodes, best, nameless)
    _box_loose_nodes(nodes, best)
    return best


def _absorb(nodes: Sequence[onnx.NodeProto], labels: list[str], nameless: set[int]) -> None:
    """Nodes without a path go to the layer that reads them, if only one does, or that they read."""
    numbers = {name: n for n, node in enumerate(nodes) for name in node.output if name}
    sources = [{numbers[name] for name in reads(node) if name in numbers} for node in nodes]
    readers: list[set[int]] = [set() for _ in nodes]
    for number, read in enumerate(sources):
        for source in read:
            readers[source].add(number)
    backwards = sorted(nameless, reverse=True)
    for neighbours, order in ((readers, backwards), (sources, backwards[::-1])):
        for number in order:
            around = {labels[other] for other in neighbours[number]}
            if not labels[number] and len(around) == 1:
                labels[number] = around.pop()


def _box_loose_nodes(nodes: Sequence[onnx.NodeProto], labels: list[str]) -> None:
    """Nodes of no layer are boxes of their own; neighbours share one where they are many."""
    loose = [number for number, label in enumerate(labels) if not label]
    together = max(1, -(-len(loose) // (MOST_BOXES // 2)))
    for start in range(0, len(loose), together):
        numbers = loose[start : start + together]
        first = nodes[numbers[0]]
        label = first.name.rpartition("/")[2] or first.op_type
        label += f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        label = f"{label} ({start})" if label in labels else label
        for number in numbers:
            labels[number] = label


def _order(count: int, edges: Sequence[Edge]) -> list[int]:
    """The groups, each behind those that it reads; of a circle the first one comes first."""
    waiting: dict[int, set[int]] = {number: set() for number in range(count)}
    for edge in edges:
        waiting[edge.target].add(edge.source)
    order = []
    while waiting:
        free = (number for number, sources in waiting.items() if not sources & waiting.keys())
        chosen = next(free, next(iter(waiting)))
        order.append(chosen)
        del waiting[chosen]
    return order


def _arrange(groups: Sequence[Group], edges: Sequence[Edge]) -> None:
    position = {number: place for place, number in enumerate(_order(len(groups), edges))}
    # A layer that is called twice is one box; what leads back to it does not move it down.
    forward = [edge for edge in edges if position[edge.source] < position[edge.target]]
    for edge in sorted(forward, key=lambda edge: position[edge.target]):
        target = groups[edge.target]
        target.rank = max(target.rank, groups[edge.source].rank + 1)
    ranks: dict[int, list[Group]] = {}
    for group in groups:
        ranks.setdefault(group.rank, []).append(group)
    near: dict[int, list[Group]] = {id(group): [] for group in groups}
    for edge in forward:
        near[id(groups[edge.target])].append(groups[edge.source])
        near[id(groups[edge.source])].append(groups[edge.target])
    for _ in range(_SWEEPS):
        for number in sorted(ranks):
            rank = ranks[number]
            rank.sort(key=lambda group: _mean([other.place for other in near[id(group)]]))
            for index, group in enumerate(rank):
                group.place = index - (len(rank) - 1) / 2


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0
