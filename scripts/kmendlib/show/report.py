# SPDX-License-Identifier: GPL-2.0-only
"""The summary table of a run, and what went wrong below it: scripts/templates/notes.txt.j2, filled from here."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmendlib.host.words import Outcome, Verdict, visible
from kmendlib.proof.evidence import Evidence
from kmendlib.run import Proof, RaceEnd
from kmendlib.host.text import template

_STYLE = {Outcome.PROVED: "green", Outcome.PASS: "green", Outcome.SKIP: "yellow", Outcome.NOT_RUN: "yellow"}


def counts(proof: Proof) -> list[str]:
    """Say how many boots of each state came out as they must, and in what time; nothing where none were to be run."""
    if not proof.trusted or proof.row.not_run:
        return []
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
    if not any(race.end is RaceEnd.BROKEN for race in races):
        return said
    return f"{said},\nas reported {sum(race.reported for race in races)}/{len(races)}"


def print_report(evidence: Evidence, console: Console | None = None) -> None:
    """Print the summary table, then each run that did not give the verdict it must with its last lines.

    Args:
        evidence: the run's evidence.
        console: where to; by default standard output, where a file or pipe has lines of 100 columns.
    """
    console = console or Console(width=None if sys.stdout.isatty() else 100)
    title = Text(visible(evidence.run.title), "table.title")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, title=title)
    table.title_justify = "left"
    for name in ("bug", "arch", "suite", "before", "after", "result"):
        table.add_column(name, overflow="fold")
    for proof in evidence.run.proofs:
        cells = [proof.row.bug, proof.row.arch, proof.row.suite, *(counts(proof) or ["-", "-"])]
        style = _STYLE.get(proof.outcome, "red")
        table.add_row(*(Text(visible(cell)) for cell in cells), Text(proof.outcome, style))
    console.print(table)
    notes = template("notes.txt.j2").render(run=evidence.run, folder=evidence.folder)
    console.print(notes, end="", markup=False, highlight=False, soft_wrap=True)
