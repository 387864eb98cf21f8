// SPDX-License-Identifier: GPL-2.0-only
/// A client is told that it can have a lock by a callback. Whoever expires the
/// client takes the locks that it waits for off their lists first, under
/// blocked_locks_lock: once that is dropped, nfsd4_shutdown_callback() may find
/// no callback, which then goes on with a client that is gone.
///
//# -D report names the faults alone. -D audit says of fs/nfsd/nfs4state.c
//# FILE:LINE:COLUMNS: nfsd-cb-shutdown/late-notify: STATUS: REASON.
///
// Confidence: High
// Options: --no-includes --include-headers
// Keywords: nfsd4_lm_notify, blocked_locks_lock, CB_NOTIFY_LOCK
// Reads: \bnbl_cb\b|op_delegate_type
// Home: fs/nfsd/nfs4state.c: nfsd4_process_open2
// Built: CONFIG_NFSD CONFIG_NFSD_V4

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
import kmend_rule
from kmend_rule import function_of, key

LATE = "nfsd-cb-shutdown/late-notify"

out = kmend_rule.Report()
runs = {}       # where a client is told of a lock: position
late = set()    # of these, which come after blocked_locks_lock was dropped
bare = set()    # of these, which are reached without that lock

@script:python depends on audit@
@@
out.all = True

// The file that has such locks, where there are any, gives delegations, too.

@gives@
expression e, x;
position p;
@@
e->op_delegate_type@p = x

@script:python@
p << gives.p;
@@
out.anchor(p)

@run@
identifier f !~ "init";
expression e;
position p;
@@
f@p(&e->nbl_cb)

@script:python@
p << run.p;
@@
runs[key(p)] = p

@after exists@
identifier f;
identifier lock =~ "^spin_lock";
identifier unlock =~ "^spin_unlock";
expression e, n;
position run.p;
@@
unlock(&n->blocked_locks_lock, ...)
... when != lock(&n->blocked_locks_lock, ...)
f@p(&e->nbl_cb)

@script:python@
p << run.p;
u << after.unlock;
@@
late.add(key(p))

@without exists@
identifier fn, f;
identifier lock =~ "^spin_lock";
expression e, n;
position run.p;
@@
fn(...)
{
... when != lock(&n->blocked_locks_lock, ...)
f@p(&e->nbl_cb)
... when any
}

@script:python@
p << run.p;
fn << without.fn;
@@
bare.add(key(p))

@finalize:python@
@@
for place, p in runs.items():
    if place in late:
        out.say(p, LATE, "affected", "%s() runs a callback after blocked_locks_lock was dropped, and by then the "
                   "client may be expired" % function_of(p))
    elif place in bare:
        out.say(p, LATE, "unknown", "%s() runs a callback without a lock that a rule knows" % function_of(p))
    else:
        out.say(p, LATE, "fixed", "a callback is run under blocked_locks_lock")
if not runs:
    out.say_all(LATE, "not-applicable", "no client is told of a lock that it waited for")
