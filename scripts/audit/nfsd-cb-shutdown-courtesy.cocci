// SPDX-License-Identifier: GPL-2.0-only
/// A client in courtesy state has not been heard of for a lease period. A
/// callback that is sent to it stays in flight until the transport gives up,
/// and nfsd4_shutdown_callback() waits for it all that time.
///
//# -D report names the faults alone. -D audit says of each file whose work
//# function sends callbacks FILE:LINE:COLUMNS: FINDING: STATUS: REASON.
//# nfs4state.c in the same run tells whether there is such a state.
///
// Confidence: High
// URL: https://git.kernel.org/linus/036ac2778f7b28885814c6fbc07e156ad1624d03
// Options: --no-includes --include-headers
// Keywords: NFSD4_COURTESY, nfsd4_run_cb_work, rpc_call_async
// Reads: NFSD4?_(COURTESY|ACTIVE)|cl_state|INIT_(DELAYED_)?WORK|rpc_call_async|nfsd4_shutdown_callback
// Home: fs/nfsd/nfs4callback.c: nfsd4_shutdown_callback
// Built: CONFIG_NFSD CONFIG_NFSD_V4

virtual report
virtual audit

@initialize:python@
@@
FINDING = "nfsd-cb-shutdown/courtesy-hang"

chatty = []     # not empty: say all
owners = []     # not empty: the code that destroys clients is at hand
courtesy = []   # not empty: there is a courtesy state
works = set()   # work functions
silent = {}     # where a courtesy client is sent something: function
mentions = {}   # where the state is looked at: function
leaves = set()  # places where it is looked at, and a courtesy client left out
said = set()

def key(p):
    return (p[0].file, p[0].line, p[0].column)

def say(p, status, reason):
    if (chatty or status == "affected") and (key(p), reason) not in said:
        said.add((key(p), reason))
        coccilib.report.print_report(p[0], "%s: %s: %s" % (FINDING, status, reason))

@script:python depends on audit@
@@
chatty.append(True)

@destroys@
@@
nfsd4_shutdown_callback(...);

@script:python depends on destroys@
@@
owners.append(True)

@state@
identifier c =~ "^NFSD4?_COURTESY$";
@@
c

@script:python depends on state@
@@
courtesy.append(True)

@work@
identifier f;
expression e;
@@
\(INIT_WORK\|INIT_DELAYED_WORK\)(e, f)

@script:python@
f << work.f;
@@
works.add(f)

@looked@
expression e;
position p;
@@
e->cl_state@p

@script:python@
p << looked.p;
@@
mentions[key(p)] = p[0].current_element

// A courtesy client is one that is not active, too.

@left@
expression e, x, y;
identifier c =~ "^NFSD4?_COURTESY$", a =~ "^NFSD4?_ACTIVE$";
position p;
@@
(
if (\(e->cl_state@p == c\|c == e->cl_state@p\|e->cl_state@p != a\|e->cl_state@p >= c\)) return ...;
|
if (\(e->cl_state@p == c\|c == e->cl_state@p\|e->cl_state@p != a\|e->cl_state@p >= c\)) { ... when any
return ...; }
|
if (\(e->cl_state@p == c\|c == e->cl_state@p\|e->cl_state@p != a\|e->cl_state@p >= c\) || x) return ...;
|
if (\(e->cl_state@p == c\|c == e->cl_state@p\|e->cl_state@p != a\|e->cl_state@p >= c\) || x) { ... when any
return ...; }
|
if (x || \(e->cl_state@p == c\|c == e->cl_state@p\|e->cl_state@p != a\|e->cl_state@p >= c\)) return ...;
|
if (x || \(e->cl_state@p == c\|c == e->cl_state@p\|e->cl_state@p != a\|e->cl_state@p >= c\)) { ... when any
return ...; }
|
if (x || \(e->cl_state@p == c\|c == e->cl_state@p\|e->cl_state@p != a\|e->cl_state@p >= c\) || y) return ...;
|
if (x || \(e->cl_state@p == c\|c == e->cl_state@p\|e->cl_state@p != a\|e->cl_state@p >= c\) || y) { ... when any
return ...; }
)

@script:python@
p << left.p;
@@
leaves.add(key(p))

@sends@
position p;
@@
rpc_call_async@p(...)

@unlooked exists@
identifier fn;
expression e;
position p;
@@
fn(...)
{
... when != e->cl_state
rpc_call_async@p(...)
... when any
}

@script:python@
p << unlooked.p;
@@
silent[key(p)] = True

@script:python@
p << sends.p;
@@
fn = p[0].current_element
here = [place for place, by in mentions.items() if place[0] == p[0].file]
looks = [place for place in here if mentions[place] == fn]
if fn not in works:
    say(p, "unknown", "%s() sends callbacks, and is no work function" % fn)
elif key(p) not in silent and any(place in leaves for place in looks):
    say(p, "fixed", "%s() sends nothing to a courtesy client" % fn)
elif not courtesy and not here:
    if owners:
        say(p, "not-applicable", "clients have no courtesy state")
    else:
        say(p, "unknown", "the states of a client are not known")
elif key(p) in silent and not here:
    say(p, "affected", "%s() sends callbacks to courtesy clients too" % fn)
elif key(p) in silent and looks:
    say(p, "affected", "%s() looks at the state of the client on one path only" % fn)
else:
    say(p, "unknown", "the state of the client is looked at in a way that no rule knows")
