# SPDX-License-Identifier: GPL-2.0-only
"""kunit.py takes our kunitconfigs and qemu_configs in trees as they come: each option that they ask for is there.

On each tree each kunitconfig and each qemu_config is tried once. KMEND_KUNIT=all tries each pair of them, with the
tree's own makefiles and a compiler, and builds a kernel of the first that is arm64's, which have the fewest files.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import real_trees, tools
from kmendlib.tree import arches, bases, manifest, overlay, series
from kmendlib.tree.manifest import KUNIT, PATCHES, Suite
from kmendlib.tree.tree import Tree, version_key

# kunit.py knows --qemu_config since v5.14.
TREES = [tree for tree in real_trees() if version_key(Tree.open(tree).version or "0") >= (5, 14)]
ALL = os.environ.get("KMEND_KUNIT") == "all"
# It takes every flag: this is about what options depend on.
COMPILER = """\
case " $* " in *" -E "*) echo Clang 19 1 7 ;; *" --version "*) echo clang version 19.1.7 ;; esac
"""
# Most of the time would go into makefiles: they build the program of Kconfig, and from then on it alone is run.
MAKE = f"""\
for word; do case $word in ARCH=* | O=* | CC=*) export "$word" ;; esac; done
[ -x "$O/scripts/kconfig/conf" ] || exec {shutil.which("make")} "$@"
export srctree="$PWD" SRCARCH="$ARCH" LD=ld.lld-19 CLANG_FLAGS=-fintegrated-as PAHOLE=pahole PAHOLE_VERSION=0
[ "$ARCH" != x86_64 ] || SRCARCH=x86
cd "$O" && exec scripts/kconfig/conf --olddefconfig Kconfig
"""


def lay(tree: Path, root: Path) -> list[tuple[Suite, tuple[str, ...]]]:
    """Make as much of a tree as is needed, with all suites that fit, and return these and the machines of each."""
    base, _ = bases.nearest(Tree.open(tree))
    machines = [arch for arch in map(arches.load, arches.names()) if base.has(arch.name)]
    for folder, _, names in os.walk(tree):
        if kept := [name for name in names if ALL or name.startswith(("Kconfig", "Makefile"))]:
            place = root / Path(folder).relative_to(tree)
            place.mkdir(parents=True, exist_ok=True)
            for name in kept:
                (place / name).symlink_to(Path(folder, name))
    # kunit.py goes to the folder in which it really is.
    for name in ("scripts", "tools/testing/kunit"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "scripts").symlink_to(tree / "scripts")
    shutil.copytree(tree / "tools/testing/kunit", root / "tools/testing/kunit")
    suites: list[tuple[Suite, tuple[str, ...]]] = []
    patches: list[Path] = []
    files: dict[str, Path] = {}
    for bug in manifest.load().bugs:
        beds = [PATCHES / name for name in bug.testbed if series.fits(tree, PATCHES / name, patches)][:1]
        for suite in bug.suites:
            hooks = (path for path in suite.hook_paths if series.fits(tree, path, [*patches, *beds]))
            able = [arch for arch in machines if (tree / bug.needs.format(arch=arch.folder)).exists()]
            names = tuple(arch.name for arch in able if arch.name in bug.arches)
            if names and (hook := next(hooks, None)):
                patches += [*beds, hook]
                files |= overlay.suite(suite)
                suites.append((suite, names))
    patched = root.with_name("patched")
    files |= {name: patched / name for name in series.materialize(tree, patches, patched)}
    for name, path in files.items():
        (root / name).unlink(missing_ok=True)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, root / name)
    return suites


@pytest.mark.skipif(not TREES, reason="KMEND_TREES names no folder with a tree from v5.14 on")
@pytest.mark.parametrize("tree", TREES or [Path()], ids=lambda tree: tree.name)
def test_options_are_there(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tree"
    suites = lay(tree, root)
    if not ALL:
        tools(monkeypatch, tmp_path / "bin", make=MAKE, cc=COMPILER)
    machines = {name: (KUNIT / f"qemu_configs/{name}.py").read_text(encoding="utf-8") for name in suites[0][1]}
    if "\nconfig SOC_VIRT\n" in (tree / "arch/riscv/Kconfig.socs").read_text(encoding="utf-8"):
        machines["riscv64"] = machines["riscv64"].replace("CONFIG_ARCH_VIRT", "CONFIG_SOC_VIRT")
    pairs = [(suite, name) for suite, names in suites for name in names]
    if not ALL:
        # Of each suite one, another one on each tree, and all machines among them: each pair costs two seconds of CPU.
        turn = TREES.index(tree)
        shifts = ((names, (turn + place) % len(names)) for place, (_, names) in enumerate(suites))
        able = [names[shift:] + names[:shift] for names, shift in shifts]
        chosen = max(itertools.product(*able), key=lambda each: len({*each}))
        pairs = [(suite, name) for (suite, _), name in zip(suites, chosen, strict=True)]
    assert {name for _, name in pairs} == set(machines) and len(suites) >= 3
    lost = []
    built = next(pair for pair in pairs if pair[1] == "arm64") if ALL else None
    for suite, name in pairs:
        (tmp_path / "build/.config").unlink(missing_ok=True)
        (tmp_path / f"{name}.py").write_text(machines[name], encoding="utf-8")
        options = [f"--build_dir={tmp_path / 'build'}", f"--kunitconfig={suite.kunitconfig}"]
        options += [f"--qemu_config={tmp_path / name}.py", "--make_options=LLVM=-19"]
        options += [] if ALL else [f"--make_options=CC={tmp_path / 'bin/cc'}"]
        # What the file itself says that kunit.py has to be told besides.
        options += re.findall(r"--kconfig_add=\S+", suite.kunitconfig.read_text(encoding="utf-8"))
        for word in ("config", "build") if (suite, name) == built else ("config",):
            command = [sys.executable, "-B", "tools/testing/kunit/kunit.py", word, *options]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True)
            lost += [f"{suite.name}, {name}: {done.stdout}{done.stderr}"] if done.returncode else []
            assert done.returncode or (tmp_path / "build/.config").exists()
    assert not lost, "\n".join(lost)
