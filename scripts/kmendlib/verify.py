# SPDX-License-Identifier: GPL-2.0-only
"""Proves the bugs: builds each kernel as it is with the bug and mended, boots both, and keeps the evidence."""

import concurrent.futures
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kmendlib import arches, build, evidence, guest, ktap, proc, report, series, setup, source
from kmendlib.apply import refuse_prepared
from kmendlib.audit import Audit, Status, audit
from kmendlib.errors import BadInput, ExitCode
from kmendlib.evidence import Evidence
from kmendlib.manifest import KUNIT, PATCHES, Bug
from kmendlib.progress import Display
from kmendlib.tree import Tree

STATES = ("before", "after")
# Seconds from power-on: measured boots take 2 to 15, and limits stretch with the host's load.
KUNIT_LIMIT = 120.0
KSELFTEST_LIMIT = 180.0
KSELFTEST_SECONDS = 5


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
    """

    tree: Path | None
    base: str | None
    bugs: tuple[Bug, ...]
    arches: tuple[str, ...]
    repeat: int
    out: Path | None


@dataclass(frozen=True)
class Suite:
    """One boot's worth of tests: a KUnit suite or a kselftest, of one bug."""

    bug: str
    kind: str
    name: str
    proof: tuple[str, ...]
    words: tuple[str, ...]
    devices: tuple[str, ...]
    limit: float


def suites(bug: Bug) -> list[Suite]:
    """List a bug's suites in the order in which they are booted."""
    found = [
        Suite(
            bug.id,
            "kunit",
            suite.name,
            suite.proof,
            (f"kunit.filter_glob={suite.name}", "kunit_shutdown=poweroff", "kunit.enable=1"),
            (),
            KUNIT_LIMIT,
        )
        for suite in bug.suites
    ]
    for selftest in bug.selftests:
        name = selftest.id
        words = (
            "kunit.enable=0",
            "printk.devkmsg=on",
            f"kmend.selftests={name}",
            f"kmend.seconds={KSELFTEST_SECONDS}",
        )
        found.append(Suite(bug.id, "kselftest", name, (), words, selftest.qemu, KSELFTEST_LIMIT))
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
    raise BadInput(f"no {what} fits {tree.version} (tried {tried}): it cannot be verified, but audited and mended")


