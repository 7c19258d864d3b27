"""What all changes to an ONNX file share: the file is read, changed, compared with what it was, and
takes its name only then."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnx.checker

from keras_blocks.contract import CHANGES_METADATA_KEY, METADATA_KEY, PROOF_METADATA_KEY, Contract
from keras_blocks.errors import ExportError, ParityError
from keras_blocks.export.files.file_comparison import compare_files
from keras_blocks.export.files.int8.products import processors_of
from keras_blocks.export.onnx_io.atomic_write import beside, folders_for, serialized
from keras_blocks.export.onnx_io.external_data import pair_beside, without_older_data
from keras_blocks.export.onnx_io.graphs import RUNTIME_DOMAIN, copied, nested_graphs, set_all
from keras_blocks.export.onnx_io.reading import load
from keras_blocks.export.passes.opset.newest import version_facts
from keras_blocks.export.progress import shown
from keras_blocks.export.reports.file_report import ChangeReport, FileComparison
from keras_blocks.export.reports.json_report import finite
from keras_blocks.runtime.external_data import count_bytes

LARGEST_MESSAGE = 2**31 - 1  # bytes of a protobuf message
_FIRST_IR_WITH_CONSTANTS = 4  # before it every initializer had to be an input too


@dataclass(frozen=True)
class Changed:
    """A changed model.

    Args:
        model: it.
        change: str, what was done.
        nodes: op -> how many nodes of it were changed.
        notes: what was left as it was and why, and what else there is to know.
        contract: its contract, if that is another one.
    """

    model: onnx.ModelProto
    change: str
    nodes: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    contract: Contract | None = None


@dataclass(frozen=True)
class Trial:
    """How a changed file is compared with what it was; see `compare_files`.

    Args:
        inputs, labels: the user's data, or None.
        max_error: float, the largest absolute error that passes, or None for any.
        seed: int, of drawn inputs.
        verbose: bool, whether to show progress.
    """

    inputs: Any = None
    labels: Any = None
    max_error: float | None = None
    seed: int = 0
    verbose: bool | None = None


def change_file(
    filepath: str | Path,
    output: str | Path | None,
    suffix: str,
    overwrite: bool,
    change: Callable[[onnx.ModelProto], Changed],
    trial: Trial,
) -> ChangeReport:
    """Writes a changed file, and says what that won and cost.

    Args:
        filepath: the file to change.
        output: the file to write; None puts `suffix` before the ending of `filepath`.
        suffix: str, what was done in a word.
        overwrite: bool, whether `output` may be `filepath`.
        change: what to do.
        trial: how to compare.
    Raises:
        ValueError: it would overwrite its own input.
        ExportError: the changed model is broken.
        ParityError: it is further off than `trial.max_error`; nothing is written.
    """
    source = Path(filepath)
    model = load(source)
    target = source.with_name(f"{source.stem}.{suffix}.onnx") if output is None else Path(output)
    if target.exists() and target.samefile(source) and not overwrite:
        raise ValueError(
            f"output='{target}' is the file to be changed; give another name, or "
            f"overwrite=True (--overwrite)"
        )
    with folders_for(target):
        with shown("changing", trial.verbose):
            changed = change(_with_constant_weights(model))
        _prune_opsets(changed.model)
        with without_older_data(target), _place(target, changed.model) as written:
            _check(written)
            found = compare_files(
                source, written, inputs=trial.inputs, labels=trial.labels, seed=trial.seed,
                verbose=trial.verbose,
            )  # fmt: skip
            _refuse(found, written, target, trial.max_error)
            processors = processors_of(changed.model)
            _describe(changed, model, found, processors)
            written.write_bytes(serialized(changed.model))
            facts = replace(found.other, file=str(target), size_bytes=count_bytes(written))
    return ChangeReport(
        change=changed.change,
        comparison=replace(found, other=facts, outputs=_judged_by_eye(found)),
        changed=changed.nodes,
        processors=processors,
        notes=(*changed.notes, *_not_standard(changed.model)),
    )


def _not_standard(model: onnx.ModelProto) -> tuple[str, ...]:
    """What other runtimes will not know, in a sentence."""
    own = {
        node.op_type
        for graph in nested_graphs(model.graph)
        for node in graph.node
        if node.domain.startswith(RUNTIME_DOMAIN)
    }
    return (f"only onnxruntime has {', '.join(sorted(own))}",) if own else ()


def _judged_by_eye(found: FileComparison) -> tuple[Any, ...]:
    """The differences without a verdict: that a changed file differs is no fault."""
    return tuple(replace(output, problem=None) for output in found.outputs)


def _refuse(found: FileComparison, written: Path, target: Path, max_error: float | None) -> None:
    if found.problem is not None:
        reason = found.problem.replace(str(written), str(target))
        raise ExportError(f"the changed file is broken, and was not written: {reason}")
    if max_error is not None and not found.max_error <= max_error:
        raise ParityError(
            f"the changed file is off by {found.max_error:.2g}, where max_error={max_error:g} "
            f"is allowed; '{target}' was not written",
            report=found,
        )


def _with_constant_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights that are inputs with a default, as files from before 2019 have them, are none."""
    weights = {weight.name for weight in model.graph.initializer}
    if any(value.name in weights for value in model.graph.input):
        model = copied(model)
        inputs = [copied(value) for value in model.graph.input if value.name not in weights]
        set_all(model.graph.input, inputs)
        model.ir_version = max(model.ir_version, _FIRST_IR_WITH_CONSTANTS)
    return model


