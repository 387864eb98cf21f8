# SPDX-License-Identifier: GPL-2.0-only
"""Races on command: scripts as data, and the engine at a stub that plays a small guest, well and badly."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kmendlib.host.words import Verdict
from kmendlib.proof import race, stub
from kmendlib.proof.race import Race
from kmendlib.run import Forced, GuestSpec, Judgement, RaceEnd
from kmendlib.show.timeline import timelines
from kmendlib.tree import arches, diagram, manifest
from stub_guest import Guest, State

REGISTERS = arches.Registers((0, 1, 2, 3), 4, 5, 6, lambda code, at: (4, 64) if code[at : at + 2] == b"C\0" else None)
LOCK, LIST = 0x8000, 0x9000
SYMBOLS = {
    diagram.TICK: (0x100, 16),
    "waker": (0x200, 16),
    "queuer": (0x300, 64),
    "insert": (0x348, 16),
    "walk": (0x400, 16),
    "lock": (0x500, 64),
    "the_list": (LIST, 32),
}
TIMELINE = {
    "finding": "a-bug/a-finding",
    "title": "A walk meets a change",
    "lanes": ["queuer", "waker"],
    "rows": [
        ["", "waker(&the_list)", {"park": "enter waker if arg0 is the_list", "pass": "leave waker"}],
        ["queuer()", "", {"control": "enter queuer"}],
        ["  insert(new)", "", {"park": "call insert in queuer if arg0 not in the_list keep new = arg0"}],
        ["", "  lock(&the_list)", {"held": "stay lock if arg0 in the_list"}],
        ["", "  walk(new)", {"mark": "enter walk if arg0[8] is new"}],
        ["  new is freed", "", {"then": "write new[8]"}],
    ],
}
SCRIPT: Any = diagram.script(TIMELINE)
NEW, OLD = 0x7000, 0x7100
# What two CPUs go through again and again: program counter, first argument, return address.
QUEUER = [(0x100, 0, 0x10), (0x10, 0, 0), (0x300, 0, 0x14), (0x308, NEW, 0), (0x30C, NEW, 0), (0x14, 0, 0)]
WAKER_BROKEN = [(0x20, 0, 0), (0x200, LIST, 0x24), (0x204, 0, 0), (0x400, OLD, 0x208), (0x208, 0, 0), (0x24, 0, 0)]
WAKER_HELD = [(0x20, 0, 0), (0x200, LIST, 0x24), (0x500, LIST, 0x208), (0x504, 0, 0), (0x208, 0, 0), (0x24, 0, 0)]
WAKER_IDLE = [(0x20, 0, 0), (0x24, 0, 0), (0x100, 0, 0x28)]


def memory(address: int, size: int) -> bytes:
    """Return the guest's: a function's code, and what an object points to."""
    if address == SYMBOLS["queuer"][0]:
        return b"\0" * 8 + b"C\0\0\0"
    return NEW.to_bytes(8, "little") if address == OLD + 8 else b""


def play(path: Path, *programs: list[State], fault: str = "", at: int = 40) -> Guest:
    """Start the stub of a guest with these programs."""
    return Guest(path, programs, REGISTERS, memory, (0x504, 0x308), 0x14, fault, at)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make bounds small."""
    for name, value in (("TICKS", 20), ("ATTEMPTS", 3), ("STAY", 30), ("STOP_LIMIT", 1.0)):
        monkeypatch.setattr(race, name, value)
    monkeypatch.setattr(stub, "REPLY_LIMIT", 1.0)


def force(
    tmp_path: Path, waker: list[State], fault: str = "", at: int = 40, whole: bool = True
) -> tuple[Forced, Guest]:
    return force_rows(tmp_path, TIMELINE["rows"], [QUEUER, waker], fault, at, whole)


def force_rows(
    tmp_path: Path,
    rows: object,
    programs: list[list[State]],
    fault: str = "",
    at: int = 40,
    whole: bool = True,
    boot: int = 0,
) -> tuple[Forced, Guest]:
    script = diagram.script({**TIMELINE, "rows": rows})
    assert script
    guest = play(tmp_path / "gdb", *programs, fault=fault, at=at)
    running = Race(script, REGISTERS, guest.path, whole=whole)
    running.hear(f"Boot HART ID              : {boot}\r")
    for name, (address, size) in SYMBOLS.items():
        running.hear(f"[    1.0] kmend-symbol: {address:x} {size:x} {name}\r")
    running.hear("kmend-symbol: end")
    outcome = running.finish()
    guest.server.close()
    return outcome, guest


