// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reset PCI functions through sysfs while many readers read their config space.
 *
 * A reset blocks user access to the function's config space.  Readers sleep
 * in pci_wait_cfg() meanwhile, all of them on one global wait queue, and the
 * end of any function's reset wakes them all: those of a function that is
 * still blocked queue up again while others leave.  With many readers and
 * several resets under way at once, adding, removing and waking overlap.
 *
 * Only functions that no driver is bound to are reset, unless -a is given.
 * Never a bridge, and never by a reset of the bus, which hits its neighbours.
 */
#include "../kselftest_kit.h"

#define SYSFS_PCI	"/sys/bus/pci/devices"

#define MAX_DEVS	16
#define MAX_READERS	64	/* per function */
#define HANG_MS		10000	/* a reset takes 100 ms, a read far less */
#define READ_US		1000	/* pause of a reader */

/* Reset methods, the fastest first: D3hot and back, function level reset */
static const char * const methods[] = { "pm", "flr", "af_flr" };

struct device {
	char name[32];
	unsigned int vendor, device;
	char saved[64];		/* reset_method as it was, "" if unchanged */
	const char *method;	/* NULL: this kernel does not let us choose */
};

struct worker {
	struct ksft_child child;
	struct device *dev;
	int resets;		/* a resetter, else a reader */
	/* Filled in by the worker itself */
	unsigned long done;
	long long longest;	/* of a reader: its longest read */
	long long shortest;	/* of a resetter: its shortest reset, in ns both */
	unsigned long wrong;	/* reads that did not give the ids */
	unsigned int got;	/* the first of them */
	int err;		/* errno that ended the worker, or 0 */
};

static struct shared {
	int start, stop_resets, stop_reads;
	struct worker workers[MAX_DEVS * (MAX_READERS + 1)];
} *shared;

static struct device devs[MAX_DEVS];
static int nr_devs, nr_workers;
static int seconds = 5, readers = 8, all_devices;

static unsigned int read_hex(const char *name)
{
	char buf[32];

	return ksft_read_line(name, buf, sizeof(buf)) ? 0 :
						  strtoul(buf, NULL, 16);
}

static int enter(const char *dev)
{
	return chdir(SYSFS_PCI) || chdir(dev);
}

/* Is the word in the list, which blanks separate? */
static int has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	while (*list) {
		if (!strncmp(list, word, len) &&
		    (!list[len] || list[len] == ' '))
			return 1;
		while (*list && *list != ' ')
			list++;
		while (*list == ' ')
			list++;
	}
	return 0;
}

/* Returns whether the function can be reset in a way that suits us. */
static int choose_method(struct device *dev)
{
	char list[sizeof(dev->saved)];
	unsigned int i;

	dev->saved[0] = 0;
	dev->method = NULL;
	/* Before v5.15 the kernel chooses. */
	if (ksft_read_line("reset_method", list, sizeof(list)))
		return 1;

	for (i = 0; i < ARRAY_SIZE(methods); i++) {
		if (!has_word(list, methods[i]))
			continue;
		dev->method = methods[i];
		if (!strcmp(list, methods[i]))
			return 1;
		if (ksft_write_file("reset_method", methods[i]))
			return 0;
		memcpy(dev->saved, list, sizeof(list));
		return 1;
	}
	return 0;
}

static void restore_methods(void)
{
	int i, ret;

	for (i = 0; i < nr_devs; i++) {
		if (!devs[i].saved[0])
			continue;
		ret = enter(devs[i].name) ? -errno :
		      ksft_write_file("reset_method", devs[i].saved);
		if (ret)
			ksft_print_msg("%s: reset_method was not restored: %s\n",
				       devs[i].name, strerror(-ret));
	}
}

