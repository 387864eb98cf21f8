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
from typing import Any

import pytest
from conftest import ACCESS, WAIT_EVENT, MakeTree, access_c, tree_hash
from test_apply import (
    ADDED,
    STEPS,
    at_step,
    do_apply,
    do_unapply,
    found,
    git,
    in_child,
    patched_once,
    ready,
    refused,
    run_struck,
)

from kmendlib import cli
from kmendlib.host import proc
from kmendlib.host.paths import SCRIPTS
from kmendlib.tree import transaction
from kmendlib.tree.transaction import STATE

__all__ = ["patched_once", "ready"]

JOURNAL = f"{STATE}/state.json"
OLD = f"{STATE}/old/{ACCESS}"
PCI_TESTS = "tools/testing/selftests/pci"
OK, USAGE, NOTHING = 0, 2, 4


@dataclass(frozen=True)
class Case:
    """One thing that a tree may do to its user, or its user to a tree."""

    kind: str
    name: str
    first: str  # commands that come before, each a list of words
    change: Callable[[Path], object]
    command: str
    code: int
    says: str


CASES: list[Case] = []


def case(kind: str, first: str, command: str, code: int, says: str) -> Callable[[Callable[[Path], object]], None]:
    """Add what is decorated to the cases."""

    def add(change: Callable[[Path], object]) -> None:
        name = change.__name__.strip("_").replace("_", "-")
        CASES.append(Case(kind, f"{name}:{command.replace(' ', '')}", first, change, command, code, says))

    return add


def kmend(root: Path, command: str) -> tuple[int, str]:
    """Run a command in this process, without the second that an audit takes; return its code and what it says."""
    output = io.StringIO()
    name, *options = command.split()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = cli.main([name, str(root), *options])
    return code, output.getvalue()


@pytest.fixture(autouse=True)
def quick_audit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("kmendlib.tree.audit.audit", lambda tree, *_, **__: found(tree.path))
    handlers = {number: signal.getsignal(number) for number in proc.ENDING}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def everything(root: Path) -> str:
    """Return a hash of the tree and of what lies beside it."""
    return tree_hash(root.parent)


# Copies that are not what they were.


def lost_copy(says: str) -> Callable[[Callable[[Path], object]], None]:
    return case("a copy is not whole", "apply", "unapply", USAGE, says)


@lost_copy("cannot be given back, and nothing was changed")
def _empty_copy(root: Path) -> None:
    (root / OLD).write_bytes(b"")


@lost_copy("cannot be given back, and nothing was changed")
def _other_copy(root: Path) -> None:
    (root / OLD).write_bytes((root / OLD).read_bytes()[:-1])


@lost_copy("cannot be given back, and nothing was changed")
def _no_copy(root: Path) -> None:
    (root / OLD).unlink()


@lost_copy("is not known to be kmend's")
def _folder_for_a_copy(root: Path) -> None:
    (root / OLD).unlink()
    (root / OLD).mkdir()


@lost_copy("is not known to be kmend's")
def _fifo_for_a_copy(root: Path) -> None:
    (root / OLD).unlink()
    os.mkfifo(root / OLD)


# A .kmend that is not what kmend left there.


def foreign(first: str, command: str, says: str, kind: str = ".kmend is not kmend's") -> Any:
    return case(kind, first, command, USAGE, says)


def edit(root: Path, **changes: object) -> None:
    journal = json.loads((root / JOURNAL).read_text())
    (root / JOURNAL).write_text(json.dumps(journal | changes))


@foreign("apply", "unapply", "there is no state.json with it")
def _no_journal(root: Path) -> None:
    (root / JOURNAL).unlink()


@foreign("apply", "apply", "there is no state.json with it")
def _no_journal_(root: Path) -> None:
    (root / JOURNAL).unlink()


@foreign("apply", "unapply", "state.json does not name it")
def _journal_of_no_files(root: Path) -> None:
    edit(root, files=[])


@foreign("apply --with-tests", "unapply", "state.json does not name it")
def _journal_of_fewer_files(root: Path) -> None:
    edit(root, files=json.loads((root / JOURNAL).read_text())["files"][1:])


