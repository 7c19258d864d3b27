"""Which onnxruntime loads a file: its newest versions of the operators and of the format.

A release loads whatever is older, from opset 7 and format 3 on, so the first that knows a file's
versions and all after it load the file. Export and serving both say so of a file, from the file.
"""

from __future__ import annotations

from collections.abc import Mapping

Release = tuple[int, int]
"""A release without its last number: (1, 17)."""

_ONNX, _ML = "ai.onnx", "ai.onnx.ml"

# Measured by loading a file of one Identity; in between nothing changed.
_NEWEST: dict[Release, dict[str, int]] = {
    (1, 10): {_ONNX: 15, _ML: 2, "ir": 8},
    (1, 11): {_ONNX: 16, _ML: 3, "ir": 8},
    (1, 12): {_ONNX: 17, _ML: 3, "ir": 8},
    (1, 14): {_ONNX: 18, _ML: 3, "ir": 8},
    (1, 15): {_ONNX: 18, _ML: 3, "ir": 9},
    (1, 16): {_ONNX: 19, _ML: 3, "ir": 9},
    (1, 17): {_ONNX: 20, _ML: 4, "ir": 9},
    (1, 18): {_ONNX: 21, _ML: 5, "ir": 10},
    (1, 21): {_ONNX: 22, _ML: 5, "ir": 10},
    (1, 23): {_ONNX: 23, _ML: 5, "ir": 11},
    (1, 24): {_ONNX: 25, _ML: 5, "ir": 13},
    (1, 25): {_ONNX: 26, _ML: 5, "ir": 13},
    (1, 32): {_ONNX: 28, _ML: 5, "ir": 14},
}
"""By the release that first had them: the newest version of each domain, and of the format."""


def first_release(opset: Mapping[str, int], ir_version: int) -> Release | None:
    """The first onnxruntime that loads a file of these versions; None if none known here does.

    Args:
        opset: domain -> version; onnxruntime's own domains change with every release and count
            for nothing here.
        ir_version: int, the version of the format.
    """
    asked = {"ir": ir_version}
    for domain, version in opset.items():
        asked[domain or _ONNX] = max(version, asked.get(domain or _ONNX, 0))
    for release, newest in _NEWEST.items():
        if all(asked[part] <= newest[part] for part in asked.keys() & newest.keys()):
            return release
    return None


def loads_in(opset: Mapping[str, int], ir_version: int) -> str:
    """The same in words: "onnxruntime 1.17 and later".

    >>> from keras_blocks.runtime.releases import loads_in
    >>> loads_in({"ai.onnx": 20}, 9)
    'onnxruntime 1.17 and later'
    """
    release = first_release(opset, ir_version)
    if release is None:
        last = ".".join(map(str, max(_NEWEST)))
        return f"no onnxruntime up to {last}"
    return f"onnxruntime {'.'.join(map(str, release))} and later"


def newest_opset(onnxruntime_version: str) -> int:
    """The newest version of ONNX's operators that an onnxruntime ("1.20.1") loads."""
    major, minor = onnxruntime_version.split(".")[:2]
    present = int(major), int(minor)
    return max(
        (newest[_ONNX] for release, newest in _NEWEST.items() if release <= present), default=7
    )
