# SPDX-License-Identifier: GPL-2.0-only
"""The audit's rule for kvm-shadow: made-up files of each version, mutants of them, and real trees where at hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import real_trees, tree_hash
from kmendlib.tree import manifest, series
from kmendlib.tree.audit import FindingAudit, Status, audit
from kmendlib.tree.manifest import PATCHES, RULES
from kmendlib.tree.tree import Tree

EVENTFD, MAIN, HOST = "virt/kvm/eventfd.c", "virt/kvm/kvm_main.c", "include/linux/kvm_host.h"
EARLY, LIST, ANSWERS = "early-free", "shared-list", "batch-answers"
NAMES = (EARLY, LIST, ANSWERS)


BUG = manifest.load().bug("kvm-shadow")

# What every version has, as far as the rule looks at it. The functions under test have the shape that the names say;
# the rest is made up.
IOEVENTFD = """\
struct _ioeventfd {
	struct list_head     list;
	u64                  addr;
	struct eventfd_ctx  *eventfd;
	struct kvm_io_device dev;
	u8                   bus_idx;
	u8                   state;
};

static struct _ioeventfd *to_ioeventfd(struct kvm_io_device *dev)
{
	return container_of(dev, struct _ioeventfd, dev);
}

static void ioeventfd_release(struct _ioeventfd *p)
{
	eventfd_ctx_put(p->eventfd);
	list_del(&p->list);
	kfree(p);
}

static void ioeventfd_destructor(struct kvm_io_device *this)
{
	struct _ioeventfd *p = to_ioeventfd(this);

	ioeventfd_release(p);
}

static const struct kvm_io_device_ops ioeventfd_ops = {
	.destructor = ioeventfd_destructor,
};

static bool ioeventfd_check_collision(struct kvm *kvm, struct _ioeventfd *p)
{
	struct _ioeventfd *_p;

	list_for_each_entry(_p, &kvm->ioeventfds, list)
		if (_p->bus_idx == p->bus_idx && _p->addr == p->addr)
			return true;

	return false;
}

static int kvm_assign_ioeventfd_idx(struct kvm *kvm, enum kvm_bus bus_idx, struct kvm_ioeventfd *args)
{
	struct eventfd_ctx *eventfd = eventfd_ctx_fdget(args->fd);
	struct _ioeventfd *p;
	int ret;

	p = kzalloc(sizeof(*p), GFP_KERNEL_ACCOUNT);
	if (!p) {
		ret = -ENOMEM;
		goto fail;
	}
	p->addr = args->addr;
	p->eventfd = eventfd;

	mutex_lock(&kvm->slots_lock);

	/* Is there a match already? */
	if (ioeventfd_check_collision(kvm, p)) {
		ret = -EEXIST;
		goto unlock_fail;
	}

	kvm_iodevice_init(&p->dev, &ioeventfd_ops);

	ret = kvm_io_bus_register_dev(kvm, bus_idx, p->addr, p->length, &p->dev);
	if (ret < 0)
		goto unlock_fail;

	kvm_get_bus(kvm, bus_idx)->ioeventfd_count++;
	list_add_tail(&p->list, &kvm->ioeventfds);

	mutex_unlock(&kvm->slots_lock);

	return 0;

unlock_fail:
	mutex_unlock(&kvm->slots_lock);
	kfree(p);
fail:
	eventfd_ctx_put(eventfd);
	return ret;
}

static int kvm_deassign_ioeventfd_idx(struct kvm *kvm, enum kvm_bus bus_idx, struct kvm_ioeventfd *args)
{
	struct eventfd_ctx *eventfd = eventfd_ctx_fdget(args->fd);
	struct _ioeventfd *p;
	struct kvm_io_bus *bus;
	int ret = -ENOENT;

	mutex_lock(&kvm->slots_lock);

	list_for_each_entry(p, &kvm->ioeventfds, list) {
		if (p->bus_idx != bus_idx || p->addr != args->addr)
			continue;

		kvm_io_bus_unregister_dev(kvm, bus_idx, &p->dev);
		bus = kvm_get_bus(kvm, bus_idx);
		if (bus)
			bus->ioeventfd_count--;
		ret = 0;
		break;
	}

	mutex_unlock(&kvm->slots_lock);
	eventfd_ctx_put(eventfd);

	return ret;
}

static int kvm_deassign_ioeventfd(struct kvm *kvm, struct kvm_ioeventfd *args)
{
	return kvm_deassign_ioeventfd_idx(kvm, ioeventfd_bus_from_flags(args->flags), args);
}

static int kvm_assign_ioeventfd(struct kvm *kvm, struct kvm_ioeventfd *args)
{
	if (args->flags & ~KVM_IOEVENTFD_VALID_FLAG_MASK)
		return -EINVAL;

	return kvm_assign_ioeventfd_idx(kvm, ioeventfd_bus_from_flags(args->flags), args);
}

"""

PLAIN = (
    IOEVENTFD
    + """\
