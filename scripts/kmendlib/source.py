# SPDX-License-Identifier: GPL-2.0-only
"""Kernel sources: fetches a base, and keeps the private copies that the builds work on.

A workspace is a folder in the cache, one for each base or user's tree:

    pristine/          the tree as it came
    ARCH/src/          hard links to pristine, but for the few files that patches and overlay change
    ARCH/build/        the build, out of tree

Each architecture has a source folder of its own so that changing its state makes no other architecture rebuild.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kmendlib import proc
from kmendlib.errors import BadInput, Infrastructure
from kmendlib.manifest import PATCHES
from kmendlib.paths import cache
from kmendlib.tree import Tree

# Measured with linux-source-6.12: 1.5 GiB of source, 0.5 GiB an architecture with its folders and ccache.
_SOURCE_GIB, _ARCH_GIB = 2.5, 0.8


@dataclass(frozen=True)
class Workspace:
    """One tree's place in the cache."""

    name: str
    root: Path

    @property
    def pristine(self) -> Path:
        """The tree as it came; never patched."""
        return self.root / "pristine"

    def src(self, arch: str) -> Path:
        """Source folder that `arch` is built from."""
        return self.root / arch / "src"

    def build(self, arch: str) -> Path:
        """Build folder of `arch`."""
        return self.root / arch / "build"


def bases() -> tuple[str, dict[str, str]]:
    """Return the default base's name, and each base's Debian source package."""
    data = tomllib.loads((PATCHES / "bases.toml").read_text())
    return data["default"], {name: row["debian"] for name, row in data["base"].items()}


def _free_gib(path: Path) -> float:
    return shutil.disk_usage(path).free / 2**30


def need_space(workspace: Workspace, arches: Sequence[str]) -> None:
    """Raise Infrastructure where the disk has no room for what is still to be made."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    need = 0.0 if workspace.pristine.exists() else _SOURCE_GIB
    need += _ARCH_GIB * sum(not workspace.build(arch).exists() for arch in arches)
    free = _free_gib(workspace.root)
    if free < need:
        raise Infrastructure(
            f"{workspace.root} has {free:.1f} GiB free, {need:.1f} are needed: free some or set XDG_CACHE_HOME"
        )


@contextlib.contextmanager
def locked(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace for this run alone; raise Infrastructure where another run has it."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    with (workspace.root / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Infrastructure(
                f"another kmend (process {lock.read().strip() or 'unknown'}) works in {workspace.root}: "
                "wait for it, or set XDG_CACHE_HOME"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip()} (log: {log})"


def base_workspace(name: str) -> Workspace:
    """Return a base's workspace, which `fetch_base` fills; raise BadInput for an unknown base."""
    known = bases()[1]
    if name not in known:
        raise BadInput(f"unknown base '{name}': choose from {', '.join(known)}, or give --tree DIR")
    return Workspace(name, cache() / "work" / name)


def fetch_base(workspace: Workspace, say: Callable[[str], None]) -> Tree:
    """Unpack a base's source unless it is there already.

    The Debian package is downloaded, not installed, so no right of root is needed.
    """
    package = bases()[1][workspace.name]
    stamp = workspace.root / "version"
    if stamp.exists() and workspace.pristine.exists():
        return Tree.open(workspace.pristine)
    installed = Path(f"/usr/src/{package}.tar.xz")
    download = workspace.root / "download"
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    log = workspace.root / "fetch.log"
    if not installed.exists():
        if not shutil.which("apt-get"):
            raise Infrastructure(f"no {package} here and no apt-get to fetch it: give a tree with --tree DIR")
        say(f"{workspace.name}: downloading {package}")
        # apt drops its rights for a download and could not write into a private folder.
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
        command = ["env", "-C", str(download), *command]
        # On a new machine the lists are empty; an old list may name a version that is gone.
        if proc.run_logged(command, log) and (
            proc.run_logged(["apt-get", "-q", "update"], log) or proc.run_logged(command, log)
        ):
            raise Infrastructure(f"no {package} to be had: {_last_words(log)}; give a tree with --tree DIR")
        (deb,) = download.glob("*.deb")
        if proc.run_logged(["dpkg-deb", "-x", str(deb), str(download)], log):
            raise Infrastructure(f"cannot unpack {deb.name}: {_last_words(log)}")
        installed = download / "usr/src" / installed.name
    say(f"{workspace.name}: unpacking {installed.name}")
    shutil.rmtree(workspace.pristine, ignore_errors=True)
    if proc.run_logged(["tar", "-C", str(download), "-xf", str(installed)], log):
        raise Infrastructure(f"cannot unpack {installed}: {_last_words(log)}")
    (download / package).rename(workspace.pristine)
    shutil.rmtree(download)
    tree = Tree.open(workspace.pristine)
    stamp.write_text(f"{tree.version}\n")
    return tree


