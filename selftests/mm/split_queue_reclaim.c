// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queue huge pages for splitting in memory cgroups, and free, swap out and
 * reclaim them while processes come, go and move between the cgroups.
 *
 * A huge page of which a part was unmapped waits on the split queue of its
 * memory cgroup.  It has to leave that queue under the queue's own lock, which
 * is found through the cgroup: before it is uncharged, freed or swapped out.
 *
 * Two parts, each for cgroup v1 and for v2, as the memory controller can only
 * be in one hierarchy at a time:
 *
 * - A few pages are queued and then freed, or swapped out whole.  Nothing else
 *   runs.  The queue's length, as the shrinker's debugfs file gives it, must
 *   be back to 0: a page that left through another queue is still counted.
 *   Before v6.0 there is no such file.  There a trace of the shrinkers tells
 *   what they find when all caches are dropped: nothing on any split queue.
 * - The load: more pages than the limit allows, split by reclaim while other
 *   pages are queued and freed.  SCSI generic requests allocate and free large
 *   buffers meanwhile; they must not show what was in that memory before.
 *
 * Swap is on a RAM disk, if there is one that nobody uses.
 */
#include "../kselftest_kit.h"

#ifndef NOLIBC
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#endif
#include <linux/fs.h>
#include <linux/mman.h>

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define PLACE		"/tmp/split_queue_reclaim"	/* all work is done there */
#define CGROUPS		"cg"				/* the hierarchy's root */
#define DEBUG		"debug"				/* debugfs */
#define TRACE		"trace"				/* tracefs */
#define TRACE_EVENT	TRACE "/events/vmscan/mm_shrink_slab_start/enable"
#define PARENT		CGROUPS "/split_queue_reclaim"
#define SWAP_DISK	"/dev/ram0"

#define WAIT_MS		30000	/* what must happen does so by then */
#define UNQUEUE_MS	2000	/* what is freed is off the queue by then */
#define DRAIN_MS	50
#define MOVE_MS		20
#define QUEUE_PAGES	4	/* huge pages to look at a queue with */
#define MAX_PAGES	4	/* huge pages of a process under load */
#define SPLITTERS	2
#define SPAWNERS	1
#define READERS		1	/* SCSI generic */
#define MAX_WORKERS	(SPLITTERS + SPAWNERS + READERS + 1)
#define SG_MAX		0x40000
#define SG_FRESH	0xa5a5a5a5u	/* a request's buffer before it */

#ifndef MNT_DETACH
#define MNT_DETACH	2
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

/* <scsi/sg.h> is a C library's own, so these are not among the UAPI headers. */
#define SG_SET_RESERVED_SIZE	0x2275
#define SG_IO			0x2285
#define SG_DXFER_FROM_DEV	(-3)

struct sg_request {
	int interface_id, direction;
	unsigned char cmd_len, sense_len;
	unsigned short iovec_count;
	unsigned int len;
	void *data;
	unsigned char *cmd, *sense;
	unsigned int timeout, flags;
	int pack_id;
	void *user;
	unsigned char status, masked_status, msg_status, sense_written;
	unsigned short host_status, driver_status;
	int residue;
	unsigned int duration, info;
};

enum role { SPLITTER, SPAWNER, SHAKER, READER };

static const char * const roles[] = {
	"process that splits", "process that forks", "process that reclaims",
	"SCSI generic reader",
};

struct worker {
	struct ksft_child child;
	enum role role;
	int group;
	/* Filled in by the worker itself */
	unsigned long rounds;
	unsigned long wrong;	/* pages, or words of a buffer, that are wrong */
	int err;		/* errno that ended the worker, or 0 */
};

static struct shared {
	int start, stop;
	int ready, leave;	/* the one process of a look at the queue */
	int err;
	struct worker workers[MAX_WORKERS];
} *shared;

/*
 * What differs between the two hierarchies.  v1 must come first: it has a
 * counter of its own for the kernel's memory, which underflows when memory
 * that was charged in v2 is freed in v1.
 */
static const struct hierarchy {
	const char *name, *fs, *options;
	const char *usage, *limit, *events;
} hierarchies[] = {
	{ "v1", "cgroup", "memory", "memory.usage_in_bytes",
	  "memory.limit_in_bytes", "memory.oom_control" },
	{ "v2", "cgroup2", NULL, "memory.current", "memory.max",
	  "memory.events" },
}, *cg;

static const char * const look_cases[] = {
	"a freed page is off its cgroup's queue",
	"a page swapped out whole is off its cgroup's queue",
};

static const char * const load_cases[] = {
	"processes and their pages survive reclaim that splits",
	"SCSI generic buffers hold no old data",
	"nothing stays charged or queued after the processes",
	"a removed cgroup is freed",
};

/* PARENT and what is below it */
static const char * const groups[] = { PARENT, PARENT "/a", PARENT "/b" };

