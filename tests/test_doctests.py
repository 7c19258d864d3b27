"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import keras_blocks

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def module_names():
    yield "keras_blocks"
    for module in pkgutil.walk_packages(keras_blocks.__path__, "keras_blocks."):
        yield module.name


@pytest.mark.parametrize("name", sorted(module_names()))
def test_the_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.failed == 0


def test_the_public_layers_all_have_an_example():
    for name in keras_blocks.__all__:
        thing = getattr(keras_blocks, name)
        if not issubclass(thing, Exception):
            assert ">>>" in (thing.__doc__ or ""), f"{name} shows no example"
