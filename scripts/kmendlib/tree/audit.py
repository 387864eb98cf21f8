# SPDX-License-Identifier: GPL-2.0-only
"""The audit: which bugs does a tree have? Only source text is read, by the semantic patches in scripts/audit."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmendlib.host import proc
from kmendlib.host.errors import ExitCode, Infrastructure
from kmendlib.host.words import Word
from kmendlib.tree import series
from kmendlib.tree.manifest import PATCHES, Bug, Finding
from kmendlib.tree.tree import Tree, version_key

# A rule needs about half a second for a file; more than this, in seconds on an idle host, is a file that it cannot
# work on.
_LIMIT = 60


class Status(Word):
    """What the audit says of a finding or a bug, the worst first."""

    AFFECTED = "affected", "the fault is in the source, and what makes it happen, too"
    UNKNOWN = "unknown", "no rule knows this code, or not all of it could be read"
    LATENT = "latent", "the fault is there, but nothing in this tree makes it happen"
    FIXED = "fixed", "the code is there, and sound"
    NOT_APPLICABLE = "not-applicable", "the tree has not got the code that could be at fault"


_ORDER = tuple(Status)
_STYLE = {
    Status.AFFECTED: "red",
    Status.UNKNOWN: "yellow",
    Status.LATENT: "yellow",
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
        rows = [
            (
                finding.id,
                finding.status,
                [(item.place, item.reason) for item in finding.evidence],
                [name + (" (unverified)" if name in finding.unverified else "") for name in finding.fix],
            )
            for bug in self.bugs
            for finding in bug.findings
        ]
        title = f"{self.tree.path} ({self.tree.release})"
        try:
            from rich.box import SIMPLE_HEAD
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            return _plain(title, rows)
        table = Table("finding", "status", "evidence", title=Text(title), title_justify="left", box=SIMPLE_HEAD)
        table.show_edge = table.pad_edge = False
        for id, status, evidence, fix in rows:
            lines = [f"{place}\n  {reason}" for place, reason in evidence] + [f"fix: {name}" for name in fix]
            table.add_row(Text(id), Text(status, style=_STYLE[status]), Text("\n".join(lines)))
        stream = io.StringIO()
        # Without a terminal: wide enough that no path or id is broken.
        width = shutil.get_terminal_size((140, 24)).columns
        Console(file=stream, width=width, force_terminal=colour, no_color=not colour).print(table)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _plain(title: str, rows: Sequence[tuple[str, Status, list[tuple[str, str]], list[str]]]) -> str:
    lines = [title]
    for id, status, evidence, fix in rows:
        lines.append(f"{id}  {status}")
        lines += [f"    {place}: {reason}" for place, reason in evidence]
        lines += [f"    fix: {name}" for name in fix]
    return "\n".join(lines)


def audit(tree: Tree, bugs: Sequence[Bug], *, latent: bool = False) -> Audit:
    """Judge `bugs` in `tree`; the tree is only read.

    Args:
        tree: the tree, or a part of one.
        bugs: what to look for, in manifest order.
        latent: choose fixes for what is latent as well, where one fits.

    Raises:
        Infrastructure: Coccinelle or patch is missing or failed.
    """
    chosen: list[Path] = []
    memo: _Memo = {}
    audits = []
    for bug in bugs:
        findings = []
        for finding in bug.findings:
            status, evidence = _judge(tree, bug, finding, memo)
            fix: tuple[str, ...] = ()
            covered = False
            if status is Status.AFFECTED or (latent and status is Status.LATENT):
                # Another finding may have brought the first patches of a variant, or all.
                left = [[name for name in each if PATCHES / name not in chosen] for each in finding.fix]
                fitting = (each for each in left if _mends(tree, bug, finding, memo, [*chosen, *_paths(each)]))
                found = next(fitting, None)
                covered = found == []
                fix = tuple(found or ())
                chosen += _paths(fix)
                if status is Status.AFFECTED and found is None:
                    tried = ", ".join(finding.fix_patches)
                    evidence.append(Evidence(evidence[0].file, 0, f"no fix fits this code: {tried}"))
            unverified = tuple(name for name in fix if name in finding.unverified)
            findings.append(FindingAudit(finding.id, status, tuple(evidence), fix, covered, unverified))
        audits.append(BugAudit(bug, tuple(findings)))
    return Audit(tree, tuple(audits))


def _paths(names: Sequence[str]) -> list[Path]:
    return [PATCHES / name for name in names]


# What a rule printed of some files with some patches on: several findings may have one rule.
_Memo = dict[tuple[object, ...], str]


def _mends(tree: Tree, bug: Bug, finding: Finding, memo: _Memo, patches: Sequence[Path]) -> bool:
    """Return whether `patches` apply without fuzz and the finding is then fixed; the tree is only read."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        mended = Path(folder).resolve()
        try:
            series.materialize(tree.path, patches, mended)
        except series.DoesNotFit:
            return False
        for name in (*finding.context, *finding.files):
            if not (mended / name).exists() and (tree.path / name).is_file():
                (mended / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tree.path / name, mended / name)
        return _judge(Tree(mended, tree.version), bug, finding, memo, tuple(patches))[0] is Status.FIXED


