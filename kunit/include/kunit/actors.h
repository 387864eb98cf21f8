/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Actors: threads that a KUnit case sets going, and watches.
 *
 * A case about a lock holds the lock, lets another thread go, and sees that
 * nothing moves.  It proves something only if that thread came to the lock: an
 * actor that never came, that nobody let go or that does not end fails the
 * case.
 *
 *	kunit_actor_start(test, a, fn, kunit_actor_other_cpu(test));
 *	spin_lock_irqsave(&lock, flags);
 *	kunit_actor_go(a);
 *	seen = kunit_actor_watch(a, at_lock, moved, 1000);
 *	spin_unlock_irqrestore(&lock, flags);
 *	kunit_actor_expect_still(test, &seen, "the lock");
 *	kunit_actor_finish(test, a, HZ);
 *
 * A suite puts struct kunit_actor into a structure of its own.  That memory is
 * the thread's until kunit_actor_end() is true, however the case ended: it must
 * not be the case's own (kunit_kzalloc()).
 */
#ifndef _KUNIT_ACTORS_H
#define _KUNIT_ACTORS_H

#include <kunit/test.h>
#include <linux/compiler.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/debug_locks.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/lockdep.h>
#include <linux/processor.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/smp.h>
#include <linux/timekeeping.h>

#define KUNIT_ACTOR_PATIENCE	(30 * HZ)	/* for being let go */
#define KUNIT_ACTOR_SPINS	10000
#define KUNIT_ACTOR_STILL_NS	(10 * NSEC_PER_MSEC)

struct kunit_actor {
	void (*fn)(struct kunit_actor *a);
	unsigned long patience;		/* in jiffies, if not the usual */
	struct task_struct *task;	/* NULL: not started, or gone */
	struct completion ready;
	struct completion arrived;
	struct completion go;
	struct completion done;
	bool dismissed;			/* what is not yet let go never is */
	bool missed;			/* it waited in vain to be let go */
	bool gone;			/* let go, and on its way */
	unsigned long slept_before;	/* voluntary switches by then */
};

/* What was seen of an actor while the case held a lock. */
struct kunit_sighting {
	bool came;			/* to the lock, or past it */
	const char *moved;		/* what changed, or NULL */
};

/* Keep the case's thread on the CPU where it is now. */
static inline int kunit_actor_stay_here(struct kunit *test)
{
	int cpu = get_cpu();

	put_cpu();
	KUNIT_ASSERT_EQ(test, 0,
			set_cpus_allowed_ptr(current, cpumask_of(cpu)));
	return cpu;
}

/* The same, and return another CPU; skip the case if there is none. */
static inline int kunit_actor_other_cpu(struct kunit *test)
{
	int other = cpumask_any_but(cpu_online_mask,
				    kunit_actor_stay_here(test));

	if (other >= nr_cpu_ids)
		kunit_skip(test, "needs two CPUs online, has %u",
			   num_online_cpus());
	return other;
}

/* For the actor: wait to be let go.  If that never comes it must end. */
static inline bool kunit_actor_await_go(struct kunit_actor *a)
{
	bool go = wait_for_completion_timeout(&a->go, a->patience) &&
		  !READ_ONCE(a->dismissed);

	if (!go)
		WRITE_ONCE(a->missed, true);
	a->slept_before = current->nvcsw;
	/* What is read before it is of no use: see kunit_actor_slept(). */
	smp_store_release(&a->gone, go);
	return go;
}

/* For the actor: say that it got there, and wait to be let go on. */
static inline bool kunit_actor_pause(struct kunit_actor *a)
{
	WRITE_ONCE(a->gone, false);
	complete(&a->arrived);
	return kunit_actor_await_go(a);
}

static inline int kunit_actor_main(void *data)
{
	struct kunit_actor *a = data;

	complete(&a->ready);
	if (kunit_actor_await_go(a))
		a->fn(a);
	complete_all(&a->arrived);
	complete_all(&a->done);
	return 0;
}

/* Start a thread, on CPU @cpu unless that is negative: it waits for its go. */
static inline void kunit_actor_start(struct kunit *test, struct kunit_actor *a,
				     void (*fn)(struct kunit_actor *a), int cpu)
{
	struct task_struct *task;

	a->fn = fn;
	a->patience = a->patience ?: KUNIT_ACTOR_PATIENCE;
	a->dismissed = false;
	a->missed = false;
	a->gone = false;
	init_completion(&a->ready);
	init_completion(&a->arrived);
	init_completion(&a->go);
	init_completion(&a->done);
	task = kthread_create(kunit_actor_main, a, "kunit_actor");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	get_task_struct(task);
	a->task = task;
	if (cpu >= 0)
		kthread_bind(task, cpu);
	wake_up_process(task);
	KUNIT_ASSERT_NE_MSG(test, 0UL,
			    wait_for_completion_timeout(&a->ready,
							KUNIT_ACTOR_PATIENCE),
			    "the actor does not start");
}

static inline void kunit_actor_go(struct kunit_actor *a)
{
	complete(&a->go);
}

/* Has it come to kunit_actor_pause(), or to its end, in time? */
static inline bool kunit_actor_arrived(struct kunit_actor *a,
				       unsigned long timeout)
{
	return wait_for_completion_timeout(&a->arrived, timeout) != 0;
}

