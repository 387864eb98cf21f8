# SPDX-License-Identifier: GPL-2.0-only
"""The small KUnit: it has what the suites use, it goes into old trees, and what it prints reads like the real one's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import lay, real_trees
from kmendlib.tree import manifest, overlay
from kmendlib.tree.manifest import KUNIT
from kmendlib.tree.tree import Tree

LOGS = Path(__file__).with_name("logs")
HEADER = (overlay.COMPAT / "include/kunit/test.h").read_text(encoding="utf-8")
RUNNER = (overlay.COMPAT / "lib/kunit/test.c").read_text(encoding="utf-8")
SUITES = [suite for bug in manifest.load().bugs for suite in bug.suites]
VERSIONS = "include/kunit/kernel_versions.h"
# A part of KVM, which is younger than v5.10 there: never with the small KUnit.
YOUNG = {"riscv_kvm_exit"}


def code(path: Path) -> str:
    return re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite.name not in YOUNG], ids=lambda suite: suite.name)
def test_has_what_the_suites_use(suite: manifest.Suite) -> None:
    sources = [KUNIT / name for name in suite.sources if not name.endswith("_versions.h")]
    used = {word for path in sources for word in re.findall(r"\b(?:KUNIT|kunit)_\w+(?=\()", code(path))}
    assert used
    there = HEADER + "".join(path.read_text(encoding="utf-8") for path in sources if path.match("kunit/*.h"))
    missing = {word for word in used if not re.search(rf"\b{word}\(", there)}
    assert not missing


def test_who_asks_for_the_version() -> None:
    """One file for all, and one beside a suite for what no other one needs."""
    asking = {path for path in KUNIT.rglob("*.[ch]") if re.search(r"LINUX_VERSION_CODE|KV_BEFORE", code(path))}
    own = {KUNIT / name for suite in SUITES for name in suite.sources if name.endswith(f"/{suite.name}_versions.h")}
    assert len(own) == 2 and asking == own | {KUNIT / VERSIONS}


@pytest.mark.parametrize("bug", manifest.load().bugs, ids=lambda bug: bug.id)
def test_what_is_for_all_names_no_bugs_files(bug: manifest.Bug) -> None:
    """What one subsystem alone has is beside the suite that needs it."""
    text = (KUNIT / VERSIONS).read_text(encoding="utf-8")
    subsystems = {name.split("/")[-2] for name in bug.files} - {"mm", "linux"}
    assert not re.search(rf"{'|'.join(subsystems) or '$^'}|memcg|folio|SUNRPC", text)


def test_who_includes_that_file_brings_it() -> None:
    for suite in SUITES:
        uses = any(
            "<kunit/kernel_versions.h>" in (KUNIT / source).read_text(encoding="utf-8") for source in suite.sources
        )
        assert uses == (VERSIONS in suite.sources), suite.name


def test_takes_the_parameters_of_kunit() -> None:
    assert set(re.findall(r"module_param_named\((\w+)", RUNNER)) == {"enable", "filter_glob"}
    assert "core_param(kunit_shutdown" in RUNNER
    # The object's name is the prefix of the first two.
    assert "obj-$(CONFIG_KUNIT) += kunit.o" in (overlay.COMPAT / "lib/kunit/Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [tree for tree in real_trees() if tree.name < "6"], ids=lambda path: path.name)
def test_goes_into_old_trees(path: Path) -> None:
    """Trees that have none need a patch; where there is an old one, the files alone replace it."""
    tree = Tree.open(path)
    hooks, files = overlay.compat(tree)
    assert [hook.name for hook in hooks] == ([] if overlay.has_kunit(tree) else ["v4.19-v5.4.patch"])
    assert "include/kunit/test.h" in files and "lib/kunit/test.c" in files


def test_brings_what_it_includes(tmp_path: Path) -> None:
    """A suite that asks for no version is built with it, too."""
    _, files = overlay.compat(Tree.open(lay(tmp_path, {"lib/kunit/Kconfig": ""}, "5.10.223")))
    included = {name for path in files.values() for name in re.findall(r"#include <(kunit/\S+)>", code(path))}
    assert "kunit/kernel_versions.h" in included
    assert {f"include/{name}" for name in included} <= files.keys()


def test_runner_has_the_lines_of_kunit() -> None:
    """The logs below were captured: what the runner prints now must still be of their form."""
    there = [
        line.strip() for line in (LOGS / "kunit_pass.log").read_text(errors="replace", encoding="utf-8").splitlines()
    ]
    printed = set(re.findall(r'"(\w*TAP version [^"]*)\\n"', RUNNER))
    assert printed == {line for line in there if "TAP version" in line}
    stats, result = "%s# %s: pass:%lu fail:%lu skip:%lu total:%lu", "%s%s %d %s%s%s"
    for text in ("# Subtest: %s", "# module: %s", "1..%d", stats, result):
        assert f'"{text}\\n"' in RUNNER, text
        assert any(re.fullmatch(re.sub(r"%\w+", ".*", text), line) for line in there), text
