// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the queues on which huge pages wait to be split, one for each
 * memory cgroup and node.
 *
 * mm/huge_memory.c includes this file, so that the tests reach its shrinker.
 * The suite mounts the memory controller and makes two cgroups for each case.
 * The folios are real, most of them charged and queued without being mapped.
 *
 * Every wait is bounded.  A case that finds a queue damaged fails; the queue is
 * then put in order by hand, so that the cases behind it start from a sane one.
 */
#include <kunit/actors.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/memcontrol.h>
#include <linux/migrate.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/page_counter.h>
#include <linux/rmap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/uaccess.h>

#include "memcg_split_queue_versions.h"

#define MSQ_MEMCGS	2
#define MSQ_NODE	MSQ_MEMCGS	/* index of the node's queue */
#define MSQ_QUEUES	(MSQ_MEMCGS + 1)
#define MSQ_FOLIOS	16		/* of one case, but for the load */
#define MSQ_ORDER	KV_MIN_HUGE_ORDER	/* the smallest with room for a list */
#define MSQ_TIMEOUT	(5 * HZ)	/* no single step may take longer */

/* With a queue's lock held. */
#define MSQ_WATCH_MS	5000

/* Load case. */
#define MSQ_THREADS	4
#define MSQ_SHARE	2		/* folios of a thread on each queue */
#define MSQ_ROUNDS	(1000 / MSQ_THREADS)	/* of each thread */
#define MSQ_SCANS	100000		/* of one round, before it is given up */

/* More folios than this on a queue: its links run in circles. */
#define MSQ_MAX_NODES	256

/* A swap type and entry that nothing uses while the tests run. */
#define MSQ_SWAP_TYPE	(MAX_SWAPFILES - 1)
#define MSQ_SWAP_ENTRY	swp_entry(MSQ_SWAP_TYPE, HPAGE_PMD_NR)

enum msq_op {
	MSQ_PUT,
	MSQ_PUT_BATCH,
	MSQ_RECLAIM,
	MSQ_PUT_BACK_ACTIVE,
	MSQ_PUT_BACK_INACTIVE,
	MSQ_SWAPOUT,
	MSQ_MIGRATE,
	MSQ_QUEUE,
	MSQ_LOAD,
};

struct msq_op_case {
	const char *name;
	enum msq_op op;
	bool frees;			/* the folio is gone afterwards */
	bool swaps;			/* its charge is the swap entry's */
	bool moves;			/* its charge is the other folio's */
	bool isolates;			/* reclaim drops the last reference */
};

static const struct msq_op_case msq_free_cases[] = {
	{ .name = "put", .op = MSQ_PUT, .frees = true },
	{ .name = "batch of puts", .op = MSQ_PUT_BATCH, .frees = true },
	{ .name = "reclaim", .op = MSQ_RECLAIM, .frees = true },
	{ .name = "put back on the active list", .op = MSQ_PUT_BACK_ACTIVE,
	  .frees = true, .isolates = true },
	{ .name = "put back on the inactive list", .op = MSQ_PUT_BACK_INACTIVE,
	  .frees = true, .isolates = true },
};

static const struct msq_op_case msq_change_cases[] = {
	{ .name = "swapout", .op = MSQ_SWAPOUT, .swaps = true },
	{ .name = "migration", .op = MSQ_MIGRATE, .moves = true },
};

static const struct msq_op_case msq_uncharge_cases[] = {
	{ .name = "put", .op = MSQ_PUT, .frees = true },
	{ .name = "batch of puts", .op = MSQ_PUT_BATCH, .frees = true },
	{ .name = "reclaim", .op = MSQ_RECLAIM, .frees = true },
	{ .name = "swapout", .op = MSQ_SWAPOUT, .swaps = true },
	{ .name = "migration", .op = MSQ_MIGRATE, .moves = true },
};

