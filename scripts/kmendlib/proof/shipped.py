# SPDX-License-Identifier: GPL-2.0-only
"""Tries kernels that somebody else built: boots each as it is, and says what it has of each finding."""

import hashlib
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kmendlib.host import proc, setup
from kmendlib.host.errors import BadInput, ExitCode, Infrastructure, KmendError
from kmendlib.host.files import digest, naming
from kmendlib.host.paths import cache
from kmendlib.host.progress import Display
from kmendlib.host.words import Has
from kmendlib.proof import build, evidence, ktap
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.jobs import Jobs
from kmendlib.proof.plan import guest_of
from kmendlib.proof.verify import Bench, Walk, boot_here, emulator_version, result_of
from kmendlib.run import ORIGIN, SHIPPED, Boot, Build, Claim, GuestSpec, Row, Run, race_case
from kmendlib.tree import arches, bases, manifest, source
from kmendlib.tree.arches import Arch
from kmendlib.tree.manifest import SELFTESTS, Bug, Selftest
from kmendlib.tree.package import Given, Shipped

# What unpacking takes, in MiB.
UNPACKING = 128
# What is longer on a busy host is so up to this factor.
BUSY = 4.0
# Of a configuration: what makes a fault show.
DEBUGGING = ("CONFIG_DEBUG_LIST", "CONFIG_LIST_HARDENED", "CONFIG_KASAN", "CONFIG_PROVE_LOCKING")
# What others configure in another way: lines of the log begin with what they say, and all of them are shown.
PLAIN = ("printk.time=0", "loglevel=7")
NEEDS = ("bsdtar", "bsdcat")


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        words: the arguments, for the command that asks for the same.
        given: the kernels.
        bugs: the bugs to look for.
        repeat: boots of each test.
        out: the folder for the evidence, or None for one in the cache.
        jobs: guests at once; 0 for as many as there are CPUs.
    """

    words: tuple[str, ...]
    given: tuple[Given, ...]
    bugs: tuple[Bug, ...]
    repeat: int = 1
    out: Path | None = None
    jobs: int = 0


# What a kernel lacks


def _no_symbol(bug: Bug) -> str:
    return f"no symbol {' or '.join(bug.symbols)}"


def _modules(bug: Bug, kernel: Shipped) -> list[Path]:
    """Return the modules that have a bug's symbols."""
    return [path for path in (kernel.module(suite.module) for suite in bug.suites) if path]


def absent(bug: Bug, kernel: Shipped) -> tuple[str, str]:
    """Return the status and the reason if a kernel was built without a bug's code; two times nothing if not."""
    if kernel.arch not in bug.arches:
        return "not-applicable", f"only kernels for {', '.join(bug.arches)} can have it"
    option = kernel.config.lacks(bug.options) if kernel.config else ""
    if option:
        return "not built", f"{option} is not set"
    if bug.symbols:
        files = _modules(bug, kernel)
        names = [name for name in bug.symbols if name in kernel.addresses]
        names += [name for name in bug.symbols for path in files if f"\0{name}\0".encode() in path.read_bytes()]
        if (kernel.addresses or files) and not names:
            return "not-applicable", f"{_no_symbol(bug)} in this kernel"
    return "", ""


# The plan


def plan(kernel: Shipped, bugs: Iterable[Bug], repeat: int) -> list[tuple[Row, Selftest | None]]:
    """Say what is booted of a kernel, and what is not and why: rows, each with its test.

    Args:
        kernel: the kernel.
        bugs: the bugs to look for.
        repeat: boots of each row.
    """
    rows: list[tuple[Row, Selftest | None]] = []
    for bug in bugs:
        row = partial(Row, bug.id, kernel.arch, boots=repeat, shipped=True)
        ids = [finding.id for finding in bug.findings]
        status, why = absent(bug, kernel)
        if status:
            nothing = tuple(Claim(id, status, ()) for id in ids)
            rows.append((row("-", "kselftest", nothing, not_run=why), None))
            continue
        shown: set[str] = set()
        # Where the guest alone can tell whether the code is there, nothing is forced.
        unsure = bool(bug.symbols) and not kernel.addresses and not _modules(bug, kernel)
        for test in bug.selftests:
            # A vCPU that is parked holds others up: what a load shows by itself is asked in a boot of its own.
            for name in [*(id for id in test.races if id in ids and not unsure), ""]:
                claims = (Claim(name, "", (race_case(name),)),) if name else _claims(bug, test, ids)
                # Where it cannot run it still tells of symbols.
                where = (test.arches or bug.arches) + (test.controls if bug.symbols else ())
                if claims and kernel.arch in where:
                    suite = f"{test.id} ({name.partition('/')[2]})" if name else test.id
                    rows.append((row(suite, "kselftest", claims, race=name), test))
                    shown |= {claim.finding for claim in claims}
        if rest := tuple(Claim(id, "", ()) for id in ids if id not in shown):
            why = "only a KUnit suite shows it, and a shipped kernel has none"
            rows.append((row(", ".join(suite.id for suite in bug.suites), "kunit", rest, not_run=why), None))
    return rows


