# SPDX-License-Identifier: GPL-2.0-only
"""Reports: which runs make a proof, the exit code of those that do not, and evidence that cannot be trusted."""

import io
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kmendlib.host.errors import BadInput, ExitCode
from kmendlib.host.files import digest
from kmendlib.proof import evidence
from kmendlib.proof.evidence import Evidence
from kmendlib.run import Build, Run, gravest
from kmendlib.show import report

PROOF = "case_that_proves"


def boot(state: str, verdict: str, case: str, **misc: Any) -> dict[str, Any]:
    return {
        "build_id": "kmend:1-x",
        "id": "kmend:1-x-s-1",
        "origin": "kmend",
        "path": "kunit.s",
        "status": {"PANIC": "FAIL", "TIMEOUT": "FAIL"}.get(verdict, verdict),
        "duration": 3.0,
        "log_url": "x/log",
        "log_excerpt": "last words",
        "misc": {
            "bug": "b", "arch": "x", "suite": "s", "kind": "kunit", "state": state, "verdict": verdict,
            "number": 1, "reason": "", "cases": {PROOF: case} if case else {}, "ktap_seconds": 2.0, **misc,
        },
    }  # fmt: skip


def evidence_of(tests: list[dict[str, Any]], boots: int = 1, proof: bool = True, **plan: Any) -> Evidence:
    row = {
        "bug": "b", "arch": "x", "suite": "s", "kind": "kunit", "proof": [PROOF] if proof else [], "boots": boots,
        "not_run": "", **plan,
    }  # fmt: skip
    checkout = {"id": "kmend:1", "origin": "kmend", "comment": "tree", "misc": {"plan": [row]}}
    return Evidence(Path("e"), Run.from_kcidb({"checkouts": [checkout], "builds": [], "tests": tests}))


def code_of(tests: list[dict[str, Any]], **plan: Any) -> ExitCode:
    return evidence_of(tests, **plan).run.exit_code()


RED = boot("before", "FAIL", "FAIL")
GREEN = boot("after", "PASS", "PASS")


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (RED, GREEN, ExitCode.OK),
        # A panic later in the boot does not take the proving case's result back.
        (boot("before", "PANIC", "FAIL"), GREEN, ExitCode.OK),
        (boot("before", "PANIC", ""), GREEN, ExitCode.FAILED),
        (boot("before", "MISS", ""), GREEN, ExitCode.FAILED),
        (boot("before", "PASS", "PASS"), GREEN, ExitCode.FAILED),
        (boot("before", "SKIP", "SKIP"), GREEN, ExitCode.FAILED),
        # Another case's failure is not the proof.
        (boot("before", "FAIL", "PASS"), GREEN, ExitCode.FAILED),
        (RED, boot("after", "FAIL", "PASS"), ExitCode.FAILED),
        (RED, boot("after", "PASS", "SKIP"), ExitCode.FAILED),
        (RED, boot("after", "PASS", ""), ExitCode.FAILED),
        (RED, boot("after", "MISS", "PASS"), ExitCode.FAILED),
        (RED, boot("after", "SKIP", "SKIP"), ExitCode.NOTHING),
        (RED, boot("after", "PANIC", "PASS"), ExitCode.PANIC),
        (RED, boot("after", "TIMEOUT", "PASS"), ExitCode.TIMEOUT),
        (RED, boot("after", "ERROR", ""), ExitCode.INFRASTRUCTURE),
    ],
)
def test_proof_needs_red_before_and_green_after(before: dict[str, Any], after: dict[str, Any], code: ExitCode) -> None:
    assert code_of([before, after]) == code


def test_gravest_of_two() -> None:
    order = "USAGE PANIC TIMEOUT INFRASTRUCTURE FAILED NOTHING OK".split()
    for one, two in itertools.combinations([ExitCode[name] for name in order], 2):
        assert gravest([two, one]) is gravest([one, two]) is one


def test_missing_boot_is_no_proof() -> None:
    assert code_of([RED]) == ExitCode.FAILED
    assert code_of([GREEN]) == ExitCode.FAILED
    assert code_of([RED, GREEN], boots=2) == ExitCode.FAILED
    assert code_of([]) == ExitCode.FAILED


@pytest.mark.parametrize(
    ("before", "hit", "code"),
    [
        ("PASS", False, ExitCode.OK),
        ("PANIC", True, ExitCode.OK),
        ("FAIL", True, ExitCode.OK),
        ("MISS", False, ExitCode.FAILED),
    ],
)
def test_suite_without_proof_needs_a_result_before(before: str, hit: bool, code: ExitCode) -> None:
    run = evidence_of([boot("before", before, ""), boot("after", "PASS", "")], proof=False).run
    assert (run.results[0].red, run.exit_code()) == (hit, code)