def tree_workspace(tree: Tree) -> Workspace:
    """Return the workspace for a user's tree; the same path has the same workspace every time."""
    path = tree.path.resolve()
    key = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    # kbuild takes no blanks or colons in a path.
    name = re.sub(r"[^\w.+-]", "_", path.name)
    return Workspace(name, cache() / "work" / f"{name}-{key}")


def copy_tree(workspace: Workspace, tree: Tree, say: Callable[[str], None]) -> Tree:
    """Bring the private copy of a user's tree up to date; the tree itself is only read.

    Contents are compared, and a changed file gets the present time: make sees every change, be its date old or new.
    """
    if (tree.path / ".config").exists() or (tree.path / "include/config").exists():
        raise BadInput(f"{tree.path} was built in place: run 'make mrproper' there, or give a clean checkout")
    say(f"{workspace.name}: copying {tree.path}")
    workspace.pristine.mkdir(parents=True, exist_ok=True)
    log = workspace.root / "copy.log"
    command = ["rsync", "-rlp", "--checksum", "--delete", "--exclude=/.git", "--exclude=/.kmend"]
    command += [f"{tree.path}/", f"{workspace.pristine}/"]
    if proc.run_logged(command, log):
        raise Infrastructure(f"cannot copy {tree.path}: {_last_words(log)}")
    return Tree.open(workspace.pristine)


def link_arch(workspace: Workspace, arch: str, changed: Sequence[str]) -> list[str]:
    """Bring an architecture's source folder up to date with the pristine tree.

    Args:
        workspace: the tree's place.
        arch: the architecture's name.
        changed: paths, relative to the tree, that `install` cares for and that are left alone here.

    Returns:
        `changed`, and what earlier runs changed: going back to the pristine file must look new to make, too.
    """
    src = workspace.src(arch)
    src.mkdir(parents=True, exist_ok=True)
    memory = workspace.root / arch / "changed"
    earlier = memory.read_text().splitlines() if memory.exists() else []
    changed = sorted({*earlier, *changed})
    memory.write_text("".join(f"{path}\n" for path in changed))
    command = ["rsync", "-a", "--delete", f"--link-dest={workspace.pristine}"]
    command += [f"--exclude=/{path}" for path in changed]
    log = workspace.root / arch / "link.log"
    if proc.run_logged([*command, f"{workspace.pristine}/", f"{src}/"], log):
        raise Infrastructure(f"cannot write {src}: {_last_words(log)}")
    return changed


def install(workspace: Workspace, arch: str, stage: Path, changed: Sequence[str]) -> None:
    """Give an architecture's source folder the files of one state.

    A file whose content is right is not touched, so make rebuilds only what differs.

    Args:
        workspace: the tree's place.
        arch: the architecture's name.
        stage: folder with the state's version of each path in `changed`; the pristine one counts where it has none.
        changed: paths that differ from the pristine tree in any state.
    """
    src = workspace.src(arch)
    for path in changed:
        wanted = stage / path if (stage / path).exists() else workspace.pristine / path
        target = src / path
        if not wanted.exists():
            target.unlink(missing_ok=True)
        elif not target.exists() or target.read_bytes() != wanted.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            # Never through the hard link: that would change the pristine file.
            target.unlink(missing_ok=True)
            shutil.copyfile(wanted, target)
