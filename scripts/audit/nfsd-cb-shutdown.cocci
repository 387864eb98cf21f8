// SPDX-License-Identifier: GPL-2.0-only
/// nfsd4_shutdown_callback() must not return before the last callback of its
/// client was released. Flushing the workqueue does not wait for those that
/// are with rpciod: they must be counted, from nfsd4_run_cb() to the end of
/// their release, and the count waited for. A count that is lost on one path
/// makes that wait endless.
///
//# -D report names the faults alone. -D audit says of each file with
//# nfsd4_shutdown_callback() FILE:LINE:COLUMNS: FINDING: STATUS: REASON, for
//# nfsd-cb-shutdown/no-wait and nfsd-cb-shutdown/inflight-leak, where "seen"
//# is a use of the count that tells nothing about a fault.
//# The functions that begin, end, queue and wait are found by what they do,
//# not by name; a call that no rule knows where it matters is "unknown".
//# nfs4state.c in the same run tells who runs a callback, and whether twice.
///
// Confidence: High
// URL: https://git.kernel.org/linus/2bbfed98a4d82ac4e7abfcd4eba40bddfc670b1d
// Options: --no-includes --include-headers
// Keywords: nfsd4_shutdown_callback, nfsd4_run_cb, cl_cb_inflight
// Reads: (atomic|atomic_long|refcount)_\w+\(|(wait|wake_up)_(var|event)|(queue|schedule|flush|cancel)_\w*work|mod_delayed_work
// Reads: rpc_call_(async|ops)|INIT_(DELAYED_)?WORK|test_and_set_bit|clear_\w*bit|->release\b|cb_flags
// Reads: nfsd4_(run_cb|shutdown_callback)|cl_cb_inflight
// Reads of fs/nfsd/nfs4state.c: nfsd4_(run_cb|shutdown_callback)|cb_flags|op_delegate_type|cl_cb_inflight
// Follows: calls
// Home: fs/nfsd/nfs4callback.c: nfsd4_shutdown_callback
// Built: CONFIG_NFSD CONFIG_NFSD_V4

virtual report
virtual audit

@initialize:python@
@@
import re

NO_WAIT = "nfsd-cb-shutdown/no-wait"
LEAK = "nfsd-cb-shutdown/inflight-leak"
SHUTDOWN = "nfsd4_shutdown_callback"
RUN = "nfsd4_run_cb"

# What nfsd4_shutdown_callback() may call besides what queues and waits.
HARMLESS = re.compile(
    r"^(set_bit|test_bit|test_and_set_bit|flush_work(queue)?|drain_workqueue|cancel_work(_sync)?|"
    r"might_sleep|lockdep_assert\w*|trace_\w+|dprintk|pr_\w+|WARN_ON(_ONCE)?|smp_\w+|atomic_read|"
    r"nfsd4_mark_cb_\w+|READ_ONCE|WRITE_ONCE|unlikely|likely)$")
QUEUE = {"queue_work", "queue_work_on", "queue_delayed_work", "mod_delayed_work", "schedule_work"}
# Callbacks that their callers run once, or guard by a flag of their own.
ONCE = {"nbl_cb", "co_cb", "cp_cb", "ls_recall", "ra_cb", "ncf_getattr"}
PROBE = "cl_cb_null"
# What a client is given for reading at most.
NOT_TO_WRITE = re.compile(r"^(NFS4_)?OPEN_DELEGATE_(NONE|READ)(_[A-Z_]+)?$")

