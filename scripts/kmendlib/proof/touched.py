# SPDX-License-Identifier: GPL-2.0-only
"""Compiles what patches touch, out of tree: what fits without fuzz may still use what a tree has not got."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kmendlib.host import setup
from kmendlib.host.errors import BadInput, Infrastructure
from kmendlib.proof import build
from kmendlib.proof.jobs import Jobs
from kmendlib.tree import arches, bases, series, source
from kmendlib.tree.audit import Audit
from kmendlib.tree.manifest import PATCHES, Bug, Finding
from kmendlib.tree.tree import Tree

Say = Callable[[str], None]


def lay(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def own(tree: Tree, names: Iterable[str]) -> dict[str, bytes]:
    """Return those of some files that a tree has."""
    return {name: (tree.path / name).read_bytes() for name in names if (tree.path / name).is_file()}


def check(audit: Audit, say: Say) -> None:
    """Compile what the fixes that the audit chose touch; the tree is only read.

    Args:
        audit: what was found in the tree.
        say: takes a line at a time of what is being done.

    Raises:
        BadInput: something does not compile with its fix.
        KmendError: nothing can be compiled here, with or without the fixes.
    """
    tree = audit.tree
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        names = series.materialize(tree.path, [PATCHES / name for name in audit.patches], Path(folder))
        new = {name: Path(folder, name).read_bytes() for name in names}
    for found in audit.bugs:
        changed = {name for patch in found.patches for name in series.touched_files(PATCHES / patch)}
        files = {name: content for name, content in new.items() if name in changed}
        if problem := problem_of(tree, found.bug, found.bug.findings, files, say) if files else "":
            raise BadInput(f"{tree.path}: {', '.join(found.patches)}: {problem}; the tree is as it was")


def problem_of(tree: Tree, bug: Bug, findings: Sequence[Finding], files: Mapping[str, bytes], say: Say) -> str:
    """Compile what some files changed, for the first of the bug's architectures that the tree's base builds.

    Args:
        tree: the tree.
        bug: the bug, whose configuration is taken.
        findings: whose files include what was changed of headers.
        files: the changed files.
        say: takes a line at a time of what is being done.

    Returns:
        What is wrong, or nothing.

    Raises:
        KmendError: nothing can be compiled here, with or without the files.
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
    seen = [name for finding in findings for name in (*finding.files, *finding.context)]
    objects = _objects(tree, bug, seen, files, arch.folder)
    log, src = scratch.root / "build.log", scratch.src(name)

    def error(files: Mapping[str, bytes]) -> str:
        for each in files:
            # A link to the tree's own.
            (src / each).unlink(missing_ok=True)
        lay(src, files)
        try:
            build.objects(scratch, arch, objects, log, jobs)
        except build.BuildError as wrong:
            return str(wrong)
        return ""

    with source.locked(workspace), contextlib.closing(Jobs()) as jobs:
        source.shadow(scratch, name, tree, [*files, *seen], say)
        source.need_space(scratch, [name])
        log.unlink(missing_ok=True)
        say(f"compiling {', '.join(objects)} for {name}")
        try:
            build.configure(scratch, arch, [bug], log, jobs)
        except build.BuildError as wrong:
            raise Infrastructure(f"{tree.path} does not build here: {wrong}") from wrong
        problem = error(files)
        if problem and (before := error(own(tree, files))):
            raise Infrastructure(f"{tree.path} does not build here without the fix, either: {before}")
    return problem and f"does not compile: {problem}"


def _objects(tree: Tree, bug: Bug, seen: Sequence[str], files: Iterable[str], folder: str) -> list[str]:
    """Return make's targets for some changed files: a header is seen where the findings' own files include it."""
    names = list(files)
    if any(name.endswith(".h") for name in names):
        names += [name for name in seen if (tree.path / name).is_file()]
    targets = []
    for name in names:
        if place := bug.built_from.get(os.path.dirname(name)):
            targets.append(place.format(arch=folder) + "/")
        elif name.endswith(".c"):
            targets.append(f"{name.removesuffix('.c')}.o")
    return list(dict.fromkeys(targets))
