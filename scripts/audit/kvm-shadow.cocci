// SPDX-License-Identifier: GPL-2.0-only
/// A batch of ioeventfd changes belongs to one VM. Its state must not hang on a
/// list of all VMs, no ioeventfd may be freed before the grace period that ends
/// the batch, and each call must be answered as it is without a batch.
///
//# -D report names the faults alone. -D audit says of eventfd.c and kvm_main.c
//# FILE:LINE:COLUMNS: FINDING: STATUS: REASON, for kvm-shadow/early-free (D6),
//# kvm-shadow/shared-list (D1, D2, D4, D12) and kvm-shadow/batch-answers (D3, D5,
//# D7 to D11), by the numbers of Documentation/bugs/kvm-shadow.rst, where "seen"
//# is a use of a flag that tells nothing about a fault.
//# The functions are found by what they do, from kvm_ioeventfd() on: those that
//# begin and end a batch, assign, deassign, look for duplicates and free. What
//# no rule knows is "unknown". kvm_host.h in the same run tells how a bus and the
//# state of a batch are looked up.
///
// Confidence: High
// URL: https://gitee.com/openeuler/kernel/pulls/17661
// Options: --no-includes --include-headers
// Keywords: kvm_ioeventfd, KVM_IOEVENTFD_FLAG_BATCH_BEGIN, kvm_shadow_list
// Home: virt/kvm/eventfd.c: kvm_ioeventfd
// Built: CONFIG_KVM CONFIG_EVENTFD

virtual report
virtual audit

@initialize:python@
@@
import re

EARLY = "kvm-shadow/early-free"
LIST = "kvm-shadow/shared-list"
ANSWERS = "kvm-shadow/batch-answers"
FINDINGS = (EARLY, LIST, ANSWERS)
OF = {6: EARLY, 1: LIST, 2: LIST, 4: LIST, 12: LIST}  # defect: finding, where it is not ANSWERS

EVENTFD, MAIN, HOST = "virt/kvm/eventfd.c", "virt/kvm/kvm_main.c", "include/linux/kvm_host.h"
ENTRY = "kvm_ioeventfd"
REGISTER, UNREGISTER = "kvm_io_bus_register_dev", "kvm_io_bus_unregister_dev"
PLAIN = {"kvm_assign_ioeventfd", "kvm_deassign_ioeventfd"}
GRACE = {"synchronize_srcu", "synchronize_srcu_expedited"}
ALLOC = re.compile(r"^(k[vmzc]*alloc(_\w+)?|__vmalloc)$")
FINDERS = {"kvm_find_shadow", "is_kvm_in_shadow"}
# What a batch may call besides what is at hand.
HARMLESS = re.compile(
    r"^(mutex_(un)?lock|(__)?h?list_\w+|INIT_\w+|k[vmzc]*alloc(_\w+)?|kv?free(_\w+)?|memcpy|memmove|swap|min|max|"
    r"(rcu|srcu)_\w+|synchronize_s?rcu(_expedited)?|(un)?likely|struct_size|flex_array_size|array_size|size_add|"
    r"eventfd_ctx_\w+|IS_ERR|PTR_ERR|lockdep_\w+|WARN_ON(_ONCE)?|pr_\w+|trace_\w+|kvm_iodevice_init|"
    r"READ_ONCE|WRITE_ONCE|kvm_get_(real_)?bus|refcount_read|container_of|kvm_io_bus_\w+|"
    r"kvm_find_shadow|is_kvm_in_shadow|sizeof|BUG_ON|BUILD_BUG_ON|bsearch|cond_resched)$")

chatty = []     # not empty: say all
defs = {}       # (file, function): position
calls = {}      # (file, function): callee: [(position, arguments)]
anchors = {}    # file: position to speak of it
flags = []      # uses of the flags
named = []      # calls of functions with such names: (position, name)
leads = set()   # what kvm_ioeventfd() calls
branches = []   # of kvm_ioeventfd(): (position, condition, callee)
rejects = []    # its conditions for -EINVAL: (position, condition)
caps = []       # the capability
io = {}         # the type of an ioeventfd: position
base = set()    # functions that free the ioeventfd that they get
allocs = set()  # functions that make one
sites = {}      # where one is freed: (position, function)
guards = {}     # what its mark must be there
marked = {}     # function: {(member, constant): type}
mentions = {}   # function: constants in it
tested = {}     # of these, those that a mark is compared with
heads = set()   # local list heads: (function, name)
adds = []       # (position, type, member, head) onto a list of the whole file
other_adds = [] # (position, head) onto any list
dels = []       # (position, type, member)
walks = []      # (position, head, by RCU)
bare = set()    # places that a path comes to without a lock of all VMs
unswept = []    # freed with no grace period of RCU
bare_calls = set() # calls of functions with such places
pending = {}    # function: {head: position} of lists that it adds to
walked = {}     # function: {head: position}
published = set() # functions that give readers a new bus
params = {}     # kvm_get_bus(): how many
no_dup = set()  # places where one is added, come to without a look for duplicates
no_room = set() # and without a look for room
conditions = [] # (position, text)
early = set()   # places of frees, and of calls, that come before the grace period
at_once = {}    # frees in deassign with no grace period before
perhaps = set() # of these, on a condition that has to do with what is new
kept = set()    # lists on which what was removed waits
sweeps = {}     # frees of all that is on a list: the list
undone = set()  # frees that follow a removal with no grace period between
gated = {}      # the variable that says whether there is a grace period: position
gate_set = set()
dup = set()     # functions that look for duplicates
dups = {}       # where they do so on a further condition
full = set()    # functions that look for room
owned = {}      # function: members of struct kvm that it sets
set_by = {}     # function: [(position, variable, member)]
finders = {}    # function: {variable: callee}
skips = {}      # deassign: conditions for the next one: [(position, text)]
unlocked = []   # where the state changes without slots_lock
shown = []      # (defect, position, reason) that need no more thought
defects = {}    # defect: [(position, reason)]
odd = {finding: [] for finding in FINDINGS}
said = set()

