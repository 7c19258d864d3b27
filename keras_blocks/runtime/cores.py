"""How many cores this process may use: those of the machine are not all of them in a container."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores(root: Path = _CGROUP, member: Path = Path("/proc/self/cgroup")) -> int:
    """The cores that the process may run on, by its affinity and by the quota of its cgroup.

    Args:
        root: where cgroups are mounted.
        member: the file that says which of them the process is in.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # other systems have none
        allowed = os.cpu_count() or 1
    quota = _quota(root, member)
    return max(1, math.ceil(min(allowed, quota)))


def _quota(root: Path, member: Path) -> float:
    """The least quota of the process's cgroup and those it is in, in cores; inf for none."""
    quotas = [math.inf]
    for folder in _folders(root, member):
        for read in (_quota_of_v2, _quota_of_v1):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                quotas.append(read(folder))
    return min(quotas)


def _folders(root: Path, member: Path) -> list[Path]:
    """The folders of the process's cgroup and those above it, for either version of cgroups."""
    found = [root, root / "cpu"]
    with contextlib.suppress(OSError):
        for line in member.read_text().splitlines():
            parts = line.split(":", 2)
            if len(parts) != 3:
                continue
            _, controllers, path = parts
            if not controllers or "cpu" in controllers.split(","):
                inner = [p for p in path.split("/") if p not in ("", "..")]
                for top in (root, root / "cpu", root / controllers):
                    found += [top.joinpath(*inner[:n]) for n in range(1, len(inner) + 1)]
    return found


def _quota_of_v2(folder: Path) -> float:
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota) / int(period)  # "max" is no number


def _quota_of_v1(folder: Path) -> float:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    period = int((folder / "cpu.cfs_period_us").read_text())
    return quota / period if quota > 0 else math.inf
