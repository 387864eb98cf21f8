// SPDX-License-Identifier: GPL-2.0-only
/// A huge page or folio leaves its split queue before its memcg is cleared or
/// changed by swapout, by migration, or by the move of a task's charges. Where
/// the queues belong to memcgs, nobody finds the lock of the queue that it is
/// on afterwards.
///
//# -D audit judges each such change, as kmend_rule.py says.
//# Up to the commit named below a queued huge page was split before it could
//# be swapped out or moved as a whole: there the fault is latent. huge_memory.c
//# tells of that and of the queues, so all files are given in one run.
///
// Confidence: Medium
// URL: https://git.kernel.org/linus/dafff3f4c850c98e15501bc6ee20581f9a013dcc
// URL: https://git.kernel.org/linus/f8f931bba0f92052cf842b7e30917b1afcc77d5a
// Options: --no-includes --include-headers
// Keywords: memcg_data, mem_cgroup_swapout, deferred split queue
// Reads: (memcg1|mem_cgroup)_(swapout|migrate|move_account|replace_folio)|split_queue|SHRINKER_MEMCG_AWARE
// Reads: split_underused_thp|thp_underused
// Older: pmd_trans_splitting|__split_huge_page_refcount
// Built: CONFIG_TRANSPARENT_HUGEPAGE CONFIG_MEMCG

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from memcg_uncharge import Unqueue, key
rule = Unqueue()

// Whose are the split queues?

@memcg@
identifier m =~ "(^|_)memcg$|^mem_cgroup$";
symbol SHRINKER_MEMCG_AWARE;
expression E;
position p;
@@
(
SHRINKER_MEMCG_AWARE@p
|
m@p(...)
|
E->m@p
)

@script:python@
p << memcg.p;
m << memcg.m = "";
@@
rule.queues.memcg(p, m)

@node@
identifier f =~ "^split_queue(_lock|_len)?$";
expression E;
position p;
@@
E->f@p

@script:python@
p << node.p;
@@
rule.queues.node(p)

// Are pages that are mapped as a whole queued, too?

@underused@
identifier f =~ "^(split_underused_thp|thp_underused)$";
position p : script:python() { p[0].file.endswith("huge_memory.c") };
@@
f@p

@script:python depends on underused@
@@
rule.whole = True

@change@
identifier fn =~ "^(__)?(memcg1|mem_cgroup)_(swapout|migrate|move_account|replace_folio)$";
identifier f =~ "^(memcg_data|mem_cgroup)$";
expression X, E;
position p;
@@
fn(...)
{
<+...
X->f@p = E
...+>
}

@script:python@
p << change.p;
@@
rule.changes[key(p)] = p

@bare exists@
identifier fn, change.f;
identifier g =~ "unqueue_deferred_split|undo_large_rmappable|deferred_split_queued";
expression X, E;
position change.p;
@@
fn(...)
{
... when any
    when != g(X)
    when != if (folio_test_large(X) && folio_test_large_rmappable(X)) g(X);
X->f@p = E
... when any
}

@script:python@
p << change.p;
fn << bare.fn;
@@
rule.bare.add(key(p))

// What has no other use of a page, and no lock's name, may take it off its queue.

@perhaps exists@
identifier change.f;
identifier g !~ "unqueue_deferred_split|undo_large_rmappable|deferred_split_queued|lock|^(VM_|WARN|BUG)";
identifier w =~ "^(VM_)?(WARN|BUG)_ON(_ONCE)?$";
expression X, E;
position change.p;
@@
(
g(X);
|
w(g(X));
)
... when any
X->f@p = E

@script:python@
p << change.p;
g << perhaps.g;
@@
rule.perhaps[key(p)] = g

@finalize:python@
@@
rule.judge()
