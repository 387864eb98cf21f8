# SPDX-License-Identifier: GPL-2.0-only
"""Proves the bugs: builds each kernel as it is with the bug and mended, boots both, and keeps the evidence."""

import concurrent.futures
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from kmendlib.host import proc, setup
from kmendlib.host.errors import BadInput, ExitCode
from kmendlib.host.progress import Display
from kmendlib.proof import build, evidence, guest, ktap
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.jobs import GUEST_EXTRA, Jobs
from kmendlib.show import report
from kmendlib.tree import arches, bases, manifest, overlay, series, source
from kmendlib.tree.apply import refuse_prepared
from kmendlib.tree.audit import BugAudit, Status, audit
from kmendlib.tree.manifest import PATCHES, Bug, Guest
from kmendlib.tree.tree import Tree

STATES = ("before", "after")
# Seconds from power-on: measured boots take 2 to 20, and limits stretch with the host's load.
KUNIT_LIMIT = 120.0


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
    """

    tree: Path | None
    base: str | None
    bugs: tuple[Bug, ...]
    arches: tuple[str, ...]
    repeat: int
    out: Path | None
    jobs: int = 0
    kunit: str = ""

    def command(self) -> str:
        """Return the command line that asks for the same."""
        words = ["scripts/kmend", "verify"]
        words += ["--tree", str(self.tree.resolve())] if self.tree else ["--base", self.base or bases.DEFAULT]
        whole = {bug.id: bug for bug in manifest.load().bugs}
        for bug in () if list(self.bugs) == list(whole.values()) else self.bugs:
            narrowed = bug.id not in whole or len(bug.findings) < len(whole[bug.id].findings)
            words += [word for id in ([f.id for f in bug.findings] if narrowed else [bug.id]) for word in ("--bug", id)]
        words += ["--arch", ",".join(self.arches)]
        words += ["--repeat", str(self.repeat)] if self.repeat > 1 else []
        return shlex.join(words)


@dataclass(frozen=True)
class Suite:
    """One boot's worth of tests: a KUnit suite or a kselftest, of one bug.

    Attributes:
        bug: the bug's id.
        kind: ``kunit`` or ``kselftest``.
        name: as KTAP prints it.
        label: what tells it from the bug's other boots: the name, and the number of CPUs where it runs with several.
        proof: the cases that must be red on before.
        words: words of the kernel command line.
        devices: values for QEMU's ``-device``.
        limit: wall time in seconds.
        module: the module that a KUnit suite is in where its guest has modules, or empty.
        needs: what the guest needs.
        cpus: how many CPUs it has.
        arches: architectures that can show the bug with it.
        controls: others where it must be green, or say why it is skipped.
    """

    bug: str
    kind: str
    name: str
    label: str
    proof: tuple[str, ...]
    words: tuple[str, ...]
    devices: tuple[str, ...]
    limit: float
    module: str
    needs: Guest
    cpus: int
    arches: tuple[str, ...]
    controls: tuple[str, ...]

    def in_module(self, arch: str) -> bool:
        """Tell whether it is part of a module on an architecture; elsewhere the module's code is built in."""
        return bool(self.module) and arch in self.needs.modules

    @property
    def file(self) -> str:
        """The label as a part of a file's name."""
        return re.sub(r"\W+", "-", self.label).strip("-")

    @property
    def path(self) -> str:
        """The test's path in KCIDB."""
        return f"{self.kind}.{self.file.replace('-', '.')}"