def key(p):
    return (p[0].file, p[0].line, p[0].column)

def where(p):
    for name in (EVENTFD, MAIN, HOST):
        if p[0].file.endswith(name):
            return name
    return p[0].file

def fn_of(p):
    return p[0].current_element

def last(text):
    """The last name in an expression."""
    return re.findall(r"\w+", text)[-1]

def say(p, finding, status, reason):
    if (chatty or status == "affected") and (key(p), finding, reason) not in said:
        said.add((key(p), finding, reason))
        coccilib.report.print_report(p[0], "%s: %s: %s" % (finding, status, reason))

def find(name):
    for file in (EVENTFD, MAIN, HOST):
        if (file, name) in defs:
            return (file, name)
    return None

def called(name):
    return calls.get(find(name), {})

def closure(names):
    """The functions at hand that are reached from `names`, these included."""
    found, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name not in found and find(name):
            found.add(name)
            todo += called(name)
    return found

class Roles:
    begin = end = None

    def settle(self):
        """Find out who does what; all is empty where a batch is not known."""
        for p, condition, callee in branches:
            has_begin, has_end = "BATCH_BEGIN" in condition, "BATCH_END" in condition
            if has_begin and not has_end:
                self.begin = callee
            if has_end and not has_begin:
                self.end = callee
        here = {name for file, name in defs if file == EVENTFD}
        self.ending = closure([self.end] if self.end else []) - {REGISTER, UNREGISTER}
        self.assign = allocs & here
        self.deassign = {fn for fn in here if UNREGISTER in called(fn)} - self.ending
        self.single = closure({callee for p, c, callee in branches if callee not in (self.begin, self.end)} | PLAIN)
        self.beginning = closure([self.begin] if self.begin else [])
        self.releasers = {fn for fn in here if closure([fn]) & base}
        self.graces = GRACE | {fn for fn in self.ending & here if GRACE & set(called(fn)) and fn != self.end}
        self.bus = (closure([REGISTER, UNREGISTER]) & {name for file, name in defs if file == MAIN})
        self.all = self.ending | self.beginning | closure(self.assign | self.deassign) | self.bus

        # The mark of what is new, and of what is to go.
        self.member = self.added = self.removed = self.record = None
        new = {pair: t for fn in self.assign for pair, t in marked.get(fn, {}).items()}
        gone = {pair: t for fn in self.deassign for pair, t in marked.get(fn, {}).items()}
        for m, constant in sorted(new):
            others = sorted(k for n, k in gone if n == m and k != constant)
            if others and not self.member:
                self.member, self.added, self.removed, self.record = m, constant, others[0], new[m, constant]
        self.stated = bool(self.record and self.record in io)

roles = Roles()

def is_end(name):
    return name == roles.end

def is_ending(name):
    return name in roles.ending

def is_assign(name):
    return name in roles.assign

def is_deassign(name):
    return name in roles.deassign

def is_setter(name):
    return name in (roles.begin, roles.end)

def is_base(name):
    return name in base

def is_releaser(name):
    return name in roles.releasers

def is_grace(name):
    return name in roles.graces

def is_dup(name):
    return name in dup

def is_room(name):
    return name == REGISTER or name in full

def is_maker(name):
    return bool(ALLOC.match(name)) or (name in roles.ending - roles.bus and makes(name))

def makes(name):
    return any(ALLOC.match(callee) for fn in closure([name]) - roles.bus for callee in called(fn))

def is_bus(name):
    return name in roles.bus

def is_bare(name):
    return any(fn == name for file, line, column, fn in bare)

def is_added(name):
    return name == roles.added

def bad(number, p, reason):
    defects.setdefault(number, []).append((p, reason))

def unsure(finding, p, reason):
    odd[finding].append((p, reason))

@script:python depends on audit@
@@
chatty.append(True)

// Are there batches?

@entry@
position p;
@@
kvm_ioeventfd@p(...) { ... when any
}

@script:python@
p << entry.p;
@@
anchors.setdefault(where(p), p)

@main@
position p;
@@
kvm_io_bus_register_dev@p(...) { ... when any
}

@script:python@
p << main.p;
@@
anchors.setdefault(where(p), p)

@flag@
identifier c =~ "^KVM_IOEVENTFD_.*BATCH";
position p;
@@
c@p

@script:python@
p << flag.p;
@@
flags.append(p)

@named_so@
identifier f =~ "ioeventfds?_(batch|shadow)|kvm_(find|create|destroy|get)_shadow|is_kvm_in_shadow";
position p;
@@
f@p(...)

@script:python@
p << named_so.p;
f << named_so.f;
@@
named.append((p, f))

@leads@
identifier f;
position p;
@@
kvm_ioeventfd(...)
{
<+...
f@p(...)
...+>
}

@script:python@
p << leads.p;
f << leads.f;
@@
if where(p) == EVENTFD:
    leads.add(f)

// Who is there, and who calls whom.

@def depends on flag@
identifier fn;
position p;
@@
fn@p(...) { ... when any
}

@script:python@
p << def.p;
fn << def.fn;
@@
defs.setdefault((where(p), fn), p)

@call depends on flag@
identifier f;
expression list es;
position p;
@@
f@p(es)

@script:python@
p << call.p;
f << call.f;
es << call.es;
@@
calls.setdefault((where(p), fn_of(p)), {}).setdefault(f, []).append((p, str(es)))

@cap depends on flag@
identifier c =~ "^KVM_CAP_[A-Z_]*BATCH";
position p;
@@
c@p

