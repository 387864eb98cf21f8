# SPDX-License-Identifier: GPL-2.0-only
"""What riscv-kvm-exit.cocci and riscv-kvm-exit-init.cocci make of what they find."""

from __future__ import annotations

import re
from collections import defaultdict

from kmend_rule import Key, Position, Report, file_of, function_of, key

STEPS = ("kvm_riscv_aia_exit", "kvm_riscv_nacl_exit")
ENABLES = ("hardware_enable_all", "kvm_enable_virtualization")
ENABLING = 'b4886fab6fb6 ("KVM: Add a module param to allow enabling virtualization when KVM is loaded")'
BARE_MODE = 'b8d13949a612 ("RISC-V: KVM: Prevent HGATP_MODE_BARE passed")'


class Exit:
    """What was found for exit-order.

    calls: by file and function, what it calls.
    places: of these, where; both for what has a name of KVM's and for what frees.
    own: the functions of all files.
    loads, unloads: by file, where module_init() is, and the name that module_exit() has.
    early, late: steps that can run without kvm_exit() before them, and after it.
    """

    FINDING = "riscv-kvm-exit/exit-order"

    def __init__(self) -> None:
        self.out = Report()
        self.calls: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.places: list[tuple[Position, str]] = []
        self.own: set[str] = set()
        self.loads: dict[str, Position] = {}
        self.unloads: dict[str, str] = {}
        self.early: set[Key] = set()
        self.late: set[Key] = set()

    def call(self, p: Position, f: str) -> None:
        """A function is called."""
        self.calls[file_of(p)][function_of(p)].append(f)
        self.places.append((p, f))

    def frees(self, file: str, name: str) -> list[str]:
        """What a function of a file frees of what the CPUs use, itself or by what it calls."""
        called = self.calls[file][name] if name in self.calls[file] else []
        steps = [step for step in called if step in STEPS]
        for each in called:
            steps += [step for step in self.calls[file].get(each, ()) if step in STEPS]
        return list(dict.fromkeys(steps))

    def is_step(self, name: str) -> bool:
        """True for a function that frees what the CPUs use, in any file."""
        return name in STEPS or any(self.frees(file, name) for file in list(self.calls))

    def is_odd(self, name: str) -> bool:
        """True for a KVM function of which it is not known what it frees."""
        return name.startswith("kvm_riscv_") and not self.is_step(name) and name not in self.own

    def reached(self, p: Position, name: str) -> None:
        """A path leads to a function without kvm_exit() before it."""
        if self.is_step(name):
            self.early.add(key(p))
        else:
            self.out.say(p, self.FINDING, "unknown", f"{name}() before kvm_exit(): it is not known what it frees")

    def follows(self, p: Position, name: str) -> None:
        """A path leads to a function after kvm_exit()."""
        self.late.add(key(p))
        if name == "kvm_exit":
            self.out.say(p, self.FINDING, "unknown", "kvm_exit() for a second time")

    def judge(self) -> None:
        """Judge every step where module exit takes it. A file without one has no AIA, no exit, or is not known."""
        for p, name in self.places:
            if self.is_step(name):
                here = function_of(p) == self.unloads.get(file_of(p))
                said = self._judge(p, name) if here else ("seen", "not in the module's exit function")
                self.out.say(p, self.FINDING, *said)
        for file, p in self.loads.items():
            called = {name for names in self.calls[file].values() for name in names}
            if not any(name.startswith("kvm_riscv_aia_") for name in called):
                reason = "no AIA support, so nothing to free at module exit"
                self.out.say(p, self.FINDING, "not-applicable", reason)
            elif file not in self.unloads:
                self.out.say(p, self.FINDING, "not-applicable", "no module_exit(): the module cannot be unloaded")
            elif not self.frees(file, self.unloads[file]):
                reason = f"AIA support, but nothing in {self.unloads[file]}() that frees it"
                self.out.say(p, self.FINDING, "unknown", reason)

    def _judge(self, p: Position, name: str) -> tuple[str, str]:
        file, fn, k = file_of(p), function_of(p), key(p)
        steps = self.frees(file, name) if name not in STEPS else []
        what = f"{name}()" + (f", and with it {' and '.join(f'{step}()' for step in steps)}," if steps else "")
        if "kvm_exit" not in self.calls[file][fn]:
            return "unknown", f"{what}, but no kvm_exit() in {fn}()"
        if "kvm_exit" in self.calls[file].get(name, ()):
            return "unknown", f"{name}() calls kvm_exit() as well"
        if k in self.early and k in self.late:
            return "unknown", f"{what} before kvm_exit() on some paths only"
        if k in self.early:
            return self._wrong(f"{what} before kvm_exit()")
        return ("fixed", f"{what} after kvm_exit()") if k in self.late else ("unknown", f"no path leads to {what}")

    def _wrong(self, reason: str) -> tuple[str, str]:
        """The status of a step that runs before kvm_exit(), and why."""
        callers = {
            fn
            for functions in self.calls.values()
            for fn, called in functions.items()
            for name in called
            if name in ENABLES and fn not in ("something_else", name)
        }
        if callers == {"kvm_create_vm"}:
            return "latent", (
                f"{reason}, harmless as long as virtualization is enabled only while a VM exists; "
                f"a backport of {ENABLING} alone makes it affected"
            )
        if callers or not self.out.all:
            return "affected", f"{reason}: the CPUs still use what is freed"
        return "unknown", f"{reason}, but no kvm_main.c says whether virtualization is enabled by then"


