# SPDX-License-Identifier: GPL-2.0-only
"""Proves the bugs: walks a plan, builds each kernel as it is with the bug and mended, and has both booted."""

import concurrent.futures
import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kmendlib.host import proc, setup
from kmendlib.host.errors import BadInput
from kmendlib.host.progress import Display
from kmendlib.proof import build, evidence, guest, ktap, race
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.jobs import GUEST_EXTRA, Jobs
from kmendlib.proof.plan import MODULES, PROGRAMS, Bed, Facts, Plan, Request, Target, plan, plan_bug, variants
from kmendlib.run import ORIGIN, SHIPPED, STATES, Boot, BootResult, Build, GuestSpec, Run
from kmendlib.tree import arches, bases, overlay, own, series, source
from kmendlib.tree.apply import refuse_prepared
from kmendlib.tree.audit import BugAudit, audit
from kmendlib.tree.bases import Base
from kmendlib.tree.manifest import PATCHES, Bug
from kmendlib.tree.tree import Tree


@dataclass(frozen=True)
class Bench:
    """What all boots of a run share.

    Attributes:
        workspace: the tree's place in the cache.
        tools: the default base's tree, whose nolibc and KTAP parser serve all trees.
        parse: that parser.
        evidence: takes the results.
        jobs: the budget.
        display: where progress is shown.
    """

    workspace: source.Workspace
    tools: Path
    parse: ktap.Parser
    evidence: Evidence
    jobs: Jobs
    display: Display


# Takes a boot whose kernel is built, and the id of that; called from several threads at once.
Consumer = Callable[[Bench, Boot, str], None]


def boot_here(bench: Bench, boot: Boot, kernel: str) -> None:
    """Boot on QEMU and record the verdict."""
    bench.evidence.add(result_of(bench, boot, kernel))


def result_of(bench: Bench, boot: Boot, kernel: str, known: Mapping[str, tuple[int, int]] | None = None) -> BootResult:
    """Boot on QEMU, with its race if it has one, and return what came of it; `known` as for `race.force`."""
    console = bench.evidence.folder / boot.console
    forced = None
    # While a debugger holds one vCPU the others go on in the host's time: none of them may lack a CPU.
    jobs = boot.guest.cpus if boot.row.race else 1
    with bench.jobs.slot(boot.guest.memory + GUEST_EXTRA, jobs):
        start = evidence.now()
        if boot.row.race:
            # Of a kernel that was shipped nothing else is asked in that boot.
            whole = boot.state != SHIPPED
            ending, forced = race.force(boot.guest, boot.row.race, console, known, whole)
        else:
            with guest.ready(boot.guest) as words:
                ending = guest.boot(words, console, guest.limit(boot.guest))
            if boot.guest.timed is not None and guest.LOSES_COUNT in ending.qemu_stderr:
                # The host's clock is all that is left.
                boot = replace(boot, guest=replace(boot.guest, timed=None))
                with guest.ready(boot.guest) as words:
                    ending = guest.boot(words, console, guest.limit(boot.guest))
    judged = ktap.judge_row(ending, boot.row, boot.test, bench.parse)
    judged = race.judge(judged, forced) if forced else judged
    result = boot.result(ending, judged, kernel, start, forced)
    if boot.guest.timed is not None:
        inputs = guest.inputs(boot.guest, bench.evidence.run.qemu[boot.row.arch])
        result = replace(result, inputs=inputs, printed=hashlib.sha256(evidence.said(console)).hexdigest())
    return result


def _fitting(tree: Path, choices: Iterable[Sequence[Path]]) -> frozenset[Path]:
    """Return of each choice the first patch that fits a tree."""
    found = (next((patch for patch in choice if series.fits(tree, patch)), None) for choice in choices)
    return frozenset(patch for patch in found if patch)


def lay_bed(tree: Tree, bug: Bug, scratch: Path) -> Bed:
    """Lay a bug's test bed on a copy of the files that matter, and audit it.

    Args:
        tree: the tree.
        bug: a bug with a test bed.
        scratch: an empty folder; it gets the files.

    Raises:
        BadInput: none fits.
    """
    beds = [PATCHES / name for name in bug.testbed]
    patch = next(iter(_fitting(tree.path, [beds])), None)
    if not patch:
        raise BadInput(f"no test bed of {bug.id} fits {tree.version} (tried {', '.join(bug.testbed)})")
    series.materialize(tree.path, [patch], scratch)
    names = {name for finding in bug.findings for name in (*finding.files, *finding.context)}
    names |= {name for other in bug.patches for name in series.touched_files(PATCHES / other)}
    for name in names:
        if (tree.path / name).is_file() and not (scratch / name).exists():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree.path / name, scratch / name)
    laid = Tree(scratch.resolve(), tree.version, tree.extraversion)
    (audited,) = audit(laid, [bug], latent=True).bugs
    return Bed(patch, audited, _fitting(laid.path, variants(audited)))


