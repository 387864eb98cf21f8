// SPDX-License-Identifier: GPL-2.0-only
/*
 * End batches of ioeventfd changes while a vCPU writes to one of them.
 *
 * A write goes to the ioeventfd while it is there, and to user space while it
 * is not, and what a batch removed is freed when no vCPU can reach it.  The
 * vCPU and the batches have a CPU each and never wait for one another.
 */
#include "../kselftest_kit.h"
#include "ioeventfd_batch.h"
#include "ioeventfd_batch_guest.h"

#define WRITES	64	/* of the guest at a time */
#define CHANGES	8	/* ioeventfds of a batch */
#define STEP	8	/* from one to the next */
/* However little a slow host gets done in that time */
#define MIN_ROUNDS	40

static int seconds = 5;
static struct guest guest;
static int stop;

static struct writer {
	struct ksft_thread thread;
	long writes, exits;
	int err;
} writer;

static void run_writer(void *arg)
{
	struct writer *me = arg;
	int ret;

	ret = ksft_stay_on_cpu(1);
	while (ret >= 0 && !__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		ret = guest_write(&guest, ADDR, WRITES, 0);
		me->writes += WRITES;
		me->exits += ret;
	}
	me->err = ret < 0 ? -ret : 0;
}

/*
 * Changes them in one batch.  The one that the guest writes to is the last to
 * be added, so the last to be freed, but the first to be removed: a vCPU has
 * time to come to it before the batch ends, and hardly any after it was freed.
 */
static int change(int vm, int fd, unsigned int flags)
{
	int i, at, ret = batch(vm, BEGIN);

	for (i = 0; !ret && i < CHANGES; i++) {
		at = flags ? i : CHANGES - 1 - i;
		ret = ioeventfd(vm, ADDR + at * STEP, fd, flags);
	}
	return ret ? ret : batch(vm, END);
}

static void test_load(void)
{
	long rounds = 0, count = 0;
	int fd = eventfd_create();
	int vm = vm_create();
	long long end;
	int ret;

	ret = guest_create(&guest, vm);
	if (ret)
		ksft_exit_fail_msg("making a vCPU: %s\n", strerror(-ret));
	writer.thread.run = run_writer;
	writer.thread.arg = &writer;
	if (ksft_thread_start(&writer.thread))
		ksft_exit_fail_msg("a thread does not start\n");
	end = ksft_now_ns() + seconds * 1000000000LL;
	do {
		ret = change(vm, fd, 0);
		ret = ret ? ret : change(vm, fd, DEASSIGN);
		count += signals(fd);
		rounds++;
	} while (!ret && (rounds < MIN_ROUNDS || ksft_now_ns() < end));
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	ksft_thread_join(&writer.thread);
	count += signals(fd);
	guest_destroy(&guest);
	ksft_close(vm);
	ksft_close(fd);

	ksft_print_msg("%ld rounds, %ld writes: %ld signals, %ld exits\n",
		       rounds, writer.writes, count, writer.exits);
	if (ret)
		ksft_print_msg("a call: %s\n", strerror(-ret));
	if (writer.err)
		ksft_print_msg("the vCPU: %s\n", strerror(writer.err));
	ksft_test_result(!ret && !writer.err && count && writer.exits &&
			 count + writer.exits == writer.writes,
			 "every write of a guest is accounted for\n");
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long to put on load", &seconds, 86400, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct ksft_klog klog;

	ksft_begin(argc, argv, options);
	open_kvm();
	if (!has_batch())
		ksft_exit_skip("this KVM has no batches of ioeventfd changes\n");
	if (!HAS_GUEST)
		ksft_exit_skip("no code for a guest of this architecture\n");
	if (ksft_stay_on_cpu(1) || ksft_stay_on_cpu(0))
		ksft_exit_skip("no CPU for the vCPU\n");
	ksft_set_plan(2);
	ksft_klog_open(&klog);
	test_load();
	ksft_klog_test_result(&klog, "kernel log stays clean");
	ksft_finished();
}