static void msq_op_desc(const struct msq_op_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(msq_free, msq_free_cases, msq_op_desc);
KUNIT_ARRAY_PARAM(msq_change, msq_change_cases, msq_op_desc);
KUNIT_ARRAY_PARAM(msq_uncharge, msq_uncharge_cases, msq_op_desc);

struct msq_ctx;

/* A queue, its length and a folio's charge, when the queue's lock was taken. */
struct msq_look {
	struct kv_split_queue *queue;
	int i;
	struct list_head head;
	unsigned long len, memory;
	struct mem_cgroup *memcg;
	/* Of a mapping the counter has page tables, too, which go late. */
	bool exact;
};

/* A thread that does what it is told when it is set going. */
struct msq_actor {
	struct kunit_actor actor;
	struct msq_ctx *ctx;
	struct msq_look look;
	enum msq_op op;
	bool stop;
	struct folio *folio;
	struct folio *to;		/* where the folio migrates to */
	struct anon_vma *gate;		/* locked: the thread waits there */
	struct address_space mapping;	/* of what reclaim asks it to release */
	int ret;
	int round;
	struct folio *share[MSQ_QUEUES][MSQ_SHARE];
};

struct msq_memcg {
	char name[16];
	struct dentry *dir;
	struct mem_cgroup *memcg;	/* holds a reference */
};

struct msq_ctx {
	struct msq_memcg cg[MSQ_MEMCGS];
	struct kv_split_queue *queue[MSQ_QUEUES];
	int nid;
	struct folio *folios[MSQ_FOLIOS];
	struct msq_actor actors[MSQ_THREADS];
	int nr_actors;
	bool swap_ready;
	bool swapped;
};

/* The memory controller's hierarchy, and why there is none. */
static struct vfsmount *msq_mnt;
static const char *msq_missing;

/* A queue had to be put in order: under load that could crash the kernel. */
static bool msq_damaged;

static const char *msq_queue_name(int i)
{
	static const char * const names[] = { "memcg 0", "memcg 1", "the node" };

	return names[i];
}

/*
 * Count the folios on the queue, and see that each entry's neighbours point
 * back at it: under the queue's lock nothing may change that.  A broken list
 * leads anywhere, so its entries are read with care.  Counts @folio alone if it
 * is not NULL.  Returns -1 if the links are broken.
 */
static int msq_count_locked(struct kv_split_queue *queue,
			    const struct folio *folio)
{
	struct list_head *head = &queue->KV_QUEUE_LIST;
	struct list_head *pos, entry, next, prev;
	int nodes = 0, count = 0;

	lockdep_assert_held(&queue->KV_QUEUE_LOCK);

	pos = head;
	do {
		if (copy_from_kernel_nofault(&entry, pos, sizeof(entry)) ||
		    copy_from_kernel_nofault(&next, entry.next, sizeof(next)) ||
		    copy_from_kernel_nofault(&prev, entry.prev, sizeof(prev)))
			return -1;
		if (next.prev != pos || prev.next != pos)
			return -1;
		if (pos != head) {
			if (!folio || pos == kv_deferred_list(folio))
				count++;
			if (++nodes > MSQ_MAX_NODES)
				return -1;
		}
		pos = entry.next;
	} while (pos != head);
	return count;
}

/* Returns the queue's length if list and counter agree on it, else -1. */
static int msq_length(struct kv_split_queue *queue)
{
	unsigned long flags;
	int count;

	spin_lock_irqsave(&queue->KV_QUEUE_LOCK, flags);
	count = msq_count_locked(queue, NULL);
	if (count >= 0 && queue->KV_QUEUE_LEN != count)
		count = -1;
	spin_unlock_irqrestore(&queue->KV_QUEUE_LOCK, flags);
	return count;
}

static bool msq_is_on(struct kv_split_queue *queue, const struct folio *folio)
{
	unsigned long flags;
	int count;

	if (!queue)
		return false;
	spin_lock_irqsave(&queue->KV_QUEUE_LOCK, flags);
	count = msq_count_locked(queue, folio);
	spin_unlock_irqrestore(&queue->KV_QUEUE_LOCK, flags);
	return count > 0;
}

/* Expect the folio on queue @want and no other; on none if that is negative. */
static void msq_expect_on(struct kunit *test, const struct folio *folio,
			  int want)
{
	struct msq_ctx *ctx = test->priv;
	int i;

	for (i = 0; i < MSQ_QUEUES; i++)
		KUNIT_EXPECT_EQ_MSG(test, msq_is_on(ctx->queue[i], folio),
				    i == want, "on the queue of %s",
				    msq_queue_name(i));
}

/* Expect so many folios on the queue, by its list and by its counter. */
static void msq_expect_length(struct kunit *test, int i, int want)
{
	struct msq_ctx *ctx = test->priv;
	struct kv_split_queue *queue = ctx->queue[i];
	unsigned long flags, len;
	int count;

	/* That of a removed cgroup can be gone. */
	if (!queue)
		return;
	spin_lock_irqsave(&queue->KV_QUEUE_LOCK, flags);
	count = msq_count_locked(queue, NULL);
	len = queue->KV_QUEUE_LEN;
	spin_unlock_irqrestore(&queue->KV_QUEUE_LOCK, flags);

	KUNIT_EXPECT_EQ_MSG(test, count, want, "folios on the list of %s",
			    msq_queue_name(i));
	KUNIT_EXPECT_EQ_MSG(test, len, (unsigned long)want,
			    "queue length of %s", msq_queue_name(i));
}

static void msq_expect_lengths(struct kunit *test, int memcg0, int memcg1,
			       int node)
{
	msq_expect_length(test, 0, memcg0);
	msq_expect_length(test, 1, memcg1);
	msq_expect_length(test, MSQ_NODE, node);
}

/* Pages charged to the cgroup.  Exact as long as all are of huge folios. */
static unsigned long msq_memory(struct msq_ctx *ctx, int i)
{
	return page_counter_read(&ctx->cg[i].memcg->memory);
}

static unsigned long msq_memsw(struct msq_ctx *ctx, int i)
{
	return page_counter_read(&ctx->cg[i].memcg->memsw);
}

/* A new folio, charged to cgroup @i unless that is MSQ_NODE. */
static struct folio *msq_new(struct msq_ctx *ctx, unsigned int order, int i)
{
	struct folio *folio;

	folio = folio_alloc(order == HPAGE_PMD_ORDER ? GFP_TRANSHUGE :
						       GFP_KERNEL, order);
	if (!folio || i == MSQ_NODE)
		return folio;
	if (kv_charge(folio, ctx->cg[i].memcg)) {
		folio_put(folio);
		return NULL;
	}
	return folio;
}

/* The same for one case, which gives the folio back when it ends. */
static struct folio *msq_get(struct kunit *test, unsigned int order, int i)
{
	struct msq_ctx *ctx = test->priv;
	struct folio *folio;
	int slot = 0;

	while (slot < MSQ_FOLIOS && ctx->folios[slot])
		slot++;
	KUNIT_ASSERT_LT(test, slot, MSQ_FOLIOS);
	folio = msq_new(ctx, order, i);
	KUNIT_ASSERT_NOT_NULL_MSG(test, folio, "no folio of order %u", order);
	ctx->folios[slot] = folio;
	KUNIT_ASSERT_TRUE(test, folio_test_large_rmappable(folio));
	return folio;
}

/* The case has given the folio away. */
static void msq_forget(struct msq_ctx *ctx, const struct folio *folio)
{
	int i;

	for (i = 0; i < MSQ_FOLIOS; i++)
		if (ctx->folios[i] == folio)
			ctx->folios[i] = NULL;
}

/* Drop the reference of the case, which is the last one. */
static void msq_put(struct msq_ctx *ctx, struct folio *folio)
{
	msq_forget(ctx, folio);
	folio_put(folio);
}

/* Let the shrinker look at up to @nr folios of a queue. */
static unsigned long msq_scan(struct msq_ctx *ctx, int i, unsigned long nr)
{
	struct shrink_control sc = {
		.gfp_mask = GFP_KERNEL,
		.nid = ctx->nid,
		.nr_to_scan = nr,
		.memcg = i == MSQ_NODE ? NULL : ctx->cg[i].memcg,
	};

	return deferred_split_scan(NULL, &sc);
}

/* Take the folio off whatever queue it is on, with that queue's lock. */
static bool msq_take_off(struct kv_split_queue *queue, struct folio *folio)
{
	unsigned long flags;
	bool found;

	if (!queue)
		return false;
	spin_lock_irqsave(&queue->KV_QUEUE_LOCK, flags);
	found = msq_count_locked(queue, folio) > 0;
	if (found)
		kv_queue_del(queue, folio);
	spin_unlock_irqrestore(&queue->KV_QUEUE_LOCK, flags);
	return found;
}

/*
 * A queued folio of no cgroup leaves the node's queue by way of the shrinker,
 * where that drops it; else by hand.
 */
static void msq_leave_node(struct msq_ctx *ctx, struct folio *folio)
{
	if (KV_SCAN_DROPS_USED)
		msq_scan(ctx, MSQ_NODE, MSQ_SHARE);
	else
		msq_take_off(ctx->queue[MSQ_NODE], folio);
}

/* As reclaim does: no references, and interrupts off. */
static int msq_swapout(struct folio *folio)
{
	if (!folio_ref_freeze(folio, 1))
		return -EBUSY;
	local_irq_disable();
	kv_memcg_swapout(folio, MSQ_SWAP_ENTRY);
	local_irq_enable();
	folio_ref_unfreeze(folio, 1);
	return 0;
}

static int msq_migrate(struct folio *folio, struct folio *to)
{
	int ret;

	folio_lock(folio);
	folio_lock(to);
	ret = kv_migrate(folio, to);
	folio_unlock(to);
	folio_unlock(folio);
	return ret;
}

/*
 * Fill the thread's share of all queues.  Returns false if memory runs out;
 * what there is stays in the share then.
 */
static bool msq_fill_share(struct msq_actor *a)
{
	struct folio *folio;
	int i, j;

	for (i = 0; i < MSQ_QUEUES; i++) {
		for (j = 0; j < MSQ_SHARE; j++) {
			folio = msq_new(a->ctx, MSQ_ORDER, i);
			if (!folio)
				return false;
			kv_deferred_split(folio, i != MSQ_NODE);
			a->share[i][j] = folio;
		}
	}
	return true;
}

/*
 * Free the share of both cgroups.  Only the shrinker clears the node's queue:
 * to free a queued folio of no cgroup is a fault of its own.
 */
static bool msq_free_share(struct msq_actor *a)
{
	int i, scans = 0, puts = a->round & 1;
	struct folio *folio;

	for (i = 0; i < MSQ_SHARE; i++)
		folio_put(a->share[puts][i]);
	kv_folios_put(a->share[!puts], MSQ_SHARE);

	for (i = 0; i < MSQ_SHARE; i++) {
		folio = a->share[MSQ_NODE][i];
		/* Another thread's scan may have it in hand. */
		while (!list_empty_careful(kv_deferred_list(folio))) {
			if (scans++ == MSQ_SCANS)
				return false;
			msq_leave_node(a->ctx, folio);
			cond_resched();
		}
		folio_put(folio);
	}
	return true;
}

static int msq_load(struct msq_actor *a)
{
	while (a->round < MSQ_ROUNDS && !READ_ONCE(a->stop)) {
		if (!msq_fill_share(a))
			return -ENOMEM;
		if (!msq_free_share(a))
			return -EBUSY;
		WRITE_ONCE(a->round, a->round + 1);
		cond_resched();
	}
	return 0;
}

/* What the LRU lists have of cgroup 0 is reclaimed, and no queue is looked at. */
static void msq_shrink(struct msq_actor *a)
{
	struct reclaim_state state = { 0 };
	unsigned long scanned = 0;

	current->reclaim_state = &state;
	mem_cgroup_shrink_node(a->ctx->cg[0].memcg, GFP_KERNEL, false,
			       NODE_DATA(a->ctx->nid), &scanned);
	current->reclaim_state = NULL;
}

static void msq_act(struct msq_actor *a)
{
	a->ret = 0;
	switch (a->op) {
	case MSQ_PUT:
		folio_put(a->folio);
		break;
	case MSQ_PUT_BATCH:
		kv_folios_put(&a->folio, 1);
		break;
	case MSQ_RECLAIM:
		a->ret = kv_reclaim(a->folio) ? 0 : -EBUSY;
		break;
	case MSQ_PUT_BACK_ACTIVE:
	case MSQ_PUT_BACK_INACTIVE:
		msq_shrink(a);
		break;
	case MSQ_SWAPOUT:
		a->ret = msq_swapout(a->folio);
		break;
	case MSQ_MIGRATE:
		a->ret = msq_migrate(a->folio, a->to);
		break;
	case MSQ_QUEUE:
		kv_deferred_split(a->folio, true);
		break;
	case MSQ_LOAD:
		a->ret = msq_load(a);
		break;
	}
}

static struct msq_actor *to_msq(struct kunit_actor *actor)
{
	return container_of(actor, struct msq_actor, actor);
}

static void msq_run(struct kunit_actor *actor)
{
	msq_act(to_msq(actor));
}

/* Start a thread on CPU @cpu, which then waits to be set going. */
static struct msq_actor *msq_start(struct kunit *test, enum msq_op op, int cpu)
{
	struct msq_ctx *ctx = test->priv;
	struct msq_actor *a = &ctx->actors[ctx->nr_actors];

	KUNIT_ASSERT_LT(test, ctx->nr_actors, MSQ_THREADS);
	ctx->nr_actors++;
	a->ctx = ctx;
	a->op = op;
	kunit_actor_start(test, &a->actor, msq_run, cpu);
	return a;
}

static bool msq_at_lock(struct kunit_actor *actor)
{
	struct kv_split_queue *queue = to_msq(actor)->look.queue;

	return kunit_actor_at(actor, KUNIT_LOCK_MAP(&queue->KV_QUEUE_LOCK)) ||
	       spin_is_contended(&queue->KV_QUEUE_LOCK);
}

/* Let the thread on the other CPU go on, or begin. */
static void msq_let_go(struct msq_actor *a)
{
	struct anon_vma *gate = a->gate;

	a->gate = NULL;
	if (gate)
		anon_vma_unlock_write(gate);
	else
		kunit_actor_go(&a->actor);
}

static const char *msq_moved(struct kunit_actor *actor)
{
	struct msq_actor *a = to_msq(actor);
	struct msq_look *was = &a->look;
	struct list_head *head = &was->queue->KV_QUEUE_LIST;

	if (READ_ONCE(head->next) != was->head.next ||
	    READ_ONCE(head->prev) != was->head.prev)
		return "list";
	if (READ_ONCE(was->queue->KV_QUEUE_LEN) != was->len)
		return "length";
	if (kv_folio_memcg(a->folio) != was->memcg)
		return "memcg of a queued folio";
	if (was->exact && msq_memory(a->ctx, was->i) != was->memory)
		return "memory counter";
	return NULL;
}

/*
 * Hold the queue's lock, let the thread on the other CPU go, and watch the
 * queue and the folio's charge until the thread has come to the lock and a
 * while longer.  In correct code it can do nothing but wait for the lock.
 * Returns when the thread is done.
 */
static void msq_expect_still_while_locked(struct kunit *test,
					  struct msq_actor *a, int i)
{
	struct msq_ctx *ctx = test->priv;
	struct kv_split_queue *queue = ctx->queue[i];
	struct kunit_sighting seen;
	unsigned long flags;

	a->look = (struct msq_look) {
		.queue = queue,
		.i = i,
		.memory = msq_memory(ctx, i),
		.memcg = kv_folio_memcg(a->folio),
		.exact = !a->gate,
	};
	spin_lock_irqsave(&queue->KV_QUEUE_LOCK, flags);
	a->look.head = queue->KV_QUEUE_LIST;
	a->look.len = queue->KV_QUEUE_LEN;
	msq_let_go(a);
	seen = kunit_actor_watch(&a->actor, msq_at_lock, msq_moved,
				 MSQ_WATCH_MS);
	spin_unlock_irqrestore(&queue->KV_QUEUE_LOCK, flags);

	kunit_actor_finish(test, &a->actor, MSQ_TIMEOUT);
	kunit_actor_expect_still(test, &seen, "the queue's lock");
}

/* Have a swap entry to hand that can be charged. */
static void msq_prepare_swap(struct kunit *test)
{
	struct msq_ctx *ctx = test->priv;
	int err;

	if (!IS_ENABLED(CONFIG_SWAP))
		kunit_skip(test, "needs CONFIG_SWAP");
	if (!KV_SWAPOUT_TAKES_OFF)
		kunit_skip(test, "a queued folio is split before swapout here");
	err = kv_swap_begin(MSQ_SWAP_ENTRY, HPAGE_PMD_NR);
	if (err == -EOPNOTSUPP)
		kunit_skip(test, "swapout needs real swap here");
	KUNIT_ASSERT_EQ(test, 0, err);
	ctx->swap_ready = true;
}

static void msq_uncharge_swap(struct msq_ctx *ctx)
{
	if (ctx->swapped)
		kv_swap_uncharge(MSQ_SWAP_ENTRY, HPAGE_PMD_NR);
	ctx->swapped = false;
}

/* Move this thread to a cgroup of the hierarchy, by its file of tasks. */
static int msq_attach(const char *dir)
{
	char path[32];
	struct file *file;
	loff_t pos = 0;
	ssize_t ret;

	snprintf(path, sizeof(path), "%s/tasks", dir);
	file = file_open_root_mnt(msq_mnt, path, O_WRONLY, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = kernel_write(file, "0", 1, &pos);
	fput(file);
	return ret < 0 ? ret : 0;
}

/* The folio mapped at an address; only its list entry may be looked at. */
static struct folio *msq_mapped(struct kunit *test, unsigned long addr)
{
	struct folio *folio;
	struct page *page;

	KUNIT_ASSERT_EQ(test, 1, get_user_pages_fast(addr, 1, 0, &page));
	folio = page_folio(page);
	folio_put(folio);
	return folio;
}

/* As MADV_HUGEPAGE would, which a kernel may lack. */
static bool msq_want_huge(unsigned long addr)
{
	struct vm_area_struct *vma;

	mmap_write_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	if (vma)
		vm_flags_set(vma, VM_HUGEPAGE);
	mmap_write_unlock(current->mm);
	return vma;
}

/*
 * Map and touch @nr huge pages, charged to cgroup 0.  Returns where they begin.
 * A place is named: in an empty mm mas_empty_area_rev() of the first 6.6 kernels
 * dereferences NULL.
 */
static unsigned long msq_map_huge(struct kunit *test, int nr,
				  struct folio **folio)
{
	struct msq_ctx *ctx = test->priv;
	unsigned long huge = 16 * HPAGE_PMD_SIZE;
	int i;

	if (!transparent_hugepage_flags)
		kunit_skip(test, "this machine has too little memory for huge pages");
	KUNIT_ASSERT_EQ(test, 0, msq_attach(ctx->cg[0].name));

	KUNIT_ASSERT_EQ(test, huge,
			kunit_vm_mmap(test, NULL, huge, nr * HPAGE_PMD_SIZE,
				      PROT_READ | PROT_WRITE,
				      MAP_ANONYMOUS | MAP_PRIVATE | MAP_FIXED,
				      0));
	KUNIT_ASSERT_TRUE(test, msq_want_huge(huge));
	for (i = 0; i < nr; i++) {
		KUNIT_ASSERT_EQ(test, 0,
				put_user(i, (int __user *)(huge +
							   i * HPAGE_PMD_SIZE)));
		folio[i] = msq_mapped(test, huge + i * HPAGE_PMD_SIZE);
		KUNIT_ASSERT_EQ_MSG(test, folio_order(folio[i]),
				    HPAGE_PMD_ORDER, "no huge page %d", i);
		KUNIT_EXPECT_PTR_EQ(test, kv_folio_memcg(folio[i]),
				    ctx->cg[0].memcg);
	}
	KUNIT_ASSERT_EQ(test, 0, msq_attach("."));
	return huge;
}

/*
 * The thread isolates the folio, and looks for those who map it; with the lock
 * that this needs held here it waits there, and meanwhile the mapping goes.
 */
static void msq_leave_mapped(struct kunit *test, struct msq_actor *a)
{
	unsigned long huge, end = jiffies + MSQ_TIMEOUT;
	struct vm_area_struct *vma;
	struct mm_struct *mm;
	int refs = -1;

	huge = msq_map_huge(test, 1, &a->folio);
	mm = current->mm;
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(huge, PAGE_SIZE));

	/* Reclaim looks at it without swap if nobody wants the data. */
	lru_add_drain_all();
	folio_mark_lazyfree(a->folio);
	lru_add_drain();
	if (a->op == MSQ_PUT_BACK_ACTIVE) {
		folio_mark_accessed(a->folio);
		folio_mark_accessed(a->folio);
		lru_add_drain();
	}

	huge += PAGE_SIZE;
	mmap_write_lock(mm);
	vma = vma_lookup(mm, huge);
	a->gate = vma->anon_vma;
	anon_vma_lock_write(a->gate);
	kunit_actor_go(&a->actor);
	while (time_before(jiffies, end) && !completion_done(&a->actor.done)) {
		if (rwsem_is_contended(&a->gate->root->rwsem)) {
			kv_zap(vma, huge, HPAGE_PMD_SIZE - PAGE_SIZE);
			refs = folio_ref_count(a->folio);
			break;
		}
		usleep_range(100, 200);
	}
	if (refs != 1)
		msq_let_go(a);
	mmap_write_unlock(mm);

	KUNIT_ASSERT_NE_MSG(test, refs, -1, "reclaim does not look at the folio");
	KUNIT_ASSERT_EQ_MSG(test, refs, 1, "others refer to the folio");
}

/* Reclaim asks for another folio that it has isolated: the thread waits here. */
static bool __maybe_unused msq_release(struct folio *folio, gfp_t gfp)
{
	struct msq_actor *a = container_of(kv_leave_mapping(folio),
					   struct msq_actor, mapping);

	kunit_actor_pause(&a->actor);
	return false;
}

static const struct address_space_operations msq_aops = {
	KV_RELEASE_FOLIO(msq_release)
};

/*
 * The thread isolates another folio and this one in one go.  It waits where the
 * mapping of the other one is asked to release that, and meanwhile the case's
 * reference goes.
 */
static void msq_leave_isolated(struct kunit *test, struct msq_actor *a)
{
	struct folio *other = msq_get(test, MSQ_ORDER, 0);

	a->folio = msq_get(test, HPAGE_PMD_ORDER, 0);
	kv_deferred_split(a->folio, true);
	a->mapping.a_ops = &msq_aops;
	kv_join_mapping(other, &a->mapping);

	/* What comes first is isolated first, and a huge folio ends a batch. */
	lru_add_drain_all();
	folio_add_lru(other);
	lru_add_drain();
	folio_add_lru(a->folio);
	lru_add_drain();

	kunit_actor_go(&a->actor);
	KUNIT_ASSERT_TRUE_MSG(test, kunit_actor_arrived(&a->actor, MSQ_TIMEOUT),
			      "reclaim does not end");
	KUNIT_ASSERT_FALSE_MSG(test, completion_done(&a->actor.done),
			       "reclaim does not look at the folio");
	KUNIT_ASSERT_EQ_MSG(test, folio_ref_count(a->folio), 2,
			    "reclaim has not isolated the folio");
	msq_forget(test->priv, a->folio);
	folio_put(a->folio);
}

/* Leave the last reference of a queued folio of cgroup 0 to reclaim. */
static void msq_leave_to_reclaim(struct kunit *test, struct msq_actor *a)
{
	if (KV_RECLAIM_WAITS_FOR_RMAP)
		msq_leave_mapped(test, a);
	else
		msq_leave_isolated(test, a);
}

/* Skip what this kernel does in another way, and get ready for the rest. */
static void msq_prepare(struct kunit *test, const struct msq_op_case *c)
{
	if (c->op == MSQ_RECLAIM && !KV_RECLAIM_FREES_HUGE)
		kunit_skip(test, "reclaim splits huge pages before it frees them here");
	if (c->moves && !KV_MIGRATION_MOVES_CHARGE)
		kunit_skip(test, "migration leaves the old folio charged here");
	if (c->op == MSQ_PUT_BACK_ACTIVE && !KV_SHRINK_NODE_ACTIVE)
		kunit_skip(test, "reclaim of one cgroup leaves active folios alone here");
	if (c->swaps)
		msq_prepare_swap(test);
}

/* A huge folio of cgroup 0, queued, is taken through @c by a thread. */
static void msq_test_waits_for_lock(struct kunit *test)
{
	const struct msq_op_case *c = test->param_value;
	struct msq_ctx *ctx = test->priv;
	unsigned long memory = msq_memory(ctx, 0);
	struct msq_actor *a;

	msq_prepare(test, c);
	a = msq_start(test, c->op, kunit_actor_other_cpu(test));
	if (c->isolates) {
		msq_leave_to_reclaim(test, a);
	} else {
		if (c->moves)
			a->to = msq_get(test, HPAGE_PMD_ORDER, MSQ_NODE);
		a->folio = msq_get(test, HPAGE_PMD_ORDER, 0);
		kv_deferred_split(a->folio, true);
		KUNIT_ASSERT_EQ(test, msq_memory(ctx, 0),
				memory + HPAGE_PMD_NR);
	}
	msq_expect_on(test, a->folio, 0);

	msq_expect_still_while_locked(test, a, 0);
	KUNIT_ASSERT_EQ(test, a->ret, 0);
	ctx->swapped = c->swaps;
	if (c->frees)
		msq_forget(ctx, a->folio);

	msq_expect_lengths(test, 0, 0, 0);
	if (!c->isolates)
		KUNIT_EXPECT_EQ(test, msq_memory(ctx, 0),
				memory + (c->moves ? HPAGE_PMD_NR : 0));
}

/* A folio that is freed leaves its memcg's queue only with the queue's lock. */
static void memcg_split_queue_test_free_waits_for_lock(struct kunit *test)
{
	msq_test_waits_for_lock(test);
}

/* So does one whose charge goes elsewhere. */
static void memcg_split_queue_test_change_waits_for_lock(struct kunit *test)
{
	msq_test_waits_for_lock(test);
}

/* A folio joins the queue only with the queue's lock. */
static void memcg_split_queue_test_queueing_waits_for_lock(struct kunit *test)
{
	struct msq_ctx *ctx = test->priv;
	struct msq_actor *a = msq_start(test, MSQ_QUEUE,
					kunit_actor_other_cpu(test));

	a->folio = msq_get(test, HPAGE_PMD_ORDER, 0);
	msq_expect_still_while_locked(test, a, 0);
	msq_expect_on(test, a->folio, 0);
	msq_expect_lengths(test, 1, 0, 0);

	msq_put(ctx, a->folio);
	msq_expect_lengths(test, 0, 0, 0);
}

/* A folio is on its memcg's queue while it is charged, and on no other. */
static void memcg_split_queue_test_one_queue(struct kunit *test)
{
	struct msq_ctx *ctx = test->priv;
	struct folio *folio[MSQ_QUEUES], *to;
	int i;

	for (i = 0; i < MSQ_QUEUES; i++) {
		folio[i] = msq_get(test, HPAGE_PMD_ORDER, i);
		msq_expect_on(test, folio[i], -1);
		kv_deferred_split(folio[i], false);
	}
	for (i = 0; i < MSQ_QUEUES; i++)
		msq_expect_on(test, folio[i], i);
	msq_expect_lengths(test, 1, 1, 1);

	/* Once queued, it is not queued again. */
	for (i = 0; i < MSQ_QUEUES; i++)
		kv_deferred_split(folio[i], false);
	msq_expect_lengths(test, 1, 1, 1);

	msq_leave_node(ctx, folio[MSQ_NODE]);
	msq_expect_on(test, folio[MSQ_NODE], -1);
	msq_expect_lengths(test, 1, 1, 0);

	if (!KV_MIGRATION_MOVES_CHARGE) {
		msq_put(ctx, folio[0]);
		msq_put(ctx, folio[1]);
		msq_expect_lengths(test, 0, 0, 0);
		return;
	}

	/* On none, once its charge is another folio's. */
	to = msq_get(test, HPAGE_PMD_ORDER, MSQ_NODE);
	KUNIT_ASSERT_EQ(test, msq_migrate(folio[0], to), 0);
	KUNIT_EXPECT_NULL(test, kv_folio_memcg(folio[0]));
	KUNIT_EXPECT_PTR_EQ(test, kv_folio_memcg(to), ctx->cg[0].memcg);
	msq_expect_on(test, folio[0], -1);
	msq_expect_on(test, to, -1);
	msq_expect_lengths(test, 0, 1, 0);

	/* The new one can be queued in its place. */
	kv_deferred_split(to, true);
	msq_expect_on(test, to, 0);
	msq_expect_lengths(test, 1, 1, 0);

	msq_put(ctx, folio[1]);
	msq_expect_lengths(test, 1, 0, 0);
	msq_put(ctx, to);
	msq_expect_lengths(test, 0, 0, 0);
}

/* A folio that migrates within a mapping has left its queue before its charge does. */
static void memcg_split_queue_test_migrates_in_mapping(struct kunit *test)
{
	struct address_space *mapping;
	struct folio *folio, *to;
	int ret;

	if (!KV_MIGRATION_TAKES_OFF)
		kunit_skip(test, "migration leaves it on its queue here");
	mapping = kunit_kzalloc(test, sizeof(*mapping), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, mapping);
	folio = msq_get(test, HPAGE_PMD_ORDER, 0);
	to = msq_get(test, HPAGE_PMD_ORDER, MSQ_NODE);
	kv_deferred_split(folio, true);
	msq_expect_on(test, folio, 0);

	folio_lock(folio);
	folio_lock(to);
	ret = kv_migrate_in(mapping, folio, to);
	folio_unlock(to);
	folio_unlock(folio);
	KUNIT_ASSERT_EQ(test, ret, 0);
	msq_expect_on(test, folio, -1);
	msq_expect_lengths(test, 0, 0, 0);
}

/* However a folio loses its charge, it is uncharged once. */
static void memcg_split_queue_test_uncharged_once(struct kunit *test)
{
	const struct msq_op_case *c = test->param_value;
	struct msq_ctx *ctx = test->priv;
	struct msq_actor a = { .ctx = ctx, .op = c->op };
	unsigned long memory, memsw;

	msq_prepare(test, c);
	/* Something to lose: a counter does not fall below zero. */
	msq_get(test, HPAGE_PMD_ORDER, 0);
	memory = msq_memory(ctx, 0);
	memsw = msq_memsw(ctx, 0);

	if (c->moves)
		a.to = msq_get(test, HPAGE_PMD_ORDER, MSQ_NODE);
	a.folio = msq_get(test, HPAGE_PMD_ORDER, 0);
	kv_deferred_split(a.folio, true);
	KUNIT_EXPECT_EQ(test, msq_memory(ctx, 0), memory + HPAGE_PMD_NR);
	KUNIT_EXPECT_EQ(test, msq_memsw(ctx, 0), memsw + HPAGE_PMD_NR);

	msq_act(&a);
	KUNIT_ASSERT_EQ(test, a.ret, 0);
	ctx->swapped = c->swaps;
	if (c->frees)
		msq_forget(ctx, a.folio);
	KUNIT_EXPECT_EQ(test, msq_memory(ctx, 0),
			memory + (c->moves ? HPAGE_PMD_NR : 0));
	KUNIT_EXPECT_EQ(test, msq_memsw(ctx, 0),
			memsw + (c->frees ? 0 : HPAGE_PMD_NR));

	if (!c->frees) {
		KUNIT_EXPECT_NULL(test, kv_folio_memcg(a.folio));
		msq_expect_on(test, a.folio, -1);
		/* Freed while on a queue, it would damage that: see msq_exit(). */
		if (test->status == KUNIT_SUCCESS)
			msq_put(ctx, a.folio);
		KUNIT_EXPECT_EQ(test, msq_memsw(ctx, 0), memsw + HPAGE_PMD_NR);
	}
	if (c->moves)
		msq_put(ctx, a.to);
	msq_uncharge_swap(ctx);
	KUNIT_EXPECT_EQ(test, msq_memory(ctx, 0), memory);
	KUNIT_EXPECT_EQ(test, msq_memsw(ctx, 0), memsw);
	msq_expect_lengths(test, 0, 0, 0);
}

/* List and counter agree, whichever folio leaves. */
static void memcg_split_queue_test_length_through_free(struct kunit *test)
{
	static const int order_of_leaving[] = { 2, 0, 4, 1, 3 };
	struct folio *folio[MSQ_MEMCGS][ARRAY_SIZE(order_of_leaving)];
	int i, n = ARRAY_SIZE(order_of_leaving);
	int stay = KV_SCAN_DROPS_USED ? n / 2 : n;
	struct msq_ctx *ctx = test->priv;

	for (i = 0; i < n; i++) {
		folio[0][i] = msq_get(test, MSQ_ORDER, 0);
		folio[1][i] = msq_get(test, MSQ_ORDER, 1);
		kv_deferred_split(folio[0][i], true);
		kv_deferred_split(folio[1][i], i & 1);
		msq_expect_lengths(test, i + 1, i + 1, 0);
	}

	/* The shrinker can split none of them. */
	KUNIT_EXPECT_EQ(test, msq_scan(ctx, 0, n), 0UL);
	msq_expect_lengths(test, n, n, 0);
	KUNIT_EXPECT_EQ(test, msq_scan(ctx, 1, n), 0UL);
	msq_expect_lengths(test, n, stay, 0);
	for (i = 0; i < n; i++)
		msq_expect_on(test, folio[1][i],
			      i & 1 || !KV_SCAN_DROPS_USED ? 1 : -1);

	for (i = 0; i < n; i++) {
		msq_put(ctx, folio[0][order_of_leaving[i]]);
		msq_expect_lengths(test, n - i - 1, stay, 0);
	}
	for (i = 0; i < n; i++)
		msq_put(ctx, folio[1][i]);
	msq_expect_lengths(test, 0, 0, 0);
}

/*
 * The real path: this thread maps and touches huge pages of cgroup 0, unmaps a
 * part of one, lets the shrinker split that, and unmaps the rest.
 */
static void memcg_split_queue_test_partial_unmap(struct kunit *test)
{
	struct msq_ctx *ctx = test->priv;
	struct folio *folio[2];
	unsigned long huge;
	int queued;

	huge = msq_map_huge(test, 2, folio);

	/* Wholly mapped ones are queued if the kernel splits unused ones. */
	queued = split_underused_thp ? 2 : 0;
	msq_expect_lengths(test, queued, 0, 0);

	KUNIT_ASSERT_EQ(test, 0, vm_munmap(huge, PAGE_SIZE));
	msq_expect_on(test, folio[0], 0);
	msq_expect_on(test, folio[1], queued ? 0 : -1);
	msq_expect_lengths(test, queued ?: 1, 0, 0);

	lru_add_drain_all();
	KUNIT_EXPECT_EQ(test, msq_scan(ctx, 0, 2), 1UL);
	msq_expect_lengths(test, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, 0U,
			folio_order(msq_mapped(test, huge + PAGE_SIZE)));

	/* The other one is on no queue now; a part unmapped puts it there. */
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(huge + HPAGE_PMD_SIZE, PAGE_SIZE));
	msq_expect_on(test, folio[1], 0);
	msq_expect_lengths(test, 1, 0, 0);

	KUNIT_ASSERT_EQ(test, 0, vm_munmap(huge, 2 * HPAGE_PMD_SIZE));
	lru_add_drain_all();
	msq_expect_lengths(test, 0, 0, 0);
}

