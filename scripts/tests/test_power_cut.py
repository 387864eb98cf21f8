# SPDX-License-Identifier: GPL-2.0-only
"""The power goes in the middle of apply and unapply: what is on the disk then is whole, or unapply makes it so.

The tree lies on an ext4 in a file. The file is copied under its mount before each change that is made to the tree; the
copy, mounted by itself, is what a machine would find when it comes up again.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_apply import at_step, do_apply, do_unapply, in_child, patched_once

from conftest import ACCESS, tree_hash
from kmendlib.tree.transaction import STATE

__all__ = ["patched_once"]

CHANGED = (ACCESS, "drivers/pci/Kconfig")
# No data is written early because a rename replaces a file, and nothing by the clock.
OPTIONS = "loop,noauto_da_alloc,commit=3600"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a new disk where `make_tree` makes its tree; return the file that it is in."""
    image, mount = tmp_path / "disk", tmp_path / "tree"
    with image.open("wb") as file:
        file.truncate(12 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", "-J", "size=1", str(image)], check=True)
    mount.mkdir()
    done = subprocess.run(["mount", "-o", OPTIONS, str(image), str(mount)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device can be mounted here: {done.stderr.strip()}")
    try:
        (mount / "lost+found").rmdir()
        yield image
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def cut_at_every_step(root: Path, disk: Path, early: Path | None, work: Callable[[], object]) -> list[Path]:
    """Do `work`, and return the disk's copies, the last one of when it was done.

    early: a file outside the tree that is synced before each copy. ext4 writes its journal then, and with it all that
        was made and renamed so far, but of no other file the data. The clock would do the same, every 5 seconds.
    """
    copies = disk.parent / "copies"
    copies.mkdir()

    def copy() -> None:
        if early:
            with early.open("a", encoding="utf-8") as file:
                file.write("x")
                file.flush()
                os.fsync(file.fileno())
        target = copies / f"{len(os.listdir(copies)):03}"
        subprocess.run(["cp", "--sparse=always", str(disk), str(target)], check=True)

    def child() -> int:
        at_step(root, 1, copy, again=False, each=True)
        work()
        return 0

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(child), 0)[1]) == 0
    copy()
    return sorted(copies.iterdir())


@pytest.mark.parametrize("early", [False, True], ids=["at once", "after the journal was written"])
@pytest.mark.parametrize("command", ["apply", "unapply"])
def test_power_cut(disk: Path, patched_once: Path, tmp_path: Path, command: str, early: bool) -> None:
    root, other = patched_once / "tree", tmp_path / "other"
    # The tree is a folder of the disk, so that something else can be synced there.
    root.mkdir()
    for path in patched_once.iterdir():
        if path != root:
            path.rename(root / path.name)
    before, old = tree_hash(root), {name: (root / name).read_bytes() for name in CHANGED}
    do_apply(root, with_tests=True)
    new = {name: (root / name).read_bytes() for name in CHANGED}
    if command == "apply":
        do_unapply(root)
    os.sync()
    work = (lambda: do_apply(root, with_tests=True)) if command == "apply" else (lambda: do_unapply(root))
    seen = []
    for copy in cut_at_every_step(root, disk, patched_once / "early" if early else None, work):
        other.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", OPTIONS, str(copy), str(other)], check=True)
        try:
            found = other / "tree"
            now = {name: (found / name).read_bytes() for name in CHANGED}
            assert all(now[name] in (old[name], new[name]) for name in CHANGED), copy
            seen.append("old" if now == old else "new" if now == new else "between")
            if os.path.lexists(found / STATE):
                do_unapply(found)
            assert tree_hash(found) == before, copy
        finally:
            subprocess.run(["umount", str(other)], check=True)
        copy.unlink()
    assert len(seen) > 20
    first, last = ("old", "new") if command == "apply" else ("new", "old")
    assert (seen[0], seen[-1]) == (first, last)
    # Not even the clock has to help: what is done is on the disk when the command ends.
    assert seen == sorted(seen, key=[first, "between", last].index)
