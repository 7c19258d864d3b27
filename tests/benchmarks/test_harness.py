import json

import harness
import pytest


def counting_clock(monkeypatch, costs):
    """Time passes only where a contestant says so."""
    now = [0.0]
    calls = []
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])

    def contestant(name):
        def call():
            calls.append(name)
            now[0] += costs[name](len(calls))

        return call

    return contestant("ours"), contestant("peer"), calls


def test_a_race_says_how_much_slower_we_are(monkeypatch):
    ours, peer, _ = counting_clock(monkeypatch, {"ours": lambda _: 0.03, "peer": lambda _: 0.02})
    result = harness.race(ours, peer, runs=8)
    assert result.ratio == pytest.approx(1.5)
    assert result.ours.median == pytest.approx(0.03)
    assert result.peer.median == pytest.approx(0.02)
    assert result.calls == 1


def test_a_machine_that_gets_slower_leaves_the_ratio_alone(monkeypatch):
    costs = {"ours": lambda call: 0.02 * 1.05**call, "peer": lambda call: 0.01 * 1.05**call}
    ours, peer, _ = counting_clock(monkeypatch, costs)
    assert harness.race(ours, peer, runs=20).ratio == pytest.approx(2, rel=0.05)


def test_both_run_in_turn_and_each_is_first_in_every_other_round(monkeypatch):
    ours, peer, calls = counting_clock(
        monkeypatch, {"ours": lambda _: 0.03, "peer": lambda _: 0.02}
    )
    harness.race(ours, peer, runs=4)
    assert calls[-8:] == ["ours", "peer", "peer", "ours", "ours", "peer", "peer", "ours"]


def test_short_calls_are_repeated_until_a_run_is_long_enough(monkeypatch):
    ours, peer, _ = counting_clock(monkeypatch, {"ours": lambda _: 2e-3, "peer": lambda _: 1e-3})
    result = harness.race(ours, peer, runs=4)
    assert result.calls == round(harness.SHORTEST_RUN / 1e-3)
    assert result.ours.median == pytest.approx(2e-3)


def test_races_are_saved_as_plain_json(monkeypatch, tmp_path):
    ours, peer, _ = counting_clock(monkeypatch, {"ours": lambda _: 0.03, "peer": lambda _: 0.02})
    record = {"races": {"GRU": harness.race(ours, peer, runs=4)}}
    as_json, as_text = harness.save("blocks", record, "text\n", tmp_path / "new")
    assert json.loads(as_json.read_text())["races"]["GRU"]["ratio"] == pytest.approx(1.5)
    assert as_text.read_text() == "text\n"


def test_surroundings_name_the_versions_and_the_machine():
    facts = harness.surroundings(["numpy"])
    assert facts["packages"].keys() == {"numpy"}
    assert facts["cores"] >= 1
    assert "numpy" in harness.describe(facts)


def test_a_table_has_as_many_cells_in_each_line():
    lines = harness.markdown_table(["block", "ms"], [["GRU", "1.2"]]).splitlines()
    assert lines == ["| block | ms |", "| --- | ---: |", "| GRU | 1.2 |"]
