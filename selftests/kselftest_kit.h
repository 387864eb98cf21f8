/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the selftests here have in common, with a libc and with
 * tools/include/nolibc: system calls that threads can make, time, threads,
 * children that may hang, text, files, options, and a watch of the kernel log.
 *
 *	static const struct ksft_option options[] = {
 *		{ "-t", "SECONDS", "how long to put on load", &seconds, 86400,
 *		  NULL },
 *		{ 0 }
 *	};
 *
 *	ksft_begin(argc, argv, options);
 *	ksft_set_plan(2);
 *	ksft_klog_open(&klog);
 *	ksft_child_start(&child, step, NULL);
 *	ksft_child_wait(&child, HANG_MS);
 *	ksft_test_result(ksft_child_ended_well(&child, "a step"), "it ends\n");
 *	ksft_klog_test_result(&klog, "kernel log stays clean");
 *	ksft_finished();
 *
 * What returns an int returns a negative errno where it fails, unless it says
 * something else.  kselftest.h comes with this.
 */
#ifndef __KSELFTEST_KIT_H
#define __KSELFTEST_KIT_H

#ifndef NOLIBC
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif

/* That of old kernels needs the headers above. */
#include "kselftest.h"

/*
 * What kselftest.h of older kernels lacks
 */
#ifndef __noreturn
#define __noreturn
#endif
#ifndef __printf
#define __printf(a, b)	__attribute__((format(printf, a, b)))
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

#define KSFT_MODULES	"/lib/modules/"
#define KSFT_POLL_MS	5

/*
 * System calls
 *
 * nolibc has one errno for all threads, so these return it, negative.
 */

static inline long ksft_sys(long nr, long a, long b, long c, long d, long e,
			    long f)
{
#ifdef NOLIBC
	return my_syscall6(nr, a, b, c, d, e, f);
#else
	long ret = syscall(nr, a, b, c, d, e, f);

	return ret < 0 ? -errno : ret;
#endif
}

static inline int ksft_ioctl(int fd, unsigned long what, const void *arg)
{
	return ksft_sys(__NR_ioctl, fd, what, (long)arg, 0, 0, 0);
}

static inline int ksft_open(const char *name, int flags)
{
	return ksft_sys(__NR_openat, AT_FDCWD, (long)name, flags | O_CLOEXEC, 0,
			0, 0);
}

static inline void ksft_close(int fd)
{
	ksft_sys(__NR_close, fd, 0, 0, 0, 0, 0);
}

/* Memory that threads may ask for, too; NULL if there is none. */
static inline void *ksft_map(size_t size, int flags, int fd)
{
	long ret = ksft_sys(__NR_mmap, 0, size, PROT_READ | PROT_WRITE, flags,
			    fd, 0);

	return ret < 0 && ret > -4096 ? NULL : (void *)ret;
}

static inline void ksft_unmap(void *start, size_t size)
{
	ksft_sys(__NR_munmap, (long)start, size, 0, 0, 0, 0);
}

/* Memory that children see, too */
static inline void *ksft_share(size_t size)
{
	void *mem = ksft_map(size, MAP_SHARED | MAP_ANONYMOUS, -1);

	if (!mem)
		ksft_exit_fail_msg("no memory to share\n");
	return mem;
}

/*
 * Time
 */

static inline void ksft_pause_ms(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	ksft_sys(__NR_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&ts, 0, 0, 0);
}