def suites(bug: Bug, findings: Collection[str]) -> list[Suite]:
    """List a bug's suites in the order in which they are booted.

    Args:
        bug: the bug.
        findings: ids of the findings that *before* has: only their proof can be asked for.
    """
    found = []

    def add(
        kind: str,
        name: str,
        words: tuple[str, ...],
        limit: float,
        test: manifest.Suite | manifest.Selftest,
        module: str = "",
        devices: tuple[str, ...] = (),
        controls: tuple[str, ...] = (),
        where: tuple[str, ...] = (),
    ) -> None:
        proof = tuple(case for finding, cases in test.proof.items() if finding in findings for case in cases)
        for cpus in test.guest.cpus:
            label = name if len(test.guest.cpus) == 1 else f"{name} ({cpus} CPUs)"
            found.append(
                Suite(
                    bug.id,
                    kind,
                    name,
                    label,
                    proof,
                    words,
                    devices,
                    limit,
                    module,
                    test.guest,
                    cpus,
                    where or bug.arches,
                    controls,
                )
            )

    for suite in bug.suites:
        on_boot = (f"kunit.filter_glob={suite.name}", "kunit.enable=1")
        add("kunit", suite.name, on_boot, KUNIT_LIMIT, suite, suite.module)
    for test in bug.selftests:
        run = (f"kmend.selftests={test.id}", f"kmend.seconds={test.seconds}")
        # No suite has this name: one in a module would print its plan into the kselftest's whenever it is loaded.
        words = ("kunit.enable=0", "kunit.filter_glob=none", "printk.devkmsg=on", *run)
        add("kselftest", test.id, words, test.limit, test, "", test.qemu, test.controls, test.arches)
    return found


@dataclass(frozen=True)
class States:
    """The two states of a tree.

    Attributes:
        patches: the patches of each state, in order.
        stages: folder of each state with the files that differ from the tree.
        changed: the paths of all those files.
    """

    patches: dict[str, list[Path]]
    stages: dict[str, Path]
    changed: list[str]


def _fitting(tree: Tree, variants: Sequence[Path], what: str) -> Path:
    for variant in variants:
        if series.fits(tree.path, variant):
            return variant
    tried = ", ".join(map(series.patch_name, variants)) or "none"
    raise BadInput(f"no {what} fits {tree.version} (tried {tried})")


@dataclass(frozen=True)
class Provable:
    """What can be proved of a bug in a tree.

    Attributes:
        bug: the bug, with the suites that can be built into the tree.
        findings: ids of the findings that differ between the states.
        fixes: what mends the affected ones.
        reintroduce: what puts the fixed ones back.
        hooks: what builds the suites into the tree.
        left_out: why each other finding cannot be shown.
        unhooked: why each other suite cannot be built, by its name.
        testbed: what brings the code that the bug is in, where the tree lacks it.
    """

    bug: Bug
    findings: tuple[str, ...]
    fixes: tuple[Path, ...]
    reintroduce: tuple[Path, ...]
    hooks: tuple[Path, ...]
    left_out: tuple[str, ...]
    unhooked: dict[str, str]
    testbed: tuple[Path, ...] = ()


def provable(tree: Tree, said: BugAudit) -> Provable:
    """Find what of a bug can be shown in a tree, red and green.

    Args:
        tree: the tree.
        said: what the audit said of the bug there.

    Raises:
        BadInput: nothing can; says why.
    """
    hooks, unhooked = [], {}
    for suite in said.bug.suites:
        try:
            hooks.append(_fitting(tree, suite.hook_paths, f"hook of KUnit suite {suite.name}"))
        except BadInput as error:
            unhooked[suite.name] = str(error)
    bug = replace(said.bug, suites=tuple(suite for suite in said.bug.suites if suite.name not in unhooked))
    proofs = [suite.proof for suite in bug.suites] + [test.proof for test in bug.selftests]
    shown = {finding for proof in proofs for finding in proof}
    fixes, reintroduce, findings, left_out = [], [], [], []
    for finding, result in zip(bug.findings, said.findings, strict=True):
        try:
            if result.unfit:
                raise BadInput(f"no fix of {finding.id} fits {tree.version}: it cannot be verified")
            if result.status is Status.LATENT and not finding.forced:
                raise BadInput(f"{finding.id} is latent")
            if unhooked and finding.id not in shown:
                raise BadInput(", ".join(unhooked.values()))
            if result.fix:
                fixes += [PATCHES / name for name in result.fix]
            elif result.covered:
                pass
            elif result.status in (Status.FIXED, Status.LATENT):
                reintroduce.append(_fitting(tree, finding.reintroduce_paths, f"way back to {finding.id}"))
            else:
                raise BadInput(f"{finding.id} is {result.status}")
            findings.append(finding.id)
        except BadInput as error:
            left_out.append(str(error))
    if not findings:
        raise BadInput(", ".join(dict.fromkeys(left_out)))
    return Provable(
        bug, tuple(findings), tuple(fixes), tuple(reintroduce), tuple(hooks), tuple(dict.fromkeys(left_out)), unhooked
    )


