/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Watch the kernel log for faults while a selftest runs.
 *
 *	struct ksft_klog klog;
 *
 *	ksft_klog_open(&klog);
 *	...
 *	ksft_klog_test_result(&klog, "kernel log stays clean");
 *
 * Only records of the kernel itself (facility 0) count: what user space wrote
 * to /dev/kmsg, this test's own report among it, is no fault.  A log that
 * cannot be read in full is never called clean.
 *
 * Builds with a libc and with tools/include/nolibc.  Include kselftest.h first.
 */
#ifndef __KSELFTEST_KLOG_H
#define __KSELFTEST_KLOG_H

#ifndef NOLIBC
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#endif

/*
 * What kselftest.h of older kernels lacks
 */
#ifndef __noreturn
#define __noreturn
#endif
#ifndef ARRAY_SIZE
#define ARRAY_SIZE(arr)	(sizeof(arr) / sizeof((arr)[0]))
#endif
#ifdef KSFT_NO_SET_PLAN
/* Before v5.2 the plan is printed last, with the counts. */
static unsigned int ksft_plan;

static inline void ksft_set_plan(unsigned int plan)
{
	ksft_plan = plan;
}
#endif
#ifndef ksft_test_result
#define ksft_test_result(condition, ...) do {		\
	if (condition)					\
		ksft_test_result_pass(__VA_ARGS__);	\
	else						\
		ksft_test_result_fail(__VA_ARGS__);	\
	} while (0)
#endif
#ifndef ksft_finished
static inline __noreturn void ksft_finished(void)
{
	if (ksft_plan == ksft_cnt.ksft_pass + ksft_cnt.ksft_xfail +
			 ksft_cnt.ksft_xskip)
		ksft_exit_pass();
	ksft_exit_fail();
	exit(KSFT_FAIL);
}
#endif

/* The longest record that any kernel hands out (CONSOLE_EXT_LOG_MAX) */
#define KSFT_KLOG_RECORD	8192
/* A fault is followed by hundreds of lines: show no more than these */
#define KSFT_KLOG_SHOWN		20

struct ksft_klog {
	int fd;			/* /dev/kmsg, or -1 */
	int err;		/* why it could not be opened, an errno */
	unsigned long taint;	/* kernel taint when the log was opened */
};

/* What a fault looks like.  Case counts; the first match names the line. */
static const char * const ksft_klog_patterns[] = {
	"WARNING: ",
	"BUG: ",
	"kernel BUG at",
	"Oops",
	"Kernel panic",
	"KASAN",
	"KCSAN",
	"KFENCE",
	"UBSAN",
	"list_add corruption",
	"list_add double add",
	"list_del corruption",
	"possible circular locking",
	"possible recursive locking",
	"possible irq lock inversion",
	"possible deadlock",
	"inconsistent lock state",
	"bad unlock balance",
	"Invalid wait context",
	"suspicious RCU usage",
	"held lock freed",
	"still has locks held",
	"lock held when returning",
	"trying to register non-static key",
	"turning off the locking correctness validator",
	"sleeping function called from invalid context",
	"scheduling while atomic",
	"blocked for more than",
	"detected stall",
	"self-detected stall",
	"kthread starved",
	"soft lockup",
	"hard LOCKUP",
	"workqueue lockup",
	"general protection fault",
	"nable to handle kernel",
	"nable to handle page fault",
	"stack segment",
	"double fault",
	"Internal error",
	"Bad page state",
	"Bad rss-counter state",
	"refcount_t: ",
	"nobody cared",
	"stack-protector",
	"Call Trace",
	"Call trace",
	"cut here",
};

static inline int ksft_klog_has(const char *line, const char *what)
{
	size_t len = strlen(what);

	for (; *line; line++) {
		if (!strncmp(line, what, len))
			return 1;
	}
	return 0;
}

static inline int ksft_klog_is_fault(const char *line)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ksft_klog_patterns); i++) {
		if (ksft_klog_has(line, ksft_klog_patterns[i]))
			return 1;
	}
	return 0;
}

