// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of batches of ioeventfd changes.
 *
 * virt/kvm/eventfd.c includes this file, and above its code the header that
 * makes up eventfds and failing allocations.  The VMs are made up too: of
 * struct kvm there is what kvm_ioeventfd() and the buses need, so that no
 * virtualization hardware is wanted.
 *
 * Every wait is bounded.  What a thread may still use is never freed.
 */
#include <kunit/actors.h>
#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/prandom.h>
#include <linux/string.h>

#ifndef IOEVENTFD_SHADOW_FLAG_ADD
/* A bool of the VM and a state of each ioeventfd; a test may have it elsewhere. */
#ifndef ioeventfd_batch_object
#define ioeventfd_batch_object(kvm)	(&(kvm)->ioeventfd_batch)
#endif
#define kib_state(p)		((p)->state)
#define kib_is_on_bus(p)	((p)->state != IOEVENTFD_ADDED)
#define kib_look_removed(p)	((p)->state = IOEVENTFD_REMOVED, (p)->deaf = true)
#define kib_batch_make(kvm)	0
#define kib_batch_drop(kvm)	kvm_ioeventfd_batch_abort(kvm)
#else
/*
 * openEuler's own versions note the calls of a batch in an object on a list of
 * all VMs.  The first version makes it in BEGIN, the repaired one with the VM.
 */
#define KIB_MADE_WITH_VM							\
	__builtin_types_compatible_p(typeof(kvm_release_ioeventfds_shadow),	\
				     void (struct kvm_shadow *))
#define ioeventfd_batch_object(kvm)	kvm_find_shadow(kvm)
#define kib_state(p)			0
#define kib_is_on_bus(p)		((p)->bus_idx < KVM_NR_BUSES)
#define kib_look_removed(p)	do { } while (0)

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

#define KIB_TIMEOUT	(10 * HZ)	/* no single step may take longer */
#define KIB_WATCH	(HZ / 20)	/* how long nothing may happen */
#define KIB_MAX_VMS	2
#define KIB_MAX_ACTORS	4
#define KIB_MAX_ENTRIES	64		/* more ioeventfds than that: a loop */
#define KIB_ADDR	0x1000

#define KIB_BEGIN	KVM_IOEVENTFD_FLAG_BATCH_BEGIN
#define KIB_END		KVM_IOEVENTFD_FLAG_BATCH_END
#define KIB_PIO		KVM_IOEVENTFD_FLAG_PIO
#define KIB_CCW		KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY
#define KIB_MATCH	KVM_IOEVENTFD_FLAG_DATAMATCH
#define KIB_DEASSIGN	KVM_IOEVENTFD_FLAG_DEASSIGN
#define KIB_UNKNOWN	BIT(31)

/* The case of allocation failures. */
#define KIB_MAX_ALLOCS	32

/* The case of QEMU's batches. */
#define KIB_QUEUES	16

/* The case of the grace periods. */
#define KIB_HALF	32

/* The load case. */
#define KIB_ROUNDS	2500		/* for each of four threads */
#define KIB_REAL	16		/* one round of so many changes the bus */

/* The case of the random sequences. */
#define KIB_SEED	0x6b6d656e64ULL
#define KIB_SEQUENCES	1000
#define KIB_CALLS	12
#define KIB_FRESH	10		/* sequences between new VMs */
#define KIB_PAST	8

struct kib_ctx;

struct kib_actor {
	struct kunit_actor actor;
	struct kib_ctx *ctx;
	struct kvm *kvm;
	void (*fn)(struct kib_actor *a);
	int nr;
	bool destroy;			/* it ends the VM, not the batch */
	int wrong;			/* calls that gave an errno they must not */
	unsigned long rounds;
	int ret;
};

/* Threads that are all in the middle of a batch at once. */
struct kib_meeting {
	atomic_t absent;
	struct completion full;
};

/* A device that is no ioeventfd, but for its operations would be a removed one. */
struct kib_device {
	struct _ioeventfd like;
	int writes;
	int destroyed;
};

struct kib_ctx {
	int nr_vms;
	struct kvm *vms[KIB_MAX_VMS];
	int nr_actors;
	struct kib_actor actors[KIB_MAX_ACTORS];
	struct kib_meeting meeting;
	struct kvm_vcpu *vcpu;
	struct kib_device device;
	struct kib_device other;
};

/* The ioeventfds of a VM, in the order of its list. */
struct kib_list {
	int nr;
	struct _ioeventfd *p[KIB_MAX_ENTRIES];
};

static int kib_flags(struct kvm *kvm, u32 flags)
{
	struct kvm_ioeventfd args = {
		.flags = flags,
		.fd = KIB_FD(KIB_FDS - 1),
		.addr = KIB_ADDR,
		.len = 4,
	};

	return kvm_ioeventfd(kvm, &args);
}

static int kib_begin(struct kvm *kvm)
{
	return kib_flags(kvm, KIB_BEGIN);
}

static int kib_end(struct kvm *kvm)
{
	return kib_flags(kvm, KIB_END);
}

/* The nr-th address with the nr-th eventfd. */
static int kib_change(struct kvm *kvm, u32 flags, int nr, u32 len)
{
	struct kvm_ioeventfd args = {
		.flags = flags,
		.fd = KIB_FD(nr % (KIB_FDS - 1)),
		.addr = KIB_ADDR + 8 * nr,
		.len = len,
	};

	return kvm_ioeventfd(kvm, &args);
}

static int kib_assign(struct kvm *kvm, int nr)
{
	return kib_change(kvm, KIB_PIO, nr, 4);
}

static int kib_deassign(struct kvm *kvm, int nr)
{
	return kib_change(kvm, KIB_PIO | KIB_DEASSIGN, nr, 4);
}

/* References that are held on a made-up eventfd. */
static int kib_refs(int nr)
{
	return atomic_read(&kib_eventfds[nr].gets) -
	       atomic_read(&kib_eventfds[nr].puts);
}

static int kib_all_refs(void)
{
	int i, refs = 0;

	for (i = 0; i < KIB_FDS; i++)
		refs += kib_refs(i);
	return refs;
}

/* The bus as vCPUs see it. */
static struct kvm_io_bus *kib_bus(struct kvm *kvm, enum kvm_bus idx)
{
	return rcu_dereference_protected(kvm->buses[idx], true);
}

static bool kib_on_bus(struct kvm *kvm, enum kvm_bus idx,
		       struct kvm_io_device *dev)
{
	struct kvm_io_bus *bus = kib_bus(kvm, idx);
	int i;

	for (i = 0; bus && i < bus->dev_count; i++)
		if (bus->range[i].dev == dev)
			return true;
	return false;
}

/* A write by the guest; returns how often the eventfd was signalled. */
static int kib_write(struct kib_ctx *ctx, struct kvm *kvm, int nr)
{
	atomic_t *signals = &kib_eventfds[nr % (KIB_FDS - 1)].signals;
	int before = atomic_read(signals);
	u32 val = 0;
	int idx;

	ctx->vcpu->kvm = kvm;
	idx = srcu_read_lock(&kvm->srcu);
	kvm_io_bus_write(ctx->vcpu, KVM_PIO_BUS, KIB_ADDR + 8 * nr, sizeof(val),
			 &val);
	srcu_read_unlock(&kvm->srcu, idx);
	return atomic_read(signals) - before;
}

