# SPDX-License-Identifier: GPL-2.0-only
"""Carries a fix to a tree that no variant of it fits. The result is a new variant, or a folder with the conflicts.

The variant that is nearest to the tree is merged by wiggle, which finds a hunk's place by its words where the lines
around it are others. That is a guess, so a merge counts only if the touched files compile and the audit says fixed;
what was not exact is told. The tree itself is only read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from kmendlib.host import proc, setup
from kmendlib.host.errors import BadInput, ExitCode, Infrastructure, KmendError, NothingToDo
from kmendlib.proof import build
from kmendlib.proof.jobs import Jobs
from kmendlib.tree import arches, bases, manifest, series, source
from kmendlib.tree.audit import Audit, FindingAudit, Status, audit
from kmendlib.tree.manifest import PATCHES, Bug, Finding
from kmendlib.tree.tree import Tree

_STATE = "port.json"
_FILES = "files"
# patch and wiggle are given this long, in seconds; a merge takes well under one.
_LIMIT = 120
_MARKER = re.compile(rb"^(<{7}|\|{7}|>{7}|&{7}) ", re.MULTILINE)
_CONFLICT = re.compile(rb"^<{7} ", re.MULTILINE)
_TRAILER = re.compile(r"[A-Z][\w-]+: \S.*")
_ORDER = tuple(Status)

_README = """\
{finding} was to be carried to
{tree} ({release})
from {variant}, a copy of which is {copy}.
{problem}

The tree is as it was. Below files/ are its files as the merge left them; a place
that it could not merge, or should not have merged alone, looks like this:

    <<<<<<< found
    the tree's lines
    ||||||| expected
    the lines that the variant takes away or leans on
    =======
    the lines that the variant puts in their place
    &&&&&&& resolution         (not everywhere: what wiggle would make of it)
    >>>>>>> replacement

{notes}
Edit the files until no such mark is left; a file of the tree that has to change as
well is put below files/ at its path in the tree. Then

    kmend port --continue {folder}

looks for marks, audits, compiles, and writes the new variant to
{out}.
"""


@dataclass(frozen=True)
class Ported:
    """What became of one finding.

    Attributes:
        tree: the tree's path.
        release: its version, with what a vendor adds.
        finding: the finding's id.
        variant: the patch that was carried over, below patches/.
        why: why this one.
        notes: what was not exact, a line each.
        problem: why it is not done; empty if it is.
        wrote: the new variant, or the folder with the conflicts.
        code: the exit code that this stands for.
    """

    tree: Path
    release: str
    finding: str
    variant: str
    why: str
    notes: tuple[str, ...]
    problem: str
    wrote: Path
    code: ExitCode

    def to_text(self) -> str:
        """Return it in lines for the terminal."""
        done = "not done" if self.problem else "ported"
        lines = [f"{self.tree} ({self.release}): {self.finding}: {done}", f"  from     {self.variant}: {self.why}"]
        lines += [f"  note     {note}" for note in self.notes]
        if self.problem:
            lines += [f"  problem  the merge {self.problem}", f"  see      {self.wrote}/README"]
        else:
            lines += ["  audit    fixed", f"  wrote    {self.wrote}"]
        return "\n".join(lines)


@dataclass
class _Hunks:
    """How the hunks of a variant for one file fit a tree: their numbers, from 1, and whether at other lines."""

    count: int
    fitting: set[int] = field(default_factory=set)
    moved: bool = False

    @property
    def merged(self) -> list[int]:
        return [number for number in range(1, self.count + 1) if number not in self.fitting]


@dataclass
class _Merge:
    """A variant merged into a tree's files.

    Attributes:
        name: the variant, below patches/.
        hunks: how it fits, by file.
        files: the merged files.
        marked: the same with a mark at each place that was not exact.
        missing: files that the tree has not got.
    """

    name: str
    hunks: dict[str, _Hunks]
    files: dict[str, bytes]
    marked: dict[str, bytes]
    missing: list[str]

    @property
    def conflicts(self) -> dict[str, int]:
        """How many conflicts each file has, where it has any."""
        counts = {name: len(_CONFLICT.findall(content)) for name, content in self.files.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def fit(self) -> tuple[int, int]:
        """How many hunks fit, and how many there are."""
        return sum(len(each.fitting) for each in self.hunks.values()), sum(each.count for each in self.hunks.values())


@dataclass
class _State:
    """What `port.json` in a folder with conflicts holds; `files` are the hashes of the tree's files."""

    finding: str
    tree: str
    release: str
    variant: str
    fit: tuple[int, int]
    files: dict[str, str]
    out: str


