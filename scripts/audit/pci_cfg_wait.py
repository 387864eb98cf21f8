# SPDX-License-Identifier: GPL-2.0-only
"""What pci-cfg-wait.cocci makes of what it finds."""

from __future__ import annotations

import re

from kmend_rule import Key, Position, Report, file_of, function_of, key

FINDING = "pci-cfg-wait/unlocked-queue"
WAITER = "pci_wait_cfg"
# What leaves the list alone, or removes under its lock.
HARMLESS = re.compile(
    r"(waitqueue_active|wq_has_sleeper|init_waitqueue_head|lockdep_assert_held|assert_spin_locked|remove_wait_queue"
    r"|finish_wait|spin_(un)?lock(_irq|_irqsave|_irqrestore|_bh)?)$"
)
WAKES = re.compile(r"(__)?wake_up(_sync|_nr|_all|_interruptible(_nr|_all|_sync)?)?$")
# These take the queue's lock themselves, and those leave it to their caller.
ADDS = re.compile(r"(add_wait_queue|prepare_to_wait)(_exclusive|_priority|_event)?$")
CHANGES = re.compile(
    r"__add_wait_queue|__remove_wait_queue|(__)?wake_up_locked|wake_up_all_locked"
    r"|list_(add|del|move|splice|replace|cut|rotate|swap)"
)


class Rule:
    """What was found.

    uses, entries: all uses of the queue, and what moves the waiter's own entry without the queue's lock, by name.
    harmless, wakers: uses that leave the queue to others, and that wake.
    adders, changes: uses that add under the queue's lock, and changes and walks that leave it to us, by name.
    bare, outside: places that can be reached without the queue's lock, and without pci_lock.
    declared, private: where the queue is, and where it is static.
    """

    def __init__(self) -> None:
        self.out = Report()
        self.uses: list[Position] = []
        self.entries: list[tuple[Position, str]] = []
        self.harmless: set[Key] = set()
        self.wakers: set[Key] = set()
        self.adders: dict[Key, str] = {}
        self.changes: dict[Key, str] = {}
        self.bare: set[Key] = set()
        self.outside: set[Key] = set()
        self.declared: set[Key] = set()
        self.private: set[Key] = set()

    def call(self, p: Position, f: str, member: str, waits: str) -> None:
        """A function is given the queue, or a member of it, or waits for it."""
        if waits:
            (self.changes if "_locked" in waits else self.adders)[key(p)] = waits
        elif HARMLESS.match(f) and member in ("", "lock"):
            self.harmless.add(key(p))
        elif WAKES.match(f) and not member:
            self.wakers.add(key(p))
        elif ADDS.match(f) and not member:
            self.adders[key(p)] = f
        elif CHANGES.match(f) and member in ("", "head", "task_list"):
            self.changes[key(p)] = f
            if "wake_up" in f:
                self.wakers.add(key(p))

    def note(self, p: Position, f: str) -> None:
        """A use of the queue, or what `f` does to an entry, may come without the queue's lock."""
        if f:
            self.entries.append((p, f))
        else:
            self.bare.add(key(p))

    def judge(self) -> None:
        """Say it of every use: one that no rule knows leaves the file unknown."""
        for p in self.uses:
            self.out.say(p, FINDING, *self._judge(p))
        for p, name in self.entries:
            if function_of(p) == WAITER:
                self.out.say(p, FINDING, *self._unlocked(p, name))

    def _judge(self, p: Position) -> tuple[str, str]:
        k, fn = key(p), function_of(p)
        name = self.changes.get(k) or self.adders.get(k)
        if name is None and k in self.harmless | self.wakers | self.declared:
            return "seen", "leaves the queue to others"
        if name is None:
            place = "no function" if fn == "something_else" else f"{fn}()"
            return "unknown", f"a use of pci_cfg_wait in {place} that no rule knows"
        if fn != WAITER and "wake_up" not in name:
            return "unknown", f"{name}() in {fn}(), not in {WAITER}()"
        if k in self.adders:
            return "fixed", f"{name}() takes pci_cfg_wait.lock"
        if k in self.bare:
            return self._unlocked(p, name)
        status = "fixed" if "add" in name or "wait_event" in name else "seen"
        return status, f"{name}() under pci_cfg_wait.lock"

    def _unlocked(self, p: Position, name: str) -> tuple[str, str]:
        def here(places: set[Key]) -> bool:
            return any(place[0] == file_of(p) for place in places)

        reason = f"{name}() without pci_cfg_wait.lock"
        # Others may reach a queue that is not static.
        if here(self.wakers) and not here(self.outside) and not here(self.declared - self.private):
            return "latent", f"{reason}, but every waker holds pci_lock as well"
        return "affected", reason
