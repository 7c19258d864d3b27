"""One ONNX file under onnxruntime; nothing else here knows onnxruntime."""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from keras_blocks.contract import FlatTensor
from keras_blocks.contract.dtypes import ANY_SHAPE, BFLOAT16, FROM_ONNXRUNTIME
from keras_blocks.errors import ModelLoadError, RunError
from keras_blocks.runtime.cores import available_cores
from keras_blocks.runtime.weights import given_weights

# "/src/reshape.h:47 onnxruntime::Reshape(const TensorShape&) input cannot be ..." : the source
# line and the C++ signature tell a client nothing.
_SOURCE_LINE = re.compile(r"\S+\.(?:cc|cpp|h|hpp):\d+ .*?\)(?: const)? ")
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NODE = re.compile(r"^Non-zero status code returned while running (\w+) node\..*?Status Message: ")
_FATAL = 4  # onnxruntime's log level
_LONGEST_MESSAGE = 600
_END_OF_MESSAGE = 300
_log = logging.getLogger("keras_blocks.serving")

_LARGE_ELEMENTS = 2**18
_ONNX_BFLOAT16 = 16  # its number in onnx.proto


class Session:
    """A loaded graph.

    Args:
        path: str or path of the ONNX file.
        threads: int, the threads that one run may use; None leaves it to onnxruntime.
        arena: bool, whether the memory of a run is kept for the next one, which is faster.
        links: bool, whether weights beside the file may be links to elsewhere.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        *,
        arena: bool = True,
        links: bool = True,
    ):
        if not Path(path).is_file():
            raise ModelLoadError("there is no such file")
        options = _options(threads, arena)
        with given_weights(options, Path(path), links) as self._weights:
            self._session = _load(Path(path), options)
        self._options, self._large = _run_options(), _run_options()
        # What a large run took is given back; a small one finds its memory where the last left it.
        if arena:
            self._large.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.inputs = tuple(map(_tensor, self._session.get_inputs()))
        self.outputs = _outputs(self._session.get_outputs())
        meta = self._session.get_modelmeta()
        self.metadata: Mapping[str, str] = dict(meta.custom_metadata_map)
        self.producer = meta.producer_name
        halves = {t.name for t in self.inputs + self.outputs if t.dtype == BFLOAT16}
        self._run = _BFloat16Runner(self._session, halves) if halves else self._session.run

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], give_back: bool = False
    ) -> list[np.ndarray]:
        """The named outputs, in that order. Safe to call from several threads at once.

        Args:
            inputs: name -> array.
            outputs: names.
            give_back: whether the memory kept from this run and those before it goes back.
        Raises:
            RunError: an op cannot take these inputs, or the memory does not suffice.
        """
        large = give_back or sum(array.size for array in inputs.values()) > _LARGE_ELEMENTS
        try:
            return self._run(list(outputs), dict(inputs), self._large if large else self._options)
        except MemoryError:
            raise RunError("the inputs need more memory than there is", True) from None
        except UnicodeEncodeError as error:
            raise RunError(f"text in UTF-8 expected: {error}") from None
        except Exception as error:  # onnxruntime's errors share no base class
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            out_of_memory = "allocate" in str(error) or "bad_alloc" in str(error)
            raise RunError(_plain(error), out_of_memory) from None

    def interrupt(self) -> None:
        """Ends every run that goes on, and each one after it, with a `RunError`."""
        self._options.terminate = self._large.terminate = True


class _BFloat16Runner:
    """Runs a graph that has bfloat16 at its ends, which NumPy does not have: uint16 carries it."""

    def __init__(self, session: onnxruntime.InferenceSession, names: set[str]):
        self._session = session
        self._names = names

    def __call__(
        self, outputs: list[str], inputs: dict[str, np.ndarray], options: onnxruntime.RunOptions
    ) -> list[np.ndarray]:
        values = {name: self._value(name, array) for name, array in inputs.items()}
        results = self._session.run_with_ort_values(outputs, values, options)
        return [self._array(*pair) for pair in zip(outputs, results, strict=True)]

    def _value(self, name: str, array: np.ndarray) -> onnxruntime.OrtValue:
        make = onnxruntime.OrtValue
        if name not in self._names:
            return make.ortvalue_from_numpy(array)
        return make.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), _ONNX_BFLOAT16)

    def _array(self, name: str, value: onnxruntime.OrtValue) -> np.ndarray:
        if name not in self._names:
            return value.numpy()
        shape = value.shape()
        bits = np.empty(shape, dtype="uint16")
        if bits.size:
            ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
        return bits


def _run_options() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL
    return options


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """onnxruntime's defaults, but for its log: what goes wrong is raised, and reported once.

    Args:
        threads: int, those that one run may use; None leaves it to onnxruntime.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads or 0
    return options


def open_session(
    model: Path | bytes, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """A session of a file, or of what is in one; the only place where one is made."""
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _options(threads: int | None, arena: bool) -> onnxruntime.SessionOptions:
    cores = available_cores()
    # onnxruntime counts the cores of the machine, in a container too.
    limited = cores < (os.cpu_count() or 1)
    options = session_options(threads or (cores if limited else None))
    if arena:
        # Weights lie apart from it, so that what runs needed can go back.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    else:
        options.enable_cpu_mem_arena = False
    # Spinning threads steal the cores from the requests that run beside.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _load(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return open_session(path, options)
    except Exception as error:  # onnxruntime's errors share no base class
        reason = _plain(error).removeprefix(f"Load model from {path} failed:")
        raise ModelLoadError(reason) from error


def _outputs(arguments: Sequence[onnxruntime.NodeArg]) -> tuple[FlatTensor, ...]:
    """The outputs that are tensors; a classifier's probabilities may be dicts beside its labels."""
    tensors = [argument for argument in arguments if argument.type in FROM_ONNXRUNTIME]
    others = [argument for argument in arguments if argument.type not in FROM_ONNXRUNTIME]
    for argument in others:
        if not tensors:
            raise ModelLoadError(_not_served(argument))
        _log.warning("%s; the other outputs are served", _not_served(argument))
    return tuple(map(_tensor, tensors))


def _not_served(argument: onnxruntime.NodeArg) -> str:
    said = (
        f"'{argument.name}' is {argument.type}, which cannot be served: "
        f"tensors of numbers, booleans and strings can"
    )
    if "map(" not in argument.type:
        return said
    return f"{said}; convert the classifier with zipmap=False to have a tensor in its place"


def _tensor(argument: onnxruntime.NodeArg) -> FlatTensor:
    if argument.type not in FROM_ONNXRUNTIME:
        raise ModelLoadError(_not_served(argument))
    shape = tuple(
        dim if isinstance(dim, int | str) and dim != "" else f"{argument.name}.axis{axis}"
        for axis, dim in enumerate(argument.shape)
    )
    return FlatTensor(argument.name, FROM_ONNXRUNTIME[argument.type], shape or ANY_SHAPE)


def _plain(error: Exception) -> str:
    """What onnxruntime says, without its codes, source lines and C++ signatures."""
    text = _PREFIX.sub("", str(error).strip())
    node = _NODE.match(text)
    if node:
        text = f"{node[1]}: {text[node.end() :]}"
    text = " ".join(_SOURCE_LINE.sub("", text).split())
    if len(text) <= _LONGEST_MESSAGE:
        return text
    # What to do about it stands at the end.
    return f"{text[: _LONGEST_MESSAGE - _END_OF_MESSAGE]} ... {text[-_END_OF_MESSAGE:]}"
