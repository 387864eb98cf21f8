# SPDX-License-Identifier: GPL-2.0-only
"""Bases: the named lines of trees, one file each in patches/bases, and which of them a tree comes from."""

import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from kmendlib.host.errors import BadInput
from kmendlib.tree import manifest
from kmendlib.tree.arches import Arch
from kmendlib.tree.manifest import PATCHES
from kmendlib.tree.tree import Tree, version_key

BASES = PATCHES / "bases"
DEFAULT = "linux-6.12.y"
# What a base that has none of it takes over from the one that it is derived from.
_BUILD = ("arches", "kunit", "build", "qemu", "words")


@dataclass(frozen=True)
class Source:
    """A place that a base's tree can be had from.

    Attributes:
        debian: Debian's source package; a ``*`` stands for the newest that matches.
        suite: the suite of Debian that has it.
        git: URL of a repository.
        ref: the branch or tag there.
        path: a folder on this machine.
        dnf: a package of an RPM distribution with the tree below usr/src.
        srpm: a source package of one, which a person has to unpack and prepare.
    """

    debian: str = ""
    suite: str = ""
    git: str = ""
    ref: str = ""
    path: str = ""
    dnf: str = ""
    srpm: str = ""

    @property
    def by_hand(self) -> str:
        """How a person gets it."""
        if self.debian:
            return f"Debian's package {self.debian} of {self.suite}"
        if self.git:
            return f"git clone --depth 1 --branch {self.ref} {self.git} DIR"
        if self.path:
            return self.path
        return f"dnf download {self.dnf or f'--source {self.srpm}'}"


@dataclass(frozen=True)
class Base:
    """A named line of trees.

    Attributes:
        name: as in ``--base``.
        title: what it is, in a few words.
        version: the mainline version that its trees say they are, "6.12" or "4.19.90".
        known: what is known of it.
        vendor: what the Makefile of a vendor's tree has, as a regular expression; empty for the line itself.
        release: what the name of its kernels looks like, as a regular expression on "4.19.90-2102...".
        derived_from: the base that its trees were made from, or empty.
        series: the names of its series in patches/series.
        sources: where its trees can be had, best first.
        arches: the architectures that it is built for; empty for all.
        kunit: ``own`` for the tree's KUnit; ``compat`` for the small one in kunit/compat, where the tree has none or
            one that is too old for the suites.
        compiler: ``llvm``, or ``gcc``.
        make: further words for make.
        config: options on top of all others, a line each.
        qemu: further words for QEMU, by architecture; of options that are given twice the last one counts.
        words: further words of the kernel command line, by architecture.
    """

    name: str
    title: str
    version: str
    known: str
    vendor: str = ""
    release: str = ""
    derived_from: str = ""
    series: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    arches: tuple[str, ...] = ()
    kunit: str = "own"
    compiler: str = "llvm"
    make: tuple[str, ...] = ()
    config: str = ""
    qemu: dict[str, tuple[str, ...]] = field(default_factory=dict)
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def has(self, arch: str) -> bool:
        """Tell whether it is built for an architecture."""
        return not self.arches or arch in self.arches

    def adapt(self, arch: Arch) -> Arch:
        """Return how an architecture's kernels are built and booted in this line."""
        params = replace(
            arch.params,
            extra_qemu_params=[*arch.params.extra_qemu_params, *self.qemu.get(arch.name, ())],
            kernel_command_line=" ".join([arch.params.kernel_command_line, *self.words.get(arch.name, ())]),
        )
        fragment = (f"bases/{self.name}.toml", self.config) if self.config else None
        return replace(arch, params=params, compiler=self.compiler, make=self.make, fragment=fragment)

    def matches(self, version: str) -> bool:
        """Tell whether `version` is of this line: "6.12.117" is of "6.12", "7.2" of "7"."""
        return (version + ".").startswith(self.version + ".")


@cache
def load() -> dict[str, Base]:
    """Read all bases, by name.

    Raises:
        BadInput: one of the files is wrong; says where.
    """
    return {path.stem: _base(path) for path in sorted(BASES.glob("*.toml"))}


def _base(path: Path) -> Base:
    with manifest.reading(path) as table:
        table |= _inherited(table)
        sources = tuple(Source(**each) for each in table.pop("source", ()))
        return Base(name=path.stem, sources=sources, **table.pop("build", {}), **table)


def _inherited(table: dict[str, Any]) -> dict[str, Any]:
    """Return how the parent is built, for a base that says nothing of how it is built itself."""
    if "derived_from" not in table or table.keys() & set(_BUILD):
        return {}
    with manifest.reading(BASES / f"{table['derived_from']}.toml") as parent:
        return _inherited(parent) or {key: parent[key] for key in _BUILD if key in parent}


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
        if base.vendor and (said := re.search(base.vendor, makefile, re.MULTILINE)):
            return base, f"its Makefile has {said[0].strip()!r}"
    plain = [base for base in fitting if not base.vendor and not base.release]
    if plain:
        return plain[0], f"it is {tree.release}"
    lines = [base for base in load().values() if not base.vendor and not base.release]
    lines.sort(key=lambda base: version_key(base.version))
    older = [base for base in lines if version_key(base.version) <= version_key(version)]
    if older:
        return older[-1], f"no base is nearer to {tree.release}"
    return lines[0], f"no base is as old as {tree.release}"
