"""The README's examples run, in order, and print what their comments say."""

import contextlib
import io
import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()
PRINTED = re.compile(r"^print\(.*\)  # (?P<said>[\[(].*)$", re.MULTILINE)


def python_examples():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readmes_examples_run_and_print_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for example in python_examples():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example, "README.md", "exec"), namespace)
        for said in PRINTED.findall(example):
            assert said in printed.getvalue()


def test_the_readme_has_an_example_for_each_chapter():
    for chapter in ("Units", "Nonlinearities", "Mechanisms", "Export", "Serving"):
        section = README.split(f"\n## {chapter}\n")[1].split("\n## ")[0]
        assert "```python" in section, chapter


def test_every_block_has_a_row_in_the_readme():
    import keras_blocks as kb

    table = README.split("## The blocks")[1]
    for name in kb.__all__:
        thing = getattr(kb, name)
        if not issubclass(thing, Exception) and not name.endswith("Cell"):
            firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
            assert any(f"`{name}`" in first for first in firsts), name


def test_the_readmes_request_is_answered(tmp_path):
    import asyncio

    import httpx
    import keras

    from keras_blocks.export import export_onnx
    from keras_blocks.serving import load_repository
    from keras_blocks.serving.inference.service import Service
    from keras_blocks.serving.process.server import serving
    from keras_blocks.serving.transport.sockets import open_listener

    namespace: dict = {}
    for example in python_examples():
        if "keras.Input" in example or "import keras\n" in example:
            exec(compile(example, "README.md", "exec"), namespace)
    assert isinstance(namespace["model"], keras.Model)
    export_onnx(namespace["model"], tmp_path / "trees/1/model.onnx", verify=False)
    body = re.search(r"trees/infer -d '(.*?)'\n", README, re.DOTALL)[1]
    call = re.search(r"```py\n(from keras_blocks.*?)```", README, re.DOTALL)[1]

    async def ask():
        with open_listener("127.0.0.1", 0) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            service = Service(load_repository(tmp_path))
            async with serving(service, listener), httpx.AsyncClient(base_url=url) as client:
                example = call.replace("http://localhost:8080", url)
                assert example != call
                await asyncio.to_thread(exec, example, {})
                return await client.post("/v2/models/trees/infer", content=body)

    response = asyncio.run(ask())
    assert response.status_code == 200, response.text
    assert response.json()["outputs"][0]["shape"] == [2, 3]