static bool msq_until(bool (*cond)(struct msq_memcg *), struct msq_memcg *cg)
{
	unsigned long end = jiffies + MSQ_TIMEOUT;

	while (!cond(cg)) {
		if (time_after(jiffies, end))
			return false;
		usleep_range(500, 1000);
	}
	return true;
}

static bool msq_offline(struct msq_memcg *cg)
{
	return !(READ_ONCE(cg->memcg->css.flags) & CSS_ONLINE);
}

static bool msq_no_memory(struct msq_memcg *cg)
{
	return !page_counter_read(&cg->memcg->memory);
}

static bool msq_try_rmdir(struct msq_memcg *cg)
{
	if (!cg->dir)
		return true;
	if (kv_rmdir(cg->dir))
		return false;
	dput(cg->dir);
	cg->dir = NULL;
	return true;
}

/*
 * Remove the cgroup of a queued folio.  The folio stays on one queue, that of
 * the memcg which it is charged to by then, and leaves that one.
 */
static void memcg_split_queue_test_removed_cgroup(struct kunit *test)
{
	struct msq_ctx *ctx = test->priv;
	struct folio *first = msq_get(test, HPAGE_PMD_ORDER, 0);
	struct folio *late = msq_get(test, HPAGE_PMD_ORDER, 0);
	struct kv_split_queue *queue;

	kv_deferred_split(first, true);
	KUNIT_ASSERT_TRUE(test, msq_until(msq_try_rmdir, &ctx->cg[0]));
	KUNIT_ASSERT_TRUE(test, msq_until(msq_offline, &ctx->cg[0]));

	/* It may have become its parent's, and the queue with it. */
	if (kv_folio_memcg(first) != ctx->cg[0].memcg)
		ctx->queue[0] = NULL;
	queue = ctx->queue[0] ?: ctx->queue[MSQ_NODE];
	KUNIT_EXPECT_TRUE(test, msq_is_on(queue, first));
	KUNIT_EXPECT_EQ(test, msq_length(queue), 1);

	kv_deferred_split(late, true);
	KUNIT_EXPECT_TRUE(test, msq_is_on(queue, late));
	KUNIT_EXPECT_EQ(test, msq_length(queue), 2);

	msq_put(ctx, first);
	KUNIT_EXPECT_EQ(test, msq_length(queue), 1);
	msq_put(ctx, late);
	KUNIT_EXPECT_EQ(test, msq_length(queue), 0);
	msq_expect_lengths(test, 0, 0, 0);
	/* What its parent has is not taken off its own counter. */
	if (ctx->queue[0])
		KUNIT_EXPECT_TRUE(test, msq_until(msq_no_memory, &ctx->cg[0]));
}

