// SPDX-License-Identifier: GPL-2.0-only
/// The pci_cfg_wait queue must change only under its own lock. A waker walks
/// the queue under that lock, so a waiter which pci_wait_cfg() adds or removes
/// without it races with the walk: the waker then calls through an entry on a
/// stack that is gone.
///
//# -D report names the faults alone. -D audit judges each use of the queue, as
//# FILE:LINE:COLUMNS: pci-cfg-wait/unlocked-queue: STATUS: REASON, where the
//# status "seen" says that the use tells nothing about the fault. A file in
//# which nobody waits in a way that is known gets no status but that.
//# As long as every waker holds pci_lock too, that lock guards the queue and
//# the fault is latent (mainline before cdcb33f98244).
///
// Confidence: High
// URL: https://git.kernel.org/linus/2a7e32d0547f41c5ce244f84cf5d6ca7fccee7eb
// Options: --no-includes --include-headers
// Keywords: pci_cfg_wait, pci_wait_cfg, __add_wait_queue, wait queue lock
// Reads: pci_cfg_wait|pci_wait_cfg
// Home: drivers/pci/access.c: pci_wait_cfg
// Older: pci_ucfg_wait
// Built: CONFIG_PCI

virtual report
virtual audit

@initialize:python@
@@
FINDING = "pci-cfg-wait/unlocked-queue"
WAITER = "pci_wait_cfg"

harmless = set()  # uses that leave the list alone, or remove under its lock
wakers = set()    # wake-ups
adders = {}       # uses that add a waiter under the queue's lock: function
changes = {}      # changes and walks that leave the lock to us: function
bare = set()      # uses that can run without the queue's lock
outside = set()   # changes and wake-ups that can run without pci_lock
public = set()    # files whose queue others may reach
wordy = []        # not empty: judge every use aloud

def key(p):
    return (p[0].file, p[0].line, p[0].column)

def covered(p):
    """True if pci_lock is held at every change and wake-up in this file."""
    def here(places):
        return any(place[0] == p[0].file for place in places)
    return here(wakers) and not here(outside) \
        and p[0].file not in public

def unlocked(p, name):
    if covered(p):
        return ("latent", name + "() without pci_cfg_wait.lock, "
                "but every waker holds pci_lock as well")
    return "affected", name + "() without pci_cfg_wait.lock"

def judge(p):
    """The status of one use of the queue, "seen" if it says nothing, and why."""
    k, fn = key(p), p[0].current_element
    name = changes.get(k) or adders.get(k)
    if name is None:
        if k in harmless or k in wakers:
            return "seen", "leaves the queue to others"
        return "unknown", "a use of pci_cfg_wait in %s that no rule knows" % (
            fn + "()" if fn != "something_else" else "no function")
    if fn != WAITER and "wake_up" not in name:
        return "unknown", "%s() in %s(), not in %s()" % (name, fn, WAITER)
    if k in adders:
        return "fixed", name + "() takes pci_cfg_wait.lock"
    if k in bare:
        return unlocked(p, name)
    if "add" in name or "wait_event" in name:
        return "fixed", name + "() under pci_cfg_wait.lock"
    return "seen", name + "() under pci_cfg_wait.lock"

def say(p, status, reason):
    if wordy or status == "affected":
        coccilib.report.print_report(
            p[0], "%s: %s: %s" % (FINDING, status, reason))

def say_entry(p, name):
    if p[0].current_element == WAITER:
        say(p, *unlocked(p, name))

@script:python depends on audit@
@@
wordy.append(True)

@harmless@
symbol pci_cfg_wait;
identifier f =~ "^(waitqueue_active|wq_has_sleeper|init_waitqueue_head|lockdep_assert_held|assert_spin_locked|spin_(un)?lock(_irq|_irqsave|_irqrestore|_bh)?|remove_wait_queue|finish_wait)$";
position p;
@@
(
f(&pci_cfg_wait@p, ...)
|
f(&pci_cfg_wait@p.lock, ...)
)

@script:python@
p << harmless.p;
@@
harmless.add(key(p))

@declared@
declarer name DECLARE_WAIT_QUEUE_HEAD;
symbol pci_cfg_wait;
position p;
@@
DECLARE_WAIT_QUEUE_HEAD(pci_cfg_wait@p);

@script:python@
p << declared.p;
@@
harmless.add(key(p))
public.add(p[0].file)

@private disable optional_storage@
declarer name DECLARE_WAIT_QUEUE_HEAD;
symbol pci_cfg_wait;
position p;
@@
static DECLARE_WAIT_QUEUE_HEAD(pci_cfg_wait@p);

@script:python@
p << private.p;
@@
harmless.add(key(p))
public.discard(p[0].file)

@wakes@
symbol pci_cfg_wait;
identifier f =~ "^(__)?wake_up(_sync|_nr|_all|_interruptible|_interruptible_nr|_interruptible_all|_interruptible_sync)?$";
position p;
@@
f(&pci_cfg_wait@p, ...)

