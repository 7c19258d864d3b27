"""What the server and the commands print for people."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_blocks.contract import PROCESSORS, Contract, FlatTensor
from keras_blocks.contract.describe import show_shape
from keras_blocks.contract.dtypes import PROTOCOL
from keras_blocks.contract.example import example_elements
from keras_blocks.contract.rows import split_rows
from keras_blocks.serving.protocol.names import model_path
from keras_blocks.serving.repository.folders import MODEL_FILE
from keras_blocks.serving.repository.repository import Repository
from keras_blocks.serving.rest.snippets import curl_call

_LONGEST_EXAMPLE = 1500
_MOST_ROWS = 20
_LOG_WIDTH = 120


def announce(
    repository: Repository, url: str, grpc: str | None = None, console: Console | None = None
) -> None:
    """Prints the models, what could not be loaded, the url, and a curl command that works."""
    console = console or _console()
    table = Table("model", "version", "inputs", "outputs", box=box.SIMPLE_HEAD)
    for model in repository.all_models():
        contract = model.contract
        signature = map(tensor_lines, (contract.flat_inputs(), contract.flat_outputs()))
        # As Text, because rich would take the [batch] of a plain string for markup.
        table.add_row(*map(Text, (model.name, str(model.version), *signature)))
    if repository.models:
        console.print(table)
    for problem in repository.problems:
        _say(console, f"not loaded: {problem}")
    _say(console, f"Serving on {url} (Ctrl+C to stop)")
    if grpc is not None:
        _say(console, f"gRPC on {grpc}")
    if repository.models:
        _say(console, f"Try:\n{curl_example(repository, url)}")
    else:
        where = f"{repository.directory}/<name>/<version>/{MODEL_FILE}"
        _say(console, f"No model is loaded; models belong at {where}. Try:\ncurl {url}/v2")


def tensor_lines(tensors: tuple[FlatTensor, ...]) -> str:
    """One line a tensor: tokens INT32 [tokens.values]."""
    return "\n".join(f"{t.name} {PROTOCOL[t.dtype]} {show_shape(t.shape)}" for t in tensors)


def curl_example(repository: Repository, url: str) -> str:
    """A command that asks the model with the smallest example; very large ones are not shown."""
    elements = {n: example_elements(repository.get(n).contract) for n in repository.models}
    name = min(elements, key=lambda name: elements[name])
    if elements[name] <= _LONGEST_EXAMPLE:  # before it is made: a model may want gigabytes
        call = curl_call(repository.get(name), url)
        if len(call) <= _LONGEST_EXAMPLE:
            return call
    return f"curl {url}{model_path(name)}"


def _console() -> Console:
    # A name that the terminal or the log cannot spell is no reason not to serve it.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # A log file has no width of its own, and the 80 columns taken then cut names off.
    return Console() if sys.stdout.isatty() else Console(width=_LOG_WIDTH)


def _say(console: Console, text: str) -> None:
    # Neither wrapped nor coloured, so that it can be pasted and searched.
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def show_outputs(
    contract: Contract, outputs: Mapping[str, np.ndarray], console: Console | None = None
) -> None:
    """Prints outputs for people; long ones shortened."""
    console = console or _console()
    for spec in contract.outputs:
        values = outputs[spec.name]
        _say(console, f"{spec.name} {values.dtype} {show_shape(values.shape)}")
        if not spec.ragged:
            _say(console, np.array2string(values, precision=6, threshold=200))
            continue
        rows = split_rows(values, outputs[spec.row_splits_name])
        for index, row in enumerate(rows[:_MOST_ROWS]):
            _say(console, f"row {index}: {np.array2string(row, precision=6, threshold=200)}")
        if len(rows) > _MOST_ROWS:
            _say(console, f"... {len(rows) - _MOST_ROWS} rows more")


def show_inspection(facts: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints what `inspect_file` found; reads well from 80 columns on."""
    console = console or _console()
    opset = ", ".join(f"{domain} {version}" for domain, version in facts["opset"].items())
    nodes = sum(facts["ops"].values())
    _say(console, f"{facts['file']}: {facts['bytes']:,} bytes, {nodes} nodes, opset {opset}")
    _say(console, f"loads in {facts['loads_in']}")
    for line in (_proof_text(facts["proof"]), *map(_change_text, facts["changes"])):
        _say(console, line)
    source = "written by the export" if facts["contract"] == "metadata" else "read off the graph"
    console.print()
    table = Table("", "name", "datatype", "shape", "notes", box=None, pad_edge=False)
    for side in ("inputs", "outputs"):
        for tensor in facts[side]:
            notes = dict(tensor["parameters"])
            shape = show_shape(notes.pop("dims"))
            text = ", ".join(f"{key} {value}" for key, value in notes.items())
            cells = (side[:-1], tensor["name"], tensor["datatype"], shape, text)
            table.add_row(*map(Text, cells))
    console.print(table)
    _say(console, f"signature: {source}\n")
    counts = [Text(f"{count} {op}") for op, count in facts["ops"].items()]
    console.print(Columns(counts, padding=(0, 3)))


def _proof_text(proof: Any) -> str:
    if not isinstance(proof, Mapping):
        return "proof: none in the file"
    samples, error = proof.get("samples"), proof.get("max_error")
    return f"proof: equals the Keras model on {samples} samples, worst error {error}"


def _change_text(change: Mapping[str, Any]) -> str:
    samples, error = change.get("samples"), change.get("max_error")
    text = f"changed: {change.get('change')}; off by {error} on {samples} samples"
    processors = PROCESSORS.get(str(change.get("processors")))
    return f"{text}; {processors}" if processors else text
