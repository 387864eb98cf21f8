// SPDX-License-Identifier: GPL-2.0-only
/// A client in courtesy state has not been heard of for a lease period. A
/// callback that is sent to it stays in flight until the transport gives up,
/// and nfsd4_shutdown_callback() waits for it all that time.
///
//# -D audit judges each file whose work function sends callbacks, as kmend_rule.py
//# says. nfs4state.c in the same run tells whether there is such a state.
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
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from nfsd_cb_shutdown import Courtesy, file_of, key
rule = Courtesy()

@destroys@
@@
nfsd4_shutdown_callback(...);

@script:python depends on destroys@
@@
rule.owner = True

@state@
identifier c =~ "^NFSD4?_COURTESY$";
position p;
@@
c@p

@script:python@
p << state.p;
@@
rule.states.add(file_of(p))

@work@
identifier f;
expression e;
@@
\(INIT_WORK\|INIT_DELAYED_WORK\)(e, f)

@script:python@
f << work.f;
@@
rule.works.add(f)

@looked@
expression e;
position p;
@@
e->cl_state@p

@script:python@
p << looked.p;
@@
rule.mentions.append(p)

// A courtesy client is one that is not active, too.

@left@
expression E;
position p;
@@
(
if@p (E) return ...;
|
if@p (E) { ... when any
return ...; }
)

@script:python@
p << left.p;
E << left.E;
@@
rule.left(p, E)

@sends@
position p;
@@
rpc_call_async@p(...)

@script:python@
p << sends.p;
@@
rule.sends.append(p)

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
rule.silent.add(key(p))

@finalize:python@
@@
rule.judge()
