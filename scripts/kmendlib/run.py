# SPDX-License-Identifier: GPL-2.0-only
"""The model of a run: what is planned, booted, judged and shown is this data, and nothing here runs anything.

Row        one line of the table: a suite of a bug on an architecture, and what it has to show (`Claim`)
GuestSpec  all that decides what a guest does; QEMU's words and a LAVA job are made of it
Boot       one boot of a row: the state of the kernel, which of the repeated ones, its guest
BootResult how the guest ended (`Ending`), what that comes to (`Judgement`), and of a race how it was forced
           (`Forced`)
Proof      a row with all that came of it
Run        rows, kernels and results of one run, to and from KernelCI's KCIDB
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from kmendlib.host.errors import ExitCode
from kmendlib.host.words import Has, Outcome, Verdict

# The kernel with the bug, and the mended one.
STATES = ("before", "after")
# Neither: a kernel that somebody else built.
SHIPPED = "shipped"
ORIGIN = "kmend"
VERSION = (5, 3)
# Of what kmend adds to KCIDB's names. One more whenever an older kmend would read it wrong.
FORMAT = 1
# KCIDB takes no more characters of a log.
EXCERPT = 16384

# KCIDB knows no status for a panic or a time-out: both are failures of the code under test.
KCIDB_STATUS = {Verdict.PANIC: "FAIL", Verdict.TIMEOUT: "FAIL"}
# The gravest first.
_GRAVE = (ExitCode.USAGE, ExitCode.PANIC, ExitCode.TIMEOUT, ExitCode.INFRASTRUCTURE, ExitCode.FAILED, ExitCode.NOTHING)
# On the unfixed kernel these show the bug; no result at all does not.
_HITS = {Verdict.FAIL, Verdict.PANIC, Verdict.TIMEOUT}


@dataclass(frozen=True)
class Claim:
    """What a row has to show of a finding.

    Attributes:
        finding: the finding's id; empty in evidence that does not say it.
        status: what the audit says of it in the tree, or empty likewise.
        cases: the test cases that fail where the fault is and pass where it is not.
        luck: they may pass where it is, too.
    """

    finding: str
    status: str
    cases: tuple[str, ...]
    luck: bool = False


@dataclass(frozen=True)
class Found:
    """What a kernel as it was shipped has of a finding.

    Attributes:
        finding: its id.
        arch: the kernel's architecture.
        has: the word for it.
        why: what that rests on, in a line.
        seconds: from power-on to what decided it; None where nothing was booted.
    """

    finding: str
    arch: str
    has: Has
    why: str
    seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """One suite of one bug on one architecture.

    Attributes:
        bug: the bug's id.
        arch: the architecture.
        suite: the KUnit suite or kselftest, and the number of CPUs where it runs with several.
        kind: ``kunit`` or ``kselftest``.
        claims: what its boots have to show; none where luck decides, or the architecture cannot have the bug.
        boots: how often each state is booted.
        control: the architecture cannot have the bug: the mended kernel alone is booted, and must be green.
        left_out: why other findings of the bug cannot be shown.
        testbed: the patches that bring the code which the bug is in, where the tree lacks it.
        not_run: why it is not to be run at all, or empty.
        race: the finding whose race is forced in its boots, or empty.
        shipped: the kernel is as somebody else built it; a claim says what it means if its cases pass.
    """

    bug: str
    arch: str
    suite: str
    kind: str
    claims: tuple[Claim, ...] = ()
    boots: int = 1
    control: bool = False
    left_out: tuple[str, ...] = ()
    testbed: tuple[str, ...] = ()
    not_run: str = ""
    race: str = ""
    shipped: bool = False

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What no other row has."""
        return self.bug, self.arch, self.suite, self.kind

    @property
    def proof(self) -> tuple[str, ...]:
        """The cases that must be red on before and green on after."""
        return tuple(case for claim in self.claims for case in claim.cases)

    @property
    def states(self) -> tuple[str, ...]:
        """The states that are booted."""
        if self.not_run:
            return ()
        return (SHIPPED,) if self.shipped else STATES[1:] if self.control else STATES

    @property
    def slug(self) -> str:
        """The suite as a part of a file's name."""
        return re.sub(r"\W+", "-", self.suite).strip("-")

    @property
    def path(self) -> str:
        """The test's path in KCIDB."""
        return f"{self.kind}.{self.slug.replace('-', '.')}"