static bool kib_get_list(struct kvm *kvm, struct kib_list *list)
{
	struct _ioeventfd *p;

	list->nr = 0;
	list_for_each_entry(p, &kvm->ioeventfds, list) {
		if (list->nr == KIB_MAX_ENTRIES)
			return false;
		list->p[list->nr++] = p;
	}
	return true;
}

static int kib_list_len(struct kvm *kvm)
{
	struct kib_list list;

	return kib_get_list(kvm, &list) ? list.nr : -1;
}

static void kib_destroy_bus(struct kvm *kvm, enum kvm_bus idx)
{
	struct kvm_io_bus *bus = kib_bus(kvm, idx);
	int i;

	RCU_INIT_POINTER(kvm->buses[idx], NULL);
	for (i = 0; bus && i < bus->dev_count; i++)
		bus->range[i].dev->ops->destructor(bus->range[i].dev);
	kfree(bus);
}

/* As kvm_destroy_vm() does; returns the number of ioeventfds left behind. */
static int kib_destroy(struct kvm *kvm)
{
	struct _ioeventfd *p, *tmp;
	int i, left = 0;

	refcount_set(&kvm->users_count, 0);
	kib_batch_drop(kvm);
	for (i = 0; i < KVM_NR_BUSES; i++)
		kib_destroy_bus(kvm, i);
	list_for_each_entry_safe(p, tmp, &kvm->ioeventfds, list) {
		ioeventfd_release(p);
		left++;
	}
	/* In v7.x a bus that was replaced may not be freed yet. */
	srcu_barrier(&kvm->srcu);
	cleanup_srcu_struct(&kvm->srcu);
	kvfree(kvm);
	return left;
}

static int kib_destroy_last(struct kib_ctx *ctx)
{
	return kib_destroy(ctx->vms[--ctx->nr_vms]);
}

static struct kvm *kib_create(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm;
	int i, err;

	KUNIT_ASSERT_LT(test, ctx->nr_vms, KIB_MAX_VMS);
	kvm = kvzalloc(sizeof(*kvm), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, kvm);
	err = init_srcu_struct(&kvm->srcu);
	if (err)
		kvfree(kvm);
	KUNIT_ASSERT_EQ(test, err, 0);
	mutex_init(&kvm->slots_lock);
	refcount_set(&kvm->users_count, 1);
	kvm_eventfd_init(kvm);
	ctx->vms[ctx->nr_vms++] = kvm;
	KUNIT_ASSERT_EQ(test, kib_batch_make(kvm), 0);
	for (i = 0; i < KVM_NR_BUSES; i++) {
		struct kvm_io_bus *bus = kzalloc(sizeof(*bus), GFP_KERNEL);

		KUNIT_ASSERT_NOT_NULL(test, bus);
		rcu_assign_pointer(kvm->buses[i], bus);
	}
	return kvm;
}

static void kib_run(struct kunit_actor *actor)
{
	struct kib_actor *a = container_of(actor, struct kib_actor, actor);

	a->fn(a);
}

static struct kib_actor *kib_start(struct kunit *test, struct kvm *kvm,
				   void (*fn)(struct kib_actor *a), bool destroy)
{
	struct kib_ctx *ctx = test->priv;
	struct kib_actor *a = &ctx->actors[ctx->nr_actors];

	KUNIT_ASSERT_LT(test, ctx->nr_actors, KIB_MAX_ACTORS);
	*a = (struct kib_actor) {
		.ctx = ctx,
		.kvm = kvm,
		.fn = fn,
		.nr = ctx->nr_actors++,
		.destroy = destroy,
	};
	kunit_actor_start(test, &a->actor, kib_run, -1);
	return a;
}

/* Each of its calls was answered as it must be, the last one, too. */
static void kib_expect_done(struct kunit *test, struct kib_actor *a)
{
	kunit_actor_finish(test, &a->actor, KIB_TIMEOUT);
	KUNIT_EXPECT_EQ(test, a->wrong, 0);
	KUNIT_EXPECT_EQ(test, a->ret, 0);
}

/*
 * The flags of the two calls, alone and with others: the errno while no batch
 * is open, and while one is.
 */
struct kib_flags_case {
	const char *name;
	u32 flags;
	int closed;
	int open;
};

static const struct kib_flags_case kib_flags_cases[] = {
	{ "begin", KIB_BEGIN, 0, -EBUSY },
	{ "end", KIB_END, -EINVAL, 0 },
	{ "begin and end", KIB_BEGIN | KIB_END, -EINVAL, -EINVAL },
	{ "begin and deassign", KIB_BEGIN | KIB_DEASSIGN, -EINVAL, -EINVAL },
	{ "begin and pio", KIB_BEGIN | KIB_PIO, -EINVAL, -EINVAL },
	{ "begin and datamatch", KIB_BEGIN | KIB_MATCH, -EINVAL, -EINVAL },
	{ "begin and unknown", KIB_BEGIN | KIB_UNKNOWN, -EINVAL, -EINVAL },
	{ "end and deassign", KIB_END | KIB_DEASSIGN, -EINVAL, -EINVAL },
	{ "end and pio", KIB_END | KIB_PIO, -EINVAL, -EINVAL },
	{ "end and datamatch", KIB_END | KIB_MATCH, -EINVAL, -EINVAL },
	{ "end and unknown", KIB_END | KIB_UNKNOWN, -EINVAL, -EINVAL },
	{ "unknown", KIB_UNKNOWN, -EINVAL, -EINVAL },
};

static void kib_flags_desc(const struct kib_flags_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(kib_flags, kib_flags_cases, kib_flags_desc);

/* Close the batch, and say if there was one. */
static bool kib_was_open(struct kvm *kvm)
{
	return kib_end(kvm) != -EINVAL;
}

static void kvm_ioeventfd_batch_test_flags(struct kunit *test)
{
	const struct kib_flags_case *c = test->param_value;
	struct kvm *kvm = kib_create(test);

	KUNIT_EXPECT_EQ(test, kib_flags(kvm, c->flags), c->closed);
	KUNIT_EXPECT_EQ(test, kib_was_open(kvm), !c->closed);

	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_flags(kvm, c->flags), c->open);
	KUNIT_EXPECT_EQ(test, kib_was_open(kvm), !!c->open);

	/* The ioeventfd of this batch is there, and no other one. */
	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 1);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->ioeventfd_count, 1);
}

/* An ioeventfd that the batch, or the bus, has already is not taken again. */
static void kvm_ioeventfd_batch_test_duplicates(struct kunit *test)
{
	struct kvm *kvm = kib_create(test);

	KUNIT_ASSERT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), -EEXIST);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 1), -EEXIST);

	/* Without a length it matches any length at its address, on MMIO. */
	KUNIT_EXPECT_EQ(test, kib_change(kvm, 0, 2, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, 0, 2, 4), -EEXIST);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, 0, 2, 0), -EEXIST);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, KIB_PIO, 2, 4), 0);

	/* One with another eventfd, address, length or value is not taken away. */
	KUNIT_EXPECT_EQ(test, kib_flags(kvm, KIB_PIO | KIB_DEASSIGN), -ENOENT);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, KIB_FDS - 1), -ENOENT);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, KIB_PIO | KIB_DEASSIGN, 0, 2), -ENOENT);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, KIB_PIO | KIB_MATCH | KIB_DEASSIGN,
					 0, 4), -ENOENT);

	/* What was removed is no obstacle. */
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), -ENOENT);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), -EEXIST);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);

	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 5);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->dev_count, 3);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count, 1);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_FAST_MMIO_BUS)->dev_count, 1);
}

