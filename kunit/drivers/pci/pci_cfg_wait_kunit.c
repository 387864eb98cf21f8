// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the queue on which user config accesses wait (pci_cfg_wait).
 *
 * drivers/pci/access.c includes this file, so that the tests reach the static
 * queue.  The device is made up: its config space is an array, and its
 * accessors count their calls.
 *
 * Every wait is bounded.  A kernel that loses a waiter fails the case; the
 * waiter is then woken directly, and its memory is freed only once its thread
 * has ended.
 */
#include <kunit/actors.h>
#include <kunit/actors_test.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <kunit/kernel_versions.h>

#define PCW_MAX_ACTORS	16
#define PCW_TIMEOUT	(5 * HZ)	/* no single step may take longer */
#define PCW_ASLEEP_MS	5500		/* what looks by itself, does so by then */
#define PCW_REG		0x40		/* where the actors read and write */
#define PCW_OLD		0x11223344	/* config data while access is blocked */
#define PCW_NEW		0xa5b6c7d8	/* config data that the waiter must meet */

/* With the queue's lock held. */
#define PCW_WATCH_MS	1000

/* Stress case. */
#define PCW_READERS	4
#define PCW_WRITERS	2
#define PCW_ROUNDS	1000

/* More nodes than this on the queue: its links run in circles. */
#define PCW_MAX_NODES	64

enum pcw_op {
	PCW_READ_BYTE,
	PCW_READ_WORD,
	PCW_READ_DWORD,
	PCW_WRITE_BYTE,
	PCW_WRITE_WORD,
	PCW_WRITE_DWORD,
	PCW_LOCK,
};

struct pcw_ctx;

/* A thread that makes one access, or accesses until it is told to stop. */
struct pcw_actor {
	struct kunit_actor actor;
	struct pcw_ctx *ctx;
	enum pcw_op op;
	bool repeat;
	u32 value;			/* read, or to be written */
	int ret;
	bool had_lock;
	unsigned long accesses;
	unsigned long wrong;
};

struct pcw_ctx {
	struct pci_bus bus;
	struct pci_dev dev;
	u8 config[256];
	atomic_t reads;
	atomic_t writes;
	atomic_t while_blocked;		/* accessor calls on a blocked device */
	struct list_head head;		/* of the queue, when its lock was taken */
	bool stop;
	int nr_actors;
	struct pcw_actor actors[PCW_MAX_ACTORS];
};

/* The made-up config space is little-endian, as the real one is. */
static u32 pcw_get(struct pcw_ctx *ctx, int where, int size)
{
	u32 val = 0;
	int i;

	for (i = 0; i < size; i++)
		val |= (u32)ctx->config[where + i] << (8 * i);
	return val;
}

static void pcw_put(struct pcw_ctx *ctx, int where, int size, u32 val)
{
	int i;

	for (i = 0; i < size; i++)
		ctx->config[where + i] = val >> (8 * i);
}

/* Both accessors run under pci_lock, which also guards block_cfg_access. */
static int pcw_read(struct pci_bus *bus, unsigned int devfn, int where,
		    int size, u32 *val)
{
	struct pcw_ctx *ctx = container_of(bus, struct pcw_ctx, bus);

	if (ctx->dev.block_cfg_access)
		atomic_inc(&ctx->while_blocked);
	atomic_inc(&ctx->reads);
	*val = pcw_get(ctx, where, size);
	return PCIBIOS_SUCCESSFUL;
}

