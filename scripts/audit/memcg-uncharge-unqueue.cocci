// SPDX-License-Identifier: GPL-2.0-only
/// A huge page or folio leaves its split queue before its memcg is cleared or
/// changed by swapout, by migration, or by the move of a task's charges. Where
/// the queues belong to memcgs, nobody finds the lock of the queue that it is
/// on afterwards.
///
//# -D report names the faults alone. -D audit judges each such change, as
//# FILE:LINE:COLUMNS: memcg-uncharge/unlocked-unqueue: STATUS: REASON.
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
FINDING = "memcg-uncharge/unlocked-unqueue"

queues = {}    # what shows whose the split queues are: position, "memcg" or "node"
whole = []     # shows that pages which are mapped as a whole are queued too
changes = {}   # changes of the memcg of a page: position
bare = set()   # of these, those that a queued page can come to
perhaps = {}   # changes of a page that went to a function before: its name
wordy = []     # not empty: judge aloud

def key(p):
    return (p[0].file, int(p[0].line), int(p[0].column))

def say(p, status, reason):
    if wordy or status == "affected":
        coccilib.report.print_report(
            p[0], "%s: %s: %s" % (FINDING, status, reason))

def judge(k, aware):
    """The status of a change, and why."""
    fn = changes[k][0].current_element
    if not aware:
        return "not-applicable", "%s() changes the memcg, but the split " \
            "queues belong to the nodes" % fn
    if k not in bare:
        return "fixed", "%s() changes the memcg of a page off its queue" % fn
    if k in perhaps:
        return "unknown", "%s() changes the memcg, and it is not known what " \
            "%s() does to the page before" % (fn, perhaps[k])
    if whole:
        return "affected", "%s() changes the memcg of a page that may be " \
            "queued" % fn
    return "latent", "%s() changes the memcg without a look at the queue, " \
        "but a queued page is split before it comes here" % fn

@script:python depends on audit@
@@
wordy.append(True)

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

@underused@
identifier f =~ "^(split_underused_thp|thp_underused)$";
position p;
@@
f@p

@script:python@
p << underused.p;
@@
if p[0].file.endswith("huge_memory.c"):
    whole.append(p)

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
changes[key(p)] = p

@bare exists@
identifier fn =~ "^(__)?(memcg1|mem_cgroup)_(swapout|migrate|move_account|replace_folio)$";
identifier f =~ "^(memcg_data|mem_cgroup)$";
identifier g =~ "unqueue_deferred_split|undo_large_rmappable|deferred_split_queued";
expression X, E;
position p;
@@
fn(...)
{
... when any
    when != g(X)
X->f@p = E
... when any
}

@script:python@
p << bare.p;
@@
bare.add(key(p))

// What has no other use of a page, and no lock's name, may take it off its queue.

@perhaps exists@
identifier fn =~ "^(__)?(memcg1|mem_cgroup)_(swapout|migrate|move_account|replace_folio)$";
identifier f =~ "^(memcg_data|mem_cgroup)$";
identifier g !~ "unqueue_deferred_split|undo_large_rmappable|deferred_split_queued|lock|^(VM_|WARN|BUG)";
identifier w =~ "^(VM_)?(WARN|BUG)_ON(_ONCE)?$";
expression X, E;
position p;
@@
fn(...)
{
... when any
(
g(X);
|
w(g(X));
)
... when any
X->f@p = E
... when any
}

@script:python@
p << perhaps.p;
g << perhaps.g;
@@
perhaps[key(p)] = g

@finalize:python@
@@
aware = any(whose == "memcg" for _, whose in queues.values())
said = []
for k in sorted(changes):
    if queues:
        status, reason = judge(k, aware)
        said.append(status)
        say(changes[k], status, reason)
if queues and not any("swapout" in p[0].current_element for p in changes.values()):
    said.append("unknown")
order = ["affected", "unknown", "latent", "fixed", "not-applicable"]
for k in sorted(queues):
    p, whose = queues[k]
    if whose == ("memcg" if aware else "node"):
        status = min(said, key=order.index)
        if status == "unknown":
            say(p, status, "not to be seen: how swapout takes a page off its queue")
        else:
            say(p, status, "the split queues belong to the %ss" % whose)
        break