/* What one batch adds and removes leaves nothing. */
static void kvm_ioeventfd_batch_test_added_and_removed(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);

	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), -ENOENT);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), -ENOENT);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, 0, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, KIB_DEASSIGN, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);

	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 0);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 0), 0);
}

static int kib_device_write(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
			    gpa_t addr, int len, const void *val)
{
	container_of(dev, struct kib_device, like.dev)->writes++;
	return 0;
}

static void kib_device_destructor(struct kvm_io_device *dev)
{
	container_of(dev, struct kib_device, like.dev)->destroyed++;
}

static const struct kvm_io_device_ops kib_device_ops = {
	.write = kib_device_write,
	.destructor = kib_device_destructor,
};

static int kib_register(struct kvm *kvm, struct kib_device *d, int nr)
{
	int ret;

	kvm_iodevice_init(&d->like.dev, &kib_device_ops);
	kib_look_removed(&d->like);
	mutex_lock(&kvm->slots_lock);
	ret = kvm_io_bus_register_dev(kvm, KVM_PIO_BUS, KIB_ADDR + 8 * nr, 4,
				      &d->like.dev);
	mutex_unlock(&kvm->slots_lock);
	return ret;
}

static int kib_unregister(struct kvm *kvm, struct kib_device *d)
{
	int ret;

	mutex_lock(&kvm->slots_lock);
	ret = kvm_io_bus_unregister_dev(kvm, KVM_PIO_BUS, &d->like.dev);
	mutex_unlock(&kvm->slots_lock);
	return ret;
}

static const bool kib_in_batch_cases[] = { false, true };

static void kib_in_batch_desc(const bool *in_batch, char *desc)
{
	strscpy(desc, *in_batch ? "in a batch" : "without a batch",
		KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(kib_in_batch, kib_in_batch_cases, kib_in_batch_desc);

/* A device that is no ioeventfd comes at once, stays over END, goes at once. */
static void kvm_ioeventfd_batch_test_other_device(struct kunit *test)
{
	bool in_batch = *(const bool *)test->param_value;
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);
	struct kib_device *d = &ctx->device;

	KUNIT_ASSERT_EQ(test, kib_assign(kvm, 0), 0);
	if (in_batch)
		KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_register(kvm, d, 5), 0);
	KUNIT_EXPECT_TRUE(test, kib_on_bus(kvm, KVM_PIO_BUS, &d->like.dev));
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 6), 0);
	if (in_batch)
		KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);

	KUNIT_EXPECT_TRUE(test, kib_on_bus(kvm, KVM_PIO_BUS, &d->like.dev));
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->dev_count, 3);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->ioeventfd_count, 2);
	kib_write(ctx, kvm, 5);
	KUNIT_EXPECT_EQ(test, d->writes, 1);

	if (in_batch)
		KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_unregister(kvm, d), 0);
	KUNIT_EXPECT_FALSE(test, kib_on_bus(kvm, KVM_PIO_BUS, &d->like.dev));
	KUNIT_EXPECT_EQ(test, d->destroyed, 1);
	if (in_batch)
		KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_FALSE(test, kib_on_bus(kvm, KVM_PIO_BUS, &d->like.dev));
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->dev_count, 1);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->ioeventfd_count, 1);
}

/* The call that finds the bus full says so, not END. */
static void kvm_ioeventfd_batch_test_full_bus(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);
	struct kvm_io_bus *bus;
	int i;

	bus = kzalloc(struct_size(bus, range, NR_IOBUS_DEVS), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, bus);
	kvm_iodevice_init(&ctx->device.like.dev, &kib_device_ops);
	bus->dev_count = NR_IOBUS_DEVS;
	for (i = 0; i < NR_IOBUS_DEVS; i++)
		bus->range[i] = (struct kvm_io_range) {
			.addr = KIB_ADDR + 8 * (i + 1),
			.len = 4,
			.dev = &ctx->device.like.dev,
		};
	kib_destroy_bus(kvm, KVM_PIO_BUS);
	rcu_assign_pointer(kvm->buses[KVM_PIO_BUS], bus);

	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), -ENOSPC);
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), -ENOSPC);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, 0, 0, 4), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);

	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 1);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->dev_count,
			NR_IOBUS_DEVS);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count, 1);

	/* The last place is one. */
	kib_bus(kvm, KVM_PIO_BUS)->dev_count--;
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->dev_count,
			NR_IOBUS_DEVS);
}

/* A write goes to the one ioeventfd of its address that has its data. */
static void kvm_ioeventfd_batch_test_data(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);
	struct kvm_ioeventfd other = {
		.flags = KIB_PIO | KIB_MATCH,
		.fd = KIB_FD(2),
		.addr = KIB_ADDR + 8,
		.len = 4,
		.datamatch = 1,
	};

	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kvm_ioeventfd(kvm, &other), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, KIB_PIO | KIB_MATCH, 1, 4), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 1), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&kib_eventfds[2].signals), 0);
}

/* Changes of three buses, two of which have an ioeventfd from before. */
static const struct {
	u32 flags;
	int nr;
	u32 len;
} kib_some_changes[] = {
	{ 0, 2, 0 },
	{ KIB_DEASSIGN, 0, 4 },
	{ KIB_PIO, 3, 4 },
	{ KIB_PIO | KIB_DEASSIGN, 1, 4 },
};

/* Returns those that found no memory, a bit for each. */
static unsigned long kib_make_changes(struct kunit *test, struct kvm *kvm)
{
	unsigned long errors = 0;
	int i, ret;

	for (i = 0; i < ARRAY_SIZE(kib_some_changes); i++) {
		ret = kib_change(kvm, kib_some_changes[i].flags,
				 kib_some_changes[i].nr,
				 kib_some_changes[i].len);
		if (ret == -ENOMEM)
			errors |= BIT(i);
		else
			KUNIT_EXPECT_EQ_MSG(test, ret, 0, "change %d", i);
	}
	return errors;
}

/* The changes are made, but for those that found no memory, which add. */
static void kib_expect_changes(struct kunit *test, struct kvm *kvm,
			       unsigned long errors)
{
	int any_length = !(errors & BIT(0)), pio = !(errors & BIT(2));
	int i, expected[KVM_NR_BUSES] = {
		[KVM_MMIO_BUS] = any_length,
		[KVM_FAST_MMIO_BUS] = any_length,
		[KVM_PIO_BUS] = pio,
	};

	KUNIT_EXPECT_EQ(test, errors & ~(BIT(0) | BIT(2)), 0UL);
	for (i = 0; i < KVM_NR_BUSES; i++) {
		KUNIT_EXPECT_EQ_MSG(test, kib_bus(kvm, i)->dev_count,
				    expected[i], "bus %d, errors %#lx", i,
				    errors);
		KUNIT_EXPECT_EQ(test, kib_bus(kvm, i)->ioeventfd_count,
				expected[i]);
	}
	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 2 * any_length + pio);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 2 * any_length + pio);
}

