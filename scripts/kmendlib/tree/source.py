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
import fnmatch
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kmendlib.host import proc, setup
from kmendlib.host.errors import BadInput, Infrastructure
from kmendlib.host.paths import cache
from kmendlib.tree import bases
from kmendlib.tree.tree import Tree

# Measured with linux-source-6.12: 1.5 GiB of source, 0.5 GiB an architecture with its folders and ccache.
_SOURCE_GIB, _ARCH_GIB = 2.5, 0.8

# A base that was fetched so many days ago is told of: lines of trees get a release a week.
_OLD = 7


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
    with (workspace.root / "lock").open("a+", encoding="utf-8") as lock:
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


def _run(command: Sequence[str], log: Path, failed: str = "", *, fetch: bool = False) -> None:
    """Run a command, with the network if it is to `fetch`; raise Infrastructure with `failed` and its last words."""
    # Nobody is asked for a password.
    env = proc.environment({"GIT_TERMINAL_PROMPT": "0"}, fetch=True) if fetch else None
    if proc.run_logged(command, log, env=env):
        lines = [line for line in log.read_text(errors="replace", encoding="utf-8").splitlines() if line.strip()]
        raise Infrastructure(f"{failed}{lines[-1].strip()} (log: {log})")


def base_workspace(name: str) -> Workspace:
    """Return a base's workspace, which `fetch_base` fills; raise BadInput for an unknown base."""
    return Workspace(bases.get(name).name, cache() / "work" / name)


def read_base(workspace: Workspace, say: Callable[[str], None]) -> Tree:
    """Return a base's tree to read alone, which any number of runs may at once; it is fetched where it is not there."""
    with contextlib.nullcontext() if _is_there(workspace) else locked(workspace):
        need_space(workspace, [])
        return fetch_base(workspace, say)


def _is_there(workspace: Workspace) -> bool:
    """Tell whether a base's tree was fetched; its version is written last."""
    return (workspace.root / "version").exists() and workspace.pristine.exists()


def fetch_base(workspace: Workspace, say: Callable[[str], None]) -> Tree:
    """Unpack a base's source unless it is there already.

    A Debian package is downloaded, not installed, so no right of root is needed; of a git repository the newest commit
    alone is fetched.

    Raises:
        Infrastructure: none of its sources can be had; says how to get it by hand.
    """
    base = bases.get(workspace.name)
    stamp = workspace.root / "version"
    if _is_there(workspace):
        tree = Tree.open(workspace.pristine)
        days = int(time.time() - stamp.stat().st_mtime) // 86400
        if days >= _OLD:
            say(f"{base.name}: {tree.version} was fetched {days} days ago; to have it anew: rm -r {workspace.root}")
        return tree
    download = workspace.root / "download"
    log = workspace.root / "fetch.log"
    failed = []
    for place in base.sources:
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir(parents=True)
        way = next((way for name, way in _WAYS.items() if getattr(place, name)), None)
        try:
            if not way:
                raise Infrastructure("unpack it and run rpmbuild -bp by hand")
            unpacked = way(place, download, log, lambda text: say(f"{base.name}: {text}"))
        except Infrastructure as error:
            failed.append(f"{place.by_hand}: {error}")
            continue
        shutil.rmtree(workspace.pristine, ignore_errors=True)
        unpacked.rename(workspace.pristine)
        shutil.rmtree(download)
        tree = Tree.open(workspace.pristine)
        stamp.write_text(f"{tree.version}\n", encoding="utf-8")
        return tree
    shutil.rmtree(download, ignore_errors=True)
    raise Infrastructure(f"no tree of {base.name} to be had; get one and give it with --tree DIR ({'; '.join(failed)})")


