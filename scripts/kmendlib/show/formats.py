# SPDX-License-Identifier: GPL-2.0-only
"""Evidence for other programs: JUnit XML, and a table for a pull request.  results.json itself is KCIDB's."""

from collections.abc import Sequence
from pathlib import Path

from kmendlib.host.text import template
from kmendlib.host.words import Verdict, visible
from kmendlib.proof.evidence import Evidence
from kmendlib.run import Proof
from kmendlib.show.page import NAME
from kmendlib.show.report import counts

_EXCERPT = 4000


def junit(evidences: Sequence[Evidence]) -> bytes:
    """Return JUnit XML: a suite for each row of the plans, a case for each boot.

    A boot passes that came out as it must: on the kernel with the bug, a red one.
    """
    import junitparser

    document = junitparser.JUnitXml("kmend")
    for evidence in evidences:
        run = evidence.run
        for proof in run.proofs:
            row = proof.row
            suite = junitparser.TestSuite(visible(f"{row.bug} {row.suite} {row.arch}"))
            suite.timestamp = visible(run.start)
            suite.add_property("tree", visible(run.title))
            for case in _cases(proof, run.distrust):
                suite.add_testcase(case)
            document.add_testsuite(suite)
    text: bytes = document.tostring()
    return text if text.startswith(b"<?xml") else b'<?xml version="1.0" encoding="utf-8"?>\n' + text + b"\n"


def _cases(proof: Proof, distrust: str) -> list[object]:
    import junitparser

    row = proof.row

    def case(title: str, result: object = None, seconds: float = 0) -> object:
        made = junitparser.TestCase(visible(title), visible(f"{row.bug}.{row.arch}"), round(seconds, 3))
        if result is not None:
            made.result = [result]
        return made

    if distrust:
        return [case(row.suite, junitparser.Error(visible(f"not trusted: {distrust}")))]
    if row.not_run:
        return [case(row.suite, junitparser.Skipped(visible(row.not_run)))]
    if proof.broken:
        return [case(row.suite, junitparser.Error(visible(f"no kernel: {proof.broken}")))]
    kinds = {
        Verdict.SKIP: junitparser.Skipped,
        Verdict.ERROR: junitparser.Error,
        Verdict.MISS: junitparser.Error,
    }
    found = []
    for state in row.states:
        results = proof.of(state)
        for result in results:
            bad = None
            if result.wrong:
                bad = kinds.get(result.verdict, junitparser.Failure)(visible(result.judged.why))
                bad.text = visible(result.excerpt[-_EXCERPT:])
            found.append(case(f"{row.suite} {state} {result.number}", bad, result.ending.seconds))
        # One case for all: a plan may have a million.
        missing = row.boots - len(results)
        if missing > 0:
            title = f"{row.suite} {state} {len(results) + 1}" + (f" to {row.boots}" if missing > 1 else "")
            what = "this boot was" if missing == 1 else f"these {missing} boots were"
            found.append(case(title, junitparser.Error(f"{what} not run")))
    return found


def summary(evidences: Sequence[Evidence]) -> str:
    """Return a table for a pull request, in the form of openEuler RISC-V's gate: check and result."""
    text: str = template("summary.md.j2").render(runs=[evidence.run for evidence in evidences], counts=counts)
    return text


def files(evidences: Sequence[Evidence], page: Path) -> dict[Path, str | bytes]:
    """Return both, by their paths: beside a page, under its name unless that is the usual one."""
    stem = "" if page.name == NAME else f"{page.stem}."
    return {
        page.with_name(f"{stem}junit.xml"): junit(evidences),
        page.with_name(f"{stem}summary.md"): summary(evidences),
    }