@dataclass(frozen=True)
class GuestSpec:
    """A guest: all that decides what it does.

    Attributes:
        arch: the architecture.
        emulator: QEMU's program.
        machine: QEMU's words for the machine and its CPUs' kind; of options that are given twice the last one counts.
        cpus: how many CPUs it has.
        memory: in MiB.
        kernel: the image.
        words: the kernel's command line.
        initrd: the parts of its initramfs, unpacked one over the other; none if it has none.
        load: kernel modules that the guest's init loads, with those that they need.
        devices: values of QEMU's ``-device``.
        limit: seconds of its own clock.
        timed: further words of the kernel's command line where that clock is its count of instructions; None where it
            is the host's.
        seed: what its randomness comes from: another one, another schedule.
    """

    arch: str
    emulator: str
    machine: tuple[str, ...]
    cpus: int
    memory: int
    kernel: Path
    words: tuple[str, ...]
    initrd: tuple[Path, ...] = ()
    load: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    limit: float = 120.0
    timed: tuple[str, ...] | None = None
    seed: int = 1


@dataclass(frozen=True)
class Boot:
    """One boot of a row.

    Attributes:
        row: the row.
        state: one of `STATES`.
        number: which of the repeated boots it is, from 1.
        test: what has to run, as KTAP prints it.
        guest: the guest.
    """

    row: Row
    state: str
    number: int
    test: str
    guest: GuestSpec

    @property
    def place(self) -> str:
        """Its name: no other boot of the run has it."""
        return f"{self.row.arch}-{self.state}-{self.row.slug}-{self.number}"

    @property
    def console(self) -> str:
        """Path of its console's log in the evidence."""
        return f"{self.row.arch}/{self.state}-{self.row.slug}-{self.number}.log"

    def result(
        self, ending: "Ending", judged: "Judgement", build: str, start: str, forced: "Forced | None" = None
    ) -> "BootResult":
        """Put together what is known of it: its ending, its verdict, the kernel's id, when it began, and its race."""
        there = replace(ending, console=Path(self.console))
        return BootResult(self.row, self.state, self.number, there, judged, build, start, forced)


class End(StrEnum):
    """How a guest came to its end."""

    EXIT = "exit"
    TIMEOUT = "timeout"
    SILENT = "silent"
    FLOOD = "flood"
    CUT = "cut"
    STARVED = "starved"


