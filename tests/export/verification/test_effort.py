"""How much is proven, and for how long."""

from __future__ import annotations

import time

import pytest

from keras_blocks.export.verification.effort import FAST, THOROUGH, USUAL, Budget, level_of


def test_the_argument_chooses_the_level():
    assert [level_of(verify) for verify in ("fast", True, "thorough")] == [FAST, USUAL, THOROUGH]
    assert level_of("usual") is USUAL


@pytest.mark.parametrize("verify", [False, None, "slow", 1, ["fast"]])
def test_another_argument_is_refused_with_what_came(verify):
    with pytest.raises(ValueError, match=r"True, 'fast', 'usual' or 'thorough'. Received: verify="):
        level_of(verify)


def test_a_thorough_proof_does_all_that_a_usual_one_does():
    assert set(USUAL.threads) <= set(THOROUGH.threads)
    for more in ("longest", "matters", "repeats", "seconds", "share", "layers"):
        assert getattr(FAST, more) <= getattr(USUAL, more) <= getattr(THOROUGH, more)


def test_a_budget_ends():
    budget = Budget(0.02)
    assert not budget.over
    time.sleep(0.03)
    assert budget.over
    assert not Budget().over


@pytest.mark.parametrize("seconds", [0, -1, "3", True, float("nan")])
def test_a_budget_is_a_positive_number_of_seconds(seconds):
    with pytest.raises(ValueError, match=r"positive number of seconds.*Received: time_budget="):
        Budget(seconds)