class Facts:
    def __init__(self, anchor):
        self.anchor = anchor  # where nfsd4_shutdown_callback() is
        self.calls = {}       # function: what it calls
        self.counters = {"inc": {}, "dec": {}, "wait": {}}  # member: functions and what they call
        self.uses = {}        # place of a use: (position, member)
        self.known = set()    # places of uses that are known
        self.raw = {"inc": set(), "dec": set(), "wait": set(), "queue": set(QUEUE)}
        self.begins = set()   # functions by what they do
        self.ends = set()
        self.waits = set()
        self.queues = set()
        self.runs = set()     # those that count and queue
        self.sure = set()     # what those call that release, run, or work
        self.releases = {}    # function of ->rpc_release: position of its table
        self.works = set()    # functions of work items
        self.lacking = []     # tables without ->rpc_release
        self.requeues = {}    # place: (position, function, what became of the result)
        self.released = set() # places of ->release() calls
        self.shut = set()     # those that a path comes to without a cleared bit
        self.latched = True   # no path of RUN goes around its latch
        self.bad = {NO_WAIT: [], LEAK: []}
        self.odd = {NO_WAIT: [], LEAK: []}
        self.missing = []     # where SHUTDOWN does not wait, as far as is seen
        self.done = False

    def counter(self):
        names = set(self.counters["inc"]) & set(self.counters["dec"])
        waited = names & set(self.counters["wait"])
        names = waited or names
        return sorted(names)[0] if len(names) == 1 else None

    def counted(self):
        return any(self.counters[kind] for kind in ("inc", "dec", "wait"))

files = {}        # file: Facts
run_by = set()    # callbacks that are run, by the name of the member
bare = {}         # those that are run without a latch: positions
latches = set()   # places where a callback that is latched is not run
loose = []        # where a latch is set, in those ways or others
given = []        # the kinds of delegations that are given
outside = []      # waits after nfsd4_shutdown_callback() in its callers
chatty = []       # not empty: say all

def key(p):
    return (p[0].file, p[0].line, p[0].column)

def facts(p):
    return files.get(p[0].file)

def fn_of(p):
    return p[0].current_element

def closure(f, raw, stop):
    """The functions that call one of `raw`, also through others; those in `stop` call it for themselves alone."""
    found = set()
    grown = True
    while grown:
        grown = False
        for fn, called in f.calls.items():
            if fn not in found and fn not in stop and called & (raw | found):
                found.add(fn)
                grown = True
    return found

def compute(f):
    c = f.counter()
    if c:
        for kind in ("inc", "dec", "wait"):
            f.raw[kind] = {call for calls in f.counters[kind].get(c, {}).values() for call in calls}
    own = {RUN, SHUTDOWN, "something_else"} | set(f.releases) | f.works
    f.begins = closure(f, f.raw["inc"], own)
    begin = f.begins | f.raw["inc"]
    own |= {fn for fn, called in f.calls.items() if called & begin and called & QUEUE}
    f.queues = closure(f, f.raw["queue"], own)
    f.runs = {fn for fn, called in f.calls.items()
              if called & begin and called & (f.raw["queue"] | f.queues)} | {RUN}
    f.begins -= f.runs
    f.queues -= f.runs
    own |= f.runs
    # A release that only ends is one more function that ends.
    ending = own - {fn for fn in f.releases if not f.calls.get(fn, set()) & (f.raw["queue"] | f.queues | {RUN})}
    f.ends = closure(f, f.raw["dec"], ending)
    f.waits = closure(f, f.raw["wait"], own)
    f.sure = set(f.releases) | f.works | f.runs
    for _ in f.calls:
        f.sure |= {name for fn in f.sure for name in f.calls.get(fn, set()) & (f.ends | f.queues)}
    f.begins |= f.raw["inc"]
    f.ends |= f.raw["dec"]
    f.waits |= f.raw["wait"]
    f.queues |= f.raw["queue"]

def is_in(what, name):
    return any(name in getattr(f, what) for f in files.values())

def is_here(name):
    return any(name in f.calls for f in files.values())

def is_work(name):
    return is_in("works", name)

def is_plain_release(name):
    return any(name in f.releases and name not in f.ends for f in files.values())

def is_counter(name):
    return any(name in names for f in files.values() for names in f.counters.values())

def bad(p, reason, *findings):
    for finding in findings or (NO_WAIT, LEAK):
        if (p, reason) not in facts(p).bad[finding]:
            facts(p).bad[finding].append((p, reason))

def odd(p, reason, *findings):
    for finding in findings or (NO_WAIT, LEAK):
        facts(p).odd[finding].append((p, reason))