@script:python@
p << cap.p;
@@
caps.append(p)

@branch depends on flag@
expression C;
identifier f;
position p;
@@
if (C) return f@p(...);

@script:python@
p << branch.p;
C << branch.C;
f << branch.f;
@@
if fn_of(p) == ENTRY and where(p) == EVENTFD:
    branches.append((p, C, f))

@reject depends on flag@
expression C;
position p;
@@
if (C) return@p -EINVAL;

@script:python@
p << reject.p;
C << reject.C;
@@
if fn_of(p) == ENTRY and where(p) == EVENTFD:
    rejects.append((p, C))

@io depends on flag@
type T;
T *x;
identifier d, ops;
position p;
@@
kvm_iodevice_init@p(&x->d, &ops)

@script:python@
p << io.p;
T << io.T;
@@
if where(p) == EVENTFD:
    io[T] = p

@base depends on flag@
type io.T;
identifier fn, x;
position p;
@@
fn@p(T *x)
{
<+...
kfree(x)
...+>
}

@script:python@
fn << base.fn;
@@
base.add(fn)

@make depends on flag@
type io.T;
T *x;
identifier f =~ "^k[vmzc]*alloc(_[a-z_]+)?$";
position p;
@@
x = f@p(...)

@script:python@
p << make.p;
@@
if where(p) == EVENTFD:
    allocs.add(fn_of(p))

@mark depends on flag@
type T;
T *e;
identifier m, K =~ "^[A-Z][A-Z_0-9]+$";
position p;
@@
e->m@p = K

@script:python@
p << mark.p;
T << mark.T;
m << mark.m;
K << mark.K;
@@
if where(p) == EVENTFD:
    marked.setdefault(fn_of(p), {})[m, K] = T

@script:python depends on def@
@@
if not roles.end:
    roles.settle()

// What is freed, and when.

@site depends on flag@
type io.T;
T *x;
identifier r : script:python() { is_base(r) or r == "kfree" };
position p;
@@
r@p(x)

@script:python@
p << site.p;
r << site.r;
@@
if where(p) == EVENTFD and fn_of(p) not in base:
    sites[key(p)] = (p, fn_of(p), r)

@guard depends on flag@
expression e;
identifier m, K;
identifier site.r;
statement S;
position site.p;
@@
(
if (\(e->m == K\|K == e->m\)) r@p(...); else S
|
if (\(e->m == K\|K == e->m\)) { <+... r@p(...) ...+> } else S
|
if (\(e->m != K\|K != e->m\)) S else r@p(...);
|
if (\(e->m != K\|K != e->m\)) S else { <+... r@p(...) ...+> }
)

@script:python@
p << site.p;
m << guard.m;
K << guard.K;
@@
if m == roles.member:
    guards.setdefault(key(p), set()).add(K)

@gate depends on flag@
identifier g;
identifier s =~ "^synchronize_srcu(_expedited)?$";
identifier fn : script:python() { is_end(fn) };
position p;
@@
fn(...)
{
<+...
if (g) s@p(...);
...+>
}

@script:python@
p << gate.p;
g << gate.g;
@@
gated[g] = p

@gate_set depends on flag@
identifier gate.g;
identifier fn : script:python() { is_end(fn) };
expression E;
position p;
@@
fn(...)
{
<+...
g@p = E
...+>
}

@script:python@
p << gate_set.p;
g << gate.g;
E << gate_set.E;
@@
if E == "true":
    gate_set.add(g)

@early depends on flag && !gate exists@
identifier fn : script:python() { is_end(fn) };
identifier s : script:python() { is_grace(s) };
identifier r : script:python() { is_releaser(r) or r == "kfree" };
position p;
@@
fn(...)
{
... when any
    when != s(...)
r@p(...)
... when any
}

@script:python@
p << early.p;
@@
early.add(key(p))

@early_gate depends on flag exists@
identifier gate.g;
identifier fn : script:python() { is_end(fn) };
identifier s : script:python() { is_grace(s) };
identifier r : script:python() { is_releaser(r) or r == "kfree" };
position p;
@@
fn(...)
{
... when any
    when != s(...)
    when != false g
r@p(...)
... when any
}

@script:python@
p << early_gate.p;
@@
early.add(key(p))

@undone depends on flag exists@
type io.T;
T *x;
expression E;
identifier d;
identifier fn : script:python() { is_ending(fn) };
identifier s : script:python() { is_grace(s) };
identifier r : script:python() { is_base(r) or r == "kfree" };
position p;
@@
fn(...)
{
... when any
kvm_io_bus_unregister_dev(..., &x->d)
... when any
    when != s(...)
    when != x = E
r@p(x)
... when any
}

@script:python@
p << undone.p;
@@
undone.add(key(p))

// What is removed may wait on a list, which is then emptied.

@kept depends on flag exists@
type io.T;
T *x;
expression E, h;
identifier d, n;
identifier fn : script:python() { is_ending(fn) };
identifier op =~ "^list_(add|move)(_tail)?$";
position p;
@@
fn(...)
{
... when any
kvm_io_bus_unregister_dev(..., &x->d)
... when any
    when != x = E
op@p(&x->n, h)
... when any
}

@script:python@
p << kept.p;
h << kept.h;
@@
kept.add(last(h))

@sweep depends on kept@
iterator name list_for_each_entry_safe;
identifier x, y, n;
expression h;
identifier r : script:python() { is_base(r) };
position p;
@@
(
list_for_each_entry_safe(x, y, h, n) r@p(x);
|
list_for_each_entry_safe(x, y, h, n) { <+... r@p(x) ...+> }
)

@script:python@
p << sweep.p;
h << sweep.h;
@@
sweeps[key(p)] = last(h)

// In deassign, one that the batch has added may go at once: no bus has it.

