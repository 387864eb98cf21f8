# SPDX-License-Identifier: GPL-2.0-only
"""Puts fixes, and tests if wanted, into a user's tree, all or nothing, and takes them back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kmendlib.host.errors import BadInput, KmendError, NothingToDo
from kmendlib.tree import bases, git, overlay, series, transaction
from kmendlib.tree.audit import Audit, Status
from kmendlib.tree.manifest import PATCHES, SELFTESTS
from kmendlib.tree.transaction import STATE, Now
from kmendlib.tree.tree import Tree


@dataclass(frozen=True)
class Applied:
    """What `apply` or `unapply` did, or would do.

    Attributes:
        tree: the tree's path.
        verb: what was done: "applied", "would apply" or "took back".
        patches: the patches, in order, as paths below patches/.
        changed: files that the patches change, relative to the tree.
        added: files that come with the tests.
        notes: what else the user should know, a line each.
    """

    tree: Path
    verb: str
    patches: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return it in lines for the terminal."""
        lines = [f"{self.tree}: {self.verb} {len(self.patches)} patch{'es' if len(self.patches) != 1 else ''}"]
        lines += [f"  patch    {name}" for name in self.patches]
        lines += [f"  changed  {name}" for name in self.changed]
        lines += [f"  added    {name}" for name in self.added]
        lines += [f"  note     {note}" for note in self.notes]
        return "\n".join(lines)


def apply(tree: Tree, audit: Audit, *, dry_run: bool = False, with_tests: bool = False) -> Applied:
    """Push the fixes that `audit` chose on the tree, in series order: all of it, or none.

    Args:
        tree: the tree to change.
        audit: what was found in it.
        dry_run: change nothing, but make every check.
        with_tests: put the bugs' KUnit suites and kselftests in as well.

    Raises:
        BadInput: the tree cannot be changed safely; it is as it was.
        NothingToDo: it is mended already.
        Infrastructure: a tool is missing or the disk is full; the tree is as it was.
        KeyboardInterrupt: stopped by the user; the tree is as it was.
    """
    with transaction.locked(tree.path):
        _refuse_applied(tree)
        refuse_undecided(audit)
        notes = [
            f"{name} has hunks that are inferred, as the files were not to be had: read them before you build"
            for bug in audit.bugs
            for name in bug.unverified
        ]
        patches = [PATCHES / name for name in audit.patches]
        sources: dict[str, Path] = {}
        if with_tests:
            hooks, sources = _tests(tree, audit, patches, notes)
            patches += hooks
        if not patches and not sources:
            what = ", ".join(f"{bug.id} is {bug.status}" for bug in audit.bugs)
            raise NothingToDo(f"{tree.path}: nothing to apply: {what}")
        # Before the patches are tried on the files: what somebody saves from now on is noticed.
        old = {name: transaction.digest(tree.path / name) for patch in patches for name in series.touched_files(patch)}
        new = _new_files(tree, patches, sources)
        old |= dict.fromkeys(sources)
        changed = [name for name in new if old[name] is not None]
        transaction.refuse_unfit(tree.path, list(new))
        _refuse_local_changes(tree, changed)
        notes += _other_links(tree, changed)
        names = {series.patch_name(patch): patch.read_bytes() for patch in patches}
        if not dry_run:
            transaction.commit(tree.path, names, new, old)
        return Applied(
            tree.path,
            "would apply" if dry_run else "applied",
            tuple(names),
            tuple(changed),
            tuple(name for name in new if old[name] is None),
            tuple(notes),
        )


