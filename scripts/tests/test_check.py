# SPDX-License-Identifier: GPL-2.0-only
"""The project's own counting: a proof that is not there and a test that did not run are failures, unless listed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest

from conftest import planned
from kmendlib import check
from kmendlib.host.errors import ExitCode, Infrastructure
from kmendlib.host.words import Verdict
from kmendlib.tree import arches, bases, manifest, source

WANTED = check.expected()
BUGS = manifest.load().bugs
LISTS = {key: check.wanted_rows(WANTED, key) for key in ("proved", "control", "not_run")}


def proof_of(row: Any, outcome: str) -> Any:
    """What came of a row: one boot a state."""
    return SimpleNamespace(row=row, outcome=outcome, results=[None] * len(row.states))


def run() -> list[Any]:
    """Return a run that is as it must be."""
    found = []
    for row in planned(BUGS, arches.names()).rows:
        word = "not run" if row.not_run else "SKIP" if row.control else "PROVED" if row.proof else "PASS"
        found.append(proof_of(row, word))
    return found


def place(proof: Any) -> tuple[str, str, str]:
    return proof.row.bug, proof.row.suite, proof.row.arch


def test_run_that_is_as_it_must_be() -> None:
    """Each row of the manifest is in the list, and each of the list in the manifest: else one of them has lost it."""
    count = check.count_rows(run(), WANTED, BUGS)
    assert count.failed == []
    assert count.passed == len(LISTS["proved"])
    assert len(count.skipped) == len(LISTS["control"]) + len(LISTS["not_run"])
    assert {place(proof) for proof in run()} == {each for rows in LISTS.values() for each in rows}


def test_readme_names_the_boots() -> None:
    for page in ("README.md", "Documentation/translations/zh_CN/README.md"):
        assert f" {WANTED['boots']} " in (manifest.REPO / page).read_text(encoding="utf-8"), page


def test_every_finding_is_proved() -> None:
    """On each architecture that can show its bug, by the suite and, where that is listed, by the kselftest."""
    proved = {(finding, arch) for (_, _, arch), findings in LISTS["proved"].items() for finding in findings}
    wanted = {(finding.id, arch) for bug in BUGS for finding in bug.findings for arch in bug.arches}
    assert proved == wanted
    # By what: a manifest that has lost a proof is found out here, before a boot is.
    tests = {test.id: test for bug in BUGS for test in bug.tests}
    for (bug, suite, _), findings in LISTS["proved"].items():
        test = tests[suite.partition(" ")[0]]
        races = {name for name in test.races if suite == f"{test.id} ({name.partition('/')[2]})"}
        assert (races or set(test.proof)) == set(findings), suite
        assert all(check.proving(BUGS, bug, suite, finding) for finding in findings)


def test_every_suite_and_folder_is_named_once() -> None:
    sources = [name for bug in BUGS for suite in bug.suites for name in suite.sources if name.endswith("_kunit.c")]
    there = [path.relative_to(manifest.KUNIT).as_posix() for path in manifest.KUNIT.rglob("*_kunit.c")]
    assert sorted(sources) == sorted(there)
    programs = sorted(f"{test.collection}/{test.name}.c" for bug in BUGS for test in bug.selftests)
    folders = {path.parent.name for path in manifest.SELFTESTS.glob("*/config")}
    assert {name.partition("/")[0] for name in programs} == folders
    assert len(set(programs)) == len(programs)


@pytest.mark.parametrize("word", ["not run", "SKIP", "NOT PROVED", "ERROR", "PASS", "NOT TRUSTED"])
def test_proof_that_is_not_there_has_failed(word: str) -> None:
    rows = run()
    index = next(number for number, each in enumerate(rows) if place(each)[::2] == ("kvm-shadow", "riscv64"))
    rows[index].outcome = word
    count = check.count_rows(rows, WANTED, BUGS)
    assert count.failed == [f"kvm-shadow {rows[index].row.suite} riscv64: {word}"]
    assert not [line for line in count.skipped if line.startswith("kvm-shadow kvm_ioeventfd_batch")]


def test_row_that_is_lost_has_failed() -> None:
    count = check.count_rows(run()[1:], WANTED, BUGS)
    boots = WANTED["boots"]
    assert count.failed == ["pci-cfg-wait pci_cfg_wait x86_64: not in the run", f"{boots - 2} boots, and not {boots}"]


def test_row_that_proves_less_has_failed() -> None:
    """A finding that was left out of a run leaves the suite proved, by the cases of the others."""
    rows = run()
    index = next(number for number, each in enumerate(rows) if each.row.suite == "nfsd_cb_shutdown")
    bug, suite, arch = place(rows[index])
    rows[index].row = SimpleNamespace(bug=bug, suite=suite, arch=arch, proof=rows[index].row.proof[:-1])
    assert check.count_rows(rows, WANTED, BUGS).failed == [
        "nfsd-cb-shutdown nfsd_cb_shutdown x86_64: does not prove nfsd-cb-shutdown/late-notify"
    ]


@pytest.mark.parametrize(("word", "fails"), [("PASS", False), ("SKIP", False), ("not run", True), ("NOT PROVED", True)])
def test_control(word: str, fails: bool) -> None:
    rows = run()
    index = next(number for number, each in enumerate(rows) if place(each) in LISTS["control"])
    rows[index].outcome = word
    assert bool(check.count_rows(rows, WANTED, BUGS).failed) is fails


@pytest.mark.parametrize(("word", "fails"), [("PASS", False), ("PROVED", False), ("SKIP", True), ("not run", True)])
def test_row_that_nobody_has_listed(word: str, fails: bool) -> None:
    row = SimpleNamespace(bug="a-bug", suite="a_suite", arch="x86_64", proof=(), states=())
    rows = [*run(), proof_of(row, word)]
    assert bool(check.count_rows(rows, WANTED, BUGS).failed) is fails


CONSOLE = (Path(__file__).with_name("logs") / "kunit_pass.log").read_bytes().decode()


def kunit_run(folder: Path, console: str = CONSOLE, verdict: Verdict = Verdict.PASS, state: str = "after") -> Any:
    """Evidence of one boot of a KUnit suite."""
    folder.mkdir()
    (folder / "console.log").write_bytes(console.encode())
    row = SimpleNamespace(suite="pci_cfg_wait", kind="kunit", arch=check.KUNIT_ARCH)
    judged, ending = SimpleNamespace(cases={"a": verdict}), SimpleNamespace(console=Path("console.log"))
    result = SimpleNamespace(row=row, state=state, verdict=verdict, judged=judged, ending=ending)
    return SimpleNamespace(folder=folder, run=SimpleNamespace(results=[result]))


@pytest.mark.parametrize(
    ("console", "same"),
    [
        (CONSOLE.replace("KTAP version 1", "TAP version 99"), 0),
        (CONSOLE.replace("1..", "1...", 1), 0),
        (CONSOLE.replace("# Subtest: ", "# Test: "), 0),
        (CONSOLE.replace("# Totals: pass:", "# Totals: passed:"), 0),
        (CONSOLE.replace("    ok 1 ", "    ok 1 - "), 0),
        ("", 0),
        # What a case says is its own, and an old kernel puts the time before each line.
        (CONSOLE.replace("KTAP version 1\r\n", "KTAP version 1\r\n    # a_case: 17 looks\r\n", 1), 1),
        (CONSOLE.replace("\n", "\n[    0.123456] ").removesuffix("[    0.123456] "), 1),
    ],
    ids=["version", "plan", "subtest", "statistics", "result", "nothing", "a case's", "times"],
)
def test_small_kunit_prints_what_kunit_prints(console: str, same: int, tmp_path: Path) -> None:
    assert console != CONSOLE and len(check.runners_lines(CONSOLE)) > 20
    own, small = kunit_run(tmp_path / "own"), kunit_run(tmp_path / "small", console)
    assert check.both_kunits(own, small) == (same, 1 - same)


@pytest.mark.parametrize("state", ["before", "after"])
def test_panic_is_another_result(state: str, tmp_path: Path) -> None:
    """With the bug, too: no case may leave it to luck whether the guest outlives it."""
    own = kunit_run(tmp_path / "own", verdict=Verdict.FAIL, state=state)
    small = kunit_run(tmp_path / "small", CONSOLE.partition("    ok 3 ")[0], Verdict.PANIC, state)
    assert check.both_kunits(own, small) == check.both_kunits(small, own) == (0, 1)


def test_two_runs_without_results_are_not_the_same(tmp_path: Path) -> None:
    runs = [kunit_run(tmp_path / name, verdict=Verdict.MISS) for name in ("own", "small")]
    assert check.both_kunits(*runs) == (0, 1)
    for each in runs:
        each.run.results.clear()
    assert check.both_kunits(*runs) == (0, 1)


def junit(tmp_path: Path, *skipped: tuple[str, str, str]) -> check.Count:
    tests = "".join(
        f'<testcase classname="scripts.tests.{module}" name={quoteattr(name)}><skipped message={quoteattr(why)}/>'
        "</testcase>"
        for module, name, why in skipped
    )
    tests += '<testcase classname="scripts.tests.test_a" name="test_good"/>'
    tests += '<testcase classname="test_a" name="test_bad[1]"><failure message="x"/></testcase>'
    tests += '<testcase classname="test_a" name="test_broken"><error message="x"/></testcase>'
    (tmp_path / "junit.xml").write_text(f"<testsuites><testsuite>{tests}</testsuite></testsuites>", encoding="utf-8")
    return check.count_tests(tmp_path / "junit.xml", WANTED)


def test_skipped_test_has_failed_unless_it_is_listed(tmp_path: Path) -> None:
    count = junit(
        tmp_path,
        ("test_apply", "test_read_only", "only root can give a tree away"),
        ("test_apply", "test_read_only", "another reason"),
        ("test_other", "test_read_only", "only root can give a tree away"),
    )
    assert count.passed == 1
    assert count.skipped == ["test_apply.py::test_read_only: skipped: only root can give a tree away"]
    assert count.failed == [
        "test_apply.py::test_read_only: skipped: another reason",
        "test_other.py::test_read_only: skipped: only root can give a tree away",
        "test_a.py::test_bad[1]",
        "test_a.py::test_broken",
    ]


def suites_of(found: dict[str, Any]) -> Callable[..., Any]:
    """Return what stands in for the fetch of the kernels in Debian's suites."""

    def fetch(*_: object) -> Any:
        if isinstance(found["suites"], Exception):
            raise found["suites"]
        return found["suites"]

    return fetch


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the parts of a check come to, as they are where all is good; a test changes one."""
    found = {
        "trees": ({"6.12.117": tmp_path}, ["kylin-v10: no tree of it here"]),
        "suites": ({"7.3.4": tmp_path}, []),
        "tests": check.Count(10),
        "rows": run(),
        "fixes": check.Count(4),
        "kunits": (8, 0),
    }

    def verified(request: Any, _: object) -> Any:
        proofs = [] if request.kunit else found["rows"]
        return SimpleNamespace(folder=tmp_path, run=SimpleNamespace(proofs=proofs, exit_code=lambda: ExitCode.OK))

    monkeypatch.setattr(check, "_trees", lambda _: found["trees"])
    monkeypatch.setattr(check.suites, "fetch", suites_of(found))
    monkeypatch.setattr(check, "_pytest", lambda *_: found["tests"])
    monkeypatch.setattr(check, "verify", verified)
    monkeypatch.setattr(check, "print_report", lambda _: None)
    monkeypatch.setattr(check, "_wrong_fixes", lambda number: found["fixes"] if number == 4 else check.Count())
    monkeypatch.setattr(check, "both_kunits", lambda *_: found["kunits"])
    return found


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("tests", check.Count(10, ["test_a.py::test_bad"]), "failed:\n  test_a.py::test_bad\n"),
        ("tests", check.Count(10, [], ["a test: skipped"]), "need not:\n  a test: skipped\n"),
        ("trees", ({"6.12.117": Path()}, ["linux-6.1.y: no network"]), "failed:\n  linux-6.1.y: no network\n"),
        ("trees", ({"6.12.118": Path()}, []), "nobody has read these trees (scripts/tests/audit-truth.toml): 6.12.118"),
        ("suites", ({"7.4.1": Path()}, []), "nobody has read these trees (scripts/tests/audit-truth.toml): 7.4.1"),
        ("suites", ({}, ["linux-source-7.2: older"]), "no tree of it here\n  linux-source-7.2: older\n"),
        ("suites", Infrastructure("no network"), "failed:\n  Debian's suites: no network\n"),
        ("rows", run()[1:], "failed:\n  pci-cfg-wait pci_cfg_wait x86_64: not in the run\n"),
        ("fixes", check.Count(3, ["wrong fix: a"]), "failed:\n  wrong fix: a\n"),
        ("kunits", (7, 1), "7 of 8 boots say the same"),
        ("kunits", (8, 0), "need not:\n  "),
    ],
)
def test_check(parts: dict[str, Any], part: str, value: object, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    parts[part] = value
    good = "failed:" not in says and part != "kunits" or value == (8, 0)
    assert check.check() is (ExitCode.OK if good else ExitCode.FAILED)
    said = capsys.readouterr().out
    assert says in said and ("failed: nothing\n" in said) == (good or part == "kunits")
    assert (" passed, 0 failed, " in said.splitlines()[-1]) == good
    assert part == "trees" or "  kylin-v10: no tree of it here\n" in said


@pytest.mark.parametrize(("text", "passed", "failed"), [("pass", 1, 0), ("assert 0", 0, 2), ("x = (", 0, 2)])
def test_pytest_is_run_and_counted(
    text: str, passed: int, failed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tests").mkdir()
    look = "os.listdir(os.environ['KMEND_TREES']) + os.listdir(os.environ['KMEND_PARTS'])"
    code = f"import os\n\n\ndef test_x():\n    assert {look} == ['6.12.117', '7.3.4']\n    {text}\n"
    (tmp_path / "tests/test_x.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(check, "SCRIPTS", tmp_path)
    count = check._pytest({"6.12.117": tmp_path}, {"7.3.4": tmp_path}, tmp_path, WANTED)
    assert (count.passed, len(count.failed)) == (passed, failed)


@pytest.mark.parametrize(
    ("good", "code", "passed", "failed"),
    [
        ([True, True], 0, 2, []),
        ([True, False], 1, 1, ["wrong fix: fix 1: why 1"]),
        ([True], 0, 1, ["scripts/mutate ended with code 0, and 1 of 2 wrong fixes were tried"]),
        ([True, True], 5, 2, ["scripts/mutate ended with code 5, and 2 of 2 wrong fixes were tried"]),
        (None, 1, 0, ["scripts/mutate ended with code 1, and 0 of 2 wrong fixes were tried"]),
    ],
)
def test_wrong_fixes_are_tried(
    good: list[bool] | None,
    code: int,
    passed: int,
    failed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    results = {f"fix {number}": {"good": each, "said": f"why {number}"} for number, each in enumerate(good or [])}
    write = f"cat >$7/{check.KUNIT_ARCH}.json <<E\n{json.dumps(results)}\nE\n" if good is not None else ""
    script = tmp_path / "mutate"
    script.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3 $5" = "--fix --share 2 {check.KUNIT_ARCH}" ] || exit 9\n{write}exit {code}\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setattr(check, "SCRIPTS", tmp_path)
    count = check._wrong_fixes(2)
    assert (count.passed, count.failed) == (passed, failed)


def test_trees_that_are_to_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    debian, vendor = (bases.Source(debian="linux-source"),), (bases.Source(srpm="kernel"),)
    lines = {name: bases.Base(name, "", "", "", sources=vendor if name == "c" else debian) for name in "abc"}
    monkeypatch.setattr(bases, "load", lambda: lines)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(source, "need_space", lambda *_: None)

    def fetch(workspace: source.Workspace, _: object) -> Any:
        if workspace.name == "b":
            raise Infrastructure("no network")
        return SimpleNamespace(version="6.1.1", path=tmp_path)

    monkeypatch.setattr(source, "fetch_base", fetch)
    display: Any = SimpleNamespace(say=print)
    assert check._trees(display) == ({"6.1.1": tmp_path}, ["b: no network", "c: no tree of it here"])
    # Without the default base there is nothing to be proved.
    monkeypatch.setattr(bases, "DEFAULT", "b")
    with pytest.raises(Infrastructure, match="no network"):
        check._trees(display)
