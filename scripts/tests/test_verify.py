# SPDX-License-Identifier: GPL-2.0-only
"""Verify, as far as it goes without a kernel: the two states, the configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from conftest import ACCESS, UNLOCKED, WAIT_EVENT, MakeTree, access_c, planned, tree_hash
from kmendlib.host.errors import BadInput
from kmendlib.proof import build, verify
from kmendlib.proof.jobs import Jobs
from kmendlib.proof.plan import Plan, Request, plan
from kmendlib.run import STATES
from kmendlib.tree import arches, bases, manifest
from kmendlib.tree.apply import apply, refuse_prepared
from kmendlib.tree.audit import Status, audit
from kmendlib.tree.source import Workspace
from kmendlib.tree.tree import Tree

BUG = manifest.load().bug("pci-cfg-wait")


def prepare(tree: Tree, bug: manifest.Bug, scratch: Path) -> Plan:
    """Look at a tree and plan, as a run does."""
    found = audit(tree, [bug], latent=True)
    request = Request(None, None, (bug,), ("x86_64",))
    known = {"x86_64": arches.load("x86_64")}
    return plan(found, request, bases.get(bases.DEFAULT), verify.look(tree, found.bugs, known, "own", scratch))


def not_run(todo: Plan) -> str:
    (reason,) = {row.not_run for row in todo.rows}
    assert not todo.targets
    return reason


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
    todo = prepare(tree, BUG, tmp_path / "looked")
    stages = verify.make_stages(tree, todo, tmp_path / "scratch")
    assert [len(todo.patches[state]) for state in STATES] == [before, after]
    text = {state: (stages.folders[state] / ACCESS).read_text() for state in STATES}
    assert "__add_wait_queue" in text["before"] and "wait_event" not in text["before"]
    assert "wait_event" in text["after"] and "__add_wait_queue" not in text["after"]
    suite = BUG.suites[0].sources[0]
    for state in STATES:
        assert f'#include "{Path(suite).name}"' in text[state]
        assert (stages.folders[state] / suite).read_bytes() == (manifest.KUNIT / suite).read_bytes()
    assert set(stages.changed) == {ACCESS, "drivers/pci/Kconfig", *BUG.suites[0].sources}
    assert tree_hash(root) == untouched


def test_tree_that_the_hook_does_not_fit(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    (root / "drivers/pci/Kconfig").write_text("config PCI\n")
    reason = not_run(prepare(Tree.open(root), BUG, tmp_path / "looked"))
    assert reason.startswith("no hook of KUnit suite pci_cfg_wait fits 4.19.90 (tried pci-cfg-wait/kunit-")


def test_tree_that_no_fix_fits(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree(access_c(UNLOCKED.replace("schedule();", "io_schedule();")))
    reason = not_run(prepare(Tree.open(root), BUG, tmp_path / "looked"))
    assert reason == "no fix of pci-cfg-wait/unlocked-queue fits 4.19.90: it cannot be verified"


def test_bug_on_its_test_bed(make_tree: MakeTree, tmp_path: Path) -> None:
    """The fix stands for a test bed here: with it on, the bug can be put back."""
    root = make_tree(access_c(UNLOCKED), kunit=True)
    untouched = tree_hash(root)
    bug = dataclasses.replace(BUG, testbed=("pci-cfg-wait/v3.4-v5.8.patch",))
    bed = verify.lay_bed(Tree.open(root), bug, tmp_path / "laid")
    assert bed.patch.name == "v3.4-v5.8.patch" and bed.audited.status is Status.FIXED
    assert {path.name for path in bed.fits} == {"reintroduce-v5.9-v7.x.patch", "kunit-v5.14-v7.x.patch"}
    todo = planned([bug], ["x86_64"], Status.NOT_APPLICABLE, beds={bug.id: bed})
    stages = verify.make_stages(Tree.open(root), todo, tmp_path / "scratch")
    for state in STATES:
        assert todo.patches[state][0] == bed.patch and stages.folders[state].is_dir()
    assert "__add_wait_queue" in (stages.folders["before"] / ACCESS).read_text()
    assert "__add_wait_queue" not in (stages.folders["after"] / ACCESS).read_text()
    assert tree_hash(root) == untouched


def test_test_bed_that_does_not_fit(make_tree: MakeTree, tmp_path: Path) -> None:
    bug = dataclasses.replace(BUG, testbed=("pci-cfg-wait/v3.4-v5.8.patch",))
    with pytest.raises(BadInput, match="^no test bed of pci-cfg-wait fits 4.19.90 "):
        verify.lay_bed(Tree.open(make_tree(access_c(WAIT_EVENT))), bug, tmp_path / "laid")


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