static inline long long ksft_now_ns(void)
{
	struct timespec ts;

	ksft_sys(__NR_clock_gettime, CLOCK_MONOTONIC, (long)&ts, 0, 0, 0, 0);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static inline long long ksft_now_ms(void)
{
	return ksft_now_ns() / 1000000;
}

/* Waits until it is true, for so long at most.  Gives whether it was. */
#define ksft_until(condition, ms)					\
({									\
	long long ksft_end = ksft_now_ms() + (ms);			\
	int ksft_met;							\
									\
	while (!(ksft_met = !!(condition)) && ksft_now_ms() < ksft_end)	\
		ksft_pause_ms(KSFT_POLL_MS);				\
	ksft_met;							\
})

/*
 * Threads
 */

struct ksft_thread {
	void (*run)(void *arg);
	void *arg;
#ifdef NOLIBC
	int alive;
	char *stack;
#else
	pthread_t id;
#endif
};

#ifdef NOLIBC
#define KSFT_STACK	65536

static struct ksft_thread *ksft_thread_new;

/* What of the new stack's top is in use on entry is the compiler's affair. */
#ifdef __x86_64__
#define KSFT_REALIGN	__attribute__((force_align_arg_pointer))
#else
#define KSFT_REALIGN
#endif

static KSFT_REALIGN __attribute__((noreturn, noinline, unused))
void ksft_thread_main(void)
{
	struct ksft_thread *me;

	me = __atomic_load_n(&ksft_thread_new, __ATOMIC_ACQUIRE);
	/* The kernel clears it, and wakes who waits for that, at the end. */
	ksft_sys(__NR_set_tid_address, (long)&me->alive, 0, 0, 0, 0, 0);
	__atomic_store_n(&ksft_thread_new, NULL, __ATOMIC_RELEASE);
	me->run(me->arg);
	for (;;)
		ksft_sys(__NR_exit, 0, 0, 0, 0, 0, 0);
}

/* Of its own, so that the child, on another stack, needs nothing of it. */
static __attribute__((noinline, unused)) long ksft_thread_clone(char *stack)
{
	/* VM, FS, FILES, SIGHAND, THREAD, SYSVSEM */
	long ret = my_syscall5(__NR_clone, 0x50f00, stack, 0, 0, 0);

	if (!ret)
		ksft_thread_main();
	return ret;
}

/* One thread at a time may start others.  Returns 0 or a negative errno. */
static inline int ksft_thread_start(struct ksft_thread *thread)
{
	long ret;

	thread->alive = 1;
	thread->stack = ksft_map(KSFT_STACK, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (!thread->stack)
		return -ENOMEM;
	__atomic_store_n(&ksft_thread_new, thread, __ATOMIC_RELEASE);
	ret = ksft_thread_clone(thread->stack + KSFT_STACK - 1024);
	if (ret < 0) {
		ksft_unmap(thread->stack, KSFT_STACK);
		return ret;
	}
	while (__atomic_load_n(&ksft_thread_new, __ATOMIC_ACQUIRE))
		ksft_pause_ms(1);
	return 0;
}

static inline void ksft_thread_join(struct ksft_thread *thread)
{
	while (__atomic_load_n(&thread->alive, __ATOMIC_ACQUIRE))
		ksft_sys(__NR_futex, (long)&thread->alive, 0 /* FUTEX_WAIT */,
			 1, 0, 0, 0);
	ksft_unmap(thread->stack, KSFT_STACK);
}
#else
static inline void *ksft_thread_main(void *arg)
{
	struct ksft_thread *me = arg;

	me->run(me->arg);
	return NULL;
}

static inline int ksft_thread_start(struct ksft_thread *thread)
{
	return -pthread_create(&thread->id, NULL, ksft_thread_main, thread);
}

static inline void ksft_thread_join(struct ksft_thread *thread)
{
	pthread_join(thread->id, NULL);
}
#endif

/* Keeps the calling thread on one of the first CPUs. */
static inline int ksft_stay_on_cpu(int cpu)
{
	unsigned long mask = 1UL << cpu;

	return ksft_sys(__NR_sched_setaffinity, 0, sizeof(mask), (long)&mask, 0,
			0, 0);
}

/*
 * Children: steps that may hang.  The structure may be in shared memory.
 */

struct ksft_child {
	pid_t pid;
	int ended, status;	/* as wait() gave it */
};

/*
 * If the parent is killed, the child must not go on.  It writes nothing to
 * the structure, which is the parent's even in shared memory.
 */
static inline int ksft_child_start(struct ksft_child *child,
				   void (*run)(void *arg), void *arg)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid) {
		child->pid = pid;
		child->ended = 0;
		child->status = 0;
		return 0;
	}
	/* PR_SET_PDEATHSIG */
	ksft_sys(__NR_prctl, 1, SIGKILL, 0, 0, 0, 0);
	run(arg);
	exit(0);
}

static inline int ksft_child_ended(struct ksft_child *child)
{
	if (!child->ended)
		child->ended = waitpid(child->pid, &child->status, WNOHANG) ==
			       child->pid;
	return child->ended;
}

/* Returns whether it has ended in time. */
static inline int ksft_child_wait(struct ksft_child *child, long long ms)
{
	return ksft_until(ksft_child_ended(child), ms);
}

/* Returns whether it came to its end by itself; else says so, and kills it. */
static inline int ksft_child_ended_well(struct ksft_child *child,
					const char *what)
{
	if (!ksft_child_ended(child)) {
		ksft_print_msg("%s hangs\n", what);
		kill(child->pid, SIGKILL);
		return 0;
	}
	/* Not WIFSIGNALED(): some nolibc's is true of 0. */
	if (child->status)
		ksft_print_msg("%s was killed by signal %d\n", what,
			       WTERMSIG(child->status));
	return !child->status;
}

