/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cases that show what <kunit/actors.h> notices.  A fault of an actor is here
 * what is expected, so that it can be seen without a case that fails.
 *
 * They belong to no subsystem: one suite has them first among its own cases.
 */
#ifndef _KUNIT_ACTORS_TEST_H
#define _KUNIT_ACTORS_TEST_H

#include <kunit/actors.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/wait.h>

#define KAT_TIMEOUT	(5 * HZ)

/* An actor may outlive its case, so it is of none. */
static struct kunit_actor kat_actor;
static DEFINE_SPINLOCK(kat_lock);
static DECLARE_WAIT_QUEUE_HEAD(kat_wait);
static bool kat_value;			/* guarded by kat_lock */
static bool kat_open;			/* what actors on kat_wait wait for */

static void kat_start(struct kunit *test, void (*fn)(struct kunit_actor *a),
		      int cpu, unsigned long patience)
{
	/* One that is stuck from an earlier case keeps its memory. */
	KUNIT_ASSERT_NULL(test, kat_actor.task);
	kat_actor.patience = patience;
	kat_value = false;
	kat_open = false;
	kunit_actor_start(test, &kat_actor, fn, cpu);
}

static void kat_end(struct kunit *test)
{
	WRITE_ONCE(kat_open, true);
	wake_up_all(&kat_wait);
	KUNIT_EXPECT_TRUE(test, kunit_actor_end(&kat_actor, KAT_TIMEOUT));
}

static void kat_change_locked(struct kunit_actor *a)
{
	spin_lock(&kat_lock);
	kat_value = true;
	spin_unlock(&kat_lock);
}

static void kat_change_unlocked(struct kunit_actor *a)
{
	WRITE_ONCE(kat_value, true);
}

static void kat_change_nothing(struct kunit_actor *a)
{
}

static void kat_sleep(struct kunit_actor *a)
{
	wait_event(kat_wait, READ_ONCE(kat_open));
}

static void kat_poll(struct kunit_actor *a)
{
	while (!wait_event_timeout(kat_wait, READ_ONCE(kat_open), HZ / 20))
		;
}

static bool kat_at_lock(struct kunit_actor *a)
{
	return kunit_actor_at(a, KUNIT_LOCK_MAP(&kat_lock)) ||
	       spin_is_contended(&kat_lock);
}

static const char *kat_moved(struct kunit_actor *a)
{
	return READ_ONCE(kat_value) ? "the value" : NULL;
}

struct kat_watch_case {
	const char *name;
	void (*fn)(struct kunit_actor *a);
	const char *fault;
};

static const struct kat_watch_case kat_watch_cases[] = {
	{ "takes the lock", kat_change_locked, NULL },
	{ "does without the lock", kat_change_unlocked, "the value" },
	{ "never comes to the lock", kat_change_nothing, "nobody came" },
};

static void kat_watch_desc(const struct kat_watch_case *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(kat_watch, kat_watch_cases, kat_watch_desc);

/* Who waits for the lock is told from who does without, and from nobody. */
static void kunit_actors_test_watch(struct kunit *test)
{
	const struct kat_watch_case *c = test->param_value;
	struct kunit_sighting seen;
	unsigned long flags;

	kat_start(test, c->fn, kunit_actor_other_cpu(test), 0);
	spin_lock_irqsave(&kat_lock, flags);
	kunit_actor_go(&kat_actor);
	seen = kunit_actor_watch(&kat_actor, kat_at_lock, kat_moved, 500);
	spin_unlock_irqrestore(&kat_lock, flags);
	kat_end(test);

	if (!c->fault)
		kunit_actor_expect_came(test, seen.came, "the lock");
	KUNIT_EXPECT_EQ_MSG(test, !kunit_actor_fault(&seen), !c->fault,
			    "%s", kunit_actor_fault(&seen) ?: "no fault");
	if (c->fault && kunit_actor_fault(&seen))
		KUNIT_EXPECT_EQ(test, strcmp(kunit_actor_fault(&seen), c->fault),
				0);
}

/* Whom nobody lets go does nothing, and is not taken for one who has. */
static void kunit_actors_test_never_let_go(struct kunit *test)
{
	kat_start(test, kat_change_unlocked, -1, HZ / 10);
	KUNIT_EXPECT_TRUE(test, kunit_actor_join(&kat_actor, KAT_TIMEOUT));
	kat_end(test);
	KUNIT_EXPECT_TRUE(test, kat_actor.missed);
	KUNIT_EXPECT_FALSE(test, kat_value);
}

/* Nor does one whose case has ended before it was let go. */
static void kunit_actors_test_dismissed(struct kunit *test)
{
	kat_start(test, kat_change_unlocked, -1, 0);
	kat_end(test);
	KUNIT_EXPECT_TRUE(test, kat_actor.missed);
	KUNIT_EXPECT_FALSE(test, kat_value);
}

/* Who does not end is waited for within a bound. */
static void kunit_actors_test_stuck(struct kunit *test)
{
	kat_start(test, kat_sleep, -1, 0);
	kunit_actor_go(&kat_actor);
	KUNIT_EXPECT_FALSE(test, kunit_actor_join(&kat_actor, HZ / 10));
	KUNIT_EXPECT_FALSE(test, kunit_actor_end(&kat_actor, HZ / 10));
	kat_end(test);
	KUNIT_EXPECT_FALSE(test, kat_actor.missed);
}

static const bool kat_polls[] = { false, true };

static void kat_polls_desc(const bool *polls, char *desc)
{
	strscpy(desc, *polls ? "looks by itself" : "waits to be woken",
		KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(kat_polls, kat_polls, kat_polls_desc);

/* Who looks by itself from time to time is told from who waits to be woken. */
static void kunit_actors_test_sleeps_on(struct kunit *test)
{
	bool polls = *(const bool *)test->param_value;
	unsigned long end = jiffies + KAT_TIMEOUT;
	bool sleeps_on;

	kat_start(test, polls ? kat_poll : kat_sleep, -1, 0);
	kunit_actor_go(&kat_actor);
	while (!kunit_actor_slept(&kat_actor) && time_before(jiffies, end))
		usleep_range(500, 1000);
	sleeps_on = kunit_actor_sleeps_on(&kat_actor, 500);
	kat_end(test);
	KUNIT_EXPECT_EQ(test, sleeps_on, !polls);
}

#endif /* _KUNIT_ACTORS_TEST_H */
