# SPDX-License-Identifier: GPL-2.0-only
"""Bases: the named lines of trees, one file each in patches/bases, and which of them a tree comes from."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kmendlib.errors import BadInput
from kmendlib.manifest import PATCHES
from kmendlib.tree import Tree, version_key

BASES = PATCHES / "bases"
DEFAULT = "linux-6.12.y"


@dataclass(frozen=True)
class Source:
    """A place that a base's tree can be had from.

    Attributes:
        debian: Debian's source package; a ``*`` stands for the newest that matches.
        suite: the suite of Debian that has it.
        git: URL of a repository.
        ref: the branch or tag there.
        dnf: a source package of an RPM distribution.
    """

    debian: str = ""
    suite: str = ""
    git: str = ""
    ref: str = ""
    dnf: str = ""

    @property
    def by_hand(self) -> str:
        """How a person gets it."""
        if self.debian:
            return f"Debian's package {self.debian} of {self.suite}"
        if self.git:
            return f"git clone --depth 1 --branch {self.ref} {self.git} DIR"
        return f"dnf download --source {self.dnf}"


@dataclass(frozen=True)
class Base:
    """A named line of trees.

    Attributes:
        name: as in ``--base``.
        title: what it is, in a few words.
        version: the mainline version that its trees say they are, "6.12" or "4.19.90".
        vendor: what the Makefile of a vendor's tree has, as a regular expression; empty for the line itself.
        release: what the name of its kernels looks like, as a regular expression on "4.19.90-2102...".
        derived_from: the base that its trees were made from, or empty.
        series: the names of its series in patches/series.
        known: what is known of it.
        sources: where its trees can be had, best first.
    """

    name: str
    title: str
    version: str
    vendor: str
    release: str
    derived_from: str
    series: tuple[str, ...]
    known: str
    sources: tuple[Source, ...]

    def matches(self, version: str) -> bool:
        """Tell whether `version` is of this line: "6.12.117" is of "6.12", "7.2" of "7"."""
        return (version + ".").startswith(self.version + ".")


@cache
def load() -> dict[str, Base]:
    """Read all bases, by name.

    Raises:
        BadInput: one of the files is wrong; says where.
    """
    found = {path.stem: _read(path) for path in sorted(BASES.glob("*.toml"))}
    for base in found.values():
        if base.derived_from and base.derived_from not in found:
            raise BadInput(f"{BASES / base.name}.toml: derived_from: no base is called {base.derived_from!r}")
    return found


def _read(path: Path) -> Base:
    try:
        table = tomllib.loads(path.read_text())
        sources = tuple(Source(**each) for each in table.pop("source", []))
        series = tuple(table.pop("series", []))
        optional = {"vendor": "", "release": "", "derived_from": ""}
        return Base(name=path.stem, sources=sources, series=series, **(optional | table))
    except (TypeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {str(error).removeprefix('Base.__init__() ')}") from error


def get(name: str) -> Base:
    """Return the base called `name`; BadInput names the known ones."""
    known = load()
    if name not in known:
        raise BadInput(f"unknown base '{name}': choose from {', '.join(known)}, or give --tree DIR")
    return known[name]


def nearest(tree: Tree) -> tuple[Base, str]:
    """Find the base that a tree comes from, or else the one that it is nearest to.

    Args:
        tree: the tree, with a version.

    Returns:
        The base, and why.
    """
    version = tree.version or "0"
    makefile = (tree.path / "Makefile").read_text(encoding="latin-1") if (tree.path / "Makefile").is_file() else ""
    fitting = [base for base in load().values() if base.matches(version)]
    # What a vendor says of itself is more than a version.
    for base in fitting:
        if base.release and re.fullmatch(base.release, tree.release):
            return base, f"it calls itself {tree.release}"
    for base in fitting:
        said = re.search(base.vendor, makefile, re.MULTILINE) if base.vendor else None
        if said:
            return base, f"its Makefile has {said[0].strip()!r}"
    plain = [base for base in fitting if not base.vendor and not base.release]
    if plain:
        return plain[0], f"it is {tree.release}"
    lines = [base for base in load().values() if not base.vendor and not base.release]
    key = version_key(version)
    older = [base for base in lines if version_key(base.version) <= key]
    if older:
        return max(older, key=lambda base: version_key(base.version)), f"no base is nearer to {tree.release}"
    return min(lines, key=lambda base: version_key(base.version)), f"no base is as old as {tree.release}"