/* Fills the next entry of devs[], if the function is one to reset. */
static int add_device(const char *name)
{
	struct device *dev = &devs[nr_devs];
	size_t len = strlen(name);

	if (nr_devs == MAX_DEVS || len >= sizeof(dev->name))
		return 0;
	memcpy(dev->name, name, len + 1);
	if (enter(name) || !ksft_can_open("reset", O_WRONLY) ||
	    read_hex("class") >> 16 == 0x06)
		return 0;
	if (!all_devices && ksft_exists("driver"))
		return 0;
	dev->vendor = read_hex("vendor");
	dev->device = read_hex("device");
	nr_devs += choose_method(dev);
	return 0;
}

static void run_reader(struct worker *me)
{
	unsigned char id[4] = {
		me->dev->vendor, me->dev->vendor >> 8,
		me->dev->device, me->dev->device >> 8,
	};
	int fd = ksft_open("config", O_RDONLY);
	unsigned char got[4];
	long long took;
	long len;

	me->err = fd < 0 ? -fd : 0;
	while (!me->err && !shared->stop_reads) {
		took = ksft_now_ns();
		len = ksft_sys(__NR_pread64, fd, (long)got, sizeof(got), 0, 0, 0);
		took = ksft_now_ns() - took;
		if (len != sizeof(got)) {
			me->err = len < 0 ? -len : EIO;
			break;
		}
		me->done++;
		if (took > me->longest)
			me->longest = took;
		if (memcmp(got, id, sizeof(id)) && !me->wrong++)
			me->got = got[0] | got[1] << 8 | got[2] << 16 |
				  (unsigned int)got[3] << 24;
		/*
		 * A pause this short is over before the next reset begins, and
		 * leaves the CPUs to resets and wake-ups: the race is lost more
		 * often than with readers that spin on a free function.
		 */
		usleep(READ_US);
	}
}

static void run_resetter(struct worker *me)
{
	long long took;

	while (!me->err && !shared->stop_resets) {
		took = ksft_now_ns();
		me->err = -ksft_write_file("reset", "1");
		took = ksft_now_ns() - took;
		if (me->err)
			break;
		if (!me->done++ || took < me->shortest)
			me->shortest = took;
	}
}

static void run_worker(void *arg)
{
	struct worker *me = arg;

	while (!shared->start)
		ksft_pause_ms(1);
	if (enter(me->dev->name))
		me->err = errno;
	else if (me->resets)
		run_resetter(me);
	else
		run_reader(me);
}

static int start_worker(struct device *dev, int resets)
{
	struct worker *worker = &shared->workers[nr_workers++];

	worker->dev = dev;
	worker->resets = resets;
	return ksft_child_start(&worker->child, run_worker, worker);
}

/* Waits for all workers of the kind, for a bounded time. */
static void wait_for(int resets)
{
	long long end = ksft_now_ms() + HANG_MS;
	int i;

	for (i = 0; i < nr_workers; i++) {
		if (shared->workers[i].resets == resets)
			ksft_child_wait(&shared->workers[i].child,
					end - ksft_now_ms());
	}
}

/* Returns whether each worker came to its end by itself. */
static int check_ends(void)
{
	int i, ok = 1;

	for (i = 0; i < nr_workers; i++) {
		struct worker *worker = &shared->workers[i];

		ok &= ksft_child_ended_well(&worker->child,
			ksft_text("%s: a %s, %ld rounds done,", worker->dev->name,
				  worker->resets ? "resetter" : "reader",
				  (long)worker->done));
	}
	return ok;
}

static int check_reads(void)
{
	unsigned long total = 0;
	int i, ok = 1;

	for (i = 0; i < nr_workers; i++) {
		struct worker *worker = &shared->workers[i];
		const char *name = worker->dev->name;

		if (worker->resets)
			continue;
		total += worker->done;
		if (worker->wrong) {
			ksft_print_msg("%s: %lu of %lu reads went wrong, the first gave %x:%x\n",
				       name, worker->wrong, worker->done,
				       worker->got & 0xffff, worker->got >> 16);
			ok = 0;
		}
		if (worker->err) {
			ksft_print_msg("%s: config read: %s\n", name,
				       strerror(worker->err));
			ok = 0;
		}
		if (!worker->done) {
			ksft_print_msg("%s: a reader read nothing\n", name);
			ok = 0;
		}
	}
	ksft_print_msg("%lu reads by %d readers\n", total, nr_workers - nr_devs);
	return ok;
}

