# SPDX-License-Identifier: GPL-2.0-only
"""The audit: which bugs does a tree have? Only source text is read, by the semantic patches in scripts/audit."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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


# What a kernel calls its files, of which Coccinelle gets a list.
_PLAIN = re.compile(r"[\w.+-]+")
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

    def lines(self, apart: str) -> list[str]:
        """Return what says why, and what mends it; `apart` stands between a place and what is there."""
        why = [visible(f"{item.place}{apart}{item.reason}") for item in self.evidence]
        return why + [f"fix: {name}{' (unverified)' if name in self.unverified else ''}" for name in self.fix]


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
    def findings(self) -> tuple[FindingAudit, ...]:
        """The findings of all bugs."""
        return tuple(finding for bug in self.bugs for finding in bug.findings)

    @property
    def statuses(self) -> dict[str, Status]:
        """The status of every finding, by the finding's id."""
        return {finding.id: finding.status for finding in self.findings}

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
                            "evidence": [asdict(evidence) for evidence in finding.evidence],
                        }
                        for finding in bug.findings
                    ],
                    "patches": list(bug.patches),
                }
                | ({"unverified": list(bug.unverified)} if bug.unverified else {})
                for bug in self.bugs
            ],
        }

    @property
    def name(self) -> str:
        """The tree's path and release."""
        return visible(f"{self.tree.path} ({self.tree.release})")


def table(audits: Sequence[Audit], *, colour: bool = False) -> str:
    """Return one table of all findings of one or more trees, plain where rich is not installed.

    Args:
        audits: what was said of each tree.
        colour: colour the statuses with terminal codes.
    """
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return "\n".join(line for audit in audits for line in _plain(audit))
    several = len(audits) > 1
    heads = ["tree"] * several + ["finding", "status", "evidence"]
    title = None if several else Text(audits[0].name)
    made = Table(*heads, title=title, title_justify="left", box=SIMPLE_HEAD)
    made.show_edge = made.pad_edge = False
    for audit in audits:
        trees = [Text(audit.name)] * several
        for finding in audit.findings:
            status, lines = Text(finding.status, style=_STYLE[finding.status]), finding.lines("\n  ")
            made.add_row(*trees, Text(finding.id), status, Text("\n".join(lines)))
            trees = [Text("")] * several
    stream = io.StringIO()
    # Without a terminal: wide enough that no path or id is broken.
    width = shutil.get_terminal_size((140 + 60 * several, 24)).columns
    Console(file=stream, width=width, force_terminal=colour, no_color=not colour).print(made)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _plain(audit: Audit) -> Iterator[str]:
    yield audit.name
    for finding in audit.findings:
        yield f"{finding.id}  {finding.status}"
        yield from (f"    {line}" for line in finding.lines(": "))


def worst_code(audits: Iterable[Audit]) -> ExitCode:
    """Return 1 if something is affected in a tree, else 4 if something is unknown, else 0."""
    found = {bug.status for audit in audits for bug in audit.bugs}
    if Status.AFFECTED in found:
        return ExitCode.FAILED
    return ExitCode.NOTHING if Status.UNKNOWN in found else ExitCode.OK


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
    # All rules at once, and then all that tells whether a fix mends what they found.
    rules.prepare(_question(view, finding) for bug in bugs for finding in bug.findings)
    judged = {finding.id: _judge(view, finding) for bug in bugs for finding in bug.findings}
    bad = {Status.AFFECTED, Status.LATENT} if latent else {Status.AFFECTED}
    fixes = [_fixes(view, [each for each in bug.findings if judged[each.id][0] in bad]) for bug in bugs]
    rules.prepare(_question(mended, finding) for mended, tried in fixes for finding, _ in tried)
    each = zip(bugs, fixes, strict=True)
    return Audit(tree, tuple(_judge_bug(view, bug, judged, *tried, bad, config) for bug, tried in each))


_Judged = tuple[Status, list[Evidence]]
# For each finding a variant of its fix, less what the findings before it bring; None if no variant fits.
_Fixes = list[tuple[Finding, tuple[str, ...] | None]]


def _variants(finding: Finding, chosen: Sequence[str]) -> list[tuple[str, ...]]:
    """Return what may mend a finding: others may have brought its first patches, or all, or the tree has them.

    A variant is taken whole before any is gone on with: the last patches of two series may be the same.
    """
    left = [tuple(name for name in names if name not in chosen) for names in finding.fix]
    longest = max(map(len, left), default=0)
    return [names[first:] for first in range(longest + 1) for names in left if first < len(names) + bool(chosen)]


