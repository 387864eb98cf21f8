# SPDX-License-Identifier: GPL-2.0-only
"""Verify, as far as it goes without a kernel: the two states, the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kernels
from conftest import ACCESS, UNLOCKED, WAIT_EVENT, MakeTree, access_c, planned, tools, tree_hash
from kmendlib.host import proc
from kmendlib.host.errors import BadInput, Infrastructure
from kmendlib.host.progress import Display
from kmendlib.host.words import Verdict
from kmendlib.proof import build, ktap, verify
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.jobs import Jobs
from kmendlib.proof.plan import Plan, Request, plan
from kmendlib.run import STATES, Boot, Build, Judgement, Run
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
    changed = verify.make_stages(tree, todo, tmp_path / "scratch")
    assert [len(todo.patches[state]) for state in STATES] == [before, after]
    text = {state: (tmp_path / "scratch" / state / ACCESS).read_text(encoding="utf-8") for state in STATES}
    assert "__add_wait_queue" in text["before"] and "wait_event" not in text["before"]
    assert "wait_event" in text["after"] and "__add_wait_queue" not in text["after"]
    suite = BUG.suites[0].sources[0]
    for state in STATES:
        assert f'#include "{Path(suite).name}"' in text[state]
        assert (tmp_path / "scratch" / state / suite).read_bytes() == (manifest.KUNIT / suite).read_bytes()
    assert set(changed) == {ACCESS, "drivers/pci/Kconfig", *BUG.suites[0].sources}
    assert tree_hash(root) == untouched


def test_tree_that_the_hook_does_not_fit(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    (root / "drivers/pci/Kconfig").write_text("config PCI\n", encoding="utf-8")
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
    verify.make_stages(Tree.open(root), todo, tmp_path / "scratch")
    for state in STATES:
        assert todo.patches[state][0] == bed.patch and (tmp_path / "scratch" / state).is_dir()
    assert "__add_wait_queue" in (tmp_path / "scratch/before" / ACCESS).read_text(encoding="utf-8")
    assert "__add_wait_queue" not in (tmp_path / "scratch/after" / ACCESS).read_text(encoding="utf-8")
    assert tree_hash(root) == untouched


def test_test_bed_that_does_not_fit(make_tree: MakeTree, tmp_path: Path) -> None:
    bug = dataclasses.replace(BUG, testbed=("pci-cfg-wait/v3.4-v5.8.patch",))
    with pytest.raises(BadInput, match="^no test bed of pci-cfg-wait fits 4.19.90 "):
        verify.lay_bed(Tree.open(make_tree(access_c(WAIT_EVENT))), bug, tmp_path / "laid")


def test_tree_with_the_fix_applied_can_be_verified(make_tree: MakeTree) -> None:
    tree = Tree.open(make_tree(kunit=True))
    apply(tree, audit(tree, [BUG]))
    refuse_prepared(tree)


@pytest.mark.parametrize(
    ("half", "says"), [(False, "has kmend's tests in it: run kmend un"), (True, "is half applied: run kmend unapply")]
)
def test_tree_with_tests_in_it_is_refused(make_tree: MakeTree, half: bool, says: str) -> None:
    root = make_tree(kunit=True)
    kconfig = (root / "drivers/pci/Kconfig").read_bytes()
    tree = Tree.open(root)
    apply(tree, audit(tree, [BUG]), with_tests=True)
    if half:
        (root / "drivers/pci/Kconfig").write_bytes(kconfig)
    with pytest.raises(BadInput, match=says):
        refuse_prepared(tree)


@pytest.mark.parametrize("name", arches.names())
def test_every_fragment_is_there(name: str) -> None:
    names = [fragment for fragment, _ in build.fragments(arches.load(name), [BUG])]
    assert names[:2] == ["base.config", "debug.config"]
    assert names[-3:] == [f"qemu_configs/{name}.py", "pci_cfg_wait.kunitconfig", "pci/config"]


def fake_make(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Put a make in the path that runs a shell script with O set to the build folder."""
    text = f"for word; do case $word in O=*) O=${{word#O=}};; esac; done\n{text}"
    tools(monkeypatch, tmp_path / "bin", make=text)