def _claims(bug: Bug, test: Selftest, ids: Sequence[str]) -> tuple[Claim, ...]:
    found = [Claim(id, "", cases) for table in (test.proof, test.also) for id, cases in table.items()]
    found += [Claim(id, "", cases, luck=True) for id, cases in test.hits.items()]
    if bug.symbols and test == bug.selftests[0]:
        found += [Claim(id, "not-applicable", (_no_symbol(bug),)) for id in ids]
    return tuple(claim for claim in found if claim.finding in ids)


def spec_of(kernel: Shipped, arch: Arch, row: Row, test: Selftest, bug: Bug, programs: Path) -> GuestSpec:
    """Return the guest for a row of a test, its initramfs made.

    Raises:
        BadInput: a module that it needs is missing, or of another kernel.
    """
    # A race needs the load for as long as it takes, and a busy host gets less done in a guest's second. All else has
    # a clock of its own.
    timed = None if row.race else arch.timed
    busy = min(proc.slowness(), BUSY) if timed is None else 1.0
    spec = guest_of(replace(test, seconds=round(test.seconds * busy)), arch, test.guest.cpus[0])
    loads = kernel.order((*test.guest.loads, *spec.load))
    modules = loads | kernel.order(test.guest.modules.get(arch.name, ()))
    words = (*spec.words, *PLAIN, *(arch.image.words if arch.image else ()))
    if busy > 1:
        # The program's own limit is for an idle host; the boot's, which is stretched as well, comes after it.
        words += (f"kmend.timeout={round(test.limit * busy * 0.8)}",)
    if loads:
        words += ("kmend.modules=" + ",".join(f"{name}.ko" for name in loads),)
    if bug.symbols:
        words += ("kmend.symbols=" + ",".join(bug.symbols),)
    whole = kernel.scratch / f"initramfs-{test.collection}-{test.name}.cpio"
    with whole.open("wb") as out, naming(whole):
        out.write(programs.read_bytes())
        if modules:
            out.write(_archive(kernel.scratch, modules))
    return replace(spec, kernel=kernel.image, words=words, initrd=(whole,), timed=timed)


