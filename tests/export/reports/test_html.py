"""The page of a report: whole in itself, well formed, with a mark for every check."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from parity_reports import check, report, result, wrong

from keras_blocks.export.reports.plots import LABELS, WIDTH, ZERO, ErrorRow, error_plot
from keras_blocks.export.results.checks import LayerCheck

VOID = {"meta", "br", "link", "img"}


class Tags(HTMLParser):
    """Every tag is closed, in order; what the page would load from elsewhere is kept."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


def plots(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def layer(name: str, error: float = 1e-7, **changes) -> LayerCheck:
    return LayerCheck(name, "Dense", 1, (3, 5), error, error, 1e-5, **changes)


def test_a_page_has_a_row_for_each_check_and_each_layer_and_needs_no_other_file():
    checks = [check(f"batch {i}", 1e-7 * (i + 1)) for i in range(5)]
    page = report(*checks, layers=(layer("a"), layer("b"))).to_html()
    assert Tags(page).loaded == []
    by_shape, by_layer = plots(page)
    assert len(by_shape.findall("g")) == 5
    assert [g.find("text").text for g in by_layer.findall("g")] == ["a (Dense)", "b (Dense)"]
    assert page.count("<td>ok</td>") == 5


def test_a_page_has_a_plot_for_each_output():
    page = report(check(output="one"), check(output="two")).to_html()
    assert "Error by shape of output one" in page
    assert "Error by shape of output two" in page
    assert len(plots(page)) == 2
    assert "Not measured." in page, "no layer was"


def test_a_wrong_check_is_marked():
    page = report(
        check(), wrong(sample="the bad one"), layers=(layer("a", problem="bad"),)
    ).to_html()
    assert 'class="verdict wrong"' in page
    by_shape, by_layer = plots(page)
    assert [g.get("class") for g in by_shape.findall("g")] == ["right", "wrong"]
    assert [g.get("class") for g in by_layer.findall("g")] == ["wrong"]


def test_names_are_text_and_not_markup():
    page = report(check("<script>alert(1)</script>"), filepath="<b>.onnx").to_html()
    assert "<script>" not in page
    assert "<b>.onnx" not in page
    Tags(page)


def test_larger_errors_stand_further_right_and_zero_and_infinity_apart():
    rows = [ErrorRow("row", error, 1e-5) for error in (0.0, 1e-9, 1e-7, 1.0, math.inf)]
    drawing = ElementTree.fromstring(error_plot(rows, "error"))
    places = [float(group.find("circle").get("cx")) for group in drawing.findall("g")]
    assert places == sorted(places)
    assert places[0] < LABELS + ZERO <= places[1]
    assert places[-1] < WIDTH


@pytest.mark.parametrize("error", [0.0, 1e-300, 1e300])
def test_any_error_can_be_drawn(error):
    ElementTree.fromstring(error_plot([ErrorRow("row", error, 0.0, error)], "error"))


def test_the_page_of_an_export_has_its_signature_and_its_proof(tmp_path):
    page = result().save(tmp_path / "result.html").read_text()
    Tags(page)
    for text in ("trees.onnx", "tokens", "0 to 4999", "MatMul 5", "equals the Keras model"):
        assert text in page
    assert "the proof was switched off" in result(parity=None).to_html()
