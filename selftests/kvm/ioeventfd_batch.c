// SPDX-License-Identifier: GPL-2.0-only
/*
 * Change ioeventfds in batches, through /dev/kvm.
 *
 * Between BATCH_BEGIN and BATCH_END the calls are answered as they are without
 * a batch, and guest writes go by the state before it.  VMs share nothing of
 * their batches, and what a batch removed is freed when no vCPU can reach it.
 *
 * First come calls of one thread, where each answer is known.  Where this test
 * has code for a guest, a vCPU writes to the addresses meanwhile: a write to
 * an ioeventfd is counted by its eventfd, any other ends KVM_RUN.  Then the
 * load: VMs that come, go and open batches at once in many threads, and vCPUs
 * that write for as long as an ioeventfd comes and goes.
 *
 * KVM takes calls only from the process that made the VM: hence threads.
 */
#include "../kselftest_kit.h"
#include "ioeventfd_batch.h"
#include "ioeventfd_batch_guest.h"

#ifndef NOLIBC
#include <sys/mount.h>
#endif

#define PORT		0x300
#define STEP		8		/* from one ioeventfd to the next */
#define WRITES		64		/* of a guest at a time */
/* Up to v6.10 the ring of a zone is full when half of it is. */
#define ZONE_WRITES	32
#define FEW		16		/* ioeventfds beside the one written to */
#define MANY		1000

#define THREADS		4
#define LOAD_IOEVENTFDS	8
#define LOAD_ROUNDS	4		/* batches of a VM under load */
#define LOAD_EMPTY	32		/* empty ones before each of them */
#define WAIT_MS		30000		/* a guest's writes take far less */

static int seconds = 5;
/* Of the case that runs: what went wrong in it, or why it was skipped */
static int wrong;
static const char *skipped;

/* Compares what a call gave with what it must give. */
static void expect(const char *what, long got, long want)
{
	if (got == want)
		return;
	ksft_print_msg("%s gave %ld, not %ld\n", what, got, want);
	wrong++;
}

#define EXPECT(call, want)	expect(#call, call, want)

/*
 * Cases: what the calls answer.  Each has a VM and two eventfds of its own.
 */

static int vm = -1, fd, fd2;
static struct guest guest;

static void test_capability(void)
{
	void *cap = (void *)KVM_CAP_IOEVENTFD_BATCH;

	EXPECT(ksft_ioctl(kvm, KVM_CHECK_EXTENSION, cap), 1);
	EXPECT(ksft_ioctl(vm, KVM_CHECK_EXTENSION, cap), 1);
}

static void test_end_alone(void)
{
	EXPECT(batch(vm, END), -EINVAL);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(batch(vm, END), -EINVAL);
}

static void test_begin_twice(void)
{
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(batch(vm, BEGIN), -EBUSY);
	EXPECT(batch(vm, END), 0);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(batch(vm, END), 0);
}

static void test_flags(void)
{
	static const unsigned int bad[] = {
		BEGIN | END, BEGIN | DEASSIGN, END | DEASSIGN,
		BEGIN | PIO, END | PIO,
		BEGIN | KVM_IOEVENTFD_FLAG_DATAMATCH,
		END | KVM_IOEVENTFD_FLAG_DATAMATCH,
		BEGIN | 1u << 31, END | 1u << 31,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT(ioeventfd(vm, ADDR, fd, bad[i]), -EINVAL);
		/* It must not have opened a batch. */
		EXPECT(batch(vm, END), -EINVAL);
		EXPECT(batch(vm, BEGIN), 0);
		EXPECT(ioeventfd(vm, ADDR, fd, bad[i]), -EINVAL);
		/* Nor closed one. */
		EXPECT(batch(vm, END), 0);
	}
}

static void test_empty(void)
{
	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, 0), -EEXIST);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), 0);
}

static void test_duplicate(void)
{
	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	EXPECT(batch(vm, BEGIN), 0);
	/* one from before the batch, and one from within */
	EXPECT(ioeventfd(vm, ADDR, fd2, 0), -EEXIST);
	EXPECT(ioeventfd(vm, ADDR + STEP, fd, 0), 0);
	EXPECT(ioeventfd(vm, ADDR + STEP, fd2, 0), -EEXIST);
	EXPECT(batch(vm, END), 0);
	EXPECT(ioeventfd(vm, ADDR, fd2, DEASSIGN), -ENOENT);
	EXPECT(ioeventfd(vm, ADDR + STEP, fd2, DEASSIGN), -ENOENT);
	EXPECT(ioeventfd(vm, ADDR + STEP, fd, DEASSIGN), 0);
}