def _archive(scratch: Path, modules: dict[str, Path]) -> bytes:
    """Return modules, and the order in which they can be loaded, as a cpio archive."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        place = Path(folder) / "lib/modules"
        place.mkdir(parents=True)
        for name, path in modules.items():
            os.link(path, place / f"{name}.ko")
        (place / "order").write_text("".join(f"{name}.ko\n" for name in modules), encoding="utf-8")
        command = ["bsdtar", "-cf", "-", "--format=newc", "--uid=0", "--gid=0", "-C", folder, "lib"]
        done = proc.tool(command)
    if done.returncode:
        raise Infrastructure(f"cannot archive the modules: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


# The guest's own parts


def programs_for(arch: Arch, tools: Path, jobs: Jobs, display: Display) -> Path:
    """Return the archive with init and all kselftests, built the first time and whenever their sources change."""
    tests = sorted(test.id for bug in manifest.load().bugs for test in bug.selftests)
    total = hashlib.sha256(repr(tests).encode())
    for path in sorted(path for path in SELFTESTS.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(SELFTESTS)}\0{digest(path)}\0".encode())
    kept = cache() / "guest" / f"{arch.name}-{total.hexdigest()[:16]}.cpio"
    if not kept.exists():
        setup.ensure(display.say)
        display.say(f"{arch.name}: the guest's own parts are built, once")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            build.initramfs(tools, arch, tests, jobs, Path(folder) / "new").rename(kept)
        for old in kept.parent.glob(f"{arch.name}-*.cpio"):
            if old != kept:
                old.unlink(missing_ok=True)
    return kept


# The run


class Trial(Walk):
    """Unpacks kernels and boots them, as far as the budget goes."""

    def __init__(self, bench: Bench, request: Request, folder: Path, scratch: Path) -> None:
        """Try what was asked for; the evidence goes below a folder."""
        super().__init__(bench, scratch, (), boot_here)
        self.request = request
        self.folder = folder
        self.done: dict[int, Evidence] = {}
        self.errors: list[KmendError] = []

    def kernel(self, number: int, given: Given) -> None:
        """Unpack a kernel and hand its boots on."""
        display, jobs = self.bench.display, self.bench.jobs
        started, scratch = time.monotonic(), self.scratch / str(number)
        scratch.mkdir()
        try:
            with jobs.slot(UNPACKING), naming(scratch):
                display.update(given.release or "image", "unpack")
                kernel = given.open(scratch)
            arch = arches.load(kernel.arch)
            setup.ensure(display.say, [arch.qemu])
            programs = programs_for(arch, self.bench.tools, jobs, display)
            bugs = {bug.id: bug for bug in self.request.bugs}
            rows = plan(kernel, bugs.values(), self.request.repeat)
            with naming(scratch):
                specs = {
                    row.key: spec_of(kernel, arch, row, test, bugs[row.bug], programs) for row, test in rows if test
                }
        except BadInput as error:
            if len(self.request.given) == 1:
                raise
            display.say(f"kmend: error: {error}")
            self.errors.append(error)
            return
        kept = self._evidence(number, kernel, tuple(row for row, _ in rows), started)
        # What was unpacked and is not in use any more: there may be many kernels.
        for folder in scratch.glob("package-*"):
            if not kernel.image.is_relative_to(folder):
                shutil.rmtree(folder)
        bench = replace(self.bench, evidence=kept)
        for row, test in rows:
            if test:
                for each in range(1, row.boots + 1):
                    boot = Boot(row, SHIPPED, each, test.id, replace(specs[row.key], seed=each))
                    id = kept.run.builds[0].id
                    self.pending.append(self.boots.submit(self.try_boot, bench, boot, id, kernel.addresses))

    def _evidence(self, number: int, kernel: Shipped, rows: tuple[Row, ...], started: float) -> Evidence:
        name = f"{kernel.release}-{kernel.arch}"
        folder = self.folder if len(self.request.given) == 1 else self.folder / f"{number + 1}-{name}"
        (folder / kernel.arch).mkdir(parents=True)
        options = kernel.config.set if kernel.config else frozenset()
        helps = [option.removeprefix("CONFIG_") for option in DEBUGGING if option in options]
        facts = {
            "release": kernel.release,
            "package": kernel.package,
            "sha256": kernel.digest,
            "debugging": ", ".join(helps) or ("none" if kernel.config else "unknown: no configuration"),
        }
        run = Run(
            f"{ORIGIN}:{self.folder.name}-{number + 1}",
            f"{kernel.package} ({kernel.arch})",
            rows,
            tree=kernel.release,
            start=evidence.now(),
            command=shlex.join(["scripts/kmend", "try", *self.request.words]),
            qemu={kernel.arch: emulator_version(arches.load(kernel.arch).qemu)},
            shipped=facts,
        )
        config = f"{kernel.arch}/config" if kernel.config_file else ""
        if kernel.config_file:
            shutil.copyfile(kernel.config_file, folder / config)
        kept = self.done[number] = Evidence(folder, run)
        kept.update(seconds={"unpack": round(time.monotonic() - started, 1)})
        kept.add(Build(run.build_id(kernel.arch, SHIPPED), kernel.arch, start=run.start, config=config))
        return kept

    def try_boot(self, bench: Bench, boot: Boot, kernel: str, known: Mapping[str, tuple[int, int]]) -> None:
        """Boot once and record the verdict; say at once what it decides."""
        kept = bench.evidence
        bench.display.update(kept.run.tree, f"test {boot.row.suite}")
        result = result_of(bench, boot, kernel, known)
        said = _symbols((kept.folder / boot.console).read_text(encoding="utf-8", errors="replace"))
        for claim in boot.row.claims if said is not None else ():
            if claim.status:
                cases = {**result.judged.cases, claim.cases[0]: "FAIL" if said else "PASS"}
                result = replace(result, judged=replace(result.judged, cases=cases))
        kept.add(result)
        proof = next(proof for proof in kept.run.proofs if proof.row == boot.row)
        for found in proof.found if len(proof.results) == boot.row.boots else ():
            if found.has is not Has.CANNOT_TELL:
                bench.display.say(f"{kept.run.tree}: {found.finding}: {found.has}: {found.why}")


def _symbols(console: str) -> list[str] | None:
    """Return the symbols that a guest was asked for and has; None where it did not come to tell."""
    found = re.findall(r"kmend-symbol: (?:[0-9a-f]+ [0-9a-f]+ (\w+)|end)", console)
    return [name for name in found if name] if "" in found else None


def try_out(request: Request, display: Display) -> tuple[list[Evidence], ExitCode]:
    """Try the kernels that were asked for, and leave the evidence of each.

    Returns:
        The evidence in the order of the kernels, and the code of the gravest error of one that could not be tried.

    Raises:
        BadInput: the only one is no kernel, or not whole; says why.
        Infrastructure: the host lacks something; says what.
    """
    started = time.monotonic()
    setup.ensure(display.say, NEEDS)
    tools = source.read_base(source.base_workspace(bases.DEFAULT), display.say)
    folder = evidence.new_folder(request.out)
    place = cache() / "try"
    place.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        none = Evidence(folder, Run("", "", ()))
        workspace, parse = source.base_workspace(bases.DEFAULT), ktap.parser_for(tools.path)
        bench = Bench(workspace, tools.path, parse, none, Jobs(request.jobs), display)
        trial = Trial(bench, request, folder, scratch)
        stack.callback(trial.abandon)
        trial.pending += [trial.builds.submit(trial.kernel, *each) for each in enumerate(request.given)]
        trial.go(())
    done = [trial.done[number] for number in sorted(trial.done)]
    for kept in done:
        kept.update(seconds={**kept.run.seconds, "total": round(time.monotonic() - started, 1)})
        kept.seal()
    return done, max((error.code for error in trial.errors), default=ExitCode.OK)
