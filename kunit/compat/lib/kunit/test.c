// SPDX-License-Identifier: GPL-2.0-only
/*
 * A small KUnit, for kernels that have none or too old a one: the runner.
 *
 * What it prints is what KUnit of v6.12 prints, KTAP version 1, as far as the
 * suites beside it make it.  Only what follows "FAILED at" may differ.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/glob.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <kunit/kernel_versions.h>

#define KUNIT_TIMEOUT		(300 * HZ)	/* of a case */
#define KUNIT_SLOW_SECONDS	2		/* a longer case says so */

static bool kunit_enable = IS_ENABLED(CONFIG_KUNIT_DEFAULT_ENABLED);
module_param_named(enable, kunit_enable, bool, 0);
MODULE_PARM_DESC(enable, "Run the tests");

static char *kunit_filter_glob;
module_param_named(filter_glob, kunit_filter_glob, charp, 0400);
MODULE_PARM_DESC(filter_glob, "What to run: suite* or suite*.case*");

static char *kunit_shutdown;
core_param(kunit_shutdown, kunit_shutdown, charp, 0400);

struct kunit_managed {
	struct list_head node;
	kunit_action_t *action;
	void *ctx;
};

/* What a thread of a case needs. */
struct kunit_run {
	struct kunit test;
	struct kunit_suite *suite;
	struct kunit_case *test_case;
	void (*fn)(struct kunit_run *run);
};

struct kunit_stats {
	unsigned long nr[KUNIT_SKIPPED + 1];
	unsigned long total;
};

static LIST_HEAD(kunit_suites);
static LIST_HEAD(kunit_init_suites);

void kunit_add_suites(struct kunit_suite **suites, int nr, bool is_init)
{
	int i;

	for (i = 0; i < nr; i++) {
		suites[i]->is_init = is_init;
		list_add_tail(&suites[i]->node,
			      is_init ? &kunit_init_suites : &kunit_suites);
	}
}

int kunit_add_action(struct kunit *test, kunit_action_t *action, void *ctx)
{
	struct kunit_managed *m = kmalloc(sizeof(*m), GFP_KERNEL);
	unsigned long flags;

	if (!m)
		return -ENOMEM;
	m->action = action;
	m->ctx = ctx;
	spin_lock_irqsave(&test->lock, flags);
	list_add(&m->node, &test->actions);
	spin_unlock_irqrestore(&test->lock, flags);
	return 0;
}
EXPORT_SYMBOL_GPL(kunit_add_action);

int kunit_add_action_or_reset(struct kunit *test, kunit_action_t *action,
			      void *ctx)
{
	int err = kunit_add_action(test, action, ctx);

	if (err)
		action(ctx);
	return err;
}
EXPORT_SYMBOL_GPL(kunit_add_action_or_reset);

static void kunit_free(void *ptr)
{
	kfree(ptr);
}

void *kunit_kmalloc_array(struct kunit *test, size_t n, size_t size, gfp_t gfp)
{
	void *ptr = kmalloc_array(n, size, gfp);

	if (!ptr || kunit_add_action_or_reset(test, kunit_free, ptr))
		return NULL;
	return ptr;
}
EXPORT_SYMBOL_GPL(kunit_kmalloc_array);

unsigned long kunit_vm_mmap(struct kunit *test, struct file *file,
			    unsigned long addr, unsigned long len,
			    unsigned long prot, unsigned long flag,
			    unsigned long offset)
{
	struct mm_struct *mm;

	if (!current->mm) {
		mm = mm_alloc();
		if (!mm)
			return 0;
		mm->task_size = TASK_SIZE;
		arch_pick_mmap_layout(mm, &current->signal->rlim[RLIMIT_STACK]);
		kthread_use_mm(mm);
	}
	return vm_mmap(file, addr, len, prot, flag, offset);
}
EXPORT_SYMBOL_GPL(kunit_vm_mmap);

void kunit_say(const char *name, const char *fmt, ...)
{
	struct va_format message = { .fmt = fmt };
	va_list args;

	va_start(args, fmt);
	message.va = &args;
	pr_info(KUNIT_SUBTEST_INDENT "# %s: %pV", name, &message);
	va_end(args);
}
EXPORT_SYMBOL_GPL(kunit_say);

