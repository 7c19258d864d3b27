"""A file's signature, ops and graph as one HTML page, which needs no other file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import onnx
import onnx.shape_inference

from keras_blocks.export.onnx_io.graphs import graphs_of
from keras_blocks.export.onnx_io.reading import load
from keras_blocks.export.reports.graph_groups import Edge, Group, grouped
from keras_blocks.export.reports.html import figures, page, table
from keras_blocks.export.reports.text import size_text

_BOX_WIDTH, _BOX_HEIGHT = 240, 46
_GAP, _RANK_GAP, _MARGIN = 24, 44, 8
_MOST_DRAWN = 1000  # of more nobody could follow the lines
_LETTERS = 30  # that a box has room for; of longer labels the end is shown
_STYLE = """<style>
.graph rect { fill: var(--stripe); stroke: var(--line); } .graph text { fill: var(--text); }
.graph .outer rect { fill: var(--page); stroke: var(--right); }
.graph .small { fill: var(--faint); font-size: 11px; }
.graph path { fill: none; stroke: var(--faint); opacity: .55; }
.graph a:hover rect, .graph a:focus rect { stroke: var(--text); }
.graph a { cursor: pointer; } summary { cursor: pointer; padding: .25rem 0; }
details:target > summary { font-weight: 600; } td { overflow-wrap: anywhere; }
</style>"""


# A link to a layer that is folded opens it.
_SCRIPT = """<script>addEventListener("hashchange", () => {
  const layer = document.getElementById(location.hash.slice(1)); if (layer) layer.open = true; });
