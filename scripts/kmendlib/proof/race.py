# SPDX-License-Identifier: GPL-2.0-only
"""Forces an interleaving on a kernel as it is: parks one vCPU between two instructions while another one runs.

QEMU's GDB stub resumes only the vCPUs that it is told to, which is what a busy hypervisor does to a guest every day.
What is forced is the diagram of the bug's page; nothing about a bug is in here.
"""

import contextlib
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from kmendlib.host.words import Verdict
from kmendlib.proof import guest, ktap
from kmendlib.proof.stub import GuestGone, Stub, StubError
from kmendlib.run import RACE_CASES, Ending, Forced, GuestSpec, Judgement, Moment, RaceEnd, race_case
from kmendlib.tree import arches, diagram, manifest
from kmendlib.tree.arches import Registers
from kmendlib.tree.diagram import TICK, Place, Script, Step, Value

# Ticks of the vCPUs that run while another is parked: 2 to 5 seconds of the guest's time.
TICKS = 500
ATTEMPTS = 40
# As often another CPU is waited for before the boot CPU is the first that is parked.
SPARE = 3
# Boots of a guest in which nobody came to the race.
BOOTS = 5
# Instructions of a lane's own in a function: a lock that is free takes a few hundred, KASAN's among them.
STAY = 2000
# Seconds in which a guest with a parked vCPU, whose other vCPUs have their interrupts on, comes to a tick.
STOP_LIMIT = 5.0
WORD = 1 << 64


class Symbol(NamedTuple):
    """Address and size of a symbol."""

    address: int
    size: int


class State(NamedTuple):
    """A stopped vCPU's registers; the return address is None where it lies on top of the stack."""

    pc: int
    stack: int
    returns: int | None
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class _Stop:
    """A place of a step that a vCPU may come to; where a function returns to, the stack pointer that it has then."""

    step: Step
    place: Place
    stack: int | None = None


@dataclass(frozen=True)
class _Hit:
    cpu: int
    step: Step
    place: Place
    pc: int


# What a run of some vCPUs may stop at, by the address of an instruction, or of what is written.
_Stops = dict[int, list[_Stop]]