static void test_unknown(void)
{
	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, ADDR + STEP, fd, DEASSIGN), -ENOENT);
	EXPECT(ioeventfd(vm, ADDR, fd2, DEASSIGN), -ENOENT);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), -ENOENT);
	EXPECT(batch(vm, END), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), -ENOENT);
}

static void test_own(void)
{
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), -ENOENT);
	EXPECT(batch(vm, END), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), -ENOENT);
	EXPECT(ioeventfd(vm, ADDR, fd2, 0), 0);
}

static void test_replace(void)
{
	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), 0);
	EXPECT(ioeventfd(vm, ADDR, fd2, 0), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, 0), -EEXIST);
	EXPECT(batch(vm, END), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), -ENOENT);
	EXPECT(ioeventfd(vm, ADDR, fd2, DEASSIGN), 0);
}

/* An ioeventfd without a length is on two buses: both must have it, or none. */
static int any_length(unsigned int flags)
{
	struct kvm_ioeventfd args = { .addr = ADDR, .fd = fd, .flags = flags };

	return ksft_ioctl(vm, KVM_IOEVENTFD, &args);
}

static void test_any_length(void)
{
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(any_length(0), 0);
	EXPECT(any_length(0), -EEXIST);
	EXPECT(ioeventfd(vm, ADDR, fd2, 0), -EEXIST);
	EXPECT(batch(vm, END), 0);
	EXPECT(any_length(0), -EEXIST);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(any_length(DEASSIGN), 0);
	EXPECT(any_length(DEASSIGN), -ENOENT);
	EXPECT(any_length(0), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(any_length(DEASSIGN), 0);
	EXPECT(ioeventfd(vm, ADDR, fd2, 0), 0);
}

/*
 * One call of another thread
 */
struct call {
	struct ksft_thread thread;
	unsigned long addr;
	unsigned int flags;
	int ret;
};

static void run_call(void *arg)
{
	struct call *me = arg;

	me->ret = ioeventfd(vm, me->addr, fd, me->flags);
}

static int by_thread(unsigned long addr, unsigned int flags)
{
	static struct call call;

	memset(&call, 0, sizeof(call));
	call.thread.run = run_call;
	call.thread.arg = &call;
	call.addr = addr;
	call.flags = flags;
	call.ret = -ESRCH;
	if (ksft_thread_start(&call.thread))
		return -EAGAIN;
	ksft_thread_join(&call.thread);
	return call.ret;
}

/* A batch is the VM's: each of its calls may come from another thread. */
static void test_threads(void)
{
	EXPECT(by_thread(0, BEGIN), 0);
	EXPECT(batch(vm, BEGIN), -EBUSY);
	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	EXPECT(by_thread(ADDR, 0), -EEXIST);
	EXPECT(by_thread(ADDR + STEP, 0), 0);
	EXPECT(by_thread(0, END), 0);
	EXPECT(batch(vm, END), -EINVAL);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), 0);
	EXPECT(ioeventfd(vm, ADDR + STEP, fd, DEASSIGN), 0);
}

/* The kernel's number of an eventfd; the lowest one that is free is next. */
static int eventfd_id(int of)
{
	static char buf[512];
	const char *c;

	if (ksft_read_file(ksft_text("/proc/self/fdinfo/%d", of), buf,
			   sizeof(buf)))
		return -1;
	c = ksft_find(buf, "eventfd-id:");
	return c ? strtol(c + strlen("eventfd-id:"), NULL, 10) : -1;
}

/* Is an eventfd gone whose number this was?  Then a new one has it. */
static int is_free(int id)
{
	int tried = eventfd_create();
	int ret = eventfd_id(tried) == id;

	ksft_close(tried);
	return ret;
}

/* Opens a batch with an ioeventfd whose eventfd the VM alone holds then. */
static int leave_in_batch(void)
{
	int mine = eventfd_create();
	int id = eventfd_id(mine);

	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, ADDR, mine, 0), 0);
	ksft_close(mine);
	expect("the eventfd was free in the batch", is_free(id), 0);
	return id;
}

static void test_closed_in_batch(void)
{
	int id;

	if (eventfd_id(fd) < 0) {
		skipped = "this kernel's fdinfo has no eventfd-id";
		return;
	}
	id = leave_in_batch();
	ksft_close(vm);
	vm = vm_create();
	expect("the eventfd is free after the VM", is_free(id), 1);
}