/*
 * Let one allocation fail.  Returns false if the batch did not come to it, and
 * has thus succeeded.
 */
static bool kib_fail_alloc(struct kunit *test, int nr)
{
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);
	struct kvm_io_bus *buses[KVM_NR_BUSES];
	struct kib_list before, after;
	bool failed, same = true;
	unsigned long errors;
	int i, ret, refs;

	KUNIT_ASSERT_EQ(test, kib_change(kvm, 0, 0, 4), 0);
	KUNIT_ASSERT_EQ(test, kib_assign(kvm, 1), 0);
	for (i = 0; i < KVM_NR_BUSES; i++)
		buses[i] = kib_bus(kvm, i);
	KUNIT_ASSERT_TRUE(test, kib_get_list(kvm, &before));
	refs = kib_all_refs();

	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	kib_allocs_left = nr;
	WRITE_ONCE(kib_alloc_task, current);
	errors = kib_make_changes(test, kvm);
	ret = kib_end(kvm);
	WRITE_ONCE(kib_alloc_task, NULL);
	failed = kib_allocs_left <= 0;

	KUNIT_EXPECT_EQ_MSG(test, ret, failed && !errors ? -ENOMEM : 0,
			    "END, with allocation %d to fail", nr);
	KUNIT_EXPECT_FALSE(test, kib_was_open(kvm));

	/* A call that fails changes nothing, and the batch goes on. */
	if (!failed || errors) {
		for (i = 0; same && i < KVM_NR_BUSES; i++)
			same = kib_bus(kvm, i);
		KUNIT_EXPECT_TRUE_MSG(test, same, "a bus is gone");
		if (same)
			kib_expect_changes(test, kvm, errors);
		goto out;
	}

	KUNIT_EXPECT_TRUE(test, kib_get_list(kvm, &after));
	for (i = 0; i < KVM_NR_BUSES; i++)
		same = same && kib_bus(kvm, i) == buses[i];
	KUNIT_EXPECT_TRUE_MSG(test, same,
			      "a bus changed though allocation %d failed", nr);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), refs);
	KUNIT_EXPECT_EQ(test, after.nr, before.nr);
	if (!same || after.nr != before.nr)
		goto out;
	for (i = 0; i < before.nr; i++)
		KUNIT_EXPECT_PTR_EQ(test, after.p[i], before.p[i]);

	/* The next batch is none the worse for it. */
	KUNIT_EXPECT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_make_changes(test, kvm), 0UL);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	kib_expect_changes(test, kvm, 0);
out:
	KUNIT_EXPECT_EQ_MSG(test, kib_destroy_last(ctx), 0,
			    "ioeventfds left, with allocation %d to fail", nr);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 0);
	return failed;
}

/*
 * If a call finds no memory, its own change is not made; if END finds none, none
 * of them is.
 */
static void kvm_ioeventfd_batch_test_no_memory(struct kunit *test)
{
	int nr = 1;

	while (nr < KIB_MAX_ALLOCS && kib_fail_alloc(test, nr))
		nr++;
	kunit_info(test, "%d allocations failed in turn", nr - 1);

	/* Three ioeventfds and three buses, at the least. */
	KUNIT_EXPECT_GT(test, nr, 6);
	KUNIT_EXPECT_LT(test, nr, KIB_MAX_ALLOCS);
}

static u32 kib_random(struct rnd_state *rnd, u32 below)
{
	return prandom_u32_state(rnd) % below;
}

/* A call, mostly about an ioeventfd that an earlier one was about. */
static struct kvm_ioeventfd kib_random_call(struct rnd_state *rnd,
					    struct kvm_ioeventfd *past)
{
	static const u32 lens[] = { 0, 0, 1, 2, 4, 8, 3 };
	static const u32 kinds[] = { 0, KIB_PIO, KIB_CCW };
	struct kvm_ioeventfd *args = &past[kib_random(rnd, KIB_PAST)];

	if (!kib_random(rnd, 4))
		*args = (struct kvm_ioeventfd) {
			.fd = KIB_FD(kib_random(rnd, 3)),
			.addr = KIB_ADDR + 8 * kib_random(rnd, 6),
			.len = lens[kib_random(rnd, ARRAY_SIZE(lens))],
			.datamatch = kib_random(rnd, 2),
			.flags = KIB_DEASSIGN |
				 kinds[kib_random(rnd, ARRAY_SIZE(kinds))],
		};
	if (args->len && !kib_random(rnd, 4))
		args->flags ^= KIB_MATCH;
	args->flags ^= KIB_DEASSIGN;
	return *args;
}

static bool kib_same(const struct _ioeventfd *a, const struct _ioeventfd *b)
{
	return kib_state(a) == kib_state(b) && a->bus_idx == b->bus_idx &&
	       a->addr == b->addr && a->length == b->length &&
	       a->eventfd == b->eventfd && a->wildcard == b->wildcard &&
	       a->datamatch == b->datamatch;
}

static bool kib_same_bus(const struct kvm_io_bus *a, const struct kvm_io_bus *b)
{
	int i;

	if (!a || !b || a->dev_count != b->dev_count ||
	    a->ioeventfd_count != b->ioeventfd_count ||
	    a->ioeventfd_count != a->dev_count)
		return false;
	for (i = 0; i < a->dev_count; i++)
		if (a->range[i].addr != b->range[i].addr ||
		    a->range[i].len != b->range[i].len ||
		    !kib_same(to_ioeventfd(a->range[i].dev),
			      to_ioeventfd(b->range[i].dev)))
			return false;
	return true;
}

static bool kib_same_vm(struct kvm *a, struct kvm *b)
{
	struct kib_list la, lb;
	int i;

	if (!kib_get_list(a, &la) || !kib_get_list(b, &lb) || la.nr != lb.nr)
		return false;
	for (i = 0; i < la.nr; i++)
		if (!kib_same(la.p[i], lb.p[i]))
			return false;
	for (i = 0; i < KVM_NR_BUSES; i++)
		if (!kib_same_bus(kib_bus(a, i), kib_bus(b, i)))
			return false;
	return true;
}

/* The same calls in batches and without: the same answers, and all the same. */
static void kvm_ioeventfd_batch_test_same_as_unbatched(struct kunit *test)
{
	struct kvm_ioeventfd args, past[KIB_PAST] = {};
	struct kvm *one_by_one = NULL, *batched = NULL;
	struct kib_ctx *ctx = test->priv;
	int i, seq, want, ret, made = 0;
	struct rnd_state rnd;
	bool open = false;

	for (i = 0; i < KIB_PAST; i++)
		past[i].fd = KIB_FD(0);
	prandom_seed_state(&rnd, KIB_SEED);
	kunit_info(test, "seed %#llx", KIB_SEED);

	for (seq = 0; seq < KIB_SEQUENCES; seq++) {
		if (!(seq % KIB_FRESH)) {
			while (ctx->nr_vms)
				KUNIT_ASSERT_EQ(test, kib_destroy_last(ctx), 0);
			one_by_one = kib_create(test);
			batched = kib_create(test);
		}
		for (i = 0; i < KIB_CALLS; i++) {
			if (!open && !kib_random(&rnd, 2)) {
				KUNIT_ASSERT_EQ(test, kib_begin(batched), 0);
				open = true;
			}
			args = kib_random_call(&rnd, past);
			want = kvm_ioeventfd(one_by_one, &args);
			ret = kvm_ioeventfd(batched, &args);
			KUNIT_ASSERT_EQ_MSG(test, ret, want,
					    "sequence %d, call %d, flags %#x, addr %#llx, len %u",
					    seq, i, args.flags, args.addr,
					    args.len);
			made += !ret;
			if (open && !kib_random(&rnd, 6)) {
				KUNIT_ASSERT_EQ(test, kib_end(batched), 0);
				open = false;
			}
		}
		if (open)
			KUNIT_ASSERT_EQ(test, kib_end(batched), 0);
		open = false;
		KUNIT_ASSERT_TRUE_MSG(test, kib_same_vm(one_by_one, batched),
				      "differ after sequence %d, with %d and %d ioeventfds",
				      seq, kib_list_len(one_by_one),
				      kib_list_len(batched));
	}
	kunit_info(test, "%d of %d calls made a change", made,
		   KIB_SEQUENCES * KIB_CALLS);
	KUNIT_EXPECT_GT(test, made, KIB_SEQUENCES);
}