def look(tree: Tree, bugs: Sequence[BugAudit], known: Mapping[str, arches.Arch], kunit: str, scratch: Path) -> Facts:
    """Find out what a plan has to know.

    Args:
        tree: the private copy of the tree.
        bugs: what the audit says of the bugs there.
        known: the architectures, as the base builds them.
        kunit: ``own`` or ``compat``.
        scratch: an empty folder.

    Raises:
        BadInput: the small KUnit is to be used and does not fit.
    """
    version = str(tree.version)
    hooks, sources = overlay.compat(tree) if kunit == "compat" else ([], {})
    needed = {audited.bug.needs.format(arch=arch.folder) for audited in bugs for arch in known.values()}
    there = frozenset(name for name in needed if (tree.path / name).exists())
    fits = _fitting(tree.path, (choice for audited in bugs for choice in variants(audited)))
    beds: dict[str, Bed | str] = {}
    for audited in bugs:
        try:
            if audited.bug.testbed:
                plan_bug(audited, fits, version)
        except BadInput:
            try:
                beds[audited.id] = lay_bed(tree, audited.bug, scratch / audited.id)
            except BadInput as error:
                beds[audited.id] = str(error)
    return Facts(version, known, fits, there, beds, tuple(hooks), sources)


def make_stages(tree: Tree, todo: Plan, scratch: Path) -> list[str]:
    """Make the files of both states that differ from the tree, in a folder of the state's name.

    Args:
        tree: the private copy of the tree.
        todo: the plan.
        scratch: an empty folder.

    Returns:
        The paths of all those files, in the tree.

    Raises:
        BadInput: patches that fit each alone do not fit together.
    """
    changed = set(todo.sources)
    for state in STATES:
        try:
            changed |= set(series.materialize(tree.path, todo.patches[state], scratch / state))
        except series.DoesNotFit as error:
            raise BadInput(f"the patches of {state} do not fit {tree.version} together: {error}") from None
        for path, file in todo.sources.items():
            (scratch / state / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, scratch / state / path)
    return sorted(changed)


@dataclass(frozen=True)
class Kernel:
    """A kernel that was built, and what its guests get.

    Attributes:
        id: its id in the evidence.
        image: the image.
        programs: the archive with the guest's init and kselftests, which may still be in the making; None without.
        modules: the same with its modules, or None.
        order: their files in the order in which they can be loaded.
    """

    id: str
    image: Path
    programs: concurrent.futures.Future[Path] | None
    modules: Path | None
    order: tuple[str, ...] = ()

    def guest(self, spec: GuestSpec) -> GuestSpec:
        """Return a planned guest with the files in place of what stands for them."""
        initrd: tuple[Path, ...] = ()
        if spec.initrd and self.programs:
            initrd = (self.modules if MODULES in spec.initrd and self.modules else self.programs.result(),)
        words = spec.words
        if spec.load:
            wanted = {name.replace("-", "_") + ".ko" for name in spec.load}
            last = max(place for place, name in enumerate(self.order) if name.replace("-", "_") in wanted)
            words += ("kmend.modules=" + ",".join(self.order[: last + 1]),)
        return replace(spec, kernel=self.image, initrd=initrd, words=words)


@dataclass(frozen=True)
class Prepared:
    """A plan that can be walked.

    Attributes:
        bench: what its boots share.
        plan: the plan.
        stages: a folder with the files of each state, as `make_stages` makes them.
        changed: their paths.
    """

    bench: Bench
    plan: Plan
    stages: Path
    changed: Sequence[str]