def own_folder(root: Path) -> None:
    (root / STATE / "notes").mkdir(parents=True)
    (root / STATE / "notes/mine.txt").write_text("mine\n")


for _command in ("apply", "unapply"):
    foreign("", _command, "there is no state.json with it")(own_folder)


@foreign("", "unapply", "is no folder")
def _own_file(root: Path) -> None:
    (root / STATE).write_text("mine\n")


@foreign("", "apply", "is no folder")
def _own_file_(root: Path) -> None:
    (root / STATE).write_text("mine\n")


@foreign("apply", "unapply", "state.json does not name it")
def _own_file_in_it(root: Path) -> None:
    (root / STATE / "notes.txt").write_text("mine\n")


@foreign("apply", "unapply", "state.json does not name it")
def _own_file_among_the_old(root: Path) -> None:
    (root / STATE / "old/drivers/mine.c").write_text("mine\n")


for _name, _content in {
    "empty": "",
    "cut": '{"patches": [',
    "deep": "[" * 100_000,
    "list": "[]",
    "number-for-files": '{"patches": [], "files": 5, "folders": []}',
    "list-for-a-hash": '{"patches": [], "folders": [], "files": [{"name": "a", "old": null, "new": []}]}',
    "number-for-a-name": '{"patches": [], "folders": [], "files": [{"name": 5, "old": null, "new": ""}]}',
    "half-a-pair": json.dumps({"patches": ["\ud800"], "files": [], "folders": []}),
    "huge": " " * (1 << 21) + "{}",
}.items():

    def _write(root: Path, content: str = _content) -> None:
        (root / JOURNAL).write_text(content)

    _write.__name__ = f"journal-{_name}"
    for _command in ("apply", "unapply"):
        foreign("apply", _command, "state.json: cannot be read", "a journal that cannot be read")(_write)


@foreign("apply", "unapply", "state.json: cannot be read", "a journal that cannot be read")
def _fifo_for_a_journal(root: Path) -> None:
    (root / JOURNAL).unlink()
    os.mkfifo(root / JOURNAL)


@foreign("apply", "unapply", "state.json: cannot be read", "a journal that cannot be read")
def _folder_for_a_journal(root: Path) -> None:
    (root / JOURNAL).unlink()
    (root / JOURNAL).mkdir()


# Ways out of the tree.


def leads_out(first: str, command: str, says: str) -> Any:
    return case("a way out of the tree", first, command, USAGE, says)


def move_out(root: Path, name: str) -> None:
    """Put a link in the place of a folder, which lies outside then."""
    outside = root.parent / "outside"
    (root / name).rename(outside)
    (root / name).symlink_to(outside)


@leads_out("apply", "unapply", ".kmend: a symbolic link is in this path")
def _linked_state(root: Path) -> None:
    move_out(root, STATE)


@leads_out("apply", "apply", ".kmend: a symbolic link is in this path")
def _linked_state_(root: Path) -> None:
    move_out(root, STATE)


@leads_out("apply", "unapply", "is not known to be kmend's")
def _linked_old(root: Path) -> None:
    move_out(root, f"{STATE}/old")


@leads_out("apply", "unapply", "is not known to be kmend's")
def _linked_folder_of_old(root: Path) -> None:
    move_out(root, f"{STATE}/old/drivers/pci")


@leads_out("apply", "unapply", "is not known to be kmend's")
def _linked_patches(root: Path) -> None:
    move_out(root, f"{STATE}/patches")


@leads_out("apply", "unapply", "is not known to be kmend's")
def _linked_copy(root: Path) -> None:
    move_out(root, OLD)


@leads_out("apply", "unapply", "is not known to be kmend's")
def _linked_journal(root: Path) -> None:
    move_out(root, JOURNAL)


@leads_out("apply", "unapply", "a symbolic link is in this path")
def _linked_folder(root: Path) -> None:
    move_out(root, "drivers")


@leads_out("apply", "unapply", "a symbolic link is in this path")
def _linked_file(root: Path) -> None:
    move_out(root, ACCESS)


@leads_out("apply --with-tests", "unapply", "a symbolic link is in this path")
def _linked_folder_of_added_files(root: Path) -> None:
    move_out(root, PCI_TESTS)


