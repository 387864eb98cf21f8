# SPDX-License-Identifier: GPL-2.0-only
"""apply and unapply: what they do, every bad input, and every point at which they can be cut off."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ACCESS, WAIT_EVENT, MakeTree, access_c, commit_all, git, real_trees, tree_hash
from kmendlib.host.errors import BadInput, ExitCode, Infrastructure, KmendError, NothingToDo
from kmendlib.tree import apply as apply_module
from kmendlib.tree import bases, manifest, overlay, series
from kmendlib.tree.apply import STATE, Applied, apply, unapply
from kmendlib.tree.audit import Audit, BugAudit, Evidence, FindingAudit, Status, audit
from kmendlib.tree.tree import Tree

BUG = manifest.load().bug("pci-cfg-wait")
FIX = "pci-cfg-wait/v3.4-v5.8.patch"
HOOK = "pci-cfg-wait/kunit-v5.14-v7.x.patch"
ADDED = (
    "drivers/pci/pci_cfg_wait_kunit.c",
    "include/kunit/actors.h",
    "include/kunit/actors_test.h",
    "include/kunit/kernel_versions.h",
    "drivers/pci/.kunitconfig",
    "tools/testing/selftests/kselftest_kit.h",
    "tools/testing/selftests/pci/Makefile",
    "tools/testing/selftests/pci/cfg_reset.c",
    "tools/testing/selftests/pci/config",
    "tools/testing/selftests/pci/settings",
)


def found(root: Path, status: Status = Status.AFFECTED, fix: str | None = None) -> Audit:
    """Return what the audit would say, without the half second that it takes."""
    if fix is None and status is Status.AFFECTED:
        fix = FIX
    finding = FindingAudit(
        "pci-cfg-wait/unlocked-queue", status, (Evidence(ACCESS, 7, "a reason"),), (fix,) if fix else ()
    )
    return Audit(Tree.open(root), (BugAudit(BUG, (finding,)),))


def do_apply(root: Path, status: Status = Status.AFFECTED, **options: bool) -> Applied:
    return apply(Tree.open(root, need_makefile=True), found(root, status), **options)


def do_unapply(root: Path) -> Applied:
    return unapply(Tree.open(root, need_makefile=True))


def refused(root: Path, says: str, action: Callable[[], object], code: ExitCode = ExitCode.USAGE) -> None:
    """Check that `action` ends with one clear line and its code, and leaves the tree as it was."""
    before = tree_hash(root)
    with pytest.raises(KmendError) as error:
        action()
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.code is code
    assert tree_hash(root) == before


@pytest.fixture
def git_tree(make_tree: MakeTree) -> Path:
    root = make_tree()
    commit_all(root)
    return root


# What they do.


def test_apply_and_unapply(make_tree: MakeTree) -> None:
    root = make_tree()
    before = tree_hash(root)
    tree = Tree.open(root)
    done = apply(tree, audit(tree, [BUG]), dry_run=False, with_tests=False)
    assert (done.patches, done.changed, done.added) == ((FIX,), (ACCESS,), ())
    assert WAIT_EVENT in (root / ACCESS).read_text(encoding="utf-8")
    assert (root / ACCESS).stat().st_mode & 0o777 == 0o640
    assert audit(tree, [BUG]).bugs[0].status is Status.FIXED
    assert (root / STATE / "patches" / FIX).read_bytes() == (manifest.PATCHES / FIX).read_bytes()
    back = do_unapply(root)
    assert (back.patches, back.changed, back.added, back.notes) == ((FIX,), (ACCESS,), (), ())
    assert tree_hash(root) == before


@pytest.mark.parametrize(
    ("access", "status", "patches"),
    [(access_c(), Status.AFFECTED, (FIX, HOOK)), (access_c(WAIT_EVENT), Status.FIXED, (HOOK,))],
    ids=["affected", "fixed"],
)
def test_with_tests(make_tree: MakeTree, access: str, status: Status, patches: tuple[str, ...]) -> None:
    root = make_tree(access, kunit=True)
    before = tree_hash(root)
    done = do_apply(root, status, with_tests=True)
    assert done.patches == patches
    assert done.added == ADDED
    assert '#include "pci_cfg_wait_kunit.c"' in (root / ACCESS).read_text(encoding="utf-8")
    assert "config PCI_CFG_WAIT_KUNIT_TEST" in (root / "drivers/pci/Kconfig").read_text(encoding="utf-8")
    for name in ADDED:
        source = manifest.SELFTESTS if name.startswith("tools/") else manifest.KUNIT
        file = source / name.removeprefix("tools/testing/selftests/")
        file = BUG.suites[0].kunitconfig if name.endswith(".kunitconfig") else file
        assert (root / name).read_bytes() == file.read_bytes()
    assert do_unapply(root).added == ADDED
    assert tree_hash(root) == before


def test_with_tests_where_there_is_no_kunit(make_tree: MakeTree) -> None:
    root = make_tree()
    before = tree_hash(root)
    done = do_apply(root, with_tests=True)
    assert done.patches == (FIX,)
    assert "drivers/pci/pci_cfg_wait_kunit.c" not in done.added
    assert any("no KUnit in this tree" in note for note in done.notes)
    do_unapply(root)
    assert tree_hash(root) == before


def test_small_kunit_goes_into_a_tree_without_one(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / "lib").mkdir()
    kconfig = '\n\t  If in doubt, say Y.\n\nsource "arch/$(SRCARCH)/Kconfig.debug"\n\nendmenu # Kernel hacking\n'
    (root / "lib/Kconfig.debug").write_text(f"config A\n{kconfig}", encoding="utf-8")
    objects = "\nobj-$(CONFIG_PARMAN) += parman.o\n\n# GCC library routines\n"
    objects += "".join(f"obj-$(CONFIG_GENERIC_LIB_{name.upper()}) += {name}.o\n" for name in ("ashldi3", "ashrdi3"))
    (root / "lib/Makefile").write_text(f"# SPDX\n{objects}", encoding="utf-8")
    before = tree_hash(root)
    done = do_apply(root, with_tests=True)
    assert done.patches == (FIX, "kunit-compat/v4.19-v5.4.patch", HOOK)
    assert "no KUnit in this tree (it came with v5.5): the small one put in" in done.notes
    assert "tools/testing/selftests/Makefile: add pci to its TARGETS to run them with all others" in done.notes
    assert 'say Y.\n\nsource "lib/kunit/Kconfig"\n\nsource "arch/' in (root / "lib/Kconfig.debug").read_text(
        encoding="utf-8"
    )
    assert "+= parman.o\n\nobj-$(CONFIG_KUNIT) += kunit/\n\n# GCC" in (root / "lib/Makefile").read_text(
        encoding="utf-8"
    )
    ours = [path for path in overlay.COMPAT.rglob("*") if path.is_file()]
    assert {"test.c", "test.h", "Kconfig", "Makefile"} <= {path.name for path in ours}
    for path in ours:
        assert (root / path.relative_to(overlay.COMPAT)).read_bytes() == path.read_bytes()
    assert '#include "pci_cfg_wait_kunit.c"' in (root / ACCESS).read_text(encoding="utf-8")
    do_unapply(root)
    assert tree_hash(root) == before


def test_with_tests_where_the_bug_cannot_be(make_tree: MakeTree) -> None:
    root = make_tree(kunit=True)
    refused(
        root,
        "nothing to apply: pci-cfg-wait is not-applicable",
        lambda: do_apply(root, Status.NOT_APPLICABLE, with_tests=True),
        ExitCode.NOTHING,
    )


def test_a_moved_tree_can_be_unapplied(make_tree: MakeTree) -> None:
    root = make_tree()
    before = tree_hash(root)
    do_apply(root)
    moved = root.rename(root.parent / "moved")
    do_unapply(moved)
    assert tree_hash(moved) == before


def test_unapply_needs_nothing_of_the_repository(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = make_tree(kunit=True)
    before = tree_hash(root)
    do_apply(root, with_tests=True)
    for module, name in ((apply_module, "PATCHES"), (apply_module, "SELFTESTS"), (overlay, "KUNIT")):
        monkeypatch.setattr(module, name, tmp_path / "gone")
    monkeypatch.setenv("PATH", str(tmp_path / "gone"))
    do_unapply(root)
    assert tree_hash(root) == before


def test_quilt_of_the_users_own_is_left_alone(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = make_tree()
    (root / ".pc").mkdir()
    (root / ".pc/applied-patches").write_text("mine.patch\n", encoding="utf-8")
    (root / "patches").mkdir()
    (root / "patches/series").write_text("mine.patch\n", encoding="utf-8")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.quiltrc").write_text('exit 9\nQUILT_PUSH_ARGS="-f"\n', encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("QUILT_PC", "elsewhere")
    monkeypatch.setenv("QUILT_PATCH_OPTS", "--no-such-option")
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    monkeypatch.setenv("VERSION_CONTROL", "numbered")
    before = tree_hash(root)
    do_apply(root)
    assert WAIT_EVENT in (root / ACCESS).read_text(encoding="utf-8")
    do_unapply(root)
    assert tree_hash(root) == before


def test_restored_file_is_new_to_make(make_tree: MakeTree) -> None:
    """An object built from the mended file must not look newer than the file that came back."""
    root = make_tree()
    do_apply(root)
    os.utime(root / STATE / "old" / ACCESS, (1, 1))
    mended = (root / ACCESS).stat().st_mtime_ns
    do_unapply(root)
    assert (root / ACCESS).stat().st_mtime_ns >= mended


def test_files_of_others_stay(make_tree: MakeTree) -> None:
    """What was built in a folder that came with the tests is not kmend's to remove."""
    root = make_tree()
    do_apply(root, with_tests=True)
    (root / "tools/testing/selftests/pci/cfg_reset").write_text("a program", encoding="utf-8")
    done = do_unapply(root)
    assert done.notes == ("tools/testing/selftests/pci stays: files that are not kmend's are in it",)
    assert [path.name for path in (root / "tools/testing/selftests/pci").iterdir()] == ["cfg_reset"]
    assert not (root / STATE).exists()


