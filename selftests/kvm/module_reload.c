// SPDX-License-Identifier: GPL-2.0-only
/*
 * Load KVM, use it, unload it, many times over.
 *
 * Whatever KVM does not give back when its module goes shows at once: the
 * kernel warns, the module cannot be loaded again, or an interrupt handler
 * still points into the module that is gone.  CPUs that go offline and come
 * back in between must make no difference.
 *
 * The modules are listed in load order, one file name a line, in
 * /lib/modules/order; they are the files beside it.  None may be loaded yet.
 */
#include "../kselftest_kit.h"

#ifndef NOLIBC
#include <sys/ioctl.h>
#endif
#include <linux/kvm.h>

#define ORDER		"/lib/modules/order"
#define CPUS		"/sys/devices/system/cpu"
#define IRQS		"/proc/irq"
#define HANDLER		"riscv-kvm"	/* name of KVM's own interrupt */

#define MAX_MODULES	16

static const char *order = ORDER;
static int reloads = 8, seconds;

static char *modules[MAX_MODULES];	/* file names in load order */
static int nr_modules;

/* What was seen in all rounds */
static int rounds, with_handler, left_behind;
static int irq = -1;			/* number of KVM's own interrupt */
static int load_ms, use_ms, unload_ms;

/*
 * Modules
 */

/* The name that the kernel knows a module file by: kvm-amd.ko is kvm_amd. */
static const char *module_name(const char *file)
{
	static char name[64];
	size_t i;

	for (i = 0; file[i] && i < sizeof(name) - 1; i++)
		name[i] = file[i] == '-' ? '_' : file[i];
	name[i] = 0;
	if (i > 3 && !strcmp(name + i - 3, ".ko"))
		name[i - 3] = 0;
	return name;
}

static int is_loaded(const char *name)
{
	static char list[65536];
	size_t len = strlen(name);
	char *line;

	if (ksft_read_file("/proc/modules", list, sizeof(list)))
		return 0;
	for (line = list; line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (!strncmp(line, name, len) && line[len] == ' ')
			return 1;
	}
	return 0;
}

/* Goes to the modules' folder and finds out which there are. */
static void read_order(void)
{
	static char list[4096];
	char *line, *next, *folder, *slash;

	if (ksft_read_file(order, list, sizeof(list))) {
		if (ksft_exists("/dev/kvm") && !is_loaded("kvm"))
			ksft_exit_skip("KVM is built in: no module to reload\n");
		ksft_exit_skip("no %s: KVM is no module here\n", order);
	}
	for (line = list; *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		else
			next = line + strlen(line);
		if (!*line)
			continue;
		if (nr_modules == MAX_MODULES)
			ksft_exit_fail_msg("%s: too many modules\n", order);
		modules[nr_modules++] = line;
		if (is_loaded(module_name(line)))
			ksft_exit_skip("%s is loaded already\n", line);
	}
	if (!nr_modules)
		ksft_exit_skip("%s is empty: no modules to load\n", order);

	folder = strdup(order);
	slash = folder ? strrchr(folder, '/') : NULL;
	if (slash)
		slash[1] = 0;
	if (slash && chdir(folder))
		ksft_exit_fail_msg("%s: %s\n", folder, strerror(errno));
	free(folder);
}

/* Takes out the first @count modules, the last one first. */
static int unload(int count)
{
	int ok = 0;

	while (count--) {
		if (syscall(__NR_delete_module, module_name(modules[count]),
			    O_NONBLOCK)) {
			ksft_print_msg("round %d: %s does not go: %s\n", rounds,
				       modules[count], strerror(errno));
			ok = -1;
		}
	}
	return ok;
}

/* Loads all modules.  Leaves none behind if one fails. */
static int load(void)
{
	int i, fd, err;

	for (i = 0; i < nr_modules; i++) {
		fd = open(modules[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(__NR_finit_module, fd, "", 0)) {
			err = errno;
			ksft_print_msg("round %d: %s does not come: %s\n",
				       rounds, modules[i], strerror(err));
			if (fd >= 0)
				close(fd);
			unload(i);
			errno = err;
			return -1;
		}
		close(fd);
	}
	return 0;
}

/*
 * KVM
 */

/* A VM with a vCPU comes, and goes. */
static int use_kvm(void)
{
	const char *what = "open /dev/kvm";
	int kvm, vm = -1, vcpu = -1;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm >= 0) {
		what = "KVM_CREATE_VM";
		vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
	}
	if (vm >= 0) {
		what = "KVM_CREATE_VCPU";
		vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
	}
	if (vcpu < 0)
		ksft_print_msg("round %d: %s: %s\n", rounds, what,
			       strerror(errno));
	else
		close(vcpu);
	if (vm >= 0)
		close(vm);
	if (kvm >= 0)
		close(kvm);
	return vcpu < 0 ? -1 : 0;
}

