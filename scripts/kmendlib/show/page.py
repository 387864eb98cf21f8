# SPDX-License-Identifier: GPL-2.0-only
"""Renders evidence as one HTML page that needs nothing else: scripts/templates/report.html.j2, filled from here."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmendlib.host import files
from kmendlib.host.files import digest
from kmendlib.host.text import template
from kmendlib.host.words import Has, Outcome
from kmendlib.proof import ktap
from kmendlib.proof.evidence import Evidence, inside
from kmendlib.run import STATES, BootResult, Proof, Run
from kmendlib.show import timeline
from kmendlib.show.report import counts, found
from kmendlib.show.timeline import Timeline
from kmendlib.tree import manifest

NAME = "report.html"

# What is shown of a console: so much of its end is read, so many lines of that, and so much of a line.
_READ = 256 * 1024
_BEFORE, _AFTER, _LAST = 6, 8, 12
_LINE = 400
# Further limits against evidence without end.
_BOOTS = 10
_PATCH_LINES = 1500

_TONES: dict[str, str] = {
    **{Outcome.PROVED: "good", Outcome.PASS: "good", Outcome.SKIP: "idle", Outcome.NOT_RUN: "idle"},
    **{Has.HAS: "bad", Has.CANNOT_TELL: "warn", Has.FREE: "good", Has.NOT_IN: "idle"},
    **{"affected": "bad", "unknown": "warn", "latent": "warn", "fixed": "good", "not-applicable": "idle"},
}
_MARKS = {"good": "✔", "bad": "✘", "idle": "○", "warn": "▲"}


@dataclass(frozen=True)
class Line:
    """A line as it is shown: its number or 0, its text, and what it is, which is a class of the style sheet, too."""

    number: int
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Excerpt:
    """Lines of a file of the evidence.

    Attributes:
        lines: the lines; of a console the telling one is marked, and ``gap`` ones say how many were left out.
        size: of the file in bytes, where only its end was read, else 0.
        left: how many lines more there are.
        missing: whether the file is not in the folder.
    """

    lines: list[Line]
    size: int = 0
    left: int = 0
    missing: bool = False


def _cut(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[:_LINE]} … {len(text) - _LINE} characters more"


def _end_of(path: Path) -> tuple[list[str], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _READ, 0))
        text = file.read(_READ).decode(errors="replace")
    lines = [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
    return (lines, 0) if size <= _READ else (lines[1:] or lines, size)


def console(folder: Path, name: str | Path, excerpt: str, reason: str = "") -> Excerpt:
    """Choose the lines of a console to show.

    Args:
        folder: the evidence folder.
        name: the log's path in it.
        excerpt: what results.json has of it, where the log is not there.
        reason: why the boot has its verdict; often it quotes the telling line.
    """
    path = inside(folder, str(name))
    lines, size = _end_of(path) if path else (excerpt.split("\n"), 0)
    told = [number for number, line in enumerate(lines) if len(line.strip()) > 8 and line.strip() in reason]
    mark = told[0] if told else ktap.telling(lines)
    if mark is None:
        # The guest went silent, or ended: the last thing that it said.
        mark = next((number for number in reversed(range(len(lines))) if lines[number].strip()), 0)
    shown = set(range(mark - _BEFORE, mark + _AFTER + 1)) | set(range(len(lines) - _LAST, len(lines)))
    found: list[Line] = []
    last = -1
    for number in sorted(number for number in shown if 0 <= number < len(lines)):
        if number > last + 1:
            found.append(Line(number - last - 1, "", "gap"))
        # Without the log's beginning nobody knows the lines' numbers.
        known = number + 1 if path and not size else 0
        found.append(Line(known, _cut(lines[number]), "mark" if number == mark else ""))
        last = number
    return Excerpt(found, size, missing=path is None)


def diff(text: str) -> list[Line]:
    """Tell the lines of a patch apart: ``log``, ``meta``, ``hunk``, ``add``, ``del`` and context."""
    found = []
    body = False
    for line in text.rstrip("\n").split("\n"):
        body = body or line.startswith(("diff --git ", "--- a/", "Index: "))
        kind = "log"
        if body:
            kind = {"+": "add", "-": "del", "@": "hunk", " ": "", "": ""}.get(line[:1], "meta")
            if line.startswith(("--- ", "+++ ")) or line == "-- ":
                kind = "meta"
        found.append(Line(0, _cut(line), kind))
    return found


def source(place: Mapping[str, Any]) -> list[Line]:
    """Return the source around a place that the audit names, which is marked."""
    numbered = enumerate(place["source"]["lines"], place["source"]["first"])
    return [Line(number, text, "mark" if number == place["line"] else "") for number, text in numbered]


def series(folder: Path, bug: str) -> dict[str, list[str]]:
    """Return the names of a bug's patches, by state."""
    found = {}
    for state in STATES:
        path = inside(folder, f"patches/{state}/series")
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = files.read_text(path, _READ, errors="replace").splitlines() if path else []
        found[state] = [name for name in names if name.partition("/")[0] == bug]
    return found