def say(p, finding, status, reason):
    if chatty or status == "affected":
        coccilib.report.print_report(p[0], "%s: %s: %s" % (finding, status, reason))

@script:python depends on audit@
@@
chatty.append(True)

// What the callback code consists of.

@shutdown@
position p;
@@
nfsd4_shutdown_callback@p(...) { ... }

@script:python@
p << shutdown.p;
@@
files[p[0].file] = Facts(p)

@call@
identifier f;
position p : script:python() { p[0].file in files };
@@
f@p(...)

@script:python@
p << call.p;
f << call.f;
@@
facts(p).calls.setdefault(fn_of(p), set()).add(f)

// The count: an atomic member that this file raises and drops.

@inc@
identifier c;
expression e;
identifier op =~ "^(atomic|atomic_long|refcount)_(inc|inc_return|inc_not_zero|add|add_return|fetch_inc|fetch_add)$";
position p;
@@
\(op(&e->c@p)\|op(1, &e->c@p)\)

@script:python@
p << inc.p;
c << inc.c;
op << inc.op;
@@
if facts(p):
    facts(p).counters["inc"].setdefault(c, {}).setdefault(fn_of(p), set()).add(op)
    facts(p).known.add(key(p))

@dec@
identifier c;
expression e;
identifier op =~ "^(atomic|atomic_long|refcount)_(dec_and_test|dec_and_wake_up|dec_return|sub_and_test|sub_return|fetch_dec|dec)$";
position p;
@@
\(op(&e->c@p)\|op(1, &e->c@p)\)

@script:python@
p << dec.p;
c << dec.c;
op << dec.op;
@@
if facts(p):
    facts(p).counters["dec"].setdefault(c, {}).setdefault(fn_of(p), set()).add(op)
    facts(p).known.add(key(p))

@wait@
identifier c;
expression e, w;
identifier op =~ "^(wait_var_event|wait_event|wait_event_idle)$";
identifier get =~ "^(atomic|atomic_long|refcount)_read(_acquire)?$";
position p, q;
@@
(
op@p(&e->c@q, \(!get(&e->c)\|get(&e->c) == 0\|get(&e->c) <= 0\))
|
op@p(w, \(!get(&e->c@q)\|get(&e->c@q) == 0\|get(&e->c@q) <= 0\))
)

@script:python@
p << wait.p;
c << wait.c;
op << wait.op;
@@
if facts(p):
    facts(p).counters["wait"].setdefault(c, {}).setdefault(fn_of(p), set()).add(op)

@count_read@
identifier c;
expression e;
identifier op =~ "^((atomic|atomic_long|refcount)_(read|set)(_acquire)?|wake_up_var|wait_var_event|wait_event|wait_event_idle)$";
position p;
@@
op(..., <+... e->c@p ...+>, ...)

@script:python@
p << count_read.p;
@@
if facts(p):
    facts(p).known.add(key(p))

@use@
identifier c : script:python() { is_counter(c) };
expression e;
position p;
@@
e->c@p

@script:python@
p << use.p;
c << use.c;
@@
if facts(p):
    facts(p).uses[key(p)] = (p, c)

// Who releases what was sent, and what runs on the workqueue.

@table@
identifier o, f;
position p;
@@
struct rpc_call_ops o@p = { .rpc_release = f, };

@script:python@
p << table.p;
f << table.f;
@@
if facts(p):
    facts(p).releases[f] = p

@bare_table@
identifier o;
position p != table.p;
@@
struct rpc_call_ops o@p = { ..., };

@script:python@
p << bare_table.p;
o << bare_table.o;
@@
if facts(p):
    facts(p).lacking.append((p, o))

@work@
identifier f;
expression e;
position p;
@@
\(INIT_WORK\|INIT_DELAYED_WORK\)(e, f@p)

@script:python@
p << work.p;
f << work.f;
@@
if facts(p):
    facts(p).works.add(f)

@script:python@
p << shutdown.p;
@@
compute(facts(p))

// Each path, one after the other. The functions are those that were found.

@no_wait exists@
identifier w : script:python() { is_in("waits", w) };
position p;
@@
nfsd4_shutdown_callback@p(...)
{
... when != w(...)
}

