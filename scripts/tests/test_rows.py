# SPDX-License-Identifier: GPL-2.0-only
"""Each fact in its row: no bug, architecture, kselftest or release of Debian is named where all of them are handled."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmendlib.host import setup
from kmendlib.host.paths import SCRIPTS
from kmendlib.tree import arches, bases, manifest

BUGS = manifest.load().bugs
# Words of a row, and the one line each where a choice among rows is made.
WORDS = {
    *(bug.id for bug in BUGS),
    *(finding.symbol for bug in BUGS for finding in bug.findings if finding.symbol),
    *(suite.name for bug in BUGS for suite in bug.suites),
    *(test.name for bug in BUGS for test in bug.selftests),
    *(test.collection for bug in BUGS for test in bug.selftests),
    *(folder for bug in BUGS for folder in bug.built_from),
    *arches.names(),
    *(place.suite for base in bases.load().values() for place in base.sources if place.suite),
}
CHOICES = {("tree/arches.py", 'DEFAULT = "x86_64"'), ("check.py", 'KUNIT_ARCH = "loongarch64"')}
# Of the words that are those of other things, too, only the whole string counts: "kvm" is an accelerator of QEMU's.
WHOLE = re.compile(rf"({'|'.join(map(re.escape, sorted(WORDS)))})(?=$|[/:])")
INSIDE = re.compile(rf"\b({'|'.join(map(re.escape, sorted(word for word in WORDS if re.search('[-_0-9]', word))))})\b")


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Return the strings of a module and their lines, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    told = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "path", [*sorted((SCRIPTS / "kmendlib").rglob("*.py")), SCRIPTS / "benchmark"], ids=lambda path: path.name
)
def test_driver_names_none(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    name = path.relative_to(SCRIPTS / "kmendlib").as_posix() if path.suffix else path.name
    named = [
        f"{path}:{number}: {text}"
        for number, text in strings(path)
        if (WHOLE.match(text) or INSIDE.search(text)) and (name, lines[number - 1].strip()) not in CHOICES
    ]
    assert named == []


@pytest.mark.parametrize("path", sorted((SCRIPTS / "templates").iterdir()), ids=lambda path: path.name)
def test_templates_name_none(path: Path) -> None:
    text = re.sub(r"\{#.*?#\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert INSIDE.findall(text) == []


def test_guests_makefile_builds_every_kselftest(tmp_path: Path) -> None:
    (tmp_path / "tools/include/nolibc").mkdir(parents=True)
    (tmp_path / "tools/include/nolibc/nolibc.h").touch()
    folder = manifest.SELFTESTS / "init"
    words = [f"ARCH={arches.DEFAULT}", f"KSRC={tmp_path}", f"O={tmp_path}/out"]
    command = ["make", "-C", str(folder), "--print-data-base", "--dry-run", "--question", *words, "clean"]
    said = subprocess.run(command, capture_output=True, text=True, encoding="utf-8").stdout
    (names,) = re.findall(r"^TESTS := (.*)$", said, re.MULTILINE)
    assert set(names.split()) == {test.id for bug in BUGS for test in bug.selftests}
    table = r"^(karch|triple|flags)_.*$|^ARCH\s.*$|ARCH=\S+"
    text = (folder / "Makefile").read_text(encoding="utf-8")
    assert not INSIDE.findall(re.sub(table, "", text, flags=re.MULTILINE))


def test_backports_are_those_of_the_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A release that the row does not name has what is new enough itself."""
    packages = {"backports": ["oldone"], "need": []}
    monkeypatch.setattr(setup, "_packages", lambda: packages)
    monkeypatch.setattr(setup, "needs", lambda: [setup.Need("a", "some-package", "", version=10)])
    monkeypatch.setattr(setup, "debian_line", lambda suite: f"deb http://mirror.example {suite} main")
    monkeypatch.setattr(setup, "BACKPORTS", tmp_path / "kmend-backports.list")
    for suite, backports in ("oldone", True), ("newone", False):
        monkeypatch.setattr(setup, "os_release", lambda suite=suite: {"VERSION_CODENAME": suite})
        (tmp_path / "kmend-backports.list").unlink(missing_ok=True)
        last = " ".join(setup._apt(setup.needs(), lambda line: None)[-1])
        assert (f"-t {suite}-backports install some-package" in last) == backports
        assert (tmp_path / "kmend-backports.list").exists() == backports
        assert last.endswith("install some-package")
