"""Memory that goes back to the system when it is free."""

from __future__ import annotations

import contextlib
import ctypes
import os

_THRESHOLD_BYTES = 2**20
_M_MMAP_THRESHOLD = -3  # in malloc.h


def give_back_large_blocks() -> None:
    """From now on a large block goes back as soon as it is free.

    glibc raises the size from which it does so with every large block that is freed, and keeps
    the rest: a few large answers would hold their memory for good. Other systems decide otherwise.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def resident_bytes() -> int:
    """The memory that this process holds now; 0 where the system does not tell (Linux does)."""
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
