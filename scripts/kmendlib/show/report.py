# SPDX-License-Identifier: GPL-2.0-only
"""Renders evidence: the summary table, the runs that went wrong, and the exit code that follows."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmendlib.host.errors import ExitCode
from kmendlib.host.words import Outcome, visible
from kmendlib.proof.evidence import Evidence, plan_key
from kmendlib.proof.ktap import Verdict

# On the unfixed kernel these show the bug; no result at all does not.
_HITS = {Verdict.FAIL, Verdict.PANIC, Verdict.TIMEOUT}

_STYLE = {
    Outcome.PROVED: "green",
    Outcome.PASS: "green",
    Outcome.SKIP: "yellow",
    Outcome.NOT_RUN: "yellow",
    Outcome.NOT_PROVED: "red",
    Outcome.ERROR: "red",
    Outcome.NOT_TRUSTED: "red",
}


@dataclass(frozen=True)
class Row:
    """One suite of one bug on one architecture.

    Attributes:
        plan: the row of the plan: bug, arch, suite, kind, proof cases, wanted boots, not_run.
        before: the boots of the unfixed kernel.
        after: the boots of the mended kernel.
        broken: first error of a build that did not come about, else empty.
        trusted: whether the evidence is as the run left it; else nothing of it is a pass.
    """

    plan: dict[str, Any]
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    broken: str
    trusted: bool = True

    def red(self, test: dict[str, Any]) -> bool:
        """Tell whether a boot of the unfixed kernel showed the bug."""
        if self.plan["proof"]:
            return all(test["misc"]["cases"].get(case) == "FAIL" for case in self.plan["proof"])
        return Verdict(test["misc"]["verdict"]) in _HITS

    def green(self, test: dict[str, Any]) -> bool:
        """Tell whether a boot of the mended kernel passed, its proving cases among what passed."""
        cases = test["misc"]["cases"]
        return test["misc"]["verdict"] == Verdict.PASS and all(cases.get(case) == "PASS" for case in self.plan["proof"])

    @property
    def control(self) -> bool:
        """Tell whether the architecture does not have the bug: then there is no before."""
        return bool(self.plan.get("control"))

    @property
    def skipped(self) -> bool:
        """Tell whether each after said that it cannot run here."""
        return bool(self.after) and {Verdict(test["misc"]["verdict"]) for test in self.after} == {Verdict.SKIP}

    @property
    def proved(self) -> bool:
        """Every boot asked for was run; each after is green and, where the suite has a proof, each before is red."""
        boots = self.plan["boots"]
        return (
            self.trusted
            and not self.broken
            and len(self.after) == boots > 0
            and len(self.before) == (0 if self.control else boots)
            and all(map(self.green, self.after))
            and (all(map(self.red, self.before)) if self.plan["proof"] else not any(map(_no_result, self.before)))
        )

    def problem(self) -> ExitCode:
        """Return the exit code that this row asks for."""
        if not self.trusted:
            return ExitCode.USAGE
        if self.proved or (self.control and self.skipped):
            return ExitCode.OK
        if self.broken:
            return ExitCode.INFRASTRUCTURE
        after = {Verdict(test["misc"]["verdict"]) for test in self.after}
        before = {Verdict(test["misc"]["verdict"]) for test in self.before}
        if Verdict.PANIC in after:
            return ExitCode.PANIC
        if Verdict.ERROR in after | before:
            return ExitCode.INFRASTRUCTURE
        if Verdict.TIMEOUT in after:
            return ExitCode.TIMEOUT
        if self.skipped:
            return ExitCode.NOTHING
        return ExitCode.FAILED

    @property
    def word(self) -> Outcome:
        """Say in a word what came of it."""
        if not self.trusted:
            return Outcome.NOT_TRUSTED
        if self.plan["not_run"]:
            return Outcome.NOT_RUN
        if self.proved:
            return Outcome.PROVED if self.plan["proof"] else Outcome.PASS
        if self.skipped and self.problem() in (ExitCode.NOTHING, ExitCode.OK):
            return Outcome.SKIP
        return Outcome.ERROR if self.broken else Outcome.NOT_PROVED

    def counts(self) -> tuple[str, str]:
        """Say how many boots of each state came out as they must, and in what time."""
        before = "control" if self.control else _cell(self.before, self.red, "red" if self.plan["proof"] else "hit")
        return before, _cell(self.after, self.green, "green")

    def wrong(self, state: str) -> list[dict[str, Any]]:
        """Return the boots of a state that did not come out as they must."""
        if state == "after":
            return [test for test in self.after if not self.green(test)]
        if self.control:
            return []
        # A race that was not won is no trouble.
        return [test for test in self.before if (not self.red(test) if self.plan["proof"] else _no_result(test))]


def _no_result(test: dict[str, Any]) -> bool:
    return Verdict(test["misc"]["verdict"]) in (Verdict.MISS, Verdict.ERROR)


def rows(evidence: Evidence) -> list[Row]:
    """Group the evidence's tests by the rows of its plan."""
    found = []
    by_row: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for test in evidence.tests:
        by_row.setdefault(plan_key(test["misc"]), []).append(test)
    for plan in evidence.checkout["misc"]["plan"]:
        mine = by_row.get(plan_key(plan), [])
        broken = [
            build.get("log_excerpt") or "no reason given"
            for build in evidence.builds
            if build["architecture"] == plan["arch"] and build["status"] != "PASS"
        ]
        by_state = {state: [t for t in mine if t["misc"]["state"] == state] for state in ("before", "after")}
        first = broken[0] if broken else ""
        found.append(Row(plan, by_state["before"], by_state["after"], first, not evidence.distrust))
    return found


