// SPDX-License-Identifier: GPL-2.0-only
/// A reference that is taken for a work is given back by the work's function,
/// once for each time that it runs. schedule_work() returns false where the work
/// is pending already: what was taken for it then must be given back at once, or
/// nobody does.
///
//# -D audit judges each function that takes a reference to a map and queues a
//# work, as kmend_rule.py says.
///
// Confidence: High
// Options: --no-includes --include-headers
// Keywords: prog_array_map_clear, bpf_map_inc, schedule_work
// Reads: \bbpf_map_inc\w*\b|\b(schedule|queue)_work(_on)?\b
// Home: kernel/bpf/arraymap.c: prog_array_map_clear
// Older: map_release_uref\s*=\s*bpf_fd_array_map_clear|(?<!static )\bvoid bpf_fd_array_map_clear|\bbpf_map_type_list\b
// Built: CONFIG_BPF_SYSCALL

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from kmend_rule import Report, function_of, key
out = Report()
taken, dropped, ignored = {}, set(), set()

// A reference, and a work that is queued behind it.

@takes exists@
identifier queue =~ "^(schedule|queue)_work(_on)?$";
identifier inc =~ "^bpf_map_inc";
expression map;
position p;
@@
inc(map)
... when any
queue@p(...)

@script:python@
p << takes.p;
queue << takes.queue;
@@
taken[key(p)] = p, queue

// Given back if nothing was queued, on each path, and on no other.

@drops@
identifier fn;
identifier takes.queue, takes.inc;
expression takes.map;
position takes.p;
identifier new;
type T;
@@
fn(...)
{
... when != bpf_map_put(map)
inc(map);
... when != bpf_map_put(map)
    when != return ...;
(
if (!queue@p(...)) bpf_map_put(map);
|
if (!queue@p(...)) { bpf_map_put(map); }
|
if (queue@p(...)) return;
bpf_map_put(map);
|
T new = queue@p(...);
if (!new) bpf_map_put(map);
|
new = queue@p(...);
if (!new) bpf_map_put(map);
)
... when != bpf_map_put(map)
}

@script:python@
p << takes.p;
fn << drops.fn;
@@
dropped.add(key(p))

// On some path nobody asks whether it was queued, and nothing is given back.

@ignores exists@
identifier fn;
identifier takes.queue;
expression takes.map;
position takes.p;
@@
fn(...)
{
... when != bpf_map_put(map)
\(queue@p(...);\|(void)queue@p(...);\)
... when != bpf_map_put(map)
}

@script:python@
p << takes.p;
fn << ignores.fn;
@@
ignored.add(key(p))

@finalize:python@
@@
for at, (p, queue) in taken.items():
    fn = function_of(p)
    if at in dropped:
        said = "fixed", f"{fn}() gives back what it took if {queue}() queues nothing"
    elif at in ignored:
        said = "affected", f"{fn}() keeps a reference for a work that may be pending already"
    else:
        said = "unknown", f"{fn}() takes a reference for a work in a way that no rule knows"
    out.say(p, "prog-array-clear/pending-work", *said)
