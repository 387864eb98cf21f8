# SPDX-License-Identifier: GPL-2.0-only
"""Every patch: mail format, header, size, place in manifest and series; where trees are at hand, whether it applies."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from conftest import real_trees
from kmendlib.host import paths
from kmendlib.proof import touched
from kmendlib.tree import bases, manifest, overlay, series
from kmendlib.tree.audit import Status, audit
from kmendlib.tree.manifest import PATCHES
from kmendlib.tree.tree import Tree, version_key

BUGS = manifest.load().bugs
FILES = sorted(path.relative_to(PATCHES).as_posix() for path in PATCHES.rglob("*.patch"))
FIXES = {name: bug for bug in BUGS for finding in bug.findings for name in finding.fix_patches}
REINTRODUCE = {name for bug in BUGS for finding in bug.findings for name in finding.reintroduce}
HOOKS = {name for bug in BUGS for suite in bug.suites for name in suite.hooks}
TESTBED = {name for bug in BUGS for name in bug.testbed}
COMPAT = {series.patch_name(path) for path in overlay.COMPAT_HOOKS.glob("*.patch")}
SERIES = sorted((PATCHES / "series").iterdir())

# The stable rules ask for a fix of at most this many lines, with context.
LIMIT = 100


def mail(name: str, folder: Path) -> tuple[dict[str, str], str, str]:
    """Return the mail's fields, its log and its diff, as git am takes them."""
    text = (PATCHES / name).read_bytes()
    command = ["git", "mailinfo", str(folder / "log"), str(folder / "diff")]
    done = subprocess.run(command, input=text, check=True, capture_output=True, cwd=folder)
    fields = dict(line.split(": ", 1) for line in done.stdout.decode().splitlines() if line)
    return fields, (folder / "log").read_text(encoding="utf-8"), (folder / "diff").read_text(encoding="utf-8")


