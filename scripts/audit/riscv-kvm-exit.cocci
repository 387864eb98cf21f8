// SPDX-License-Identifier: GPL-2.0-only
/// Module exit must take KVM off the CPUs before it frees what they use. A step
/// that runs before kvm_exit() frees the per-CPU interrupt of the AIA while it
/// is enabled: the interrupt is not freed then, its handler goes away with the
/// module, and the module cannot be loaded again.
///
//# -D report names the faults alone. -D audit judges each step of module exit,
//# as FILE:LINE:COLUMNS: riscv-kvm-exit/exit-order: STATUS: REASON, where the
//# status "seen" says that the place tells nothing about the fault.
//# The audit wants virt/kvm/kvm_main.c in the same run: where virtualization is
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
FINDING = "riscv-kvm-exit/exit-order"
CAUSE = 'b4886fab6fb6 ("KVM: Add a module param to allow enabling ' \
        'virtualization when KVM is loaded")'

wordy = []      # not empty: judge every place aloud
enabled_by = {} # functions that enable virtualization: their callers
frees = {}      # file: functions of it that free what the CPUs use: what
own = {}        # file: the functions that it defines
aia = set()     # files that support the AIA
unloads = {}    # file: its module exit function
exits = {}      # file: functions that call kvm_exit()
early = {}      # steps that can run without kvm_exit() before them: name
late = set()    # steps that can run after kvm_exit()

STEPS = ("kvm_riscv_aia_exit", "kvm_riscv_nacl_exit")

def key(p):
    return (p[0].file, p[0].line, p[0].column)

def here(table, p):
    return table.setdefault(p[0].file, {} if table is frees else set())

def is_step(name):
    """True for a function that frees what the CPUs use, in any file."""
    return name in STEPS or any(name in steps for steps in frees.values())

def is_odd(name):
    """True for a KVM function of which it is not known what it frees."""
    return name.startswith("kvm_riscv_") and not is_step(name) \
        and not any(name in names for names in own.values())

def say(p, status, reason):
    if wordy or status == "affected":
        coccilib.report.print_report(
            p[0], "%s: %s: %s" % (FINDING, status, reason))

def wrong(what):
    """The status of a step that runs before kvm_exit(), and why."""
    callers = set().union(*enabled_by.values()) if enabled_by else set()
    reason = what + " before kvm_exit()"
    if callers == {"kvm_create_vm"}:
        return "latent", reason + ", harmless as long as virtualization is " \
            "enabled only while a VM exists; a backport of %s alone " \
            "makes it affected" % CAUSE
    if callers or not wordy:
        return "affected", reason + ": the CPUs still use what is freed"
    return "unknown", reason + ", but no kvm_main.c says whether " \
        "virtualization is enabled by then"

def judge(p, name):
    """The status of a step of the module exit function, and why."""
    file, fn, k = p[0].file, p[0].current_element, key(p)
    steps = frees.get(file, {}).get(name, [name])
    what = name + "()"
    if name not in steps:
        what += ", and with it %s," % " and ".join(s + "()" for s in steps)
    if fn not in exits.get(file, ()):
        return "unknown", "%s, but no kvm_exit() in %s()" % (what, fn)
    if name in exits.get(file, ()):
        return "unknown", "%s() calls kvm_exit() as well" % name
    if k in early and k in late:
        return "unknown", what + " before kvm_exit() on some paths only"
    if k in early:
        return wrong(what)
    if k in late:
        return "fixed", what + " after kvm_exit()"
    return "unknown", "no path leads to " + what

@script:python depends on audit@
@@
wordy.append(True)

// When is virtualization enabled? The name of the function is that of v6.12 and
// later, or the one before it.

@enables@
identifier f =~ "^(hardware_enable_all|kvm_enable_virtualization)$";
position p;
@@
f@p(...)

@script:python@
p << enables.p;
f << enables.f;
@@
if p[0].current_element not in ("something_else", f):
    enabled_by.setdefault(f, set()).add(p[0].current_element)

// The AIA, and the functions of the file that free it.

@supports@
identifier f =~ "^kvm_riscv_aia_";
position p;
@@
f@p(...)

@script:python@
p << supports.p;
@@
aia.add(p[0].file)

@defines@
identifier fn;
position p;
@@
fn@p(...) { ... }

@script:python@
p << defines.p;
fn << defines.fn;
@@
here(own, p).add(fn)

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
unloads[p[0].file] = fn

@direct@
identifier step =~ "^kvm_riscv_(aia|nacl)_exit$";
position p;
@@
step@p(...)

@script:python@
p << direct.p;
step << direct.step;
@@
here(frees, p).setdefault(p[0].current_element, []).append(step)

@nested@
identifier step : script:python() { is_step(step) };
position p;
@@
step@p(...)

@script:python@
p << nested.p;
step << nested.step;
@@
steps = here(frees, p)
names = steps.setdefault(p[0].current_element, [])
names += [name for name in steps.get(step, []) if name not in names]

@leaves@
position p;
@@
kvm_exit@p(...)

@script:python@
p << leaves.p;
@@
here(exits, p).add(p[0].current_element)

// The order in the function that module_exit() names.

@early exists@
identifier unload.fn;
identifier step : script:python() { is_step(step) };
position p;
@@
fn(...)
{
... when != kvm_exit(...)
step@p(...)
... when any
}

@script:python@
p << early.p;
step << early.step;
@@
early[key(p)] = step

@late exists@
identifier unload.fn;
identifier step : script:python() { is_step(step) };
position p;
@@
fn(...)
{
... when any
kvm_exit(...)
... when any
step@p(...)
... when any
}

@script:python@
p << late.p;
@@
late.add(key(p))

@odd exists@
identifier unload.fn;
identifier step : script:python() { is_odd(step) };
position p;
@@
fn(...)
{
... when != kvm_exit(...)
step@p(...)
... when any
}

@script:python@
p << odd.p;
step << odd.step;
@@
say(p, "unknown", step + "() before kvm_exit(): it is not known what it frees")

@twice exists@
identifier unload.fn;
position p;
@@
fn(...)
{
... when any
kvm_exit(...)
... when any
kvm_exit@p(...)
... when any
}

@script:python@
p << twice.p;
@@
say(p, "unknown", "kvm_exit() for a second time")

// Every step is judged where module exit takes it.

@use@
identifier step : script:python() { is_step(step) };
position p;
@@
step@p(...)

@script:python@
p << use.p;
step << use.step;
@@
if p[0].current_element == unloads.get(p[0].file):
    say(p, *judge(p, step))
else:
    say(p, "seen", "not in the module's exit function")

// A file without a step has no AIA, or cannot be unloaded, or is not known.

@load@
declarer name module_init;
identifier fn;
position p;
@@
module_init(fn@p);

@script:python@
p << load.p;
@@
file = p[0].file
if file not in aia:
    say(p, "not-applicable", "no AIA support, so nothing to free at module exit")
elif file not in unloads:
    say(p, "not-applicable", "no module_exit(): the module cannot be unloaded")
elif unloads[file] not in frees.get(file, {}):
    say(p, "unknown", "AIA support, but nothing in %s() that frees it" % unloads[file])
