# SPDX-License-Identifier: GPL-2.0-only
"""Workspaces: the user's tree is only read, states are swapped so that make sees each change and nothing else."""

import os
import re
import time
from pathlib import Path

import pytest

from conftest import commit_all, tools, tree_hash
from kmendlib.host.errors import BadInput, Infrastructure
from kmendlib.tree import bases, source
from kmendlib.tree.source import Workspace
from kmendlib.tree.tree import Tree

MAKEFILE = "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\nEXTRAVERSION =\nKBUILD_X = 1\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace("t", tmp_path / "work")
    for path, text in {"Makefile": MAKEFILE, "Kbuild": "", "a/one.c": "one\n", "a/two.c": "two\n"}.items():
        (place.pristine / path).parent.mkdir(parents=True, exist_ok=True)
        (place.pristine / path).write_text(text, encoding="utf-8")
        os.utime(place.pristine / path, (1_000_000, 1_000_000))
    return place


def stage(tmp_path: Path, name: str, files: dict[str, str]) -> Path:
    folder = tmp_path / name
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def test_unchanged_files_are_links(workspace: Workspace) -> None:
    source.link_arch(workspace, "x", [])
    assert (workspace.src("x") / "a/two.c").samefile(workspace.pristine / "a/two.c")


def test_state_never_reaches_the_pristine_tree(workspace: Workspace, tmp_path: Path) -> None:
    changed = source.link_arch(workspace, "x", [])
    source.install(workspace, "x", stage(tmp_path, "s", {"a/one.c": "mended\n"}), ["a/one.c", *changed])
    assert (workspace.src("x") / "a/one.c").read_text(encoding="utf-8") == "mended\n"
    assert (workspace.pristine / "a/one.c").read_text(encoding="utf-8") == "one\n"


def test_swapping_states_gives_new_dates_to_what_differs_alone(workspace: Workspace, tmp_path: Path) -> None:
    before = stage(tmp_path, "before", {"a/one.c": "bug\n", "a/test.c": "test\n"})
    after = stage(tmp_path, "after", {"a/test.c": "test\n"})
    changed = source.link_arch(workspace, "x", ["a/one.c", "a/test.c"])
    src = workspace.src("x")
    source.install(workspace, "x", before, changed)
    for path in ("a/one.c", "a/test.c"):
        os.utime(src / path, (2_000_000, 2_000_000))
    source.link_arch(workspace, "x", changed)
    source.install(workspace, "x", after, changed)
    assert (src / "a/one.c").read_text(encoding="utf-8") == "one\n"
    assert (src / "a/one.c").stat().st_mtime > 2_000_000
    assert (src / "a/test.c").stat().st_mtime == 2_000_000


def test_file_that_an_earlier_run_changed_comes_back_with_a_new_date(workspace: Workspace, tmp_path: Path) -> None:
    changed = source.link_arch(workspace, "x", ["a/one.c"])
    source.install(workspace, "x", stage(tmp_path, "s", {"a/one.c": "mended\n"}), changed)
    changed = source.link_arch(workspace, "x", [])
    assert changed == ["a/one.c"]
    source.install(workspace, "x", stage(tmp_path, "none", {}), changed)
    back = workspace.src("x") / "a/one.c"
    assert back.read_text(encoding="utf-8") == "one\n" and back.stat().st_mtime > 1_000_000


def test_file_that_only_a_state_has_goes_away(workspace: Workspace, tmp_path: Path) -> None:
    changed = source.link_arch(workspace, "x", ["a/test.c"])
    source.install(workspace, "x", stage(tmp_path, "s", {"a/test.c": "test\n"}), changed)
    source.install(workspace, "x", stage(tmp_path, "none", {}), changed)
    assert not (workspace.src("x") / "a/test.c").exists()


def user_tree(tmp_path: Path) -> Tree:
    files = {"Makefile": MAKEFILE, "Kbuild": "", "Kconfig": "", "drivers/pci/access.c": "int a;\n"}
    return Tree.open(stage(tmp_path, "user", files), need_makefile=True)