def _judge(
    tree: Tree, bug: Bug, finding: Finding, memo: _Memo, patches: tuple[Path, ...] = ()
) -> tuple[Status, list[Evidence]]:
    # One run for all files: a rule may have to know of one what it needs to judge another.
    there = [name for name in (*finding.context, *finding.files) if (tree.path / name).is_file()]
    lines: list[_Said] = []
    refused = ""
    try:
        key = (finding.rule, patches, *there)
        if there and key not in memo:
            memo[key] = _spatch(finding.rule, tree.path, there).replace(f"{tree.path}/", "")
        lines = _parse(finding, memo.get(key, ""))
    except _Refused as error:
        refused = f"Coccinelle cannot read it: {error}"
    said = [item for name in finding.files for item in _judge_file(tree, bug, finding, name, refused, lines)]
    said += [item for name in finding.context for item in _statuses(name, lines) + _torn(tree, name)]
    status = worst(status for status, _ in said)
    # What speaks for a better status does not explain the finding's.
    return status, list(dict.fromkeys(evidence for each, evidence in said if each is status))


def _statuses(name: str, lines: Sequence[_Said]) -> list[tuple[Status, Evidence]]:
    here = sorted(item for item in lines if item.file == name)
    return [(Status(item.status), Evidence(name, item.line, item.reason)) for item in here if item.status != "seen"]


def _torn(tree: Tree, name: str) -> list[tuple[Status, Evidence]]:
    try:
        text = (tree.path / name).read_text(encoding="latin-1")
    except OSError:
        return []
    found = _torn_at(text)
    return [(Status.UNKNOWN, Evidence(name, *found))] if found else []


def _judge_file(
    tree: Tree, bug: Bug, finding: Finding, name: str, refused: str, lines: Sequence[_Said]
) -> list[tuple[Status, Evidence]]:
    def no_shape(reason: str) -> list[tuple[Status, Evidence]]:
        if tree.version and version_key(tree.version) < version_key(bug.since):
            return [(Status.NOT_APPLICABLE, Evidence(name, 0, f"{tree.version} is older than {bug.since}: {reason}"))]
        return [(Status.UNKNOWN, Evidence(name, 0, reason))]

    path = tree.path / name
    if not path.is_file():
        folder, above = path.parent, path.parent.parent
        # A full tree without the folder has not got the feature; of a part of a tree nobody knows.
        if tree.version and not folder.exists() and above.is_dir() and above != tree.path:
            reason = f"no {folder.relative_to(tree.path)} in this tree"
            return [(Status.NOT_APPLICABLE, Evidence(name, 0, reason))]
        return no_shape("the file is not there")
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        return [(Status.UNKNOWN, Evidence(name, 0, f"cannot be read: {error.strerror}"))]
    if refused:
        return [(Status.UNKNOWN, Evidence(name, 0, refused))]
    # What was read of code that is not whole is not what is there.
    said = _torn(tree, name) or _statuses(name, lines)
    if finding.symbol:
        judged = {(item.line, item.column) for item in lines if item.file == name}
        lost = [line for line, column in _uses(text, finding.symbol) if (line, column) not in judged]
        # Coccinelle passes over what it cannot parse: such a use may hide anything.
        reason = f"a use of {finding.symbol} that cannot be parsed"
        said += [(Status.UNKNOWN, Evidence(name, line, reason)) for line in lost]
    if not said:
        return no_shape(f"no code shape that {finding.rule.name} knows")
    return said


@dataclass(frozen=True, order=True)
class _Said:
    """One line of a rule's output: the file relative to the tree, line and column, status or "seen", and why."""

    file: str
    line: int
    column: int
    status: str
    reason: str


