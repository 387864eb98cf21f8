# SPDX-License-Identifier: GPL-2.0-only
"""The files that the tests add to a tree: the suites, and the small KUnit for trees that have none to speak of."""

from collections.abc import Sequence
from pathlib import Path

from kmendlib.host.errors import BadInput
from kmendlib.tree import series
from kmendlib.tree.manifest import KUNIT, PATCHES, Suite
from kmendlib.tree.tree import Tree

COMPAT = KUNIT / "compat"
COMPAT_HOOKS = PATCHES / "kunit-compat"
VERSIONS = "include/kunit/kernel_versions.h"


def suite(one: Suite) -> dict[str, Path]:
    """Return the sources of a suite: path in the tree to file."""
    return {name: KUNIT / name for name in one.sources}


def has_kunit(tree: Tree) -> bool:
    """Tell whether a tree has a KUnit of its own, be it too old for the suites."""
    return (tree.path / "include/kunit/test.h").exists()


def compat(tree: Tree, before: Sequence[Path] = ()) -> tuple[list[Path], dict[str, Path]]:
    """Choose what puts the small KUnit into a tree.

    Args:
        tree: the tree.
        before: patches that are on it already when ours come.

    Returns:
        The patches that build it, none where the tree builds a KUnit of its own in that place; and the files, path in
        the tree to file, which replace the tree's.

    Raises:
        BadInput: no such patch fits.
    """
    files = {str(path.relative_to(COMPAT)): path for path in sorted(COMPAT.rglob("*")) if path.is_file()}
    # The runner includes it, whether a suite brings it or not.
    files[VERSIONS] = KUNIT / VERSIONS
    if (tree.path / "lib/kunit/Kconfig").exists():
        return [], files
    hooks = sorted(COMPAT_HOOKS.glob("*.patch"))
    hook = next((path for path in hooks if series.fits(tree.path, path, before)), None)
    if not hook:
        tried = ", ".join(map(series.patch_name, hooks))
        raise BadInput(f"nothing puts the small KUnit into {tree.version} (tried {tried})")
    return [hook], files