/* Rounds done by all threads; *@running tells if any has more to do. */
static int msq_rounds(struct msq_ctx *ctx, bool *running)
{
	int i, rounds = 0;

	*running = false;
	for (i = 0; i < MSQ_THREADS; i++) {
		rounds += READ_ONCE(ctx->actors[i].round);
		*running |= !completion_done(&ctx->actors[i].actor.done);
	}
	return rounds;
}

/*
 * Two cgroups and the node at once: four threads queue folios and free them,
 * each in rounds of its own, while this one looks at the queues and does the
 * shrinker's work every other time.  A hand-over in each round would measure
 * how long the host takes to wake a CPU.
 */
static void memcg_split_queue_test_load(struct kunit *test)
{
	int i, cpu, count, rounds, last = -1, looks = 0, in_use = 0, broken = 0;
	struct msq_ctx *ctx = test->priv;
	unsigned long end = 0;
	bool running;

	if (msq_damaged)
		kunit_skip(test, "a queue was damaged before: under load the kernel could crash");

	cpu = cpumask_first(cpu_online_mask);
	for (i = 0; i < MSQ_THREADS; i++) {
		msq_start(test, MSQ_LOAD, cpu);
		cpu = cpumask_next(cpu, cpu_online_mask);
		if (cpu >= nr_cpu_ids)
			cpu = cpumask_first(cpu_online_mask);
	}
	for (i = 0; i < MSQ_THREADS; i++)
		kunit_actor_go(&ctx->actors[i].actor);

	do {
		for (i = 0; i < MSQ_MEMCGS; i++) {
			count = msq_length(ctx->queue[i]);
			broken += count < 0;
			in_use += count > 0;
			if (looks & 1 && !broken)
				msq_scan(ctx, i, MSQ_THREADS * MSQ_SHARE);
		}
		looks++;
		usleep_range(200, 400);
		rounds = msq_rounds(ctx, &running);
		if (rounds != last)
			end = jiffies + MSQ_TIMEOUT;
		last = rounds;
	} while (running && !broken && time_before(jiffies, end));

	KUNIT_EXPECT_EQ_MSG(test, broken, 0, "broken queue after %d rounds",
			    rounds);
	for (i = 0; i < MSQ_THREADS; i++) {
		if (broken)
			WRITE_ONCE(ctx->actors[i].stop, true);
		kunit_actor_finish(test, &ctx->actors[i].actor, MSQ_TIMEOUT);
		KUNIT_EXPECT_EQ(test, ctx->actors[i].ret, 0);
		if (!broken)
			KUNIT_EXPECT_EQ(test, ctx->actors[i].round, MSQ_ROUNDS);
	}
	msq_expect_lengths(test, 0, 0, 0);
	kunit_info(test, "%d looks, %d at queues in use\n", 2 * looks, in_use);
}

