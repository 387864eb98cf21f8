// SPDX-License-Identifier: GPL-2.0-only
/// A driver has one list for the flow blocks of all its devices. Whoever walks
/// or changes it for the driver holds one mutex meanwhile: callers have locks of
/// a namespace, a block or a flow table, and none that all of them take.
///
//# -D audit judges each use of driver_list, and each call of what walks the list
//# in a function that changes it, as kmend_rule.py says.
///
// Confidence: High
// Options: --no-includes --include-headers
// Keywords: flow_block_cb_setup_simple, flow_block_cb_is_busy, driver_list
// Reads: \bdriver_list\b|\bDEFINE_MUTEX\b
// Home: net/core/flow_offload.c: flow_block_cb_setup_simple
// Built: CONFIG_NET

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from kmend_rule import Report, function_of, key
out = Report()
sites, walks, changing, walkers, inner = {}, {}, set(), set(), set()
bare, let_go, never, held, unheld = set(), set(), set(), {}, {}

@change@
symbol driver_list;
expression E;
position p;
@@
E->driver_list@p

@script:python@
p << change.p;
@@
sites[key(p)] = p
changing.add(function_of(p))

// What walks the list, and no more, does so for others; they are judged.

@walk@
symbol driver_list;
iterator name list_for_each_entry;
expression E, L;
position p;
statement S;
@@
list_for_each_entry(E, L, driver_list@p) S

@script:python@
p << walk.p;
@@
if function_of(p) in changing:
    sites[key(p)] = p
else:
    walkers.add(function_of(p))
    out.say(p, "flow-block-list/unlocked-list", "seen", "what calls it is judged")

@call@
identifier walker : script:python() { walker in walkers };
position p;
@@
walker@p(...)

@script:python@
p << call.p;
@@
walks[key(p)] = p

// Its caller may have the lock.

@inside@
identifier fn;
symbol driver_list;
expression E;
position p;
type T;
@@
static T fn(...)
{
<+...
E->driver_list@p
...+>
}

@script:python@
p << inside.p;
@@
inner.add(function_of(p))

// A path on which nothing is locked, or not any more.

@bare exists@
identifier fn;
identifier lock =~ "(^|_)(un|try)?lock|^guard$|RTNL";
identifier walker : script:python() { walker in walkers };
symbol driver_list;
expression E;
position p;
@@
fn(...)
{
... when != lock(...)
    when any
(
E->driver_list@p
|
walker@p(...)
)
... when any
}

@script:python@
p << bare.p;
@@
bare.add(key(p))

@later exists@
identifier lock =~ "(^|_)(try)?lock|^guard$";
identifier walker : script:python() { walker in walkers };
symbol driver_list;
expression E;
position p;
@@
mutex_unlock(...)
... when != lock(...)
    when any
(
E->driver_list@p
|
walker@p(...)
)

@script:python@
p << later.p;
@@
let_go.add(key(p))

// A mutex of this file's, held on each path.

@own@
declarer name DEFINE_MUTEX;
identifier M;
@@
DEFINE_MUTEX(M);

@holds exists@
symbol mutex;
identifier own.M;
identifier walker : script:python() { walker in walkers };
symbol driver_list;
expression E;
position p;
@@
\(mutex_lock(&M)\|guard(mutex)(&M)\)
... when != mutex_unlock(&M)
    when any
(
E->driver_list@p
|
walker@p(...)
)

@script:python@
p << holds.p;
M << own.M;
@@
held.setdefault(key(p), set()).add(M)

@lacks exists@
symbol mutex;
identifier fn, own.M;
identifier walker : script:python() { walker in walkers };
symbol driver_list;
expression E;
position p;
@@
fn(...)
{
... when != \(mutex_lock(&M)\|guard(mutex)(&M)\)
    when any
(
E->driver_list@p
|
walker@p(...)
)
... when any
}

@script:python@
p << lacks.p;
M << own.M;
@@
unheld.setdefault(key(p), set()).add(M)

// One that is not let go mends nothing.

@kept exists@
identifier own.M;
position p;
@@
mutex_lock@p(&M)
... when != mutex_unlock(&M)
return ...;

@script:python@
p << kept.p;
M << own.M;
@@
never.add(M)

@finalize:python@
@@
sites.update((at, p) for at, p in walks.items() if function_of(p) in changing)
certain = {at: held.get(at, set()) - unheld.get(at, set()) - never for at in sites if at not in let_go}
common = set.intersection(*certain.values()) if certain else set()
for at, p in sorted(sites.items()):
    fn = function_of(p)
    if at in let_go or (at in bare and fn not in inner):
        said = "affected", f"{fn}() is at a driver's list without a lock that all its callers have"
    elif at in certain and common:
        said = "fixed", f"{fn}() is at a driver's list with {min(common)} held"
    else:
        said = "unknown", f"{fn}() is at a driver's list in a way that no rule knows"
    out.say(p, "flow-block-list/unlocked-list", *said)
