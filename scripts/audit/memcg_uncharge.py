# SPDX-License-Identifier: GPL-2.0-only
"""What memcg-uncharge.cocci and memcg-uncharge-unqueue.cocci make of what they find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kmend_rule import Key, Position, Report, file_of, function_of, key

# Each group frees huge pages in one of these ways, by the functions of each, or we know too little.
PATHS: dict[str, list[list[set[str]]]] = {
    "vmscan.c": [
        [{"shrink_page_list"}, {"shrink_folio_list"}],
        [{"putback_inactive_pages", "move_active_pages_to_lru"}, {"move_pages_to_lru"}, {"move_folios_to_lru"}],
    ],
    "swap.c": [[{"__put_compound_page"}, {"__put_large_folio"}, {"__folio_put_large"}, {"__folio_put"}]],
}
WORST_FIRST = ("affected", "unknown", "latent", "fixed", "not-applicable")
# Where, its status, and why.
Said = tuple[Position, str, str]
_UNQUEUES = re.compile(r"unqueue_deferred_split|undo_large_rmappable")
_DESTROYS = re.compile(r"(destroy|free)_(compound|transhuge|large)_(page|folio)$|get_compound_page_dtor$")


def is_end(name: str) -> bool:
    """True for a function that takes a page off its queue, or whose destructor does."""
    return bool(_UNQUEUES.search(name) or _DESTROYS.match(name))


def _base(p: Position) -> str:
    return file_of(p).rpartition("/")[2]


def _place(p: Position) -> tuple[str, str]:
    return file_of(p), function_of(p)


class Queues:
    """What shows whose the split queues are."""

    def __init__(self) -> None:
        self._memcgs: list[Position] = []
        self._nodes: list[Position] = []

    def memcg(self, p: Position, m: str) -> None:
        """The shrinker is one for memcgs, or a function asks for one: it counts where the queue is looked for."""
        looks = re.match("get_deferred_split_queue|folio_split_queue_lock", function_of(p))
        if looks if m else _base(p) == "huge_memory.c":
            self._memcgs.append(p)

    def node(self, p: Position) -> None:
        """There is a queue."""
        self._nodes.append(p)

    @property
    def aware(self) -> bool:
        """True if they belong to memcgs."""
        return bool(self._memcgs)

    @property
    def sign(self) -> Position | None:
        """The first place that shows it, None if nothing does."""
        return min(self._memcgs or self._nodes, key=key, default=None)

    @property
    def owner(self) -> str:
        """Whose they are, as a sentence says it."""
        return f"the split queues belong to the {'memcgs' if self.aware else 'nodes'}"


@dataclass
class Uncharge:
    """What was found for uncharge-first."""

    FINDING = "memcg-uncharge/uncharge-first"

    out: Report = field(default_factory=Report)
    queues: Queues = field(default_factory=Queues)
    # Uses of mem_cgroup_uncharge(), and calls; calls that uncharge a batch, and that take a page off its queue.
    uses: list[Position] = field(default_factory=list)
    uncharges: dict[Key, Position] = field(default_factory=dict)
    batches: dict[Key, tuple[Position, str]] = field(default_factory=dict)
    ends: dict[Key, tuple[Position, str]] = field(default_factory=dict)
    # By the place of an end: where its page was uncharged before, and by what. And all that was called with the page.
    early: dict[Key, tuple[Position, str]] = field(default_factory=dict)
    callers: list[tuple[Key, Position, str]] = field(default_factory=list)
    # Uncharges of single pages, and those with an end before them.
    known: set[Key] = field(default_factory=set)
    # Functions that uncharge what they are given, and destructors.
    uncharging: set[str] = field(default_factory=set)
    destructors: set[str] = field(default_factory=set)

    def call(self, p: Position, f: str) -> None:
        """A function is called."""
        if f == "mem_cgroup_uncharge":
            self.uncharges[key(p)] = p
        elif f in ("mem_cgroup_uncharge_folios", "mem_cgroup_uncharge_list"):
            self.batches[key(p)] = (p, f)
        elif is_end(f):
            self.ends[key(p)] = (p, f)

    def before(self, p: Position, q: Position, g: str) -> None:
        """A function got the page of an end."""
        if g == "mem_cgroup_uncharge":
            self.early[key(p)] = (q, g)
        else:
            self.callers.append((key(p), q, g))

    def judge(self) -> None:
        """Say it of each end and of each uncharge, and, where the queues are, of all."""
        for p in self.uses:
            if key(p) not in self.uncharges:
                self.out.say(p, self.FINDING, "unknown", "a use of mem_cgroup_uncharge that no rule knows")
        # What frees a batch may have to take it off the queues as well, too late.
        tardy = any(function_of(p) == "free_unref_folios" for p, _ in self.ends.values())
        # In the destructors only the order counts.
        inner = {_place(p) for p in self.uncharges.values()}
        self.ends = {k: (p, f) for k, (p, f) in self.ends.items() if _base(p) in PATHS or _place(p) in inner}
        final = self.destructors & self.uncharging
        for k, p, g in self.callers:
            if g in self.uncharging - final:
                self.early.setdefault(k, (p, g))
        freeing = {_place(p) for p, _ in self.ends.values()}
        batches = [p for p, f in self.batches.values() if "folios" in f and _base(p) in PATHS]
        batches = [p for p in batches if _place(p) not in freeing]
        freeing |= {_place(p) for p in batches}
        sign = self.queues.sign
        said: list[Said] = []
        if sign:
            said += [self._judge_end(k, final) for k in self.ends]
            said += [self._judge_batch(p, tardy) for p in batches]
        said += self._judge_uncharges(final)
        if sign and said:
            said += self._judge_paths(sign, freeing)
            worst = min((status for _, status, _ in said), key=WORST_FIRST.index)
            said.append((sign, worst, self.queues.owner))
        for p, status, reason in said:
            self.out.say(p, self.FINDING, status, reason)

    def _judge_end(self, k: Key, final: set[str]) -> Said:
        p, name = self.ends[k]
        fn, end = function_of(p), "the destructor" if "_dtor" in name else f"{name}()"
        if k in self.early:
            at, g = self.early[k]
            by = "uncharges" if g == "mem_cgroup_uncharge" else f"uncharges with {g}()"
            return at, *self._wrong(f"{fn}() {by} before {end}")
        if _UNQUEUES.search(name):
            uncharges = [*self.uncharges.values(), *(at for at, _ in self.batches.values())]
            seen = _place(p) in map(_place, uncharges)
        else:
            seen = bool(final)
        if not seen:
            return p, "unknown", f"{fn}() calls {end}, and who uncharges the page is not to be seen"
        if self.queues.aware:
            return p, "fixed", f"{fn}() calls {end} before the page is uncharged"
        return p, "not-applicable", f"{self.queues.owner}, and {fn}() uncharges after {end}"

    def _judge_batch(self, p: Position, tardy: bool) -> Said:
        reason = f"{function_of(p)}() uncharges a batch"
        if not tardy:
            return p, "unknown", f"{reason} and who takes it off its queue is not to be seen"
        return p, *self._wrong(f"{reason} before free_unref_folios() takes it off its queue")

    def _wrong(self, reason: str) -> tuple[str, str]:
        """The status of an uncharge that comes first, and why."""
        if self.queues.aware:
            return "affected", reason
        return "latent", f"{reason}, harmless as long as {self.queues.owner}"

    def _judge_uncharges(self, final: set[str]) -> Iterator[Said]:
        """Look at those that are not named already: what tells nothing is said at once."""
        named = {key(p) for p, _ in self.early.values()} if self.queues.sign else set()
        served = {g for _, _, g in self.callers}
        for k, p in self.uncharges.items():
            fn = function_of(p)
            if not self.queues.sign or k in self.known or fn in served or fn in final:
                if k not in named:
                    self.out.say(p, self.FINDING, "seen", "tells nothing of the order")
            elif k not in named:
                yield p, "unknown", f"{fn}() uncharges a page, and who frees it is not to be seen"

    def _judge_paths(self, sign: Position, freeing: set[tuple[str, str]]) -> Iterator[Said]:
        """Is each way seen in which huge pages are freed?"""
        for name, groups in PATHS.items():
            found = {fn for file, fn in freeing if file.rpartition("/")[2] == name}
            for group in groups if found else ():
                if not any(way <= found for way in group):
                    ways = " or in ".join(" and ".join(f"{fn}()" for fn in sorted(way)) for way in group)
                    yield sign, "unknown", f"not to be seen in {name}: how a huge page is freed in {ways}"


@dataclass
class Unqueue:
    """What was found for unlocked-unqueue."""

    FINDING = "memcg-uncharge/unlocked-unqueue"

    out: Report = field(default_factory=Report)
    queues: Queues = field(default_factory=Queues)
    # Pages that are mapped as a whole are queued, too.
    whole: bool = False
    # Changes of the memcg of a page; of these, those that a queued page can come to.
    changes: dict[Key, Position] = field(default_factory=dict)
    bare: set[Key] = field(default_factory=set)
    # By change, what may have taken the page off its queue before.
    perhaps: dict[Key, str] = field(default_factory=dict)

    def judge(self) -> None:
        """Say it of each change, and, where the queues are, of all."""
        sign = self.queues.sign
        if sign is None:
            return
        said = [(p, *self._judge(p)) for p in self.changes.values()]
        statuses = [status for _, status, _ in said]
        if not any("swapout" in function_of(p) for p in self.changes.values()):
            statuses.append("unknown")
        worst = min(statuses, key=WORST_FIRST.index)
        reason = "not to be seen: how swapout takes a page off its queue" if worst == "unknown" else self.queues.owner
        for p, status, why in [*said, (sign, worst, reason)]:
            self.out.say(p, self.FINDING, status, why)

    def _judge(self, p: Position) -> tuple[str, str]:
        reason = f"{function_of(p)}() changes the memcg"
        if not self.queues.aware:
            return "not-applicable", f"{reason}, but {self.queues.owner}"
        if key(p) not in self.bare:
            return "fixed", f"{reason} of a page off its queue"
        if key(p) in self.perhaps:
            return "unknown", f"{reason}, and it is not known what {self.perhaps[key(p)]}() does to the page before"
        if self.whole:
            return "affected", f"{reason} of a page that may be queued"
        return "latent", f"{reason} without a look at the queue, but a queued page is split before it comes here"