def test_copy_sees_a_change_with_an_old_date(tmp_path: Path) -> None:
    tree = user_tree(tmp_path)
    place = Workspace("u", tmp_path / "work")
    source.copy_tree(place, tree, lambda line: None)
    copied = place.pristine / "drivers/pci/access.c"
    first = copied.stat().st_mtime_ns
    source.copy_tree(place, tree, lambda line: None)
    assert copied.stat().st_mtime_ns == first
    (tree.path / "drivers/pci/access.c").write_text("int b;\n", encoding="utf-8")
    os.utime(tree.path / "drivers/pci/access.c", (1, 1))
    source.copy_tree(place, tree, lambda line: None)
    assert copied.read_text(encoding="utf-8") == "int b;\n" and copied.stat().st_mtime > 1_000_000


def test_script_that_lost_its_mode_can_be_run(tmp_path: Path) -> None:
    tree = user_tree(tmp_path)
    (tree.path / "scripts").mkdir()
    for name, text in {"mk.sh": "#!/bin/sh\n", "data": "x\n"}.items():
        (tree.path / "scripts" / name).write_text(text, encoding="utf-8")
    place = Workspace("u", tmp_path / "work")
    source.copy_tree(place, tree, lambda line: None)
    assert os.stat(place.pristine / "scripts/mk.sh").st_mode & 0o111 == 0o111
    assert not os.stat(place.pristine / "scripts/data").st_mode & 0o111
    assert not os.stat(tree.path / "scripts/mk.sh").st_mode & 0o111


def test_tree_built_in_place_is_refused(tmp_path: Path) -> None:
    tree = user_tree(tmp_path)
    (tree.path / ".config").write_text("CONFIG_A=y\n", encoding="utf-8")
    with pytest.raises(BadInput, match="mrproper"):
        source.copy_tree(Workspace("u", tmp_path / "work"), tree, lambda line: None)


def test_two_runs_at_once(workspace: Workspace) -> None:
    again = pytest.raises(Infrastructure, match=f"process {os.getpid()}")
    with source.locked(workspace), again, source.locked(workspace):
        pass


@pytest.mark.parametrize(
    ("unpacked", "built", "arches", "need"),
    [(1, "", "x", 0.8), (1, "", "x y", 1.6), (1, "y", "x y", 0.8), (0, "", "", 2.5), (0, "", "x y", 4.1)],
)
def test_full_disk_is_told_before_work_begins(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, unpacked: int, built: str, arches: str, need: float
) -> None:
    place = workspace if unpacked else Workspace("none", workspace.root / "none")
    for arch in built.split():
        place.build(arch).mkdir(parents=True)
    monkeypatch.setattr(source, "_free_gib", lambda path: need)
    source.need_space(place, arches.split())
    monkeypatch.setattr(source, "_free_gib", lambda path: need - 0.1)
    with pytest.raises(Infrastructure, match=f"has {need - 0.1:.1f} GiB free, {need} are needed"):
        source.need_space(place, arches.split())