class _Refused(Exception):
    """Coccinelle gave up on a file."""


def _spatch(rule: Path, tree: Path, names: Sequence[str]) -> str:
    """Run a rule on files of a tree, all at once and in this order, and return what it prints.

    Raises:
        _Refused: Coccinelle gave up on these files.
        Infrastructure: Coccinelle is missing or does not work at all.
    """
    command = ["spatch", "-D", "audit", "--very-quiet", "--no-show-diff", "--no-includes"]
    command += ["--cocci-file", str(rule)]
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        # A .cocciconfig in the tree or of the user's own must not change what the rule does.
        environment = proc.environment({"HOME": folder, "TMPDIR": folder})

        limit = _LIMIT * proc.slowness()

        def run(*files: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, *map(str, files)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=limit,
            )

        try:
            done = run(*(tree / name for name in names))
            if done.returncode != 0:
                # Is it these files, or Coccinelle itself?
                empty = Path(folder) / "empty.c"
                empty.touch()
                words = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
                if run(empty).returncode != 0:
                    raise Infrastructure(f"spatch does not work with {rule}: {words}")
                raise _Refused(words)
        except FileNotFoundError as error:
            raise Infrastructure("spatch (Coccinelle) is not installed: run kmend setup") from error
        except subprocess.TimeoutExpired as error:
            raise _Refused(f"no answer after {limit:.0f} s") from error
    return done.stdout


def _parse(finding: Finding, text: str) -> list[_Said]:
    """Return what a rule said of one finding; paths are relative to the tree."""
    said = re.compile(r"([^/].*?):(\d+):(\d+)-\d+: " + re.escape(finding.id) + r": ([\w-]+): (.*)")
    matches = map(said.fullmatch, text.splitlines())
    return [_Said(match[1], int(match[2]), int(match[3]), match[4], match[5]) for match in matches if match]


# Comments, strings, character constants; what is left between them is code.
_NOT_CODE = re.compile(r'//(?:\\\n|[^\n])*|/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*"|' r"'(?:\\.|[^'\\\n])*'", re.DOTALL)
_DIRECTIVE = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b\s*(.*)")


def _code(text: str) -> str:
    return _NOT_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def _torn_at(text: str) -> tuple[int, str] | None:
    """Return line and reason if C code is not whole as it stands: Coccinelle would take a part of it for all."""
    depths, off = [0], [False]  # of the file, and of the branch of each #if: how deep, and whether it is "#if 0"
    number, macro, open_ = 0, False, 0
    for number, line in enumerate(_code(text).splitlines(), 1):
        directive = None if macro else _DIRECTIVE.match(line)
        if directive:
            word, condition = directive[1], directive[2].strip()
            if open_ > 0 and (word, condition) == ("if", "0"):
                return number, "an #if 0 stands within an expression"
            ends = not word.startswith("if")
            if ends and len(depths) == 1:
                continue
            if ends:
                live = not any(off)
                off.pop()
                if depths.pop() and live:
                    return number, "an #if has a brace in one of its branches that ends in none"
            if word != "endif":
                depths.append(0)
                off.append(word == "if" and condition == "0")
        elif not macro and not line.lstrip().startswith("#"):
            depths[-1] += line.count("{") - line.count("}")
            open_ = 0 if line.rstrip().endswith((";", "{", "}")) else open_ + line.count("(") - line.count(")")
        macro = (macro or line.lstrip().startswith("#")) and line.endswith("\\")
    whole = len(depths) == 1 and sum(depths) <= 0
    return None if whole else (number, "the file ends within a function or an #if")


def _uses(text: str, symbol: str) -> list[tuple[int, int]]:
    """Return line and column of each use of `symbol` in C code: not in comments, strings, or under "#if 0"."""
    code = _code(text)
    name = re.compile(rf"\b{re.escape(symbol)}\b")
    uses = []
    off: list[bool] = []
    for number, line in enumerate(code.splitlines(), 1):
        directive = _DIRECTIVE.match(line)
        if directive:
            word, condition = directive[1], directive[2].strip()
            if word.startswith("if"):
                off.append(word == "if" and condition == "0")
            elif off and word == "endif":
                off.pop()
            elif off:
                off[-1] = False
        if not any(off):
            uses += [(number, match.start()) for match in name.finditer(line)]
    return uses