def port(
    tree: Tree, bugs: Sequence[Bug], variant: str = "", out: Path | None = None, say: Callable[[str], None] = print
) -> Iterator[Ported]:
    """Carry the fixes of some findings to a tree that no variant of theirs fits.

    Args:
        tree: the tree; it is only read.
        bugs: the bugs, each with the findings that are meant.
        variant: the variant to start from, below patches/; by default the nearest one that leads to the end.
        out: the new variant's path; with ``.conflict`` for its suffix, that of the folder for what is not done.
        say: takes a line at a time of what is being done.

    Yields:
        What became of each finding that has to be ported.

    Raises:
        BadInput: there is nothing to start from, the audit cannot tell, or the place for the result is taken.
        NothingToDo: no finding has to be ported.
        Infrastructure: a tool is missing or failed.
    """
    known = sorted({each[0] for bug in bugs for finding in bug.findings for each in finding.fix if len(each) == 1})
    if variant and variant not in known:
        raise BadInput(f"--from {variant}: no such variant of one patch; known: {', '.join(known) or 'none'}")
    work, left = [], []
    for bug in bugs:
        found = audit(tree, [_whole(bug)], latent=True)
        said = {each.id: each for each in found.bugs[0].findings}
        for finding in bug.findings:
            what = _nothing_to_do(said[finding.id], variant, finding)
            if what:
                left.append(what)
            else:
                work.append((found, finding))
    if not work:
        raise NothingToDo(f"{tree.path}: nothing to port: {'; '.join(left)}")
    if out and len(work) > 1:
        several = ", ".join(finding.id for _, finding in work)
        raise BadInput(f"--out is for one finding, but {several} are to be ported: give one with --bug")
    setup.ensure(say, ["wiggle"])
    places = [out or Path(f"{_plain(finding.id)}-{_plain(tree.release)}.patch") for _, finding in work]
    for place in places:
        _refuse_taken(place, _folder(place))
    for job, place in zip(work, places, strict=True):
        yield _port(tree, *job, place, variant, say)


def _whole(bug: Bug) -> Bug:
    """Return a bug with all its findings: none of them may get worse."""
    given = {finding.id: finding for finding in bug.findings}
    whole = manifest.load().bug(bug.id)
    return replace(whole, findings=tuple(given.get(finding.id, finding) for finding in whole.findings))


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+]+", "-", text).strip("-")


def _folder(out: Path) -> Path:
    return out.with_name(out.name.removesuffix(".patch") + ".conflict")


def _refuse_taken(*paths: Path) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise BadInput(f"{path} exists already: take it away, or give another place with --out")
        if not path.absolute().parent.is_dir():
            raise BadInput(f"{path.parent}: no such folder")


def _nothing_to_do(said: FindingAudit, variant: str, finding: Finding) -> str:
    """Return why a finding needs no port, or nothing if it does; refuse one that cannot be ported."""
    if said.status is Status.UNKNOWN:
        evidence = said.evidence[0]
        raise BadInput(
            f"{said.id} is unknown: {evidence.place}: {evidence.reason}; no merge can be judged there, "
            "choose the others with --bug"
        )
    if said.status not in (Status.AFFECTED, Status.LATENT):
        return f"{said.id} is {said.status}"
    if variant:
        return "" if (variant,) in finding.fix else f"{said.id} has no variant {variant}"
    if said.fix or said.covered:
        return f"{said.id} is {said.status}, and {', '.join(said.fix) or 'what mends the others'} fits"
    if not any(len(each) == 1 for each in finding.fix):
        raise BadInput(f"{said.id}: its variants are whole series, which port does not take; choose others with --bug")
    return ""


