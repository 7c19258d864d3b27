# ruff: noqa: C408 (they are arguments)
"""The cases of KerasHub's models: functions that build them, small and with random weights.

The name of a case is that of the class, with the variant behind a blank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_hub.models as hub

WORDS = 20
Build = Callable[[], keras.Model]
# As in nearly every one of them.
PLAIN = dict(vocabulary_size=WORDS, num_layers=2, hidden_dim=16, intermediate_dim=24)
HEADS = dict(**PLAIN, num_heads=2)
GROUPED = dict(**PLAIN, num_query_heads=4, num_key_value_heads=2)
SHORT = dict(max_sequence_length=40)

CASES: dict[str, Build] = {}
"""The backbones by name."""


def case(name: str) -> Callable[[Build], Build]:
    """Adds the decorated function to the cases."""

    def add(build: Build) -> Build:
        CASES[name] = build
        return build

    return add


def simple(name: str, **arguments: Any) -> None:
    """Adds the class of this name with these arguments."""
    CASES[name] = lambda: getattr(hub, name.split()[0])(**arguments)
