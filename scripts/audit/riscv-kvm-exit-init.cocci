// SPDX-License-Identifier: GPL-2.0-only
/// A failure in module init must undo what was set up before it. A return after
/// kvm_riscv_aia_init() that does not leaves the per-CPU interrupt of the AIA
/// requested, with its handler in a module that is gone.
///
//# -D audit judges each return after a step of module init, as kmend_rule.py says.
//# It wants arch/riscv/kvm/mmu.c and gstage.c in the same run: where the
//# G-stage mode starts as one that every CPU has, no switch on it can fail, and
//# a leak there is latent (mainline before b8d13949a612).
///
// Confidence: High
// URL: https://git.kernel.org/linus/b8d13949a6125c0e2e59f0c1f102a38d3c4809d1
// Options: --no-includes --include-headers
// Keywords: riscv_kvm_init, kvm_riscv_aia_init, kvm_riscv_nacl_init
// Reads: gstage_mode|kvm_riscv_|kvm_(init|exit)|register_perf_callbacks|module_init
// Home: arch/riscv/kvm/main.c: riscv_kvm_init
// Built: CONFIG_RISCV CONFIG_KVM

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
from riscv_kvm_exit import Init, key
rule = Init()

// Can the G-stage mode be one that no guest can use?

@value@
identifier m =~ "^(kvm_riscv_)?gstage_mode$";
expression E;
type T;
@@
(
T m = E;
|
m = E
)

@script:python@
E << value.E;
@@
rule.value(E)

// Functions that undo a step, or several.

@helper@
identifier h;
identifier f =~ "^(kvm_riscv_aia_exit|kvm_riscv_nacl_exit|kvm_unregister_perf_callbacks|kvm_exit)$";
@@
h(...)
{
... when any
f(...)
... when any
}

@script:python@
h << helper.h;
f << helper.f;
@@
rule.helper(rule.does, h, f)

@may_help exists@
identifier h;
identifier f =~ "^(kvm_riscv_aia_exit|kvm_riscv_nacl_exit|kvm_unregister_perf_callbacks|kvm_exit)$";
@@
h(...)
{
... when any
f(...)
... when any
}

@script:python@
h << may_help.h;
f << may_help.f;
@@
rule.helper(rule.may, h, f)

// The steps of the function that module_init() names.

@load@
declarer name module_init;
identifier fn;
position p;
@@
module_init(fn@p);

@script:python@
p << load.p;
fn << load.fn;
@@
rule.loads.append((p, fn))

@call@
identifier f =~ "^(kvm_riscv_aia_.*|kvm_riscv_nacl_(init|exit)|kvm_(un)?register_perf_callbacks|kvm_(init|exit))$";
position p;
@@
f@p(...)

@script:python@
p << call.p;
f << call.f;
@@
rule.calls.append((p, f))

@step@
identifier f =~ "^(kvm_riscv_(aia|nacl)_init|kvm_register_perf_callbacks|kvm_init)$";
position p;
@@
f@p(...)

// Where a step itself fails, there is nothing to undo: S.

@after exists@
identifier load.fn, step.f;
position step.p, r;
identifier rc;
expression E;
statement S;
@@
fn(...)
{
... when any
(
rc = f@p(...);
if (<+... rc ...+>) S
|
if (<+... f@p(...) ...+>) S
|
f@p(...);
)
... when any
return@r E;
... when any
}

@script:python@
p << step.p;
r << after.r;
E << after.E;
@@
rule.known.add(key(p))
rule.returns[key(r)] = r, E

@leak exists@
identifier load.fn, step.f;
position step.p, r;
identifier rc;
identifier u : script:python(f) { u in rule.does[f] };
expression E;
statement S;
@@
fn(...)
{
... when any
(
rc = f@p(...);
if (<+... rc ...+>) S
|
if (<+... f@p(...) ...+>) S
|
f@p(...);
)
... when any
    when != u(...)
return@r E;
... when any
}

@script:python@
f << step.f;
r << leak.r;
@@
rule.leaks[key(r)].add(f)

@undone exists@
identifier load.fn, step.f;
position step.p, r;
identifier rc;
identifier u : script:python(f) { u in rule.may[f] };
expression E;
statement S;
@@
fn(...)
{
... when any
(
rc = f@p(...);
if (<+... rc ...+>) S
|
if (<+... f@p(...) ...+>) S
|
f@p(...);
)
... when any
u(...);
... when any
return@r E;
... when any
}

@script:python@
f << step.f;
r << undone.r;
@@
rule.undone.add((key(r), f))

@failing exists@
identifier rc;
position r;
@@
if (<+... rc ...+>) {
...
return@r rc;
}

@script:python@
r << failing.r;
@@
rule.failing.add(key(r))

// A return that only the G-stage mode leads to.

@moded exists@
identifier m =~ "^(kvm_riscv_)?gstage_mode$";
identifier g !~ "^(kvm_(info|err)|pr_.*|printk|kvm_riscv_(aia|nacl)_exit)$";
expression E;
position r;
@@
\(m\|m()\)
... when != g(...)
    when != break;
return@r E;

@script:python@
r << moded.r;
@@
rule.modes.add(key(r))

@finalize:python@
@@
rule.judge()