def on_testbed(tree: Tree, bug: Bug, scratch: Path) -> Provable:
    """Find what of a bug can be shown in a tree once its test bed is laid.

    Args:
        tree: the tree.
        bug: a bug with a test bed.
        scratch: an empty folder; it gets the files that matter, with the test bed on.

    Raises:
        BadInput: nothing can; says why.
    """
    testbed = _fitting(tree, [PATCHES / name for name in bug.testbed], f"test bed of {bug.id}")
    series.materialize(tree.path, [testbed], scratch)
    names = {name for finding in bug.findings for name in (*finding.files, *finding.context)}
    names |= {name for patch in bug.patches for name in series.touched_files(PATCHES / patch)}
    for name in names:
        if (tree.path / name).is_file() and not (scratch / name).exists():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree.path / name, scratch / name)
    laid = Tree(scratch.resolve(), tree.version, tree.extraversion)
    (said,) = audit(laid, [bug], latent=True).bugs
    return replace(provable(laid, said), testbed=(testbed,))


def make_states(tree: Tree, bugs: Sequence[Provable], scratch: Path, compat: bool = False) -> States:
    """Make the files of both states, beside the tree.

    Args:
        tree: the private copy of the tree.
        bugs: what is to be proved.
        scratch: an empty folder.
        compat: with the small KUnit in place of the tree's.

    Raises:
        BadInput: patches that fit each alone do not fit together.
    """
    patches: dict[str, list[Path]] = {state: [] for state in STATES}
    sources: dict[str, Path] = {}
    for bug in bugs:
        for state in STATES:
            patches[state] += bug.testbed
        patches["before"] += bug.reintroduce
        patches["after"] += bug.fixes
        for state in STATES:
            patches[state] += bug.hooks
        for suite in bug.bug.suites:
            sources |= overlay.suite(suite)
    if compat:
        hooks, files = overlay.compat(tree)
        sources |= files
        for state in STATES:
            patches[state] += hooks
    stages = {}
    changed = set(sources)
    for state in STATES:
        stages[state] = scratch / state
        try:
            changed |= set(series.materialize(tree.path, patches[state], stages[state]))
        except series.DoesNotFit as error:
            raise BadInput(f"the patches of {state} do not fit {tree.version} together: {error}") from None
        for path, file in sources.items():
            (stages[state] / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, stages[state] / path)
    return States(patches, stages, sorted(changed))