@script:python@
p << wakes.p;
@@
wakers.add(key(p))

// These take the queue's lock themselves.

@adds@
symbol pci_cfg_wait;
identifier f =~ "^(add_wait_queue|prepare_to_wait)(_exclusive|_priority|_event)?$";
position p;
@@
f(&pci_cfg_wait@p, ...)

@script:python@
p << adds.p;
f << adds.f;
@@
adders[key(p)] = f

@waits@
symbol pci_cfg_wait;
identifier f =~ "^(__)?wait_event";
position p;
@@
f(pci_cfg_wait@p, ...)

@script:python@
p << waits.p;
f << waits.f;
@@
if "_locked" in f:
    changes[key(p)] = f
else:
    adders[key(p)] = f

// These leave the lock to their caller.

@change@
symbol pci_cfg_wait;
identifier f =~ "^(__add_wait_queue|__remove_wait_queue|__wake_up_locked|wake_up_locked|wake_up_all_locked|list_(add|del|move|splice|replace|cut|rotate|swap))";
identifier head =~ "^(head|task_list)$";
position p;
@@
(
f(..., &pci_cfg_wait@p, ...)
|
f(..., &pci_cfg_wait@p.head, ...)
)

@script:python@
p << change.p;
f << change.f;
@@
changes[key(p)] = f
if "wake_up" in f:
    wakers.add(key(p))

@bare exists@
symbol pci_cfg_wait;
identifier fn;
position p;
@@
fn(...)
{
... when any
    when != \(spin_lock\|spin_lock_irq\|spin_lock_bh\|spin_lock_irqsave\)(&pci_cfg_wait.lock, ...)
pci_cfg_wait@p
... when any
}

@script:python@
p << bare.p;
@@
bare.add(key(p))

@bare_again exists@
symbol pci_cfg_wait;
identifier unlock =~ "^spin_unlock(_irq|_irqrestore|_bh)?$";
position p;
@@
unlock(&pci_cfg_wait.lock, ...)
... when any
    when != \(spin_lock\|spin_lock_irq\|spin_lock_bh\|spin_lock_irqsave\)(&pci_cfg_wait.lock, ...)
pci_cfg_wait@p

@script:python@
p << bare_again.p;
@@
bare.add(key(p))

// The waiter can also move its own entry without naming the queue.

@entry exists@
symbol pci_cfg_wait;
identifier fn, e;
identifier f =~ "^list_(add|del|move|replace)";
identifier node =~ "^(entry|task_list)$";
position p;
@@
fn(...)
{
... when any
    when != \(spin_lock\|spin_lock_irq\|spin_lock_bh\|spin_lock_irqsave\)(&pci_cfg_wait.lock, ...)
f@p(\(&e.node\|&e->node\), ...)
... when any
}

@entry_again exists@
symbol pci_cfg_wait;
identifier e;
identifier f =~ "^list_(add|del|move|replace)";
identifier node =~ "^(entry|task_list)$";
identifier unlock =~ "^spin_unlock(_irq|_irqrestore|_bh)?$";
position p;
@@
unlock(&pci_cfg_wait.lock, ...)
... when any
    when != \(spin_lock\|spin_lock_irq\|spin_lock_bh\|spin_lock_irqsave\)(&pci_cfg_wait.lock, ...)
f@p(\(&e.node\|&e->node\), ...)

// Does pci_lock cover every change and every wake-up? pci_wait_cfg() is entered
// with it held.

@outside exists@
symbol pci_cfg_wait, pci_lock;
identifier fn != pci_wait_cfg;
identifier f =~ "wake_up|_wait_queue|^list_";
position p;
@@
fn(...)
{
... when any
    when != \(raw_spin_lock\|raw_spin_lock_irq\|raw_spin_lock_irqsave\)(&pci_lock, ...)
f(&pci_cfg_wait@p, ...)
... when any
}

@script:python@
p << outside.p;
@@
outside.add(key(p))

@outside_again exists@
symbol pci_cfg_wait, pci_lock;
identifier f =~ "wake_up|_wait_queue|^list_";
identifier unlock =~ "spin_unlock";
position p;
@@
unlock(&pci_lock, ...)
... when any
    when != \(raw_spin_lock\|raw_spin_lock_irq\|raw_spin_lock_irqsave\)(&pci_lock, ...)
f(&pci_cfg_wait@p, ...)

@script:python@
p << outside_again.p;
@@
outside.add(key(p))

// Every use is judged. One that no rule above knows leaves the file unknown.

@use@
symbol pci_cfg_wait;
position p;
@@
pci_cfg_wait@p

@script:python@
p << use.p;
@@
say(p, *judge(p))

@script:python@
p << entry.p;
f << entry.f;
@@
say_entry(p, f)

@script:python@
p << entry_again.p;
f << entry_again.f;
@@
say_entry(p, f)