@pytest.mark.parametrize(
    ("tests", "code", "shown"),
    [
        ([GREEN], ExitCode.OK, "PASS"),
        ([boot("after", "SKIP", "SKIP", reason="no module")], ExitCode.OK, "SKIP"),
        ([boot("after", "FAIL", "FAIL")], ExitCode.FAILED, "NOT PROVED"),
        ([boot("after", "PANIC", "")], ExitCode.PANIC, "NOT PROVED"),
        ([], ExitCode.FAILED, "NOT PROVED"),
    ],
)
def test_control_has_no_before(tests: list[dict[str, Any]], code: ExitCode, shown: str) -> None:
    found = evidence_of(tests, proof=False, control=True)
    assert found.run.exit_code() == code
    assert shown in text(found) and "PROVED" not in text(found).replace("NOT PROVED", "")
    (proof,) = found.run.proofs
    assert not proof.proved or shown == "PASS"


def disputed(status: str, tests: list[dict[str, Any]], boots: int = 1) -> Evidence:
    claims = [{"finding": "b/f", "status": status, "cases": [PROOF]}]
    return evidence_of(tests, boots=boots, claims=claims)


NOT_RED = boot("before", "PASS", "PASS")


@pytest.mark.parametrize(
    ("status", "tests", "shown", "code"),
    [
        ("affected", [NOT_RED, GREEN], "DISPUTED", ExitCode.FAILED),
        ("affected", [RED, GREEN], "PROVED", ExitCode.OK),
        # Red once is enough to be there; and no result says nothing.
        ("affected", [NOT_RED, RED, GREEN, GREEN], "NOT PROVED", ExitCode.FAILED),
        ("affected", [boot("before", "MISS", ""), GREEN], "NOT PROVED", ExitCode.FAILED),
        ("affected", [boot("before", "SKIP", "SKIP"), GREEN], "NOT PROVED", ExitCode.FAILED),
        # It was mended and is red: the fix is at fault, not the audit.
        ("affected", [RED, boot("after", "FAIL", "FAIL")], "NOT PROVED", ExitCode.FAILED),
        ("fixed", [RED, boot("after", "FAIL", "FAIL")], "DISPUTED", ExitCode.FAILED),
        ("fixed", [RED, boot("after", "PANIC", "FAIL")], "DISPUTED", ExitCode.FAILED),
        ("fixed", [RED, RED, GREEN, boot("after", "FAIL", "FAIL")], "DISPUTED", ExitCode.FAILED),
        ("fixed", [RED, boot("after", "PANIC", "")], "NOT PROVED", ExitCode.PANIC),
        # Another case is not about the finding, and the patch that puts it back may do nothing.
        ("fixed", [RED, boot("after", "FAIL", "PASS")], "NOT PROVED", ExitCode.FAILED),
        ("fixed", [NOT_RED, GREEN], "NOT PROVED", ExitCode.FAILED),
        ("latent", [NOT_RED, GREEN], "NOT PROVED", ExitCode.FAILED),
        ("", [NOT_RED, GREEN], "NOT PROVED", ExitCode.FAILED),
    ],
)
def test_audit_and_boots_that_contradict_each_other(
    status: str, tests: list[dict[str, Any]], shown: str, code: ExitCode
) -> None:
    found = disputed(status, tests, boots=len(tests) // 2)
    (proof,) = found.run.proofs
    assert (proof.outcome, found.run.exit_code()) == (shown, code)
    assert ("one of the two is wrong" in text(found)) == (shown == "DISPUTED")


def test_one_failure_of_many_boots_counts() -> None:
    tests = [RED] * 3 + [GREEN] * 2 + [boot("after", "FAIL", "FAIL")]
    assert code_of(tests, boots=3) == ExitCode.FAILED


def test_nothing_run() -> None:
    assert code_of([], not_run="needs riscv64") == ExitCode.NOTHING


def test_kernel_that_did_not_build() -> None:
    broken = evidence_of([RED])
    broken.run = replace(broken.run, builds=(Build("kmend:1-x-after", "x", error="a.c:1: error: no"),))
    assert broken.run.exit_code() == ExitCode.INFRASTRUCTURE
    assert "a.c:1: error: no" in text(broken)


def text(found: Evidence) -> str:
    out = io.StringIO()
    report.print_report(found, Console(file=out, width=120))
    return out.getvalue()


def test_table_counts_and_names_what_is_wrong() -> None:
    shown = text(evidence_of([RED, RED, GREEN, boot("after", "FAIL", "FAIL", reason="not ok: x")], boots=2))
    assert "red 2/2" in shown and "green 1/2 2.0s (FAIL)" in shown and "NOT PROVED" in shown
    assert "not ok: x" in shown and "last words" in shown


def test_console_output_is_no_markup() -> None:
    hostile = boot("after", "FAIL", "FAIL", reason="[red]x[/red] [/nothing]")
    assert "[red]x[/red] [/nothing]" in text(evidence_of([RED, hostile]))


def test_evidence_reads_back(tmp_path: Path) -> None:
    kept = evidence_of([RED, GREEN])
    kept.folder = tmp_path
    kept.add_audit({"tree": "tree", "version": None, "bugs": []}, tmp_path)
    (tmp_path / "x").mkdir()
    results = []
    for result in kept.run.results:
        build, log = kept.run.build_id("x", result.state), Path("x", f"{result.state}.log")
        (tmp_path / log).touch()
        kept.add(Build(build, "x"))
        results.append(replace(result, build=build, ending=replace(result.ending, console=log)))
    kept.update(results=tuple(results))
    kept.seal()
    again = Evidence.open(tmp_path).run
    assert again.exit_code() == ExitCode.OK and again.to_kcidb() == kept.run.to_kcidb()


def test_unknown_verdict_is_damage(tmp_path: Path) -> None:
    kept = evidence_of([RED, GREEN])
    kept.folder = tmp_path
    kept.write()
    path = tmp_path / evidence.RESULTS
    path.write_text(
        path.read_text(encoding="utf-8").replace('"verdict": "PASS"', '"verdict": "GREAT"'), encoding="utf-8"
    )
    with pytest.raises(BadInput, match="damaged"):
        Evidence.open(tmp_path)


def test_evidence_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep", encoding="utf-8")
    with pytest.raises(BadInput, match="not empty"):
        evidence.new_folder(tmp_path)


def consoles(folder: Path, **printed: str) -> Run:
    """Leave evidence of boots of loads by the console that each left: ``after1`` is the first boot of after."""
    (folder / "x").mkdir(parents=True)
    tests = []
    for name, text in printed.items():
        state, number = name[:-1], int(name[-1])
        log = f"x/{name}.log"
        (folder / log).write_text(text, encoding="utf-8")
        test = boot(state, "PASS", "PASS", number=number, inputs=name, printed=digest(folder / log))
        tests.append(test | {"log_url": log, "start_time": "2026-01-02T03:04:05+00:00", "id": f"kmend:1-x-{name}"})
    kept = Evidence(folder, evidence_of(tests, boots=2).run)
    kept.write()
    return kept.run


def test_consoles_are_held_against_those_of_an_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what was booted, not by its name; what was not booted before is nothing to compare with."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert evidence.compare(tmp_path / "runs/0", consoles(tmp_path / "runs/0", after1="1\n2\n")) == ()
    (tmp_path / "runs/junk").mkdir()
    (tmp_path / "runs/junk/results.json").write_text('{"tests": [{"misc": 3}, 4]}', encoding="utf-8")
    same = evidence.compare(tmp_path / "runs/1", consoles(tmp_path / "runs/1", after1="1\n2\n", after2="x\n"))
    assert same == (
        "consoles that are the same, byte for byte, as on 2026-01-02T03:04:05+00:00: 1 of 1 that were booted before",
    )
    first, second, total = evidence.compare(
        tmp_path / "runs/2", consoles(tmp_path / "runs/2", before1="b\n", after1="1\n3\n", after2="x\ny\n")
    )
    assert first.startswith("x/after1.log: not as on 2026-01-02T03:04:05+00:00: line 2 is '3', and was '2' (")
    assert second.startswith("x/after2.log: not as on") and "line 2 is 'y', and was 'the end'" in second
    assert total.endswith(": 0 of 2 that were booted before")


@pytest.mark.parametrize(
    "last", ["[    1.000000] reboot: Power down\r\n", "[    1.000000] Kernel panic - not syncing: why\n"]
)
def test_console_counts_up_to_the_last_word(last: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"1\n" + last.encode() + b"[    1.000001] WARNING: a CPU that is still")
    assert evidence.said(log) == b"1\n" + last.encode()
    log.write_bytes(b"1\n2")
    assert evidence.said(log) == b"1\n2"


def test_what_a_run_says_of_its_consoles_is_shown(tmp_path: Path) -> None:
    run = replace(evidence_of([RED, GREEN]).run, same=("consoles that are the same",))
    assert Run.from_kcidb(run.to_kcidb()).same == run.same
    out = io.StringIO()
    report.print_report(Evidence(tmp_path, run), Console(file=out, width=100))
    assert "\nconsoles that are the same\n" in out.getvalue()


def test_seeds_that_were_red_are_named(tmp_path: Path) -> None:
    """Where luck decides, the same seed shows it again."""
    results = [
        boot("before", verdict, "", number=number, command=f"qemu -seed {40 + number} -smp 2")
        for number, verdict in enumerate(("PASS", "PANIC", "FAIL"), 1)
    ]
    good = [boot("after", "PASS", "", number=number) for number in (1, 2, 3)]
    (proof,) = evidence_of([*results, *good], boots=3, proof=False).run.proofs
    assert report.counts(proof)[0] == "hit 2/3 2.0s,\nseeds 42, 43"