/* The number of KVM's own interrupt while KVM is loaded, or -1 */
static int find_irq(void)
{
	static char list[65536];
	char *line, *next;

	if (ksft_read_file("/proc/interrupts", list, sizeof(list)))
		return -1;
	for (line = list; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (ksft_find(line, HANDLER))
			return strtol(line, NULL, 10);
	}
	return -1;
}

/*
 * Is the handler still there?  Its folder in /proc/irq is asked first:
 * /proc/interrupts takes the name from the module, so with a handler that was
 * left behind reading it may kill the kernel.
 */
static int has_handler(void)
{
	if (irq >= 0 && ksft_exists(ksft_text(IRQS "/%d/" HANDLER, irq)))
		return 1;
	return find_irq() >= 0;
}

static void add_time(int *sum, long long *start)
{
	long long now = ksft_now_ms();

	*sum += now - *start;
	*start = now;
}

/* One load, use and unload.  @between runs with the modules loaded. */
static int reload(int (*between)(void))
{
	long long start = ksft_now_ms();
	int ok = 0;

	rounds++;
	if (load())
		return -1;
	add_time(&load_ms, &start);
	irq = find_irq();
	with_handler += irq >= 0;
	ok |= use_kvm();
	add_time(&use_ms, &start);
	if (between)
		ok |= between();
	start = ksft_now_ms();
	ok |= unload(nr_modules);
	add_time(&unload_ms, &start);
	if (has_handler()) {
		if (!left_behind++)
			ksft_print_msg("round %d: the handler of %s is still there\n",
				       rounds, HANDLER);
	}
	return ok;
}

/*
 * CPUs
 */

static int spare_cpu = -1;

static int set_online(const char *state)
{
	int ret = ksft_write_file(ksft_text(CPUS "/cpu%d/online", spare_cpu),
				  state);

	if (ret)
		ksft_print_msg("cpu%d: cannot write %s to online: %s\n",
			       spare_cpu, state, strerror(-ret));
	return ret;
}

static int take_offline(void)
{
	return set_online("0");
}

static int take_back(void)
{
	return set_online("1");
}

static int off_and_on(void)
{
	return take_offline() || take_back() || use_kvm();
}

/* The last CPU that is online and can go offline */
static void find_spare_cpu(void)
{
	int cpu;

	for (cpu = 0; ksft_exists(ksft_text(CPUS "/cpu%d", cpu)); cpu++) {
		if (ksft_read_number(ksft_text(CPUS "/cpu%d/online", cpu)) == 1)
			spare_cpu = cpu;
	}
}

/*
 * Cases
 */

static void test_reloads(void)
{
	long long start = ksft_now_ms();
	int ok = 1;

	while (ok && (rounds < reloads || ksft_now_ms() - start < seconds * 1000LL))
		ok = !reload(NULL);
	ksft_print_msg("%d rounds in %d ms: load %d, use %d, unload %d\n", rounds,
		       (int)(ksft_now_ms() - start), load_ms, use_ms, unload_ms);
	ksft_test_result(ok, "KVM can be reloaded again and again\n");
}

static void test_cpu(const char *name, int (*before)(void),
		     int (*between)(void), int (*after)(void))
{
	int ok = 0;

	if (spare_cpu < 0) {
		ksft_skip_case(name, "no CPU can be taken offline");
		return;
	}
	if (before)
		ok |= before();
	ok |= reload(between);
	if (after)
		ok |= after();
	/* And once more with the CPU in its new state. */
	ok |= reload(NULL);
	ksft_test_result(!ok, "%s\n", name);
}

static void test_handler(void)
{
	const char *name = "no interrupt handler is left behind";

	if (!with_handler)
		ksft_skip_case(name, "this KVM has no interrupt of its own");
	else
		ksft_test_result(!left_behind, "%s\n", name);
}

static const struct ksft_option options[] = {
	{ "-n", "RELOADS", "how often at least", &reloads, 1000000, NULL },
	{ "-t", "SECONDS", "how long at least", &seconds, 86400, NULL },
	{ "-o", "ORDER",
	  "list of the modules' files in load order, in their folder", NULL, 0,
	  &order },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct ksft_klog klog;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	read_order();
	find_spare_cpu();

	ksft_set_plan(6);
	ksft_klog_open(&klog);

	test_reloads();
	test_cpu("a CPU that went off and on while KVM was loaded",
		 NULL, off_and_on, NULL);
	test_cpu("KVM goes while a CPU is offline",
		 NULL, take_offline, take_back);
	test_cpu("KVM comes while a CPU is offline",
		 take_offline, take_back, NULL);
	test_handler();
	ksft_klog_test_result(&klog, "kernel log stays clean");
	ksft_finished();
}
