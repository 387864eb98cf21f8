# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts on consoles that were captured from real guests, named after what happened in them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import parser_tree
from kmendlib.host.errors import Infrastructure
from kmendlib.host.words import Verdict
from kmendlib.proof import ktap
from kmendlib.run import Claim, End, Ending, Row

LOGS = Path(__file__).with_name("logs")
SUITE = "pci_cfg_wait"
SELFTEST = "pci:cfg_reset"
PROOF = "pci_cfg_wait_test_queue_still_while_locked"

FIRMWARE = "qemu-system-x86_64: could not load PC BIOS '/no/such/firmware.bin'"

CASES = [
    # log, suite, how the boot ended, QEMU's exit code, verdict, part of the reason
    ("kunit_pass", SUITE, End.EXIT, 0, Verdict.PASS, ""),
    ("kunit_fail", SUITE, End.EXIT, 0, Verdict.FAIL, f"not ok: {PROOF}"),
    # "clocksource: Switched to clocksource tsc" stands between "KTAP version 1" and "# Subtest".
    ("kunit_kernel_line_in_header", SUITE, End.EXIT, 0, Verdict.FAIL, f"not ok: {PROOF}"),
    ("kunit_oops", SUITE, End.EXIT, 0, Verdict.PANIC, "BUG: unable to handle page fault"),
    ("kunit_one_cpu_skips_the_proof", SUITE, End.EXIT, 0, Verdict.PASS, ""),
    ("kunit_all_skipped", SUITE, End.EXIT, 0, Verdict.SKIP, "needs two CPUs online"),
    ("kunit_cut_off", SUITE, End.EXIT, 0, Verdict.MISS, "incomplete"),
    ("kunit_cut_off", SUITE, End.TIMEOUT, None, Verdict.TIMEOUT, "time limit reached"),
    ("kunit_no_tests", SUITE, End.EXIT, 0, Verdict.MISS, f"no results of '{SUITE}'"),
    ("kunit_no_power_off", SUITE, End.SILENT, None, Verdict.TIMEOUT, "no output any more"),
    ("kunit_warning_after_power_off", SUITE, End.EXIT, 0, Verdict.PASS, ""),
    # Of the small KUnit.
    ("compat_skips", "nfsd_cb_shutdown", End.EXIT, 0, Verdict.FAIL, "not ok: nfsd_cb_shutdown_test_waits_for_release"),
    ("kselftest_pass", SELFTEST, End.EXIT, 0, Verdict.PASS, ""),
    ("kselftest_skip", SELFTEST, End.EXIT, 0, Verdict.SKIP, "reset"),
    ("kselftest_killed", SELFTEST, End.EXIT, 0, Verdict.FAIL, "not ok: "),
    ("kselftest_hang", SELFTEST, End.EXIT, 0, Verdict.FAIL, "not ok: no reader or resetter hangs"),
    ("kselftest_missing_program", "pci:no_such_test", End.EXIT, 0, Verdict.FAIL, "not ok: "),
    ("kselftest_oops", SELFTEST, End.EXIT, 0, Verdict.PANIC, "BUG: |Oops|Kernel panic"),
    ("kselftest_panic", SELFTEST, End.EXIT, 0, Verdict.PANIC, "BUG: |Oops|Kernel panic"),
    ("kselftest_dies_as_reported", "ieee802154:hwsim_del", End.EXIT, 0, Verdict.PANIC, "Unable to handle kernel"),
    ("kselftest_no_init", SELFTEST, End.EXIT, 0, Verdict.PANIC, "Kernel panic"),
    ("lockdep_splat", SELFTEST, End.EXIT, 0, Verdict.FAIL, "not ok: kernel log stays clean"),
    ("list_corruption", SELFTEST, End.EXIT, 0, Verdict.FAIL, "not ok: kernel log stays clean"),
    ("console_flood", SELFTEST, End.FLOOD, None, Verdict.MISS, "flooded"),
    ("empty", SUITE, End.EXIT, 0, Verdict.MISS, "without a word"),
    ("empty", SUITE, End.EXIT, 1, Verdict.ERROR, f"^QEMU ended with code 1: {FIRMWARE}$"),
    ("empty", SUITE, End.SILENT, None, Verdict.TIMEOUT, "nothing printed at all"),
    # The same console is judged by how the boot ended, too.
    ("kunit_pass", SUITE, End.TIMEOUT, None, Verdict.TIMEOUT, "time limit"),
    ("kunit_pass", SUITE, End.EXIT, 1, Verdict.ERROR, f"^all cases ok, but QEMU ended with code 1: {FIRMWARE}$"),
    ("kunit_pass", "nfsd_cb_shutdown", End.EXIT, 0, Verdict.MISS, "no results of 'nfsd_cb_shutdown'"),
]


