// SPDX-License-Identifier: GPL-2.0-only
/*
 * Free huge pages that wait to be split while the shrinker looks at their queue.
 *
 * A huge page of which a part was unmapped waits on the split queue of its
 * memory cgroup.  One process queues a page and frees it, over and over; the
 * other one has the shrinker's debugfs file look at that cgroup's queue.  Each
 * has a CPU of its own and needs nothing of the other one's, so no IPI either.
 *
 * Cgroup v2 alone: that file knows no cgroups of v1.
 */
#include "../kselftest_kit.h"

#ifndef NOLIBC
#include <sys/mount.h>
#include <sys/stat.h>
#endif

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define PLACE		"/tmp/split_queue_free"	/* all work is done there */
#define GROUP		"cg/split_queue_free"
#define WAIT_MS		30000
#define LOOK_MS		20	/* from one look to the next */
/* However little a slow host gets done in that time */
#define MIN_PAGES	40

#ifndef MADV_DONTNEED
#define MADV_DONTNEED	4
#endif
#ifndef MADV_HUGEPAGE
#define MADV_HUGEPAGE	14
#endif

static int seconds = 5;
static unsigned long huge_size, page_size;
static const char *shrinker;	/* the folder of the split queues' in debugfs */
static int was_never;		/* THP's setting, to be restored */

static struct shared {
	int stop;
	unsigned long freed;	/* pages, by the other process */
	int err;
} *shared;

static int advise(char *start, unsigned long len, int advice)
{
	return ksft_sys(__NR_madvise, (long)start, len, advice, 0, 0, 0);
}

static void run_freer(void *arg)
{
	struct shared *me = arg;
	char *map, *page;

	me->err = -ksft_stay_on_cpu(1);
	if (!me->err)
		me->err = -ksft_write_file(GROUP "/cgroup.procs", "0");
	while (!me->err && !me->stop) {
		map = ksft_map(2 * huge_size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (!map) {
			me->err = ENOMEM;
			return;
		}
		page = (char *)(((unsigned long)map + huge_size - 1) &
				~(huge_size - 1));
		advise(page, huge_size, MADV_HUGEPAGE);
		page[0] = 1;
		advise(page + page_size, huge_size - 2 * page_size,
		       MADV_DONTNEED);
		ksft_unmap(map, 2 * huge_size);
		me->freed++;
	}
}

static long events(const char *name)
{
	static char buf[16384];
	char *at;

	if (ksft_read_file("/proc/vmstat", buf, sizeof(buf)))
		return 0;
	at = ksft_find(buf, name);
	return at ? strtol(at + strlen(name), NULL, 10) : 0;
}

static void test_free(void)
{
	static const char name[] = "pages are freed while their queue is looked at";
	long queued = events("thp_deferred_split_page ");
	const char *scan = ksft_text("%s/scan", shrinker), *what;
	unsigned long looks = 0;
	struct ksft_child freer;
	long long end;
	struct stat st;
	int ok;

	if (stat(GROUP, &st) || ksft_child_start(&freer, run_freer, shared))
		ksft_exit_fail_msg("no cgroup, or no process\n");
	/* A cgroup, a node, and how many pages of its queue */
	what = ksft_text("%ld 0 8", (long)st.st_ino);
	end = ksft_now_ns() + seconds * 1000000000LL;
	do {
		/* A look takes off the queue what is not freed by then. */
		ksft_pause_ms(LOOK_MS);
		ok = !ksft_write_file(scan, what);
		looks++;
	} while (ok && !shared->err &&
		 (shared->freed < MIN_PAGES || ksft_now_ns() < end));
	shared->stop = 1;
	ksft_child_wait(&freer, WAIT_MS);
	ok &= ksft_child_ended_well(&freer, "the process that frees");
	queued = events("thp_deferred_split_page ") - queued;
	ksft_print_msg("%lu pages freed, %ld queued, %lu looks\n",
		       shared->freed, queued, looks);
	if (shared->err)
		ksft_print_msg("freeing: %s\n", strerror(shared->err));
	ok &= !shared->err;
	if (ok && !queued)
		ksft_skip_case(name, "not exercised: no page was queued");
	else
		ksft_test_result(ok, "%s\n", name);
}

static int is_shrinker(const char *name)
{
	static const char wanted[] = "thp-deferred_split-";

	if (!strncmp(name, wanted, sizeof(wanted) - 1))
		shrinker = strdup(ksft_text("debug/shrinker/%s", name));
	return !!shrinker;
}

static const char *set_up(void)
{
	char buf[64];

	if (ksft_stay_on_cpu(1) || ksft_stay_on_cpu(0))
		return "it takes two CPUs";
	if (ksft_read_file(THP "enabled", buf, sizeof(buf)))
		return "no transparent huge pages";
	huge_size = ksft_read_number(THP "hpage_pmd_size");
	was_never = !!ksft_find(buf, "[never]");
	if (was_never)
		ksft_write_file(THP "enabled", "madvise");
	mkdir(PLACE, 0700);
	if (chdir(PLACE))
		return "no folder to work in";
	mkdir("cg", 0755);
	mkdir("debug", 0755);
	mount("none", "debug", "debugfs", 0, NULL);
	ksft_for_each("debug/shrinker", is_shrinker);
	if (!shrinker)
		return "no debugfs file of the shrinker";
	if (mount("none", "cg", "cgroup2", 0, NULL) ||
	    ksft_write_file("cg/cgroup.subtree_control", "+memory"))
		return "no memory controller in cgroup v2";
	mkdir(GROUP, 0755);
	return NULL;
}

static void clean_up(void)
{
	rmdir(GROUP);
	umount2("cg", 0);
	umount2("debug", 0);
	if (was_never)
		ksft_write_file(THP "enabled", "never");
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long pages are freed", &seconds, 86400, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct ksft_klog klog;
	const char *why;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	page_size = getpagesize();
	shared = ksft_share(sizeof(*shared));
	why = set_up();
	if (why) {
		clean_up();
		ksft_exit_skip("%s\n", why);
	}
	ksft_set_plan(2);
	ksft_klog_open(&klog);
	test_free();
	clean_up();
	ksft_klog_test_result(&klog, "kernel log stays clean");
	ksft_finished();
}