class Machine:
    """A guest at its stub: lets chosen vCPUs run to chosen places."""

    def __init__(self, stub: Stub, registers: Registers, symbols: dict[str, Symbol]) -> None:
        """Take a guest that is stopped."""
        self.stub = stub
        self.symbols = symbols
        self._registers = registers
        first = stub.ask("qfThreadInfo")
        if not re.fullmatch(r"m[0-9a-f]+(,[0-9a-f]+)*,?", first):
            raise StubError(f"the stub names no vCPUs: {first[:40]}")
        while (more := stub.ask("qsThreadInfo")) != "l":
            first += f",{more[1:]}"
        self._threads = [int(number, 16) for number in first[1:].split(",") if number]
        self.cpus = range(len(self._threads))
        if len(self._threads) < 2:
            raise StubError("the guest has one vCPU: nobody can be parked beside another")
        self.objects: dict[str, Symbol] = {}
        # Of the functions that a lane was seen to enter: where they return to, and the stack pointer then.
        self.entered: dict[tuple[int, str], tuple[int, int]] = {}
        self._judged: dict[int, int] = {}
        self._sites: dict[tuple[str, str], list[tuple[int, int]]] = {}
        # The vCPU that reads code.
        self._reader = 0
        # The vCPU that keeps the time, how often it is still spared, and an attempt's first step.
        self.boot = 0
        self._spare = 0
        self._first: Step | None = None

    # what a stopped vCPU knows

    def state(self, cpu: int) -> State:
        """Return a vCPU's registers."""
        self.stub.order(f"Hg{self._threads[cpu]:x}")
        text = self.stub.ask("g")
        known = self._registers
        need = 1 + max(known.pc, known.stack, known.returns or 0, *known.arguments)
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise StubError(f"registers that are none: {text[:40]}") from None
        if len(data) < 8 * need:
            raise StubError(f"{len(data)} bytes of registers: too few")
        values = [int.from_bytes(data[at : at + 8], "little") for at in range(0, 8 * need, 8)]
        returns = None if known.returns is None else values[known.returns]
        return State(values[known.pc], values[known.stack], returns, tuple(values[at] for at in known.arguments))

    def memory(self, cpu: int, address: int, size: int) -> bytes | None:
        """Read memory as a vCPU sees it; None where nothing is."""
        self.stub.order(f"Hg{self._threads[cpu]:x}")
        found = b""
        while len(found) < size:
            part = min(1024, size - len(found))
            try:
                text = self.stub.ask(f"m{(address + len(found)) % WORD:x},{part:x}")
                data = bytes.fromhex(text)
            except (StubError, ValueError):
                if self.stub.broken:
                    raise
                return None
            if len(data) != part:
                raise StubError(f"{len(data)} bytes of memory for {part}")
            found += data
        return found

    def word(self, cpu: int, address: int) -> int | None:
        """Read eight bytes."""
        data = self.memory(cpu, address, 8)
        return None if data is None else int.from_bytes(data, "little")

    def value(self, cpu: int, state: State, value: Value) -> int | None:
        """Return what a value is where a vCPU stands."""
        now: int | None = state.arguments[value.argument]
        for offset in value.offsets:
            now = None if now is None else self.word(cpu, now + offset)
        return now

    def returns(self, cpu: int, state: State) -> tuple[int, int]:
        """Return where a function that is just entered returns to, and the stack pointer then."""
        if state.returns is None:
            return self.word(cpu, state.stack) or 0, state.stack + 8
        return state.returns, state.stack

    def find(self, name: str) -> Symbol | None:
        """Return a symbol, or an object that was kept; or a number, as if it were an address."""
        return self.objects.get(name) or self.symbols.get(name) or (Symbol(int(name), 1) if name.isdigit() else None)

    def where(self, pc: int) -> str:
        """Name an address by function and offset."""
        for name, symbol in self.symbols.items():
            if symbol.address <= pc < symbol.address + max(symbol.size, 1):
                return f"{name}+0x{pc - symbol.address:x}"
        return f"0x{pc:x}"

    def holds(self, cpu: int, state: State, one: Place) -> bool:
        """Tell whether a place's conditions hold where a vCPU stands; if so, keep what it keeps."""
        fresh = {}
        for name, value, add, size in one.keep:
            found = self.value(cpu, state, value)
            if found is None:
                return False
            fresh[name] = Symbol(found + add, size)
        for condition in one.conditions:
            now = self.value(cpu, state, condition.value)
            target = fresh.get(condition.name) or self.find(condition.name)
            if now is None or target is None:
                return False
            size = max(target.size, 1) if condition.inside else 1
            if (target.address <= now < target.address + size) != condition.wanted:
                return False
        self.objects |= fresh
        return True

    # places

    def enter_kernel(self) -> None:
        """Let the guest run until a vCPU is at a tick: one in user mode may not see the kernel's memory."""
        step = Step(0, 0, "see", (Place(TICK, "enter", (TICK,)),))
        hit = self.run(self.cpus, [step], bounded=False)
        self._reader = hit.cpu if hit else 0

    def sites(self, caller: str, callee: str) -> list[tuple[int, int]]:
        """Return where a function calls another: the call's address, and the one after it.

        Raises:
            StubError: the function's code cannot be read.
        """
        if (caller, callee) not in self._sites:
            symbol, target = self.symbols[caller], self.symbols[callee].address
            code = self.memory(self._reader, symbol.address, symbol.size)
            if code is None:
                raise StubError(f"the code of {caller} cannot be read")
            calls = ((at, self._registers.call(code, at)) for at in range(max(len(code) - 3, 0)))
            self._sites[caller, callee] = [
                (symbol.address + at, symbol.address + at + call[0])
                for at, call in calls
                if call and (symbol.address + at + call[1]) % WORD == target
            ]
        return self._sites[caller, callee]

    def addresses(self, step: Step, one: Place) -> Iterator[tuple[int, int | None]]:
        """Yield where a place is in this kernel, with the stack pointer where that tells whose return it is."""
        names = [name for name in one.functions if self.find(name)]
        if one.kind in ("call", "return"):
            for caller in filter(self.symbols.get, one.callers):
                found = sorted(site for name in names for site in self.sites(caller, name))
                chosen = found[one.number - 1 : one.number] if one.number else found
                yield from ((site[one.kind == "return"], None) for site in chosen)
            return
        for name in names[:1]:
            if one.kind == "leave" and (step.lane, name) in self.entered:
                yield self.entered[step.lane, name]
            else:
                yield (self.objects.get(name) or self.symbols[name]).address + one.offset, None

    # running

    def begin(self, first: Step) -> None:
        """Begin an attempt with this step."""
        self.objects.clear()
        self.entered.clear()
        self._first, self._spare = first, SPARE

    def spares(self, cpu: int, step: Step) -> bool:
        """Tell whether it is too early to park this vCPU."""
        # With nohz=off the boot CPU keeps the time: no timer of the others would end without it.
        early = step.what in ("park", "control") and cpu == self.boot and self._spare > 0
        self._spare -= early
        return early

    def _step(self, cpu: int) -> None:
        self.stub.send(f"vCont;s:{self._threads[cpu]:x}")
        self.stub.stopped("a vCPU takes no step")
        self._judged.pop(cpu, None)

    def _stays(self, cpu: int, state: State) -> bool:
        """Let a vCPU that enters a function go on alone; tell whether it is in there for so long that it waits."""
        back = self.returns(cpu, state)
        for _ in range(STAY):
            self._step(cpu)
            if self.state(cpu)[:2] == back:
                return False
        return True

    def _judge(self, cpu: int, stops: _Stops, wrote: int | None = None) -> _Hit | None:
        """Tell whether a vCPU is at one of the places, or has written to one."""
        state = self.state(cpu)
        if wrote is None:
            if self._judged.get(cpu) == state.pc:
                return None
            self._judged[cpu] = state.pc
        for stop in tuple(stops.get(state.pc if wrote is None else wrote, ())):
            step, one = stop.step, stop.place
            if not (self.holds(cpu, state, one) if stop.stack is None else stop.stack == state.stack):
                continue
            if one.kind == "leave" and stop.stack is None:
                back, stack = self.returns(cpu, state)
                if back not in stops:
                    self.stub.order(f"Z1,{back:x},1")
                stops.setdefault(back, []).append(_Stop(step, one, stack))
            elif one.kind == "stay":
                self._breakpoints(stops, "z")
                stays = self._stays(cpu, state)
                self._breakpoints(stops, "Z")
                if stays:
                    return _Hit(cpu, step, one, self.state(cpu).pc)
            elif step is not self._first or not self.spares(cpu, step):
                if one.kind == "enter":
                    name = next(name for name in one.functions if (at := self.find(name)) and at.address == state.pc)
                    self.entered[step.lane, name] = self.returns(cpu, state)
                return _Hit(cpu, step, one, state.pc)
        return None

    def _breakpoints(self, stops: _Stops, word: str) -> None:
        for address, those in stops.items():
            written = any(stop.place.kind == "write" for stop in those)
            self.stub.order(f"{word}2,{address % WORD:x},8" if written else f"{word}1,{address:x},1")

    def run(self, cpus: Sequence[int], steps: Iterable[Step], bounded: bool) -> _Hit | None:
        """Let some vCPUs run until one comes to a place of some steps; the others stay where they are.

        Args:
            cpus: the vCPUs.
            steps: what they may come to.
            bounded: for `TICKS` ticks at the most.

        Returns:
            What was hit; None where the bound was reached.
        """
        stops: _Stops = {}
        for step in steps:
            for one in step.places:
                for address, stack in self.addresses(step, one):
                    stops.setdefault(address, []).append(_Stop(step, one, stack))
        ticks = 0
        if bounded:
            tick = self.symbols[TICK].address
            stops.setdefault(tick, [])
        self._breakpoints(stops, "Z")
        try:
            while True:
                for cpu in cpus:
                    hit = self._judge(cpu, stops)
                    if hit:
                        return hit
                    if bounded and self._judged.get(cpu) == tick:
                        ticks += 1
                if ticks >= TICKS:
                    return None
                reply = self._go_on(cpus, stops, bounded)
                if reply is None:
                    return None
                written = re.search(r"watch:([0-9a-f]+);", reply)
                thread = re.search(r"thread:(?:p[0-9a-f]+\.)?([0-9a-f]+);", reply)
                for cpu in cpus if written and thread else ():
                    if self._threads[cpu] == int(thread[1], 16):
                        hit = self._judge(cpu, stops, int(written[1], 16))
                        if hit:
                            return self._behind(hit, stops)
        finally:
            self._breakpoints(stops, "z")

    def _behind(self, hit: _Hit, stops: _Stops) -> _Hit:
        """Let a vCPU that stopped at a write make it: riscv64's stop in front of theirs."""
        self._breakpoints(stops, "z")
        self._step(hit.cpu)
        self._breakpoints(stops, "Z")
        self._judged[hit.cpu] = self.state(hit.cpu).pc
        return replace(hit, pc=self._judged[hit.cpu])

    def _go_on(self, cpus: Sequence[int], stops: _Stops, bounded: bool) -> str | None:
        """Resume some vCPUs; return the stub's words at the next stop, or None if there is none."""
        for cpu in cpus:
            # A vCPU that stands at a breakpoint does not get beyond it.
            pc = self._judged.get(cpu)
            if pc in stops:
                self.stub.order(f"z1,{pc:x},1")
                self._step(cpu)
                self.stub.order(f"Z1,{pc:x},1")
        # One step may have led to the next place.
        if any(self.state(cpu).pc in stops for cpu in cpus if cpu not in self._judged):
            return "S05"
        self._judged = {cpu: pc for cpu, pc in self._judged.items() if cpu not in cpus}
        self.stub.send("vCont;" + ";".join(f"c:{self._threads[cpu]:x}" for cpu in cpus))
        while (reply := self.stub.receive(STOP_LIMIT)) is None:
            if bounded:
                self.stub.interrupt()
                return None
        return reply

    def release(self) -> None:
        """Let all vCPUs go on, for good."""
        self.stub.order("D")

    def end(self) -> None:
        """End the guest."""
        self.stub.send("k")


