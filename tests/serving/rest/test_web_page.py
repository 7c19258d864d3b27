"""The page at `/` in a real browser, before a real server."""

import contextlib
import json
import re
import threading

import httpx
import numpy as np
import onnx
import onnx_files
import onnxruntime
import pytest

from keras_blocks.contract import PROOF_METADATA_KEY
from keras_blocks.serving import load_repository
from keras_blocks.serving.auth import ApiKeys
from keras_blocks.serving.protocol.example_requests import example_request

from ..browser import CHROMIUM, CONTROL, DRIVER, ENTER, SPACE, browsing
from ..conftest import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver"),
]
DRAWN = "return document.querySelector('.chart .line')?.getAttribute('d')"
MOVED = f"{DRAWN} !== arguments[0]"
PROOF = {"ok": True, "level": "full", "samples": 24, "max_error": 1.2e-7, "skipped": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for make in (onnx_files.double, onnx_files.row_sums, onnx_files.tree, onnx_files.log):
        make(folder / make.__name__ / "1" / "model.onnx")
    path = onnx_files.double(folder / "double" / "2" / "model.onnx")
    proven = onnx.load(path)
    onnx.helper.set_model_props(proven, {PROOF_METADATA_KEY: json.dumps(PROOF)})
    onnx.save(proven, path)
    return folder


@pytest.fixture(scope="module")
def url(folder):
    with running(load_repository(folder, threads=1)) as url:
        yield url


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(window, url):
    window.open(url)
    window.wait("return document.querySelectorAll('.model').length === 4")
    yield window
    assert window.logged() == []


def open_form(browser, model):
    """By keyboard alone, from the top of the page."""
    browser.tab_to(f"[data-model={model}] > summary")
    browser.press(ENTER)
    browser.wait(f"return document.querySelector('[data-model={model}] .send') !== null")


def fill(browser, model, *texts):
    for index, text in enumerate(texts, 1):
        browser.tab_to(f"[data-model={model}] .field:nth-of-type({index}) textarea")
        browser.press_together(CONTROL, "a")
        browser.press(*text)
    browser.tab_to(f"[data-model={model}] .send")
    browser.press(SPACE)


def answered(browser, model):
    """The cells of each table of the answer."""
    browser.wait(f"return document.querySelector('[data-model={model}] .answer table') !== null")
    script = """return [...document.querySelectorAll(arguments[0])].map((table) =>
        [...table.rows].map((row) => [...row.cells].slice(1).map((cell) => cell.innerText)))"""
    tables = browser.run(script, f"[data-model={model}] .answer table")
    return [[[float(cell) for cell in row] for row in table] for table in tables]


def alone(folder, model, version=1, **inputs):
    session = onnxruntime.InferenceSession(folder / model / str(version) / "model.onnx")
    return session.run(None, inputs)


@contextlib.contextmanager
def load_on(url, model, folder):
    stopping = threading.Event()
    body = example_request(load_repository(folder, threads=1).get(model).contract)

    def ask():
        with httpx.Client(base_url=url) as client:
            while not stopping.wait(0.005):
                client.post(f"/v2/models/{model}/infer", json=body).raise_for_status()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def test_by_keyboard_alone_a_form_is_sent_and_the_answer_is_onnxruntimes(browser, folder):
    open_form(browser, "double")
    fill(browser, "double", "[[1.5, -2, 3], [0.12345, 1e6, 7]]")
    (table,) = answered(browser, "double")
    given = np.array([[1.5, -2, 3], [0.12345, 1e6, 7]], dtype="float32")
    np.testing.assert_array_equal(np.float32(table), alone(folder, "double", 2, x=given)[0])
    assert "by version 2" in browser.text("[data-model=double] .answer .told")


def test_rows_of_unequal_length_and_trees_are_sent_as_lists(browser, folder):
    open_form(browser, "row_sums")
    fill(browser, "row_sums", "[[1, 2, 3], [], [9]]")
    splits = np.array([0, 3, 3, 4], dtype="int64")
    values = np.array([1, 2, 3, 9], dtype="int32")
    (sums,) = alone(folder, "row_sums", x=values, **{"x.row_splits": splits})
    assert answered(browser, "row_sums") == [[[value] for value in sums]]
    open_form(browser, "tree")
    fill(browser, "tree", "[[4, 5, 6], [7]]", "[[-1, 0, 0], [-1]]")
    assert answered(browser, "tree") == [[[3, 5, 6], [6]]]


def test_a_wrong_value_shows_the_servers_message_at_its_field(browser):
    open_form(browser, "row_sums")
    fill(browser, "row_sums", "[[1, 77]]")
    message = browser.wait("return document.querySelector('.answer.refused')?.innerText")
    assert message == "400: input 'x': element 1 is 77, expected 0 to 9"
    assert browser.run("return document.querySelector('[aria-invalid]').value") == "[[1, 77]]"
    # The browser itself logs that a request was refused, nothing else.
    assert all("400 (Bad Request)" in line for line in browser.logged())


def test_the_body_can_be_edited_as_json_and_the_example_comes_back(browser):
    open_form(browser, "row_sums")
    modes = "[data-model=row_sums] .modes input"
    browser.tab_to(modes)
    browser.press("\ue014")  # the right arrow chooses the next
    body = browser.wait("return document.querySelector('[data-model=row_sums] .body').value")
    assert json.loads(body)["inputs"] == [
        {"name": "x", "datatype": "INT32", "data": [[0, 0, 0], [0, 0]]}
    ]
    browser.tab_to("[data-model=row_sums] .body")
    browser.press_together(CONTROL, ENTER)
    assert answered(browser, "row_sums") == [[[0], [0]]]


def test_versions_signatures_proofs_and_calls_are_shown(browser, url):
    open_form(browser, "double")
    shown = browser.text("[data-model=double]")
    assert "Equals the Keras model on 24 samples, worst error 1.2e-7" in shown
    assert "[batch, 3]" in shown
    assert f"curl {url}/v2/models/double/versions/2/infer" in shown
    browser.tab_to("[data-model=double] .versions")
    browser.press("1")
    browser.wait("return document.querySelector('.proof').innerText.includes('no proof')")
    assert "/versions/1/infer" in browser.text("[data-model=double] pre")


def test_the_charts_move_under_load_and_stand_still_in_a_pause(browser, url, folder):
    busy = "return parseFloat(document.querySelector('.chart .now').innerText) > 5"
    with load_on(url, "double", folder):
        browser.wait(busy)
        before = browser.run(DRAWN)
        browser.wait(MOVED, before)
        browser.wait("return document.querySelector('[data-model=double] .rate').innerText !== ''")
        browser.tab_to("#pause")
        browser.press(SPACE)
        browser.wait("return document.querySelector('#state').innerText === 'Paused'")
        still = browser.run(DRAWN)
        threading.Event().wait(3)  # longer than the page waits between two looks
        assert browser.run(DRAWN) == still
    latencies = browser.text(".chart:nth-of-type(2) .now")
    assert re.fullmatch(r"p50 [\d.]+\s+p99 [\d.]+", latencies)
    rows = browser.run("return document.querySelector('#live-table').tBodies[0].rows.length")
    assert rows >= 2


def test_a_quantile_lies_straight_between_its_bounds(browser):
    script = "return import('/web/metrics.js').then((m) => m.quantile(arguments[0], arguments[1]))"
    # Of 10 values 4 are up to 1, 8 up to 2, all up to 4.
    bounds = [[1, 4], [2, 8], [4, 10]]
    for share, value in ((0.2, 0.5), (0.5, 1.25), (0.8, 2), (0.9, 3)):
        assert browser.run(script, bounds, share) == pytest.approx(value)
    assert browser.run(script, [[1, 0]], 0.5) is None


def test_every_field_has_a_name_and_nothing_is_wider_than_a_phone(browser):
    open_form(browser, "tree")
    script = """return [...document.querySelectorAll('input, select, textarea, button')]
        .filter((field) => field.checkVisibility())
        .filter((field) => !(field.labels?.length || field.innerText)).map((f) => f.outerHTML)"""
    assert browser.run(script) == []
    for width in (320, 390):
        browser.size(width, 800)
        assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.size(1200, 900)


def test_with_api_keys_the_page_loads_and_asks_for_one(window, folder):
    with running(load_repository(folder, threads=1), keys=ApiKeys(["secret"])) as url:
        window.open(url)
        window.wait("return document.querySelector('#key')?.checkVisibility() ?? false")
        window.tab_to("#key")
        window.press(*"secret", ENTER)
        window.wait("return document.querySelectorAll('.model').length === 4")
        open_form(window, "double")
        fill(window, "double", "[[1, 2, 3]]")
        assert answered(window, "double") == [[[2, 4, 6]]]
    window.logged()  # the refusals before the key came
