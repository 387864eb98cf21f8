# SPDX-License-Identifier: GPL-2.0-only
"""The summary table of a run, and what went wrong below it: scripts/templates/notes.txt.j2, filled from here."""

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmendlib.host.text import template
from kmendlib.host.words import Has, Outcome, Verdict, visible
from kmendlib.proof.evidence import Evidence
from kmendlib.run import Found, Proof, RaceEnd, Run
from kmendlib.tree import manifest

_STYLE: dict[str, str] = dict.fromkeys((Outcome.PROVED, Outcome.PASS), "green")
_STYLE |= dict.fromkeys((Outcome.SKIP, Outcome.NOT_RUN), "yellow")
_WIDEST = max(len(finding.id) for bug in manifest.load().bugs for finding in bug.findings)
_STYLE |= {Has.HAS: "red", Has.CANNOT_TELL: "yellow", Has.FREE: "green", Has.NOT_IN: "dim"}


def counts(proof: Proof) -> list[str]:
    """Say how many boots of each state came out as they must, and in what time; nothing where none were to be run."""
    if not proof.trusted or proof.row.not_run:
        return []
    if proof.row.shipped:
        return [f"{each.finding}: {each.has}: {each.why}" for each in proof.found]
    red, green = ("broken", "held") if proof.row.race else ("red" if proof.row.proof else "hit", "green")
    before = "control" if proof.row.control else _count(proof, "before", red)
    return [before, _count(proof, "after", green)]


def _count(proof: Proof, state: str, word: str) -> str:
    results = proof.of(state)
    if not results:
        return "no boot"
    good = [result for result in results if (result.green if state == "after" else result.red)]
    races = [result.forced for result in results if result.forced]
    # Of a race what counts is how long it took once somebody came to it.
    times = [race.seconds for race in races]
    times += [time for result in results if not races and (time := result.ending.ktap_seconds) is not None]
    seconds = f" {max(times):.1f}s" if times else ""
    # A race that was not won is no trouble; anything else but what was wanted is named.
    expected = {Verdict.PASS} if word == "hit" else set()
    others = sorted({result.verdict for result in results if result not in good} - expected)
    said = f"{word} {len(good)}/{len(results)}{seconds}" + (f" ({', '.join(others)})" if others else "")
    seeds = [result.seed for result in good if result.seed]
    if word == "hit" and len(results) > 1 and seeds:
        said += f",\nseed{'s' if seeds[1:] else ''} {', '.join(seeds)}"
    if not any(race.end is RaceEnd.BROKEN for race in races):
        return said
    return f"{said},\nas reported {sum(race.reported for race in races)}/{len(races)}"


def _found(run: Run, table: Table) -> None:
    """Fill the table of a kernel as it was shipped: what it has of each finding."""
    for name, width in (("finding", _WIDEST), ("verdict", 11), ("s", 3)):
        table.add_column(name, no_wrap=True, min_width=width)
    table.add_column("why", overflow="fold")
    for each in run.found:
        seconds = "" if each.seconds is None else f"{each.seconds:3.0f}"
        table.add_row(visible(each.finding), Text(each.has, _STYLE[each.has]), seconds, Text(visible(each.why)))


def found(evidences: Sequence[Evidence]) -> dict[str, list[Found | None]]:
    """Return what kernels as they were shipped have, by finding: one entry for each kernel."""
    kernels = [{each.finding: each for each in evidence.run.found} for evidence in evidences if evidence.run.shipped]
    ids = dict.fromkeys(id for kernel in kernels for id in kernel)
    return {id: [kernel.get(id) for kernel in kernels] for id in ids}


def _compared(evidences: Sequence[Evidence], table: Table) -> None:
    """Fill the table of several kernels as they were shipped, with those findings that were decided for one."""
    decided = {
        id: each for id, each in found(evidences).items() if any(one and one.has in (Has.HAS, Has.FREE) for one in each)
    }
    table.add_column("kernel", overflow="fold")
    for id in decided:
        table.add_column(id.partition("/")[2], overflow="fold")
    for number, evidence in enumerate(evidences):
        words = [one.has if (one := each[number]) else Has.NOT_IN for each in decided.values()]
        table.add_row(visible(evidence.run.tree), *(Text(word, _STYLE[word]) for word in words))


def print_reports(evidences: Sequence[Evidence]) -> None:
    """Print what `try` saw: one kernel's table, or that of several, and what went wrong in each.

    Args:
        evidences: the evidence of each kernel.
    """
    if len(evidences) == 1:
        print_report(evidences[0])
        return
    console = Console(width=None if sys.stdout.isatty() else 100)
    table = _table(f"{len(evidences)} kernels")
    _compared(evidences, table)
    console.print(table)
    for evidence in evidences:
        console.print(f"\n{visible(evidence.run.title)}", markup=False, highlight=False, soft_wrap=True)
        _notes(evidence, console)


def print_report(evidence: Evidence, console: Console | None = None) -> None:
    """Print the summary table, then each run that did not give the verdict it must with its last lines.

    Args:
        evidence: the run's evidence.
        console: where to; by default standard output, where a file or pipe has lines of 100 columns.
    """
    console = console or Console(width=None if sys.stdout.isatty() else 100)
    table = _table(visible(evidence.run.title))
    if evidence.run.shipped:
        _found(evidence.run, table)
    for name in ("bug", "arch", "suite", "before", "after", "result") if not evidence.run.shipped else ():
        table.add_column(name, overflow="fold")
    for proof in evidence.run.proofs if not evidence.run.shipped else ():
        cells = [proof.row.bug, proof.row.arch, proof.row.suite, *(counts(proof) or ["-", "-"])]
        style = _STYLE.get(proof.outcome, "red")
        table.add_row(*(Text(visible(cell)) for cell in cells), Text(proof.outcome, style))
    console.print(table)
    _notes(evidence, console)


def _table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.title, table.title_justify = Text(title, "table.title"), "left"
    return table


def _notes(evidence: Evidence, console: Console) -> None:
    notes = template("notes.txt.j2").render(run=evidence.run, folder=evidence.folder)
    console.print(notes, end="", markup=False, highlight=False, soft_wrap=True)
