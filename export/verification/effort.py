"""How thorough a proof is, and how long it may take.

| | `"fast"` | `True`, `"usual"` | `"thorough"` |
| --- | --- | --- | --- |
| shapes | five telling ones | all | all, drawn twice, with larger ones and other magnitudes |
| Keras op by op | on the first | on every other one | on every other one |
| shortest and longest size that the model takes | | to 256 | to 2048 |
| nothing in the batch, where the runtime survives it | | | yes |
| inputs that do not matter | | yes | yes |
| integers at the ends of their types, where nothing limits them | yes | yes | yes |
| each side of the branches and sizes that the data decides | yes | yes | yes |
| what becomes of NaN and infinities | | told | told |
| the same inputs again after others | yes | yes | yes |
| several threads, on as many rows as time allows | | 2, 4; to 10 runs | 2, 3, 4, 8; to 50 runs |
| errors of each layer | | where no input matters | yes |

All of it runs on inputs that are drawn. Inputs that the caller gives take the place of the shapes
and what is made of them; the rest runs on them too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

Verify = bool | Literal["fast", "usual", "thorough"]


@dataclass(frozen=True)
class Level:
    """What a proof does.

    Args:
        name: str, as reports give it.
        shapes: "few", "all" or "many" of the shapes in `sampling`.
        eager_every: int, every so many samples Keras runs op by op.
        longest: int, how far the longest size that the model takes is looked for; 0 is not at all.
        matters: bool, whether to look for inputs that do not matter.
        empty: bool, whether to try batches without rows.
        threads: onnxruntime's threads, in one session each.
        repeats: int, how often the largest sample runs in each of these: a race shows now and then.
        seconds, share: how long the runs with several threads may take: some seconds, and this
            share of what the proof took before.
        layers: bool, whether to measure the error of every layer.
    """

    name: str
    shapes: str
    eager_every: int
    longest: int = 0
    matters: bool = False
    empty: bool = False
    threads: tuple[int, ...] = ()
    repeats: int = 0
    seconds: float = 0.0
    share: float = 0.0
    layers: bool = False


FAST = Level("fast", "few", eager_every=100)
# Two threads lost sums in every run of onnxruntime's racing scatter on 50,000 rows, four in half of
# the runs, and on 5,000 rows in one of ten at most: large samples find more than many runs do.
USUAL = Level(
    "usual", "all", eager_every=2, longest=256, matters=True, threads=(2, 4), repeats=10,
    seconds=0.06, share=0.25,
)  # fmt: skip
THOROUGH = Level(
    "thorough", "many", eager_every=2, longest=2048, matters=True, empty=True,
    threads=(2, 3, 4, 8), repeats=50, seconds=2.0, share=2.0, layers=True,
)  # fmt: skip
_BY_ARGUMENT = {"fast": FAST, True: USUAL, "usual": USUAL, "thorough": THOROUGH}


def level_of(verify: Any) -> Level:
    """The level that the argument `verify` of an export or a check asks for.

    Raises:
        ValueError: it asks for none of them.
    """
    level = _BY_ARGUMENT.get(verify) if isinstance(verify, bool | str) else None
    if level is None:
        raise ValueError(
            f"verify must be True, 'fast', 'usual' or 'thorough'. Received: verify={verify!r}"
        )
    return level


class Budget:
    """How long a proof may take; at least one sample is compared, however short it is.

    Args:
        seconds: float, or None for as long as it takes.
    Raises:
        ValueError: the seconds are no positive number.
    """

    def __init__(self, seconds: float | None = None):
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (number and seconds > 0):
            raise ValueError(
                f"time_budget must be a positive number of seconds, or None for as long as it "
                f"takes. Received: time_budget={seconds!r}"
            )
        self.seconds = seconds
        self._started = time.perf_counter()

    @property
    def spent(self) -> float:
        """The seconds since the proof began."""
        return time.perf_counter() - self._started

    @property
    def end(self) -> float:
        """How many seconds may be spent."""
        return float("inf") if self.seconds is None else self.seconds

    @property
    def over(self) -> bool:
        """Whether nothing more may begin."""
        return self.spent >= self.end
