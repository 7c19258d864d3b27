"""What the layers refuse in one wording: other libraries' names of arguments, inputs of another
width than the one that a layer is built for, masks that fit no input."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

_NO_ARGUMENT = "{0}: there is no argument `{1}`. Received: {1}={2!r}. {3}"
_DIRECTION = (
    "It has no direction of its own: put keras.layers.Bidirectional around the recurrent layers "
    "(kb.GRU, kb.LSTM, kb.Recurrence), which may stand within keras_blocks.Stacked."
)


class KnowsTwins:
    """Mixin that guesses what is meant by an argument which other layers have and this one has not.

    It goes in front of the layer's other base class.
    """

    twin_arguments: ClassVar[dict[str, str]] = {}
    """For the name of an argument elsewhere its name here, or a sentence that says what to do."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """The new layer, if the names of its arguments are not known to be those of others."""
        for name in kwargs:
            mend = cls.twin_arguments.get(name)
            if mend is None or name in _spelled_out(cls, knows_twins=True):
                continue
            mend = mend if " " in mend else f"Did you mean `{mend}`?"
            raise ValueError(_NO_ARGUMENT.format(cls.__name__, name, kwargs[name], mend))
        if "go_backwards" in kwargs and "go_backwards" not in _spelled_out(cls):
            # keras.layers.Bidirectional asks whatever it is given for the other direction.
            given = kwargs["go_backwards"]
            raise ValueError(_NO_ARGUMENT.format(cls.__name__, "go_backwards", given, _DIRECTION))
        return super().__new__(cls, *args, **kwargs)


def _spelled_out(cls: type, knows_twins: bool = False) -> set[str]:
    """The arguments that the constructors of a class and of its bases spell out, those of the bases
    of the class that knows its twins left out on demand."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            names |= inspect.signature(vars(base)["__init__"]).parameters.keys()
        if knows_twins and "twin_arguments" in vars(base):
            break
    return names


def check_features(owner: Any, built_for: int | None, shape: Any) -> None:
    """Refuses an input whose last axis has another size than the one that the layer is built for.

    Raises:
        ValueError: it has.
    """
    if built_for is None or shape[-1] in (None, built_for):
        return
    raise ValueError(
        f"{type(owner).__name__}: '{owner.name}' is built for inputs with {built_for} features in "
        f"the last axis. Received: an input of shape {tuple(shape)}, with {shape[-1]}. Give it "
        f"{built_for}, or make a new layer for the others."
    )


def check_mask(owner: Any, mask: Any, shape: Any, axes: int = 2) -> None:
    """Refuses a mask that has not one entry for each position of the input.

    Args:
        owner: the layer that asks.
        mask: the mask, or None.
        shape: the shape of the input.
        axes: int, how many of the input's first axes the mask has.
    Raises:
        ValueError: it has another rank, or another length along an axis.
    """
    if mask is None:
        return
    wanted, given = tuple(shape[:axes]), tuple(mask.shape)
    pairs = zip(wanted, given, strict=False)
    if len(given) == axes and all(None in pair or pair[0] == pair[1] for pair in pairs):
        return
    what = "step" if axes == 2 else "position"
    raise ValueError(
        f"{type(owner).__name__}: `mask` must have one entry for each {what}, {wanted} for an "
        f"input of shape {tuple(shape)}. Received a mask of shape {given}. Give True for "
        f"each to keep, False for each to skip."
    )
