# SPDX-License-Identifier: GPL-2.0-only
"""The project's own tests: pytest on the driver and the patches, then the proofs on the default base."""

import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kmendlib.host import files, proc
from kmendlib.host.errors import ExitCode, Infrastructure
from kmendlib.host.paths import SCRIPTS
from kmendlib.host.progress import Display
from kmendlib.host.words import Outcome, Verdict
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.plan import Request
from kmendlib.proof.verify import verify
from kmendlib.run import Proof, race_case
from kmendlib.show.report import print_report
from kmendlib.tree import arches, bases, manifest, source, suites
from kmendlib.tree.tree import version_key

# Where the suites run under both KUnits: the guest that boots fastest.
KUNIT_ARCH = "loongarch64"
_NO_RESULT = (Verdict.MISS, Verdict.TIMEOUT, Verdict.ERROR)
# What the runner prints by itself: all but what a case says, and how it failed. An old kernel puts the time before it.
_RUNNERS = re.compile(
    r"^(?:\[ *\d+\.\d+\] )?( *(?:[KT]*AP version .*|1\.\.\d+|# (?:Subtest|module|is_init): .*"
    r"|# .*: pass:.*|# \S+\.speed: .*|(?:not )?ok \d.*))$",
    re.MULTILINE,
)


def _trees(display: Display) -> tuple[dict[str, Path], list[str]]:
    """Fetch the trees that Debian has.

    Returns:
        Trees by version, and a line for each base whose tree is not at hand.
    """
    trees, missing = {}, []
    for base in bases.load().values():
        workspace = source.base_workspace(base.name)
        try:
            if not (workspace.root / "version").exists() and not any(place.debian for place in base.sources):
                raise Infrastructure("no tree of it here")
            tree = source.read_base(workspace, display.say)
            trees[str(tree.version)] = tree.path
        except Infrastructure as error:
            if base.name == bases.DEFAULT:
                raise
            missing.append(f"{base.name}: {error}")
    return trees, missing


@dataclass
class Count:
    """What came of tests: how many passed, a line for each that failed, and those that did not run and need not."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def expected() -> dict[str, Any]:
    """Read what must be seen: scripts/tests/expected.toml."""
    return tomllib.loads((SCRIPTS / "tests/expected.toml").read_text(encoding="utf-8"))


def wanted_rows(wanted: dict[str, Any], key: str) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Return the rows that one of the lists in expected.toml is about, and the findings that each proves."""
    return {
        (entry["bug"], suite, arch): tuple(f"{entry['bug']}/{name}" for name in entry.get("findings", ()))
        for entry in wanted[key]
        for suite in entry["suites"]
        for arch in entry.get("arches", arches.names())
    }


def proving(bugs: Sequence[manifest.Bug], bug: str, suite: str, finding: str) -> set[str]:
    """Return the cases by which a row of the table proves a finding; none if it cannot."""
    tests = [test for each in bugs if each.id == bug for test in each.tests if test.id == suite.partition(" ")[0]]
    if tests and suite == f"{tests[0].id} ({finding.partition('/')[2]})":
        return {race_case(finding)} & {race_case(name) for name in tests[0].races}
    return {case for test in tests for case in test.proof.get(finding, ())}


