# SPDX-License-Identifier: GPL-2.0-only
"""What a stranger's tree, evidence, environment or terminal does to kmend: one clear line, a true exit code, no harm.

Each case is a process of its own, started as a user would start it. A case says its kind, what is prepared, the
command, the exit code, and what the last line of standard error must say.
"""

from __future__ import annotations

import ast
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import ACCESS, MakeTree
from kmendlib.host import proc
from kmendlib.host.paths import SCRIPTS
from made import PLAN, edit_results, leave

KMEND = SCRIPTS / "kmend"
BUG = "pci-cfg-wait"
Done = subprocess.CompletedProcess[bytes]


def run(
    words: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    kmend: Path = KMEND,
    **options: object,
) -> Done:
    """Run kmend; it must come to an end."""
    ours = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    ours |= {"HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache")}
    settings: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [kmend, *words], cwd=cwd, env=ours | dict(env or {}), timeout=60, **(settings | options)
    )


def said(done: Done) -> str:
    """Return the one line on standard error."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, done.stderr.decode()
    return lines[0]


# Code that must not run.


def trap(path: Path, mark: Path) -> None:
    """Make a program, or a module, that leaves a mark when it is run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".py":
        path.write_text(f"open({str(mark)!r}, 'w').close()\nraise SystemExit(77)\n", encoding="utf-8")
    else:
        path.write_text(f"#!/bin/sh\n: > '{mark}'\nexit 77\n", encoding="utf-8")
        path.chmod(0o755)


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "."}, {"PYTHONPATH": ""}], ids=["plain", "dot", "empty"])
@pytest.mark.parametrize("name", ["json.py", "kmendlib/__init__.py", "rich/__init__.py", "sitecustomize.py"])
def test_module_in_the_working_directory_is_not_imported(
    make_tree: MakeTree, tmp_path: Path, name: str, env: dict[str, str]
) -> None:
    tree = make_tree()
    trap(tree / name, tmp_path / "ran")
    done = run(["unapply", "."], cwd=tree, env=env)
    assert (done.returncode, (tmp_path / "ran").exists()) == (4, False)
    assert said(done) == f"kmend: error: {tree}: nothing of kmend's is applied"


@pytest.mark.parametrize("path", [".:{}", ":{}", "{}:", "..:{}", "bin:{}"])
def test_program_in_the_working_directory_is_not_run(make_tree: MakeTree, tmp_path: Path, path: str) -> None:
    tree = make_tree()
    for place in (tree, tree / "bin", tree.parent):
        for name in ("dirname", "readlink", "python3", "spatch", "patch", "git", "env"):
            trap(place / name, tmp_path / "ran")
    env = {"PATH": path.format("/usr/bin:/bin")}
    done = run(["apply", ".", "--dry-run", "--bug", BUG], cwd=tree, env=env)
    assert (done.returncode, (tmp_path / "ran").exists(), done.stderr) == (0, False, b"")


@pytest.mark.parametrize(
    "name", ["PYTHONHOME", "PYTHONPATH", "PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONIOENCODING", "PYTHONPLATLIBDIR"]
)
def test_pythons_variables_do_not_count(make_tree: MakeTree, tmp_path: Path, name: str) -> None:
    trap(tmp_path / "sitecustomize.py", tmp_path / "ran")
    done = run(["unapply", make_tree()], cwd=SCRIPTS, env={name: str(tmp_path)})
    assert (done.returncode, (tmp_path / "ran").exists()) == (4, False)
    assert said(done).endswith("nothing of kmend's is applied")


