// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an ioeventfd change costs: one by one, and in a batch.
 *
 * All ioeventfds of a VM are assigned and deassigned again, as often as the
 * time allows; the fastest time counts.  Other VMs exist meanwhile, each with
 * an open batch: state that VMs share grows with them.
 *
 * The time is CLOCK_MONOTONIC.  A guest whose clock counts instructions (one
 * CPU, QEMU's -icount shift=0,sleep=off) gives numbers that hardly change from
 * run to run, and there the cost with few and with many VMs is compared.  How
 * much cheaper a batch is can be told with a clock of the other kind only:
 * waiting takes no instructions.
 *
 * Grace periods are counted with a kprobe, in runs of their own.
 */
#include "../kselftest_kit.h"
#include "ioeventfd_batch.h"

#ifndef NOLIBC
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#endif

#define ADDR		0x10000000UL
#define STEP		8
#define TRACEFS		"/sys/kernel/tracing"
#define PLACE		"/tmp/ioeventfd_batch_bench"
#define PROBE		"ioeventfd_batch_bench"
#define PROBED		"synchronize_srcu_expedited"
#define MIN_TAKES	3
#define CHEAPER		20	/* times, at the most ioeventfds */
#define MORE_PERCENT	2	/* with the most VMs */

static const int sizes[] = { 1, 64, 1024 };	/* ioeventfds */
static const int crowds[] = { 1, 64, 512 };	/* other VMs */

#define SIZES		((int)ARRAY_SIZE(sizes))
#define CROWDS		((int)ARRAY_SIZE(crowds))
#define CELLS		(SIZES * CROWDS * 2)

/* Nanoseconds of the fastest take, all calls of a kind together */
struct cost {
	long long assign, assign_end, deassign, deassign_end;
	long long sum;
	long grace_periods;	/* of a whole take, or -1 */
};

static struct cost costs[CROWDS][SIZES][2];	/* 0: one by one, 1: batched */
static int others[512], nr_others;
static int feature, seconds = 10;
static int vm, event;
static const char *tracing;	/* a tracefs with kprobe events, or NULL */

#ifndef RLIMIT_NOFILE
#define RLIMIT_NOFILE	7
#endif

static void must(const char *what, int ret)
{
	if (ret < 0)
		ksft_exit_fail_msg("%s: %s\n", what, strerror(-ret));
}

static void change(int n, unsigned int flags)
{
	int i;

	for (i = 0; i < n; i++)
		must("KVM_IOEVENTFD",
		     ioeventfd(vm, ADDR + i * STEP, event, flags));
}

static void take(int n, int batched, struct cost *cost)
{
	long long start, assign, assign_end, deassign, deassign_end;

	start = ksft_now_ns();
	if (batched)
		must("BEGIN", batch(vm, BEGIN));
	change(n, 0);
	assign = ksft_now_ns();
	if (batched)
		must("END", batch(vm, END));
	assign_end = ksft_now_ns();
	if (batched)
		must("BEGIN", batch(vm, BEGIN));
	change(n, DEASSIGN);
	deassign = ksft_now_ns();
	if (batched)
		must("END", batch(vm, END));
	deassign_end = ksft_now_ns();

	if (cost->sum && deassign_end - start >= cost->sum)
		return;
	cost->assign = assign - start;
	cost->assign_end = assign_end - assign;
	cost->deassign = deassign - assign_end;
	cost->deassign_end = deassign_end - deassign;
	cost->sum = deassign_end - start;
}

/*
 * Grace periods
 */

static char *in_tracing(const char *name)
{
	return ksft_text("%s%s", tracing, name);
}

static void find_tracing(void)
{
	static const char * const places[] = { TRACEFS, PLACE };
	char buf[8];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(places) && !tracing; i++) {
		tracing = places[i];
		if (i) {
			mkdir(PLACE, 0700);
			mount("tracefs", PLACE, "tracefs", 0, NULL);
		}
		if (ksft_read_file(in_tracing("/kprobe_events"), buf,
				   sizeof(buf)))
			tracing = NULL;
	}
	if (!tracing)
		return;
	if (ksft_write_file(in_tracing("/kprobe_events"),
			    "p:kprobes/" PROBE " " PROBED "\n")) {
		ksft_print_msg("no kprobe on " PROBED "\n");
		tracing = NULL;
	}
}