@script:python@
p << no_wait.p;
@@
f = facts(p)
if f.counter() and f.calls.get(SHUTDOWN, set()) & f.waits:
    f.missing.append((p, "%s() waits for %s on one path only" % (SHUTDOWN, f.counter())))
elif f.counter():
    f.missing.append((p, "%s() does not wait for %s" % (SHUTDOWN, f.counter())))

@flushed@
position p;
identifier f =~ "^(flush_work(queue)?|drain_workqueue|cancel_work_sync)$";
@@
nfsd4_shutdown_callback(...)
{
<+...
f@p(...)
...+>
}

@script:python@
p << flushed.p;
f << flushed.f;
@@
if not facts(p).counted() and "rpc_call_async" in {name for called in facts(p).calls.values() for name in called}:
    facts(p).missing.append((p, f + "() does not wait for callbacks that are with rpciod"))

@late exists@
identifier w : script:python() { is_in("waits", w) };
identifier again : script:python() { is_in("waits", again) };
identifier q : script:python() { is_in("queues", q) or is_in("runs", q) };
position p;
@@
nfsd4_shutdown_callback(...)
{
... when any
w(...)
... when != again(...)
q@p(...)
... when != again(...)
}

@script:python@
p << late.p;
q << late.q;
@@
bad(p, "nfsd4_shutdown_callback() calls %s() after it waited" % q, NO_WAIT)

@uncounted exists@
identifier fn : script:python() { is_here(fn) };
identifier b : script:python() { is_in("begins", b) };
identifier q : script:python() { is_in("queues", q) };
position p;
@@
fn(...)
{
... when != b(...)
q@p(...)
... when any
}

@script:python@
p << uncounted.p;
fn << uncounted.fn;
@@
f = facts(p)
if f and f.counter() and fn not in f.queues and fn not in f.releases and fn not in f.works:
    bad(p, "%s() queues a callback that it has not counted" % fn, NO_WAIT)

// What becomes of a callback that was queued already?

@queued@
identifier q : script:python() { is_in("queues", q) };
position p;
@@
q@p(...)

@script:python@
p << queued.p;
@@
f, fn = facts(p), fn_of(p)
if f and fn not in f.queues:
    f.requeues[key(p)] = [p, fn, "unknown"]
elif f and f.counter() and fn not in f.sure:
    bad(p, "%s() queues a callback that it has not counted" % fn, NO_WAIT)

@ignored@
identifier q : script:python() { is_in("queues", q) };
identifier y;
expression x;
type T;
position p;
@@
(
q@p(...);
|
return q@p(...);
|
x = q@p(...);
|
T y = q@p(...);
)

@script:python@
p << ignored.p;
@@
f = facts(p)
if f and key(p) in f.requeues:
    f.requeues[key(p)][2] = "ignored"

// A result that is kept: is there a path on which it is false and nothing ends, or true and something does?

@kept@
identifier q : script:python() { is_in("queues", q) };
identifier x;
type T;
position p;
@@
(
x = q@p(...);
|
T x = q@p(...);
)

@lost exists@
identifier q : script:python() { is_in("queues", q) };
identifier e : script:python() { is_in("ends", e) };
identifier kept.x, fn;
expression E;
type T;
position kept.p;
@@
fn(...)
{
... when any
(
x = q@p(...);
|
T x = q@p(...);
)
... when != e(...)
    when != true x
    when != false !x
    when != x = E
}

@over exists@
identifier q : script:python() { is_in("queues", q) };
identifier e : script:python() { is_in("ends", e) };
identifier kept.x, fn;
expression E;
type T;
position kept.p;
@@
fn(...)
{
... when any
(
x = q@p(...);
|
T x = q@p(...);
)
... when != false x
    when != true !x
    when != x = E
e(...)
... when any
}

@script:python depends on !lost && !over@
p << kept.p;
@@
f = facts(p)
if f and key(p) in f.requeues:
    f.requeues[key(p)][2] = "handled"

