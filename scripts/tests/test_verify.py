# SPDX-License-Identifier: GPL-2.0-only
"""Verify, as far as it goes without a kernel: the two states, the configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from conftest import ACCESS, UNLOCKED, WAIT_EVENT, MakeTree, access_c, tree_hash
from kmendlib.host.errors import BadInput
from kmendlib.proof import build, verify
from kmendlib.proof.jobs import Jobs
from kmendlib.tree import arches, manifest
from kmendlib.tree.apply import apply, refuse_prepared
from kmendlib.tree.audit import BugAudit, Status, audit
from kmendlib.tree.source import Workspace
from kmendlib.tree.tree import Tree

BUG = manifest.load().bug("pci-cfg-wait")


def can_show(tree: Tree) -> verify.Provable:
    return verify.provable(tree, audit(tree, [BUG]).bugs[0])


@pytest.mark.parametrize(
    ("wait", "before", "after"),
    [(UNLOCKED, 1, 2), (WAIT_EVENT, 2, 1)],
    ids=["affected", "fixed"],
)
def test_states_differ_in_the_bug_alone(
    make_tree: MakeTree, tmp_path: Path, wait: str, before: int, after: int
) -> None:
    root = make_tree(access_c(wait), kunit=True)
    untouched = tree_hash(root)
    tree = Tree.open(root)
    states = verify.make_states(tree, [can_show(tree)], tmp_path / "scratch")
    assert [len(states.patches[state]) for state in verify.STATES] == [before, after]
    text = {state: (states.stages[state] / ACCESS).read_text() for state in verify.STATES}
    assert "__add_wait_queue" in text["before"] and "wait_event" not in text["before"]
    assert "wait_event" in text["after"] and "__add_wait_queue" not in text["after"]
    suite = BUG.suites[0].sources[0]
    for state in verify.STATES:
        assert f'#include "{Path(suite).name}"' in text[state]
        assert (states.stages[state] / suite).read_bytes() == (manifest.KUNIT / suite).read_bytes()
    assert set(states.changed) == {ACCESS, "drivers/pci/Kconfig", *BUG.suites[0].sources}
    assert tree_hash(root) == untouched


def test_tree_that_the_hook_does_not_fit(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    (root / "drivers/pci/Kconfig").write_text("config PCI\n")
    tree = Tree.open(root)
    with pytest.raises(BadInput, match="no hook of KUnit suite pci_cfg_wait fits 4.19.90"):
        can_show(tree)


def test_tree_that_no_fix_fits(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree(access_c(UNLOCKED.replace("schedule();", "io_schedule();")))
    tree = Tree.open(root)
    with pytest.raises(BadInput, match="no fix of pci-cfg-wait/unlocked-queue fits 4.19.90"):
        can_show(tree)


def test_finding_that_cannot_be_shown_hides_no_other(make_tree: MakeTree) -> None:
    """Its status is told, and its cases are not asked for."""
    lost = dataclasses.replace(BUG.findings[0], id="pci-cfg-wait/other", reintroduce=())
    tree = Tree.open(make_tree(access_c(WAIT_EVENT), kunit=True))
    (said,) = audit(tree, [BUG]).bugs
    bug = dataclasses.replace(BUG, findings=(*BUG.findings, lost))
    both = BugAudit(bug, (*said.findings, dataclasses.replace(said.findings[0], id=lost.id)))
    found = verify.provable(tree, both)
    assert found.findings == ("pci-cfg-wait/unlocked-queue",)
    assert found.left_out == (f"no way back to {lost.id} fits {tree.version} (tried none)",)
    latent = BugAudit(BUG, (dataclasses.replace(said.findings[0], status=Status.LATENT),))
    with pytest.raises(BadInput, match="^pci-cfg-wait/unlocked-queue is latent$"):
        verify.provable(tree, latent)


def test_latent_finding_that_the_suite_forces(make_tree: MakeTree) -> None:
    tree = Tree.open(make_tree(access_c(UNLOCKED), kunit=True))
    (said,) = audit(tree, [BUG]).bugs
    latent = dataclasses.replace(said.findings[0], status=Status.LATENT)
    bug = dataclasses.replace(BUG, findings=(dataclasses.replace(BUG.findings[0], forced=True),))
    found = verify.provable(tree, BugAudit(bug, (latent,)))
    assert [path.name for path in found.fixes] == ["v3.4-v5.8.patch"] and not found.reintroduce


def test_bug_that_the_tree_lacks_is_shown_on_its_test_bed(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree(access_c(UNLOCKED), kunit=True)
    untouched = tree_hash(root)
    laid = "pci-cfg-wait/v3.4-v5.8.patch"
    found = verify.on_testbed(Tree.open(root), dataclasses.replace(BUG, testbed=(laid,)), tmp_path / "laid")
    assert [path.name for path in found.reintroduce] == ["reintroduce-v5.9-v7.x.patch"] and not found.fixes
    states = verify.make_states(Tree.open(root), [found], tmp_path / "scratch")
    for state in verify.STATES:
        assert states.patches[state][0] == manifest.PATCHES / laid
    assert tree_hash(root) == untouched


def test_test_bed_that_does_not_fit(make_tree: MakeTree, tmp_path: Path) -> None:
    bug = dataclasses.replace(BUG, testbed=("pci-cfg-wait/v3.4-v5.8.patch",))
    with pytest.raises(BadInput, match="^no test bed of pci-cfg-wait fits 4.19.90 "):
        verify.on_testbed(Tree.open(make_tree(access_c(WAIT_EVENT))), bug, tmp_path / "laid")


def test_only_shown_findings_prove() -> None:
    assert verify.suites(BUG, [BUG.findings[0].id])[0].proof == BUG.suites[0].proof[BUG.findings[0].id]
    assert verify.suites(BUG, ())[0].proof == ()


def test_tree_with_the_fix_applied_can_be_verified(make_tree: MakeTree) -> None:
    tree = Tree.open(make_tree(kunit=True))
    apply(tree, audit(tree, [BUG]))
    refuse_prepared(tree)


def test_tree_with_tests_in_it_is_refused(make_tree: MakeTree) -> None:
    tree = Tree.open(make_tree(kunit=True))
    apply(tree, audit(tree, [BUG]), with_tests=True)
    with pytest.raises(BadInput, match="has kmend's tests in it: run kmend unapply"):
        refuse_prepared(tree)


def test_half_applied_tree_is_refused(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / ".kmend").mkdir()
    with pytest.raises(BadInput, match="is half applied: run kmend unapply"):
        refuse_prepared(Tree.open(root))


@pytest.mark.parametrize("name", arches.names())
def test_every_fragment_is_there(name: str) -> None:
    names = [fragment for fragment, _ in build.fragments(arches.load(name), [BUG])]
    assert names[:2] == ["base.config", "debug.config"]
    assert names[-3:] == [f"qemu_configs/{name}.py", "pci_cfg_wait.kunitconfig", "pci/config"]


def fake_make(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Put a make in the path that runs a shell script with O set to the build folder."""
    script = tmp_path / "bin/make"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\nfor word; do case $word in O=*) O=${{word#O=}};; esac; done\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}", prepend=":")


def test_fragment_for_one_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("CONFIG_A=m\n")
    (tmp_path / "config.arm64").write_text("CONFIG_A=y\n")
    test = dataclasses.replace(BUG.selftests[0], config=config, controls=("arm64",))
    bug = dataclasses.replace(BUG, arches=("riscv64",), selftests=(test,))
    tails = {name: build.fragments(arches.load(name), [bug])[3:] for name in ("arm64", "riscv64", "loongarch64")}
    assert tails["arm64"] == [("pci/config", "CONFIG_A=m\n"), ("pci/config.arm64", "CONFIG_A=y\n")]
    assert [name for name, _ in tails["riscv64"]] == ["pci_cfg_wait.kunitconfig", "pci/config"]
    assert not tails["loongarch64"]


def test_modules_come_in_load_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = Workspace("t", tmp_path)
    folder = place.build("x86_64")
    for name in ("usr", "virt/lib", "arch/x86/kvm"):
        (folder / name).mkdir(parents=True)
    (folder / "modules.order").write_text("arch/x86/kvm/kvm-amd.o\narch/x86/kvm/kvm.o\nvirt/lib/irqbypass.o\n")
    needs = {"kvm-amd.ko": "kvm", "kvm.ko": "irqbypass", "irqbypass.ko": ""}
    monkeypatch.setattr(build.proc, "output", lambda words: needs[Path(words[-1]).name] + "\n")
    (folder / "usr/gen_init_cpio").write_text('#!/bin/sh\ncat "$3"\n')
    (folder / "usr/gen_init_cpio").chmod(0o755)
    archive = build.module_archive(place, arches.load("x86_64"), "after", ["kvm_amd"])
    held = [line.split()[1] for line in archive.read_text().splitlines()]
    modules = [f"/lib/modules/{name}" for name in ("irqbypass.ko", "kvm.ko", "kvm-amd.ko")]
    assert held == ["/lib", "/lib/modules", "/lib/modules/order", *modules]
    assert build.load_order(archive, ["kvm"]) == ["irqbypass.ko", "kvm.ko"]
    with pytest.raises(build.BuildError, match="no module nvme"):
        build.module_archive(place, arches.load("x86_64"), "after", ["nvme"])
    (folder / "usr/gen_init_cpio").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    with pytest.raises(build.BuildError, match="cannot archive the modules: no room"):
        build.module_archive(place, arches.load("x86_64"), "after", ["kvm"])


def test_suite_in_a_module_is_loaded_by_init() -> None:
    suite = dataclasses.replace(BUG.suites[0], module="kvm", guest=manifest.Guest((2, 4), 1024, {}, {}))
    boots = verify.suites(dataclasses.replace(BUG, suites=(suite,)), ())[:2]
    assert [(each.label, each.cpus) for each in boots] == [("pci_cfg_wait (2 CPUs)", 2), ("pci_cfg_wait (4 CPUs)", 4)]
    # The kernel would power off before the module is there.
    assert not any("kunit_shutdown" in word for word in boots[0].words)
    assert boots[1].file == "pci_cfg_wait-4-CPUs"


def test_option_that_kconfig_drops_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_make('grep -v PCI_CFG_WAIT_KUNIT_TEST "$O/allconfig" > "$O/.config"', monkeypatch, tmp_path)
    place = Workspace("t", tmp_path)
    place.src("x86_64").mkdir(parents=True)
    (place.src("x86_64") / "arch/x86").mkdir(parents=True)
    (place.src("x86_64") / "arch/x86/Kconfig.pci").write_text("config PCI\nconfig PCI_CFG_WAIT_KUNIT_TEST\n")
    with pytest.raises(build.BuildError, match="does not take CONFIG_PCI_CFG_WAIT_KUNIT_TEST=y .pci_cfg_wait.kunit"):
        build.configure(place, arches.load("x86_64"), [BUG], tmp_path / "log", Jobs())


def test_kernel_that_does_not_build_names_the_first_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = ("  CC  a.o", "a.c:3:1: error: no such thing", "b.c: error: two")
    fake_make("".join(f"echo '{line}'; " for line in said) + "exit 2", monkeypatch, tmp_path)
    place = Workspace("t", tmp_path)
    place.build("x86_64").mkdir(parents=True)
    (place.build("x86_64") / ".config").write_text("CONFIG_A=y\nCONFIG_B=y\n")
    seen: list[tuple[int, int | None]] = []
    with pytest.raises(build.BuildError, match="^a.c:3:1: error: no such thing$"):
        build.kernel(place, arches.load("x86_64"), "after", tmp_path / "log", Jobs(), lambda *step: seen.append(step))
    assert seen == [(1, 5)]


def test_option_that_a_line_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_make('grep -v PCI_CFG_WAIT_KUNIT_TEST "$O/allconfig" > "$O/.config"', monkeypatch, tmp_path)
    place = Workspace("t", tmp_path)
    place.src("x86_64").mkdir(parents=True)
    (place.src("x86_64") / "Kconfig").write_text("# config PCI_CFG_WAIT_KUNIT_TEST\nconfig PCI\n")
    (place.src("x86_64") / "arch/arm").mkdir(parents=True)
    (place.src("x86_64") / "arch/arm/Kconfig").write_text("config PCI_CFG_WAIT_KUNIT_TEST\n")
    build.configure(place, arches.load("x86_64"), [BUG], tmp_path / "log", Jobs())
    assert "# not in this tree: CONFIG_PCI_CFG_WAIT_KUNIT_TEST=y" in (tmp_path / "log").read_text()