@dataclass(frozen=True)
class Ending:
    """What is known of a boot when its guest is gone.

    Attributes:
        end: how it ended; None in evidence, which does not say it.
        console: file with all that the guest printed.
        seconds: wall time of the run.
        ktap_seconds: wall time to the last line of test results; None where there was none.
        command: QEMU's words.
        qemu_stderr: what QEMU itself complained of.
        code: QEMU's exit code; None where it was killed, or nobody knows.
        guest_seconds: of the guest's clock at its last line; None where nobody knows.
        cpu_seconds: CPU time of QEMU; likewise.
    """

    end: End | None
    console: Path
    seconds: float
    ktap_seconds: float | None = None
    command: str = ""
    qemu_stderr: str = ""
    code: int | None = None
    guest_seconds: float | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on.

    Attributes:
        verdict: the verdict.
        reason: one line that says why, empty for PASS.
        cases: each test case's own result (``PASS``, ``FAIL``, ``SKIP`` or ``MISS``) by its name.
        tail: the console's last lines.
    """

    verdict: Verdict
    reason: str = ""
    cases: Mapping[str, str] = field(default_factory=dict)
    tail: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """The verdict and its reason."""
        return f"{self.verdict}: {self.reason or 'every case passed'}"


class RaceEnd(StrEnum):
    """How an attempt to force a race ended."""

    BROKEN = "broken"
    HELD = "held"
    NO_CONTACT = "no contact"


# What a forced race is as a case of its boot.
RACE_CASES = {RaceEnd.BROKEN: "FAIL", RaceEnd.HELD: "PASS", RaceEnd.NO_CONTACT: "MISS"}


def race_case(finding: str) -> str:
    """Return the name of the case that a forced race is."""
    return f"{finding.partition('/')[2]}, forced"


@dataclass(frozen=True)
class Moment:
    """A moment of an attempt.

    Attributes:
        row: the diagram's row.
        lane: its lane.
        what: the step's: ``see``, ``park``, ``mark``, ``held``, ``then``, ``control`` or ``pass``.
        seconds: since the first of them.
        cpu: the vCPU, from 0.
        where: function and offset.
    """

    row: int
    lane: int
    what: str
    seconds: float
    cpu: int
    where: str


@dataclass(frozen=True)
class Forced:
    """What came of a race that was forced.

    Attributes:
        finding: the finding.
        end: how its last attempt ended.
        attempts: how many there were.
        seconds: from the first contact to the end.
        seen: the moments of the last attempt.
        control: those of the control.
        why: why there was no contact, in a line; else empty.
        fault: the stub's, not the guest's.
        reported: whether the console shows the functions of the report, below a kernel's complaint.
        ended: the guest was ended when its race was held.
    """

    finding: str
    end: RaceEnd
    attempts: int = 0
    seconds: float = 0.0
    seen: tuple[Moment, ...] = ()
    control: tuple[Moment, ...] = ()
    why: str = ""
    fault: bool = False
    reported: bool = False
    ended: bool = False


@dataclass(frozen=True)
class BootResult:
    """What came of one boot.

    Attributes:
        row: its row.
        state: one of `STATES`.
        number: which of the repeated boots it was, from 1.
        ending: how the guest ended; its console is a path in the evidence.
        judged: the verdict.
        build: id of the kernel that was booted.
        start: when it began, as RFC 3339 has it.
        forced: what came of its race; None if it has none.
        inputs: a digest of all that decides what its console says; empty where the host decides, too.
        printed: that of its console; likewise.
    """

    row: Row
    state: str
    number: int
    ending: Ending
    judged: Judgement
    build: str
    start: str = ""
    forced: Forced | None = None
    inputs: str = ""
    printed: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.judged.verdict

    @property
    def seed(self) -> str:
        """The seed that QEMU got; empty where it got none."""
        found = re.search(r" -seed (\d+) ", self.ending.command)
        return found[1] if found else ""

    @property
    def excerpt(self) -> str:
        """The console's last lines, unless it passed."""
        return "" if self.verdict is Verdict.PASS else "\n".join(self.judged.tail).replace("\0", "")[-EXCERPT:]

    def shows(self, cases: Iterable[str], result: str) -> bool:
        """Tell whether each of some cases has a result."""
        return all(self.judged.cases.get(case) == result for case in cases)

    @property
    def red(self) -> bool:
        """Whether it showed the bug."""
        return self.shows(self.row.proof, "FAIL") if self.row.proof else self.verdict in _HITS

    @property
    def green(self) -> bool:
        """Whether everything passed, the proving cases among it."""
        return self.verdict is Verdict.PASS and self.shows(self.row.proof, "PASS")

    @property
    def wrong(self) -> bool:
        """Whether it did not come out as it must; a race that was not lost is no trouble."""
        if self.state == SHIPPED:
            return self.verdict not in (Verdict.PASS, Verdict.SKIP)
        if self.state == "after":
            return not self.green
        return not self.red if self.row.proof else self.verdict in (Verdict.MISS, Verdict.ERROR)

    def to_kcidb(self) -> dict[str, Any]:
        """Return it as a test of KCIDB."""
        row, ending, judged = self.row, self.ending, self.judged
        spent = {name: getattr(ending, name) for name in ("guest_seconds", "cpu_seconds")}
        return {
            "build_id": self.build,
            "id": f"{self.build}-{row.path}-{self.number}",
            "origin": ORIGIN,
            "path": row.path,
            "status": KCIDB_STATUS.get(self.verdict, str(self.verdict)),
            **({"start_time": self.start} if self.start else {}),
            "duration": round(ending.seconds, 3),
            "log_url": str(ending.console),
            "log_excerpt": self.excerpt,
            "misc": {
                **dict(zip(_KEY, row.key, strict=True)),
                "state": self.state,
                "number": self.number,
                "verdict": str(self.verdict),
                "reason": judged.reason,
                "cases": dict(judged.cases),
                "ktap_seconds": None if ending.ktap_seconds is None else round(ending.ktap_seconds, 3),
                "command": ending.command,
                "qemu_stderr": ending.qemu_stderr,
                **({"forced": asdict(self.forced)} if self.forced else {}),
                **({"inputs": self.inputs, "printed": self.printed} if self.inputs else {}),
                **{name: spent for name, spent in spent.items() if spent is not None},
            },
        }

    @classmethod
    def from_kcidb(cls, row: Row, test: Mapping[str, Any]) -> "BootResult":
        """Read what `to_kcidb` returned for a boot of a row."""
        misc = test["misc"]
        ending = _made(Ending, {**misc, "end": None, "console": test["log_url"], "seconds": test["duration"]})
        judged = _made(Judgement, {**misc, "tail": test["log_excerpt"].split("\n")})
        known = {"row": row, "ending": ending, "judged": judged, "build": test["build_id"]}
        return _made(cls, {**misc, **known, "start": test.get("start_time", "")})