@pytest.fixture(scope="module")
def parse() -> ktap.Parser:
    return ktap.parser_for(parser_tree())


def boot(console: Path, end: End, code: int | None) -> Ending:
    stderr = FIRMWARE if code else ""
    return Ending(end, console, 3.0, None, "qemu", stderr, code)


@pytest.mark.parametrize(("log", "suite", "end", "code", "verdict", "reason"), CASES)
def test_verdict(
    log: str, suite: str, end: End, code: int | None, verdict: Verdict, reason: str, parse: ktap.Parser
) -> None:
    result = ktap.judge(boot(LOGS / f"{log}.log", end, code), suite, parse)
    assert (result.verdict, bool(result.reason)) == (verdict, bool(reason)), result
    assert re.search(reason, result.reason), result.reason


def test_every_log_is_used() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == {case[0] for case in CASES}


def test_cases_are_told_one_by_one(parse: ktap.Parser) -> None:
    cases = ktap.judge(boot(LOGS / "kunit_fail.log", End.EXIT, 0), SUITE, parse).cases
    assert cases == {PROOF: "FAIL", "pci_cfg_wait_test_waiter_stays_while_locked": "FAIL"}
    cases = ktap.judge(boot(LOGS / "kunit_oops.log", End.EXIT, 0), SUITE, parse).cases
    assert cases[PROOF] == "FAIL" and "MISS" in cases.values()
    cases = ktap.judge(boot(LOGS / "kunit_one_cpu_skips_the_proof.log", End.EXIT, 0), SUITE, parse).cases
    assert cases[PROOF] == "SKIP"


def test_guest_that_dies_as_reported_shows_the_bug(tmp_path: Path, parse: ktap.Parser) -> None:
    """What it printed before counts as it is; a suite's guest, or another death, says nothing of what did not end."""
    idle, scan = "an idle radio goes", "a radio goes in the midst of a scan"
    row = Row("hwsim-del", "riscv64", "", "kselftest", (Claim("hwsim-del/early-free", "affected", (idle, scan)),))
    text = (LOGS / "kselftest_dies_as_reported.log").read_text(encoding="utf-8")

    def cases(row: Row, text: str) -> list[str | None]:
        (tmp_path / "x.log").write_text(text, encoding="utf-8")
        judged = ktap.judge_row(boot(tmp_path / "x.log", End.EXIT, 0), row, "ieee802154:hwsim_del", parse)
        return [judged.cases.get(idle), judged.cases.get(scan)]

    assert cases(row, text) == ["PASS", "FAIL"]
    assert cases(replace(row, kind="kunit"), text) == ["PASS", None]
    assert cases(row, text.replace("kvfree_rcu_bulk", "elsewhere")) == ["PASS", None]
    # Without a panic the plan that was not met is what is wrong.
    alive = [line for line in text.splitlines() if not re.search("panic|Oops|Unable to handle", line)]
    assert cases(row, "\n".join(["BUG: ", *alive])) == ["PASS", None]


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.99])
def test_no_part_of_a_pass_is_a_pass(keep: float, tmp_path: Path, parse: ktap.Parser) -> None:
    """Cut a passing log anywhere before its last result: whatever QEMU returned, it is no pass."""
    lines = (LOGS / "kunit_pass.log").read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if line.startswith(b"ok "))
    (tmp_path / "cut.log").write_bytes(b"".join(lines[: int(last * keep)]))
    assert ktap.judge(boot(tmp_path / "cut.log", End.EXIT, 0), SUITE, parse).verdict is Verdict.MISS