@pytest.mark.usefixtures("quick")
def test_mark_that_is_reached_is_broken(tmp_path: Path) -> None:
    outcome, guest = force(tmp_path, WAKER_BROKEN)
    assert outcome.end is RaceEnd.BROKEN and not outcome.why
    assert [(seen.what, seen.lane, seen.where) for seen in outcome.seen] == [
        ("park", 1, "waker+0x0"),
        ("park", 0, "queuer+0x8"),
        ("mark", 1, "walk+0x0"),
        ("then", 0, f"{diagram.TICK}+0x0"),
    ]
    assert [seen.where for seen in outcome.control] == ["waker+0x0", "queuer+0x0", "back from waker"]
    assert guest.released and not guest.breakpoints and not guest.writes


@pytest.mark.usefixtures("quick")
def test_lane_that_is_seen_to_wait_is_held(tmp_path: Path) -> None:
    outcome, guest = force(tmp_path, WAKER_HELD)
    assert outcome.end is RaceEnd.HELD and guest.released
    assert outcome.seen[-1].where == "waits in lock" and outcome.seen[-1].row == 3
    assert [seen.what for seen in outcome.control] == ["park", "control", "pass"]


@pytest.mark.usefixtures("quick")
def test_guest_of_which_no_more_is_asked_is_ended(tmp_path: Path) -> None:
    """When its race was held; one that was lost shows what the report has after that."""
    outcome, guest = force(tmp_path, WAKER_HELD, whole=False)
    guest.thread.join(5)
    assert outcome.end is RaceEnd.HELD and outcome.ended and guest.ended and not guest.released
    judged = race.judge(Judgement(Verdict.ERROR, "no plan", {"one": "PASS"}), outcome)
    assert judged.verdict is Verdict.PASS and not judged.reason
    assert race.judge(Judgement(Verdict.PANIC, "BUG", {}), outcome).verdict is Verdict.PANIC
    (tmp_path / "gdb").unlink()
    outcome, guest = force(tmp_path, WAKER_BROKEN, whole=False)
    assert outcome.end is RaceEnd.BROKEN and not outcome.ended and guest.released and not guest.ended


@pytest.mark.parametrize(
    ("end", "fault", "verdict", "after", "case"),
    [
        (RaceEnd.BROKEN, False, Verdict.PANIC, Verdict.PANIC, "FAIL"),
        (RaceEnd.BROKEN, False, Verdict.PASS, Verdict.FAIL, "FAIL"),
        (RaceEnd.HELD, False, Verdict.PASS, Verdict.PASS, "PASS"),
        (RaceEnd.HELD, False, Verdict.TIMEOUT, Verdict.TIMEOUT, "PASS"),
        (RaceEnd.NO_CONTACT, False, Verdict.PASS, Verdict.MISS, "MISS"),
        (RaceEnd.NO_CONTACT, False, Verdict.SKIP, Verdict.SKIP, "MISS"),
        (RaceEnd.NO_CONTACT, True, Verdict.PASS, Verdict.ERROR, "MISS"),
    ],
)
def test_race_is_a_case_of_its_boot(end: RaceEnd, fault: bool, verdict: Verdict, after: Verdict, case: str) -> None:
    judged = race.judge(Judgement(verdict, "", {"one": "PASS"}), Forced("a/b", end, fault=fault))
    assert judged.verdict is after and judged.cases == {"one": "PASS", "b, forced": case}


@pytest.mark.usefixtures("quick")
def test_silence_is_not_held(tmp_path: Path) -> None:
    idle_then = [(0x20, 0, 0), (0x200, LIST, 0x24), (0x100, 0, 0), (0x24, 0, 0)] + WAKER_IDLE * 50
    outcome, guest = force(tmp_path, idle_then)
    assert outcome.end is RaceEnd.NO_CONTACT and guest.released
    assert outcome.why


@pytest.mark.usefixtures("quick")
def test_control_that_does_not_pass_leaves_the_race_unsaid(tmp_path: Path) -> None:
    # It never comes out of the function, wherever the other one stands.
    stuck = [(0x20, 0, 0), (0x200, LIST, 0x24)] + [(0x100, 0, 0)] * 200
    outcome, _ = force(tmp_path, stuck)
    assert (outcome.end, outcome.why) == (RaceEnd.NO_CONTACT, "the control never passed in 3 attempts")


