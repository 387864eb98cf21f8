// SPDX-License-Identifier: GPL-2.0-only
/// A failure in module init must undo what was set up before it. A return after
/// kvm_riscv_aia_init() that does not leaves the per-CPU interrupt of the AIA
/// requested, with its handler in a module that is gone.
///
//# -D report names the faults alone. -D audit judges each return after a step of
//# module init, as FILE:LINE:COLUMNS: riscv-kvm-exit/init-leak: STATUS: REASON,
//# where the status "seen" says that the place tells nothing about the fault.
//# The audit wants arch/riscv/kvm/mmu.c and gstage.c in the same run: where the
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
import re

FINDING = "riscv-kvm-exit/init-leak"
CAUSE = 'b8d13949a612 ("RISC-V: KVM: Prevent HGATP_MODE_BARE passed")'

wordy = []     # not empty: judge every place aloud
undoes = {     # step: the functions that undo it on each of their paths
    "kvm_riscv_aia_init": {"kvm_riscv_aia_exit"},
    "kvm_riscv_nacl_init": {"kvm_riscv_nacl_exit"},
    "kvm_register_perf_callbacks": {"kvm_unregister_perf_callbacks"},
    "kvm_init": {"kvm_exit"},
}
may_undo = {step: set(names) for step, names in undoes.items()}  # on some path
values = set() # what the G-stage mode can be: sound, none, or vague
aia = set()    # files that support the AIA
taken = set()  # steps anywhere in a file: file, name
steps = {}     # steps of module init: name
known = set()  # of these, whose own failure is told from later ones
returns = {}   # returns of an error after a step: their text
leaks = {}     # of these, which can be reached without undoing: steps
undone = set() # of these, which can be reached with it, and the step
failing = set() # returns of a value that was just found to be an error
called = {}    # file: what undoes a step in it
modes = set()  # returns that only the G-stage mode leads to

def key(p):
    return (p[0].file, p[0].line, p[0].column)

def undo(name, step):
    return name in undoes[step]

def may(name, step):
    return name in may_undo[step]

def say(p, status, reason):
    if wordy or status == "affected":
        coccilib.report.print_report(
            p[0], "%s: %s: %s" % (FINDING, status, reason))

def hidden(p):
    """True if the function up to here has an #if right behind a case label:
    Coccinelle takes what is in it for granted."""
    with open(p[0].file, encoding="latin-1") as file:
        lines = file.read().splitlines()[:int(p[0].line)]
    text = "\n".join(lines).rpartition("\n{")[2]
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    return re.search(r"\b(case\b[^:;]*|default\s*):\s*#\s*if(?!\s+0\b)", text)

def judge(p):
    """The status of a return of an error, and why."""
    k = key(p)
    value = returns[k].replace(" ", "")
    steps = sorted(leaks.get(k, ()))
    if not steps and hidden(p):
        return "unknown", "return %s, which an #if behind a case label hides" % value
    if not steps:
        return "fixed", "return %s with all undone" % value
    names = " and ".join(step + "()" for step in steps)
    reason = "return %s without undoing %s" % (value, names)
    if any((k, step) in undone for step in steps):
        return "unknown", reason + " on some paths"
    if any(not may_undo[step] & called.get(p[0].file, set()) for step in steps):
        return "unknown", reason + ", but in this file nothing is known that does"
    if value.isidentifier() and k not in failing:
        return "unknown", reason + ", if it is an error"
    if k in modes and values == {"sound"}:
        return "latent", reason + ", but the G-stage mode starts as a known " \
            "one and never is none; a backport of the detection alone, from " \
            "%s, makes it affected" % CAUSE
    if k in modes and "none" not in values and wordy:
        return "unknown", reason + ", but no mmu.c or gstage.c says whether " \
            "the G-stage mode can be none"
    return "affected", reason

@script:python depends on audit@
@@
wordy.append(True)

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
if "HGATP_MODE_SV" in E:
    values.add("sound")
elif E in ("0", "HGATP_MODE_OFF") or "HGATP_MODE_OFF <<" in E:
    values.add("none")
else:
    values.add("vague")

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
for names in undoes.values():
    if f in names:
        names.add(h)

@may_help exists@
identifier h;
identifier f =~ "^(kvm_riscv_aia_exit|kvm_riscv_nacl_exit|kvm_unregister_perf_callbacks|kvm_exit)$";
position p;
@@
h(...)
{
... when any
f@p(...)
... when any
}

@script:python@
h << may_help.h;
f << may_help.f;
p << may_help.p;
@@
called.setdefault(p[0].file, set()).add(f)
for names in may_undo.values():
    if f in names:
        names.add(h)

// The steps of the function that module_init() names.

@load@
declarer name module_init;
identifier fn;
position p;
@@
module_init(fn@p);

@supports@
identifier f =~ "^kvm_riscv_aia_";
position p;
@@
f@p(...)

@script:python@
p << supports.p;
@@
aia.add(p[0].file)

@step@
identifier load.fn;
identifier f =~ "^(kvm_riscv_(aia|nacl)_init|kvm_register_perf_callbacks|kvm_init)$";
position p;
@@
fn(...)
{
<+...
f@p(...)
...+>
}

@script:python@
p << step.p;
f << step.f;
@@
steps[key(p)] = f

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
known.add(key(p))
returns[key(r)] = E

@leak exists@
identifier load.fn, step.f;
position step.p, r;
identifier rc;
identifier u : script:python(f) { undo(u, f) };
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
leaks.setdefault(key(r), set()).add(f)

@undone exists@
identifier load.fn, step.f;
position step.p, r;
identifier rc;
identifier u : script:python(f) { may(u, f) };
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
undone.add((key(r), f))

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
failing.add(key(r))

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
modes.add(key(r))

// Every return after a step is judged, but that of success.

@use@
expression E;
position r;
@@
return@r E;

@script:python@
r << use.r;
@@
if returns.get(key(r), "0") != "0":
    say(r, *judge(r))

// Every step is looked at, in the function where it belongs or elsewhere.

@all_steps@
identifier f =~ "^(kvm_riscv_(aia|nacl)_init|kvm_register_perf_callbacks|kvm_init)$";
position p;
@@
f@p(...)

@script:python@
p << all_steps.p;
f << all_steps.f;
@@
taken.add((p[0].file, f))
if key(p) in known or p[0].file not in aia:
    say(p, "seen", "a step of module init")
elif key(p) in steps:
    say(p, "unknown", "it is not known how a failure of %s() is met" % f)
else:
    say(p, "unknown", "%s() outside of the module's init function" % f)

// To undo what was never done is a mistake of another kind.

@undoing@
identifier f =~ "^kvm_riscv_(aia|nacl)_exit$";
position p;
@@
f@p(...)

@script:python@
p << undoing.p;
f << undoing.f;
@@
if (p[0].file, f.replace("_exit", "_init")) not in taken:
    say(p, "unknown", f + "(), but its setup is not in this file")

@script:python@
p << load.p;
@@
if p[0].file not in aia:
    say(p, "not-applicable", "no AIA support, so nothing to undo")
