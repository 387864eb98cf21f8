# SPDX-License-Identifier: GPL-2.0-only
"""The audit on trees as they come, with a configuration, and with what it remembers."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import ACCESS, WAIT_EVENT, MakeTree, access_c
from kmendlib.host.errors import BadInput
from kmendlib.tree import cocci, code, manifest, rules, series
from kmendlib.tree.apply import apply
from kmendlib.tree.audit import Status, audit, table, worst_code
from kmendlib.tree.config import Config
from kmendlib.tree.tree import Tree

BUGS = (manifest.load().bug("pci-cfg-wait"),)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is remembered before a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(rules, "_memo", {})
    return tmp_path / "cache/kmend/audit"


def status(root: Path, config: Config | None = None) -> Status:
    return audit(Tree.open(root), BUGS, config=config).bugs[0].status


def test_crlf_is_named_and_refused(make_tree: MakeTree) -> None:
    root = make_tree(access_c().replace("\n", "\r\n"))
    found = audit(Tree.open(root), BUGS)
    assert found.bugs[0].status is Status.AFFECTED
    assert found.bugs[0].findings[0].evidence[-1].reason == "its lines end in CRLF, so no patch fits"
    with pytest.raises(BadInput, match=f"{ACCESS}: its lines end in CRLF") as error:
        apply(Tree.open(root), found)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("version", ["4.19.90", "2.6.32"])
def test_lfs_pointer_is_unknown(make_tree: MakeTree, version: str) -> None:
    root = make_tree("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", version=version)
    (finding,) = audit(Tree.open(root), BUGS).bugs[0].findings
    assert finding.status is Status.UNKNOWN and "Git LFS pointer" in finding.evidence[0].reason


def test_kernel_in_a_subfolder(make_tree: MakeTree) -> None:
    root = make_tree(name="top/kernel")
    with pytest.raises(BadInput, match=f"one is in {root}"):
        Tree.open(root.parent)


@pytest.mark.parametrize("version", ["2.6.32", "4.19.90", "7.9.1"])
@pytest.mark.parametrize("access", [access_c(), access_c(WAIT_EVENT), access_c("")])
def test_makefile_may_lie(make_tree: MakeTree, access: str, version: str) -> None:
    right = status(make_tree(access, name="known"))
    assert status(make_tree(access, version=version, name="lies")) is right


def test_file_that_moved_within_its_folder(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / ACCESS).rename(root / "drivers/pci/config.c")
    (root / "drivers/pci/other.c").write_text(
        "/* pci_wait_cfg(x) { } */\nint a(void)\n{\n\tpci_wait_cfg(d);\n}\n", encoding="utf-8"
    )
    found = audit(Tree.open(root), BUGS)
    assert found.bugs[0].status is Status.AFFECTED and found.patches == ()
    assert found.bugs[0].findings[0].evidence[0].file == "drivers/pci/config.c"


def configuration(path: Path, text: str) -> Config:
    path.write_text(text, encoding="utf-8")
    return Config.read(path)


def test_what_a_configuration_leaves_out(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    assert status(root, configuration(tmp_path / "on", "CONFIG_PCI=y\n")) is Status.AFFECTED
    off = configuration(tmp_path / "off", "# CONFIG_PCI is not set\nCONFIG_PCI_MSI=y\n")
    found = audit(Tree.open(root), BUGS, config=off)
    assert found.bugs[0].status is Status.NOT_BUILT and worst_code([found]) == 0
    assert found.bugs[0].findings[0].evidence[0].reason == f"CONFIG_PCI is not set in {off.name}; else affected"


def test_configuration_may_be_packed(tmp_path: Path) -> None:
    (tmp_path / "config.gz").write_bytes(gzip.compress(b"CONFIG_PCI=m\nCONFIG_X=n\n"))
    assert Config.read(tmp_path / "config.gz").set == {"CONFIG_PCI"}


CUT_OFF = gzip.compress(b"CONFIG_A=y\n" * 99, mtime=0)[:-9]


@pytest.mark.parametrize("data", [b"", b"PCI=y\n", b"\x1f\x8b\0\0", CUT_OFF, None])
def test_no_configuration(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "config"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadInput, match=f"^{path}: "):
        Config.read(path)


def test_several_trees_make_one_table(make_tree: MakeTree) -> None:
    roots = [make_tree(name="a"), make_tree(access_c(WAIT_EVENT), name="b")]
    found = [audit(Tree.open(root), BUGS) for root in roots]
    lines = table(found).splitlines()
    assert lines[0].split() == ["tree", "finding", "status", "evidence"]
    assert [root.name for root in roots for line in lines if line.startswith(f"{root} (4.19.90)")] == ["a", "b"]
    assert worst_code(found) == 1 and worst_code(found[1:]) == 0


# What it remembers.


def said(root: Path) -> str:
    return json.dumps(audit(Tree.open(root), BUGS).to_json()) + table([audit(Tree.open(root), BUGS)])


def again(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Audit in a process that knows nothing by itself, and without Coccinelle."""
    monkeypatch.setattr(rules, "_memo", {})
    with monkeypatch.context() as context:
        context.setattr(cocci, "run", lambda *_: pytest.fail("Coccinelle was asked"))
        return said(root)