int
kvm_ioeventfd(struct kvm *kvm, struct kvm_ioeventfd *args)
{
	if (args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		return kvm_deassign_ioeventfd(kvm, args);

	return kvm_assign_ioeventfd(kvm, args);
}
"""
)

PLAIN_MAIN = """\
static void kvm_io_bus_destroy(struct kvm_io_bus *bus)
{
	int i;

	for (i = 0; i < bus->dev_count; i++)
		kvm_iodevice_destructor(bus->range[i].dev);
	kfree(bus);
}

static struct kvm *kvm_create_vm(unsigned long type)
{
	struct kvm *kvm = kvm_arch_alloc_vm();

	mutex_lock(&kvm_lock);
	list_add(&kvm->vm_list, &vm_list);
	mutex_unlock(&kvm_lock);

	return kvm;
}

static void kvm_destroy_vm(struct kvm *kvm)
{
	int i;

	mutex_lock(&kvm_lock);
	list_del(&kvm->vm_list);
	mutex_unlock(&kvm_lock);

	kvm_free_irq_routing(kvm);
	for (i = 0; i < KVM_NR_BUSES; i++) {
		struct kvm_io_bus *bus = kvm_get_bus(kvm, i);

		if (bus)
			kvm_io_bus_destroy(bus);
		kvm->buses[i] = NULL;
	}
}

static int kvm_vm_ioctl_check_extension_generic(struct kvm *kvm, long arg)
{
	switch (arg) {
	case KVM_CAP_IOEVENTFD_ANY_LENGTH:
		return 1;
	}
	return 0;
}

int kvm_io_bus_register_dev(struct kvm *kvm, enum kvm_bus bus_idx, gpa_t addr, int len, struct kvm_io_device *dev)
{
	struct kvm_io_bus *new_bus, *bus;

	lockdep_assert_held(&kvm->slots_lock);

	bus = kvm_get_bus(kvm, bus_idx);
	if (!bus)
		return -ENOMEM;

	if (bus->dev_count - bus->ioeventfd_count > NR_IOBUS_DEVS - 1)
		return -ENOSPC;

	new_bus = kmalloc(struct_size(bus, range, bus->dev_count + 1), GFP_KERNEL_ACCOUNT);
	if (!new_bus)
		return -ENOMEM;

	memcpy(new_bus, bus, struct_size(bus, range, bus->dev_count));
	new_bus->range[new_bus->dev_count++].dev = dev;
	rcu_assign_pointer(kvm->buses[bus_idx], new_bus);
	synchronize_srcu_expedited(&kvm->srcu);
	kfree(bus);

	return 0;
}

int kvm_io_bus_unregister_dev(struct kvm *kvm, enum kvm_bus bus_idx, struct kvm_io_device *dev)
{
	struct kvm_io_bus *new_bus, *bus;

	lockdep_assert_held(&kvm->slots_lock);

	bus = kvm_get_bus(kvm, bus_idx);
	if (!bus)
		return 0;

	new_bus = kmalloc(struct_size(bus, range, bus->dev_count - 1), GFP_KERNEL_ACCOUNT);
	if (new_bus)
		memcpy(new_bus, bus, struct_size(bus, range, bus->dev_count - 1));

	rcu_assign_pointer(kvm->buses[bus_idx], new_bus);
	synchronize_srcu_expedited(&kvm->srcu);

	if (!new_bus) {
		kvm_io_bus_destroy(bus);
		return -ENOMEM;
	}

	kvm_iodevice_destructor(dev);
	kfree(bus);
	return 0;
}
"""

PLAIN_HOST = """\
static inline struct kvm_io_bus *kvm_get_bus(struct kvm *kvm, enum kvm_bus idx)
{
	return srcu_dereference_check(kvm->buses[idx], &kvm->srcu, lockdep_is_held(&kvm->slots_lock));
}
"""


def edit(text: str, *pairs: tuple[str, str]) -> str:
    """Return `text` with each old part, which is there once, replaced by its new one."""
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


REGISTER = "	ret = kvm_io_bus_register_dev(kvm, bus_idx, p->addr, p->length, &p->dev);\n"
COUNT = "	kvm_get_bus(kvm, bus_idx)->ioeventfd_count++;\n"
LOOK = """\
	/* Is there a match already? */
	if (ioeventfd_check_collision(kvm, p)) {
		ret = -EEXIST;
		goto unlock_fail;
	}

"""
TAIL = """\
	ret = kvm_io_bus_register_dev(kvm, bus_idx, p->addr, p->length, &p->dev);
	if (ret < 0)
		goto unlock_fail;

	kvm_get_bus(kvm, bus_idx)->ioeventfd_count++;
	list_add_tail(&p->list, &kvm->ioeventfds);
"""
REMOVAL = """\
		kvm_io_bus_unregister_dev(kvm, bus_idx, &p->dev);
		bus = kvm_get_bus(kvm, bus_idx);
		if (bus)
			bus->ioeventfd_count--;
		ret = 0;
"""
SKIP = "		if (p->bus_idx != bus_idx || p->addr != args->addr)\n"

# Ours: a state of each ioeventfd and of the VM's batch, both under slots_lock.
STATES = """\
static int batch_begin(struct kvm *kvm)
{
	int ret = -EBUSY;

	mutex_lock(&kvm->slots_lock);
	if (!kvm->ioeventfd_batch) {
		kvm->ioeventfd_batch = BATCH_OPEN;
		ret = 0;
	}
	mutex_unlock(&kvm->slots_lock);

	return ret;
}

static struct kvm_io_bus *batch_bus(struct kvm *kvm, enum kvm_bus bus_idx, int added)
{
	struct kvm_io_bus *bus = kvm_get_bus(kvm, bus_idx);
	struct kvm_io_bus *new_bus;
	struct _ioeventfd *p;
	int i;

	if (!bus)
		return NULL;

	new_bus = kmalloc(struct_size(bus, range, bus->dev_count + added), GFP_KERNEL_ACCOUNT);
	if (!new_bus)
		return NULL;

	new_bus->dev_count = 0;
	for (i = 0; i < bus->dev_count; i++)
		if (to_ioeventfd(bus->range[i].dev)->state != STATE_REMOVED)
			new_bus->range[new_bus->dev_count++] = bus->range[i];

	list_for_each_entry(p, &kvm->ioeventfds, list)
		if (p->state == STATE_ADDED && p->bus_idx == bus_idx)
			new_bus->range[new_bus->dev_count++].dev = &p->dev;

	return new_bus;
}

static void batch_close(struct kvm *kvm, enum ioeventfd_state drop)
{
	struct _ioeventfd *p, *tmp;

	list_for_each_entry_safe(p, tmp, &kvm->ioeventfds, list) {
		if (p->state == drop)
			ioeventfd_release(p);
		else
			p->state = STATE_LIVE;
	}
	kvm->ioeventfd_batch = BATCH_NONE;
}

static int batch_end(struct kvm *kvm)
{
	struct kvm_io_bus *bus, *buses[KVM_NR_BUSES] = {};
	int added[KVM_NR_BUSES] = {};
	struct _ioeventfd *p;
	bool any = false;
	int i, ret = 0;

	mutex_lock(&kvm->slots_lock);
	if (!kvm->ioeventfd_batch) {
		ret = -EINVAL;
		goto out;
	}

	list_for_each_entry(p, &kvm->ioeventfds, list) {
		if (p->state == STATE_LIVE)
			continue;
		any = true;
		if (p->state == STATE_ADDED)
			added[p->bus_idx]++;
	}

	for (i = 0; i < KVM_NR_BUSES; i++) {
		buses[i] = batch_bus(kvm, i, added[i]);
		if (!buses[i])
			goto fail;
	}

	for (i = 0; i < KVM_NR_BUSES; i++) {
		bus = kvm_get_bus(kvm, i);
		rcu_assign_pointer(kvm->buses[i], buses[i]);
		buses[i] = bus;
	}

	if (any)
		synchronize_srcu_expedited(&kvm->srcu);

	batch_close(kvm, STATE_REMOVED);
	goto out;

fail:
	ret = -ENOMEM;
	batch_close(kvm, STATE_ADDED);
out:
	for (i = 0; i < KVM_NR_BUSES; i++)
		kfree(buses[i]);
	mutex_unlock(&kvm->slots_lock);

	return ret;
}

void batch_abort(struct kvm *kvm)
{
	batch_close(kvm, STATE_ADDED);
}

int
kvm_ioeventfd(struct kvm *kvm, struct kvm_ioeventfd *args)
{
	if (args->flags == KVM_IOEVENTFD_FLAG_BATCH_BEGIN)
		return batch_begin(kvm);
	if (args->flags == KVM_IOEVENTFD_FLAG_BATCH_END)
		return batch_end(kvm);
	if (args->flags & (KVM_IOEVENTFD_FLAG_BATCH_BEGIN | KVM_IOEVENTFD_FLAG_BATCH_END))
		return -EINVAL;

	if (args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		return kvm_deassign_ioeventfd(kvm, args);

	return kvm_assign_ioeventfd(kvm, args);
}
"""

ROOM = """\
	if (kvm->ioeventfd_batch) {
		ret = kvm_io_bus_has_room(kvm, bus_idx);
		p->state = STATE_ADDED;
	} else {
		ret = kvm_io_bus_register_dev(kvm, bus_idx, p->addr, p->length, &p->dev);
	}
"""
ADDED = """\
		if (p->state == STATE_ADDED) {
			ioeventfd_release(p);
			break;
		}
"""
MARK = """\
		if (kvm->ioeventfd_batch) {
			p->state = STATE_REMOVED;
			break;
		}
"""
OURS = (
    edit(
        IOEVENTFD,
        (
            "		if (_p->bus_idx == p->bus_idx",
            "		if (_p->state != STATE_REMOVED && _p->bus_idx == p->bus_idx",
        ),
        (REGISTER, ROOM),
        (COUNT, "	if (p->state == STATE_LIVE)\n	" + COUNT),
        (SKIP, SKIP.replace("(p->bus", "(p->state == STATE_REMOVED || p->bus")),
        (REMOVAL, "		ret = 0;\n" + ADDED + MARK + REMOVAL.replace("		ret = 0;\n", "")),
    )
    + STATES
)
CAP = (
    "	case KVM_CAP_IOEVENTFD_ANY_LENGTH:\n",
    "	case KVM_CAP_IOEVENTFD_ANY_LENGTH:\n	case KVM_CAP_IOEVENTFD_BATCH:\n",
)
FULL = """\
	if (!bus)
		return -ENOMEM;

	if (bus->dev_count - bus->ioeventfd_count > NR_IOBUS_DEVS - 1)
		return -ENOSPC;

"""
HAS_ROOM = """\
int kvm_io_bus_has_room(struct kvm *kvm, enum kvm_bus bus_idx)
{
	struct kvm_io_bus *bus = kvm_get_bus(kvm, bus_idx);

	if (!bus)
		return -ENOMEM;

	if (bus->dev_count - bus->ioeventfd_count > NR_IOBUS_DEVS - 1)
		return -ENOSPC;

	return 0;
}

"""
ABORT = "	batch_abort(kvm);\n"
ROUTING = "	kvm_free_irq_routing(kvm);\n"
OURS_MAIN = edit(
    PLAIN_MAIN,
    CAP,
    (ROUTING, ROUTING + ABORT),
    (FULL, "	if (kvm_io_bus_has_room(kvm, bus_idx))\n		return -ENOSPC;\n\n"),
    ("int kvm_io_bus_register_dev(", HAS_ROOM + "int kvm_io_bus_register_dev("),
)

# openEuler's: what a batch is to do hangs on its own list, and the batch on one for all VMs.
SHADOW = """\
static int kvm_ioeventfd_batch_begin(struct kvm *kvm)
{
	struct kvm_shadow *ks;
	int ret = 0;

	mutex_lock(&kvm->slots_lock);

	if (is_kvm_in_shadow(kvm)) {
		ret = -EBUSY;
		goto out;
	}

	ks = kzalloc(sizeof(*ks), GFP_KERNEL_ACCOUNT);
	if (!ks) {
		ret = -ENOMEM;
		goto out;
	}
	INIT_LIST_HEAD(&ks->todo);
	ks->kvm = kvm;
	list_add_tail(&ks->list, &kvm_shadow_list);

out:
	mutex_unlock(&kvm->slots_lock);
	return ret;
}

void kvm_release_ioeventfds_shadow(struct kvm *kvm)
{
	struct kvm_shadow *ks;
	struct change *es, *tmp;
	struct _ioeventfd *p;

	ks = kvm_find_shadow(kvm);
	if (!ks)
		return;

	list_for_each_entry_safe(es, tmp, &ks->todo, node) {
		p = es->eventfd;
		list_del_init(&es->node);
		if (es->what == CHANGE_ADD)
			ioeventfd_release(p);
		else
			list_add_tail(&p->list, &kvm->ioeventfds);
		kfree(es);
	}
}

static int kvm_handle_ioeventfds_shadow(struct kvm *kvm)
{
	struct kvm_shadow *ks;
	struct change *es, *tmp;
	struct _ioeventfd *p;
	struct kvm_io_bus *bus;
	int result = 0;
	int ret = 0;

	ks = kvm_find_shadow(kvm);
	if (!ks)
		return 0;

	list_for_each_entry_safe(es, tmp, &ks->todo, node) {
		list_del_init(&es->node);
		p = es->eventfd;
		if (es->what == CHANGE_ADD) {
			ret = kvm_io_bus_register_dev(kvm, p->bus_idx, p->addr, p->length, &p->dev);
			if (ret < 0) {
				ioeventfd_release(p);
				result = ret;
			} else {
				list_add_tail(&p->list, &kvm->ioeventfds);
			}
		} else {
			kvm_io_bus_unregister_dev(kvm, p->bus_idx, &p->dev);
			bus = kvm_get_bus(kvm, p->bus_idx);
			if (bus)
				bus->ioeventfd_count--;
			ioeventfd_release(p);
		}
		kfree(es);
	}
	return result;
}

static int kvm_ioeventfd_batch_end(struct kvm *kvm)
{
	struct kvm_io_bus *old[KVM_NR_BUSES];
	struct kvm_io_bus *new_bus, *bus;
	struct kvm_shadow *ks;
	int ret, i;

	mutex_lock(&kvm->slots_lock);

	ks = kvm_find_shadow(kvm);
	if (!ks) {
		ret = -EINVAL;
		goto out;
	}

	ret = -ENOMEM;
	for (i = 0; i < KVM_NR_BUSES; i++) {
		bus = kvm_get_real_bus(kvm, i);
		new_bus = kmalloc(struct_size(bus, range, bus->dev_count), GFP_KERNEL_ACCOUNT);
		if (!new_bus)
			goto fail;

		memcpy(new_bus, bus, struct_size(bus, range, bus->dev_count));
		ks->buses_shadow[i] = new_bus;
	}

	ret = kvm_handle_ioeventfds_shadow(kvm);

	for (i = 0; i < KVM_NR_BUSES; i++) {
		old[i] = kvm_get_real_bus(kvm, i);
		rcu_assign_pointer(kvm->buses[i], ks->buses_shadow[i]);
	}

	synchronize_srcu_expedited(&kvm->srcu);

	for (i = 0; i < KVM_NR_BUSES; i++)
		kfree(old[i]);

	goto out;

fail:
	kvm_release_ioeventfds_shadow(kvm);
	for (i = 0; i < KVM_NR_BUSES; i++)
		kfree(ks->buses_shadow[i]);
out:
	if (ks)
		list_del_init(&ks->list);

	kfree(ks);
	mutex_unlock(&kvm->slots_lock);
	return ret;
}

int
kvm_ioeventfd(struct kvm *kvm, struct kvm_ioeventfd *args)
{
	if (args->flags & KVM_IOEVENTFD_FLAG_BATCH_BEGIN)
		return kvm_ioeventfd_batch_begin(kvm);
	if (args->flags & KVM_IOEVENTFD_FLAG_BATCH_END)
		return kvm_ioeventfd_batch_end(kvm);
	if (args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		return kvm_deassign_ioeventfd(kvm, args);

	return kvm_assign_ioeventfd(kvm, args);
}
"""

PENDING = """\
	ks = kvm_find_shadow(kvm);
	if (ks) {
		es = kzalloc(sizeof(*es), GFP_KERNEL_ACCOUNT);
		if (!es) {
			ret = -ENOMEM;
			goto unlock_fail;
		}
		es->what = CHANGE_ADD;
		es->eventfd = p;
		list_add_tail(&es->node, &ks->todo);
	} else {
		if (ioeventfd_check_collision(kvm, p)) {
			ret = -EEXIST;
			goto unlock_fail;
		}

		ret = kvm_io_bus_register_dev(kvm, bus_idx, p->addr, p->length, &p->dev);
		if (ret < 0)
			goto unlock_fail;

		kvm_get_bus(kvm, bus_idx)->ioeventfd_count++;
		list_add_tail(&p->list, &kvm->ioeventfds);
	}
"""
TO_REMOVE = """\
		ks = kvm_find_shadow(kvm);
		if (ks) {
			es = kzalloc(sizeof(*es), GFP_KERNEL_ACCOUNT);
			if (!es) {
				ret = -ENOMEM;
				break;
			}
			list_del_init(&p->list);
			es->what = CHANGE_DEL;
			es->eventfd = p;
			list_add_tail(&es->node, &ks->todo);
			ret = 0;
			break;
		}
"""
VARIABLES = "	struct kvm_shadow *ks;\n	struct change *es;\n"
FIRST = (
    edit(
        IOEVENTFD,
        (LOOK, ""),
        (TAIL, PENDING),
        (REMOVAL, TO_REMOVE + REMOVAL),
        ("	struct _ioeventfd *p;\n	int ret;\n", VARIABLES + "	struct _ioeventfd *p;\n	int ret;\n"),
        (
            "	struct _ioeventfd *p;\n	struct kvm_io_bus *bus;\n	int ret =",
            VARIABLES + "	struct _ioeventfd *p;\n	struct kvm_io_bus *bus;\n	int ret =",
        ),
    )
    + SHADOW
)
PUT = "	rcu_assign_pointer(kvm->buses[bus_idx], new_bus);\n	synchronize_srcu_expedited(&kvm->srcu);\n"
INSERTED = "dev_count++].dev = dev;\n" + PUT
SHRUNK = "bus->dev_count - 1));\n\n" + PUT
DESTROY = """\
	ks = kvm_find_shadow(kvm);
	if (ks) {
		kvm_release_ioeventfds_shadow(kvm);
		list_del_init(&ks->list);
		kfree(ks);
	}
"""
FIRST_MAIN = edit(
    PLAIN_MAIN,
    (
        "	int i;\n\n	mutex_lock(&kvm_lock);\n	list_del",
        "	struct kvm_shadow *ks;\n	int i;\n\n	mutex_lock(&kvm_lock);\n	list_del",
    ),
    (ROUTING, ROUTING + DESTROY),
    (
        INSERTED,
        "dev_count++].dev = dev;\n	ks = kvm_find_shadow(kvm);\n	if (ks) {\n		ks->buses_shadow[bus_idx] = new_bus;\n"
        "		kfree(bus);\n		return 0;\n	}\n" + PUT,
    ),
    (
        SHRUNK,
        "bus->dev_count - 1));\n\n	ks = kvm_find_shadow(kvm);\n	if (ks) {\n		ks->buses_shadow[bus_idx] = new_bus;\n"
        "		kfree(bus);\n		return 0;\n	}\n" + PUT,
    ),
).replace(
    "	struct kvm_io_bus *new_bus, *bus;\n", "	struct kvm_io_bus *new_bus, *bus;\n	struct kvm_shadow *ks;\n"
)
FIRST_MAIN = "LIST_HEAD(kvm_shadow_list);\n\n" + FIRST_MAIN
WALK = """\
	list_for_each_entry(ks, &kvm_shadow_list, list)
		if (ks->kvm == kvm)
			return ks;
"""
FIRST_HOST = (
    PLAIN_HOST.replace("kvm_get_bus", "kvm_get_real_bus")
    + """
static inline struct kvm_shadow *kvm_find_shadow(struct kvm *kvm)
{
	struct kvm_shadow *ks;

"""
    + WALK
    + """
	return NULL;
}

static inline bool is_kvm_in_shadow(struct kvm *kvm)
{
	return kvm_find_shadow(kvm) != NULL;
}

static inline struct kvm_io_bus *kvm_get_bus(struct kvm *kvm, enum kvm_bus idx)
{
	return is_kvm_in_shadow(kvm) ? kvm_find_shadow(kvm)->buses_shadow[idx] : kvm_get_real_bus(kvm, idx);
}
"""
)

# The repaired one: a state for each VM from its start to its end, on a list that is walked under RCU.
BEGIN = SHADOW[SHADOW.index("	if (is_kvm_in_shadow") : SHADOW.index("out:\n")]
REPAIRED = edit(
    FIRST,
    (
        BEGIN,
        "	ks = kvm_find_shadow(kvm);\n	if (!ks || ks->in_shadow) {\n		ret = -EBUSY;\n		goto out;\n	}\n\n"
        "	ks->in_shadow = true;\n",
    ),
    ("	if (!ks) {\n		ret = -EINVAL;", "	if (!ks || !ks->in_shadow) {\n		ret = -EINVAL;"),
    ("		list_del_init(&ks->list);\n\n	kfree(ks);\n", "		ks->in_shadow = false;\n"),
    ("	if (ks) {\n		es =", "	if (ks && ks->in_shadow) {\n		es ="),
    ("		if (ks) {\n			es =", "		if (ks && ks->in_shadow) {\n			es ="),
    ("	kvm_get_bus(kvm, bus_idx)->io", "	kvm_get_bus(kvm, bus_idx, true)->io"),
    ("bus = kvm_get_bus(kvm, bus_idx);", "bus = kvm_get_bus(kvm, bus_idx, true);"),
    ("bus = kvm_get_bus(kvm, p->bus_idx);", "bus = kvm_get_bus(kvm, p->bus_idx, true);"),
)
CREATE = """\
static int kvm_create_shadow(struct kvm *kvm)
{
	struct kvm_shadow *ks = kzalloc(sizeof(*ks), GFP_KERNEL_ACCOUNT);

	if (!ks)
		return -ENOMEM;

	ks->kvm = kvm;
	mutex_lock(&kvm_lock);
	list_add_tail_rcu(&ks->list, &kvm_shadow_list);
	mutex_unlock(&kvm_lock);

	return 0;
}

"""
SWEEP = "		synchronize_rcu();\n"
REPAIRED_MAIN = edit(
    FIRST_MAIN.replace(
        "(ks) {\n		ks->buses", "(ks && ks->in_shadow && kvm_io_device_is_ioeventfd(dev)) {\n		ks->buses"
    ).replace("bus = kvm_get_bus(kvm, bus_idx);", "bus = kvm_get_bus(kvm, bus_idx, kvm_io_device_is_ioeventfd(dev));"),
    ("static struct kvm *kvm_create_vm", CREATE + "static struct kvm *kvm_create_vm"),
    (
        "	mutex_lock(&kvm_lock);\n	list_add(&kvm->vm",
        "	kvm_create_shadow(kvm);\n	mutex_lock(&kvm_lock);\n	list_add(&kvm->vm",
    ),
    ("kvm_get_bus(kvm, i)", "kvm_get_bus(kvm, i, false)"),
    (
        "		list_del_init(&ks->list);\n",
        "		mutex_lock(&kvm_lock);\n		list_del_rcu(&ks->list);\n		mutex_unlock(&kvm_lock);\n" + SWEEP,
    ),
)
RCU_WALK = """\
	rcu_read_lock();
	list_for_each_entry_rcu(ks, &kvm_shadow_list, list)
		if (ks->kvm == kvm)
			break;
	rcu_read_unlock();

	return ks;
"""
REPAIRED_HOST = (
    edit(
        FIRST_HOST[: FIRST_HOST.index("static inline bool")],
        (WALK + "\n	return NULL;\n", RCU_WALK),
    )
    + """\
static inline struct kvm_io_bus *kvm_get_bus(struct kvm *kvm, enum kvm_bus idx, bool is_ioeventfd)
{
	struct kvm_shadow *ks = kvm_find_shadow(kvm);

	if (is_ioeventfd && ks && ks->in_shadow)
		return ks->buses_shadow[idx];

	return kvm_get_real_bus(kvm, idx);
}
"""
)

Files = tuple[str | None, str | None, str | None]
OF_OURS: Files = (OURS, OURS_MAIN, PLAIN_HOST)
OF_FIRST: Files = (FIRST, FIRST_MAIN, FIRST_HOST)
OF_REPAIRED: Files = (REPAIRED, REPAIRED_MAIN, REPAIRED_HOST)
OF_PLAIN: Files = (PLAIN, PLAIN_MAIN, PLAIN_HOST)
MakeKvm = Callable[..., Path]


@pytest.fixture
def make_kvm(tmp_path: Path) -> MakeKvm:
    """Return a function that makes a tree with KVM and returns its path; a file that is None is left out."""

    def make(files: Files, version: str = "6.12.1") -> Path:
        for name, text in zip((EVENTFD, MAIN, HOST), files, strict=True):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                (tmp_path / name).write_text(text)
        numbers = zip(("VERSION", "PATCHLEVEL", "SUBLEVEL"), version.split("."), strict=True)
        (tmp_path / "Makefile").write_text("".join(f"{name} = {n}\n" for name, n in numbers) + "EXTRAVERSION =\n")
        return tmp_path

    return make


def look(root: Path, *names: str) -> dict[str, FindingAudit]:
    """Return what the audit says of these findings, or of all; it must not write to the tree, and no fix is tried."""
    findings = tuple(replace(each, fix=()) for each in BUG.findings if each.id.partition("/")[2] in (names or NAMES))
    before = tree_hash(root)
    found = audit(Tree.open(root), [replace(BUG, findings=findings)]).bugs[0].findings
    assert tree_hash(root) == before, "the audit wrote to the tree"
    return {each.id.partition("/")[2]: each for each in found}


def numbers(found: FindingAudit) -> set[str]:
    """Return the numbers of the defects in the evidence."""
    return {item.reason.partition(":")[0] for item in found.evidence if item.line}


VERSIONS = {
    "ours": (OF_OURS, dict.fromkeys(NAMES, Status.FIXED), set(), ""),
    "first": (
        OF_FIRST,
        dict.fromkeys(NAMES, Status.AFFECTED),
        {f"D{n}" for n in range(1, 12)},
        "first version",
    ),
    "repaired": (
        OF_REPAIRED,
        dict.fromkeys(NAMES, Status.AFFECTED),
        {"D12"} | {f"D{n}" for n in range(5, 12)},
        "repaired version",
    ),
    "plain": (OF_PLAIN, dict.fromkeys(NAMES, Status.NOT_APPLICABLE), set(), ""),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_versions(make_kvm: MakeKvm, name: str) -> None:
    files, statuses, defects, version = VERSIONS[name]
    found = look(make_kvm(files))
    assert {name: each.status for name, each in found.items()} == statuses, found
    affected = [each for each in found.values() if each.status is Status.AFFECTED]
    assert {number for each in affected for number in numbers(each)} == defects
    for each in affected:
        assert all(item.reason.endswith(f"({version})") for item in each.evidence if item.line), each


def ours(*pairs: tuple[str, str]) -> Files:
    return edit(OURS, *pairs), OURS_MAIN, PLAIN_HOST


def ours_main(*pairs: tuple[str, str]) -> Files:
    return OURS, edit(OURS_MAIN, *pairs), PLAIN_HOST


PUBLISH = OURS[
    OURS.index("	for (i = 0; i < KVM_NR_BUSES; i++) {\n		bus = kvm_get_bus") : OURS.index("	if (any)\n")
]
SYNC = "	if (any)\n		synchronize_srcu_expedited(&kvm->srcu);\n"
CLOSE = "	batch_close(kvm, STATE_REMOVED);\n	goto out;\n"
FAILED = "	ret = -ENOMEM;\n	batch_close(kvm, STATE_ADDED);\n"
NO_BUS = "		if (!buses[i])\n			goto fail;\n"
NONE = "	if (!bus)\n		return NULL;\n"
LOOK_TEST = "	if (ioeventfd_check_collision(kvm, p)) {\n		ret = -EEXIST;\n		goto unlock_fail;\n	}\n"
BOTH = (
    "	if (args->flags & (KVM_IOEVENTFD_FLAG_BATCH_BEGIN | KVM_IOEVENTFD_FLAG_BATCH_END))\n		return -EINVAL;\n"
)
LOCKED = "	mutex_lock(&kvm->slots_lock);\n	if (!kvm->ioeventfd_batch) {\n		kvm->"

# One defect in ours: its number, and nothing else is found.
ALONE = {
    "D3, register": (
        ours_main(
            ("	if (kvm_io_bus_has", "	if (kvm->ioeventfd_batch)\n		return -EBUSY;\n	if (kvm_io_bus_has")
        ),
        "D3",
        "kvm_io_bus_register_dev() treats every device otherwise",
    ),
    "D3, unregister": (
        ours_main(("	if (!bus)\n		return 0;\n", "	if (!bus || kvm->ioeventfd_batch)\n		return 0;\n")),
        "D3",
        "kvm_io_bus_unregister_dev() treats every device otherwise",
    ),
    "D3, lookup": (
        (OURS, OURS_MAIN, edit(PLAIN_HOST, ("{\n", "{\n	if (kvm->ioeventfd_batch)\n		return NULL;\n"))),
        "D3",
        "kvm_get_bus() gives another bus to every device",
    ),
    "D4, nothing ends the batch": (ours_main((ABORT, "")), "D4", "kvm_destroy_vm() leaves an open batch behind"),
    "D5, no look": (ours((LOOK_TEST, "")), "D5", ""),
    "D5, the look is in a comment": (
        ours((LOOK_TEST, "	/* if (ioeventfd_check_collision(kvm, p)) return -EEXIST; */\n")),
        "D5",
        "",
    ),
    "D5, no look in a batch": (
        ours((LOOK_TEST, LOOK_TEST.replace("if (", "if (!kvm->ioeventfd_batch && "))),
        "D5",
        "on a further condition",
    ),
    "D5, no look in a batch, on a path": (
        ours((LOOK_TEST, "	if (!kvm->ioeventfd_batch) {\n" + LOOK_TEST + "	}\n")),
        "D5",
        "without a look for duplicates",
    ),
    "D5, what was removed counts": (
        ours(("_p->state != STATE_REMOVED && ", "")),
        "D5",
        "duplicates of what the batch has removed",
    ),
    "D6, freed before the buses change": (
        ours((PUBLISH, "	batch_close(kvm, STATE_REMOVED);\n" + PUBLISH), (CLOSE, "	goto out;\n")),
        "D6",
        "batch_end() frees a removed ioeventfd before the grace period",
    ),
    "D6, freed before the grace period": (
        ours((SYNC, "	batch_close(kvm, STATE_REMOVED);\n" + SYNC), (CLOSE, "	goto out;\n")),
        "D6",
        "batch_end() frees a removed ioeventfd before the grace period",
    ),
    "D6, the grace period is in a comment": (
        ours((SYNC, "	/* synchronize_srcu_expedited(&kvm->srcu); */\n")),
        "D6",
        "before the grace period",
    ),
    "D6, the grace period is under #if 0": (ours((SYNC, f"#if 0\n{SYNC}#endif\n")), "D6", "before the grace period"),
    "D6, freed in deassign": (
        ours((MARK, MARK.replace("			break", "			ioeventfd_release(p);\n			break"))),
        "D6",
        "kvm_deassign_ioeventfd_idx() frees an ioeventfd that is on its bus",
    ),
    "D6, destroyed before the grace period": (
        ours_main((SHRUNK, "bus->dev_count - 1));\n\n	kvm_iodevice_destructor(dev);\n" + PUT)),
        "D6",
        "kvm_io_bus_unregister_dev() destroys a device before a grace period",
    ),
    "D7, no look at the new bus": (ours((NO_BUS, "")), "D7", "publishes no bus"),
    "D7, no use of the look": (ours((NO_BUS, NO_BUS.replace("goto fail", "ret = -ENOMEM"))), "D7", "publishes no bus"),
    "D8, no look at the old bus": (ours((NONE, "")), "D8", "batch_bus() looks into a bus that may be none"),
    "D9, passed over": (
        ours(("(p->state == STATE_REMOVED || p->bus", "(p->state != STATE_LIVE || p->bus")),
        "D9",
        "passes over",
    ),
    "D9, passed over as they are": (
        ours(("(p->state == STATE_REMOVED || p->bus", "(p->state || p->bus")),
        "D9",
        "passes over",
    ),
    "D10, no look for room": (
        ours(("		ret = kvm_io_bus_has_room(kvm, bus_idx);\n", "		ret = 0;\n")),
        "D10",
        "without a look for room",
    ),
    "D10, no room is none of a batch": (
        ours_main(
            (
                "	if (!bus)\n		return -ENOMEM;\n\n	if (bus->dev_count",
                "	if (kvm->ioeventfd_batch)\n		return 0;\n	if (!bus)\n		return -ENOMEM;\n\n	if (bus->dev_count",
            )
        ),
        "D10",
        "does not look for room while a batch is open",
    ),
    "D10, one by one": (
        ours(
            (
                PUBLISH,
                "	list_for_each_entry(p, &kvm->ioeventfds, list)\n"
                "		ret = kvm_io_bus_register_dev(kvm, p->bus_idx, p->addr, 0, &p->dev);\n" + PUBLISH,
            )
        ),
        "D10",
        "may fail for one ioeventfd after the call for it was answered",
    ),
    "D10, memory in the midst of it": (
        ours(
            (
                PUBLISH,
                PUBLISH.replace(
                    "		buses[i] = bus;\n", "		buses[i] = bus;\n		p = kmalloc(8, GFP_KERNEL);\n"
                ),
            )
        ),
        "D10",
        "needs memory when the first bus has changed already",
    ),
    "D10, nothing is undone": (ours((FAILED, "	ret = -ENOMEM;\n")), "D10", "leaves a batch that failed as it is"),
    "D11, other flags with BEGIN": (
        ours(("args->flags == KVM_IOEVENTFD_FLAG_BATCH_BEGIN", "args->flags & KVM_IOEVENTFD_FLAG_BATCH_BEGIN")),
        "D11",
        "looks for one flag of a batch and ignores the others",
    ),
    "D11, BEGIN with other flags": (ours((BOTH, "")), "D11", "ignores a flag of a batch among other flags"),
    "D11, both flags": (ours((BOTH, f"	/*\n{BOTH}	*/\n")), "D11", "ignores a flag of a batch among other flags"),
    "D11, no capability": (ours_main(("	case KVM_CAP_IOEVENTFD_BATCH:\n", "")), "D11", "no KVM_CAP tells"),
}
WHOSE = {"D1": LIST, "D2": LIST, "D4": LIST, "D12": LIST, "D6": EARLY}


@pytest.mark.parametrize("name", ALONE)
def test_one_defect(make_kvm: MakeKvm, name: str) -> None:
    files, number, reason = ALONE[name]
    whose = WHOSE.get(number, ANSWERS)
    found = look(make_kvm(files), whose)[whose]
    assert found.status is Status.AFFECTED, found
    assert numbers(found) == {number}, found
    assert any(reason in item.reason for item in found.evidence), found


RELEASED = "				bus->ioeventfd_count--;\n			ioeventfd_release(p);\n"
WAITED = "	synchronize_srcu_expedited(&kvm->srcu);\n\n	for"
SWEPT = "	list_for_each_entry_safe(p, tmp, &ks->removed, list)\n		ioeventfd_release(p);\n"
KEPT = (RELEASED, RELEASED.replace("ioeventfd_release(p)", "list_add_tail(&p->list, &ks->removed)"))
ENDS = "	struct kvm_io_bus *old[KVM_NR_BUSES];\n"
KEPT_TOO = (ENDS, ENDS + "	struct _ioeventfd *p, *tmp;\n")
FREED_LATE = (KEPT, KEPT_TOO, (WAITED, WAITED.replace("	for", SWEPT + "\n	for")))
ADDS = "	list_add_tail(&ks->list, &kvm_shadow_list);\n"
DROPS = "		list_del_init(&ks->list);\n\n	kfree(ks);\n"


def locked(text: str) -> str:
    """Return statements under a lock that all VMs share."""
    return f"	mutex_lock(&kvm_lock);\n{text}	mutex_unlock(&kvm_lock);\n"


ADDS_LOCKED = (ADDS, locked(ADDS))
DROPS_LOCKED = (
    "	if (ks)\n" + DROPS,
    locked("	if (ks)\n		list_del_init(&ks->list);\n") + "\n	kfree(ks);\n",
)
DESTROY_LOCKED = ("		list_del_init(&ks->list);\n", locked("		list_del_init(&ks->list);\n"))
WALK_LOCKED = (
    WALK + "\n	return NULL;\n",
    "	struct kvm_shadow *found = NULL;\n\n"
    + locked(
        "	list_for_each_entry(ks, &kvm_shadow_list, list)\n		if (ks->kvm == kvm)\n			found = ks;\n"
    )
    + "	return found;\n",
)
UNLOCKED_CREATE = CREATE.replace("	mutex_lock(&kvm_lock);\n", "	/* mutex_lock(&kvm_lock); */\n")
GET_BUS = REPAIRED_HOST[REPAIRED_HOST.index("static inline struct kvm_io_bus *kvm_get_bus") :]

# openEuler's versions with one thing changed: the files, the finding, its status, its defects.
CHANGED: dict[str, tuple[Files, str, Status, set[str]]] = {
    "first, freed after the grace period": (
        (edit(FIRST, *FREED_LATE), FIRST_MAIN, FIRST_HOST),
        EARLY,
        Status.FIXED,
        set(),
    ),
    "repaired, freed after the grace period": (
        (edit(REPAIRED, *FREED_LATE), REPAIRED_MAIN, REPAIRED_HOST),
        EARLY,
        Status.FIXED,
        set(),
    ),
    "first, kept, but freed before the grace period": (
        (edit(FIRST, KEPT, KEPT_TOO, (WAITED, SWEPT + WAITED)), FIRST_MAIN, FIRST_HOST),
        EARLY,
        Status.AFFECTED,
        {"D6"},
    ),
    "first, kept and never freed": ((edit(FIRST, KEPT), FIRST_MAIN, FIRST_HOST), EARLY, Status.UNKNOWN, set()),
    "first, freed late, the rest as it was": (
        (edit(FIRST, *FREED_LATE), FIRST_MAIN, FIRST_HOST),
        LIST,
        Status.AFFECTED,
        {"D1", "D2", "D4"},
    ),
    "first, lock in BEGIN alone": (
        (edit(FIRST, ADDS_LOCKED), FIRST_MAIN, FIRST_HOST),
        LIST,
        Status.AFFECTED,
        {"D1", "D2", "D4"},
    ),
    "first, no lock in the walk": (
        (edit(FIRST, ADDS_LOCKED, DROPS_LOCKED), edit(FIRST_MAIN, DESTROY_LOCKED), FIRST_HOST),
        LIST,
        Status.AFFECTED,
        {"D2"},
    ),
    "first, no lock at the end of the VM": (
        (edit(FIRST, ADDS_LOCKED, DROPS_LOCKED), FIRST_MAIN, edit(FIRST_HOST, WALK_LOCKED)),
        LIST,
        Status.AFFECTED,
        {"D4", "D12"},
    ),
    "first, locks in comments": (
        (
            edit(FIRST, (ADDS, f"	/* mutex_lock(&kvm_lock); */\n{ADDS}	/* mutex_unlock(&kvm_lock); */\n")),
            FIRST_MAIN,
            FIRST_HOST,
        ),
        LIST,
        Status.AFFECTED,
        {"D1", "D2", "D4"},
    ),
    "first, lock dropped too early": (
        (
            edit(FIRST, (ADDS, "	mutex_lock(&kvm_lock);\n	mutex_unlock(&kvm_lock);\n" + ADDS), DROPS_LOCKED),
            edit(FIRST_MAIN, DESTROY_LOCKED),
            edit(FIRST_HOST, WALK_LOCKED),
        ),
        LIST,
        Status.AFFECTED,
        {"D1", "D12"},
    ),
    "first, every lock taken: still a list of all": (
        (edit(FIRST, ADDS_LOCKED, DROPS_LOCKED), edit(FIRST_MAIN, DESTROY_LOCKED), edit(FIRST_HOST, WALK_LOCKED)),
        LIST,
        Status.AFFECTED,
        {"D12"},
    ),
    "repaired, no lock where a VM is made": (
        (REPAIRED, edit(REPAIRED_MAIN, (CREATE, UNLOCKED_CREATE)), REPAIRED_HOST),
        LIST,
        Status.AFFECTED,
        {"D1", "D12"},
    ),
    "repaired, no grace period of RCU": (
        (REPAIRED, edit(REPAIRED_MAIN, (SWEEP, "")), REPAIRED_HOST),
        LIST,
        Status.AFFECTED,
        {"D2"},
    ),
    "repaired, no RCU in the walk": (
        (
            REPAIRED,
            REPAIRED_MAIN,
            edit(REPAIRED_HOST, ("	rcu_read_lock();\n", ""), ("	rcu_read_unlock();\n", "")),
        ),
        LIST,
        Status.AFFECTED,
        {"D2"},
    ),
    "repaired, the bus of the batch for all": (
        (
            REPAIRED,
            REPAIRED_MAIN.replace(
                "kvm_get_bus(kvm, bus_idx, kvm_io_device_is_ioeventfd(dev))", "kvm_get_bus(kvm, bus_idx, true)"
            ),
            REPAIRED_HOST,
        ),
        ANSWERS,
        Status.AFFECTED,
        {"D3", "D5", "D7", "D8", "D9", "D10", "D11"},
    ),
    "repaired, every device goes to the batch": (
        (REPAIRED, REPAIRED_MAIN.replace(" && kvm_io_device_is_ioeventfd(dev)) {", ") {"), REPAIRED_HOST),
        ANSWERS,
        Status.AFFECTED,
        {"D3", "D5", "D7", "D8", "D9", "D10", "D11"},
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_changed(make_kvm: MakeKvm, name: str) -> None:
    files, whose, status, defects = CHANGED[name]
    found = look(make_kvm(files), whose)[whose]
    assert found.status is status, found
    if defects:
        assert numbers(found) == defects, found


def renamed(text: str) -> str:
    """Return the text with other names for all that the feature brought, and for the helpers of the file."""
    for old, new in (
        ("batch_", "vendor_"),
        ("kvm_assign_ioeventfd_idx", "ioe_add"),
        ("kvm_deassign_ioeventfd_idx", "ioe_del"),
        ("ioeventfd_release", "ioe_free"),
        ("ioeventfd_check_collision", "ioe_same"),
        ("STATE_", "IOE_"),
        ("->state", "->mark"),
        ("ioeventfd_vendor", "open_changes"),
    ):
        text = text.replace(old, new)
    return text


LOOSE = OURS.replace("\n	", "\n\n\t  /* x */ ").replace("(kvm", "( kvm ").replace(";", " ;")
SAME = {
    "other names": (renamed(OURS), renamed(OURS_MAIN), PLAIN_HOST),
    "white space": (LOOSE, OURS_MAIN, PLAIN_HOST),
    "DOS line ends": tuple(text.replace("\n", "\r\n") for text in (OURS, OURS_MAIN, PLAIN_HOST)),
    "no kvm_host.h": (OURS, OURS_MAIN, None),
}


@pytest.mark.parametrize("name", SAME)
def test_fixed_all_the_same(make_kvm: MakeKvm, name: str) -> None:
    found = look(make_kvm(SAME[name]))
    assert {each.status for each in found.values()} == {Status.FIXED}, found


def test_other_names_hide_no_defect(make_kvm: MakeKvm) -> None:
    files = tuple(renamed(text or "") for text in ALONE["D6, freed before the grace period"][0])
    found = look(make_kvm(files), EARLY)[EARLY]  # type: ignore[arg-type]
    assert numbers(found) == {"D6"}, found


def test_other_names_hide_no_list(make_kvm: MakeKvm) -> None:
    names = (
        ("kvm_shadow_list", "all_batches"),
        ("kvm_find_shadow", "which"),
        ("kvm_shadow", "batch"),
        ("is_kvm_in_shadow", "batched"),
    )
    files = list(OF_FIRST)
    for old, new in names:
        files = [(text or "").replace(old, new) for text in files]
    found = look(make_kvm(tuple(files)), LIST)[LIST]  # type: ignore[arg-type]
    assert numbers(found) == {"D1", "D2", "D4"}, found


ENTRY = OURS[OURS.index("int\nkvm_ioeventfd(") :]
SWITCH = """\
int
kvm_ioeventfd(struct kvm *kvm, struct kvm_ioeventfd *args)
{
	switch (args->flags & VENDOR_BATCH) {
	case KVM_IOEVENTFD_FLAG_BATCH_BEGIN:
		return batch_begin(kvm);
	case KVM_IOEVENTFD_FLAG_BATCH_END:
		return batch_end(kvm);
	}
	return kvm_assign_ioeventfd(kvm, args);
}
"""
STRANGE: dict[str, Files] = {
    "a switch": (edit(OURS, (ENTRY, SWITCH)), OURS_MAIN, PLAIN_HOST),
    "neither a list nor states": (
        PLAIN.replace(
            "	if (args->flags & KVM_IOEVENTFD_FLAG_D",
            "	if (args->flags & KVM_IOEVENTFD_FLAG_BATCH_BEGIN)\n		return vendor_begin(kvm);\n"
            "	if (args->flags & KVM_IOEVENTFD_FLAG_BATCH_END)\n		return vendor_end(kvm);\n"
            "	if (args->flags & KVM_IOEVENTFD_FLAG_D",
        ),
        PLAIN_MAIN,
        PLAIN_HOST,
    ),
    "other flags": (
        PLAIN.replace(
            "	if (args->flags & KVM_IOEVENTFD_FLAG_D",
            "	if (args->flags & VENDOR_FLAG)\n		return vendor_begin(kvm);\n	if (args->flags & KVM_IOEVENTFD_FLAG_D",
        ),
        PLAIN_MAIN,
        PLAIN_HOST,
    ),
    "no flags, but the rest": (PLAIN, FIRST_MAIN, FIRST_HOST),
    "END does not parse": (edit(OURS, (SYNC, "	%% ((\n")), OURS_MAIN, PLAIN_HOST),
    "kvm_ioeventfd() does not parse": (edit(OURS, (BOTH, "	%% ((\n")), OURS_MAIN, PLAIN_HOST),
    "kvm_ioeventfd() has another name": (OURS.replace("kvm_ioeventfd(", "kvm_set_ioeventfd("), OURS_MAIN, PLAIN_HOST),
    "a function of another file": (
        edit(OURS, (CLOSE, "	vendor_close(kvm);\n	goto out;\n")),
        OURS_MAIN,
        PLAIN_HOST,
    ),
    "no kvm_main.c": (OURS, None, PLAIN_HOST),
    "no eventfd.c": (None, OURS_MAIN, PLAIN_HOST),
    "empty files": ("", "", ""),
}


@pytest.mark.parametrize("name", STRANGE)
def test_unknown(make_kvm: MakeKvm, name: str) -> None:
    found = look(make_kvm(STRANGE[name]))
    assert {each.status for each in found.values()} == {Status.UNKNOWN}, found


NO_LOCK = (LOCKED, "	/* mutex_lock(&kvm->slots_lock); */\n" + LOCKED.partition("\n")[2])
XARRAY = (
    (
        "		kvm->ioeventfd_batch = BATCH_OPEN;\n",
        "		xa_store(&batches, (unsigned long)kvm, kvm, GFP_KERNEL);\n",
    ),
    ("	if (!kvm->ioeventfd_batch) {\n		kvm", "	if (!xa_load(&batches, (unsigned long)kvm)) {\n		kvm"),
)
# What is unknown of one finding.
DOUBTS: dict[str, tuple[Files, str]] = {
    "slots_lock in a comment": (ours(NO_LOCK), LIST),
    "what holds the batches of all VMs is no list": (ours(XARRAY[1], XARRAY[0]), LIST),
    "what was added is not told": (ours((ADDED, "")), ANSWERS),
    "a grace period on a condition that is never true": (ours(("		any = true;\n", "")), EARLY),
    "what was removed stays on its bus": (
        ours(("		if (to_ioeventfd(bus->range[i].dev)->state != STATE_REMOVED)\n	", "")),
        EARLY,
    ),
    "what was added comes on no bus": (
        ours(("		if (p->state == STATE_ADDED && p->bus", "		if (p->addr && p->bus")),
        ANSWERS,
    ),
    "a table of all VMs": (
        ours(("BATCH_OPEN;\n", "BATCH_OPEN;\n		hlist_add_head(&kvm->node, &batches[0]);\n")),
        LIST,
    ),
    "freed by the destructor": (ours((PUBLISH, "	kvm_iodevice_destructor(&p->dev);\n" + PUBLISH)), EARLY),
    "no kvm_host.h": ((FIRST.replace("&kvm_shadow_list", "ks_head(kvm)"), FIRST_MAIN, None), LIST),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_unknown_of_one(make_kvm: MakeKvm, name: str) -> None:
    files, whose = DOUBTS[name]
    found = look(make_kvm(files), whose)[whose]
    assert found.status is Status.UNKNOWN, found


@pytest.mark.parametrize("version", ["4.19.90", "6.12.1"])
def test_no_batches(make_kvm: MakeKvm, version: str) -> None:
    host = PLAIN_HOST + "/* KVM_IOEVENTFD_FLAG_BATCH_BEGIN, kvm_find_shadow(kvm) */\n"
    found = look(make_kvm(("/* KVM_IOEVENTFD_FLAG_BATCH_BEGIN */\n" + PLAIN, PLAIN_MAIN, host), version), LIST)[LIST]
    assert found.status is Status.NOT_APPLICABLE, found
    assert {item.file for item in found.evidence} == {EVENTFD, MAIN}


def test_report_names_faults_alone(tmp_path: Path) -> None:
    for name, text in zip(("fixed", "first"), (OURS, FIRST), strict=True):
        (tmp_path / name / EVENTFD).parent.mkdir(parents=True)
        (tmp_path / name / EVENTFD).write_text(text)
    command = ["spatch", "-D", "report", "--very-quiet", "--no-show-diff", "--no-includes"]
    command += ["--cocci-file", str(RULES / "kvm-shadow.cocci")]
    said = {
        name: subprocess.run(
            [*command, str(tmp_path / name / EVENTFD)], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout
        for name in ("fixed", "first")
    }
    assert not said["fixed"]
    assert said["first"] and all(": affected: D" in line for line in said["first"].splitlines())


def _features(line: str) -> list[Path]:
    return sorted((PATCHES / "kvm-shadow").glob(f"feature-v{line}.patch"))


def _part(tree: Path, root: Path, *patches: Path) -> Path:
    """Return `root` with the files of `tree` that the feature touches, and with `patches` on them."""
    for name in (EVENTFD, MAIN, HOST, "include/uapi/linux/kvm.h", "Documentation/virt/kvm/api.rst", "Makefile"):
        if (tree / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes((tree / name).read_bytes())
    for patch in patches:
        subprocess.run(["patch", "-s", "-p1", "-F0", "-d", str(root), "-i", str(patch)], check=True)
    return root


@pytest.mark.skipif(not real_trees(), reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize("path", real_trees(), ids=[path.name for path in real_trees()])
def test_real_tree(path: Path, tmp_path: Path) -> None:
    found = look(_part(path, tmp_path / "plain"))
    statuses = {each.status for each in found.values()}
    if statuses != {Status.NOT_APPLICABLE}:
        # A tree of openEuler's: both versions have all three.
        assert statuses == {Status.AFFECTED}, found
        return
    line = ".".join(path.name.split(".")[:2])
    for feature in _features(line) + (_features("7.x") if line.startswith("7.") else []):
        found = look(_part(path, tmp_path / "fixed", feature))
        assert {each.status for each in found.values()} == {Status.FIXED}, found
        for finding in BUG.findings:
            name = finding.id.partition("/")[2]
            fitting = [patch for patch in finding.reintroduce_paths if series.fits(tmp_path / "fixed", patch)]
            for patch in fitting[:1]:
                found = look(_part(path, tmp_path / name, feature, patch))
                expected = dict.fromkeys(NAMES, Status.FIXED) | {name: Status.AFFECTED}
                assert {each: item.status for each, item in found.items()} == expected, found
