// SPDX-License-Identifier: GPL-2.0-only
/*
 * Get descriptors of a prog array that its program alone holds, and close them.
 *
 * When the last descriptor of a prog array is closed, a work clears it, which
 * takes a reference to the array along.  The descriptor may be the last one
 * again and again, as whoever knows the array's id can get another.  Here that
 * happens before the work has run: the thread is SCHED_FIFO, and the work is
 * queued on the CPU that it does not leave.  When the program goes, its array
 * must go as well; nobody else holds it.
 *
 * An id is looked for with BPF_{MAP,PROG}_GET_NEXT_ID, which take no reference.
 */
#include <linux/bpf.h>
#include "../kselftest_kit.h"

#define PAUSED		3	/* descriptors, each when the work has run */
#define AT_ONCE		100	/* descriptors, before it runs */
#define FIFO		1	/* SCHED_FIFO, and its least priority */
#define OTHER		0	/* SCHED_OTHER */

static int seconds = 10;	/* a work is done in far less */

/* A prog array with one entry, as what holds it knows it */
struct array {
	int fd;			/* of the array */
	int prog;		/* of the program that holds it */
	unsigned int id;	/* of the array */
	unsigned int entry;	/* the id of the program that is in it */
};

static int sys_bpf(int cmd, union bpf_attr *attr)
{
	return ksft_sys(__NR_bpf, cmd, (long)attr, sizeof(*attr), 0, 0, 0);
}

/* What cannot fail here ends it all. */
static int must(int ret, const char *what)
{
	if (ret < 0)
		ksft_exit_fail_msg("%s: %s\n", what, strerror(-ret));
	return ret;
}

static unsigned int id_of(int fd, int is_map)
{
	union bpf_attr attr = { 0 };
	struct bpf_prog_info prog = { 0 };
	struct bpf_map_info map = { 0 };

	attr.info.bpf_fd = fd;
	attr.info.info_len = is_map ? sizeof(map) : sizeof(prog);
	attr.info.info = is_map ? (long)&map : (long)&prog;
	must(sys_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr), "id of a map or program");
	return is_map ? map.id : prog.id;
}

static int is_there(int next_id, unsigned int id)
{
	union bpf_attr attr = { 0 };

	attr.start_id = id - 1;
	return !sys_bpf(next_id, &attr) && attr.next_id == id;
}

/* A socket filter that jumps through the array, or one that does nothing */
static int load_filter(int array)
{
	struct bpf_insn insns[] = {
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_2,
		  .src_reg = BPF_PSEUDO_MAP_FD, .imm = array },
		{ 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3 },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_tail_call },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	int skipped = array < 0 ? 4 : 0;
	union bpf_attr attr = { 0 };

	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insns = (long)(insns + skipped);
	attr.insn_cnt = ARRAY_SIZE(insns) - skipped;
	attr.license = (long)"GPL";
	return must(sys_bpf(BPF_PROG_LOAD, &attr), "load a socket filter");
}

/* Put a program in that nothing else holds: it goes when the array is cleared. */
static void fill(struct array *a)
{
	int prog = load_filter(-1), key = 0;
	union bpf_attr attr = { 0 };

	a->entry = id_of(prog, 0);
	attr.map_fd = a->fd;
	attr.key = (long)&key;
	attr.value = (long)&prog;
	must(sys_bpf(BPF_MAP_UPDATE_ELEM, &attr), "put a program in");
	ksft_close(prog);
}

static int make_array(void)
{
	union bpf_attr attr = { 0 };

	attr.map_type = BPF_MAP_TYPE_PROG_ARRAY;
	attr.key_size = sizeof(int);
	attr.value_size = sizeof(int);
	attr.max_entries = 1;
	return sys_bpf(BPF_MAP_CREATE, &attr);
}

static void open_array(struct array *a)
{
	a->fd = must(make_array(), "make a prog array");
	a->id = id_of(a->fd, 1);
	a->prog = load_filter(a->fd);
	fill(a);
}

static void reopen(struct array *a)
{
	union bpf_attr attr = { 0 };

	attr.map_id = a->id;
	a->fd = must(sys_bpf(BPF_MAP_GET_FD_BY_ID, &attr), "the array by its id");
}

static int is_cleared(struct array *a)
{
	return ksft_until(!is_there(BPF_PROG_GET_NEXT_ID, a->entry), seconds * 1000LL);
}

/* The program goes.  Does the array? */
static int goes(struct array *a)
{
	ksft_close(a->prog);
	if (ksft_until(!is_there(BPF_MAP_GET_NEXT_ID, a->id), seconds * 1000LL))
		return 1;
	ksft_print_msg("array %d is there %d s after its last holder\n", a->id,
		       seconds);
	return 0;
}

static int schedule_as(int policy, int priority)
{
	return ksft_sys(__NR_sched_setscheduler, 0, policy, (long)&priority, 0,
			0, 0);
}

/* Stay on the CPU where this runs now.  Returns 0 or a negative errno. */
static int stay_here(void)
{
	unsigned long mask[16] = { 0 };
	unsigned int cpu = 0;
	int ret;

	ret = ksft_sys(__NR_getcpu, (long)&cpu, 0, 0, 0, 0, 0);
	if (ret || cpu >= 8 * sizeof(mask))
		return ret ? ret : -ERANGE;
	mask[cpu / (8 * sizeof(long))] = 1UL << cpu % (8 * sizeof(long));
	return ksft_sys(__NR_sched_setaffinity, 0, sizeof(mask), (long)mask, 0,
			0, 0);
}

/* The descriptors are closed when the array was cleared after the last one. */
static int ask_after_pauses(struct array *a)
{
	int i;

	for (i = 0; i < PAUSED; i++) {
		ksft_close(a->fd);
		if (!is_cleared(a))
			return 0;
		reopen(a);
		fill(a);
	}
	ksft_close(a->fd);
	return is_cleared(a);
}

/* Nothing else runs on this CPU from the first to the last. */
static void ask_at_once(struct array *a)
{
	int i;

	for (i = 0; i < AT_ONCE; i++) {
		ksft_close(a->fd);
		reopen(a);
	}
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long to wait for what must go", &seconds, 86400,
	  NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct ksft_klog klog;
	struct array a;
	int cleared, ret;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	ret = make_array();
	if (ret < 0)
		ksft_exit_skip("no prog arrays: %s\n", strerror(-ret));
	ksft_close(ret);
	ksft_set_plan(5);
	ksft_klog_open(&klog);

	open_array(&a);
	ksft_close(a.fd);
	cleared = is_cleared(&a);
	ksft_test_result(goes(&a) && cleared,
			 "an array goes with its program\n");

	open_array(&a);
	cleared = ask_after_pauses(&a);
	ksft_test_result(goes(&a) && cleared,
			 "an array that was opened and cleared again goes\n");

	ret = stay_here();
	if (!ret)
		ret = schedule_as(FIFO, FIFO);
	if (ret) {
		ksft_skip_case("an array that was opened before it was cleared is cleared",
			       strerror(-ret));
		ksft_skip_case("an array that was opened before it was cleared goes",
			       strerror(-ret));
	} else {
		open_array(&a);
		ask_at_once(&a);
		fill(&a);
		ksft_close(a.fd);
		schedule_as(OTHER, 0);
		ksft_test_result(is_cleared(&a),
				 "an array that was opened before it was cleared is cleared\n");
		ksft_test_result(goes(&a),
				 "an array that was opened before it was cleared goes\n");
	}
	ksft_klog_test_result(&klog, "kernel log stays clean");
	ksft_finished();
}
