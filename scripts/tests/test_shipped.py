# SPDX-License-Identifier: GPL-2.0-only
"""What is booted of a kernel that somebody else built, and what its boots say of each finding."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import kernels
from kmendlib.host.errors import ExitCode
from kmendlib.host.progress import Display
from kmendlib.host.words import Has, Verdict
from kmendlib.proof import shipped
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.jobs import Jobs
from kmendlib.proof.verify import Bench
from kmendlib.run import SHIPPED, BootResult, Claim, Ending, Forced, Judgement, Proof, RaceEnd, Row, Run, race_case
from kmendlib.tree import arches, manifest, package, source
from kmendlib.tree.config import Config
from kmendlib.tree.package import Shipped

MANIFEST = manifest.load()
ALL = frozenset(option for bug in MANIFEST.bugs for option in bug.options)
RACE = "pci-cfg-wait/unlocked-queue"


def kernel_of(
    tmp_path: Path, arch: str = "x86_64", options: frozenset[str] | None = ALL, kvm: str | None = ""
) -> Shipped:
    """Return a kernel with some options, and with a module kvm that holds a symbol, if it has one."""
    modules = {}
    if kvm is not None:
        (tmp_path / "kvm.ko").write_bytes(kernels.module("kvm", holds=kvm))
        modules["kvm"] = tmp_path / "kvm.ko"
    config = None if options is None else Config("config", options)
    image = tmp_path / "image"
    return Shipped("6.12.99-lab", "lab", "", image, modules=modules, arch=arch, config=config, scratch=tmp_path)


def statuses(kernel: Shipped) -> dict[str, str]:
    """Return what is known of each bug before anything is booted."""
    return {bug.id: shipped.absent(bug, kernel)[0] for bug in MANIFEST.bugs}


def test_what_a_kernel_lacks(tmp_path: Path) -> None:
    nowhere = {"riscv-kvm-exit": "not-applicable", "kvm-shadow": "not-applicable"}
    assert statuses(kernel_of(tmp_path)) == {bug.id: "" for bug in MANIFEST.bugs} | nowhere
    assert statuses(kernel_of(tmp_path, "riscv64"))["riscv-kvm-exit"] == ""
    assert statuses(kernel_of(tmp_path, options=ALL - {"CONFIG_NFSD_V4"}))["nfsd-cb-shutdown"] == "not built"
    for name in MANIFEST.bug("kvm-shadow").symbols:
        assert statuses(kernel_of(tmp_path, kvm=name))["kvm-shadow"] == ""


def test_without_a_configuration_nothing_is_said_to_be_left_out(tmp_path: Path) -> None:
    assert "not built" not in statuses(kernel_of(tmp_path, options=None)).values()


def test_symbols_that_only_the_guest_can_tell(tmp_path: Path) -> None:
    """KVM is built in, and there is no System.map: the guest is asked, on an architecture without the test as well."""
    for arch in ("arm64", "loongarch64"):
        kernel = kernel_of(tmp_path, arch, kvm=None)
        rows = [row for row, test in shipped.plan(kernel, MANIFEST.select(["kvm-shadow"]), 1) if test]
        assert [claim.finding for row in rows for claim in row.claims if claim.status] == [
            finding.id for finding in MANIFEST.bug("kvm-shadow").findings
        ]
        assert not [row for row in rows if row.race]
    known = replace(kernel_of(tmp_path, "arm64", kvm=None), addresses={"_text": (0, 0)})
    assert statuses(known)["kvm-shadow"] == "not-applicable"


def test_each_finding_has_a_row(tmp_path: Path) -> None:
    for arch in ("x86_64", "riscv64"):
        rows = [row for row, _ in shipped.plan(kernel_of(tmp_path, arch), MANIFEST.bugs, 1)]
        assert {claim.finding for row in rows for claim in row.claims} == {
            finding.id for bug in MANIFEST.bugs for finding in bug.findings
        }
        assert len({row.key for row in rows}) == len(rows)


def test_a_forced_boot_is_asked_for_its_race_alone(tmp_path: Path) -> None:
    """While a vCPU is parked a load may look as if it hung."""
    rows = [row for row, test in shipped.plan(kernel_of(tmp_path), MANIFEST.bugs, 1) if test]
    assert [row for row in rows if row.race]
    for row in rows:
        cases = {case for claim in row.claims for case in claim.cases}
        assert not row.race or cases == {race_case(row.race)}


def test_what_is_not_forced_takes_as_long_as_in_verify_on_a_clock_of_its_own(tmp_path: Path) -> None:
    """A test that waits for what RCU frees passes if it waits for too short a time."""
    programs = tmp_path / "programs"
    programs.touch()
    kernel, arch = kernel_of(tmp_path, kvm=None), arches.load("x86_64")
    for row, test in shipped.plan(kernel, MANIFEST.bugs, 1):
        if test:
            spec = shipped.spec_of(kernel, arch, row, test, MANIFEST.bug(row.bug), programs)
            assert spec.timed == (None if row.race else arch.timed)
            assert row.race or f"kmend.seconds={test.seconds}" in spec.words


def test_symbols_of_a_console() -> None:
    assert shipped._symbols("") is None and shipped._symbols("kmend-symbol: end\n") == []
    assert shipped._symbols("kmend-symbol: ffff0 20 a_name\nkmend-symbol: end\n") == ["a_name"]
    assert shipped._symbols("kmend-symbol: ffff0 20 a_name\n") is None


CASES = ("one", "two")
PLAIN, LUCK, ABSENT = Claim("a/x", "", CASES), Claim("a/x", "", CASES, luck=True), Claim("a/x", "not-applicable", CASES)


def result(
    row: Row, number: int, verdict: Verdict, cases: Mapping[str, str], forced: Forced | None = None
) -> BootResult:
    """Return what came of a boot."""
    ending, judged = Ending(None, Path("log"), 9.0), Judgement(verdict, "why", cases)
    return BootResult(row, SHIPPED, number, ending, judged, "id", "", forced)


def has(claim: Claim, *boots: tuple[Verdict, str], planned: int | None = None) -> Has:
    """Return what boots say of a claim; each by its verdict and its cases' results, by their first letters."""
    row = Row("a", "arm64", "a:b", "kselftest", (claim,), len(boots) if planned is None else planned, shipped=True)
    words = {"P": "PASS", "F": "FAIL", "S": "SKIP", "M": "MISS"}
    results = tuple(
        result(row, number, verdict, {case: words[letter] for case, letter in zip(CASES, letters, strict=False)})
        for number, (verdict, letters) in enumerate(boots, 1)
    )
    return Proof(row, results).found[0].has


