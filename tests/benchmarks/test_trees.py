import json

import numpy as np
import pytest
import rounds
import tree_memory
import tree_models
import tree_report
import trees
from rich.console import Console
from tree_contests import ALL_NODES, IN_TENSORFLOW, LIMIT, OURS, PREPARES, Arena, Contest, programme
from tree_memory import Memory
from tree_samples import sentences

FACTS = {"trees": 4, "nodes": 10, "levels": 3, "widest": 2, "mean nodes": 2.5, "mean levels": 2}

SURROUNDINGS = {
    "packages": {}, "python": "3", "system": "", "processor": "a processor", "cores": 2,
    "load_at_start": None, "date": "today",
}  # fmt: skip


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    return Arena([], runs=3, folder=tmp_path_factory.mktemp("arena"))


@pytest.fixture
def small(monkeypatch):
    """Contests of small models take little time, but the figures mean nothing."""
    monkeypatch.setattr(rounds, "SHORTEST_TURN", 1e-4)


def test_sentences_are_raced_as_a_file_and_in_tensorflow(arena, small):
    contest = arena.inference("inference", "N-ary", 1, sentences(2).batches(1))
    assert {OURS, IN_TENSORFLOW, LIMIT} <= contest.seconds.keys()
    assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in contest.seconds.values())
    assert contest.facts["trees"] == 2


def test_all_nodes_are_raced_against_roots(arena, small):
    assert arena.all_nodes("N-ary", 2, sentences(2)).seconds.keys() == {OURS, ALL_NODES}


def test_the_cost_of_a_node_is_raced_between_batches(arena, small):
    contest = arena.flat("N-ary", (2, 4))
    assert contest.seconds.keys() == {"2 trees", "4 trees"}
    goal = next(goal for goal in tree_report.goals([contest], []))
    assert goal.name == "Cost of a node, N-ary, dearest by cheapest batch"
    assert "| N-ary |" in tree_report.report([contest], [], SURROUNDINGS, 3)


def test_fit_does_the_steps_that_it_is_given_and_no_more():
    model, batch = tree_models.tree_lstm("child-sum"), sentences(2)
    before = model.get_weights()
    fit = tree_models.Fit(model, batch)
    assert model.optimizer.iterations == 2
    assert fit(3) > 0
    assert model.optimizer.iterations == 5
    fit.close()
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_of_two_contestants_each_begins_every_other_round():
    calls = []

    def clock(name):
        def measure(count):
            calls.append(name)
            return 1.0

        return measure

    rounds.rounds({name: clock(name) for name in "ab"}, runs=8)
    first = calls[2 * rounds.WARM_UPS :: 2]
    assert first.count("a") == first.count("b") == 4


def test_every_contestant_has_a_turn_in_each_round_and_begins_some():
    calls = []

    def clock(name):
        def measure(times):
            calls.append(name)
            return 1.0

        return measure

    taken = rounds.rounds({name: clock(name) for name in "abc"}, runs=6)
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 6, "b": 6, "c": 6}
    turns = calls[3 * rounds.WARM_UPS :]
    assert [sorted(turns[at : at + 3]) for at in range(0, 18, 3)] == [["a", "b", "c"]] * 6
    assert {turns[at] for at in range(0, 18, 3)} == {"a", "b", "c"}


def test_a_long_contest_has_fewer_rounds():
    assert len(rounds.rounds({"slow": lambda calls: 30.0}, runs=25)["slow"]) == rounds.FEWEST_ROUNDS


def a_contest(kind="inference", at=256, **seconds):
    return Contest(kind, "child-sum", at, FACTS, {k: [v] * 3 for k, v in seconds.items()})


def test_a_goal_that_was_missed_is_named():
    contests = [
        a_contest(
            limit=1.0, ours=1.6, **{"pytorch-tree-lstm": 4.0, f"pytorch-tree-lstm{PREPARES}": 0.4}
        ),
        a_contest("training", limit=1.0, ours=2.0, **{"pytorch-tree-lstm": 4.0}),
    ]
    memory = Memory("file", "chains", [100, 200], [1000.0, 4000.0])
    text = tree_report.verdicts(contests, [memory])
    assert text.startswith("4 of 7 goals are met.")
    assert "MISSED: Inference on sentences, child-sum 256, by the limit: 1.60, at most 1.50" in text
    whole = "the whole of pytorch-tree-lstm by ours, child-sum 256"
    assert f"MISSED: Inference on sentences, {whole}: 2.75, at least 3.00" in text
    assert "met: Inference on sentences, pytorch-tree-lstm by ours, least at child-sum 256" in text
    assert "MISSED: memory at twice the nodes, file, chains: 4.00" in text
    assert "met: Training on sentences, child-sum 256, by the limit: 2.00" in text


def test_memory_is_a_line_through_the_peaks():
    memory = Memory("file", "sentences", [100, 200, 400], [500.0, 700.0, 1100.0])
    assert memory.per_node() == pytest.approx(2)
    assert memory.growth() == pytest.approx(1100 / 700)


def test_the_page_is_written_from_saved_results(tmp_path):
    contests = [
        a_contest(limit=1.0, ours=1.4, DGL=5.0, **{f"DGL{PREPARES}": 0.6}),
        a_contest("all nodes", ours=1.0, **{ALL_NODES: 1.2}),
    ]
    record = {
        "surroundings": SURROUNDINGS,
        "runs": 3,
        "contests": [vars(contest) for contest in contests],
        "memories": [vars(Memory("file", "chains", [100, 200], [1000.0, 2000.0]))],
    }
    (tmp_path / "trees.json").write_text(json.dumps(record))
    trees.write(tmp_path, tmp_path, Console())
    page = (tmp_path / "trees.md").read_text()
    assert "| child-sum 256 | 10 | 3 | 1000.00 | 1400.00 | **1.40** (1.40 to 1.40) |" in page
    assert "| child-sum 256 | 5000.00 | 5.00 | 3.57 | 4.00 |" in page
    assert "![Cost of a node, and memory](trees.png)" in page
    assert (tmp_path / "trees.png").stat().st_size > 1000


def test_the_quick_programme_has_every_kind_of_contest():
    kinds = {entry.kind for entry in programme(quick=False)}
    assert {entry.kind for entry in programme(quick=True)} == kinds == tree_report.HOW.keys()


@pytest.mark.slow
@pytest.mark.skipif(not tree_memory.available(), reason="peaks are read from Linux's /proc")
def test_memory_is_measured_in_processes_of_their_own(tmp_path):
    tree_models.session(tree_models.tree_lstm("child-sum"), tmp_path / "tree.onnx")
    for kind in ("file", "training"):
        memory = tree_memory.measured(kind, tmp_path / "tree.onnx", "chains", (2000, 4000))
        assert memory.nodes == [2000, 4000]
        assert memory.per_node() > 0
