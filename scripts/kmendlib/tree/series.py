# SPDX-License-Identifier: GPL-2.0-only
"""Patch series on a directory, by quilt, without fuzz and all or nothing.

All that quilt needs to take the patches back is kept in the directory, in `.kmend-pc`, with copies of the patches: the
repository may move, and a `.pc` of the user's own stays as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import BadInput, Infrastructure
from kmendlib.tree.manifest import PATCHES

STATE = ".kmend-pc"
_COPIES = f"{STATE}/.patches"
_SERIES = ".series"
# The version of the format of quilt's own files; without it, quilt takes the folder for one of version 1.
_FORMAT = "2\n"

# quilt and patch are given this long for one series, in seconds; a push takes well under one.
_LIMIT = 120

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


def _quilt(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # The user's own settings of quilt and patch must not change what is done here.
    own = ("QUILT", "PATCH_", "POSIXLY_CORRECT", "VERSION_CONTROL", "SIMPLE_BACKUP_SUFFIX")
    environment = {name: value for name, value in proc.environment().items() if not name.startswith(own)}
    # quilt looks for a series of this name in QUILT_PC first.
    environment |= {"QUILT_PC": STATE, "QUILT_PATCHES": _COPIES, "QUILT_SERIES": _SERIES}
    command = ["quilt", "--quiltrc", "-", *words]
    try:
        return subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_LIMIT,
        )
    except FileNotFoundError as error:
        raise Infrastructure("quilt is not installed: run kmend setup") from error
    except subprocess.TimeoutExpired as error:
        raise Infrastructure(f"quilt {words[0]} in {directory} took more than {_LIMIT} s") from error


def applied(directory: Path) -> list[str]:
    """Return the names of the patches that are pushed on `directory`, first one first."""
    try:
        return (directory / STATE / "applied-patches").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []


def push(directory: Path, patches: Sequence[Path]) -> None:
    """Push `patches` on `directory`, on top of what is pushed there.

    Raises:
        DoesNotFit: one of them does not apply without fuzz. The directory is as it was.
        Infrastructure: quilt is missing or failed.
    """
    if not patches:
        return
    before = applied(directory)
    names = [patch_name(patch) for patch in patches]
    twice = [name for name in names if name in before or names.count(name) > 1]
    if twice:
        raise DoesNotFit(f"{twice[0]} is pushed on {directory} already")
    try:
        for patch, name in zip(patches, names, strict=True):
            copy = directory / _COPIES / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(patch, copy)
        (directory / STATE / ".version").write_text(_FORMAT)
        (directory / STATE / _SERIES).write_text("".join(f"{name}\n" for name in [*before, *names]))
        done = _quilt(directory, "push", "-a", "--fuzz=0")
    except BaseException:
        _back_to(directory, before)
        raise
    if done.returncode != 0 or applied(directory) != [*before, *names]:
        failed = next((name for name in names if name not in applied(directory)), names[0])
        _back_to(directory, before)
        raise DoesNotFit(f"{failed} does not apply to {directory} without fuzz: {_last_words(done.stdout)}")


def _last_words(output: str) -> str:
    """Return the lines of quilt's output that say what went wrong."""
    lines = [line.strip() for line in output.splitlines()]
    told = [line for line in lines if re.search(r"FAILED|can't find|malformed|revers|No such|cannot", line)]
    return "; ".join(told[:3]) or "; ".join(line for line in lines if line)[-200:]


def _back_to(directory: Path, before: Sequence[str]) -> None:
    """Pop what was pushed after `before`."""
    now = applied(directory)
    if now and list(now) != list(before):
        done = _quilt(directory, "pop", "-f", *([before[-1]] if before else ["-a"]))
        if applied(directory) != list(before):
            raise Infrastructure(f"quilt cannot take back a push on {directory}: {_last_words(done.stdout)}")
    if not before:
        shutil.rmtree(directory / STATE, ignore_errors=True)


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
        Infrastructure: quilt is missing.
    """
    files = list(dict.fromkeys(name for patch in patches for name in touched_files(patch)))
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        scratch = Path(folder)
        for name in files:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            if (tree_path / name).is_file():
                shutil.copy(tree_path / name, scratch / name)
                (scratch / name).chmod((scratch / name).stat().st_mode | 0o200)
        try:
            push(scratch, patches)
        except DoesNotFit as error:
            raise DoesNotFit(str(error).replace(folder, str(tree_path))) from None
        for name in files:
            if not (scratch / name).is_file():
                raise BadInput(f"{name}: removed by one of {', '.join(patch_name(patch) for patch in patches)}")
        dest.mkdir(parents=True, exist_ok=True)
        for name in files:
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(scratch / name, dest / name)
    return files


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