@leads_out("apply", "unapply", "state.json: cannot be read")
def _folder_of_the_journal_outside(root: Path) -> None:
    (root.parent / "empty").mkdir()
    edit(root, folders=["../empty"])


@leads_out("apply", "unapply", "state.json: cannot be read")
def _linked_folder_of_the_journal(root: Path) -> None:
    (root.parent / "empty/more").mkdir(parents=True)
    (root / "link").symlink_to(root.parent / "empty")
    edit(root, folders=["link/more"])


for _path in ("/etc/passwd", "../x.c", "drivers/../../x.c", ".git/hooks/post-checkout", ".kmend/x", "a//b", "./a", ""):
    for _key in ("files", "patches"):

        def _rename(root: Path, path: str = _path, key: str = _key) -> None:
            entry = json.loads((root / JOURNAL).read_text())["files"][0] | {"name": path}
            edit(root, **{key: [entry] if key == "files" else [path]})

        _rename.__name__ = f"{_key}-{_path.replace('/', '|') or 'nothing'}"
        leads_out("apply", "unapply", "state.json: cannot be read")(_rename)


# What cannot be swapped.


def unfit(command: str, says: str, first: str = "") -> Any:
    return case("a file that cannot be swapped", first, command, USAGE, says)


@unfit("apply --with-tests", "a symbolic link is in this path")
def _dangling_link_for_a_folder(root: Path) -> None:
    (root / PCI_TESTS).symlink_to("nowhere")


@unfit("apply --with-tests", "a symbolic link is in this path")
def _link_in_a_circle(root: Path) -> None:
    (root / PCI_TESTS).symlink_to("pci")


@unfit("apply --with-tests", "is no folder")
def _file_for_a_folder(root: Path) -> None:
    (root / PCI_TESTS).write_text("mine\n")


@unfit("apply --with-tests", "exists already")
def _dangling_link_for_a_file(root: Path) -> None:
    (root / ADDED[0]).symlink_to("nowhere")


def mounted(*words: str) -> None:
    if subprocess.run(["mount", *words], capture_output=True).returncode:
        pytest.skip("no right to mount here")


def bind(root: Path, name: str) -> None:
    twin = root.parent / "twin"
    (shutil.copytree if (root / name).is_dir() else shutil.copyfile)(root / name, twin)
    mounted("--bind", str(twin), str(root / name))


for _command, _first in (("apply", ""), ("apply --dry-run", ""), ("unapply", "apply")):

    @unfit(_command, "is a mount, where files cannot be swapped", _first)
    def _mount_of_another_file_system(root: Path) -> None:
        bind(root, "drivers")
        inside = root.parent / "inside"
        shutil.copytree(root / "drivers", inside)
        mounted("-t", "tmpfs", "kmend", str(root / "drivers"))
        shutil.copytree(inside, root / "drivers", dirs_exist_ok=True)

    @unfit(_command, "is a mount, where files cannot be swapped", _first)
    def _mount_of_the_same_file_system(root: Path) -> None:
        bind(root, "drivers/pci")

    @unfit(_command, "is a mount, where files cannot be swapped", _first)
    def _mount_of_a_file(root: Path) -> None:
        bind(root, ACCESS)

    @unfit(_command, "is read-only", _first)
    def _mount_that_is_read_only(root: Path) -> None:
        mounted("--bind", str(root), str(root))
        mounted("-o", "remount,bind,ro", str(root))

    for _letter, _place in (("i", ACCESS), ("a", ACCESS), ("i", "drivers/pci"), ("a", "drivers/pci"), ("i", "")):

        def _fix(root: Path, letter: str = _letter, place: str = _place) -> None:
            if subprocess.run(["chattr", f"+{letter}", str(root / place)], capture_output=True).returncode:
                pytest.skip("no chattr here")

        _fix.__name__ = f"chattr-{_letter}-{Path(_place).name}"
        unfit(_command, "is immutable or append-only", _first)(_fix)


@unfit("apply --with-tests", "is a mount, where files cannot be swapped")
def _mount_for_added_files(root: Path) -> None:
    bind(root, "tools/testing")


# git.


def in_git(first: str, command: str, code: int, says: str) -> Any:
    return case("git", f"git {first}", command, code, says)


