# SPDX-License-Identifier: GPL-2.0-only
"""apply and unapply on a stranger's tree: one clear line, a true exit code, and no byte lost, in the tree or outside.

A case says its kind, what is done to the tree, the command, its exit code, and what its line must say. Where the code
is not 0 nothing may have changed; where unapply ends with 0 the tree is as it was before apply.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_apply import (
    ADDED,
    STEPS,
    at_step,
    do_apply,
    do_unapply,
    found,
    in_child,
    patched_once,
    ready,
    refused,
    run_struck,
)

from conftest import ACCESS, WAIT_EVENT, MakeTree, access_c, commit_all, git, tree_hash
from kmendlib import cli
from kmendlib.host import proc
from kmendlib.tree import transaction
from kmendlib.tree.transaction import STATE

__all__ = ["patched_once", "ready"]

JOURNAL = f"{STATE}/state.json"
OLD = f"{STATE}/old/{ACCESS}"
PCI_TESTS = "tools/testing/selftests/pci"
OK, USAGE, NOTHING = 0, 2, 4


Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One thing that a tree may do to its user, or its user to a tree.

    Attributes:
        first: the command that comes before, if any; in a git repository where it begins with "git".
        command: the command.
        code: its exit code.
        says: what its line must say.
        change: what is done to the tree in between.
    """

    first: str
    command: str
    code: int
    says: str
    change: Change


def kmend(root: Path, command: str) -> tuple[int, str]:
    """Run a command in this process, without the second that an audit takes; return its code and what it says."""
    output = io.StringIO()
    name, *options = command.split()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = cli.main([name, str(root), *options])
    return code, output.getvalue()


@pytest.fixture(autouse=True)
def quick_audit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("kmendlib.cli.audit", lambda tree, *_, **__: found(tree.path))
    handlers = {number: signal.getsignal(number) for number in proc.ENDING}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def everything(root: Path) -> str:
    """Return a hash of the tree and of what lies beside it."""
    return tree_hash(root.parent)


def edit(root: Path, **changes: object) -> None:
    journal = json.loads((root / JOURNAL).read_text(encoding="utf-8"))
    (root / JOURNAL).write_text(json.dumps(journal | changes), encoding="utf-8")


def named(root: Path) -> list[dict[str, object]]:
    """Return what the journal says of each file."""
    return list(json.loads((root / JOURNAL).read_text(encoding="utf-8"))["files"])


def write(name: str, text: str) -> Change:
    """Write a file, in a folder that may be new."""

    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")

    return change


