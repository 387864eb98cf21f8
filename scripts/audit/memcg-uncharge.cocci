// SPDX-License-Identifier: GPL-2.0-only
/// A huge page leaves its split queue before it leaves its memcg. Where the
/// queues belong to memcgs, the page's memcg says which lock guards the queue
/// that the page is on: a page that is uncharged first is taken off the memcg's
/// queue under the node's lock.
///
//# -D report names the faults alone. -D audit judges each place that takes a
//# page off its queue, as FILE:LINE:COLUMNS: memcg-uncharge/uncharge-first:
//# STATUS: REASON, and says "seen" of each call of mem_cgroup_uncharge() that
//# tells nothing. What a place means depends on other files, so all are given
//# in one run: huge_memory.c, whose queues they are; vmscan.c and swap.c, the
//# last references; page_alloc.c, who uncharges then.
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
FINDING = "memcg-uncharge/uncharge-first"
# Each group frees huge pages in one of these functions, or we know too little.
PATHS = {
    "vmscan.c": [
        [{"shrink_page_list"}, {"shrink_folio_list"}],
        [{"putback_inactive_pages", "move_active_pages_to_lru"},
         {"move_pages_to_lru"}, {"move_folios_to_lru"}],
    ],
    "swap.c": [
        [{"__put_compound_page"}, {"__put_large_folio"},
         {"__folio_put_large"}, {"__folio_put"}],
    ],
}

queues = {}        # what shows whose the split queues are: position: "memcg" or "node"
uncharges = {}     # calls of mem_cgroup_uncharge()
ends = {}          # places that take a page off its queue: position, name
lists = {}         # calls that uncharge a batch
early = {}         # key of an end: what uncharged its page before
late = set()       # uncharges with an end before them
singles = set()    # uncharges of single pages
uncharging = {}    # functions that uncharge what they are given
callers = []       # calls before an end: key of the end, position of the call, function
final = set()      # destructors that uncharge
empty = set()      # destructors that do not
wordy = []         # not empty: judge aloud

def key(p):
    return (p[0].file, int(p[0].line), int(p[0].column))

def say(p, status, reason):
    if wordy or status == "affected":
        coccilib.report.print_report(
            p[0], "%s: %s: %s" % (FINDING, status, reason))

def is_unqueue(name):
    return "queue" in name or "undo" in name

def judge(k, aware):
    """The place to name, the status and the reason of an end."""
    p, name = ends[k]
    fn = p[0].current_element
    for end, call, g in callers:
        if end == k and g in uncharging and g not in final:
            early.setdefault(k, (call, g))
    if k in early:
        place, g = early[k]
        by = "uncharges" if g == "mem_cgroup_uncharge" else \
            "uncharges with " + g + "()"
        if aware:
            return place, "affected", "%s() %s before %s" % (fn, by, name)
        return place, "latent", "%s() %s before %s, harmless as long as " \
            "the split queues belong to the nodes" % (fn, by, name)
    if is_unqueue(name):
        alone = not any(u[0].current_element == fn and u[0].file == p[0].file
                        for u in uncharges.values()) \
            and not any(u[0].current_element == fn and u[0].file == p[0].file
                        for u, _ in lists.values())
    else:
        alone = not final
    if alone:
        return p, "unknown", "%s() calls %s, and who uncharges the page " \
            "is not to be seen" % (fn, name)
    if aware:
        return p, "fixed", "%s() calls %s before the page is uncharged" % (
            fn, name)
    return p, "not-applicable", "the split queues belong to the nodes, and " \
        "%s() uncharges after %s" % (fn, name)

@script:python depends on audit@
@@
wordy.append(True)

// Whose are the split queues?

@aware@
symbol SHRINKER_MEMCG_AWARE;
position p;
@@
SHRINKER_MEMCG_AWARE@p

@script:python@
p << aware.p;
@@
if p[0].file.endswith("huge_memory.c"):
    queues[key(p)] = (p, "memcg")

@find@
identifier fn =~ "^(get_deferred_split_queue|folio_split_queue_lock)";
identifier m =~ "(^|_)memcg$|^mem_cgroup$";
expression E;
position p;
@@
fn(...)
{
<+...
(
m@p(...)
|
E->m@p
)
...+>
}

@script:python@
p << find.p;
@@
queues[key(p)] = (p, "memcg")

@node@
identifier f =~ "^split_queue(_lock|_len)?$";
expression E;
position p;
@@
E->f@p

@script:python@
p << node.p;
@@
queues[key(p)] = (p, "node")

// Who takes a page off its queue, and who uncharges it?

@one@
symbol mem_cgroup_uncharge;
position p;
@@
mem_cgroup_uncharge@p(...)

@script:python@
p << one.p;
@@
uncharges[key(p)] = p

@other@
symbol mem_cgroup_uncharge;
position p != one.p;
@@
mem_cgroup_uncharge@p

@script:python@
p << other.p;
@@
say(p, "unknown", "a use of mem_cgroup_uncharge that no rule knows")

@batch@
identifier f =~ "^mem_cgroup_uncharge_(folios|list)$";
position p;
@@
f@p(...)

@script:python@
p << batch.p;
f << batch.f;
@@
lists[key(p)] = (p, f)

@single@
symbol mem_cgroup_uncharge;
expression X;
identifier f =~ "^free_unref_(page|folio)$";
position p;
@@
mem_cgroup_uncharge@p(\(X\|page_folio(X)\))
...
f(\(X\|&X->page\), ...)

@script:python@
p << single.p;
@@
singles.add(key(p))

@gives@
symbol mem_cgroup_uncharge;
identifier fn, X;
type T;
position p;
@@
fn(..., T X, ...)
{
<+...
mem_cgroup_uncharge@p(\(X\|page_folio(X)\|&X->page\))
...+>
}

