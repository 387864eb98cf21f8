# SPDX-License-Identifier: GPL-2.0-only
"""The manifest: the real one, and broken ones, each with an error that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmendlib.host.errors import BadInput, ExitCode
from kmendlib.tree import arches, manifest
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


def load(tmp_path: Path, text: str, check_files: bool = False) -> manifest.Manifest:
    path = tmp_path / "bugs.toml"
    path.write_text(text)
    return manifest.load(path, check_files)


def test_the_real_one_is_whole() -> None:
    found = manifest.load()
    bug = found.bug("pci-cfg-wait")
    assert bug.files == ("drivers/pci/access.c",)
    assert bug.arches == ("x86_64", "arm64", "riscv64", "loongarch64")
    assert [finding.id for finding in bug.findings] == ["pci-cfg-wait/unlocked-queue"]
    assert "pci_cfg_wait_test_queue_still_while_locked" in bug.suites[0].proof["pci-cfg-wait/unlocked-queue"]
    assert bug.selftests[0].id == "pci:cfg_reset"
    assert bug.selftests[0].qemu == (
        "nvme,serial=kmend",
        "e1000e,romfile=",
        "igb,romfile=",
        "pcie-root-port,id=rp1,chassis=1,slot=1",
        "virtio-rng-pci,bus=rp1",
    )


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
    assert found.bug("a-bug").since == "v3.4"
    assert found.patches == ("a-bug/fix.patch",)
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
        ('title = "A title"', 'titel = "A title"', "bug a-bug: key 'title' is missing"),
        ('title = "A title"', 'title = "A title"\ncolour = "red"', "bug a-bug: unknown key: colour"),
        ('title = "A fault"', 'title = "A fault"\nfixes = []', "finding a-bug/fault: unknown key: fixes"),
        ('title = "A title"', "title = 7", "bug a-bug: key 'title' must be a string"),
        ('title = "A title"', 'title = ""', "bug a-bug: key 'title' must be a string that is not empty"),
        ('files = ["mm/a.c"]', 'files = "mm/a.c"', "key 'files' must be a list of strings"),
        ('files = ["mm/a.c"]', "files = []", "key 'files' must not be empty"),
        ('files = ["mm/a.c"]', 'files = ["../a.c"]', "'../a.c' leaves its folder"),
        ('files = ["mm/a.c"]', 'files = ["/a.c"]', "'/a.c' leaves its folder"),
        ('["x86_64"]', '["x86_64", "vax"]', "unknown architecture: vax"),
        ('["v3.4", "v5.8"]', '["3.4", "v5.8"]', "versions must be"),
        ('["v3.4", "v5.8"]', '["v3.4"]', "versions must be"),
        ('id = "a-bug"', 'id = "A Bug"', "id must be lower case"),
        ('id = "a-bug/fault"', 'id = "other/fault"', "id must be a-bug/NAME"),
        ("[[bug.finding]]", "[[bug.findings]]", "key 'finding' is missing"),
        ("[[bug]]", "[[bug]", "not TOML"),
        ("[[bug]]", "x = 1\n[[bug]]", "top: unknown key: x"),
    ],
)
def test_broken_one_says_where(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(BadInput) as error:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert says in str(error.value)
    assert "bugs.toml" in str(error.value)
    assert "\n" not in str(error.value)


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
        ("cpus = 2", "key 'cpus' must be a list of numbers"),
        ("cpus = []", "key 'cpus' must be a list of numbers"),
        ("cpus = [0]", "key 'cpus' must be a list of numbers"),
        ("memory = true", "key 'memory' must be a number"),
        ('machine = "aia"', "machine: must be a table"),
        ('machine = { vax = "aia" }', "machine: unknown architecture: vax"),
        ('modules = { x86_64 = "kvm" }', "modules: key 'x86_64' must be a list of strings"),
        ('controls = ["vax"]', "key 'controls': unknown architecture: vax"),
    ],
)
def test_broken_guest_says_where(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(BadInput) as error:
        load(tmp_path, GOOD + SELFTEST + line + "\n")
    assert f"selftest mm:a: {says}" in str(error.value)


def test_proof_is_a_findings(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD + SELFTEST + 'proof = { fault = ["a case"] }\n')
    assert found.bugs[0].selftests[0].proof == {"a-bug/fault": ("a case",)}
    with pytest.raises(BadInput, match="proof of a-bug/other, which is no finding of this bug"):
        load(tmp_path, GOOD + SELFTEST + 'proof = { other = ["a case"] }\n')


def test_same_bug_twice(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="bug twice: a-bug"):
        load(tmp_path, GOOD + GOOD)


def test_upstream_needs_the_full_id(tmp_path: Path) -> None:
    text = GOOD + '[[bug.upstream]]\ncommit = "2a7e32d0547f"\nsubject = "x"\nrole = "fix"\n'
    with pytest.raises(BadInput, match="full id of 40 digits"):
        load(tmp_path, text)


def test_missing_patch(tmp_path: Path) -> None:
    text = GOOD.replace('id = "a-bug/fault"', 'id = "a-bug/fault"\nrule = "pci-cfg-wait.cocci"')
    with pytest.raises(BadInput, match="finding a-bug/fault: patches/a-bug/fix.patch is not there"):
        load(tmp_path, text, check_files=True)


def test_missing_rule(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="scripts/audit/a-bug.cocci is not there"):
        load(tmp_path, GOOD, check_files=True)


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        manifest.load(tmp_path / "none.toml")


def test_variant_can_be_a_series() -> None:
    """It stands for the bug's own patches there, in the series' order."""
    (finding,) = [each for each in manifest.load().bug("kvm-shadow").findings if each.id.endswith("/shared-list")]
    entries = [
        line for line in (PATCHES / "series/olk-6.6-first").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert list(finding.fix[0]) == entries
    assert finding.variants[0] == finding.fix[0]
    assert list(finding.variants[1]) == [name for name in entries if name not in finding.unverified]


def test_what_an_architecture_needs() -> None:
    """The folder is named as the tree has it, which is not how make is told of it."""
    needs = manifest.load().bug("kvm-shadow").needs
    found = [needs.format(arch=arches.load(name).folder) for name in arches.names()]
    assert found == ["arch/x86/kvm", "arch/arm64/kvm", "arch/loongarch/kvm", "arch/riscv/kvm"]
