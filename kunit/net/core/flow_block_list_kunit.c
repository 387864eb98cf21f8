// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the list that a driver has for the flow blocks of its devices.
 *
 * net/core/flow_offload.c includes this file, and flow_block_list_kunit.h above
 * flow_block_cb_setup_simple().  The driver is made up, and so are its devices,
 * which are no more than an address.  An actor is held where it is about to walk
 * or to change the list; whoever comes for another device must wait until it is
 * through.  The lock for that may be slept with, as memory is allocated there.
 *
 * Each step on the list is whole, so a list without a lock is not broken here.
 */
#include <linux/jiffies.h>
#include <linux/slab.h>

#undef flow_block_cb_is_busy
#undef list_add_tail
#undef list_del
#undef flow_block_cb_alloc

#define FBL_TIMEOUT	(5 * HZ)	/* no single step may take longer */
#define FBL_STILL_MS	50		/* who waits does so for that long */
#define FBL_UNKNOWN	((enum flow_block_command)(FLOW_BLOCK_UNBIND + 1))

struct fbl_ctx;

/* A device, its block, and the actor that binds and unbinds that. */
struct fbl_dev {
	struct kunit_actor actor;
	struct fbl_ctx *ctx;
	struct flow_block block;
	struct flow_block_offload offload;
	int ret;
};

struct fbl_ctx {
	struct list_head list;		/* the driver's */
	struct fbl_dev first, other;
};

static int fbl_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return -EOPNOTSUPP;
}

/* What a driver's ndo_setup_tc() does, and what its caller does then. */
static void fbl_setup(struct kunit_actor *actor)
{
	struct fbl_dev *dev = container_of(actor, struct fbl_dev, actor);
	struct flow_block_offload *f = &dev->offload;
	struct flow_block_cb *block_cb, *next;

	dev->ret = flow_block_cb_setup_simple(f, &dev->ctx->list, fbl_cb, dev,
					      dev, true);
	if (dev->ret)
		return;
	if (f->command == FLOW_BLOCK_BIND) {
		list_splice(&f->cb_list, &dev->block.cb_list);
		return;
	}
	list_for_each_entry_safe(block_cb, next, &f->cb_list, list)
		flow_block_cb_free(block_cb);
}

/* Start an actor that makes one call for the device, when it is let go. */
static void fbl_start(struct kunit *test, struct fbl_dev *dev,
		      enum flow_block_command command)
{
	memset(&dev->offload, 0, sizeof(dev->offload));
	dev->offload.command = command;
	dev->offload.binder_type = FLOW_BLOCK_BINDER_TYPE_CLSACT_INGRESS;
	dev->offload.block = &dev->block;
	INIT_LIST_HEAD(&dev->offload.cb_list);
	dev->ret = 1;
	kunit_actor_start(test, &dev->actor, fbl_setup, -1);
}

/* It comes to its end in time, which it does not if the lock was left behind. */
static void fbl_finish(struct kunit *test, struct fbl_dev *dev, int ret)
{
	kunit_actor_finish(test, &dev->actor, FBL_TIMEOUT);
	KUNIT_EXPECT_EQ(test, dev->ret, ret);
	KUNIT_ASSERT_TRUE(test, kunit_actor_end(&dev->actor, FBL_TIMEOUT));
}

static void fbl_run(struct kunit *test, struct fbl_dev *dev,
		    enum flow_block_command command)
{
	fbl_start(test, dev, command);
	kunit_actor_go(&dev->actor);
	fbl_finish(test, dev, 0);
}

/* The device is on the driver's list so often, and its block knows of it. */
static void fbl_expect_bound(struct kunit *test, struct fbl_dev *dev, int times)
{
	struct flow_block_cb *block_cb;
	int on_list = 0, in_block = 0;

	list_for_each_entry(block_cb, &dev->ctx->list, driver_list)
		on_list += block_cb->cb_ident == dev;
	list_for_each_entry(block_cb, &dev->block.cb_list, list)
		in_block += block_cb->cb_ident == dev;
	KUNIT_EXPECT_EQ(test, on_list, times);
	KUNIT_EXPECT_EQ(test, in_block, times);
}

/* It goes to sleep before it is through, and does not wake by itself. */
static bool fbl_waits(struct fbl_dev *dev)
{
	unsigned long end = jiffies + FBL_TIMEOUT;

	while (!kunit_actor_slept(&dev->actor)) {
		if (completion_done(&dev->actor.done) || time_after(jiffies, end))
			return false;
		usleep_range(50, 100);
	}
	return kunit_actor_sleeps_on(&dev->actor, FBL_STILL_MS);
}

struct fbl_wait_case {
	const char *name;
	enum fbl_place place;
	enum flow_block_command first, other;
};

static const struct fbl_wait_case fbl_wait_cases[] = {
	{ "bind meets a walk", FBL_WALK, FLOW_BLOCK_BIND, FLOW_BLOCK_BIND },
	{ "unbind meets a walk", FBL_WALK, FLOW_BLOCK_BIND, FLOW_BLOCK_UNBIND },
	{ "bind meets a bind", FBL_ADD, FLOW_BLOCK_BIND, FLOW_BLOCK_BIND },
	{ "unbind meets a bind", FBL_ADD, FLOW_BLOCK_BIND, FLOW_BLOCK_UNBIND },
	{ "bind meets an unbind", FBL_DEL, FLOW_BLOCK_UNBIND, FLOW_BLOCK_BIND },
	{ "unbind meets an unbind", FBL_DEL, FLOW_BLOCK_UNBIND,
	  FLOW_BLOCK_UNBIND },
};