static int pcw_write(struct pci_bus *bus, unsigned int devfn, int where,
		     int size, u32 val)
{
	struct pcw_ctx *ctx = container_of(bus, struct pcw_ctx, bus);

	if (ctx->dev.block_cfg_access)
		atomic_inc(&ctx->while_blocked);
	atomic_inc(&ctx->writes);
	pcw_put(ctx, where, size, val);
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops pcw_ops = {
	.read = pcw_read,
	.write = pcw_write,
};

static void pcw_set_config(struct pcw_ctx *ctx, u32 val)
{
	raw_spin_lock_irq(&pci_lock);
	pcw_put(ctx, PCW_REG, sizeof(val), val);
	raw_spin_unlock_irq(&pci_lock);
}

/* Set or clear the block without waking anyone. */
static void pcw_set_block(struct pcw_ctx *ctx, bool block)
{
	raw_spin_lock_irq(&pci_lock);
	ctx->dev.block_cfg_access = block;
	raw_spin_unlock_irq(&pci_lock);
}

static u32 pcw_get_config(struct pcw_ctx *ctx)
{
	u32 val;

	raw_spin_lock_irq(&pci_lock);
	val = pcw_get(ctx, PCW_REG, sizeof(val));
	raw_spin_unlock_irq(&pci_lock);
	return val;
}

static void pcw_access(struct pcw_actor *a)
{
	struct pci_dev *dev = &a->ctx->dev;
	u16 word;
	u8 byte;

	switch (a->op) {
	case PCW_READ_BYTE:
		a->ret = pci_user_read_config_byte(dev, PCW_REG, &byte);
		a->value = byte;
		break;
	case PCW_READ_WORD:
		a->ret = pci_user_read_config_word(dev, PCW_REG, &word);
		a->value = word;
		break;
	case PCW_READ_DWORD:
		a->ret = pci_user_read_config_dword(dev, PCW_REG, &a->value);
		break;
	case PCW_WRITE_BYTE:
		a->ret = pci_user_write_config_byte(dev, PCW_REG, a->value);
		break;
	case PCW_WRITE_WORD:
		a->ret = pci_user_write_config_word(dev, PCW_REG, a->value);
		break;
	case PCW_WRITE_DWORD:
		a->ret = pci_user_write_config_dword(dev, PCW_REG, a->value);
		break;
	case PCW_LOCK:
		pci_cfg_access_lock(dev);
		a->had_lock = !pci_cfg_access_trylock(dev);
		pci_cfg_access_unlock(dev);
		a->ret = 0;
		break;
	}
}

static struct pcw_actor *to_pcw(struct kunit_actor *actor)
{
	return container_of(actor, struct pcw_actor, actor);
}

static void pcw_run(struct kunit_actor *actor)
{
	struct pcw_actor *a = to_pcw(actor);

	do {
		pcw_access(a);
		a->accesses++;
		if (a->ret || (a->repeat && a->value != PCW_OLD &&
			       a->value != PCW_NEW))
			a->wrong++;
		if (a->repeat && a->op == PCW_WRITE_DWORD)
			a->value ^= PCW_OLD ^ PCW_NEW;
		cond_resched();
	} while (a->repeat && !READ_ONCE(a->ctx->stop));
}

/* Start a thread that waits for its go, on CPU @cpu unless that is negative. */
static struct pcw_actor *pcw_start(struct kunit *test, enum pcw_op op, int cpu)
{
	struct pcw_ctx *ctx = test->priv;
	struct pcw_actor *a = &ctx->actors[ctx->nr_actors];

	KUNIT_ASSERT_LT(test, ctx->nr_actors, PCW_MAX_ACTORS);
	ctx->nr_actors++;
	a->ctx = ctx;
	a->op = op;
	a->value = PCW_NEW;
	kunit_actor_start(test, &a->actor, pcw_run, cpu);
	return a;
}

/*
 * Count the waiters on the queue, and see that each node's neighbours point
 * back at it: under the queue's lock nothing may change that.  A broken queue
 * leads anywhere, so its nodes are read with care.  Returns the number of
 * waiters, or -1 if the links are broken.
 */
static int pcw_count_locked(const struct task_struct *task)
{
	struct list_head *head = &pci_cfg_wait.head;
	struct wait_queue_entry *entry;
	struct list_head *pos, node, next, prev;
	void *private;
	int nodes = 0, count = 0;

	lockdep_assert_held(&pci_cfg_wait.lock);

	pos = head;
	do {
		if (copy_from_kernel_nofault(&node, pos, sizeof(node)) ||
		    copy_from_kernel_nofault(&next, node.next, sizeof(next)) ||
		    copy_from_kernel_nofault(&prev, node.prev, sizeof(prev)))
			return -1;
		if (next.prev != pos || prev.next != pos)
			return -1;
		if (pos != head) {
			entry = list_entry(pos, struct wait_queue_entry, entry);
			if (copy_from_kernel_nofault(&private, &entry->private,
						     sizeof(private)))
				return -1;
			if (!task || private == task)
				count++;
			if (++nodes > PCW_MAX_NODES)
				return -1;
		}
		pos = node.next;
	} while (pos != head);
	return count;
}

/* Waiters on the queue, those of @task only if it is not NULL. */
static int pcw_count(const struct task_struct *task)
{
	unsigned long flags;
	int count;

	spin_lock_irqsave(&pci_cfg_wait.lock, flags);
	count = pcw_count_locked(task);
	spin_unlock_irqrestore(&pci_cfg_wait.lock, flags);
	return count;
}

/* Wait until the thread sleeps on the queue, and has done so @times times. */
static bool pcw_wait_asleep(struct pcw_actor *a, unsigned long times)
{
	unsigned long end = jiffies + PCW_TIMEOUT;

	while (pcw_count(a->actor.task) != 1 ||
	       kunit_actor_slept(&a->actor) != times) {
		if (time_after(jiffies, end))
			return false;
		usleep_range(50, 100);
	}
	return true;
}

/* The thread waits; the device is then set free for it to make its access. */
static struct pcw_actor *pcw_start_waiting(struct kunit *test, enum pcw_op op,
					   int cpu)
{
	struct pcw_ctx *ctx = test->priv;
	struct pcw_actor *a = pcw_start(test, op, cpu);

	pci_cfg_access_lock(&ctx->dev);
	kunit_actor_go(&a->actor);
	KUNIT_ASSERT_TRUE(test, pcw_wait_asleep(a, 1));
	return a;
}

/* The one access was made when the device was free, and nobody waits now. */
static void pcw_expect_done(struct kunit *test, struct pcw_actor *a)
{
	struct pcw_ctx *ctx = test->priv;

	kunit_actor_finish(test, &a->actor, PCW_TIMEOUT);
	KUNIT_EXPECT_EQ(test, a->ret, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->while_blocked), 0);
	KUNIT_EXPECT_EQ(test, pcw_count(NULL), 0);
}