@dataclass(frozen=True)
class Build:
    """A kernel, or the attempt to build one.

    Attributes:
        id: its id.
        arch: the architecture.
        error: why there is none, in a line; empty if there is one.
        start: when it began, as RFC 3339 has it.
        command: make's words.
        compiler: the compiler's version.
        config: path of its configuration in the evidence.
        log: path of make's output there.
        seconds: wall time, by what it was spent on.
    """

    id: str
    arch: str
    error: str = ""
    start: str = ""
    command: str = ""
    compiler: str = ""
    config: str = ""
    log: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_kcidb(self, checkout: str) -> dict[str, Any]:
        """Return it as a build of KCIDB."""
        named = {name: getattr(self, ours)[:EXCERPT] for name, ours in _BUILD.items() if getattr(self, ours)}
        times = {"duration": round(sum(self.seconds.values()), 3), "misc": dict(self.seconds)} if self.seconds else {}
        status = "ERROR" if self.error else "PASS"
        return {"checkout_id": checkout, "origin": ORIGIN, "status": status, **named, **times}

    @classmethod
    def from_kcidb(cls, build: Mapping[str, Any]) -> "Build":
        """Read what `to_kcidb` returned."""
        named: dict[str, Any] = {ours: build[name] for name, ours in _BUILD.items() if name in build}
        named["error"] = (named.get("error") or "no reason given") if build["status"] != "PASS" else ""
        seconds = {name: value for name, value in build.get("misc", {}).items() if isinstance(value, int | float)}
        return cls(**named, seconds=seconds)