@pytest.mark.usefixtures("quick")
def test_stop_that_names_the_wrong_vcpu(tmp_path: Path) -> None:
    outcome, _ = force(tmp_path, WAKER_BROKEN, "wrong vCPU")
    assert outcome.end is RaceEnd.BROKEN
    assert [seen.cpu for seen in outcome.seen] == [1, 0, 1, 0]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("fault", "why", "is_fault"),
    [
        ("checksum", "a reply with a wrong checksum: ", True),
        ("cut", r"a reply was cut after \w+", False),
        ("dies", r"the stub is gone after \w+", False),
        ("exits", r"the guest ended after \w+", False),
        ("late", "no reply to .* within 1 seconds|takes no step", True),
        ("garbage", "hello", True),
        ("error", ": the stub says E22", True),
    ],
)
def test_bad_stub_is_one_line_and_no_verdict(tmp_path: Path, fault: str, why: str, is_fault: bool) -> None:
    start = time.monotonic()
    outcome, _ = force(tmp_path, WAKER_BROKEN, fault)
    assert outcome.end is RaceEnd.NO_CONTACT and outcome.fault is is_fault
    assert re.search(why, outcome.why) and "\n" not in outcome.why
    assert time.monotonic() - start < 10


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("at", range(1, 120, 7))
@pytest.mark.parametrize("fault", ["cut", "dies", "checksum", "error"])
def test_fault_at_any_packet_ends(tmp_path: Path, fault: str, at: int) -> None:
    outcome, _ = force(tmp_path, WAKER_BROKEN, fault, at)
    # A broken kernel dies, so what was seen before stays.
    assert outcome.end in (RaceEnd.NO_CONTACT, RaceEnd.BROKEN)
    assert bool(outcome.why) is (outcome.end is RaceEnd.NO_CONTACT)


@pytest.mark.usefixtures("quick")
def test_first_place_again_begins_anew(tmp_path: Path) -> None:
    """While nobody is parked no clock bounds an attempt: the one who comes to the first place last counts."""
    rows = [["", "waker()", {"see": "enter waker keep seen = arg0 for 8"}], *TIMELINE["rows"][1:]]  # type: ignore[misc]
    rows[2] = ["insert(new)", "", {"park": "call insert in queuer if arg0 in seen keep new = arg0"}]
    rows.append(["", "back", {"pass": "leave waker"}])
    # Nobody inserts what the first one has.
    waker = [(0x20, 0, 0), (0x200, LIST, 0x24), (0x24, 0, 0), (0x200, NEW, 0x24), *WAKER_BROKEN[2:]]
    outcome, _ = force_rows(tmp_path, rows, [waker, QUEUER])
    assert outcome.end is RaceEnd.BROKEN and [seen.what for seen in outcome.seen][:3] == ["see", "park", "mark"]
    assert outcome.seen[0].seconds == 0


@pytest.mark.usefixtures("quick")
def test_condition_sees_what_its_own_place_keeps(tmp_path: Path) -> None:
    """An object may begin before what an argument points to."""
    park = "enter waker if arg0 in seen and arg0[8] not in seen keep seen = arg0-8 for 16"
    rows = [["", "waker()", {**TIMELINE["rows"][0][2], "park": park}], *TIMELINE["rows"][1:]]  # type: ignore[dict-item]
    outcome, _ = force_rows(tmp_path, rows, [QUEUER, WAKER_BROKEN])
    assert outcome.end is RaceEnd.BROKEN


@pytest.mark.usefixtures("quick")
def test_condition_names_a_number(tmp_path: Path) -> None:
    """What a call is told to do, as in a flag: the guest is asked for no symbol of that name."""
    park = f"enter waker if arg0 is {LIST} and arg0 is not {NEW}"
    rows = [["", "waker()", {**TIMELINE["rows"][0][2], "park": park}], *TIMELINE["rows"][1:]]  # type: ignore[dict-item]
    waker = [(0x20, 0, 0), (0x200, NEW, 0x24), (0x24, 0, 0), *WAKER_BROKEN]
    outcome, _ = force_rows(tmp_path, rows, [QUEUER, waker])
    assert outcome.end is RaceEnd.BROKEN
    script = diagram.script({**TIMELINE, "rows": rows})
    assert script and not any(name.isdigit() for name in script.names())