@at_once depends on flag exists@
identifier fn : script:python() { is_deassign(fn) };
identifier s : script:python() { is_grace(s) };
identifier r : script:python() { is_base(r) };
position p;
@@
fn(...)
{
... when any
    when != s(...)
    when != kvm_io_bus_unregister_dev(...)
r@p(...)
... when any
}

@script:python@
p << at_once.p;
@@
at_once[key(p)] = p

@perhaps depends on at_once@
identifier K : script:python() { is_added(K) };
identifier r : script:python() { is_base(r) };
position at_once.p;
@@
if (<+... K ...+>) { <+... r@p(...) ...+> }

@script:python@
p << at_once.p;
K << perhaps.K;
@@
perhaps.add(key(p))

@destructor depends on flag exists@
position p;
@@
kvm_io_bus_unregister_dev(...)
{
... when any
    when != synchronize_srcu(...)
    when != synchronize_srcu_expedited(...)
    when != call_srcu(...)
\(kvm_iodevice_destructor@p(...)\|kvm_io_bus_destroy@p(...)\)
... when any
}

@script:python@
p << destructor.p;
@@
if where(p) == MAIN:
    shown.append((6, p, "kvm_io_bus_unregister_dev() destroys a device before a grace period"))

// Lists of the whole file, and the locks that all VMs share.

@local_head depends on flag@
declarer name LIST_HEAD;
identifier h;
position p;
@@
LIST_HEAD@p(h);

@script:python@
p << local_head.p;
h << local_head.h;
@@
heads.add((fn_of(p), h))

@local_list depends on flag@
identifier h;
position p;
@@
struct list_head h@p;

@script:python@
p << local_list.p;
h << local_list.h;
@@
heads.add((fn_of(p), h))

@add depends on flag@
type T;
T *x;
identifier m, h != vm_list;
identifier op =~ "^h?list_(add|move)(_tail|_head|_rcu|_tail_rcu|_head_rcu)?$";
position p;
@@
op@p(&x->m, &h)

@script:python@
p << add.p;
T << add.T;
m << add.m;
h << add.h;
@@
if (fn_of(p), h) not in heads:
    adds.append((p, T, m, h))

@other_add depends on flag@
expression x, y;
identifier op =~ "^h?list_(add|move)";
position p;
@@
op@p(x, y)

@script:python@
p << other_add.p;
y << other_add.y;
@@
other_adds.append((p, y))

@del depends on flag@
type add.T;
T *x;
identifier add.m;
identifier op =~ "^h?list_del(_init|_rcu|_init_rcu)?$";
position p;
@@
op@p(&x->m)

@script:python@
p << del.p;
T << add.T;
m << add.m;
@@
if key(p) not in [key(at) for at, t, n in dels] and any((T, m) == (t, n) for at, t, n, h in adds):
    dels.append((p, T, m))

@walk depends on flag@
iterator name list_for_each_entry, list_for_each_entry_safe, list_for_each_entry_reverse;
identifier h != vm_list;
statement S;
position p;
@@
(
list_for_each_entry(..., &h@p, ...) S
|
list_for_each_entry_safe(..., &h@p, ...) S
|
list_for_each_entry_reverse(..., &h@p, ...) S
)

@script:python@
p << walk.p;
h << walk.h;
@@
if (fn_of(p), h) not in heads:
    walks.append((p, h, False))

@walk_rcu depends on flag@
iterator name list_for_each_entry_rcu, list_for_each_entry_lockless;
identifier h != vm_list;
statement S;
position p;
@@
(
list_for_each_entry_rcu(..., &h@p, ...) S
|
list_for_each_entry_lockless(..., &h@p, ...) S
)

@script:python@
p << walk_rcu.p;
h << walk_rcu.h;
@@
if (fn_of(p), h) not in heads:
    walks.append((p, h, True))

@bare_op depends on flag exists@
position p;
identifier fn, g;
identifier op =~ "^h?list_(add|del|move)";
identifier lock =~ "^(mutex_lock|(raw_)?spin_lock|down_write|write_lock|lockdep_assert_held)";
expression x;
identifier add.m;
@@
fn(...)
{
... when any
    when != lock(&g, ...)
op@p(&x->m, ...)
... when any
}

@script:python@
p << bare_op.p;
fn << bare_op.fn;
@@
bare.add(key(p) + (fn,))

@let_go depends on flag exists@
position p;
identifier g;
identifier op =~ "^h?list_(add|del|move)";
identifier unlock =~ "^(mutex_unlock|(raw_)?spin_unlock(_[a-z_]+)?|up_write|write_unlock)$";
identifier lock =~ "^(mutex_lock|(raw_)?spin_lock|down_write|write_lock|lockdep_assert_held)";
expression x;
identifier add.m;
@@
unlock(&g, ...)
... when any
    when != lock(&g, ...)
op@p(&x->m, ...)

@script:python@
p << let_go.p;
@@
bare.add(key(p) + (fn_of(p),))

@bare_walk exists@
identifier fn, g;
identifier lock =~ "^(mutex_lock|(raw_)?spin_lock|down_(read|write)|(read|write)_lock|lockdep_assert_held)";
identifier add.h;
position p;
@@
fn(...)
{
... when any
    when != \(lock(&g, ...)\|rcu_read_lock()\)
h@p
... when any
}

@script:python@
p << bare_walk.p;
fn << bare_walk.fn;
@@
bare.add(key(p) + (fn,))

@bare_call depends on bare_op || bare_walk exists@
identifier fn, g;
identifier lock =~ "^(mutex_lock|(raw_)?spin_lock|down_(read|write)|(read|write)_lock|lockdep_assert_held)";
identifier f : script:python() { is_bare(f) };
position p;
@@
fn(...)
{
... when any
    when != \(lock(&g, ...)\|rcu_read_lock()\)
f@p(...)
... when any
}

