# SPDX-License-Identifier: GPL-2.0-only
"""The audit: which bugs does a tree have? Only source text is read, by the semantic patches in scripts/audit."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmendlib.host import files
from kmendlib.host.errors import ExitCode
from kmendlib.host.words import Word, visible
from kmendlib.tree import code, rules, series
from kmendlib.tree.config import Config
from kmendlib.tree.manifest import PATCHES, Bug, Finding
from kmendlib.tree.tree import Tree

# No source file of a kernel is larger.
_LARGEST = 16 << 20


class Status(Word):
    """What the audit says of a finding or a bug, the worst first."""

    AFFECTED = "affected", "the fault is in the source, and what makes it happen, too"
    UNKNOWN = "unknown", "no rule knows this code, or not all of it could be read"
    LATENT = "latent", "the fault is there, but nothing in this tree makes it happen"
    NOT_BUILT = "not built", "the configuration leaves the code out, whatever is in it"
    FIXED = "fixed", "the code is there, and sound"
    NOT_APPLICABLE = "not-applicable", "the tree has not got the code that could be at fault"


_ORDER = tuple(Status)
_STYLE = {
    Status.AFFECTED: "red",
    Status.UNKNOWN: "yellow",
    Status.LATENT: "yellow",
    Status.NOT_BUILT: "dim",
    Status.FIXED: "green",
    Status.NOT_APPLICABLE: "dim",
}


def worst(statuses: Iterable[Status]) -> Status:
    """Return the worst of one or more statuses."""
    return min(statuses, key=_ORDER.index)


@dataclass(frozen=True)
class Evidence:
    """Why a finding has its status.

    Attributes:
        file: path in the tree.
        line: the line, counted from 1; 0 if it is about the whole file.
        reason: one short phrase.
    """

    file: str
    line: int
    reason: str

    @property
    def place(self) -> str:
        """File and line as compilers print them."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class FindingAudit:
    """What the audit says of one finding.

    Attributes:
        id: as in the manifest.
        status: the worst of what the rule said.
        evidence: what it said.
        fix: the patches that `apply` would push, in order; empty if it would push none.
        covered: what it pushes for the findings above mends this one, too.
        unverified: those of them that are inferred, as nobody here could read a file which they change.
    """

    id: str
    status: Status
    evidence: tuple[Evidence, ...]
    fix: tuple[str, ...] = ()
    covered: bool = False
    unverified: tuple[str, ...] = ()

    @property
    def unfit(self) -> bool:
        """True if the finding is affected and no fix variant fits."""
        return self.status is Status.AFFECTED and not self.fix and not self.covered


@dataclass(frozen=True)
class BugAudit:
    """What the audit says of one bug."""

    bug: Bug
    findings: tuple[FindingAudit, ...]

    @property
    def id(self) -> str:
        """The bug's id."""
        return self.bug.id

    @property
    def status(self) -> Status:
        """The worst status of the findings."""
        return worst(finding.status for finding in self.findings)

    @property
    def patches(self) -> tuple[str, ...]:
        """The patches that `apply` would push for this bug, as paths below patches/."""
        return tuple(name for finding in self.findings for name in finding.fix)

    @property
    def unverified(self) -> tuple[str, ...]:
        """Those of the patches that are inferred in part."""
        return tuple(name for finding in self.findings for name in finding.unverified)


@dataclass(frozen=True)
class Audit:
    """What the audit says of a tree."""

    tree: Tree
    bugs: tuple[BugAudit, ...]

    @property
    def patches(self) -> tuple[str, ...]:
        """The patches that `apply` would push, in order, as paths below patches/."""
        return tuple(patch for bug in self.bugs for patch in bug.patches)

    @property
    def statuses(self) -> dict[str, Status]:
        """The status of every finding, by the finding's id."""
        return {finding.id: finding.status for bug in self.bugs for finding in bug.findings}

    def exit_code(self) -> ExitCode:
        """Return 1 if something is affected, else 4 if something is unknown, else 0."""
        statuses = {bug.status for bug in self.bugs}
        if Status.AFFECTED in statuses:
            return ExitCode.FAILED
        return ExitCode.NOTHING if Status.UNKNOWN in statuses else ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        """Return what `kmend audit --json` prints."""
        return {
            "tree": str(self.tree.path),
            "version": self.tree.version,
            "bugs": [
                {
                    "id": bug.id,
                    "status": str(bug.status),
                    "findings": [
                        {
                            "id": finding.id,
                            "status": str(finding.status),
                            "evidence": [
                                {"file": evidence.file, "line": evidence.line, "reason": evidence.reason}
                                for evidence in finding.evidence
                            ],
                        }
                        for finding in bug.findings
                    ],
                    "patches": list(bug.patches),
                }
                | ({"unverified": list(bug.unverified)} if bug.unverified else {})
                for bug in self.bugs
            ],
        }

    def to_text(self, *, colour: bool = False) -> str:
        """Return a table of all findings, plain where rich is not installed.

        Args:
            colour: colour the statuses with terminal codes.
        """
        return table([self], colour=colour)

    @property
    def name(self) -> str:
        """The tree's path and release."""
        return visible(f"{self.tree.path} ({self.tree.release})")