@script:python depends on over@
p << kept.p;
@@
f = facts(p)
if f and key(p) in f.requeues:
    f.requeues[key(p)][2] = "unknown"

@handled@
identifier q : script:python() { is_in("queues", q) };
identifier e : script:python() { is_in("ends", e) };
statement S;
position p;
@@
(
if (<+... !q@p(...) ...+>) e(...);
|
if (<+... !q@p(...) ...+>) { ... when any
e(...);
... when any
}
|
if (q@p(...)) S else e(...);
|
if (q@p(...)) S else { ... when any
e(...);
... when any
}
|
if (q@p(...)) return ...;
... when != return ...;
e(...);
)

@script:python@
p << handled.p;
@@
f = facts(p)
if f and key(p) in f.requeues:
    f.requeues[key(p)][2] = "handled"

@twice exists@
identifier fn : script:python() { is_here(fn) };
identifier q : script:python() { is_in("queues", q) };
identifier e : script:python() { is_in("ends", e) };
position p;
@@
fn(...)
{
... when any
q(...);
... when any
e@p(...)
... when any
}

@script:python@
p << twice.p;
fn << twice.fn;
@@
f = facts(p)
if f and fn in f.releases:
    bad(p, "%s() ends the count of a callback that it has queued again" % fn)

// Does each release end the count, or queue the callback again?

@release_skips exists@
identifier fn : script:python() { is_plain_release(fn) };
identifier e : script:python() { is_in("ends", e) or is_in("queues", e) or is_in("runs", e) };
position p;
@@
fn@p(...)
{
... when != e(...)
}

@script:python@
p << release_skips.p;
fn << release_skips.fn;
@@
if facts(p) and facts(p).counter():
    bad(p, "%s() returns on one path without the end of the count" % fn)

@recount exists@
identifier fn : script:python() { is_plain_release(fn) };
position p;
@@
fn(...)
{
... when any
nfsd4_run_cb@p(...)
... when any
}

@script:python@
p << recount.p;
fn << recount.fn;
@@
if facts(p) and facts(p).counter():
    bad(p, "%s() counts a callback again that it requeues" % fn)

@end_skips exists@
identifier fn : script:python() { is_in("ends", fn) };
identifier e : script:python() { is_in("ends", e) };
position p;
@@
fn@p(...)
{
... when != e(...)
}

@script:python@
p << end_skips.p;
fn << end_skips.fn;
@@
f = facts(p)
if f and f.counter() and fn in f.sure:
    bad(p, "%s() returns on one path without the end of the count" % fn)
elif f and f.counter():
    odd(p, "%s() ends a count in a way that no rule knows" % fn)

// Everything that comes off the workqueue is sent, queued again, or ended.

@work_skips exists@
identifier fn : script:python() { is_work(fn) };
identifier e : script:python() { is_in("ends", e) or is_in("queues", e) or e == "rpc_call_async" };
position p;
@@
fn(...)
{
... when != e(...)
return@p ...;
}

@script:python@
p << work_skips.p;
fn << work_skips.fn;
@@
if facts(p) and facts(p).counter():
    bad(p, "%s() returns here without the end of the count" % fn)

@work_falls exists@
identifier fn : script:python() { is_work(fn) };
identifier e : script:python() { is_in("ends", e) or is_in("queues", e) or e == "rpc_call_async" };
position p;
@@
fn@p(...)
{
... when != e(...)
    when != return ...;
}

@script:python@
p << work_falls.p;
fn << work_falls.fn;
@@
if facts(p) and facts(p).counter():
    bad(p, "%s() returns on one path without the end of the count" % fn)

// A latch lets a callback run once at a time: either nfsd4_run_cb() has one, or
// each of its callers. It opens before ->release(), which may free it.

@no_latch exists@
identifier q : script:python() { is_in("queues", q) };
identifier t =~ "^test_and_set_bit(_lock)?$";
position p;
@@
nfsd4_run_cb(...)
{
... when != t(...)
q@p(...)
... when any
}

@script:python@
p << no_latch.p;
@@
if facts(p):
    facts(p).latched = False