static unsigned long page_size, huge_size;
static unsigned long memory;	/* available at first */
static int nr_pages;		/* huge pages of a process under load */
static unsigned long swap_size;	/* 0: no swap of our own */
static const char *shrinker;	/* debugfs folder of the split queues', or NULL */
static int traced;		/* no such folder, but a trace */
static int was_never;		/* THP's setting, to be restored */
static int nr_workers, seconds = 10;
static int mounted;
static long dying_before;

#ifdef NOLIBC
static int madvise(void *start, unsigned long len, int advice)
{
	return syscall(__NR_madvise, start, len, advice);
}
#endif

/*
 * Files
 */

static const char *in(const char *dir, const char *name)
{
	return ksft_text("%s/%s", dir, name);
}

static int write_number(const char *name, unsigned long num)
{
	return ksft_write_file(name, ksft_text("%ld", (long)num));
}

/*
 * Returns column `column` of the file's line that begins with the word, -1 if
 * there is none.
 */
static long field(const char *name, const char *word, int column)
{
	static char buf[16384];
	size_t len = strlen(word);
	char *line;

	if (ksft_read_file(name, buf, sizeof(buf)))
		return -1;
	for (line = buf; line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (strncmp(line, word, len) ||
		    (line[len] != ' ' && line[len] != '\t'))
			continue;
		for (line += len; *line && *line != '\n';) {
			while (*line == ' ' || *line == '\t')
				line++;
			if (!--column)
				return strtol(line, NULL, 10);
			while (*line && *line != ' ' && *line != '\t' &&
			       *line != '\n')
				line++;
		}
		return -1;
	}
	return -1;
}

static long vm_event(const char *name)
{
	long val = field("/proc/vmstat", name, 1);

	return val < 0 ? 0 : val;
}

static unsigned long inode(const char *name)
{
	struct stat st;

	return stat(name, &st) ? 0 : st.st_ino;
}

static void skip_case(const char *what, const char *why)
{
	ksft_skip_case(ksft_text("%s: %s", cg->name, what), why);
}

static void report(int ok, const char *what)
{
	ksft_test_result(ok, "%s: %s\n", cg->name, what);
}

/*
 * The machine
 */

/* Turns swap on, on a RAM disk that is all zeroes where a header would be. */
static void start_swap(void)
{
	unsigned long size = memory / 4;
	static char page[65536];
	unsigned int *info = (unsigned int *)(page + 1024);
	unsigned long i;
	off_t end;
	int fd;

	fd = open(SWAP_DISK, O_RDWR | O_EXCL);
	if (fd < 0)
		return;
	end = lseek(fd, 0, SEEK_END);
	if (end > 0 && (unsigned long)end < size)
		size = end;
	lseek(fd, 0, SEEK_SET);
	if (page_size > sizeof(page) || size < 16 * page_size ||
	    read(fd, page, page_size) != (ssize_t)page_size)
		goto out;
	for (i = 0; i < page_size; i++) {
		if (page[i])
			goto out;
	}
	info[0] = 1;				/* version */
	info[1] = size / page_size - 1;		/* last page */
	memcpy(page + page_size - 10, "SWAPSPACE2", 10);
	lseek(fd, 0, SEEK_SET);
	if (write(fd, page, page_size) != (ssize_t)page_size || fsync(fd))
		goto out;
	close(fd);
	if (!syscall(__NR_swapon, SWAP_DISK, 0))
		swap_size = size;
	else
		ksft_print_msg("swapon: %s\n", strerror(errno));
	return;
out:
	close(fd);
}

static void stop_swap(void)
{
	char zero[4096] = "";
	unsigned long i;
	int fd;

	if (!swap_size)
		return;
	swap_size = 0;
	if (syscall(__NR_swapoff, SWAP_DISK))
		ksft_print_msg("swapoff: %s\n", strerror(errno));
	fd = open(SWAP_DISK, O_WRONLY);
	if (fd < 0)
		return;
	for (i = 0; i < page_size; i += sizeof(zero)) {
		if (write(fd, zero, sizeof(zero)) < 0)
			break;
	}
	close(fd);
}

static int is_shrinker(const char *name)
{
	static const char wanted[] = "thp-deferred_split-";

	if (!strncmp(name, wanted, sizeof(wanted) - 1))
		shrinker = strdup(in(DEBUG "/shrinker", name));
	return !!shrinker;
}

/* Finds the debugfs folder of the split queue's shrinker, if there is one. */
static void find_shrinker(void)
{
	mkdir(DEBUG, 0755);
	if (!mount("none", DEBUG, "debugfs", 0, NULL))
		ksft_for_each(DEBUG "/shrinker", is_shrinker);
}

static void find_trace(void)
{
	mkdir(TRACE, 0755);
	traced = !mount("none", TRACE, "tracefs", 0, NULL) &&
		 ksft_exists(TRACE_EVENT);
}