GOOD, BAD = (Verdict.PASS, "PP"), (Verdict.FAIL, "FF")


@pytest.mark.parametrize(
    "claim, boots, word",
    [
        (PLAIN, [GOOD], Has.FREE),
        (PLAIN, [GOOD, GOOD], Has.FREE),
        (PLAIN, [BAD], Has.HAS),
        (PLAIN, [GOOD, BAD], Has.HAS),
        (PLAIN, [GOOD, (Verdict.PANIC, "")], Has.CANNOT_TELL),
        (PLAIN, [(Verdict.PANIC, "FF")], Has.HAS),
        (PLAIN, [(Verdict.FAIL, "FP")], Has.CANNOT_TELL),
        (PLAIN, [(Verdict.PASS, "SP")], Has.CANNOT_TELL),
        (PLAIN, [(Verdict.SKIP, "SS")], Has.CANNOT_TELL),
        (PLAIN, [(Verdict.MISS, "")], Has.CANNOT_TELL),
        (PLAIN, [(Verdict.TIMEOUT, "P")], Has.CANNOT_TELL),
        # What luck decides: a hit is one, a pass is nothing.
        (LUCK, [BAD], Has.HAS),
        (LUCK, [GOOD], Has.CANNOT_TELL),
        (LUCK, [GOOD, GOOD], Has.CANNOT_TELL),
        # A symbol that is not there, one that is, and a guest that could not say.
        (ABSENT, [GOOD], Has.NOT_IN),
        (ABSENT, [(Verdict.SKIP, "PP")], Has.NOT_IN),
        (ABSENT, [(Verdict.SKIP, "FF")], Has.CANNOT_TELL),
        (ABSENT, [(Verdict.MISS, "")], Has.CANNOT_TELL),
    ],
)
def test_what_boots_say(claim: Claim, boots: list[tuple[Verdict, str]], word: Has) -> None:
    assert has(claim, *boots) == word