static void kunit_abort(struct kunit *test)
{
	test->aborted = true;
	test->ended = true;
	kv_kthread_exit();
}

void kunit_skip(struct kunit *test, const char *fmt, ...)
{
	va_list args;

	WRITE_ONCE(test->status, KUNIT_SKIPPED);
	va_start(args, fmt);
	vscnprintf(test->status_comment, sizeof(test->status_comment), fmt,
		   args);
	va_end(args);
	kunit_abort(test);
}
EXPORT_SYMBOL_GPL(kunit_skip);

/* A number in the source needs no explanation. */
static void kunit_print_value(const char *text, long long value)
{
	long long number;

	if (text && (kstrtoll(text, 0, &number) || number != value))
		pr_info(KUNIT_SUBSUBTEST_INDENT "%s == %lld (0x%llx)\n", text,
			value, value);
}

void kunit_failed(struct kunit *test, const struct kunit_expectation *e,
		  long long left, long long right, const char *fmt, ...)
{
	struct va_format message = { .fmt = fmt };
	va_list args;

	kunit_set_failure(test);
	kunit_err(test, "%s FAILED at %s:%d\n",
		  e->fatal ? "ASSERTION" : "EXPECTATION", e->file, e->line);
	if (e->text)
		pr_info(KUNIT_SUBTEST_INDENT "%s\n", e->text);
	kunit_print_value(e->left, left);
	kunit_print_value(e->right, right);
	if (fmt) {
		va_start(args, fmt);
		message.va = &args;
		pr_info("%pV\n", &message);
		va_end(args);
	}
	if (e->fatal)
		kunit_abort(test);
}
EXPORT_SYMBOL_GPL(kunit_failed);

static void kunit_run_case(struct kunit_run *run)
{
	struct kunit *test = &run->test;
	struct timespec64 took;
	ktime_t start;
	int err;

	err = run->suite->init ? run->suite->init(test) : 0;
	if (err) {
		kunit_err(test, "failed to initialize: %d\n", err);
		kunit_set_failure(test);
		return;
	}
	start = ktime_get();
	run->test_case->run_case(test);
	took = ktime_to_timespec64(ktime_sub(ktime_get(), start));
	if (!run->test_case->slow && took.tv_sec >= KUNIT_SLOW_SECONDS)
		kunit_warn(test, "Test should be marked slow (runtime: %lld.%09lds)\n",
			   (long long)took.tv_sec, took.tv_nsec);
}

static void kunit_clean_up(struct kunit_run *run)
{
	struct kunit *test = &run->test;
	struct kunit_managed *m;

	if (run->suite->exit)
		run->suite->exit(test);
	while (!list_empty(&test->actions)) {
		m = list_first_entry(&test->actions, struct kunit_managed, node);
		list_del(&m->node);
		m->action(m->ctx);
		kfree(m);
	}
}

static int kunit_thread(void *data)
{
	struct kunit_run *run = data;

	run->fn(run);
	run->test.ended = true;
	return 0;
}

/* Returns false when a thread may still use @run. */
static bool kunit_run_thread(struct kunit_run *run,
			     void (*fn)(struct kunit_run *run))
{
	struct kunit *test = &run->test;
	struct completion *done;
	struct task_struct *task;
	bool in_time = true;

	run->fn = fn;
	test->ended = false;
	test->aborted = false;
	task = kthread_create(kunit_thread, run, "kunit_try_catch_thread");
	if (IS_ERR(task)) {
		kunit_err(test, "no thread: %ld\n", PTR_ERR(task));
		kunit_set_failure(test);
		return true;
	}
	get_task_struct(task);
	/* Completed when the thread exits, which also resets the pointer. */
	done = task->vfork_done;
	wake_up_process(task);
	if (!wait_for_completion_timeout(done, KUNIT_TIMEOUT)) {
		kunit_err(test, "try timed out\n");
		kunit_set_failure(test);
		in_time = false;
	} else if (!test->ended) {
		kunit_err(test, "try faulted\n");
		kunit_set_failure(test);
	}
	put_task_struct(task);
	return in_time;
}

