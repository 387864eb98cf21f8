# SPDX-License-Identifier: GPL-2.0-only
"""What is a kernel tree, and which version it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ACCESS, MakeTree
from kmendlib.host.errors import BadInput, ExitCode
from kmendlib.tree.tree import Tree, version_key


@pytest.mark.parametrize(
    ("version", "extra", "release"),
    [
        ("6.12.117", "", "6.12.117"),
        ("4.19.90", " -2102.3.0", "4.19.90-2102.3.0"),
        ("4.19.90", " -24.4.v2101.ky10", "4.19.90-24.4.v2101.ky10"),
        ("5.9.0", " -rc1", "5.9.0-rc1"),
    ],
)
def test_version(make_tree: MakeTree, version: str, extra: str, release: str) -> None:
    tree = Tree.open(make_tree(version=version, extra=extra))
    assert tree.version == version
    assert tree.release == release


def test_version_with_comments_and_tabs(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / "Makefile").write_text(
        "VERSION\t= 4 # four\nPATCHLEVEL = 19\nSUBLEVEL = 36\nEXTRAVERSION = -vhulk1907.1.0\nOPENEULER_LTS = 1\n",
        encoding="utf-8",
    )
    assert Tree.open(root).release == "4.19.36-vhulk1907.1.0"


def test_empty_sublevel_is_zero(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL =\nEXTRAVERSION =\n", encoding="utf-8")
    assert Tree.open(root).version == "7.2.0"


def test_later_assignment_is_not_the_version(make_tree: MakeTree) -> None:
    root = make_tree()
    text = (root / "Makefile").read_text(encoding="utf-8")
    (root / "Makefile").write_text(text + "VERSION = 9\n", encoding="utf-8")
    assert Tree.open(root).version == "4.19.90"


def test_part_of_a_tree_has_no_version(make_tree: MakeTree) -> None:
    tree = Tree.open(make_tree(version=None))
    assert tree.version is None
    assert tree.release == "unknown version"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("", "no kernel tree"),
        ("drivers", "no kernel tree"),
        ("empty", "no kernel tree"),
        ("none", "no such directory"),
        (ACCESS, "not a directory"),
    ],
)
def test_what_is_no_tree(make_tree: MakeTree, place: str, says: str) -> None:
    root = make_tree(version=None)
    (root / "empty").mkdir()
    with pytest.raises(BadInput, match=says):
        Tree.open(root / place, need_makefile=not place)


@pytest.mark.parametrize(
    "makefile",
    [
        "all:\n\techo hello\n",
        "VERSION = 2024\nPATCHLEVEL = 01\nSUBLEVEL =\nEXTRAVERSION = -rc1\n",  # U-Boot
        "VERSION = 1\nPATCHLEVEL = 36\nSUBLEVEL = 1\nEXTRAVERSION =\n",  # BusyBox
        "VERSION = $(shell cat version)\nPATCHLEVEL = 1\nSUBLEVEL = 1\n",
        "VERSION = 4\n",
        "",
    ],
)
def test_other_projects_are_no_kernel_tree(tmp_path: Path, makefile: str) -> None:
    (tmp_path / "Makefile").write_text(makefile, encoding="utf-8")
    with pytest.raises(BadInput, match="no kernel tree") as error:
        Tree.open(tmp_path)
    assert error.value.code is ExitCode.USAGE


def test_link_to_a_tree(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    (tmp_path / "link").symlink_to(root)
    assert Tree.open(tmp_path / "link").path == root.resolve()


def test_relative_path(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree()
    monkeypatch.chdir(root.parent)
    assert Tree.open(root.name).path == root.resolve()


def test_versions_compare_as_numbers() -> None:
    versions = ["v3.4", "3.10.0", "4.19.90", "v5.8", "5.10.1"]
    assert sorted(reversed(versions), key=version_key) == versions
