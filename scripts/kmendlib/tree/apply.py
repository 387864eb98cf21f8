# SPDX-License-Identifier: GPL-2.0-only
"""Puts fixes, and tests if wanted, into a user's tree as one transaction, and takes them back.

Everything is worked out in a scratch folder first. Then the tree gets a folder `.kmend` with the new files, the old
ones and `state.json`, and each file is swapped in by a rename. As long as `.kmend` is there, `unapply` can give back
the very bytes, whatever moment the work was cut off at:

    no state.json   nothing was swapped in yet
    "applying"      each file is either the old or the new one
    "applied"       every file is the new one
    "unapplying"    each file is either the old or the new one
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import BadInput, Infrastructure, KmendError, NothingToDo
from kmendlib.tree import bases, overlay, series
from kmendlib.tree.audit import Audit, Status
from kmendlib.tree.manifest import PATCHES, SELFTESTS
from kmendlib.tree.tree import Tree

STATE = ".kmend"
_JOURNAL = "state.json"
_PHASES = ("applying", "applied", "unapplying")
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


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


@dataclass
class _Entry:
    """One file of a transaction; a hash is the SHA-256 of its bytes, `old` is None where it is added."""

    name: str
    old: str | None
    new: str


@dataclass
class _Journal:
    """What `.kmend/state.json` holds."""

    phase: str
    patches: list[str]
    files: list[_Entry]
    folders: list[str] = field(default_factory=list)  # made for added files, parents first


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
    with _locked(tree):
        _refuse_applied(tree)
        refuse_undecided(audit)
        notes = [
            f"{name} has hunks that are inferred, as the files were not to be had: read them before you build"
            for bug in audit.bugs
            for name in bug.unverified
        ]
        patches = [PATCHES / name for name in audit.patches]
        added_files: dict[str, Path] = {}
        if with_tests:
            hooks, added_files = _tests(tree, audit, patches, notes)
            patches += hooks
        if not patches and not added_files:
            what = ", ".join(f"{bug.id} is {bug.status}" for bug in audit.bugs)
            raise NothingToDo(f"{tree.path}: nothing to apply: {what}")
        names = tuple(series.patch_name(patch) for patch in patches)
        temporary = tempfile.TemporaryDirectory(prefix="kmend-")
        with temporary:
            scratch = Path(temporary.name)
            changed = series.materialize(tree.path, patches, scratch)
            for name, source in added_files.items():
                if os.path.lexists(tree.path / name) or name in changed:
                    raise BadInput(f"{tree.path / name} exists already; the tests would overwrite it")
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, scratch / name)
            added = [name for name in changed if not (tree.path / name).exists()] + list(added_files)
            changed = [name for name in changed if name not in added]
            _refuse_local_changes(tree, changed)
            _refuse_unwritable(tree, [*changed, *added])
            done = Applied(
                tree.path, "would apply" if dry_run else "applied", names, tuple(changed), tuple(added), tuple(notes)
            )
            if not dry_run:
                _commit(tree, temporary, names, changed, added)
            return done


def refuse_undecided(audit: Audit) -> None:
    """Refuse a tree of which the audit could not tell what it needs.

    Raises:
        BadInput: a finding is unknown, or affected and no fix fits.
    """
    for bug in audit.bugs:
        for finding in bug.findings:
            places = ", ".join(evidence.place for evidence in finding.evidence[:1])
            if finding.status is Status.UNKNOWN:
                reason = finding.evidence[0].reason
                raise BadInput(
                    f"{audit.tree.path}: {finding.id} is unknown: {places}: {reason}; "
                    "mend it by hand, or choose the others with --bug"
                )
            if finding.unfit:
                raise BadInput(
                    f"{audit.tree.path}: {finding.id} is affected, but no fix fits {places}; "
                    "mend it by hand, or choose the others with --bug"
                )


def unapply(tree: Tree) -> Applied:
    """Take back what `apply` did, whole or half: the very bytes come back, and nothing of ours stays.

    Raises:
        BadInput: a file was changed since; the tree is as it was.
        NothingToDo: nothing is applied.
        Infrastructure: the tree could not be written.
    """
    with _locked(tree):
        if not os.path.lexists(tree.path / STATE):
            raise NothingToDo(f"{tree.path}: nothing of kmend's is applied")
        journal = _read_journal(tree)
        if journal:
            for entry in journal.files:
                _refuse_changed(tree, journal, entry)
        _refuse_unwritable(tree, [entry.name for entry in journal.files] if journal else [])
        with _held_signals():
            notes = _roll_back(tree, journal)
            if not journal:
                notes.append("apply was cut off before it had changed a file")
        files = journal.files if journal else []
        return Applied(
            tree.path,
            "took back",
            tuple(journal.patches if journal else ()),
            tuple(entry.name for entry in files if entry.old is not None),
            tuple(entry.name for entry in files if entry.old is None),
            tuple(notes),
        )


def _tests(
    tree: Tree, audit: Audit, fixes: Sequence[Path], notes: list[str]
) -> tuple[list[Path], dict[str, Path]]:
    """Choose the hooks of the KUnit suites, and list the files to add: path in the tree to source."""
    hooks: list[Path] = []
    files: dict[str, Path] = {}
    small_hooks: list[Path] = []
    small: dict[str, Path] = {}
    can_hold = True
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
        for selftest in bug.bug.selftests:
            folder = f"tools/testing/selftests/{selftest.collection}"
            wanted = {f"tools/testing/selftests/{name}": SELFTESTS / name for name in selftest.sources}
            if (tree.path / folder / "Makefile").exists():
                # The tree's own collection keeps its makefile and settings.
                wanted = {name: path for name, path in wanted.items() if path.suffix in (".c", ".h")}
                notes.append(f"{folder}/Makefile is the tree's own: add {selftest.name} to its TEST_GEN_PROGS")
            files |= wanted
    if hooks and small:
        notes.append("no KUnit in this tree (it came with v5.5): the small one put in")
        return [*small_hooks, *hooks], files | small
    return hooks, files


@contextlib.contextmanager
def _locked(tree: Tree) -> Iterator[None]:
    """Keep every other kmend off the tree. The lock is on the folder itself and leaves no file."""
    descriptor = os.open(tree.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise BadInput(f"{tree.path}: another kmend is at work on this tree; wait for it") from None
        # Some network file systems lock no folder. mkdir of .kmend still lets one of two in.
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Hold back the signals that end a program; they are delivered at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hash(path: Path) -> str | None:
    """Return the SHA-256 of a file; None where there is none, "" where it is something else."""
    if not os.path.lexists(path):
        return None
    if path.is_symlink() or not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_journal(tree: Tree) -> _Journal | None:
    """Return the journal of the tree's `.kmend`, None if there is none in it yet."""
    path = tree.path / STATE / _JOURNAL
    try:
        data = json.loads(path.read_text())
        journal = _Journal(files=[_Entry(**entry) for entry in data.pop("files")], **data)
        if journal.phase not in _PHASES:
            raise ValueError(f"phase {journal.phase!r}")
        # The journal came with the tree: it must not lead out of it.
        for name in [*journal.patches, *journal.folders, *(entry.name for entry in journal.files)]:
            if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
                raise ValueError(f"path {name!r}")
        return journal
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); the old files are in {STATE}/old") from error