def _fixes(view: _View, findings: Iterable[Finding]) -> tuple[_View, _Fixes]:
    """Return for each of these findings the first variant that fits, and the view with all of them.

    Nobody knows yet whether they mend what they are for. No patch at all is tried last.
    """
    found: _Fixes = []
    mended, chosen = view, tuple[str, ...]()
    for finding in findings:
        found.append((finding, None))
        for names in sorted(_variants(finding, chosen), key=lambda names: not names):
            patched = None if _depends(view, finding, names) else view.patched((*chosen, *names))
            if patched:
                mended, chosen = patched, (*chosen, *names)
                found[-1] = finding, names
                break
    return mended, found


def _judge_bug(
    view: _View,
    bug: Bug,
    judged: Mapping[str, _Judged],
    mended: _View,
    fixes: _Fixes,
    bad: set[Status],
    config: Config | None,
) -> BugAudit:
    # Most often they do mend it, all together; else each is tried by itself.
    mends = all(_judge(mended, each)[0] is Status.FIXED for each, names in fixes if names is not None)
    known = iter([names for _, names in fixes] if mends else [])
    chosen: list[str] = []
    findings = []
    for finding in bug.findings:
        status, evidence = judged[finding.id]
        fix: tuple[str, ...] = ()
        covered = False
        if status in bad:
            variants = _variants(finding, chosen)
            whole = [names for names in variants if not _depends(view, finding, names)]
            fitting = next(known, None)
            if fitting is None:
                fitting = next((names for names in whole if _mends(view, finding, (*chosen, *names))), None)
            fix, covered = fitting or (), fitting == ()
            chosen += fix
            if status is Status.AFFECTED and fitting is None:
                rest = (names for names in variants if names not in whole)
                unable = (names for names in rest if _mends(view, finding, (*chosen, *names)))
                without = next((_depends(view, finding, names) for names in unable), "")
                place = evidence[0].file
                evidence = [*evidence, Evidence(place, 0, without) if without else _unfit(view, finding, place)]
        option = config.lacks(rules.load(finding.rule).options) if config else ""
        if config and option and status is not Status.NOT_APPLICABLE:
            reason = f"{option} is not set in {config.name}; else {status}"
            status, evidence = Status.NOT_BUILT, [Evidence(finding.files[0], 0, reason), *evidence]
        unverified = tuple(name for name in fix if name in finding.unverified)
        findings.append(FindingAudit(finding.id, status, tuple(evidence), fix, covered, unverified))
    return BugAudit(bug, tuple(findings))


def _unfit(view: _View, finding: Finding, file: str) -> Evidence:
    """Say why no variant of a fix fits; `file` is where the finding is."""
    there = ((name, view.source(name)) for name in (*finding.files, *finding.context))
    if dos := next((name for name, source in there if source and source.dos), ""):
        return Evidence(dos, 0, "its lines end in CRLF, so no patch fits")
    if lacks := _lacks(view, finding):
        return Evidence(file, 0, f"no fix can be tried without {lacks}")
    return Evidence(file, 0, f"no fix fits this code: {', '.join(finding.fix_patches)}")


def _lacks(view: _View, finding: Finding) -> str:
    """Return a file that is not there, if each variant changes one such: of a part of a tree nobody knows what fits."""
    touched = [[name for patch in names for name in series.touched_files(PATCHES / patch)] for names in finding.fix]
    lacking = [next((name for name in names if not view.get(name)), "") for names in touched]
    return next(iter(lacking), "") if all(lacking) else ""


def _depends(view: _View, finding: Finding, names: Iterable[str]) -> str:
    """Say what patches that fit would not compile without, or ""; of a file that may be elsewhere nobody knows."""
    for name in names:
        file, _, word = finding.depends.get(name, "").partition(": ")
        source = view.source(file) if file else None
        there = source.text if source else ""
        if file and (source or (view.tree.path / file).parent.is_dir()) and not re.search(rf"\b{word}\b", there):
            return f"{name} fits, and would not compile: {file} has no {word}"
    return ""


class _View:
    """A tree's files as rules read them, each read once; some of them may be replaced."""

    def __init__(self, tree: Tree, sources: dict[str, rules.Source | OSError | None] | None = None) -> None:
        self.tree = tree
        self._sources = sources or {}

    def patched(self, patches: Sequence[str]) -> _View | None:
        """Return the view with these patches on; None if they do not apply without fuzz."""
        files = series.patched(lambda name: source.data if (source := self.source(name)) else None, patches)
        if files is None:
            return None
        return _View(self.tree, self._sources | {name: rules.Source(data) for name, data in files.items()})

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
        siblings = sorted(path for path in (self.tree.path / name).parent.glob("*.c") if _PLAIN.fullmatch(path.name))
        others = [each for path in siblings if (each := str(path.relative_to(self.tree.path))) != name]
        found = [each for each in others if (other := self.source(each)) and code.defines(other.text, wanted)]
        return tuple(([name] if source else []) + found) or (name,)

    @property
    def whole(self) -> bool:
        """True for a full tree: of a part of one nobody knows what else there is."""
        return bool(self.tree.version) or (self.tree.path / "init/main.c").is_file()