class Race:
    """A race in one boot: collects symbols from the console, then forces it from a thread of its own."""

    def __init__(
        self,
        what: Script,
        registers: Registers,
        path: Path,
        addresses: Mapping[str, tuple[int, int]] | None = None,
        whole: bool = True,
    ) -> None:
        """Prepare it.

        Args:
            what: the script.
            registers: the architecture's.
            path: the stub's socket.
            addresses: address and size of each symbol of a System.map, for what the guest's own list leaves out.
            whole: let the guest go on when its race was held.
        """
        self.script = what
        self.outcome = Forced(what.finding, RaceEnd.NO_CONTACT, why="the guest printed no symbols")
        # What the kernel has not got, so that another boot would end the same way.
        self.lacking = ""
        self.path = path
        self._registers = registers
        self._symbols: dict[str, Symbol] = {}
        self._addresses = addresses or {}
        self._whole = whole
        self._complete = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._lanes: dict[int, int] = {}
        self._started = 0.0
        self._boot = 0

    def words(self) -> list[str]:
        """Return the words of the kernel command line that it needs."""
        # A task that is woken onto a parked CPU is pulled over only by a CPU that ticks. A parked CPU looks locked up.
        quiet = ["nohz=off", "nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1", "kmend.parked"]
        return [*quiet, "kmend.symbols=" + ",".join(self.script.names())]

    def hear(self, line: str) -> None:
        """Take a line of the console."""
        # OpenSBI draws lots; elsewhere it is the first one.
        boot = re.match(r"Boot HART ID +: (\d+)", line)
        self._boot = int(boot[1]) if boot else self._boot
        found = re.search(r"kmend-symbol: (?:([0-9a-f]+) ([0-9a-f]+) (\w+)|(end))", line)
        if not found or self._complete.is_set():
            return
        if found[3]:
            self._symbols.setdefault(found[3], Symbol(int(found[1], 16), int(found[2], 16)))
        else:
            self._relocate()
            self._complete.set()
            self._thread.start()

    def _relocate(self) -> None:
        """Add what a System.map alone has; the kernel may be elsewhere than there, all of it by the same distance."""
        known = self._addresses
        away = next((at.address - known[name][0] for name, at in self._symbols.items() if name in known), None)
        for name in self.script.names() if away is not None else ():
            if name in known:
                self._symbols.setdefault(name, Symbol((known[name][0] + away) % WORD, known[name][1]))

    def finish(self) -> Forced:
        """Wait for the end, which comes when the guest is gone; return the outcome."""
        if self._complete.is_set():
            self._thread.join()
        return self.outcome

    def _main(self) -> None:
        try:
            with contextlib.closing(Stub(self.path)) as stub:
                machine = Machine(stub, self._registers, self._symbols)
                machine.boot = self._boot
                self._force(machine)
        except (GuestGone, StubError) as error:
            # What was seen before counts: a broken kernel dies.
            if self.outcome.end is RaceEnd.NO_CONTACT:
                last = (*self.outcome.control, *self.outcome.seen)[-1:]
                after = f" after {last[0].where}" if last else " before anybody came to the first place"
                fault = isinstance(error, StubError)
                self.outcome = replace(self.outcome, why=str(error) if fault else f"{error}{after}", fault=fault)

    def _missing(self, machine: Machine) -> str:
        if not machine.find(TICK):
            return f"this kernel has no {TICK}"
        machine.enter_kernel()
        script, found = self.script, []
        for step in (*script.steps, script.held, script.control, script.passed):
            # One for each shape of the code, and their addresses now, while a vCPU can read it.
            place = next((one for one in step.places if self._possible(machine, one)), None)
            if not place:
                return f"this kernel has none of: {'; '.join(one.text for one in step.places)}"
            found.append(replace(step, places=(place,)))
        *steps, held, control, passed = found
        self.script = replace(script, steps=tuple(steps), held=held, control=control, passed=passed)
        return ""

    def _possible(self, machine: Machine, one: Place) -> bool:
        kept = {name for step in self.script.steps for place in step.places for name, *_ in place.keep}
        known = all(condition.name in kept or machine.find(condition.name) for condition in one.conditions)
        return known and bool([*machine.addresses(self.script.held, one)] or kept.intersection(one.functions))

    def _force(self, machine: Machine) -> None:
        self.lacking = self._missing(machine)
        self.outcome = replace(self.outcome, why=self.lacking)
        if not self.lacking:
            last = max(number for number, step in enumerate(self.script.steps) if step.what == "park")
            if self._repeat(machine, (*self.script.steps[:last], self.script.control, self.script.passed), "control"):
                self.outcome = replace(self.outcome, end=RaceEnd.NO_CONTACT, seen=())
                self._repeat(machine, self.script.steps, "seen")
                if self.outcome.end is RaceEnd.HELD and not self._whole:
                    self.outcome = replace(self.outcome, ended=True)
                    return machine.end()
            else:
                why = f"the control never passed in {ATTEMPTS} attempts"
                self.outcome = replace(self.outcome, why=why, attempts=0)
        machine.release()

    def _repeat(self, machine: Machine, steps: Sequence[Step], what: str) -> bool:
        """Attempt it until there is contact, and tell whether there was; `what` is where the moments go."""
        first = 0.0
        for number in range(1, ATTEMPTS + 1):
            self.outcome = replace(self.outcome, attempts=number)
            seen: list[Moment] = []
            end, reason = self._attempt(machine, steps, seen, what)
            first = first or time.monotonic() - (seen[-1].seconds if seen else 0.0)
            if end is not RaceEnd.NO_CONTACT:
                seconds = round(time.monotonic() - first, 2)
                self.outcome = replace(self.outcome, end=end, seconds=seconds, why="")
                for step in self.script.then if what == "seen" and end is RaceEnd.BROKEN else ():
                    hit = self._go_for(machine, step, [], True)
                    if not hit:
                        break
                    self._note(machine, hit, seen, what)
                return True
        self.outcome = replace(self.outcome, why=f"no contact in {ATTEMPTS} attempts: {reason}")
        return False

    def _attempt(self, machine: Machine, steps: Sequence[Step], seen: list[Moment], what: str) -> tuple[RaceEnd, str]:
        machine.begin(steps[0])
        self._lanes = {}
        self._started = 0.0
        rest = list(steps)
        while rest:
            others = [self.script.held] if len(rest) == 1 and what == "seen" else []
            if seen and not self._lanes and any(place.keep for place in steps[0].places):
                # While nobody is parked no clock is needed: whoever comes to the first place begins anew.
                others.append(steps[0])
            hit = self._go_for(machine, rest[0], others, bool(self._lanes))
            if not hit:
                return RaceEnd.NO_CONTACT, f"nobody came to {rest[0].places[0].text} in {TICKS} ticks"
            # What it was seen to do is not what another one does.
            spared = hit.step is not steps[0] and not self._lanes and machine.spares(hit.cpu, hit.step)
            if spared or hit.step is steps[0]:
                seen.clear()
                self._started = 0.0
                rest = list(steps)
            if spared:
                continue
            self._note(machine, hit, seen, what)
            rest = rest[1:]
            if hit.step.what in ("park", "control"):
                self._lanes[hit.step.lane] = hit.cpu
        return RaceEnd.HELD if hit.step is self.script.held else RaceEnd.BROKEN, ""

    def _go_for(self, machine: Machine, step: Step, held: list[Step], bounded: bool) -> _Hit | None:
        own = self._lanes.get(step.lane)
        cpus = [own] if own is not None else [cpu for cpu in machine.cpus if cpu not in self._lanes.values()]
        return machine.run(cpus, [step, *held], bounded)

    def _note(self, machine: Machine, hit: _Hit, seen: list[Moment], what: str) -> None:
        now = time.monotonic()
        self._started = self._started or now
        where = machine.where(hit.pc)
        if hit.place.kind in ("leave", "stay"):
            name = next(filter(machine.symbols.get, hit.place.functions))
            where = f"{'back from' if hit.place.kind == 'leave' else 'waits in'} {name}"
        seen.append(Moment(hit.step.row, hit.step.lane, hit.step.what, round(now - self._started, 3), hit.cpu, where))
        self.outcome = replace(self.outcome, **{what: tuple(seen)})