def _new_files(tree: Tree, patches: Sequence[Path], sources: Mapping[str, Path]) -> dict[str, bytes]:
    """Work out what the files of the tree become."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as scratch:
        new = {name: Path(scratch, name).read_bytes() for name in series.materialize(tree.path, patches, Path(scratch))}
    for name, source in sources.items():
        if os.path.lexists(tree.path / name) or name in new:
            raise BadInput(f"{tree.path / name} exists already; the tests would overwrite it")
        new[name] = source.read_bytes()
    return new


def refuse_undecided(audit: Audit) -> None:
    """Refuse a tree of which the audit could not tell what it needs.

    Raises:
        BadInput: a finding is unknown, or affected and no fix fits.
    """
    path = audit.tree.path
    for finding in audit.findings:
        places = ", ".join(evidence.place for evidence in finding.evidence[:1])
        end = "mend it by hand, or choose the others with --bug"
        if finding.status is Status.UNKNOWN:
            raise BadInput(f"{path}: {finding.id} is unknown: {places}: {finding.evidence[0].reason}; {end}")
        if finding.unfit:
            last = finding.evidence[-1]
            if "CRLF" in last.reason:
                end = "give a tree as its git repository has it (git config core.autocrlf false)"
                raise BadInput(f"{path}/{last.file}: {last.reason}; {end}")
            why = f"no fix fits {places}; {end}"
            if "can be tried without" in last.reason:
                why = f"{last.reason}: give the whole tree, or choose the others with --bug"
            elif "would not compile" in last.reason:
                why = f"{last.reason}; {end}"
            raise BadInput(f"{path}: {finding.id} is affected, but {why}")


def unapply(tree: Tree) -> Applied:
    """Take back what `apply` did, whole or half: the very bytes come back, and nothing of ours stays.

    Raises:
        BadInput: a file was changed or committed since, or cannot be given back; the tree is as it was.
        NothingToDo: nothing is applied.
        Infrastructure: the tree could not be written.
    """
    with transaction.locked(tree.path):
        if not os.path.lexists(tree.path / STATE):
            raise NothingToDo(f"{tree.path}: nothing of kmend's is applied")
        journal = transaction.check(tree.path)
        files = journal.files
        transaction.refuse_unfit(tree.path, [file.name for file in files])
        transaction.refuse_lossy(tree.path, journal)
        notes = _refuse_committed(tree, journal)
        before = sum(file.now(tree.path) is Now.OLD for file in files)
        notes += [f"{before} of {len(files)} files were as before already"] if before else []
        notes += [] if files else ["apply was cut off before it had changed a file"]
        notes = transaction.take_back(tree.path, journal) + notes
        return Applied(
            tree.path,
            "took back",
            tuple(journal.patches),
            tuple(file.name for file in files if file.old is not None),
            tuple(file.name for file in files if file.old is None),
            tuple(notes),
        )


def _tests(tree: Tree, audit: Audit, fixes: Sequence[Path], notes: list[str]) -> tuple[list[Path], dict[str, Path]]:
    """Choose the hooks of the KUnit suites, and list the files to add: path in the tree to source."""
    hooks: list[Path] = []
    files: dict[str, Path] = {}
    small_hooks, small = list[Path](), dict[str, Path]()
    can_hold = True
    ours: dict[str, None] = {}
    if not overlay.has_kunit(tree):
        try:
            small_hooks, small = overlay.compat(tree, fixes)
        except BadInput as error:
            notes.append(f"no KUnit in this tree (it came with v5.5), no suite put in: {error}")
            can_hold = False
    elif tree.version and bases.nearest(tree)[0].kunit == "compat":
        notes.append(f"the KUnit of {tree.version} is too old for the suites: none put in; verify brings its own")
        can_hold = False
    for bug in audit.bugs:
        if bug.status is Status.NOT_APPLICABLE:
            continue
        for suite in bug.bug.suites if can_hold else ():
            hook = next((path for path in suite.hook_paths if series.fits(tree.path, path, [*fixes, *hooks])), None)
            if hook is None:
                notes.append(f"KUnit suite {suite.name} left out: none of {', '.join(suite.hooks)} fits")
                continue
            hooks.append(hook)
            files |= overlay.suite(suite)
            # Where kunit.py looks, given the folder; it is of use with the tree's own KUnit alone.
            place = next(name for name in suite.sources if name.endswith(".c")).rpartition("/")[0] + "/.kunitconfig"
            if not small and not (tree.path / place).exists():
                files[place] = suite.kunitconfig
        for selftest in bug.bug.selftests:
            folder = f"tools/testing/selftests/{selftest.collection}"
            wanted = {f"tools/testing/selftests/{name}": SELFTESTS / name for name in selftest.sources}
            if (tree.path / folder / "Makefile").exists():
                # The tree's own collection keeps its makefile and settings.
                wanted = {name: path for name, path in wanted.items() if path.suffix in (".c", ".h")}
                notes.append(f"{folder}/Makefile is the tree's own: add {selftest.name} to its TEST_GEN_PROGS")
            else:
                ours[selftest.collection] = None
            files |= wanted
    if ours:
        where = "tools/testing/selftests/Makefile"
        notes.append(f"{where}: add {', '.join(ours)} to its TARGETS to run them with all others")
    if hooks and small:
        notes.append("no KUnit in this tree (it came with v5.5): the small one put in")
        return [*small_hooks, *hooks], files | small
    return hooks, files


def _refuse_applied(tree: Tree) -> None:
    """Refuse a tree that something is applied to, or was: say what is there now, and the way out."""
    if not os.path.lexists(tree.path / STATE):
        return
    journal = transaction.check(tree.path)
    states = {file.now(tree.path) for file in journal.files}
    if states == {Now.NEW}:
        what = ", ".join(journal.patches) or "the tests"
        raise NothingToDo(f"{tree.path}: applied already: {what}; run kmend unapply first to apply something else")
    if states & {Now.GONE, Now.OTHER}:
        transaction.refuse_lossy(tree.path, journal)
    if any(file.old and file.now(tree.path) is Now.NEW for file in journal.files):
        raise BadInput(f"{tree.path} is half applied: run kmend unapply {tree.path}")
    raise BadInput(
        f"{tree.path}: what was applied is not in its files (apply was cut off, or git checkout or git stash took it "
        f"out): run kmend unapply {tree.path}, which clears what is left, then apply again"
    )


def refuse_prepared(tree: Tree) -> None:
    """Raise BadInput where a tree cannot be verified as it is: half applied, or with the tests in it."""
    files = transaction.check(tree.path).files if os.path.lexists(tree.path / STATE) else []
    if {Now.OLD, Now.NEW} <= {file.now(tree.path) for file in files}:
        raise BadInput(f"{tree.path} is half applied: run kmend unapply {tree.path}")
    if any(file.old is None and file.now(tree.path) is not Now.OLD for file in files):
        raise BadInput(f"{tree.path} has kmend's tests in it: run kmend unapply {tree.path}, then apply without them")


def _refuse_local_changes(tree: Tree, names: Sequence[str]) -> None:
    """Raise BadInput where git tracks one of the files and it is not as in the last commit."""
    for name, same in git.committed(tree.path, names).items():
        if not same:
            raise BadInput(f"{tree.path / name} has local changes: commit or stash them first")


def _refuse_committed(tree: Tree, journal: transaction.Journal) -> list[str]:
    """Raise BadInput where a file is in the last commit as it was applied: to take it back is git's work then.

    Returns:
        A line for each file that will be in the next commit as it was applied.
    """
    names = [file.name for file in journal.files if file.now(tree.path) is Now.NEW]
    try:
        committed, staged = git.committed(tree.path, names), git.staged(tree.path, names)
    except KmendError:
        return []  # where git cannot tell, the old bytes still can be given back
    for name, same in committed.items():
        if same:
            raise BadInput(
                f"{tree.path / name} is committed as it was applied: take it back with git revert, or keep it; "
                f"in both cases remove {tree.path / STATE}"
            )
    return [f"{name} is still staged in git: git restore --staged {name}" for name, same in staged.items() if same]


def _other_links(tree: Tree, names: Sequence[str]) -> list[str]:
    """Return a line for each file that has other names, as in a tree that cp -al made."""
    others = {name: count for name in names if (count := (tree.path / name).stat().st_nlink - 1)}
    end = "keep the bytes from before"
    return [f"{name} is no hard link any more: its other names ({count}) {end}" for name, count in others.items()]
