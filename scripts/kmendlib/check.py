# SPDX-License-Identifier: GPL-2.0-only
"""The project's own tests: pytest on the driver and the patches, then the proofs on the default base."""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import ExitCode, Infrastructure
from kmendlib.host.paths import SCRIPTS
from kmendlib.host.progress import Display
from kmendlib.host.words import Verdict
from kmendlib.proof.plan import Request
from kmendlib.proof.verify import verify
from kmendlib.run import Run
from kmendlib.show.report import print_report
from kmendlib.tree import arches, bases, manifest, source
from kmendlib.tree.tree import version_key


# Where the suites run under both KUnits: the guest that boots fastest.
KUNIT_ARCH = "loongarch64"
_NO_RESULT = (Verdict.MISS, Verdict.TIMEOUT, Verdict.ERROR)


def _trees(display: Display) -> tuple[dict[str, Path], list[str]]:
    """Fetch the trees that Debian has.

    Returns:
        Trees by version, and a line for each base whose tree is not at hand.
    """
    found, missing = {}, []
    for base in bases.load().values():
        workspace = source.base_workspace(base.name)
        here = (workspace.root / "version").exists()
        if not here and not any(place.debian for place in base.sources):
            missing.append(f"{base.name}: no tree of it here")
            continue
        try:
            with source.locked(workspace):
                source.need_space(workspace, [])
                tree = source.fetch_base(workspace, display.say)
        except Infrastructure as error:
            if base.name == bases.DEFAULT:
                raise
            missing.append(f"{base.name}: {error}")
            continue
        found[str(tree.version)] = tree.path
    return found, missing


def _pytest(found: dict[str, Path], checkpatch: Path) -> tuple[int, int, int]:
    """Run the unit tests and return how many passed, failed and were skipped."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        junit = Path(folder, "junit.xml")
        trees = Path(folder, "trees")
        trees.mkdir()
        for version, path in found.items():
            (trees / version).symlink_to(path)
        command = [sys.executable, "-P", "-B", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"--junitxml={junit}"]
        # Each test has a folder of its own, and waits for Coccinelle most of the time.
        command += ["-n", str(len(os.sched_getaffinity(0)))]
        environment = proc.environment({"KMEND_TREES": str(trees), "KMEND_CHECKPATCH": str(checkpatch)})
        code = subprocess.run([*command, str(SCRIPTS / "tests")], env=environment, check=False).returncode
        if not junit.exists():
            print(f"pytest ended with code {code} and left no results", file=sys.stderr)
            return 0, 1, 0
        suites = ElementTree.parse(junit).getroot().findall("testsuite")
        count = {name: sum(int(s.get(name, 0)) for s in suites) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    if code and not failed:
        print(f"pytest ended with code {code}", file=sys.stderr)
        failed = 1
    return count["tests"] - failed - count["skipped"], failed, count["skipped"]


def _boots(run: Run, arch: str) -> dict[tuple[str, str], tuple[Verdict, dict[str, str]]]:
    """Return the verdict and the cases of each boot of a KUnit suite, by suite and state."""
    return {
        (result.row.suite, result.state): (result.verdict, dict(result.judged.cases))
        for result in run.results
        if result.row.kind == "kunit" and result.row.arch == arch
    }


def _both_kunits(own: Run, bugs: tuple[manifest.Bug, ...]) -> tuple[int, int]:
    """Run the suites under the small KUnit and compare with what the kernel's own said of them.

    Returns:
        How many boots were the same in every name and verdict, and how many were not.
    """
    with Display() as display:
        small = verify(Request(None, None, bugs, (KUNIT_ARCH,), kunit="compat"), display).run
    first, second = _boots(own, KUNIT_ARCH), _boots(small, KUNIT_ARCH)
    same = 0
    for key, said in first.items():
        # Two runs without results are not the same result.
        if said == second.get(key) and said[1] and said[0] not in _NO_RESULT:
            same += 1
        else:
            print(f"{' '.join(key)}: {said} with the kernel's KUnit, {second.get(key)} with the small one")
    return same, len(first) - same or int(not first)


def check() -> ExitCode:
    """Run all tests and print, last, how many passed and failed.

    A suite that was to be proved on an architecture counts as one test, and so does a boot of a suite under the small
    KUnit; a suite that does not run on an architecture, and a base whose tree is not at hand, count as skipped.
    """
    with Display() as display:
        trees, missing = _trees(display)
    newest = trees[max(trees, key=version_key)]
    passed, failed, skipped = _pytest(trees, newest / "scripts/checkpatch.pl")
    bugs = manifest.load().bugs
    with Display() as display:
        evidence = verify(Request(None, None, bugs, arches.select("all")), display)
    print_report(evidence)
    for proof in evidence.run.proofs:
        if proof.row.not_run or (proof.row.control and proof.skipped):
            skipped += 1
        elif proof.proved:
            passed += 1
        else:
            failed += 1
    same, other = _both_kunits(evidence.run, bugs)
    print(f"{KUNIT_ARCH}: {same} of {same + other} boots say the same under the small KUnit")
    for line in missing:
        print(f"not run: {line}")
    passed, failed, skipped = passed + same, failed + other, skipped + len(missing)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return ExitCode.FAILED if failed else evidence.run.exit_code()