/* A vCPU keeps its VM when the VM's own descriptor is closed in a batch. */
static void test_kept_by_vcpu(void)
{
	int id;

	if (eventfd_id(fd) < 0) {
		skipped = "this kernel's fdinfo has no eventfd-id";
		return;
	}
	EXPECT(ioeventfd(vm, ADDR + STEP, fd, 0), 0);
	id = leave_in_batch();
	ksft_close(vm);
	EXPECT(guest_write(&guest, ADDR + STEP, WRITES, 0), 0);
	EXPECT(signals(fd), WRITES);
	EXPECT(guest_write(&guest, ADDR, WRITES, 0), WRITES);
	guest_destroy(&guest);
	vm = vm_create();
	expect("the eventfd is free after the vCPU", is_free(id), 1);
}

/* The guest writes zeros: four bytes to memory. */
static int by_data(unsigned long long data, int to, unsigned int flags)
{
	struct kvm_ioeventfd args = {
		.addr = ADDR,
		.len = LEN,
		.datamatch = data,
		.fd = to,
		.flags = flags | KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	return ksft_ioctl(vm, KVM_IOEVENTFD, &args);
}

static void test_guest_data(void)
{
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(by_data(1, fd2, 0), 0);
	EXPECT(by_data(0, fd, 0), 0);
	EXPECT(by_data(0, fd, 0), -EEXIST);
	EXPECT(batch(vm, END), 0);
	EXPECT(guest_write(&guest, ADDR, WRITES, 0), 0);
	EXPECT(signals(fd), WRITES);
	EXPECT(signals(fd2), 0);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(by_data(0, fd, DEASSIGN), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(guest_write(&guest, ADDR, WRITES, 0), WRITES);
	EXPECT(signals(fd2), 0);
}

static void test_guest_any_length(void)
{
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(any_length(0), 0);
	EXPECT(guest_write(&guest, ADDR, WRITES, 0), WRITES);
	EXPECT(batch(vm, END), 0);
	EXPECT(guest_write(&guest, ADDR, WRITES, 0), 0);
	EXPECT(signals(fd), WRITES);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(any_length(DEASSIGN), 0);
	EXPECT(guest_write(&guest, ADDR, WRITES, 0), 0);
	EXPECT(signals(fd), WRITES);
	EXPECT(batch(vm, END), 0);
	EXPECT(guest_write(&guest, ADDR, WRITES, 0), WRITES);
}

/* The batch of one VM is nothing to another. */
static void test_other_vm(void)
{
	int other = vm_create();

	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(batch(other, END), -EINVAL);
	EXPECT(ioeventfd(other, ADDR, fd, 0), 0);
	EXPECT(batch(other, BEGIN), 0);
	EXPECT(batch(other, BEGIN), -EBUSY);
	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	EXPECT(ioeventfd(other, ADDR, fd, DEASSIGN), 0);
	EXPECT(batch(other, END), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), 0);
	ksft_close(other);
}

static int zone(int register_it)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = ADDR, .size = 0x1000 };

	return ksft_ioctl(vm, register_it ? KVM_REGISTER_COALESCED_MMIO :
					    KVM_UNREGISTER_COALESCED_MMIO,
			  &zone);
}

