"""The layer cases of Keras's own tests, seen while those tests run.

The `*_test.py` files lie in the installed keras. Each of their tests runs here with a
`run_layer_test` that only takes down what it was asked to test. Tests of layers that never call it
(lookups, mostly) are seen by the layers that they call. Nothing is kept between runs.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import sys
import textwrap
import types
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

PACKAGE = "keras.src.layers"
FOLDER = Path(keras.__file__).parent / "src" / "layers"
GROUPS = {
    "activations": "activation",
    "convolutional": "convolution",
    "rnn": "recurrent",
}
# By tables of keys, which hold strings mostly.
LOOKUPS = (
    "HashedCrossing",
    "Hashing",
    "IndexLookup",
    "IntegerLookup",
    "StringLookup",
    "TextVectorization",
)
# Layers of no tests of their own that show in no other way.
CALLED = ("lookup", "text_vectorization", "hashing", "category_encoding", "zero_padding")
NOTED = "run_layer_test"
# Layers in training compute something else, which no file is asked to.
TRAINING = "training"


@dataclass(frozen=True)
class Given:
    """One input of a case: its shape and element type, and its values where the test gave some."""

    shape: tuple[int | None, ...]
    dtype: str
    values: np.ndarray | None = None


@dataclass(frozen=True)
class Case:
    """A layer, and what its test calls it with.

    Args:
        name: str, the test, and which of its layers.
        group: str, the kind of layer.
        layer: str, the layer's class.
        make: gives the layer.
        inputs: a nest of `Given`.
        options: the call's other arguments.
        by_name: bool, whether a dict of inputs is for the layer's arguments of these names.
        sparse, ragged: bool, whether the inputs are.
        mixed: bool, whether the layer is tested in mixed precision too.
    """

    name: str
    group: str
    layer: str
    make: Callable[[], keras.layers.Layer]
    inputs: Any
    options: dict[str, Any] = field(default_factory=dict)
    by_name: bool = False
    sparse: bool = False
    ragged: bool = False
    mixed: bool = False

    @property
    def plain(self) -> bool:
        """Whether it takes and gives dense numbers, and computes them in float32."""
        dtypes = {given.dtype for given in keras.tree.flatten(self.inputs)}
        if self.sparse or self.ragged or "string" in dtypes or self.layer in LOOKUPS:
            return False
        try:
            layer = self.make()
        except Exception:  # it tests that the layer refuses its arguments
            return False
        single = layer.compute_dtype == "float32" and not layer.quantization_mode
        return single and not getattr(layer, "sparse", False)


def all_cases() -> Iterator[Case]:
    """Every case of every test."""
    for test in test_names():
        yield from cases_of(test)


def case_of(name: str) -> Case:
    """The case of a name, made anew."""
    test, _, number = name.rpartition("#")
    return cases_of(test)[int(number)]


def test_names() -> list[str]:
    """The tests that show a case, as file and method."""
    names = []
    for path in sorted(FOLDER.rglob("*_test.py")):
        file = path.relative_to(FOLDER).as_posix()
        for test_class in _test_classes(path):
            methods = _showing(path, test_class)
            names += [f"{file}::{test_class.__name__}.{method}" for method in methods]
    return names


def cases_of(test: str) -> list[Case]:
    """The cases of a test, made anew."""
    file, _, place = test.partition("::")
    class_name, _, method = place.partition(".")
    path = FOLDER / file
    test_class = getattr(_module(path), class_name)
    np.random.seed(0)
    keras.utils.set_random_seed(0)
    seen: list[dict[str, Any]] = []
    watch = _calls_of_layers if _is_called(path) else _layer_tests
    # A test that fails with its checks left out, or is not for this backend, has shown what it has.
    with watch(seen), contextlib.redirect_stdout(io.StringIO()):
        test_class(method).run(unittest.TestResult())
    keras.config.set_dtype_policy("float32")
    return [
        Case(name=f"{test}#{number}", group=_group(path), **facts)
        for number, facts in enumerate(seen)
    ]


def _showing(path: Path, test_class: type[unittest.TestCase]) -> list[str]:
    """The methods of a class of tests that show a case."""
    methods = list(unittest.TestLoader().getTestCaseNames(test_class))
    if _is_called(path):
        return methods
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(test_class))).body
    functions = {
        node.name: any(isinstance(n, ast.Attribute) and n.attr == NOTED for n in ast.walk(node))
        for node in getattr(tree, "body", [])
        if isinstance(node, ast.FunctionDef)
    }

    def function(method: str) -> str:
        # A test with parameters is many methods, whose names begin with that of their function.
        return max((name for name in functions if method.startswith(name)), key=len, default="")

    return [method for method in methods if functions.get(function(method))]


def _is_called(path: Path) -> bool:
    return path.name.startswith(CALLED) or path.name == "index_lookup_test.py"


def _module(path: Path) -> Any:
    parts = path.relative_to(FOLDER).with_suffix("").parts
    # Some tests take decorators from the conftest of Keras's repository, which is not installed.
    decorators = types.ModuleType("conftest")
    decorators.__getattr__ = lambda name: lambda *_, **__: lambda test: test  # type: ignore[method-assign]
    before = sys.modules.get("conftest")
    sys.modules["conftest"] = decorators
    try:
        return importlib.import_module(".".join([PACKAGE, *parts]))
    finally:
        del sys.modules["conftest"]
        if before is not None:
            sys.modules["conftest"] = before


def _test_classes(path: Path) -> Iterator[type[unittest.TestCase]]:
    try:
        module = _module(path)
    except ModuleNotFoundError:  # a test may want a package that is not here
        return
    for _, value in inspect.getmembers(module, inspect.isclass):
        if issubclass(value, unittest.TestCase) and value.__module__.endswith(path.stem):
            yield value


def _group(path: Path) -> str:
    folder, *inner = path.relative_to(FOLDER).parts
    if folder == "preprocessing" and "image_preprocessing" in inner:
        return "augmentation"
    return GROUPS.get(folder, folder)


@contextmanager
def _layer_tests(seen: list[dict[str, Any]]) -> Iterator[None]:
    """Takes down what `run_layer_test` is asked to test."""
    from keras.src.testing import TestCase

    signature = inspect.signature(TestCase.run_layer_test)

    def note(*args: Any, **kwargs: Any) -> None:
        asked = signature.bind(*args, **kwargs).arguments
        shape, data = asked.get("input_shape"), asked.get("input_data")
        if shape is None and data is None:
            return
        options = {k: v for k, v in (asked.get("call_kwargs") or {}).items() if k != TRAINING}
        layer_class, arguments = asked["layer_cls"], asked.get("init_kwargs") or {}
        seen.append(
            {
                "layer": layer_class.__name__,
                "make": lambda: layer_class(**arguments),
                "inputs": _of_data(data) if shape is None else _of_shape(shape, asked),
                "options": options,
                "by_name": isinstance(data if shape is None else shape, dict),
                # Tests say so of dense data too.
                "sparse": asked.get("input_sparse", False) if shape else _is_sparse(data),
                "ragged": asked.get("input_ragged", False),
                "mixed": asked.get("run_mixed_precision_check", True),
            }
        )

    with mock.patch.object(TestCase, "run_layer_test", note):
        yield


@contextmanager
def _calls_of_layers(seen: list[dict[str, Any]]) -> Iterator[None]:
    """Takes down the layers that are called on data from outside, after their call."""
    own_call = keras.layers.Layer.__call__
    depth = [0]

    def note(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        depth[0] += 1
        try:
            outputs = own_call(layer, *args, **kwargs)
        finally:
            depth[0] -= 1
        # A model around the layer is another test of the same.
        if not depth[0] and args and not isinstance(layer, keras.Model):
            with contextlib.suppress(TypeError, ValueError):
                seen.append(
                    {
                        "layer": type(layer).__name__,
                        "make": lambda: layer,
                        "inputs": _of_data(args[0]),
                        "options": {k: v for k, v in kwargs.items() if k != TRAINING},
                    }
                )
        return outputs

    with mock.patch.object(keras.layers.Layer, "__call__", note):
        yield


def _of_shape(shape: Any, asked: dict[str, Any]) -> Any:
    dtype = asked.get("input_dtype")
    if isinstance(shape, dict):
        return {
            key.removesuffix("_shape"): _of_shape(part, {"input_dtype": dtype and dtype[key]})
            for key, part in shape.items()
        }
    if all(size is None or isinstance(size, int) for size in shape):
        return Given(tuple(shape), dtype or "float32")
    dtypes = [None] * len(shape) if dtype is None else dtype
    parts = [_of_shape(s, {"input_dtype": d}) for s, d in zip(shape, dtypes, strict=True)]
    return type(shape)(parts)


def _of_data(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _of_data(part) for key, part in data.items()}
    tensors = isinstance(data, list | tuple) and any(hasattr(part, "shape") for part in data)
    if tensors:
        return type(data)(_of_data(part) for part in data)
    if isinstance(data, keras.KerasTensor):
        raise TypeError("a symbolic call has no data")
    values = np.asarray(tf.sparse.to_dense(data) if isinstance(data, tf.SparseTensor) else data)
    if values.dtype.kind == "O" and not all(isinstance(x, str | bytes) for x in values.flat):
        raise TypeError("no array")
    dtype = "string" if values.dtype.kind in "OSU" else _dtype(data, values)
    return Given(values.shape, dtype, values)


def _is_sparse(data: Any) -> bool:
    return any(isinstance(part, tf.SparseTensor) for part in keras.tree.flatten(data))


def _dtype(data: Any, values: np.ndarray) -> str:
    return keras.backend.standardize_dtype(getattr(data, "dtype", values.dtype))
