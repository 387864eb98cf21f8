# SPDX-License-Identifier: GPL-2.0-only
"""Boots: limits, endings and the bytes kept, with small programs in QEMU's place."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure
from kmendlib.proof import guest
from kmendlib.run import End, Ending, GuestSpec
from kmendlib.tree import arches


@pytest.fixture(autouse=True)
def idle_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep limits as they are, whatever else the host does."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def run(script: str, tmp_path: Path, limit: float = 20.0) -> Ending:
    return guest.boot(["sh", "-c", script], tmp_path / "console.log", limit)


def test_console_is_kept_byte_for_byte(tmp_path: Path) -> None:
    boot = run(r"printf 'KTAP version 1\r\n\377\033[31mok 1 a\n'", tmp_path)
    assert boot.end is End.EXIT and boot.code == 0
    assert boot.console.read_bytes() == b"KTAP version 1\r\n\xff\x1b[31mok 1 a\n"


def test_last_result_line_is_timed(tmp_path: Path) -> None:
    boot = run("echo ok 1 a; sleep 0.6; echo not ok 2 b; sleep 0.6; echo bye", tmp_path)
    assert boot.ktap_seconds is not None
    assert 0.5 < boot.ktap_seconds < boot.seconds - 0.4


def test_no_result_line_has_no_time(tmp_path: Path) -> None:
    assert run("echo booted", tmp_path).ktap_seconds is None


def test_complaint_of_qemu_is_kept_apart(tmp_path: Path) -> None:
    boot = run("echo 'could not load firmware' >&2; exit 1", tmp_path)
    assert (boot.end, boot.code, boot.stderr) == (End.EXIT, 1, "could not load firmware")
    assert boot.console.read_bytes() == b""


def test_time_limit(tmp_path: Path) -> None:
    boot = run("while :; do echo tick; sleep 0.1; done", tmp_path, limit=1.0)
    assert boot.end is End.TIMEOUT and boot.code is None
    assert boot.seconds < 5


@pytest.mark.parametrize("script", ["for i in 1 2 3; do sleep 0.5; echo tick; done", "sleep 1.5"])
def test_limits_grow_on_a_slow_host(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the load of the last minute on each CPU that is ours."""
    monkeypatch.setattr(guest, "SILENCE_LIMIT", 1.0)
    assert run(script, tmp_path, limit=1.2).end is not End.EXIT
    monkeypatch.setattr(os, "getloadavg", lambda: (12.0, 0.0, 0.0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert run(script, tmp_path, limit=1.2).end is End.EXIT


def test_silence_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "SILENCE_LIMIT", 1.0)
    boot = run("echo started; sleep 60", tmp_path, limit=50.0)
    assert boot.end is End.SILENT
    assert boot.console.read_text() == "started\n"


def test_dead_guest_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "PANIC_LIMIT", 0.5)
    boot = run("echo 'Kernel panic - not syncing: Fatal exception'; sleep 60", tmp_path)
    assert boot.end is End.SILENT and boot.seconds < 5


def test_flood_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "CONSOLE_LIMIT", 1 << 20)
    boot = run("yes 'spurious interrupt'", tmp_path)
    assert boot.end is End.FLOOD
    assert boot.console.stat().st_size < 4 << 20


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    run(f"(while :; do date > {mark}; sleep 0.1; done) & sleep 60", tmp_path, limit=1.0)
    mark.unlink(missing_ok=True)
    time.sleep(0.5)
    assert not mark.exists()


def test_stop_ends_a_boot_at_once(tmp_path: Path) -> None:
    timer = threading.Timer(0.5, proc.stop)
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(InterruptedError):
            run("while :; do echo tick; sleep 0.1; done", tmp_path)
    finally:
        timer.join()
        proc.stopping.clear()
    assert time.monotonic() - started < 5


def test_missing_emulator(tmp_path: Path) -> None:
    with pytest.raises(Infrastructure, match="kmend setup"):
        guest.boot(["qemu-system-none"], tmp_path / "console.log", 1.0)


@pytest.mark.parametrize("name", arches.names())
def test_command_has_what_every_guest_needs(name: str) -> None:
    arch = arches.load(name)
    machine = ("-machine", "aia=aplic-imsic", *arch.params.extra_qemu_params)
    spec = GuestSpec(name, arch.qemu, machine, 4, 2048, Path("Image"), ("console=ttyS0", "panic=-1"), (Path("rd"),))
    words = guest.command(replace(spec, devices=("nvme,serial=1", "igb")))
    text = " ".join(words)
    assert words[0] == arch.qemu
    wanted = ("-no-reboot", "-nodefaults", "-serial stdio", "-m 2048", "-initrd rd", "-device nvme,serial=1 -device igb")
    for part in (*wanted, "-machine aia="):
        assert part in text
    # Of several, QEMU takes the last.
    assert text.rindex("-smp ") == text.rindex("-smp 4")
    assert words[words.index("-append") + 1] == "console=ttyS0 panic=-1"