static void test_zone(void)
{
	int page;

	page = ksft_ioctl(vm, KVM_CHECK_EXTENSION,
			  (void *)KVM_CAP_COALESCED_MMIO);
	if (page <= 0) {
		skipped = "this KVM has no coalesced MMIO";
		return;
	}
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(zone(1), 0);
	EXPECT(guest_write(&guest, ADDR, ZONE_WRITES, 0), 0);
	EXPECT(ioeventfd(vm, ADDR + 0x2000, fd, 0), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(guest_write(&guest, ADDR, ZONE_WRITES, 0), 0);
	/* And it goes in a batch. */
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(zone(0), 0);
	EXPECT(guest_write(&guest, ADDR, ZONE_WRITES, 0), ZONE_WRITES);
	EXPECT(ioeventfd(vm, ADDR + 0x2000, fd, DEASSIGN), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(guest_write(&guest, ADDR, ZONE_WRITES, 0), ZONE_WRITES);
}

/*
 * An interrupt controller registers itself in the calls that make it.  Returns
 * a negative errno, or how many of a guest's writes to it came out.
 */
#if defined(__x86_64__)
static int irqchip(void)
{
	struct kvm_pit_config pit = { };
	int ret;

	/* It comes before the vCPU here. */
	ret = ksft_ioctl(vm, KVM_CREATE_IRQCHIP, NULL);
	ret = ret ? ret : ksft_ioctl(vm, KVM_CREATE_PIT2, &pit);
	return ret ? ret : guest_create(&guest, vm);
}

static int irqchip_writes(void)
{
	int ret = guest_write(&guest, 0x21, WRITES, PIO);

	return ret ? ret : guest_write(&guest, 0x43, WRITES, PIO);
}
#elif defined(__aarch64__) || (defined(__riscv) && __riscv_xlen == 64)
static int device_attr(int dev, int group, unsigned long attr, void *val)
{
	struct kvm_device_attr args = {
		.group = group,
		.attr = attr,
		.addr = (unsigned long)val,
	};

	return ksft_ioctl(dev, KVM_SET_DEVICE_ATTR, &args);
}

#ifdef __aarch64__
#define DISTRIBUTOR	0x8000000UL
#define REDISTRIBUTOR	0x80a0000UL

static int irqchip(void)
{
	struct kvm_create_device dev = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	unsigned long long dist = DISTRIBUTOR, redist = REDISTRIBUTOR;
	int ret;

	ret = guest_create(&guest, vm);
	ret = ret ? ret : ksft_ioctl(vm, KVM_CREATE_DEVICE, &dev);
	if (ret)
		return ret;
	ret = device_attr(dev.fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
			  KVM_VGIC_V3_ADDR_TYPE_DIST, &dist);
	ret = ret ? ret : device_attr(dev.fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
				      KVM_VGIC_V3_ADDR_TYPE_REDIST, &redist);
	ret = ret ? ret : device_attr(dev.fd, KVM_DEV_ARM_VGIC_GRP_CTRL,
				      KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
	ksft_close(dev.fd);
	return ret;
}

static int irqchip_writes(void)
{
	int ret = guest_write(&guest, DISTRIBUTOR, WRITES, 0);

	return ret ? ret : guest_write(&guest, REDISTRIBUTOR, WRITES, 0);
}
#else
#define APLIC		0xd000000UL
#define IMSIC		0x28000000UL

static int irqchip(void)
{
	struct kvm_create_device dev = { .type = KVM_DEV_TYPE_RISCV_AIA };
	unsigned long long aplic = APLIC, imsic = IMSIC;
	unsigned int sources = 32;
	int ret;

	ret = guest_create(&guest, vm);
	ret = ret ? ret : ksft_ioctl(vm, KVM_CREATE_DEVICE, &dev);
	if (ret)
		return ret;
	ret = device_attr(dev.fd, KVM_DEV_RISCV_AIA_GRP_CONFIG,
			  KVM_DEV_RISCV_AIA_CONFIG_SRCS, &sources);
	ret = ret ? ret : device_attr(dev.fd, KVM_DEV_RISCV_AIA_GRP_ADDR,
				      KVM_DEV_RISCV_AIA_ADDR_APLIC, &aplic);
	ret = ret ? ret : device_attr(dev.fd, KVM_DEV_RISCV_AIA_GRP_ADDR,
				      KVM_DEV_RISCV_AIA_ADDR_IMSIC(0), &imsic);
	ret = ret ? ret : device_attr(dev.fd, KVM_DEV_RISCV_AIA_GRP_CTRL,
				      KVM_DEV_RISCV_AIA_CTRL_INIT, NULL);
	ksft_close(dev.fd);
	return ret;
}

static int irqchip_writes(void)
{
	return guest_write(&guest, APLIC, WRITES, 0);
}
#endif
#else
static int irqchip(void)
{
	return -ENODEV;
}

static int irqchip_writes(void)
{
	return -ENODEV;
}
#endif

static void new_vm(void)
{
	guest_destroy(&guest);
	if (vm >= 0)
		ksft_close(vm);
	vm = vm_create();
}

static void test_irqchip(void)
{
	/* What this KVM does without a batch, the batch must not change. */
	if (irqchip() || irqchip_writes()) {
		skipped = "this KVM has no irqchip that this test knows";
		return;
	}
	new_vm();
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(irqchip(), 0);
	EXPECT(irqchip_writes(), 0);
	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(irqchip_writes(), 0);
	EXPECT(guest_write(&guest, ADDR, WRITES, 0), 0);
	EXPECT(signals(fd), WRITES);
}

/*
 * Cases: what a guest sees
 */

/* Changes n ioeventfds that nobody writes to. */
static void change_others(int n, unsigned long addr, unsigned int flags)
{
	int i;

	for (i = 1; i <= n; i++)
		EXPECT(ioeventfd(vm, addr + i * STEP, fd2, flags), 0);
}

static void at_end(unsigned long addr, unsigned int flags)
{
	EXPECT(guest_write(&guest, addr, WRITES, flags), WRITES);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, addr, fd, flags), 0);
	EXPECT(guest_write(&guest, addr, WRITES, flags), WRITES);
	EXPECT(signals(fd), 0);
	EXPECT(batch(vm, END), 0);
	EXPECT(guest_write(&guest, addr, WRITES, flags), 0);
	EXPECT(signals(fd), WRITES);
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, addr, fd, flags | DEASSIGN), 0);
	/* What was freed too early is most likely used again by these. */
	change_others(FEW, addr, flags);
	EXPECT(guest_write(&guest, addr, WRITES, flags), 0);
	EXPECT(signals(fd), WRITES);
	EXPECT(batch(vm, END), 0);
	EXPECT(guest_write(&guest, addr, WRITES, flags), WRITES);
	EXPECT(signals(fd), 0);
	EXPECT(guest_write(&guest, addr + STEP, WRITES, flags), 0);
	EXPECT(signals(fd2), WRITES);
}