/* It has read, once and what is there. */
static void pcw_expect_read(struct kunit *test, struct pcw_actor *a)
{
	struct pcw_ctx *ctx = test->priv;

	pcw_expect_done(test, a);
	KUNIT_EXPECT_EQ(test, a->value, (u32)PCW_OLD);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->reads), 1);
}

static bool pcw_at_queue_lock(struct kunit_actor *actor)
{
	return kunit_actor_at(actor, KUNIT_LOCK_MAP(&pci_cfg_wait.lock)) ||
	       spin_is_contended(&pci_cfg_wait.lock);
}

static bool pcw_at_pci_lock(struct kunit_actor *actor)
{
	return kunit_actor_at(actor, KUNIT_LOCK_MAP(&pci_lock)) ||
	       raw_spin_is_contended(&pci_lock);
}

/* Nobody may keep pci_lock while waiting for the queue's lock. */
static bool pcw_trylock_pci_lock(struct kunit_actor *actor)
{
	return raw_spin_trylock(&pci_lock);
}

/* Try until it is true, with interrupts off and for a bounded time. */
static bool pcw_spin_until(bool (*cond)(struct kunit_actor *),
			   struct pcw_actor *a)
{
	u64 start = ktime_get_mono_fast_ns();

	while (!cond(&a->actor)) {
		if (ktime_get_mono_fast_ns() - start >
		    PCW_WATCH_MS * (u64)NSEC_PER_MSEC)
			return false;
		kunit_actor_moment();
	}
	return true;
}

