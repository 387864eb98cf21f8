// SPDX-License-Identifier: GPL-2.0-only
/// Module exit must take KVM off the CPUs before it frees what they use. A step
/// that runs before kvm_exit() frees the per-CPU interrupt of the AIA while it
/// is enabled: the interrupt is not freed then, its handler goes away with the
/// module, and the module cannot be loaded again.
///
//# -D audit judges each step of module exit, as kmend_rule.py says.
//# It wants virt/kvm/kvm_main.c in the same run: where virtualization is
//# enabled only while a VM exists, the CPUs are clean at module exit and the
//# fault is latent (mainline before b4886fab6fb6).
///
// Confidence: High
// URL: https://git.kernel.org/linus/2d117e67f318303f6ab699a5511d1fac3f170545
// Options: --no-includes --include-headers
// Keywords: kvm_exit, kvm_riscv_aia_exit, kvm_riscv_teardown, module_exit
// Reads: enable_virtualization|hardware_enable|kvm_riscv_|kvm_exit|module_(init|exit)
// Home: arch/riscv/kvm/main.c: riscv_kvm_init
// Built: CONFIG_RISCV CONFIG_KVM

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
import riscv_kvm_exit
rule = riscv_kvm_exit.Exit()

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

@defines@
identifier fn;
@@
fn(...) { ... }

@script:python@
fn << defines.fn;
@@
rule.own.add(fn)

@load@
declarer name module_init;
identifier fn;
position p;
@@
module_init(fn@p);

@script:python@
p << load.p;
@@
rule.loads[p[0].file] = p

@unload@
declarer name module_exit;
identifier fn;
position p;
@@
module_exit(fn@p);

@script:python@
p << unload.p;
fn << unload.fn;
@@
rule.unloads[p[0].file] = fn

// The order in the function that module_exit() names.

@early exists@
identifier unload.fn;
identifier f : script:python() { rule.is_step(f) or rule.is_odd(f) };
position p;
@@
fn(...)
{
... when != kvm_exit(...)
f@p(...)
... when any
}

@script:python@
p << early.p;
f << early.f;
@@
rule.reached(p, f)

@late exists@
identifier unload.fn;
identifier f : script:python() { rule.is_step(f) or f == "kvm_exit" };
position p;
@@
fn(...)
{
... when any
kvm_exit(...)
... when any
f@p(...)
... when any
}

@script:python@
p << late.p;
f << late.f;
@@
rule.follows(p, f)

@finalize:python@
@@
rule.judge()