static void fbl_wait_desc(const struct fbl_wait_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(fbl_wait, fbl_wait_cases, fbl_wait_desc);

/* While one is at the list, nobody else gets there. */
static void flow_block_list_test_one_at_a_time(struct kunit *test)
{
	const struct fbl_wait_case *c = test->param_value;
	struct fbl_ctx *ctx = test->priv;
	struct fbl_dev *first = &ctx->first, *other = &ctx->other;

	if (c->first == FLOW_BLOCK_UNBIND)
		fbl_run(test, first, FLOW_BLOCK_BIND);
	if (c->other == FLOW_BLOCK_UNBIND)
		fbl_run(test, other, FLOW_BLOCK_BIND);
	fbl_start(test, first, c->first);
	fbl_start(test, other, c->other);

	fbl.place = c->place;
	fbl.actor = &first->actor;
	kunit_actor_go(&first->actor);
	KUNIT_ASSERT_TRUE(test, kunit_actor_arrived(&first->actor, FBL_TIMEOUT));
	KUNIT_ASSERT_TRUE_MSG(test, fbl.came, "nobody came to the list");
	kunit_actor_go(&other->actor);
	KUNIT_EXPECT_TRUE_MSG(test, fbl_waits(other),
			      "it was at the list, and so was another");
	kunit_actor_go(&first->actor);

	fbl_finish(test, first, 0);
	fbl_finish(test, other, 0);
	fbl_expect_bound(test, first, c->first == FLOW_BLOCK_BIND);
	fbl_expect_bound(test, other, c->other == FLOW_BLOCK_BIND);
}

struct fbl_refused_case {
	const char *name;
	enum flow_block_command command;
	bool bound;
	bool no_memory;
	int ret;
};

static const struct fbl_refused_case fbl_refused_cases[] = {
	{ "bound already", FLOW_BLOCK_BIND, true, false, -EBUSY },
	{ "no memory", FLOW_BLOCK_BIND, false, true, -ENOMEM },
	{ "not bound", FLOW_BLOCK_UNBIND, false, false, -ENOENT },
	{ "unknown command", FBL_UNKNOWN, true, false, -EOPNOTSUPP },
};

static void fbl_refused_desc(const struct fbl_refused_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(fbl_refused, fbl_refused_cases, fbl_refused_desc);

/* What is refused leaves the list as it was, and no lock behind. */
static void flow_block_list_test_refused(struct kunit *test)
{
	const struct fbl_refused_case *c = test->param_value;
	struct fbl_ctx *ctx = test->priv;

	if (c->bound)
		fbl_run(test, &ctx->first, FLOW_BLOCK_BIND);
	fbl_start(test, &ctx->first, c->command);
	fbl.place = FBL_ALLOC;
	fbl.actor = c->no_memory ? &ctx->first.actor : NULL;
	kunit_actor_go(&ctx->first.actor);
	fbl_finish(test, &ctx->first, c->ret);
	fbl_expect_bound(test, &ctx->first, c->bound);
	KUNIT_EXPECT_EQ(test, fbl.came, c->no_memory);

	fbl_run(test, &ctx->other, FLOW_BLOCK_BIND);
	fbl_run(test, &ctx->other, FLOW_BLOCK_UNBIND);
	fbl_expect_bound(test, &ctx->other, 0);
	fbl_expect_bound(test, &ctx->first, c->bound);
}

static void fbl_init_dev(struct fbl_ctx *ctx, struct fbl_dev *dev)
{
	dev->ctx = ctx;
	flow_block_init(&dev->block);
}

static int fbl_init(struct kunit *test)
{
	struct fbl_ctx *ctx;

	/* Not kunit_kzalloc(): freed only when every thread has ended. */
	ctx = kzalloc(sizeof(*ctx), GFP_KERNEL);
	if (!ctx)
		return -ENOMEM;
	INIT_LIST_HEAD(&ctx->list);
	fbl_init_dev(ctx, &ctx->first);
	fbl_init_dev(ctx, &ctx->other);
	memset(&fbl, 0, sizeof(fbl));
	test->priv = ctx;
	return 0;
}

static void fbl_exit(struct kunit *test)
{
	struct fbl_ctx *ctx = test->priv;
	struct flow_block_cb *block_cb, *next;

	if (!ctx)
		return;
	if (!kunit_actor_end(&ctx->first.actor, FBL_TIMEOUT) ||
	    !kunit_actor_end(&ctx->other.actor, FBL_TIMEOUT)) {
		kunit_err(test, "an actor is stuck: its memory stays");
		return;
	}
	fbl.actor = NULL;
	list_for_each_entry_safe(block_cb, next, &ctx->list, driver_list)
		flow_block_cb_free(block_cb);
	kfree(ctx);
}

static struct kunit_case flow_block_list_test_cases[] = {
	KUNIT_CASE_PARAM(flow_block_list_test_one_at_a_time,
			 fbl_wait_gen_params),
	KUNIT_CASE_PARAM(flow_block_list_test_refused, fbl_refused_gen_params),
	{}
};

static struct kunit_suite flow_block_list_test_suite = {
	.name = "flow_block_list",
	.init = fbl_init,
	.exit = fbl_exit,
	.test_cases = flow_block_list_test_cases,
};

kunit_test_suite(flow_block_list_test_suite);