static struct task_struct *kib_grace_task;
static int kib_graces;

static int kib_count_grace(struct kprobe *kp, struct pt_regs *regs)
{
	if (current == READ_ONCE(kib_grace_task))
		kib_graces++;
	return 0;
}

static void kib_remove_probe(void *kp)
{
	unregister_kprobe(kp);
}

/* A batch waits once, whatever its size, and till then vCPUs see no change. */
static void kvm_ioeventfd_batch_test_one_grace_period(struct kunit *test)
{
	static struct kprobe kp;
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);
	struct kvm_io_bus *bus;
	int i;

	kp = (struct kprobe) {
		.symbol_name = "synchronize_srcu_expedited",
		.pre_handler = kib_count_grace,
	};
	KUNIT_ASSERT_EQ(test, register_kprobe(&kp), 0);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, kib_remove_probe, &kp));
	WRITE_ONCE(kib_grace_task, current);

	for (i = 0; i < KIB_HALF; i++)
		KUNIT_ASSERT_EQ(test, kib_assign(kvm, i), 0);
	kib_graces = 0;
	for (i = 0; i < KIB_HALF; i++)
		KUNIT_ASSERT_EQ(test, kib_deassign(kvm, i), 0);
	KUNIT_EXPECT_EQ(test, kib_graces, KIB_HALF);

	for (i = 0; i < KIB_HALF; i++)
		KUNIT_ASSERT_EQ(test, kib_assign(kvm, i), 0);
	kib_graces = 0;
	bus = kib_bus(kvm, KVM_PIO_BUS);
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	for (i = 0; i < KIB_HALF; i++) {
		KUNIT_ASSERT_EQ(test, kib_deassign(kvm, i), 0);
		KUNIT_ASSERT_EQ(test, kib_assign(kvm, KIB_HALF + i), 0);
	}
	/* One of each other bus. */
	KUNIT_ASSERT_EQ(test, kib_change(kvm, 0, 0, 0), 0);
	KUNIT_ASSERT_EQ(test, kib_change(kvm, KIB_CCW, 0, 8), 0);
	KUNIT_EXPECT_EQ(test, kib_graces, 0);
	KUNIT_EXPECT_PTR_EQ(test, kib_bus(kvm, KVM_PIO_BUS), bus);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 0), 1);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, KIB_HALF), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_graces, 1);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count, 1);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_FAST_MMIO_BUS)->dev_count, 1);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_VIRTIO_CCW_NOTIFY_BUS)->dev_count,
			1);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, KIB_HALF), 1);

	/* A batch that comes to nothing has nothing to wait for. */
	kib_graces = 0;
	KUNIT_EXPECT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_graces, 0);
	WRITE_ONCE(kib_grace_task, NULL);
}

static void kib_remove_in_batch(struct kib_actor *a)
{
	a->wrong += !!kib_begin(a->kvm);
	a->wrong += !!kib_deassign(a->kvm, 0);
	a->ret = kib_end(a->kvm);
}

/*
 * Stand in for a vCPU that is about to call the device that it found on the
 * bus: END may publish a new bus, but must free the device only afterwards.
 */
static void kvm_ioeventfd_batch_test_not_freed_under_reader(struct kunit *test)
{
	struct kvm *kvm = kib_create(test);
	unsigned long end = jiffies + KIB_TIMEOUT;
	struct kvm_io_device *dev;
	struct kvm_io_bus *bus;
	struct kib_actor *a;
	u32 val = 0;
	int idx;

	KUNIT_ASSERT_EQ(test, kib_assign(kvm, 0), 0);
	a = kib_start(test, kvm, kib_remove_in_batch, false);

	idx = srcu_read_lock(&kvm->srcu);
	bus = srcu_dereference(kvm->buses[KVM_PIO_BUS], &kvm->srcu);
	WRITE_ONCE(kib_watched, bus);
	kunit_actor_go(&a->actor);
	while (srcu_dereference(kvm->buses[KVM_PIO_BUS], &kvm->srcu) == bus &&
	       time_before(jiffies, end))
		usleep_range(50, 100);
	KUNIT_EXPECT_PTR_NE(test, kib_bus(kvm, KVM_PIO_BUS), bus);
	KUNIT_EXPECT_EQ_MSG(test, kib_refs(0), 1,
			    "the eventfd was put when the bus was published");
	KUNIT_EXPECT_FALSE_MSG(test, kunit_actor_join(&a->actor, KIB_WATCH),
			       "END returned under a reader");
	KUNIT_EXPECT_EQ(test, kib_refs(0), 1);
	KUNIT_EXPECT_PTR_EQ_MSG(test, READ_ONCE(kib_watched), (void *)bus,
				"the old bus was freed under a reader");
	if (kib_refs(0) == 1 && READ_ONCE(kib_watched) == bus) {
		dev = bus->range[0].dev;
		KUNIT_EXPECT_EQ(test, 0,
				dev->ops->write(NULL, dev, KIB_ADDR,
						sizeof(val), &val));
		KUNIT_EXPECT_EQ(test,
				atomic_read(&kib_eventfds[0].signals), 1);
	}
	srcu_read_unlock(&kvm->srcu, idx);

	kib_expect_done(test, a);
	KUNIT_EXPECT_EQ(test, kib_refs(0), 0);
	KUNIT_EXPECT_NULL(test, READ_ONCE(kib_watched));
}

static const bool kib_destroy_cases[] = { false, true };

