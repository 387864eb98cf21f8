# SPDX-License-Identifier: GPL-2.0-only
"""The data files: the real ones, and broken ones, each with an error that says where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datafiles import problems
from kmendlib.host.errors import BadInput, ExitCode
from kmendlib.show import timeline
from kmendlib.tree import arches, bases, diagram, manifest
from kmendlib.tree.manifest import PATCHES

GOOD = """\
[[bug]]
id = "a-bug"
title = "A title"
files = ["mm/a.c"]
versions = ["v3.4", "v5.8"]
arches = ["x86_64"]

[[bug.finding]]
id = "a-bug/fault"
title = "A fault"
fix = ["a-bug/fix.patch"]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bugs.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path: Path, text: str) -> manifest.Manifest:
    return manifest.load(write(tmp_path, text))


def said(tmp_path: Path, text: str, kind: str = "bugs", there: bool = False) -> str:
    return "\n".join(problems(write(tmp_path, text), kind, there))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (manifest.MANIFEST, "bugs"),
        *((path, "base") for path in sorted(bases.BASES.glob("*.toml"))),
        *((path, "timelines") for path in sorted(diagram.PAGES.glob("*.toml"))),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_the_real_ones_are_right(path: Path, kind: str) -> None:
    assert problems(path, kind) == []


def test_selftest_sources_are_all_named() -> None:
    selftests = [selftest for bug in manifest.load().bugs for selftest in bug.selftests]
    named = {name for selftest in selftests for name in selftest.sources}
    sources = {
        path.relative_to(manifest.SELFTESTS).as_posix()
        for collection in {selftest.collection for selftest in selftests}
        for path in (manifest.SELFTESTS / collection).glob("[!.]*")
    }
    assert {name for name in named if "/" in name} == sources


def test_small_one_loads(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD)
    assert found.bug("a-bug").versions == ("v3.4", "v5.8")
    assert found.bug("a-bug").patches == ("a-bug/fix.patch",)
    assert found.files == ("mm/a.c",)


def test_unknown_bug_names_the_known() -> None:
    with pytest.raises(BadInput, match="'no-such-bug'; known: .*pci-cfg-wait") as error:
        manifest.load().bug("no-such-bug")
    assert error.value.code is ExitCode.USAGE


def test_one_finding_of_a_bug(tmp_path: Path) -> None:
    other = '\n[[bug.finding]]\nid = "a-bug/other"\ntitle = "x"\nfix = ["a-bug/x.patch"]\n'
    found = load(tmp_path, GOOD + other)
    assert [each.id for each in found.select(["a-bug/other"])[0].findings] == ["a-bug/other"]
    assert len(found.select(["a-bug/other", "a-bug"])[0].findings) == 2
    with pytest.raises(BadInput, match="no finding is called 'a-bug/no'; known: a-bug/fault, a-bug/other"):
        found.select(["a-bug/no"])
    with pytest.raises(BadInput, match="no bug is called 'b'"):
        found.select(["b/fault"])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('title = "A title"', "", "bug a-bug: 'title' is a required property"),
        ('title = "A title"', 'title = "A title"\ncolour = "red"', "bug a-bug: .* ('colour' was unexpected)"),
        ('title = "A title"', 'title = ""', "bug a-bug.title: '' is too short"),
        ('files = ["mm/a.c"]', 'files = ["../a.c"]', "files[0]: '../a.c' is not a path that does not leave its fold"),
        ('files = ["mm/a.c"]', 'files = ["/a.c"]', "files[0]: '/a.c' is not a path that does not leave its folder"),
        ('["x86_64"]', '["x86_64", "vax"]', "bug a-bug.arches[1]: unknown architecture: vax"),
        ('["v3.4", "v5.8"]', '["3.4", "v5.8"]', "bug a-bug.versions[0]: '3.4' does not match"),
        ('id = "a-bug"', 'id = "A Bug"', "bug A Bug.id: 'A Bug' is not lower case words joined by '-'"),
        ('id = "a-bug/fault"', 'id = "other/fault"', "bug a-bug.finding other/fault: id must be a-bug/NAME"),
        ("[[bug]]", "[[bug]", "not TOML: "),
        ("[[bug]]", "x = 1\n[[bug]]", "top: .* ('x' was unexpected)"),
    ],
)
def test_broken_one_says_where(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD and not said(tmp_path, GOOD)
    lines = said(tmp_path, GOOD.replace(old, new, 1))
    assert re.search(re.escape(says).replace(r"\.\*", ".*"), lines), lines
    assert all(line.startswith(f"{tmp_path}/bugs.toml: ") for line in lines.splitlines())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('title = "A title"', "", "Bug: missing 1 required positional argument: 'title'"),
        ('title = "A title"', 'title = "A title"\ncolour = "red"', "Bug: got an unexpected keyword argument 'colour'"),
        ("[[bug.finding]]", "[[bug.findings]]", "bug: missing 1 required keyword-only argument: 'finding'"),
        ('["a-bug/fix.patch"]', "7", "'int' object is not iterable"),
        ("[[bug]]", "[[bug]", "not TOML: "),
        ("[[bug]]", "[[dog]]", "key 'bug' is missing"),
        ("a-bug/fix.patch", "series/none", "No such file or directory"),
    ],
)
def test_reader_that_cannot_go_on_says_so_in_a_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = GOOD.replace(old, new, 1)
    if new == "[[dog]]":
        text = '[[dog]]\nid = "a"\n'
    with pytest.raises(BadInput) as error:
        load(tmp_path, text)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(str(manifest.PATCHES if "series" in new else tmp_path / "bugs.toml"))
    assert error.value.code is ExitCode.USAGE