def force(
    spec: GuestSpec,
    finding: str,
    console: Path,
    known: Mapping[str, tuple[int, int]] | None = None,
    whole: bool = True,
) -> tuple[Ending, Forced]:
    """Boot a guest and force a race in it; boot again where nobody came to it, `BOOTS` times at the most.

    Args:
        spec: the guest, whose load drives the race's path.
        finding: the finding whose race it is.
        console: file that takes the console of the last boot.
        known: address and size of each symbol of the kernel's System.map, if there is one.
        whole: let it go on when its race was held, to see all else pass.

    Raises:
        Infrastructure: QEMU cannot be started.
        InterruptedError: all children of this process were stopped.
    """
    bug = finding.split("/")[0]
    script = next(script for script in diagram.scripts(bug) if script.finding == finding)
    registers = arches.load(spec.arch).registers
    assert registers
    for _ in range(BOOTS):
        # The stub's socket lies in a private folder.
        with tempfile.TemporaryDirectory(prefix="kmend-race-") as folder:
            running = Race(script, registers, Path(folder) / "gdb", known, whole)
            with guest.ready(replace(spec, words=(*spec.words, *running.words()))) as words:
                ending = guest.boot([*words, *guest.stub_words(running.path)], console, guest.limit(spec), running.hear)
            forced = running.finish()
        if forced.end is not RaceEnd.NO_CONTACT or forced.fault or running.lacking:
            break
    functions = next(each.reported for each in manifest.load().bug(bug).findings if each.id == finding)
    text = console.read_text(encoding="utf-8", errors="replace")
    return ending, replace(forced, reported=forced.end is RaceEnd.BROKEN and ktap.as_reported(text, functions))


def judge(judged: Judgement, forced: Forced) -> Judgement:
    """Return a boot's verdict, its race among the cases."""
    cases = {**judged.cases, race_case(forced.finding): RACE_CASES[forced.end]}
    said = replace(judged, cases=cases)
    if forced.fault:
        return replace(said, verdict=Verdict.ERROR, reason=forced.why)
    # What is missing then was cut off by us; what the kernel had said before stays.
    if forced.ended and judged.verdict not in (Verdict.PANIC, Verdict.FAIL):
        return replace(said, verdict=Verdict.PASS, reason="")
    if forced.end is RaceEnd.NO_CONTACT and judged.verdict is Verdict.PASS:
        return replace(said, verdict=Verdict.MISS, reason=f"the race was not forced: {forced.why}")
    if forced.end is RaceEnd.BROKEN and judged.verdict is Verdict.PASS:
        return replace(said, verdict=Verdict.FAIL, reason="the race was lost, and no test noticed")
    return said