def test_fragment_for_one_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("CONFIG_A=m\n", encoding="utf-8")
    (tmp_path / "config.arm64").write_text("CONFIG_A=y\n", encoding="utf-8")
    test = dataclasses.replace(BUG.selftests[0], config=config, controls=("arm64",))
    bug = dataclasses.replace(BUG, arches=("riscv64",), selftests=(test,))
    tails = {name: build.fragments(arches.load(name), [bug])[3:] for name in ("arm64", "riscv64", "loongarch64")}
    assert tails["arm64"] == [("pci/config", "CONFIG_A=m\n"), ("pci/config.arm64", "CONFIG_A=y\n")]
    assert [name for name, _ in tails["riscv64"]] == ["pci_cfg_wait.kunitconfig", "pci/config"]
    assert not tails["loongarch64"]


def test_modules_come_in_load_order(tmp_path: Path) -> None:
    place = Workspace("t", tmp_path)
    folder = place.build("x86_64")
    needs = {"arch/x86/kvm/kvm-amd": "kvm", "arch/x86/kvm/kvm": "irqbypass", "virt/lib/irqbypass": ""}
    for name in ("usr", "virt/lib", "arch/x86/kvm"):
        (folder / name).mkdir(parents=True)
    for name, needed in needs.items():
        (folder / f"{name}.ko").write_bytes(kernels.module(Path(name).name, depends=needed))
    (folder / "modules.order").write_text("".join(f"{name}.o\n" for name in needs), encoding="utf-8")
    (folder / "usr/gen_init_cpio").write_text('#!/bin/sh\ncat "$3"\n', encoding="utf-8")
    (folder / "usr/gen_init_cpio").chmod(0o755)
    programs = tmp_path / "initramfs.cpio"
    programs.write_text("file /init\n", encoding="utf-8")
    archive, order = build.module_archive(place, arches.load("x86_64"), "after", ["kvm_amd"], programs)
    first, *held = [line.split()[1] for line in archive.read_text(encoding="utf-8").splitlines()]
    assert first == "/init" and archive == tmp_path / "x86_64/modules-after/initramfs.cpio"
    modules = [f"/lib/modules/{name}" for name in ("irqbypass.ko", "kvm.ko", "kvm-amd.ko")]
    assert held == ["/lib", "/lib/modules", "/lib/modules/order", *modules]
    assert order == ("irqbypass.ko", "kvm.ko", "kvm-amd.ko")
    with pytest.raises(build.BuildError, match="no module nvme"):
        build.module_archive(place, arches.load("x86_64"), "after", ["nvme"], programs)
    (folder / "usr/gen_init_cpio").write_text("#!/bin/sh\necho no room >&2\nexit 1\n", encoding="utf-8")
    with pytest.raises(build.BuildError, match="cannot archive the modules: no room"):
        build.module_archive(place, arches.load("x86_64"), "after", ["kvm"], programs)


def test_option_that_kconfig_drops_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_make('grep -v PCI_CFG_WAIT_KUNIT_TEST "$O/allconfig" > "$O/.config"', monkeypatch, tmp_path)
    place = Workspace("t", tmp_path)
    place.src("x86_64").mkdir(parents=True)
    (place.src("x86_64") / "arch/x86").mkdir(parents=True)
    (place.src("x86_64") / "arch/x86/Kconfig.pci").write_text(
        "config PCI\nconfig PCI_CFG_WAIT_KUNIT_TEST\n", encoding="utf-8"
    )
    with pytest.raises(build.BuildError, match="does not take CONFIG_PCI_CFG_WAIT_KUNIT_TEST=y .pci_cfg_wait.kunit"):
        build.configure(place, arches.load("x86_64"), [BUG], tmp_path / "log", Jobs())


