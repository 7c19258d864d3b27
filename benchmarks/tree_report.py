"""The contests of the tree benchmark as tables, and how the goals were met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness import Timing, describe, markdown_table, milliseconds
from rounds import ratio
from tree_contests import (
    ALL_GATES,
    ALL_NODES,
    BY_LEVEL,
    IN_TENSORFLOW,
    LIMIT,
    OURS,
    PREPARES,
    SINGLE,
    WITH_FEATURES,
    Contest,
)
from tree_memory import Memory
from tree_models import FEATURES, UNITS

LIMITS = (LIMIT, WITH_FEATURES, BY_LEVEL, ALL_GATES)
PACKAGE = "pytorch-tree-lstm"
# The goals, as times the limit.
INFERENCE = {1: 4.0, 25: 2.0, 64: 1.5, 256: 1.5, 1024: 1.5}
TRAINING = {25: 3.8, 256: 3.0}
DEEP, CODE, NODES = {1000: 1.5}, 1.6, 1.3
# Dearest by cheapest node, from 8 trees to 1,024, in the same rounds.
FLAT = 1.5
# How often slower than ours that package must be, at this batch.
PACKAGE_BATCH, PACKAGE_SLOWER = 256, {"inference": 3.0, "training": 1.7}
# Memory at twice the nodes; allocators round up.
DOUBLED = 2.2

HOW = {
    "inference": (
        "Inference on sentences",
        "The vectors of the roots of sentence-like binary trees: our exported file under "
        "onnxruntime, schedule and ragged handling included. A single tree is measured over "
        f"{SINGLE}, one after another.",
    ),
    "flat": ("Cost of a node", "Our file, batches of so many trees in the same rounds, in µs."),
    "training": (
        "Training on sentences",
        "A step: forward, backward, Adam. Ours inside `fit`, with all that `fit` does around it; "
        "the limit is the products alone, in TensorFlow.",
    ),
    "syntax trees": (
        "Syntax trees of Python",
        "Functions of the standard library, from nodes with one child to one with 46.",
    ),
    "depth": (
        "Depth",
        "25 chains. Here the limit is the sum of the products of the levels, each alone, since "
        "each must wait for the one before.",
    ),
    "arity": ("Arity", "64 trees of 93 nodes, every inner node with so many children."),
    "all nodes": ("All nodes", "The file that gives the vectors of all nodes by that of roots."),
}


def report(
    contests: Sequence[Contest], memories: Sequence[Memory], facts: dict[str, Any], runs: int
) -> str:
    """The tables in Markdown, and how the goals were met."""
    parts = ["# Trees: cost beside the limit and the peers\n", describe(facts) + "\n", _how(runs)]
    for kind, (title, text) in HOW.items():
        of_kind = [contest for contest in contests if contest.kind == kind]
        if of_kind:
            table = _by_batch if kind == "flat" else _costs
            parts += [f"## {title}\n", text + "\n", table(of_kind)]
            parts += [_against_peers(of_kind)] if peers(of_kind) else []
    if memories:
        parts += ["## Memory\n", _MEMORY, _memory(memories)]
    parts += ["## Goals\n", verdicts(contests, memories) + "\n"]
    return "\n".join(parts)


def _how(runs: int) -> str:
    return (
        f"Child-sum and binary N-ary Tree-LSTM, {FEATURES} features, {UNITS} units, float32, one "
        f"thread; medians of at most {runs} interleaved rounds, ratios within the rounds. All "
        "contestants have the same weights and trees, and give the same roots.\n\n"
        "*Limit*: the matrix products that the formulas need and nothing else, in the engine that "
        "ours runs in; each product over all nodes of the batch at once. In training each weight "
        "has one product more for its gradient, U one more for the gradient of the states; the "
        "features are data and have none. *With features*: that one too, as behind an embedding. "
        "*By level*: the limit with a product of its own for each level. *All gates*: W and U for "
        "every gate at every node, in training with both products of the backward pass. "
        "Ours finds the order of the nodes in each run. The peers find it beforehand, from depths "
        "that are given; at inference new trees need it anew, and *whole* counts it. DyNet builds "
        "its graph in each run, as it always does.\n"
    )


_MEMORY = (
    "The highest memory during a batch beyond that before it, the features not counted, each in a "
    "process of its own; onnxruntime without its arena. *Skewed*: half of the nodes are children "
    "of one root.\n"
)


def peers(contests: Iterable[Contest]) -> list[str]:
    """The names of the peers that took part."""
    ours = {OURS, IN_TENSORFLOW, ALL_NODES, *LIMITS}
    raced = (c for c in contests if c.kind != "flat")
    names = dict.fromkeys(n for c in raced for n in c.seconds if n not in ours)
    return [name for name in names if not name.endswith(PREPARES)]


def whole(contest: Contest, peer: str) -> list[float]:
    """A peer's seconds on trees that it has not seen, as far as that is known."""
    seconds = contest.seconds
    prepares = seconds.get(peer + PREPARES, [0.0] * len(seconds[peer]))
    return [step + before for step, before in zip(seconds[peer], prepares, strict=True)]


