"""What an export and its proof found: a table or a page for people, JSON for machines.

The classes here only hold and present; `parity` and `convert` fill them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from keras_blocks.contract import Contract
from keras_blocks.errors import ParityError
from keras_blocks.export.reports.html import export_page, proof_page
from keras_blocks.export.reports.json_report import JsonReport, finite
from keras_blocks.export.reports.text import (
    FEW_ROWS,
    checks_table,
    layers_table,
    render,
    signature_table,
    size_text,
    skipped_texts,
    worst_table,
)
from keras_blocks.export.results.checks import Check, Difference, LayerCheck, Skipped


@dataclass(frozen=True)
class ParityReport(JsonReport):
    """The proof, or what disproves it.

    Args:
        filepath: str, the ONNX file.
        model: str, the name of the Keras model.
        seed: int, gives the same samples again; None for inputs that the caller gave.
        checks: one per sample and output.
        skipped: the samples that Keras itself refused.
        problem: str, why the file could not be compared at all, or None.
        first_difference: where the difference starts, or None.
        level: str, how thorough it was: "fast", "usual" or "thorough" (see `levels`).
        time_budget: float, the seconds that it was given, or None.
        left_out: the samples for which there was no time, in words.
        notes: what is no difference, and worth knowing.
        not_numbers: how NaN and infinities in the inputs come out in the file, where Keras gives
            something else; it is no difference on numbers.
        sides: of each branch and size that the data decides, the sides that ran.
        layers: the errors of the layers, in the order of computation, where they were measured.
        tolerance: str, what is allowed, and why.
        versions: of the packages that took part.
        seconds: float, how long the proof took.
    """

    filepath: str
    model: str
    seed: int | None = None
    checks: tuple[Check, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    problem: str | None = None
    first_difference: Difference | None = None
    level: str = "usual"
    time_budget: float | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    not_numbers: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    layers: tuple[LayerCheck, ...] = ()
    tolerance: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether something was compared, and all of it was equal."""
        return self.problem is None and bool(self.checks) and all(c.ok for c in self.checks)

    @property
    def counted(self) -> list[Check]:
        """The checks that the figures are of: another proof of the same file has these too.

        The others are as many as time allowed, which no figure may depend on: the same model gives
        the same file, and the figures are in it. What is wrong always counts.
        """
        return [check for check in self.checks if check.fixed or not check.ok]

    @property
    def samples(self) -> int:
        """How many samples were compared, each counted once."""
        return len({check.sample for check in self.counted if not check.again})

    @property
    def max_error(self) -> float:
        """The largest absolute error of these."""
        return max((check.max_error for check in self.counted), default=0.0)

    def failures(self) -> list[Check]:
        """The checks that differ; small samples come first, and are the easiest to look at."""
        return [check for check in self.checks if not check.ok]

    def raise_if_wrong(self) -> None:
        """Raises `ParityError` if the file does not compute what the model computes."""
        if not self.ok:
            raise ParityError(self.failure_text(), report=self)

    def failure_text(self) -> str:
        """What is wrong and where, in a few lines."""
        lines = [f"{self.filepath} does not compute what the Keras model '{self.model}' computes."]
        if self.problem is not None:
            lines.append(self.problem)
        wrong = self.failures()
        if wrong:
            first = wrong[0]
            shapes = ", ".join(f"{n} {list(s)}" for n, s in first.input_shapes.items())
            seed = "" if self.seed is None else f", seed {self.seed}"
            lines.append(f"Output '{first.output}' for inputs {shapes} ({first.sample}{seed}):")
            lines.append(f"{first.problem}.")
            lines.append(f"{len(wrong)} of {len(self.checks)} checks differ.")
        if self.first_difference is not None:
            lines.append(self.first_difference.message)
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """The short form that travels in the file's metadata; the same proof, the same text."""
        return {
            "ok": self.ok,
            "level": self.level,
            "samples": self.samples,
            "skipped": len(self.skipped),
            "left_out": len(self.left_out),
            "seed": self.seed,
            "max_error": finite(float(f"{self.max_error:.2g}")),
            "versions": self.versions,
            **({"not_numbers": list(self.not_numbers)} if self.not_numbers else {}),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types; infinities and NaN as text, for JSON has none."""
        body = {"ok": self.ok, "samples": self.samples, "max_error": self.max_error}
        return finite({**body, **asdict(self)})

    def to_html(self) -> str:
        """One page with the errors by shape, and by layer where they were measured."""
        return proof_page(self)

    def verdict(self) -> str:
        """What was found, in a line if all is well."""
        if not self.ok:
            return self.failure_text()
        text = (
            f"{self.filepath} equals the Keras model '{self.model}': {self.samples} samples, "
            f"worst error {self.max_error:.2g}"
        )
        return text if self.seed is None else f"{text} (seed {self.seed})"

    def remarks(self) -> list[str]:
        """What was not compared, what was allowed, and what else is worth knowing."""
        texts = skipped_texts(self.skipped)
        timed = [check.max_error for check in self.checks if check.ok and not check.fixed]
        if timed:
            texts.append(
                f"beyond these samples, as far as time allowed: {len(timed)} checks of larger "
                f"inputs and several threads, worst error {max(timed):.2g}"
            )
        if self.left_out:
            texts.append(
                f"left out, for the time budget of {self.time_budget:g} s was spent: "
                f"{'; '.join(self.left_out)}"
            )
        texts += [f"note: {note}" for note in (*self.notes, *self.not_numbers)]
        texts += [f"decided by the data: {side}" for side in self.sides]
        if self.checks and self.tolerance:
            texts.append(f"allowed: {self.tolerance}")
        return texts

    def __str__(self) -> str:
        tables = [checks_table(self.checks)] if self.checks else []
        if self.layers:
            tables.append(layers_table(self.layers))
        return render([self.verdict(), *tables, *self.remarks()])

    def brief(self) -> str:
        """The findings with the few checks and layers that are furthest off."""
        tables = [worst_table(self.counted)] if self.checks else []
        if self.layers:
            tables.append(layers_table(self.layers, FEW_ROWS))
        more = []
        if len(self.checks) > FEW_ROWS:
            more = [
                f"all {len(self.checks)} checks, those run again included: --report FILE, or "
                f"print(result.parity)"
            ]
        return render([self.verdict(), *tables, *more, *self.remarks()])


@dataclass(frozen=True)
class Price:
    """What a chosen opset costs because it lacks an op.

    Args:
        nodes: int, of the file.
        fewest: int, the nodes at the opset that the export chooses by itself.
        opset_version: int, that opset.
        loads_in: str, the runtimes that load a file of it.
    """

    nodes: int
    fewest: int
    opset_version: int
    loads_in: str

    def __str__(self) -> str:
        return (
            f"the chosen opset costs {self.nodes} nodes for {self.fewest}: opset "
            f"{self.opset_version}, the default here, loads in {self.loads_in}"
        )


@dataclass(frozen=True)
class ExportResult(JsonReport):
    """What `export_onnx` made.

    Args:
        filepath: str, the ONNX file.
        contract: its inputs and outputs.
        opset_version: int, the version of the ONNX operators.
        op_counts: how many nodes of each ONNX op it has, those in loops included.
        size_bytes: int.
        parity: the proof, or None if none was asked for.
        loads_in: str, the runtimes that load the file, by its versions of opset and format.
        price: what the chosen opset costs, or None.
    """

    filepath: str
    contract: Contract
    opset_version: int
    op_counts: dict[str, int]
    size_bytes: int
    parity: ParityReport | None = None
    loads_in: str = "unknown runtimes"
    price: Price | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        body = asdict(self)
        body["contract"] = json.loads(self.contract.to_json())
        body["parity"] = None if self.parity is None else self.parity.to_dict()
        return body

    def to_html(self) -> str:
        """One page with the signature, the ops and the proof, which needs no other file."""
        return export_page(self)

    def __str__(self) -> str:
        nodes = sum(self.op_counts.values())
        ordered = sorted(self.op_counts.items(), key=lambda item: (-item[1], item[0]))
        parts: list[Any] = [
            f"{self.filepath}: {size_text(self.size_bytes)}, opset {self.opset_version}, "
            f"{nodes} nodes",
            f"loads in {self.loads_in}",
            *([str(self.price)] if self.price else []),
            signature_table(self.contract),
            "ops: " + ", ".join(f"{op} {count}" for op, count in ordered),
            self.parity.brief() if self.parity else "not proven: the proof was switched off",
        ]
        return render(parts)
