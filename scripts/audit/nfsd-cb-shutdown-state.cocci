// SPDX-License-Identifier: GPL-2.0-only
/// A callback must be run while its client cannot be expired: once client_lock,
/// or blocked_locks_lock for a client that is told of a lock, is dropped,
/// nfsd4_shutdown_callback() may find none, and the callback goes on with a
/// client that is gone. And a delegation that is broken for a reader and then for
/// a writer is one that is in recall: what is raised at each break must not be
/// dropped but once.
///
//# -D audit judges fs/nfsd/nfs4state.c, as kmend_rule.py says, for
//# nfsd-cb-shutdown/late-run, .../late-notify and .../recall-count.
///
// Confidence: High
// URL: https://git.kernel.org/linus/424dd3df1f991b14a70f044a68c8a595abbdf1ad
// Options: --no-includes --include-headers
// Keywords: deleg_reaper, nfsd4_lm_notify, nfsd_break_deleg_cb, cl_delegs_in_recall
// Reads: \bra_cb\b|\bnbl_cb\b|cl_delegs_in_recall|op_delegate_type
// Home: fs/nfsd/nfs4state.c: nfsd4_process_open2
// Built: CONFIG_NFSD CONFIG_NFSD_V4

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from nfsd_cb_shutdown import GUARDS, State, key
rule = State()

@gives@
expression e, x;
position p;
@@
e->op_delegate_type@p = x

@script:python@
p << gives.p;
x << gives.x;
@@
rule.out.anchor(p)
rule.given.append(x)

// Who asks a client for what it can give back, and who tells it of a lock?

@run@
identifier f !~ "init";
identifier cb = {ra_cb, nbl_cb};
expression e;
position p;
@@
\(f@p(&e->cb)\|f@p(&e.cb)\)

@script:python@
p << run.p;
cb << run.cb;
@@
rule.runs[key(p)] = p, cb

@after exists@
identifier f, run.cb;
identifier guard : script:python(cb) { guard == GUARDS[cb] };
identifier lock =~ "^spin_lock";
identifier unlock =~ "^spin_unlock";
expression e, n;
position run.p;
@@
unlock(&n->guard, ...)
... when != lock(&n->guard, ...)
\(f@p(&e->cb)\|f@p(&e.cb)\)

@script:python@
p << run.p;
f << after.f;
@@
rule.late.add(key(p))

@without exists@
identifier fn, f, run.cb;
identifier guard : script:python(cb) { guard == GUARDS[cb] };
identifier lock =~ "^spin_lock";
expression e, n;
position run.p;
@@
fn(...)
{
... when != lock(&n->guard, ...)
\(f@p(&e->cb)\|f@p(&e.cb)\)
... when any
}

@script:python@
p << run.p;
f << without.f;
@@
rule.unlocked.add(key(p))

@in_use exists@
identifier f;
identifier get =~ "^(atomic|refcount)_inc$";
expression c, e;
position run.p;
@@
get(&c->cl_rpc_users)
... when any
\(f@p(&e->ra_cb)\|f@p(&e.ra_cb)\)

@script:python@
p << run.p;
f << in_use.f;
@@
rule.in_use.add(key(p))

// The count of delegations that are in recall, and whether it is raised for the first break alone.

@count@
expression e;
@@
e->cl_delegs_in_recall

@script:python depends on count@
@@
rule.counted = True

@change@
identifier op;
expression e;
position p;
@@
op@p(&e->cl_delegs_in_recall, ...)

@script:python@
p << change.p;
op << change.op;
@@
rule.change(p, op)

@first@
identifier inc;
expression d, e;
position change.p;
@@
(
if (!d->dl_recalled) { <+... inc@p(&e->cl_delegs_in_recall) ...+> }
|
if (!d->dl_recalled) inc@p(&e->cl_delegs_in_recall);
|
if (!d->dl_recalled) { <+... inc@p(&e->cl_delegs_in_recall) ...+> } else { ... }
|
if (d->dl_recalled) { ... } else { <+... inc@p(&e->cl_delegs_in_recall) ...+> }
)

@script:python@
p << change.p;
inc << first.inc;
@@
rule.first.add(key(p))

@returns@
identifier fn, inc;
expression d, e;
position change.p;
@@
fn(...)
{
... when != inc(&e->cl_delegs_in_recall)
(
if (d->dl_recalled) return ...;
|
if (d->dl_recalled) { ... return ...; }
)
...
inc@p(&e->cl_delegs_in_recall)
... when any
}

@script:python@
p << change.p;
inc << returns.inc;
@@
rule.first.add(key(p))

@look@
expression d, x;
position p;
@@
(
d->dl_recalled@p = x
|
d->dl_recalled@p
)

@script:python@
p << look.p;
x << look.x = "";
@@
rule.look(p, x)

@finalize:python@
@@
rule.judge()