static void test_at_end_mmio(void)
{
	at_end(ADDR, 0);
}

static void test_at_end_pio(void)
{
	at_end(PORT, PIO);
}

/*
 * Cases: each allocation of a batch fails, one after the other
 */

#define DEBUGFS		"/sys/kernel/debug"
#define SLAB_FAILS	DEBUGFS "/failslab/"

static int nth = -1;	/* this thread's fail-nth */

/* The n-th allocation from now on fails; 0: none does. */
static void fail_nth(int n)
{
	const char *text = ksft_text("%d", n);
	long len = strlen(text);

	expect("fail-nth", ksft_sys(__NR_write, nth, (long)text, len, 0, 0, 0),
	       len);
}

/* Has it failed?  To open a file anew would be an allocation. */
static int has_failed(void)
{
	char left = 0;

	ksft_sys(__NR_pread64, nth, (long)&left, 1, 0, 0, 0);
	return left == '0';
}

static const char *let_fail(void (*run)(void))
{
	int mounted = !mount("none", DEBUGFS, "debugfs", 0, NULL);
	const char *lacks = NULL;

	nth = ksft_open("/proc/thread-self/fail-nth", O_RDWR);
	/* Those that may sleep, too, and without a trace in the log */
	if (nth < 0 || ksft_write_file(SLAB_FAILS "ignore-gfp-wait", "N") ||
	    ksft_write_file(SLAB_FAILS "verbose", "0")) {
		lacks = "this kernel has no FAILSLAB in debugfs";
	} else {
		run();
		ksft_write_file(SLAB_FAILS "ignore-gfp-wait", "Y");
		ksft_write_file(SLAB_FAILS "verbose", "2");
	}
	ksft_close(nth);
	if (mounted)
		umount2(DEBUGFS, 0);
	return lacks;
}

static void fail_each(void)
{
	int added, removed, end, failed = 1, calls = 0, ends = 0;
	int n;

	EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	for (n = 1; failed && !wrong; n++) {
		EXPECT(batch(vm, BEGIN), 0);
		fail_nth(n);
		added = ioeventfd(vm, ADDR + STEP, fd2, 0);
		removed = ioeventfd(vm, ADDR, fd, DEASSIGN);
		end = batch(vm, END);
		failed = has_failed();
		fail_nth(0);

		calls += added == -ENOMEM;
		ends += end == -ENOMEM;
		expect("assign", added, added == -ENOMEM ? added : 0);
		expect("deassign", removed, 0);
		/* Without anything to add it must not fail. */
		expect("END", end, end == -ENOMEM && !added ? end : 0);

		added = !added && !end;
		EXPECT(guest_write(&guest, ADDR, WRITES, 0), end ? 0 : WRITES);
		EXPECT(signals(fd), end ? WRITES : 0);
		EXPECT(guest_write(&guest, ADDR + STEP, WRITES, 0),
		       added ? 0 : WRITES);
		EXPECT(signals(fd2), added ? WRITES : 0);

		if (added)
			EXPECT(ioeventfd(vm, ADDR + STEP, fd2, DEASSIGN), 0);
		if (!end)
			EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
	}
	ksft_print_msg("no memory: %d times to add, %d times to end\n", calls,
		       ends);
	expect("one of them", calls && ends, 1);
}

static void test_no_memory(void)
{
	skipped = let_fail(fail_each);
}