@pytest.mark.usefixtures("quick")
def test_lane_that_was_seen_comes_back_though_it_is_not_parked(tmp_path: Path) -> None:
    rows = [
        ["", "waker()", {"see": "enter waker"}],
        ["insert(new)", "", {"park": "call insert in queuer", "control": "enter queuer"}],
        ["", "lock()", {"held": "stay lock"}],
        ["", "back", {"mark": "leave waker", "pass": "leave waker"}],
    ]
    outcome, _ = force_rows(tmp_path, rows, [QUEUER, WAKER_BROKEN])
    assert outcome.end is RaceEnd.BROKEN
    assert [(seen.what, seen.where) for seen in outcome.seen][-1] == ("mark", "back from waker")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("boot", [0, 1])
def test_boot_cpu_is_not_the_first_to_be_parked(tmp_path: Path, boot: int) -> None:
    rows = [
        ["", "waker()", {"park": "leave waker"}],
        ["insert(new)", "", {"mark": "enter waker", "pass": "enter waker", "control": "leave waker"}],
        ["insert(new)", "", {"held": "stay lock"}],
    ]
    waker = [(0x100, 0, 0x10), *WAKER_BROKEN]
    outcome, _ = force_rows(tmp_path, rows, [waker, waker], boot=boot)
    assert outcome.end is RaceEnd.BROKEN and outcome.seen[0].cpu == outcome.control[0].cpu == 1 - boot


@pytest.mark.usefixtures("quick")
def test_boot_cpu_that_is_spared_begins_anew(tmp_path: Path) -> None:
    """What it was seen to do is not the beginning of what it does next: of two walks one is the waker's."""
    rows = [
        ["", "waker()", {"see": "enter waker"}],
        ["", "walk()", {"park": "enter walk keep walked = arg0"}],
        ["queuer()", "", {"control": "enter queuer"}],
        ["", "waker()", {"pass": "enter waker"}],
        ["insert()", "", {"mark": "call insert in queuer if arg0 is not walked"}],
        ["lock()", "", {"held": "stay lock"}],
    ]
    waker = [*WAKER_BROKEN, (0x400, NEW, 0x208)]
    outcome, _ = force_rows(tmp_path, rows, [waker, QUEUER])
    assert outcome.end is RaceEnd.BROKEN
    assert [seen.where for seen in outcome.seen] == ["waker+0x0", "walk+0x0", "queuer+0x8"]


@pytest.mark.usefixtures("quick")
def test_only_the_first_place_that_the_kernel_has_counts(tmp_path: Path) -> None:
    """The others are of kernels of another shape, and may be come to in this one as well."""
    rows = [*TIMELINE["rows"]]  # type: ignore[misc]
    park = ["enter gone", "call insert in queuer if arg0 not in the_list keep new = arg0", "enter queuer"]
    rows[2] = ["  insert(new)", "", {"park": park}]
    outcome, _ = force_rows(tmp_path, rows, [QUEUER, [*WAKER_BROKEN, (0x100, 0, 0x28)]])
    assert outcome.end is RaceEnd.BROKEN
    assert [seen.where for seen in outcome.seen] == ["waker+0x0", "queuer+0x8", "walk+0x0", f"{diagram.TICK}+0x0"]


@pytest.mark.usefixtures("quick")
def test_no_stub(tmp_path: Path) -> None:
    running = Race(SCRIPT, REGISTERS, tmp_path / "none")
    running.hear("kmend-symbol: end")
    outcome = running.finish()
    assert outcome.fault and outcome.why == "no GDB stub: No such file or directory"


def test_guest_without_symbols() -> None:
    assert Race(SCRIPT, REGISTERS, Path("none")).finish().why == "the guest printed no symbols"


@pytest.mark.usefixtures("quick")
def test_symbols_of_a_system_map() -> None:
    """A kernel without KALLSYMS_ALL prints no data; where it lies its functions say."""
    script = diagram.scripts("pci-cfg-wait")[0]
    first, second, third = list(script.names())[:3]
    known = {first: (0x1000, 8), second: (0x2000, 16), third: (0x3000, 8), "not_asked_for": (0x4000, 8)}
    running = Race(script, REGISTERS, Path("none"), known)
    running.hear(f"kmend-symbol: ffff1000 8 {first}")
    running.hear(f"kmend-symbol: ffff9000 8 {third}")
    running.hear("kmend-symbol: end")
    running.finish()
    assert running._symbols == {
        first: race.Symbol(0xFFFF1000, 8),
        second: race.Symbol(0xFFFF2000, 16),
        third: race.Symbol(0xFFFF9000, 8),
    }


