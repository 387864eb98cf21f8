# SPDX-License-Identifier: GPL-2.0-only
"""What this process may use of the machine: CPUs and memory, by affinity and by the quotas of its control groups."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

# Where version 2 and the controllers of version 1 are mounted, and which groups this process is in.
GROUPS = Path("/sys/fs/cgroup")
OURS = Path("/proc/self/cgroup")
MEMORY = Path("/proc/meminfo")


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that limit this process, its own first; not all of them need be there.

    A container may see the paths of the host's, and have its own group mounted as the root.
    """
    try:
        lines = OURS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        roots = [GROUPS / names, GROUPS / controller] if names else [GROUPS, GROUPS / "unified"]
        inside = Path(path.lstrip("/"))
        for root in roots:
            yield from (root / each for each in (inside, *inside.parents))


def _number(group: Path, name: str, which: int = 0) -> float:
    """Return a number of a group's file; without end where there is none, or no such file."""
    try:
        return float((group / name).read_text(encoding="ascii").split()[which])
    except (OSError, ValueError, IndexError):
        return math.inf


def cpus() -> float:
    """Return how many CPUs' time this process gets."""
    found = [float(len(os.sched_getaffinity(0)))]
    for group in _groups("cpu"):
        found.append(_number(group, "cpu.max") / _number(group, "cpu.max", 1))
        # In version 1 it is -1 where there is none.
        quota = _number(group, "cpu.cfs_quota_us")
        found.append(quota / _number(group, "cpu.cfs_period_us") if quota > 0 else math.inf)
    return min(share for share in found if share > 0)


def memory() -> int:
    """Return how much memory this process can have now, in MiB."""
    lines = dict(line.split(":", 1) for line in MEMORY.read_text(encoding="utf-8").splitlines())
    found = [int(lines["MemAvailable"].split()[0]) * 1024.0]
    for group in _groups("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            left = _number(group, limit) - _number(group, used)
            if math.isfinite(left):
                found.append(left + _cached(group))
    return max(0, int(min(found))) >> 20


def _cached(group: Path) -> float:
    """Return the bytes that a group gives back when they are needed: files that nobody reads any more."""
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        known = {name: float(value) for name, value in map(str.split, lines)}
        return known.get("total_inactive_file", known.get("inactive_file", 0.0))
    except (OSError, ValueError):
        return 0.0
