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
#ifndef NOLIBC
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#endif

#include "../kselftest.h"
#include "../kselftest_klog.h"

#define SYSFS_PCI	"/sys/bus/pci/devices"

#define MAX_DEVS	16
#define MAX_READERS	64	/* per function */
#define HANG_MS		10000	/* a reset takes 100 ms, a read far less */
#define POLL_MS		20
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
	pid_t pid;
	int dev;
	int resets;		/* a resetter, else a reader */
	int ended, status;	/* as wait() gave it */
	/* Filled in by the worker itself */
	unsigned long done;
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

#ifdef NOLIBC
static int clock_gettime(int clock, struct timespec *ts)
{
	return syscall(__NR_clock_gettime, clock, ts);
}

/* Nobody presses ^C in a guest without a C library. */
static void hold_signals(void) { }
static int interrupted(void) { return 0; }
#else
static void hold_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static int interrupted(void)
{
	sigset_t set;

	sigpending(&set);
	return sigismember(&set, SIGHUP) || sigismember(&set, SIGINT) ||
	       sigismember(&set, SIGTERM);
}
#endif

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Reads a file of the current directory as a string without its newline. */
static int read_file(const char *name, char *buf, size_t size)
{
	ssize_t len;
	int fd;

	fd = open(name, O_RDONLY);
	if (fd < 0)
		return -1;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len < 0)
		return -1;
	if (len && buf[len - 1] == '\n')
		len--;
	buf[len] = 0;
	return 0;
}

static int write_file(const char *name, const char *text)
{
	ssize_t len = strlen(text);
	int fd, ret;

	fd = open(name, O_WRONLY);
	if (fd < 0)
		return -1;
	ret = write(fd, text, len) == len ? 0 : -1;
	close(fd);
	return ret;
}

