"""Operations of a file that give another result now and then when several threads work on them.

onnxruntime's ScatterND with a reduction goes through its values in parallel: where several go to
one place it loses some, now and then, with 2 threads as with 8. That is so rare on a busy machine
that a file with such places fails without waiting for it. Any other race has to show itself.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx

from keras_blocks.contract.sampling.samples import Sample
from keras_blocks.export.conversion.layer_probe import layer_scopes
from keras_blocks.export.onnx_io.graphs import nested_graphs
from keras_blocks.export.results.checks import Difference
from keras_blocks.export.results.comparison import TOLERANCES, compare
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.export.verification.diagnosis.first_difference import described
from keras_blocks.export.verification.diagnosis.graph_difference import layer_of
from keras_blocks.export.verification.stages.repeated_runs import Race
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

_SEVERAL = 4  # threads
_SECONDS = 3.0  # for the search of a race that was seen
_MEND = "Its threads write to the same places: use ScatterElements, which goes one by one."


def run_scatters(proof: VerificationRun, filepath: Path, file: onnx.ModelProto) -> None:
    """Fails a proof whose file adds or compares several values in one place by ScatterND.

    Those in loops and branches cannot be looked into, and are noted.

    Args:
        proof: has outcomes to go on from.
        filepath: the ONNX file.
        file: what is in it.
    """
    if proof.largest is None:
        return
    sample, expected = proof.largest.sample, proof.largest.expected
    for graph in nested_graphs(file.graph):
        for node in filter(_reduces, graph.node):
            places = _values_of(filepath, node.input[1], sample.feed)
            if places is None:
                proof.notes.append(f"Node '{node.name}' (ScatterND) may race. {_MEND}")
            elif len(np.unique(places.reshape(-1, places.shape[-1]), axis=0)) < places[..., 0].size:
                problem = f"node '{node.name}' (ScatterND) puts several values in one place"
                proof.checks.append(proof.check(0, sample, expected[0], problem=problem))
                proof.fail(sample, _named(proof, file, node, "Threads may lose values"))


def find_racing_node(proof: VerificationRun, filepath: Path, race: Race) -> Difference:
    """The first node in the order of computation whose output several threads change.

    Args:
        proof: of the file.
        filepath: the ONNX file.
        race: where several threads gave something else than one.
    """
    start = f"With {race.threads} threads the file is not the same in every run"
    file = onnx.load(str(filepath))
    try:
        node = _racing_node(file, race)
    except SampleRejectedError as error:
        return Difference(f"{start}, and where it begins could not be found: {error}.")
    if node is not None:
        return _named(proof, file, node, start)
    start += f"; node by node it did not show again in {_SECONDS:g} s"
    suspects = list(filter(_reduces, file.graph.node))
    return _named(proof, file, suspects[0], start) if suspects else Difference(f"{start}.")


def race_on(proof: VerificationRun, filepath: Path, sample: Sample) -> Race | None:
    """A race, if a sample is right with one thread, and now and then wrong with several."""
    expected = proof.keras.run(sample.feed, eager=True)
    if not proof.compare_with(OnnxRunner(filepath, 1), sample, expected).ok:
        return None
    side, end = OnnxRunner(filepath, _SEVERAL), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        if not proof.compare_with(side, sample, expected).ok:
            return Race(sample, _SEVERAL)
    return None


def _named(
    proof: VerificationRun, file: onnx.ModelProto, node: onnx.NodeProto, start: str
) -> Difference:
    side = proof.keras
    scopes = layer_scopes(side.model, side.signature)
    layer = layer_of(file.graph, node.name or node.output[0], scopes)
    where = f" in {described(side.model, layer)}" if layer else ""
    mend = f" {_MEND}" if _reduces(node) else ""
    return Difference(
        f"{start}. It begins{where}, at node '{node.name}' ({node.op_type}).{mend}", layer
    )


def _reduces(node: onnx.NodeProto) -> bool:
    reductions = [a.s for a in node.attribute if a.name == "reduction"]
    return node.op_type == "ScatterND" and any(kind != b"none" for kind in reductions)


def _values_of(filepath: Path, name: str, feed: dict[str, np.ndarray]) -> np.ndarray | None:
    """A tensor inside a file, for these inputs; None where it cannot be seen."""
    file = onnx.load(str(filepath))
    for weight in file.graph.initializer:
        if weight.name == name:
            return onnx.numpy_helper.to_array(weight)
    if name in feed:
        return feed[name]
    file.graph.output.add().name = name
    try:
        return OnnxRunner(file.SerializeToString()).run(feed, [name])[name]
    except SampleRejectedError:
        return None


def _racing_node(file: onnx.ModelProto, race: Race) -> onnx.NodeProto | None:
    nodes = {name: node for node in file.graph.node for name in node.output if name}
    asked = {value.name for value in file.graph.output}
    for name in nodes:
        if name not in asked:
            file.graph.output.add().name = name
    content = file.SerializeToString()
    expected = OnnxRunner(content, 1).run(race.sample.feed)
    side, end = OnnxRunner(content, race.threads), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        found = side.run(race.sample.feed)
        for name, node in nodes.items():
            if _differs(expected[name], found[name]):
                return node
    return None


def _differs(expected: object, value: object) -> bool:
    """Whether two arrays differ; of sequences nothing is said."""
    if not (isinstance(expected, np.ndarray) and isinstance(value, np.ndarray)):
        return False
    return compare(expected, value, TOLERANCES["float32"]).problem is not None