/* Returns how many pages shrinkers find on the split queues of all cgroups. */
static long found_by_shrinkers(void)
{
	static const char shrink[] = "deferred_split_scan", items[] = "cache items ";
	static char buf[1 << 20];
	long total = 0;
	char *at = buf;
	int fd;

	fd = open(TRACE "/trace", O_WRONLY | O_TRUNC);
	if (fd < 0)
		return -1;
	close(fd);
	if (ksft_write_file(TRACE_EVENT, "1") ||
	    ksft_write_file("/proc/sys/vm/drop_caches", "2") ||
	    ksft_write_file(TRACE_EVENT, "0") ||
	    ksft_read_file(TRACE "/trace", buf, sizeof(buf)))
		return -1;
	while ((at = ksft_find(at, shrink))) {
		at = ksft_find(at, items);
		if (!at)
			return -1;
		total += strtol(at + sizeof(items) - 1, &at, 10);
	}
	return total;
}

/* Returns how many pages a cgroup's split queues count, over all nodes. */
static long queued(const char *group)
{
	static char buf[16384];
	unsigned long ino = inode(group);
	long total = 0;
	char *at = buf;

	/* To look takes them off. */
	if (!shrinker)
		return 0;
	if (ksft_read_file(in(shrinker, "count"), buf, sizeof(buf)))
		return -1;
	while (*at) {
		int ours = strtoul(at, &at, 10) == ino;

		while (*at == ' ') {
			long nr = strtol(at + 1, &at, 10);

			if (ours)
				total += nr;
		}
		if (*at == '\n')
			at++;
		else if (*at)
			return -1;
	}
	return total;
}

static int set_up_thp(void)
{
	char buf[64];
	long size;

	size = ksft_read_number(THP "hpage_pmd_size");
	if (size <= 0 || ksft_read_file(THP "enabled", buf, sizeof(buf)))
		return -1;
	huge_size = size;
	if (strchr(buf, '[') && !strncmp(strchr(buf, '['), "[never]", 7)) {
		was_never = 1;
		return ksft_write_file(THP "enabled", "madvise");
	}
	return 0;
}

/*
 * Cgroups
 */

/* Frees the charges that CPUs keep for later, and what reclaim can get. */
static void drain(const char *group)
{
	if (cg->options) {
		ksft_write_file(in(group, "memory.force_empty"), "0");
	} else {
		ksft_write_file(in(group, "memory.high"), "0");
		ksft_write_file(in(group, "memory.high"), "max");
	}
}

/*
 * In old kernels nothing in v2 makes CPUs give up the charges that they keep
 * for later, and with them the cgroup.  Those have no such folder, either.
 */
static const char cpus_keep[] = "CPUs keep charges for later here";

static int charges_stay(void)
{
	return !shrinker && !cg->options;
}

/*
 * Returns the bytes that are charged for memory of processes.  What the kernel
 * needed itself is not looked at: it frees much of that late, and KASAN keeps
 * what was freed.
 */
static long charged(const char *group)
{
	static const char * const kernel[] = { "slab", "kernel_stack",
					       "pagetables", "percpu" };
	long usage = ksft_read_number(in(group, cg->usage)), of_kernel, nr;
	unsigned int i;

	if (cg->options) {
		of_kernel = ksft_read_number(in(group, "memory.kmem.usage_in_bytes"));
	} else {
		of_kernel = field(in(group, "memory.stat"), "kernel", 1);
		/* Until v5.18 there is no sum. */
		for (i = 0; of_kernel < 0 && i < ARRAY_SIZE(kernel); i++) {
			nr = field(in(group, "memory.stat"), kernel[i], 1);
			usage -= nr > 0 ? nr : 0;
		}
	}
	return of_kernel > 0 ? usage - of_kernel : usage;
}

/* How many cgroups there are, those counted that were removed but not freed */
static long dying(void)
{
	if (ksft_exists(CGROUPS "/cgroup.stat"))
		return field(CGROUPS "/cgroup.stat", "nr_dying_descendants", 1);
	return field("/proc/cgroups", "memory", 2);
}

static int has_controller(void)
{
	char buf[256];

	return cg->options || (!ksft_read_file(CGROUPS "/cgroup.controllers",
					       buf, sizeof(buf)) &&
			       ksft_find(buf, "memory"));
}

/* Returns whether to try again makes no sense. */
static int try_mount(int *mounted)
{
	*mounted = !mount("none", CGROUPS, cg->fs, 0, (void *)cg->options);
	if (*mounted && !has_controller()) {
		umount2(CGROUPS, MNT_DETACH);
		*mounted = 0;
		errno = EBUSY;
	}
	return *mounted || errno != EBUSY;
}