#ifdef NOLIBC
/* Nobody presses ^C in a guest without a C library. */
static inline void ksft_hold_signals(void) { }
static inline int ksft_interrupted(void) { return 0; }
#else
static inline void ksft_hold_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static inline int ksft_interrupted(void)
{
	sigset_t set;

	sigpending(&set);
	return sigismember(&set, SIGHUP) || sigismember(&set, SIGINT) ||
	       sigismember(&set, SIGTERM);
}
#endif

/*
 * Text
 */

/*
 * A path or a line, of %s, %d and %ld.  The last eight are kept; none for
 * threads.
 */
static inline __printf(1, 2) char *ksft_text(const char *format, ...)
{
	static char texts[8][256];
	static unsigned int next;
	char *text = texts[next++ % ARRAY_SIZE(texts)], *to = text;
	char *end = text + sizeof(texts[0]) - 1;
	char digits[24], *digit;
	const char *from;
	va_list args;
	long num, left;

	va_start(args, format);
	for (; *format && to < end; format++) {
		if (*format != '%') {
			*to++ = *format;
			continue;
		}
		if (*++format == 's') {
			from = va_arg(args, const char *);
		} else {
			if (*format == 'l') {
				format++;
				num = va_arg(args, long);
			} else {
				num = va_arg(args, int);
			}
			digit = digits + sizeof(digits) - 1;
			*digit = 0;
			left = num;
			do {
				*--digit = '0' + (left < 0 ? -(left % 10) :
							     left % 10);
				left /= 10;
			} while (left);
			if (num < 0)
				*--digit = '-';
			from = digit;
		}
		while (*from && to < end)
			*to++ = *from++;
	}
	va_end(args);
	*to = 0;
	return text;
}

/* Where the word is in the text, or NULL: nolibc has no strstr(). */
static inline char *ksft_find(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (; *text; text++) {
		if (!strncmp(text, word, len))
			return (char *)text;
	}
	return NULL;
}

/* How often the word is in the text */
static inline int ksft_count(const char *text, const char *word)
{
	int n = 0;

	while ((text = ksft_find(text, word))) {
		text++;
		n++;
	}
	return n;
}

/* The number that the text is, or -1 if it is none from 1 to max */
static inline int ksft_number(const char *text, int max)
{
	char *end;
	long val;

	val = text ? strtol(text, &end, 10) : 0;
	return val < 1 || val > max || *end ? -1 : val;
}

/*
 * Files
 */

/* Reads a file as a string; what does not fit is left out. */
static inline int ksft_read_file(const char *name, char *buf, size_t size)
{
	int fd = ksft_open(name, O_RDONLY);
	size_t len = 0;
	long n;

	if (fd < 0)
		return fd;
	do {
		n = ksft_sys(__NR_read, fd, (long)(buf + len), size - 1 - len, 0,
			     0, 0);
		len += n > 0 ? n : 0;
	} while (n > 0 && len < size - 1);
	ksft_close(fd);
	buf[len] = 0;
	return n < 0 ? n : 0;
}

/* The same for the first line, without its end */
static inline int ksft_read_line(const char *name, char *buf, size_t size)
{
	int ret = ksft_read_file(name, buf, size);
	char *end = ret ? NULL : strchr(buf, '\n');

	if (end)
		*end = 0;
	return ret;
}

/* Returns the number that the file begins with, -1 without one. */
static inline long ksft_read_number(const char *name)
{
	char buf[64];

	if (ksft_read_file(name, buf, sizeof(buf)) || *buf < '0' || *buf > '9')
		return -1;
	return strtol(buf, NULL, 10);
}

static inline int ksft_write_file(const char *name, const char *text)
{
	long len = strlen(text), ret;
	int fd = ksft_open(name, O_WRONLY);

	if (fd < 0)
		return fd;
	ret = ksft_sys(__NR_write, fd, (long)text, len, 0, 0, 0);
	ksft_close(fd);
	if (ret < 0)
		return ret;
	return ret == len ? 0 : -EIO;
}

/* Can it be opened so?  O_RDONLY: is it there? */
static inline int ksft_can_open(const char *name, int flags)
{
	int fd = ksft_open(name, flags);

	if (fd >= 0)
		ksft_close(fd);
	return fd >= 0;
}

static inline int ksft_exists(const char *name)
{
	return ksft_can_open(name, O_RDONLY);
}