def test_splat_beside_passing_cases_is_a_failure(tmp_path: Path, parse: ktap.Parser) -> None:
    """A suite whose cases all pass while lockdep complains has not passed."""
    splat = [
        line
        for line in (LOGS / "lockdep_splat.log").read_text(encoding="utf-8").splitlines()
        if "possible circular" in line
    ][0]
    text = (LOGS / "kunit_pass.log").read_text(errors="replace", encoding="utf-8")
    (tmp_path / "splat.log").write_text(text.replace("    ok 1 ", f"{splat}\n    ok 1 ", 1), encoding="utf-8")
    result = ktap.judge(boot(tmp_path / "splat.log", End.EXIT, 0), SUITE, parse)
    assert result.verdict is Verdict.FAIL and "the kernel complained: WARNING: possible circular" in result.reason


def test_suite_in_a_module_comes_second(tmp_path: Path, parse: ktap.Parser) -> None:
    """The kernel's own KTAP document, with no suite in it, does not hide the one that a module's loading prints."""
    text = (LOGS / "kunit_pass.log").read_text(errors="replace", encoding="utf-8")
    (tmp_path / "x.log").write_text("KTAP version 1\n1..0\n" + text, encoding="utf-8")
    assert ktap.judge(boot(tmp_path / "x.log", End.EXIT, 0), SUITE, parse).verdict is Verdict.PASS
    (tmp_path / "x.log").write_text("KTAP version 1\n1..0\n", encoding="utf-8")
    assert ktap.judge(boot(tmp_path / "x.log", End.EXIT, 0), SUITE, parse).verdict is Verdict.MISS


def test_garbage_is_no_result(tmp_path: Path, parse: ktap.Parser) -> None:
    (tmp_path / "x.log").write_bytes(bytes(range(256)) * 64 + b"\nok 1 pci_cfg_wait\n")
    assert ktap.judge(boot(tmp_path / "x.log", End.EXIT, 0), SUITE, parse).verdict is Verdict.MISS


def test_plan_with_a_number_too_many_is_no_pass(tmp_path: Path, parse: ktap.Parser) -> None:
    text = (LOGS / "kunit_pass.log").read_text(errors="replace", encoding="utf-8")
    plan = next(line for line in text.splitlines() if line.startswith("    1.."))
    more = f"    1..{int(plan.split('..')[1]) + 1}"
    (tmp_path / "more.log").write_text(text.replace(plan, more, 1), encoding="utf-8")
    assert ktap.judge(boot(tmp_path / "more.log", End.EXIT, 0), SUITE, parse).verdict is Verdict.MISS


def test_control_characters_do_not_reach_the_report(tmp_path: Path, parse: ktap.Parser) -> None:
    (tmp_path / "x.log").write_bytes(b"\x1b[2J\x07hello \xff\xfe\n")
    assert "\x1b" not in "".join(ktap.judge(boot(tmp_path / "x.log", End.EXIT, 0), SUITE, parse).tail)


def test_tree_without_parser(tmp_path: Path) -> None:
    with pytest.raises(Infrastructure, match="^no tools/testing/kunit/kunit_parser.py that can be used in "):
        ktap.parser_for(tmp_path)


def test_why_the_guest_gave_up(tmp_path: Path) -> None:
    """As on a kernel that takes no module without a signature."""
    console = tmp_path / "log"
    console.write_text(
        "Freeing memory\nkmend-init: errno 129 from module sunrpc.ko\nreboot: Power down\n", encoding="utf-8"
    )
    judged = ktap.judge(Ending(End.EXIT, console, 1.0, code=0), "nfsd:cb_shutdown", lambda lines: Nothing())
    assert judged.verdict is Verdict.MISS
    assert judged.reason.endswith("console log: kmend-init: errno 129 from module sunrpc.ko")


class Nothing:
    """What the parser finds where nothing is."""

    subtests: tuple[()] = ()