static const char *pcw_moved(struct kunit_actor *actor)
{
	struct list_head *was = &to_pcw(actor)->ctx->head;

	return READ_ONCE(pci_cfg_wait.head.next) != was->next ||
	       READ_ONCE(pci_cfg_wait.head.prev) != was->prev ?
	       "the queue" : NULL;
}

/* Hold the queue's lock, set the thread on the other CPU going, and watch. */
static struct kunit_sighting pcw_watch(struct pcw_actor *a,
				       void (*set_going)(struct kunit_actor *))
{
	struct kunit_sighting seen;
	unsigned long flags;

	spin_lock_irqsave(&pci_cfg_wait.lock, flags);
	a->ctx->head = pci_cfg_wait.head;
	set_going(&a->actor);
	seen = kunit_actor_watch(&a->actor, pcw_at_queue_lock, pcw_moved,
				 PCW_WATCH_MS);
	spin_unlock_irqrestore(&pci_cfg_wait.lock, flags);
	return seen;
}

static void pcw_wake(struct kunit_actor *actor)
{
	wake_up_process(actor->task);
}

/* A waiter joins the queue only with the queue's lock. */
static void pci_cfg_wait_test_queue_still_while_locked(struct kunit *test)
{
	struct pcw_ctx *ctx = test->priv;
	struct kunit_sighting seen;
	struct pcw_actor *a;

	a = pcw_start(test, PCW_READ_DWORD, kunit_actor_other_cpu(test));
	pci_cfg_access_lock(&ctx->dev);
	seen = pcw_watch(a, kunit_actor_go);
	kunit_actor_expect_still(test, &seen, "the queue's lock");

	/* With the lock free the thread must queue itself, and sleep. */
	KUNIT_EXPECT_TRUE(test, pcw_wait_asleep(a, 1));
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->reads), 0);
	pci_cfg_access_unlock(&ctx->dev);
	pcw_expect_read(test, a);
}

/* A waiter leaves the queue only with the queue's lock. */
static void pci_cfg_wait_test_waiter_stays_while_locked(struct kunit *test)
{
	struct pcw_actor *a = pcw_start_waiting(test, PCW_READ_DWORD,
						kunit_actor_other_cpu(test));
	struct kunit_sighting seen;

	/* Not pci_cfg_access_unlock(): it would take the queue's lock. */
	pcw_set_block(test->priv, false);
	seen = pcw_watch(a, pcw_wake);
	kunit_actor_expect_still(test, &seen, "the queue's lock");
	pcw_expect_read(test, a);
}

/*
 * A waiter does not look by itself whether the device is free: what does would
 * hide a wake-up that is lost.
 */
static void pci_cfg_wait_test_sleeps_until_woken(struct kunit *test)
{
	struct pcw_actor *a = pcw_start_waiting(test, PCW_READ_DWORD, -1);
	struct pcw_ctx *ctx = test->priv;

	pcw_set_block(ctx, false);
	KUNIT_EXPECT_TRUE_MSG(test,
			      kunit_actor_sleeps_on(&a->actor, PCW_ASLEEP_MS),
			      "nobody woke the waiter, and it looks");
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->reads), 0);

	pcw_set_block(ctx, true);
	pci_cfg_access_unlock(&ctx->dev);
	pcw_expect_read(test, a);
}

/*
 * Free the device and block it again when the waiter has seen it free but has
 * not got pci_lock yet.  It must look again under pci_lock, and sleep.
 */