@latch@
expression e;
identifier t =~ "^test_and_set_bit(_lock)?$";
position p;
@@
nfsd4_run_cb(...)
{
<+...
if (\(t@p(...)\|e->cb_ops && t@p(...)\)) return ...;
...+>
}

@script:python@
p << latch.p;
@@
latches.add(key(p))

@caller_latch@
expression e;
identifier t =~ "^test_and_set_bit(_lock)?$";
statement S;
position p;
@@
(
if (\(t@p(..., &e->cb_flags)\|t@p(..., &e.cb_flags)\)) S
|
if (\(!t@p(..., &e->cb_flags)\|!t@p(..., &e.cb_flags)\)) S
)

@script:python@
p << caller_latch.p;
@@
if fn_of(p) != RUN:
    latches.add(key(p))

@run_latch@
identifier t =~ "^test_and_set_bit(_lock)?$";
position p;
@@
nfsd4_run_cb(...)
{
<+...
t@p(...)
...+>
}

@script:python@
p << run_latch.p;
@@
loose.append(p)

@set_latch@
expression e;
identifier t =~ "^test_and_set_bit(_lock)?$";
position p;
@@
\(t@p(..., &e->cb_flags)\|t@p(..., &e.cb_flags)\)

@script:python@
p << set_latch.p;
@@
loose.append(p)

@released@
expression e;
position p;
@@
e->release@p(...)

@script:python@
p << released.p;
@@
if facts(p):
    facts(p).released.add(key(p))

@shut exists@
identifier fn : script:python() { is_here(fn) };
expression e;
identifier t =~ "^(__)?clear_(and_wake_up_)?bit(_unlock)?$";
position p;
@@
fn(...)
{
... when != t(...)
e->release@p(...)
... when any
}

@script:python@
p << shut.p;
@@
if facts(p):
    facts(p).shut.add(key(p))

@elsewhere@
expression e;
identifier m;
position p;
@@
(
nfsd4_run_cb(&e->m@p)
|
nfsd4_run_cb(&e.m@p)
)

@script:python@
p << elsewhere.p;
m << elsewhere.m;
@@
run_by.add(m)

@unlatched exists@
identifier fn, m;
expression e;
identifier t =~ "^test_and_set_bit(_lock)?$";
position p;
@@
fn(...)
{
(
... when != t(..., &e->m.cb_flags)
nfsd4_run_cb(&e->m@p)
... when any
|
... when != t(..., &e.m.cb_flags)
nfsd4_run_cb(&e.m@p)
... when any
)
}

@script:python@
p << unlatched.p;
m << unlatched.m;
@@
bare.setdefault(m, []).append(p)

// A delegation that was given for writing is broken twice, once for a reader
// and once for a writer.

@deleg@
expression e, x;
@@
e->op_delegate_type = x

@script:python@
x << deleg.x;
@@
given.append(x)

@waits_outside exists@
identifier w =~ "^wait_";
position p;
@@
nfsd4_shutdown_callback(...);
... when any
w@p(...)

@script:python@
p << waits_outside.p;
@@
outside.append(p)

// The verdict, once a file.

@script:python@
p << shutdown.p;
@@
f = facts(p)

def judge_no_wait():
    called = f.calls.get(SHUTDOWN, set()) - f.waits - f.queues - f.runs - {"nfsd4_probe_callback"}
    strange = sorted(name for name in called if not HARMLESS.match(name))
    for name in strange:
        say(p, NO_WAIT, "unknown", "%s() calls %s(), which no rule knows" % (SHUTDOWN, name))
    if outside:
        say(outside[0], NO_WAIT, "unknown", "%s() waits after %s()" % (fn_of(outside[0]), SHUTDOWN))
    if not (strange or outside):
        f.bad[NO_WAIT] += f.missing
    for at, reason in f.bad[NO_WAIT]:
        say(at, NO_WAIT, "affected", reason)
    for at, reason in f.odd[NO_WAIT]:
        say(at, NO_WAIT, "unknown", reason)
    if f.bad[NO_WAIT] or f.odd[NO_WAIT] or f.missing or strange:
        return
    if f.counter():
        say(p, NO_WAIT, "fixed", "counts callbacks in %s and waits for the last one" % f.counter())
    else:
        say(p, NO_WAIT, "unknown", "no way to wait for callbacks that a rule knows")