def remove(name: str, make: Change = lambda _: None) -> Change:
    """Remove a file or folder, and make something else in its place."""

    def change(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return change


def link(name: str, target: str) -> Change:
    return lambda root: (root / name).symlink_to(target)


def move_out(name: str) -> Change:
    """Put a link in the place of a folder, which lies outside then."""

    def change(root: Path) -> None:
        outside = root.parent / "outside"
        (root / name).rename(outside)
        (root / name).symlink_to(outside)

    return change


def outside(folder: str) -> Change:
    """Let the journal name an empty folder that is not in the tree."""

    def change(root: Path) -> None:
        (root.parent / "empty/more").mkdir(parents=True)
        (root / "link").symlink_to(root.parent / "empty")
        edit(root, folders=[folder])

    return change


def mounted(*words: str) -> None:
    if subprocess.run(["mount", *words], capture_output=True).returncode:
        pytest.skip("no right to mount here")


def bind(name: str) -> Change:
    def change(root: Path) -> None:
        twin = root.parent / "twin"
        (shutil.copytree if (root / name).is_dir() else shutil.copyfile)(root / name, twin)
        mounted("--bind", str(twin), str(root / name))

    return change


def mount_another_file_system(root: Path) -> None:
    bind("drivers")(root)
    inside = root.parent / "inside"
    shutil.copytree(root / "drivers", inside)
    mounted("-t", "tmpfs", "kmend", str(root / "drivers"))
    shutil.copytree(inside, root / "drivers", dirs_exist_ok=True)


def mount_read_only(root: Path) -> None:
    mounted("--bind", str(root), str(root))
    mounted("-o", "remount,bind,ro", str(root))


def chattr(letter: str, place: str) -> Change:
    def change(root: Path) -> None:
        if subprocess.run(["chattr", f"+{letter}", str(root / place)], capture_output=True).returncode:
            pytest.skip("no chattr here")

    return change


def in_git(*commands: str) -> Change:
    """Run git's commands, each as words with blanks between."""

    def change(root: Path) -> None:
        for command in commands:
            git(root, *command.split())

    return change


def append(root: Path, text: str = "/* an edit */\n") -> None:
    with (root / ACCESS).open("a", encoding="utf-8") as stream:
        stream.write(text)


def with_ident(root: Path, text: str = "") -> None:
    """Commit a file with $Id$ in it, which a checkout fills in."""
    (root / ".gitattributes").write_text("*.c ident\n", encoding="utf-8")
    (root / ACCESS).write_text("/* $Id$ */\n" + access_c(), encoding="utf-8")
    in_git("add -A", "commit -qm ident")(root)
    (root / ACCESS).unlink()
    git(root, "checkout", "-q", ACCESS)
    assert "$Id: " in (root / ACCESS).read_text(encoding="utf-8")
    append(root, text)


def with_filter(root: Path) -> None:
    with_ident(root, "/* an edit */\n")
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/attributes").write_text("*.c filter=x\n", encoding="utf-8")
    for key in ("clean", "smudge", "process"):
        git(root, "config", f"filter.x.{key}", f"touch {root.parent}/ran")
    git(root, "config", "filter.x.required", "true")


LOST, FOREIGN = "cannot be given back, and nothing was changed", "is not known to be kmend's"
UNNAMED, NO_JOURNAL = "state.json does not name it", "there is no state.json with it"
UNREADABLE, MOUNT = "state.json: cannot be read", "is a mount, where files cannot be swapped"
LINK, FIXED = "a symbolic link is in this path", "is immutable or append-only"
GONE = "is not in its files (apply was cut off, or git checkout or git stash took it out): run kmend"
NO_TELLING = "git cannot tell whether there are local changes"
COMMITTED, EDITED = "is committed as it was applied: take it back with", "was changed since it was applied"
TESTS, MAIN = "apply --with-tests", ".git/refs/heads/main"
OWN_FOLDER = write(f"{STATE}/notes/mine.txt", "mine\n")
CHECKOUT, STASH = in_git("checkout -q ."), in_git("stash -q")
COMMIT, BRANCH = "commit -qam fixes", in_git("checkout -q -b fixes", "commit -qam fixes", "checkout -q main")
BAD_JOURNALS = {
    "empty": "",
    "cut": '{"patches": [',
    "deep": "[" * 100_000,
    "list": "[]",
    "number for files": '{"patches": [], "files": 5, "folders": []}',
    "list for a hash": '{"patches": [], "folders": [], "files": [{"name": "a", "old": null, "new": []}]}',
    "number for a name": '{"patches": [], "folders": [], "files": [{"name": 5, "old": null, "new": ""}]}',
    "half a pair": json.dumps({"patches": ["\ud800"], "files": [], "folders": []}),
    "huge": " " * (1 << 21) + "{}",
}
PATHS_OUT = ("/etc/passwd", "../x.c", "drivers/../../x.c", ".git/hooks/post-checkout", ".kmend/x", "a//b", "./a", "")

CASES = {
    # Copies that are not what they were.
    "empty copy": Case("apply", "unapply", USAGE, LOST, write(OLD, "")),
    "other copy": Case("apply", "unapply", USAGE, LOST, lambda root: os.truncate(root / OLD, 99)),
    "no copy": Case("apply", "unapply", USAGE, LOST, remove(OLD)),
    "folder for a copy": Case("apply", "unapply", USAGE, FOREIGN, remove(OLD, Path.mkdir)),
    "fifo for a copy": Case("apply", "unapply", USAGE, FOREIGN, remove(OLD, os.mkfifo)),
    # A .kmend that is not what kmend left there.
    "no journal": Case("apply", "unapply", USAGE, NO_JOURNAL, remove(JOURNAL)),
    "no journal, apply": Case("apply", "apply", USAGE, NO_JOURNAL, remove(JOURNAL)),
    "journal of no files": Case("apply", "unapply", USAGE, UNNAMED, lambda root: edit(root, files=[])),
    "journal of fewer files": Case(TESTS, "unapply", USAGE, UNNAMED, lambda root: edit(root, files=named(root)[1:])),
    "own folder": Case("", "unapply", USAGE, NO_JOURNAL, OWN_FOLDER),
    "own folder, apply": Case("", "apply", USAGE, NO_JOURNAL, OWN_FOLDER),
    "own file": Case("", "unapply", USAGE, "is no folder", write(STATE, "mine\n")),
    "own file, apply": Case("", "apply", USAGE, "is no folder", write(STATE, "mine\n")),
    "own file in it": Case("apply", "unapply", USAGE, UNNAMED, write(f"{STATE}/notes.txt", "mine\n")),
    "own file among the old": Case("apply", "unapply", USAGE, UNNAMED, write(f"{STATE}/old/drivers/a.c", "mine\n")),
    **{
        f"journal: {name}, {command}": Case("apply", command, USAGE, UNREADABLE, write(JOURNAL, content))
        for name, content in BAD_JOURNALS.items()
        for command in ("apply", "unapply")
    },
    "fifo for a journal": Case("apply", "unapply", USAGE, UNREADABLE, remove(JOURNAL, os.mkfifo)),
    "folder for a journal": Case("apply", "unapply", USAGE, UNREADABLE, remove(JOURNAL, Path.mkdir)),
    # Ways out of the tree.
    "linked state": Case("apply", "unapply", USAGE, f".kmend: {LINK}", move_out(STATE)),
    "linked state, apply": Case("apply", "apply", USAGE, f".kmend: {LINK}", move_out(STATE)),
    "linked old": Case("apply", "unapply", USAGE, FOREIGN, move_out(f"{STATE}/old")),
    "linked folder of old": Case("apply", "unapply", USAGE, FOREIGN, move_out(f"{STATE}/old/drivers/pci")),
    "linked patches": Case("apply", "unapply", USAGE, FOREIGN, move_out(f"{STATE}/patches")),
    "linked copy": Case("apply", "unapply", USAGE, FOREIGN, move_out(OLD)),
    "linked journal": Case("apply", "unapply", USAGE, FOREIGN, move_out(JOURNAL)),
    "linked folder": Case("apply", "unapply", USAGE, LINK, move_out("drivers")),
    "linked folder, apply": Case("", "apply", USAGE, LINK, move_out("drivers")),
    "linked file": Case("apply", "unapply", USAGE, f"{ACCESS}: {LINK}", move_out(ACCESS)),
    "linked file, apply": Case("", "apply", USAGE, LINK, move_out(ACCESS)),
    "linked folder of added files": Case(TESTS, "unapply", USAGE, LINK, move_out(PCI_TESTS)),
    "folder of the journal outside": Case("apply", "unapply", USAGE, UNREADABLE, outside("../empty")),
    "linked folder of the journal": Case("apply", "unapply", USAGE, UNREADABLE, outside("link/more")),
    **{
        f"files: {path}": Case(
            "apply",
            "unapply",
            USAGE,
            UNREADABLE,
            lambda root, path=path: edit(root, files=[named(root)[0] | {"name": path}]),
        )
        for path in PATHS_OUT
    },
    **{
        f"patches: {path}": Case(
            "apply", "unapply", USAGE, UNREADABLE, lambda root, path=path: edit(root, patches=[path])
        )
        for path in PATHS_OUT
    },
    # What cannot be swapped.
    "dangling link for a folder": Case("", TESTS, USAGE, LINK, link(PCI_TESTS, "nowhere")),
    "link in a circle": Case("", TESTS, USAGE, LINK, link(PCI_TESTS, "pci")),
    "file for a folder": Case("", TESTS, USAGE, "is no folder", write(PCI_TESTS, "mine\n")),
    "dangling link for a file": Case("", TESTS, USAGE, f"{ADDED[0]} exists already", link(ADDED[0], "nowhere")),
    "file for a file": Case("", TESTS, USAGE, f"{ADDED[0]} exists already", write(ADDED[0], "mine\n")),
    "mount for added files": Case("", TESTS, USAGE, MOUNT, bind("tools/testing")),
    **{
        f"{name}, {command}": Case(first, command, USAGE, says, change)
        for first, command in (("", "apply"), ("", "apply --dry-run"), ("apply", "unapply"))
        for name, says, change in (
            ("mount of another file system", MOUNT, mount_another_file_system),
            ("mount of the same file system", MOUNT, bind("drivers/pci")),
            ("mount of a file", MOUNT, bind(ACCESS)),
            ("mount that is read-only", "is read-only", mount_read_only),
            ("immutable file", FIXED, chattr("i", ACCESS)),
            ("append-only file", FIXED, chattr("a", ACCESS)),
            ("immutable folder", FIXED, chattr("i", "drivers/pci")),
            ("append-only folder", FIXED, chattr("a", "drivers/pci")),
            ("immutable tree", FIXED, chattr("i", "")),
        )
    },
    # What was changed since.
    "edited": Case("apply", "unapply", USAGE, f"{ACCESS} {EDITED}: put it back as it was", append),
    "edited, apply": Case("apply", "apply", USAGE, f"{EDITED}: put it back as it was, then run unapply; or", append),
    "edited test": Case(TESTS, "unapply", USAGE, f"{ADDED[3]} {EDITED}", write(ADDED[3], "mine")),
    "removed": Case("apply", "unapply", USAGE, f"{ACCESS} is gone since it was applied", remove(ACCESS)),
    # git.
    **{
        f"{name}, {command}": Case(f"git {first}", command, code, says, change)
        for command, code, says in (("apply", USAGE, GONE), ("unapply", OK, "files were as before already"))
        for name, first, change in (
            ("checkout", "apply", CHECKOUT),
            ("checkout leaves the tests", TESTS, CHECKOUT),
            ("stash", "apply", STASH),
            ("commit and another branch", "apply", BRANCH),
        )
    },
    "checkout of one file, apply": Case(
        f"git {TESTS}", "apply", USAGE, "is half applied: run kmend unapply", in_git(f"checkout -q {ACCESS}")
    ),
    "checkout of one file": Case(
        f"git {TESTS}",
        "unapply",
        OK,
        f"1 of {2 + len(ADDED)} files were as before already",
        in_git(f"checkout -q {ACCESS}"),
    ),
    "commit": Case("git apply", "unapply", USAGE, f"{COMMITTED} git revert, or keep it", in_git(COMMIT)),
    "commit of the tests alone": Case(
        f"git {TESTS}", "unapply", USAGE, COMMITTED, in_git(f"add {ADDED[0]}", f"commit -qm tests {ADDED[0]}")
    ),
    "staged": Case(
        "git apply", "unapply", OK, f"is still staged in git: git restore --staged {ACCESS}", in_git(f"add {ACCESS}")
    ),
    "commit and again": Case("git apply", "apply", NOTHING, "applied already", in_git(COMMIT)),
    "edited in git": Case("git apply", "unapply", USAGE, f"{EDITED}: put it back", append),
    "clean": Case("git apply", "unapply", OK, "took back", lambda root: None),
    "edited elsewhere": Case("git apply", "unapply", OK, "took back", write("drivers/pci/probe.sh", "exit 1\n")),
    "edited elsewhere before": Case("git", "apply", OK, "applied 1 patch", write("drivers/pci/probe.sh", "exit 1\n")),
    "no commit": Case("", "apply", OK, "applied 1 patch", in_git("init -q")),
    "inside another git tree": Case("", "apply", OK, "applied 1 patch", lambda root: git(root.parent, "init", "-q")),
    "git file that leads nowhere": Case(
        "git",
        "apply",
        USAGE,
        NO_TELLING,
        remove(".git", lambda git: git.write_text("gitdir: /nowhere\n", encoding="utf-8")),
    ),
    "garbage in HEAD": Case("git", "apply", USAGE, NO_TELLING, write(".git/HEAD", "garbage\n")),
    "garbage in a branch": Case("git", "apply", USAGE, NO_TELLING, write(MAIN, "garbage\n")),
    "branch without its commit": Case("git", "apply", USAGE, NO_TELLING, write(MAIN, "1" * 40 + "\n")),
    "empty branch": Case("git", "apply", USAGE, NO_TELLING, write(MAIN, "")),
    "objects are gone": Case("git", "apply", USAGE, NO_TELLING, remove(".git/objects")),
    "garbage above": Case(
        "git",
        "apply",
        USAGE,
        NO_TELLING,
        remove(".git", lambda git: (git.parents[1] / ".git").write_text("x\n", encoding="utf-8")),
    ),
    "ident": Case("git", "apply", OK, "applied 1 patch", with_ident),
    "ident and a local change": Case(
        "git", "apply", USAGE, "has local changes", lambda root: with_ident(root, "/* an edit */\n")
    ),
    "ident and a filter that would run": Case("git", "apply", USAGE, "has local changes", with_filter),
}


# The cases, one by one.


def prepare(make_tree: MakeTree, one: Case) -> Path:
    root = make_tree(kunit=True)
    first = one.first.split()
    if first[:1] == ["git"]:
        commit_all(root)
        first = first[1:]
    if first:
        assert kmend(root, " ".join(first))[0] == OK
    return root


@pytest.fixture
def own_mounts(tmp_path: Path) -> Iterator[None]:
    """Give what a case mounted or made immutable back."""
    yield
    for line in reversed(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()):
        if line.split()[4].startswith(f"{tmp_path}/"):
            subprocess.run(["umount", line.split()[4]], check=True)
    subprocess.run(["chattr", "-R", "-f", "-i", "-a", str(tmp_path)], check=False)


@pytest.mark.usefixtures("own_mounts")
@pytest.mark.parametrize("one", CASES.values(), ids=CASES.keys())
def test_case(make_tree: MakeTree, one: Case) -> None:
    root = prepare(make_tree, one)
    one.change(root)
    before = everything(root)
    code, output = kmend(root, one.command)
    assert one.says in output
    assert code == one.code, output
    if code:
        assert len(output.splitlines()) == 1 and "Traceback" not in output
        assert everything(root) == before
    elif one.command == "unapply":
        assert (root / ACCESS).read_text(encoding="utf-8") == access_c()
        assert not [name for name in (STATE, *ADDED) if (root / name).exists()]
    else:
        assert WAIT_EVENT in (root / ACCESS).read_text(encoding="utf-8")
    assert not (root.parent / "ran").exists()


# Somebody saves a file while kmend is at work.


def save_in_place(path: Path) -> None:
    path.write_text("saved\n", encoding="utf-8")


def save_by_a_rename(path: Path) -> None:
    path.with_suffix(".swp").write_text("saved\n", encoding="utf-8")
    path.with_suffix(".swp").rename(path)


@pytest.mark.parametrize("work", [lambda root: do_apply(root, with_tests=True), do_unapply], ids=["apply", "unapply"])
@pytest.mark.parametrize(
    ("name", "save", "stride"),
    [(ACCESS, save_in_place, 1), (ACCESS, save_by_a_rename, 5), (ADDED[0], save_in_place, 5)],
)
def test_saved_at_every_step(
    ready: Path, name: str, save: Callable[[Path], None], stride: int, work: Callable[[Path], object]
) -> None:
    """Whatever the moment, what was saved is there, and either all is done or kmend says that it is not."""
    if work is do_unapply:
        do_apply(ready, with_tests=True)
    kept, mark = ready.parent / "kept", ready.parent / "saved"
    shutil.copytree(ready, kept)

    def strike() -> None:
        save(ready / name)
        mark.touch()

    codes = set()
    for step in range(1, STEPS, stride):
        codes.add(run_struck(ready, step, strike, lambda: work(ready)))
        if not mark.exists():
            break
        mark.unlink()
        assert (ready / name).read_text(encoding="utf-8") == "saved\n", step
        shutil.rmtree(ready)
        shutil.copytree(kept, ready)
    assert step > 20
    assert codes == {OK, USAGE}


# Signals that end a program.


@pytest.mark.parametrize("number", sorted(proc.ENDING), ids=lambda number: number.name)
def test_signal_at_every_step(ready: Path, number: signal.Signals) -> None:
    """As on the command line: the tree is as it was, the code is 130. A second signal of another kind comes along."""
    before = tree_hash(ready)

    def strike() -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)

    def work() -> int:
        for other in proc.ENDING:
            signal.signal(other, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        at_step(ready, step, strike, again=False)
        return kmend(ready, "apply --with-tests")[0]

    for step in range(1, STEPS, 1 if number is signal.SIGHUP else 12):  # noqa: B007
        code = os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1])
        if code == OK:
            break
        assert (code, tree_hash(ready) == before) == (130, True), step
    assert step > 30
    do_unapply(ready)
    assert tree_hash(ready) == before