static void pci_cfg_wait_test_late_block_holds_waiter(struct kunit *test)
{
	struct pcw_ctx *ctx = test->priv;
	bool at_queue, locked = false, at_pci = false;
	struct pcw_actor *a;
	unsigned long flags;

	a = pcw_start(test, PCW_READ_DWORD, kunit_actor_other_cpu(test));
	pci_cfg_access_lock(&ctx->dev);

	spin_lock_irqsave(&pci_cfg_wait.lock, flags);
	kunit_actor_go(&a->actor);
	at_queue = pcw_spin_until(pcw_at_queue_lock, a);
	if (at_queue)
		locked = pcw_spin_until(pcw_trylock_pci_lock, a);
	if (locked)
		ctx->dev.block_cfg_access = 0;
	spin_unlock(&pci_cfg_wait.lock);
	if (locked) {
		at_pci = pcw_spin_until(pcw_at_pci_lock, a);
		ctx->dev.block_cfg_access = 1;
		raw_spin_unlock(&pci_lock);
	}
	local_irq_restore(flags);

	kunit_actor_expect_came(test, at_queue, "the queue's lock");
	KUNIT_EXPECT_EQ_MSG(test, locked, at_queue,
			    "pci_lock is held by a waiter for the queue's lock");
	if (locked)
		kunit_actor_expect_came(test, at_pci, "pci_lock");
	KUNIT_EXPECT_TRUE(test, pcw_wait_asleep(a, 1));
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->reads), 0);

	pci_cfg_access_unlock(&ctx->dev);
	pcw_expect_read(test, a);
}

/*
 * Unlock and lock again before the waiter can run: it is bound to this CPU,
 * which does not schedule.  It must wake, see the block, and sleep again.
 */
static void pci_cfg_wait_test_blocked_again_sleeps_again(struct kunit *test)
{
	struct pcw_actor *a = pcw_start_waiting(test, PCW_READ_DWORD,
						kunit_actor_stay_here(test));
	struct pcw_ctx *ctx = test->priv;
	bool locked;

	preempt_disable();
	pci_cfg_access_unlock(&ctx->dev);
	locked = pci_cfg_access_trylock(&ctx->dev);
	preempt_enable();
	KUNIT_ASSERT_TRUE(test, locked);

	KUNIT_EXPECT_TRUE(test, pcw_wait_asleep(a, 2));
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->reads), 0);

	pci_cfg_access_unlock(&ctx->dev);
	pcw_expect_read(test, a);
}

struct pcw_op_case {
	const char *name;
	enum pcw_op op;
	int size;
};

static const struct pcw_op_case pcw_op_cases[] = {
	{ "read byte", PCW_READ_BYTE, 1 },
	{ "read word", PCW_READ_WORD, 2 },
	{ "read dword", PCW_READ_DWORD, 4 },
	{ "write byte", PCW_WRITE_BYTE, 1 },
	{ "write word", PCW_WRITE_WORD, 2 },
	{ "write dword", PCW_WRITE_DWORD, 4 },
	{ "second lock", PCW_LOCK, 0 },
};

static void pcw_op_desc(const struct pcw_op_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(pcw_op, pcw_op_cases, pcw_op_desc);

/*
 * The data changes while the access waits.  A read must give the new data, a
 * write must land on top of it, and a second lock must be had after the first.
 */
static void pci_cfg_wait_test_access_after_wait(struct kunit *test)
{
	const struct pcw_op_case *c = test->param_value;
	struct pcw_ctx *ctx = test->priv;
	bool read = c->op <= PCW_READ_DWORD;
	u32 moved = PCW_NEW & (u32)((1ULL << (8 * c->size)) - 1);
	struct pcw_actor *a = pcw_start_waiting(test, c->op, -1);

	KUNIT_EXPECT_EQ(test, pcw_get_config(ctx), (u32)PCW_OLD);
	pcw_set_config(ctx, read ? PCW_NEW : 0);

	pci_cfg_access_unlock(&ctx->dev);
	pcw_expect_done(test, a);
	if (c->op == PCW_LOCK) {
		KUNIT_EXPECT_TRUE(test, a->had_lock);
		KUNIT_EXPECT_EQ(test, (int)ctx->dev.block_cfg_access, 0);
	} else if (read) {
		KUNIT_EXPECT_EQ(test, a->value, moved);
	} else {
		KUNIT_EXPECT_EQ(test, pcw_get_config(ctx), moved);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->reads), c->size && read);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->writes), c->size && !read);
}