static void kib_destroy_desc(const bool *destroy, char *desc)
{
	strscpy(desc, *destroy ? "other VM destroyed" : "other VM's batch",
		KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(kib_destroy, kib_destroy_cases, kib_destroy_desc);

static void kib_begin_and_end(struct kib_actor *a)
{
	a->wrong += !!kib_begin(a->kvm);
	a->wrong += !!kib_assign(a->kvm, 0);
	if (!kunit_actor_pause(&a->actor))
		return;
	if (a->destroy)
		kib_batch_drop(a->kvm);
	else
		a->ret = kib_end(a->kvm);
}

/*
 * What is guarded by a VM's slots_lock does not change while the test holds
 * it: not by another VM's batch that opens, nor by its end.
 */
static void kvm_ioeventfd_batch_test_still_while_locked(struct kunit *test)
{
	bool destroy = *(const bool *)test->param_value;
	struct kvm *kvm = kib_create(test);
	struct kvm *other = kib_create(test);
	u8 before[sizeof(*ioeventfd_batch_object(kvm))];
	u8 opened[sizeof(before)], closed[sizeof(before)];
	bool has_begun, has_ended;
	struct kib_actor *a;
	void *state;

	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	a = kib_start(test, other, kib_begin_and_end, destroy);

	mutex_lock(&kvm->slots_lock);
	state = ioeventfd_batch_object(kvm);
	memcpy(before, state, sizeof(before));
	kunit_actor_go(&a->actor);
	has_begun = kunit_actor_arrived(&a->actor, KIB_TIMEOUT);
	memcpy(opened, state, sizeof(opened));
	kunit_actor_go(&a->actor);
	has_ended = kunit_actor_join(&a->actor, KIB_TIMEOUT);
	memcpy(closed, state, sizeof(closed));
	mutex_unlock(&kvm->slots_lock);

	KUNIT_EXPECT_TRUE_MSG(test, has_begun && has_ended,
			      "one VM's batch waits for another VM's lock");
	kib_expect_done(test, a);
	KUNIT_EXPECT_MEMEQ_MSG(test, opened, before, sizeof(before),
			       "another VM's BEGIN changed it");
	KUNIT_EXPECT_MEMEQ_MSG(test, closed, opened, sizeof(opened),
			       "another VM's %s changed it",
			       destroy ? "destruction" : "END");
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
}

/* A VM that goes with its batch open leaves nothing. */
static void kvm_ioeventfd_batch_test_destroyed_in_batch(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);

	KUNIT_ASSERT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_ASSERT_EQ(test, kib_change(kvm, 0, 1, 0), 0);
	KUNIT_ASSERT_EQ(test, kib_assign(kvm, 2), 0);
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, KIB_DEASSIGN, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 3), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, 0, 4, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 7);

	KUNIT_EXPECT_EQ(test, kib_destroy_last(ctx), 0);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 0);
}

/*
 * List and buses agree: what is live or to be removed is on its bus, once, and
 * nothing else is.
 */
static bool kib_consistent_locked(struct kvm *kvm)
{
	int on_bus[KVM_NR_BUSES] = {};
	struct kvm_io_bus *bus;
	struct kib_list list;
	struct _ioeventfd *p;
	bool on;
	int i, j;

	lockdep_assert_held(&kvm->slots_lock);

	if (!kib_get_list(kvm, &list))
		return false;
	for (i = 0; i < list.nr; i++) {
		p = list.p[i];
		on = kib_is_on_bus(p);
		if (kib_on_bus(kvm, p->bus_idx, &p->dev) != on)
			return false;
		on_bus[p->bus_idx] += on;
	}
	for (i = 0; i < KVM_NR_BUSES; i++) {
		bus = kib_bus(kvm, i);
		if (!bus || bus->dev_count != on_bus[i] ||
		    bus->ioeventfd_count != on_bus[i])
			return false;
		for (j = 1; j < bus->dev_count; j++)
			if (bus->range[j - 1].addr >= bus->range[j].addr)
				return false;
	}
	return true;
}

static bool kib_consistent(struct kvm *kvm)
{
	bool ret;

	mutex_lock(&kvm->slots_lock);
	ret = kib_consistent_locked(kvm);
	mutex_unlock(&kvm->slots_lock);
	return ret;
}

/*
 * Two threads share a VM, so either one may find the batch open already, or
 * ended by the other one.  Their ioeventfds are their own.
 */
static void kib_load(struct kib_actor *a)
{
	unsigned long i;
	int ret;

	for (i = 0; i < KIB_ROUNDS && !a->wrong; i++) {
		bool real = !(i % KIB_REAL);

		ret = kib_begin(a->kvm);
		a->wrong += ret && ret != -EBUSY;
		a->wrong += !!kib_assign(a->kvm, a->nr);
		/* In the first round nobody ends before all have begun. */
		if (!i) {
			if (atomic_dec_and_test(&a->ctx->meeting.absent))
				complete_all(&a->ctx->meeting.full);
			a->wrong += !wait_for_completion_timeout(&a->ctx->meeting.full,
								 KIB_TIMEOUT);
		}
		if (!real)
			a->wrong += !!kib_deassign(a->kvm, a->nr);
		ret = kib_end(a->kvm);
		a->wrong += ret && ret != -EINVAL;
		if (real)
			a->wrong += !!kib_deassign(a->kvm, a->nr);
		a->wrong += !kib_consistent(a->kvm);
		a->rounds++;
		cond_resched();
	}
}

static void kvm_ioeventfd_batch_test_two_vms_under_load(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	struct kib_actor *a;
	int i;

	kib_create(test);
	kib_create(test);
	atomic_set(&ctx->meeting.absent, KIB_MAX_ACTORS);
	init_completion(&ctx->meeting.full);
	for (i = 0; i < KIB_MAX_ACTORS; i++)
		kib_start(test, ctx->vms[i % 2], kib_load, false);
	for (i = 0; i < KIB_MAX_ACTORS; i++)
		kunit_actor_go(&ctx->actors[i].actor);
	for (i = 0; i < KIB_MAX_ACTORS; i++) {
		a = &ctx->actors[i];
		KUNIT_ASSERT_TRUE_MSG(test,
				      kunit_actor_join(&a->actor, 3 * KIB_TIMEOUT),
				      "thread %d stands still in round %lu", i,
				      a->rounds);
		KUNIT_EXPECT_EQ_MSG(test, a->wrong, 0, "thread %d, round %lu",
				    i, a->rounds);
		KUNIT_EXPECT_EQ(test, a->rounds, (unsigned long)KIB_ROUNDS);
	}
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&ctx->meeting.absent), 0,
			    "the batches did not overlap");
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 0);
}

/* The VM that the hook below ends the batch of. */
static struct kvm *kib_halves_kvm;
static int kib_halves;

/*
 * Stand in for another thread whose END finds no memory, as soon as it can get
 * in between the two halves of an ioeventfd without a length.
 */
static void kib_end_between(void)
{
	if (++kib_halves != 2 || mutex_is_locked(&kib_halves_kvm->slots_lock))
		return;
	kib_allocs_left = 1;
	WRITE_ONCE(kib_alloc_task, current);
	kib_end(kib_halves_kvm);
	WRITE_ONCE(kib_alloc_task, NULL);
}

static const bool kib_deassign_cases[] = { false, true };

static void kib_deassign_desc(const bool *deassign, char *desc)
{
	strscpy(desc, *deassign ? "deassign" : "assign", KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(kib_deassign, kib_deassign_cases, kib_deassign_desc);

/* No END comes between the two halves: both are there, or none. */
static void kvm_ioeventfd_batch_test_both_halves(struct kunit *test)
{
	bool deassign = *(const bool *)test->param_value;
	struct kvm *kvm = kib_create(test);

	if (deassign)
		KUNIT_ASSERT_EQ(test, kib_change(kvm, 0, 1, 0), 0);
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	kib_halves_kvm = kvm;
	kib_halves = 0;
	kib_fdget_hook = kib_end_between;
	WRITE_ONCE(kib_fdget_task, current);
	KUNIT_EXPECT_EQ(test,
			kib_change(kvm, deassign ? KIB_DEASSIGN : 0, 1, 0), 0);
	WRITE_ONCE(kib_fdget_task, NULL);
	KUNIT_EXPECT_EQ(test, kib_halves, 2);
	kib_was_open(kvm);

	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count, !deassign);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_FAST_MMIO_BUS)->dev_count,
			!deassign);
	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), deassign ? 0 : 2);
}