def test_every_child_is_started_in_one_place() -> None:
    """Where its environment is made, and where it is ended; what kmend check runs alone has the terminal."""
    bare = []
    for path in sorted((SCRIPTS / "kmendlib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if re.match(r"subprocess\.(?!CompletedProcess)|os\.(system|popen|exec|spawn)", name):
                bare.append(f"{path.relative_to(SCRIPTS)}: {name}")
    assert bare == [*["kmendlib/check.py: subprocess.run"] * 2, "kmendlib/host/proc.py: subprocess.Popen"]


@pytest.mark.parametrize("name", ["a:b", "a b", "内核", "a'b\"c", "$(touch ran)", "-n", "a\nb", "a%b{c}", "[/x]"])
def test_clone_lies_in_a_folder_of_any_name(make_tree: MakeTree, tmp_path: Path, name: str) -> None:
    clone = tmp_path / name
    for part in ("scripts", "patches", "kunit", "selftests"):
        ignore = shutil.ignore_patterns("tests", "__pycache__")
        shutil.copytree(SCRIPTS.parent / part, clone / part, copy_function=os.link, ignore=ignore)
    done = run(["unapply", make_tree()], cwd=tmp_path, kmend=clone / "scripts/kmend")
    assert done.returncode == 4 and said(done).endswith("nothing of kmend's is applied")


# Evidence.

ARCH = "x86_64"


def evidence(folder: Path, boots: int = 1) -> Path:
    """Leave evidence of a proof of one suite."""
    return leave(folder, plans=[PLAN[0] | {"boots": boots}]).folder


def cut_seal(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith(("  results.json", "  audit.json"))]
    (folder / "SHA256SUMS").write_text("\n".join(kept) + "\n", encoding="utf-8")
    for log in folder.glob("*/*.log"):
        log.write_text("nothing\n", encoding="utf-8")


def twice(data: dict[str, Any]) -> None:
    data["tests"].append(data["tests"][1])
    data["checkouts"][0]["misc"]["plan"][0]["boots"] = 2


def same_console(data: dict[str, Any]) -> None:
    data["tests"][0]["log_url"] = data["tests"][1]["log_url"]


def other_kernel(data: dict[str, Any]) -> None:
    data["tests"][1]["build_id"] = data["tests"][0]["build_id"]


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a boot twice": (twice, "is there twice"),
    "one console for two boots": (same_console, "is there twice"),
    "no builds": (lambda d: d["builds"].clear(), "is of a kernel that was not built"),
    "a build that failed": (lambda d: d["builds"][1].update(status="ERROR"), "is of a kernel that was not built"),
    "a build of another architecture": (lambda d: d["builds"][1].update(architecture="arm64"), "that was not built"),
    "a build of another run": (lambda d: d["builds"][1].update(checkout_id="kmend:other"), "is of another checkout"),
    "the kernel before as the one after": (other_kernel, "is of another kernel than it says"),
    "status against verdict": (lambda d: d["tests"][1].update(status="FAIL"), "has status FAIL and verdict PASS"),
    "verdict against cases": (
        lambda d: d["tests"][1]["misc"]["cases"].update(other="FAIL"),
        "has verdict PASS and a case that failed",
    ),
    "a boot that was not planned": (lambda d: d["tests"][1]["misc"].update(number=7), "was not planned"),
    "a boot of nothing": (lambda d: d["tests"][1]["misc"].update(number=0), "was not planned"),
    "a suite that was not planned": (lambda d: d["tests"][1]["misc"].update(suite="x"), "was not planned"),
    "a boot of what was not run": (
        lambda d: d["checkouts"][0]["misc"]["plan"][0].update(not_run="no"),
        "was not planned",
    ),
    "a boot with the bug of a control": (
        lambda d: d["checkouts"][0]["misc"]["plan"][0].update(control=True),
        "is of a kernel with the bug, where there cannot be one",
    ),
    "a row of the plan twice": (
        lambda d: d["checkouts"][0]["misc"]["plan"].append(d["checkouts"][0]["misc"]["plan"][0]),
        "a row of the plan is there twice",
    ),
    "a build twice": (lambda d: d["builds"].append(d["builds"][0]), "a build is there twice"),
    "a console that is not there": (lambda d: d["tests"][1].update(log_url="gone.log"), "has no console"),
}


@pytest.mark.parametrize(("change", "why"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_evidence_that_contradicts_itself_is_not_trusted(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    folder = evidence(tmp_path / "ev")
    edit_results(folder, change)
    done = run(["report", folder], cwd=tmp_path)
    assert done.returncode == 2 and "NOT TRUSTED" in done.stdout.decode() and b" PROVED" not in done.stdout
    assert f"{why}\n" in done.stdout.decode()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (cut_seal, "is not in SHA256SUMS"),
        (lambda f: (f / ARCH / "more.log").touch(), f"{ARCH}/more.log is not in SHA256SUMS"),
        (lambda f: (f / "patches/more.patch").touch(), "patches/more.patch is not in SHA256SUMS"),
    ],
    ids=["digests of two files", "a console more", "a patch more"],
)
def test_seal_covers_every_file(tmp_path: Path, change: Callable[[Path], object], why: str) -> None:
    folder = evidence(tmp_path / "ev")
    good = run(["report", folder], cwd=tmp_path)
    assert good.returncode == 0 and b"PROVED" in good.stdout and good.stderr == b""
    change(folder)
    done = run(["report", folder], cwd=tmp_path)
    assert done.returncode == 2 and "NOT TRUSTED" in done.stdout.decode() and why in done.stdout.decode()


def _special(path: Path, kind: str, aim: Path) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        path.symlink_to(aim)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", ["results.json", "SHA256SUMS", "audit.json", f"{ARCH}/config", "patches/after/series"])
def test_special_file_in_evidence_is_not_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    folder = evidence(tmp_path / "ev")
    _special(folder / name, kind, tmp_path)
    done = run(["report", folder], cwd=tmp_path)
    assert done.returncode == 2 and b" PROVED" not in done.stdout
    if name == "results.json":
        what = "Is a directory" if kind == "folder" else "not a regular file"
        assert said(done) == f"kmend: error: {folder}/results.json cannot be read: {what}"


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder"])
@pytest.mark.parametrize("name", ["summary.md", "junit.xml", "report.html"])
def test_report_writes_through_nothing_in_evidence(tmp_path: Path, name: str, kind: str) -> None:
    folder = evidence(tmp_path / "ev")
    aim = tmp_path / "aim"
    aim.write_text("mine\n", encoding="utf-8")
    _special(folder / name, kind, aim)
    before = (folder / name).lstat()
    done = run(["report", folder], cwd=tmp_path)
    what = "Is a directory" if kind == "folder" else "not a regular file"
    assert said(done) == f"kmend: error: cannot write {folder / name}: {what}: name another file with --out"
    assert done.returncode == 2 and aim.read_text(encoding="utf-8") == "mine\n"
    after = (folder / name).lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    # Neither is one of the others half done.
    assert not [path.name for path in folder.iterdir() if path.suffix in (".md", ".xml", ".html") and path.name != name]


@pytest.mark.parametrize("name", [".report.html.new", "results.json.new", ".summary.md.new"])
def test_report_writes_through_no_name_that_can_be_guessed(tmp_path: Path, name: str) -> None:
    folder = evidence(tmp_path / "ev")
    aim = tmp_path / "aim"
    aim.write_text("mine\n", encoding="utf-8")
    (folder / name).symlink_to(aim)
    done = run(["report", folder], cwd=tmp_path)
    assert done.returncode == 0 and aim.read_text(encoding="utf-8") == "mine\n" and (folder / name).is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder", "char"])
def test_report_replaces_no_special_file(tmp_path: Path, kind: str) -> None:
    folder = evidence(tmp_path / "ev")
    out = tmp_path / "out"
    if kind == "char":
        try:
            os.mknod(out, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes devices")
    else:
        _special(out, kind, tmp_path / "aim")
    before = out.lstat()
    done = run(["report", folder, "--out", out], cwd=tmp_path)
    what = "Is a directory" if kind == "folder" else "not a regular file"
    assert said(done) == f"kmend: error: cannot write {out}: {what}: name another file with --out"
    assert done.returncode == 2 and out.lstat().st_ino == before.st_ino
    assert [path.name for path in tmp_path.iterdir() if "junit" in path.name or "summary" in path.name] == []


@pytest.mark.parametrize("out", ["", ".", "/", "..", "a/"])
def test_out_that_names_no_file(tmp_path: Path, out: str) -> None:
    folder = evidence(tmp_path / "ev")
    (tmp_path / "a").mkdir()
    done = run(["report", folder, "--out", out], cwd=tmp_path)
    assert done.returncode == 2 and said(done).startswith("kmend: error: ")


def test_plan_of_a_million_boots(tmp_path: Path) -> None:
    folder = evidence(tmp_path / "ev", boots=1_000_000)
    done = run(["report", folder], cwd=tmp_path)
    assert done.returncode == 1 and b"1 of 1000000 boots were run" in done.stdout
    assert (folder / "junit.xml").stat().st_size < 10_000


# Escapes, a carriage return, a mark that turns the direction, C1, and markup.
_EVIL = "\x1b]0;t\x07\x1b[2J\r\x9b31m\u202e[/x][red]\u200f"


def _sends(done: Done) -> str:
    """Return what of the output would give a terminal orders."""
    text = (done.stdout + done.stderr).decode(errors="surrogateescape")
    return "".join(char for char in text if char in "\x1b\x07\r\x9b\u202e\u200f\udcff")


def _evil(data: dict[str, Any]) -> None:
    (checkout,) = data["checkouts"]
    checkout["comment"] = _EVIL
    for row in (*checkout["misc"]["plan"], *(test["misc"] for test in data["tests"])):
        row["suite"] = _EVIL
    data["tests"][1]["misc"].update(verdict="FAIL", reason=_EVIL)
    data["tests"][1].update(status="FAIL", log_excerpt=_EVIL)
    other = dict(checkout["misc"]["plan"][0], bug=_EVIL, not_run=_EVIL)
    checkout["misc"]["plan"].append(other)


@pytest.mark.parametrize("more", [_EVIL, "\ud800", "[/x]", "\udcff"], ids=ascii)
def test_evidence_gives_the_terminal_no_orders(tmp_path: Path, more: str) -> None:
    folder = evidence(tmp_path / "ev")
    edit_results(folder, _evil)
    edit_results(folder, lambda d: d["checkouts"][0].update(comment=more))
    for change in (lambda d: None, lambda d: d["tests"].clear(), lambda d: d["builds"][0].update(status="ERROR")):
        edit_results(folder, change)
        done = run(["report", folder], cwd=tmp_path)
        assert done.returncode in (1, 2, 5) and _sends(done) == "" and done.stderr == b""


def test_damaged_evidence_gives_the_terminal_no_orders(tmp_path: Path) -> None:
    folder = evidence(tmp_path / "ev")
    edit_results(folder, lambda d: d["tests"][0].update(status=_EVIL))
    done = run(["report", folder], cwd=tmp_path)
    assert done.returncode == 2 and _sends(done) == "" and "is damaged" in said(done)


# Trees.


def spoil(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(8 << 30)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text(kind, encoding="utf-8")


NO_TREE = "no kernel tree: its Makefile does not give a kernel version; give the top of a kernel source tree"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("pipe", "cannot be read: not a regular file"),
        ("device", "cannot be read: not a regular file"),
        ("large", "cannot be read: larger than 4 MiB"),
        ("folder", NO_TREE),
        (f"VERSION = 6\nPATCHLEVEL = {'1' * 5000}\nSUBLEVEL = 0\n", NO_TREE),
        (f"VERSION = {'6' * 5000}\nPATCHLEVEL = 1\nSUBLEVEL = 0\n", NO_TREE),
        ("VERSION = ٦\nPATCHLEVEL = 1\nSUBLEVEL = 0\n", NO_TREE),
    ],
    ids=["pipe", "device", "large", "folder", "5000 digits", "5000 digits first", "other digits"],
)
@pytest.mark.parametrize("command", ["unapply", "verify --tree"])
def test_makefile_that_is_none(make_tree: MakeTree, tmp_path: Path, command: str, kind: str, why: str) -> None:
    tree = make_tree()
    spoil(tree / "Makefile", kind)
    done = run([*command.split(), tree], cwd=tmp_path)
    assert done.returncode == 2 and said(done) == f"kmend: error: {tree}: {why}"


@pytest.mark.parametrize("kind", ["pipe", "device", "large", "folder"])
def test_source_that_is_none(make_tree: MakeTree, tmp_path: Path, kind: str) -> None:
    tree = make_tree()
    spoil(tree / ACCESS, kind)
    done = run(["audit", tree, "--bug", BUG], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (4, b"")
    why = "cannot be read: larger than 16 MiB" if kind == "large" else "the file is not there"
    assert why in done.stdout.decode()


def _names(root: Path) -> dict[str, Path]:
    """Return folders of all names that a tree or a folder for temporary files may have."""
    named = {"blank": b"a b", "chinese": "内核".encode(), "gbk": "内核".encode("gbk"), "latin": b"\xe9"}
    named |= {"quotes": b"a'\"b"}
    named |= {"escape": b"\x1b[2J", "markup": b"[/x]", "line": b"a\nb", "colon": b"a:b", "shell": b"$(id)`id`;id"}
    named |= {"option": b"-o", "percent": b"%s%n{0}", "turn": "\u202e".encode(), "surrogate": b"\xed\xa0\x80"}
    return {name: Path(os.fsdecode(os.fsencode(root) + b"/" + text)) for name, text in named.items()}


@pytest.mark.parametrize("name", _names(Path("/")))
def test_path_of_any_name(make_tree: MakeTree, tmp_path: Path, name: str) -> None:
    """The tree's, the one of the folder for temporary files, both at once, and nothing of them moves the cursor."""
    tree = make_tree(extra="\x1b[31m\u202e[/x]")
    place = _names(tmp_path)[name]
    place.mkdir(parents=True)
    shutil.move(tree, place / "tree")
    done = run(["apply", place / "tree", "--bug", BUG], cwd=tmp_path, env={"TMPDIR": str(place)})
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert b"applied 1 patch" in done.stdout and _sends(done) == ""
    if "\n" not in str(place):
        done = run(["report", place], cwd=tmp_path)
        assert done.returncode == 2 and said(done) and _sends(done) == ""


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "/no/\x1b[2J\u202e"],
        ["audit", "/no", "--bug", "\x1b]0;x\x07"],
        ["verify", "--base", "\x1b[31m"],
        ["\x1b[31m"],
        ["report", "/no/\r\x9b"],
        ["export", "--base", "x", "--format", "mail", "--out", "/\x1b/\x1b"],
    ],
    ids=ascii,
)
def test_word_of_the_command_line_gives_the_terminal_no_orders(tmp_path: Path, words: list[str]) -> None:
    done = run(words, cwd=tmp_path)
    assert done.returncode == 2 and said(done).startswith("kmend: error: ") and _sends(done) == ""


