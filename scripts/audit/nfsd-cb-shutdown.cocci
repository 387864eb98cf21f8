// SPDX-License-Identifier: GPL-2.0-only
/// nfsd4_shutdown_callback() must not return before the last callback of its
/// client was released. Flushing the workqueue does not wait for those that
/// are with rpciod: they must be counted, from nfsd4_run_cb() to the end of
/// their release, and the count waited for. A count that is lost on one path
/// makes that wait endless.
///
//# -D audit judges each file with nfsd4_shutdown_callback(), as kmend_rule.py says,
//# for nfsd-cb-shutdown/no-wait and nfsd-cb-shutdown/inflight-leak.
//# The functions that begin, end, queue and wait are found by what they do,
//# not by name; a call that no rule knows where it matters is "unknown".
//# nfs4state.c in the same run tells who runs a callback, and whether twice.
///
// Confidence: High
// URL: https://git.kernel.org/linus/2bbfed98a4d82ac4e7abfcd4eba40bddfc670b1d
// Options: --no-includes --include-headers
// Keywords: nfsd4_shutdown_callback, nfsd4_run_cb, cl_cb_inflight
// Reads: (atomic|atomic_long|refcount)_\w+\(|(wait|wake_up)_(var|event)|test_and_set_bit|clear_\w*bit
// Reads: (queue|schedule|flush|cancel)_\w*work|mod_delayed_work|INIT_(DELAYED_)?WORK|->release\b|cb_flags
// Reads: rpc_call_(async|ops)|nfsd4_(run_cb|shutdown_callback)|cl_cb_inflight
// Reads of fs/nfsd/nfs4state.c: nfsd4_(run_cb|shutdown_callback)|dl_recall\)|cb_flags|op_delegate_type|cl_cb_inflight
// Follows: calls
// Home: fs/nfsd/nfs4callback.c: nfsd4_shutdown_callback
// Built: CONFIG_NFSD CONFIG_NFSD_V4

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from nfsd_cb_shutdown import Shutdown, key
rule = Shutdown()

// What the callback code consists of.

@shutdown@
position p;
@@
nfsd4_shutdown_callback@p(...) { ... }

@script:python@
p << shutdown.p;
@@
rule.home = rule.home or p

@call@
identifier f;
position p : script:python() { rule.here(p) };
@@
f@p(...)

@script:python@
p << call.p;
f << call.f;
@@
rule.call(p, f)

// The count: an atomic member that this file raises, drops, and waits for.

@count@
identifier w =~ "^(wait_var_event|wait_event|wait_event_idle)$";
identifier get =~ "^(atomic|atomic_long|refcount)_read(_acquire)?$";
identifier op =~ "^(atomic|atomic_long|refcount)_";
identifier c;
expression e, x;
position p : script:python() { rule.here(p) };
@@
(
w(x, \(!get(&e->c@p)\|get(&e->c@p) == 0\|get(&e->c@p) <= 0\))
|
op(&e->c@p)
|
op(1, &e->c@p)
)

@script:python@
p << count.p;
c << count.c;
op << count.op = "";
w << count.w = "";
@@
rule.count(p, c, op or w)

@use@
identifier c : script:python() { (c in rule.counts) };
expression e;
position p : script:python() { rule.here(p) };
@@
e->c@p

@script:python@
p << use.p;
c << use.c;
@@
rule.uses.append((p, c))

@known@
identifier op =~ "^((atomic(_long)?|refcount)_(read|set)(_acquire)?|(wake_up|wait)_var(_event)?|wait_event(_idle)?)$";
identifier c;
expression e;
position use.p;
@@
op(..., <+... e->c@p ...+>, ...)

@script:python@
p << use.p;
op << known.op;
@@
rule.known.add(key(p))

// Who releases what was sent, and what runs on the workqueue.

@table@
identifier o;
position p : script:python() { rule.here(p) };
@@
struct rpc_call_ops o@p = { ..., };

@script:python@
p << table.p;
o << table.o;
@@
rule.tables.append((p, o))

@release@
identifier o, f;
position p : script:python() { rule.here(p) };
@@
struct rpc_call_ops o@p = { .rpc_release = f, };

@script:python@
p << release.p;
f << release.f;
@@
rule.release_of[key(p)] = f

@work@
identifier f;
expression e;
position p : script:python() { rule.here(p) };
@@
\(INIT_WORK\|INIT_DELAYED_WORK\)(e, f@p)

@script:python@
f << work.f;
@@
rule.works.add(f)

@script:python depends on shutdown@
@@
rule.sort()

// Does nfsd4_shutdown_callback() wait on each path, at its end?

@unwaited exists@
identifier w : script:python() { (w in rule.waits) };
@@
nfsd4_shutdown_callback(...)
{
... when != w(...)
}

@script:python depends on unwaited@
@@
rule.unwaited = True

@late exists@
identifier w : script:python() { (w in rule.waits) };
identifier again : script:python() { (again in rule.waits) };
identifier q : script:python() { (q in rule.queues | rule.runs) };
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
rule.late(p, q)

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
rule.outside.append(p)