_Row = tuple[str, str, Status, list[tuple[str, str]], list[str]]


def table(audits: Sequence[Audit], *, colour: bool = False) -> str:
    """Return one table of all findings of one or more trees, plain where rich is not installed.

    Args:
        audits: what was said of each tree.
        colour: colour the statuses with terminal codes.
    """
    rows: list[_Row] = [
        (
            audit.name if (bug, finding) == (audit.bugs[0], audit.bugs[0].findings[0]) else "",
            finding.id,
            finding.status,
            [(visible(item.place), visible(item.reason)) for item in finding.evidence],
            [name + (" (unverified)" if name in finding.unverified else "") for name in finding.fix],
        )
        for audit in audits
        for bug in audit.bugs
        for finding in bug.findings
    ]
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return _plain(rows)
    several = len(audits) > 1
    heads = ["tree"] * several + ["finding", "status", "evidence"]
    title = None if several else Text(audits[0].name)
    made = Table(*heads, title=title, title_justify="left", box=SIMPLE_HEAD)
    made.show_edge = made.pad_edge = False
    for tree, id, status, evidence, fix in rows:
        lines = [f"{place}\n  {reason}" for place, reason in evidence] + [f"fix: {name}" for name in fix]
        made.add_row(*[Text(tree)] * several, Text(id), Text(status, style=_STYLE[status]), Text("\n".join(lines)))
    stream = io.StringIO()
    # Without a terminal: wide enough that no path or id is broken.
    width = shutil.get_terminal_size((140 + 60 * several, 24)).columns
    Console(file=stream, width=width, force_terminal=colour, no_color=not colour).print(made)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _plain(rows: Sequence[_Row]) -> str:
    lines = []
    for tree, id, status, evidence, fix in rows:
        lines += [tree] if tree else []
        lines.append(f"{id}  {status}")
        lines += [f"    {place}: {reason}" for place, reason in evidence]
        lines += [f"    fix: {name}" for name in fix]
    return "\n".join(lines)


def worst_code(audits: Iterable[Audit]) -> ExitCode:
    """Return 1 if something is affected in a tree, else 4 if something is unknown, else 0."""
    codes = {audit.exit_code() for audit in audits}
    return next((code for code in (ExitCode.FAILED, ExitCode.NOTHING) if code in codes), ExitCode.OK)


def audit(tree: Tree, bugs: Sequence[Bug], *, latent: bool = False, config: Config | None = None) -> Audit:
    """Judge `bugs` in `tree`; the tree is only read.

    Args:
        tree: the tree, or a part of one.
        bugs: what to look for, in manifest order.
        latent: choose fixes for what is latent as well, where one fits.
        config: what is built of the tree; everything by default.

    Raises:
        Infrastructure: Coccinelle or patch is missing or failed.
    """
    view = _View(tree)
    findings = [finding for bug in bugs for finding in bug.findings]
    # Most of the time is waiting for Coccinelle: of all rules at once, the first answers in the order of the bugs.
    with ThreadPoolExecutor(len(findings) + len(bugs) or 1) as pool:
        ahead = [pool.submit(_ask, view, finding) for finding in _each_rule(findings)]
        audits = list(pool.map(lambda bug: _judge_bug(view, bug, latent, config), bugs))
        for each in ahead:
            each.result()
    return Audit(tree, tuple(audits))


def _each_rule(findings: Sequence[Finding]) -> list[Finding]:
    """Return one finding of each rule with its files."""
    return list({(each.rule, each.context, each.files): each for each in findings}.values())


