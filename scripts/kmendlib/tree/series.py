# SPDX-License-Identifier: GPL-2.0-only
"""Patches on the files of a tree, without fuzz and all or nothing; the tree itself is only read."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import BadInput, Infrastructure
from kmendlib.tree.manifest import PATCHES

# As a patch is, with no question asked: not reversed, not fuzzy, and with nothing left beside the files.
COMMAND = ("patch", "-p1", "--fuzz=0", "--force", "--no-backup-if-mismatch", "--reject-file=-", "-i")

# A file's header is this pair of lines before a hunk: a removed line "-- x" starts with "---" as well.
_HEADER = re.compile(rb"^--- ([^\t\n]+).*\n\+\+\+ ([^\t\n]+).*\n@@ ", re.MULTILINE)


class DoesNotFit(BadInput):
    """A patch does not apply without fuzz."""


def patch_name(patch: Path) -> str:
    """Return what a patch is called: its path below patches/, or its file name if it lies elsewhere."""
    try:
        return patch.resolve().relative_to(PATCHES).as_posix()
    except ValueError:
        return patch.name


def touched_files(patch: Path) -> list[str]:
    """Return the files that `patch` changes, adds or removes, relative to the tree, each once.

    Raises:
        BadInput: the patch cannot be read, or a path in it leaves the tree.
    """
    try:
        text = patch.read_bytes()
    except OSError as error:
        raise BadInput(f"{patch}: cannot be read: {error.strerror}") from error
    files: dict[str, None] = {}
    for match in _HEADER.finditer(text):
        for name in (match[1], match[2]):
            path = os.fsdecode(name.strip())
            if path == "/dev/null":
                continue
            parts = path.split("/")
            if len(parts) < 2 or path.startswith("/") or ".." in parts:
                raise BadInput(f"{patch}: {path}: not a path inside the tree with one folder to strip")
            files["/".join(parts[1:])] = None
    if not files:
        raise BadInput(f"{patch}: no patch in it")
    return list(files)


def _push(scratch: Path, patch: Path, tree_path: Path) -> None:
    """Apply one patch to the files in `scratch`, which are `tree_path`'s."""
    paths = [scratch / name for name in touched_files(patch)]
    was = [path.read_bytes() if path.is_file() else None for path in paths]
    done = proc.tool([*COMMAND, patch.absolute()], cwd=scratch, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines()]
        told = [line for line in lines if re.search(r"FAILED|can't find|malformed|No such|cannot", line)]
        why = "; ".join(told[:3]) or "; ".join(lines)[-200:] or f"exit status {done.returncode}"
        # patch ends with 1 where a hunk does not fit; any other trouble is not the code's.
        if done.returncode != 1 or not told:
            raise Infrastructure(f"patch failed on {patch_name(patch)}: {why}")
        raise DoesNotFit(f"{patch_name(patch)} does not apply to {tree_path} without fuzz: {why}")
    for path, old in zip(paths, was, strict=True):
        if old == (path.read_bytes() if path.is_file() else None):
            raise Infrastructure(f"patch failed on {patch_name(patch)}: {path.relative_to(scratch)} is as it was")


def materialize(tree_path: Path, patches: Sequence[Path], dest: Path) -> list[str]:
    """Make in `dest` the files that `patches` change, as they are with the patches on; the tree is only read.

    Args:
        tree_path: the tree that the files are taken from.
        patches: the patches, in order.
        dest: the folder for the files, made if it is not there. It gets these files and nothing else.

    Returns:
        The files' paths, relative to `dest` and to the tree, each once.

    Raises:
        DoesNotFit: a patch does not apply without fuzz. `dest` is as it was.
        BadInput: a patch removes a file, which no patch here does.
        Infrastructure: patch is missing or failed.
    """
    files = list(dict.fromkeys(name for patch in patches for name in touched_files(patch)))
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        scratch = Path(folder)
        for name in files:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            if (tree_path / name).is_file():
                shutil.copy(tree_path / name, scratch / name)
                (scratch / name).chmod((scratch / name).stat().st_mode | 0o200)
        for patch in patches:
            _push(scratch, patch, tree_path)
        for name in files:
            if not (scratch / name).is_file():
                raise BadInput(f"{name}: removed by one of {', '.join(patch_name(patch) for patch in patches)}")
        dest.mkdir(parents=True, exist_ok=True)
        for name in files:
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(scratch / name, dest / name)
    return files


_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@.*\n")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
# Where it starts in the new text, and the old and the new lines.
_Hunk = tuple[int, list[bytes], list[bytes]]


@functools.cache
def _hunks(patch: Path) -> list[tuple[str, list[_Hunk]]]:
    """Return each file that a patch changes, with its hunks."""
    text = patch.read_bytes()
    headers = list(_HEADER.finditer(text))
    ends = [*(match.start() for match in headers[1:]), len(text)]
    found = []
    for header, end in zip(headers, ends, strict=True):
        hunks = []
        for match in _HUNK.finditer(text, header.end(2), end):
            old: list[bytes] = []
            new: list[bytes] = []
            most = int(match[1] or 1), int(match[3] or 1)
            for line in _LINE.findall(text, match.end(), end):
                if (len(old), len(new)) == most:
                    break
                # An empty line may have lost its blank.
                old += [line[1:] or line] if line[:1] in b" -\n" else []
                new += [line[1:] or line] if line[:1] in b" +\n" else []
            hunks.append((int(match[2]), old, new))
        found.append((os.fsdecode(header[2].strip()).partition("/")[2], hunks))
    return found


def patched(read: Callable[[str], bytes | None], patches: Iterable[str]) -> dict[str, bytes] | None:
    """Return the files that patches change as they are with these on, or None if one of them does not apply.

    It does in memory what `materialize` does with patch, for who asks of many whether they fit.

    Args:
        read: returns a file of the tree; None if there is none.
        patches: the patches as paths below patches/, in order.
    """
    files: dict[str, bytes] = {}
    for patch in patches:
        for name, hunks in _hunks(PATCHES / patch):
            old = files[name] if name in files else read(name)
            new = _with_hunks(old, hunks) if old is not None else None
            if new is None:
                return None
            files[name] = new
    return files


def _with_hunks(text: bytes, hunks: Iterable[_Hunk]) -> bytes | None:
    """Return a text with hunks applied, each as near to its line as it fits."""
    lines = _LINE.findall(text)
    moved = first = 0
    for number, old, new in hunks:
        wanted = number - 1 + moved
        places = range(first, len(lines) - len(old) + 1)
        there = [at for at in places if lines[at] == old[0] and lines[at : at + len(old)] == old]
        if not there:
            return None
        _, _, at = min((abs(at - wanted), at < wanted, at) for at in there)
        lines[at : at + len(old)] = new
        moved, first = moved + at - wanted, at + len(new)
    return b"".join(lines)


def fits(tree_path: Path, patch: Path, after: Sequence[Path] = ()) -> bool:
    """Return whether `patch` applies to the tree without fuzz; the tree is only read.

    Args:
        tree_path: the tree.
        patch: the patch.
        after: patches that come before it.
    """
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        try:
            materialize(tree_path, [*after, patch], Path(folder))
        except DoesNotFit:
            return False
    return True
