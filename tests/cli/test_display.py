import io
import sys
import tracemalloc

import onnx_files
import pytest

from keras_blocks.cli.display import announce, curl_example
from keras_blocks.serving import load_repository

MEBIBYTE = 2**20


@pytest.mark.parametrize("shape", [(4096, 4096), ("batch", 16_000_000)])
def test_an_example_too_long_to_show_is_not_made(tmp_path, shape):
    onnx_files.identity(tmp_path / "big" / "1" / "model.onnx", onnx_files.FLOAT, shape)
    repository = load_repository(tmp_path)
    tracemalloc.start()
    try:
        command = curl_example(repository, "http://localhost:1")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert command == "curl http://localhost:1/v2/models/big"
    assert peak < MEBIBYTE


def test_a_name_that_the_log_cannot_spell_does_not_stop_the_server(tmp_path, monkeypatch):
    onnx_files.double(tmp_path / "né" / "1" / "model.onnx")
    log = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", log)
    announce(load_repository(tmp_path), "http://localhost:1")
    log.flush()
    assert b"n\\xe9" in log.buffer.getvalue()
    assert b"models/n%C3%A9/infer" in log.buffer.getvalue()