/*
 * Calls the function with each name in a folder, but those that begin with a
 * dot.  Returns the sum.
 */
static inline int ksft_for_each(const char *dir, int (*fn)(const char *name))
{
	struct entry {
		unsigned long long ino, off;
		unsigned short len;
		unsigned char type;
		char name[];
	} *entry;
	static unsigned long long buf[4096];
	int fd = ksft_open(dir, O_RDONLY | O_DIRECTORY), sum = 0;
	long len, pos;

	if (fd < 0)
		return 0;
	while ((len = ksft_sys(__NR_getdents64, fd, (long)buf, sizeof(buf), 0,
			       0, 0)) > 0) {
		for (pos = 0; pos < len; pos += entry->len) {
			entry = (struct entry *)((char *)buf + pos);
			if (entry->name[0] != '.')
				sum += fn(entry->name);
		}
	}
	ksft_close(fd);
	return sum;
}

/*
 * Loads the modules that the initramfs brings along, as far as they are not
 * loaded yet: /lib/modules/order has their files in load order.
 */
static inline void ksft_load_modules(void)
{
	static char list[4096];
	char *line, *next;
	int fd;

	if (ksft_read_file(KSFT_MODULES "order", list, sizeof(list)) ||
	    chdir(KSFT_MODULES))
		return;
	for (line = list; *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		else
			next = line + strlen(line);
		fd = ksft_open(line, O_RDONLY);
		if (fd < 0)
			continue;
		ksft_sys(__NR_finit_module, fd, (long)"", 0, 0, 0, 0);
		ksft_close(fd);
	}
}

/*
 * Options and results
 */

/* A number from 1 to max; or any text; or neither, and then it is just set. */
struct ksft_option {
	const char *name, *arg, *help;	/* arg: NULL if it takes none */
	int *number, max;
	const char **text;
};

static inline __noreturn
void ksft_usage(const char *program, const struct ksft_option *options, int code)
{
	const struct ksft_option *o;

	printf("%s", program);
	for (o = options; o->name; o++)
		printf(" [%s%s%s]", o->name, o->arg ? " " : "",
		       o->arg ? o->arg : "");
	printf("\n");
	for (o = options; o->name; o++) {
		printf("  %s  %s", o->name, o->help);
		if (o->text)
			printf(", %s by default", *o->text);
		else if (o->arg)
			printf(", 1 to %d, %d by default", o->max, *o->number);
		printf("\n");
	}
	exit(code);
}

/* Reads the options, and begins the report. */
static inline void ksft_begin(int argc, char **argv,
			      const struct ksft_option *options)
{
	const struct ksft_option *o;
	int i, num;

	for (i = 1; i < argc; i++) {
		for (o = options; o->name && strcmp(argv[i], o->name);)
			o++;
		if (!o->name)
			ksft_usage(argv[0], options,
				   strcmp(argv[i], "-h") ? KSFT_FAIL : KSFT_PASS);
		if (!o->arg) {
			*o->number = 1;
			continue;
		}
		/* Nothing that a program takes is an empty text. */
		num = o->text ? !!argv[i + 1] : ksft_number(argv[i + 1], o->max);
		if (num < 1)
			ksft_usage(argv[0], options, KSFT_FAIL);
		if (o->text)
			*o->text = argv[i + 1];
		else
			*o->number = num;
		i++;
	}
	ksft_print_header();
}

/* ksft_test_result_skip() leaves no room for the case's name. */
static inline void ksft_skip_case(const char *name, const char *why)
{
	ksft_inc_xskip_cnt();
	printf("ok %u %s # SKIP %s\n", ksft_test_num(), name, why);
}

static inline void ksft_need_root(void)
{
	if (geteuid())
		ksft_exit_skip("needs root\n");
}

/*
 * The kernel log: faults while a test runs
 *
 * Only records of the kernel itself (facility 0) count: what user space wrote
 * to /dev/kmsg, the test's own report among it, is no fault.  A log that
 * cannot be read in full is never called clean.
 */

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

static inline int ksft_klog_is_fault(const char *line)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ksft_klog_patterns); i++) {
		if (ksft_find(line, ksft_klog_patterns[i]))
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
		ksft_skip_case(name, ksft_text("cannot read /dev/kmsg: %s",
					       strerror(klog->err)));
		return;
	}
	faults = ksft_klog_faults(klog);
	if (faults < 0)
		ksft_print_msg("kernel log: what was lost may have been a fault\n");
	ksft_test_result(!faults, "%s\n", name);
}

#endif /* __KSELFTEST_KIT_H */