def _judge_bug(view: _View, bug: Bug, latent: bool, config: Config | None) -> BugAudit:
    chosen: list[Path] = []
    findings = []
    for finding in bug.findings:
        status, evidence = _judge(view, finding)
        fix: tuple[str, ...] = ()
        covered = False
        if status is Status.AFFECTED or (latent and status is Status.LATENT):
            # Another finding may have brought the first patches of a variant, or all.
            left = [[name for name in each if PATCHES / name not in chosen] for each in finding.fix]
            fitting = (each for each in left if _mends(view, finding, [*chosen, *_paths(each)]))
            names = next(fitting, None)
            covered = names == []
            fix = tuple(names or ())
            chosen += _paths(fix)
            if status is Status.AFFECTED and names is None:
                tried = ", ".join(finding.fix_patches)
                dos = view.dos(finding)
                lacks = _lacks(view, finding)
                reason = f"no fix can be tried without {lacks}" if lacks else f"no fix fits this code: {tried}"
                reason = "its lines end in CRLF, so no patch fits" if dos else reason
                evidence.append(Evidence(dos or evidence[0].file, 0, reason))
        option = config.lacks(rules.load(finding.rule).options) if config else ""
        if option and status is not Status.NOT_APPLICABLE:
            why = f"{option} is not set in {config.name}" if config else ""
            status, evidence = Status.NOT_BUILT, [Evidence(finding.files[0], 0, f"{why}; else {status}"), *evidence]
        unverified = tuple(name for name in fix if name in finding.unverified)
        findings.append(FindingAudit(finding.id, status, tuple(evidence), fix, covered, unverified))
    return BugAudit(bug, tuple(findings))


def _lacks(view: _View, finding: Finding) -> str:
    """Return a file that is not there, if each variant changes one such: of a part of a tree nobody knows what fits."""
    lacking = []
    for variant in finding.fix:
        names = [name for patch in _paths(variant) for name in series.touched_files(patch)]
        lacking.append(next((name for name in names if not view.get(name)), ""))
    return next(iter(lacking), "") if all(lacking) else ""


def _paths(names: Sequence[str]) -> list[Path]:
    return [PATCHES / name for name in names]


class _View:
    """A tree's files as rules read them, each read once; some of them may be replaced."""

    def __init__(self, tree: Tree, replaced: Mapping[str, rules.Source] | None = None) -> None:
        self.tree = tree
        self._sources: dict[str, rules.Source | OSError | None] = dict(replaced or {})

    def replace(self, replaced: Mapping[str, rules.Source]) -> _View:
        """Return the view with these files in it."""
        known = {name: each for name, each in self._sources.items() if isinstance(each, rules.Source)}
        return _View(self.tree, known | dict(replaced))

    def get(self, name: str) -> rules.Source | OSError | None:
        """Return a file, why it cannot be read, or None if there is none."""
        if name not in self._sources:
            path = self.tree.path / name
            try:
                self._sources[name] = rules.Source(files.read(path, _LARGEST)) if path.is_file() else None
            except OSError as error:
                self._sources[name] = error
        return self._sources[name]

    def source(self, name: str) -> rules.Source | None:
        """Return a file that can be read, or None."""
        found = self.get(name)
        return found if isinstance(found, rules.Source) else None

    def places(self, rule: rules.Rule, name: str) -> tuple[str, ...]:
        """Return the files in which the code is that is looked for in a file: itself, or others of its folder."""
        wanted = dict(rule.homes).get(name)
        source = self.source(name)
        if not wanted or (source and code.defines(source.text, wanted)):
            return (name,)
        folder = self.tree.path / name
        names = sorted(path.name for path in folder.parent.glob("*.c") if path != folder)
        others = [f"{name.rpartition('/')[0]}/{each}" for each in names]
        found = [each for each in others if self._defines(each, wanted)]
        return tuple(([name] if source else []) + found) or (name,)

    def _defines(self, name: str, functions: Sequence[str]) -> bool:
        source = self.source(name)
        return bool(source and code.defines(source.text, functions))

    def dos(self, finding: Finding) -> str:
        """Return a file of a finding with CRLF, or ""."""
        there = ((name, self.source(name)) for name in (*finding.files, *finding.context))
        return next((name for name, source in there if source and source.dos), "")

    @property
    def whole(self) -> bool:
        """True for a full tree: of a part of one nobody knows what else there is."""
        return bool(self.tree.version) or (self.tree.path / "init/main.c").is_file()