@dataclass(frozen=True)
class Proof:
    """A row, and what came of it: a proof if red on before and green on after.

    Attributes:
        row: the row.
        results: what came of its boots.
        broken: the first error of a kernel that did not build, else empty.
        trusted: whether the evidence is as the run left it; else nothing of it is a pass.
    """

    row: Row
    results: tuple[BootResult, ...]
    broken: str = ""
    trusted: bool = True

    def of(self, state: str) -> list[BootResult]:
        """Return the boots of a state."""
        return [result for result in self.results if result.state == state]

    def wrong(self, state: str) -> list[BootResult]:
        """Return the boots of a state that did not come out as they must."""
        return [result for result in self.of(state) if result.wrong]

    @property
    def skipped(self) -> bool:
        """Whether each after said that it cannot run here."""
        after = self.of("after")
        return bool(after) and all(result.verdict is Verdict.SKIP for result in after)

    @property
    def proved(self) -> bool:
        """Every boot asked for was run, and came out as it must."""
        return (
            self.trusted
            and not self.broken
            and self.row.boots > 0
            and bool(self.row.states)
            and all(len(self.of(state)) == self.row.boots * (state in self.row.states) for state in STATES)
            and not any(result.wrong for result in self.results)
        )

    @property
    def disputed(self) -> tuple[Claim, ...]:
        """The claims in which the audit and the boots do not agree, so that one of the two is wrong.

        To be affected, the tree as it is must not come out green in each boot; to be fixed, not red in any.
        """
        before, after = self.of("before"), self.of("after")
        return tuple(
            claim
            for claim in self.row.claims
            if (claim.status == "affected" and before and all(result.shows(claim.cases, "PASS") for result in before))
            or (claim.status == "fixed" and any(result.shows(claim.cases, "FAIL") for result in after))
        )

    @property
    def found(self) -> list[Found]:
        """What each claim of a kernel as it was shipped comes to."""
        return [self._found(claim) for claim in self.row.claims]

    def _found(self, claim: Claim) -> Found:
        row, results = self.row, self.results
        absent = claim.status in ABSENT
        if row.not_run or not self.trusted:
            has = Has.NOT_IN if absent and self.trusted else Has.CANNOT_TELL
            return Found(claim.finding, row.arch, has, row.not_run or "the evidence is not as the run left it")
        red = [result for result in results if result.shows(claim.cases, "FAIL")]
        green = [result for result in results if result.shows(claim.cases, "PASS")]
        chosen = red or [result for result in results if result not in green] or green
        times = [result.ending.ktap_seconds or result.ending.seconds for result in chosen]
        seconds = max(times, default=None)
        count = f"{len(red or green)}/{row.boots} in {row.suite}"
        if red and not absent:
            return Found(claim.finding, row.arch, Has.HAS, _how(claim, red[0], count), seconds)
        if len(results) < row.boots:
            return Found(claim.finding, row.arch, Has.CANNOT_TELL, f"{len(results)} of {row.boots} boots were run")
        if len(green) < len(results):
            judged = chosen[0].judged
            said = {case: judged.cases.get(case, "MISS") for case in claim.cases}
            case = next(case for case in claim.cases if said[case] != "PASS")
            why = judged.why if judged.verdict is not Verdict.PASS else f"{case}: {said[case]}"
            return Found(claim.finding, row.arch, Has.CANNOT_TELL, f"{row.suite}: {why}", seconds)
        if claim.luck:
            why = f"{row.suite} passed, as it does by luck where the fault is, too"
            return Found(claim.finding, row.arch, Has.CANNOT_TELL, why, seconds)
        has = Has.NOT_IN if absent else Has.FREE
        return Found(claim.finding, row.arch, has, _how(claim, green[0], count), seconds)

    def _judge(self) -> tuple[Outcome | Has, ExitCode]:
        after = {result.verdict for result in self.of("after")}
        if not self.trusted:
            return Outcome.NOT_TRUSTED, ExitCode.USAGE
        if self.row.shipped:
            return worst((each.has for each in self.found), Has.CANNOT_TELL)
        if self.row.not_run:
            return Outcome.NOT_RUN, ExitCode.NOTHING
        if self.proved:
            return Outcome.PROVED if self.row.proof else Outcome.PASS, ExitCode.OK
        if self.row.control and self.skipped:
            return Outcome.SKIP, ExitCode.OK
        if self.broken:
            return Outcome.ERROR, ExitCode.INFRASTRUCTURE
        if self.disputed:
            return Outcome.DISPUTED, ExitCode.FAILED
        if Verdict.PANIC in after:
            return Outcome.NOT_PROVED, ExitCode.PANIC
        if Verdict.ERROR in after | {result.verdict for result in self.of("before")}:
            return Outcome.NOT_PROVED, ExitCode.INFRASTRUCTURE
        if Verdict.TIMEOUT in after:
            return Outcome.NOT_PROVED, ExitCode.TIMEOUT
        return (Outcome.SKIP, ExitCode.NOTHING) if self.skipped else (Outcome.NOT_PROVED, ExitCode.FAILED)

    @property
    def outcome(self) -> Outcome | Has:
        """What came of it, in a word."""
        return self._judge()[0]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that it asks for."""
        return self._judge()[1]


# What the audit calls a finding whose code is not there.
ABSENT = ("not-applicable", "not built")


def _how(claim: Claim, result: BootResult, count: str) -> str:
    """Say how a boot showed what it did."""
    if claim.status in ABSENT:
        return f"{claim.cases[0]} in this kernel"
    if result.forced and race_case(claim.finding) in claim.cases:
        return f"race {result.forced.end} {count}{', as reported' if result.forced.reported else ''}"
    return f"{claim.cases[0]}: {'failed' if result.shows(claim.cases, 'FAIL') else 'passed'} {count}"


def worst(words: Iterable[Has], default: Has = Has.NOT_IN) -> tuple[Has, ExitCode]:
    """Return the gravest of some words, and the exit code that it stands for: the audit's."""
    word = min(words, key=list(Has).index, default=default)
    return word, {Has.HAS: ExitCode.FAILED, Has.CANNOT_TELL: ExitCode.NOTHING}.get(word, ExitCode.OK)