/*
 * Removing does not fail: not without a batch, and not in one that does nothing
 * else.  What could not be taken off its bus takes no writes.
 */
static void kvm_ioeventfd_batch_test_only_removals(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);
	struct kvm_io_bus *bus;
	int i;

	KUNIT_ASSERT_EQ(test, kib_register(kvm, &ctx->device, 9), 0);
	for (i = 0; i < 4; i++)
		KUNIT_ASSERT_EQ(test, kib_assign(kvm, i), 0);
	KUNIT_ASSERT_EQ(test, kib_change(kvm, 0, 5, 4), 0);
	bus = kib_bus(kvm, KVM_PIO_BUS);

	/* The MMIO bus, the first, gets its memory; the PIO bus does not. */
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 2), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, KIB_DEASSIGN, 5, 4), 0);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 0), 1);
	kib_allocs_left = 2;
	WRITE_ONCE(kib_alloc_task, current);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	WRITE_ONCE(kib_alloc_task, NULL);
	KUNIT_EXPECT_EQ(test, kib_allocs_left, 0);
	KUNIT_EXPECT_FALSE(test, kib_was_open(kvm));

	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count, 0);
	KUNIT_EXPECT_PTR_EQ(test, kib_bus(kvm, KVM_PIO_BUS), bus);
	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 2);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ_MSG(test, kib_write(ctx, kvm, i), i % 2,
				    "ioeventfd %d", i);
	kib_write(ctx, kvm, 9);
	KUNIT_EXPECT_EQ(test, ctx->device.writes, 1);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), -ENOENT);

	/* A batch that is undone leaves it as it is. */
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), 0);
	kib_allocs_left = 1;
	WRITE_ONCE(kib_alloc_task, current);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), -ENOMEM);
	WRITE_ONCE(kib_alloc_task, NULL);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 2);

	/* Its place can be taken, and the next batch there frees it. */
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 0), 1);
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->dev_count, 3);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_PIO_BUS)->ioeventfd_count, 2);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 2);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 0), 1);

	/* Or the VM's end does. */
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 3), 0);
	kib_allocs_left = 1;
	WRITE_ONCE(kib_alloc_task, current);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	WRITE_ONCE(kib_alloc_task, NULL);
	KUNIT_EXPECT_EQ(test, kib_destroy_last(ctx), 0);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 0);
}

/* A long END lets others run, for each that it adds and each that it removes. */
static void kvm_ioeventfd_batch_test_lets_others_run(struct kunit *test)
{
	struct kvm *kvm = kib_create(test);
	int i;

	for (i = 0; i < KIB_HALF; i++)
		KUNIT_ASSERT_EQ(test, kib_assign(kvm, i), 0);
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	for (i = 0; i < KIB_HALF; i++) {
		KUNIT_ASSERT_EQ(test, kib_deassign(kvm, i), 0);
		KUNIT_ASSERT_EQ(test, kib_assign(kvm, KIB_HALF + i), 0);
	}
	kib_rescheds = 0;
	WRITE_ONCE(kib_resched_task, current);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	WRITE_ONCE(kib_resched_task, NULL);
	/* It looks at them twice, adds, and frees or keeps. */
	KUNIT_EXPECT_GE(test, kib_rescheds, 4 * 2 * KIB_HALF);
}

/* The place of a device on a bus, or -1. */
static int kib_place(struct kvm *kvm, struct kvm_io_device *dev)
{
	struct kvm_io_bus *bus = kib_bus(kvm, KVM_PIO_BUS);
	int i;

	for (i = 0; i < bus->dev_count; i++)
		if (bus->range[i].dev == dev)
			return i;
	return -1;
}

/*
 * Of devices with the same range the one that came first is asked first; an
 * ioeventfd of a batch came when the batch ended.
 */
static void kvm_ioeventfd_batch_test_order(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	struct kvm *kvm = kib_create(test);

	/* One by one. */
	KUNIT_ASSERT_EQ(test, kib_register(kvm, &ctx->device, 1), 0);
	KUNIT_ASSERT_EQ(test, kib_register(kvm, &ctx->other, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_place(kvm, &ctx->device.like.dev), 0);
	KUNIT_EXPECT_EQ(test, kib_place(kvm, &ctx->other.like.dev), 1);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, ctx->device.writes, 1);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_unregister(kvm, &ctx->device), 0);
	KUNIT_EXPECT_EQ(test, kib_unregister(kvm, &ctx->other), 0);

	/* In a batch, and with neighbours on both sides. */
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 2), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_register(kvm, &ctx->device, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_register(kvm, &ctx->other, 1), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_place(kvm, &ctx->device.like.dev), 1);
	KUNIT_EXPECT_EQ(test, kib_place(kvm, &ctx->other.like.dev), 2);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 1), 0);
	KUNIT_EXPECT_EQ(test, ctx->device.writes, 2);
	KUNIT_EXPECT_EQ(test, kib_unregister(kvm, &ctx->device), 0);
	KUNIT_EXPECT_EQ(test, kib_unregister(kvm, &ctx->other), 0);
	KUNIT_EXPECT_EQ(test, kib_write(ctx, kvm, 1), 1);
}

static void kib_begin_alone(struct kib_actor *a)
{
	a->ret = kib_begin(a->kvm);
}

/* BEGIN waits for the VM's lock. */
static void kvm_ioeventfd_batch_test_begin_locks(struct kunit *test)
{
	struct kvm *kvm = kib_create(test);
	unsigned long end = jiffies + KIB_TIMEOUT;
	struct kib_actor *a;
	bool waits, done;

	a = kib_start(test, kvm, kib_begin_alone, false);
	mutex_lock(&kvm->slots_lock);
	kunit_actor_go(&a->actor);
	do {
		usleep_range(50, 100);
		done = completion_done(&a->actor.done);
		waits = !list_empty(&kvm->slots_lock.wait_list);
	} while (!waits && !done && time_before(jiffies, end));
	KUNIT_EXPECT_TRUE(test, waits);
	KUNIT_EXPECT_FALSE(test, done);
	mutex_unlock(&kvm->slots_lock);

	kib_expect_done(test, a);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
}

/* A bus goes, as after a failure to shrink it, with what a batch has removed. */
static void kvm_ioeventfd_batch_test_bus_gone_with_removed(struct kunit *test)
{
	struct kvm *kvm = kib_create(test);

	KUNIT_ASSERT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_ASSERT_EQ(test, kib_assign(kvm, 1), 0);
	KUNIT_ASSERT_EQ(test, kib_change(kvm, 0, 2, 4), 0);
	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_deassign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, KIB_DEASSIGN, 2, 4), 0);
	kib_destroy_bus(kvm, KVM_PIO_BUS);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count, 0);
	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_all_refs(), 0);
}

