// SPDX-License-Identifier: GPL-2.0-only
/*
 * Take NFSv4 clients away from the server while callbacks to them are under way.
 *
 * The kernel's own server and clients talk over loopback, half of the clients
 * NFSv4.0, the others v4.1.  In each round they open fresh files and are given
 * delegations.  Then they are cut off, so that nobody answers a callback, and
 * local opens and unlinks have the server recall all delegations, those for
 * writing twice.  With the recalls in flight half of the clients are expired
 * through procfs, where it has files for that, and the threads go to 0, which
 * takes the others away.
 *
 * A server that does not wait for the ends of its callbacks frees a client
 * that they still use.  One that counts them wrong waits for ever.
 *
 * Fresh files, as the server gives no second delegation for a file whose first
 * was recalled, for half a minute or more.
 *
 * Nothing of nfs-utils is needed: the export caches are filled here, and a
 * child is the daemon that keeps track of clients.
 *
 * For test machines only: it owns the NFS server and the loopback device.
 */
#ifndef NOLIBC
/* Older ones of lib.mk do not ask for it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#endif
#include <linux/nfsd/cld.h>

#include "../kselftest.h"
#include "../kselftest_klog.h"

#define BASE		"/tmp/nfsd_cb_shutdown"
#define EXPORT		BASE "/export"
#define NFSD		BASE "/nfsd"
#define CLIENTS		NFSD "/clients"
#define PIPEFS		BASE "/rpc_pipefs"
#define UNIQUE_ID	"/sys/module/nfs/parameters/nfs4_unique_id"

#define MAX_CLIENTS	32
#define MAX_FILES	128
#define MAX_JOBS	(MAX_CLIENTS + MAX_FILES + 2)
#define HANG_MS		20000	/* a step takes less than a second */
#define FLIGHT_MS	5000	/* a recall is sent within milliseconds */
#define POLL_MS		5
#define LEASE		90	/* a tenth of it is the limit of a recall */

/* A child that does what may hang */
struct job {
	pid_t pid;
	const char *what;
	int arg;
	long long start;	/* in milliseconds */
	int ended, status;	/* as wait() gave it */
	int err;		/* filled in by the child: an errno, or 0 */
};

static struct job *jobs;	/* shared with the children */
static int nr_jobs;

static int seconds = 5, nr_clients = 4, nr_files = 4;
static int round;
static int have_clients;	/* procfs tells of clients: since v5.3 */
static int by_minor[2];	/* delegations, as last counted */

/* Sums over all rounds */
static struct {
	int granted[2];		/* delegations by minor version */
	int expired;		/* clients */
	int at_expiry, at_stop;	/* recalls in flight */
	int left;		/* clients after a stop */
	int shutdowns;		/* stops with clients */
	int bad_stops;
	int longest_stop;	/* in milliseconds */
	int wrong;		/* jobs that failed or hang */
} sum;

#ifdef NOLIBC
static int clock_gettime(int clock, struct timespec *ts)
{
	return syscall(__NR_clock_gettime, clock, ts);
}

static int unshare(int flags)
{
	return syscall(__NR_unshare, flags);
}

static int socket(int family, int type, int protocol)
{
	return syscall(__NR_socket, family, type, protocol);
}

#define AF_INET		2
#define SOCK_DGRAM	2
#define CLONE_NEWNS	0x00020000
#define MNT_DETACH	2
#define SIOCGIFFLAGS	0x8913
#define SIOCSIFFLAGS	0x8914
#define SIOCSIFNETMASK	0x891c
#define IFF_UP		1

struct ifreq {
	char ifr_name[16];
	union {
		short ifr_flags;
		char ifr_netmask[24];
	};
};

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

