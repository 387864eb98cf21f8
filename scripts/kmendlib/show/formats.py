# SPDX-License-Identifier: GPL-2.0-only
"""Evidence for other programs: JUnit XML, and a table for a pull request.  results.json itself is KCIDB's."""

import re
from collections.abc import Sequence
from pathlib import Path

from kmendlib.host.words import visible
from kmendlib.proof.evidence import Evidence
from kmendlib.show.page import NAME
from kmendlib.show.report import Row, rows

# The words of openEuler RISC-V's gate.
_RESULTS = {"PROVED": "success", "PASS": "success", "SKIP": "skipped", "not run": "skipped"}
# What Markdown, or GitHub's, would read as more than text.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&@#]")
_EXCERPT = 4000


def junit(evidences: Sequence[Evidence]) -> bytes:
    """Return JUnit XML: a suite for each row of the plans, a case for each boot.

    A boot passes that came out as it must: on the kernel with the bug, a red one.
    """
    import junitparser

    document = junitparser.JUnitXml("kmend")
    for evidence in evidences:
        for row in rows(evidence):
            plan = row.plan
            suite = junitparser.TestSuite(visible(f"{plan['bug']} {plan['suite']} {plan['arch']}"))
            suite.timestamp = visible(evidence.checkout.get("start_time", ""))
            suite.add_property("tree", visible(evidence.checkout["comment"]))
            for case in _cases(row, evidence.distrust):
                suite.add_testcase(case)
            document.add_testsuite(suite)
    text: bytes = document.tostring()
    return text if text.startswith(b"<?xml") else b'<?xml version="1.0" encoding="utf-8"?>\n' + text + b"\n"


def _cases(row: Row, distrust: str) -> list[object]:
    import junitparser

    plan = row.plan
    name = visible(f"{plan['bug']}.{plan['arch']}")

    def case(title: str, result: object = None, seconds: float = 0) -> object:
        made = junitparser.TestCase(visible(title), name, round(seconds, 3))
        if result is not None:
            made.result = [result]
        return made

    suite = plan["suite"]
    if distrust:
        return [case(suite, junitparser.Error(visible(f"not trusted: {distrust}")))]
    if plan["not_run"]:
        return [case(suite, junitparser.Skipped(visible(plan["not_run"])))]
    if row.broken:
        return [case(suite, junitparser.Error(visible(f"no kernel: {row.broken}")))]
    found = []
    for state, tests in (("before", row.before), ("after", row.after)):
        if state == "before" and row.control:
            continue
        wrong = [id(test) for test in row.wrong(state)]
        for test in tests:
            misc = test["misc"]
            said = visible(f"{misc['verdict']}: {misc['reason'] or 'every case passed'}")
            result = None
            if id(test) in wrong:
                kind = {"SKIP": junitparser.Skipped, "ERROR": junitparser.Error, "MISS": junitparser.Error}
                result = kind.get(misc["verdict"], junitparser.Failure)(said)
                result.text = visible(test["log_excerpt"][-_EXCERPT:])
            found.append(case(f"{suite} {state} {misc['number']}", result, test["duration"]))
        # One case for all: a plan may have a million.
        missing = plan["boots"] - len(tests)
        if missing > 0:
            title = f"{suite} {state} {len(tests) + 1}" + (f" to {plan['boots']}" if missing > 1 else "")
            what = "this boot was" if missing == 1 else f"these {missing} boots were"
            found.append(case(title, junitparser.Error(f"{what} not run")))
    return found


def _plain(text: str) -> str:
    # A space without width keeps @ and # from calling somebody, or an issue.
    return _MARKDOWN.sub(
        lambda match: f"{match[0]}&#8203;" if match[0] in "@#" else f"&#{ord(match[0])};",
        " ".join(visible(text).split()),
    )


def summary(evidences: Sequence[Evidence]) -> str:
    """Return a table for a pull request, in the form of openEuler RISC-V's gate: check and result."""
    lines: list[str] = []
    for evidence in evidences:
        lines += [f"### kmend: {_plain(evidence.checkout['comment'])}", ""]
        if evidence.distrust:
            lines += [f"Not trusted: {_plain(evidence.distrust)}", ""]
        lines += ["| check | result |", "| :-: | :-: |"]
        why = []
        for row in rows(evidence):
            check = _plain(f"{row.plan['bug']} {row.plan['suite']} {row.plan['arch']}")
            lines.append(f"| {check} | {_RESULTS.get(row.word, 'failure')} |")
            if not row.trusted:
                continue
            if row.plan["not_run"]:
                why.append(f"- {check}: not run: {_plain(row.plan['not_run'])}")
            else:
                before, after = row.counts()
                why.append(f"- {check}: {row.word}: {_plain(before)}, {_plain(after)}")
        lines += ["", "<details>", "<summary>red, green and seconds</summary>", "", *why, "", "</details>", ""]
    return "\n".join(lines)


def files(evidences: Sequence[Evidence], page: Path) -> dict[Path, str | bytes]:
    """Return both, by their paths: beside a page, under its name unless that is the usual one."""
    stem = "" if page.name == NAME else f"{page.stem}."
    return {
        page.with_name(f"{stem}junit.xml"): junit(evidences),
        page.with_name(f"{stem}summary.md"): summary(evidences),
    }