def _write_journal(tree: Tree, journal: _Journal) -> None:
    path = tree.path / STATE / _JOURNAL
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(journal), indent=1) + "\n")
    os.replace(new, path)


def _whole_journal(tree: Tree) -> _Journal | None:
    """Return the journal of what is applied, None if nothing is; raise BadInput where it is only half applied."""
    if not os.path.lexists(tree.path / STATE):
        return None
    journal = _read_journal(tree)
    if journal is None or journal.phase != "applied":
        raise BadInput(f"{tree.path} is half applied: run kmend unapply {tree.path}")
    return journal


def _refuse_applied(tree: Tree) -> None:
    journal = _whole_journal(tree)
    if journal:
        what = ", ".join(journal.patches) or "the tests"
        raise NothingToDo(f"{tree.path}: applied already: {what}; run kmend unapply first to apply something else")


def refuse_prepared(tree: Tree) -> None:
    """Raise BadInput where a tree cannot be verified as it is: half applied, or with the tests in it."""
    journal = _whole_journal(tree)
    if journal and any(entry.old is None for entry in journal.files):
        raise BadInput(f"{tree.path} has kmend's tests in it: run kmend unapply {tree.path}, then apply without them")


def _refuse_changed(tree: Tree, journal: _Journal, entry: _Entry) -> None:
    """Raise BadInput where a file is neither what `apply` left nor, midway, what was there before."""
    now = _hash(tree.path / entry.name)
    if now == entry.new or (now == entry.old and journal.phase != "applied"):
        return
    what = "is gone" if now is None else "was changed"
    raise BadInput(f"{tree.path / entry.name} {what} since it was applied: put it back as it was, then run unapply")


