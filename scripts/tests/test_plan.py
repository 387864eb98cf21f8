# SPDX-License-Identifier: GPL-2.0-only
"""What a run is to do, planned for made-up audits: nothing is read or run here."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import audited, planned
from kmendlib.host.errors import BadInput
from kmendlib.proof.plan import KERNEL, MODULES, PROGRAMS, Bed, Plan, guest_of, plan_bug, variants
from kmendlib.run import Boot, Row
from kmendlib.tree import arches, manifest
from kmendlib.tree.audit import BugAudit, Status
from kmendlib.tree.manifest import PATCHES, Bug, Guest

BOOK = manifest.load()
PCI = BOOK.bug("pci-cfg-wait")
KVM = BOOK.bug("riscv-kvm-exit")
NFSD = BOOK.bug("nfsd-cb-shutdown")
UNLOCKED = "pci-cfg-wait/unlocked-queue"
FORCED = "pci:cfg_reset (unlocked-queue)"


def rows(todo: Plan, bug: Bug, arch: str) -> dict[str, Row]:
    return {row.suite: row for row in todo.rows if (row.bug, row.arch) == (bug.id, arch)}


def boots(todo: Plan, arch: str = "") -> list[Boot]:
    return [boot for target in todo.targets for boot in target.boots if arch in ("", boot.row.arch)]


def names(patches: tuple[Path, ...]) -> list[str]:
    return [path.relative_to(PATCHES).as_posix() for path in patches]


# What is built: the patches of both states.


def test_affected_before_is_the_tree_as_it_is() -> None:
    todo = planned([PCI], ["x86_64"], Status.AFFECTED)
    hook = PCI.suites[0].hooks[0]
    assert names(todo.patches["before"]) == [hook]
    assert names(todo.patches["after"]) == [*PCI.findings[0].fix[0], hook]


def test_fixed_after_is_the_tree_as_it_is() -> None:
    todo = planned([PCI], ["x86_64"], Status.FIXED)
    hook = PCI.suites[0].hooks[0]
    assert names(todo.patches["before"]) == [PCI.findings[0].reintroduce[0], hook]
    assert names(todo.patches["after"]) == [hook]


def test_only_the_first_patch_that_fits_is_taken() -> None:
    first, second = (PATCHES / name for name in PCI.suites[0].hooks)
    back = PATCHES / PCI.findings[0].reintroduce[0]
    assert planned([PCI], ["x86_64"], Status.FIXED, fits=frozenset({second, back})).patches["after"] == (second,)
    assert planned([PCI], ["x86_64"], Status.FIXED, fits=frozenset({first, second, back})).patches["after"] == (first,)


def test_patches_come_in_the_order_of_the_bugs() -> None:
    todo = planned(BOOK.bugs, arches.names(), Status.AFFECTED, hooks=(PATCHES / "kunit-compat/x.patch",))
    for state in ("before", "after"):
        folders = [name.partition("/")[0] for name in names(todo.patches[state])]
        assert list(dict.fromkeys(folders)) == [bug.id for bug in BOOK.bugs if bug.id in folders] + ["kunit-compat"]
    assert {PATCHES / name for bug in BOOK.bugs for name in bug.findings[0].fix[0]} <= set(todo.patches["after"])


def test_sources_of_the_suites_and_of_the_small_kunit() -> None:
    todo = planned([PCI], ["x86_64"], sources={"lib/kunit/x.c": Path("/x.c")})
    assert set(todo.sources) == {*PCI.suites[0].sources, "lib/kunit/x.c"}


# What is left out, and why.


def reason(todo: Plan) -> str:
    (found,) = {row.not_run for row in todo.rows}
    assert not todo.targets and not any(row.states for row in todo.rows)
    return found


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (Status.UNKNOWN, "pci-cfg-wait/unlocked-queue is unknown"),
        (Status.NOT_APPLICABLE, "pci-cfg-wait/unlocked-queue is not-applicable"),
        (Status.LATENT, "pci-cfg-wait/unlocked-queue is latent"),
    ],
)
def test_status_that_leaves_nothing_to_show(status: Status, says: str) -> None:
    assert reason(planned([PCI], ["x86_64"], status)) == says


def test_nothing_fits() -> None:
    nothing: frozenset[Path] = frozenset()
    hooks = ", ".join(PCI.suites[0].hooks)
    assert reason(planned([PCI], ["x86_64"], fits=nothing)) == (
        f"no hook of KUnit suite pci_cfg_wait fits 6.12.1 (tried {hooks})"
    )
    way = f"no way back to {UNLOCKED} fits 6.12.1 (tried {PCI.findings[0].reintroduce[0]})"
    hook = frozenset({PATCHES / PCI.suites[0].hooks[0]})
    assert reason(planned([PCI], ["x86_64"], Status.FIXED, fits=hook)) == way


def test_affected_and_no_fix_fits() -> None:
    said = audited(PCI, Status.AFFECTED)
    bare = BugAudit(PCI, (replace(said.findings[0], fix=()),))
    with pytest.raises(BadInput, match=f"^no fix of {UNLOCKED} fits 6.12.1: it cannot be verified$"):
        plan_bug(bare, frozenset(p for choice in variants(bare) for p in choice), "6.12.1")


def test_finding_that_cannot_be_shown_hides_no_other() -> None:
    """Its status is told, and its cases are not asked for."""
    first, second = NFSD.findings[:2]
    statuses = {finding.id: Status.FIXED for finding in NFSD.findings} | {second.id: Status.UNKNOWN}
    todo = planned([NFSD], ["x86_64"], statuses)
    for row in rows(todo, NFSD, "x86_64").values():
        assert row.left_out == (f"{second.id} is unknown",) and not row.not_run
        assert second.id not in {claim.finding for claim in row.claims}
    assert first.id in {claim.finding for row in todo.rows for claim in row.claims}
    assert not {PATCHES / name for name in second.reintroduce} & set(todo.patches["before"])


def test_fix_of_another_finding_that_covers_one() -> None:
    said = audited(NFSD, Status.AFFECTED)
    findings = (said.findings[0], *(replace(each, fix=(), covered=True) for each in said.findings[1:]))
    covered = BugAudit(NFSD, findings)
    how = plan_bug(covered, frozenset(p for choice in variants(covered) for p in choice), "6.12.1")
    assert set(how.statuses) == {finding.id for finding in NFSD.findings} and not how.left_out
    fixes = [patch for patch in how.patches["after"] if patch not in how.patches["before"]]
    assert names(tuple(fixes)) == list(said.findings[0].fix)


def test_latent_finding_that_the_suite_forces() -> None:
    bug = replace(PCI, findings=(replace(PCI.findings[0], forced=True),))
    todo = planned([bug], ["x86_64"], Status.LATENT)
    assert names(todo.patches["after"])[0] == PCI.findings[0].fix[0][0]
    assert todo.rows[0].claims[0].status == "latent"


def test_real_path_does_not_show_what_is_latent() -> None:
    test = replace(PCI.selftests[0], races=(), proof={UNLOCKED: ("a case",)})
    bug = replace(PCI, findings=(replace(PCI.findings[0], forced=True),), selftests=(test,))
    both = (Status.LATENT, Status.FIXED)
    claims = {status: [len(row.claims) for row in planned([bug], ["x86_64"], status).rows] for status in both}
    assert claims == {Status.LATENT: [1, 0], Status.FIXED: [1, 1]}


def test_suite_without_a_hook_leaves_the_others() -> None:
    other = replace(PCI.suites[0], name="other", hooks=("pci-cfg-wait/none.patch",))
    bug = replace(PCI, suites=(*PCI.suites, other))
    fits = frozenset(PATCHES / name for name in (*PCI.suites[0].hooks, *PCI.findings[0].reintroduce))
    todo = planned([bug], ["x86_64"], Status.FIXED, fits=fits)
    found = rows(todo, bug, "x86_64")
    assert found["other"].not_run == "no hook of KUnit suite other fits 6.12.1 (tried pci-cfg-wait/none.patch)"
    assert not found["pci_cfg_wait"].not_run and not found[FORCED].not_run
    assert "other" not in {boot.test for boot in boots(todo)}
    assert todo.targets[0].bugs == (replace(bug, suites=PCI.suites),)


def test_base_that_is_not_built_for_an_architecture() -> None:
    todo = planned([PCI], ["x86_64", "loongarch64"], base="linux-4.19.y")
    assert {row.not_run for row in todo.rows if row.arch == "loongarch64"} == {
        "linux-4.19.y is not built for loongarch64"
    }
    assert [target.arch.name for target in todo.targets] == ["x86_64"]


def test_tree_that_lacks_what_a_bug_needs() -> None:
    todo = planned([KVM], ["riscv64"], Status.FIXED, there=frozenset())
    assert reason(todo) == "no arch/riscv/kvm in 6.12.1"


def test_architecture_that_cannot_have_the_bug() -> None:
    todo = planned([KVM], ["arm64"], Status.FIXED)
    kunit = [row for row in todo.rows if row.kind == "kunit"]
    assert {row.not_run for row in kunit} == {"run it with: kmend verify --bug riscv-kvm-exit --arch riscv64"}


def test_control_is_booted_once_and_mended_alone() -> None:
    todo = planned([KVM], ["arm64", "riscv64"], Status.FIXED)
    controls = [row for row in todo.rows if row.control]
    assert controls and {row.arch for row in controls} == {"arm64"}
    for row in controls:
        assert row.states == ("after",) and not row.claims and not row.not_run
        test = next(test for test in KVM.selftests if row.suite.startswith(test.id))
        assert {boot.guest.cpus for boot in boots(todo, "arm64") if boot.row == row} == {test.guest.cpus[0]}
    # Where there are controls alone there is no kernel of before.
    (target,) = [target for target in todo.targets if target.arch.name == "arm64"]
    assert target.states == ["after"]


def test_small_kunit_leaves_the_kselftests_out() -> None:
    todo = planned(BOOK.bugs, ["loongarch64"], kunit="compat")
    assert {row.kind for row in todo.rows} == {"kunit"} and not any(target.programs for target in todo.targets)


def test_bug_on_its_test_bed() -> None:
    bed = Bed(PATCHES / "pci-cfg-wait/bed.patch", audited(PCI, Status.FIXED), frozenset())
    fits = frozenset(patch for choice in variants(bed.audited) for patch in choice)
    todo = planned([PCI], ["x86_64"], Status.NOT_APPLICABLE, beds={PCI.id: replace(bed, fits=fits)})
    assert names(todo.patches["before"])[:2] == ["pci-cfg-wait/bed.patch", PCI.findings[0].reintroduce[0]]
    assert names(todo.patches["after"])[0] == "pci-cfg-wait/bed.patch"
    assert todo.rows[0].testbed == ("pci-cfg-wait/bed.patch",) and todo.rows[0].claims[0].status == "fixed"
    for beds, says in (
        ({PCI.id: "no test bed fits"}, "no test bed fits"),
        ({PCI.id: bed}, "no hook of KUnit suite pci_cfg_wait fits"),
    ):
        todo = planned([PCI], ["x86_64"], Status.NOT_APPLICABLE, beds=beds)
        assert reason(todo).startswith(f"{UNLOCKED} is not-applicable; {says}")


# What is booted.


def test_rows_are_all_that_was_asked_for() -> None:
    todo = planned(BOOK.bugs, arches.names(), repeat=3)
    asked = [(bug.id, arch) for bug in BOOK.bugs for arch in arches.names()]
    assert list(dict.fromkeys((row.bug, row.arch) for row in todo.rows)) == asked
    for row in todo.rows:
        mine = [(boot.state, boot.number) for boot in boots(todo, row.arch) if boot.row == row]
        assert mine == [(state, number) for state in row.states for number in (1, 2, 3)]
    places = [boot.place for boot in boots(todo)]
    assert len(places) == len(set(places)) == len({boot.console for boot in boots(todo)})


def test_statuses_come_with_the_cases() -> None:
    todo = planned([PCI], ["x86_64"], Status.FIXED)
    found = rows(todo, PCI, "x86_64")
    (claim,) = found["pci_cfg_wait"].claims
    assert (claim.finding, claim.status, claim.cases) == (UNLOCKED, "fixed", PCI.suites[0].proof[UNLOCKED])
    (claim,) = found[FORCED].claims
    assert (claim.finding, claim.status, claim.cases) == (UNLOCKED, "fixed", ("unlocked-queue, forced",))


# Races.


def test_race_takes_the_place_of_what_luck_decides() -> None:
    found = rows(planned([PCI], ["x86_64"]), PCI, "x86_64")
    assert list(found) == ["pci_cfg_wait", FORCED] and found[FORCED].race == UNLOCKED
    tests = [boot.test for boot in boots(planned([PCI], ["x86_64"]))]
    assert sorted(tests) == ["pci:cfg_reset", "pci:cfg_reset", "pci_cfg_wait", "pci_cfg_wait"]


def test_race_alone_is_on_the_hosts_clock() -> None:
    """QEMU's stub stops a guest at the host's moments. Each further boot of a suite has the next seed."""
    todo = planned([PCI], ["loongarch64"], repeat=2, seed=7)
    found = {(boot.row.suite, boot.number): (boot.guest.timed, boot.guest.seed) for boot in boots(todo)}
    own = arches.load("loongarch64").timed
    assert own is not None
    assert found == {
        ("pci_cfg_wait", 1): (own, 7), ("pci_cfg_wait", 2): (own, 8), (FORCED, 1): (None, 7), (FORCED, 2): (None, 8),
    }  # fmt: skip


def test_on_a_farm_luck_decides() -> None:
    found = rows(planned([PCI], ["x86_64"], forced=False), PCI, "x86_64")
    assert list(found) == ["pci_cfg_wait", "pci:cfg_reset"]
    assert not found["pci:cfg_reset"].race and not found["pci:cfg_reset"].proof


def test_race_beside_what_proves() -> None:
    test = replace(PCI.selftests[0], proof={UNLOCKED: ("a case",)})
    found = rows(planned([replace(PCI, selftests=(test,))], ["x86_64"]), PCI, "x86_64")
    assert list(found) == ["pci_cfg_wait", "pci:cfg_reset", FORCED]
    assert found["pci:cfg_reset"].proof == ("a case",) and found[FORCED].proof == ("unlocked-queue, forced",)


def test_only_a_race_that_differs_between_the_states_is_forced() -> None:
    other = replace(PCI.findings[0], id="pci-cfg-wait/other")
    test = replace(PCI.selftests[0], races=(UNLOCKED, other.id))
    bug = replace(PCI, findings=(*PCI.findings, other), selftests=(test,))
    found = rows(planned([bug], ["x86_64"], {UNLOCKED: Status.AFFECTED, other.id: Status.UNKNOWN}), bug, "x86_64")
    assert list(found) == ["pci_cfg_wait", FORCED]
    neither = {UNLOCKED: Status.UNKNOWN, other.id: Status.UNKNOWN}
    assert list(rows(planned([bug], ["x86_64"], neither), bug, "x86_64")) == ["pci_cfg_wait", "pci:cfg_reset"]


def test_control_is_not_forced() -> None:
    test = replace(PCI.selftests[0], arches=("arm64",), controls=("x86_64",))
    found = rows(planned([replace(PCI, selftests=(test,))], ["x86_64", "arm64"]), PCI, "x86_64")
    assert list(found) == ["pci_cfg_wait", "pci:cfg_reset"] and found["pci:cfg_reset"].control


@pytest.mark.parametrize("name", arches.names())
def test_guest_of_a_suite(name: str) -> None:
    (boot, *_) = boots(planned([PCI], [name]))
    arch = arches.load(name)
    guest = boot.guest
    assert (guest.arch, guest.emulator, guest.machine) == (name, arch.qemu, tuple(arch.params.extra_qemu_params))
    assert (guest.kernel, guest.initrd, guest.load, guest.devices) == (KERNEL, (), (), ())
    line = " ".join(guest.words)
    assert line == (
        f"{arch.params.kernel_command_line} panic=-1 kunit.filter_glob=pci_cfg_wait kunit.enable=1"
        " kunit_shutdown=poweroff"
    )
    assert (guest.cpus, guest.memory, guest.limit) == (2, 1024, 120.0)


def test_guest_of_a_kselftest() -> None:
    todo = planned([PCI], ["x86_64"])
    guest = next(boot.guest for boot in boots(todo) if boot.test == "pci:cfg_reset")
    test = PCI.selftests[0]
    assert guest.devices == test.qemu and guest.initrd == (PROGRAMS,) and guest.limit == test.limit
    line = " ".join(guest.words)
    assert line.endswith(
        f"kunit.enable=0 kunit.filter_glob=none printk.devkmsg=on kmend.selftests=pci:cfg_reset"
        f" kmend.seconds={test.seconds}"
    )
    assert todo.targets[0].programs == ("pci:cfg_reset",) and todo.targets[0].has_init


def test_suite_in_a_module_is_loaded_by_init() -> None:
    needs = Guest((2, 4), 1024, {"arm64": "gic-version=3"}, {"arm64": ("kvm",)})
    suite = replace(PCI.suites[0], module="kvm", guest=needs)
    bug = replace(PCI, suites=(suite,), selftests=())
    todo = planned([bug], ["arm64", "x86_64"])
    assert list(rows(todo, bug, "arm64")) == ["pci_cfg_wait (2 CPUs)", "pci_cfg_wait (4 CPUs)"]
    two, four = [boot for boot in boots(todo, "arm64") if boot.state == "after"]
    assert (two.guest.cpus, four.guest.cpus, four.place) == (2, 4, "arm64-after-pci_cfg_wait-4-CPUs-1")
    assert two.guest.initrd == (PROGRAMS, MODULES) and two.guest.load == ("kvm",)
    assert two.guest.machine[:2] == ("-machine", "gic-version=3")
    # The kernel would power off before the module is there.
    assert "kunit_shutdown=poweroff" not in two.guest.words and two.guest.words[-1] == "printk.devkmsg=on"
    # On an architecture without the module the suite is built in.
    other = boots(todo, "x86_64")[0].guest
    assert other.initrd == () and other.load == () and other.words[-1] == "kunit_shutdown=poweroff"
    assert {target.arch.name: target.modules for target in todo.targets} == {"arm64": ("kvm",), "x86_64": ()}


def test_module_of_a_race_is_loaded_by_init() -> None:
    """Its symbols are looked up before the test begins, which would load it otherwise."""
    (test,) = [test for test in BOOK.bug("kvm-shadow").selftests if test.id == "kvm:ioeventfd_batch"]
    raced = replace(test, races=("kvm-shadow/shared-list",))
    for name, loaded in (("riscv64", ("kvm",)), ("x86_64", ("kvm-amd",)), ("arm64", ())):
        assert guest_of(raced, arches.load(name), 2).load == loaded
        assert guest_of(replace(test, races=()), arches.load(name), 2).load == ()


def test_base_changes_what_is_booted() -> None:
    plain = boots(planned([PCI], ["x86_64"]))[0].guest
    old = boots(planned([PCI], ["x86_64"], base="linux-4.19.y"))[0].guest
    assert old.machine != plain.machine or old.words != plain.words


def test_planning_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(what: str) -> Callable[..., None]:
        def refused(*words: object, **_: object) -> None:
            raise AssertionError(f"{what}: {words}")

        return refused

    # What the helper reads of the project itself is read before.
    planned(BOOK.bugs, arches.names())
    known = {name: arches.load(name) for name in arches.names()}
    monkeypatch.setattr(arches, "load", known.__getitem__)
    with monkeypatch.context() as patched:
        for owner, name in ((io, "open"), (subprocess, "Popen"), (Path, "open"), (Path, "stat"), (Path, "resolve")):
            patched.setattr(owner, name, refuse(name))
        whole, nothing = planned(BOOK.bugs, list(known)), planned(BOOK.bugs, list(known), fits=frozenset())
    assert whole.targets and any("tried" in row.not_run for row in nothing.rows)