def test_kernel_that_does_not_build_names_the_first_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = ("  CC  a.o", "a.c:3:1: error: no such thing", "b.c: error: two")
    fake_make("".join(f"echo '{line}'; " for line in said) + "exit 2", monkeypatch, tmp_path)
    place = Workspace("t", tmp_path)
    place.build("x86_64").mkdir(parents=True)
    (place.build("x86_64") / ".config").write_text("CONFIG_A=y\nCONFIG_B=y\n", encoding="utf-8")
    seen: list[tuple[int, int | None]] = []
    with pytest.raises(build.BuildError, match="^a.c:3:1: error: no such thing$"):
        arch, record = arches.load("x86_64"), Build("kmend:1-x86_64-after", "x86_64")
        build.kernel(place, arch, "after", tmp_path / "log", Jobs(), lambda *step: seen.append(step), record)
    assert seen == [(1, 5)]


def test_option_that_a_line_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_make('grep -v PCI_CFG_WAIT_KUNIT_TEST "$O/allconfig" > "$O/.config"', monkeypatch, tmp_path)
    place = Workspace("t", tmp_path)
    place.src("x86_64").mkdir(parents=True)
    (place.src("x86_64") / "Kconfig").write_text("# config PCI_CFG_WAIT_KUNIT_TEST\nconfig PCI\n", encoding="utf-8")
    (place.src("x86_64") / "arch/arm").mkdir(parents=True)
    (place.src("x86_64") / "arch/arm/Kconfig").write_text("config PCI_CFG_WAIT_KUNIT_TEST\n", encoding="utf-8")
    build.configure(place, arches.load("x86_64"), [BUG], tmp_path / "log", Jobs())
    assert "# not in this tree: CONFIG_PCI_CFG_WAIT_KUNIT_TEST=y" in (tmp_path / "log").read_text(encoding="utf-8")


# The walk of a plan, with stand-ins for make and QEMU.