def make_states(tree: Tree, found: Audit, scratch: Path) -> States:
    """Make the files of both states, beside the tree.

    Args:
        tree: the private copy of the tree.
        found: what the audit said of the bugs to prove: each finding is affected or fixed.
        scratch: an empty folder.

    Raises:
        BadInput: a patch that is needed fits none of the tree's shapes.
    """
    patches: dict[str, list[Path]] = {state: [] for state in STATES}
    sources: list[str] = []
    for bug in found.bugs:
        for finding, said in zip(bug.bug.findings, bug.findings, strict=True):
            if said.unfit:
                raise BadInput(f"no fix of {finding.id} fits {tree.version}: it cannot be verified")
            if said.fix:
                patches["after"].append(PATCHES / said.fix)
            else:
                patches["before"].append(_fitting(tree, finding.reintroduce_paths, f"way back to {finding.id}"))
        for suite in bug.bug.suites:
            hook = _fitting(tree, suite.hook_paths, f"hook of KUnit suite {suite.name}")
            for state in STATES:
                patches[state].append(hook)
            sources += suite.sources
    stages = {}
    changed = set(sources)
    for state in STATES:
        stages[state] = scratch / state
        changed |= set(series.materialize(tree.path, patches[state], stages[state]))
        for path in sources:
            (stages[state] / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(KUNIT / path, stages[state] / path)
    return States(patches, stages, sorted(changed))


class _Arch:
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
        last = memory.read_text() if memory.exists() else "after"
        return sorted(STATES, key=lambda state: state != last)

    def go(self) -> None:
        """Build both states; each build's boots are handed on, so that they overlap with the next build."""
        run, arch = self.run, self.arch
        wanted = [suite for suite in run.suites if (suite.bug, arch.name) in run.shown]
        self.boots = len(wanted) * len(STATES) * run.request.repeat
        run.display.update(arch.name, "copy")
        changed = source.link_arch(run.workspace, arch.name, run.states.changed)
        tests = [suite.name for suite in wanted if suite.kind == "kselftest"]
        # First in the boots' queue, so that it is made while the kernel compiles.
        initrd = run.pool.submit(build.initramfs, run.tools, arch, tests) if tests else None
        log = self.folder / "build.log"
        for state in self.states_in_order():
            source.install(run.workspace, arch.name, run.states.stages[state], changed)
            (run.workspace.root / arch.name / "state").write_text(state)
            start = evidence.now()
            try:
                run.display.update(arch.name, "configure")
                configure_seconds = build.configure(run.workspace, arch, run.bugs, log)
                built = build.kernel(
                    run.workspace,
                    arch,
                    state,
                    log,
                    lambda done, total, state=state: run.display.update(  # type: ignore[misc]
                        arch.name, f"compile {state}", done, total
                    ),
                )
            except build.BuildError as error:
                run.display.say(f"{arch.name}: {state}: no kernel: {error}")
                place = f"{arch.name}/build.log"
                run.evidence.add_build(
                    arch.name, state, "ERROR", start_time=start, log_url=place, log_excerpt=str(error)
                )
                self.booted += self.boots // len(STATES)
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
            for suite in wanted:
                for number in range(1, run.request.repeat + 1):
                    run.submit(self.boot, identity, built.image, initrd, suite, state, number)

    def boot(
        self,
        identity: str,
        image: Path,
        initrd: concurrent.futures.Future[Path] | None,
        suite: Suite,
        state: str,
        number: int,
    ) -> None:
        """Boot once and record the verdict."""
        run = self.run
        self.booted += 1
        run.display.update(self.arch.name, f"test {state} {suite.name}", self.booted, self.boots)
        console = self.folder / f"{state}-{suite.name.replace(':', '-')}-{number}.log"
        root = initrd.result() if initrd and suite.kind == "kselftest" else None
        words = guest.command(self.arch, image, suite.words, root, suite.devices)
        start = evidence.now()
        boot = guest.boot(words, console, suite.limit)
        result = ktap.judge(boot, suite.name, run.parse)
        run.evidence.add_test(
            identity,
            f"{suite.kind}.{suite.name.replace(':', '.')}",
            number,
            start,
            boot,
            result,
            bug=suite.bug,
            arch=self.arch.name,
            suite=suite.name,
            kind=suite.kind,
            state=state,
        )


class _Run:
    """What all architectures of one run share."""

    def __init__(self, request: Request, display: Display) -> None:
        self.request = request
        self.display = display
        self.pending: list[concurrent.futures.Future[None]] = []
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def prepare(self, stack: ExitStack) -> None:
        """Fetch the trees, audit, and make both states."""
        request = self.request
        default = source.base_workspace(source.bases()[0])
        if request.tree:
            user_tree = Tree.open(request.tree, need_makefile=True)
            refuse_prepared(user_tree)
            self.workspace = source.tree_workspace(user_tree)
        else:
            user_tree = None
            self.workspace = default if request.base is None else source.base_workspace(request.base)
        for workspace in dict.fromkeys((self.workspace, default)):
            stack.enter_context(source.locked(workspace))
            source.need_space(workspace, request.arches if workspace == self.workspace else [])
        # The default base's nolibc and KTAP parser serve trees that have none.
        self.tools = source.fetch_base(default, self.display.say).path
        if user_tree:
            tree = source.copy_tree(self.workspace, user_tree, self.display.say)
        else:
            tree = source.fetch_base(self.workspace, self.display.say)
        self.parse = ktap.parser_for(tree.path, self.tools)
        name = str(request.tree or self.workspace.name)
        found = audit(tree, request.bugs)
        provable = {Status.AFFECTED, Status.FIXED}
        chosen = tuple(bug for bug in found.bugs if {finding.status for finding in bug.findings} <= provable)
        self.bugs = [bug.bug for bug in chosen]
        folder = evidence.new_folder(request.out)
        (folder / "audit.json").write_text(json.dumps(found.to_json() | {"tree": name}, indent=1) + "\n")
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kmend-")))
        self.states = make_states(tree, Audit(tree, chosen), scratch)
        self.suites = [suite for bug in self.bugs for suite in suites(bug)]
        plan = []
        self.shown = set()
        for bug in request.bugs:
            for arch in request.arches:
                not_run = ""
                if bug not in self.bugs:
                    not_run = ", ".join(f"{each.id} is {found.statuses[each.id]}" for each in bug.findings)
                elif arch not in bug.arches:
                    not_run = f"run it with: kmend verify --bug {bug.id} --arch {bug.arches[0]}"
                else:
                    self.shown.add((bug.id, arch))
                for suite in suites(bug):
                    plan.append(
                        {
                            "bug": bug.id,
                            "arch": arch,
                            "suite": suite.name,
                            "kind": suite.kind,
                            "proof": list(suite.proof),
                            "boots": request.repeat,
                            "not_run": not_run,
                        }
                    )
        qemu = {
            arch.name: (proc.output([arch.qemu, "--version"]) or "missing").splitlines()[0]
            for arch in map(arches.load, request.arches)
        }
        checkout = {
            "id": f"{evidence.ORIGIN}:{folder.name}",
            "origin": evidence.ORIGIN,
            "tree_name": self.workspace.name,
            "start_time": evidence.now(),
            "comment": f"{name} ({tree.version})",
            "misc": {"plan": plan, "qemu": qemu, "seconds": {}},
        }
        self.evidence = Evidence(folder, checkout)
        for state in STATES:
            self.evidence.add_patches(state, self.states.patches[state])
        self.evidence.write()

    def submit(self, task: Callable[..., None], *arguments: object) -> None:
        """Hand a boot on; one runs at a time, beside the builds."""
        self.pending.append(self.pool.submit(task, *arguments))

    def finish(self) -> None:
        """Wait for all boots; raise what one of them raised."""
        for future in self.pending:
            future.result()

    def abandon(self) -> None:
        """Stop all boots at once."""
        guest.stopping.set()
        self.pool.shutdown(wait=True, cancel_futures=True)
        guest.stopping.clear()


def verify(request: Request, display: Display) -> tuple[Evidence, ExitCode]:
    """Prove the bugs that were asked for, and leave the evidence.

    Args:
        request: what to prove.
        display: where progress is shown.

    Returns:
        The evidence, and the exit code it stands for.

    Raises:
        BadInput: the request cannot be met; says why.
        Infrastructure: the host lacks something; says what.
    """
    started = time.monotonic()
    setup.ensure(display.say)
    with ExitStack() as stack:
        run = _Run(request, display)
        stack.callback(run.abandon)
        run.prepare(stack)
        for arch in request.arches:
            if any(name == arch for _, name in run.shown):
                _Arch(run, arches.load(arch)).go()
        run.finish()
    seconds = time.monotonic() - started
    run.evidence.checkout["misc"]["seconds"]["total"] = round(seconds, 1)
    run.evidence.write()
    return run.evidence, report.exit_code(run.evidence)
