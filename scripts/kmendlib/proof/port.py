# SPDX-License-Identifier: GPL-2.0-only
"""Carries a fix to a tree that no variant of it fits. The result is a new variant, or a folder with the conflicts.

The variant that is nearest to the tree is merged by wiggle, which finds a hunk's place by its words where the lines
around it are others. That is a guess, so a merge counts only if the touched files compile and the audit says fixed;
what was not exact is told. The tree itself is only read.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from kmendlib.host import proc, setup
from kmendlib.host.errors import BadInput, ExitCode, Infrastructure, KmendError, NothingToDo
from kmendlib.host.files import digest, write
from kmendlib.host.paths import SCRIPTS
from kmendlib.proof import touched
from kmendlib.tree import manifest, series
from kmendlib.tree.audit import BugAudit, FindingAudit, Status, audit
from kmendlib.tree.manifest import PATCHES, Bug, Finding
from kmendlib.tree.tree import Tree

_STATE = "port.json"
_FILES = "files"
_REJECTS = "rejects"
_MARKER = re.compile(rb"^(<{7}|\|{7}|>{7}|&{7}) ", re.MULTILINE)
# A conflict or, if it is shown, a guess.
_REGION = re.compile(rb"^<{7} .*?^\|{7} .*?^={7}\n.*?^>{7} [^\n]*\n", re.MULTILINE | re.DOTALL)
_HEADER = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@(.*)")
_TRAILER = re.compile(r"[A-Z][\w-]+: \S.*")
_ORDER = tuple(Status)

Say = Callable[[str], None]


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
    code: ExitCode = ExitCode.FAILED

    def to_text(self) -> str:
        """Return it in lines for the terminal."""
        done = "not done" if self.problem else "ported"
        lines = [f"{self.tree} ({self.release}): {self.finding}: {done}", f"  from     {self.variant}: {self.why}"]
        lines += [f"  note     {note}" for note in self.notes]
        if self.problem:
            lines += [f"  problem  the merge {self.problem}", f"  see      {self.wrote}/README"]
        else:
            words = ["scripts/kmend", "verify", "--tree", self.tree, "--bug", self.finding, "--patch", self.wrote]
            lines += ["  audit    fixed", f"  wrote    {self.wrote}", f"  prove    {shlex.join(map(str, words))}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Hunk:
    """One hunk of a patch: its file, its number there, the function that it says it lies in, and its lines."""

    file: str
    number: int
    function: bytes
    lines: tuple[bytes, ...]

    def alike(self, region: bytes) -> int:
        """Return how many lines it shares with a marked region."""
        return len({line[1:].strip() for line in self.lines} & {*map(bytes.strip, region.split(b"\n"))})


def _hunks(patch: bytes) -> list[_Hunk]:
    """Return the hunks of a patch."""
    hunks: list[_Hunk] = []
    name, lines = "", iter(patch.split(b"\n"))
    for line in lines:
        if line.startswith(b"+++ "):
            name = os.fsdecode(line[4:].split(b"\t")[0].strip()).partition("/")[2]
        elif header := _HEADER.match(line):
            old, new, own = int(header[1] or 1), int(header[2] or 1), list[bytes]()
            while old > 0 or new > 0:
                own.append(next(lines, b""))
                old -= own[-1][:1] != b"+"
                new -= own[-1][:1] != b"-"
            number = 1 + sum(hunk.file == name for hunk in hunks)
            hunks.append(_Hunk(name, number, header[3].strip(), tuple(own)))
    return hunks


def _by_file(hunks: Iterable[_Hunk]) -> dict[str, list[_Hunk]]:
    # A patch has those of a file one after the other.
    return {name: list(own) for name, own in groupby(hunks, attrgetter("file"))}


@dataclass(frozen=True)
class _Merge:
    """A variant merged into a tree's files.

    Attributes:
        name: the variant, below patches/.
        hunks: what it changes.
        unfit: those that do not fit as they are.
        files: the merged files.
        marked: the same with a mark at each place that was not exact.
    """

    name: str
    hunks: list[_Hunk]
    unfit: list[_Hunk]
    files: dict[str, bytes]
    marked: dict[str, bytes]

    @property
    def conflicts(self) -> dict[str, int]:
        """How many conflicts each file has, where it has any."""
        counts = {name: len(_REGION.findall(content)) for name, content in self.files.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def problem(self) -> str:
        """Why it is none; empty if it is one."""
        if missing := [name for name in _by_file(self.hunks) if name not in self.files]:
            return f"changes {', '.join(missing)}, which this tree has not got"
        counts = ", ".join(f"{name} ({count})" for name, count in self.conflicts.items())
        return counts and f"conflicts in {counts}"

    @property
    def fitting(self) -> str:
        """How many hunks fit, in words."""
        return f"{len(self.hunks) - len(self.unfit)} of {len(self.hunks)} hunks fit"

    def marks(self, shown: Mapping[str, bytes]) -> list[_Hunk]:
        """Return which hunks have marks in files as they were shown, which is `files` or `marked`."""
        owners = [
            max(hunks, key=lambda hunk: hunk.alike(region))
            for name, hunks in _by_file(self.unfit).items()
            for region in _REGION.findall(shown.get(name, b""))
        ]
        return [hunk for hunk in self.unfit if hunk in owners]


def port(
    tree: Tree, bugs: Sequence[Bug], variant: str = "", out: Path | None = None, say: Say = print
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
    audited = audit(tree, [_whole(bug) for bug in bugs], latent=True)
    work, left = [], []
    for bug, bug_audit in zip(bugs, audited.bugs, strict=True):
        said = {each.id: each for each in bug_audit.findings}
        for finding in bug.findings:
            if nothing := _nothing_to_do(said[finding.id], variant, finding):
                left.append(nothing)
            else:
                work.append((bug_audit, finding))
    if not work:
        raise NothingToDo(f"{tree.path}: nothing to port: {'; '.join(left)}")
    if out and len(work) > 1:
        several = ", ".join(finding.id for _, finding in work)
        raise BadInput(f"--out is for one finding, but {several} are to be ported: give one with --bug")
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


def _port(tree: Tree, audited: BugAudit, finding: Finding, out: Path, variant: str, say: Say) -> Ported:
    """Try the variants, nearest first, until one is merged, audited and compiled."""
    names = [variant] if variant else [each[0] for each in finding.fix if len(each) == 1]
    # Of those that fit alike the newest comes first, as it does in the manifest.
    merges = sorted((_merge(tree, name, say) for name in names), key=lambda merge: len(merge.unfit) / len(merge.hunks))
    tried: list[tuple[Ported, _Merge]] = []
    for merge in merges:
        why = "the one asked for" if variant else "the one variant"
        if len(merges) > 1:
            why = f"the {'next' if tried else 'nearest'} of {len(merges)} variants"
        why += f"; {merge.fitting}"
        if tried:
            why += f"; nearer: {'; '.join(f'{each.variant} {each.problem}' for each, _ in tried)}"
        problem = merge.problem or _judge(tree, audited, finding, merge.files)
        done = Ported(tree.path, tree.release, finding.id, merge.name, why, _notes(tree, merge), problem, _folder(out))
        try:
            done = replace(done, problem=problem or touched.problem_of(tree, audited.bug, [finding], merge.files, say))
        except KmendError as error:
            done = replace(done, problem=f"was not compiled: {error}", code=error.code)
        if not done.problem:
            how = merge.fitting + (", the others were merged by wiggle" if merge.unfit else "")
            _write(tree, out, merge.name, merge.files, how)
            return replace(done, wrote=out, code=ExitCode.OK)
        tried.append((done, merge))
        if done.code is not ExitCode.FAILED:
            # Nobody knows whether it is good, and it is the best of them.
            tried = tried[-1:]
            break
    (done, merge), *others = tried
    done = replace(done, notes=(*done.notes, *(f"{each.variant} {each.problem}" for each, _ in others)))
    _write_conflict(done, merge, out)
    return done


def _how(merge: _Merge, shown: Mapping[str, bytes], files: Mapping[str, bytes]) -> str:
    """Return what the log says of how a variant came to this tree by hand.

    Args:
        merge: the merge.
        shown: what of it was given to a person to go on with.
        files: what the person made of that.
    """
    by_hand = merge.marks(shown)
    parts = [merge.fitting]
    for what, hunks in (("wiggle", [each for each in merge.unfit if each not in by_hand]), ("hand", by_hand)):
        named = (
            f"{name}: hunk{'s' * (len(own) > 1)} {', '.join(str(hunk.number) for hunk in own)}"
            for name, own in _by_file(hunks).items()
        )
        parts += [f"merged by {what}: {'; '.join(named)}"] if hunks else []
    besides = [name for name, content in files.items() if _changed_besides(shown.get(name), content)]
    parts += [f"changed by hand besides: {', '.join(besides)}"] if besides else []
    untouched = [name for name in shown if name not in files]
    parts += [f"left as the tree has it: {', '.join(untouched)}"] if untouched else []
    return "; ".join(parts)


def _changed_besides(shown: bytes | None, content: bytes) -> bool:
    """Tell whether a person changed more of a file than what had a mark."""
    if shown is None:
        return True
    first, *kept = map(re.escape, _REGION.sub(b"\0", shown).split(b"\0"))
    # What is between two marks is found where it comes first: no search goes back.
    between = b"".join(b"(?>.*?%s)" % part for part in kept[:-1])
    return not re.fullmatch(first + (between + b".*" + kept[-1] if kept else b""), content, re.DOTALL)


def _run(command: Sequence[str], files: Mapping[str, bytes], stdin: bytes = b"") -> tuple[int, bytes, dict[str, bytes]]:
    """Run a tool in a folder with some files; return its exit code, what it prints, and the files there then."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as temporary:
        folder = Path(temporary)
        touched.lay(folder, files)
        # The user's own settings of git must not change what is done here.
        git = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        git["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
        done = proc.tool(command, cwd=folder, env=proc.environment(git), stdin=stdin)
        return done.returncode, done.stdout, _files(folder)


def _merge(tree: Tree, name: str, say: Say) -> _Merge:
    """Merge a variant into a tree's files: exactly where a file's hunks all fit, else by wiggle."""
    patch = str(PATCHES / name)
    hunks = _hunks(Path(patch).read_bytes())
    wanted = _by_file(hunks)
    there = touched.own(tree, wanted)
    _, _, files = _run([*series.COMMAND, patch, f"--reject-file={_REJECTS}"], there)
    refused = [hunk.lines for hunk in _hunks(files.get(_REJECTS, b""))]
    unfit = [hunk for hunk in hunks if hunk.file not in there or hunk.lines in refused]
    inexact = [each for each in _by_file(unfit) if each in there]
    merged, marked = ({each: files[each] for each in there} for _ in range(2))
    if inexact and not shutil.which("wiggle"):
        say("some hunks do not fit, and wiggle, which finds a place for them, is not installed")
        setup.ensure(say, ["wiggle"])
    for into, options in ((merged, []), (marked, ["--show-wiggles"])) if inexact else ():
        # --no-ignore: what looks as if it were there already is a conflict, too, not a guess.
        command = ["wiggle", "--merge", "--replace", "-p1", "--no-ignore", "--quiet", *options, patch]
        code, _, files = _run(command, there)
        if code not in (0, 1) and len(there) == len(wanted):
            raise Infrastructure(f"wiggle failed on {name} with exit status {code}")
        into |= {each: files[each] for each in inexact}
    return _Merge(name, hunks, unfit, merged, marked)


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _judge(tree: Tree, audited: BugAudit, finding: Finding, files: dict[str, bytes]) -> str:
    """Audit a tree with some files in place of its own; return what is wrong with that, or nothing."""
    needed = {name for each in audited.bug.findings for name in (*each.files, *each.context)}
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        mended = Path(folder).resolve()
        touched.lay(mended, touched.own(tree, needed) | files)
        (after,) = audit(Tree(mended, tree.version, tree.extraversion), [audited.bug]).bugs
    for each, was in zip(after.findings, audited.findings, strict=True):
        # That something is fixed which could not be there before is no harm.
        before = min(was.status, Status.FIXED, key=_ORDER.index)
        allowed = Status.FIXED if each.id == finding.id else before
        if _ORDER.index(each.status) < _ORDER.index(allowed):
            evidence = each.evidence[0]
            return f"leaves {each.id} {each.status}: {evidence.place}: {evidence.reason}"
    return ""


def _diff(tree: Tree, files: Mapping[str, bytes]) -> bytes:
    """Return the patch from a tree's files to others, with its diffstat above."""
    both = {f"a/{name}": content for name, content in touched.own(tree, files).items()}
    both |= {f"b/{name}": content for name, content in files.items()}
    code, diff, _ = _run(["git", "diff", "--no-index", "--no-prefix", "--no-renames", "--text", "a", "b"], both)
    if code not in (0, 1):
        raise Infrastructure(f"git diff failed with exit status {code}")
    return _run(["git", "apply", "--stat", "-"], {}, diff)[1] + b"\n" + diff


def _notes(tree: Tree, merge: _Merge) -> tuple[str, ...]:
    """Tell what was not exact."""
    notes = []
    unfit = _by_file(merge.unfit)
    for name, hunks in _by_file(merge.hunks).items():
        if name not in merge.files:
            notes.append(f"{name} is not in this tree: {len(hunks)} hunks have no place")
        elif name in unfit:
            numbers = ", ".join(str(hunk.number) for hunk in unfit[name])
            what = "not fitting" if name in merge.conflicts else "merged by wiggle"
            notes.append(f"{name}: hunk {numbers} of {len(hunks)} {what}: the lines around are others here")
    return tuple(notes) if merge.conflicts else (*notes, *_unlike(tree, merge.hunks, merge.files))


def _unlike(tree: Tree, wanted: Collection[_Hunk], files: Mapping[str, bytes]) -> Iterator[str]:
    """Tell in what a result is another one than the variant."""
    got = _hunks(_diff(tree, files))
    theirs, ours = (
        Counter(line for hunk in hunks for line in hunk.lines if line[:1] in (b"+", b"-") and line[1:].strip())
        for hunks in (wanted, got)
    )
    for what, lines in (("variant", theirs - ours), ("result", ours - theirs)):
        yield from (f"only in the {what}: {line.decode(errors='replace')}" for line in lines)
    for name, function in dict.fromkeys((hunk.file, hunk.function) for hunk in got if hunk.function):
        # diff cuts the name off, and not all of them at the same place.
        others = [hunk.function[:20] for hunk in wanted if hunk.file == name and hunk.function]
        if not any(map(function.startswith, others)):
            yield f"{name}: a hunk lies behind '{function.decode(errors='replace')}', the variant has none there"


def _write(tree: Tree, out: Path, name: str, files: Mapping[str, bytes], how: str) -> None:
    """Write the new variant, once it was seen to give the merged files.

    It has the header and log of the one that it comes from, and the tree's own diff.
    """
    head = (PATCHES / name).read_text(encoding="utf-8").partition("\n---\n")[0]
    line = f"[ported from {name.removesuffix('.patch')} to {tree.release}: {how}]"
    paragraphs = head.rstrip().split("\n\n")
    last = all(map(_TRAILER.fullmatch, paragraphs[-1].splitlines())) and len(paragraphs) > 2
    paragraphs.insert(len(paragraphs) - last, textwrap.fill(line, 72, break_long_words=False, break_on_hyphens=False))
    text = "\n\n".join(paragraphs).encode() + b"\n---\n" + _diff(tree, files)
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        patch = Path(folder, out.name)
        patch.write_bytes(text)
        names = series.materialize(tree.path, [patch], Path(folder, "tree"))
        if any(Path(folder, "tree", name).read_bytes() != files[name] for name in names):
            raise Infrastructure(f"{out}: patch does not make the merged files of it")
    _refuse_taken(out)
    write({out: text})


def _write_conflict(done: Ported, merge: _Merge, out: Path) -> None:
    """Write the folder that a person goes on with."""
    # What has no conflict and is wrong all the same was merged where it should not: each such place is looked at.
    marked = done.code is ExitCode.FAILED and not merge.conflicts
    shown = merge.marked if marked else merge.files
    state = {
        "finding": done.finding,
        "tree": str(done.tree),
        "variant": merge.name,
        "marked": marked,
        "files": {name: digest(done.tree / name) for name in shown},
        "out": str(out.absolute()),
    }
    readme = (SCRIPTS / "templates/port.txt").read_text(encoding="utf-8")
    problem = textwrap.fill(f"It is not done: the merge {done.problem}.", 80, break_long_words=False)
    notes = "".join(f"- {note}\n" for note in done.notes)
    with tempfile.TemporaryDirectory(prefix=".kmend-", dir=done.wrote.absolute().parent) as temporary:
        new = Path(temporary, "new")
        touched.lay(new / _FILES, shown)
        shutil.copyfile(PATCHES / merge.name, new / Path(merge.name).name)
        text = readme.format(done=done, copy=Path(merge.name).name, problem=problem, notes=notes, out=out)
        (new / "README").write_text(text, encoding="utf-8", errors="surrogateescape")
        (new / _STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        new.rename(done.wrote)


def resume(folder: Path, out: Path | None = None, say: Say = print) -> Ported:
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
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        id, variant, hashes = str(state["finding"]), str(state["variant"]), dict(state["files"])
        path, marked, place = str(state["tree"]), bool(state["marked"]), out or Path(state["out"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BadInput(f"{folder}: no folder that kmend port wrote: {_STATE} cannot be read") from error
    tree = Tree.open(path, need_makefile=True)
    (bug,) = manifest.load().select([id])
    (finding,) = bug.findings
    if (variant,) not in finding.fix:
        raise BadInput(f"{folder}: {variant} is no variant of {finding.id} any more: run port again")
    _refuse_taken(place)
    for name, known in hashes.items():
        if not (tree.path / name).is_file() or digest(tree.path / name) != known:
            raise BadInput(f"{tree.path / name} was changed since: run port again")
    top = folder / _FILES
    files = _files(top)
    strange = [name for name in files if not (tree.path / name).is_file()]
    if strange:
        raise BadInput(f"{top / strange[0]}: the tree has no such file: take it away")
    files = {name: content for name, content in files.items() if content != (tree.path / name).read_bytes()}
    marks = {name: mark.start() for name, content in files.items() if (mark := _MARKER.search(content))}
    places = [f"{top / name}:{files[name].count(10, 0, start) + 1}" for name, start in marks.items()]
    problem = f"has conflicts left: {', '.join(places)}" if marks else "" if files else "changes no file"
    if not problem:
        (audited,) = audit(tree, [_whole(bug)], latent=True).bugs
        problem = _judge(tree, audited, finding, files) or touched.problem_of(tree, bug, [finding], files, say)
    done = Ported(tree.path, tree.release, finding.id, variant, "by hand", (), problem, folder)
    if problem:
        return done
    merge = _merge(tree, variant, say)
    how = _how(merge, merge.marked if marked else merge.files, files)
    _write(tree, place, variant, files, how)
    notes = (how, *_unlike(tree, merge.hunks, files), f"{folder} is not needed any more")
    return replace(done, notes=notes, wrote=place, code=ExitCode.OK)


def exit_code(results: Sequence[Ported]) -> ExitCode:
    """Return what became of the findings: a failure is said before all else."""
    codes = [each.code for each in results if each.code is not ExitCode.OK]
    return ExitCode.FAILED if ExitCode.FAILED in codes else max(codes, default=ExitCode.OK)
