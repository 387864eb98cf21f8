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
/* Older ones of lib.mk do not ask for it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../kselftest_kit.h"

#ifndef NOLIBC
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#endif
#include <linux/nfsd/cld.h>

#define BASE		"/tmp/nfsd_cb_shutdown"
#define EXPORT		BASE "/export"
#define NFSD		BASE "/nfsd"
#define CLIENTS		NFSD "/clients"
#define PIPEFS		BASE "/rpc_pipefs"
#define UNIQUE_ID	"/sys/module/nfs/parameters/nfs4_unique_id"
#define MOUNT_OPTIONS \
	"vers=4.%d,addr=127.0.0.%d,clientaddr=127.0.0.%d,proto=tcp,sec=sys,soft"

#define MAX_CLIENTS	32
#define MAX_FILES	128
#define MAX_JOBS	(MAX_CLIENTS + MAX_FILES + 2)
#define ROUNDS		8	/* where stops alone end clients: at least */
#define HANG_MS		20000	/* a step takes less than a second */
#define FLIGHT_MS	5000	/* a recall is sent within milliseconds */
#define LEASE		90	/* a tenth of it is the limit of a recall */

/* A child that does what may hang */
struct job {
	struct ksft_child child;
	const char *what;
	int (*fn)(int arg);
	int arg;
	long long start;	/* in milliseconds */
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

#endif

/*
 * Jobs
 */

static void run_job(void *arg)
{
	struct job *job = arg;

	job->err = -job->fn(job->arg);
}

/* The function returns 0 or a negative errno. */
static void start_job(const char *what, int (*fn)(int arg), int arg)
{
	struct job *job = &jobs[nr_jobs];

	if (nr_jobs++ == MAX_JOBS)
		ksft_exit_fail_msg("too many children\n");
	job->what = what;
	job->fn = fn;
	job->arg = arg;
	job->err = 0;
	job->start = ksft_now_ms();
	if (ksft_child_start(&job->child, run_job, job))
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
}

/* Waits for a job's end.  Returns 0 if it went well. */
static int wait_job(struct job *job)
{
	ksft_child_wait(&job->child, job->start + HANG_MS - ksft_now_ms());
	return job->child.ended && !job->child.status && !job->err ? 0 : -1;
}

/* Waits for all jobs, and forgets them.  Returns how many went wrong. */
static int finish_jobs(void)
{
	const char *what;
	int i, wrong = 0;

	for (i = 0; i < nr_jobs; i++) {
		struct job *job = &jobs[i];

		if (!wait_job(job))
			continue;
		wrong++;
		what = ksft_text("round %d: %s %d", round, job->what, job->arg);
		if (ksft_child_ended_well(&job->child, what))
			ksft_print_msg("%s failed: %s\n", what,
				       strerror(job->err));
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
static void run_tracker(void *unused)
{
	static struct cld_msg_v2 msg;
	struct pollfd pfd = { .events = POLLIN };
	ssize_t len;

	for (;;) {
		/* The pipe is there while the server is up. */
		pfd.fd = open(PIPEFS "/nfsd/cld", O_RDWR);
		while (pfd.fd >= 0) {
			if (poll(&pfd, 1, KSFT_POLL_MS) < 0)
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
		ksft_pause_ms(KSFT_POLL_MS);
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
	int ret;

	/*
	 * Versions 2 and 3 would want a port mapper.  Where none has been
	 * chosen yet, old kernels take a first "-2" for a wish for all.
	 */
	ksft_write_file(NFSD "/versions", "+4\n");
	ksft_write_file(NFSD "/versions", "-2\n");
	ksft_write_file(NFSD "/versions", "-3\n");
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ret = ksft_write_file(steps[i].name, steps[i].line);
		if (ret) {
			ksft_print_msg("%s: %s\n", steps[i].name,
				       strerror(-ret));
			return ret;
		}
	}
	ret = ksft_write_file(NFSD "/threads", ksft_text("%d\n", threads));
	if (ret) {
		ksft_print_msg("threads: %s\n", strerror(-ret));
		return ret;
	}
	/* Where the tracker was not asked for clients, or is not heard */
	if (!ksft_read_file(NFSD "/v4_end_grace", line, sizeof(line)) &&
	    line[0] == 'N')
		ksft_write_file(NFSD "/v4_end_grace", "Y\n");
	return 0;
}

static int stop_server(int arg)
{
	return ksft_write_file(NFSD "/threads", "0\n");
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

	if (ksft_read_file(ksft_text(CLIENTS "/%s/states", client), states,
			   sizeof(states)) ||
	    ksft_read_file(ksft_text(CLIENTS "/%s/info", client), info,
			   sizeof(info)))
		return 0;
	/* Newer kernels tell.  It goes down, or faults, when a recall fails. */
	if (ksft_find(info, "callback state: ") &&
	    !ksft_find(info, "callback state: UP"))
		return 0;
	n = ksft_count(states, "type: deleg");
	by_minor[!ksft_count(info, "minor version: 0")] += n;
	return n;
}

/* Delegations that the clients hold; -1 if this kernel does not tell. */
static int delegations(void)
{
	by_minor[0] = 0;
	by_minor[1] = 0;
	return have_clients ? ksft_for_each(CLIENTS, count_delegations) : -1;
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

	if (ksft_read_file("/proc/net/tcp", buf, sizeof(buf)))
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
	return ksft_write_file(ksft_text(CLIENTS "/%d/ctl", client), "expire\n");
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
	return ksft_text(EXPORT "/r%df%d", round, file);
}

static int open_file(int client, int file, int flags)
{
	int fd = ksft_open(ksft_text(BASE "/mnt%d/r%df%d", client, round, file),
			   flags);

	if (fd >= 0)
		ksft_close(fd);
	return fd < 0 ? fd : 0;
}

/* Of a file that a client has delegated the server holds a lease, all of it. */
static int delegated(int file)
{
	static char locks[16384];
	struct stat st;

	if (stat(export_file(file), &st) ||
	    ksft_read_file("/proc/locks", locks, sizeof(locks)))
		return 1;
	return !!ksft_find(locks, ksft_text(":%ld 0 EOF", (long)st.st_ino));
}

static int open_files(int client)
{
	int i, ret;

	/* v4.0 gives none until the way back is up.  Where procfs tells, it may. */
	if (!have_clients && client % 2 == 0)
		ksft_until(open_file(client, own_file(client), O_RDONLY) ||
			   delegated(own_file(client)), FLIGHT_MS);
	for (i = 0; i < nr_files; i++) {
		ret = open_file(client, i, O_RDONLY);
		if (ret)
			return ret;
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
	return umount2(ksft_text(BASE "/mnt%d", client), MNT_DETACH) ? -errno : 0;
}

/* Each has an address and a name of its own, else they were one client. */
static int mount_client(int client)
{
	char *options;

	ksft_write_file(UNIQUE_ID, ksft_text("r%dc%d", round, client));
	options = ksft_text(MOUNT_OPTIONS, client % 2, client + 2, client + 2);
	if (mount(ksft_text("127.0.0.%d:/", client + 2),
		  ksft_text(BASE "/mnt%d", client), "nfs4", 0, options))
		return -errno;
	return 0;
}

static int unlink_file(int file)
{
	return unlink(export_file(file)) ? -errno : 0;
}

/* Does somebody else's delegation forbid to open the file? */
static int recall_file(int file, int flags)
{
	int fd = ksft_open(export_file(file), flags | O_NONBLOCK);

	if (fd >= 0)
		ksft_close(fd);
	return fd == -EWOULDBLOCK;
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
	long long start = ksft_now_ms();
	int ms;

	start_job("end of threads", stop_server, 0);
	sum.bad_stops += !!wait_job(job);
	ms = ksft_now_ms() - start;
	if (ms > sum.longest_stop)
		sum.longest_stop = ms;
}

/* Returns the number of clients. */
static int expire_half(void)
{
	int first = nr_jobs, i, n;

	/* The others are left for the stop. */
	nr_to_expire = nr_clients / 2;
	n = ksft_for_each(CLIENTS, start_expiry);
	for (i = first; i < nr_jobs; i++)
		wait_job(&jobs[i]);
	return n;
}

/* Returns 0 if another round makes sense. */
static int run_round(void)
{
	int i, expired, files, recalls, left, stuck;
	long long start = ksft_now_ms();

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
	ksft_until((stuck = callbacks_stuck()) >= nr_clients, FLIGHT_MS);
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
	       recalls - left, expired, left, (int)(ksft_now_ms() - start));

	connect_clients(1);
	if (finish_jobs())
		return -1;
	sum.left += ksft_for_each(CLIENTS, one);
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

static void setup(struct ksft_child *tracker)
{
	int i;

	/* What is mounted here goes with the test. */
	if (unshare(CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		ksft_exit_fail_msg("private mounts: %s\n", strerror(errno));
	if (mount_on("tmpfs", BASE) || mount_on("tmpfs", EXPORT))
		ksft_exit_fail_msg("tmpfs: %s\n", strerror(errno));
	if (mount_on("nfsd", NFSD) || mount_on("rpc_pipefs", PIPEFS))
		ksft_exit_skip("no NFS server in this kernel\n");
	if (ksft_read_number(NFSD "/threads"))
		ksft_exit_skip("an NFS server runs here\n");
	have_clients = ksft_exists(CLIENTS);
	for (i = 0; i < nr_clients; i++)
		mkdir(ksft_text(BASE "/mnt%d", i), 0700);
	chmod(EXPORT, 0755);

	if (ksft_child_start(tracker, run_tracker, NULL))
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	if (connect_clients(1))
		ksft_exit_fail_msg("lo: %s\n", strerror(errno));
	/* nfsd takes a client of uptime's second 0 for an expired one. */
	ksft_until(ksft_now_ms() >= 1000, 1000);
	ksft_write_file(NFSD "/nfsv4leasetime", ksft_text("%d\n", LEASE));
	ksft_write_file(NFSD "/nfsv4gracetime", "10\n");
	if (start_server(2))
		ksft_exit_fail_msg("the NFS server does not start\n");
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long to go on with rounds", &seconds, 86400, NULL },
	{ "-c", "CLIENTS", "clients", &nr_clients, MAX_CLIENTS, NULL },
	{ "-f", "FILES", "files that all of them open in a round", &nr_files,
	  MAX_FILES, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	static struct ksft_child tracker;
	struct ksft_klog klog;
	long long end;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	jobs = ksft_share(MAX_JOBS * sizeof(*jobs));
	ksft_hold_signals();
	setup(&tracker);
	ksft_klog_open(&klog);

	end = ksft_now_ms() + seconds * 1000LL;
	do {
		round++;
	} while (!run_round() && !ksft_interrupted() &&
		 (ksft_now_ms() < end || (!have_clients && round < ROUNDS)));
	if (!sum.bad_stops)
		stop();
	finish_jobs();
	sum.left += ksft_for_each(CLIENTS, one);
	kill(tracker.pid, SIGKILL);

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
		ksft_skip_case("no client is left", "no " CLIENTS);
	ksft_test_result(!sum.wrong, "nothing fails or hangs\n");
	ksft_klog_test_result(&klog, "kernel log stays clean");
	if (ksft_interrupted())
		ksft_exit_fail_msg("interrupted\n");
	ksft_finished();
}
