// SPDX-License-Identifier: GPL-2.0-only
/// A callback must be run while its client cannot be expired: once client_lock
/// is dropped, nfsd4_shutdown_callback() may find none, and the callback goes on
/// with a client that is gone. And a delegation that is broken for a reader and
/// then for a writer is one that is in recall: what is raised at each break must
/// not be dropped but once.
///
//# -D report names the faults alone. -D audit says of fs/nfsd/nfs4state.c
//# FILE:LINE:COLUMNS: FINDING: STATUS: REASON, for nfsd-cb-shutdown/late-run and
//# nfsd-cb-shutdown/recall-count.
///
// Confidence: High
// URL: https://git.kernel.org/linus/424dd3df1f991b14a70f044a68c8a595abbdf1ad
// Options: --no-includes --include-headers
// Keywords: deleg_reaper, nfsd_break_deleg_cb, cl_delegs_in_recall
// Reads: \bra_cb\b|cl_delegs_in_recall|op_delegate_type
// Home: fs/nfsd/nfs4state.c: nfsd4_process_open2
// Built: CONFIG_NFSD CONFIG_NFSD_V4

virtual report
virtual audit

@initialize:python@
@@
import os, re, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
import kmend_rule
from kmend_rule import function_of, key

LATE = "nfsd-cb-shutdown/late-run"
RECALL = "nfsd-cb-shutdown/recall-count"

# What a client is given for reading at most.
NOT_TO_WRITE = re.compile(r"^(NFS4_)?OPEN_DELEGATE_(NONE|READ)(_[A-Z_]+)?$")

out = kmend_rule.Report()
given = []      # the kinds of delegations that are given
runs = {}       # where a CB_RECALL_ANY is run: position
late = set()    # of these, which come after client_lock was dropped
bare = set()    # of these, which are reached without that lock
used = set()    # of these, which come with the client in use
raises = {}     # where the count of recalls is raised: position
drops = []      # where it is dropped
guarded = set() # where it is raised for the first break alone
counts = []     # all uses of it
looks = {}      # uses of dl_recalled: function
sets = set()    # of these, which set it

@script:python depends on audit@
@@
out.all = True

@gives@
expression e, x;
position p;
@@
e->op_delegate_type@p = x

@script:python@
p << gives.p;
x << gives.x;
@@
out.anchor(p)
given.append(x)

// Who asks a client for what it can give back.

@run@
identifier f !~ "init";
expression e;
position p;
@@
\(f@p(&e->ra_cb)\|f@p(&e.ra_cb)\)

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
unlock(&n->client_lock, ...)
... when != lock(&n->client_lock, ...)
\(f@p(&e->ra_cb)\|f@p(&e.ra_cb)\)

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
... when != lock(&n->client_lock, ...)
\(f@p(&e->ra_cb)\|f@p(&e.ra_cb)\)
... when any
}

@script:python@
p << run.p;
fn << without.fn;
@@
bare.add(key(p))

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
get << in_use.get;
@@
used.add(key(p))

// The count of delegations that are in recall.

@count@
expression e;
position p;
@@
e->cl_delegs_in_recall@p

@script:python@
p << count.p;
@@
counts.append(p)

@raise@
identifier inc =~ "^(atomic|refcount)_inc";
expression e;
position p;
@@
inc@p(&e->cl_delegs_in_recall)

@script:python@
p << raise.p;
@@
raises[key(p)] = p

@drop@
identifier dec =~ "^(atomic|refcount)_(dec|add_unless)";
expression e;
position p;
@@
dec@p(&e->cl_delegs_in_recall, ...)

@script:python@
p << drop.p;
@@
drops.append(p)

@first@
identifier inc;
expression d, e;
position raise.p;
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
p << raise.p;
d << first.d;
@@
guarded.add(key(p))

@returns@
identifier fn, inc;
expression d, e;
position raise.p;
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
p << raise.p;
d << returns.d;
@@
guarded.add(key(p))

@look@
expression d;
position p;
@@
d->dl_recalled@p

@script:python@
p << look.p;
@@
looks[key(p)] = function_of(p)

@set@
expression d, x;
position p;
@@
d->dl_recalled@p = x

@script:python@
p << set.p;
@@
sets.add(key(p))

@finalize:python@
@@
def judge_run(place, p):
    if place in late and place in used:
        out.say(p, LATE, "fixed", "a client in use is not expired before its callback is run")
    elif place in late:
        out.say(p, LATE, "affected", "%s() runs a callback after client_lock was dropped, and by then the client may "
                   "be expired" % function_of(p))
    elif place in bare:
        out.say(p, LATE, "unknown", "%s() runs a callback without a lock that a rule knows" % function_of(p))
    else:
        out.say(p, LATE, "fixed", "a callback is run under client_lock")

def judge_raise(place, p):
    fn = function_of(p)
    if place in guarded:
        out.say(p, RECALL, "fixed", "a delegation in recall is counted at the first break of its lease")
    elif any(by == fn for at, by in looks.items() if at not in sets) or not drops:
        out.say(p, RECALL, "unknown", "%s() counts delegations in recall in a way that no rule knows" % fn)
    elif not given:
        out.say(p, RECALL, "unknown", "nothing tells which delegations are given, and only one to write is broken "
                   "twice")
    elif all(NOT_TO_WRITE.match(kind) for kind in given):
        out.say(p, RECALL, "latent", "%s() raises at each break what is dropped once; but without write delegations "
                   "none is broken twice" % fn)
    else:
        out.say(p, RECALL, "affected", "%s() raises at each break what is dropped once, and a delegation to write is "
                   "broken twice" % fn)

for place, p in runs.items():
    judge_run(place, p)
if not runs:
    out.say_all(LATE, "not-applicable", "no client is asked for what it can give back")
for place, p in raises.items():
    judge_raise(place, p)
if not counts:
    out.say_all(RECALL, "not-applicable", "delegations in recall are not counted")
elif not raises:
    out.say_all(RECALL, "unknown", "delegations in recall are counted in a way that no rule knows")