def count_rows(seen: Sequence[Proof], wanted: dict[str, Any], bugs: Sequence[manifest.Bug]) -> Count:
    """Hold a run against what must be seen.

    Args:
        seen: what came of the rows of the run.
        wanted: what `expected` returns.
        bugs: the manifest's, which say by what cases a finding is proved.
    """
    count = Count()
    lists = {key: wanted_rows(wanted, key) for key in ("proved", "control", "not_run")}
    good = {
        "proved": {Outcome.PROVED},
        "control": {Outcome.PASS, Outcome.SKIP},
        "not_run": {Outcome.NOT_RUN},
        "": {Outcome.PASS, Outcome.PROVED},
    }
    rows = {(proof.row.bug, proof.row.suite, proof.row.arch): proof for proof in seen}
    for place, proof in rows.items():
        name, row, word = " ".join(place), proof.row, proof.outcome
        key = next((key for key, those in lists.items() if place in those), "")
        if word not in good[key]:
            count.failed.append(f"{name}: {word}")
            continue
        lost = [
            finding
            for finding in lists["proved"].get(place, ())
            if not (need := proving(bugs, row.bug, row.suite, finding)) or not need <= set(row.proof)
        ]
        if lost:
            count.failed.append(f"{name}: does not prove {', '.join(lost)}")
        elif word in (Outcome.SKIP, Outcome.NOT_RUN):
            count.skipped.append(f"{name}: {word}")
        else:
            count.passed += 1
    for key in ("proved", "control"):
        count.failed += [f"{' '.join(place)}: not in the run" for place in lists[key] if place not in rows]
    boots = sum(len(proof.results) for proof in seen)
    if boots != wanted["boots"]:
        count.failed.append(f"{boots} boots, and not {wanted['boots']}")
    return count


def count_tests(junit: Path, wanted: dict[str, Any]) -> Count:
    """Count what pytest has left: a test that is skipped and that expected.toml does not list has failed."""
    count = Count()
    for test in ElementTree.parse(junit).getroot().iter("testcase"):
        name = f"{test.get('classname', '').rpartition('.')[2]}.py::{test.get('name', '')}"
        skip = test.find("skipped")
        if test.find("failure") is not None or test.find("error") is not None:
            count.failed.append(name)
        elif skip is None:
            count.passed += 1
        else:
            why = skip.get("message", "")
            may = any(fnmatchcase(name, each["test"]) and why.startswith(each["says"]) for each in wanted["skip"])
            (count.skipped if may else count.failed).append(f"{name}: skipped: {why}")
    return count


def _pytest(found: dict[str, Path], parts: dict[str, Path], checkpatch: Path, wanted: dict[str, Any]) -> Count:
    """Run the unit tests on these trees, and the audit on parts of others, and count the tests."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        junit = Path(folder, "junit.xml")
        places = {name: Path(folder, name) for name in ("KMEND_TREES", "KMEND_PARTS")}
        for place, those in zip(places.values(), (found, parts), strict=True):
            place.mkdir()
            for version, path in those.items():
                (place / version).symlink_to(path)
        command = [sys.executable, "-P", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}"]
        # Each test has a folder of its own, and waits for Coccinelle most of the time.
        command += ["-n", str(len(os.sched_getaffinity(0)))]
        # What is to run on a list runs on something.
        command += ["-o", "empty_parameter_set_mark=fail_at_collect"]
        given = places | {"KMEND_CHECKPATCH": checkpatch}
        environment = proc.environment({name: str(path) for name, path in given.items()})
        code = subprocess.run([*command, str(SCRIPTS / "tests")], env=environment, check=False).returncode
        count = count_tests(junit, wanted) if junit.exists() else Count()
    if (code and not count.failed) or not count.passed:
        count.failed.append(f"pytest ended with code {code}, and {count.passed} tests passed")
    return count


def _wrong_fixes(number: int) -> Count:
    """Have so many wrong fixes noticed, which ones depends on what is tested; scripts/mutate runs them all."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        command = [str(SCRIPTS / "mutate"), "--fix", "--share", str(number), "--arch", KUNIT_ARCH, "--out", folder]
        code = subprocess.run(command, check=False).returncode
        path = Path(folder, f"{KUNIT_ARCH}.json")
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lost = [f"wrong fix: {name}: {each['said']}" for name, each in results.items() if not each["good"]]
    if len(results) != number or bool(code) != bool(lost):
        lost.append(f"scripts/mutate ended with code {code}, and {len(results)} of {number} wrong fixes were tried")
    return Count(len(results) - sum(not each["good"] for each in results.values()), lost)