def _port(tree: Tree, found: Audit, finding: Finding, out: Path, variant: str, say: Callable[[str], None]) -> Ported:
    """Try the variants, nearest first, until one is merged, audited and compiled."""
    merges = _nearest(tree, finding, variant)
    failed: list[tuple[_Merge, str, str, ExitCode]] = []
    for merge in merges:
        why = _why(merge, merges, variant, [f"{each.name} {problem}" for each, _, problem, _ in failed])
        problem, code = _problem(tree, found, finding, merge), ExitCode.FAILED
        if not problem:
            try:
                _compile(tree, found.bugs[0].bug, finding, merge.files, say)
            except build.BuildError as error:
                problem = f"does not compile: {error}"
            except KmendError as error:
                problem, code = f"was not compiled: {error}", error.code
        if not problem:
            text = _mail(tree, merge.name, merge.files, _done(merge.fit, "by wiggle"))
            _write(tree, out, text, merge.files)
            notes = _notes(tree, merge)
            return Ported(tree.path, tree.release, finding.id, merge.name, why, notes, "", out, ExitCode.OK)
        failed.append((merge, why, problem, code))
        if code is not ExitCode.FAILED:
            # Nobody knows whether it is good, and it is the best of them.
            failed = [failed[-1]]
            break
    merge, why, problem, code = failed[0]
    notes = (*_notes(tree, merge), *(f"{each.name} {what}" for each, _, what, _ in failed[1:]))
    folder = _folder(out)
    _write_conflict(tree, finding, merge, problem, notes, out, folder, code)
    return Ported(tree.path, tree.release, finding.id, merge.name, why, notes, problem, folder, code)


def _done(fit: tuple[int, int], how: str) -> str:
    """Return what the log says of how a variant came to this tree."""
    if fit[0] == fit[1]:
        return f"all hunks fit, merged {how}"
    return f"{fit[0]} of {fit[1]} hunks fit, the others were merged {how}"


def _release_number(version: str) -> int:
    """Return where a release stands among the others: each series of them had about twenty."""
    major, minor = version.split(".")[:2]
    return 20 * int(major) + (10 if minor == "x" else int(minor))


def _distance(name: str, version: str) -> int:
    """Return how many releases lie between a version and the range of trees that a variant is named after."""
    ends = [_release_number(each) for each in re.findall(r"(?<![\w.])v?(\d+\.(?:\d+|x))", name.replace("-", " "))]
    here = _release_number(version)
    if not ends:
        return 1000
    return max(min(ends) - here, here - max(ends), 0)


def _nearest(tree: Tree, finding: Finding, variant: str) -> list[_Merge]:
    """Merge each variant, or the one that was asked for, and return the merges, nearest first."""
    names = [variant] if variant else [each[0] for each in finding.fix if len(each) == 1]
    merges = [_merge(tree, name) for name in names]
    version = str(tree.version)
    return sorted(merges, key=lambda merge: (_distance(Path(merge.name).name, version), -merge.fit[0] / merge.fit[1]))


def _why(merge: _Merge, merges: Sequence[_Merge], variant: str, tried: Sequence[str]) -> str:
    fit = f"{merge.fit[0]} of {merge.fit[1]} hunks fit"
    if variant:
        return f"the one asked for; {fit}"
    if tried:
        return f"the next of {len(merges)} variants; {fit}; nearer: {'; '.join(tried)}"
    return f"the nearest of {len(merges)} variants; {fit}" if len(merges) > 1 else f"the one variant; {fit}"


