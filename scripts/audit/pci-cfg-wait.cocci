// SPDX-License-Identifier: GPL-2.0-only
/// The pci_cfg_wait queue must change only under its own lock. A waker walks
/// the queue under that lock, so a waiter which pci_wait_cfg() adds or removes
/// without it races with the walk: the waker then calls through an entry on a
/// stack that is gone.
///
//# -D audit judges each use of the queue, as kmend_rule.py says. A file in which
//# nobody waits in a way that is known gets no status but "seen".
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
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from pci_cfg_wait import Rule, key
rule = Rule()

@use@
symbol pci_cfg_wait;
position p;
@@
pci_cfg_wait@p

@script:python@
p << use.p;
@@
rule.uses.append(p)

@call@
symbol pci_cfg_wait;
identifier f, m;
identifier w =~ "^(__)?wait_event";
position p;
@@
(
f(..., &pci_cfg_wait@p, ...)
|
f(..., &pci_cfg_wait@p.m, ...)
|
w(pci_cfg_wait@p, ...)
)

@script:python@
p << call.p;
f << call.f = "";
m << call.m = "";
w << call.w = "";
@@
rule.call(p, f, m, w)

@declared@
declarer name DECLARE_WAIT_QUEUE_HEAD;
symbol pci_cfg_wait;
position p;
@@
DECLARE_WAIT_QUEUE_HEAD(pci_cfg_wait@p);

@script:python@
p << declared.p;
@@
rule.declared.add(key(p))

@private disable optional_storage@
declarer name DECLARE_WAIT_QUEUE_HEAD;
symbol pci_cfg_wait;
position p;
@@
static DECLARE_WAIT_QUEUE_HEAD(pci_cfg_wait@p);

@script:python@
p << private.p;
@@
rule.private.add(key(p))

// Where the queue's lock may not be held. The waiter can move its own entry
// without naming the queue, too.

@bare exists@
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
(
pci_cfg_wait@p
|
f@p(\(&e.node\|&e->node\), ...)
)
... when any
}

@script:python@
p << bare.p;
f << bare.f = "";
@@
rule.note(p, f)

@again exists@
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
(
pci_cfg_wait@p
|
f@p(\(&e.node\|&e->node\), ...)
)

@script:python@
p << again.p;
f << again.f = "";
@@
rule.note(p, f)

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
rule.outside.add(key(p))

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
rule.outside.add(key(p))

@finalize:python@
@@
rule.judge()
