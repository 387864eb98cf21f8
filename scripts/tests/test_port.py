# SPDX-License-Identifier: GPL-2.0-only
"""port: what is merged, what is a conflict, how a person goes on, and input that it refuses; no tree is changed."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from conftest import (
    ACCESS,
    UNLOCKED,
    WAIT_EVENT,
    MakeTree,
    access_c,
    commit_all,
    edit,
    git,
    real_trees,
    tools,
    tree_hash,
)  # fmt: skip
from kmendlib import cli
from kmendlib.host import setup
from kmendlib.host.errors import BadInput, ExitCode, Infrastructure, KmendError, NothingToDo
from kmendlib.proof import build, port, touched
from kmendlib.proof.jobs import Jobs
from kmendlib.proof.port import Ported
from kmendlib.tree import manifest, series
from kmendlib.tree.audit import Audit, BugAudit, Evidence, FindingAudit, Status
from kmendlib.tree.manifest import PATCHES, Bug
from kmendlib.tree.source import Workspace
from kmendlib.tree.tree import Tree

BUG = "pci-cfg-wait"
FIX = "pci-cfg-wait/v3.4-v5.8.patch"
DEFAULT = "pci-cfg-wait-unlocked-queue-4.19.90"

# A vendor's comment is in the hunk's way: wiggle goes around it.
COMMENTED = UNLOCKED.replace("\tdo {\n", "\t/* Sleep till nobody blocks the access. */\n\tdo {\n")
# What is to be taken away is another call here: nobody can tell what is to become of it.
OTHER_CALL = UNLOCKED.replace("schedule();", "vendor_sleep(dev, HZ);")
# A second place with the fault, which the variant does not know.
SECOND = UNLOCKED + UNLOCKED.replace("pci_wait_cfg", "pci_wait_vpd")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    """Made-up trees do not compile: take it that they do, and keep what was to be compiled."""
    seen: list[dict[str, bytes]] = []
    monkeypatch.setattr(touched, "problem_of", lambda tree, bug, finding, files, say: seen.append(files) or "")
    return seen


def quiet(_: str) -> None:
    pass


def by_words(tree: Tree, bugs: Sequence[Bug], *, latent: bool = False) -> Audit:
    """Say what the audit would say of made-up trees, without the seconds that it takes."""
    text = (tree.path / ACCESS).read_text(encoding="latin-1")
    if "__add_wait_queue(&pci_cfg_wait" in text:
        status = Status.AFFECTED
    else:
        status = Status.FIXED if "wait_event(pci_cfg_wait" in text else Status.UNKNOWN
    fits = status is Status.AFFECTED and text.count("__add_wait_queue") == 1 and series.fits(tree.path, PATCHES / FIX)
    evidence = (Evidence(ACCESS, 1, "a reason"),)
    finding = FindingAudit(f"{BUG}/unlocked-queue", status, evidence, (FIX,) if fits else ())
    return Audit(tree, tuple(BugAudit(bug, (finding,)) for bug in bugs))


real_audit = pytest.mark.usefixtures("with_coccinelle")


@pytest.fixture
def with_coccinelle() -> None:
    """Marks what is to be judged by the audit itself."""


@pytest.fixture(autouse=True)
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "with_coccinelle" not in request.fixturenames:
        monkeypatch.setattr(port, "audit", by_words)


def do_port(root: Path, *ids: str, variant: str = "", out: Path | None = None) -> list[Ported]:
    before = tree_hash(root)
    bugs = manifest.load().select(list(ids))
    try:
        return list(port.port(Tree.open(root, need_makefile=True), bugs, variant, out, quiet))
    finally:
        assert tree_hash(root) == before


def refused(action: Callable[[], object], error: type[KmendError], says: str) -> None:
    listing = sorted(Path().rglob("*"))
    with pytest.raises(error, match=says) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert sorted(Path().rglob("*")) == listing


def changes(diff: str) -> Counter[str]:
    """Return the lines that a patch adds and takes away; where blank lines stand is diff's own choice."""
    lines = [line for line in diff.partition("\ndiff --git ")[2].splitlines() if line[:1] in ("+", "-")]
    return Counter(line for line in lines if line[1:].strip() and not line.startswith(("+++ ", "--- ")))