def _mends(view: _View, finding: Finding, patches: Sequence[Path]) -> bool:
    """Return whether `patches` apply without fuzz and the finding is then fixed; the tree is only read."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        try:
            names = series.materialize(view.tree.path, patches, Path(folder).resolve())
        except series.DoesNotFit:
            return False
        mended = view.replace({name: rules.Source(Path(folder, name).read_bytes()) for name in names})
    return _judge(mended, finding)[0] is Status.FIXED


def _files(view: _View, rule: rules.Rule, names: Iterable[str]) -> dict[str, rules.Source]:
    """Return the files that are there, by the names that they have."""
    there = [place for name in names for place in view.places(rule, name)]
    return {name: source for name in there if (source := view.source(name))}


_NOTHING = rules.Answer((), {}, {})


def _ask(view: _View, finding: Finding) -> tuple[rules.Answer, str]:
    """Return what is known of a finding's files, or why Coccinelle said nothing."""
    rule = rules.load(finding.rule)
    # One run for all files: a rule may have to know of one what it needs to judge another.
    files = _files(view, rule, (*finding.context, *finding.files))
    if not files or any(source.pointer for source in files.values()):
        return _NOTHING, ""
    try:
        return rules.ask(rule, files, finding.symbol), ""
    except rules.Refused as error:
        return _NOTHING, f"Coccinelle cannot read it: {error}"


def _judge(view: _View, finding: Finding) -> tuple[Status, list[Evidence]]:
    rule = rules.load(finding.rule)
    files = _files(view, rule, (*finding.context, *finding.files))
    pointers = [name for name, source in files.items() if source.pointer]
    if pointers:
        reason = "a Git LFS pointer in the place of the source: git lfs pull brings it"
        return Status.UNKNOWN, [Evidence(name, 0, reason) for name in pointers]
    answer, refused = _ask(view, finding)
    lines = [item for item in answer.said if item.finding == finding.id]
    verdicts = []
    for name in finding.files:
        # Code that has gone to another file of the folder is judged there.
        for place in view.places(rule, name):
            verdicts += _judge_file(view, finding, place, refused, answer, lines)
    for name in finding.context:
        for place in view.places(rule, name):
            verdicts += _statuses(place, lines) + _torn(place, answer)
    status = worst(status for status, _ in verdicts)
    # What speaks for a better status does not explain the finding's.
    return status, list(dict.fromkeys(evidence for verdict, evidence in verdicts if verdict is status))


def _statuses(name: str, lines: Sequence[rules.Said]) -> list[tuple[Status, Evidence]]:
    here = sorted(item for item in lines if item.file == name)
    return [(Status(item.status), Evidence(name, item.line, item.reason)) for item in here if item.status != "seen"]


def _torn(name: str, answer: rules.Answer) -> list[tuple[Status, Evidence]]:
    return [(Status.UNKNOWN, Evidence(name, *answer.torn[name]))] if name in answer.torn else []


def _judge_file(
    view: _View, finding: Finding, name: str, refused: str, answer: rules.Answer, lines: Sequence[rules.Said]
) -> list[tuple[Status, Evidence]]:
    rule = rules.load(finding.rule)

    def no_shape(reason: str) -> list[tuple[Status, Evidence]]:
        for each in finding.files if rule.older else ():
            source = view.source(each)
            word = rule.older.search(source.clean) if rule.older and source else None
            if word:
                return [(Status.NOT_APPLICABLE, Evidence(each, 0, f"{word[0]} is of before the code in question"))]
        return [(Status.UNKNOWN, Evidence(name, 0, reason))]

    source = view.get(name)
    if source is None:
        # A full tree without the folder has not got the feature.
        missing = [each for each in (view.tree.path / name).parents if not each.exists()]
        if view.whole and missing and missing[-1].parent != view.tree.path:
            reason = f"no {missing[-1].relative_to(view.tree.path)} in this tree"
            return [(Status.NOT_APPLICABLE, Evidence(name, 0, reason))]
        return no_shape("the file is not there")
    if isinstance(source, OSError):
        return [(Status.UNKNOWN, Evidence(name, 0, f"cannot be read: {source.strerror}"))]
    if refused:
        return [(Status.UNKNOWN, Evidence(name, 0, refused))]
    # What was read of code that is not whole is not what is there.
    verdicts = _torn(name, answer) or _statuses(name, lines)
    if finding.symbol:
        judged = {(item.line, item.column) for item in lines if item.file == name}
        lost = [line for line, column in answer.uses.get(name, ()) if (line, column) not in judged]
        # Coccinelle passes over what it cannot parse: such a use may hide anything.
        reason = f"a use of {finding.symbol} that cannot be parsed"
        verdicts += [(Status.UNKNOWN, Evidence(name, line, reason)) for line in lost]
    return verdicts or no_shape(f"no code shape that {finding.rule.name} knows")
