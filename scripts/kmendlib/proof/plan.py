# SPDX-License-Identifier: GPL-2.0-only
"""Plans a run: what is built, what is booted, and what is left out and why.  Nothing here reads or runs anything."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kmendlib.host.errors import BadInput
from kmendlib.run import STATES, Boot, Claim, GuestSpec, Row, race_case
from kmendlib.tree import bases, manifest, overlay
from kmendlib.tree.arches import Arch
from kmendlib.tree.audit import Audit, BugAudit, Status
from kmendlib.tree.bases import Base
from kmendlib.tree.manifest import PATCHES, Bug, Test

# Stand in a plan's guests for what the build of the boot's state makes: the image, the guest's programs, its modules.
KERNEL, PROGRAMS, MODULES = Path("kernel"), Path("initramfs.cpio"), Path("modules.cpio")


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        tree: the user's tree, or None for a base.
        base: the base's name, or None for the default one.
        bugs: the bugs to prove.
        arches: names of the architectures to boot.
        repeat: boots of each suite in each state.
        out: the evidence folder, or None for one in the cache.
        jobs: how much runs at once: jobs of make, and guests; 0 for as many as there are CPUs.
        kunit: ``own`` or ``compat`` where it is not to be as the base has it; the kselftests are left out then.
        forced: whether races are forced; a farm has no stub, so luck decides there.
        patches: the user's own fix, in place of kmend's.
        seed: the first boot's; each further one has the next.
    """

    tree: Path | None
    base: str | None
    bugs: tuple[Bug, ...]
    arches: tuple[str, ...]
    repeat: int = 1
    out: Path | None = None
    jobs: int = 0
    kunit: str = ""
    forced: bool = True
    patches: tuple[Path, ...] = ()
    seed: int = 1

    def command(self) -> str:
        """Return the command line that asks for the same."""
        words = ["scripts/kmend", "verify"]
        words += ["--tree", str(self.tree.resolve())] if self.tree else ["--base", self.base or bases.DEFAULT]
        whole = {bug.id: bug for bug in manifest.load().bugs}
        for bug in () if list(self.bugs) == list(whole.values()) else self.bugs:
            narrowed = bug.id not in whole or len(bug.findings) < len(whole[bug.id].findings)
            words += [word for id in ([f.id for f in bug.findings] if narrowed else [bug.id]) for word in ("--bug", id)]
        words += [word for patch in self.patches for word in ("--patch", str(patch.resolve()))]
        words += ["--arch", ",".join(self.arches)]
        words += ["--repeat", str(self.repeat)] if self.repeat > 1 else []
        words += ["--seed", str(self.seed)] if self.seed > 1 else []
        return shlex.join(words)


@dataclass(frozen=True)
class Bed:
    """A bug's test bed, laid on a tree: what brings the code that the bug is in, where the tree lacks it.

    Attributes:
        patch: the patch.
        audited: what the audit says of the bug with it on.
        fits: the patches that fit then.
    """

    patch: Path
    audited: BugAudit
    fits: frozenset[Path]