</script>"""


def write_graph_page(path: Path, facts: Mapping[str, Any], target: Path) -> None:
    """Writes the page of an ONNX file.

    Args:
        path: of the ONNX file.
        facts: what `inspect_file` found in it.
        target: of the page.
    Raises:
        ModelLoadError: it is no ONNX file.
    """
    target.write_text(graph_page(load(path, weights=False), facts), encoding="utf-8")


def graph_page(model: onnx.ModelProto, facts: Mapping[str, Any]) -> str:
    """The page of a model; the graph is drawn by layers, and all nodes stand below, by layer."""
    types = _types(model)
    groups, edges = grouped(model.graph)
    layers = sum(bool(group.nodes) for group in groups)
    parts = [
        _STYLE,
        _SCRIPT,
        _figures(facts),
        _signature(facts),
        f"<h2>Graph: {layers} layers</h2>",
    ]
    if len(groups) <= _MOST_DRAWN:
        parts.append(_drawing(groups, edges, types))
    else:
        parts.append("<p>Too many layers to draw.</p>")
    parts.append(f"<h2>Nodes: {sum(facts['ops'].values())}</h2>")
    parts += [_nodes(number, group, types) for number, group in enumerate(groups) if group.nodes]
    return page(f"{facts['file']}", parts)


def _figures(facts: Mapping[str, Any]) -> str:
    proof = facts["proof"]
    shown = {
        "size": size_text(facts["bytes"]),
        "nodes": sum(facts["ops"].values()),
        "opset": ", ".join(f"{domain} {number}" for domain, number in facts["opset"].items()),
        "loads in": facts["loads_in"],
        "written by": facts["producer"] or "unknown",
        "proof": f"{proof.get('samples')} samples, worst error {proof.get('max_error')}"
        if proof
        else "none in the file",
    }
    changes = [str(change.get("change")) for change in facts["changes"]]
    if changes:
        shown["changed"] = ", then ".join(changes)
    return figures(shown)


def _signature(facts: Mapping[str, Any]) -> str:
    rows = []
    for side in ("inputs", "outputs"):
        for tensor in facts[side]:
            notes = dict(tensor["parameters"])
            dims = ", ".join(map(str, notes.pop("dims")))
            text = ", ".join(f"{key} {value}" for key, value in notes.items())
            rows.append((side[:-1], tensor["name"], tensor["datatype"], f"[{dims}]", text))
    ops = [(op, count) for op, count in facts["ops"].items()]
    return (
        f"<h2>Signature</h2>{table(('', 'name', 'datatype', 'shape', 'notes'), rows)}"
        f"<h2>Ops</h2>{table(('op', 'nodes'), ops, numbers=(1,))}"
    )


def _drawing(groups: Sequence[Group], edges: Sequence[Edge], types: Mapping[str, str]) -> str:
    widest = max(abs(group.place) for group in groups) * (_BOX_WIDTH + _GAP)
    middle = _MARGIN + widest + _BOX_WIDTH / 2
    height = 2 * _MARGIN + (1 + max(g.rank for g in groups)) * (_BOX_HEIGHT + _RANK_GAP) - _RANK_GAP

    def corner(group: Group) -> tuple[float, float]:
        x = middle + group.place * (_BOX_WIDTH + _GAP) - _BOX_WIDTH / 2
        return x, _MARGIN + group.rank * (_BOX_HEIGHT + _RANK_GAP)

    lines = [_line(corner(groups[e.source]), corner(groups[e.target]), e, types) for e in edges]
    boxes = [_box(number, group, corner(group)) for number, group in enumerate(groups)]
    size = f'width="{2 * middle:.0f}" height="{height:.0f}"'
    view = f'viewBox="0 0 {2 * middle:.0f} {height:.0f}"'
    return (
        f'<div class="wide"><svg class="graph" {size} {view} role="img" font-size="13" '
        f'aria-label="The graph, one box for each layer">{"".join(lines + boxes)}</svg></div>'
    )


def _line(
    source: tuple[float, float], target: tuple[float, float], edge: Edge, types: Mapping[str, str]
) -> str:
    x, y = source[0] + _BOX_WIDTH / 2, source[1] + _BOX_HEIGHT
    to_x, to_y = target[0] + _BOX_WIDTH / 2, target[1]
    bend = max(_RANK_GAP / 2, abs(to_y - y) / 3)
    curve = f"M{x:.0f},{y:.0f} C{x:.0f},{y + bend:.0f} {to_x:.0f},{to_y - bend:.0f}"
    title = "\n".join(f"{name} {types.get(name, '')}".strip() for name in edge.tensors)
    return f'<path d="{curve} {to_x:.0f},{to_y:.0f}"><title>{escape(title)}</title></path>'


def _box(number: int, group: Group, corner: tuple[float, float]) -> str:
    x, y = corner
    counts = ", ".join(f"{count} {op}" for op, count in group.ops.most_common())
    label = group.label if len(group.label) <= _LETTERS else f"…{group.label[1 - _LETTERS :]}"
    small = counts if len(counts) <= _LETTERS + 4 else f"{counts[: _LETTERS + 3]}…"
    middle = x + _BOX_WIDTH / 2
    shape = (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6"/>'
        f'<text x="{middle:.0f}" y="{y + (19 if counts else 28):.0f}" text-anchor="middle">'
        f"{escape(label)}</text>"
        f'<text class="small" x="{middle:.0f}" y="{y + 36:.0f}" text-anchor="middle">'
        f"{escape(small)}</text><title>{escape(f'{group.label} {counts}'.strip())}</title>"
    )
    if not group.nodes:
        return f'<g class="outer">{shape}</g>'
    return f'<a href="#layer-{number}">{shape}</a>'


def _nodes(number: int, group: Group, types: Mapping[str, str]) -> str:
    rows = [row for node in group.nodes for row in _rows(node, types, 0)]
    counts = ", ".join(f"{count} {op}" for op, count in group.ops.most_common())
    return (
        f'<details id="layer-{number}"><summary>{escape(group.label)}: {escape(counts)}</summary>'
        f"{table(('op', 'reads', 'gives'), rows)}</details>"
    )


def _rows(
    node: onnx.NodeProto, types: Mapping[str, str], depth: int
) -> Iterator[tuple[str, str, str]]:
    """A node, and those in its loop body or branches below it."""

    def texts(names: Sequence[str]) -> str:
        return ", ".join(f"{name} {types.get(name, '')}".strip() for name in names if name)

    yield "· " * depth + node.op_type, texts(node.input), texts(node.output)
    for graph in graphs_of(node):
        for inner in graph.node:
            yield from _rows(inner, types, depth + 1)


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """What is known of each tensor, in words: float32 [batch, 3]."""
    types: dict[str, str] = {}
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # the page is worth having without the shapes
        graph = model.graph
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type:
            dims = [d.dim_param or (d.dim_value if d.HasField("dim_value") else "?")
                    for d in tensor.shape.dim]  # fmt: skip
            types[value.name] = _type(tensor.elem_type, dims)
    for weight in graph.initializer:
        types[weight.name] = f"weight {_type(weight.data_type, list(weight.dims))}"
    return types


def _type(element: int, dims: Sequence[Any]) -> str:
    name = onnx.TensorProto.DataType.Name(element).lower()
    name = {"float": "float32", "double": "float64"}.get(name, name)
    return f"{name} [{', '.join(map(str, dims))}]"
