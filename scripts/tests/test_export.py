# SPDX-License-Identifier: GPL-2.0-only
"""Export: the two forms of mail, whether git am takes them, and input that it refuses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ACCESS, UNLOCKED, MakeTree, access_c, real_trees
from kmendlib.host.errors import BadInput, NothingToDo
from kmendlib.tree import export, manifest, series
from kmendlib.tree.audit import audit
from kmendlib.tree.manifest import PATCHES
from kmendlib.tree.tree import Tree

BUGS = manifest.load().bugs
FIX = PATCHES / "pci-cfg-wait/v3.4-v5.8.patch"
ISSUE = "https://example.org/issues/1"
SERIES = sorted(path.name for path in (PATCHES / "series").iterdir())
FORMATS = {
    "git": export.Options("git", "A Person <person@example.org>"),
    "openeuler": export.Options("openeuler", "A Person <person@example.org>", ISSUE, "CVE-2020-1"),
}


def git(tree: Path, *words: str) -> str:
    environment = os.environ | {"HOME": str(tree), "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "user.name=A Person", "-c", "user.email=person@example.org", *words]
    return subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("form", FORMATS)
def test_git_am_takes_it(make_tree: MakeTree, tmp_path: Path, form: str) -> None:
    tree = make_tree(access_c(UNLOCKED))
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "tree")
    (path,) = export.export([FIX], FORMATS[form], tmp_path / "out")
    git(tree, "am", "-q", str(path))
    assert "wait_event(pci_cfg_wait" in (tree / ACCESS).read_text()
    assert git(tree, "log", "-1", "--format=%an <%ae>").strip() == "A Person <person@example.org>"
    assert git(tree, "log", "-1", "--format=%s").strip() == "PCI: Fix pci_cfg_wait queue locking problem"
    message = git(tree, "log", "-1", "--format=%B")
    assert message.rstrip().endswith("\nSigned-off-by: A Person <person@example.org>")
    # git reads the last paragraph as trailers.
    assert "Fixes: cdcb33f98244" in git(tree, "log", "-1", "--format=%(trailers)")
    assert (export.STABLE in message) is (form == "git")


@pytest.mark.parametrize("real", real_trees() or [None], ids=lambda path: path.name if path else "none at hand")
@pytest.mark.parametrize("form", FORMATS)
def test_git_am_takes_what_a_real_tree_needs(real: Path | None, form: str, tmp_path: Path) -> None:
    if not real:
        pytest.skip("no real tree here: set KMEND_TREES")
    said = audit(Tree.open(real), BUGS)
    if not said.patches:
        with pytest.raises(NothingToDo):
            export.of_tree(said)
        return
    mails = export.export(export.of_tree(said), FORMATS[form], tmp_path / "out")
    tree = tmp_path / "tree"
    for name in {name for patch in said.patches for name in series.touched_files(PATCHES / patch)}:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real / name, tree / name)
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "tree")
    git(tree, "am", "-q", *map(str, mails))
    assert git(tree, "log", "--format=%s").count("\n") == len(mails) + 1


def test_header_of_openeuler(tmp_path: Path) -> None:
    (path,) = export.export([FIX], FORMATS["openeuler"], tmp_path / "out")
    commit = "2a7e32d0547f41c5ce244f84cf5d6ca7fccee7eb"
    body = path.read_text().split("\n\n", 1)[1].splitlines()
    assert body[:6] == [
        "mainline inclusion",
        "from mainline-v5.9-rc1",
        f"commit {commit}",
        "category: bugfix",
        f"bugzilla: {ISSUE}",
        "CVE: CVE-2020-1",
    ]
    assert body[6] == "" and body[7].startswith("Reference: https://") and body[7].endswith(commit)
    assert body[9] == "-" * 32
    assert body[11] == f'commit {commit} ("PCI: Fix pci_cfg_wait'


def test_fix_of_our_own_is_no_inclusion_of_mainline(tmp_path: Path) -> None:
    name = "riscv-kvm-exit/init-leak-v6.4-v6.12.patch"
    (path,) = export.export([PATCHES / name], FORMATS["openeuler"], tmp_path / "out")
    body = path.read_text().split("\n\n", 1)[1].splitlines()
    assert body[:2] == ["openEuler inclusion", "category: bugfix"]
    assert "Reference: NA" in body


@pytest.mark.parametrize("base", SERIES)
@pytest.mark.parametrize("form", FORMATS)
def test_every_series_can_be_exported(tmp_path: Path, base: str, form: str) -> None:
    patches = export.of_base(base, BUGS)
    lines = (PATCHES / "series" / base).read_text(encoding="utf-8").splitlines()
    assert [series.patch_name(patch) for patch in patches] == [line for line in lines if line[:1] not in ("", "#")]
    mails = export.export(patches, FORMATS[form], tmp_path / "out")
    assert [path.name[:4] for path in mails] == [f"{number:04}" for number in range(1, len(patches) + 1)]
    for patch, path in zip(patches, mails, strict=True):
        text = path.read_text()
        assert text.split("\n---\n", 1)[1] == patch.read_text().split("\n---\n", 1)[1]
        assert len(re.findall("^Signed-off-by: ", text, re.MULTILINE)) == 1
    assert sorted((tmp_path / "out").iterdir()) == mails


def test_without_signoff_nobody_signs(tmp_path: Path) -> None:
    (path,) = export.export([FIX], export.Options("git"), tmp_path / "out")
    assert "Signed-off-by" not in path.read_text()


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="^unknown base 'x': choose from kylin-v10, "):
        export.of_base("x", BUGS)
    with pytest.raises(BadInput, match="give it with --issue URL"):
        export.export([FIX], export.Options("openeuler"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="set user.name and user.email"):
        export.identity()


CHECKPATCH = os.environ.get("KMEND_CHECKPATCH")
# What openEuler RISC-V's gate ignores, and what needs mainline's history.
IGNORED = (
    "CONFIG_DESCRIPTION,FILE_PATH_CHANGES,GIT_COMMIT_ID,UNKNOWN_COMMIT_ID,FROM_SIGN_OFF_MISMATCH,REPEATED_WORD,"
    "BLOCK_COMMENT_STYLE,AVOID_EXTERNS,AVOID_BUG"
    # Upstream names no cause of one bug.
    ",MISSING_FIXES_TAG"
)
# What newer checkpatch.pl say of the header that openEuler asks for.
HEADER = ",COMMIT_LOG_USE_LINK,COMMIT_LOG_LONG_LINE,BAD_COMMIT_SEPARATOR"


@pytest.mark.skipif(not CHECKPATCH, reason="KMEND_CHECKPATCH does not give the path of a checkpatch.pl")
@pytest.mark.parametrize("base", SERIES)
@pytest.mark.parametrize("form", FORMATS)
def test_checkpatch_as_the_gate_runs_it(tmp_path: Path, base: str, form: str) -> None:
    for path in export.export(export.of_base(base, BUGS), FORMATS[form], tmp_path / "out"):
        ignored = IGNORED + (HEADER if form == "openeuler" else "")
        command = ["perl", str(Path(str(CHECKPATCH)).absolute()), "--no-tree", f"--ignore={ignored}", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert "total: 0 errors, 0 warnings" in done.stdout, done.stdout