@dataclass(frozen=True)
class Facts:
    """What a plan has to know of the tree and of the machine.

    Attributes:
        version: the tree's.
        arches: those of the architectures asked for that the base is built for, as it is built.
        fits: of the patches in `variants`, those that fit the tree.
        there: the paths in the tree that a bug needs and that are there.
        beds: by a bug's id its test bed, or why it cannot be laid.
        hooks: the patches that put the small KUnit into the tree, if that is to be used.
        sources: its files: path in the tree to file.
    """

    version: str
    arches: Mapping[str, Arch]
    fits: frozenset[Path]
    there: frozenset[str] = frozenset()
    beds: Mapping[str, Bed | str] = field(default_factory=dict)
    hooks: tuple[Path, ...] = ()
    sources: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class BugPlan:
    """How a bug is shown in a tree.

    Attributes:
        bug: the bug, with the suites that can be built into the tree.
        statuses: what the audit says of each finding that differs between the states, by its id.
        patches: what each state gets, in order.
        left_out: why each other finding cannot be shown.
        unhooked: why each other suite cannot be built, by its name.
        testbed: what brings the code that the bug is in.
    """

    bug: Bug
    statuses: Mapping[str, Status]
    patches: Mapping[str, tuple[Path, ...]]
    left_out: tuple[str, ...] = ()
    unhooked: Mapping[str, str] = field(default_factory=dict)
    testbed: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Target:
    """One architecture's kernels, and what is booted of them.

    Attributes:
        arch: the architecture.
        bugs: whose suites and kselftests the kernels have to hold.
        modules: the kernel modules that guests are given.
        programs: the kselftests that they are given, as ``COLLECTION:NAME``.
        boots: the boots of all states.
    """

    arch: Arch
    bugs: tuple[Bug, ...]
    modules: tuple[str, ...]
    programs: tuple[str, ...]
    boots: tuple[Boot, ...]

    @property
    def states(self) -> list[str]:
        """The states of which a kernel is needed."""
        return [state for state in STATES if any(boot.state == state for boot in self.boots)]

    @property
    def has_init(self) -> bool:
        """Whether some guest has an initramfs."""
        return any(boot.guest.initrd for boot in self.boots)


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        rows: all that was asked for, with the reason where it is not run.
        patches: what each state gets, in order.
        sources: the files that both get: path in the tree to file.
        targets: what is built and booted.
    """

    rows: tuple[Row, ...]
    patches: Mapping[str, tuple[Path, ...]]
    sources: Mapping[str, Path]
    targets: tuple[Target, ...]


def variants(audited: BugAudit) -> list[tuple[Path, ...]]:
    """List what `plan` chooses from for a bug: of each of these the first patch that fits the tree."""
    lists = [suite.hook_paths for suite in audited.bug.suites]
    for finding, result in zip(audited.bug.findings, audited.findings, strict=True):
        if _is_put_back(result.status) and not result.fix and not result.covered:
            lists.append(finding.reintroduce_paths)
    return lists


def _called(patch: Path) -> str:
    return patch.relative_to(PATCHES).as_posix()


def _is_put_back(status: Status) -> bool:
    return status in (Status.FIXED, Status.LATENT)


def _first(choice: Sequence[Path], fits: frozenset[Path], what: str, version: str) -> Path:
    for patch in choice:
        if patch in fits:
            return patch
    tried = ", ".join(map(_called, choice)) or "none"
    raise BadInput(f"no {what} fits {version} (tried {tried})")


def plan_bug(audited: BugAudit, fits: frozenset[Path], version: str, testbed: tuple[Path, ...] = ()) -> BugPlan:
    """Find what of a bug can be shown in a tree, red and green.

    Args:
        audited: what the audit says of the bug there.
        fits: of the patches in `variants`, those that fit.
        version: the tree's version.
        testbed: what is on the tree already, on both states.

    Raises:
        BadInput: nothing can; says why.
    """
    hooks, unhooked = [], {}
    for suite in audited.bug.suites:
        try:
            hooks.append(_first(suite.hook_paths, fits, f"hook of KUnit suite {suite.name}", version))
        except BadInput as error:
            unhooked[suite.name] = str(error)
    bug = replace(audited.bug, suites=tuple(suite for suite in audited.bug.suites if suite.name not in unhooked))
    shown = {finding for test in bug.tests for finding in test.proof}
    fixes: list[Path] = []
    reintroduce: list[Path] = []
    statuses: dict[str, Status] = {}
    left_out: list[str] = []
    for finding, result in zip(bug.findings, audited.findings, strict=True):
        try:
            if result.unfit:
                raise BadInput(f"no fix of {finding.id} fits {version}: it cannot be verified")
            if result.status is Status.LATENT and not finding.forced:
                raise BadInput(f"{finding.id} is latent")
            if unhooked and finding.id not in shown:
                raise BadInput(", ".join(unhooked.values()))
            if result.fix:
                fixes += [PATCHES / name for name in result.fix]
            elif _is_put_back(result.status) and not result.covered:
                reintroduce.append(_first(finding.reintroduce_paths, fits, f"way back to {finding.id}", version))
            elif not result.covered:
                raise BadInput(f"{finding.id} is {result.status}")
            statuses[finding.id] = result.status
        except BadInput as error:
            left_out.append(str(error))
    why = tuple(dict.fromkeys(left_out))
    if not statuses:
        raise BadInput(", ".join(why))
    patches = {state: (*testbed, *change, *hooks) for state, change in zip(STATES, (reintroduce, fixes), strict=True)}
    return BugPlan(bug, statuses, patches, why, unhooked, testbed)


def _how(audited: BugAudit, facts: Facts) -> BugPlan | str:
    """Return how a bug is shown, on its test bed where it cannot be without; or why it cannot be."""
    bed = facts.beds.get(audited.id)
    try:
        return plan_bug(audited, facts.fits, facts.version)
    except BadInput as error:
        why = str(error)
    try:
        if isinstance(bed, Bed):
            return plan_bug(bed.audited, bed.fits, facts.version, (bed.patch,))
    except BadInput as error:
        bed = str(error)
    return f"{why}; {bed}" if bed else why


def plan(audit: Audit, request: Request, base: Base, facts: Facts) -> Plan:
    """Say what is built, what is booted, and what is left out and why.

    Args:
        audit: what the audit says of the tree, with fixes for what is latent, too.
        request: what the user asked for.
        base: the line of trees that the tree is of.
        facts: what there is to know of the tree.
    """
    hows = {audited.id: _how(audited, facts) for audited in audit.bugs}
    chosen = {id: how for id, how in hows.items() if isinstance(how, BugPlan)}

    def not_run(bug: Bug, test: Test, arch: str, control: bool) -> str:
        how = hows[bug.id]
        if isinstance(how, str):
            return how
        if arch not in facts.arches:
            return f"{base.name} is not built for {arch}"
        needed = bug.needs.format(arch=facts.arches[arch].folder)
        if needed and needed not in facts.there:
            return f"no {needed} in {facts.version}"
        if test.id in how.unhooked:
            return how.unhooked[test.id]
        where = test.arches or bug.arches
        return "" if control or arch in where else f"run it with: kmend verify --bug {bug.id} --arch {where[0]}"

    rows: list[Row] = []
    boots: list[Boot] = []
    modules: dict[str, set[str]] = {arch: set() for arch in request.arches}
    for bug, arch in itertools.product(request.bugs, request.arches):
        how = chosen.get(bug.id)
        for test in bug.suites if request.kunit else bug.tests:
            control = arch in test.controls and arch not in (test.arches or bug.arches)
            statuses = how.statuses if how and not control else {}
            forced = [id for id in test.races if id in statuses and request.forced]
            # What is latent nothing but a suite makes happen.
            shown = {id for id in statuses if test.kind == "kunit" or statuses[id] is not Status.LATENT}
            # What luck alone would decide is not booted where it can be forced.
            races = forced if forced and not test.proof else ["", *forced]
            for race, cpus in itertools.product(races, test.guest.cpus[:1] if control else test.guest.cpus):
                proof: Mapping[str, tuple[str, ...]] = {race: (race_case(race),)} if race else test.proof
                kind = race.partition("/")[2] or (f"{cpus} CPUs" if len(test.guest.cpus) > 1 else "")
                row = Row(
                    bug.id,
                    arch,
                    f"{test.id} ({kind})" if kind else test.id,
                    test.kind,
                    tuple(Claim(id, str(statuses[id]), cases) for id, cases in proof.items() if id in shown),
                    request.repeat,
                    control,
                    how.left_out if how else (),
                    tuple(map(_called, how.testbed)) if how else (),
                    not_run(bug, test, arch, control),
                    race,
                )
                rows.append(row)
                if row.states:
                    modules[arch].update(test.guest.modules.get(arch, ()))
                    guest = guest_of(test, facts.arches[arch], cpus)
                    # QEMU's stub stops a guest at the host's moments.
                    timed = None if race else facts.arches[arch].timed
                    seeds = range(request.seed, request.seed + row.boots)
                    seeded = [replace(guest, timed=timed, seed=seed) for seed in seeds]
                    boots += [Boot(row, state, n, test.id, g) for state in row.states for n, g in enumerate(seeded, 1)]
    targets = []
    for name, built in facts.arches.items():
        mine = tuple(boot for boot in boots if boot.row.arch == name)
        here = {boot.row.bug for boot in mine}
        programs = {boot.test for boot in mine if boot.row.kind == "kselftest"}
        bugs = tuple(how.bug for how in chosen.values() if how.bug.id in here)
        if mine:
            targets.append(Target(built, bugs, tuple(sorted(modules[name])), tuple(sorted(programs)), mine))
    patches = {
        state: (*(patch for how in chosen.values() for patch in how.patches[state]), *facts.hooks) for state in STATES
    }
    suites = [suite for how in chosen.values() for suite in how.bug.suites]
    sources = {path: file for suite in suites for path, file in overlay.suite(suite).items()}
    return Plan(tuple(rows), patches, sources | dict(facts.sources), tuple(targets))


def guest_of(test: Test, arch: Arch, cpus: int) -> GuestSpec:
    """Return the guest for a test; its files are stood for by `KERNEL`, `PROGRAMS` and `MODULES`."""
    needs = test.guest
    given = arch.name in needs.modules
    # Several -machine options are merged, and a base may take back what a test asks for.
    machine = ("-machine", needs.machine[arch.name]) if arch.name in needs.machine else ()
    load = (test.module,) if test.module and given else ()
    if test.races:
        # The symbols that a race needs are those of a module that is there.
        load = needs.modules.get(arch.name, ())
    has_init = test.kind == "kselftest" or bool(load)
    words = [arch.params.kernel_command_line, "panic=-1", *needs.parameters, *test.words]
    if test.kind == "kunit":
        # One in a module runs when the guest's init loads it, and init powers off.
        words.append("printk.devkmsg=on" if load else "kunit_shutdown=poweroff")
    return GuestSpec(
        arch.name,
        arch.qemu,
        (*machine, *arch.params.extra_qemu_params),
        cpus,
        needs.memory,
        KERNEL,
        tuple(words),
        ((PROGRAMS, MODULES) if given else (PROGRAMS,)) if has_init else (),
        load,
        test.qemu,
        float(test.limit),
    )
