/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the suite kvm_ioeventfd_batch puts between eventfd.c and the rest of the
 * kernel: eventfds that are made up, as no KUnit thread has files, and
 * allocations that fail when a test says so.  Both are for kernel threads only.
 * And a count of the places where others may run.
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

/* The thread that calls back before it takes a reference. */
static struct task_struct *kib_fdget_task;
static void (*kib_fdget_hook)(void);

static struct eventfd_ctx *kib_eventfd_ctx_fdget(int fd)
{
	int nr = KIB_FD(0) - fd;

	if (READ_ONCE(kib_fdget_task) == current)
		kib_fdget_hook();
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

/* What is watched for being freed; it is then set to NULL. */
static void *kib_watched;

static inline void kib_kfree(const void *p)
{
	if (p)
		cmpxchg(&kib_watched, (void *)p, NULL);
	kfree(p);
}

/* The thread whose places where others may run are counted. */
static struct task_struct *kib_resched_task;
static int kib_rescheds;

static inline void kib_cond_resched(void)
{
	if (READ_ONCE(kib_resched_task) == current)
		kib_rescheds++;
	cond_resched();
}

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
#undef kfree
#define kfree(p)		kib_kfree(p)
#undef cond_resched
#define cond_resched()		kib_cond_resched()

#endif