def judge_leak():
    if not f.counted():
        say(p, LEAK, "not-applicable", "callbacks are not counted")
        return
    for at, reason in f.bad[LEAK]:
        say(at, LEAK, "affected", reason)
    for at, reason in f.odd[LEAK]:
        say(at, LEAK, "unknown", reason)
    lost = False
    for at, fn, result in f.requeues.values():
        if result == "handled" or fn in f.runs | {SHUTDOWN}:
            continue
        if fn in f.works:
            lost = True
            say(at, LEAK, "latent", "%s() queues again what rpc_call_async() has released when it failed" % fn)
        elif result == "unknown" or fn not in f.releases:
            lost = True
            say(at, LEAK, "unknown", "%s() queues a callback in a way that no rule knows" % fn)
        elif doubtful():
            lost = True
        elif RUN not in f.calls:
            lost = True
            say(at, LEAK, "unknown", "there is no %s() here, so who runs a callback cannot be told" % RUN)
        elif f.latched:
            if not opens():
                lost = True
                say(at, LEAK, "unknown", "the latch of %s() stays shut on one path" % RUN)
        else:
            lost = judge_callers(at, fn) or lost
    if not (f.bad[LEAK] or f.odd[LEAK] or lost):
        say(p, LEAK, "fixed", "each callback that is counted in %s ends once" % f.counter())

def doubtful():
    places = [place for place in loose if key(place) not in latches]
    for place in places:
        say(place, LEAK, "unknown", "a latch is set in %s() in a way that no rule knows" % fn_of(place))
    return places

def opens():
    return f.released and not any(place in f.shut for place in f.released)

def judge_callers(at, fn):
    reason = "%s() ignores that the callback is queued already: its count is never ended" % fn
    status = "affected"
    if not given:
        status = "unknown"
        reason += "; but nothing tells which delegations are given, and only one to write is recalled twice"
    elif all(NOT_TO_WRITE.match(kind) for kind in given):
        status = "latent"
        reason += "; but without write delegations none is run twice"
    if not opens():
        # Nothing like a latch, in no file.
        say(at, LEAK, status, reason)
        return True
    if "dl_recall" not in run_by:
        say(at, LEAK, "unknown", reason + ", unless its caller has a latch")
        return True
    said = False
    for name, places in bare.items():
        for place in places:
            if name == "dl_recall":
                said = True
                say(at, LEAK, status, reason)
                say(place, LEAK, status, "%s() runs %s without a latch" % (fn_of(place), name))
            elif name not in ONCE | {PROBE}:
                said = True
                say(place, LEAK, "unknown", "%s() runs %s without a latch" % (fn_of(place), name))
    return said

if not f.done:
    f.done = True
    if f.counted() and not f.counter():
        odd(p, "callbacks are counted in a way that no rule knows")
    for place, (at, name) in f.uses.items():
        if name == f.counter():
            say(at, NO_WAIT, "seen", "a use of the count")
            if place not in f.known:
                odd(at, "a use of %s in %s() that no rule knows" % (name, fn_of(at)))
    if f.counter():
        for at, name in f.lacking:
            bad(at, "%s has no ->rpc_release, so no end of the count" % name)
        for at, fn, result in f.requeues.values():
            if fn in f.runs and result == "ignored":
                bad(at, "%s() keeps the count of a callback that is queued already" % fn)
            elif fn in f.runs and result == "unknown":
                odd(at, "%s() queues in a way that no rule knows" % fn)
        for fn in set(f.releases) - set(f.calls):
            odd(f.releases[fn], "%s() is not there" % fn)
        for fn in {RUN} - set(f.calls):
            odd(p, "%s() is not there" % fn)
        if not f.works:
            odd(p, "no work function")
        if not f.releases:
            odd(p, "no ->rpc_release")
    judge_no_wait()
    judge_leak()