/* One queue: an MMIO address of any length, and a port by its data. */
static void kib_queue(struct kunit *test, struct kvm *kvm, int nr, u32 flags)
{
	struct kvm_ioeventfd mmio = {
		.fd = KIB_FD(nr % (KIB_FDS - 1)),
		.addr = KIB_ADDR + 0x1000 * nr,
		.flags = flags,
	}, pio = {
		.fd = KIB_FD(nr % (KIB_FDS - 1)),
		.addr = KIB_ADDR,
		.len = 2,
		.datamatch = nr,
		.flags = KIB_PIO | KIB_MATCH | flags,
	};

	KUNIT_EXPECT_EQ_MSG(test, kvm_ioeventfd(kvm, &mmio), 0, "queue %d", nr);
	KUNIT_EXPECT_EQ_MSG(test, kvm_ioeventfd(kvm, &pio), 0, "queue %d", nr);
}

/* As QEMU sends it: sorted by address, removals and additions in turn. */
static void kvm_ioeventfd_batch_test_as_qemu(struct kunit *test)
{
	struct kvm *kvm = kib_create(test);
	struct kvm_io_bus *bus;
	int i;

	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	for (i = 0; i < KIB_QUEUES; i += 2)
		kib_queue(test, kvm, i, 0);
	KUNIT_ASSERT_EQ(test, kib_end(kvm), 0);

	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	for (i = 0; i < KIB_QUEUES; i++)
		kib_queue(test, kvm, i, i % 2 ? 0 : KIB_DEASSIGN);
	KUNIT_ASSERT_EQ(test, kib_end(kvm), 0);

	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count,
			KIB_QUEUES / 2);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_FAST_MMIO_BUS)->dev_count,
			KIB_QUEUES / 2);
	bus = kib_bus(kvm, KVM_PIO_BUS);
	KUNIT_ASSERT_EQ(test, bus->dev_count, KIB_QUEUES / 2);
	for (i = 0; i < bus->dev_count; i++)
		KUNIT_EXPECT_EQ(test, to_ioeventfd(bus->range[i].dev)->datamatch,
				2ULL * i + 1);
}

/*
 * A bus that is gone, as after a failure to shrink it, makes the batch fail,
 * in the call as in END.
 */
static void kvm_ioeventfd_batch_test_bus_gone(struct kunit *test)
{
	struct kvm *kvm = kib_create(test);

	KUNIT_ASSERT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, 0, 1, 4), 0);
	kib_destroy_bus(kvm, KVM_PIO_BUS);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), -ENOMEM);
	KUNIT_EXPECT_NULL(test, kib_bus(kvm, KVM_PIO_BUS));
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count, 0);
	KUNIT_EXPECT_EQ(test, kib_list_len(kvm), 0);

	KUNIT_EXPECT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_assign(kvm, 0), -ENOMEM);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);

	/* The other buses are still good for a batch. */
	KUNIT_EXPECT_EQ(test, kib_begin(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_change(kvm, 0, 1, 4), 0);
	KUNIT_EXPECT_EQ(test, kib_end(kvm), 0);
	KUNIT_EXPECT_EQ(test, kib_bus(kvm, KVM_MMIO_BUS)->dev_count, 1);
}

static int kib_init(struct kunit *test)
{
	struct kib_ctx *ctx;

	/* Not kunit_kzalloc(): freed only when every thread has ended. */
	ctx = kvzalloc(sizeof(*ctx), GFP_KERNEL);
	if (!ctx)
		return -ENOMEM;
	test->priv = ctx;
	ctx->vcpu = kvzalloc(sizeof(*ctx->vcpu), GFP_KERNEL);
	if (!ctx->vcpu)
		return -ENOMEM;
	memset(kib_eventfds, 0, sizeof(kib_eventfds));
	return 0;
}

static void kib_exit(struct kunit *test)
{
	struct kib_ctx *ctx = test->priv;
	bool lost = false;
	int i;

	WRITE_ONCE(kib_alloc_task, NULL);
	WRITE_ONCE(kib_grace_task, NULL);
	WRITE_ONCE(kib_fdget_task, NULL);
	WRITE_ONCE(kib_resched_task, NULL);
	WRITE_ONCE(kib_watched, NULL);
	if (!ctx)
		return;
	for (i = 0; i < ctx->nr_actors; i++)
		lost |= !kunit_actor_end(&ctx->actors[i].actor, KIB_TIMEOUT);
	/* A thread that is stuck still uses the memory: let it leak. */
	if (lost) {
		KUNIT_FAIL(test, "a thread does not end");
		return;
	}
	while (ctx->nr_vms)
		KUNIT_EXPECT_EQ_MSG(test, kib_destroy_last(ctx), 0,
				    "ioeventfds left on no bus");
	KUNIT_EXPECT_EQ_MSG(test, kib_all_refs(), 0, "references to eventfds");
	kvfree(ctx->vcpu);
	kvfree(ctx);
}

/*
 * The cases that crash a faulty kernel come last: the load, if it is unlucky,
 * and the bus that is gone.
 */
static struct kunit_case kvm_ioeventfd_batch_test_cases[] = {
	KUNIT_CASE_PARAM(kvm_ioeventfd_batch_test_still_while_locked,
			 kib_destroy_gen_params),
	KUNIT_CASE(kvm_ioeventfd_batch_test_not_freed_under_reader),
	KUNIT_CASE_PARAM(kvm_ioeventfd_batch_test_other_device,
			 kib_in_batch_gen_params),
	KUNIT_CASE(kvm_ioeventfd_batch_test_duplicates),
	KUNIT_CASE(kvm_ioeventfd_batch_test_added_and_removed),
	KUNIT_CASE_PARAM(kvm_ioeventfd_batch_test_flags, kib_flags_gen_params),
	KUNIT_CASE(kvm_ioeventfd_batch_test_full_bus),
	KUNIT_CASE(kvm_ioeventfd_batch_test_data),
	KUNIT_CASE(kvm_ioeventfd_batch_test_no_memory),
	KUNIT_CASE(kvm_ioeventfd_batch_test_destroyed_in_batch),
	KUNIT_CASE(kvm_ioeventfd_batch_test_one_grace_period),
	KUNIT_CASE(kvm_ioeventfd_batch_test_begin_locks),
	KUNIT_CASE_PARAM(kvm_ioeventfd_batch_test_both_halves,
			 kib_deassign_gen_params),
	KUNIT_CASE(kvm_ioeventfd_batch_test_lets_others_run),
	KUNIT_CASE(kvm_ioeventfd_batch_test_order),
	KUNIT_CASE(kvm_ioeventfd_batch_test_as_qemu),
	KUNIT_CASE_SLOW(kvm_ioeventfd_batch_test_same_as_unbatched),
	KUNIT_CASE_SLOW(kvm_ioeventfd_batch_test_two_vms_under_load),
	KUNIT_CASE(kvm_ioeventfd_batch_test_only_removals),
	KUNIT_CASE(kvm_ioeventfd_batch_test_bus_gone_with_removed),
	KUNIT_CASE(kvm_ioeventfd_batch_test_bus_gone),
	{}
};

static struct kunit_suite kvm_ioeventfd_batch_test_suite = {
	.name = "kvm_ioeventfd_batch",
	.init = kib_init,
	.exit = kib_exit,
	.test_cases = kvm_ioeventfd_batch_test_cases,
};

kunit_test_suite(kvm_ioeventfd_batch_test_suite);