@script:python@
p << gives.p;
fn << gives.fn;
@@
uncharging.setdefault(fn, []).append(key(p))

@destructor@
identifier fn =~ "^(free_compound_page|destroy_large_folio)$";
position p;
@@
fn@p(...) { ... }

@script:python@
p << destructor.p;
fn << destructor.fn;
@@
empty.add(fn)

@end@
identifier f =~ "unqueue_deferred_split|undo_large_rmappable|^(destroy|free)_(compound|transhuge|large)_(page|folio)$|^get_compound_page_dtor$";
expression X;
position p;
@@
f@p(X, ...)

@script:python@
p << end.p;
f << end.f;
@@
ends[key(p)] = (p, "the destructor" if "_dtor" in f else f + "()")

@before exists@
symbol mem_cgroup_uncharge;
expression X, E;
identifier f =~ "unqueue_deferred_split|undo_large_rmappable|^(destroy|free)_(compound|transhuge|large)_(page|folio)$|^get_compound_page_dtor$";
position p, q;
@@
mem_cgroup_uncharge@q(\(X\|page_folio(X)\))
... when any
    when != X = E
f@p(\(X\|&X->page\|page_folio(X)\), ...)

@script:python@
p << before.p;
q << before.q;
@@
early[key(p)] = (q, "mem_cgroup_uncharge")

@batch_before exists@
expression F;
identifier u =~ "^mem_cgroup_uncharge_folios$";
identifier f =~ "unqueue_deferred_split|undo_large_rmappable";
position p, q;
@@
u@q(F)
... when any
    when != free_unref_folios(F)
f@p(...)

@script:python@
p << batch_before.p;
q << batch_before.q;
u << batch_before.u;
@@
early[key(p)] = (q, u)

@call_before exists@
identifier g != mem_cgroup_uncharge;
expression X, E;
identifier f =~ "unqueue_deferred_split|undo_large_rmappable|^(destroy|free)_(compound|transhuge|large)_(page|folio)$|^get_compound_page_dtor$";
position p, q;
@@
g@q(\(X\|&X->page\|page_folio(X)\), ...)
... when any
    when != X = E
f@p(\(X\|&X->page\|page_folio(X)\), ...)

@script:python@
p << call_before.p;
q << call_before.q;
g << call_before.g;
@@
callers.append((key(p), q, g))

@after exists@
symbol mem_cgroup_uncharge;
expression X, E;
identifier f =~ "unqueue_deferred_split|undo_large_rmappable|^(destroy|free)_(compound|transhuge|large)_(page|folio)$|^get_compound_page_dtor$";
position q;
@@
f(X, ...)
... when any
    when != X = E
mem_cgroup_uncharge@q(X)

@script:python@
q << after.q;
@@
late.add(key(q))

@finalize:python@
@@
import os
aware = any(whose == "memcg" for _, whose in queues.values())
# What frees a batch may have to take it off the queues as well, too late.
tardy = any(p[0].current_element == "free_unref_folios" for p, _ in ends.values())
# In the destructors only the order counts.
inner = set((u[0].file, u[0].current_element) for u in uncharges.values())
for k in list(ends):
    p = ends[k][0]
    if os.path.basename(p[0].file) not in PATHS \
            and (p[0].file, p[0].current_element) not in inner:
        del ends[k]
for fn in empty:
    if fn in uncharging:
        final.add(fn)
said = []
freeing = set((os.path.basename(p[0].file), p[0].current_element)
              for p, _ in ends.values())
for k in sorted(ends):
    if not queues:
        break
    place, status, reason = judge(k, aware)
    said.append(status)
    say(place, status, reason)
for k in sorted(lists):
    p, f = lists[k]
    fn = p[0].current_element
    if not queues or "folios" not in f or os.path.basename(p[0].file) not in PATHS \
            or any(e[0].current_element == fn and e[0].file == p[0].file
                   for e, _ in ends.values()):
        continue
    if not tardy:
        status, reason = "unknown", "and who takes it off its queue is not to be seen"
    elif aware:
        status, reason = "affected", "before free_unref_folios() takes it off its queue"
    else:
        status, reason = "latent", "before free_unref_folios() takes it off its " \
            "queue, harmless as long as the split queues belong to the nodes"
    said.append(status)
    say(p, status, "%s() uncharges a batch %s" % (fn, reason))
    freeing.add((os.path.basename(p[0].file), fn))
spoken = set(key(early[k][0]) for k in early)
served = set(g for end, _, g in callers)
for k in sorted(uncharges):
    p = uncharges[k]
    fn = p[0].current_element
    if k in spoken and queues:
        continue
    if not queues or k in late or k in singles or fn in served or fn in final:
        say(p, "seen", "tells nothing of the order")
    else:
        say(p, "unknown", "%s() uncharges a page, and who frees it is not "
            "to be seen" % fn)
        said.append("unknown")
for k in sorted(queues):
    p, whose = queues[k]
    if whose != ("memcg" if aware else "node") or not said:
        continue
    for name, groups in sorted(PATHS.items()):
        found = set(fn for file, fn in freeing if file == name)
        for group in groups:
            if found and not any(fns <= found for fns in group):
                said.append("unknown")
                say(p, "unknown", "not to be seen in %s: how a huge page is freed in "
                    % name + " or in ".join(
                        " and ".join(fn + "()" for fn in sorted(fns))
                        for fns in group))
    order = ["affected", "unknown", "latent", "fixed", "not-applicable"]
    say(p, min(said, key=order.index),
        "the split queues belong to the %ss" % whose)
    break