def _debian(place: bases.Source, download: Path, log: Path, say: Callable[[str], None]) -> Path:
    """Unpack a Debian source package below `download`; return the tree's folder."""
    installed = Path(f"/usr/src/{place.debian}.tar.xz")
    if not installed.exists():
        if not shutil.which("apt-get"):
            raise Infrastructure("no apt-get here")
        # The machine's own suite may have it among its updates or backports, where only its own settings look.
        own = place.suite == setup.os_release().get("VERSION_CODENAME")
        package, options = place.debian, [] if own else apt_options([place.suite], download, log)
        if "*" in package:
            names = (proc.output(["apt-cache", *options, "pkgnames", package.partition("*")[0]]) or "").split()
            fitting = fnmatch.filter(names, package)
            if not fitting:
                raise Infrastructure(f"no such package in {place.suite}")
            package = max(fitting, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
        say(f"downloading {package}")
        # On a new machine the lists are empty; an old list may name a version that is gone.
        download_package(package, options, download, log, update=own)
        installed = download / "usr/src" / f"{package}.tar.xz"
    say(f"unpacking {installed.name}")
    _run(["tar", "-C", str(download), "-xf", str(installed)], log, f"cannot unpack {installed}: ")
    return download / installed.name.removesuffix(".tar.xz")


def download_package(package: str, options: Sequence[str], download: Path, log: Path, *, update: bool = False) -> None:
    """Download a package of Debian, and unpack it where it was downloaded to.

    Args:
        package: its name, or `name=version`.
        options: what `apt_options` returned; none for the machine's own settings.
        download: the folder.
        log: the file that takes what the programs say.
        update: bring the lists up to date if that fails, and try again.
    """
    # apt drops its rights for a download and could not write into a private folder.
    options = ["-q", "-o", "APT::Sandbox::User=root", *options]
    command = ["env", "-C", str(download), "apt-get", *options, "download", package]
    try:
        _run(command, log, fetch=True)
    except Infrastructure:
        if not update:
            raise
        _run(["apt-get", "-q", "update"], log, fetch=True)
        _run(command, log, fetch=True)
    (deb,) = download.glob("*.deb")
    _run(["dpkg-deb", "-x", str(deb), str(download)], log, f"cannot unpack {deb.name}: ")
    deb.unlink()


def apt_options(suites: Sequence[str], folder: Path, log: Path) -> list[str]:
    """Return apt's options to look at some suites of Debian alone, be one the machine's own or not."""
    lines = [setup.debian_line(suite) for suite in suites]
    if not all(lines):
        raise Infrastructure(f"no source of Debian in /etc/apt to take {', '.join(suites)} from")
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    (folder / "archives/partial").mkdir(parents=True)
    (folder / "sources.list").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": lists,
        "Dir::Cache": folder,
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", *options, "update"], log, fetch=True)
    return options


def _git(place: bases.Source, download: Path, log: Path, say: Callable[[str], None]) -> Path:
    """Fetch the newest commit of a branch, or a tag, below `download`; return the tree's folder."""
    if not shutil.which("git"):
        raise Infrastructure("no git here")
    say(f"fetching {place.ref} from {place.git}")
    tree = download / "tree"
    # A mirror that stalls must not hold the run up for ever.
    patience = ["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60"]
    clone = ["git", *patience, "clone", "-q", "--depth", "1", "--branch", place.ref, place.git, str(tree)]
    _run(clone, log, fetch=True)
    shutil.rmtree(tree / ".git")
    return tree


def _path(place: bases.Source, download: Path, log: Path, _: Callable[[str], None]) -> Path:
    """Copy a tree of this machine below `download`; return its folder."""
    here = Path(place.path).expanduser()
    if not (here / "Makefile").is_file():
        raise Infrastructure("no kernel tree there")
    _run(["rsync", "-rlp", "--exclude=/.git", f"{here}/", f"{download / 'tree'}/"], log, "cannot copy it: ")
    return download / "tree"


def _dnf(place: bases.Source, download: Path, log: Path, say: Callable[[str], None]) -> Path:
    """Unpack an RPM package below `download`, without installing it; return the tree's folder."""
    for tool in ("dnf", "rpm2cpio", "cpio"):
        if not shutil.which(tool):
            raise Infrastructure(f"no {tool} here")
    say(f"downloading {place.dnf}")
    _run(["dnf", "-q", "-y", "download", "--destdir", str(download), place.dnf], log, fetch=True)
    unpack = 'cd "$1" && for rpm in *.rpm; do rpm2cpio "$rpm" | cpio -idm --quiet || exit 1; done'
    _run(["sh", "-c", unpack, "sh", str(download)], log, f"cannot unpack {place.dnf}: ")
    trees = [path.parent for path in sorted(download.glob("usr/src/*/Kconfig"))]
    if not trees:
        raise Infrastructure(f"{place.dnf} holds no kernel tree in usr/src")
    return trees[0]


# By the key of a base's source that asks for it.
_WAYS = {"debian": _debian, "git": _git, "path": _path, "dnf": _dnf}


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
    _refuse_built(tree)
    say(f"{workspace.name}: copying {tree.path}")
    workspace.pristine.mkdir(parents=True, exist_ok=True)
    command = ["rsync", "-rlp", "--checksum", "--delete", "--exclude=/.git", "--exclude=/.kmend"]
    command += [f"{tree.path}/", f"{workspace.pristine}/"]
    _run(command, workspace.root / "copy.log", f"cannot copy {tree.path}: ")
    _make_executable(workspace.pristine)
    return Tree.open(workspace.pristine)


def _refuse_built(tree: Tree) -> None:
    if (tree.path / ".config").exists() or (tree.path / "include/config").exists():
        raise BadInput(f"{tree.path} was built in place: run 'make mrproper' there, or give a clean checkout")


def shadow(workspace: Workspace, arch: str, tree: Tree, names: Iterable[str], say: Callable[[str], None]) -> None:
    """Give an architecture a source folder that is a user's tree by symbolic links: nothing is copied.

    The folders of some files are real ones: what is put there in place of a link is private. What was built before goes
    if the tree was changed since: dates alone would tell make nothing of an older file.

    Args:
        workspace: the tree's place; its `pristine` becomes a link to the tree.
        arch: the architecture's name.
        tree: the tree; it is only read.
        names: files that are to be replaced, or to be compiled.
        say: takes a line at a time of what is being done.
    """
    _refuse_built(tree)
    top = tree.path
    # Scripts that have lost their mode cannot be run, and are none of ours to change.
    if not os.access(top / "scripts/setlocalversion", os.X_OK):
        top = copy_tree(replace(workspace, root=workspace.root.parent), tree, say).path
    now = hashlib.sha256()
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(set(folders) - {".git"})
        for name in sorted(files):
            status = os.lstat(f"{folder}/{name}")
            now.update(f"{folder}/{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    src, stamp = workspace.src(arch), workspace.root / arch / "stamp"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != now.hexdigest():
        shutil.rmtree(stamp.parent, ignore_errors=True)
    shutil.rmtree(src, ignore_errors=True)
    src.mkdir(parents=True)
    stamp.write_text(now.hexdigest(), encoding="utf-8")
    workspace.pristine.unlink(missing_ok=True)
    workspace.pristine.symlink_to(top)
    real = {Path(), *(parent for name in names if (top / name).is_file() for parent in Path(name).parents)}
    for parent in sorted(real):
        (src / parent).mkdir(exist_ok=True)
        for entry in (top / parent).iterdir():
            if parent / entry.name not in real and entry.name != ".git":
                (src / parent / entry.name).symlink_to(entry)


def _make_executable(tree: Path) -> None:
    """Let scripts be run that have lost their mode, as in a tree that came through a zip file or another system."""
    for pattern in ("scripts/**/*", "arch/*/**/*.sh", "usr/*.sh", "kernel/*.sh", "tools/**/*.sh"):
        for path in tree.glob(pattern):
            if path.is_file() and not path.is_symlink() and not os.access(path, os.X_OK):
                with path.open("rb") as script:
                    if script.read(2) == b"#!":
                        path.chmod(path.stat().st_mode | 0o111)


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
    earlier = memory.read_text(encoding="utf-8").splitlines() if memory.exists() else []
    changed = sorted({*earlier, *changed})
    memory.write_text("".join(f"{path}\n" for path in changed), encoding="utf-8")
    command = ["rsync", "-a", "--delete", f"--link-dest={workspace.pristine}"]
    command += [f"--exclude=/{path}" for path in changed]
    command += [f"{workspace.pristine}/", f"{src}/"]
    _run(command, workspace.root / arch / "link.log", f"cannot write {src}: ")
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
