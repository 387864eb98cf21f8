# SPDX-License-Identifier: GPL-2.0-only
"""The folders of the driver show the way of the data: each imports only what stands before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import kmendlib

ROOT = Path(kmendlib.__file__).parent
ORDER = ("host", "tree", "run", "proof", "show")
# What starts it all may import everything; nobody imports it.
TOP = ("cli", "check", "__main__")


def imported(path: Path) -> Iterator[str]:
    """Yield the full names of the driver's modules that a file imports, at its top or anywhere else."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("kmendlib."))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides where it leads"
            if node.module == "kmendlib":
                yield from (f"kmendlib.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("kmendlib."):
                yield node.module


def backwards(place: str, names: Iterator[str]) -> list[str]:
    """Return the imports of a file in a group that lead to a group after it, or to the top."""
    groups = [(name.split(".")[1], name) for name in names]
    return [name for group, name in groups if group in TOP or ORDER.index(group) > ORDER.index(place)]


def test_each_group_imports_only_those_before_it() -> None:
    wrong = {}
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if place in ORDER and (found := backwards(place, imported(path))):
            wrong[str(path.relative_to(ROOT))] = found
    assert wrong == {}


def test_every_file_is_in_a_group() -> None:
    places = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    assert places == {*ORDER, *TOP, "__init__"}


def test_an_import_that_leads_back_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "import os\nfrom kmendlib.host import proc\n\ndef f():\n    from kmendlib.show import page\n", encoding="utf-8"
    )
    assert backwards("proof", imported(path)) == ["kmendlib.show"]
    assert backwards("show", imported(path)) == []


def test_the_model_imports_nothing_that_runs_anything() -> None:
    assert set(imported(ROOT / "run.py")) == {"kmendlib.host.errors", "kmendlib.host.words"}