# What belongs to a file beside its bytes.


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL as the kernel has it: entries of tag, permissions and id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


_NOBODY = 65534
_NONE = 0xFFFFFFFF
# user::rw- user:nobody:rw- group::r-- mask::rw- other::---, which ls shows as rw-rw----
_ACL = acl((0x01, 6, _NONE), (0x02, 6, _NOBODY), (0x04, 4, _NONE), (0x10, 6, _NONE), (0x20, 0, _NONE))


def beside_the_bytes(path: Path) -> object:
    status = path.stat()
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return status.st_mode, status.st_uid, status.st_gid, attributes


def set_attribute(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"{name} cannot be set in {path.parent}: {error.strerror}")


def test_attributes_owner_and_mode_are_kept(make_tree: MakeTree) -> None:
    root = make_tree()
    if os.geteuid() == 0:
        os.chown(root / ACCESS, _NOBODY, 12345)
    set_attribute(root / ACCESS, "user.reviewed", b"yes")
    set_attribute(root / ACCESS, "system.posix_acl_access", _ACL)
    before = beside_the_bytes(root / ACCESS)
    assert (root / ACCESS).stat().st_mode & 0o777 == 0o660
    do_apply(root)
    assert beside_the_bytes(root / ACCESS) == before
    do_unapply(root)
    assert beside_the_bytes(root / ACCESS) == before


