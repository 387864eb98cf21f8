// SPDX-License-Identifier: GPL-2.0-only
/// A batch of ioeventfd changes belongs to one VM. Its state must not hang on a
/// list of all VMs, no ioeventfd may be freed before the grace period that ends
/// the batch, and each call must be answered as it is without a batch.
///
//# -D audit judges as kmend_rule.py says, with the numbers of
//# Documentation/bugs/kvm-shadow.rst.
//# Two versions of the feature were shipped. The rule knows these, what each
//# patch of the series makes of them, and kernels without the feature. A finding
//# is fixed where the code is that of the series, statement by statement; what
//# is neither that nor one of the faults is "unknown".
///
// Confidence: High
// URL: https://gitee.com/openeuler/kernel/pulls/17661
// Options: --no-includes --include-headers
// Keywords: kvm_ioeventfd, KVM_IOEVENTFD_FLAG_BATCH_BEGIN, kvm_shadow_list
// Reads: ioeventfd|kvm_io_bus_(register_dev|check_room)|kvm_get_bus|kvm_destroy_vm|(find|create)_shadow|in_shadow
// Reads: kvm_shadow|KVM_CAP_IOEVENTFD|KVM_IOEVENTFD
// Home: virt/kvm/eventfd.c: kvm_ioeventfd
// Built: CONFIG_KVM CONFIG_EVENTFD

virtual report
virtual audit

@initialize:python@
@@
import os, sys
line = open("/proc/self/cmdline", encoding="utf-8").read().split("\0")
sys.path.append(os.path.dirname(line[line.index("--cocci-file") + 1]))
import kvm_shadow
rule = kvm_shadow.Rule()

@entry@
identifier fn = {kvm_ioeventfd, kvm_io_bus_register_dev};
position p;
@@
fn@p(...) { ... }

@script:python@
p << entry.p;
@@
rule.out.anchor(p)

@use@
identifier f =~ "^KVM_IOEVENTFD_.*BATCH|ioeventfds_shadow|kvm_(find|create|destroy|get)_shadow|in_shadow|kvm_shadow_list";
position p;
@@
f@p

@script:python@
p << use.p;
f << use.f;
@@
(rule.flags if f.startswith("KVM") else rule.old).append((p, f))

@leads@
identifier f != {kvm_assign_ioeventfd, kvm_deassign_ioeventfd};
@@
kvm_ioeventfd(...) { <+... f(...) ...+> }

@script:python@
f << leads.f;
@@
rule.strange.append(f)

@sign depends on use@
expression e;
identifier x, h;
position p;
@@
(
 list_add_tail@p(&x->list, &h)
|
 list_add_tail_rcu@p(&x->list, &h)
|
 list_add_tail@p(&x->node, &e->ioeventfds_shadow)
|
 ioeventfd_free_deaf@p(kvm_get_bus(...))
|
 !e->ioeventfd_shadow@p && ioeventfd_check_collision(...)
|
 kvm_find_shadow(...)->buses_shadow@p
|
 e->flags@p & KVM_IOEVENTFD_FLAG_BATCH_BEGIN
)

@script:python@
p << sign.p;
@@
rule.signs.append(p)

@early depends on use exists@
expression x, E;
identifier d;
position p;
@@
kvm_io_bus_unregister_dev(..., &x->d);
... when any
    when != x = E
ioeventfd_release@p(x);

@script:python@
p << early.p;
@@
rule.signs.append(p)

// What the first patch of the series makes of END: it frees what is left when the grace period is over.

@swept depends on use exists@
iterator name list_for_each_entry_safe;
identifier es, tmp, ks, i, bus, k;
@@
kvm_ioeventfd_batch_end(...) {
... when != ioeventfd_release(...)
synchronize_srcu_expedited(&k->srcu);
for (i = 0; i < KVM_NR_BUSES; i++) { ks->buses_shadow[i] = NULL; kfree(bus[i]); }
list_for_each_entry_safe(es, tmp, &ks->ioeventfds_shadow, node) {
	ioeventfd_release(es->eventfd); list_del(&es->node); kfree(es);
}
... when any
}

@left depends on swept exists@
identifier x, b;
@@
kvm_handle_ioeventfds_shadow(...) {
... when any
kvm_io_bus_unregister_dev(..., &x->dev);
b = kvm_get_bus(...);
if (b) b->ioeventfd_count--;
continue;
... when any
}

// The code of the series.

@begin depends on use@
identifier k, ret;
@@
kvm_ioeventfd_batch_begin(struct kvm *k) {
int ret = -EBUSY;
mutex_lock(&k->slots_lock);
if (!k->ioeventfd_batch) { k->ioeventfd_batch = true; ret = 0; }
mutex_unlock(&k->slots_lock);
return ret;
}

@close depends on use@
iterator name list_for_each_entry_safe;
identifier k, drop, x, tmp;
@@
ioeventfd_batch_close(struct kvm *k, enum ioeventfd_state drop) {
...
list_for_each_entry_safe(x, tmp, &k->ioeventfds, list) {
	if (x->state == drop) ioeventfd_release(x); else x->state = IOEVENTFD_LIVE;
	cond_resched();
}
k->ioeventfd_batch = false;
}

@abort depends on use@
identifier k;
@@
kvm_ioeventfd_batch_abort(struct kvm *k) { ioeventfd_batch_close(k, IOEVENTFD_ADDED); }