/* A path or a line, of %s and %d; each call has a buffer of its own. */
static char *text(const char *format, ...)
{
	static char bufs[4][256];
	static unsigned int next;
	char *buf = bufs[next++ % ARRAY_SIZE(bufs)];
	char digits[12], *end = buf + sizeof(bufs[0]) - 1;
	char *to = buf;
	const char *from;
	va_list args;
	int num, n;

	va_start(args, format);
	for (; *format && to < end; format++) {
		if (*format != '%') {
			*to++ = *format;
			continue;
		}
		if (*++format == 's') {
			from = va_arg(args, const char *);
			while (*from && to < end)
				*to++ = *from++;
			continue;
		}
		num = va_arg(args, int);
		n = 0;
		do {
			digits[n++] = '0' + num % 10;
			num /= 10;
		} while (num);
		while (n && to < end)
			*to++ = digits[--n];
	}
	va_end(args);
	*to = 0;
	return buf;
}

static int read_file(const char *name, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n = 0;
	int fd;

	fd = open(name, O_RDONLY);
	if (fd < 0)
		return -1;
	while (len < size - 1 &&
	       (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += n;
	close(fd);
	buf[len] = 0;
	return n < 0 ? -1 : 0;
}

static int write_file(const char *name, const char *line)
{
	ssize_t len = strlen(line);
	int fd, ret;

	fd = open(name, O_WRONLY);
	if (fd < 0)
		return -1;
	ret = write(fd, line, len) == len ? 0 : -1;
	close(fd);
	return ret;
}

static int exists(const char *name)
{
	int fd = open(name, O_RDONLY);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int count(const char *in, const char *what)
{
	size_t len = strlen(what);
	int n = 0;

	while (*in)
		n += !strncmp(in++, what, len);
	return n;
}

/* Calls the function with each name in a folder.  Returns the sum. */
static int for_each(const char *dir, int (*fn)(const char *name))
{
	struct entry {
		unsigned long long ino, off;
		unsigned short len;
		unsigned char type;
		char name[];
	} *entry;
	static unsigned long long buf[2048];
	int fd, sum = 0;
	long len, pos;

	fd = open(dir, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return 0;
	while ((len = syscall(__NR_getdents64, fd, buf, sizeof(buf))) > 0) {
		for (pos = 0; pos < len; pos += entry->len) {
			entry = (struct entry *)((char *)buf + pos);
			if (entry->name[0] != '.')
				sum += fn(entry->name);
		}
	}
	close(fd);
	return sum;
}

/*
 * Jobs
 */

static pid_t child(void)
{
	pid_t pid = fork();

	if (!pid)
		syscall(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	return pid;
}

/* The function returns 0, or -1 with errno. */
static void start_job(const char *what, int (*fn)(int arg), int arg)
{
	struct job *job = &jobs[nr_jobs];
	pid_t pid;

	if (nr_jobs == MAX_JOBS)
		ksft_exit_fail_msg("too many children\n");
	memset(job, 0, sizeof(*job));
	job->what = what;
	job->arg = arg;
	job->start = now_ms();
	pid = child();
	if (pid < 0)
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	if (!pid) {
		if (fn(arg))
			job->err = errno ? errno : EIO;
		exit(0);
	}
	job->pid = pid;
	nr_jobs++;
}

static int still_running(void)
{
	int i, status, running = 0;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (i = 0; i < nr_jobs; i++) {
			if (jobs[i].pid == pid) {
				jobs[i].ended = 1;
				jobs[i].status = status;
			}
		}
	}
	for (i = 0; i < nr_jobs; i++)
		running += !jobs[i].ended;
	return running;
}

/* Waits for a job's end.  Returns 0 if it went well. */
static int wait_job(struct job *job)
{
	long long end = job->start + HANG_MS;

	while (still_running() && !job->ended && now_ms() < end)
		usleep(POLL_MS * 1000);
	return job->ended && !job->status && !job->err ? 0 : -1;
}

/* Waits for all jobs, and forgets them.  Returns how many went wrong. */
static int finish_jobs(void)
{
	int i, wrong = 0;

	for (i = 0; i < nr_jobs; i++) {
		struct job *job = &jobs[i];

		if (!wait_job(job))
			continue;
		wrong++;
		ksft_print_msg("round %d: %s %d ", round, job->what, job->arg);
		if (!job->ended) {
			printf("hangs\n");
			kill(job->pid, SIGKILL);
		} else if (job->status) {
			printf("was killed by signal %d\n",
			       WTERMSIG(job->status));
		} else {
			printf("failed: %s\n", strerror(job->err));
		}
	}
	nr_jobs = 0;
	sum.wrong += wrong;
	return wrong;
}

/*
 * The server
 */

/*
 * The daemon that keeps track of clients for the server.  It says yes to all,
 * and that is also: there are no clients from before.  So a server that asks
 * does not wait for them to come back (the grace period).
 */
static void run_tracker(void)
{
	static struct cld_msg_v2 msg;
	struct pollfd pfd = { .events = POLLIN };
	ssize_t len;

	for (;;) {
		/* The pipe is there while the server is up. */
		pfd.fd = open(PIPEFS "/nfsd/cld", O_RDWR);
		while (pfd.fd >= 0) {
			if (poll(&pfd, 1, POLL_MS) < 0)
				break;
			len = read(pfd.fd, &msg, sizeof(msg));
			if (len <= 0 && pfd.revents & ~POLLIN)
				break;
			if (len <= 0)
				continue;
			msg.cm_status = 0;
			if (write(pfd.fd, &msg, len) != len)
				break;
		}
		if (pfd.fd >= 0)
			close(pfd.fd);
		usleep(POLL_MS * 1000);
	}
}

/* The caches are empty, and the port is gone, after each stop. */
static int start_server(int threads)
{
	static const struct {
		const char *name, *line;
	} steps[] = {
		{ "/proc/net/rpc/auth.unix.ip/channel",
		  "nfsd 127.0.0.1 2147483647 *\n" },
		/* insecure_port, async, no subtree check; fsid 0: v4's root */
		{ "/proc/net/rpc/nfsd.export/channel",
		  "* " EXPORT " 2147483647 9266 65534 65534 0\n" },
		{ "/proc/net/rpc/nfsd.fh/channel",
		  "* 1 \\x00000000 2147483647 " EXPORT "\n" },
		{ NFSD "/portlist", "tcp 2049\n" },
	};
	char line[64];
	unsigned int i;

	/*
	 * Versions 2 and 3 would want a port mapper.  Where none has been
	 * chosen yet, old kernels take a first "-2" for a wish for all.
	 */
	write_file(NFSD "/versions", "+4\n");
	write_file(NFSD "/versions", "-2\n");
	write_file(NFSD "/versions", "-3\n");
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		if (write_file(steps[i].name, steps[i].line)) {
			ksft_print_msg("%s: %s\n", steps[i].name,
				       strerror(errno));
			return -1;
		}
	}
	if (write_file(NFSD "/threads", text("%d\n", threads))) {
		ksft_print_msg("threads: %s\n", strerror(errno));
		return -1;
	}
	/* Where the tracker was not asked for clients, or is not heard */
	if (!read_file(NFSD "/v4_end_grace", line, sizeof(line)) &&
	    line[0] == 'N')
		write_file(NFSD "/v4_end_grace", "Y\n");
	return 0;
}

static int stop_server(int arg)
{
	return write_file(NFSD "/threads", "0\n");
}

static int one(const char *name)
{
	return 1;
}

/* The server's record of a client: its delegations, if callbacks work */
static int count_delegations(const char *client)
{
	static char states[65536];
	char info[1024];
	int n;

	if (read_file(text(CLIENTS "/%s/states", client), states,
		      sizeof(states)) ||
	    read_file(text(CLIENTS "/%s/info", client), info, sizeof(info)))
		return 0;
	/* Newer kernels tell.  It goes down, or faults, when a recall fails. */
	if (count(info, "callback state: ") && !count(info, "callback state: UP"))
		return 0;
	n = count(states, "type: deleg");
	by_minor[!count(info, "minor version: 0")] += n;
	return n;
}

/* Delegations that the clients hold; -1 if this kernel does not tell. */
static int delegations(void)
{
	by_minor[0] = 0;
	by_minor[1] = 0;
	return have_clients ? for_each(CLIENTS, count_delegations) : -1;
}

/*
 * Connections on which the server has sent callbacks that did not get through:
 * its end has the address of a client, and bytes that were not acknowledged.
 */
static int callbacks_stuck(void)
{
	static char buf[65536];
	unsigned int addr;
	char *line;
	int n = 0;

	if (read_file("/proc/net/tcp", buf, sizeof(buf)))
		return 0;
	/* "  0: 0200007F:0801 0100007F:03E8 01 000000C8:00000000 ..." */
	for (line = strchr(buf, '\n'); line; line = strchr(line + 1, '\n')) {
		char *local = strchr(line, ':');

		if (!local || strlen(local) < 44)
			continue;
		local += 2;
		addr = strtoul(local, NULL, 16);
		n += ((unsigned char *)&addr)[3] > 1 &&
		     !strncmp(local + 28, "01 ", 3) &&
		     strncmp(local + 31, "00000000", 8);
	}
	return n;
}

static int expire(int client)
{
	return write_file(text(CLIENTS "/%d/ctl", client), "expire\n");
}

static int nr_to_expire;

static int start_expiry(const char *client)
{
	if (!nr_to_expire)
		return 0;
	nr_to_expire--;
	start_job("expiry of client", expire, strtol(client, NULL, 10));
	return 1;
}

/*
 * The clients
 */

/*
 * The clients talk to 127.0.0.2 and so on.  To cut them off, only 127.0.0.1 is
 * left: a server that stops asks there for the port mapper.
 */
static int connect_clients(int on)
{
	struct ifreq req = { .ifr_name = "lo" };
	unsigned char mask[4] = { 255, 255, 255, 255 };
	unsigned short family = AF_INET;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int ret;

	if (fd < 0)
		return -1;
	ret = ioctl(fd, SIOCGIFFLAGS, &req);
	req.ifr_flags |= IFF_UP;
	ret = ret ? ret : ioctl(fd, SIOCSIFFLAGS, &req);
	if (!ret) {
		if (on)
			memset(mask + 1, 0, 3);
		memset(&req.ifr_netmask, 0, sizeof(req.ifr_netmask));
		memcpy(&req.ifr_netmask, &family, sizeof(family));
		memcpy((char *)&req.ifr_netmask + 4, mask, sizeof(mask));
		ret = ioctl(fd, SIOCSIFNETMASK, &req);
	}
	close(fd);
	return ret;
}

/* Files 0 to nr_files are for all clients, one more is for each alone. */
static int own_file(int client)
{
	return nr_files + 1 + client;
}

static char *export_file(int file)
{
	return text(EXPORT "/r%df%d", round, file);
}

static int open_file(int client, int file, int flags)
{
	int fd;

	fd = open(text(BASE "/mnt%d/r%df%d", client, round, file), flags);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

static int open_files(int client)
{
	int i;

	for (i = 0; i < nr_files; i++) {
		if (open_file(client, i, O_RDONLY))
			return -1;
	}
	/* A file of its own: since v6.6 v4.1 gives a write delegation. */
	return open_file(client, own_file(client), O_RDWR);
}

/* v4.0 gives none yet: the open owner is new, the way back is not up. */
static int open_first(int client)
{
	return open_file(client, nr_files, O_RDONLY);
}

static int unmount(int client)
{
	return umount2(text(BASE "/mnt%d", client), MNT_DETACH);
}

/* Each has an address and a name of its own, else they were one client. */
static int mount_client(int client)
{
	char *options;

	write_file(UNIQUE_ID, text("r%dc%d", round, client));
	options = text("vers=4.%d,addr=127.0.0.%d,clientaddr=127.0.0.%d,proto=tcp,sec=sys,soft",
		       client % 2, client + 2, client + 2);
	return mount(text("127.0.0.%d:/", client + 2),
		     text(BASE "/mnt%d", client), "nfs4", 0, options);
}

static int unlink_file(int file)
{
	return unlink(export_file(file));
}

/* Does somebody else's delegation forbid to open the file? */
static int recall_file(int file, int flags)
{
	int fd = open(export_file(file), flags | O_NONBLOCK);

	if (fd < 0)
		return errno == EWOULDBLOCK;
	close(fd);
	return 0;
}

/* Sets off the recalls.  Returns how many files are seen to be delegated. */
static int recall(void)
{
	int i, n = 0;

	for (i = 0; i < nr_clients; i++)
		recall_file(own_file(i), O_RDONLY);
	for (i = 0; i <= nr_files; i++) {
		/* Waits until all clients have returned theirs, or are gone. */
		if (i % 4 == 3) {
			start_job("unlink of file", unlink_file, i);
			continue;
		}
		n += recall_file(i, O_WRONLY);
	}
	return n;
}

/*
 * To a reader a write delegation has to be given up in part, to a writer as a
 * whole: the second has the server run the callback again while it is in
 * flight.
 */
static void recall_again(void)
{
	int i;

	for (i = 0; i < nr_clients; i++)
		recall_file(own_file(i), O_WRONLY);
}

static void stop(void)
{
	struct job *job = &jobs[nr_jobs];
	long long start = now_ms();
	int ms;

	start_job("end of threads", stop_server, 0);
	sum.bad_stops += !!wait_job(job);
	ms = now_ms() - start;
	if (ms > sum.longest_stop)
		sum.longest_stop = ms;
}

/* Returns the number of clients. */
static int expire_half(void)
{
	int first = nr_jobs, i, n;

	/* The others are left for the stop. */
	nr_to_expire = nr_clients / 2;
	n = for_each(CLIENTS, start_expiry);
	for (i = first; i < nr_jobs; i++)
		wait_job(&jobs[i]);
	return n;
}

/* Returns 0 if another round makes sense. */
static int run_round(void)
{
	int i, expired, files, recalls, left, stuck;
	long long start = now_ms(), end;

	for (i = 0; i <= own_file(nr_clients - 1); i++)
		close(open(export_file(i), O_CREAT | O_WRONLY, 0666));
	for (i = 0; i < nr_clients; i++) {
		start_job("mount", mount_client, i);
		if (finish_jobs())
			return -1;
	}
	for (i = 0; i < nr_clients; i++)
		start_job("first open by client", open_first, i);
	finish_jobs();
	for (i = 0; i < nr_clients; i++)
		start_job("opens by client", open_files, i);
	finish_jobs();
	delegations();
	sum.granted[0] += by_minor[0];
	sum.granted[1] += by_minor[1];

	if (connect_clients(0)) {
		ksft_print_msg("lo: %s\n", strerror(errno));
		return -1;
	}
	files = recall();
	end = now_ms() + FLIGHT_MS;
	while ((stuck = callbacks_stuck()) < nr_clients && now_ms() < end)
		usleep(POLL_MS * 1000);
	recall_again();

	/* The clients hold no delegation that is not being recalled. */
	recalls = delegations();
	if (recalls < 0)
		recalls = files;
	if (!stuck)
		recalls = 0;
	ksft_print_msg("round %d: %d + %d delegations on v4.0 + v4.1, ",
		       round, by_minor[0], by_minor[1]);
	printf("%d recalls in flight on %d connections, ", recalls, stuck);

	expired = expire_half();
	left = recalls;
	if (expired) {
		sum.expired += expired;
		left = delegations();
		sum.at_expiry += recalls - left;
	}
	sum.at_stop += left;
	sum.shutdowns++;
	stop();
	printf("%d when %d clients were expired, %d at the stop; %d ms\n",
	       recalls - left, expired, left, (int)(now_ms() - start));

	connect_clients(1);
	if (finish_jobs())
		return -1;
	sum.left += for_each(CLIENTS, one);
	if (start_server(2)) {
		sum.wrong++;
		return -1;
	}
	for (i = 0; i < nr_clients; i++)
		start_job("unmount", unmount, i);
	return finish_jobs();
}

static int mount_on(const char *type, const char *dir)
{
	mkdir(dir, 0700);
	return mount(type, dir, type, 0, NULL);
}

static pid_t setup(void)
{
	char threads[16] = "";
	pid_t tracker;
	int i;

	/* What is mounted here goes with the test. */
	if (unshare(CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		ksft_exit_fail_msg("private mounts: %s\n", strerror(errno));
	if (mount_on("tmpfs", BASE) || mount_on("tmpfs", EXPORT))
		ksft_exit_fail_msg("tmpfs: %s\n", strerror(errno));
	if (mount_on("nfsd", NFSD) || mount_on("rpc_pipefs", PIPEFS))
		ksft_exit_skip("no NFS server in this kernel\n");
	if (read_file(NFSD "/threads", threads, sizeof(threads)) ||
	    strtol(threads, NULL, 10))
		ksft_exit_skip("an NFS server runs here\n");
	have_clients = exists(CLIENTS);
	for (i = 0; i < nr_clients; i++)
		mkdir(text(BASE "/mnt%d", i), 0700);
	chmod(EXPORT, 0755);

	tracker = child();
	if (!tracker)
		run_tracker();
	if (connect_clients(1))
		ksft_exit_fail_msg("lo: %s\n", strerror(errno));
	/* nfsd takes a client of uptime's second 0 for an expired one. */
	while (now_ms() < 1000)
		usleep(POLL_MS * 1000);
	write_file(NFSD "/nfsv4leasetime", text("%d\n", LEASE));
	write_file(NFSD "/nfsv4gracetime", "10\n");
	if (start_server(2))
		ksft_exit_fail_msg("the NFS server does not start\n");
	return tracker;
}

static __noreturn void usage(int code)
{
	printf("cb_shutdown [-t SECONDS] [-c CLIENTS] [-f FILES]\n"
	       "  -t  how long to go on with rounds, %d seconds by default\n"
	       "  -c  clients, 2 to %d, %d by default\n"
	       "  -f  files that all of them open in a round, 1 to %d, %d by default\n",
	       seconds, MAX_CLIENTS, nr_clients, MAX_FILES, nr_files);
	exit(code);
}

static int number(const char *arg, int max)
{
	char *end;
	long val;

	val = arg ? strtol(arg, &end, 10) : 0;
	if (val < 1 || val > max || *end)
		usage(KSFT_FAIL);
	return val;
}

/* ksft_test_result_skip() leaves no room for the case's name. */
static void skip_case(const char *name, const char *why)
{
	ksft_inc_xskip_cnt();
	printf("ok %u %s # SKIP %s\n", ksft_test_num(), name, why);
}

int main(int argc, char **argv)
{
	struct ksft_klog klog;
	long long end;
	pid_t tracker;
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-t"))
			seconds = number(argv[++i], 86400);
		else if (!strcmp(argv[i], "-c"))
			nr_clients = number(argv[++i], MAX_CLIENTS);
		else if (!strcmp(argv[i], "-f"))
			nr_files = number(argv[++i], MAX_FILES);
		else
			usage(strcmp(argv[i], "-h") ? KSFT_FAIL : KSFT_PASS);
	}

	ksft_print_header();
	if (geteuid())
		ksft_exit_skip("needs root\n");
	jobs = mmap(NULL, MAX_JOBS * sizeof(*jobs), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (jobs == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	hold_signals();
	tracker = setup();
	ksft_klog_open(&klog);

	end = now_ms() + seconds * 1000LL;
	do {
		round++;
	} while (!run_round() && now_ms() < end && !interrupted());
	if (!sum.bad_stops)
		stop();
	finish_jobs();
	sum.left += for_each(CLIENTS, one);
	kill(tracker, SIGKILL);

	if (!sum.wrong && !(sum.at_expiry + sum.at_stop))
		ksft_exit_skip("no recall was in flight at any shutdown\n");
	ksft_set_plan(5);
	ksft_print_msg("recalls in flight: %d when %d clients were expired, ",
		       sum.at_expiry, sum.expired);
	printf("%d at %d stops; the longest stop took %d ms\n", sum.at_stop,
	       sum.shutdowns, sum.longest_stop);
	if (have_clients)
		ksft_test_result(sum.granted[0] && sum.granted[1],
				 "delegations are granted on v4.0 and v4.1\n");
	else
		ksft_test_result(sum.at_stop, "delegations are granted\n");
	ksft_test_result(!sum.bad_stops, "all threads stop in time\n");
	if (have_clients)
		ksft_test_result(!sum.left, "no client is left\n");
	else
		skip_case("no client is left", "no " CLIENTS);
	ksft_test_result(!sum.wrong, "nothing fails or hangs\n");
	ksft_klog_test_result(&klog, "kernel log stays clean");
	if (interrupted())
		ksft_exit_fail_msg("interrupted\n");
	ksft_finished();
}
