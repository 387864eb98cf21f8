# SPDX-License-Identifier: GPL-2.0-only
"""Boots: limits, endings and the bytes kept, with small programs in QEMU's place."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure
from kmendlib.host.words import Verdict
from kmendlib.proof import guest, ktap
from kmendlib.run import End, Ending, GuestSpec
from kmendlib.tree import arches


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
    assert (boot.end, boot.code, boot.qemu_stderr) == (End.EXIT, 1, "could not load firmware")
    assert boot.console.read_bytes() == b""


def test_time_limit_counts_the_guests_seconds(tmp_path: Path) -> None:
    boot = run("echo '[    1.200000] up'; echo '[   20.500000] late'; sleep 60", tmp_path, limit=20.0)
    assert boot.end is End.TIMEOUT and boot.code is None
    assert boot.guest_seconds == 20.5 and boot.seconds < 5


def test_limit_on_the_hosts_clock_grows_with_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "slowness", lambda: 3.0)
    spec = GuestSpec("x", "qemu", (), 2, 64, Path("Image"), (), limit=10.0)
    assert (guest.limit(spec), guest.limit(replace(spec, timed=()))) == (30.0, 10.0)


def test_host_that_is_slow_is_no_time_limit(tmp_path: Path) -> None:
    boot = run('for i in 1 2 3; do echo "[    0.00000$i] tick"; sleep 0.6; done', tmp_path, limit=1.0)
    assert (boot.end, boot.guest_seconds) == (End.EXIT, 0.000003)
    assert boot.seconds > 1.5


@pytest.mark.parametrize("script", ["sleep 60", "while :; do :; done"])
def test_silence_limit(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for nothing, and one that works without a word."""
    monkeypatch.setattr(guest, "SILENCE_LIMIT", 1.0)
    boot = run(f"echo started; {script}", tmp_path)
    assert boot.end is End.SILENT
    assert boot.console.read_text(encoding="utf-8") == "started\n"


def test_host_that_gives_no_time_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU is stopped, as by a machine that is overbooked: what came of the guest, nobody knows."""
    monkeypatch.setattr(guest, "SILENCE_LIMIT", 1.0)
    monkeypatch.setattr(guest, "HOST_LIMIT", 3.0)
    boot = run("echo started; kill -STOP $$", tmp_path)
    assert boot.end is End.STARVED
    judged = ktap.judge(boot, "suite", lambda _: SimpleNamespace(subtests=[]))
    assert judged.verdict is Verdict.ERROR and judged.reason.startswith("the host gave it no time: ")


def test_load_of_the_host_stretches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    monkeypatch.setattr(guest, "SILENCE_LIMIT", 1.0)
    monkeypatch.setattr(guest, "PANIC_LIMIT", 0.5)
    for words, end in (("[    3.000000] late", End.TIMEOUT), ("started", End.SILENT)):
        boot = run(f"echo '{words}'; sleep 60", tmp_path, limit=2.0)
        assert boot.end is end and boot.seconds < 10


def test_console_that_nobody_reads_holds_no_guest_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe takes 64 KiB, and 1 MiB if it is asked to."""
    done = tmp_path / "done"
    monkeypatch.setattr(guest._Watch, "hear", lambda *_: time.sleep(0.05) or wait_for(done))
    boot = run(f"head -c 500000 /dev/zero; touch {done}", tmp_path)
    assert boot.end is End.EXIT and boot.console.stat().st_size == 500000


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 5
    while not path.exists():
        assert time.monotonic() < deadline, "the guest waits for its console to be read"
        time.sleep(0.01)


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
    late = "echo '[    2.000000] late'; sleep 60"
    run(f"(while :; do date > {mark}; sleep 0.1; done) & {late}", tmp_path, limit=1.0)
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
    words = guest.command(replace(spec, devices=("nvme,serial=1", "igb"), timed=("nolapic_timer",)))
    text = " ".join(words)
    assert words[0] == arch.qemu
    wanted = ("-no-reboot", "-nodefaults", "-serial stdio", "-m 2048", "-initrd rd", "-machine aia=")
    for part in (*wanted, "-device nvme,serial=1 -device igb"):
        assert part in text
    # Of several, QEMU takes the last.
    assert text.rindex("-smp ") == text.rindex("-smp 4")
    assert words[words.index("-append") + 1] == " ".join(["console=ttyS0 panic=-1", *guest.WORDS, "nolapic_timer"])


def test_no_word_of_init_is_cut_off(tmp_path: Path) -> None:
    """A kernel of loongarch64 takes 511 characters: what has no room is in the initramfs, behind what was there."""
    (tmp_path / "rd").write_bytes(b"programs")
    spec = GuestSpec("x", "qemu", (), 2, 64, Path("Image"), ("panic=-1", "kmend.parked"), (tmp_path / "rd",))
    with guest.ready(spec) as words:
        assert words == guest.command(spec)
    symbols = "kmend.symbols=" + ",".join(f"a_long_name_{number}" for number in range(40))
    long = replace(spec, words=("panic=-1", "kmend.parked", symbols))
    with guest.ready(long) as words:
        line, whole = (words[words.index(word) + 1] for word in ("-append", "-initrd"))
        data = Path(whole).read_bytes()
    assert line == " ".join(["panic=-1", "kmend.parked", *guest.WORDS]) and not Path(whole).exists()
    assert data.startswith(b"programs")
    done = proc.tool(["cpio", "--quiet", "-i", "--to-stdout", "kmend.words"], stdin=data.removeprefix(b"programs"))
    assert done.stdout.decode() == symbols
    # The same words are the same bytes, so that a boot is the same again.
    with guest.ready(long) as words:
        assert Path(words[words.index("-initrd") + 1]).read_bytes() == data


def test_a_guest_has_a_clock_and_chance_of_its_own(tmp_path: Path) -> None:
    """A forced race alone is on the host's clock: what stops it comes from there."""
    spec = GuestSpec("x", "qemu", (), 2, 64, Path("Image"), ("panic=-1",), timed=("word",), seed=7)
    own, host = (" ".join(guest.command(replace(spec, timed=timed))) for timed in (("word",), None))
    assert "thread=single -icount shift=0,sleep=off -rtc base=2026-01-01,clock=vm " in own and " -seed 7 " in own
    # Else one that spins keeps its turn for a tenth of a second.
    assert "filter-buffer," in own and "interval=500 " in own and "filter-buffer" not in host
    assert own.endswith(f"-append panic=-1 {' '.join(guest.WORDS)} word")
    assert (
        "thread=multi" in host and "icount" not in host and host.endswith(f"-append panic=-1 {' '.join(guest.WORDS)}")
    )


def test_inputs_are_what_decides(tmp_path: Path) -> None:
    """The bytes of the files, wherever they lie; the seed; QEMU's version. Nothing else of the host."""
    for name, text in (("one", "kernel"), ("two", "kernel"), ("other", "Kernel")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    spec = GuestSpec("x", "qemu", (), 2, 64, tmp_path / "one", ("panic=-1",), (tmp_path / "one",), timed=())
    again = replace(spec, kernel=tmp_path / "two", initrd=(tmp_path / "two",))
    assert guest.inputs(spec, "10.0.2") == guest.inputs(again, "10.0.2")
    others = (replace(spec, kernel=tmp_path / "other"), replace(spec, seed=2), replace(spec, cpus=4))
    assert len({guest.inputs(spec, "10.0.3"), *(guest.inputs(each, "10.0.2") for each in (spec, *others))}) == 5