def _refuse_unwritable(tree: Tree, names: Sequence[str]) -> None:
    """Raise BadInput where the tree may not be written, or where a path goes through a symbolic link."""
    folders = {tree.path}
    for name in names:
        path = tree.path / name
        parent = path.parent
        while not parent.exists():
            parent = parent.parent
        if path.is_symlink() or parent.resolve() != parent:
            raise BadInput(f"{path}: a symbolic link is in this path; give a tree that holds the file itself")
        folders.add(parent)
    for folder in sorted(folders):
        if os.statvfs(folder).f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
            raise BadInput(f"{folder} is read-only; give a tree that may be written")


def _refuse_local_changes(tree: Tree, names: Sequence[str]) -> None:
    """Raise BadInput where git tracks one of the files and it is not as in the last commit.

    Blobs are compared directly. So git writes no index, and runs nothing that the tree's own configuration names.
    """
    if not names or not any(os.path.lexists(folder / ".git") for folder in (tree.path, *tree.path.parents)):
        return
    committed = _git(tree, "ls-tree", "-r", "-z", "HEAD", "--", *names)
    if committed is None:
        return
    for line in committed.split("\0")[:-1]:
        meta, name = line.split("\t", 1)
        blob = _git(tree, "hash-object", "--no-filters", "--", name)
        if blob is None or blob.strip() != meta.split()[2]:
            raise BadInput(f"{tree.path / name} has local changes: commit or stash them first")


def _git(tree: Tree, *words: str) -> str | None:
    """Run a git command in the tree and return its output, None where the tree is no git tree with a commit."""
    environment = proc.environment({"GIT_NO_LAZY_FETCH": "1"})
    command = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(tree.path), *words]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        raise Infrastructure(f"git is not installed, and {tree.path} is a git tree: run kmend setup") from error
    if done.returncode == 0:
        return done.stdout
    if "not a git repository" in done.stderr or "Not a valid object name HEAD" in done.stderr:
        return None
    words_of_git = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise BadInput(f"{tree.path}: git cannot tell whether there are local changes: {words_of_git}")


_Scratch = tempfile.TemporaryDirectory[str]


def _commit(
    tree: Tree, temporary: _Scratch, patches: Sequence[str], changed: Sequence[str], added: Sequence[str]
) -> None:
    """Swap the files in `temporary` into the tree. On any failure or signal the tree is as it was."""
    state, made = tree.path / STATE, False
    try:
        with _held_signals():
            os.mkdir(state)
            made = True
            _swap(tree, temporary, patches, changed, added)
            _stop_if_told()
    except BaseException as error:
        # A signal that came after the last look lands here as well, when it is let go.
        if made:
            with _held_signals():
                _roll_back(tree, _read_journal(tree))
        if isinstance(error, OSError):
            raise _cannot_write(tree, error) from error
        raise


