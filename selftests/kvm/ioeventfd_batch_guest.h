/* SPDX-License-Identifier: GPL-2.0-only */
/* A guest of one vCPU, which writes the same address over and over */
#ifndef __IOEVENTFD_BATCH_GUEST_H
#define __IOEVENTFD_BATCH_GUEST_H

#ifndef NOLIBC
#include <stddef.h>
#endif

#define ADDR		0xd0000UL
#define STOP_PORT	0x10		/* a guest that is done writes there */
#define STOP_ADDR	0xdf000UL
#define CODE		0x10000UL	/* the guest's only memory */
#define CODE_SIZE	0x10000UL

/* How often the eventfd was signalled since it was last asked */
static long signals(int fd)
{
	unsigned long long count = 0;
	long ret;

	ret = ksft_sys(__NR_read, fd, (long)&count, sizeof(count), 0, 0, 0);
	return ret == sizeof(count) ? (long)count : 0;
}

struct guest {
	int vm, vcpu;
	struct kvm_run *run;
	int run_size;
	void *code;
};

#if defined(__x86_64__)
#define HAS_GUEST	1
#define HAS_PIO		1
static const unsigned char code[] = {
	/* Real mode: a byte to port dx, cx times, then one to STOP_PORT */
	0xee,			/* outb %al, %dx */
	0xe2, 0xfd,		/* loop */
	0xe6, STOP_PORT,	/* outb %al, $STOP_PORT */
	0xf4, 0x90, 0x90,	/* hlt */
	/* The same with four bytes to ds:bx */
	0x66, 0x89, 0x07,	/* movl %eax, (%bx) */
	0xe2, 0xfb,		/* loop */
	0xe6, STOP_PORT,	/* outb %al, $STOP_PORT */
	0xf4,			/* hlt */
};

static int guest_reset(struct guest *guest)
{
	struct kvm_sregs sregs;
	int ret;

	ret = ksft_ioctl(guest->vcpu, KVM_GET_SREGS, &sregs);
	if (ret)
		return ret;
	sregs.cs.base = CODE;
	sregs.cs.selector = CODE >> 4;
	sregs.ds.base = ADDR;
	sregs.ds.selector = ADDR >> 4;
	return ksft_ioctl(guest->vcpu, KVM_SET_SREGS, &sregs);
}

static int guest_aim(struct guest *guest, unsigned long addr, int writes,
		     unsigned int flags)
{
	struct kvm_regs regs = {
		.rip = flags & PIO ? 0 : 8,
		.rflags = 2,
		.rcx = writes,
		.rdx = addr,
		.rbx = addr - ADDR,
	};

	return ksft_ioctl(guest->vcpu, KVM_SET_REGS, &regs);
}

static int guest_stopped(struct guest *guest)
{
	return guest->run->exit_reason == KVM_EXIT_IO &&
	       guest->run->io.port == STOP_PORT;
}
#elif defined(__aarch64__) || (defined(__riscv) && __riscv_xlen == 64)
#define HAS_GUEST	1
#define HAS_PIO		0
#ifdef __aarch64__
static const unsigned int code[] = {
	0xb9000020,		/* str w0, [x1] */
	0xf1000442,		/* subs x2, x2, #1 */
	0x54ffffc1,		/* b.ne */
	0xb9000060,		/* str w0, [x3] */
	0x14000000,		/* b . */
};

#define REG(name)	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | \
			 KVM_REG_ARM_CORE_REG(regs.name))
#define REG_PC		REG(pc)
#define REG_ARG(n)	REG(regs[n])

static int guest_reset(struct guest *guest)
{
	struct kvm_vcpu_init init;
	int ret;

	ret = ksft_ioctl(guest->vm, KVM_ARM_PREFERRED_TARGET, &init);
	return ret ? ret : ksft_ioctl(guest->vcpu, KVM_ARM_VCPU_INIT, &init);
}
#else
static const unsigned int code[] = {
	0x00a5a023,		/* sw a0, (a1) */
	0xfff60613,		/* addi a2, a2, -1 */
	0xfe061ce3,		/* bnez a2 */
	0x00a6a023,		/* sw a0, (a3) */
	0x0000006f,		/* j . */
};

#define REG(name)	(KVM_REG_RISCV | KVM_REG_SIZE_U64 | KVM_REG_RISCV_CORE | \
			 KVM_REG_RISCV_CORE_REG(name))
