"""The graph as a page: one box for each layer, whatever the names, and all nodes below."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import onnx
import onnx_files
import pytest
from onnx import helper
from onnx_files import FLOAT, INT64, node, tensor

from keras_blocks.cli.inspection import inspect_file
from keras_blocks.export.reports.graph_groups import MOST_BOXES, grouped
from keras_blocks.export.reports.graph_html import write_graph_page


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


def graph_of(names, ops=None):
    """A chain of nodes of these names."""
    nodes = [
        node((ops or {}).get(name, "Relu"), [f"t{i}"], [f"t{i + 1}"], name=name)
        for i, name in enumerate(names)
    ]
    ends = [tensor(f"t{i}", FLOAT, ["batch", 4]) for i in (0, len(names))]
    return helper.make_graph(nodes, "g", ends[:1], ends[1:])


def labels(names):
    groups, _ = grouped(graph_of(names))
    return [group.label for group in groups if group.nodes]


def test_nodes_of_a_layer_are_one_box():
    names = ["m/a/MatMul", "m/a/Add", "m/b/Relu", "m/c/x/Mul", "m/c/y/Mul", "m/d/Softmax"]
    groups, edges = grouped(graph_of(names))
    assert [group.label for group in groups] == ["t0", "a", "b", "c", "d", "t6"]
    assert [len(group.nodes) for group in groups] == [0, 2, 1, 2, 1, 0]
    assert [(edge.source, edge.target) for edge in edges] == [
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 4),
        (4, 5),
    ]
    assert [group.rank for group in groups] == [0, 1, 2, 3, 4, 5]


def test_a_model_of_few_parts_is_shown_by_the_layers_within():
    assert labels(["m/left/a/Add", "m/left/b/Add", "m/right/a/Add", "m/right/b/Add"]) == [
        "left/a",
        "left/b",
        "right/a",
        "right/b",
    ]


def test_a_node_of_no_layer_goes_to_the_layer_that_reads_it_or_has_its_own_box():
    assert labels(["m/a/x", "m/b/x", "Shape", "m/c/x", "m/d/x"]) == ["a", "b", "c", "d"]
    # One that the model itself names is an operation of its own.
    assert labels(["m/a/x", "m/b/x", "m/Add", "m/c/x", "m/d/x"]) == ["a", "b", "Add", "c", "d"]


@pytest.mark.parametrize("count", [3, MOST_BOXES, 5000])
def test_nodes_without_names_share_boxes_where_they_are_many(count):
    found = labels([""] * count)
    assert len(found) == len(set(found)) <= MOST_BOXES
    groups, _ = grouped(graph_of([""] * count))
    assert sum(len(group.nodes) for group in groups) == count


def test_a_layer_that_is_called_twice_is_one_box_that_others_lead_back_to():
    groups, edges = grouped(graph_of(["m/a/x", "m/b/x", "m/a/x", "m/c/x", "m/d/x"]))
    assert [group.label for group in groups if group.nodes] == ["a", "b", "c", "d"]
    assert (2, 1) in [(edge.source, edge.target) for edge in edges]
    ranks = {group.label: group.rank for group in groups}
    assert ranks == {"t0": 0, "a": 1, "b": 2, "c": 2, "d": 3, "t5": 4}


def test_a_box_stands_below_all_that_it_reads():
    graph = helper.make_graph(
        [
            node("Relu", ["x"], ["long1"], name="m/a/r"),
            node("Relu", ["long1"], ["long2"], name="m/b/r"),
            node("Add", ["long2", "x"], ["y"], name="m/c/r"),
            node("Neg", ["x"], ["z"], name="m/d/r"),
        ],
        "g",
        [tensor("x", FLOAT, [1])],
        [tensor("y", FLOAT, [1]), tensor("z", FLOAT, [1])],
    )
    ranks = {group.label: group.rank for group in grouped(graph)[0]}
    assert ranks == {"x": 0, "a": 1, "b": 2, "c": 3, "d": 1, "y": 4, "z": 2}
    places = {group.label: group.place for group in grouped(graph)[0]}
    assert places["a"] != places["d"]


class Tags(HTMLParser):
    """The tags of a page; each that is opened must be closed in its turn."""

    def __init__(self, page):
        super().__init__()
        self.open, self.links, self.ids = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes["href"]] if "href" in attributes else []
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page_of(path, target):
    write_graph_page(path, inspect_file(path), target)
    return target.read_text()


def test_the_page_shows_signature_ops_and_every_node_and_needs_no_other_file(tmp_path):
    page = page_of(onnx_files.row_sums(tmp_path / "m.onnx"), tmp_path / "page.html")
    tags = Tags(page)
    for text in ("x.row_splits", "INT32", "CumSum", "int64 [batch+1]", "weight int32 [1]"):
        assert text in page
    assert "src=" not in page
    assert "url(" not in page
    assert set(tags.links) == {f"#{name}" for name in tags.ids}


def test_nodes_inside_a_loop_stand_below_it(tmp_path):
    page = page_of(onnx_files.slow(tmp_path / "m.onnx"), tmp_path / "page.html")
    Tags(page)
    assert "<td>Loop</td>" in page
    assert "<td>· MatMul</td>" in page


def test_names_cannot_break_the_page(tmp_path):
    name = "</title><script>alert(1)</script>"
    path = onnx_files.save(
        tmp_path / "m.onnx",
        [node("Identity", [name], ["y"], name=f"a/{name}/b")],
        [tensor(name, INT64, [name])],
        [tensor("y", INT64, None)],
    )
    page = page_of(path, tmp_path / "page.html")
    assert "alert(1)</script>" not in page
    Tags(page)


def test_thousands_of_nodes_make_a_page_in_seconds(tmp_path):
    names = [f"m/block_{i // 20}/layer_{i}/Relu" for i in range(4000)]
    model = helper.make_model(
        graph_of(names), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.save(model, tmp_path / "m.onnx")
    started = time.perf_counter()
    page = page_of(tmp_path / "m.onnx", tmp_path / "page.html")
    # It takes half a second; a machine that is busy with other things ten times that.
    assert time.perf_counter() - started < 15
    assert "Graph: 200 layers" in page
    assert page.count("<td>Relu</td>") >= 4000
