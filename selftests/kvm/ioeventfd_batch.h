/* SPDX-License-Identifier: GPL-2.0-only */
/* The interface of batched ioeventfd changes, for its test and its benchmark */
#ifndef __IOEVENTFD_BATCH_H
#define __IOEVENTFD_BATCH_H

#include <linux/kvm.h>

/* UAPI headers of the tree may be those of a kernel without the feature. */
#ifndef KVM_IOEVENTFD_FLAG_BATCH_BEGIN
#define KVM_IOEVENTFD_FLAG_BATCH_BEGIN	(1 << 5)
#define KVM_IOEVENTFD_FLAG_BATCH_END	(1 << 6)
#endif
#ifndef KVM_CAP_IOEVENTFD_BATCH
#define KVM_CAP_IOEVENTFD_BATCH		802
#endif

#define BEGIN		KVM_IOEVENTFD_FLAG_BATCH_BEGIN
#define END		KVM_IOEVENTFD_FLAG_BATCH_END
#define DEASSIGN	KVM_IOEVENTFD_FLAG_DEASSIGN
#define PIO		KVM_IOEVENTFD_FLAG_PIO
#define LEN		4	/* bytes of a write to an ioeventfd in memory */

static int kvm = -1;

/* All of these return a negative errno if they fail. */

static int vm_create(void)
{
	return ksft_ioctl(kvm, KVM_CREATE_VM, NULL);
}

static inline int eventfd_create(void)
{
	return ksft_sys(__NR_eventfd2, 0, O_CLOEXEC | O_NONBLOCK, 0, 0, 0, 0);
}

static int ioeventfd(int vm, unsigned long addr, int fd, unsigned int flags)
{
	struct kvm_ioeventfd args = {
		.addr = addr,
		.len = flags & PIO ? 1 : LEN,
		.fd = fd,
		.flags = flags,
	};

	return ksft_ioctl(vm, KVM_IOEVENTFD, &args);
}

static int batch(int vm, unsigned int flags)
{
	return ioeventfd(vm, 0, -1, flags);
}

/* The capability, -1 if it is not there but the feature is, else 0 */
static int has_batch(void)
{
	int cap, vm, ret;

	cap = ksft_ioctl(kvm, KVM_CHECK_EXTENSION,
			 (void *)KVM_CAP_IOEVENTFD_BATCH);
	if (cap > 0)
		return cap;
	vm = vm_create();
	if (vm < 0)
		return 0;
	ret = batch(vm, BEGIN);
	ksft_close(vm);
	return ret ? 0 : -1;
}

/* Makes a module of KVM ready, too.  Skips if there is no KVM. */
static void open_kvm(void)
{
	int vm;

	kvm = ksft_open("/dev/kvm", O_RDWR);
	if (kvm < 0) {
		ksft_load_modules();
		kvm = ksft_open("/dev/kvm", O_RDWR);
	}
	if (kvm < 0)
		ksft_exit_skip("no /dev/kvm: %s\n", strerror(-kvm));
	vm = vm_create();
	if (vm < 0)
		ksft_exit_skip("KVM makes no VM: %s\n", strerror(-vm));
	ksft_close(vm);
}

#endif /* __IOEVENTFD_BATCH_H */