#define REG_PC		REG(regs.pc)
#define REG_ARG(n)	(REG(regs.a0) + (n))

static int guest_reset(struct guest *guest)
{
	return 0;
}
#endif

static int set_reg(struct guest *guest, unsigned long long id,
		   unsigned long long val)
{
	struct kvm_one_reg reg = { .id = id, .addr = (unsigned long)&val };

	return ksft_ioctl(guest->vcpu, KVM_SET_ONE_REG, &reg);
}

static int guest_aim(struct guest *guest, unsigned long addr, int writes,
		     unsigned int flags)
{
	int ret;

	ret = set_reg(guest, REG_PC, CODE);
	ret = ret ? ret : set_reg(guest, REG_ARG(1), addr);
	ret = ret ? ret : set_reg(guest, REG_ARG(2), writes);
	return ret ? ret : set_reg(guest, REG_ARG(3), STOP_ADDR);
}

static int guest_stopped(struct guest *guest)
{
	return guest->run->exit_reason == KVM_EXIT_MMIO &&
	       guest->run->mmio.phys_addr == STOP_ADDR;
}
#else
#define HAS_GUEST	0
#define HAS_PIO		0
static const unsigned int code[1];

static int guest_reset(struct guest *guest)
{
	return -ENODEV;
}

static int guest_aim(struct guest *guest, unsigned long addr, int writes,
		     unsigned int flags)
{
	return -ENODEV;
}

static int guest_stopped(struct guest *guest)
{
	return 1;
}
#endif

static int guest_create(struct guest *guest, int vm)
{
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = CODE,
		.memory_size = CODE_SIZE,
	};
	int ret;

	memset(guest, 0, sizeof(*guest));
	guest->vm = vm;
	guest->run_size = ksft_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	guest->code = ksft_map(CODE_SIZE, MAP_SHARED | MAP_ANONYMOUS, -1);
	if (!guest->code)
		return -ENOMEM;
	memcpy(guest->code, code, sizeof(code));
	region.userspace_addr = (unsigned long)guest->code;
	ret = ksft_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (!ret)
		ret = ksft_ioctl(vm, KVM_CREATE_VCPU, NULL);
	guest->vcpu = ret;
	if (ret < 0)
		return ret;
	guest->run = ksft_map(guest->run_size, MAP_SHARED, guest->vcpu);
	if (!guest->run)
		return -ENOMEM;
	return guest_reset(guest);
}

static void guest_destroy(struct guest *guest)
{
	if (guest->run)
		ksft_unmap(guest->run, guest->run_size);
	if (guest->vcpu > 0)
		ksft_close(guest->vcpu);
	if (guest->code)
		ksft_unmap(guest->code, CODE_SIZE);
	memset(guest, 0, sizeof(*guest));
}

/* Did the guest write to the address, and nobody in the kernel took it? */
static int guest_wrote(struct guest *guest, unsigned long addr,
		       unsigned int flags)
{
	struct kvm_run *run = guest->run;

	if (flags & PIO)
		return run->exit_reason == KVM_EXIT_IO &&
		       run->io.direction == KVM_EXIT_IO_OUT &&
		       run->io.port == addr && run->io.count == 1;
	return run->exit_reason == KVM_EXIT_MMIO && run->mmio.is_write &&
	       run->mmio.phys_addr == addr;
}

/*
 * The guest writes to the address.  Returns how many of its writes came out to
 * user space, or a negative errno.
 */
static int guest_write(struct guest *guest, unsigned long addr, int writes,
		       unsigned int flags)
{
	int exits = 0;
	int ret;

	ret = guest_aim(guest, addr, writes, flags);
	if (ret)
		return ret;
	for (;;) {
		ret = ksft_ioctl(guest->vcpu, KVM_RUN, NULL);
		if (ret == -EINTR)
			continue;
		if (ret < 0)
			return ret;
		if (guest_stopped(guest))
			break;
		if (!guest_wrote(guest, addr, flags))
			return -1000 - (int)guest->run->exit_reason;
		exits++;
	}
	/* Lets KVM finish the last write, before the registers are set. */
	guest->run->immediate_exit = 1;
	ret = ksft_ioctl(guest->vcpu, KVM_RUN, NULL);
	guest->run->immediate_exit = 0;
	return ret == -EINTR ? exits : -EIO;
}

#endif /* __IOEVENTFD_BATCH_GUEST_H */