// Is a callback counted before it is queued, and what if it is queued already?

@uncounted exists@
identifier fn;
identifier b : script:python() { (b in rule.begins) };
identifier q : script:python() { (q in rule.queues) };
position p : script:python() { rule.here(p) };
@@
fn(...)
{
... when != b(...)
q@p(...)
... when any
}

@script:python@
p << uncounted.p;
@@
rule.uncounted(p)

@result@
identifier q : script:python() { (q in rule.queues) };
identifier x;
expression y;
type T;
position p : script:python() { rule.here(p) };
@@
(
q@p(...);
|
return q@p(...);
|
x = q@p(...);
|
T x = q@p(...);
|
y = q@p(...);
)

@script:python@
p << result.p;
x << result.x = "";
@@
rule.results[key(p)] = x

// A result that is kept: is there a path on which it is false and nothing ends, or true and something does?

@lost exists@
identifier fn, result.q, result.x;
identifier e : script:python() { (e in rule.ends) };
expression E;
type T;
position result.p;
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

@script:python@
p << result.p;
fn << lost.fn;
@@
rule.lost.add(key(p))

@over exists@
identifier result.q, result.x;
identifier e : script:python() { (e in rule.ends) };
expression E;
type T;
position result.p;
@@
(
x = q@p(...);
|
T x = q@p(...);
)
... when != false x
    when != true !x
    when != x = E
e(...)

@script:python@
p << result.p;
e << over.e;
@@
rule.over.add(key(p))

@handled@
identifier q : script:python() { (q in rule.queues) };
identifier e : script:python() { (e in rule.ends) };
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
rule.handled.add(key(p))

// Each release ends the count, or queues the callback again; what comes off the workqueue can be sent, too.

@twice exists@
identifier q : script:python() { (q in rule.queues) };
identifier e : script:python() { (e in rule.ends) };
position p : script:python() { rule.here(p) };
@@
q(...);
... when any
e@p(...)

@script:python@
p << twice.p;
@@
rule.twice(p)

@skips exists@
identifier fn : script:python() { rule.must_end(fn) };
identifier e : script:python() { rule.goes_on(e) };
position p;
@@
fn@p(...)
{
... when != e(...)
}

@script:python@
p << skips.p;
@@
rule.skips.append(p)

@returns exists@
identifier fn : script:python() { (fn in rule.works) };
identifier e : script:python() { rule.goes_on(e) };
position p;
@@
fn(...)
{
... when != e(...)
return@p ...;
}

@script:python@
p << returns.p;
@@
rule.returns.append(p)

// A latch lets a callback run once at a time: either what runs it has one, or
// each of its callers. It opens before ->release(), which may free it.

@unlatched_run exists@
identifier fn : script:python() { fn == rule.run };
identifier q : script:python() { (q in rule.queues) };
identifier t =~ "^test_and_set_bit(_lock)?$";
@@
fn(...)
{
... when != t(...)
q(...)
... when any
}

@script:python depends on unlatched_run@
@@
rule.latched = False

@set_latch@
identifier t =~ "^test_and_set_bit(_lock)?$";
expression e;
position p;
@@
t@p(..., e)

@script:python@
p << set_latch.p;
e << set_latch.e;
@@
rule.set_latch(p, e)

@latch@
identifier t =~ "^test_and_set_bit(_lock)?$";
expression e;
statement S;
position p, r;
@@
(
if@r (\(t@p(...)\|e->cb_ops && t@p(...)\)) return ...;
|
if (\(t@p(...)\|!t@p(...)\)) S
)

@script:python@
p << latch.p;
r << latch.r = [];
@@
rule.latch(p, bool(r))

@released@
expression e;
@@
e->release(...)

@shut exists@
identifier fn;
identifier t =~ "^(__)?clear_(and_wake_up_)?bit(_unlock)?$";
expression e;
@@
fn(...)
{
... when != t(...)
e->release(...)
... when any
}

@script:python depends on released && !shut@
@@
rule.opens = True

@run@
identifier f : script:python() { f == rule.run };
identifier m;
expression e;
@@
f(\(&e->m\|&e.m\))

@script:python@
m << run.m;
@@
rule.run_by.add(m)

@bare exists@
identifier f : script:python() { f == rule.run };
identifier fn, m;
identifier t =~ "^test_and_set_bit(_lock)?$";
expression e;
position p;
@@
fn(...)
{
(
... when != t(..., &e->m.cb_flags)
f(&e->m@p)
|
... when != t(..., &e.m.cb_flags)
f(&e.m@p)
)
... when any
}

@script:python@
p << bare.p;
m << bare.m;
@@
rule.bare.append((p, m))

// Only a delegation to write is broken twice, for a reader and for a writer.

@gives@
expression e, x;
@@
e->op_delegate_type = x

@script:python@
x << gives.x;
@@
rule.given.append(x)

@finalize:python@
@@
rule.judge()
