"""The progress bar keeps out of the way of quick work, and of those who do not want it."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from keras_blocks.export import progress


@pytest.fixture
def terminal(monkeypatch):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    return shown


def test_a_bar_comes_up_in_the_midst_of_a_long_step(terminal, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    with progress.bars() as bars:
        bars.doing("looking for the longest inputs")
        time.sleep(0.2)
        assert "looking for the longest" in terminal.getvalue()


@pytest.mark.parametrize(
    ("patience", "verbose", "visible"),
    [(0.0, None, True), (60.0, None, False), (0.0, False, False), (60.0, True, True)],
)
def test_a_bar_is_shown_beyond_a_second_or_when_asked_for(
    terminal, monkeypatch, patience, verbose, visible
):
    monkeypatch.setattr(progress, "PATIENCE", patience)
    seen = []
    for item in progress.tracked([1, 2, 3], "proving", verbose):
        time.sleep(0.02)
        seen.append(item)
    assert seen == [1, 2, 3]
    assert ("proving" in terminal.getvalue()) == visible


def test_the_bar_is_taken_away_when_the_work_breaks_off(terminal):
    bar = progress.tracked([1, 2, 3], "proving", verbose=True)
    assert next(bar) == 1
    bar.close()
    hidden_cursor, shown_again = "\x1b[?25l", "\x1b[?25h"
    assert terminal.getvalue().count(hidden_cursor) == terminal.getvalue().count(shown_again) == 1