static const int pcw_waiter_cases[] = { 1, PCW_MAX_ACTORS };

static void pcw_waiter_desc(const int *waiters, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "waiters %d", *waiters);
}

KUNIT_ARRAY_PARAM(pcw_waiter, pcw_waiter_cases, pcw_waiter_desc);

/* One unlock wakes all who wait. */
static void pci_cfg_wait_test_unlock_wakes_all(struct kunit *test)
{
	int i, waiters = *(const int *)test->param_value;
	struct pcw_ctx *ctx = test->priv;

	/* Here: none of them can leave a broken queue while it is walked. */
	for (i = 0; i < waiters; i++)
		pcw_start(test, PCW_READ_DWORD, kunit_actor_stay_here(test));
	pci_cfg_access_lock(&ctx->dev);
	for (i = 0; i < waiters; i++)
		kunit_actor_go(&ctx->actors[i].actor);
	for (i = 0; i < waiters; i++)
		KUNIT_ASSERT_TRUE_MSG(test, pcw_wait_asleep(&ctx->actors[i], 1),
				      "waiter %d of %d", i, waiters);
	KUNIT_EXPECT_EQ(test, pcw_count(NULL), waiters);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->reads), 0);

	pci_cfg_access_unlock(&ctx->dev);
	for (i = 0; i < waiters; i++) {
		kunit_actor_finish(test, &ctx->actors[i].actor, PCW_TIMEOUT);
		KUNIT_EXPECT_EQ(test, ctx->actors[i].ret, 0);
		KUNIT_EXPECT_EQ(test, ctx->actors[i].value, (u32)PCW_OLD);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->reads), waiters);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->while_blocked), 0);
	KUNIT_EXPECT_EQ(test, pcw_count(NULL), 0);
}

/* Tell whether a waiter changes the queue while somebody else has its lock. */
static bool pcw_changes_unlocked(struct kunit *test)
{
	struct pcw_ctx *ctx = test->priv;
	struct kunit_sighting seen;
	struct pcw_actor *a;

	if (num_online_cpus() < 2)
		return false;
	a = pcw_start(test, PCW_READ_DWORD, kunit_actor_other_cpu(test));
	pci_cfg_access_lock(&ctx->dev);
	seen = pcw_watch(a, kunit_actor_go);
	pci_cfg_access_unlock(&ctx->dev);
	kunit_actor_finish(test, &a->actor, PCW_TIMEOUT);
	return seen.moved;
}

/*
 * Block and unblock under load; the queue's links hold at every look.  Luck
 * would say whether the kernel outlives that with a queue that does not.
 */
static void pci_cfg_wait_test_links_hold_under_load(struct kunit *test)
{
	int i, first, round, count, waited = 0, broken = 0, late = 0;
	struct pcw_ctx *ctx = test->priv;
	struct pcw_actor *a;
	unsigned long end;

	if (pcw_changes_unlocked(test)) {
		KUNIT_FAIL(test, "no load: the queue changes without its lock");
		return;
	}
	first = ctx->nr_actors;
	for (i = 0; i < PCW_READERS + PCW_WRITERS; i++) {
		a = pcw_start(test, i < PCW_READERS ? PCW_READ_DWORD :
						      PCW_WRITE_DWORD, -1);
		a->repeat = true;
	}
	for (i = first; i < ctx->nr_actors; i++)
		kunit_actor_go(&ctx->actors[i].actor);

	for (round = 0; round < PCW_ROUNDS && !broken && !late; round++) {
		pci_cfg_access_lock(&ctx->dev);
		/* A round counts only when somebody has to wait in it. */
		end = jiffies + PCW_TIMEOUT;
		while (!(count = pcw_count(NULL)) && !late) {
			usleep_range(20, 50);
			late = time_after(jiffies, end);
		}
		waited += count > 0;
		broken += count < 0;
		pci_cfg_access_unlock(&ctx->dev);
		broken += pcw_count(NULL) < 0;
	}
	WRITE_ONCE(ctx->stop, true);

	KUNIT_EXPECT_EQ_MSG(test, broken, 0, "broken links in round %d", round);
	KUNIT_EXPECT_EQ_MSG(test, late, 0, "nobody waits in round %d", round);
	KUNIT_EXPECT_EQ(test, waited, PCW_ROUNDS);
	for (i = first; i < ctx->nr_actors; i++) {
		a = &ctx->actors[i];
		kunit_actor_finish(test, &a->actor, PCW_TIMEOUT);
		KUNIT_EXPECT_EQ(test, a->wrong, 0UL);
		KUNIT_EXPECT_GT(test, a->accesses, 0UL);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->while_blocked), 0);
	KUNIT_EXPECT_EQ(test, pcw_count(NULL), 0);
}

