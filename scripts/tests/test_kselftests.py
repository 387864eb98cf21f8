# SPDX-License-Identifier: GPL-2.0-only
"""The kselftests compile in kernel trees as they come: with each one's lib.mk and kselftest.h, and the host's libc.

KMEND_TREES may name a folder with any trees, so this is the matrix for vendors' trees as well.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import real_trees
from kmendlib.tree import manifest
from kmendlib.tree.manifest import SELFTESTS


def _is_new(tree: Path) -> bool:
    return [int(number) for number in re.findall(r"\d+", tree.name)[:2]] >= [5, 10]


NOLIBC = "tools/include/nolibc/arch-loongarch.h"
COMPILERS = [name for name in ("gcc", "clang-19", "clang") if shutil.which(name)][:2]
TESTS = [test for bug in manifest.load().bugs for test in bug.selftests]
# KVM's are for trees that have riscv64's, or ioeventfds in batches.
EACH = [(tree, test) for tree in real_trees() for test in TESTS if test.collection != "kvm" or _is_new(tree)]


@pytest.mark.skipif(not EACH, reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize(("tree", "test"), EACH, ids=lambda each: getattr(each, "id", "") or each.name)
def test_compiles(tree: Path, test: manifest.Selftest, tmp_path: Path) -> None:
    """A tree's own makefile of a collection asks for no more than ours."""
    place = tmp_path / "tools/testing/selftests"
    place.mkdir(parents=True)
    for path in (tree / place.relative_to(tmp_path)).iterdir():
        if path.is_file():
            (place / path.name).symlink_to(path)
    for path in SELFTESTS.iterdir():
        if path.is_file():
            shutil.copy(path, place)
    shutil.copytree(SELFTESTS / test.collection, place / test.collection)
    for name in ("scripts", "include"):
        (tmp_path / name).symlink_to(tree / name)
    (tmp_path / "tools/scripts").symlink_to(tree / "tools/scripts")
    assert COMPILERS
    for compiler in COMPILERS:
        out = tmp_path / compiler
        out.mkdir()
        command = ["make", "-C", str(place / test.collection), f"CC={compiler}", f"OUTPUT={out}", str(out / test.name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        ours = [line for line in done.stderr.splitlines() if "warning:" in line and "kselftest.h:" not in line]
        assert done.returncode == 0 and not ours, done.stderr
        assert (out / test.name).stat().st_mode & 0o100


@pytest.mark.skipif(not any((tree / NOLIBC).exists() for tree in real_trees()), reason="no tree with nolibc at hand")
def test_guests_programs_need_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GNU cross compiler in reach clang takes arm64's atomics for functions of libgcc, as it is told to here."""
    tree = next(tree for tree in real_trees() if (tree / NOLIBC).exists())
    monkeypatch.setenv("CCC_OVERRIDE_OPTIONS", "# ^-moutline-atomics")
    llvm = "-19" if shutil.which("clang-19") else "1"
    command = ["make", "-s", "-C", str(SELFTESTS / "init"), "ARCH=arm64", f"LLVM={llvm}", f"KSRC={tree}"]
    command += [f"O={tmp_path}", "TESTS=kvm:ioeventfd_batch mm:split_queue_reclaim"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "initramfs.cpio").stat().st_size > 10000