static void set_probe(const char *on)
{
	must("kprobe", ksft_write_file(in_tracing("/events/kprobes/" PROBE
						  "/enable"), on));
}

static void leave_tracing(void)
{
	if (tracing)
		ksft_write_file(in_tracing("/kprobe_events"),
				"-:kprobes/" PROBE "\n");
	umount2(PLACE, 0);
	rmdir(PLACE);
}

/* "  NAME  HITS  MISSES" */
static long hits(void)
{
	static char buf[4096];
	const char *c;

	must("kprobe_profile", ksft_read_file(in_tracing("/kprobe_profile"),
					      buf, sizeof(buf)));
	c = ksft_find(buf, PROBE);
	return c ? strtol(c + strlen(PROBE), NULL, 10) : 0;
}

static long count_grace_periods(int n, int batched)
{
	struct cost unused = { 0 };
	long before;

	if (!tracing)
		return -1;
	set_probe("1");
	before = hits();
	take(n, batched, &unused);
	set_probe("0");
	return hits() - before;
}

/*
 * Measuring
 */

static void measure(int n, int batched, struct cost *cost)
{
	long long end;
	int takes;

	vm = vm_create();
	must("KVM_CREATE_VM", vm);
	end = ksft_now_ns() + seconds * 1000000000LL / CELLS;
	for (takes = 0; takes < MIN_TAKES || ksft_now_ns() < end; takes++)
		take(n, batched, cost);
	cost->grace_periods = count_grace_periods(n, batched);
	ksft_close(vm);
}

static void crowd(int n)
{
	while (nr_others < n) {
		others[nr_others] = vm_create();
		must("KVM_CREATE_VM", others[nr_others]);
		if (feature)
			must("BEGIN", batch(others[nr_others], BEGIN));
		nr_others++;
	}
}

/* An empty loop is two instructions, so a clock that counts them says 2 ns. */
static int clock_counts_instructions(void)
{
	const long passes = 1000000;
	long long start, best = 0;
	long i, n;

	for (n = 0; n < 5; n++) {
		start = ksft_now_ns();
		for (i = passes; i; i--)
			__asm__ volatile("" : "+r"(i));
		start = ksft_now_ns() - start;
		if (!best || start < best)
			best = start;
	}
	return best > passes * 2 * 199 / 200 && best < passes * 2 * 201 / 200;
}

/*
 * Results
 */

static void put_column(long long num, int width)
{
	const char *text = ksft_text("%ld", (long)num);

	for (width -= strlen(text); width > 0; width--)
		printf(" ");
	printf("%s", text);
}

/* Grace periods of one update, or of one batch */
static long grace_periods(int c, int s, int batched)
{
	long n = costs[c][s][batched].grace_periods;

	return n < 0 ? -1 : n / (batched ? 2 : 2 * sizes[s]);
}

static long long each(int c, int s, int batched)
{
	return costs[c][s][batched].sum / (2 * sizes[s]);
}

static void print_table(void)
{
	int c, s, i;

	ksft_print_msg("          |  one by one: |      batched: |\n");
	ksft_print_msg("other io- |     ns grace |     ns  grace | ratio\n");
	ksft_print_msg("VMs eventfds each periods|  each periods |\n");
	for (c = 0; c < CROWDS; c++) {
		for (s = 0; s < SIZES; s++) {
			ksft_print_msg(" ");
			put_column(crowds[c], 2);
			put_column(sizes[s], 6);
			for (i = 0; i <= feature; i++) {
				printf(" |");
				put_column(each(c, s, i), 8);
				if (tracing)
					put_column(grace_periods(c, s, i), 6);
				else
					printf("     ?");
			}
			if (feature) {
				printf(" |");
				put_column(each(c, s, 0) / each(c, s, 1), 4);
				printf(".%lld", each(c, s, 0) * 10 /
						each(c, s, 1) % 10);
			}
			printf("\n");
		}
	}
}