@script:python@
p << bare_call.p;
f << bare_call.f;
@@
bare_calls.add(f)

// Under RCU, what left the list is freed after a grace period.

@unswept depends on flag exists@
type add.T;
T *x;
identifier fn, n;
identifier op =~ "^h?list_del";
position p;
@@
fn(...)
{
... when any
op(&x->n)
... when any
    when != synchronize_rcu(...)
    when != synchronize_rcu_expedited(...)
kfree@p(x)
... when any
}

@script:python@
p << unswept.p;
@@
unswept.append(p)

@per_vm depends on flag@
identifier fn : script:python() { is_setter(fn) };
identifier k, m;
expression E;
position p;
@@
fn(..., struct kvm *k, ...)
{
<+...
k->m@p = E
...+>
}

@script:python@
p << per_vm.p;
fn << per_vm.fn;
m << per_vm.m;
@@
owned.setdefault(fn, {})[m] = p

@no_lock depends on flag exists@
identifier fn : script:python() { is_setter(fn) };
identifier k;
identifier per_vm.m;
expression E;
position p;
@@
fn(..., struct kvm *k, ...)
{
... when any
    when != mutex_lock(&k->slots_lock)
    when != mutex_lock_nested(&k->slots_lock, ...)
k->m@p = E
... when any
}

@script:python@
p << no_lock.p;
m << per_vm.m;
@@
unlocked.append((p, m))

// What is on the lists, and on the buses.

@pending depends on flag@
identifier op =~ "^list_add(_tail)?$";
expression y, e;
identifier n, h;
position p;
@@
op@p(&y->n, &e->h)

@script:python@
p << pending.p;
h << pending.h;
@@
if where(p) == EVENTFD:
    pending.setdefault(fn_of(p), {}).setdefault(h, p)

@walked depends on flag@
iterator name list_for_each_entry, list_for_each_entry_safe;
expression e;
identifier h;
statement S;
position p;
@@
(
list_for_each_entry(..., &e->h@p, ...) S
|
list_for_each_entry_safe(..., &e->h@p, ...) S
)

@script:python@
p << walked.p;
h << walked.h;
@@
if where(p) == EVENTFD:
    walked.setdefault(fn_of(p), {}).setdefault(h, p)

@mention depends on flag@
identifier mark.K;
position p;
@@
K@p

@script:python@
p << mention.p;
K << mark.K;
@@
mentions.setdefault(fn_of(p), set()).add(K)

@tested depends on flag@
expression e;
identifier mark.m, mark.K;
position p;
@@
\(e->m == K@p\|e->m != K@p\)

@script:python@
p << tested.p;
K << mark.K;
@@
tested.setdefault(fn_of(p), set()).add(K)

@dup depends on flag@
identifier c;
expression x;
position p;
@@
(
if (<+... c@p(...) ...+>) { <+... x = -EEXIST ...+> }
|
if (<+... c@p(...) ...+>) return -EEXIST;
)

@script:python@
p << dup.p;
c << dup.c;
@@
if where(p) == EVENTFD and is_assign(fn_of(p)):
    dup.add(c)
    dups[key(p)] = p

@dup_alone depends on flag@
identifier c;
expression x;
position dup.p;
@@
(
if (c@p(...)) { <+... x = -EEXIST ...+> }
|
if (c@p(...)) return -EEXIST;
)

@script:python@
p << dup.p;
c << dup_alone.c;
@@
dups.pop(key(p), None)

@full depends on flag@
position p;
@@
return@p -ENOSPC;

@script:python@
p << full.p;
@@
full.add(fn_of(p))

@no_dup depends on flag exists@
identifier fn : script:python() { is_assign(fn) };
identifier c : script:python() { is_dup(c) };
position pending.p;
identifier pending.op;
@@
fn(...)
{
... when any
    when != c(...)
op@p(...)
... when any
}

@script:python@
p << pending.p;
fn << no_dup.fn;
@@
no_dup.add(key(p))

@no_room depends on flag exists@
identifier fn : script:python() { is_assign(fn) };
identifier c : script:python() { is_room(c) };
position pending.p;
identifier pending.op;
@@
fn(...)
{
... when any
    when != c(...)
op@p(...)
... when any
}

@script:python@
p << pending.p;
fn << no_room.fn;
@@
no_room.add(key(p))

@skip depends on flag@
expression C;
position p;
@@
if (C) continue@p;

@script:python@
p << skip.p;
C << skip.C;
@@
if where(p) == EVENTFD:
    skips.setdefault(fn_of(p), []).append((p, C))

@publish depends on flag@
expression e, i, x;
identifier f =~ "^(rcu_assign_pointer|rcu_replace_pointer)$";
position p;
@@
\(f@p(e->buses[i], x, ...)\|e->buses@p[i] = x\)

@script:python@
p << publish.p;
@@
published.add(fn_of(p))

@null_store depends on flag exists@
struct kvm_io_bus *x;
expression e, i, E;
identifier m != buses;
identifier fn : script:python() { is_bus(fn) };
identifier a : script:python() { is_maker(a) };
position p;
@@
fn(...)
{
... when any
x = a(...)
... when any
    when != true x
    when != false !x
    when != x = E
e->m@p[i] = x
... when any
}

@script:python@
p << null_store.p;
fn << null_store.fn;
@@
shown.append((7, p, "%s() puts no bus in the place of one when memory runs out" % fn))

@null_publish depends on flag exists@
struct kvm_io_bus *x;
expression y, e, i, E;
identifier fn : script:python() { is_ending(fn) };
identifier a : script:python() { is_maker(a) };
position p;
@@
fn(...)
{
... when any
x = a@p(...)
... when any
    when != true x
    when != false !x
    when != x = E
\(rcu_assign_pointer(e->buses[i], y)\|e->buses[i] = y\)
... when any
}

