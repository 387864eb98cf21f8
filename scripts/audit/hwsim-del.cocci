// SPDX-License-Identifier: GPL-2.0-only
/// A radio of mac802154_hwsim is unregistered before its pib is freed, and what
/// is freed is the pib that it has by then. As long as the radio is registered
/// the driver's operations read that pib and put another in its place: one that
/// is freed before, or an older one, is freed twice.
///
//# -D audit judges each free of a pib in a function that registers or
//# unregisters a radio, as kmend_rule.py says.
///
// Confidence: High
// URL: https://lore.kernel.org/r/20260627235805.17310-1-alhouseenyousef@gmail.com
// Options: --no-includes --include-headers
// Keywords: hwsim_del, hwsim_add_one, ieee802154_unregister_hw, kfree_rcu, pib
// Reads: ieee802154_(un)?register_hw
// Home: drivers/net/ieee802154/mac802154_hwsim.c: hwsim_del
// Built: CONFIG_IEEE802154_HWSIM

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from hwsim_del import Rule, key
rule = Rule()

@step@
identifier f =~ "^ieee802154_(un)?register_hw$";
position p;
@@
f@p(...)

@script:python@
p << step.p;
f << step.f;
@@
rule.step(p, f)

// Whatever may hold a pib is a pib.

@holds@
identifier held;
expression E;
@@
(
held = <+... E->pib ...+>
|
E->pib = held
|
rcu_assign_pointer(E->pib, held)
|
RCU_INIT_POINTER(E->pib, held)
)

@script:python@
held << holds.held;
@@
rule.pibs.add(held)

@free@
identifier f =~ "free|call_rcu";
identifier held : script:python() { held in rule.pibs };
expression E;
position p;
@@
(
f@p(held, ...)
|
f@p(<+... E->pib ...+>, ...)
)

@script:python@
p << free.p;
f << free.f;
@@
rule.frees[key(p)] = p, f

// In front of the end of a registration.

@early exists@
identifier free.f;
position free.p, q;
@@
f@p(...)
... when any
ieee802154_unregister_hw@q(...)

@script:python@
p << free.p;
q << early.q;
@@
rule.early.add(key(p))

// Behind it: of what was read behind it, and of what is older.

@late exists@
identifier free.f;
expression E;
position free.p, q;
@@
ieee802154_unregister_hw@q(...)
... when any
f@p(<+... E->pib ...+>, ...)

@script:python@
p << free.p;
q << late.q;
@@
rule.late.add(key(p))

@read exists@
identifier free.f, held;
expression E, X;
position free.p, q;
@@
ieee802154_unregister_hw@q(...)
... when any
held = <+... E->pib ...+>;
... when != held = X
    when any
f@p(held, ...)

@script:python@
p << free.p;
q << read.q;
@@
rule.late.add(key(p))

@stale exists@
identifier free.f, held;
expression X;
position free.p, q;
@@
ieee802154_unregister_hw@q(...)
... when != held = X
    when any
f@p(held, ...)

@script:python@
p << free.p;
q << stale.q;
@@
rule.stale.add(key(p))

@finalize:python@
@@
rule.judge()
