# SPDX-License-Identifier: GPL-2.0-only
"""Bases: what their files say, and which one a tree comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmendlib.host.errors import BadInput
from kmendlib.proof import build
from kmendlib.tree import arches, bases
from kmendlib.tree.manifest import PATCHES
from kmendlib.tree.source import Workspace
from kmendlib.tree.tree import Tree


def tree(folder: Path, version: str, extra: str = "", more: str = "") -> Tree:
    major, minor, sub = version.split(".")
    text = f"VERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = {sub}\nEXTRAVERSION = {extra}\n{more}"
    (folder / "Makefile").write_text(text, encoding="utf-8")
    return Tree.open(folder)


def test_default_is_there() -> None:
    assert bases.get(bases.DEFAULT).sources


def test_every_source_can_be_had_by_hand() -> None:
    for base in bases.load().values():
        assert all(place.by_hand for place in base.sources), base.name


def test_every_series_belongs_to_a_base() -> None:
    used = {name for base in bases.load().values() for name in base.series}
    assert {path.name for path in (PATCHES / "series").iterdir()} <= used


@pytest.mark.parametrize(
    ("version", "extra", "more", "name"),
    [
        ("4.19.0", "", "", "linux-4.19.y"),
        ("4.19.90", "", "", "linux-4.19.y"),
        ("4.19.90", "-24.4.v2101.ky10", "", "kylin-v10"),
        ("4.19.90", "-2102.3.0.0058.up2.uel20", "", "openeuler-1.0-lts"),
        ("4.19.90", "", "OPENEULER_LTS = 1\n", "openeuler-1.0-lts"),
        ("4.19.325", "", "", "linux-4.19.y"),
        ("5.4.301", "", "", "linux-5.4.y"),
        ("5.10.223", "", "", "linux-5.10.y"),
        ("6.1.192", "", "", "linux-6.1.y"),
        ("6.6.80", "", "", "linux-6.6.y"),
        ("6.6.0", "", "", "linux-6.6.y"),
        ("6.6.0", "-117.0.0.122.oe2403sp2", "", "olk-6.6"),
        ("6.6.0", "", "OPENEULER_LTS = 1\nOPENEULER_MAJOR = 2403\n", "olk-6.6"),
        ("6.6.0", "", "include $(srctree)/Makefile.oever\n", "olk-6.6"),
        ("6.12.117", "", "", "linux-6.12.y"),
        ("7.2.13", "", "", "linux-7.x"),
    ],
)
def test_tree_of_a_base(tmp_path: Path, version: str, extra: str, more: str, name: str) -> None:
    base, why = bases.nearest(tree(tmp_path, version, extra, more))
    assert base.name == name
    assert "nearer" not in why


@pytest.mark.parametrize(("version", "name"), [("5.15.7", "linux-5.10.y"), ("3.10.0", "linux-4.19.y")])
def test_tree_of_no_base(tmp_path: Path, version: str, name: str) -> None:
    base, why = bases.nearest(tree(tmp_path, version))
    assert base.name == name
    assert why.startswith("no base is ")


def test_unknown_base() -> None:
    with pytest.raises(BadInput, match="unknown base 'linux-0.01': choose from kylin-v10, "):
        bases.get("linux-0.01")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title = ", "not TOML: "),
        ('title = "x"\nversion = "1"\nknown = "y"\nnonsense = 1', "Base: got an unexpected keyword .* 'nonsense'"),
        ('title = "x"', "Base: missing 2 required positional arguments: 'version' and 'known'"),
        ("[[source]]\nx = 1", "Source: got an unexpected keyword argument 'x'"),
        ('title = "x"\n[build]\ntitle = "y"', "got multiple values for keyword argument 'title'"),
    ],
)
def test_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=f"^{tmp_path}/a.toml: .*{says}"):
        bases._base(tmp_path / "a.toml")


def test_unknown_parent_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'title = "x"\nversion = "1"\nknown = "y"\nderived_from = "none"\n', encoding="utf-8"
    )
    with pytest.raises(BadInput, match="/bases/none.toml: cannot be read: No such file or directory$"):
        bases._base(tmp_path / "a.toml")


def test_how_a_line_is_built_and_booted() -> None:
    old = bases.get("linux-4.19.y")
    arch = old.adapt(arches.load("arm64"))
    assert build.compiler(arch) == "aarch64-linux-gnu-gcc"
    assert arch.params.extra_qemu_params[-2:] == ["-cpu", "cortex-a57"]
    assert not old.has("riscv64") and old.kunit == "compat"
    words = build._make(Workspace("t", Path("/t")), arch)
    assert "CROSS_COMPILE=aarch64-linux-gnu-" in words and "HOSTCFLAGS=-fcommon" in words
    assert not any(word.startswith("LLVM=") for word in words)
    assert build.fragments(arch, [])[-1] == ("bases/linux-4.19.y.toml", old.config)
    new = bases.get("linux-6.12.y")
    arch = arches.load("arm64")
    assert new.adapt(arch) == arch


def test_child_is_built_as_its_parent_unless_it_says_how() -> None:
    parent = bases.get("linux-4.19.y")
    for name in ("kylin-v10", "openeuler-1.0-lts"):
        child = bases.get(name)
        for what in ("arches", "kunit", "compiler", "make", "config", "qemu", "words"):
            assert getattr(child, what) == getattr(parent, what)


def test_child_that_says_something_takes_nothing(tmp_path: Path) -> None:
    text = 'title = "x"\nversion = "1"\nknown = "y"\nderived_from = "linux-4.19.y"\n'
    (tmp_path / "a.toml").write_text(text + '[qemu]\narm64 = ["-cpu", "max"]\n', encoding="utf-8")
    child = bases._base(tmp_path / "a.toml")
    assert (child.kunit, child.compiler, child.arches) == ("own", "llvm", ())
    assert child.qemu == {"arm64": ("-cpu", "max")}