# Bad input.


@pytest.mark.parametrize("status", [Status.FIXED, Status.LATENT, Status.NOT_APPLICABLE])
def test_nothing_to_mend(make_tree: MakeTree, status: Status) -> None:
    root = make_tree(access_c(WAIT_EVENT))
    refused(root, f"nothing to apply: pci-cfg-wait is {status}", lambda: do_apply(root, status), ExitCode.NOTHING)


def test_file_changed_between_audit_and_apply(make_tree: MakeTree) -> None:
    root = make_tree()
    said = found(root)
    (root / ACCESS).write_text(access_c(WAIT_EVENT), encoding="utf-8")
    refused(root, f"{FIX} does not apply", lambda: apply(Tree.open(root), said))


def test_no_hook_fits(make_tree: MakeTree) -> None:
    root = make_tree(kunit=True)
    (root / "drivers/pci/Kconfig").write_text("# nothing\n", encoding="utf-8")
    done = do_apply(root, with_tests=True)
    hooks = ", ".join(BUG.suites[0].hooks)
    assert f"KUnit suite pci_cfg_wait left out: none of {hooks} fits" in done.notes
    assert HOOK not in done.patches and not (root / ADDED[0]).exists()


def test_collection_that_the_tree_has(make_tree: MakeTree) -> None:
    """The tree's own makefile stays; the program goes beside it, and the note says what is left to do."""
    root = make_tree(kunit=True)
    folder = root / "tools/testing/selftests/pci"
    folder.mkdir()
    (folder / "Makefile").write_text("mine", encoding="utf-8")
    done = do_apply(root, with_tests=True)
    assert {path.name for path in folder.iterdir()} == {"Makefile", "cfg_reset.c"}
    assert (folder / "Makefile").read_text(encoding="utf-8") == "mine"
    assert any("add cfg_reset to its TEST_GEN_PROGS" in note for note in done.notes)
    assert not any("TARGETS" in note for note in done.notes)
    do_unapply(root)
    assert {path.name for path in folder.iterdir()} == {"Makefile"}