def runners_lines(console: str) -> list[str]:
    """Return the lines of a console that KUnit's runner prints by itself."""
    return _RUNNERS.findall(console.replace("\r", ""))


def _boots(evidence: Evidence, arch: str) -> dict[tuple[str, str], tuple[Verdict, dict[str, str], list[str]]]:
    """Return the verdict, the cases and the runner's lines of each boot of a KUnit suite, by suite and state."""
    return {
        (result.row.suite, result.state): (
            result.verdict,
            dict(result.judged.cases),
            runners_lines(files.read_text(evidence.folder / result.ending.console, errors="replace")),
        )
        for result in evidence.run.results
        if result.row.kind == "kunit" and result.row.arch == arch
    }


def both_kunits(own: Evidence, small: Evidence) -> tuple[int, int]:
    """Compare what the small KUnit said of the suites with what the kernel's own did.

    Returns:
        How many boots were the same in every name, verdict and line of the runner's, and how many were not.
    """
    first, second = _boots(own, KUNIT_ARCH), _boots(small, KUNIT_ARCH)
    same = 0
    for key, said in first.items():
        other = second.get(key, (Verdict.MISS, {}, []))
        # Two runs without results are not the same result.
        if said == other and said[1] and said[2] and said[0] not in _NO_RESULT:
            same += 1
            continue
        print(f"{' '.join(key)}: {said[:2]} with the kernel's KUnit, {other[:2]} with the small one")
        print("\n".join(difflib.unified_diff(said[2], other[2], "own", "small", "", "", 0, "")))
    return same, len(first) - same or int(not first)


def check() -> ExitCode:
    """Run all tests; print, last, what failed, what did not run and need not, and how many of each there are.

    A suite on an architecture counts as one test, and so does a boot of a suite under the small KUnit.
    """
    wanted = expected()
    with Display() as display:
        trees, missing = _trees(display)
        try:
            folders = suites.folders(manifest.load().bugs)
            parts, older = suites.fetch(wanted["suites"], folders, trees, display.say)
        except Infrastructure as error:
            parts, older = {}, []
            missing.append(f"Debian's suites: {error}")
    newest = trees[max(trees, key=version_key)]
    tests = _pytest(trees, parts, newest / "scripts/checkpatch.pl", wanted)
    bugs = manifest.load().bugs
    with Display() as display:
        evidence = verify(Request(None, None, bugs, arches.select("all")), display)
    print_report(evidence)
    proofs = count_rows(evidence.run.proofs, wanted, bugs)
    fixes = _wrong_fixes(wanted["wrong_fixes"])
    with Display() as display:
        small = verify(Request(None, None, bugs, (KUNIT_ARCH,), kunit="compat"), display)
    same, other = both_kunits(evidence, small)
    print(f"{KUNIT_ARCH}: {same} of {same + other} boots say the same under the small KUnit")
    by_hand = [line for line in missing if line.partition(":")[0] in wanted["no_tree"]["bases"]]
    failed = [*tests.failed, *proofs.failed, *fixes.failed, *(line for line in missing if line not in by_hand)]
    skipped = [*tests.skipped, *proofs.skipped, *by_hand, *older]
    read = tomllib.loads((SCRIPTS / "tests/audit-truth.toml").read_text(encoding="ascii"))
    # No reason to stop: their verdicts are held against those of the last tree of their line that was read.
    if unread := ", ".join(version for version in (*trees, *parts) if version not in read):
        print(f"nobody has read these trees (scripts/tests/audit-truth.toml): {unread}")
    for title, lines in (("not run, and need not", skipped), ("failed", failed)):
        print("\n  ".join([f"{title}:", *lines]) if lines else f"{title}: nothing")
    total = len(failed) + other
    also = f", {len(skipped)} skipped" if skipped else ""
    print(f"{tests.passed + proofs.passed + fixes.passed + same} passed, {total} failed{also}")
    return ExitCode.FAILED if total else evidence.run.exit_code()