/* Has it ended in time? */
static inline bool kunit_actor_join(struct kunit_actor *a, unsigned long timeout)
{
	return wait_for_completion_timeout(&a->done, timeout) != 0;
}

/* It must have been let go, and end in time. */
static inline void kunit_actor_finish(struct kunit *test, struct kunit_actor *a,
				      unsigned long timeout)
{
	KUNIT_ASSERT_TRUE_MSG(test, kunit_actor_join(a, timeout),
			      "the actor does not end");
	KUNIT_EXPECT_FALSE_MSG(test, a->missed, "the actor was never let go");
}

/*
 * For the suite's exit: what was not let go by now does not run any more.
 * Returns false if the actor is stuck, and goes on using its memory.
 */
static inline bool kunit_actor_end(struct kunit_actor *a, unsigned long timeout)
{
	if (!a->task)
		return true;
	WRITE_ONCE(a->dismissed, true);
	complete_all(&a->go);
	if (!kunit_actor_join(a, timeout))
		return false;
	kthread_stop(a->task);
	put_task_struct(a->task);
	a->task = NULL;
	return true;
}

/* How often it has gone to sleep since it was last let go. */
static inline unsigned long kunit_actor_slept(struct kunit_actor *a)
{
	/* Only then slept_before is that of this go. */
	if (!smp_load_acquire(&a->gone))
		return 0;
	return READ_ONCE(a->task->nvcsw) - a->slept_before;
}

/* Does an actor that is asleep stay so?  One that looks by itself does not. */
static inline bool kunit_actor_sleeps_on(struct kunit_actor *a, unsigned int ms)
{
	unsigned long end = jiffies + msecs_to_jiffies(ms);
	unsigned long before = kunit_actor_slept(a);

	do {
		usleep_range(500, 1000);
		if (kunit_actor_slept(a) != before || completion_done(&a->done))
			return false;
	} while (time_before(jiffies, end));
	return true;
}

#ifdef CONFIG_LOCKDEP
#define KUNIT_LOCK_MAP(lock)	(&(lock)->dep_map)
#else
#define KUNIT_LOCK_MAP(lock)	((void)(lock), NULL)
#endif

/*
 * Is it acquiring this lock, or does it hold it?  Lockdep notes a lock before
 * the CPU spins on it.  Without lockdep the lock itself may tell who waits, but
 * not every kind of lock does.
 */
static inline bool kunit_actor_at(struct kunit_actor *a,
				  const struct lockdep_map *map)
{
#ifdef CONFIG_LOCKDEP
	int i, depth = READ_ONCE(a->task->lockdep_depth);

	for (i = 0; i < depth && i < MAX_LOCK_DEPTH; i++)
		if (READ_ONCE(a->task->held_locks[i].instance) == map)
			return true;
#endif
	return false;
}

/*
 * Pass some microseconds with interrupts off.  udelay() would look at the clock
 * all the time, for which an emulator that counts instructions stops each time.
 */
static inline void kunit_actor_moment(void)
{
	int i;

	cpu_relax();
	for (i = 0; i < KUNIT_ACTOR_SPINS; i++)
		barrier();
}

/*
 * With the lock held, and interrupts off or on: watch until the actor has come
 * to the lock and a while longer, for @ms milliseconds at most.  @moved names
 * what has changed, which ends the watch, else it returns NULL.
 */
static inline struct kunit_sighting
kunit_actor_watch(struct kunit_actor *a,
		  bool (*at_lock)(struct kunit_actor *a),
		  const char *(*moved)(struct kunit_actor *a), unsigned int ms)
{
	u64 now, arrived = 0, start = ktime_get_mono_fast_ns();
	struct kunit_sighting seen = {};

	do {
		seen.moved = moved(a);
		if (seen.moved)
			break;
		kunit_actor_moment();
		now = ktime_get_mono_fast_ns();
		if (!arrived && at_lock(a))
			arrived = now;
	} while (arrived ? now - arrived < KUNIT_ACTOR_STILL_NS :
			   now - start < ms * (u64)NSEC_PER_MSEC);
	seen.came = seen.moved || arrived;
	return seen;
}

/* What is wrong with what was seen, or NULL. */
static inline const char *kunit_actor_fault(const struct kunit_sighting *seen)
{
	if (seen->moved)
		return seen->moved;
	return seen->came ? NULL : "nobody came";
}

/* An actor that never came has proved nothing: fail, or skip the case. */
static inline void kunit_actor_expect_came(struct kunit *test, bool came,
					   const char *lock)
{
	if (came)
		return;
	if (!IS_ENABLED(CONFIG_LOCKDEP) || !debug_locks)
		kunit_skip(test, "cannot see who waits for %s without lockdep",
			   lock);
	KUNIT_FAIL(test, "nobody came to %s", lock);
}

/* In correct code the actor can do nothing but wait for the lock. */
static inline void kunit_actor_expect_still(struct kunit *test,
					    const struct kunit_sighting *seen,
					    const char *lock)
{
	const char *fault = kunit_actor_fault(seen);

	if (seen->came)
		KUNIT_EXPECT_NULL_MSG(test, fault, "changed while %s was held: %s",
				      lock, fault ?: "nothing");
	kunit_actor_expect_came(test, seen->came, lock);
}

#endif /* _KUNIT_ACTORS_H */