def _costs(contests: Sequence[Contest]) -> str:
    """The times, and how many times the limit they are."""
    present = {name for contest in contests for name in contest.seconds}
    names = [name for name in (OURS, ALL_NODES, IN_TENSORFLOW) if name in present]
    limits = [limit for limit in LIMITS if limit in present]
    pairs = [(OURS, limit) for limit in limits] or [(ALL_NODES, OURS)]
    pairs += [(IN_TENSORFLOW, LIMIT)] if IN_TENSORFLOW in present else []
    headings = ["", "nodes", "levels", *(f"{name} ms" for name in (*limits, *names))]
    headings += [*(f"{name} / {judge}" for name, judge in pairs), f"{names[0]}: µs a node"]
    rows = []
    for c in contests:
        row = [f"{c.cell} {c.at}", f"{c.facts['nodes']}", f"{c.facts['levels']}"]
        row += [_time(c, name) for name in (*limits, *names)]
        row += [_ratio(c, name, judge) for name, judge in pairs]
        rows.append([*row, f"{cost(c, names[0]):.2f}"])
    return markdown_table(headings, rows)


def _by_batch(contests: Sequence[Contest]) -> str:
    names = list(contests[0].seconds)
    rows = [
        [c.cell, *(f"{1e6 * Timing.of(c.seconds[n]).median:.2f}" for n in names)] for c in contests
    ]
    return markdown_table(["", *names], rows)


def cost(contest: Contest, name: str) -> float:
    """Microseconds a node."""
    return 1e6 * Timing.of(contest.seconds[name]).median / contest.facts["nodes"]


def _against_peers(contests: Sequence[Contest]) -> str:
    """Each peer's time, in times the limit, and how many times slower than ours it is."""
    names = peers(contests)
    headings = [""]
    for name in names:
        headings += [f"{name} ms", "/ limit", "/ ours", "whole / ours"]
    rows = []
    for c in contests:
        row = [f"{c.cell} {c.at}"]
        for name in names:
            if name in c.seconds:
                row += [_time(c, name), _ratio(c, name, LIMIT), _ratio(c, name, OURS)]
                prepares = name + PREPARES in c.seconds
                of_whole = ratio(whole(c, name), c.seconds[OURS])
                row += [f"{of_whole.median:.2f}" if prepares else ""]
            else:
                row += ["", "", c.absent.get(name, ""), ""]
        rows.append(row)
    return markdown_table(headings, rows)


def _time(contest: Contest, name: str) -> str:
    if name not in contest.seconds:
        return ""
    batches = SINGLE if contest.kind == "inference" and contest.at == 1 else 1
    return milliseconds(Timing.of([s / batches for s in contest.seconds[name]]))


def _ratio(contest: Contest, name: str, judge: str) -> str:
    seconds = contest.seconds
    if name not in seconds or judge not in seconds:
        return ""
    timing = ratio(seconds[name], seconds[judge])
    text = f"{timing.median:.2f}"
    strict = name in (OURS, ALL_NODES) and judge in (LIMIT, OURS)
    return f"**{text}** ({timing.low:.2f} to {timing.high:.2f})" if strict else text


def _memory(memories: Sequence[Memory]) -> str:
    rows = [
        [
            f"{memory.kind}, {memory.shape}",
            ", ".join(f"{k / 1024:.0f}" for k in memory.kilobytes),
            ", ".join(str(nodes) for nodes in memory.nodes),
            f"{memory.per_node():.1f}",
            f"{memory.growth():.2f}",
        ]
        for memory in memories
    ]
    return markdown_table(["", "MB", "at nodes", "kB a node (line)", "at twice the nodes"], rows)