@script:python@
p << null_publish.p;
fn << null_publish.fn;
@@
shown.append((7, p, "%s() publishes no bus in the place of one when memory runs out" % fn))

@deref depends on flag exists@
struct kvm_io_bus *b;
identifier fn : script:python() { is_ending(fn) };
identifier g : script:python() { not is_maker(g) };
identifier f;
expression E;
position p;
@@
fn(...)
{
... when any
b = g(...)
... when any
    when != true b
    when != false !b
    when != b = E
b->f@p
... when any
}

@script:python@
p << deref.p;
fn << deref.fn;
@@
if where(p) == EVENTFD:
    shown.append((8, p, "%s() looks into a bus that may be none" % fn))

@deref_first depends on flag exists@
identifier fn : script:python() { is_ending(fn) };
identifier g : script:python() { not is_maker(g) };
identifier b, f;
expression E;
position p;
@@
fn(...)
{
... when any
struct kvm_io_bus *b = g(...);
... when any
    when != true b
    when != false !b
    when != b = E
b->f@p
... when any
}

@script:python@
p << deref_first.p;
fn << deref_first.fn;
@@
if where(p) == EVENTFD:
    shown.append((8, p, "%s() looks into a bus that may be none" % fn))

@late depends on flag exists@
expression x, e, i;
identifier fn : script:python() { is_end(fn) };
identifier a : script:python() { is_maker(a) };
position p;
@@
fn(...)
{
... when any
\(rcu_assign_pointer(e->buses[i], x)\|e->buses[i] = x\)
... when any
a@p(...)
... when any
}

@script:python@
p << late.p;
fn << late.fn;
@@
shown.append((10, p, "%s() needs memory when the first bus has changed already" % fn))

@no_undo depends on flag exists@
struct kvm_io_bus *x;
identifier fn : script:python() { is_end(fn) };
identifier a : script:python() { is_maker(a) };
identifier r : script:python() { is_releaser(r) };
position p;
@@
fn(...)
{
... when any
x = a@p(...)
... when any
    when != true x
    when != false !x
    when != r(...)
}

@script:python@
p << no_undo.p;
fn << no_undo.fn;
@@
shown.append((10, p, "%s() leaves a batch that failed as it is" % fn))

// Is a bus another one while a batch is open?

@condition depends on flag@
expression C;
statement S;
position p;
@@
if@p (C) S

@script:python@
p << condition.p;
C << condition.C;
@@
if is_bus(fn_of(p)) or fn_of(p) == "kvm_get_bus":
    conditions.append((p, C))

@found depends on flag@
identifier x, f;
position p;
@@
x = f@p(...)

@script:python@
p << found.p;
x << found.x;
f << found.f;
@@
if fn_of(p) in roles.bus | roles.beginning:
    finders.setdefault(fn_of(p), {})[x] = f

@set_by depends on flag@
identifier x, m;
expression E;
position p;
@@
x->m@p = E

@script:python@
p << set_by.p;
x << set_by.x;
m << set_by.m;
@@
if fn_of(p) == roles.begin:
    set_by.setdefault(m, p)

@params depends on flag@
parameter list[n] ps;
position p;
@@
kvm_get_bus@p(ps) { ... when any
}

@script:python@
p << params.p;
n << params.n;
@@
params[int(n)] = p

@other_bus depends on flag@
expression e, i;
identifier m != buses;
position p;
@@
kvm_get_bus(...)
{
<+...
e->m@p[i]
...+>
}

// The verdict, once a file.

@script:python depends on entry@
@@
entry = anchors.get(EVENTFD)

def lookups():
    """The functions by which begin finds the state of a batch."""
    return {name for name in called(roles.begin) if name in FINDERS or find(name) and not HARMLESS.match(name)}

def related(fn):
    return fn in roles.all or fn in closure(lookups())

def shared():
    names = {h for p, h, rcu in walks if related(fn_of(p))} | {h for p, t, m, h in adds if related(fn_of(p))}
    return names

def version():
    ours = shared()
    if any(h in ours and fn_of(p) in roles.beginning for p, t, m, h in adds):
        return "first version"
    if ours:
        return "repaired version" if lookups() else "mended in part"
    if any(not find(name) for name in lookups()):
        return "first version" if any(ALLOC.match(name) for name in called(roles.begin)) else "repaired version"
    return "no shared list"

def is_bare(p):
    fn = fn_of(p)
    callers = any(fn in callees for callees in calls.values())
    return key(p) + (fn,) in bare and (not callers or fn in bare_calls)

def judge_list():
    names = shared()
    gone = closure(["kvm_destroy_vm"])
    for p, t, m, h in adds:
        if h in names and is_bare(p):
            bad(1, p, "%s() adds to %s, a list of all VMs, without a lock that all VMs share" % (fn_of(p), h))
    types = {(t, m): h for p, t, m, h in adds if h in names}
    for p, t, m in dels:
        if (t, m) in types and is_bare(p):
            for number in [1] * (fn_of(p) in roles.all) + [4] * (fn_of(p) in gone):
                bad(number, p, "%s() removes from %s without a lock that all VMs share" % (fn_of(p), types[t, m]))
    for p, h, rcu in walks:
        if h not in names:
            continue
        if is_bare(p):
            bad(2, p, "%s() walks %s without a lock that all VMs share" % (fn_of(p), h))
        elif rcu and unswept:
            bad(2, unswept[0], "%s() frees at once what a walk of %s may be at" % (fn_of(unswept[0]), h))
        else:
            bad(12, p, "%s() walks %s, a list of all VMs, for every access to a bus" % (fn_of(p), h))
    if find("kvm_destroy_vm"):
        if not roles.releasers & closure(called("kvm_destroy_vm")):
            bad(4, defs[find("kvm_destroy_vm")], "kvm_destroy_vm() leaves an open batch behind")
    else:
        unsure(LIST, entry, "kvm_destroy_vm() is not there")
    for name in sorted(lookups()):
        if not find(name):
            unsure(LIST, called(roles.begin)[name][0][0], "%s() is not there" % name)
    known = {key(add[0]) for add in adds}
    for p, head in other_adds:
        if fn_of(p) in roles.beginning and key(p) not in known and not re.match(r"& *\w+ *->", head):
            unsure(LIST, p, "%s() adds to a list that no rule knows" % fn_of(p))
    for p, m in unlocked:
        unsure(LIST, p, "%s() sets %s without slots_lock" % (fn_of(p), m))
    if not names and not owned.get(roles.begin):
        unsure(LIST, defs[find(roles.begin)], "%s() keeps its state in a way that no rule knows" % roles.begin)