/* Of the largest batch, with the fewest VMs, in ns an update */
static void print_parts(void)
{
	struct cost *cost = &costs[0][SIZES - 1][1];
	long n = sizes[SIZES - 1];

	ksft_print_msg("a batch of %ld: assign %lld ns each, its END %lld, ", n,
		       cost->assign / n, cost->assign_end / n);
	printf("deassign %lld, its END %lld\n", cost->deassign / n,
	       cost->deassign_end / n);
}

static void result_grace_periods(const char *name)
{
	int c, s, wrong = 0;

	if (!tracing) {
		ksft_skip_case(name, "no tracefs with kprobe events");
		return;
	}
	for (c = 0; c < CROWDS; c++) {
		for (s = 0; s < SIZES; s++)
			wrong += costs[c][s][1].grace_periods != 2;
	}
	ksft_test_result(!wrong, "%s\n", name);
}

static void result_crowd(const char *name, int exact)
{
	int s, last = CROWDS - 1, wrong = 0;

	for (s = 0; s < SIZES; s++) {
		long long few = costs[0][s][1].sum;
		long long more = costs[last][s][1].sum - few;

		ksft_print_msg("%d ioeventfds: with %d other VMs ", sizes[s],
			       crowds[last]);
		printf("%s%lld.%lld %% as with %d\n", more < 0 ? "-" : "+",
		       (more < 0 ? -more : more) * 100 / few,
		       (more < 0 ? -more : more) * 1000 / few % 10, crowds[0]);
		wrong += more * 100 > few * MORE_PERCENT;
	}
	if (exact)
		ksft_test_result(!wrong, "%s\n", name);
	else
		ksft_skip_case(name, "the clock does not count instructions");
}

static void result_ratio(const char *name, int exact)
{
	int s = SIZES - 1;

	if (exact)
		ksft_skip_case(name, "the clock counts instructions, not time");
	else
		ksft_test_result(each(0, s, 0) >= CHEAPER * each(0, s, 1),
				 "%s\n", name);
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long to measure, about", &seconds, 86400, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	unsigned long long files[2] = { 4096, 4096 };
	int c, s, i, exact;

	ksft_begin(argc, argv, options);
	open_kvm();
	feature = !!has_batch();
	ksft_set_plan(3);
	/* Each VM is a file. */
	ksft_sys(__NR_prlimit64, 0, RLIMIT_NOFILE, (long)files, 0, 0, 0);
	event = eventfd_create();
	must("eventfd", event);
	exact = clock_counts_instructions();
	find_tracing();

	for (c = 0; c < CROWDS; c++) {
		crowd(crowds[c]);
		for (s = 0; s < SIZES; s++) {
			for (i = 0; i <= feature; i++)
				measure(sizes[s], i, &costs[c][s][i]);
		}
	}

	ksft_print_msg("the clock counts %s\n",
		       exact ? "instructions" : "time");
	print_table();
	if (feature) {
		print_parts();
		result_grace_periods("a batch waits for one grace period");
		result_crowd("other VMs make no batch dearer", exact);
		result_ratio("a large batch is 20 times cheaper", exact);
	} else {
		ksft_print_msg("no batches in this KVM: one by one only\n");
		ksft_skip_case("a batch waits for one grace period",
			       "no batches");
		ksft_skip_case("other VMs make no batch dearer", "no batches");
		ksft_skip_case("a large batch is 20 times cheaper",
			       "no batches");
	}
	leave_tracing();
	ksft_finished();
}
