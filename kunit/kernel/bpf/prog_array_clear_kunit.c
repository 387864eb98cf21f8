// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of what clears a prog array once the last user has let go of it.
 *
 * kernel/bpf/arraymap.c includes this file, so that the tests reach the array's
 * work.  Each time that the users' count falls to 0 a reference is taken for
 * that work, however many falls it takes care of: as many must be given back.
 *
 * The map has no id and no descriptor.  A case takes and drops what a user has
 * who gets a descriptor and closes it again.
 */
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/filter.h>
#include <linux/jiffies.h>
#include <linux/preempt.h>
#include <linux/workqueue.h>

#define PAC_TIMEOUT	(5 * HZ)	/* for the work to begin */
#define PAC_REFS	1000LL		/* the test's, so that nothing is freed */

struct pac_ctx {
	struct bpf_map *map;
	struct bpf_array *array;
	struct bpf_prog *prog;		/* never run */
	int missed;			/* falls that did not meet the work */
};

/* A user comes, sees to it that the one slot is full, and goes. */
static void pac_fall(struct pac_ctx *ctx)
{
	bpf_map_inc_with_uref(ctx->map);
	bpf_prog_inc(ctx->prog);
	if (xchg(&ctx->array->ptrs[0], ctx->prog))
		bpf_prog_put(ctx->prog);
	bpf_map_put_with_uref(ctx->map);
}

/* Falls of which each but the first finds the work pending. */
static void pac_fall_while_pending(struct pac_ctx *ctx, int falls)
{
	pac_fall(ctx);
	while (--falls) {
		ctx->missed += !work_pending(&ctx->array->aux->work);
		pac_fall(ctx);
	}
}

/* The work runs, and nobody has queued it again. */
static bool pac_await_running(struct pac_ctx *ctx)
{
	unsigned long end = jiffies + PAC_TIMEOUT;

	while (work_busy(&ctx->array->aux->work) != WORK_BUSY_RUNNING) {
		if (time_after(jiffies, end))
			return false;
		usleep_range(50, 100);
	}
	return true;
}

/* All that was queued has run: nothing is in the slot, nothing is held. */
static void pac_expect_all_back(struct kunit *test)
{
	struct pac_ctx *ctx = test->priv;

	flush_work(&ctx->array->aux->work);
	KUNIT_EXPECT_EQ_MSG(test, ctx->missed, 0,
			    "falls that did not find the work pending");
	KUNIT_EXPECT_EQ_MSG(test, atomic64_read(&ctx->map->refcnt), PAC_REFS,
			    "references to the map");
	KUNIT_EXPECT_EQ(test, atomic64_read(&ctx->map->usercnt), 0LL);
	KUNIT_EXPECT_NULL(test, ctx->array->ptrs[0]);
	KUNIT_EXPECT_EQ_MSG(test, atomic64_read(&ctx->prog->aux->refcnt), PAC_REFS,
			    "references to the program");
}

static const int pac_falls[] = { 2, 3, 100 };

static void pac_desc(const int *falls, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%d falls", *falls);
}

KUNIT_ARRAY_PARAM(pac_falls, pac_falls, pac_desc);

/* Each fall's work has run before the next. */
static void prog_array_clear_test_falls_apart(struct kunit *test)
{
	const int *falls = test->param_value;
	int i;

	for (i = 0; i < *falls; i++) {
		pac_fall(test->priv);
		pac_expect_all_back(test);
	}
}

/* The work is queued on this CPU, which runs nobody else meanwhile. */
static void prog_array_clear_test_falls_at_once(struct kunit *test)
{
	const int *falls = test->param_value;

	preempt_disable();
	pac_fall_while_pending(test->priv, *falls);
	preempt_enable();
	pac_expect_all_back(test);
}

/*
 * The work runs, and waits for a lock that it needs.  It can be queued once
 * more then, and stays pending until it has come to its end.
 */
static void prog_array_clear_test_falls_while_it_runs(struct kunit *test)
{
	const int *falls = test->param_value;
	struct pac_ctx *ctx = test->priv;
	bool runs;

	mutex_lock(&ctx->array->aux->poke_mutex);
	pac_fall(ctx);
	runs = pac_await_running(ctx);
	pac_fall_while_pending(ctx, *falls);
	mutex_unlock(&ctx->array->aux->poke_mutex);
	KUNIT_EXPECT_TRUE_MSG(test, runs, "the work does not run");
	pac_expect_all_back(test);
}

static int pac_init(struct kunit *test)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_PROG_ARRAY,
		.key_size = sizeof(u32),
		.value_size = sizeof(u32),
		.max_entries = 1,
	};
	struct pac_ctx *ctx;

	ctx = kunit_kzalloc(test, sizeof(*ctx), GFP_KERNEL);
	if (!ctx)
		return -ENOMEM;
	ctx->prog = bpf_prog_alloc(bpf_prog_size(1), 0);
	if (!ctx->prog)
		return -ENOMEM;
	atomic64_set(&ctx->prog->aux->refcnt, PAC_REFS);
	ctx->map = prog_array_map_alloc(&attr);
	if (IS_ERR(ctx->map)) {
		__bpf_prog_free(ctx->prog);
		return PTR_ERR(ctx->map);
	}
	/* What bpf(2) does with a new map, but for the descriptor. */
	ctx->map->ops = &prog_array_map_ops;
	atomic64_set(&ctx->map->refcnt, PAC_REFS);
	ctx->array = container_of(ctx->map, struct bpf_array, map);
	test->priv = ctx;
	return 0;
}

static void pac_exit(struct kunit *test)
{
	struct pac_ctx *ctx = test->priv;

	if (!ctx)
		return;
	flush_work(&ctx->array->aux->work);
	/* All is dropped at once, whatever was given back. */
	atomic64_set(&ctx->map->refcnt, 1);
	bpf_map_put(ctx->map);
	__bpf_prog_free(ctx->prog);
}

static struct kunit_case prog_array_clear_test_cases[] = {
	KUNIT_CASE_PARAM(prog_array_clear_test_falls_apart,
			 pac_falls_gen_params),
	KUNIT_CASE_PARAM(prog_array_clear_test_falls_at_once,
			 pac_falls_gen_params),
	KUNIT_CASE_PARAM(prog_array_clear_test_falls_while_it_runs,
			 pac_falls_gen_params),
	{}
};

static struct kunit_suite prog_array_clear_test_suite = {
	.name = "prog_array_clear",
	.init = pac_init,
	.exit = pac_exit,
	.test_cases = prog_array_clear_test_cases,
};

kunit_test_suite(prog_array_clear_test_suite);