class Walk:
    """Walks a plan: an architecture's builds one after the other, all boots beside them, as far as the budget goes."""

    def __init__(self, bench: Bench, scratch: Path, changed: Sequence[str], consume: Consumer) -> None:
        """Walk with what `make_stages` made in a folder, and with a consumer that takes the boots."""
        self.bench = bench
        self.scratch = scratch
        self.changed = changed
        self.consume = consume
        self.builds = concurrent.futures.ThreadPoolExecutor()
        self.boots = concurrent.futures.ThreadPoolExecutor(max_workers=bench.jobs.count)
        self.pending: list[concurrent.futures.Future[None]] = []
        self.booted: dict[str, int] = {}

    def go(self, targets: Iterable[Target]) -> None:
        """Build and boot all; raise what one of the threads raised."""
        self.pending += [self.builds.submit(self.target, target) for target in targets]
        done: set[concurrent.futures.Future[None]] = set()
        # A build hands its boots on before it is done.
        while waiting := set(self.pending) - done:
            ended, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                future.result()
            done |= ended

    def abandon(self) -> None:
        """Stop what still runs, at once."""
        # What waits in line is called off first, so that none of it begins while the others end.
        for pool in (self.builds, self.boots):
            pool.shutdown(wait=False, cancel_futures=True)
        proc.stop()
        for pool in (self.builds, self.boots):
            pool.shutdown(wait=True)
        proc.stopping.clear()
        self.bench.jobs.close()

    def lay_out(self, target: Target) -> tuple[Sequence[str], concurrent.futures.Future[Path] | None]:
        """Lay out an architecture's source folder, and begin to make what its guests start with.

        Returns:
            The paths that `source.install` is to care for, and the archive with the guest's programs, if one has them.
        """
        bench, arch = self.bench, target.arch
        (bench.evidence.folder / arch.name).mkdir(parents=True, exist_ok=True)
        bench.display.update(arch.name, "copy")
        changed = source.link_arch(bench.workspace, arch.name, self.changed)
        if not target.has_init:
            return changed, None
        # First in the boots' queue, so that it is made while the kernel compiles.
        kept = bench.workspace.root / arch.name / PROGRAMS.name
        return changed, self.boots.submit(build.initramfs, bench.tools, arch, target.programs, bench.jobs, kept)

    def target(self, target: Target) -> None:
        """Build an architecture's kernels; each one's boots are handed on, so that they overlap with the next build."""
        bench, arch = self.bench, target.arch
        changed, programs = self.lay_out(target)
        memory = bench.workspace.root / arch.name / "state"
        last = memory.read_text(encoding="utf-8") if memory.exists() else "after"
        # The kernel of the state that the last run left in the source folder needs no rebuild.
        for state in sorted(target.states, key=lambda state: state != last):
            source.install(bench.workspace, arch.name, self.scratch / state, changed)
            memory.write_text(state, encoding="utf-8")
            kernel = self.build(target, state, programs)
            for boot in target.boots:
                if boot.state != state:
                    continue
                if kernel:
                    self.pending.append(self.boots.submit(self.boot, target, boot, kernel))
                else:
                    self.booted[arch.name] = self.booted.get(arch.name, 0) + 1

    def build(self, target: Target, state: str, programs: concurrent.futures.Future[Path] | None) -> Kernel | None:
        """Build the kernel of the state that is installed, and record it; None if it does not build."""
        bench, arch = self.bench, target.arch
        folder = bench.evidence.folder / arch.name
        log = folder / "build.log"
        identity = bench.evidence.run.build_id(arch.name, state)
        record = Build(identity, arch.name, start=evidence.now(), log=f"{arch.name}/build.log")
        modules: tuple[Path | None, tuple[str, ...]] = None, ()

        def compiled(done: int, total: int | None) -> None:
            bench.display.update(arch.name, f"compile {state}", done, total)

        try:
            bench.display.update(arch.name, "configure")
            seconds = build.configure(bench.workspace, arch, target.bugs, log, bench.jobs)
            done = replace(record, config=f"{arch.name}/config", seconds={"configure_seconds": round(seconds, 3)})
            more = bool(target.modules)
            done = build.kernel(bench.workspace, arch, state, log, bench.jobs, compiled, done, modules=more)
            if programs and target.modules:
                archive = programs.result()
                modules = build.module_archive(bench.workspace, arch, state, target.modules, archive)
        except build.BuildError as error:
            bench.display.say(f"{arch.name}: {state}: no kernel: {error}")
            bench.evidence.add(replace(record, error=str(error)))
            return None
        shutil.copyfile(bench.workspace.build(arch.name) / ".config", folder / "config")
        bench.evidence.add(done)
        return Kernel(identity, build.image(bench.workspace, arch, state), programs, *modules)

    def boot(self, target: Target, boot: Boot, kernel: Kernel) -> None:
        """Hand a boot to the consumer."""
        ready = replace(boot, guest=kernel.guest(boot.guest))
        arch = target.arch.name
        self.booted[arch] = self.booted.get(arch, 0) + 1
        self.bench.display.update(arch, f"test {boot.state} {boot.row.suite}", self.booted[arch], len(target.boots))
        self.consume(self.bench, ready, kernel.id)