static void fail_removals(void)
{
	int ends = 0, failed = 1;
	int n;

	for (n = 1; failed && !wrong; n++) {
		EXPECT(ioeventfd(vm, ADDR, fd, 0), 0);
		EXPECT(ioeventfd(vm, ADDR + STEP, fd2, 0), 0);
		EXPECT(batch(vm, BEGIN), 0);
		EXPECT(ioeventfd(vm, ADDR, fd, DEASSIGN), 0);
		fail_nth(n);
		EXPECT(batch(vm, END), 0);
		failed = has_failed();
		fail_nth(0);
		ends += failed;
		EXPECT(guest_write(&guest, ADDR, WRITES, 0), WRITES);
		EXPECT(signals(fd), 0);
		EXPECT(guest_write(&guest, ADDR + STEP, WRITES, 0), 0);
		EXPECT(signals(fd2), WRITES);
		EXPECT(ioeventfd(vm, ADDR + STEP, fd2, DEASSIGN), 0);
	}
	ksft_print_msg("no memory: %d times to end\n", ends);
	expect("any", ends > 0, 1);
}

static void test_no_memory_to_remove(void)
{
	skipped = let_fail(fail_removals);
}

/*
 * Load: a guest that writes while its ioeventfd comes and goes.  The thread
 * owns the first half of the structure, the test's own the second.
 */

static struct writer {
	struct ksft_thread thread;
	unsigned long addr;
	unsigned int flags;
	unsigned long done;		/* runs of WRITES writes */
	unsigned long exits;
	int err;

	int stop;
} writer;

static void run_writer(void *arg)
{
	struct writer *me = arg;
	int ret;

	while (!__atomic_load_n(&me->stop, __ATOMIC_ACQUIRE)) {
		ret = guest_write(&guest, me->addr, WRITES, me->flags);
		if (ret < 0) {
			__atomic_store_n(&me->err, ret, __ATOMIC_RELEASE);
			break;
		}
		me->exits += ret;
		__atomic_store_n(&me->done, me->done + 1, __ATOMIC_RELEASE);
	}
}

/* Waits until the guest has written: all of its writes began after the call. */
static void await_writes(void)
{
	unsigned long from = __atomic_load_n(&writer.done, __ATOMIC_ACQUIRE);
	long long end = ksft_now_ns() + WAIT_MS * 1000000LL;

	while (__atomic_load_n(&writer.done, __ATOMIC_ACQUIRE) - from < 2) {
		if (__atomic_load_n(&writer.err, __ATOMIC_ACQUIRE) ||
		    ksft_now_ns() > end) {
			expect("the guest's writes", 0, 1);
			return;
		}
		ksft_sys(__NR_sched_yield, 0, 0, 0, 0, 0, 0);
	}
}

/*
 * It goes, and comes back.  As the first of many: a kernel that frees before
 * no vCPU can get there takes a while to free the others.
 */
static void remove_and_add(unsigned long addr, unsigned int flags)
{
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, addr, fd, flags | DEASSIGN), 0);
	change_others(MANY, addr, flags | DEASSIGN);
	EXPECT(batch(vm, END), 0);
	await_writes();
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, addr, fd, flags), 0);
	change_others(MANY, addr, flags);
	EXPECT(batch(vm, END), 0);
	await_writes();
}

/* It goes and comes back in one batch, so that it is there all the time. */
static void replace(unsigned long addr, unsigned int flags)
{
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, addr, fd, flags | DEASSIGN), 0);
	change_others(FEW, addr, flags | DEASSIGN);
	EXPECT(ioeventfd(vm, addr, fd, flags), 0);
	change_others(FEW, addr, flags);
	EXPECT(batch(vm, END), 0);
}

static void load_guest(unsigned long addr, unsigned int flags, int always,
		       void (*change)(unsigned long addr, unsigned int flags))
{
	long long end = ksft_now_ns() + seconds * 1000000000LL / 2;
	long count = 0, rounds = 0, writes;

	memset(&writer, 0, sizeof(writer));
	writer.addr = addr;
	writer.flags = flags;
	writer.thread.run = run_writer;
	writer.thread.arg = &writer;
	EXPECT(batch(vm, BEGIN), 0);
	EXPECT(ioeventfd(vm, addr, fd, flags), 0);
	change_others(always ? FEW : MANY, addr, flags);
	EXPECT(batch(vm, END), 0);
	EXPECT(ksft_thread_start(&writer.thread), 0);
	if (wrong)
		return;
	do {
		change(addr, flags);
		count += signals(fd);
		rounds++;
	} while (!wrong && ksft_now_ns() < end);
	await_writes();
	__atomic_store_n(&writer.stop, 1, __ATOMIC_RELEASE);
	ksft_thread_join(&writer.thread);
	count += signals(fd);

	writes = writer.done * WRITES;
	ksft_print_msg("%ld rounds, %ld writes: %ld signals, %ld exits\n",
		       rounds, writes, count, writer.exits);
	expect("the vCPU", writer.err, 0);
	expect("signals and exits", count + writer.exits, writes);
	if (always)
		expect("exits", writer.exits, 0);
	else if (!count || !writer.exits)
		expect("only signals, or only exits", 1, 0);
}

