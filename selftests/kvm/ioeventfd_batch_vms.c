// SPDX-License-Identifier: GPL-2.0-only
/*
 * Begin and end batches of ioeventfd changes of two VMs at once.
 *
 * VMs share nothing of their batches, so each call is answered as if the VM
 * were alone.  Each has a thread on a CPU of its own, which does nothing else:
 * what two VMs have in common is under load all the time, and no guest runs
 * that could meet another fault first.
 */
#include "../kselftest_kit.h"
#include "ioeventfd_batch.h"

#define VMS	2
/* However little a slow host gets done in that time */
#define MIN_BATCHES	500

static int seconds = 5;
static long long load_end;

static struct batcher {
	struct ksft_thread thread;
	int cpu, vm;
	unsigned long batches;
	const char *what;	/* the call that failed, and its errno */
	int err;
} batchers[VMS];

/* Gives whether the call failed. */
static int failed(struct batcher *me, const char *what, int ret)
{
	if (ret < 0) {
		me->what = what;
		me->err = -ret;
	}
	return ret < 0;
}

static void run_batcher(void *arg)
{
	struct batcher *me = arg;

	if (failed(me, "sched_setaffinity", ksft_stay_on_cpu(me->cpu)))
		return;
	while (me->batches < MIN_BATCHES || ksft_now_ns() < load_end) {
		if (failed(me, "BEGIN", batch(me->vm, BEGIN)) ||
		    failed(me, "END", batch(me->vm, END)))
			return;
		me->batches++;
	}
}

static void test_load(void)
{
	struct batcher *me;
	int ok = 1;

	for (me = batchers; me < batchers + VMS; me++) {
		me->cpu = me - batchers;
		me->vm = vm_create();
		if (me->vm < 0)
			ksft_exit_fail_msg("KVM_CREATE_VM: %s\n",
					   strerror(-me->vm));
		me->thread.run = run_batcher;
		me->thread.arg = me;
	}
	load_end = ksft_now_ns() + seconds * 1000000000LL;
	for (me = batchers; me < batchers + VMS; me++) {
		if (ksft_thread_start(&me->thread))
			ksft_exit_fail_msg("a thread does not start\n");
	}
	for (me = batchers; me < batchers + VMS; me++) {
		ksft_thread_join(&me->thread);
		ksft_close(me->vm);
		ksft_print_msg("CPU %d: %lu batches\n", me->cpu, me->batches);
		if (me->what)
			ksft_print_msg("%s: %s\n", me->what, strerror(me->err));
		ok &= !me->what && me->batches;
	}
	ksft_test_result(ok, "two VMs begin and end batches at once\n");
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
	if (ksft_stay_on_cpu(VMS - 1))
		ksft_exit_skip("no CPU for each VM\n");
	ksft_set_plan(2);
	ksft_klog_open(&klog);
	test_load();
	ksft_klog_test_result(&klog, "kernel log stays clean");
	ksft_finished();
}