def test_same_again_without_coccinelle(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree()
    first = said(root)
    assert again(root, monkeypatch) == first
    # A file of another place in the same words is the same to a rule; one of other words is not.
    (root / ACCESS).write_text(access_c(WAIT_EVENT), encoding="utf-8")
    monkeypatch.setattr(rules, "_memo", {})
    assert status(root) is Status.FIXED


def test_damaged_cache_is_judged_anew(make_tree: MakeTree, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree()
    first = said(root)
    entries = sorted(cache.iterdir())
    assert entries
    for harm in (b"", b"x", None):
        for path in entries:
            data = path.read_bytes()
            path.write_bytes(data[:-1] + b"?" if harm is None else harm)
        monkeypatch.setattr(rules, "_memo", {})
        assert said(root) == first
        assert again(root, monkeypatch) == first, "what was damaged was not written again"
    shutil.rmtree(cache)
    cache.write_text("no folder", encoding="utf-8")
    monkeypatch.setattr(rules, "_memo", {})
    assert said(root) == first


def test_cache_does_not_grow_without_bound(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_KEPT", 20)
    for number in range(100):
        rules._remember(cache / str(number), f"{number}")
        assert len(list(cache.iterdir())) <= 21
    assert rules._recall(cache / "99") == "99"


def test_two_at_once(make_tree: MakeTree, cache: Path) -> None:
    roots = [make_tree(name=str(number)) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = [each.bugs[0].findings[0] for each in pool.map(lambda root: audit(Tree.open(root), BUGS), roots)]
    assert len(set(found)) == 1 and found[0].status is Status.AFFECTED
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]


def test_one_start_says_what_each_alone_says(make_tree: MakeTree) -> None:
    """No rule sees another one's names, and no text another one's files."""
    known = [manifest.RULES / f"{name}.cocci" for name in ("pci-cfg-wait", "prog-array-clear", "hwsim-del")]
    texts = [{ACCESS: access_c()}, {ACCESS: access_c(WAIT_EVENT)}, {"empty.c": ""}]
    asked = [(rule, text) for rule in known for text in texts]
    together = cocci.run(asked)
    assert together.code == 0 and together.lines[0] != together.lines[1] and together.lines[2] == ""
    assert together.lines == [cocci.run([each]).lines[0] for each in asked]


SMALL = """\
Subject: more

diff --git a/f.c b/f.c
--- a/f.c
+++ b/f.c
@@ -2,3 +2,4 @@ a
 two
-three
+3
+3.5

@@ -8 +9 @@
-eight
+8
-- 
2.39
"""  # noqa: W291


@pytest.mark.parametrize("start", [0, 3, 30])
@pytest.mark.parametrize("patch", [SMALL, SMALL.replace("-eight", "-nine")])
def test_patch_in_memory_does_as_patch_does(tmp_path: Path, start: int, patch: str) -> None:
    lines = ["two", "three", "", *["other"] * start, "one", "two", "three", "", "5", "6", "7", "eight"]
    (tmp_path / "f.c").write_text("\n".join(["x"] * start + lines) + "\n", encoding="utf-8")
    (tmp_path / "p.patch").write_text(patch, encoding="utf-8")
    made = series.patched(lambda name: (tmp_path / name).read_bytes(), [str(tmp_path / "p.patch")])
    try:
        series.materialize(tmp_path, [tmp_path / "p.patch"], tmp_path / "to")
    except series.DoesNotFit:
        assert made is None and "nine" in patch
    else:
        assert made == {"f.c": (tmp_path / "to/f.c").read_bytes()}


# Every rule looks at what the audit holds it to, and its header can be read.


@pytest.mark.parametrize("finding", [finding for bug in manifest.load().bugs for finding in bug.findings])
def test_rule_reads_the_symbol_of_its_finding(finding: manifest.Finding) -> None:
    rule = rules.load(finding.rule)
    assert rule.words and (not finding.symbol or rule.words.search(finding.symbol))
    assert rule.options and all(option.startswith("CONFIG_") for option in rule.options)
    assert {name for name, _ in rule.homes} <= {*finding.files, *finding.context}
    assert {name for name, _ in rule.others} <= {*finding.files, *finding.context}


TEXT = """\
#include <linux/a.h>
struct a {
	int wanted_1;
};

static int one(void)
{
	return 1;
}

static int two(void)
{
#ifdef A
	if (a) {
#else
	if (b) {
#endif
		return wanted();
	}
	return one() + 2;
}

int three(void) { return two(); }
static const struct ops o = { .f = two };
"""


def test_what_has_no_word_is_blanked_out() -> None:
    clean = code.code(TEXT)
    parts, whole = code.split(clean)
    assert whole and "".join(TEXT[part.start : part.end] for part in parts) == TEXT
    kept = code.pick(TEXT, clean, parts, re.compile(r"wanted\("), False)
    assert [len(line) for line in kept.split("\n")] == [len(line) for line in TEXT.split("\n")]
    assert "two(void)" in kept and not any(word in kept for word in ("one(void)", "three", "struct", "include"))
    more = code.pick(TEXT, clean, parts, re.compile(r"wanted\("), True)
    assert "three" in more and "one(void)" in more, "what calls it, and what it calls"
    first, second = code.readings(kept, 4)
    assert "if (a)" in first and "if (b)" not in first and "if (b)" in second and "if (a)" not in second
    assert code.torn(code.code(first)) is None and code.torn(code.code(kept)) is not None
    assert code.split(clean.replace("return 1;\n}", "return 1;\n"))[1] is False


def test_braces_of_an_if_do_not_swallow_the_rest() -> None:
    odd = "void a(void)\n{\n#ifdef A\n\tif (a)\n#else\n\tif (b) {\n#endif\n\t\tx();\n#ifndef A\n\t}\n#endif\n}\n\n"
    odd = odd.replace("#ifndef A\n\t}\n#endif\n", "")
    parts, whole = code.split(odd + "int b(void)\n{\n\treturn 1;\n}\n")
    assert whole and [text for part in parts if "int b" in (text := odd[part.start :])] == []
    assert not code.split(odd + "int b(void)\n{\n\treturn 1;\n")[1]
    assert not code.split("int b(void)\n{\n\treturn 1;\n")[1]


def test_if_around_the_head_of_a_function_stays_with_it() -> None:
    text = "#ifdef A\nint f(int a)\n#else\nint f(void)\n#endif\n{\n\treturn 1;\n}\n\n#ifdef B\nint wanted;\n#endif\n"
    parts, whole = code.split(text)
    assert whole and "".join(text[part.start : part.end] for part in parts) == text
    assert code.pick(text, text, parts, re.compile("wanted"), False).split() == "#ifdef B int wanted; #endif".split()