SELFTEST = """
[[bug.selftest]]
collection = "mm"
name = "a"
sources = ["mm/a.c"]
config = "mm/config"
"""


def test_guest_of_a_selftest(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + SELFTEST).bugs[0].selftests[0].guest == manifest.Guest((2,), 1024, {}, {})
    more = 'cpus = [2, 4]\nmemory = 2048\nmachine = { riscv64 = "aia=aplic" }\nmodules = { x86_64 = ["a", "b"] }\n'
    selftest = load(tmp_path, GOOD + SELFTEST + more + 'controls = ["arm64"]\n').bugs[0].selftests[0]
    assert selftest.guest == manifest.Guest((2, 4), 2048, {"riscv64": "aia=aplic"}, {"x86_64": ("a", "b")})
    assert selftest.controls == ("arm64",)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("cpus = 2", "cpus: 2 is not of type 'array'"),
        ("cpus = [0]", "cpus[0]: 0 is less than the minimum of 1"),
        ('machine = { vax = "aia" }', "machine: unknown architecture: vax"),
        ('controls = ["vax"]', "controls[0]: unknown architecture: vax"),
    ],
)
def test_broken_guest_says_where(tmp_path: Path, line: str, says: str) -> None:
    assert f": bug a-bug.selftest a.{says}" in said(tmp_path, GOOD + SELFTEST + line + "\n")


def test_proof_is_a_findings(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD + SELFTEST + 'proof = { fault = ["a case"] }\n')
    assert found.bugs[0].selftests[0].proof == {"a-bug/fault": ("a case",)}
    wrong = said(tmp_path, GOOD + SELFTEST + 'proof = { other = ["a case"] }\n')
    assert wrong.endswith("bug a-bug.selftest a.proof: proof of a-bug/other, which is no finding of this bug")


def test_same_bug_twice(tmp_path: Path) -> None:
    assert said(tmp_path, GOOD + GOOD).splitlines() == [
        f"{tmp_path}/bugs.toml: bug twice: a-bug",
        f"{tmp_path}/bugs.toml: finding twice: a-bug/fault",
    ]


def test_upstream_needs_the_full_id(tmp_path: Path) -> None:
    text = GOOD + '[[bug.upstream]]\ncommit = "2a7e32d0547f"\nsubject = "x"\nrole = "fix"\n'
    assert "bug a-bug.upstream[0].commit: '2a7e32d0547f' is not a full id of 40 digits" in said(tmp_path, text)
    text = text.replace('fix"\n', 'cure"\n').replace('"2a7e32d0547f"', f'"{"2" * 40}"')
    assert "bug a-bug.upstream[0].role: 'cure' is not one of ['fix', 'cause']" in said(tmp_path, text)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('rule = "pci-cfg-wait.cocci"', "finding a-bug/fault.fix[0]: patches/a-bug/fix.patch is not there"),
        ('rule = "a.cocci"', "finding a-bug/fault.rule: scripts/audit/a.cocci is not there"),
        ('reintroduce = ["a.patch"]', "finding a-bug/fault.reintroduce[0]: patches/a.patch is not there"),
        (SELFTEST, "bug a-bug.selftest a.sources[0]: selftests/mm/a.c is not there"),
        (SELFTEST.replace("config", "none"), "bug a-bug.selftest a: 'config' is a required property"),
    ],
)
def test_missing_file(tmp_path: Path, more: str, says: str) -> None:
    assert says in said(tmp_path, GOOD + more, there=True)


