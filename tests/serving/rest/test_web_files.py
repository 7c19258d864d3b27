"""The files of the page: how they are sent, and that they need nothing from elsewhere."""

import re
from pathlib import Path

import httpx
import pytest

import keras_blocks.serving
from keras_blocks.serving.auth import ApiKeys

from ..conftest import running

FOLDER = Path(keras_blocks.serving.__file__).parent / "rest" / "web"
TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}


def test_the_page_is_sent_with_its_type_and_a_policy_that_lets_nothing_else_in(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == (FOLDER / "index.html").read_bytes()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_each_file_is_sent_and_not_again_to_who_has_it(client, path):
    answer = client.get(f"/web/{path.name}")
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].partition(";")[0] == TYPES[path.suffix[1:]]
    again = client.get(f"/web/{path.name}", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == answer.headers["etag"]
    other = client.get(f"/web/{path.name}", headers={"if-none-match": '"another"'})
    assert other.status_code == 200
    assert client.head(f"/web/{path.name}").status_code == 200


def test_only_these_files_are_there(client):
    for path in ("/web/", "/web", "/web/nope.js", "/web/..%2frest.py", "/web/%2e%2e/rest.py"):
        assert client.get(path).status_code == 404, path
    assert client.post("/").status_code == 405


def test_the_page_itself_needs_no_key(repository):
    with running(repository, keys=ApiKeys(["secret"])) as url:
        assert httpx.get(url).status_code == 200
        assert httpx.get(f"{url}/web/page.js").status_code == 200
        assert httpx.get(f"{url}/v2/openapi.json").status_code == 401


def test_what_the_files_name_is_among_them_and_nothing_comes_from_elsewhere():
    names = {path.name for path in FOLDER.iterdir()}
    for path in FOLDER.iterdir():
        text = path.read_text()
        named = re.findall(r'(?:src|href)="/web/([^"]+)"|from "\./([^"]+)"', text)
        assert {a or b for a, b in named} <= names
        addresses = set(re.findall(r"https?://[^\s\"'`]+", text))
        # A namespace, and the address in the document's calls, which the page replaces.
        assert addresses <= {"http://www.w3.org/2000/svg", "http://localhost:8080"}
        assert not re.search(r"\s(?:style|on\w+)=\"", text), "the policy would forbid it"
