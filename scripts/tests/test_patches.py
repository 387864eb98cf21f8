# SPDX-License-Identifier: GPL-2.0-only
"""Every patch: mail format, header, size, place in manifest and series; where trees are at hand, whether it applies."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from pathlib import Path

import pytest

from conftest import real_trees
from kmendlib.tree import manifest, overlay, series
from kmendlib.tree.audit import Status, audit
from kmendlib.tree.manifest import PATCHES
from kmendlib.tree.tree import Tree

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
    return fields, (folder / "log").read_text(), (folder / "diff").read_text()


def entries(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text().splitlines())
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
    added = [line for line in (PATCHES / name).read_text().splitlines() if line.startswith("+")]
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
    if upstream:
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
    assert "SPDX-License-Identifier: GPL-2.0-only" in path.read_text().splitlines()[0]
    assert len(set(names)) == len(names)
    assert [name for name in names if name not in FIXES] == [], "a series holds fixes of the manifest alone"
    assert [FIXES[name] for name in names] == sorted((FIXES[name] for name in names), key=BUGS.index), "not in order"
    for bug in BUGS:
        here = [name for name in names if FIXES[name] is bug]
        # Findings may share the patches of a variant.
        ways = itertools.product(*[[(), *finding.fix] for finding in bug.findings])
        assert here in [list(dict.fromkeys(itertools.chain(*way))) for way in ways], "not in manifest order"


@pytest.mark.skipif(not real_trees(), reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize("path", SERIES, ids=[path.name for path in SERIES])
def test_series_prefixes_apply(path: Path, tmp_path: Path) -> None:
    """Each prefix of a base's series applies without fuzz to the trees of that base, and comes off again."""
    line = path.name.removeprefix("linux-").removesuffix(".y")
    trees = [tree for tree in real_trees() if (tree.name + ".").startswith(line + ".")]
    patches = [PATCHES / name for name in entries(path)]
    if not patches:
        pytest.skip("nothing is to be applied to this base")
    if not trees:
        pytest.skip(f"no tree of {line} in KMEND_TREES")
    for tree in trees:
        for length in range(1, len(patches) + 1):
            series.materialize(tree, patches[:length], tmp_path / tree.name / str(length))


@pytest.mark.skipif(not real_trees(), reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize("name", FILES)
def test_applies_to_the_trees_it_is_named_for(name: str) -> None:
    """The range in a patch's name, as in v3.4-v5.8, says which trees it fits; stable fixes may have closed it."""
    named = re.search(r"(v\d+\.\w+)(?:-(v\d+\.\w+))?\.patch$", name)
    if not named:
        pytest.skip("named after a vendor's tree")
    first, last = named[1], named[2] or named[1]

    def number(text: str) -> tuple[int, int]:
        major, minor = text.removeprefix("v").split(".")[:2]
        return int(major), 999 if minor == "x" else int(minor)

    tried = 0
    # What goes into every tree, as the small KUnit does, is of no bug.
    testbeds = [each for bug in BUGS if name in bug.patches for each in bug.testbed if each != name]
    for path in real_trees():
        version = Tree.open(path).version
        if version and number(first) <= number(version) <= number(last):
            laid = [[], *([PATCHES / each] for each in testbeds)]
            fits = any(series.fits(path, PATCHES / name, before) for before in laid)
            # A stable release may have the fix already.
            fixed = name in FIXES and not fits and _is_fixed(path, name)
            # Or has the fault still.
            faulty = name in REINTRODUCE and not fits and _is_faulty(path, name)
            assert fits or fixed or faulty, path
            tried += 1
    if not tried:
        pytest.skip(f"no tree from {first} to {last} in KMEND_TREES")


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