@real_audit
def test_merged(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> None:
    root = make_tree(access_c(COMMENTED))
    (done,) = do_port(root, BUG)
    assert (done.code, done.wrote, done.problem) == (ExitCode.OK, Path(f"{DEFAULT}.patch"), "")
    assert f"{ACCESS}: hunk 1 of 1 merged by wiggle: the lines around are others here" in done.notes
    assert done.why == "the one variant; 0 of 1 hunks fit"
    series.materialize(root, [done.wrote.absolute()], Path("mended"))
    expected = access_c(WAIT_EVENT.replace("\tdo {\n", "\t/* Sleep till nobody blocks the access. */\n\tdo {\n"))
    assert Path("mended", ACCESS).read_text(encoding="utf-8") == expected
    assert [set(files) for files in compiled] == [{ACCESS}]
    assert changes(done.wrote.read_text(encoding="utf-8")) == changes((PATCHES / FIX).read_text(encoding="utf-8"))


def test_header(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> None:
    """The log of the variant, with one line more above its trailers."""
    (done,) = do_port(make_tree(access_c(COMMENTED)), BUG)
    old, new = (
        (PATCHES / FIX).read_text(encoding="utf-8").partition("\n---\n")[0],
        done.wrote.read_text(encoding="utf-8").partition("\n---\n")[0],
    )
    log, trailers = old.rsplit("\n\n", 1)
    line = "[ported from pci-cfg-wait/v3.4-v5.8 to 4.19.90: 0 of 1 hunks fit, the\nothers were merged by wiggle]"
    assert new == f"{log}\n\n{line}\n\n{trailers}"
    assert trailers.startswith("Fixes: ")


def test_git_am_takes_it(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> None:
    root = make_tree(access_c(COMMENTED))
    (done,) = do_port(root, BUG)

    commit_all(root)
    git(root, "am", "-q", str(done.wrote.absolute()))
    assert "wait_event(pci_cfg_wait" in (root / ACCESS).read_text(encoding="utf-8")
    assert git(root, "log", "-1", "--format=%s").strip() == "PCI: Fix pci_cfg_wait queue locking problem"
    assert "[ported from pci-cfg-wait/v3.4-v5.8 to 4.19.90: " in git(root, "log", "-1", "--format=%B")
    assert git(root, "log", "-1", "--format=%(trailers)").startswith("Fixes: cdcb33f98244")


def test_users_git_settings_change_nothing(
    make_tree: MakeTree, compiled: list[dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(access_c(COMMENTED))
    (plain,) = do_port(root, BUG)
    Path("home").mkdir()
    Path("home/.gitconfig").write_text(
        "[diff]\n\tcontext = 0\n\tmnemonicPrefix = true\n\texternal = false\n", encoding="utf-8"
    )
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    monkeypatch.setenv("GIT_DIFF_OPTS", "-u9")
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    (other,) = do_port(root, BUG, out=Path("other.patch"))
    assert other.wrote.read_bytes() == plain.wrote.read_bytes()


def test_latin_1_near_the_change(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> None:
    root = make_tree(access_c(COMMENTED))
    (root / ACCESS).write_bytes((root / ACCESS).read_bytes().replace(b"Sleep till", b"J\xf6rg: sleep till"))
    (done,) = do_port(root, BUG)
    assert b"J\xf6rg" in done.wrote.read_bytes()
    series.materialize(root, [done.wrote.absolute()], Path("mended"))
    assert b"J\xf6rg" in Path("mended", ACCESS).read_bytes()


def test_vendors_version_is_in_the_name(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> None:
    (done,) = do_port(make_tree(access_c(COMMENTED), extra=" -24.4.v2101/ky10"), BUG)
    assert done.wrote == Path(f"{DEFAULT}-24.4.v2101-ky10.patch")
    assert "to 4.19.90-24.4.v2101/ky10:" in " ".join(done.wrote.read_text(encoding="utf-8").split())


def test_conflict(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> None:
    root = make_tree(access_c(OTHER_CALL))
    (done,) = do_port(root, BUG)
    assert (done.code, done.wrote) == (ExitCode.FAILED, Path(f"{DEFAULT}.conflict"))
    assert done.problem == f"conflicts in {ACCESS} (1)"
    assert not compiled and not Path(f"{DEFAULT}.patch").exists()
    text = (done.wrote / "files" / ACCESS).read_text(encoding="utf-8")
    for mark in ("<<<<<<< found\n", "||||||| expected\n", "=======\n", ">>>>>>> replacement\n"):
        assert text.count(mark) == 1, mark
    assert (done.wrote / "v3.4-v5.8.patch").read_bytes() == (PATCHES / FIX).read_bytes()
    readme = (done.wrote / "README").read_text(encoding="utf-8")
    assert f"kmend port --continue {DEFAULT}.conflict" in readme
    assert f"It is not done: the merge conflicts in {ACCESS} (1)." in readme
    assert sorted(path.name for path in done.wrote.iterdir()) == ["README", "files", "port.json", "v3.4-v5.8.patch"]


@real_audit
def test_merge_that_does_not_mend_is_a_conflict(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> None:
    """All hunks find a place, and the audit still sees the bug."""
    (done,) = do_port(make_tree(access_c(SECOND)), BUG)
    assert done.code is ExitCode.FAILED
    assert done.problem.startswith(f"leaves {BUG}/unlocked-queue unknown: {ACCESS}:")
    assert not compiled and not Path(f"{DEFAULT}.patch").exists()


def test_merge_that_makes_another_finding_worse(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree.open(make_tree())
    (bug,) = manifest.load().select([BUG])
    (first,) = bug.findings
    other = dataclasses.replace(first, id=f"{BUG}/other")
    bug = dataclasses.replace(bug, findings=(first, other))

    def said(*statuses: Status) -> Audit:
        findings = zip((first, other), statuses, strict=True)
        why = (Evidence(ACCESS, 1, "a reason"),)
        each = (FindingAudit(finding.id, status, why, ()) for finding, status in findings)
        return Audit(tree, (BugAudit(bug, tuple(each)),))

    (before,) = said(Status.AFFECTED, Status.LATENT).bugs
    for after, problem in (
        (Status.LATENT, ""),
        (Status.FIXED, ""),
        (Status.AFFECTED, f"leaves {other.id} affected: {ACCESS}:1: a reason"),
        (Status.UNKNOWN, f"leaves {other.id} unknown: {ACCESS}:1: a reason"),
    ):
        monkeypatch.setattr(port, "audit", lambda *ignored, after=after: said(Status.FIXED, after))
        assert port._judge(tree, before, first, {}) == problem


def test_guess_that_does_not_mend_is_shown(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> None:
    """What wiggle did alone, and wrong, has marks with what it made of it."""
    (done,) = do_port(make_tree(access_c(SECOND.replace("\tdo {\n", "\t/* A comment. */\n\tdo {\n"))), BUG)
    assert done.problem.startswith(f"leaves {BUG}/unlocked-queue affected: ")
    assert "&&&&&&& resolution\n" in (done.wrote / "files" / ACCESS).read_text(encoding="utf-8")


def test_merge_that_does_not_compile_is_a_conflict(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touched, "problem_of", lambda *_: "does not compile: access.c:1: error: no")
    (done,) = do_port(make_tree(access_c(COMMENTED)), BUG)
    assert (done.code, done.problem) == (ExitCode.FAILED, "does not compile: access.c:1: error: no")
    assert "&&&&&&& resolution\n" in (done.wrote / "files" / ACCESS).read_text(encoding="utf-8")


def test_without_a_compiler_it_is_not_done(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merge is kept, and --continue finishes it."""

    def fails(*_: object) -> None:
        raise Infrastructure("no compiler here")

    monkeypatch.setattr(touched, "problem_of", fails)
    root = make_tree(access_c(COMMENTED))
    (done,) = do_port(root, BUG)
    assert (done.code, done.problem) == (ExitCode.INFRASTRUCTURE, "was not compiled: no compiler here")
    assert not Path(f"{DEFAULT}.patch").exists()
    with pytest.raises(Infrastructure, match="^no compiler here$"):
        port.resume(done.wrote, None, quiet)
    assert not Path(f"{DEFAULT}.patch").exists()
    monkeypatch.setattr(touched, "problem_of", lambda *_: "")
    assert port.resume(done.wrote, None, quiet).code is ExitCode.OK
    assert series.fits(root, Path(f"{DEFAULT}.patch").absolute())


@pytest.fixture
def conflict(make_tree: MakeTree, compiled: list[dict[str, bytes]]) -> tuple[Path, Path]:
    """Return a tree, and the folder of its conflict."""
    root = make_tree(access_c(OTHER_CALL))
    (done,) = do_port(root, BUG)
    return root, done.wrote


def test_continue(conflict: tuple[Path, Path], compiled: list[dict[str, bytes]]) -> None:
    root, folder = conflict
    before = tree_hash(root)
    (folder / "files" / ACCESS).write_text(access_c(WAIT_EVENT), encoding="utf-8")
    done = port.resume(folder, None, quiet)
    assert (done.code, done.wrote) == (ExitCode.OK, Path(f"{DEFAULT}.patch").absolute())
    assert [set(files) for files in compiled] == [{ACCESS}]
    how = f"0 of 1 hunks fit; merged by hand: {ACCESS}: hunk 1"
    assert f"to 4.19.90: {how}]" in " ".join(done.wrote.read_text(encoding="utf-8").split()) and how in done.notes
    series.materialize(root, [done.wrote], Path("mended"))
    assert Path("mended", ACCESS).read_text(encoding="utf-8") == access_c(WAIT_EVENT)
    assert tree_hash(root) == before


CONFLICT = b"""\
one
TWO
<<<<<<< found
	vendor(3);
||||||| expected
	three();
=======
	three(3);
>>>>>>> replacement
four
"""


def merge() -> port._Merge:
    """Three hunks: one fits, one was merged, and one is a conflict."""
    text = "@@ -1 +1 @@ a\n-one\n+ONE\n@@ -2 +2 @@ b\n-two\n+TWO\n@@ -3 +3 @@ c\n-\tthree();\n+\tthree(3);\n"
    hunks = port._hunks(f"--- a/a.c\n+++ b/a.c\n{text}--- a/b.h\n+++ b/b.h\n@@ -1 +1 @@\n-b\n+c\n-- \n2.39\n".encode())
    assert [(hunk.file, hunk.number) for hunk in hunks] == [("a.c", 1), ("a.c", 2), ("a.c", 3), ("b.h", 1)]
    files = {"a.c": CONFLICT, "b.h": b"c\n"}
    return port._Merge("x/v1.patch", hunks, hunks[1:3], files, files)


@pytest.mark.parametrize(
    ("a", "b", "besides"),
    [
        (b"one\nTWO\n\tvendor(3, 3);\nfour\n", b"c\n", ""),
        (b"one\nTWO\nfour\n", b"c\n", ""),
        (b"one\nTWO!\n\tvendor(3);\nfour\n", b"c\n", "; changed by hand besides: a.c"),
        (b"one\nTWO\n\tvendor(3);\nfour\nfive\n", b"c\n", "; changed by hand besides: a.c"),
        (b"one\nTWO\n\tvendor(3);\nfour\n", b"d\n", "; changed by hand besides: b.h"),
        (b"one\nTWO\n\tvendor(3);\nfour\n", None, "; left as the tree has it: b.h"),
    ],
)
def test_log_says_what_was_done_by_hand(a: bytes, b: bytes | None, besides: str) -> None:
    one = merge()
    files = {"a.c": a} | ({} if b is None else {"b.h": b})
    start = "2 of 4 hunks fit; merged by wiggle: a.c: hunk 2; merged by hand: a.c: hunk 3"
    assert port._how(one, one.files, files) == start + besides
    more = port._how(one, one.files, {**one.files, "a.c": b"one\nTWO\nfour\n", "Kconfig": b""})
    assert more == f"{start}; changed by hand besides: Kconfig"


def test_continue_with_a_file_more(conflict: tuple[Path, Path]) -> None:
    root, folder = conflict
    (folder / "files" / ACCESS).write_text(access_c(WAIT_EVENT), encoding="utf-8")
    (folder / "files/drivers/pci/Kconfig").write_text("# Changed by hand.\n", encoding="utf-8")
    done = port.resume(folder, None, quiet)
    assert series.touched_files(done.wrote) == ["drivers/pci/Kconfig", ACCESS]


def test_continue_with_conflicts_left(conflict: tuple[Path, Path]) -> None:
    root, folder = conflict
    done = port.resume(folder, None, quiet)
    line = (folder / "files" / ACCESS).read_text(encoding="utf-8").partition("<<<<<<<")[0].count("\n") + 1
    assert (done.code, done.problem) == (ExitCode.FAILED, f"has conflicts left: {folder}/files/{ACCESS}:{line}")
    assert not Path(f"{DEFAULT}.patch").exists()


@pytest.mark.parametrize("mark", ["<<<<<<< found", "||||||| expected", ">>>>>>> replacement", "&&&&&&& resolution"])
def test_one_mark_is_enough(conflict: tuple[Path, Path], mark: str) -> None:
    root, folder = conflict
    (folder / "files" / ACCESS).write_text(access_c(WAIT_EVENT) + f"{mark}\n", encoding="utf-8")
    assert "has conflicts left" in port.resume(folder, None, quiet).problem


def test_continue_with_what_does_not_mend(conflict: tuple[Path, Path], compiled: list[dict[str, bytes]]) -> None:
    root, folder = conflict
    (folder / "files" / ACCESS).write_text(access_c(OTHER_CALL.replace("HZ", "2 * HZ")), encoding="utf-8")
    done = port.resume(folder, None, quiet)
    assert done.problem.startswith("leaves pci-cfg-wait/unlocked-queue ")
    assert done.code is ExitCode.FAILED and not compiled
    (folder / "files" / ACCESS).write_text((root / ACCESS).read_text(encoding="utf-8"), encoding="utf-8")
    assert port.resume(folder, None, quiet).problem == "changes no file"
    assert not Path(f"{DEFAULT}.patch").exists()


def test_continue_on_a_changed_tree(conflict: tuple[Path, Path]) -> None:
    root, folder = conflict
    (folder / "files" / ACCESS).write_text(access_c(WAIT_EVENT), encoding="utf-8")
    (root / ACCESS).write_text((root / ACCESS).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    refused(lambda: port.resume(folder, None, quiet), BadInput, "access.c was changed since: run port again")


def test_continue_with_a_strange_file(conflict: tuple[Path, Path]) -> None:
    _, folder = conflict
    (folder / "files/new.c").touch()
    refused(lambda: port.resume(folder, None, quiet), BadInput, "files/new.c: the tree has no such file")


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"finding": 1}', "\x00"])
def test_continue_elsewhere(content: str | None) -> None:
    Path("folder").mkdir()
    if content is not None:
        Path("folder/port.json").write_text(content, encoding="utf-8")
    refused(lambda: port.resume(Path("folder"), None, quiet), BadInput, "^folder: no folder that kmend port wrote: ")


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        (UNLOCKED, "unlocked-queue is affected, and pci-cfg-wait/v3.4-v5.8.patch fits$"),
        (WAIT_EVENT, "unlocked-queue is fixed$"),
    ],
    ids=["fits", "fixed"],
)
def test_nothing_to_do(make_tree: MakeTree, wait: str, says: str) -> None:
    root = make_tree(access_c(wait))
    refused(lambda: do_port(root, BUG), NothingToDo, f"nothing to port: {BUG}/{says}")


@real_audit
def test_unknown_shape(make_tree: MakeTree) -> None:
    root = make_tree(access_c("static int pci_wait_cfg;\n"))
    refused(lambda: do_port(root, BUG), BadInput, f"{BUG}/unlocked-queue is unknown: {ACCESS}.*: .*no merge can be")


def test_part_of_a_tree(make_tree: MakeTree) -> None:
    assert cli.main(["port", "--tree", str(make_tree(access_c(COMMENTED), version=None))]) == ExitCode.USAGE


@pytest.mark.parametrize("taken", [f"{DEFAULT}.patch", f"{DEFAULT}.conflict"])
def test_nothing_is_overwritten(make_tree: MakeTree, compiled: list[dict[str, bytes]], taken: str) -> None:
    root = make_tree(access_c(COMMENTED))
    Path(taken).symlink_to("nowhere")
    refused(lambda: do_port(root, BUG), BadInput, f"^{taken} exists already: ")
    assert not compiled
    (done,) = do_port(root, BUG, out=Path("other.patch"))
    assert done.wrote == Path("other.patch")
    refused(lambda: do_port(root, BUG, out=Path("no/other.patch")), BadInput, "^no: no such folder$")


def test_unknown_variant(make_tree: MakeTree) -> None:
    root = make_tree(access_c(COMMENTED))
    refused(lambda: do_port(root, BUG, variant="v1.patch"), BadInput, f"no such variant of one patch; known: {FIX}$")


def test_out_is_for_one(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "_nothing_to_do", lambda *_: "")
    root = make_tree(access_c(COMMENTED))
    twice = [*manifest.load().select([BUG])] * 2
    act = lambda: list(port.port(Tree.open(root), twice, "", Path("a.patch"), quiet))  # noqa: E731
    refused(act, BadInput, "--out is for one finding, but")


def test_wiggle_missing(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Callable[[str], None], files: list[str]) -> None:
        raise Infrastructure(f"missing here; run as root: apt-get install {' '.join(files)}")

    monkeypatch.setattr(setup, "ensure", missing)
    monkeypatch.setattr(port.shutil, "which", lambda name: None)
    said: list[str] = []
    tree, bugs = Tree.open(make_tree(access_c(COMMENTED))), manifest.load().select([BUG])
    act = lambda: list(port.port(tree, bugs, "", None, said.append))  # noqa: E731
    refused(act, Infrastructure, "apt-get install wiggle$")
    assert said == ["some hunks do not fit, and wiggle, which finds a place for them, is not installed"]
    assert "wiggle" in {need.file for need in setup.needs()}


def test_wiggle_broken(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools(monkeypatch, tmp_path / "bin", wiggle="exit 3")
    root = make_tree(access_c(COMMENTED))
    refused(lambda: do_port(root, BUG), Infrastructure, f"wiggle failed on {FIX} with exit status 3$")


def test_command_line(
    make_tree: MakeTree, compiled: list[dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tree(access_c(OTHER_CALL))
    assert cli.main(["port", "--tree", str(root), "--bug", BUG, "--out", "new.patch"]) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert f"{root} (4.19.90): {BUG}/unlocked-queue: not done\n" in said
    assert "  see      new.conflict/README\n" in said
    assert cli.main(["port", "--continue", "new.conflict", "--bug", BUG]) == ExitCode.USAGE
    assert cli.main(["port", "--continue", "new.conflict"]) == ExitCode.FAILED
    Path("new.conflict/files", ACCESS).write_text(access_c(WAIT_EVENT), encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["port", "--continue", "new.conflict"]) == ExitCode.OK
    assert f"  wrote    {Path('new.patch').absolute()}\n" in capsys.readouterr().out
    assert cli.main(["port"]) == ExitCode.USAGE


def test_codes() -> None:
    def of(*codes: ExitCode) -> ExitCode:
        return port.exit_code([Ported(Path(), "", "", "", "", (), "", Path(), code) for code in codes])

    assert of() is of(ExitCode.OK) is ExitCode.OK
    assert of(ExitCode.OK, ExitCode.INFRASTRUCTURE) is ExitCode.INFRASTRUCTURE
    assert of(ExitCode.FAILED, ExitCode.INFRASTRUCTURE) is ExitCode.FAILED


class Make:
    """Stands in for the engine where something is compiled: a file with the word "broken" in it is an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, src: Path) -> None:
        self.targets: list[list[str]] = []
        self.workspaces: list[Workspace] = []
        monkeypatch.setenv("XDG_CACHE_HOME", str(src))
        monkeypatch.setattr(setup, "ensure", lambda *_: None)
        monkeypatch.setattr(touched.source, "need_space", lambda *_: None)
        monkeypatch.setattr(build, "configure", lambda *_: 0.0)
        monkeypatch.setattr(build, "objects", self.objects)

    def objects(self, workspace: Workspace, arch: object, names: list[str], log: Path, jobs: Jobs) -> None:
        self.targets.append(names)
        self.workspaces.append(workspace)
        for name in names:
            if "broken" in (workspace.src("x86_64") / name).with_suffix(".c").read_text(encoding="utf-8"):
                raise build.BuildError(f"{name}: error: broken")


def test_what_is_compiled(make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merged file, in a private copy."""
    root = make_tree(access_c(COMMENTED))
    make = Make(monkeypatch, root, tmp_path / "cache")
    (done,) = do_port(root, BUG)
    assert done.code is ExitCode.OK
    assert make.targets == [["drivers/pci/access.o"]]
    text = (make.workspaces[0].src("x86_64") / ACCESS).read_text(encoding="utf-8")
    assert "wait_event" in text and (make.workspaces[0].pristine / ACCESS).read_text(encoding="utf-8") == access_c(
        COMMENTED
    )


def test_whose_fault_it_is(make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that does not compile without the fix either says nothing of it."""
    root = make_tree(access_c(COMMENTED) + "/* broken */\n")
    make = Make(monkeypatch, root, tmp_path / "cache")
    (done,) = do_port(root, BUG)
    assert done.code is ExitCode.INFRASTRUCTURE
    assert "does not build here without the fix, either: drivers/pci/access.o: error: broken" in done.problem
    assert len(make.targets) == 2
    done.wrote.rename("first.conflict")
    (root / ACCESS).write_text(access_c(COMMENTED), encoding="utf-8")
    tree = Tree.open(root)
    (bug,) = manifest.load().select([BUG])
    problem = touched.problem_of(tree, bug, bug.findings, {ACCESS: b"broken"}, quiet)
    assert problem == "does not compile: drivers/pci/access.o: error: broken"


def test_targets(make_tree: MakeTree) -> None:
    """A header is seen in the finding's own files, and make enters virt/kvm from the architecture alone."""
    root = make_tree()
    for name in ("fs/nfsd/nfs4callback.c", "fs/nfsd/nfs4state.c"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    tree = Tree.open(root)

    def targets(id: str, *files: str) -> list[str]:
        (bug,) = manifest.load().select([id])
        seen = [*bug.findings[0].files, *bug.findings[0].context]
        return touched._objects(tree, bug, seen, files, "x86")

    assert targets("nfsd-cb-shutdown/no-wait", "fs/nfsd/nfs4callback.c") == ["fs/nfsd/nfs4callback.o"]
    both = ["fs/nfsd/nfs4callback.o", "fs/nfsd/nfs4state.o"]
    assert targets("nfsd-cb-shutdown/no-wait", "fs/nfsd/nfs4callback.c", "fs/nfsd/state.h") == both
    assert targets("kvm-shadow/early-free", "virt/kvm/eventfd.c", "virt/kvm/kvm_main.c") == ["arch/x86/kvm/"]


def real(line: str) -> Path:
    """Return a tree of a line, as "6.1" or "7", or of one version alone."""
    found = [path for path in real_trees() if (path.name + ".").startswith(line + ".")]
    if not found:
        pytest.skip(f"no tree of {line} in KMEND_TREES")
    return found[-1].resolve()


def with_fault(line: str, reintroduce: str) -> tuple[Path, Path]:
    """Return a tree that has the fix, and a copy of the part that matters without it."""
    origin, root = real(line), Path("copy").absolute()
    (bug,) = (bug for bug in manifest.load().bugs if reintroduce in bug.patches)
    for name in {"Makefile", *(name for each in bug.findings for name in (*each.files, *each.context))}:
        if (origin / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin / name, root / name)
    series.materialize(origin, [PATCHES / reintroduce], root)
    return origin, root


def port_from(root: Path, id: str, start: str) -> Ported:
    """Carry one variant to a tree."""
    (done,) = port.port(Tree.open(root), manifest.load().select([id]), start, None, quiet)
    return done


@real_audit
@pytest.mark.parametrize(
    ("line", "start", "like"),
    [
        ("6.1", "nfsd-cb-shutdown/inflight-leak-v6.12.patch", "nfsd-cb-shutdown/inflight-leak-v6.1.patch"),
        ("6.12", "nfsd-cb-shutdown/inflight-leak-v6.1.patch", "nfsd-cb-shutdown/inflight-leak-v6.12.patch"),
    ],
)
def test_neighbour_becomes_the_variant_of_this_tree(
    line: str, start: str, like: str, compiled: list[dict[str, bytes]]
) -> None:
    """What was made by hand, line for line."""
    root = real(line)
    done = port_from(root, "nfsd-cb-shutdown/inflight-leak", start)
    assert done.code is ExitCode.OK, done.to_text()
    assert series.fits(root, done.wrote.absolute())
    assert changes(done.wrote.read_text(encoding="utf-8")) == changes((PATCHES / like).read_text(encoding="utf-8"))


@real_audit
def test_neighbour_mends_what_was_mended_otherwise(compiled: list[dict[str, bytes]]) -> None:
    """In 7.x another change mends this; on a copy without it the older fix finds its place."""
    _, root = with_fault("7", "riscv-kvm-exit/reintroduce-init-leak-v7.x.patch")
    done = port_from(root, "riscv-kvm-exit/init-leak", "riscv-kvm-exit/init-leak-v6.13-v6.17.patch")
    assert done.code is ExitCode.OK, done.to_text()
    assert done.why == "the one asked for; 0 of 1 hunks fit"
    assert series.fits(root, done.wrote.absolute())


@real_audit
@pytest.mark.parametrize(
    ("line", "start", "own"),
    [
        ("6.12", "inflight-leak-v6.6.patch", "inflight-leak-v6.12.patch"),
        ("5.10", "inflight-leak-v6.12.patch", "inflight-leak-v6.6.patch"),
        ("6.1", "inflight-leak-v6.6.patch", "inflight-leak-v6.1.patch"),
    ],
)
def test_neighbour_that_conflicts(line: str, start: str, own: str, compiled: list[dict[str, bytes]]) -> None:
    """Whoever resolves it as the tree's own variant does gets that variant, and the log tells whose is what."""
    root = real(line)
    done = port_from(root, "nfsd-cb-shutdown/inflight-leak", f"nfsd-cb-shutdown/{start}")
    assert done.code is ExitCode.FAILED and done.problem.startswith("conflicts in "), done.to_text()
    assert not compiled
    marked = [path.read_text(encoding="utf-8") for path in (done.wrote / "files").rglob("*") if path.is_file()]
    assert any("<<<<<<< found\n" in text for text in marked)
    series.materialize(root, [PATCHES / "nfsd-cb-shutdown" / own], done.wrote / "files")
    done = port.resume(done.wrote, None, quiet)
    assert done.code is ExitCode.OK, done.to_text()
    assert changes(done.wrote.read_text(encoding="utf-8")) == changes(
        (PATCHES / "nfsd-cb-shutdown" / own).read_text(encoding="utf-8")
    )
    assert "; merged by hand: fs/nfsd/" in " ".join(done.wrote.read_text(encoding="utf-8").split())


@real_audit
def test_conflict_resolved_as_upstream_did(compiled: list[dict[str, bytes]]) -> None:
    origin, root = with_fault("7", "riscv-kvm-exit/reintroduce-exit-order-v7.0-v7.2.patch")
    done = port_from(root, "riscv-kvm-exit/exit-order", "riscv-kvm-exit/exit-order-v6.4-v6.12.patch")
    name = "arch/riscv/kvm/main.c"
    assert done.problem == f"conflicts in {name} (1)", done.to_text()
    shutil.copyfile(origin / name, done.wrote / "files" / name)
    done = port.resume(done.wrote, None, quiet)
    assert done.code is ExitCode.OK, done.to_text()
    assert f"0 of 1 hunks fit; merged by hand: {name}: hunk 1" in done.notes
    series.materialize(root, [done.wrote], Path("mended"))
    assert Path("mended", name).read_bytes() == (origin / name).read_bytes()


@real_audit
def test_next_variant_where_the_nearest_conflicts(compiled: list[dict[str, bytes]]) -> None:
    """Of two that fit alike the newer one, which is the first in the manifest, is tried first."""
    root = real("6.1")
    (bug,) = manifest.load().select(["nfsd-cb-shutdown/inflight-leak"])
    near, far = "nfsd-cb-shutdown/inflight-leak-v6.6.patch", "nfsd-cb-shutdown/inflight-leak-v6.12.patch"
    finding = dataclasses.replace(bug.findings[0], fix=((near,), (far,)))
    (done,) = port.port(Tree.open(root), [dataclasses.replace(bug, findings=(finding,))], "", None, quiet)
    assert (done.code, done.variant) == (ExitCode.OK, far), done.to_text()
    assert f"nearer: {near} conflicts in fs/nfsd/nfs4state.c (1)" in done.why


@real_audit
@pytest.mark.parametrize("line", ["5.10", "6.1", "6.12"])
def test_altered_copies_of_newer_trees(line: str, compiled: list[dict[str, bytes]]) -> None:
    """A vendor's comment stands where the variant of this tree has its context."""
    origin, root = real(line), Path("copy")
    (finding,) = manifest.load().select(["nfsd-cb-shutdown/inflight-leak"])[0].findings
    variant = next(names for names in reversed(finding.fix) if series.fits(origin, PATCHES / names[0]))[0]
    for name in ("Makefile", *finding.files, *finding.context, *series.touched_files(PATCHES / variant)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin / name, root / name)
    state = root / "fs/nfsd/state.h"
    old = "\tbool cb_need_restart;\n"
    state.write_text(edit(state.read_text(encoding="utf-8"), old, "\t/* From the start. */\n" + old), encoding="utf-8")
    assert not series.fits(root, PATCHES / variant)
    done = port_from(root, finding.id, variant)
    assert done.code is ExitCode.OK, done.to_text()
    assert changes(done.wrote.read_text(encoding="utf-8")) == changes((PATCHES / variant).read_text(encoding="utf-8"))