def fake_base(place: bases.Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    monkeypatch.setattr(bases, "load", lambda: {"b": bases.Base("b", "", "6.12", "", sources=(place,))})
    return Workspace("b", tmp_path / "work")


OWN, OTHER = "bookworm", "sid"
GOOD = 'case "$*" in *update*) ;; *) for last; do :; done; touch "$last.deb";; esac'
# An old list names a version that is gone: only after an update there is a download.
STALE = f'case "$*" in *update*) touch $0.new;; *) [ -e $0.new ] || {{ echo 404; exit 100; }};; esac; {GOOD}'
BAD = "echo E: no network; exit 100"


@pytest.mark.parametrize(
    ("package", "suite", "apt", "takes", "calls"),
    [
        ("some-source-6.12", OWN, GOOD, "some-source-6.12", [r"-q -o \S+ download some-source-6\.12"]),
        ("some-source-6.12", OWN, STALE, "some-source-6.12", ["download", "^-q update$", "download"]),
        ("some-source-6.12", OWN, BAD, "E: no network", ["download", "update"]),
        # Another suite has lists of its own, which the machine's settings do not name.
        ("some-source-6.12", OTHER, GOOD, "some-source-6.12", ["sourceparts=/dev/null .* update", "list=.* download"]),
        ("some-source-6.12", OTHER, BAD, "E: no network", ["update"]),
        # The newest as numbers, not as letters.
        ("some-source-7.*", OTHER, GOOD, "some-source-7.10", ["update", "download some-source-7.10$"]),
        ("some-source-7.*", OWN, GOOD, "some-source-7.10", ["download some-source-7.10$"]),
        ("some-source-9.*", OTHER, GOOD, "no such package in sid", ["update"]),
    ],
)
def test_base_from_a_package_of_debian(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, suite: str, apt: str, takes: str, calls: list[str]
) -> None:
    tree = user_tree(tmp_path).path
    unpack = f'[ -e "$2" ] && mkdir -p "$3/usr/src" && name=$(basename "$2" .deb) && tar -C {tree.parent} --transform '
    unpack += f'"s,^{tree.name},$name," -cJf "$3/usr/src/$name.tar.xz" {tree.name}'
    known = ["some-source-7.9", "some-source-7.10", "some-source-7.2", "some-source-6.12", "some-source-7"]
    tools(monkeypatch, tmp_path / "bin", apt_get=f'echo "$*" >> $0.log\n{apt}', dpkg_deb=unpack)
    tools(monkeypatch, tmp_path / "bin", apt_cache=f"printf '%s\\n' {' '.join(known)}")
    monkeypatch.setattr(source.setup, "os_release", lambda: {"VERSION_CODENAME": OWN})
    monkeypatch.setattr(source.setup, "debian_line", lambda suite: f"deb http://mirror.example {suite} main")
    place = fake_base(bases.Source(debian=package, suite=suite), monkeypatch, tmp_path)
    said: list[str] = []
    if takes.startswith("some"):
        assert source.fetch_base(place, said.append).version == "6.12.1"
        assert said == [f"b: downloading {takes}", f"b: unpacking {takes}.tar.xz"]
    else:
        with pytest.raises(Infrastructure, match=f"Debian's package .* of {suite}: {takes}"):
            source.fetch_base(place, said.append)
    made = (tmp_path / "bin/apt-get.log").read_text(encoding="utf-8").splitlines()
    assert len(made) == len(calls) and all(map(re.search, calls, made)), made


def test_base_from_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a branch the newest commit alone, and nothing of git is left."""
    tree = user_tree(tmp_path).path
    commit_all(tree)
    place = fake_base(bases.Source(git=tree.as_uri(), ref="main"), monkeypatch, tmp_path)
    assert source.fetch_base(place, lambda line: None).version == "6.12.1"
    assert not (place.pristine / ".git").exists()
    missing = fake_base(bases.Source(git=tree.as_uri(), ref="none"), monkeypatch, tmp_path / "other")
    with pytest.raises(Infrastructure, match="git clone --depth 1 --branch none .*: .*Remote branch none not found"):
        source.fetch_base(missing, lambda line: None)


def test_base_from_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = fake_base(bases.Source(path=str(user_tree(tmp_path).path)), monkeypatch, tmp_path)
    assert source.fetch_base(place, lambda line: None).version == "6.12.1"
    missing = fake_base(bases.Source(path="/no/such"), monkeypatch, tmp_path / "other")
    with pytest.raises(Infrastructure, match="no tree of b .* --tree DIR .*/no/such: no kernel tree there"):
        source.fetch_base(missing, lambda line: None)


def test_base_from_an_rpm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """dnf downloads, rpm2cpio and cpio unpack: what openEuler's kernel-source holds is a tree below usr/src."""
    tree = user_tree(tmp_path).path
    tools(
        monkeypatch,
        tmp_path / "bin",
        dnf='echo "$@" >> "$0.log"; for last; do :; done; touch "$5/$last-6.6.0.rpm"',
        rpm2cpio=f'[ -s "$1" ] || mkdir -p usr/src/linux-6.6.0 && cp -r {tree}/. usr/src/linux-6.6.0',
        cpio="cat > /dev/null",
    )
    place = fake_base(bases.Source(dnf="kernel-source"), monkeypatch, tmp_path)
    assert source.fetch_base(place, lambda line: None).version == "6.12.1"
    assert not (place.root / "download").exists()
    (tmp_path / "bin/dnf").write_text("#!/bin/sh\necho no such package >&2\nexit 1\n", encoding="utf-8")
    again = Workspace("b", tmp_path / "again")
    with pytest.raises(Infrastructure, match="dnf download kernel-source: no such package"):
        source.fetch_base(again, lambda line: None)


def test_source_package_is_unpacked_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = fake_base(bases.Source(srpm="kernel"), monkeypatch, tmp_path)
    with pytest.raises(Infrastructure, match="dnf download --source kernel: unpack it"):
        source.fetch_base(place, lambda line: None)


def test_shadow_is_the_tree_and_a_few_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is copied, and what is replaced there is not replaced in the tree."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = user_tree(tmp_path)
    for name in ("mm/a.c", "mm/b.c", "fs/c.c", "scripts/setlocalversion", ".git/config"):
        (tree.path / name).parent.mkdir(parents=True, exist_ok=True)
        (tree.path / name).write_text(name, encoding="utf-8")
    (tree.path / "scripts/setlocalversion").chmod(0o755)
    before = tree_hash(tree.path)
    workspace = source.tree_workspace(tree)

    def shadow() -> None:
        source.shadow(workspace, "arm64", tree, ["mm/a.c", "mm/none.c", "none/d.c"], lambda line: None)

    shadow()
    src = workspace.src("arm64")
    assert not (src / "none").exists()
    assert (src / "fs").is_symlink() and (src / "mm/b.c").is_symlink() and not (src / "mm").is_symlink()
    assert (src / "fs/c.c").read_text(encoding="utf-8") == "fs/c.c" and not (src / ".git").exists()
    (tmp_path / "stage/mm").mkdir(parents=True)
    (tmp_path / "stage/mm/a.c").write_text("mended", encoding="utf-8")
    source.install(workspace, "arm64", tmp_path / "stage", ["mm/a.c"])
    assert (src / "mm/a.c").read_text(encoding="utf-8") == "mended" and (tree.path / "mm/a.c").read_text(
        encoding="utf-8"
    ) == "mm/a.c"
    workspace.build("arm64").mkdir()
    shadow()
    assert workspace.build("arm64").exists() and (src / "mm/a.c").read_text(encoding="utf-8") == "mm/a.c"
    assert tree_hash(tree.path) == before
    # An older file than before, as of another checkout: make would not see it.
    os.utime(tree.path / "fs/c.c", (1, 1))
    shadow()
    assert not workspace.build("arm64").exists()


def test_shadow_of_a_tree_whose_scripts_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As out of a zip file: the modes are mended in a copy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = user_tree(tmp_path)
    (tree.path / "scripts").mkdir(exist_ok=True)
    (tree.path / "scripts/setlocalversion").write_text("#!/bin/sh\n", encoding="utf-8")
    (tree.path / "scripts/setlocalversion").chmod(0o644)
    before = tree_hash(tree.path)
    workspace = source.Workspace("t", tmp_path / "cache/t/port")
    source.shadow(workspace, "arm64", tree, [], lambda line: None)
    assert os.access(workspace.src("arm64") / "scripts/setlocalversion", os.X_OK)
    assert tree_hash(tree.path) == before
    (tree.path / ".config").touch()
    with pytest.raises(BadInput, match="was built in place"):
        source.shadow(workspace, "arm64", tree, [], lambda line: None)


@pytest.mark.parametrize(("days", "told"), [(0, False), (6, False), (8, True), (400, True)])
def test_age_of_a_base_that_was_fetched_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, told: bool
) -> None:
    place = fake_base(bases.Source(path=str(user_tree(tmp_path).path)), monkeypatch, tmp_path)
    source.fetch_base(place, lambda line: None)
    past = time.time() - days * 86400 - 60
    os.utime(place.root / "version", (past, past))
    said: list[str] = []
    source.fetch_base(place, said.append)
    assert [f"was fetched {days} days ago; to have it anew: rm -r {place.root}" in line for line in said] == [
        True
    ] * told