/* Let list and counter agree again; nothing else uses the queue. */
static bool msq_repair(struct kv_split_queue *queue)
{
	unsigned long flags;
	bool damaged;
	int count;

	spin_lock_irqsave(&queue->KV_QUEUE_LOCK, flags);
	count = msq_count_locked(queue, NULL);
	damaged = queue->KV_QUEUE_LEN != count;
	if (count < 0) {
		INIT_LIST_HEAD(&queue->KV_QUEUE_LIST);
		count = 0;
	}
	queue->KV_QUEUE_LEN = count;
	spin_unlock_irqrestore(&queue->KV_QUEUE_LOCK, flags);
	return damaged;
}

/* Give back a folio of the case; a queue that is not its own is damaged. */
static void msq_give_back(struct msq_ctx *ctx, struct folio *folio)
{
	struct mem_cgroup *memcg = kv_folio_memcg(folio);
	int i;

	for (i = 0; i < MSQ_QUEUES; i++) {
		if (msq_take_off(ctx->queue[i], folio) &&
		    (i == MSQ_NODE ? !!memcg : memcg != ctx->cg[i].memcg))
			msq_damaged = true;
	}
	folio_put(folio);
}

static void msq_exit_memcg(struct kunit *test, struct msq_memcg *cg)
{
	if (!msq_until(msq_try_rmdir, cg))
		KUNIT_FAIL(test, "cgroup %s cannot be removed", cg->name);
	if (cg->memcg)
		css_put(&cg->memcg->css);
}