class Way:
    """One architecture's way through configuration, builds and boots."""

    def __init__(self, run: "_Run", arch: arches.Arch) -> None:
        self.run = run
        self.arch = arch
        self.folder = run.evidence.folder / arch.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.boots = 0
        self.booted = 0

    def states_in_order(self) -> list[str]:
        """Start with the state that the last run left in the source folder: its kernel needs no rebuild."""
        memory = self.run.workspace.root / self.arch.name / "state"
        last = memory.read_text(encoding="utf-8") if memory.exists() else "after"
        return sorted(STATES, key=lambda state: state != last)

    def go(self) -> None:
        """Build both states; each build's boots are handed on, so that they overlap with the next build."""
        run, arch = self.run, self.arch
        wanted = {
            state: [suite for suite in run.suites if (suite.bug, suite.label, arch.name, state) in run.shown]
            for state in STATES
        }
        both = [suite for state in STATES for suite in wanted[state]]
        bugs = [bug for bug in run.bugs if any(suite.bug == bug.id for suite in both)]
        modules = sorted({name for suite in both for name in suite.needs.modules.get(arch.name, ())})
        self.boots = sum(map(len, wanted.values())) * run.request.repeat
        run.display.update(arch.name, "copy")
        changed = source.link_arch(run.workspace, arch.name, run.states.changed)
        tests = sorted({suite.name for suite in both if suite.kind == "kselftest"})
        needed = bool(tests) or any(suite.in_module(arch.name) for suite in both)
        # First in the boots' queue, so that it is made while the kernel compiles.
        initrd = run.boots.submit(build.initramfs, run.tools, arch, tests, run.jobs) if needed else None
        log = self.folder / "build.log"
        for state in filter(wanted.get, self.states_in_order()):
            source.install(run.workspace, arch.name, run.states.stages[state], changed)
            (run.workspace.root / arch.name / "state").write_text(state, encoding="utf-8")
            start = evidence.now()
            try:
                run.display.update(arch.name, "configure")
                configure_seconds = build.configure(run.workspace, arch, bugs, log, run.jobs)
                built = build.kernel(
                    run.workspace,
                    arch,
                    state,
                    log,
                    run.jobs,
                    lambda done, total, state=state: run.display.update(  # type: ignore[misc]
                        arch.name, f"compile {state}", done, total
                    ),
                    modules=bool(modules),
                )
                archive = build.module_archive(run.workspace, arch, state, modules) if modules else None
                if archive and initrd:
                    # The kernel unpacks archives one after the other.
                    archive.with_name("initramfs.cpio").write_bytes(initrd.result().read_bytes() + archive.read_bytes())
            except build.BuildError as error:
                run.display.say(f"{arch.name}: {state}: no kernel: {error}")
                place = f"{arch.name}/build.log"
                run.evidence.add_build(
                    arch.name, state, "ERROR", start_time=start, log_url=place, log_excerpt=str(error)
                )
                self.booted += len(wanted[state]) * run.request.repeat
                continue
            shutil.copyfile(built.config, self.folder / "config")
            identity = run.evidence.add_build(
                arch.name,
                state,
                "PASS",
                start_time=start,
                duration=round(configure_seconds + built.seconds, 3),
                command=built.command,
                compiler=built.compiler,
                config_name=f"{arch.name}/config",
                log_url=f"{arch.name}/build.log",
                misc={
                    "configure_seconds": round(configure_seconds, 3),
                    "build_seconds": round(built.seconds, 3),
                },
            )
            for suite in wanted[state]:
                for number in range(1, run.request.repeat + 1):
                    run.pending.append(
                        run.boots.submit(self.boot, identity, built.image, initrd, archive, suite, state, number)
                    )

    def guest(
        self, image: Path, initrd: concurrent.futures.Future[Path] | None, archive: Path | None, suite: Suite
    ) -> list[str]:
        """Return the QEMU command for a boot of a suite."""
        in_module = suite.in_module(self.arch.name)
        root = initrd.result() if initrd and (suite.kind == "kselftest" or in_module) else None
        kernel_words = list(suite.words)
        if suite.kind == "kunit":
            # One in a module runs when the guest's init loads it, and init powers off.
            kernel_words.append("printk.devkmsg=on" if in_module else "kunit_shutdown=poweroff")
        if root and archive and self.arch.name in suite.needs.modules:
            root = archive.with_name("initramfs.cpio")
            if in_module:
                kernel_words.append("kmend.modules=" + ",".join(build.load_order(archive, [suite.module])))
        return guest.command(self.arch, image, kernel_words, root, suite.devices, suite.needs, suite.cpus)

    def boot(
        self,
        identity: str,
        image: Path,
        initrd: concurrent.futures.Future[Path] | None,
        archive: Path | None,
        suite: Suite,
        state: str,
        number: int,
    ) -> None:
        """Boot once and record the verdict."""
        run = self.run
        console = self.folder / f"{state}-{suite.file}-{number}.log"
        words = self.guest(image, initrd, archive, suite)
        with run.jobs.slot(suite.needs.memory + GUEST_EXTRA):
            self.booted += 1
            run.display.update(self.arch.name, f"test {state} {suite.label}", self.booted, self.boots)
            start = evidence.now()
            boot = guest.boot(words, console, suite.limit)
        result = ktap.judge(boot, suite.name, run.parse)
        run.evidence.add_test(
            identity,
            suite.path,
            number,
            start,
            boot,
            result,
            bug=suite.bug,
            arch=self.arch.name,
            suite=suite.label,
            kind=suite.kind,
            state=state,
        )


