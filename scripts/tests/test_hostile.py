# SPDX-License-Identifier: GPL-2.0-only
"""What a stranger's tree, evidence, environment or terminal does to kmend: one clear line, a true exit code, no harm.

Each case is a process of its own, started as a user would start it. A case says its kind, what is prepared, the
command, the exit code, and what the last line of standard error must say.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from conftest import MakeTree

from kmendlib.host.paths import SCRIPTS

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
        path.write_text(f"open({str(mark)!r}, 'w').close()\nraise SystemExit(77)\n")
    else:
        path.write_text(f"#!/bin/sh\n: > '{mark}'\nexit 77\n")
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


# Variables that change what make, ccache, compilers, shells, git, patch, quilt, Coccinelle or QEMU do.
_FOREIGN = """
    ARCH AS BASH_ENV CC CCACHE_CONFIGPATH CCACHE_PREFIX CDPATH COCCINELLE_HOME COMPILER_PATH CPATH CROSS_COMPILE
    C_INCLUDE_PATH ENV GCC_EXEC_PREFIX GIT_CONFIG_COUNT GIT_DIR GIT_EXEC_PATH GIT_EXTERNAL_DIFF GNUMAKEFLAGS GREP_OPTIONS
    HOSTCC HOSTCFLAGS IFS KBUILD_EXTMOD KBUILD_OUTPUT KCFLAGS KCONFIG_ALLCONFIG KCONFIG_CONFIG KCPPFLAGS KRUSTFLAGS
    LANGUAGE LC_ALL LC_CTYPE LC_MESSAGES LD_BIND_NOW LIBRARY_PATH LLVM LLVM_IAS LOCPATH MAKEFILES MAKEFLAGS O OCAMLRUNPARAM
    PATCH_GET PATCH_VERSION_CONTROL PERL5OPT POSIXLY_CORRECT PYTHONPATH QEMU_AUDIO_DRV QUILT_PATCHES QUILT_PC
    RSYNC_RSH SHELL SHELLOPTS TAR_OPTIONS USERCFLAGS V VERSION_CONTROL W http_proxy
""".split()  # noqa: SIM905
_PASS = {"PATH", "HOME", "TMPDIR", "TERM", "LANG", "PWD", "SHLVL", "_", "OLDPWD"}


@pytest.mark.parametrize("tool", ["spatch", "patch", "git"])
def test_only_what_is_listed_reaches_a_tool(make_tree: MakeTree, tmp_path: Path, tool: str) -> None:
    tree = make_tree()
    (tree / ".git").mkdir()
    trap(tmp_path / "bin" / tool, tmp_path / "ran")
    (tmp_path / "bin" / tool).write_text(f"#!/bin/sh\n/usr/bin/env -0 > '{tmp_path}/ran'\nexit 9\n")
    env = {name: "x" for name in _FOREIGN if name not in ("IFS", "LC_ALL")} | {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    env |= {"TERM": "dumb", "XDG_CONFIG_HOME": "/c", "LANG": "de_DE.ISO-8859-1", "TMPDIR": str(tmp_path)}
    run(["apply", tree, "--bug", BUG], cwd=tmp_path, env=env)
    got = dict(line.split("=", 1) for line in (tmp_path / "ran").read_text().split("\0") if line)
    assert {name for name in got if name not in _PASS and not name.startswith("XDG_")} <= {"GIT_NO_LAZY_FETCH"}
    assert got["LANG"] == "C.UTF-8" and got["XDG_CONFIG_HOME"] == "/c"


def test_every_child_gets_the_one_environment() -> None:
    """No call that starts a program forgets its environment, which it would take from the user's shell."""
    bare = []
    for path in sorted((SCRIPTS / "kmendlib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.run", "subprocess.Popen"):
                names = {word.arg for word in node.keywords}
                if not names & {"env", None}:
                    bare.append(f"{path.relative_to(SCRIPTS)}:{node.lineno}")
    assert bare == []


@pytest.mark.parametrize("name", ["a:b", "a b", "内核", "a'b\"c", "$(touch ran)", "-n", "a\nb", "a%b{c}", "[/x]"])
def test_clone_lies_in_a_folder_of_any_name(make_tree: MakeTree, tmp_path: Path, name: str) -> None:
    clone = tmp_path / name
    for part in ("scripts", "patches", "kunit", "selftests"):
        ignore = shutil.ignore_patterns("tests", "__pycache__")
        shutil.copytree(SCRIPTS.parent / part, clone / part, copy_function=os.link, ignore=ignore)
    done = run(["unapply", make_tree()], cwd=tmp_path, kmend=clone / "scripts/kmend")
    assert done.returncode == 4 and said(done).endswith("nothing of kmend's is applied")
