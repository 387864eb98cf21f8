# SPDX-License-Identifier: GPL-2.0-only
"""What git says of files in a user's tree. Nothing is written, and nothing runs that the tree's configuration names."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import BadInput


def committed(root: Path, names: Sequence[str]) -> dict[str, bool]:
    """Tell which files the last commit has, and of each whether it is in the tree as it is there.

    Blobs are compared, as a look at the index could refresh it. A file that git would convert (end of lines, $Id$) is
    also compared as git's own conversions make it; the programs that a tree may name as filters are not run.

    Args:
        root: the tree.
        names: files of it.

    Returns:
        The files that are committed; none where the tree is in no repository, or in one without a commit.

    Raises:
        BadInput: there is a repository that git cannot read.
        Infrastructure: there is a repository, but no git.
    """
    place = _repository(root)
    if not names or place is None or not _has_commit(root, place):
        return {}
    return _compare(root, place, 2, _git(root, place, "ls-tree", "-r", "-z", "HEAD", "--", *names))


def staged(root: Path, names: Sequence[str]) -> dict[str, bool]:
    """Tell the same of the index, which is what the next commit would have."""
    place = _repository(root)
    if not names or place is None:
        return {}
    return _compare(root, place, 1, _git(root, place, "ls-files", "--stage", "-z", "--", *names))


def _compare(root: Path, place: Path, column: int, listed: str) -> dict[str, bool]:
    """Compare the files that git lists, with a blob's id in a column, with those in the tree."""
    found = {}
    for line in listed.split("\0")[:-1]:
        meta, name = line.split("\t", 1)
        found[name] = meta.split()[column] in _blobs(root, place, name)
    return found


def _repository(root: Path) -> Path | None:
    """Return the `.git` that the tree belongs to; git looks no further than the file system of the tree."""
    device = root.stat().st_dev
    for folder in (root, *root.parents):
        if folder.stat().st_dev != device:
            return None
        if os.path.lexists(folder / ".git"):
            return folder / ".git"
    return None


def _has_commit(root: Path, place: Path) -> bool:
    """Tell whether there is a commit. A branch that was never committed to is one thing, a broken one another."""
    if _run(root, "rev-parse", "-q", "--verify", "HEAD").returncode == 0:
        return True
    head = _git(root, place, "symbolic-ref", "HEAD").strip()
    done = _run(root, "for-each-ref", head)
    if done.returncode or done.stderr:
        raise _unreadable(place, done.stderr)
    return False


def _blobs(root: Path, place: Path, name: str) -> set[str]:
    """Return the ids that a file of the tree has as a blob: as it is, and as git would convert it."""
    if (root / name).is_symlink() or not (root / name).is_file():
        return set()
    ids = {_git(root, place, "hash-object", "--no-filters", "--", name).strip()}
    _, _, driver = _git(root, place, "check-attr", "-z", "filter", "--", name).split("\0")[:3]
    # An empty command is none. A driver whose name cannot be said with -c could not be switched off.
    if re.fullmatch(r"[\w.-]+", driver):
        off = [f"filter.{driver}.{key}" for key in ("clean=", "process=", "required=false")]
        options = [word for setting in [*off, "core.safecrlf=false"] for word in ("-c", setting)]
        done = _run(root, "hash-object", "--", name, options=options)
        ids |= {done.stdout.strip()} if done.returncode == 0 else set()
    return ids


def _run(root: Path, *words: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    # A partial clone would fetch what it lacks; a monitor of files is a program.
    fixed = ["--no-optional-locks", "-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    command = ["git", *fixed, *options, "-C", str(root), *words]
    done = proc.tool(command, env=proc.environment({"GIT_NO_LAZY_FETCH": "1"}))
    out, errors = (text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, errors)


def _git(root: Path, place: Path, *words: str) -> str:
    done = _run(root, *words)
    if done.returncode:
        raise _unreadable(place, done.stderr)
    return done.stdout


def _unreadable(place: Path, message: str) -> BadInput:
    last = (message.strip().splitlines() or ["no message"])[-1]
    return BadInput(f"{place}: git cannot tell whether there are local changes: {last}; mend it, or move it away")