for _command, _code, _says in (
    ("apply", USAGE, "is not in its files (apply was cut off, or git checkout or git stash took it out): run kmend"),
    ("unapply", OK, "files were as before already"),
):

    @in_git("apply", _command, _code, _says)
    def _checkout(root: Path) -> None:
        git(root, "checkout", "-q", ".")

    @in_git("apply --with-tests", _command, _code, _says)
    def _checkout_leaves_the_tests(root: Path) -> None:
        git(root, "checkout", "-q", ".")

    @in_git("apply", _command, _code, _says)
    def _stash(root: Path) -> None:
        git(root, "stash", "-q")

    @in_git("apply", _command, _code, _says)
    def _commit_and_another_branch(root: Path) -> None:
        git(root, "checkout", "-q", "-b", "fixes")
        git(root, "commit", "-qam", "fixes")
        git(root, "checkout", "-q", "main")


@in_git("apply --with-tests", "apply", USAGE, "is half applied: run kmend unapply")
def _checkout_of_one_file(root: Path) -> None:
    git(root, "checkout", "-q", ACCESS)


@in_git("apply --with-tests", "unapply", OK, "1 of 9 files were as before already")
def _checkout_of_one_file_(root: Path) -> None:
    git(root, "checkout", "-q", ACCESS)


@in_git("apply", "unapply", USAGE, "is committed as it was applied: take it back with git revert, or keep it")
def _commit(root: Path) -> None:
    git(root, "commit", "-qam", "fixes")


@in_git("apply --with-tests", "unapply", USAGE, "is committed as it was applied: take it back with git revert")
def _commit_of_the_tests_alone(root: Path) -> None:
    git(root, "add", ADDED[0])
    git(root, "commit", "-qm", "tests", ADDED[0])


@in_git("apply", "unapply", OK, f"is still staged in git: git restore --staged {ACCESS}")
def _staged(root: Path) -> None:
    git(root, "add", ACCESS)


@in_git("apply", "apply", NOTHING, "applied already")
def _commit_and_again(root: Path) -> None:
    git(root, "commit", "-qam", "fixes")


for _command in ("apply", "unapply"):

    @in_git("apply", _command, USAGE, "was changed since it was applied: put it back as it was, then run unapply; or")
    def _edit_after(root: Path) -> None:
        with (root / ACCESS).open("a") as stream:
            stream.write("/* an edit */\n")


@in_git("", "apply", USAGE, "git cannot tell whether there are local changes")
def _git_file_that_leads_nowhere(root: Path) -> None:
    shutil.rmtree(root / ".git")
    (root / ".git").write_text("gitdir: /nowhere\n")


@in_git("", "apply", USAGE, "git cannot tell whether there are local changes")
def _garbage_in_head(root: Path) -> None:
    (root / ".git/HEAD").write_text("garbage\n")


@in_git("", "apply", USAGE, "git cannot tell whether there are local changes")
def _garbage_in_a_branch(root: Path) -> None:
    (root / ".git/refs/heads/main").write_text("garbage\n")


@in_git("", "apply", USAGE, "git cannot tell whether there are local changes")
def _branch_without_its_commit(root: Path) -> None:
    (root / ".git/refs/heads/main").write_text("1" * 40 + "\n")


@in_git("", "apply", USAGE, "git cannot tell whether there are local changes")
def _empty_branch(root: Path) -> None:
    (root / ".git/refs/heads/main").write_text("")


@in_git("", "apply", USAGE, "git cannot tell whether there are local changes")
def _objects_are_gone(root: Path) -> None:
    shutil.rmtree(root / ".git/objects")


@in_git("", "apply", USAGE, "git cannot tell whether there are local changes")
def _garbage_above(root: Path) -> None:
    shutil.rmtree(root / ".git")
    (root.parent / ".git").write_text("garbage\n")


def with_ident(root: Path, text: str = "") -> None:
    """Commit a file with $Id$ in it, which a checkout fills in."""
    (root / ".gitattributes").write_text("*.c ident\n")
    (root / ACCESS).write_text("/* $Id$ */\n" + access_c())
    git(root, "add", "-A")
    git(root, "commit", "-qm", "ident")
    (root / ACCESS).unlink()
    git(root, "checkout", "-q", ACCESS)
    assert "$Id: " in (root / ACCESS).read_text()
    with (root / ACCESS).open("a") as stream:
        stream.write(text)


