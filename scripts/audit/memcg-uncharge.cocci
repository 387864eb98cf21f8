// SPDX-License-Identifier: GPL-2.0-only
/// A huge page leaves its split queue before it leaves its memcg. Where the
/// queues belong to memcgs, the page's memcg says which lock guards the queue
/// that the page is on: a page that is uncharged first is taken off the memcg's
/// queue under the node's lock.
///
//# -D audit judges each place that takes a page off its queue, as kmend_rule.py
//# says. What a place means depends on other files, so all are given in one run:
//# huge_memory.c, whose queues they are; vmscan.c and swap.c, the last references;
//# page_alloc.c, who uncharges then.
///
// Confidence: High
// URL: https://git.kernel.org/linus/87eaceb3faa59b9b4d940ec9554ce251325d83fe
// Options: --no-includes --include-headers
// Keywords: mem_cgroup_uncharge, deferred split queue, compound page destructor
// Reads: mem_cgroup_uncharge|unqueue_deferred_split|undo_large_rmappable|get_compound_page_dtor
// Reads: (destroy|free)_(compound|transhuge|large)_(page|folio)|split_queue|SHRINKER_MEMCG_AWARE
// Home: mm/swap.c: __folio_put __put_compound_page __put_large_folio __folio_put_large
// Older: pmd_trans_splitting|__split_huge_page_refcount
// Built: CONFIG_TRANSPARENT_HUGEPAGE CONFIG_MEMCG

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from memcg_uncharge import Uncharge, is_end, key
rule = Uncharge()

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

// Who takes a page off its queue, and who uncharges it?

@call@
identifier f;
position p;
@@
f@p(...)

@script:python@
p << call.p;
f << call.f;
@@
rule.call(p, f)

@use@
symbol mem_cgroup_uncharge;
position p;
@@
mem_cgroup_uncharge@p

@script:python@
p << use.p;
@@
rule.uses.append(p)

@single@
symbol mem_cgroup_uncharge;
identifier f =~ "^free_unref_(page|folio)$";
expression X;
position p;
@@
mem_cgroup_uncharge@p(\(X\|page_folio(X)\))
...
f(\(X\|&X->page\), ...)

@script:python@
p << single.p;
@@
rule.known.add(key(p))

@gives@
symbol mem_cgroup_uncharge;
identifier fn, X;
type T;
@@
fn(..., T X, ...)
{
<+...
mem_cgroup_uncharge(\(X\|page_folio(X)\|&X->page\))
...+>
}

@script:python@
fn << gives.fn;
@@
rule.uncharging.add(fn)

@destructor@
identifier fn =~ "^(free_compound_page|destroy_large_folio)$";
@@
fn(...) { ... }

@script:python@
fn << destructor.fn;
@@
rule.destructors.add(fn)

// What is done with the same page before it is taken off its queue, and after it.

@before exists@
identifier g;
identifier f : script:python() { is_end(f) };
expression X, E;
position p, q;
@@
g@q(\(X\|&X->page\|page_folio(X)\), ...)
... when any
    when != X = E
f@p(\(X\|&X->page\|page_folio(X)\), ...)

@script:python@
p << before.p;
q << before.q;
g << before.g;
@@
rule.before(p, q, g)

@batch_before exists@
expression F;
identifier g =~ "^mem_cgroup_uncharge_folios$";
identifier f =~ "unqueue_deferred_split|undo_large_rmappable";
position p, q;
@@
g@q(F)
... when any
    when != free_unref_folios(F)
f@p(...)

@script:python@
p << batch_before.p;
q << batch_before.q;
g << batch_before.g;
@@
rule.early[key(p)] = (q, g)

@after exists@
symbol mem_cgroup_uncharge;
identifier f : script:python() { is_end(f) };
expression X, E;
position q;
@@
f(X, ...)
... when any
    when != X = E
mem_cgroup_uncharge@q(X)

@script:python@
q << after.q;
@@
rule.known.add(key(q))

@finalize:python@
@@
rule.judge()
