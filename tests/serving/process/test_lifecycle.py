"""Models that come, change and go while the server answers; what is set for each of them."""

import asyncio
import os
import shutil

import numpy as np
import onnx
import onnx_files
import pytest

from keras_blocks.errors import ModelLoadError
from keras_blocks.serving import load_repository
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.model import Model
from keras_blocks.serving.repository.model_settings import read_settings
from keras_blocks.serving.repository.repository import ModelNotFoundError, load_model

LOOK_SECONDS = 0.02
PATIENCE = 30
X = {"x": np.array([[1, 2, 3]], dtype="float32")}


@pytest.fixture
def folder(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    return tmp_path


def watched(folder, story):
    """Runs a story beside a service that watches the folder."""

    async def run():
        service = Service(load_repository(folder, threads=1))
        await service.open()
        watching = asyncio.create_task(service.watch(LOOK_SECONDS))
        try:
            return await story(service)
        finally:
            watching.cancel()
            await service.close()

    return asyncio.run(run())


async def ask(service, name="double", version=None):
    batcher = service.batcher_for(name, version)
    future = asyncio.get_running_loop().create_future()
    service.infer(batcher, dict(X), None, None, future.set_result)
    return batcher.model.version, (await future)["y"].tolist()


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(LOOK_SECONDS)


def test_every_model_has_run_before_its_first_request(folder, monkeypatch):
    onnx_files.column_sums(folder / "column_sums" / "1" / "model.onnx")  # shares no runs
    ran = []
    run = Model.run
    monkeypatch.setattr(Model, "run", lambda m, *given: ran.append(m.name) or run(m, *given))

    async def open_and_close():
        service = Service(load_repository(folder, threads=1))
        await service.open()
        await service.close()

    asyncio.run(open_and_close())
    assert set(ran) == {"double", "column_sums"}


@pytest.mark.parametrize("oddity", ["a link to itself", "a setting without end", "a crash"])
def test_what_is_wrong_with_one_model_is_told_once_and_the_others_are_watched_on(
    folder, monkeypatch, caplog, oddity
):
    async def story(service):
        (folder / "odd").mkdir()
        if oddity == "a link to itself":
            (folder / "odd" / "loop").symlink_to("loop")
        elif oddity == "a setting without end":
            (folder / "odd" / "model.toml").write_text("threads = " + "[" * 5000)
        else:

            def crash(path, *given):
                if path.name == "odd":
                    raise RuntimeError("unforeseen")
                return load_model(path, *given)

            monkeypatch.setattr("keras_blocks.serving.inference.service.load_model", crash)
        await asyncio.sleep(5 * LOOK_SECONDS)
        onnx_files.double(folder / "other" / "1" / "model.onnx")
        await until(has(service, "other", 1))
        await asyncio.sleep(5 * LOOK_SECONDS)

    watched(folder, story)
    assert sum("'odd'" in record.getMessage() for record in caplog.records) == 1


def test_folders_whose_names_are_no_text_are_passed_over(folder):
    (folder / os.fsdecode(b"m\xff")).mkdir()
    (folder / "two\nlines").mkdir()
    (folder / "double" / "loop").symlink_to("loop")
    assert sorted(load_repository(folder, threads=1).models) == ["double"]


def has(service, name, *versions):
    return lambda: sorted(service.repository.models.get(name, {})) == list(versions)


def test_new_versions_and_models_are_found_and_what_is_gone_is_unloaded(folder):
    async def story(service):
        assert await ask(service) == (1, [[2, 4, 6]])
        onnx_files.double(folder / "double" / "2" / "model.onnx")
        await until(has(service, "double", 1, 2))
        assert (await ask(service))[0] == 2
        onnx_files.double(folder / "other" / "1" / "model.onnx")
        await until(has(service, "other", 1))
        shutil.rmtree(folder / "double" / "1")
        await until(has(service, "double", 2))
        shutil.rmtree(folder / "other")
        await until(has(service, "other"))
        with pytest.raises(ModelNotFoundError):
            service.batcher_for("other")
        assert service.ready

    watched(folder, story)


def test_a_changed_file_answers_when_it_is_loaded_and_the_old_one_until_then(folder):
    async def story(service):
        path = folder / "double" / "1" / "model.onnx"
        other = onnx.load(path)
        other.graph.node[0].op_type = "Sub"
        old = service.batcher_for("double").model
        onnx.save(other, path)
        while service.batcher_for("double").model is old:
            assert (await ask(service))[1] == [[2, 4, 6]]
            await asyncio.sleep(0)
        assert (await ask(service))[1] == [[0, 0, 0]]

    watched(folder, story)


def test_a_file_that_does_not_load_is_reported_once_and_the_old_one_goes_on(folder, caplog):
    async def story(service):
        path = folder / "double" / "1" / "model.onnx"
        good = path.read_bytes()
        path.write_bytes(good[: len(good) // 2])
        await until(lambda: "was not loaded" in caplog.text)
        await asyncio.sleep(10 * LOOK_SECONDS)
        assert caplog.text.count("was not loaded") == 1
        assert (await ask(service))[1] == [[2, 4, 6]]
        old = service.batcher_for("double").model
        path.write_bytes(good)
        await until(lambda: service.batcher_for("double").model is not old)

    watched(folder, story)


def test_a_version_whose_folder_goes_after_its_file_is_unloaded(folder, caplog):
    onnx_files.double(folder / "double" / "2" / "model.onnx")

    async def story(service):
        (folder / "double" / "2" / "model.onnx").unlink()
        await until(lambda: "was not loaded" in caplog.text)
        assert has(service, "double", 1, 2)()
        (folder / "double" / "2").rmdir()
        await until(has(service, "double", 1))

    watched(folder, story)


def test_a_file_that_is_still_being_written_is_waited_for(folder, caplog):
    async def story(service):
        path = folder / "double" / "2" / "model.onnx"
        good = (folder / "double" / "1" / "model.onnx").read_bytes()
        path.parent.mkdir()
        loop = asyncio.get_running_loop()
        until_then = loop.time() + 20 * LOOK_SECONDS
        with path.open("wb") as file:
            while loop.time() < until_then:
                file.write(b"not yet a model")
                file.flush()
                await asyncio.sleep(0)
        path.write_bytes(good)
        await until(has(service, "double", 1, 2))
        assert "was not" not in caplog.text

    watched(folder, story)


def test_a_server_is_ready_when_every_model_of_its_folder_is(folder):
    broken = folder / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_text("not ONNX")

    async def story(service):
        assert not service.ready
        onnx_files.double(broken)
        await until(lambda: service.ready)
        await service.unload("broken")
        assert service.ready  # nobody asks for it any more
        await asyncio.sleep(10 * LOOK_SECONDS)
        assert not has(service, "broken", 1)()  # and it is not loaded behind their back

    watched(folder, story)


def test_a_service_is_not_ready_before_its_models_have_run(folder):
    async def story():
        service = Service(load_repository(folder))
        assert not service.ready
        with pytest.raises(ModelNotFoundError):
            service.batcher_for("double")
        await service.open()
        assert service.ready

    asyncio.run(story())


# Settings


def write(folder, text):
    (folder / "double" / "model.toml").write_text(text)


@pytest.mark.parametrize(
    ("text", "versions"),
    [("", [1, 2, 10]), ('versions = "all"', [1, 2, 10]), ("versions = 2", [2, 10]),
     ("versions = [1, 10, 99]", [1, 10])],
)  # fmt: skip
def test_the_settings_choose_versions(folder, text, versions):
    for version in (2, 10):
        onnx_files.double(folder / "double" / str(version) / "model.onnx")
    write(folder, text)
    assert load_repository(folder).versions("double") == versions


def test_the_settings_of_a_model_go_before_those_of_the_server(folder):
    onnx_files.log(folder / "log" / "1" / "model.onnx")
    write(folder, "[batching]\nmax_batch_size = 3\nmax_queue_delay_ms = 1.5")

    async def story(service):
        assert service.batcher_for("double").settings.max_batch_size == 3
        assert service.batcher_for("double").settings.max_queue_delay_ms == 1.5
        assert service.batcher_for("log").settings.max_batch_size == 64
        write(folder, "[batching]\nmax_batch_size = 5")
        await until(lambda: service.batcher_for("double").settings.max_batch_size == 5)

    watched(folder, story)


BAD_SETTINGS = {
    "version = 1": "version is unknown; the settings are arena, batching, labels, threads,",
    "versions = 0": "versions is 0",
    'versions = "latest"': "versions is 'latest'",
    "versions = []": "versions is",
    "versions = true": "versions is True",
    "threads = -1": "threads is -1",
    "threads = 257": "a number from 1 to 256",
    "threads = " + "[" * 5000: "recursion",
    "batching = 3": "batching is 3",
    "[batching]\nmax_batch = 3": "batching.max_batch is unknown",
    "[batching]\nmax_batch_size = 0": "batching.max_batch_size is 0",
    "[batching]\nmax_batch_size = 1.5": "batching.max_batch_size is 1.5",
    "[batching]\nmax_queue_delay_ms = -1": "batching.max_queue_delay_ms is -1",
    "[batching]\nmax_queue_delay_ms = inf": "batching.max_queue_delay_ms is inf",
    "versions = ": "Invalid value",
}


@pytest.mark.parametrize("text", BAD_SETTINGS)
def test_a_setting_that_cannot_be_is_named_and_the_model_is_not_loaded(folder, text):
    write(folder, text)
    with pytest.raises(ModelLoadError, match=r"model\.toml") as caught:
        read_settings(folder / "double")
    assert BAD_SETTINGS[text] in str(caught.value)
    onnx_files.log(folder / "log" / "1" / "model.onnx")
    repository = load_repository(folder)
    assert list(repository.models) == ["log"]
    assert BAD_SETTINGS[text] in repository.problems[0]


def test_settings_that_choose_no_version_are_a_problem(folder):
    write(folder, "versions = [7]")
    with pytest.raises(ModelLoadError, match="none of its versions"):
        load_repository(folder)