/* Run a case, with one parameter if it has any. */
static enum kunit_status kunit_run_once(struct kunit_suite *suite,
					struct kunit_case *test_case,
					const void *param, int index,
					char *comment)
{
	struct kunit_run *run = kzalloc(sizeof(*run), GFP_KERNEL);
	enum kunit_status status;
	struct kunit *test;

	if (!run)
		return KUNIT_FAILURE;
	run->suite = suite;
	run->test_case = test_case;
	test = &run->test;
	test->name = test_case->name;
	test->param_value = param;
	test->param_index = index;
	spin_lock_init(&test->lock);
	INIT_LIST_HEAD(&test->actions);

	/* What hangs is left alone, with all that it may use. */
	if (!kunit_run_thread(run, kunit_run_case))
		return KUNIT_FAILURE;
	if (!kunit_run_thread(run, kunit_clean_up))
		return KUNIT_FAILURE;
	if (test->aborted) {
		kunit_err(test, "test aborted during cleanup. continuing without cleaning up\n");
		kunit_set_failure(test);
	}
	status = test->status;
	strscpy(comment, test->status_comment, KUNIT_STATUS_COMMENT_SIZE);
	kfree(run);
	return status;
}

static void kunit_count(struct kunit_stats *stats, enum kunit_status status)
{
	stats->nr[status]++;
	stats->total++;
}

static void kunit_print_stats(const char *indent, const char *name,
			      const struct kunit_stats *stats)
{
	if (stats->total > 1)
		pr_info("%s# %s: pass:%lu fail:%lu skip:%lu total:%lu\n",
			indent, name, stats->nr[KUNIT_SUCCESS],
			stats->nr[KUNIT_FAILURE], stats->nr[KUNIT_SKIPPED],
			stats->total);
}

static void kunit_print_result(const char *indent, enum kunit_status status,
			       int number, const char *name,
			       const char *comment)
{
	pr_info("%s%s %d %s%s%s\n", indent,
		status == KUNIT_FAILURE ? "not ok" : "ok", number, name,
		status == KUNIT_SKIPPED ? " # SKIP " : "",
		status == KUNIT_SKIPPED ? comment : "");
}

/* Of the results of all parts: one failure, else one success, else skipped. */
static enum kunit_status kunit_sum(const struct kunit_stats *stats)
{
	if (stats->nr[KUNIT_FAILURE])
		return KUNIT_FAILURE;
	return stats->nr[KUNIT_SUCCESS] ? KUNIT_SUCCESS : KUNIT_SKIPPED;
}

static void kunit_run_numbered(struct kunit_suite *suite,
			       struct kunit_case *test_case, int number,
			       struct kunit_stats *of_suite,
			       struct kunit_stats *totals)
{
	char desc[KUNIT_PARAM_DESC_SIZE], comment[KUNIT_STATUS_COMMENT_SIZE] = "";
	struct kunit_stats stats = {};
	enum kunit_status status;
	const void *param;
	int i = 0;

	if (!test_case->generate_params) {
		status = kunit_run_once(suite, test_case, NULL, 0, comment);
		kunit_count(&stats, status);
	} else {
		pr_info(KUNIT_SUBSUBTEST_INDENT "KTAP version 1\n");
		pr_info(KUNIT_SUBSUBTEST_INDENT "# Subtest: %s\n",
			test_case->name);
		desc[0] = '\0';
		param = test_case->generate_params(NULL, desc);
		while (param) {
			comment[0] = '\0';
			status = kunit_run_once(suite, test_case, param, i,
						comment);
			if (!desc[0])
				snprintf(desc, sizeof(desc), "param-%d", i);
			kunit_print_result(KUNIT_SUBSUBTEST_INDENT, status,
					   ++i, desc, comment);
			kunit_count(&stats, status);
			desc[0] = '\0';
			param = test_case->generate_params(param, desc);
		}
		comment[0] = '\0';
	}
	if (test_case->slow)
		pr_info(KUNIT_SUBTEST_INDENT "# %s.speed: slow\n",
			test_case->name);
	kunit_print_stats(KUNIT_SUBTEST_INDENT, test_case->name, &stats);
	status = kunit_sum(&stats);
	kunit_print_result(KUNIT_SUBTEST_INDENT, status, number,
			   test_case->name, comment);
	kunit_count(of_suite, status);
	for (i = 0; i <= KUNIT_SKIPPED; i++)
		totals->nr[i] += stats.nr[i];
	totals->total += stats.total;
}