/* The taint bits that a fault sets; 0 where there is no /proc/sys */
static inline unsigned long ksft_klog_taint(void)
{
	const unsigned long faults = 1UL << 4 |		/* machine check */
				     1UL << 5 |		/* bad page */
				     1UL << 7 |		/* oops or BUG */
				     1UL << 9 |		/* WARN */
				     1UL << 14;		/* soft lockup */
	char buf[32] = "";
	int fd = open("/proc/sys/kernel/tainted", O_RDONLY);

	if (fd < 0)
		return 0;
	if (read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = 0;
	close(fd);
	return strtoul(buf, NULL, 10) & faults;
}

/**
 * ksft_klog_open() - Start to watch the kernel log
 *
 * @klog: the watch; only what is logged from now on counts
 *
 * Return: 0, or -1 if the log cannot be read; the result is a SKIP then.
 */
static inline int ksft_klog_open(struct ksft_klog *klog)
{
	klog->err = 0;
	klog->taint = ksft_klog_taint();
	klog->fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (klog->fd >= 0 && lseek(klog->fd, 0, SEEK_END) >= 0)
		return 0;

	klog->err = errno;
	if (klog->fd >= 0)
		close(klog->fd);
	klog->fd = -1;
	return -1;
}

/**
 * ksft_klog_faults() - Read the log up to now, and print the lines of a fault
 *
 * @klog: the watch, which goes on
 *
 * Return: the number of lines that tell of a fault, or -1 if there is none but
 * records were lost or could not be read.
 */
static inline int ksft_klog_faults(struct ksft_klog *klog)
{
	static char buf[KSFT_KLOG_RECORD + 1];
	unsigned long taint;
	int faults = 0;
	int lost = 0;

	for (;;) {
		ssize_t len = read(klog->fd, buf, KSFT_KLOG_RECORD);
		char *text, *end;

		if (len < 0) {
			if (errno == EINTR)
				continue;
			/* Overwritten before it was read: go on with the rest. */
			if (errno == EPIPE) {
				ksft_print_msg("kernel log: records were lost\n");
				lost = 1;
				continue;
			}
			if (errno != EAGAIN) {
				ksft_print_msg("kernel log: %s\n",
					       strerror(errno));
				lost = 1;
			}
			break;
		}
		if (!len)
			break;
		buf[len] = 0;

		/* "priority,sequence,time,flags;text\n KEY=value\n" */
		text = strchr(buf, ';');
		if (!text || strtoul(buf, NULL, 10) >> 3)
			continue;
		text++;
		end = strchr(text, '\n');
		if (end)
			*end = 0;
		if (!ksft_klog_is_fault(text))
			continue;
		if (faults++ < KSFT_KLOG_SHOWN)
			ksft_print_msg("kernel log: %s\n", text);
	}

	taint = ksft_klog_taint();
	if (taint & ~klog->taint) {
		ksft_print_msg("kernel taint went from 0x%lx to 0x%lx\n",
			       klog->taint, taint);
		faults++;
		klog->taint |= taint;
	}
	if (faults > KSFT_KLOG_SHOWN)
		ksft_print_msg("kernel log: %d such lines in all\n", faults);
	return !faults && lost ? -1 : faults;
}

/**
 * ksft_klog_test_result() - Report one test case: the log holds no fault
 *
 * @klog: the watch
 * @name: of the test case
 */
static inline void ksft_klog_test_result(struct ksft_klog *klog,
					 const char *name)
{
	int faults;

	if (klog->fd < 0) {
		/* ksft_test_result_skip() leaves no room for the case's name. */
		ksft_inc_xskip_cnt();
		printf("ok %u %s # SKIP cannot read /dev/kmsg: %s\n",
		       ksft_test_num(), name, strerror(klog->err));
		return;
	}
	faults = ksft_klog_faults(klog);
	if (faults < 0)
		ksft_print_msg("kernel log: what was lost may have been a fault\n");
	ksft_test_result(!faults, "%s\n", name);
}

#endif /* __KSELFTEST_KLOG_H */