/* Returns NULL, or why there are no memory cgroups of this version. */
static const char *make_groups(void)
{
	unsigned int i;

	/* The controller comes back some time after the last unmount. */
	ksft_until(try_mount(&mounted), WAIT_MS);
	if (!mounted)
		return errno == EBUSY ? "the memory controller is in use" :
					"no such memory controller";
	dying_before = dying();
	if (!cg->options)
		ksft_write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	for (i = 0; i < ARRAY_SIZE(groups); i++) {
		if (mkdir(groups[i], 0755)) {
			ksft_print_msg("%s: %s\n", groups[i], strerror(errno));
			break;
		}
		if (!ksft_exists(in(groups[i], cg->usage)))
			break;
		if (!cg->options) {
			if (!i)
				ksft_write_file(PARENT "/cgroup.subtree_control",
						"+memory");
			continue;
		}
		/* Until v5.11 a limit held for those below only if told so. */
		ksft_write_file(in(groups[i], "memory.use_hierarchy"), "1");
	}
	if (i < ARRAY_SIZE(groups))
		return "cannot make memory cgroups";
	start_swap();
	return NULL;
}

/* The bytes that are still charged, once more of them could go. */
static long still_charged(const char *group)
{
	if (charged(group)) {
		drain(group);
		ksft_pause_ms(DRAIN_MS);
	}
	return charged(group);
}

/* Waits until nothing is charged.  Returns whether it came to that. */
static int wait_uncharged(const char *group)
{
	long left;
	int ok;

	/* Statistics may be 2 seconds late, and the two numbers do not fit. */
	ok = ksft_until(!(left = still_charged(group)), WAIT_MS);
	if (!ok)
		ksft_print_msg("%s %s: %ld bytes are still charged, %ld in all\n",
			       cg->name, group, left,
			       ksft_read_number(in(group, cg->usage)));
	return ok;
}

/* Waits until the queue is as short as that.  Returns whether it came to it. */
static int wait_unqueued(const char *group, long before)
{
	long nr;
	int ok;

	ok = ksft_until((nr = shrinker ? queued(group) : found_by_shrinkers()) ==
			before, UNQUEUE_MS);
	if (!ok)
		ksft_print_msg("%s %s: the split queue still counts %ld pages\n",
			       cg->name, group, nr - before);
	return ok;
}

/* Removes a cgroup.  What has just died may still be in it for a moment. */
static int remove_group(const char *group)
{
	if (ksft_until(!rmdir(group) || errno != EBUSY, WAIT_MS) &&
	    !ksft_exists(group))
		return 1;
	ksft_print_msg("%s rmdir %s: %s\n", cg->name, group, strerror(errno));
	return 0;
}

/*
 * Waits until no more than these are left of what dying() counts.  CPUs keep
 * charges for later, and with them the cgroup, until its parent is drained.
 */
static int wait_freed(long allowed, const char *parent)
{
	long long end = ksft_now_ms() + WAIT_MS;
	long left;

	while ((left = dying()) > allowed && ksft_now_ms() < end) {
		if (parent)
			drain(parent);
		ksft_pause_ms(DRAIN_MS);
	}
	if (left > allowed)
		ksft_print_msg("%s: %ld removed cgroups are held by something\n",
			       cg->name, left - allowed);
	return left <= allowed;
}

/*
 * Removes the cgroups.  Returns whether the kernel has let go of them, too: a
 * charge that is left holds its cgroup for ever.
 */
static int remove_groups(void)
{
	int i, ok = 1;

	if (!mounted)
		return 1;
	mounted = 0;
	for (i = ARRAY_SIZE(groups) - 1; i > 0; i--)
		ok &= remove_group(groups[i]);
	/* CPUs keep freed swap for later, and with it what it is charged to. */
	stop_swap();
	/* Caches of files are charged, too. */
	ksft_write_file("/proc/sys/vm/drop_caches", "3");
	/* Where there is no count of the dying, PARENT itself is counted. */
	if (!charges_stay())
		ok &= wait_freed(dying_before + !ksft_exists(CGROUPS "/cgroup.stat"),
				 PARENT);
	ok &= remove_group(PARENT);
	if (!charges_stay())
		ok &= wait_freed(dying_before, NULL);
	if (umount2(CGROUPS, 0)) {
		ksft_print_msg("%s umount: %s\n", cg->name, strerror(errno));
		umount2(CGROUPS, MNT_DETACH);
		ok = 0;
	}
	return ok;
}

/* Returns 0 or a negative errno. */
static int enter_group(pid_t pid, int group)
{
	return write_number(in(groups[group], "cgroup.procs"), pid);
}

/*
 * Huge pages
 */