def _swap(
    tree: Tree, temporary: _Scratch, patches: Sequence[str], changed: Sequence[str], added: Sequence[str]
) -> None:
    """Do the work of `_commit`, as the phases in the journal have it."""
    state = tree.path / STATE
    journal = _Journal("applying", list(patches), [])
    for name in [*changed, *added]:
        _stage(tree, Path(temporary.name), journal, name, name in changed)
    # Now, so that nothing that can be interrupted is left to do after the swap.
    temporary.cleanup()
    journal.folders = _missing_folders(tree, added)
    _keep_patches(state, patches)
    _write_journal(tree, journal)
    for folder in journal.folders:
        os.mkdir(tree.path / folder)
    for entry in journal.files:
        _stop_if_told()
        if _hash(tree.path / entry.name) != entry.old:
            raise BadInput(f"{tree.path / entry.name} changed while kmend was at work")
        os.replace(state / "new" / entry.name, tree.path / entry.name)
    shutil.rmtree(state / "new")
    journal.phase = "applied"
    _write_journal(tree, journal)


def _stage(tree: Tree, scratch: Path, journal: _Journal, name: str, exists: bool) -> None:
    """Put the new file, and a copy of the old one, into `.kmend`, with the old one's mode and owner."""
    state, path = tree.path / STATE, tree.path / name
    new = state / "new" / name
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(scratch / name, new)
    if exists:
        old = state / "old" / name
        old.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, old)
        for copy in (old, new):
            _like(path, copy)
    journal.files.append(_Entry(name, _hash(path) if exists else None, _hash(new) or ""))


def _like(path: Path, copy: Path) -> None:
    """Give `copy` the owner and mode of `path`."""
    status = path.stat()
    # Only root may give a file away; for others the files are theirs already.
    with contextlib.suppress(PermissionError):
        os.chown(copy, status.st_uid, status.st_gid)
    os.chmod(copy, status.st_mode & 0o7777)


def _keep_patches(state: Path, patches: Sequence[str]) -> None:
    """Keep the patches beside the old files: a tree must tell by itself what was done to it."""
    for name in patches:
        copy = state / "patches" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PATCHES / name, copy)


def _missing_folders(tree: Tree, names: Sequence[str]) -> list[str]:
    """Return the folders that must be made for `names`, parents first."""
    missing: set[str] = set()
    for name in names:
        parent = Path(name).parent
        while not (tree.path / parent).exists():
            missing.add(str(parent))
            parent = parent.parent
    return sorted(missing)


def _stop_if_told() -> None:
    """Raise KeyboardInterrupt where a signal that ends the program is waiting."""
    if signal.sigpending() & _SIGNALS:
        raise KeyboardInterrupt


def _roll_back(tree: Tree, journal: _Journal | None) -> list[str]:
    """Give the tree back its old files and take `.kmend` away. It may be cut off and started again at any point.

    Returns:
        Notes for the user.
    """
    state, notes = tree.path / STATE, []
    try:
        if journal is not None:
            # "applying" allows the same; not to write it again lets a full disk be rolled back.
            if journal.phase == "applied":
                journal.phase = "unapplying"
                _write_journal(tree, journal)
            for entry in journal.files:
                path = tree.path / entry.name
                if entry.old is None:
                    path.unlink(missing_ok=True)
                elif _hash(path) != entry.old:
                    # Newer than any object that was built from the mended file, so that make sees the change.
                    os.utime(state / "old" / entry.name)
                    os.replace(state / "old" / entry.name, path)
            for folder in reversed(journal.folders):
                try:
                    os.rmdir(tree.path / folder)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    notes.append(f"{folder} stays: files that are not kmend's are in it")
            # Without a journal, nothing is swapped in: what is left is ours to remove.
            (state / _JOURNAL).unlink()
        shutil.rmtree(state)
    except OSError as error:
        raise _cannot_write(tree, error) from error
    return notes


def _cannot_write(tree: Tree, error: OSError) -> KmendError:
    if os.path.lexists(tree.path / STATE):
        end = f"it is half applied: mend that, then run kmend unapply {tree.path}"
    else:
        end = "it is as it was"
    kind = BadInput if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else Infrastructure
    return kind(f"{tree.path} cannot be written: {error.strerror}: {error.filename or ''}; {end}")