def _run(command: Sequence[str], folder: Path, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run a tool that merges or compares; return its exit code and what it prints."""
    # The user's own settings of git must not change what is done here.
    own = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    env = proc.environment(own)
    try:
        done = subprocess.run(command, cwd=folder, env=env, input=stdin, capture_output=True, timeout=_LIMIT)
    except FileNotFoundError as error:
        raise Infrastructure(f"{command[0]} is not installed: run kmend setup") from error
    except subprocess.TimeoutExpired as error:
        raise Infrastructure(f"{command[0]} took more than {_LIMIT} s") from error
    return done.returncode, done.stdout


def _merge(tree: Tree, name: str) -> _Merge:
    """Merge a variant into a tree's files: exactly where a file's hunks all fit, else by wiggle."""
    patch = PATCHES / name
    files = [each for each in series.touched_files(patch) if (tree.path / each).is_file()]
    missing = [each for each in series.touched_files(patch) if each not in files]
    hunks = _count(patch)
    with tempfile.TemporaryDirectory(prefix="kmend-") as temporary:
        folders = {way: Path(temporary, way) for way in ("exact", "wiggle", "marked")}
        for folder in folders.values():
            _lay(folder, {each: (tree.path / each).read_bytes() for each in files})
        command = ["patch", "-p1", "--fuzz=0", "--force", "--verbose", "--reject-file=-", "-i", str(patch)]
        _, said = _run([*command, "--no-backup-if-mismatch"], folders["exact"])
        _fitting(said.decode(errors="replace"), hunks)
        # --no-ignore: what looks as if it were there already is a conflict, too, not a guess.
        command = ["wiggle", "--merge", "--replace", "-p1", "--no-ignore", "--quiet"]
        for way in ("wiggle", "marked"):
            options = ["--show-wiggles"] if way == "marked" else []
            code, _ = _run([*command, *options, str(patch)], folders[way])
            if code not in (0, 1) and not missing:
                raise Infrastructure(f"wiggle failed on {name} with exit status {code}")
        ways = {each: "wiggle" if hunks[each].merged else "exact" for each in files}
        merged = {each: (folders[way] / each).read_bytes() for each, way in ways.items()}
        marked = {each: (folders["marked" if hunks[each].merged else "exact"] / each).read_bytes() for each in files}
    return _Merge(name, hunks, merged, marked, missing)


def _lay(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _count(patch: Path) -> dict[str, _Hunks]:
    """Return the files of a patch with the number of their hunks."""
    text = patch.read_text(encoding="latin-1")
    counts = {name: _Hunks(0) for name in series.touched_files(patch)}
    for part in re.split(r"^(?=--- [^\n]+\n\+\+\+ )", text, flags=re.MULTILINE)[1:]:
        name = re.sub(r"^[^/]*/", "", part.splitlines()[1].removeprefix("+++ ").split("\t")[0].strip())
        counts[name].count += len(re.findall(r"^@@ -", part, re.MULTILINE))
    return counts


def _fitting(said: str, hunks: dict[str, _Hunks]) -> None:
    """Read from patch's messages which hunks fit."""
    name = ""
    for line in said.splitlines():
        if file := re.match(r"patching file (.*)", line):
            name = file[1].strip("'")
        elif (hunk := re.match(r"Hunk #(\d+) succeeded at \d+(.*)", line)) and name in hunks:
            hunks[name].fitting.add(int(hunk[1]))
            hunks[name].moved |= "offset" in hunk[2]


def _problem(tree: Tree, found: Audit, finding: Finding, merge: _Merge) -> str:
    """Return what is wrong with a merge, as far as it can be told without a compiler; empty if nothing is."""
    if merge.missing:
        return f"changes {', '.join(merge.missing)}, which this tree has not got"
    if merge.conflicts:
        return "conflicts in " + ", ".join(f"{name} ({count})" for name, count in merge.conflicts.items())
    return _judge(tree, found, finding, merge.files)


def _judge(tree: Tree, found: Audit, finding: Finding, files: dict[str, bytes]) -> str:
    """Audit a tree with some files in place of its own; return what is wrong with that, or nothing."""
    (bug,) = (each.bug for each in found.bugs)
    needed = {name for each in bug.findings for name in (*each.files, *each.context)}
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        mended = Path(folder).resolve()
        _lay(mended, {name: (tree.path / name).read_bytes() for name in needed if (tree.path / name).is_file()} | files)
        (after,) = audit(Tree(mended, tree.version, tree.extraversion), [bug]).bugs
    for each in after.findings:
        # That something is fixed which could not be there before is no harm.
        before = min(found.statuses[each.id], Status.FIXED, key=_ORDER.index)
        allowed = Status.FIXED if each.id == finding.id else before
        if _ORDER.index(each.status) < _ORDER.index(allowed):
            evidence = each.evidence[0]
            return f"leaves {each.id} {each.status}: {evidence.place}: {evidence.reason}"
    return ""


def _compile(tree: Tree, bug: Bug, finding: Finding, files: dict[str, bytes], say: Callable[[str], None]) -> None:
    """Compile what some files changed, out of tree, in a private copy.

    Raises:
        build.BuildError: it does not compile with them, and does without.
        KmendError: nothing can be compiled here.
    """
    base, _ = bases.nearest(tree)
    name = next((name for name in bug.arches if base.has(name)), None)
    if not name:
        raise Infrastructure(f"{base.name} is not built for {', '.join(bug.arches)}")
    setup.ensure(say)
    arch = base.adapt(arches.load(name))
    setup.ensure(say, [build.compiler(arch)])
    workspace = source.tree_workspace(tree)
    # Beside what verify builds, which would have to be built anew after this.
    scratch = replace(workspace, root=workspace.root / "port")
    with (
        source.locked(workspace),
        tempfile.TemporaryDirectory(prefix="kmend-") as stage,
        contextlib.closing(Jobs()) as jobs,
    ):
        source.need_space(workspace, [])
        source.copy_tree(workspace, tree, say)
        source.need_space(scratch, [name])
        if not scratch.pristine.exists():
            scratch.root.mkdir(exist_ok=True)
            scratch.pristine.symlink_to(Path("..", workspace.pristine.name))
        changed = source.link_arch(scratch, name, list(files))
        log = scratch.root / "build.log"
        log.unlink(missing_ok=True)
        objects = _objects(tree, bug, finding, files, arch.folder)
        say(f"compiling {', '.join(objects)} for {name}")
        source.install(scratch, name, Path(stage), changed)
        try:
            build.configure(scratch, arch, [bug], log, jobs)
        except build.BuildError as error:
            raise Infrastructure(f"{tree.path} does not build here: {error}") from error
        _lay(Path(stage), files)
        source.install(scratch, name, Path(stage), changed)
        try:
            build.objects(scratch, arch, objects, log, jobs)
        except build.BuildError as error:
            with tempfile.TemporaryDirectory(prefix="kmend-") as nothing:
                source.install(scratch, name, Path(nothing), changed)
            try:
                build.objects(scratch, arch, objects, log, jobs)
            except build.BuildError as own:
                raise Infrastructure(f"{tree.path} does not build here without the fix, either: {own}") from own
            raise error


def _objects(tree: Tree, bug: Bug, finding: Finding, files: Iterable[str], folder: str) -> list[str]:
    """Return make's targets for some changed files: a header is seen where the finding's own files include it."""
    names = list(files)
    if any(name.endswith(".h") for name in names):
        names += [name for name in (*finding.files, *finding.context) if (tree.path / name).is_file()]
    targets = []
    for name in names:
        if place := bug.built_from.get(os.path.dirname(name)):
            targets.append(place.format(arch=folder) + "/")
        elif name.endswith(".c"):
            targets.append(f"{name.removesuffix('.c')}.o")
    return list(dict.fromkeys(targets))


def _diff(tree: Tree, files: dict[str, bytes]) -> bytes:
    """Return the patch from a tree's files to others, with its diffstat above."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as temporary:
        folder = Path(temporary)
        _lay(folder / "a", {name: (tree.path / name).read_bytes() for name in files if (tree.path / name).is_file()})
        _lay(folder / "b", files)
        options = [
            "--no-index",
            "--no-prefix",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--no-renames",
            "--text",
        ]
        code, diff = _run(["git", "diff", *options, "a", "b"], folder)
        if code not in (0, 1):
            raise Infrastructure(f"git diff failed with exit status {code}")
        _, stat = _run(["git", "apply", "--stat", "-"], folder, diff)
    return stat + b"\n" + diff


def _changes(diff: bytes) -> tuple[Counter[bytes], dict[bytes, set[bytes]]]:
    """Return the lines that a patch adds and takes away, and the functions that its hunks lie in, by file."""
    lines: Counter[bytes] = Counter()
    functions: dict[bytes, set[bytes]] = {}
    name = b""
    for line in diff.splitlines():
        if line.startswith(b"+++ "):
            name = line.split(b"\t")[0]
        elif line.startswith(b"@@ "):
            functions.setdefault(name, set()).add(line.partition(b" @@")[2].strip())
        elif line[:1] in (b"+", b"-") and line[1:].strip() and not line.startswith(b"--- "):
            lines[line] += 1
    return lines, functions


def _notes(tree: Tree, merge: _Merge) -> tuple[str, ...]:
    """Tell what was not exact."""
    notes = []
    for name, hunks in merge.hunks.items():
        if name in merge.missing:
            notes.append(f"{name} is not in this tree: {hunks.count} hunks have no place")
            continue
        if hunks.moved:
            notes.append(f"{name}: {len(hunks.fitting)} of {hunks.count} hunks fit, at other lines")
        if hunks.merged:
            numbers = ", ".join(map(str, hunks.merged))
            what = "not fitting" if name in merge.conflicts else "merged by wiggle"
            notes.append(f"{name}: hunk {numbers} of {hunks.count} {what}: the lines around are others here")
    if merge.conflicts:
        return tuple(notes)
    wanted, there = _changes((PATCHES / merge.name).read_bytes().partition(b"\n---\n")[2])
    got, here = _changes(_diff(tree, merge.files))
    for what, lines in ("only in the variant", wanted - got), ("only in the result", got - wanted):
        notes += [f"{what}: {line.decode(errors='replace')}" for line in lines]
    for file, functions in here.items():
        for each in functions:
            # diff cuts the name off, and not all of them at the same place.
            if each and not any(each.startswith(other[:20]) for other in there.get(file, ()) if other):
                path = file.removeprefix(b"+++ b/").decode()
                notes.append(
                    f"{path}: a hunk lies behind '{each.decode(errors='replace')}', the variant has none there"
                )
    return tuple(notes)


def _mail(tree: Tree, name: str, files: dict[str, bytes], what: str) -> bytes:
    """Return the new variant: the header and log of the one that it comes from, and the tree's own diff."""
    head = (PATCHES / name).read_text(encoding="utf-8").partition("\n---\n")[0]
    line = f"[ported from {name.removesuffix('.patch')} to {tree.release}: {what}]"
    paragraphs = head.rstrip().split("\n\n")
    last = all(map(_TRAILER.fullmatch, paragraphs[-1].splitlines())) and len(paragraphs) > 2
    paragraphs.insert(len(paragraphs) - last, textwrap.fill(line, 72, break_long_words=False, break_on_hyphens=False))
    return "\n\n".join(paragraphs).encode() + b"\n---\n" + _diff(tree, files)


def _write(tree: Tree, out: Path, text: bytes, files: dict[str, bytes]) -> None:
    """Write the new variant, once it was seen to give the merged files."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        patch = Path(folder, out.name)
        patch.write_bytes(text)
        names = series.materialize(tree.path, [patch], Path(folder, "tree"))
        if any(Path(folder, "tree", name).read_bytes() != files[name] for name in names):
            raise Infrastructure(f"{out}: patch does not make the merged files of it")
        _refuse_taken(out)
        new = out.with_name(f".{out.name}.new")
        shutil.copyfile(patch, new)
        new.rename(out)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_conflict(
    tree: Tree,
    finding: Finding,
    merge: _Merge,
    problem: str,
    notes: Sequence[str],
    out: Path,
    folder: Path,
    code: ExitCode,
) -> None:
    """Write the folder that a person goes on with."""
    # What has no conflict and is wrong all the same was merged where it should not: each such place is looked at.
    shown = merge.marked if code is ExitCode.FAILED and not merge.conflicts else merge.files
    hashes = {name: _hash(tree.path / name) for name in shown}
    state = _State(finding.id, str(tree.path), tree.release, merge.name, merge.fit, hashes, str(out.absolute()))
    readme = _README.format(
        finding=finding.id,
        tree=tree.path,
        release=tree.release,
        variant=merge.name,
        copy=Path(merge.name).name,
        problem=textwrap.fill(f"It is not done: the merge {problem}.", 80, break_long_words=False),
        notes="".join(f"- {note}\n" for note in notes),
        folder=folder,
        out=out,
    )
    with tempfile.TemporaryDirectory(prefix=".kmend-", dir=folder.absolute().parent) as temporary:
        new = Path(temporary, "new")
        _lay(new / _FILES, shown)
        shutil.copyfile(PATCHES / merge.name, new / Path(merge.name).name)
        (new / "README").write_text(readme, encoding="utf-8", errors="surrogateescape")
        (new / _STATE).write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
        new.rename(folder)


def resume(folder: Path, out: Path | None = None, say: Callable[[str], None] = print) -> Ported:
    """Go on with a port whose conflicts were resolved by hand.

    Args:
        folder: the folder that `port` wrote.
        out: the new variant's path, if it is to be another one than `port` was told.
        say: takes a line at a time of what is being done.

    Returns:
        What became of it.

    Raises:
        BadInput: the folder is none of port's, the tree was changed since, or the place for the result is taken.
        Infrastructure: a tool is missing or failed, or nothing can be compiled here.
    """
    try:
        state = _State(**json.loads((folder / _STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{folder}: no folder that kmend port wrote: {_STATE} cannot be read") from error
    tree = Tree.open(state.tree, need_makefile=True)
    (bug,) = manifest.load().select([state.finding])
    (finding,) = bug.findings
    if (state.variant,) not in finding.fix:
        raise BadInput(f"{folder}: {state.variant} is no variant of {finding.id} any more: run port again")
    place = out or Path(state.out)
    _refuse_taken(place)
    for name, known in state.files.items():
        if not (tree.path / name).is_file() or _hash(tree.path / name) != known:
            raise BadInput(f"{tree.path / name} was changed since: run port again")
    top = folder / _FILES
    files = {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
    strange = [name for name in files if not (tree.path / name).is_file()]
    if strange:
        raise BadInput(f"{top / strange[0]}: the tree has no such file: take it away")
    files = {name: content for name, content in files.items() if content != (tree.path / name).read_bytes()}
    marks = [_mark(top / name, content) for name, content in files.items() if _MARKER.search(content)]
    found = audit(tree, [_whole(bug)], latent=True)
    problem = f"has conflicts left: {', '.join(marks)}" if marks else ""
    problem = problem or ("changes no file" if not files else _judge(tree, found, finding, files))
    if not problem:
        try:
            _compile(tree, found.bugs[0].bug, finding, files, say)
        except build.BuildError as error:
            problem = f"does not compile: {error}"
    if problem:
        return Ported(
            tree.path, tree.release, finding.id, state.variant, "by hand", (), problem, folder, ExitCode.FAILED
        )
    fit = (state.fit[0], state.fit[1])
    _write(tree, place, _mail(tree, state.variant, files, _done(fit, "by hand")), files)
    notes = (f"{folder} is not needed any more",)
    return Ported(tree.path, tree.release, finding.id, state.variant, "by hand", notes, "", place, ExitCode.OK)


def _mark(path: Path, content: bytes) -> str:
    """Return where the first mark of a conflict is."""
    lines = _MARKER.split(content, maxsplit=1)[0].splitlines()
    return f"{path}:{len(lines) + 1}"


def exit_code(results: Sequence[Ported]) -> ExitCode:
    """Return what became of the findings: a failure is said before all else."""
    codes = [each.code for each in results if each.code is not ExitCode.OK]
    return ExitCode.FAILED if ExitCode.FAILED in codes else max(codes, default=ExitCode.OK)