static int can_open(const char *name, int flags)
{
	int fd = open(name, flags);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static unsigned int read_hex(const char *name)
{
	char buf[32];

	return read_file(name, buf, sizeof(buf)) ? 0 : strtoul(buf, NULL, 16);
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
	if (read_file("reset_method", list, sizeof(list)))
		return 1;

	for (i = 0; i < ARRAY_SIZE(methods); i++) {
		if (!has_word(list, methods[i]))
			continue;
		dev->method = methods[i];
		if (!strcmp(list, methods[i]))
			return 1;
		if (write_file("reset_method", methods[i]))
			return 0;
		memcpy(dev->saved, list, sizeof(list));
		return 1;
	}
	return 0;
}

static void restore_methods(void)
{
	int i;

	for (i = 0; i < nr_devs; i++) {
		if (!devs[i].saved[0])
			continue;
		if (enter(devs[i].name) ||
		    write_file("reset_method", devs[i].saved))
			ksft_print_msg("%s: reset_method was not restored: %s\n",
				       devs[i].name, strerror(errno));
	}
}

/* Fills the next entry of devs[], if the function is one to reset. */
static void add_device(const char *name)
{
	struct device *dev = &devs[nr_devs];
	size_t len = strlen(name);

	if (nr_devs == MAX_DEVS || len >= sizeof(dev->name) || name[0] == '.')
		return;
	memcpy(dev->name, name, len + 1);
	if (enter(name))
		return;
	if (!can_open("reset", O_WRONLY) || read_hex("class") >> 16 == 0x06)
		return;
	if (!all_devices && can_open("driver", O_RDONLY))
		return;
	dev->vendor = read_hex("vendor");
	dev->device = read_hex("device");
	if (choose_method(dev))
		nr_devs++;
}

static void find_devices(void)
{
	struct entry {
		unsigned long long ino, off;
		unsigned short len;
		unsigned char type;
		char name[];
	} *entry;
	static unsigned long long buf[4096];
	long len, pos;
	int fd;

	fd = open(SYSFS_PCI, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return;
	while ((len = syscall(__NR_getdents64, fd, buf, sizeof(buf))) > 0) {
		for (pos = 0; pos < len; pos += entry->len) {
			entry = (struct entry *)((char *)buf + pos);
			add_device(entry->name);
		}
	}
	close(fd);
}

static void run_reader(struct worker *me, const struct device *dev)
{
	unsigned char id[4] = {
		dev->vendor, dev->vendor >> 8, dev->device, dev->device >> 8,
	};
	unsigned char got[4];
	int fd = open("config", O_RDONLY);

	if (fd < 0) {
		me->err = errno;
		return;
	}
	while (!shared->stop_reads) {
		if (lseek(fd, 0, SEEK_SET) < 0 ||
		    read(fd, got, sizeof(got)) != sizeof(got)) {
			me->err = errno ? errno : EIO;
			return;
		}
		me->done++;
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
	int fd = open("reset", O_WRONLY);

	if (fd < 0) {
		me->err = errno;
		return;
	}
	while (!shared->stop_resets) {
		if (write(fd, "1", 1) != 1) {
			me->err = errno ? errno : EIO;
			return;
		}
		me->done++;
	}
}

static int start_worker(int dev, int resets)
{
	struct worker *worker = &shared->workers[nr_workers];
	pid_t pid;

	worker->dev = dev;
	worker->resets = resets;
	pid = fork();
	if (pid < 0)
		return -1;
	if (!pid) {
		/* If the parent is killed, nothing must go on resetting. */
		syscall(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		while (!shared->start)
			usleep(1000);
		errno = 0;
		if (enter(devs[dev].name))
			worker->err = errno;
		else if (resets)
			run_resetter(worker);
		else
			run_reader(worker, &devs[dev]);
		exit(0);
	}
	worker->pid = pid;
	nr_workers++;
	return 0;
}

/* Collects ended workers.  Returns how many of the kind still run. */
static int still_running(int resets)
{
	int status, running = 0;
	pid_t pid;
	int i;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (i = 0; i < nr_workers; i++) {
			if (shared->workers[i].pid == pid) {
				shared->workers[i].ended = 1;
				shared->workers[i].status = status;
			}
		}
	}
	for (i = 0; i < nr_workers; i++) {
		if (shared->workers[i].resets == resets &&
		    !shared->workers[i].ended)
			running++;
	}
	return running;
}

static void wait_for(int resets)
{
	long long end = now_ms() + HANG_MS;

	while (still_running(resets) && now_ms() < end)
		usleep(POLL_MS * 1000);
}

/* Returns whether each worker came to its end by itself. */
static int check_ends(void)
{
	int i, ok = 1;

	for (i = 0; i < nr_workers; i++) {
		struct worker *worker = &shared->workers[i];
		const char *what = worker->resets ? "resetter" : "reader";
		const char *name = devs[worker->dev].name;

		if (!worker->ended) {
			ksft_print_msg("%s: a %s hangs after %lu rounds\n",
				       name, what, worker->done);
			kill(worker->pid, SIGKILL);
			ok = 0;
		} else if (worker->status) {
			ksft_print_msg("%s: a %s was killed by signal %d\n",
				       name, what, WTERMSIG(worker->status));
			ok = 0;
		}
	}
	return ok;
}

static int check_reads(void)
{
	unsigned long total = 0;
	int i, ok = 1;

	for (i = 0; i < nr_workers; i++) {
		struct worker *worker = &shared->workers[i];
		const char *name = devs[worker->dev].name;

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
		const struct device *dev = &devs[worker->dev];

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

static __noreturn void usage(int code)
{
	printf("cfg_reset [-t SECONDS] [-r READERS] [-a]\n"
	       "  -t  how long to reset and read, %d seconds by default\n"
	       "  -r  readers per function, 1 to %d, %d by default\n"
	       "  -a  functions that a driver is bound to, too: DANGEROUS\n",
	       seconds, MAX_READERS, readers);
	exit(code);
}

static int number(const char *text, int max)
{
	char *end;
	long val;

	val = text ? strtol(text, &end, 10) : 0;
	if (val < 1 || val > max || *end)
		usage(KSFT_FAIL);
	return val;
}

int main(int argc, char **argv)
{
	struct ksft_klog klog;
	long long start, end;
	unsigned long ms;
	int i, j, alive;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-t"))
			seconds = number(argv[++i], 86400);
		else if (!strcmp(argv[i], "-r"))
			readers = number(argv[++i], MAX_READERS);
		else if (!strcmp(argv[i], "-a"))
			all_devices = 1;
		else
			usage(strcmp(argv[i], "-h") ? KSFT_FAIL : KSFT_PASS);
	}

	ksft_print_header();
	if (geteuid())
		ksft_exit_skip("needs root\n");
	hold_signals();
	find_devices();
	if (!nr_devs)
		ksft_exit_skip("no PCI function without a driver can be reset\n");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));

	ksft_set_plan(4);
	ksft_klog_open(&klog);

	for (i = 0; i < nr_devs; i++) {
		for (j = 0; j <= readers; j++) {
			if (start_worker(i, j == readers))
				goto no_fork;
		}
	}

	start = now_ms();
	shared->start = 1;
	end = start + seconds * 1000LL;
	while (now_ms() < end && !interrupted())
		usleep(POLL_MS * 1000);
	shared->stop_resets = 1;
	wait_for(1);
	ms = now_ms() - start;
	/* Resets are over, so nothing else wakes a reader that was forgotten. */
	shared->stop_reads = 1;
	wait_for(0);
	alive = check_ends();

	ksft_test_result(check_reads(), "each config read gives the device's ids\n");
	ksft_test_result(check_resets(ms), "each reset succeeds\n");
	ksft_test_result(alive, "no reader or resetter hangs\n");
	ksft_klog_test_result(&klog, "kernel log stays clean");

	/* A worker that hangs in the kernel may hold the device for ever. */
	if (alive)
		restore_methods();
	if (interrupted())
		ksft_exit_fail_msg("interrupted\n");
	ksft_finished();

no_fork:
	ksft_print_msg("fork: %s\n", strerror(errno));
	restore_methods();
	ksft_exit_fail_msg("could not start the workers\n");
}