def _open(request: Request, display: Display) -> tuple[Tree | None, Base, source.Workspace]:
    """Return the user's tree, if there is one, the base, and the workspace."""
    if not request.tree:
        base = bases.get(request.base or bases.DEFAULT)
        return None, base, source.base_workspace(base.name)
    tree = Tree.open(request.tree, need_makefile=True)
    refuse_prepared(tree)
    base, why = bases.nearest(tree)
    display.say(f"{tree.path}: nearest base: {base.name}: {why}")
    return tree, base, source.tree_workspace(tree)


def emulator_version(emulator: str) -> str:
    """Return the first line of what an emulator says of its version."""
    return (proc.output([emulator, "--version"]) or "missing").splitlines()[0]


@contextlib.contextmanager
def prepared(request: Request, display: Display) -> Iterator[Prepared]:
    """Plan what was asked for, and hold the tree's workspace.

    Args:
        request: what to prove.
        display: where progress is shown.

    Raises:
        BadInput: the request cannot be met; says why.
        Infrastructure: the host lacks something; says what.
    """
    setup.ensure(display.say)
    user_tree, base, workspace = _open(request, display)
    kunit = request.kunit or base.kunit
    known = {name: base.adapt(arches.load(name)) for name in request.arches if base.has(name)}
    setup.ensure(display.say, [build.compiler(arch) for arch in known.values()])
    default = source.base_workspace(bases.DEFAULT)
    with contextlib.ExitStack() as stack:
        # An old KTAP parser misses what is wrong with a plan, so the default base's serves all trees.
        tools = source.read_base(default, display.say)
        stack.enter_context(source.locked(workspace))
        source.need_space(workspace, request.arches)
        copy = source.copy_tree(workspace, user_tree, display.say) if user_tree else None
        tree = copy or (tools if workspace == default else source.fetch_base(workspace, display.say))
        parse = ktap.parser_for(tools.path)
        name = str(request.tree or workspace.name)
        if request.patches:
            audited = own.mended(tree, request.bugs, request.patches, display.say)
            request = replace(request, bugs=tuple(each.bug for each in audited.bugs))
        else:
            audited = audit(tree, request.bugs, latent=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kmend-")))
        todo = plan(audited, request, base, look(tree, audited.bugs, known, kunit, scratch))
        changed = make_stages(tree, todo, scratch)
        folder = evidence.new_folder(request.out)
        run = Run(
            f"{ORIGIN}:{folder.name}",
            f"{name} ({tree.version})",
            todo.rows,
            tree=workspace.name,
            start=evidence.now(),
            base=base.name,
            kunit=kunit,
            command=request.command(),
            qemu={arch.name: emulator_version(arch.qemu) for arch in known.values()},
        )
        kept = Evidence(folder, run)
        kept.add_audit(audited.to_json() | {"tree": name}, tree.path)
        for state in STATES:
            kept.add_patches(state, todo.patches[state])
        yield Prepared(Bench(workspace, tools.path, parse, kept, Jobs(request.jobs), display), todo, scratch, changed)


def verify(request: Request, display: Display, consume: Consumer = boot_here) -> Evidence:
    """Prove the bugs that were asked for, and leave the evidence.

    Args:
        request: what to prove.
        display: where progress is shown.
        consume: takes the boots.

    Raises:
        BadInput: the request cannot be met; says why.
        Infrastructure: the host lacks something; says what.
    """
    started = time.monotonic()
    with prepared(request, display) as ready:
        walk = Walk(ready.bench, ready.stages, ready.changed, consume)
        try:
            walk.go(ready.plan.targets)
        finally:
            walk.abandon()
    kept = ready.bench.evidence
    kept.update(seconds={"total": round(time.monotonic() - started, 1)}, same=evidence.compare(kept.folder, kept.run))
    kept.seal()
    return kept