@in_git("", "apply", OK, "applied 1 patch")
def _ident(root: Path) -> None:
    with_ident(root)


@in_git("", "apply", USAGE, "has local changes")
def _ident_and_a_local_change(root: Path) -> None:
    with_ident(root, "/* an edit */\n")


@in_git("", "apply", USAGE, "has local changes")
def _ident_and_a_filter_that_would_run(root: Path) -> None:
    with_ident(root, "/* an edit */\n")
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/attributes").write_text("*.c filter=x\n")
    for key in ("clean", "smudge", "process"):
        git(root, "config", f"filter.x.{key}", f"touch {root.parent}/ran")
    git(root, "config", "filter.x.required", "true")


# The cases, one by one.


def prepare(make_tree: MakeTree, one: Case) -> Path:
    root = make_tree(kunit=True)
    first = one.first.split()
    if first[:1] == ["git"]:
        git(root, "init", "-q")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "A commit")
        first = first[1:]
    if first:
        assert kmend(root, " ".join(first))[0] == OK
    return root


@pytest.fixture
def own_mounts(tmp_path: Path) -> Iterator[None]:
    """Give what a case mounted or made immutable back."""
    yield
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{tmp_path}/"):
            subprocess.run(["umount", line.split()[4]], check=True)
    subprocess.run(["chattr", "-R", "-f", "-i", "-a", str(tmp_path)], check=False)


@pytest.mark.usefixtures("own_mounts")
@pytest.mark.parametrize("one", CASES, ids=[one.name for one in CASES])
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
        assert (root / ACCESS).read_text() == access_c()
        assert not [name for name in (STATE, *ADDED) if (root / name).exists()]
    else:
        assert WAIT_EVENT in (root / ACCESS).read_text()
    assert not (root.parent / "ran").exists()


# Somebody saves a file while kmend is at work.


def save_in_place(path: Path) -> None:
    path.write_text("saved\n")


def save_by_a_rename(path: Path) -> None:
    path.with_suffix(".swp").write_text("saved\n")
    path.with_suffix(".swp").rename(path)


@pytest.mark.parametrize("work", [lambda root: do_apply(root, with_tests=True), do_unapply], ids=["apply", "unapply"])
@pytest.mark.parametrize(
    ("name", "save"), [(ACCESS, save_in_place), (ACCESS, save_by_a_rename), (ADDED[0], save_in_place)]
)
def test_saved_at_every_step(
    ready: Path, name: str, save: Callable[[Path], None], work: Callable[[Path], object]
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
    for step in range(1, STEPS):
        codes.add(run_struck(ready, step, strike, lambda: work(ready)))
        if not mark.exists():
            break
        mark.unlink()
        assert (ready / name).read_text() == "saved\n", step
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
    subprocess.run(["cp", "-al", str(root), str(root.parent / "twin")], check=True)
    code, output = kmend(root, "apply")
    assert code == OK
    assert f"  note     {ACCESS} is no hard link any more: its other names (1) keep the bytes from before\n" in output
    assert (root.parent / "twin" / ACCESS).read_text() == access_c()


# Other ways to fail.


def test_file_system_that_cannot_exchange_files(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS, for one, has a plain rename alone."""
    root = make_tree(kunit=True)
    before = tree_hash(root)
    monkeypatch.setattr(transaction, "_LIBC", object())
    do_apply(root, with_tests=True)
    assert WAIT_EVENT in (root / ACCESS).read_text()
    do_unapply(root)
    assert tree_hash(root) == before


@pytest.mark.parametrize("words", [["apply", "--bug", "pci-cfg-wait"], ["unapply"]], ids=["apply", "unapply"])
def test_output_that_cannot_be_written(make_tree: MakeTree, words: list[str]) -> None:
    """The exit code says what became of the tree."""
    root = make_tree()
    if words == ["unapply"]:
        do_apply(root)
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [str(SCRIPTS / "kmend"), words[0], str(root), *words[1:]]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == OK, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "cannot be written: No space left on device" in done.stderr
    assert (STATE in os.listdir(root)) == (words[0] == "apply")