def _place(target: Path, model: onnx.ModelProto) -> AbstractContextManager[Path]:
    """Where the model is written, with its weights apart if they are too much for one message."""
    if model.ByteSize() > LARGEST_MESSAGE:
        return pair_beside(target, model, {})
    return beside(target, serialized(model))


def _prune_opsets(model: onnx.ModelProto) -> None:
    used = {node.domain or "" for graph in nested_graphs(model.graph) for node in graph.node}
    used = {"" if domain == "ai.onnx" else domain for domain in used} | {""}
    used |= {function.domain for function in model.functions}
    kept = {entry.domain: entry for entry in model.opset_import if entry.domain in used}
    entries = [onnx.helper.make_opsetid(e.domain, e.version) for e in kept.values()]
    set_all(model.opset_import, entries)


def _check(written: Path) -> None:
    try:
        onnx.checker.check_model(str(written), full_check=True)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ExportError(f"the changed model is not valid ONNX: {reason[0]}") from error


def _describe(
    changed: Changed, before: onnx.ModelProto, found: FileComparison, processors: str | None
) -> None:
    """The contract stays, the proof was of another file: it becomes a part of the story."""
    facts = {entry.key: entry.value for entry in before.metadata_props}
    story = _parsed(facts.pop(CHANGES_METADATA_KEY, "")) or []
    step = {
        "change": changed.change,
        "max_error": float(f"{found.max_error:.2g}"),
        "samples": found.samples,
        "onnxruntime": version("onnxruntime"),
    }
    if processors is not None:
        step["processors"] = processors
    if PROOF_METADATA_KEY in facts:
        step["proof_before"] = _parsed(facts.pop(PROOF_METADATA_KEY))
    if changed.contract is not None and METADATA_KEY in facts:
        facts[METADATA_KEY] = changed.contract.to_json()
    facts |= {key: said for key, said in version_facts(changed.model).items() if key in facts}
    facts[CHANGES_METADATA_KEY] = json.dumps([*story, finite(step)])
    del changed.model.metadata_props[:]
    onnx.helper.set_model_props(changed.model, facts)
    changed.model.producer_name = before.producer_name
    changed.model.producer_version = before.producer_version


def _parsed(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text)