def test_kernel_without_the_functions(tmp_path: Path) -> None:
    guest = play(tmp_path / "gdb", QUEUER, WAKER_BROKEN)
    running = Race(SCRIPT, REGISTERS, guest.path)
    running.hear(f"kmend-symbol: 100 10 {diagram.TICK}")
    running.hear("kmend-symbol: 200 10 waker")
    running.hear("kmend-symbol: end")
    outcome = running.finish()
    assert outcome.why == "this kernel has none of: enter waker if arg0 is the_list" and not outcome.fault


def test_kernel_without_the_functions_is_booted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever did not come may come the next time; what the kernel has not got it will not get."""
    boots = []

    def boot(words: list[Path], console: Path, limit: float, hear: Callable[[str], None]) -> SimpleNamespace:
        boots.append(words)
        play(words[-1], QUEUER, WAKER_BROKEN)
        hear("kmend-symbol: end")
        console.touch()
        return SimpleNamespace()

    monkeypatch.setattr(race.guest, "boot", boot)
    monkeypatch.setattr(race.guest, "stub_words", lambda path: [path])
    spec = GuestSpec("x86_64", "qemu-system-x86_64", (), 2, 512, Path("bzImage"), ())
    _, forced = race.force(spec, "pci-cfg-wait/unlocked-queue", tmp_path / "console.log")
    assert forced.why == f"this kernel has no {diagram.TICK}" and len(boots) == 1


@pytest.mark.parametrize(
    "text",
    [
        "enter",
        "go somewhere",
        "call insert",
        "enter waker in queuer",
        "enter waker if arg0 likes the_list",
        "enter waker keep nothing",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="no place|no condition|nothing to keep"):
        diagram.place(text)


def test_incomplete_script() -> None:
    rows = [row for row in TIMELINE["rows"] if "held" not in row[2]]  # type: ignore[operator]
    with pytest.raises(ValueError, match="one of held"):
        diagram.script({**TIMELINE, "rows": rows})


def all_scripts() -> Iterator[diagram.Script]:
    for bug in manifest.load().bugs:
        yield from diagram.scripts(bug.id)


def test_scripts_are_of_findings() -> None:
    findings = {finding.id for bug in manifest.load().bugs for finding in bug.findings}
    found = [script.finding for script in all_scripts()]
    assert found and set(found) <= findings and len(set(found)) == len(found)


def test_drawing_knows_which_is_forced() -> None:
    """Of two diagrams of a finding one is the script: what was seen is drawn beside that one."""
    for bug in manifest.load().bugs:
        forced = [line.forced for line in timelines(bug.id)]
        assert forced == [diagram.script(item) is not None for item in diagram.diagrams(bug.id)]
    assert [line.forced for line in timelines("hwsim-del")] == [False, True, False]


def test_place_stands_in_its_row() -> None:
    """The diagram is the script: a reader finds each function where the machine looks for it."""
    for script in all_scripts():
        items = diagram.diagrams(script.finding.split("/")[0])
        rows = next(item["rows"] for item in items if diagram.script(item) == script)
        for step in (*script.steps, *script.then, script.held, script.control, script.passed):
            cell = rows[step.row][step.lane]
            names = {name for place in step.places for name in (*place.functions, *place.callers)}
            objects = {name for place in step.places if place.kind == "write" for name in place.functions}
            assert any(re.search(rf"\b{name}\b", cell) for name in names) or objects == names, (script.finding, cell)


@pytest.mark.parametrize(
    ("arch", "code", "found"),
    [
        ("x86_64", "e8fbffffff", (5, 0)),
        ("x86_64", "e900000000", (5, 5)),
        ("x86_64", "eb00000000", None),
        ("arm64", "ffffff97", (4, -4)),
        ("arm64", "00000014", (4, 0)),
        ("arm64", "00000034", None),
        ("riscv64", "970000 00e7800000".replace(" ", ""), (8, 0)),
        ("riscv64", "97f0ffff e78000f0".replace(" ", ""), (8, -0x1000 - 0x100)),
        ("riscv64", "eff0dfff", (4, -4)),
        ("loongarch64", "fffffF57".lower(), (4, -4)),
    ],
)
def test_calls_are_read_from_machine_code(arch: str, code: str, found: tuple[int, int] | None) -> None:
    registers = arches.load(arch).registers
    assert registers and registers.call(bytes.fromhex(code), 0) == found