def test_patch_missing(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = make_tree()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    refused(root, "patch is not installed: run kmend setup", lambda: do_apply(root), ExitCode.INFRASTRUCTURE)


def test_another_kmend_at_work(make_tree: MakeTree) -> None:
    root = make_tree()
    descriptor = os.open(root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    refused(root, "another kmend is at work", lambda: do_apply(root))
    refused(root, "another kmend is at work", lambda: do_unapply(root))
    os.close(descriptor)
    do_apply(root)


def test_two_at_once(make_tree: MakeTree) -> None:
    """Of several applies started together one does it all; the others refuse and change nothing."""
    root = make_tree(kunit=True)
    before = tree_hash(root)
    said = found(root)

    def work() -> int:
        try:
            apply(Tree.open(root), said, with_tests=True)
        except KmendError as error:
            return int(error.code)
        return 0

    children = [in_child(work) for _ in range(6)]
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes.count(0) == 1
    assert set(codes) <= {0, ExitCode.USAGE, ExitCode.NOTHING}
    do_unapply(root)
    assert tree_hash(root) == before


# git.


@pytest.mark.parametrize("staged", [False, True], ids=["not staged", "staged"])
def test_local_changes(git_tree: Path, staged: bool) -> None:
    with (git_tree / ACCESS).open("a", encoding="utf-8") as stream:
        stream.write("/* an edit */\n")
    if staged:
        git(git_tree, "add", "-A")
    refused(git_tree, f"{ACCESS} has local changes", lambda: do_apply(git_tree))


def test_git_tree_of_another_user(git_tree: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a tree away")
    for folder, _, files in os.walk(git_tree):
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            os.chown(path, 65534, 65534)
    before = tree_hash(git_tree)
    do_apply(git_tree)
    status = (git_tree / ACCESS).stat()
    assert (status.st_uid, status.st_gid) == (65534, 65534)
    do_unapply(git_tree)
    assert tree_hash(git_tree) == before
    with (git_tree / ACCESS).open("a", encoding="utf-8") as stream:
        stream.write("/* an edit */\n")
    refused(git_tree, f"{ACCESS} has local changes", lambda: do_apply(git_tree))


def test_git_runs_nothing_of_the_trees(git_tree: Path) -> None:
    """A tree's configuration may name programs; none of them runs."""
    trap = git_tree.parent / "trapped"
    for key in ("core.fsmonitor", "filter.x.clean", "filter.x.smudge", "diff.external", "core.pager"):
        git(git_tree, "config", key, f"touch {trap}")
    (git_tree / ".git/info").mkdir(exist_ok=True)
    (git_tree / ".git/info/attributes").write_text("* filter=x\n", encoding="utf-8")
    os.utime(git_tree / ACCESS)
    do_apply(git_tree)
    do_unapply(git_tree)
    assert not trap.exists()


# A tree that may not be written.


@pytest.mark.parametrize("folder", [".", "drivers/pci"])
def test_no_right_to_write(make_tree: MakeTree, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree()
    # The repository may lie in a folder that only root can read.
    shutil.copytree(manifest.PATCHES, tmp_path / "patches")
    for module in ("apply", "series"):
        monkeypatch.setattr(f"kmendlib.tree.{module}.PATCHES", tmp_path / "patches")
    (root / folder).chmod(0o555)
    (root / ACCESS).chmod(0o644)
    for parent in root.parents:
        if parent == Path("/tmp") or os.geteuid() != 0 or parent.owner() != "root":
            break
        parent.chmod(0o755)
    before = tree_hash(root)

    def work() -> int:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        try:
            do_apply(root)
        except BadInput as error:
            assert "is read-only" in str(error), error
            return int(error.code)
        return 0

    code = os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1])
    assert code == ExitCode.USAGE
    assert tree_hash(root) == before


# Cut off at every point.


def in_child(work: Callable[[], int]) -> int:
    """Run `work` in a child process that ends with its return value; return the child's id."""
    child = os.fork()
    if child:
        return child
    try:
        code = work()
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        code = 99
    os._exit(code)


CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.utime", "open")


def at_step(root: Path, step: int, strike: Callable[[], None], again: bool, each: bool = False) -> None:
    """From now on in this process: call `strike` right before the change number `step` to something in the tree.

    again: and from then on before each file that is opened for writing.
    each: and from then on before each change.
    """
    count = 0
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, busy
        if event not in CHANGES or busy:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        # shutil.rmtree works with names inside an open folder.
        names = [os.fspath(part) for part in arguments if isinstance(part, (str, os.PathLike))]
        lasting = event == "open" and count >= step
        inside = any(str(name).startswith(str(root)) for name in names) or event in ("os.remove", "os.rmdir")
        if inside:
            count += 1
            if count == step or (again and lasting) or (each and count > step):
                busy = True
                try:
                    strike()
                finally:
                    busy = False

    sys.addaudithook(hook)


def run_struck(
    root: Path, step: int, strike: Callable[[], None], work: Callable[[], object], again: bool = False
) -> int:
    def child() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # As the command line does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        at_step(root, step, strike, again)
        try:
            work()
        except KmendError as error:
            return int(error.code)
        except OSError:
            return ExitCode.INFRASTRUCTURE
        return 0

    return os.waitstatus_to_exitcode(os.waitpid(in_child(child), 0)[1])


@pytest.fixture
def patched_once(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree, and make patch's part quick: its result is made once and copied from then on."""
    root = make_tree(kunit=True)
    done = root.parent / "done"
    hook = [manifest.PATCHES / FIX, manifest.PATCHES / HOOK]
    files = series.materialize(root, hook, done)

    def materialize(tree_path: Path, patches: Any, dest: Path) -> list[str]:
        shutil.copytree(done, dest, dirs_exist_ok=True)
        return files

    monkeypatch.setattr(series, "materialize", materialize)
    monkeypatch.setattr(series, "fits", lambda *_: True)
    return root


@pytest.fixture
def ready(patched_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return that tree; what is on the disk is looked at where the power is cut, in test_power_cut.py."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return patched_once


STEPS = 400  # more than there are


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_apply_killed_at_every_step(ready: Path) -> None:
    """Killed outright, apply leaves a tree untouched, or half applied, which it says, or applied; unapply mends it."""
    before = tree_hash(ready)
    seen = set()
    for step in range(1, STEPS):
        code = run_struck(ready, step, kill, lambda: do_apply(ready, with_tests=True))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        try:
            do_apply(ready, with_tests=True)
            seen.add("untouched")
        except NothingToDo:
            seen.add("applied")
        except BadInput as error:
            assert f"run kmend unapply {ready}" in str(error)
            seen.add("half" if "is half applied" in str(error) else "begun")
        do_unapply(ready)
        assert tree_hash(ready) == before, step
    assert step > 30
    assert seen == {"untouched", "begun", "half", "applied"}
    do_unapply(ready)
    assert tree_hash(ready) == before


def test_unapply_killed_at_every_step(ready: Path) -> None:
    before = tree_hash(ready)
    halves = 0
    for step in range(1, STEPS):
        do_apply(ready, with_tests=True)
        code = run_struck(ready, step, kill, lambda: do_unapply(ready))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if (ready / STATE).exists():
            halves += 1
            # Whole or half, it is put right by the same command; once more from the middle, too.
            run_struck(ready, 3, kill, lambda: do_unapply(ready))
            if (ready / STATE).exists():
                do_unapply(ready)
        assert tree_hash(ready) == before, step
    assert halves > 10
    assert tree_hash(ready) == before


def test_unapply_interrupted_at_every_step(ready: Path) -> None:
    """Once begun, unapply is finished before Ctrl-C is heard."""
    before = tree_hash(ready)
    for step in range(1, STEPS):
        do_apply(ready, with_tests=True)
        code = run_struck(ready, step, lambda: os.kill(os.getpid(), signal.SIGINT), lambda: do_unapply(ready))
        assert tree_hash(ready) == before, step
        if code == 0:
            break
        assert code == 130, step
    assert step > 10


@pytest.mark.parametrize("lasting", [False, True])
def test_disk_full_at_every_step(ready: Path, lasting: bool) -> None:
    before = tree_hash(ready)
    marker = ready.parent / "struck"

    def full() -> None:
        marker.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")

    failures = 0
    for step in range(1, STEPS):
        code = run_struck(ready, step, full, lambda: do_apply(ready, with_tests=True), lasting)
        if not marker.exists():
            break
        marker.unlink()
        if code == 0:
            # mkdir of a folder that is there already may fail in any way.
            do_unapply(ready)
        else:
            assert code == ExitCode.INFRASTRUCTURE, step
            failures += 1
        assert tree_hash(ready) == before, step
    assert failures > 30
    do_unapply(ready)
    assert tree_hash(ready) == before


# series.py by itself.


def test_materialize_is_all_or_nothing(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    before = tree_hash(root)
    (tmp_path / "out" / ACCESS).parent.mkdir(parents=True)
    (tmp_path / "out" / ACCESS).write_text("as it was\n", encoding="utf-8")
    patches = [manifest.PATCHES / HOOK, manifest.PATCHES / "pci-cfg-wait/reintroduce-v5.9-v7.x.patch"]
    says = f"^pci-cfg-wait/reintroduce-v5.9-v7.x.patch does not apply to {root} without fuzz: Hunk #1 FAILED at "
    with pytest.raises(series.DoesNotFit, match=says):
        series.materialize(root, patches, tmp_path / "out")
    assert (tmp_path / "out" / ACCESS).read_text(encoding="utf-8") == "as it was\n"
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [tmp_path / "out" / ACCESS]
    assert tree_hash(root) == before


MISSING = "--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n"
# That is no fault of the tree's code.
MALFORMED = "--- a/Makefile\n+++ b/Makefile\n@@ -1,2 +1 @@\n a\n"
REMOVES = "--- a/one\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", series.DoesNotFit, "Hunk #1 FAILED"),
        (MISSING, series.DoesNotFit, "^x.patch does not apply to .*can't find file to patch"),
        (MALFORMED, Infrastructure, "^patch failed on x.patch: .*malformed patch at line"),
        (REMOVES, BadInput, "^one: removed by one of x.patch$"),
    ],
    ids=["there already", "no such file", "malformed", "removes a file"],
)
def test_patch_that_cannot_be_taken(
    make_tree: MakeTree, tmp_path: Path, text: str, error: type[KmendError], says: str
) -> None:
    """Of what is there already patch would offer to take it back."""
    root = make_tree()
    (root / "one").write_text("a\n", encoding="utf-8")
    (tmp_path / "x.patch").write_text(text, encoding="utf-8")
    patches = [tmp_path / "x.patch"] if text else [manifest.PATCHES / FIX] * 2
    with pytest.raises(error, match=says):
        series.materialize(root, patches, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_fuzz(make_tree: MakeTree) -> None:
    """patch would take this with fuzz: one line of context differs."""
    text = access_c().replace("/* Returns 0 on success, negative values indicate error. */", "/* Returns 0. */")
    root = make_tree(text)
    fuzzy = ["patch", "-p1", "--dry-run", "-d", str(root), "-i", str(manifest.PATCHES / FIX)]
    assert "with fuzz" in subprocess.run(fuzzy, check=True, capture_output=True, text=True).stdout
    assert not series.fits(root, manifest.PATCHES / FIX)


def test_fits_and_materialize_only_read(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    before = tree_hash(root)
    assert series.fits(root, manifest.PATCHES / FIX)
    assert series.fits(root, manifest.PATCHES / HOOK, [manifest.PATCHES / FIX])
    assert not series.fits(root, manifest.PATCHES / FIX, [manifest.PATCHES / FIX])
    names = series.materialize(root, [manifest.PATCHES / FIX, manifest.PATCHES / HOOK], tmp_path / "out/deep")
    assert names == [ACCESS, "drivers/pci/Kconfig"]
    files = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    made = sorted(path.relative_to(tmp_path / "out/deep").as_posix() for path in files)
    assert made == ["drivers/pci/Kconfig", ACCESS]
    assert tree_hash(root) == before


def test_touched_files() -> None:
    assert series.touched_files(manifest.PATCHES / HOOK) == ["drivers/pci/Kconfig", ACCESS]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no patch\n", "no patch in it"),
        ("--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n", "not a path inside the tree"),
        ("--- /etc/x\n+++ /etc/x\n@@ -1 +1 @@\n-a\n+b\n", "not a path inside the tree"),
    ],
)
def test_patch_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.patch").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=says):
        series.touched_files(tmp_path / "x.patch")


def test_removed_line_that_looks_like_a_header(tmp_path: Path) -> None:
    (tmp_path / "x.patch").write_text("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- a/y\n+++ b/y\n c\n", encoding="utf-8")
    assert series.touched_files(tmp_path / "x.patch") == ["x"]


@pytest.mark.skipif(not real_trees(), reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize("path", real_trees(), ids=[path.name for path in real_trees()])
def test_real_tree(path: Path, tmp_path: Path) -> None:
    """On a copy of the part of a real tree that matters."""
    root = tmp_path / "tree"
    shutil.copytree(path / "drivers/pci", root / "drivers/pci", symlinks=True)
    shutil.copy(path / "Makefile", root)
    before = tree_hash(root)
    tree = Tree.open(root, need_makefile=True)
    said = audit(tree, [BUG])
    if said.patches:
        apply(tree, said)
        assert audit(tree, [BUG]).bugs[0].status is Status.FIXED
        unapply(tree)
    else:
        refused(root, "nothing to apply", lambda: apply(tree, said), ExitCode.NOTHING)
    if series.fits(root, manifest.PATCHES / HOOK):
        (root / "include/kunit").mkdir(parents=True)
        (root / "include/kunit/test.h").touch()
        before = tree_hash(root)
        done = apply(tree, said, with_tests=True)
        if bases.nearest(tree)[0].kunit == "compat":
            assert any(note.startswith(f"the KUnit of {tree.version} is too old") for note in done.notes)
        else:
            assert HOOK in done.patches
        unapply(tree)
    assert tree_hash(root) == before
