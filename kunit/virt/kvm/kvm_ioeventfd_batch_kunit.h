/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the suite kvm_ioeventfd_batch puts between eventfd.c and the rest of the
 * kernel: eventfds that are made up, as no KUnit thread has files, and
 * allocations that fail when a test says so.  Both are for kernel threads only.
 * And where a tree keeps the state of a batch.
 *
 * eventfd.c includes this file below its own includes.
 */
#ifndef KVM_IOEVENTFD_BATCH_KUNIT_H
#define KVM_IOEVENTFD_BATCH_KUNIT_H

#include <linux/atomic.h>
#include <linux/sched.h>

/* File numbers of the made-up eventfds: from here downwards. */
#define KIB_FD(nr)	(-1000 - (nr))
#define KIB_FDS		8

struct kib_eventfd {
	atomic_t gets;
	atomic_t puts;
	atomic_t signals;
};

static struct kib_eventfd kib_eventfds[KIB_FDS];

static struct eventfd_ctx *kib_eventfd_ctx_fdget(int fd)
{
	int nr = KIB_FD(0) - fd;

	if (!(current->flags & PF_KTHREAD) || nr < 0 || nr >= KIB_FDS)
		return eventfd_ctx_fdget(fd);
	atomic_inc(&kib_eventfds[nr].gets);
	return (struct eventfd_ctx *)&kib_eventfds[nr];
}

static struct kib_eventfd *kib_made_up(struct eventfd_ctx *ctx)
{
	struct kib_eventfd *e = (struct kib_eventfd *)ctx;

	return e >= kib_eventfds && e < kib_eventfds + KIB_FDS ? e : NULL;
}

static void kib_eventfd_ctx_put(struct eventfd_ctx *ctx)
{
	if (kib_made_up(ctx))
		atomic_inc(&kib_made_up(ctx)->puts);
	else
		eventfd_ctx_put(ctx);
}

static bool kib_eventfd_signal(struct eventfd_ctx *ctx)
{
	if (kib_made_up(ctx))
		atomic_inc(&kib_made_up(ctx)->signals);
	return kib_made_up(ctx);
}

/* The thread whose allocations are counted down to the one that fails. */
static struct task_struct *kib_alloc_task;
static int kib_allocs_left;

static bool kib_alloc_fails(void)
{
	return READ_ONCE(kib_alloc_task) == current && !--kib_allocs_left;
}

static inline void *kib_kmalloc(size_t size, gfp_t flags)
{
	return kib_alloc_fails() ? NULL : kmalloc(size, flags);
}

static inline void *kib_kzalloc(size_t size, gfp_t flags)
{
	return kib_alloc_fails() ? NULL : kzalloc(size, flags);
}

#ifdef KVM_CAP_IOEVENTFD_BATCH
/* A byte of the VM, and one of each ioeventfd. */
#define kib_state(p)		((p)->state)
#define kib_is_on_bus(p)	((p)->state != IOEVENTFD_ADDED)
#define kib_batch_make(kvm)	0
#define kib_batch_drop(kvm)	kvm_ioeventfd_batch_abort(kvm)
#else
/*
 * openEuler's own versions, which have no capability: an object on a list of
 * all VMs, where the calls of the batch are noted.  The first version makes it
 * in BEGIN, the repaired one with the VM.
 */
#define KIB_MADE_WITH_VM							\
	__builtin_types_compatible_p(typeof(kvm_release_ioeventfds_shadow),	\
				     void (struct kvm_shadow *))
#define ioeventfd_batch_object(kvm)	kvm_find_shadow(kvm)
#define kib_state(p)			0
#define kib_is_on_bus(p)		((p)->bus_idx < KVM_NR_BUSES)

/* As kvm_create_vm() does. */
static int kib_batch_make(struct kvm *kvm)
{
	struct kvm_shadow *ks;

	if (!KIB_MADE_WITH_VM)
		return 0;
	ks = kzalloc(sizeof(*ks), GFP_KERNEL);
	if (!ks)
		return -ENOMEM;
	INIT_LIST_HEAD(&ks->ioeventfds_shadow);
	ks->kvm = kvm;
	mutex_lock(&kvm_lock);
	list_add_tail_rcu(&ks->list, &kvm_shadow_list);
	mutex_unlock(&kvm_lock);
	return 0;
}

/* As kvm_destroy_vm() does. */
static void kib_batch_drop(struct kvm *kvm)
{
	struct kvm_shadow *ks = kvm_find_shadow(kvm);

	if (!ks)
		return;
	kvm_release_ioeventfds_shadow(__builtin_choose_expr(KIB_MADE_WITH_VM,
							    ks, kvm));
	if (KIB_MADE_WITH_VM) {
		mutex_lock(&kvm_lock);
		list_del_rcu(&ks->list);
		mutex_unlock(&kvm_lock);
		synchronize_rcu();
	} else {
		list_del_init(&ks->list);
	}
	kfree(ks);
}
#endif

#define eventfd_ctx_fdget(fd)	kib_eventfd_ctx_fdget(fd)
#define eventfd_ctx_put(ctx)	kib_eventfd_ctx_put(ctx)
/* Up to v6.7 it is told how often. */
#define eventfd_signal(ctx, ...)						\
({										\
	struct eventfd_ctx *__ctx = ctx;					\
										\
	if (!kib_eventfd_signal(__ctx))						\
		eventfd_signal(__ctx, ##__VA_ARGS__);				\
})
#undef kmalloc
#define kmalloc(size, flags)	kib_kmalloc(size, flags)
#undef kzalloc
#define kzalloc(size, flags)	kib_kzalloc(size, flags)

#endif