UNDOES = {
    "kvm_riscv_aia_init": "kvm_riscv_aia_exit",
    "kvm_riscv_nacl_init": "kvm_riscv_nacl_exit",
    "kvm_register_perf_callbacks": "kvm_unregister_perf_callbacks",
    "kvm_init": "kvm_exit",
}


class Init:
    """What was found for init-leak.

    does, may: by step, the functions that undo it on each of their paths, and on some.
    values: what the G-stage mode can be: sound, none, or vague.
    loads: where module_init() is, and the name that it has.
    calls: all calls of what sets up and undoes.
    known: steps whose own failure is told from later ones.
    returns: returns after a step, with their text.
    leaks, undone: of these, those that can be reached without undoing a step, and with it: the steps.
    failing: returns of a value that was just found to be an error.
    modes: returns that only the G-stage mode leads to.
    """

    FINDING = "riscv-kvm-exit/init-leak"

    def __init__(self) -> None:
        self.out = Report()
        self.does = {step: {name} for step, name in UNDOES.items()}
        self.may = {step: {name} for step, name in UNDOES.items()}
        self.values: set[str] = set()
        self.loads: list[tuple[Position, str]] = []
        self.calls: list[tuple[Position, str]] = []
        self.known: set[Key] = set()
        self.returns: dict[Key, tuple[Position, str]] = {}
        self.leaks: dict[Key, set[str]] = defaultdict(set)
        self.undone: set[tuple[Key, str]] = set()
        self.failing: set[Key] = set()
        self.modes: set[Key] = set()

    def helper(self, table: dict[str, set[str]], name: str, undoes: str) -> None:
        """A function does what another one undoes."""
        for names in table.values():
            names |= {name} if undoes in names else set()

    def value(self, text: str) -> None:
        """The G-stage mode is set."""
        none = text in ("0", "HGATP_MODE_OFF") or "HGATP_MODE_OFF <<" in text
        self.values.add("sound" if "HGATP_MODE_SV" in text else "none" if none else "vague")

    def judge(self) -> None:
        """Judge every return after a step, and look at every step, where it belongs or elsewhere."""
        for p, text in self.returns.values():
            if text != "0":
                self.out.say(p, self.FINDING, *self._judge(p, text.replace(" ", "")))
        aia = {file_of(p) for p, name in self.calls if name.startswith("kvm_riscv_aia_")}
        taken = {(file_of(p), name) for p, name in self.calls}
        for p, name in self.calls:
            if name not in UNDOES:
                # To undo what was never done is a mistake of another kind.
                if name in STEPS and (file_of(p), name.replace("_exit", "_init")) not in taken:
                    self.out.say(p, self.FINDING, "unknown", f"{name}(), but its setup is not in this file")
            elif key(p) in self.known or file_of(p) not in aia:
                self.out.say(p, self.FINDING, "seen", "a step of module init")
            elif any((file_of(p), function_of(p)) == (file_of(at), fn) for at, fn in self.loads):
                self.out.say(p, self.FINDING, "unknown", f"it is not known how a failure of {name}() is met")
            else:
                self.out.say(p, self.FINDING, "unknown", f"{name}() outside of the module's init function")
        for p, _ in self.loads:
            if file_of(p) not in aia:
                self.out.say(p, self.FINDING, "not-applicable", "no AIA support, so nothing to undo")

    def _judge(self, p: Position, value: str) -> tuple[str, str]:
        """The status of a return of an error, and why."""
        k = key(p)
        steps = sorted(self.leaks[k])
        if not steps:
            hides = hidden(p)
            return (
                ("unknown", f"return {value}, which an #if behind a case label hides")
                if hides
                else (
                    "fixed",
                    f"return {value} with all undone",
                )
            )
        reason = f"return {value} without undoing {' and '.join(f'{step}()' for step in steps)}"
        if any((k, step) in self.undone for step in steps):
            return "unknown", f"{reason} on some paths"
        called = {name for at, name in self.calls if file_of(at) == file_of(p)}
        if any(not self.may[step] & called for step in steps):
            return "unknown", f"{reason}, but in this file nothing is known that does"
        if value.isidentifier() and k not in self.failing:
            return "unknown", f"{reason}, if it is an error"
        if k in self.modes and self.values == {"sound"}:
            return "latent", (
                f"{reason}, but the G-stage mode starts as a known one and never is none; "
                f"a backport of the detection alone, from {BARE_MODE}, makes it affected"
            )
        if k in self.modes and "none" not in self.values and self.out.all:
            return "unknown", f"{reason}, but no mmu.c or gstage.c says whether the G-stage mode can be none"
        return "affected", reason


def hidden(p: Position) -> bool:
    """True if there is an #if right behind a case label above: Coccinelle takes what is in it for granted."""
    with open(p[0].file, encoding="latin-1") as file:
        text = "\n".join(file.read().splitlines()[: int(p[0].line)]).rpartition("\n{")[2]
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    return bool(re.search(r"\b(case\b[^:;]*|default\s*):\s*#\s*if(?!\s+0\b)", text))