static int check_resets(unsigned long ms)
{
	unsigned long total = 0;
	int i, ok = 1;

	for (i = 0; i < nr_workers; i++) {
		struct worker *worker = &shared->workers[i];
		const struct device *dev = worker->dev;

		if (!worker->resets)
			continue;
		total += worker->done;
		ksft_print_msg("%s %x:%x %s: %lu resets\n", dev->name,
			       dev->vendor, dev->device,
			       dev->method ? dev->method : "default method",
			       worker->done);
		if (worker->err) {
			ksft_print_msg("%s: reset: %s\n", dev->name,
				       strerror(worker->err));
			ok = 0;
		}
		if (!worker->done)
			ok = 0;
	}
	ksft_print_msg("%lu resets in %lu ms: %lu per second\n", total, ms,
		       ms ? total * 1000 / ms : 0);
	return ok;
}

/*
 * A read that begins early in a reset ends with it: where none lasted about as
 * long as a reset of its function, nobody has waited.
 */
static int check_waits(void)
{
	int i, j, waited = 0;

	for (i = 0; i < nr_workers; i += readers + 1) {
		struct worker *worker = &shared->workers[i];
		struct worker *resetter = worker + readers;

		for (j = 0; resetter->done && j < readers; j++, worker++)
			waited += 2 * worker->longest >= resetter->shortest;
		ksft_print_msg("%s: the shortest reset took %lld us\n",
			       resetter->dev->name, resetter->shortest / 1000);
	}
	ksft_print_msg("%d of %d readers have waited for half of that, or more\n",
		       waited, nr_workers - nr_devs);
	return waited;
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long to reset and read", &seconds, 86400, NULL },
	{ "-r", "READERS", "readers per function", &readers, MAX_READERS, NULL },
	{ "-a", NULL, "functions that a driver is bound to, too: DANGEROUS",
	  &all_devices, 0, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct ksft_klog klog;
	long long start;
	unsigned long ms;
	int i, j, alive, ret = 0;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	ksft_hold_signals();
	ksft_for_each(SYSFS_PCI, add_device);
	if (!nr_devs)
		ksft_exit_skip("no PCI function without a driver can be reset\n");
	shared = ksft_share(sizeof(*shared));

	ksft_set_plan(5);
	ksft_klog_open(&klog);

	for (i = 0; i < nr_devs && !ret; i++) {
		for (j = 0; j <= readers && !ret; j++)
			ret = start_worker(&devs[i], j == readers);
	}
	if (ret) {
		restore_methods();
		ksft_exit_fail_msg("could not start the workers: %s\n",
				   strerror(-ret));
	}

	start = ksft_now_ms();
	shared->start = 1;
	ksft_until(ksft_interrupted(), seconds * 1000LL);
	shared->stop_resets = 1;
	wait_for(1);
	ms = ksft_now_ms() - start;
	/* Resets are over, so nothing else wakes a reader that was forgotten. */
	shared->stop_reads = 1;
	wait_for(0);
	alive = check_ends();

	ksft_test_result(check_reads(), "each config read gives the device's ids\n");
	ksft_test_result(check_resets(ms), "each reset succeeds\n");
	ksft_test_result(check_waits(), "a read waits for the end of a reset\n");
	ksft_test_result(alive, "no reader or resetter hangs\n");
	ksft_klog_test_result(&klog, "kernel log stays clean");

	/* A worker that hangs in the kernel may hold the device for ever. */
	if (alive)
		restore_methods();
	if (ksft_interrupted())
		ksft_exit_fail_msg("interrupted\n");
	ksft_finished();
}