def exit_code(evidence: Evidence) -> ExitCode:
    """Return the exit code of a run: the gravest of its rows, or that nothing was run, or cannot be trusted."""
    if evidence.distrust:
        return ExitCode.USAGE
    ran = [row for row in rows(evidence) if not row.plan["not_run"]]
    if not ran:
        return ExitCode.NOTHING
    return gravest(row.problem() for row in ran)


def gravest(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the gravest of some exit codes."""
    found = set(codes)
    order = (
        ExitCode.USAGE,
        ExitCode.PANIC,
        ExitCode.TIMEOUT,
        ExitCode.INFRASTRUCTURE,
        ExitCode.FAILED,
        ExitCode.NOTHING,
    )
    return next((code for code in order if code in found), ExitCode.OK)


def _cell(tests: Sequence[dict[str, Any]], good: Callable[[dict[str, Any]], bool], word: str) -> str:
    if not tests:
        return "no boot"
    count = sum(map(good, tests))
    times = [t["misc"]["ktap_seconds"] for t in tests if t["misc"]["ktap_seconds"] is not None]
    seconds = f" {max(times):.1f}s" if times else ""
    # A race that was not won is no trouble; anything else but what was wanted is named.
    others = sorted({t["misc"]["verdict"] for t in tests if not good(t)} - ({Verdict.PASS} if word == "hit" else set()))
    return f"{word} {count}/{len(tests)}{seconds}" + (f" ({', '.join(others)})" if others else "")


def print_report(evidence: Evidence, console: Console | None = None) -> None:
    """Print the summary table, then each run that did not give the verdict it must with its last lines.

    Args:
        evidence: the run's evidence.
        console: where to; by default standard output, where a file or pipe has lines of 100 columns.
    """
    console = console or Console(width=None if sys.stdout.isatty() else 100)
    checkout = evidence.checkout
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        title=Text(visible(checkout["comment"])),
        title_justify="left",
    )
    for name in ("bug", "arch", "suite", "before", "after", "result"):
        table.add_column(name, overflow="fold")
    notes: list[str] = []
    for row in rows(evidence):
        plan = row.plan
        head = [Text(visible(plan[name])) for name in ("bug", "arch", "suite")]
        if evidence.distrust:
            table.add_row(*head, "-", "-", Text(row.word, _STYLE[row.word]))
            continue
        if plan["not_run"]:
            table.add_row(*head, "-", "-", Text(row.word, _STYLE[row.word]))
            note = f"{plan['bug']} on {plan['arch']}: not run: {plan['not_run']}"
            notes += [] if note in notes else [note]
            continue
        said = [f"{plan['bug']}: not in this tree: shown with {name} on it" for name in plan.get("testbed", ())]
        notes += [note for note in [*said, *plan.get("left_out", ())] if note not in notes]
        table.add_row(*head, *map(Text, row.counts()), Text(row.word, _STYLE[row.word]))
        if not row.proved:
            notes += _explain(row)
    if evidence.distrust:
        notes.append(f"not trusted: {evidence.distrust}")
    console.print(table)
    for note in notes:
        console.print(visible(note), markup=False, highlight=False, soft_wrap=True)
    console.print(f"evidence: {visible(str(evidence.folder))}", markup=False, highlight=False, soft_wrap=True)


def _explain(row: Row) -> list[str]:
    where = f"{row.plan['bug']} on {row.plan['arch']}, {row.plan['suite']}"
    if row.broken:
        return [f"{where}: no kernel: {row.broken}"]
    if row.control and row.skipped:
        return [f"{where}: skipped: {row.after[0]['misc']['reason']}"]
    lines = []
    for state, tests in (("before", row.before), ("after", row.after)):
        if state == "before" and row.control:
            continue
        wrong = row.wrong(state)
        if wrong:
            misc = wrong[0]["misc"]
            word = "red" if state == "before" else "green"
            lines.append(f"{where}: {state} not {word} in {len(wrong)} of {len(tests)} boots")
            lines.append(f"  {misc['verdict']}: {misc['reason'] or 'every case passed'} ({wrong[0]['log_url']})")
            lines += [f"  | {line}" for line in wrong[0]["log_excerpt"].splitlines()[-12:]]
        if len(tests) < row.plan["boots"]:
            lines.append(f"{where}: {state}: {len(tests)} of {row.plan['boots']} boots were run")
    return lines