class Steps:
    """Notes what a walk does; `fails` names the states whose kernel does not build."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: tuple[str, ...] = ()) -> None:
        self.done: list[str] = []
        self.booted: list[Boot] = []
        self.fails = fails
        self.folder = tmp_path / "cache"
        self.evidence = Evidence(tmp_path / "evidence", Run("kmend:1", "tree", ()))
        self.evidence.folder.mkdir()
        self.state = ""
        monkeypatch.setattr(verify.source, "link_arch", lambda place, arch, changed: list(changed))
        monkeypatch.setattr(verify.source, "install", self.install)
        monkeypatch.setattr(build, "configure", lambda *ignored: 1.5)
        monkeypatch.setattr(build, "kernel", self.kernel)
        monkeypatch.setattr(build, "module_archive", self.modules)
        monkeypatch.setattr(build, "initramfs", lambda tools, arch, programs, *more: self.file("initramfs", *programs))
        monkeypatch.setattr(build, "image", lambda place, arch, state: self.folder / f"image-{state}")

    def file(self, name: str, *lines: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(lines), encoding="utf-8")
        return path

    def install(self, place: Workspace, arch: str, stage: Path, changed: list[str]) -> None:
        self.state = stage.name
        self.done.append(f"install {stage.name}")

    def kernel(self, place: Workspace, arch: arches.Arch, state: str, *more: Any, modules: bool = False) -> Build:
        assert state == self.state
        self.done.append(f"build {state}" + (" with modules" if modules else ""))
        if state in self.fails:
            raise build.BuildError("a.c:1: error: no")
        self.file(f"image-{state}")
        self.file("x86_64/build/.config", "CONFIG_A=y")
        record: Build = more[-1]
        return dataclasses.replace(record, seconds={**record.seconds, "build_seconds": 2.25})

    def modules(
        self, place: Workspace, arch: arches.Arch, state: str, names: list[str], programs: Path
    ) -> tuple[Path, tuple[str, ...]]:
        archive = self.file(f"modules-{state}/initramfs.cpio", programs.read_text(encoding="utf-8") + "".join(names))
        return archive, tuple(f"{name}.ko" for name in names)

    def walk(self, todo: Plan, consume: verify.Consumer | None = None) -> verify.Walk:
        place = Workspace("t", self.folder)
        parse: ktap.Parser = ktap.parser_for  # type: ignore[assignment]
        bench = verify.Bench(place, self.folder, parse, self.evidence, Jobs(2), Display())
        (self.folder / "x86_64").mkdir(parents=True, exist_ok=True)
        walk = verify.Walk(
            bench, self.folder, ["a.c"], consume or (lambda bench, boot, kernel: self.booted.append(boot))
        )
        try:
            walk.go(todo.targets)
        finally:
            walk.abandon()
        return walk


def test_walk_boots_the_whole_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = Steps(monkeypatch, tmp_path)
    todo = planned([BUG], ["x86_64"], repeat=2)
    steps.walk(todo)
    assert steps.done == ["install after", "build after", "install before", "build before"]
    planned_boots = todo.targets[0].boots
    assert sorted(boot.place for boot in steps.booted) == sorted(boot.place for boot in planned_boots)
    for boot in steps.booted:
        assert boot.guest.kernel == steps.folder / f"image-{boot.state}"
        wanted = (steps.folder / "initramfs",) if boot.row.kind == "kselftest" else ()
        assert boot.guest.initrd == wanted and not any("kmend.modules" in word for word in boot.guest.words)
    assert (steps.folder / "initramfs").read_text(encoding="utf-8") == "pci:cfg_reset"
    (after, before) = steps.evidence.run.builds
    assert (after.id, before.id) == ("kmend:1-x86_64-after", "kmend:1-x86_64-before") and not after.error
    assert after.to_kcidb("kmend:1")["duration"] == 3.75
    assert (steps.evidence.folder / "x86_64/config").read_text(encoding="utf-8") == "CONFIG_A=y"


def test_walk_starts_with_the_state_that_was_built_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = Steps(monkeypatch, tmp_path)
    steps.file("x86_64/state", "before")
    steps.walk(planned([BUG], ["x86_64"]))
    assert steps.done == ["install before", "build before", "install after", "build after"]
    assert (steps.folder / "x86_64/state").read_text(encoding="utf-8") == "after"


def test_kernel_that_does_not_build_is_not_booted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = Steps(monkeypatch, tmp_path, fails=("before",))
    steps.walk(planned([BUG], ["x86_64"]))
    assert {boot.state for boot in steps.booted} == {"after"}
    assert [build.error for build in steps.evidence.run.builds] == ["", "a.c:1: error: no"]
    assert Evidence.open(steps.evidence.folder).run.builds[1].error == "a.c:1: error: no"


def test_guest_with_modules_gets_them_behind_its_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = Steps(monkeypatch, tmp_path)
    needs = manifest.Guest((2,), 1024, {}, {"x86_64": ("kvm",)})
    suite = dataclasses.replace(BUG.suites[0], module="kvm", guest=needs)
    steps.walk(planned([dataclasses.replace(BUG, suites=(suite,))], ["x86_64"]))
    assert steps.done[1] == "build after with modules"
    (boot,) = [boot for boot in steps.booted if boot.state == "after" and boot.row.kind == "kunit"]
    assert boot.guest.words[-1] == "kmend.modules=kvm.ko"
    assert boot.guest.initrd == (steps.folder / "modules-after/initramfs.cpio",)
    assert boot.guest.initrd[0].read_text(encoding="utf-8") == "pci:cfg_resetkvm"


def test_walk_raises_what_a_boot_raises_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = Steps(monkeypatch, tmp_path)

    def consume(bench: verify.Bench, boot: Boot, kernel: str) -> None:
        steps.booted.append(boot)
        if len(steps.booted) == 1:
            raise Infrastructure("no qemu here")
        # A boot that never ends by itself: only the end of the others stops it.
        with proc.child(["sleep", "600"]) as child:
            child.wait()

    with pytest.raises(Infrastructure, match="no qemu here"):
        steps.walk(planned([BUG], ["x86_64"], repeat=3), consume)
    assert len(steps.booted) < 12 and not proc._children and not proc.stopping.is_set()


def _older_options(place: Workspace) -> None:
    (place.build("x86_64") / ".config").write_text("CONFIG_OLD=y\n", encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda place: (place.src("x86_64") / "Kconfig").write_text("config OTHER\n", encoding="utf-8"),
        lambda place: (place.src("x86_64") / "drivers/Kconfig.more").write_text("config MORE\n", encoding="utf-8"),
        lambda place: (place.src("x86_64") / "Makefile").write_text("VERSION = 7\n", encoding="utf-8"),
        lambda place: (place.root.parent / "version").write_text("clang version 20", encoding="utf-8"),
        _older_options,
        lambda place: (place.build("x86_64") / ".config").unlink(),
        lambda place: None,
    ],
    ids=["a Kconfig", "a new Kconfig", "the Makefile", "the compiler", "the .config", "no .config", "nothing"],
)
def test_configuration_is_made_anew_where_what_it_rests_on_has_changed(
    change: Callable[[Workspace], object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    fake_make(f'echo x >> "{tmp_path}/made"; cp "$O/allconfig" "$O/.config"', monkeypatch, tmp_path)
    (tmp_path / "version").write_text("clang version 19", encoding="utf-8")
    tools(monkeypatch, tmp_path / "bin", clang=f"cat {tmp_path}/version", clang_19=f"cat {tmp_path}/version")
    place = Workspace("t", tmp_path / "work")
    (place.src("x86_64") / "drivers").mkdir(parents=True)
    (place.src("x86_64") / "Kconfig").write_text("config PCI\n", encoding="utf-8")
    (place.src("x86_64") / "Makefile").write_text("VERSION = 6\n", encoding="utf-8")
    arch = arches.load("x86_64")
    build.configure(place, arch, [], tmp_path / "log", Jobs())
    build.configure(place, arch, [], tmp_path / "log", Jobs())
    assert (tmp_path / "made").read_text(encoding="utf-8") == "x\n"
    change(place)
    build.configure(place, arch, [], tmp_path / "log", Jobs())
    again = "nothing" not in request.node.name
    assert (tmp_path / "made").read_text(encoding="utf-8") == ("x\nx\n" if again else "x\n")


@pytest.mark.parametrize("race", [False, True])
def test_forced_race_has_a_job_for_each_cpu(race: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boot = next(boot for boot in planned([BUG], ["x86_64"]).targets[0].boots if bool(boot.row.race) == race)
    asked: list[tuple[int, int]] = []

    class Asked(Jobs):
        def slot(self, memory: int, jobs: int = 1) -> Any:
            asked.append((memory, jobs))
            return super().slot(memory, jobs)

    def begin(*_: object) -> None:
        raise BadInput("it would begin")

    monkeypatch.setattr(verify.race, "force", begin)
    monkeypatch.setattr(verify.guest, "boot", begin)
    kept = Evidence(tmp_path, Run("kmend:1", "t", ()))
    parse: ktap.Parser = ktap.parser_for  # type: ignore[assignment]
    with pytest.raises(BadInput, match="it would begin"):
        verify.result_of(verify.Bench(Workspace("t", tmp_path), tmp_path, parse, kept, Asked(4), Display()), boot, "k")
    assert asked == [(boot.guest.memory + 512, 2 if race else 1)]


def test_a_clock_that_qemu_cannot_keep_is_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    fatal = f'case "$*" in *-icount*) echo "qemu: fatal: {verify.guest.LOSES_COUNT}" >&2; exit 134 ;; esac'
    qemu.write_text(f"#!/bin/sh\n{fatal}\necho up\n", encoding="utf-8")
    qemu.chmod(0o755)
    boot = planned([BUG], ["x86_64"]).targets[0].boots[0]
    boot = dataclasses.replace(boot, guest=dataclasses.replace(boot.guest, emulator=str(qemu), timed=()))
    kept = Evidence(tmp_path, Run("kmend:1", "t", (), qemu={"x86_64": "10"}))
    (tmp_path / boot.console).parent.mkdir(parents=True)
    monkeypatch.setattr(verify.ktap, "judge_row", lambda *_: Judgement(Verdict.PASS, ""))
    result = verify.result_of(
        verify.Bench(Workspace("t", tmp_path), tmp_path, list, kept, Jobs(1), Display()), boot, "k"
    )
    assert result.ending.code == 0 and "-icount" not in result.ending.command
    assert (tmp_path / boot.console).read_text(encoding="utf-8") == "up\n" and not result.printed