def makers_with(constant):
    """The functions that make the bus for the end of a batch, with an eye to those that bear a mark."""
    return {fn for fn in roles.ending if constant in tested.get(fn, ()) and any(map(ALLOC.match, called(fn)))}

def judge_early():
    after = False
    for place, (p, fn, r) in sites.items():
        marks = guards.get(place, set())
        if fn not in roles.ending or marks == {roles.added}:
            continue
        if fn == roles.end:
            ways = [(p, marks, place)]
        else:
            tops = [name for name in called(roles.end) if fn in closure([name])]
            ways = []
            for name in tops:
                for at, args in called(roles.end)[name]:
                    words = set(re.findall(r"[A-Za-z_]\w*", args))
                    given = {roles.added, roles.removed} & words
                    if marks and not marks & {roles.added, roles.removed} and given:
                        ways.append((at, given, key(at)))
                    else:
                        ways.append((p, marks, key(at)))
        for at, marks, call in ways:
            if marks == {roles.added}:
                continue
            if call not in early:
                after = True
            elif marks == {roles.removed} or place in undone or sweeps.get(place) in kept:
                bad(6, at, "%s() frees a removed ioeventfd before the grace period" % fn_of(at))
            else:
                unsure(EARLY, at, "%s() frees an ioeventfd before the grace period, perhaps a removed one" % fn_of(at))
    for place, p in at_once.items():
        if guards.get(place) == {roles.added}:
            continue
        if place in perhaps:
            unsure(EARLY, p, "%s() frees an ioeventfd, perhaps one that is on its bus" % fn_of(p))
        else:
            bad(6, p, "%s() frees an ioeventfd that is on its bus" % fn_of(p))
    takes = UNREGISTER in {name for fn in roles.ending for name in called(fn)} or makers_with(roles.removed)
    if not takes:
        unsure(EARLY, defs[find(roles.end)], "%s() takes nothing off a bus in a way that a rule knows" % roles.end)
    for g, p in gated.items():
        if g not in gate_set:
            unsure(EARLY, p, "%s() has a grace period only if %s" % (fn_of(p), g))
    if not after and 6 not in defects:
        unsure(EARLY, defs[find(roles.end)], "%s() frees nothing after a grace period" % roles.end)

def judge_answers():
    # D3
    state = lookups() | set(owned.get(roles.begin, ())) | set(set_by)
    for p, text in conditions:
        names = {x for x, f in finders.get(fn_of(p), {}).items() if f in lookups()}
        words = set(re.findall(r"[A-Za-z_]\w*", text))
        if not words & (names | state):
            continue
        if fn_of(p) == "kvm_get_bus":
            if 2 in params:
                bad(3, p, "kvm_get_bus() gives another bus to every device while a batch is open")
            continue
        if fn_of(p) in full and fn_of(p) != REGISTER:
            bad(10, p, "%s() does not look for room while a batch is open" % fn_of(p))
            continue
        parts = [part.strip(" ()") for part in text.split("&&")]
        if not any(re.match(r"\w*is_ioeventfd\b", part) or re.search(r"ops == &?\w*ioeventfd", part) for part in parts):
            bad(3, p, "%s() treats every device otherwise while a batch is open" % fn_of(p))
    redirect = set(called("kvm_get_bus")) & lookups()
    if redirect and 2 in params:
        bad(3, params[2], "kvm_get_bus() gives the bus of the batch to every device")
    for fn in sorted(roles.bus):
        for p, args in called(fn).get("kvm_get_bus", ()):
            if args.replace(" ", "").endswith(",true"):
                bad(3, p, "%s() takes the bus of the batch for every device" % fn)
    if not find("kvm_get_bus") and lookups() and 3 not in defects:
        unsure(ANSWERS, entry, "kvm_get_bus() is not there")
    # D5
    lists = {h: p for fn in roles.assign for h, p in pending.get(fn, {}).items()}
    if not dup:
        unsure(ANSWERS, entry, "no look for duplicates that a rule knows")
    for p in dups.values():
        bad(5, p, "%s() looks for duplicates on a further condition" % fn_of(p))
    for h, p in lists.items():
        if key(p) in no_dup:
            bad(5, p, "%s() adds an ioeventfd without a look for duplicates" % fn_of(p))
        elif dup and not any(h in walked.get(fn, ()) for fn in closure(dup)):
            bad(5, p, "%s() adds to %s, where %s() does not look" % (fn_of(p), h, sorted(dup)[0]))
    if roles.stated and dup and not any(roles.removed in mentions.get(fn, ()) for fn in closure(dup)):
        fn = sorted(dup)[0]
        bad(5, defs.get(find(fn), entry), "%s() finds duplicates of what the batch has removed" % fn)
    # D9
    seen = {h for fn in closure(roles.deassign) for h in walked.get(fn, ())}
    for h, p in lists.items():
        if h not in seen:
            for fn in sorted(roles.deassign):
                for at in walked.get(fn, {}).values():
                    bad(9, at, "%s() does not look at %s, so not for what the batch has added" % (fn, h))
    if roles.stated:
        for fn in roles.deassign:
            for p, text in skips.get(fn, ()):
                tests = re.findall(r"(?:->|\.)\s*%s\b\s*(==|!=)?\s*(\w*)" % roles.member, text)
                if any((op, name) != ("==", roles.removed) for op, name in tests):
                    bad(9, p, "%s() passes over what the batch has added" % fn)
                elif not tests:
                    continue
            if roles.added not in mentions.get(fn, ()):
                unsure(ANSWERS, defs[find(fn)], "%s() does not tell what the batch has added" % fn)
    # D10
    for fn in sorted(roles.ending):
        for p, args in called(fn).get(REGISTER, ()):
            bad(10, p, "%s() may fail for one ioeventfd after the call for it was answered" % fn)
    for h, p in lists.items():
        others = [name for name in called(fn_of(p)) if name.startswith("kvm_io_bus_") and not find(name)]
        if key(p) in no_room and set(others) - {REGISTER, UNREGISTER}:
            unsure(ANSWERS, p, "%s() is not there" % others[0])
        elif key(p) in no_room:
            bad(10, p, "%s() adds an ioeventfd without a look for room" % fn_of(p))
    if not makers_with(roles.added) and REGISTER not in {name for fn in roles.ending for name in called(fn)}:
        unsure(ANSWERS, defs[find(roles.end)], "%s() puts nothing on a bus in a way that a rule knows" % roles.end)
    # D11
    exact = {}
    for p, text, callee in branches:
        for name in ("BEGIN", "END"):
            if callee == getattr(roles, name.lower()):
                exact[name] = re.search(r"== *KVM_IOEVENTFD_FLAG_BATCH_|KVM_IOEVENTFD_FLAG_BATCH_\w+ *==", text)
                if not exact[name] and not guarded(p, text):
                    bad(11, p, "%s() looks for one flag of a batch and ignores the others" % ENTRY)
    if all(exact.values()) and not any("BATCH_BEGIN" in text and "BATCH_END" in text for p, text in rejects):
        bad(11, entry, "%s() ignores a flag of a batch among other flags" % ENTRY)
    if MAIN in {file for file, name in defs} and not any(where(p) == MAIN for p in caps):
        bad(11, entry, "no KVM_CAP tells that there are batches")