def entries(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_there_are_patches() -> None:
    assert FIXES and REINTRODUCE and HOOKS and SERIES


def test_every_patch_is_in_the_manifest() -> None:
    assert set(FILES) == {*FIXES, *REINTRODUCE, *HOOKS, *TESTBED, *COMPAT}


@pytest.mark.parametrize("name", FILES)
def test_mail_format(name: str, tmp_path: Path) -> None:
    fields, log, diff = mail(name, tmp_path)
    assert fields["Author"] == "kmend"
    assert fields["Email"] == "kmend@localhost"
    assert re.fullmatch(r"[\w/.-]+(: [\w/.-]+)*: [A-Z]\S* .*[^.]", fields["Subject"]), fields["Subject"]
    assert "Date" in fields
    assert log.strip()
    assert diff.lstrip().startswith(("---", "drivers", "diff", " "))
    assert "\ndiff --git a/" in diff


@pytest.mark.parametrize("name", FILES)
def test_text(name: str) -> None:
    text = (PATCHES / name).read_text(encoding="ascii")
    assert "\r" not in text
    assert "Signed-off-by" not in text
    assert text.endswith("\n")
    log = text.split("\n---\n")[0].splitlines()
    may_be_long = ("Fixes: ", "From ", "Subject: ", "Link: ")
    assert not [line for line in log if len(line) > 75 and not line.startswith(may_be_long)]


@pytest.mark.parametrize("name", FILES)
def test_no_blank_at_a_line_end_is_added(name: str) -> None:
    added = [line for line in (PATCHES / name).read_text(encoding="utf-8").splitlines() if line.startswith("+")]
    assert not [line for line in added if line != line.rstrip()]


@pytest.mark.parametrize("name", FIXES)
def test_fix(name: str, tmp_path: Path) -> None:
    bug = FIXES[name]
    _, log, diff = mail(name, tmp_path)
    no_cause = "names no commit as the cause" in " ".join(log.split())
    # Of a vendor's own feature no commit is known.
    no_cause |= not bug.upstream
    assert no_cause != bool(re.search(r'^Fixes: [0-9a-f]{12,40} \(".+"\)$', log, re.MULTILINE))
    causes = [upstream for upstream in bug.upstream if upstream.role == "cause"]
    for fixes in re.findall(r'^Fixes: ([0-9a-f]+) \("(.+)"\)$', log, re.MULTILINE):
        assert any(cause.commit.startswith(fixes[0]) and cause.subject == fixes[1] for cause in causes)
    upstream = [item.commit for item in bug.upstream if item.role == "fix"]
    if upstream and not log.startswith("No backport: upstream has no fix for this up to v"):
        assert any(commit in log for commit in upstream), "the upstream commit's full id is not in the log"
    assert set(series.touched_files(PATCHES / name)) <= set(bug.files)
    assert not re.search(r"(?i)^[+].*(kunit|selftest|kmend)", diff, re.MULTILINE), "test code in a fix"
    lines = [line for line in diff[diff.index("diff --git ") :].splitlines() if line.startswith(("+", "-", " "))]
    size = len([line for line in lines if not line.startswith(("+++ ", "--- "))])
    # A longer one says why in its log.
    assert size <= LIMIT or f"longer than the {LIMIT} lines that the stable rules ask for" in " ".join(log.split())


# A test bed may be good for more than tests.
@pytest.mark.parametrize("name", sorted(REINTRODUCE | HOOKS))
def test_for_tests_only(name: str, tmp_path: Path) -> None:
    _, log, _ = mail(name, tmp_path)
    assert "For tests only" in log


@pytest.mark.parametrize("path", SERIES, ids=[path.name for path in SERIES])
def test_series(path: Path) -> None:
    names = entries(path)
    assert "SPDX-License-Identifier: GPL-2.0-only" in path.read_text(encoding="utf-8").splitlines()[0]
    assert len(set(names)) == len(names)
    assert [name for name in names if name not in FIXES] == [], "a series holds fixes of the manifest alone"
    assert [FIXES[name] for name in names] == sorted((FIXES[name] for name in names), key=BUGS.index), "not in order"
    for bug in BUGS:
        here = [name for name in names if FIXES[name] is bug]
        # Findings may share the patches of a variant.
        ways = itertools.product(*[[(), *finding.fix] for finding in bug.findings])
        assert here in [list(dict.fromkeys(itertools.chain(*way))) for way in ways], "not in manifest order"


NO_TREES = [pytest.param("", Path(), marks=pytest.mark.skip(reason="KMEND_TREES names no folder with real trees"))]


_NAME = re.compile(r"v(\d+(?:\.\d+)+|\d+\.x)(?:-v(\d+(?:\.\d+)+|\d+\.x))?(?:-([a-z-]+))?\.patch$")


def within(name: str, version: str) -> bool:
    """Tell whether a version is in the range of a patch's name, as in v3.4-v5.8, v6.6.62 (and later) or v7.x."""
    named = _NAME.search(name)
    if not named:
        return False
    first, last = (version_key(each.removesuffix(".x")) for each in (named[1], named[2] or named[1]))
    last = last if named[2] else last[:2]
    key = version_key(version)
    return key[: len(first)] >= first and key[: len(last)] <= last


def another_may_do(name: str, folder: str) -> bool:
    """Tell whether a tree of the right version may have another shape than a patch: their names say which one."""
    named = _NAME.search(name)
    return ((named and named[3]) or "") != re.sub(r"^[\d.]+-?", "", folder)


def pairs(names: Iterable[str], fitting: Callable[[str, str], bool]) -> list[tuple[str, Path]]:
    """List what is tried on which of the trees at hand."""
    trees = [(path, Tree.open(path).version or "0") for path in real_trees()]
    return [(name, path) for name in names for path, version in trees if fitting(name, version)]


# Of each base's series, and of each patch, the trees at hand that it is for.
OF_SERIES = pairs(
    (path.name for path in SERIES if entries(path)),
    lambda name, version: (version + ".").startswith(name.removeprefix("linux-").rstrip(".xy") + "."),
)
OF_PATCHES = pairs(FILES, within)


@pytest.mark.parametrize(
    ("name", "version", "is_in"),
    [
        ("a/v3.4-v5.8.patch", "3.4.0", True),
        ("a/v3.4-v5.8.patch", "5.8.18", True),
        ("a/v3.4-v5.8.patch", "5.9.0", False),
        ("a/reintroduce-v5.9-v7.x.patch", "7.3.1", True),
        ("a/kunit-v7.x.patch", "7.0.0", True),
        ("a/kunit-v7.x.patch", "6.19.0", False),
        ("a/reintroduce-v6.6.62.patch", "6.6.80", True),
        ("a/reintroduce-v6.6.62.patch", "6.6.57", False),
        ("a/reintroduce-v6.6.0-v6.6.61.patch", "6.6.57", True),
        ("a/reintroduce-v6.6.0-v6.6.61.patch", "6.6.80", False),
        ("a/v4.19-four-sites.patch", "4.19.90", True),
        ("a/olk-6.6-08-flags.patch", "6.6.57", False),
    ],
)
def test_range_of_a_name(name: str, version: str, is_in: bool) -> None:
    assert within(name, version) is is_in


@pytest.mark.parametrize(
    ("name", "folder", "may"),
    [
        ("a/v5.4-comment.patch", "5.4.49-comment", False),
        ("a/v5.4-comment.patch", "5.4.49", True),
        ("a/no-wait-v5.0-v5.4.patch", "5.4.49-comment", True),
        ("a/no-wait-v5.0-v5.4.patch", "5.4.49", False),
    ],
)
def test_shape_of_a_name(name: str, folder: str, may: bool) -> None:
    assert another_may_do(name, folder) is may


def test_every_name_says_where() -> None:
    """By a range, or as a part of a series."""
    in_series = {name for path in SERIES for name in entries(path)}
    assert [name for name in FILES if name not in in_series and not re.search(r"v\d+\.(\d|x)", name)] == []


@pytest.mark.skipif(not real_trees(), reason="KMEND_TREES names no folder with real trees")
def test_patches_are_tried() -> None:
    """On each tree at hand there are some of each kind that it can have: an empty list would pass unseen."""
    for path in real_trees():
        tried = {name for name, tree in OF_PATCHES if tree == path}
        assert tried & HOOKS and tried & REINTRODUCE, path.name
        base, _ = bases.nearest(Tree.open(path))
        held = [name for name in base.series if entries(PATCHES / "series" / name)]
        assert not held or [name for name, tree in OF_SERIES if tree == path], path.name


@pytest.mark.parametrize(("name", "tree"), OF_SERIES if real_trees() else NO_TREES)
def test_series_prefixes_apply(name: str, tree: Path, tmp_path: Path) -> None:
    """Each prefix of a base's series applies without fuzz to a tree of that base, and comes off again."""
    patches = [PATCHES / each for each in entries(PATCHES / "series" / name)]
    for length in range(1, len(patches) + 1):
        mended = tmp_path / str(length)
        files = series.materialize(tree, patches[:length], mended)
        for patch in reversed(patches[:length]):
            command = ["patch", "-p1", "-R", "--fuzz=0", "--force", "--no-backup-if-mismatch", "-i", str(patch)]
            subprocess.run(command, cwd=mended, check=True, capture_output=True)
        assert [each for each in files if (mended / each).read_bytes() != (tree / each).read_bytes()] == []


# A prefix takes half a minute of a processor's time: by default the first one alone.
PREFIXES = [(name, tree, n) for name, tree in OF_SERIES for n in range(len(entries(PATCHES / "series" / name)))]
PREFIXES = PREFIXES if os.environ.get("KMEND_PREFIXES") == "all" else PREFIXES[:1]


@pytest.mark.skipif(not PREFIXES, reason="KMEND_TREES names no folder with a tree that has a series")
@pytest.mark.parametrize(("name", "tree", "last"), PREFIXES or [("", Path(), 0)])
def test_series_prefix_builds(
    name: str, tree: Path, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a patch changes compiles where the series ends with it, as a bisection may."""
    (tmp_path / "kmend").mkdir()
    # On a new machine nothing was compiled yet.
    (paths.cache() / "ccache").mkdir(parents=True, exist_ok=True)
    (tmp_path / "kmend/ccache").symlink_to(paths.cache() / "ccache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = entries(PATCHES / "series" / name)[: last + 1]
    bug, finding = next((bug, each) for bug in BUGS for each in bug.findings if names[-1] in each.fix_patches)
    changed = series.materialize(tree, [PATCHES / each for each in names], tmp_path / "files")
    # What other bugs' patches change is not in this one's configuration.
    mine = {file for each in names if each in bug.patches for file in series.touched_files(PATCHES / each)}
    files = {each: (tmp_path / "files" / each).read_bytes() for each in changed if each in mine}
    assert touched.problem_of(Tree.open(tree.resolve()), bug, [finding], files, print) == ""
    objects = [path.name for path in (tmp_path / "kmend/work").glob("*/port/*/build/*/**/*.o")]
    shutil.rmtree(tmp_path / "kmend")
    assert {Path(each).with_suffix(".o").name for each in files if each.endswith(".c")} <= set(objects)


@pytest.mark.parametrize(("name", "tree"), OF_PATCHES if real_trees() else NO_TREES)
def test_applies_to_the_trees_it_is_named_for(name: str, tree: Path) -> None:
    """The range in a patch's name, as in v3.4-v5.8, says which trees it fits; stable fixes may have closed it."""
    version = Tree.open(tree).version or "0"
    # What goes into every tree, as the small KUnit does, is of no bug.
    testbeds = [each for bug in BUGS if name in bug.patches for each in bug.testbed if each != name]
    laid = [[], *([PATCHES / each] for each in testbeds)]
    names = {name}
    if another_may_do(name, tree.name):
        names |= {each for bug in BUGS for one in bug.findings if name in one.fix_patches for each in one.fix_patches}
    fits = any(series.fits(tree, PATCHES / each, before) for before in laid for each in names if within(each, version))
    # A stable release may have the fix already, or has the fault still.
    fixed = name in FIXES and not fits and _is_fixed(tree, name)
    faulty = name in REINTRODUCE and not fits and _is_faulty(tree, name)
    assert fits or fixed or faulty


def _is_fixed(tree: Path, fix: str) -> bool:
    statuses = audit(Tree.open(tree), [FIXES[fix]]).statuses
    return all(statuses[each.id] is Status.FIXED for each in FIXES[fix].findings if fix in each.fix_patches)


def _is_faulty(tree: Path, reintroduce: str) -> bool:
    (bug,) = (bug for bug in BUGS if reintroduce in bug.patches)
    statuses = audit(Tree.open(tree), [bug]).statuses
    mine = [each for each in bug.findings if reintroduce in each.reintroduce]
    return all(statuses[each.id] in (Status.AFFECTED, Status.LATENT) for each in mine)


CHECKPATCH = os.environ.get("KMEND_CHECKPATCH")


@pytest.mark.skipif(not CHECKPATCH, reason="KMEND_CHECKPATCH does not give the path of a checkpatch.pl")
@pytest.mark.parametrize("name", FILES)
def test_checkpatch(name: str, tmp_path: Path) -> None:
    # There is no sign-off until a person gives one, and a new file's MAINTAINERS entry is upstream's to add.
    # Commit ids are not looked up: that needs all of mainline's history.
    ignore = "MISSING_SIGN_OFF,NO_AUTHOR_SIGN_OFF,FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID"
    script = str(Path(str(CHECKPATCH)).absolute())
    command = ["perl", script, "--no-tree", "--strict", f"--ignore={ignore}", str(PATCHES / name)]
    # Outside of any git tree, so that checkpatch does not take this project's history for the kernel's.
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "total: 0 errors, 0 warnings, 0 checks" in done.stdout, done.stdout