def test_missing_rule_of_the_bugs_name_and_a_patch_of_another_fix(tmp_path: Path) -> None:
    text = GOOD.replace("a-bug/fix.patch", "pci-cfg-wait/v3.4-v5.8.patch")
    text += 'unverified = ["pci-cfg-wait/kunit-v4.19.patch"]\n'
    text += 'depends = { "pci-cfg-wait/kunit-v4.19.patch" = "a.h: b" }\n'
    assert [line.partition("bugs.toml: ")[2] for line in said(tmp_path, text, there=True).splitlines()] == [
        "bug a-bug.finding a-bug/fault: scripts/audit/a-bug.cocci is not there",
        "bug a-bug.finding a-bug/fault.unverified: pci-cfg-wait/kunit-v4.19.patch: no patch of its fix",
        "bug a-bug.finding a-bug/fault.depends: pci-cfg-wait/kunit-v4.19.patch: no patch of its fix",
    ]


BASE = 'title = "x"\nversion = "1"\nknown = "y"\n[[source]]\npath = "/a"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense = 1\n" + BASE, "top: .*'nonsense' was unexpected"),
        ('arches = ["sparc"]\n' + BASE, r"arches\[0\]: unknown architecture: sparc"),
        ('kunit = "none"\n' + BASE, r"kunit: 'none' is not one of \['own', 'compat'\]"),
        ('derived_from = "none"\n' + BASE, "derived_from: unknown base: none"),
        ('series = ["none"]\n' + BASE, r"series\[0\]: patches/series/none is not there"),
        ('vendor = "("\n' + BASE, r"vendor: .*(unterminated|is not a 'regex')"),
        (BASE + '[build]\ncompiler = "cc"\n', r"build.compiler: 'cc' is not one of \['llvm', 'gcc'\]"),
        (BASE + '[qemu]\nsparc = ["-cpu", "max"]\n', "qemu: unknown architecture: sparc"),
        (BASE.replace("path", "debian"), r"source\[0\]: 'suite' is a dependency of 'debian'"),
    ],
)
def test_broken_base_says_where(tmp_path: Path, text: str, says: str) -> None:
    assert not said(tmp_path, BASE, "base")
    assert re.search(f"bugs.toml: {says}", said(tmp_path, text, "base", there=True))


TIMELINE = """\
[[timeline]]
finding = "pci-cfg-wait/unlocked-queue"
title = "x"
lanes = ["a", "b"]
rows = [["1", ""], ["", "2", "wrong"]]
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("pci-cfg-wait/unlocked-queue", "pci-cfg-wait/none", ".finding: unknown finding: pci-cfg-wait/none"),
        ('["1", ""]', '["1"]', ".rows[0]: ['1'] is too short"),
        ('"wrong"', '"right"', ".rows[1][2]: 'right' is not valid under any of the given schemas"),
    ],
)
def test_broken_timeline_says_where(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert not said(tmp_path, TIMELINE, "timelines")
    assert f"bugs.toml: timeline[0]{says}" in said(tmp_path, TIMELINE.replace(old, new), "timelines")


@pytest.mark.parametrize("text", ["", "[[timeline]]\n", TIMELINE.replace('["1", ""]', '["1"]'), "[[timeline]"])
def test_broken_timeline_is_one_line_for_a_reader(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagram, "PAGES", tmp_path)
    write(tmp_path, text)
    with pytest.raises(BadInput, match=f"^{tmp_path}/bugs.toml: [^\n]+$"):
        timeline.timelines("bugs")


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        manifest.load(tmp_path / "none.toml")


def test_variant_can_be_a_series() -> None:
    """It stands for the bug's own patches there, in the series' order."""
    (finding,) = [each for each in manifest.load().bug("kvm-shadow").findings if each.id.endswith("/shared-list")]
    entries = [
        line
        for line in (PATCHES / "series/olk-6.6-first").read_text(encoding="utf-8").splitlines()
        if line[:1] not in ("", "#")
    ]
    assert list(finding.fix[0]) == entries


def test_what_an_architecture_needs() -> None:
    """The folder is named as the tree has it, which is not how make is told of it."""
    needs = manifest.load().bug("kvm-shadow").needs
    found = [needs.format(arch=arches.load(name).folder) for name in arches.names()]
    assert found == ["arch/x86/kvm", "arch/arm64/kvm", "arch/loongarch/kvm", "arch/riscv/kvm"]