def test_a_boot_that_was_not_run_decides_nothing() -> None:
    assert has(PLAIN, GOOD, planned=2) == Has.CANNOT_TELL
    assert has(PLAIN, BAD, planned=2) == Has.HAS


@pytest.mark.parametrize(
    "end, word", [(RaceEnd.HELD, Has.FREE), (RaceEnd.BROKEN, Has.HAS), (RaceEnd.NO_CONTACT, Has.CANNOT_TELL)]
)
def test_a_race(end: RaceEnd, word: Has) -> None:
    case = race_case(RACE)
    claims = (Claim(RACE, "", (case,)),)
    row = Row("pci-cfg-wait", "arm64", "pci:cfg_reset", "kselftest", claims, race=RACE, shipped=True)
    said = {RaceEnd.HELD: "PASS", RaceEnd.BROKEN: "FAIL", RaceEnd.NO_CONTACT: "MISS"}[end]
    forced = Forced(RACE, end, reported=end is RaceEnd.BROKEN)
    (found,) = Proof(row, (result(row, 1, Verdict.PASS, {case: said}, forced),)).found
    assert found.has == word
    assert found.why.startswith(f"race {end} 1/1") == (word != Has.CANNOT_TELL)
    assert ("as reported" in found.why) == (end is RaceEnd.BROKEN)


def test_what_one_test_decides_outweighs_what_another_cannot() -> None:
    rows = tuple(Row("a", "arm64", name, "kselftest", (PLAIN,), shipped=True) for name in ("a:first", "a:second"))
    run = Run("kmend:1", "lab", rows, shipped={"release": "6"})
    for verdicts, word, code in (
        (((Verdict.SKIP, "SKIP"), (Verdict.PASS, "PASS")), Has.FREE, ExitCode.OK),
        (((Verdict.FAIL, "FAIL"), (Verdict.PASS, "PASS")), Has.HAS, ExitCode.FAILED),
        (((Verdict.SKIP, "SKIP"), (Verdict.MISS, "MISS")), Has.CANNOT_TELL, ExitCode.NOTHING),
    ):
        both = zip(rows, verdicts, strict=True)
        results = tuple(result(row, 1, verdict, dict.fromkeys(CASES, said)) for row, (verdict, said) in both)
        done = replace(run, results=results)
        assert [found.has for found in done.found] == [word] and done.exit_code() == code
        assert Run.from_kcidb(done.to_kcidb()).found == done.found
    assert replace(done, distrust="edited").exit_code() == ExitCode.USAGE


@pytest.mark.skipif(not shutil.which("bsdtar"), reason="no bsdtar: install libarchive-tools")
def test_no_room_to_unpack(tmp_path: Path) -> None:
    """The error names the folder that has no room."""
    path = kernels.deb(tmp_path / "a.deb", kernels.archive(kernels.files()))
    request = shipped.Request((), tuple(package.find([path], None, False)), ())
    none = Evidence(tmp_path, Run("", "", ()))
    bench = Bench(source.Workspace("", tmp_path), tmp_path, list, none, Jobs(1), Display())
    trial = shipped.Trial(bench, request, tmp_path / "out", tmp_path)
    # The limit of a process of its own stands for a full disk.
    if not (pid := os.fork()):
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            trial.kernel(0, request.given[0])
        except OSError as error:
            os._exit(0 if error.filename == str(tmp_path / "0") else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