static bool kunit_case_matches(const struct kunit_case *test_case,
			       const char *glob)
{
	return !glob || glob_match(glob, test_case->name);
}

/* How many cases of a suite are to be run. */
static int kunit_nr_cases(const struct kunit_suite *suite,
			  const char *suite_glob, const char *case_glob)
{
	struct kunit_case *test_case;
	int nr = 0;

	if (suite_glob && !glob_match(suite_glob, suite->name))
		return 0;
	for (test_case = suite->test_cases; test_case->run_case; test_case++)
		nr += kunit_case_matches(test_case, case_glob);
	return nr;
}

static void kunit_run_suite(struct kunit_suite *suite, int number, int nr_cases,
			    const char *case_glob)
{
	struct kunit_stats stats = {}, totals = {};
	struct kunit_case *test_case;
	int err, i = 0;

	err = suite->suite_init ? suite->suite_init(suite) : 0;
	if (err) {
		kunit_err(suite, KUNIT_SUBTEST_INDENT "# failed to initialize (%d)\n",
			  err);
		kunit_print_result("", KUNIT_FAILURE, number, suite->name, "");
		return;
	}
	pr_info(KUNIT_SUBTEST_INDENT "KTAP version 1\n");
	pr_info(KUNIT_SUBTEST_INDENT "# Subtest: %s\n", suite->name);
	pr_info(KUNIT_SUBTEST_INDENT "# module: %s\n",
		suite->test_cases->module_name);
	if (suite->is_init)
		pr_info(KUNIT_SUBTEST_INDENT "# is_init: true\n");
	pr_info(KUNIT_SUBTEST_INDENT "1..%d\n", nr_cases);
	for (test_case = suite->test_cases; test_case->run_case; test_case++)
		if (kunit_case_matches(test_case, case_glob))
			kunit_run_numbered(suite, test_case, ++i, &stats,
					   &totals);
	if (suite->suite_exit)
		suite->suite_exit(suite);
	kunit_print_stats("", suite->name, &stats);
	kunit_print_stats("", "Totals", &totals);
	kunit_print_result("", kunit_sum(&stats), number, suite->name, "");
}

static void kunit_run_all(char *suite_glob)
{
	struct kunit_suite *suite;
	int nr, number = 0, plan = 0;
	char *case_glob;

	case_glob = suite_glob;
	strsep(&case_glob, ".");

	list_splice_init(&kunit_init_suites, &kunit_suites);
	list_for_each_entry(suite, &kunit_suites, node)
		plan += kunit_nr_cases(suite, suite_glob, case_glob) > 0;
	pr_info("KTAP version 1\n");
	pr_info("1..%d\n", plan);
	list_for_each_entry(suite, &kunit_suites, node) {
		nr = kunit_nr_cases(suite, suite_glob, case_glob);
		if (nr)
			kunit_run_suite(suite, ++number, nr, case_glob);
	}
}

/* All CPUs are up by now, and all that suites may need has been set up. */
static int __init kunit_boot(void)
{
	if (kunit_enable)
		kunit_run_all(kunit_filter_glob);
	else
		pr_info("kunit: disabled\n");

	if (!kunit_shutdown)
		return 0;
	if (!strcmp(kunit_shutdown, "poweroff"))
		kernel_power_off();
	else if (!strcmp(kunit_shutdown, "halt"))
		kernel_halt();
	else if (!strcmp(kunit_shutdown, "reboot"))
		kernel_restart(NULL);
	return 0;
}
late_initcall_sync(kunit_boot);
