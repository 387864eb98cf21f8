# SPDX-License-Identifier: GPL-2.0-only
"""What the rules of nfsd-cb-shutdown make of what they find."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from kmend_rule import Key, Position, Report, file_of, function_of, key

# A client that is in the state, or not active.
_COURTESY = re.compile(
    r"[\w>.-]+->cl_state(==|>=)NFSD4?_COURTESY|[\w>.-]+->cl_state!=NFSD4?_ACTIVE|NFSD4?_COURTESY==[\w>.-]+->cl_state"
)


def operands(text: str) -> list[str]:
    """The operands of || in an expression without blanks, as far as no other operator is around them."""
    if "?" in text:
        return [text]
    depth, ends = 0, []
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and (letter == ")" or text.startswith("||", at)):
            ends.append(at)
    if text.startswith("(") and ends == [len(text) - 1]:
        return operands(text[1:-1])
    cuts = [-2, *(at for at in ends if text[at] == "|"), len(text)]
    parts = [text[first + 2 : last] for first, last in zip(cuts, cuts[1:], strict=False)]
    return [each for part in parts for each in operands(part)] if len(parts) > 1 else parts


class Courtesy:
    """What was found for courtesy-hang.

    owner: the code that destroys clients is at hand.
    states: files that name the courtesy state.
    works: work functions.
    sends: where something is sent.
    silent: of these, where a courtesy client may be sent something.
    mentions: where the state is looked at.
    leaves: functions that leave a courtesy client out.
    """

    FINDING = "nfsd-cb-shutdown/courtesy-hang"

    def __init__(self) -> None:
        self.out = Report()
        self.owner = False
        self.states: set[str] = set()
        self.works: set[str] = set()
        self.sends: list[Position] = []
        self.silent: set[Key] = set()
        self.mentions: list[Position] = []
        self.leaves: set[tuple[str, str]] = set()

    def left(self, p: Position, condition: str) -> None:
        """A function returns if this is true."""
        parts = operands(re.sub(r"\b(un)?likely\b|\s", "", condition))
        if any(_COURTESY.fullmatch(part) for part in parts):
            self.leaves.add((file_of(p), function_of(p)))

    def judge(self) -> None:
        """Say it of each place that sends."""
        for p in self.sends:
            self.out.say(p, self.FINDING, *self._judge(p))

    def _judge(self, p: Position) -> tuple[str, str]:
        fn = function_of(p)
        here = [place for place in self.mentions if file_of(place) == file_of(p)]
        looks = [place for place in here if function_of(place) == fn]
        silent = key(p) in self.silent
        if fn not in self.works:
            return "unknown", f"{fn}() sends callbacks, and is no work function"
        courtesy = bool(self.states - {file_of(p)})
        if self.owner and not courtesy and here:
            # Half a backport: it may not even compile.
            return "unknown", "the state of the client is looked at, and clients have no courtesy state"
        if not silent and (file_of(p), fn) in self.leaves:
            return "fixed", f"{fn}() sends nothing to a courtesy client"
        if not courtesy and not here:
            if self.owner:
                return "not-applicable", "clients have no courtesy state"
            return "unknown", "the states of a client are not known"
        if silent and not here:
            return "affected", f"{fn}() sends callbacks to courtesy clients too"
        if silent and looks:
            return "affected", f"{fn}() looks at the state of the client on one path only"
        return "unknown", "the state of the client is looked at in a way that no rule knows"


BOTH = NO_WAIT, LEAK = "nfsd-cb-shutdown/no-wait", "nfsd-cb-shutdown/inflight-leak"
SHUTDOWN, RUN = "nfsd4_shutdown_callback", "nfsd4_run_cb"
_RAISES = re.compile(r"(atomic|atomic_long|refcount)_(inc|inc_return|inc_not_zero|add|add_return|fetch_inc|fetch_add)$")
_DROPS = re.compile(
    r"(atomic|atomic_long|refcount)_"
    r"(dec_and_test|dec_and_wake_up|dec_return|sub_and_test|sub_return|fetch_dec|dec)$"
)
_FLUSHES = re.compile(r"(flush_work(queue)?|drain_workqueue|cancel_work_sync)$")
# What nfsd4_shutdown_callback() may call besides what queues and waits.
_HARMLESS = re.compile(
    r"(set_bit|test_bit|test_and_set_bit|flush_work(queue)?|drain_workqueue|cancel_work(_sync)?"
    r"|might_sleep|lockdep_assert\w*|trace_\w+|dprintk|pr_\w+|WARN_ON(_ONCE)?|smp_\w+|atomic_read"
    r"|nfsd4_mark_cb_\w+|READ_ONCE|WRITE_ONCE|unlikely|likely|nfsd4_probe_callback)$"
)
# What a client is given for reading at most.
NOT_TO_WRITE = re.compile(r"(NFS4_)?OPEN_DELEGATE_(NONE|READ)(_[A-Z_]+)?$")
_QUEUE = {"queue_work", "queue_work_on", "queue_delayed_work", "mod_delayed_work", "schedule_work"}
# Callbacks that their callers run once, or guard by a flag of their own.
_ONCE = {"nbl_cb", "co_cb", "cp_cb", "ls_recall", "ra_cb", "ncf_getattr", "cl_cb_null"}
_RECALL = "dl_recall"
# What raises a count, drops it, and waits for it.
Ops = dict[str, set[str]]


def _ops() -> Ops:
    return {"inc": set(), "dec": set(), "wait": set()}


@dataclass
class Shutdown:
    """What was found for no-wait and inflight-leak. What it has from nfs4state.c, too, says "anywhere"."""

    out: Report = field(default_factory=Report)
    # Where nfsd4_shutdown_callback() is.
    home: Position | None = None
    # By function, what it calls; and where each call is.
    calls: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    places: list[tuple[Position, str]] = field(default_factory=list)
    # By member, what raises it, drops it, and waits for it.
    counts: dict[str, Ops] = field(default_factory=dict)
    # Uses of such members; and of these, those that tell nothing of a fault.
    uses: list[tuple[Position, str]] = field(default_factory=list)
    known: set[Key] = field(default_factory=set)
    # Tables of functions for RPC, the ->rpc_release of those that have one, and functions of work items.
    tables: list[tuple[Position, str]] = field(default_factory=list)
    release_of: dict[Key, str] = field(default_factory=dict)
    works: set[str] = field(default_factory=set)
    # By what they do: functions that begin, end, and wait for the count, that queue, and that count and queue; and
    # the one of these that all run a callback with.
    begins: set[str] = field(default_factory=set)
    ends: set[str] = field(default_factory=set)
    waits: set[str] = field(default_factory=set)
    queues: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    run: str = RUN
    # Those of ->rpc_release, and all that they, works and runs rely on.
    releases: set[str] = field(default_factory=set)
    sure: set[str] = field(default_factory=set)
    # nfsd4_shutdown_callback() has a path without a wait; that function has none around its latch.
    unwaited: bool = False
    latched: bool = True
    # Where something is queued, the variable that keeps the result, or "".
    results: dict[Key, str] = field(default_factory=dict)
    # Of these, where a false result can be lost, where a true one ends the count, and where neither is so.
    lost: set[Key] = field(default_factory=set)
    over: set[Key] = field(default_factory=set)
    handled: set[Key] = field(default_factory=set)
    # Where a function, and a work function, can return without going on.
    skips: list[Position] = field(default_factory=list)
    returns: list[Position] = field(default_factory=list)
    # Each latch opens before ->release().
    opens: bool = False
    # Anywhere: waits behind a call of nfsd4_shutdown_callback(); members that are run, and where without a latch.
    outside: list[Position] = field(default_factory=list)
    run_by: set[str] = field(default_factory=set)
    bare: list[tuple[Position, str]] = field(default_factory=list)
    # Anywhere: where a latch is set, and where that is looked at; the kinds of delegations that are given.
    latches: list[Position] = field(default_factory=list)
    looked: set[Key] = field(default_factory=set)
    given: list[str] = field(default_factory=list)
    # What is to be said, by finding.
    said: dict[str, list[tuple[Position, str, str]]] = field(default_factory=lambda: {NO_WAIT: [], LEAK: []})

    def here(self, p: Position) -> bool:
        """True in the file with nfsd4_shutdown_callback()."""
        return self.home is not None and file_of(p) == file_of(self.home)

    def call(self, p: Position, f: str) -> None:
        """A function is called."""
        self.calls[function_of(p)].add(f)
        self.places.append((p, f))

    def count(self, p: Position, c: str, op: str) -> None:
        """A member is given to an atomic operation, or waited for."""
        kind = "inc" if _RAISES.match(op) else "dec" if _DROPS.match(op) else "wait" if "wait_" in op else ""
        if kind:
            self.counts.setdefault(c, _ops())[kind].add(op)
            self.known.add(key(p))

    @property
    def counter(self) -> str:
        """The member that callbacks are counted in; "" if there is none, or more than one could be it."""
        both = [c for c, ops in self.counts.items() if ops["inc"] and ops["dec"]]
        names = [c for c in both if self.counts[c]["wait"]] or both
        return names[0] if len(names) == 1 else ""

    def _callers(self, names: set[str], stop: set[str]) -> set[str]:
        """What calls one of these functions, also through others; what is in `stop` does so for itself alone."""
        found: set[str] = set()
        while more := {fn for fn, called in self.calls.items() if fn not in found | stop and called & (names | found)}:
            found |= more
        return found

    def sort(self) -> None:
        """Find what functions are, when all is known that they do."""
        ops = self.counts.get(self.counter, _ops())
        self.releases = set(self.release_of.values())
        if RUN not in self.calls:
            # What counts and queues in the end, whatever it is called.
            both = self._callers(ops["inc"], set()) & self._callers(_QUEUE, set())
            least = [fn for fn in both - self.releases - self.works if not self.calls[fn] & both]
            self.run = least[0] if len(least) == 1 else RUN
        stop = {self.run, SHUTDOWN, "something_else"} | self.releases | self.works
        begins = self._callers(ops["inc"], stop) | ops["inc"]
        stop |= {fn for fn, called in self.calls.items() if called & begins and called & _QUEUE}
        queues = self._callers(_QUEUE, stop) | _QUEUE
        self.runs = {fn for fn, called in self.calls.items() if called & begins and called & queues} | {self.run}
        self.begins, self.queues = begins - self.runs, queues - self.runs
        stop |= self.runs
        # A release that only ends is one more function that ends.
        plain = {fn for fn in self.releases if not self.calls.get(fn, set()) & (self.queues | {self.run})}
        self.ends = self._callers(ops["dec"], stop - plain) | ops["dec"]
        self.waits = self._callers(ops["wait"], stop) | ops["wait"]
        self.sure = self.releases | self.works | self.runs
        while more := {
            name for fn in self.sure for name in self.calls.get(fn, set()) & (self.ends | self.queues) - self.sure
        }:
            self.sure |= more

    def must_end(self, fn: str) -> bool:
        """True for what must end the count on each path, or go on with the callback."""
        return fn in self.ends | self.releases | self.works

    def goes_on(self, name: str) -> bool:
        """True for what a callback goes on with, or ends with."""
        return name == "rpc_call_async" or name in self.ends | self.queues | self.runs

    def _note(self, p: Position, status: str, reason: str, *findings: str) -> None:
        for finding in findings or BOTH:
            self.said[finding].append((p, status, reason))

    def late(self, p: Position, q: str) -> None:
        """Something is queued after the wait."""
        self._note(p, "affected", f"{SHUTDOWN}() calls {q}() after it waited", NO_WAIT)

    def uncounted(self, p: Position) -> None:
        """A path leads to where something is queued, and not by the count."""
        fn = function_of(p)
        if self.counter and fn not in self.queues | self.releases | self.works:
            self._note(p, "affected", f"{fn}() queues a callback that it has not counted", NO_WAIT)

    def twice(self, p: Position) -> None:
        """The count is ended after something was queued."""
        if function_of(p) in self.releases:
            reason = f"{function_of(p)}() ends the count of a callback that it has queued again"
            self._note(p, "affected", reason)

    def set_latch(self, p: Position, bit: str) -> None:
        """A bit is set that may be a latch."""
        if function_of(p) == self.run or re.search(r"(->|\.) *cb_flags$", bit):
            self.latches.append(p)

    def latch(self, p: Position, returns: bool) -> None:
        """Whether a bit was set is looked at; what runs callbacks has to return if it was."""
        if returns or function_of(p) != self.run:
            self.looked.add(key(p))

    def judge(self) -> None:
        """Say it of the file with nfsd4_shutdown_callback()."""
        if self.home is None:
            return
        for p, name in self.uses:
            if name == self.counter:
                self.out.say(p, NO_WAIT, "seen", "a use of the count")
                if key(p) not in self.known:
                    self._note(p, "unknown", f"a use of {name} in {function_of(p)}() that no rule knows")
        if self.counter:
            self._look(self.home)
        elif self.counts:
            self._note(self.home, "unknown", "callbacks are counted in a way that no rule knows")
        self._look_at_shutdown(self.home)
        if self.counts:
            self._look_at_leaks()
        else:
            self.said[LEAK] = [(self.home, "not-applicable", "callbacks are not counted")]
        sound = {
            NO_WAIT: f"counts callbacks in {self.counter} and waits for the last one",
            LEAK: f"each callback that is counted in {self.counter} ends once",
        }
        for finding in BOTH:
            for p, status, reason in self.said[finding] or [(self.home, "fixed", sound[finding])]:
                self.out.say(p, finding, status, reason)

    def _look(self, home: Position) -> None:
        """Is what is counted ended once on each path?"""
        for p, name in self.tables:
            k = key(p)
            if k not in self.release_of:
                self._note(p, "affected", f"{name} has no ->rpc_release, so no end of the count")
            elif self.release_of[k] not in self.calls:
                self._note(p, "unknown", f"{self.release_of[k]}() is not there")
        if self.run not in self.calls:
            self._note(home, "unknown", f"{self.run}() is not there")
        if not self.works:
            self._note(home, "unknown", "no work function")
        if not self.release_of:
            self._note(home, "unknown", "no ->rpc_release")
        for p, name in self.places:
            fn = function_of(p)
            if name == self.run and fn in self.releases - self.ends:
                self._note(p, "affected", f"{fn}() counts a callback again that it requeues")
            if name in self.queues and fn in self.queues - self.sure:
                self._note(p, "affected", f"{fn}() queues a callback that it has not counted", NO_WAIT)
            if name in self.queues and fn in self.runs:
                self._look_at_run(p, fn)
        for p in self.returns:
            self._note(p, "affected", f"{function_of(p)}() returns here without the end of the count")
        for p in self.skips:
            fn = function_of(p)
            if fn in self.ends - self.sure:
                self._note(p, "unknown", f"{fn}() ends a count in a way that no rule knows")
            elif fn not in {function_of(at) for at in self.returns}:
                self._note(p, "affected", f"{fn}() returns on one path without the end of the count")

    def _look_at_run(self, p: Position, fn: str) -> None:
        result = self._result(p)
        if result == "ignored":
            self._note(p, "affected", f"{fn}() keeps the count of a callback that is queued already")
        elif result == "unknown":
            self._note(p, "unknown", f"{fn}() queues in a way that no rule knows")

    def _result(self, p: Position) -> str:
        """What becomes of the count where a callback may be queued already."""
        k = key(p)
        if k in self.handled or (self.results.get(k) and k not in self.lost | self.over):
            return "handled"
        return "ignored" if k in self.results and k not in self.over else "unknown"

    def _look_at_shutdown(self, home: Position) -> None:
        """Does nfsd4_shutdown_callback() wait, or could something that it calls?"""
        called = self.calls.get(SHUTDOWN, set())
        strange = sorted(name for name in called - self.waits - self.queues - self.runs if not _HARMLESS.match(name))
        for name in strange:
            self._note(home, "unknown", f"{SHUTDOWN}() calls {name}(), which no rule knows", NO_WAIT)
        for p in self.outside[:1]:
            self._note(p, "unknown", f"{function_of(p)}() waits after {SHUTDOWN}()", NO_WAIT)
        if strange or self.outside:
            return
        if self.unwaited and self.counter and called & self.waits:
            self._note(home, "affected", f"{SHUTDOWN}() waits for {self.counter} on one path only", NO_WAIT)
        elif self.unwaited and self.counter:
            self._note(home, "affected", f"{SHUTDOWN}() does not wait for {self.counter}", NO_WAIT)
        if not self.counts and any("rpc_call_async" in each for each in self.calls.values()):
            for p, f in self.places:
                if function_of(p) == SHUTDOWN and _FLUSHES.match(f):
                    self._note(p, "affected", f"{f}() does not wait for callbacks that are with rpciod", NO_WAIT)
        if not self.counter and not self.said[NO_WAIT]:
            self._note(home, "unknown", "no way to wait for callbacks that a rule knows", NO_WAIT)

    def _look_at_leaks(self) -> None:
        """Can a callback be queued that is queued already?"""
        for p, name in self.places:
            fn, result = function_of(p), self._result(p)
            if name not in self.queues or fn in self.queues | self.runs | {SHUTDOWN} or result == "handled":
                continue
            if fn in self.works:
                reason = f"{fn}() queues again what rpc_call_async() has released when it failed"
                self._note(p, "latent", reason, LEAK)
            elif result == "unknown" or fn not in self.releases:
                self._note(p, "unknown", f"{fn}() queues a callback in a way that no rule knows", LEAK)
            else:
                self._look_for_latch(p, fn)

    def _look_for_latch(self, at: Position, fn: str) -> None:
        """Can a callback be run again while it is queued again?"""
        doubtful = [p for p in self.latches if key(p) not in self.looked]
        for p in doubtful:
            reason = f"a latch is set in {function_of(p)}() in a way that no rule knows"
            self._note(p, "unknown", reason, LEAK)
        if doubtful:
            return
        if self.run not in self.calls:
            self._note(at, "unknown", f"there is no {self.run}() here, so who runs a callback cannot be told", LEAK)
        elif not self.latched:
            self._look_at_callers(at, fn)
        elif not self.opens:
            self._note(at, "unknown", f"the latch of {self.run}() stays shut on one path", LEAK)

    def _look_at_callers(self, at: Position, fn: str) -> None:
        """Which callers run a callback without a latch?"""
        status, reason = "affected", f"{fn}() ignores that the callback is queued already: its count is never ended"
        if not self.given:
            status = "unknown"
            reason += "; but nothing tells which delegations are given, and only one to write is recalled twice"
        elif all(NOT_TO_WRITE.match(kind) for kind in self.given):
            status = "latent"
            reason += "; but without write delegations none is run twice"
        if not self.opens:
            # Nothing like a latch, in no file.
            self._note(at, status, reason, LEAK)
        elif _RECALL not in self.run_by:
            self._note(at, "unknown", f"{reason}, unless its caller has a latch", LEAK)
        else:
            for p, name in self.bare:
                if name == _RECALL:
                    self._note(at, status, reason, LEAK)
                if name not in _ONCE:
                    how = status if name == _RECALL else "unknown"
                    self._note(p, how, f"{function_of(p)}() runs {name} without a latch", LEAK)


LATE_RUN, LATE_NOTIFY = "nfsd-cb-shutdown/late-run", "nfsd-cb-shutdown/late-notify"
RECALL_COUNT = "nfsd-cb-shutdown/recall-count"
# The lock under which a client is looked up for a callback, by the callback's member.
GUARDS = {"ra_cb": "client_lock", "nbl_cb": "blocked_locks_lock"}


@dataclass
class State:
    """What was found for late-run, late-notify and recall-count."""

    out: Report = field(default_factory=Report)
    # The kinds of delegations that are given.
    given: list[str] = field(default_factory=list)
    # Where one of these callbacks is run, and which; of these, which come after its lock was dropped, which can be
    # reached without it, and which come with the client in use.
    runs: dict[Key, tuple[Position, str]] = field(default_factory=dict)
    late: set[Key] = field(default_factory=set)
    unlocked: set[Key] = field(default_factory=set)
    in_use: set[Key] = field(default_factory=set)
    # Delegations in recall are counted, and uncounted.
    counted: bool = False
    dropped: bool = False
    # Where the count is raised; of these, where it is for the first break alone; functions that look for that.
    raises: dict[Key, Position] = field(default_factory=dict)
    first: set[Key] = field(default_factory=set)
    looks: set[str] = field(default_factory=set)

    def change(self, p: Position, op: str) -> None:
        """The count is given to a function."""
        if re.match("(atomic|refcount)_inc", op):
            self.raises[key(p)] = p
        elif re.match("(atomic|refcount)_(dec|add_unless)", op):
            self.dropped = True

    def look(self, p: Position, value: str) -> None:
        """It is looked at whether a delegation is in recall, or that is set to a value."""
        if not value:
            self.looks.add(function_of(p))

    def judge(self) -> None:
        """Say it of each run and each raise, or of the file in which there is none."""
        self._judge_runs(LATE_RUN, "ra_cb", "no client is asked for what it can give back")
        self._judge_runs(LATE_NOTIFY, "nbl_cb", "no client is told of a lock that it waited for")
        for p in self.raises.values():
            self.out.say(p, RECALL_COUNT, *self._judge_raise(p))
        if not self.counted:
            self.out.say_all(RECALL_COUNT, "not-applicable", "delegations in recall are not counted")
        elif not self.raises:
            reason = "delegations in recall are counted in a way that no rule knows"
            self.out.say_all(RECALL_COUNT, "unknown", reason)

    def _judge_runs(self, finding: str, member: str, none: str) -> None:
        runs = [p for p, cb in self.runs.values() if cb == member]
        for p in runs:
            self.out.say(p, finding, *self._judge_run(p, GUARDS[member]))
        if not runs:
            self.out.say_all(finding, "not-applicable", none)

    def _judge_run(self, p: Position, guard: str) -> tuple[str, str]:
        fn, k = function_of(p), key(p)
        if k in self.late & self.in_use:
            return "fixed", "a client in use is not expired before its callback is run"
        if k in self.late:
            reason = f"runs a callback after {guard} was dropped, and by then the client may be expired"
            return "affected", f"{fn}() {reason}"
        if k in self.unlocked:
            return "unknown", f"{fn}() runs a callback without a lock that a rule knows"
        return "fixed", f"a callback is run under {guard}"

    def _judge_raise(self, p: Position) -> tuple[str, str]:
        fn = function_of(p)
        if key(p) in self.first:
            return "fixed", "a delegation in recall is counted at the first break of its lease"
        if fn in self.looks or not self.dropped:
            return "unknown", f"{fn}() counts delegations in recall in a way that no rule knows"
        if not self.given:
            return "unknown", "nothing tells which delegations are given, and only one to write is broken twice"
        reason = f"{fn}() raises at each break what is dropped once"
        if all(NOT_TO_WRITE.match(kind) for kind in self.given):
            return "latent", f"{reason}; but without write delegations none is broken twice"
        return "affected", f"{reason}, and a delegation to write is broken twice"