def gravest(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the gravest of some exit codes."""
    return min((code for code in codes if code is not ExitCode.OK), key=_GRAVE.index, default=ExitCode.OK)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        id: its id in KCIDB.
        title: the tree and its version.
        rows: what was planned.
        builds: the kernels.
        results: what came of the boots, in the order in which they ended.
        waiting: boots whose results are still to come, from a farm; their files are paths below its folder.
        files: the digest (SHA-256) of each of those files.
        tree: the tree's name.
        start: when it began, as RFC 3339 has it.
        base: the base's name.
        kunit: ``own`` or ``compat``.
        command: the command that asks for the same.
        qemu: QEMU's version, by architecture.
        seconds: wall time, by what it was spent on.
        shipped: of a kernel that somebody else built: its package, that one's digest, its release, and its debugging.
        same: what its consoles are beside those of an earlier run, in lines.
        distrust: why nothing of it may be shown as a pass; empty if it is as the run left it. Not part of KCIDB.
    """

    id: str
    title: str
    rows: tuple[Row, ...]
    builds: tuple[Build, ...] = ()
    results: tuple[BootResult, ...] = ()
    waiting: tuple[Boot, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    tree: str = ""
    start: str = ""
    base: str = ""
    kunit: str = ""
    command: str = ""
    qemu: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    shipped: Mapping[str, str] = field(default_factory=dict)
    same: tuple[str, ...] = ()
    distrust: str = ""

    def build_id(self, arch: str, state: str) -> str:
        """Return the id of a kernel."""
        return f"{self.id}-{arch}-{state}"

    @property
    def bugs(self) -> list[str]:
        """The bugs in the order in which they were asked for."""
        return list(dict.fromkeys(row.bug for row in self.rows))

    @property
    def arches(self) -> list[str]:
        """The architectures in the order in which they were asked for."""
        return list(dict.fromkeys(row.arch for row in self.rows))

    @property
    def proofs(self) -> list[Proof]:
        """Each row with what came of it."""
        broken = {build.arch: build.error for build in reversed(self.builds) if build.error}
        return [
            Proof(
                row,
                tuple(result for result in self.results if result.row.key == row.key),
                broken.get(row.arch, ""),
                not self.distrust,
            )
            for row in self.rows
        ]

    @property
    def found(self) -> list[Found]:
        """What a shipped kernel has of each finding: what one test decided outweighs what others could not."""
        order = (Has.HAS, Has.FREE, Has.NOT_IN, Has.CANNOT_TELL)
        each = sorted((one for proof in self.proofs for one in proof.found), key=lambda one: order.index(one.has))
        firsts = {one.finding: one for one in reversed(each) if self.shipped}
        ids = dict.fromkeys(claim.finding for row in self.rows for claim in row.claims)
        return [firsts[id] for id in ids if firsts]

    def exit_code(self) -> ExitCode:
        """Return the exit code that it stands for: the gravest of its rows', or that nothing was run."""
        if self.distrust:
            return ExitCode.USAGE
        if self.shipped:
            return worst(one.has for one in self.found)[1]
        ran = [proof for proof in self.proofs if not proof.row.not_run]
        return gravest(proof.exit_code for proof in ran) if ran else ExitCode.NOTHING

    def to_kcidb(self) -> dict[str, Any]:
        """Return it as results.json has it."""
        misc = {name: getattr(self, name) for name in _MISC if getattr(self, name)}
        if self.waiting:
            misc["waiting"] = list(map(_boot_to_json, self.waiting))
        checkout = {
            "id": self.id,
            "origin": ORIGIN,
            "tree_name": self.tree,
            "start_time": self.start,
            "comment": self.title,
            "misc": {"plan": [asdict(row) | {"proof": row.proof} for row in self.rows], **misc, "format": FORMAT},
        }
        return {
            "version": dict(zip(("major", "minor"), VERSION, strict=True)),
            "checkouts": [{name: value for name, value in checkout.items() if value}],
            "builds": [build.to_kcidb(self.id) for build in self.builds],
            "tests": [result.to_kcidb() for result in self.results],
        }

    @classmethod
    def from_kcidb(cls, data: Mapping[str, Any]) -> "Run":
        """Read what `to_kcidb` returned, now or in an older kmend.

        Args:
            data: JSON that is as scripts/schemas/results.json asks. What no row asks for is not read.
        """
        (checkout,) = data["checkouts"]
        misc = checkout["misc"]
        rows = {row.key: row for row in (_made(Row, {**row, "claims": _claims(row)}) for row in misc["plan"])}
        tests = [(rows.get(key(test["misc"])), test) for test in data["tests"]]
        waiting = [(rows.get(key(boot)), boot) for boot in misc.get("waiting", ())]
        known = {
            "id": checkout["id"],
            "title": checkout["comment"],
            "rows": tuple(rows.values()),
            "builds": tuple(map(Build.from_kcidb, data["builds"])),
            "results": tuple(BootResult.from_kcidb(row, test) for row, test in tests if row),
            "waiting": tuple(_made(Boot, {**boot, "row": row}) for row, boot in waiting if row),
            "tree": checkout.get("tree_name", ""),
            "start": checkout.get("start_time", ""),
        }
        return _made(cls, {name: misc[name] for name in _MISC if name in misc} | known)


_KEY = ("bug", "arch", "suite", "kind")
_MISC = ("base", "kunit", "command", "qemu", "seconds", "files", "shipped", "same")
# KCIDB's names for what is known of a build.
_BUILD = {
    "id": "id",
    "architecture": "arch",
    "start_time": "start",
    "command": "command",
    "compiler": "compiler",
    "config_name": "config",
    "log_url": "log",
    "log_excerpt": "error",
}


def key(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return what a row of the plan in JSON, or the misc of a boot, is of."""
    return row["bug"], row["arch"], row["suite"], row["kind"]


_Kind = TypeVar("_Kind")
_hints = cache(get_type_hints)


def _made(kind: type[_Kind], data: Mapping[str, Any]) -> _Kind:
    """Return a dataclass with what JSON has of its fields."""
    return kind(**{name: _value(hint, data[name]) for name, hint in _hints(kind).items() if name in data})


def _value(hint: Any, value: Any) -> Any:
    """Return a field's value, of its type, for what JSON has."""
    if get_origin(hint) is UnionType:
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is tuple:
        return value if value is None else tuple(_value(get_args(hint)[0], each) for each in value)
    if isinstance(value, str) and issubclass(hint, StrEnum | Path):
        return hint(value)
    return _made(hint, value) if is_dataclass(hint) and isinstance(value, Mapping) else value


def _claims(row: Mapping[str, Any]) -> Any:
    # An older kmend had no claims, but the cases alone.
    return row.get("claims") or ([{"finding": "", "status": "", "cases": row["proof"]}] if row["proof"] else [])


def _boot_to_json(boot: Boot) -> dict[str, Any]:
    files = {"kernel": str(boot.guest.kernel), "initrd": list(map(str, boot.guest.initrd))}
    row = dict(zip(_KEY, boot.row.key, strict=True))
    return row | {"state": boot.state, "number": boot.number, "test": boot.test, "guest": asdict(boot.guest) | files}