static int msq_init_memcg(struct msq_memcg *cg, int i)
{
	struct cgroup_subsys_state *css;
	struct dentry *dir;

	snprintf(cg->name, sizeof(cg->name), "kmend_msq%d", i);
	dir = kv_mkdir(msq_mnt->mnt_root, cg->name, 0755);
	if (IS_ERR(dir))
		return PTR_ERR(dir);
	cg->dir = dir;
	css = css_tryget_online_from_dir(dir, &memory_cgrp_subsys);
	if (IS_ERR(css))
		return PTR_ERR(css);
	cg->memcg = mem_cgroup_from_css(css);
	return 0;
}

static int msq_init(struct kunit *test)
{
	struct msq_ctx *ctx;
	int i, err;

	if (msq_missing)
		kunit_skip(test, "%s", msq_missing);

	/* Not kunit_kzalloc(): freed only when every thread has ended. */
	ctx = kzalloc(sizeof(*ctx), GFP_KERNEL);
	if (!ctx)
		return -ENOMEM;
	test->priv = ctx;
	ctx->nid = first_online_node;
	ctx->queue[MSQ_NODE] = kv_queue_of(NULL, ctx->nid);
	for (i = 0; i < MSQ_MEMCGS; i++) {
		err = msq_init_memcg(&ctx->cg[i], i);
		if (err)
			return err;
		ctx->queue[i] = kv_queue_of(ctx->cg[i].memcg, ctx->nid);
		if (!ctx->queue[i])
			return -ENOMEM;
	}
	return 0;
}