static void test_load_mmio(void)
{
	load_guest(ADDR, 0, 0, remove_and_add);
}

static void test_load_pio(void)
{
	load_guest(PORT, PIO, 0, remove_and_add);
}

static void test_load_replace(void)
{
	load_guest(ADDR, 0, 1, replace);
}

/*
 * Load: VMs that come and go in threads
 */

static struct loader {
	struct ksft_thread thread;
	int fd;
	unsigned long vms, batches, closed;
	/* The first call that was not answered as it must */
	const char *what;
	int got, want;
} loaders[THREADS];

static long long load_end;
/* How many threads are in a batch, and were in one with another thread */
static int in_batch, overlaps, absent;

static int must(struct loader *me, const char *what, int got, int want)
{
	if (got == want)
		return 0;
	me->what = what;
	me->got = got;
	me->want = want;
	return -1;
}

static int change_all(struct loader *me, int my_vm, unsigned int flags)
{
	int i, ret = must(me, "BEGIN", batch(my_vm, BEGIN), 0);

	for (i = 0; !ret && i < LOAD_IOEVENTFDS; i++)
		ret = must(me, flags ? "deassign" : "assign",
			   ioeventfd(my_vm, ADDR + i * STEP, me->fd, flags), 0);
	return ret;
}

/* In the first batch of each thread all are there before anybody ends it. */
static int meet(struct loader *me)
{
	long long end = ksft_now_ns() + WAIT_MS * 1000000LL;

	__atomic_sub_fetch(&absent, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&absent, __ATOMIC_ACQUIRE)) {
		if (ksft_now_ns() > end)
			return must(me, "waiting for the others", -ETIMEDOUT,
				    0);
		ksft_sys(__NR_sched_yield, 0, 0, 0, 0, 0, 0);
	}
	return 0;
}

static int load_vm(struct loader *me, int my_vm)
{
	/* One VM of three goes with an empty bus, and one with a full one. */
	int rounds = me->vms % 3 ? LOAD_ROUNDS : LOAD_ROUNDS + 1;
	unsigned int flags;
	int i, empty;

	for (i = 0; i < rounds; i++) {
		for (empty = 0; empty < LOAD_EMPTY; empty++) {
			if (must(me, "BEGIN", batch(my_vm, BEGIN), 0) ||
			    must(me, "END", batch(my_vm, END), 0))
				return -1;
		}
		flags = i & 1 ? DEASSIGN : 0;
		if (change_all(me, my_vm, flags))
			return -1;
		if (__atomic_add_fetch(&in_batch, 1, __ATOMIC_ACQ_REL) > 1)
			__atomic_add_fetch(&overlaps, 1, __ATOMIC_RELAXED);
		if (!me->batches && meet(me))
			return -1;
		__atomic_sub_fetch(&in_batch, 1, __ATOMIC_ACQ_REL);
		if (must(me, "END", batch(my_vm, END), 0))
			return -1;
		me->batches++;
	}
	/* Two of three are closed with an open batch. */
	if (me->vms % 3 == 2)
		return 0;
	me->closed++;
	return change_all(me, my_vm, i & 1 ? DEASSIGN : 0);
}

static void run_loader(void *arg)
{
	struct loader *me = arg;
	int my_vm, ret = 0;

	/* However late it comes, each thread does some work. */
	while (!ret && (!me->vms || ksft_now_ns() < load_end)) {
		my_vm = vm_create();
		if (my_vm < 0) {
			must(me, "KVM_CREATE_VM", my_vm, 0);
			break;
		}
		ret = load_vm(me, my_vm);
		ksft_close(my_vm);
		me->vms++;
	}
}

static void test_load_vms(void)
{
	unsigned long vms = 0, batches = 0, closed = 0;
	int i, started;

	load_end = ksft_now_ns() + seconds * 1000000000LL;
	memset(loaders, 0, sizeof(loaders));
	in_batch = 0;
	overlaps = 0;
	absent = THREADS;
	for (started = 0; started < THREADS; started++) {
		struct loader *loader = &loaders[started];

		loader->fd = eventfd_create();
		loader->thread.run = run_loader;
		loader->thread.arg = loader;
		EXPECT(ksft_thread_start(&loader->thread), 0);
		if (wrong)
			break;
	}
	for (i = 0; i < started; i++) {
		struct loader *loader = &loaders[i];

		ksft_thread_join(&loader->thread);
		ksft_close(loader->fd);
		vms += loader->vms;
		batches += loader->batches;
		closed += loader->closed;
		if (!loader->batches)
			expect("batches of a thread", 0, 1);
		if (loader->what)
			expect(loader->what, loader->got, loader->want);
	}
	ksft_print_msg("%lu VMs, %lu batches, %lu closed in a batch\n", vms,
		       batches, closed);
	ksft_print_msg("%d batches were open beside another one\n", overlaps);
	expect("overlaps", overlaps >= THREADS - 1, 1);
}