@dataclass(frozen=True)
class Goal:
    """A figure and its bound; `at_least` says from which side."""

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        mark = "met" if self.met else "MISSED"
        return f"- {mark}: {self.name}: {self.value:.2f}, {sign} {self.bound:.2f}"


def goals(contests: Sequence[Contest], memories: Sequence[Memory]) -> list[Goal]:
    """Every goal that these results have a figure for."""
    found = [goal for contest in contests if (goal := _by_limit(contest))]
    found += _by_peers(contests)
    for c in contests:
        if c.kind == "flat":
            name = f"{HOW[c.kind][0]}, {c.cell}, dearest by cheapest batch"
            found.append(
                Goal(name, ratio(c.seconds[_dearest(c)], c.seconds[_cheapest(c)]).median, FLAT)
            )
    found += [
        Goal(f"memory at twice the nodes, {m.kind}, {m.shape}", m.growth(), DOUBLED)
        for m in memories
    ]
    return found


def _dearest(contest: Contest) -> str:
    return max(contest.seconds, key=lambda name: Timing.of(contest.seconds[name]).median)


def _cheapest(contest: Contest) -> str:
    return min(contest.seconds, key=lambda name: Timing.of(contest.seconds[name]).median)


def _by_limit(contest: Contest) -> Goal | None:
    bound = _bound(contest)
    if bound is None:
        return None
    ours, judge = (ALL_NODES, OURS) if contest.kind == "all nodes" else (OURS, LIMIT)
    value = ratio(contest.seconds[ours], contest.seconds[judge]).median
    what = "by that of roots" if judge == OURS else "by the limit"
    return Goal(f"{HOW[contest.kind][0]}, {contest.cell} {contest.at}, {what}", value, bound)


def _by_peers(contests: Sequence[Contest]) -> list[Goal]:
    """Each peer at least as slow as ours, wherever they meet; the package by its margin.

    The margin is that of the whole; to be faster is asked of the step alone.
    """
    found = []
    for kind, (title, _) in HOW.items():
        for peer in peers(c for c in contests if c.kind == kind):
            met = {
                f"{c.cell} {c.at}": ratio(c.seconds[peer], c.seconds[OURS]).median
                for c in contests
                if c.kind == kind and peer in c.seconds
            }
            at = min(met, key=met.__getitem__)
            found.append(Goal(f"{title}, {peer} by ours, least at {at}", met[at], 1.0, True))
            judged = [
                ratio(whole(c, peer), c.seconds[OURS]).median
                for c in contests
                if (c.kind, c.cell, c.at) == (kind, "child-sum", PACKAGE_BATCH)
                and peer in c.seconds
            ]
            if peer == PACKAGE and kind in PACKAGE_SLOWER and judged:
                name = f"{title}, the whole of {peer} by ours, child-sum {PACKAGE_BATCH}"
                found.append(Goal(name, judged[0], PACKAGE_SLOWER[kind], True))
    return found


def _bound(contest: Contest) -> float | None:
    by_kind = {"inference": INFERENCE, "training": TRAINING, "depth": DEEP}
    if contest.kind in by_kind:
        return by_kind[contest.kind].get(contest.at)
    return {"syntax trees": CODE, "all nodes": NODES}.get(contest.kind)


def verdicts(contests: Sequence[Contest], memories: Sequence[Memory]) -> str:
    """How far the goals were met, those that were missed first."""
    found = sorted(goals(contests, memories), key=lambda goal: goal.met)
    met = sum(goal.met for goal in found)
    return "\n".join([f"{met} of {len(found)} goals are met.\n", *map(str, found)])


def line(contest: Contest) -> str:
    """One contest, as it finishes."""
    seconds = contest.seconds
    judge = next((name for name in (LIMIT, OURS) if name in seconds), next(iter(seconds)))
    ratios = "   ".join(
        f"{name} {ratio(taken, seconds[judge]).median:.2f}"
        for name, taken in seconds.items()
        if name != judge
    )
    absent = "".join(f"   {name}: {why}" for name, why in contest.absent.items())
    name = f"{contest.kind}, {contest.cell}, {contest.at}"
    rounds = len(seconds[judge])
    return f"{name:<30} {judge} {_time(contest, judge)} ms, {rounds} rounds;  {ratios}{absent}"