@destroy depends on use@
identifier k;
@@
kvm_free_irq_routing(k);
kvm_ioeventfd_batch_abort(k);

@remove depends on use exists@
iterator name list_for_each_entry;
identifier k, x, b, idx, args, ret;
@@
kvm_deassign_ioeventfd_idx(struct kvm *k, enum kvm_bus idx, struct kvm_ioeventfd *args) {
... when != ioeventfd_release(...)
list_for_each_entry(x, &k->ioeventfds, list) {
	if (<+... x->state == IOEVENTFD_REMOVED ...+>) continue;
	if (!x->wildcard && x->datamatch != args->datamatch) continue;
	ret = 0;
	if (x->state == IOEVENTFD_ADDED) { ioeventfd_release(x); break; }
	if (k->ioeventfd_batch) { x->state = IOEVENTFD_REMOVED; break; }
	kvm_io_bus_unregister_dev(k, idx, &x->dev);
	b = kvm_get_bus(k, idx);
	if (b) b->ioeventfd_count--;
	break;
}
... when != ioeventfd_release(...)
}

@end depends on use exists@
iterator name list_for_each_entry, list_for_each_entry_safe;
identifier k, x, tmp, i, b, new, changed, added, some, more, l;
identifier f != {kfree, mutex_unlock};
@@
kvm_ioeventfd_batch_end(struct kvm *k) {
...
list_for_each_entry(x, &k->ioeventfds, list) {
	cond_resched();
	if (x->state == IOEVENTFD_LIVE) continue;
	some = true;
	changed[x->bus_idx] = true;
	if (x->state == IOEVENTFD_ADDED) { more = true; added[x->bus_idx]++; }
}
for (i = 0; i < KVM_NR_BUSES; i++) {
	if (!changed[i]) continue;
	new[i] = ioeventfd_batch_bus(k, i, added[i]);
	if (!new[i] && more) goto l;
}
list_for_each_entry_safe(x, tmp, &k->ioeventfds, list) {
	cond_resched();
	if (x->state != IOEVENTFD_REMOVED || new[x->bus_idx]) continue;
	WRITE_ONCE(x->deaf, true);
	list_del_init(&x->list);
}
for (i = 0; i < KVM_NR_BUSES; i++) {
	if (!new[i]) continue;
	b = kvm_get_bus(k, i);
	rcu_assign_pointer(k->buses[i], new[i]);
	new[i] = b;
}
if (some) synchronize_srcu_expedited(&k->srcu);
for (i = 0; i < KVM_NR_BUSES; i++) if (new[i]) ioeventfd_free_deaf(new[i]);
ioeventfd_batch_close(k, IOEVENTFD_REMOVED);
... when != f(...)
}

@make depends on use exists@
identifier k, b, n, idx, added;
@@
ioeventfd_batch_bus(struct kvm *k, enum kvm_bus idx, int added) {
... when any
if (!b) return NULL;
n = kmalloc(struct_size(b, range, b->dev_count + added), ...);
if (!n) return NULL;
... when any
}

@look depends on use@
iterator name list_for_each_entry;
identifier k, x;
@@
ioeventfd_check_collision(struct kvm *k, ...) {
...
list_for_each_entry(x, &k->ioeventfds, list) if (<+... x->state != IOEVENTFD_REMOVED ...+>) return true;
return false;
}

@assign depends on use exists@
identifier k, x, idx, ret, l;
@@
kvm_assign_ioeventfd_idx(struct kvm *k, enum kvm_bus idx, ...) {
... when any
if (ioeventfd_check_collision(k, x)) { ret = -EEXIST; goto l; }
kvm_iodevice_init(&x->dev, &ioeventfd_ops);
if (k->ioeventfd_batch) { ret = kvm_io_bus_check_room(kvm_get_bus(k, idx)); x->state = IOEVENTFD_ADDED; }
else { ret = kvm_io_bus_register_dev(k, idx, x->addr, x->length, &x->dev); }
if (ret < 0) goto l;
if (x->state == IOEVENTFD_LIVE) kvm_get_bus(k, idx)->ioeventfd_count++;
list_add_tail(&x->list, &k->ioeventfds);
... when any
}

@alone depends on use@
identifier k, a;
@@
if (a->flags == KVM_IOEVENTFD_FLAG_BATCH_BEGIN) return kvm_ioeventfd_batch_begin(k);
if (a->flags == KVM_IOEVENTFD_FLAG_BATCH_END) return kvm_ioeventfd_batch_end(k);
if (a->flags & (KVM_IOEVENTFD_FLAG_BATCH_BEGIN | KVM_IOEVENTFD_FLAG_BATCH_END)) return -EINVAL;

@cap depends on use@
identifier c =~ "^KVM_CAP_[A-Z_]*BATCH";
@@
c

@script:python depends on cap@
@@
rule.cap = True

@script:python depends on (end && close && remove) || left@
@@
rule.good.add(kvm_shadow.EARLY)

@script:python depends on begin && close && abort && destroy@
@@
rule.good.add(kvm_shadow.LIST)

@script:python depends on end && close && remove && make && look && assign && alone@
@@
rule.good.add(kvm_shadow.ANSWERS)

@finalize:python@
@@
rule.judge()