def guarded(p, text):
    return any(key(at)[1] < key(p)[1] and "BATCH_" in condition and ("!=" in condition or "~" in condition)
               for at, condition in rejects)

def judge():
    for p in flags:
        for finding in FINDINGS:
            say(p, finding, "seen", "a flag of a batch")
    begin, end = roles.begin, roles.end
    if not any(where(p) == EVENTFD for p in flags):
        strange = sorted(leads - PLAIN)
        for file in (EVENTFD, MAIN):
            for finding in FINDINGS if file in anchors else ():
                if strange:
                    say(entry, finding, "unknown", "%s() calls %s(), which no rule knows" % (ENTRY, strange[0]))
                elif flags or named:
                    p = flags[0] if flags else named[0][0]
                    say(p, finding, "unknown", "a part of batches, but %s() has no flags for them" % ENTRY)
                else:
                    say(anchors[file], finding, "not-applicable", "no batches of ioeventfd changes")
        return
    lacking = []
    for what, name in (("begins", begin), ("ends", end)):
        if not name:
            lacking.append("it is not known what %s a batch" % what)
        elif not find(name):
            lacking.append("%s() is not there" % name)
    if not lacking:
        for what, there in (("makes", roles.assign), ("removes", roles.deassign), ("frees", base)):
            if not there:
                lacking.append("it is not known what %s an ioeventfd" % what)
        if not published & roles.ending:
            lacking.append("%s() publishes no bus in a way that a rule knows" % end)
        if not roles.member:
            lacking.append("it is not known how the batch tells what is new from what is to go")
        for fn in sorted(roles.beginning | roles.ending | roles.assign | roles.deassign):
            if find(fn)[0] == EVENTFD:
                for name in sorted(called(fn)):
                    if name == "kvm_iodevice_destructor" or not find(name) and not HARMLESS.match(name):
                        lacking.append("%s() calls %s(), which no rule knows" % (fn, name))
    if not (begin and end and find(begin) and find(end)):
        for finding in FINDINGS:
            say(entry, finding, "unknown", lacking[0])
        return
    kind = version()
    for number, p, reason in shown:
        bad(number, p, reason)
    judge_list()
    if roles.member and base:
        judge_early()
        judge_answers()
    for reason in lacking:
        for finding in FINDINGS:
            unsure(finding, entry, reason)
    worse = set()
    for number in sorted(defects):
        p, reason = defects[number][0]
        others = sorted({fn_of(at) for at, text in defects[number]} - {fn_of(p)})
        more = "; so in " + ", ".join(fn + "()" for fn in others) if others else ""
        finding = OF.get(number, ANSWERS)
        worse.add(finding)
        say(p, finding, "affected", "D%d: %s%s (%s)" % (number, reason, more, kind))
    for finding in FINDINGS:
        for p, reason in odd[finding]:
            say(p, finding, "unknown", "%s (%s)" % (reason, kind))
        if finding not in worse and not odd[finding]:
            for file in (EVENTFD, MAIN):
                if file in anchors:
                    say(anchors[file], finding, "fixed", GOOD[finding])

GOOD = {
    EARLY: "what a batch removes is freed after its grace period",
    LIST: "the state of a batch is in struct kvm, under slots_lock",
    ANSWERS: "a batch answers each call as it is answered without one",
}

if entry:
    judge()
