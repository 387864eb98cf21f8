# SPDX-License-Identifier: GPL-2.0-only
"""The project's own tests: pytest on the driver and the patches, then the proofs on the default base."""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from kmendlib import arches, bases, manifest, source, verify
from kmendlib.errors import ExitCode
from kmendlib.paths import SCRIPTS
from kmendlib.progress import Display
from kmendlib.report import print_report, rows
from kmendlib.tree import Tree


def _pytest(tree: Tree) -> tuple[int, int, int]:
    """Run the unit tests and return how many passed, failed and were skipped."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        junit = Path(folder, "junit.xml")
        trees = Path(folder, "trees")
        trees.mkdir()
        (trees / str(tree.version)).symlink_to(tree.path)
        command = [sys.executable, "-B", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"--junitxml={junit}"]
        environment = os.environ | {
            "KMEND_TREES": str(trees),
            "KMEND_CHECKPATCH": str(tree.path / "scripts/checkpatch.pl"),
            "PYTHONPATH": str(SCRIPTS),
        }
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


def check() -> ExitCode:
    """Run all tests and print, last, how many passed and failed.

    A suite that was to be proved on an architecture counts as one test; a suite that does not run there as skipped.
    """
    with Display() as display:
        base = source.base_workspace(bases.DEFAULT)
        with source.locked(base):
            source.need_space(base, [])
            tree = source.fetch_base(base, display.say)
    passed, failed, skipped = _pytest(tree)
    bugs = manifest.load().bugs
    request = verify.Request(None, None, bugs, arches.select("all"), 1, None)
    with Display() as display:
        evidence, code = verify.verify(request, display)
    print_report(evidence)
    for row in rows(evidence):
        if row.plan["not_run"] or (row.control and row.skipped):
            skipped += 1
        elif row.proved:
            passed += 1
        else:
            failed += 1
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return ExitCode.FAILED if failed else code