def test_acl_of_a_folder_gives_no_right_on_a_file(make_tree: MakeTree) -> None:
    """What is made in a folder with a default ACL gets an ACL that the file in its place never had."""
    root = make_tree()
    set_attribute(root, "system.posix_acl_default", _ACL)
    before = beside_the_bytes(root / ACCESS)
    do_apply(root)
    assert beside_the_bytes(root / ACCESS) == before
    do_unapply(root)
    assert beside_the_bytes(root / ACCESS) == before


def test_attribute_that_cannot_be_kept(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree()
    set_attribute(root / ACCESS, "user.reviewed", b"yes")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "setxattr", refuse)
    refused(root, f"{ACCESS}: its user.reviewed cannot be kept (Operation not permitted)", lambda: do_apply(root))


def test_file_of_another_user(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    refused(root, f"{ACCESS} belongs to another user (id {os.getuid()}): run kmend as", lambda: do_apply(root))


def test_hard_links_get_a_line(make_tree: MakeTree) -> None:
    root = make_tree()
    twin, before = root.parent / "twin", tree_hash(root)
    subprocess.run(["cp", "-al", str(root), str(twin)], check=True)
    code, output = kmend(root, "apply")
    assert code == OK
    assert f"  note     {ACCESS} is no hard link any more: its other names (1) keep the bytes from before\n" in output
    assert tree_hash(twin) == before
    do_unapply(root)
    assert tree_hash(twin) == tree_hash(root) == before


# Other ways to fail.


def test_file_system_that_cannot_exchange_files(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS, for one, has a plain rename alone."""
    root = make_tree(kunit=True)
    before = tree_hash(root)
    monkeypatch.setattr(transaction, "_LIBC", object())
    do_apply(root, with_tests=True)
    assert WAIT_EVENT in (root / ACCESS).read_text(encoding="utf-8")
    do_unapply(root)
    assert tree_hash(root) == before