/* Maps huge pages at an address that suits them; NULL if it cannot. */
static char *map_huge(int pages)
{
	unsigned long len = pages * huge_size, at, start;
	char *map;

	map = mmap(NULL, len + huge_size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return NULL;
	at = (unsigned long)map;
	start = (at + huge_size - 1) & ~(huge_size - 1);
	if (start > at)
		munmap(map, start - at);
	if (at + huge_size > start)
		munmap((char *)start + len, at + huge_size - start);
	madvise((void *)start, len, MADV_HUGEPAGE);
	return (char *)start;
}

/* What the page that holds this word is filled with */
static unsigned long mark(const void *word, unsigned long round)
{
	return (unsigned long)word ^ round ^ ~0UL;
}

static void set_mark(char *at, unsigned long round)
{
	__atomic_store_n((unsigned long *)at, mark(at, round), __ATOMIC_RELAXED);
}

static int bad_mark(char *at, unsigned long round)
{
	return __atomic_load_n((unsigned long *)at, __ATOMIC_RELAXED) !=
	       mark(at, round);
}

/* Unmaps some of a huge page, not the first and the last page: in three ways */
static void unmap_part(char *at, unsigned long round)
{
	unsigned long half = huge_size / 2;

	if (round % 3 == 0)
		munmap(at + half, half - page_size);
	else if (round % 3 == 1)
		munmap(at + page_size, half);
	else
		madvise(at + page_size, huge_size - 2 * page_size,
			MADV_DONTNEED);
}

/* Queues pages.  Returns their address, or NULL. */
static char *queue_pages(int pages, unsigned long round)
{
	char *map = map_huge(pages), *at;
	int i;

	for (i = 0; map && i < pages; i++) {
		at = map + i * huge_size;
		set_mark(at, round);
		set_mark(at + huge_size / 2, round);
		set_mark(at + huge_size - page_size, round);
		unmap_part(at, round + i);
	}
	return map;
}

static int check_pages(char *map, int pages, unsigned long round)
{
	int i, wrong = 0;

	for (i = 0; i < pages; i++) {
		wrong += bad_mark(map + i * huge_size, round);
		wrong += bad_mark(map + (i + 1) * huge_size - page_size, round);
	}
	return wrong;
}

/*
 * A look at a queue
 */

/* The one process, in cgroup a: its pages are queued, paged out, and freed. */
static void look_child(void *pageout)
{
	unsigned long len = QUEUE_PAGES * huge_size, i;
	char *map;

	while (!shared->start)
		ksft_pause_ms(1);
	map = pageout ? map_huge(QUEUE_PAGES) : queue_pages(QUEUE_PAGES, 0);
	if (!map)
		shared->err = ENOMEM;
	/* A page that holds something everywhere is written out, all of it. */
	for (i = 0; pageout && map && i < len; i += page_size)
		set_mark(map + i, 0);
	shared->ready = 1;
	while (shared->leave < 1)
		ksft_pause_ms(1);
	if (pageout && map && madvise(map, len, MADV_PAGEOUT))
		shared->err = errno;
	shared->ready = 2;
	while (shared->leave < 2)
		ksft_pause_ms(1);
}

/* Starts it, and waits until its pages are there.  Returns whether they are. */
static int start_look(struct ksft_child *child, int pageout)
{
	int ret;

	shared->start = 0;
	shared->ready = 0;
	shared->leave = 0;
	shared->err = 0;
	ret = ksft_child_start(child, look_child, pageout ? shared : NULL);
	if (!ret)
		ret = enter_group(child->pid, 1);
	if (ret)
		ksft_print_msg("no process in a cgroup: %s\n", strerror(-ret));
	shared->start = 1;
	return !ret && ksft_until(shared->ready >= 1, WAIT_MS);
}

/* Lets it go on to its end.  Returns whether all went well. */
static int end_look(struct ksft_child *child)
{
	shared->leave = 2;
	ksft_child_wait(child, WAIT_MS);
	if (shared->err)
		ksft_print_msg("pages: %s\n", strerror(shared->err));
	return ksft_child_ended_well(child, "the process with pages");
}

/*
 * Does the trace of the shrinkers show pages that are queued?  To look takes
 * them off, so these are pages for that alone.
 */
static int trace_shows_queued(void)
{
	struct ksft_child child;
	long nr = -1;

	if (start_look(&child, 0))
		nr = found_by_shrinkers();
	ksft_print_msg("%s: the trace shows %ld queued pages\n", cg->name, nr);
	return end_look(&child) && nr > 0;
}

static void look_at_queue(const char *what, int pageout)
{
	const char *moved = pageout ? "thp_swpout" : "thp_deferred_split_page";
	long first = queued(groups[1]), before = vm_event(moved);
	const char *why = NULL;
	struct ksft_child child;
	long nr = 0, left;
	int ok;

	ok = start_look(&child, pageout);
	if (shrinker)
		nr = queued(groups[1]) - first;
	else if (!pageout)
		nr = vm_event(moved) - before;
	shared->leave = 1;
	ok = ok && ksft_until(shared->ready >= 2, WAIT_MS);
	left = queued(groups[1]) - first;
	ksft_print_msg("%s: %ld pages queued, then %ld; %s moved by %ld\n",
		       cg->name, nr, left, moved, vm_event(moved) - before);
	ok &= end_look(&child);
	if (nr <= 0)
		why = pageout ? "whole pages are not queued here" :
				"not exercised: no page was queued";
	else if (vm_event(moved) == before)
		why = pageout ? "not exercised: no page was swapped out whole" :
				"not exercised: no page was partly unmapped";
	ok = ok && wait_unqueued(groups[1], first);
	if (ok && why)
		skip_case(what, why);
	else
		report(ok, what);
}

/*
 * The load
 */

static void run_splitter(struct worker *me)
{
	char *map, *old = NULL;

	/* Each round frees what the one before has queued. */
	while (!shared->stop) {
		map = queue_pages(nr_pages, me->rounds);
		if (!map) {
			me->err = errno;
			return;
		}
		if (old) {
			me->wrong += check_pages(old, nr_pages, me->rounds - 1);
			munmap(old, nr_pages * huge_size);
		}
		old = map;
		me->rounds++;
	}
}

/* Its children exit with pages still on the queue. */
static void run_spawner(struct worker *me)
{
	int status;
	pid_t pid;

	while (!shared->stop) {
		pid = fork();
		if (!pid) {
			char *map = queue_pages(nr_pages, me->rounds);

			exit(!map ||
			     check_pages(map, nr_pages, me->rounds) ? 1 : 0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid) {
			me->err = errno;
			return;
		}
		if (status)
			me->wrong++;
		me->rounds++;
	}
}

/* Reclaim in the ways that this kernel has */
static void run_shaker(struct worker *me)
{
	const char *group;

	while (!shared->stop) {
		group = groups[1 + me->rounds % 2];
		if (shrinker)
			ksft_write_file(in(shrinker, "scan"),
					ksft_text("%ld 0 8", (long)inode(group)));
		if (me->rounds % 8 == 0)
			ksft_write_file("/proc/sys/vm/drop_caches", "2");
		if (me->rounds % 16 == 1) {
			if (cg->options)
				ksft_write_file(in(group, "memory.force_empty"), "0");
			else
				write_number(in(group, "memory.reclaim"),
					     huge_size);
		}
		me->rounds++;
		ksft_pause_ms(1);
	}
}

static int open_sg(void)
{
	char name[] = "/dev/sg0";
	int fd;

	for (; name[7] <= '7'; name[7]++) {
		fd = open(name, O_RDWR | O_NONBLOCK);
		if (fd >= 0)
			return fd;
	}
	return -1;
}

/*
 * Asks whether the unit is ready, with a buffer for data that never come: the
 * kernel's own buffer is copied back as it was allocated.
 */
static void run_reader(struct worker *me)
{
	unsigned char cmd[6] = { 0 }, sense[32];
	struct sg_request request;
	unsigned int *buf;
	int fd = open_sg(), i, size;

	buf = mmap(NULL, SG_MAX, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fd < 0 || (void *)buf == MAP_FAILED) {
		me->err = errno;
		return;
	}
	while (!shared->stop) {
		size = SG_MAX >> me->rounds % 5;
		for (i = 0; i < size / (int)sizeof(*buf); i++)
			buf[i] = SG_FRESH;
		memset(&request, 0, sizeof(request));
		request.interface_id = 'S';
		request.direction = SG_DXFER_FROM_DEV;
		request.cmd_len = sizeof(cmd);
		request.cmd = cmd;
		request.sense_len = sizeof(sense);
		request.sense = sense;
		request.len = size;
		request.data = buf;
		request.timeout = WAIT_MS;
		/* The buffer that is kept is smaller, so each needs its own. */
		i = 4096;
		ioctl(fd, SG_SET_RESERVED_SIZE, &i);
		/* There may be no memory of that order; try another size. */
		if (ioctl(fd, SG_IO, &request) && errno != ENOMEM) {
			me->err = errno;
			return;
		}
		for (i = 0; i < size / (int)sizeof(*buf); i++)
			me->wrong += buf[i] && buf[i] != SG_FRESH;
		me->rounds++;
		ksft_pause_ms(1);
	}
}

static void run_worker(void *arg)
{
	static void (* const run[])(struct worker *me) = {
		run_splitter, run_spawner, run_shaker, run_reader,
	};
	struct worker *me = arg;

	while (!shared->start)
		ksft_pause_ms(1);
	run[me->role](me);
}

static int start_worker(enum role role, int group)
{
	struct worker *worker = &shared->workers[nr_workers];
	int ret;

	memset(worker, 0, sizeof(*worker));
	worker->role = role;
	worker->group = group;
	ret = ksft_child_start(&worker->child, run_worker, worker);
	if (ret)
		return ret;
	nr_workers++;
	return group ? enter_group(worker->child.pid, group) : 0;
}

static int start_workers(int sg)
{
	int i, ret = 0;

	shared->start = 0;
	shared->stop = 0;
	nr_workers = 0;
	for (i = 0; !ret && i < SPLITTERS; i++)
		ret = start_worker(SPLITTER, 1 + i % 2);
	for (i = 0; !ret && i < SPAWNERS; i++)
		ret = start_worker(SPAWNER, 1 + i % 2);
	if (!ret)
		ret = start_worker(SHAKER, 0);
	for (i = 0; !ret && sg && i < READERS; i++)
		ret = start_worker(READER, 0);
	return ret;
}

/* Ends the workers.  Returns whether each came to its end by itself. */
static int stop_workers(void)
{
	long long end = ksft_now_ms() + WAIT_MS;
	int i, ok = 1;

	shared->start = 1;
	shared->stop = 1;
	for (i = 0; i < nr_workers; i++) {
		struct worker *worker = &shared->workers[i];

		ksft_child_wait(&worker->child, end - ksft_now_ms());
		ok &= ksft_child_ended_well(&worker->child,
			ksft_text("%s: a %s, %ld rounds done,", cg->name,
				  roles[worker->role], (long)worker->rounds));
	}
	return ok;
}

static int check_workers(void)
{
	unsigned long rounds[ARRAY_SIZE(roles)] = { 0 };
	int i, ok = 1;

	for (i = 0; i < nr_workers; i++) {
		struct worker *worker = &shared->workers[i];

		rounds[worker->role] += worker->rounds;
		if (worker->role == READER)
			continue;
		if (worker->wrong) {
			ksft_print_msg("%s: a %s found %lu pages wrong\n",
				       cg->name, roles[worker->role],
				       worker->wrong);
			ok = 0;
		}
		if (worker->err || !worker->rounds) {
			ksft_print_msg("%s: a %s ended after %lu rounds: %s\n",
				       cg->name, roles[worker->role],
				       worker->rounds, strerror(worker->err));
			ok = 0;
		}
	}
	ksft_print_msg("%s: rounds: %lu split, %lu fork, %lu reclaim, %lu SCSI\n",
		       cg->name, rounds[SPLITTER], rounds[SPAWNER],
		       rounds[SHAKER], rounds[READER]);
	return ok;
}

static void check_readers(void)
{
	unsigned long wrong = 0, rounds = 0;
	int i, err = 0, readers = 0;

	for (i = 0; i < nr_workers; i++) {
		if (shared->workers[i].role != READER)
			continue;
		readers++;
		wrong += shared->workers[i].wrong;
		rounds += shared->workers[i].rounds;
		if (shared->workers[i].err)
			err = shared->workers[i].err;
	}
	if (!readers) {
		skip_case(load_cases[1], "no SCSI generic device");
		return;
	}
	if (wrong)
		ksft_print_msg("%s: SCSI generic: %lu words of old data\n",
			       cg->name, wrong);
	if (err)
		ksft_print_msg("%s: SCSI generic: %s\n", cg->name,
			       strerror(err));
	report(rounds && !wrong && !err, load_cases[1]);
}

/* Returns how often the limit has killed a process. */
static long count_kills(void)
{
	unsigned int i;
	long sum = 0, nr;

	for (i = 0; i < ARRAY_SIZE(groups); i++) {
		nr = field(in(groups[i], cg->events), "oom_kill", 1);
		/* v2 counts what is below a cgroup in the cgroup, too. */
		if (nr > 0 && (cg->options || !i))
			sum += nr;
	}
	if (sum)
		ksft_print_msg("%s: %ld processes killed: the limit is too tight\n",
			       cg->name, sum);
	return sum;
}

static void move_processes(long long end)
{
	struct worker *worker;
	int i = 0;

	while (ksft_now_ms() < end) {
		ksft_pause_ms(MOVE_MS);
		worker = &shared->workers[i++ % (SPLITTERS + SPAWNERS)];
		worker->group = 3 - worker->group;
		enter_group(worker->child.pid, worker->group);
	}
}

static void put_on_load(int sg)
{
	long queued_before = vm_event("thp_deferred_split_page");
	long split_before = vm_event("thp_split_page");
	long nr_queued, nr_split;
	unsigned long limit;
	int ok, ret;

	/* Without swap only what was unmapped can go: let all of it stay. */
	limit = (SPLITTERS * 2 + SPAWNERS) * nr_pages * huge_size;
	limit = swap_size ? limit / 2 : 2 * limit;
	ret = write_number(in(PARENT, cg->limit), limit);
	if (ret)
		ksft_print_msg("%s: no limit: %s\n", cg->name, strerror(-ret));

	ret = start_workers(sg);
	ok = !ret;
	if (ret) {
		ksft_print_msg("cannot start the processes: %s\n",
			       strerror(-ret));
	} else {
		/*
		 * Until v6.13 charges of v1 could follow a process.  Not on
		 * its way in: it shares pages with this one.
		 */
		ksft_write_file(in(groups[1], "memory.move_charge_at_immigrate"), "1");
		ksft_write_file(in(groups[2], "memory.move_charge_at_immigrate"), "1");
		shared->start = 1;
		move_processes(ksft_now_ms() + seconds * 500LL);
	}
	ok &= stop_workers();
	ok &= check_workers();
	ok &= !count_kills();

	nr_queued = vm_event("thp_deferred_split_page") - queued_before;
	nr_split = vm_event("thp_split_page") - split_before;
	ksft_print_msg("%s: %ld pages queued, %ld split, limit %lu MiB, swap %lu MiB\n",
		       cg->name, nr_queued, nr_split, limit >> 20,
		       swap_size >> 20);
	if (ok && !nr_queued)
		skip_case(load_cases[0], "not exercised: no page was queued");
	else if (ok && !nr_split)
		skip_case(load_cases[0], "not exercised: no page was split");
	else
		report(ok, load_cases[0]);
}

static void check_groups(void)
{
	int ok = 1, i;

	for (i = 1; i < (int)ARRAY_SIZE(groups); i++) {
		if (!charges_stay())
			ok &= wait_uncharged(groups[i]);
		if (shrinker || traced)
			ok &= wait_unqueued(groups[i], 0);
	}
	if (ok && charges_stay())
		skip_case(load_cases[2], cpus_keep);
	else
		report(ok, load_cases[2]);
}

static void skip_cases(const char * const *cases, int n, const char *why)
{
	while (n--)
		skip_case(*cases++, why);
}

/* Returns whether nothing is left that keeps the load's cgroups from being. */
static int look_at_queues(void)
{
	const char *why = make_groups();

	if (!why && !shrinker && !traced)
		why = "no debugfs file of the shrinker, and no trace";
	/* What sees nothing would find every queue empty. */
	if (!why && !shrinker && !trace_shows_queued()) {
		why = "not exercised: the trace shows no queued page";
		traced = 0;
	}
	if (why) {
		skip_cases(look_cases, ARRAY_SIZE(look_cases), why);
	} else {
		look_at_queue(look_cases[0], 0);
		if (swap_size)
			look_at_queue(look_cases[1], 1);
		else
			skip_case(look_cases[1], "no swap");
	}
	return remove_groups();
}

/* Returns whether all is gone again. */
static int load_hierarchy(int clean)
{
	const char *why = make_groups();
	unsigned int i;
	int fd;

	if (why) {
		/* A cgroup that is held keeps the controller: no skip then. */
		for (i = 0; !clean && i < ARRAY_SIZE(load_cases); i++)
			report(0, load_cases[i]);
		if (clean)
			skip_cases(load_cases, ARRAY_SIZE(load_cases), why);
		return remove_groups() && clean;
	}
	fd = open_sg();
	if (fd >= 0)
		close(fd);
	put_on_load(fd >= 0);
	check_readers();
	check_groups();
	clean &= remove_groups();
	if (clean && charges_stay())
		skip_case(load_cases[3], cpus_keep);
	else
		report(clean, load_cases[3]);
	return clean;
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long to put on load", &seconds, 86400, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct ksft_klog klog;
	unsigned int i;
	int clean = 1;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	page_size = getpagesize();
	if (set_up_thp())
		ksft_exit_skip("no transparent huge pages\n");
	memory = field("/proc/meminfo", "MemAvailable:", 1) << 10;
	nr_pages = memory / 3 / ((SPLITTERS * 2 + SPAWNERS) * huge_size);
	if (nr_pages > MAX_PAGES)
		nr_pages = MAX_PAGES;
	if (!nr_pages)
		ksft_exit_skip("%lu MiB are too little for huge pages of %lu MiB\n",
			       memory >> 20, huge_size >> 20);
	shared = ksft_share(sizeof(*shared));
	mkdir(PLACE, 0700);
	mkdir(PLACE "/" CGROUPS, 0755);
	if (chdir(PLACE))
		ksft_exit_fail_msg("%s: %s\n", PLACE, strerror(errno));

	ksft_set_plan(ARRAY_SIZE(hierarchies) * (ARRAY_SIZE(look_cases) +
						 ARRAY_SIZE(load_cases)) + 1);
	ksft_klog_open(&klog);
	find_shrinker();
	if (!shrinker)
		find_trace();
	ksft_print_msg("%d huge pages of %lu KiB a process\n", nr_pages,
		       huge_size >> 10);

	for (i = 0; i < ARRAY_SIZE(hierarchies); i++) {
		cg = &hierarchies[i];
		/* What is certain first: a list that broke may end it all. */
		clean &= look_at_queues();
		clean = load_hierarchy(clean);
	}

	umount2(DEBUG, 0);
	umount2(TRACE, 0);
	if (was_never)
		ksft_write_file(THP "enabled", "never");
	ksft_klog_test_result(&klog, "kernel log stays clean");
	ksft_finished();
}
