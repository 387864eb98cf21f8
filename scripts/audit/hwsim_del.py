# SPDX-License-Identifier: GPL-2.0-only
"""What hwsim-del.cocci makes of what it finds."""

from __future__ import annotations

from collections import defaultdict

from kmend_rule import Key, Position, Report, file_of, function_of, key

EARLY = "hwsim-del/early-free"
STALE = "hwsim-del/stale-pib"
REGISTER, UNREGISTER = "ieee802154_register_hw", "ieee802154_unregister_hw"


class Rule:
    """What was found.

    steps: by file and function, whether it registers a radio, and whether it unregisters one.
    places: one of these calls in each such function.
    pibs: names of what holds a pib.
    frees: places where a pib is freed, and what does so.
    early: those that a call of ieee802154_unregister_hw() can follow.
    late, stale: those that such a call can come before: with a pib that was read behind it, and with an older one.
    """

    def __init__(self) -> None:
        self.out = Report()
        self.steps: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.places: dict[tuple[str, str], Position] = {}
        self.pibs: set[str] = set()
        self.frees: dict[Key, tuple[Position, str]] = {}
        self.early: set[Key] = set()
        self.late: set[Key] = set()
        self.stale: set[Key] = set()

    def step(self, p: Position, f: str) -> None:
        """A function registers or unregisters a radio."""
        self.steps[file_of(p), function_of(p)].add(f)
        self.places.setdefault((file_of(p), function_of(p)), p)

    def judge(self) -> None:
        """Judge each free where a radio comes or goes. A function of these that frees no pib is not known."""
        seen = set()
        for p, f in self.frees.values():
            fn = file_of(p), function_of(p)
            if fn in self.steps:
                seen.add(fn)
                adds = REGISTER in self.steps[fn]
                self.out.say(p, STALE if adds else EARLY, *(self._added(p, f) if adds else self._deleted(p, f)))
        if not self.pibs:
            return
        for fn, p in self.places.items():
            if fn not in seen:
                finding = STALE if REGISTER in self.steps[fn] else EARLY
                self.out.say(p, finding, "unknown", f"{fn[1]}() frees no pib, or in a way that no rule knows")

    def _deleted(self, p: Position, f: str) -> tuple[str, str]:
        k = key(p)
        if k in self.early:
            return "affected", f"{f}() of the pib before {UNREGISTER}(): until then the driver's operations use it"
        if k in self.stale:
            return "affected", f"{f}() of a pib from before {UNREGISTER}(): it may be another's by then"
        if k in self.late:
            return "fixed", f"{f}() of the pib that is there after {UNREGISTER}()"
        return "unknown", f"{f}() of a pib, which no {UNREGISTER}() comes before or after"

    def _added(self, p: Position, f: str) -> tuple[str, str]:
        k = key(p)
        if k in self.early:
            return "unknown", f"{f}() of a pib before {UNREGISTER}()"
        if k in self.stale:
            return "latent", (
                f"{f}() of the first pib after {UNREGISTER}(): another may have its place by then, "
                "but only an allocation of a few bytes that fails leads there"
            )
        if k in self.late:
            return "fixed", f"{f}() of the pib that is there after {UNREGISTER}()"
        return "unknown", f"{f}() of a pib, which no {UNREGISTER}() comes before"
