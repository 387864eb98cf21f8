# SPDX-License-Identifier: GPL-2.0-only
"""The kernels that Debian's suites have, as far as the audit reads them.

Of a package with a kernel's source a few folders are kept, in the cache, for as long as a suite has that version.
"""

import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure
from kmendlib.host.paths import cache
from kmendlib.tree import series, source
from kmendlib.tree.manifest import PATCHES, Bug
from kmendlib.tree.tree import version_key

_LINE = re.compile(r" *(linux-source-[\d.]+) \| *(([\d.]+)\S*) \| \S+ ([\w-]+)/main .*")


def folders(bugs: Iterable[Bug]) -> set[str]:
    """Return the folders that the audit reads, and those that its fixes change."""
    findings = [finding for bug in bugs for finding in bug.findings]
    names = {name for finding in findings for name in (*finding.files, *finding.context)}
    patches = {patch for finding in findings for patch in finding.fix_patches}
    names |= {name for patch in patches for name in series.touched_files(PATCHES / patch)}
    return {str(PurePosixPath(name).parent) for name in names}


def fetch(
    suites: Sequence[str], wanted: Collection[str], have: Collection[str], say: Callable[[str], None]
) -> tuple[dict[str, Path], list[str]]:
    """Unpack parts of the newest kernel of each line that the suites have.

    Args:
        suites: names of Debian's suites, the machine's own or others.
        wanted: the folders to unpack.
        have: versions of trees that are at hand: of their lines nothing older is fetched.
        say: takes a line at a time of what is being done.

    Returns:
        The trees by version, and a line for each older kernel that a suite has as well.

    Raises:
        Infrastructure: the suites cannot be reached, or a package cannot be had.
    """
    root = cache() / "debian"
    root.mkdir(parents=True, exist_ok=True)
    trees: dict[str, Path] = {}
    older = []
    kept = set()
    with tempfile.TemporaryDirectory(prefix=".", dir=root) as folder:
        download, log = Path(folder), root / "fetch.log"
        say(f"looking for kernels in {', '.join(suites)}")
        options = source.apt_options(suites, download, log)
        for package, version, release, suite in _packages(options):
            known = [version_key(each) for each in (*have, *trees)]
            if any(each[:2] == version_key(release)[:2] and each >= version_key(release) for each in known):
                if release not in (*have, *trees):
                    older.append(f"{package} {version} ({suite}): a newer one of its line was audited")
                continue
            trees[release] = root / version
            kept.add(version)
            if not trees[release].exists():
                say(f"downloading {package} {version}")
                _unpack(package, version, options, download, log, wanted).rename(trees[release])
    for path in root.iterdir():
        if path.is_dir() and not path.name.startswith(".") and path.name not in kept:
            shutil.rmtree(path)
    return trees, older


def _packages(options: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return the newest package of each name in each suite: name, version, release, suite; the newest first."""
    names = (proc.output(["apt-cache", *options, "pkgnames", "linux-source-"]) or "").split()
    lines = (proc.output(["apt-cache", *options, "madison", *names]) or "") if names else ""
    found = [(each[1], each[2], each[3], each[4]) for each in map(_LINE.fullmatch, lines.splitlines()) if each]
    if not found:
        raise Infrastructure("no kernel's source in any of Debian's suites")
    found.sort(key=lambda each: version_key(each[2]))
    return sorted({(each[0], each[3]): each for each in found}.values(), key=found.index, reverse=True)


def _unpack(
    package: str, version: str, options: Sequence[str], download: Path, log: Path, wanted: Collection[str]
) -> Path:
    shutil.rmtree(download / "usr", ignore_errors=True)
    source.download_package(f"{package}={version}", options, download, log)
    tree = download / "tree"
    try:
        with tarfile.open(download / f"usr/src/{package}.tar.xz", "r:xz") as archive:
            for member in archive:
                name = PurePosixPath(member.name.partition("/")[2])
                inside = ".." not in name.parts and (str(name) == "Makefile" or str(name.parent) in wanted)
                if inside and member.isfile():
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    data = archive.extractfile(member)
                    (tree / name).write_bytes(data.read() if data else b"")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise Infrastructure(f"cannot unpack {package} {version}: {error}") from error
    return tree