static void msq_exit(struct kunit *test)
{
	struct msq_ctx *ctx = test->priv;
	bool stuck = false;
	int i;

	if (!ctx)
		return;
	for (i = 0; i < ctx->nr_actors; i++) {
		WRITE_ONCE(ctx->actors[i].stop, true);
		stuck |= !kunit_actor_end(&ctx->actors[i].actor, MSQ_TIMEOUT);
	}
	/* A thread that is stuck still uses folios and cgroups: let them leak. */
	if (stuck) {
		msq_damaged = true;
		KUNIT_FAIL(test, "a thread is stuck");
		return;
	}

	for (i = 0; i < MSQ_FOLIOS; i++)
		if (ctx->folios[i])
			msq_give_back(ctx, ctx->folios[i]);
	msq_uncharge_swap(ctx);
	if (ctx->swap_ready)
		kv_swap_end(MSQ_SWAP_ENTRY);
	for (i = 0; i < MSQ_QUEUES; i++)
		if (ctx->queue[i] && msq_repair(ctx->queue[i]))
			msq_damaged = true;
	for (i = 0; i < MSQ_MEMCGS; i++)
		msq_exit_memcg(test, &ctx->cg[i]);
	kfree(ctx);
}

/* Mount the memory controller alone: it can then be charged with swap. */
static int msq_suite_init(struct kunit_suite *suite)
{
	struct file_system_type *type;
	char controllers[] = "memory";

	if (!has_transparent_hugepage()) {
		msq_missing = "this CPU has no huge pages";
		return 0;
	}
	if (mem_cgroup_disabled()) {
		msq_missing = "the memory controller is disabled";
		return 0;
	}
	type = get_fs_type("cgroup");
	if (!type) {
		msq_missing = "no file system cgroup";
		return 0;
	}
	msq_mnt = vfs_kern_mount(type, 0, "kmend_msq", controllers);
	put_filesystem(type);
	if (IS_ERR(msq_mnt)) {
		msq_mnt = NULL;
		msq_missing = "the memory controller has no hierarchy of cgroup v1";
	}
	return 0;
}