static int pcw_init(struct kunit *test)
{
	struct pcw_ctx *ctx;

	/* Not kunit_kzalloc(): freed only when every thread has ended. */
	ctx = kzalloc(sizeof(*ctx), GFP_KERNEL);
	if (!ctx)
		return -ENOMEM;
	ctx->bus.ops = &pcw_ops;
	ctx->dev.bus = &ctx->bus;
	pcw_set_config(ctx, PCW_OLD);
	test->priv = ctx;
	return 0;
}

/* Let the device go and wake the thread itself, not by way of the queue. */
static bool pcw_rescue(struct pcw_actor *a)
{
	unsigned long end = jiffies + PCW_TIMEOUT;

	while (a->actor.task && !kunit_actor_end(&a->actor, HZ / 20)) {
		if (time_after(jiffies, end))
			return false;
		pcw_set_block(a->ctx, false);
		wake_up_process(a->actor.task);
	}
	return true;
}

static void pcw_exit(struct kunit *test)
{
	struct pcw_ctx *ctx = test->priv;
	bool lost = false;
	int i;

	if (!ctx)
		return;
	WRITE_ONCE(ctx->stop, true);
	if (ctx->dev.block_cfg_access)
		pci_cfg_access_unlock(&ctx->dev);
	for (i = 0; i < ctx->nr_actors; i++)
		lost |= !pcw_rescue(&ctx->actors[i]);
	/* A thread that is stuck still uses the memory: let it leak. */
	if (lost)
		KUNIT_FAIL(test, "a waiter could not be woken");
	else
		kfree(ctx);
}

static struct kunit_case pci_cfg_wait_test_cases[] = {
	KUNIT_CASE_PARAM(kunit_actors_test_watch, kat_watch_gen_params),
	KUNIT_CASE(kunit_actors_test_never_let_go),
	KUNIT_CASE(kunit_actors_test_dismissed),
	KUNIT_CASE(kunit_actors_test_stuck),
	KUNIT_CASE_PARAM(kunit_actors_test_sleeps_on, kat_polls_gen_params),
	KUNIT_CASE(pci_cfg_wait_test_queue_still_while_locked),
	KUNIT_CASE(pci_cfg_wait_test_waiter_stays_while_locked),
	KUNIT_CASE(pci_cfg_wait_test_late_block_holds_waiter),
	KUNIT_CASE(pci_cfg_wait_test_blocked_again_sleeps_again),
	KUNIT_CASE_SLOW(pci_cfg_wait_test_sleeps_until_woken),
	KUNIT_CASE_PARAM(pci_cfg_wait_test_access_after_wait, pcw_op_gen_params),
	KUNIT_CASE_PARAM(pci_cfg_wait_test_unlock_wakes_all,
			 pcw_waiter_gen_params),
	KUNIT_CASE(pci_cfg_wait_test_links_hold_under_load),
	{}
};

static struct kunit_suite pci_cfg_wait_test_suite = {
	.name = "pci_cfg_wait",
	.init = pcw_init,
	.exit = pcw_exit,
	.test_cases = pci_cfg_wait_test_cases,
};

kunit_test_suite(pci_cfg_wait_test_suite);