/* What a case wants before it runs */
enum { NO_GUEST, MMIO_GUEST, PIO_GUEST };

static const struct {
	const char *name;
	void (*run)(void);
	int guest;
} tests[] = {
	{ "the capability is there", test_capability, NO_GUEST },
	{ "END without BEGIN is EINVAL", test_end_alone, NO_GUEST },
	{ "BEGIN in a batch is EBUSY", test_begin_twice, NO_GUEST },
	{ "BEGIN and END with other flags are EINVAL", test_flags, NO_GUEST },
	{ "an empty batch changes nothing", test_empty, NO_GUEST },
	{ "a duplicate is EEXIST in a batch", test_duplicate, NO_GUEST },
	{ "an unknown ioeventfd is ENOENT in a batch", test_unknown, NO_GUEST },
	{ "what a batch added it can remove", test_own, NO_GUEST },
	{ "what a batch removed it can replace", test_replace, NO_GUEST },
	{ "an ioeventfd of any length is added and removed in a batch",
	  test_any_length, NO_GUEST },
	{ "a batch is of all threads", test_threads, NO_GUEST },
	{ "the batch of one VM is nothing to another", test_other_vm, NO_GUEST },
	{ "a VM that is closed in a batch lets go of its eventfds",
	  test_closed_in_batch, NO_GUEST },
	{ "a vCPU keeps a VM that is closed in a batch", test_kept_by_vcpu,
	  MMIO_GUEST },
	{ "guest writes go by their data", test_guest_data, MMIO_GUEST },
	{ "guest writes to any length go by the state before the batch",
	  test_guest_any_length, MMIO_GUEST },
	{ "a coalesced MMIO zone comes and goes in a batch", test_zone, MMIO_GUEST },
	{ "an irqchip comes in a batch", test_irqchip, NO_GUEST },
	{ "guest writes to memory go by the state before the batch",
	  test_at_end_mmio, MMIO_GUEST },
	{ "guest writes to a port go by the state before the batch",
	  test_at_end_pio, PIO_GUEST },
	{ "without memory a batch makes all of its changes or none",
	  test_no_memory, MMIO_GUEST },
	{ "without memory a batch removes all the same",
	  test_no_memory_to_remove, MMIO_GUEST },
	{ "load: every guest write to memory is accounted for",
	  test_load_mmio, MMIO_GUEST },
	{ "load: every guest write to a port is accounted for",
	  test_load_pio, PIO_GUEST },
	{ "load: an ioeventfd that a batch replaces is there all the time",
	  test_load_replace, MMIO_GUEST },
	{ "load: VMs with batches come and go at once", test_load_vms, NO_GUEST },
};

static void run_test(int i)
{
	wrong = 0;
	skipped = NULL;
	fd = eventfd_create();
	fd2 = eventfd_create();
	new_vm();
	if (tests[i].guest && !HAS_GUEST)
		skipped = "no code for a guest of this architecture";
	else if (tests[i].guest == PIO_GUEST && !HAS_PIO)
		skipped = "no port I/O on this architecture";
	else if (tests[i].guest)
		expect("making a vCPU", guest_create(&guest, vm), 0);
	if (!skipped && !wrong)
		tests[i].run();
	if (skipped)
		ksft_skip_case(tests[i].name, skipped);
	else
		ksft_test_result(!wrong, "%s\n", tests[i].name);
	guest_destroy(&guest);
	ksft_close(vm);
	ksft_close(fd);
	ksft_close(fd2);
	vm = -1;
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS",
	  "how long to put on load: VMs so long, each of the guests half of it",
	  &seconds, 86400, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct ksft_klog klog;
	unsigned int i;

	ksft_begin(argc, argv, options);
	open_kvm();
	if (!has_batch())
		ksft_exit_skip("this KVM has no batches of ioeventfd changes\n");
	ksft_set_plan(ARRAY_SIZE(tests) + 1);
	ksft_klog_open(&klog);
	for (i = 0; i < ARRAY_SIZE(tests); i++)
		run_test(i);
	ksft_klog_test_result(&klog, "kernel log stays clean");
	ksft_finished();
}