static void msq_suite_exit(struct kunit_suite *suite)
{
	mntput(msq_mnt);
	msq_mnt = NULL;
}

/* The deterministic cases first: a broken queue may crash under load. */
static struct kunit_case memcg_split_queue_test_cases[] = {
	KUNIT_CASE_PARAM(memcg_split_queue_test_free_waits_for_lock,
			 msq_free_gen_params),
	KUNIT_CASE_PARAM(memcg_split_queue_test_change_waits_for_lock,
			 msq_change_gen_params),
	KUNIT_CASE(memcg_split_queue_test_queueing_waits_for_lock),
	KUNIT_CASE(memcg_split_queue_test_one_queue),
	KUNIT_CASE(memcg_split_queue_test_migrates_in_mapping),
	KUNIT_CASE_PARAM(memcg_split_queue_test_uncharged_once,
			 msq_uncharge_gen_params),
	KUNIT_CASE(memcg_split_queue_test_length_through_free),
	KUNIT_CASE(memcg_split_queue_test_partial_unmap),
	KUNIT_CASE(memcg_split_queue_test_removed_cgroup),
	KUNIT_CASE_SLOW(memcg_split_queue_test_load),
	{}
};

static struct kunit_suite memcg_split_queue_test_suite = {
	.name = "memcg_split_queue",
	.suite_init = msq_suite_init,
	.suite_exit = msq_suite_exit,
	.init = msq_init,
	.exit = msq_exit,
	.test_cases = memcg_split_queue_test_cases,
};

kunit_test_suite(memcg_split_queue_test_suite);