def patch(folder: Path, state: str, name: str) -> Excerpt:
    """Return the lines of one of a state's patches."""
    path = inside(folder, f"patches/{state}/{name}")
    if not path:
        return Excerpt([], missing=True)
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        lines = diff(file.read(_PATCH_LINES * 200))
    return Excerpt(lines[:_PATCH_LINES], left=max(len(lines) - _PATCH_LINES, 0))


def digest_of(folder: Path, name: str) -> str:
    """Return the SHA-256 of a file of the evidence, or that there is none."""
    path = inside(folder, name)
    return digest(path) if path else "none"


def of_status(evidence: Evidence, status: str) -> dict[str, list[str]]:
    """Return the bugs of a status, and the names of their findings of that status."""
    bugs = evidence.audit["bugs"] if evidence.audit and not evidence.run.distrust else ()
    return {
        bug["id"]: [each["id"].partition("/")[2] for each in bug["findings"] if each["status"] == status]
        for bug in bugs
        if bug["status"] == status
    }


def proved(run: Run) -> dict[str, list[str]]:
    """Return the bugs with a proof, and the architectures on which nothing spoke against it."""
    words: dict[str, dict[str, set[str]]] = {}
    for proof in run.proofs:
        words.setdefault(proof.row.bug, {}).setdefault(proof.row.arch, set()).add(proof.outcome)
    found = {
        bug: [arch for arch, here in arches.items() if Outcome.PROVED in here and here <= _TONES.keys()]
        for bug, arches in words.items()
    }
    return {bug: arches for bug, arches in found.items() if arches}


def not_proved(run: Run) -> dict[tuple[str, str, str], list[str]]:
    """Return the suites that were run and did not come out as they must, by bug, architecture and outcome."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for proof in run.proofs:
        if proof.trusted and proof.outcome not in _TONES:
            found.setdefault((proof.row.bug, proof.row.arch, proof.outcome), []).append(proof.row.suite)
    return found


def left_out(run: Run) -> dict[tuple[str, str, str], list[str]]:
    """Return what could not be run or shown: the architectures by bug, suite if it is about one, and the reason."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for proof in run.proofs if not run.distrust and not run.shipped else ():
        row = proof.row
        why = [("", reason) for reason in ([row.not_run] if row.not_run else row.left_out)]
        if proof.outcome is Outcome.SKIP:
            why.append((row.suite, proof.of("after")[0].judged.reason))
        for suite, reason in why:
            found.setdefault((row.bug, suite, reason), []).append(row.arch)
    return {key: list(dict.fromkeys(where)) for key, where in found.items()}


def matrix(runs: Sequence[Run], bug: str) -> dict[tuple[str, str], dict[tuple[str, int], Proof]]:
    """Return what came of a bug: by suite and kind, then by architecture and the run's number."""
    found: dict[tuple[str, str], dict[tuple[str, int], Proof]] = {}
    for number, run in enumerate(runs):
        for proof in run.proofs:
            if proof.row.bug == bug:
                found.setdefault((proof.row.suite, proof.row.kind), {})[proof.row.arch, number] = proof
    return found


def forced(run: Run, bug: str) -> dict[tuple[str, str], dict[str, BootResult]]:
    """Return the first boot of each state in which a race was forced, by finding and architecture."""
    found: dict[tuple[str, str], dict[str, BootResult]] = {}
    for result in reversed(run.results if not run.distrust else ()):
        if result.forced and result.row.bug == bug:
            found.setdefault((result.row.race, result.row.arch), {})[result.state] = result
    return {key: found[key] for key in sorted(found)}


def figure(line: Timeline) -> str:
    """Return a timeline as HTML: drawn, and as text."""
    return str(template("timeline.html.j2").module.figure(line))


def render(evidences: Sequence[Evidence]) -> str:
    """Return the page as HTML."""
    runs = [evidence.run for evidence in evidences]
    bugs = list(dict.fromkeys(bug for run in runs for bug in run.bugs))
    text: str = template("report.html.j2").render(
        evidences=evidences,
        arches=list(dict.fromkeys(arch for run in runs for arch in run.arches)),
        titles={bug.id: bug.title for bug in manifest.load().bugs},
        timelines={bug: timeline.timelines(bug) for bug in bugs},
        matrices={bug: matrix(runs, bug) for bug in bugs},
        tones=_TONES,
        marks=_MARKS,
        most=_BOOTS,
        read=_READ,
        **{each.__name__: each for each in (console, counts, digest_of, patch, series, source)},
        **{each.__name__: each for each in (of_status, proved, not_proved, left_out, found, forced)},
    )
    return text
