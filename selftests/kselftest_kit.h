/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What selftests need again and again, with a libc and with
 * tools/include/nolibc: system calls that threads can make, threads, time,
 * files, and modules that came with the initramfs.
 *
 * Include kselftest.h first.
 */
#ifndef __KSELFTEST_KIT_H
#define __KSELFTEST_KIT_H

#ifndef NOLIBC
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

#define KSFT_MODULES	"/lib/modules/"

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

/*
 * Files
 */

/* Reads a file as a string; what does not fit is left out. */
static inline int ksft_read_file(const char *name, char *buf, size_t size)
{
	int fd = ksft_open(name, O_RDONLY);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return fd;
	while (len < size - 1 &&
	       (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += n;
	ksft_close(fd);
	buf[len] = 0;
	return 0;
}

static inline int ksft_write_file(const char *name, const char *text)
{
	ssize_t len = strlen(text);
	int fd = ksft_open(name, O_WRONLY);
	int ret;

	if (fd < 0)
		return fd;
	ret = write(fd, text, len) == len ? 0 : -EIO;
	ksft_close(fd);
	return ret;
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
 * Results and options
 */

/* ksft_test_result_skip() leaves no room for the case's name. */
static inline void ksft_skip_case(const char *name, const char *why)
{
	ksft_inc_xskip_cnt();
	printf("ok %u %s # SKIP %s\n", ksft_test_num(), name, why);
}

/* The number that the text is, or -1 if it is none from 1 to max */
static inline int ksft_number(const char *text, int max)
{
	char *end;
	long val;

	val = text ? strtol(text, &end, 10) : 0;
	return val < 1 || val > max || *end ? -1 : val;
}

#endif /* __KSELFTEST_KIT_H */