BROKEN = {
    "patch that fails": ("patch", "echo 'patch: **** out of memory'; exit 2", "patch failed on "),
    "patch that says nothing": ("patch", "exit 1", "patch failed on "),
    "patch that does nothing": ("patch", "exit 0", "patch failed on "),
    "patch that is killed": ("patch", "kill -9 $$", "patch failed on "),
    "patch without room": ("patch", "echo 'write error : No space left on device'; exit 2", "No space left"),
    "spatch that says nothing": ("spatch", "exit 0", "spatch does not work"),
    "spatch that fails": ("spatch", "echo broken >&2; exit 3", "spatch does not work"),
    "spatch that is killed": ("spatch", "kill -9 $$", "spatch was cut off"),
    "spatch without room": ("spatch", "echo 'Sys_error: No space left on device' >&2; exit 2", "spatch was cut off"),
}


@pytest.mark.parametrize(("tool", "text", "line"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_tool_is_not_the_codes_fault(
    make_tree: MakeTree, tmp_path: Path, tool: str, text: str, line: str
) -> None:
    trap(tmp_path / "bin" / tool, tmp_path / "ran")
    (tmp_path / "bin" / tool).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    done = run(["apply", make_tree(), "--bug", BUG], cwd=tmp_path, env=env)
    assert done.returncode == 5 and line in said(done)


@pytest.mark.parametrize("kind", ["gone", "a file", "read-only"])
def test_folder_for_temporary_files_that_is_none(make_tree: MakeTree, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "tmp"
    if kind == "a file":
        place.touch()
    # Python falls back to /tmp then: the tree is judged, or it is said that there is no room; never "no fix fits".
    env = {"TMPDIR": "/proc/self" if kind == "read-only" else str(place)}
    done = run(["apply", make_tree(), "--bug", BUG], cwd=tmp_path, env=env)
    assert done.returncode in (0, 5) and b"no fix fits" not in done.stdout + done.stderr


def test_misspelt_line_of_a_series_is_not_dropped(make_tree: MakeTree, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for part in ("scripts", "patches", "kunit", "selftests", "Documentation"):
        ignore = shutil.ignore_patterns("tests", "__pycache__", "translations")
        shutil.copytree(SCRIPTS.parent / part, clone / part, ignore=ignore)
    series = clone / "patches/series/linux-6.12.y"
    number = len(series.read_text(encoding="utf-8").splitlines()) + 1
    with series.open("a", encoding="utf-8") as file:
        file.write("pci-cfg-wait/misspelt.patch\n")
    words = ["export", "--base", "linux-6.12.y", "--format", "mail", "--out", tmp_path / "out"]
    done = run(words, cwd=tmp_path, kmend=clone / "scripts/kmend")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert said(done) == f"kmend: error: {series}:{number}: there is no patch pci-cfg-wait/misspelt.patch"


# Screens and locales.


def closed(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


FULL = "No space left on device"


@pytest.mark.parametrize(
    ("words", "stdout", "code", "line"),
    [
        ("audit TREE", "full", 5, f"kmend: error: standard output: {FULL}"),
        ("audit TREE", "closed", 5, "kmend: error: standard output: Bad file descriptor"),
        ("audit TREE --json", "full", 5, f"kmend: error: standard output: {FULL}"),
        ("audit TREE", "gone", 141, ""),
        ("--help", "full", 5, f"kmend: error: standard output: {FULL}"),
        ("--help", "gone", 141, ""),
        ("apply TREE", "full", 0, f"kmend: done, but standard output cannot be written: {FULL}"),
        ("apply TREE", "closed", 0, "kmend: done, but standard output cannot be written: Bad file descriptor"),
        ("apply TREE", "gone", 141, ""),
        ("unapply DONE", "full", 0, f"kmend: done, but standard output cannot be written: {FULL}"),
        ("report EV", "full", 5, f"kmend: error: standard output: {FULL}"),
        ("report EV", "closed", 5, "kmend: error: standard output: Bad file descriptor"),
        ("report EV", "gone", 141, ""),
        ("export --tree TREE --format openeuler --issue https://example.org/1 --out OUT", "full", 0, FULL),
    ],
)
def test_output_that_cannot_be_written(
    make_tree: MakeTree, tmp_path: Path, words: str, stdout: str, code: int, line: str
) -> None:
    tree = make_tree()
    folder = evidence(tmp_path / "ev")
    where = {"TREE": tree, "EV": folder, "OUT": tmp_path / "out", "DONE": tree}
    if "DONE" in words:
        run(["apply", tree, "--bug", BUG], cwd=tmp_path)
    command = [where.get(word, word) for word in words.split()] + (["--bug", BUG] if "TREE" in words else [])
    if stdout == "full":
        with open("/dev/full", "wb") as out:
            done = run(command, cwd=tmp_path, stdout=out)
    elif stdout == "closed":
        done = run(command, cwd=tmp_path, stdout=None, preexec_fn=closed(1))
    else:
        read, write = os.pipe()
        os.close(read)
        done = run(command, cwd=tmp_path, stdout=write)
        os.close(write)
    assert done.returncode == code
    assert (said(done) if line else done.stderr.decode()).endswith(line)
    assert (tree / ".kmend").exists() == words.startswith("apply")


@pytest.mark.parametrize("numbers", [(0,), (2,), (0, 1, 2)])
def test_streams_that_are_closed(make_tree: MakeTree, tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """No file that is opened gets the number of a stream, and is printed into."""
    tree = make_tree()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"))
    done = run(["apply", tree, "--bug", BUG], cwd=tmp_path, preexec_fn=closed(*numbers), **streams)
    assert done.returncode == 0
    for path in tree.rglob("*"):
        assert not path.is_file() or b"applied" not in path.read_bytes() or path.name == "state.json"


LOCALES = ["zh_CN.GBK", "en_US.ISO-8859-1", "C", "C.UTF-8", "none.such"]


@pytest.fixture(scope="session")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the locales of a few of our users."""
    folder = tmp_path_factory.mktemp("locales")
    for name in LOCALES[:2]:
        command = ["localedef", "-i", "POSIX", "-f", name.partition(".")[2], str(folder / name)]
        try:
            subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("localedef is not installed")
        if not (folder / name).exists():
            pytest.skip("no sources of locales here")
    return folder


@pytest.mark.parametrize("locale", LOCALES)
def test_locale(make_tree: MakeTree, tmp_path: Path, locales: Path, locale: str) -> None:
    env = {"LC_ALL": locale, "LOCPATH": str(locales)}
    done = run(["verify", "--help"], cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = {"zh_CN.GBK": b"A,\xa1\xad|all", "en_US.ISO-8859-1": rb"A,\u2026|all"}
    assert shown.get(locale, "A,…|all".encode()) in done.stdout
    strange = tmp_path / os.fsdecode("内核".encode("gbk"))
    shutil.move(make_tree(), strange)
    assert run(["unapply", strange], cwd=tmp_path, env=env).returncode == 4
    (tmp_path / ".gitconfig").write_text("[user]\nname = 王小明\nemail = w@localhost\n", encoding="utf-8")
    words = ["export", "--base", "linux-6.12.y", "--format", "mail", "--signoff", "--out", tmp_path / "out"]
    done = run(words, cwd=tmp_path, env=env)
    assert done.returncode == 0 and b"Assisted-by" not in done.stderr
    for mail in (tmp_path / "out").glob("*.patch"):
        assert "Signed-off-by: 王小明 <w@localhost>" in mail.read_text(encoding="utf-8")


# Whose open() opens no text.
NO_FILES = ("os.", "Tree.", "Evidence.", "cls.", "gzip.", "given.", "tarfile.")


def test_every_file_has_an_encoding() -> None:
    bare = []
    for path in sorted((SCRIPTS / "kmendlib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            text = name.endswith((".read_text", ".write_text")) and not name.startswith("files.")
            if name == "open" or (name.endswith(".open") and not name.startswith(NO_FILES)):
                modes = [ast.unparse(each) for each in node.args] + [words.get("mode", "")]
                text = not any("b" in mode for mode in modes if mode.startswith("'") and len(mode) < 6)
            text = text or words.get("text") == "True"
            if text and "encoding" not in words:
                bare.append(f"{path.relative_to(SCRIPTS)}:{node.lineno}: {name}")
    assert bare == []


# What is left.


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("ValueError('a\\nb')", 70, "a fault of kmend itself, please report it: ValueError: a b (<string>:"),
        ("RecursionError('deep')", 70, "a fault of kmend itself, please report it: RecursionError: deep (<string>:"),
        ("UnicodeEncodeError('gbk', 'x', 0, 1, '?')", 70, "a fault of kmend itself, please report it: UnicodeEncode"),
        ("MemoryError()", 70, "a fault of kmend itself, please report it: MemoryError: (<string>:"),
        ("KeyError('x\\x1b[2J')", 70, "a fault of kmend itself, please report it: KeyError: 'x\\x1b[2J' (<string>:"),
        ("OSError(28, 'No space left on device', 'from', None, 'to')", 5, "to: No space left on device"),
        ("OSError(5, 'Input/output error')", 5, "Input/output error"),
        ("InterruptedError('stopped')", 5, "stopped"),
        ("FileNotFoundError(2, 'No usable temporary directory found in [1, 2]')", 5, "no folder for temporary files"),
        ("BrokenPipeError()", 141, ""),
    ],
)
def test_error_that_nobody_caught(tmp_path: Path, error: str, code: int, line: str) -> None:
    """In one place, whatever it is: one line, and the exit code for it."""
    program = f"""
import sys
sys.path.insert(0, {str(SCRIPTS)!r})
from kmendlib import cli
def setup(_):
    raise {error}
cli._COMMANDS.clear()
cli._command()(setup)
sys.exit(cli.main(["setup"]))
"""
    command = ["/usr/bin/python3", "-B", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == code
    if line:
        assert said(done).startswith(f"kmend: error: {line}")
    else:
        assert done.stderr == b""


# Signals.

_STUBBORN = """\
#!/bin/sh
trap '' HUP INT QUIT TERM ALRM USR1 USR2 VTALRM PROF XCPU
echo $$ > '{}'
while :; do sleep 0.1; done
"""


def _wait_for(what: Callable[[], bool], seconds: float = 30) -> bool:
    limit = time.monotonic() + seconds
    while not what():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# As verify does: builds in threads of their own, the main thread waiting for them.
_THREADS = """
import concurrent.futures, sys, time
from pathlib import Path
sys.path.insert(0, {scripts!r})
from kmendlib import cli
from kmendlib.host import proc
proc._GRACE_SECONDS = 0.5
def setup(_):
    pool = concurrent.futures.ThreadPoolExecutor(2)
    try:
        pool.submit(proc.run_logged, [{tool!r}], Path("log")).result()
    finally:
        proc.stop()
        pool.shutdown()
def check(_):
    proc.run_logged([{tool!r}], Path("log"))
cli._COMMANDS.clear()
for each in setup, check:
    cli._command()(each)
sys.exit(cli.main([{command!r}]))
"""


@pytest.mark.parametrize("command", ["setup", "check"], ids=["in a thread", "in the main thread"])
@pytest.mark.parametrize("number", sorted(proc.ENDING), ids=lambda number: number.name)
def test_ending_signal_leaves_no_child(tmp_path: Path, number: signal.Signals, command: str) -> None:
    """Though the child ignores what it is asked, and the signal comes again while kmend cleans up."""
    tool, mark = tmp_path / "tool", tmp_path / "pid"
    tool.write_text(_STUBBORN.format(mark), encoding="utf-8")
    tool.chmod(0o755)
    program = _THREADS.format(scripts=str(SCRIPTS), tool=str(tool), command=command)
    with subprocess.Popen(["/usr/bin/python3", "-B", "-c", program], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert _wait_for(lambda: mark.exists() and mark.read_text(encoding="utf-8").endswith("\n"))
        pid = int(mark.read_text(encoding="utf-8"))
        for _ in range(3):
            process.send_signal(number)
            time.sleep(0.1)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, b"kmend: stopped\n")
    assert _wait_for(lambda: _gone(pid), 1)


def test_lost_terminal_leaves_no_child(make_tree: MakeTree, tmp_path: Path) -> None:
    """The connection breaks: kmend gets a hang-up, and can print nothing any more."""
    tree, mark = make_tree(), tmp_path / "pid"
    trap(tmp_path / "bin/spatch", mark)
    (tmp_path / "bin/spatch").write_text(_STUBBORN.format(mark), encoding="utf-8")
    pid, terminal = pty.fork()
    if pid == 0:
        env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
        os.execve(KMEND, [str(KMEND), "audit", str(tree)], env)
    assert _wait_for(lambda: mark.exists() and mark.read_text(encoding="utf-8").endswith("\n"))
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert _wait_for(lambda: _gone(int(mark.read_text(encoding="utf-8"))), 1)


def test_nohup_is_respected(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from kmendlib import cli
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def setup(_):
    os.kill(os.getpid(), signal.SIGHUP)
    return 0
cli._COMMANDS.clear()
cli._command()(setup)
sys.exit(cli.main(["setup"]))
"""
    assert subprocess.run(["/usr/bin/python3", "-B", "-c", program], check=False, timeout=60).returncode == 0