def _mends(view: _View, finding: Finding, patches: Sequence[str]) -> bool:
    """Return whether `patches` apply without fuzz and the finding is then fixed; the tree is only read."""
    mended = view.patched(patches)
    return mended is not None and _judge(mended, finding)[0] is Status.FIXED


def _read(view: _View, finding: Finding) -> tuple[list[str], list[str], dict[str, rules.Source]]:
    """Return the names of a finding's context and its files, and what there is of them."""
    rule = rules.load(finding.rule)
    # Code that has gone to another file of the folder is judged there.
    context, places = (
        [place for name in names for place in view.places(rule, name)] for names in (finding.context, finding.files)
    )
    return context, places, {name: source for name in (*context, *places) if (source := view.source(name))}


def _question(view: _View, finding: Finding) -> rules.Question:
    # One for all files: a rule may have to know of one what it needs to judge another.
    return rules.Question(rules.load(finding.rule), _read(view, finding)[2], finding.symbol)


def _judge(view: _View, finding: Finding) -> _Judged:
    context, places, files = _read(view, finding)
    if pointers := [name for name, source in files.items() if source.pointer]:
        reason = "a Git LFS pointer in the place of the source: git lfs pull brings it"
        return Status.UNKNOWN, [Evidence(name, 0, reason) for name in pointers]
    answer, refused = rules.Answer((), {}, {}), ""
    try:
        answer = rules.ask(_question(view, finding)) if files else answer
    except rules.Refused as error:
        refused = f"Coccinelle cannot read it: {error}"
    lines = [item for item in answer.said if item.finding == finding.id]
    verdicts = [verdict for name in places for verdict in _judge_file(view, finding, name, refused, answer, lines)]
    verdicts += [verdict for name in context for verdict in (*_statuses(name, lines), *_torn(name, answer))]
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
        for each in finding.files:
            source = view.source(each)
            if rule.older and source and (word := rule.older.search(source.clean)):
                return [(Status.NOT_APPLICABLE, Evidence(each, 0, f"{word[0]} is of before the code in question"))]
        return [(Status.UNKNOWN, Evidence(name, 0, reason))]

    source = view.get(name)
    if source is None:
        # A full tree without the folder has not got the feature.
        missing = [each for each in (view.tree.path / name).parents if not each.exists()]
        if view.whole and missing and missing[-1].parent != view.tree.path:
            reason = f"no {missing[-1].relative_to(view.tree.path)} in this tree"
            return [(Status.NOT_APPLICABLE, Evidence(name, 0, reason))]
        # Nor has one whose Makefile builds no such file, as of before a driver that came into a folder with others.
        makefile = str(Path(name).with_name("Makefile"))
        built = view.source(makefile) if view.whole else None
        if built and not re.search(rf"\b{Path(name).stem}\.o\b", built.text):
            return [(Status.NOT_APPLICABLE, Evidence(makefile, 0, f"builds no {Path(name).stem}.o"))]
        return no_shape("the file is not there")
    if isinstance(source, OSError):
        return [(Status.UNKNOWN, Evidence(name, 0, f"cannot be read: {source.strerror}"))]
    if refused:
        return [(Status.UNKNOWN, Evidence(name, 0, refused))]
    # What was read of code that is not whole is not what is there.
    verdicts = _torn(name, answer) or _statuses(name, lines)
    lost: list[int] = []
    if finding.symbol:
        judged = {(item.line, item.column) for item in lines if item.file == name}
        lost = [line for line, column in answer.uses.get(name, ()) if (line, column) not in judged]
    wanted = dict(rule.homes).get(name)
    if wanted and not verdicts and not code.defines(source.text, wanted):
        reason = f"no {'() or '.join(wanted)}() here, by which {rule.path.name} knows the code"
        return [(Status.UNKNOWN, Evidence(name, 0, reason))] if lost else no_shape(reason)
    # Coccinelle passes over what it cannot parse: such a use may hide anything.
    reason = f"a use of {finding.symbol} that cannot be parsed"
    verdicts += [(Status.UNKNOWN, Evidence(name, line, reason)) for line in lost]
    return verdicts or no_shape(f"no code shape that {rule.path.name} knows")
