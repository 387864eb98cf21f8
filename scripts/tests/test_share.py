# SPDX-License-Identifier: GPL-2.0-only
"""What this process may use of the machine, in control groups of both versions."""

import math
import os
from pathlib import Path

import pytest

from kmendlib.host import proc, share
from kmendlib.proof.jobs import Jobs

MIB = 1 << 20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 CPUs and 8 GiB; the process is in group /job/step of each."""
    monkeypatch.setattr(share, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(share, "OURS", tmp_path / "ours")
    monkeypatch.setattr(share, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "ours").write_text("4:memory:/job/step\n1:cpu,cpuacct:/job/step\n0::/job/step\n", encoding="utf-8")
    (tmp_path / "meminfo").write_text(f"MemTotal: {9 * MIB} kB\nMemAvailable: {8 * MIB} kB\n", encoding="utf-8")
    return tmp_path / "groups"


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_no_group_limits(groups: Path) -> None:
    put(groups / "job/step/cpu.max", "max 100000\n")
    put(groups / "job/step/memory.max", "max\n")
    put(groups / "cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n")
    put(groups / "cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    assert (share.cpus(), share.memory()) == (64.0, 8192)


def test_nothing_is_known_of_groups(groups: Path, tmp_path: Path) -> None:
    (tmp_path / "ours").unlink()
    assert (share.cpus(), share.memory()) == (64.0, 8192)


@pytest.mark.parametrize(
    ("where", "quota", "period"),
    [
        ("job/step/cpu.max", "150000 100000", ""),
        ("job/cpu.max", "150000 100000", ""),
        ("cpu.max", "150000 100000", ""),
        ("unified/job/cpu.max", "150000 100000", ""),
        ("cpu,cpuacct/job/cpu.cfs_quota_us", "150000", "cpu,cpuacct/job/cpu.cfs_period_us"),
        ("cpu/cpu.cfs_quota_us", "150000", "cpu/cpu.cfs_period_us"),
    ],
)
def test_share_of_the_cpus(where: str, quota: str, period: str, groups: Path) -> None:
    """That of a group above counts, too, and in a container what is mounted as the root."""
    put(groups / where, f"{quota}\n")
    if period:
        put(groups / period, "100000\n")
    assert share.cpus() == 1.5
    jobs = Jobs()
    jobs.close()
    assert jobs.count == math.ceil(1.5)


@pytest.mark.parametrize(
    ("limit", "used", "stat"),
    [
        ("job/memory.max", "job/memory.current", "inactive_file"),
        ("memory/job/memory.limit_in_bytes", "memory/job/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_share_of_the_memory(limit: str, used: str, stat: str, groups: Path) -> None:
    put(groups / limit, f"{3000 * MIB}\n")
    put(groups / used, f"{2500 * MIB}\n")
    assert share.memory() == 500
    put((groups / limit).with_name("memory.stat"), f"anon 1\n{stat} {700 * MIB}\n")
    assert share.memory() == 1200


def test_limits_stretch_to_a_ceiling(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert proc.slowness() == 1.0
    put(groups / "job/cpu.max", "200000 100000\n")
    assert proc.slowness() == 1.5
    monkeypatch.setattr(os, "getloadavg", lambda: (640.0, 0.0, 0.0))
    assert proc.slowness() == 8.0