class _Run:
    """What all architectures of one run share."""

    def __init__(self, request: Request, display: Display, way: Callable[["_Run", arches.Arch], Way]) -> None:
        self.request = request
        self.way = way
        self.display = display
        self.jobs = Jobs(request.jobs)
        self.builds = concurrent.futures.ThreadPoolExecutor(max_workers=len(request.arches))
        self.boots = concurrent.futures.ThreadPoolExecutor(max_workers=self.jobs.count)
        self.pending: list[concurrent.futures.Future[None]] = []

    def prepare(self, stack: ExitStack) -> None:
        """Fetch the trees, audit, and make both states."""
        request = self.request
        default = source.base_workspace(bases.DEFAULT)
        user_tree = None
        if request.tree:
            user_tree = Tree.open(request.tree, need_makefile=True)
            refuse_prepared(user_tree)
            self.workspace = source.tree_workspace(user_tree)
            base, why = bases.nearest(user_tree)
            self.display.say(f"{user_tree.path}: nearest base: {base.name}: {why}")
        else:
            base = bases.get(request.base or bases.DEFAULT)
            self.workspace = source.base_workspace(base.name)
        kunit = request.kunit or base.kunit
        self.arches = {name: base.adapt(arches.load(name)) for name in request.arches if base.has(name)}
        setup.ensure(self.display.say, [build.compiler(arch) for arch in self.arches.values()])
        for workspace in dict.fromkeys((self.workspace, default)):
            stack.enter_context(source.locked(workspace))
            source.need_space(workspace, request.arches if workspace == self.workspace else [])
        # The default base's nolibc and KTAP parser serve all trees: an old parser misses what is wrong with a plan.
        self.tools = source.fetch_base(default, self.display.say).path
        if user_tree:
            tree = source.copy_tree(self.workspace, user_tree, self.display.say)
        else:
            tree = source.fetch_base(self.workspace, self.display.say)
        self.parse = ktap.parser_for(self.tools)
        name = str(request.tree or self.workspace.name)
        found = audit(tree, request.bugs, latent=True)
        chosen: dict[str, Provable] = {}
        why_not: dict[str, str] = {}
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kmend-")))
        for said in found.bugs:
            try:
                chosen[said.id] = provable(tree, said)
            except BadInput as error:
                why_not[said.id] = str(error)
            if said.id in why_not and said.bug.testbed:
                try:
                    chosen[said.id] = on_testbed(tree, said.bug, scratch / said.id)
                    del why_not[said.id]
                except BadInput as error:
                    why_not[said.id] += f"; {error}"
        self.bugs = [bug.bug for bug in chosen.values()]
        folder = evidence.new_folder(request.out)
        self.states = make_states(tree, tuple(chosen.values()), scratch, kunit == "compat")
        self.suites = [
            suite
            for bug in chosen.values()
            for suite in suites(bug.bug, bug.findings)
            if not request.kunit or suite.kind == "kunit"
        ]
        plan = []
        self.shown: set[tuple[str, str, str, str]] = set()
        for bug in request.bugs:
            for arch in request.arches:
                needed = bug.needs.format(arch=self.arches[arch].folder) if arch in self.arches else ""
                shown = chosen[bug.id].findings if bug.id in chosen else ()
                for suite in suites(bug, shown):
                    control = arch not in suite.arches and arch in suite.controls
                    if control and suite.cpus != suite.needs.cpus[0]:
                        continue
                    not_run = ""
                    unhooked = chosen[bug.id].unhooked if bug.id in chosen else {}
                    if request.kunit and suite.kind != "kunit":
                        continue
                    if bug.id in why_not:
                        not_run = why_not[bug.id]
                    elif arch not in self.arches:
                        not_run = f"{base.name} is not built for {arch}"
                    elif not (tree.path / needed).exists():
                        not_run = f"no {needed} in {tree.version}"
                    elif suite.kind == "kunit" and suite.name in unhooked:
                        not_run = unhooked[suite.name]
                    elif arch not in suite.arches and not control:
                        not_run = f"run it with: kmend verify --bug {bug.id} --arch {suite.arches[0]}"
                    else:
                        states = STATES[1:] if control else STATES
                        self.shown |= {(bug.id, suite.label, arch, state) for state in states}
                    plan.append(
                        {
                            "bug": bug.id,
                            "arch": arch,
                            "suite": suite.label,
                            "kind": suite.kind,
                            "proof": [] if control else list(suite.proof),
                            "control": control,
                            "left_out": list(chosen[bug.id].left_out) if bug.id in chosen else [],
                            "testbed": [series.patch_name(patch) for patch in chosen[bug.id].testbed]
                            if bug.id in chosen
                            else [],
                            "boots": request.repeat,
                            "not_run": not_run,
                        }
                    )
        qemu = {
            arch.name: (proc.output([arch.qemu, "--version"]) or "missing").splitlines()[0]
            for arch in self.arches.values()
        }
        checkout = {
            "id": f"{evidence.ORIGIN}:{folder.name}",
            "origin": evidence.ORIGIN,
            "tree_name": self.workspace.name,
            "start_time": evidence.now(),
            "comment": f"{name} ({tree.version})",
            "misc": {
                "plan": plan,
                "base": base.name,
                "kunit": kunit,
                "command": request.command(),
                "qemu": qemu,
                "seconds": {},
            },
        }
        self.evidence = Evidence(folder, checkout)
        self.evidence.add_audit(found.to_json() | {"tree": name}, tree.path)
        for state in STATES:
            self.evidence.add_patches(state, self.states.patches[state])
        self.evidence.write()

    def build_and_boot(self) -> None:
        """Build and boot all architectures at once, as far as the budget goes; raise what one of them raised."""
        ways = [
            self.way(self, arch) for arch in self.arches.values() if any(arch.name == shown[2] for shown in self.shown)
        ]
        self.pending += [self.builds.submit(way.go) for way in ways]
        done: set[concurrent.futures.Future[None]] = set()
        # A build hands its boots on before it is done.
        while waiting := set(self.pending) - done:
            ended, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                future.result()
            done |= ended

    def abandon(self) -> None:
        """Stop what still runs, at once."""
        proc.stop()
        for pool in (self.builds, self.boots):
            pool.shutdown(wait=True, cancel_futures=True)
        proc.stopping.clear()
        self.jobs.close()


def verify(
    request: Request, display: Display, way: Callable[["_Run", arches.Arch], Way] = Way
) -> tuple[Evidence, ExitCode]:
    """Prove the bugs that were asked for, and leave the evidence.

    Args:
        request: what to prove.
        display: where progress is shown.
        way: makes an architecture's way: what is done with each kernel that was built.

    Returns:
        The evidence, and the exit code it stands for.

    Raises:
        BadInput: the request cannot be met; says why.
        Infrastructure: the host lacks something; says what.
    """
    started = time.monotonic()
    setup.ensure(display.say)
    with ExitStack() as stack:
        run = _Run(request, display, way)
        stack.callback(run.abandon)
        run.prepare(stack)
        run.build_and_boot()
    seconds = time.monotonic() - started
    run.evidence.checkout["misc"]["seconds"]["total"] = round(seconds, 1)
    run.evidence.seal()
    return run.evidence, report.exit_code(run.evidence)
