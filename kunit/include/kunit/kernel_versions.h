/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What changed, from v4.19 to v7.x, in the interfaces that the suites use.
 *
 * A suite is written for the newest kernel and does not ask which one it is in.
 * Here older ones learn the newer names.  What has no older form, or changed
 * its shape, has a wrapper kv_*().  Where a stable series or a vendor may have
 * taken a change back, ask for what it brought (a macro, say) and not for the
 * version.  What only one suite needs is beside it, in SUITE_versions.h.
 *
 * Each section takes effect only in files that have included what it is about
 * before this header.
 */
#ifndef _KUNIT_KERNEL_VERSIONS_H
#define _KUNIT_KERNEL_VERSIONS_H

#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#define KV_BEFORE(major, minor) \
	(KERNEL_VERSION(major, minor, 0) > LINUX_VERSION_CODE)

/* KUnit: the small one has all this */

#ifndef KUNIT_CASE_SLOW
#define KUNIT_CASE_SLOW(test_name)	KUNIT_CASE(test_name)
#endif

#if !KV_BEFORE(6, 0) && KV_BEFORE(6, 10) && defined(_LINUX_MM_H)
#include <linux/sched/signal.h>
#include <linux/sched/mm.h>

/* Gives the case's thread an address space, which goes with it. */
static inline unsigned long kunit_vm_mmap(struct kunit *test, struct file *file,
					  unsigned long addr, unsigned long len,
					  unsigned long prot,
					  unsigned long flag,
					  unsigned long offset)
{
	struct mm_struct *mm = current->mm;

	if (!mm) {
		mm = mm_alloc();
		if (!mm)
			return -ENOMEM;
		mm->task_size = TASK_SIZE;
#ifdef CONFIG_LOONGARCH
		/* Its arch_pick_mmap_layout() may look for a process's vDSO. */
		mm->mmap_base = TASK_UNMAPPED_BASE;
		mm->get_unmapped_area = arch_get_unmapped_area;
#else
		arch_pick_mmap_layout(mm, &current->signal->rlim[RLIMIT_STACK]);
#endif
		kthread_use_mm(mm);
	}
	return vm_mmap(file, addr, len, prot, flag, offset);
}
#endif

/* Kernel memory, which may not be there */

#if KV_BEFORE(5, 8)
#define copy_from_kernel_nofault(dst, src, size) \
	probe_kernel_read(dst, src, size)
#endif

/* Threads */

/* End this thread.  Before v5.17 do_exit() did what kthread_exit() does. */
static inline void __noreturn kv_kthread_exit(void)
{
#if KV_BEFORE(5, 17)
	complete_and_exit(NULL, 0);
#else
	kthread_exit(0);
#endif
}

#if KV_BEFORE(5, 8)
#include <linux/mmu_context.h>
#define kthread_use_mm(mm)	use_mm(mm)
#define kthread_unuse_mm(mm)	unuse_mm(mm)
#endif

/* Files */

#ifdef _LINUX_NAMEI_H
#if KV_BEFORE(5, 14)
static inline struct file *file_open_root_mnt(struct vfsmount *mnt,
					      const char *name, int flags,
					      umode_t mode)
{
	return file_open_root(mnt->mnt_root, mnt, name, flags, mode);
}
#endif

/* Make a folder.  Returns its dentry, referenced, or an error. */
static inline struct dentry *kv_mkdir(struct dentry *parent, const char *name,
				      umode_t mode)
{
#if !KV_BEFORE(7, 0)
	struct dentry *made = start_creating_noperm(parent, &QSTR(name));

	if (!IS_ERR(made))
		made = vfs_mkdir(&nop_mnt_idmap, d_inode(parent), made, mode,
				 NULL);
	if (IS_ERR(made))
		return made;
	end_creating(made);
	/* The file system may have left the first look-up's result as it was. */
	return lookup_noperm_unlocked(&QSTR(name), parent);
#else
	struct inode *dir = d_inode(parent);
	struct dentry *dentry;
	int err;

	inode_lock_nested(dir, I_MUTEX_PARENT);
	dentry = lookup_one_len(name, parent, strlen(name));
	err = PTR_ERR_OR_ZERO(dentry);
	if (!err) {
#if KV_BEFORE(5, 12)
		err = vfs_mkdir(dir, dentry, mode);
#elif KV_BEFORE(6, 3)
		err = vfs_mkdir(&init_user_ns, dir, dentry, mode);
#else
		err = vfs_mkdir(&nop_mnt_idmap, dir, dentry, mode);
#endif
		dput(dentry);
	}
	inode_unlock(dir);
	if (err)
		return ERR_PTR(err);
	/* The file system may have left the first look-up's result as it was. */
	return lookup_one_len_unlocked(name, parent, strlen(name));
#endif
}

static inline int kv_rmdir(struct dentry *dentry)
{
	struct inode *dir = d_inode(dentry->d_parent);
	int err;

	inode_lock_nested(dir, I_MUTEX_PARENT);
#if KV_BEFORE(5, 12)
	err = vfs_rmdir(dir, dentry);
#elif KV_BEFORE(6, 3)
	err = vfs_rmdir(&init_user_ns, dir, dentry);
#elif KV_BEFORE(7, 0)
	err = vfs_rmdir(&nop_mnt_idmap, dir, dentry);
#else
	err = vfs_rmdir(&nop_mnt_idmap, dir, dentry, NULL);
#endif
	inode_unlock(dir);
	return err;
}
#endif /* _LINUX_NAMEI_H */

/* Memory management */

#if KV_BEFORE(5, 8)
#define mmap_write_lock(mm)	down_write(&(mm)->mmap_sem)
#define mmap_write_unlock(mm)	up_write(&(mm)->mmap_sem)
#endif

#if KV_BEFORE(5, 14) && defined(_LINUX_MM_H)
static inline struct vm_area_struct *vma_lookup(struct mm_struct *mm,
						unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(mm, addr);

	return vma && vma->vm_start <= addr ? vma : NULL;
}
#endif

#if KV_BEFORE(6, 3)
#define vm_flags_set(vma, flags)	((void)((vma)->vm_flags |= (flags)))
#endif

#endif /* _KUNIT_KERNEL_VERSIONS_H */
