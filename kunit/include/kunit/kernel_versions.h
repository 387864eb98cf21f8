/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What changed, from v4.19 to v7.x, in the interfaces that the suites use.
 *
 * This is the one place that asks for the version of the kernel.  A suite is
 * written for the newest kernel; here older ones learn the newer names.  What
 * has no older form, or changed its shape, has a wrapper kv_*().  Where a
 * stable series or a vendor may have taken a change back, ask for what it
 * brought (a macro, say) and not for the version.
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

/* SUNRPC, and nfsd's callbacks */

#ifdef _LINUX_SUNRPC_CLNT_H
#if KV_BEFORE(4, 20)
#include <linux/radix-tree.h>

#define xa_node			radix_tree_node
#define xa_is_node(entry)	radix_tree_is_internal_node((void *)(entry))
#define xa_to_node(entry) \
	((struct radix_tree_node *)((unsigned long)(entry) & ~RADIX_TREE_INTERNAL_NODE))
#define XA_CHUNK_SIZE		RADIX_TREE_MAP_SIZE
#define kv_idr_head(idr)	rcu_dereference_raw((idr)->idr_rt.rnode)
#define kv_nfsd_init_s2s_lock(nn)	((void)(nn))
#else
#define kv_idr_head(idr)	rcu_dereference_raw((idr)->idr_rt.xa_head)
#define kv_nfsd_init_s2s_lock(nn)	spin_lock_init(&(nn)->s2s_cp_lock)
#endif

/* What puts one request on the wire, and what waits for its answer. */
#if KV_BEFORE(5, 0)
#define KV_XPRT_SENDER(fn)						\
	static int fn##_task(struct rpc_task *task)			\
	{								\
		return fn(task->tk_rqstp);				\
	}
#define KV_XPRT_SEND(fn)						\
	.send_request = fn##_task,					\
	.set_retrans_timeout = xprt_set_retrans_timeout_def
#define kv_rpc_machine_cred()	rpc_lookup_machine_cred(NULL)
#else
#define KV_XPRT_SENDER(fn)
#define KV_XPRT_SEND(fn)						\
	.send_request = fn,						\
	.wait_for_reply_request = xprt_wait_for_reply_request_def
#define kv_rpc_machine_cred()	get_cred(rpc_machine_cred())
#endif

#if KV_BEFORE(5, 2)
#define KV_RPC_CREATE_CRED(value)
#else
#define KV_RPC_CREATE_CRED(value)	.cred = value,
#endif

#if KV_BEFORE(5, 14)
#define kv_xprt_set_class(xprt, class)	((void)(xprt), (void)(class))
#else
#define kv_xprt_set_class(xprt, class)	((xprt)->xprt_class = (class))
#endif

/* Does a call that ends with an I/O error say that the channel is down? */
#define KV_NFSD_EIO_MARKS_DOWN	(!KV_BEFORE(5, 4))

/* Was the callback queued?  Some trees do not say so: then, if it was idle. */
#define kv_nfsd4_run_cb(cb)						\
({									\
	bool __idle = !work_pending(&(cb)->cb_work);			\
									\
	__builtin_choose_expr(						\
		__builtin_types_compatible_p(typeof(nfsd4_run_cb(cb)), void), \
		((void)nfsd4_run_cb(cb), __idle), nfsd4_run_cb(cb));	\
})
#endif /* _LINUX_SUNRPC_CLNT_H */

/* The program of NFSv4 callbacks, in the file that has it.  Each net has one. */
#if KV_BEFORE(7, 1)
#define kv_cb_program(net)	(&cb_program)
#else
#define kv_cb_program(net) \
	(&((struct nfsd_net *)net_generic(net, nfsd_net_id))->nfsd_cb->program)
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

/* Huge pages and their memory cgroups, for files of mm/ */

#if defined(__MM_INTERNAL_H) && defined(_LINUX_HUGE_MM_H) && \
	defined(_LINUX_MEMCONTROL_H) && defined(CONFIG_MEMCG)

#if KV_BEFORE(5, 16)
/* Before there were folios: one is its head page. */
struct folio {
	struct page page;
};

#define page_folio(p)		((struct folio *)compound_head(p))
#define folio_put(folio)	put_page(&(folio)->page)
#define folio_lock(folio)	lock_page(&(folio)->page)
#define folio_unlock(folio)	unlock_page(&(folio)->page)
#define folio_order(folio)	compound_order(&(folio)->page)
#define folio_ref_freeze(folio, nr)	page_ref_freeze(&(folio)->page, nr)
#define folio_ref_unfreeze(folio, nr)	page_ref_unfreeze(&(folio)->page, nr)

static inline struct folio *folio_alloc(gfp_t gfp, unsigned int order)
{
	struct page *page = alloc_pages(gfp | __GFP_COMP, order);

	if (page && order > 1)
		prep_transhuge_page(page);
	return (struct folio *)page;
}
#endif

/* The smallest order that can be queued and charged: it was one alone once. */
#if KV_BEFORE(5, 16)
#define KV_MIN_HUGE_ORDER	HPAGE_PMD_ORDER
#else
#define KV_MIN_HUGE_ORDER	2
#endif

/* The shrinker drops from the queue what is in use and mapped as a whole. */
#define KV_SCAN_DROPS_USED	(!KV_BEFORE(6, 12))

/* Reclaim waits for the lock of a mapping; later it passes over the page. */
#define KV_RECLAIM_WAITS_FOR_RMAP	KV_BEFORE(5, 19)

/* Reclaim frees a huge page without splitting it if nobody needs its data. */
#define KV_RECLAIM_FREES_HUGE	(!KV_BEFORE(6, 0))

/* Migration takes the charge along; else both are charged for a while. */
#define KV_MIGRATION_MOVES_CHARGE	(!KV_BEFORE(6, 7))

/* Huge pages that are mapped as a whole are queued, to split unused ones. */
#if KV_BEFORE(6, 12)
#define split_underused_thp	false
#endif

#if KV_BEFORE(6, 6)
#define folio_test_large_rmappable(folio) \
	((&(folio)->page)[1].compound_dtor == TRANSHUGE_PAGE_DTOR)
#endif

static inline struct list_head *kv_deferred_list(const struct folio *folio)
{
#if KV_BEFORE(6, 6)
	return page_deferred_list((struct page *)folio);
#else
	return (struct list_head *)&folio->_deferred_list;
#endif
}

/* A queue is a lock, a list and a length: a struct of its own, later a list_lru. */
#if KV_BEFORE(7, 2)
#define kv_split_queue	deferred_split
#define KV_QUEUE_LOCK	split_queue_lock
#define KV_QUEUE_LIST	split_queue
#define KV_QUEUE_LEN	split_queue_len
#else
#define kv_split_queue	list_lru_one
#define KV_QUEUE_LOCK	lock
#define KV_QUEUE_LIST	list
#define KV_QUEUE_LEN	nr_items
#endif

static inline void kv_deferred_split(struct folio *folio, bool partially_mapped)
{
#if KV_BEFORE(6, 6)
	deferred_split_huge_page(&folio->page);
#elif KV_BEFORE(6, 12)
	deferred_split_folio(folio);
#else
	deferred_split_folio(folio, partially_mapped);
#endif
}

/* The cgroup that the folio is charged to; no lock holds it still. */
static inline struct mem_cgroup *kv_folio_memcg(const struct folio *folio)
{
#if KV_BEFORE(5, 11)
	return READ_ONCE(folio->page.mem_cgroup);
#elif KV_BEFORE(7, 2)
	return (struct mem_cgroup *)READ_ONCE(folio->memcg_data);
#else
	unsigned long data = READ_ONCE(folio->memcg_data) & ~OBJEXTS_FLAGS_MASK;

	return data ? READ_ONCE(((struct obj_cgroup *)data)->memcg) : NULL;
#endif
}

/* The queue of @memcg, or of the node where that is NULL; NULL without memory. */
static inline struct kv_split_queue *kv_queue_of(struct mem_cgroup *memcg,
						 int nid)
{
#if KV_BEFORE(7, 2)
	return memcg ? &memcg->deferred_split_queue :
		       &NODE_DATA(nid)->deferred_split_queue;
#else
	struct list_lru_memcg *lists;

	if (!memcg)
		return &deferred_split_lru.node[nid].lru;
	if (memcg_list_lru_alloc(memcg, &deferred_split_lru, GFP_KERNEL))
		return NULL;
	lists = xa_load(&deferred_split_lru.xa, memcg_kmem_id(memcg));
	return lists ? &lists->node[nid] : NULL;
#endif
}

/* Take a folio off the queue that it is on, with the queue's lock held. */
static inline void kv_queue_del(struct kv_split_queue *queue,
				struct folio *folio)
{
#if KV_BEFORE(7, 2)
	list_del_init(kv_deferred_list(folio));
	queue->split_queue_len--;
#else
	__list_lru_del(&deferred_split_lru, queue, kv_deferred_list(folio),
		       folio_nid(folio));
#endif
}

/* Charge a new folio to @memcg. */
static inline int kv_charge(struct folio *folio, struct mem_cgroup *memcg)
{
#if KV_BEFORE(5, 13)
	/* Only kernel memory can be charged to a cgroup other than one's own. */
	unsigned int nr = 1 << folio_order(folio);
	int err;

#if KV_BEFORE(5, 0)
	err = memcg_kmem_charge_memcg(&folio->page, GFP_KERNEL,
				      folio_order(folio), memcg);
#elif KV_BEFORE(5, 7)
	err = __memcg_kmem_charge_memcg(&folio->page, GFP_KERNEL,
					folio_order(folio), memcg);
#else
	err = __memcg_kmem_charge(memcg, GFP_KERNEL, nr);
#endif
	if (err)
		return err;
#if !KV_BEFORE(5, 9)
	css_get(&memcg->css);
#endif
	folio->page.mem_cgroup = memcg;
	page_counter_uncharge(&memcg->kmem, nr);
	return 0;
#else
	struct mem_cgroup *old = set_active_memcg(memcg);
	int err = mem_cgroup_charge(folio, NULL, GFP_KERNEL);

	set_active_memcg(old);
	return err;
#endif
}

#ifdef _LINUX_SWAP_H
/* mem_cgroup_shrink_node() looks at active pages as well. */
#define KV_SHRINK_NODE_ACTIVE	KV_BEFORE(5, 8)

#if KV_BEFORE(6, 3)
#define folio_mark_lazyfree(folio)	mark_page_lazyfree(&(folio)->page)
#endif

#if KV_BEFORE(5, 16)
#define folio_mark_accessed(folio)	mark_page_accessed(&(folio)->page)
#define folio_ref_count(folio)		page_ref_count(&(folio)->page)
#endif

static inline void kv_zap(struct vm_area_struct *vma, unsigned long addr,
			  unsigned long size)
{
#if KV_BEFORE(6, 3)
	zap_page_range(vma, addr, size);
#elif KV_BEFORE(7, 0)
	zap_page_range_single(vma, addr, size, NULL);
#else
	zap_vma_range(vma, addr, size);
#endif
}

/*
 * Whether mem_cgroup_swapout() takes a folio off its split queue: so do v6.12,
 * 6.6.62 and the feature for 4.19.  Others split it before they swap it out.
 */
#define KV_SWAPOUT_TAKES_OFF \
	(KV_BEFORE(5, 4) || !KV_BEFORE(6, 12) || \
	 (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 62) && KV_BEFORE(6, 7)))

/*
 * Swap out a folio's charge without swap: it goes to @nr entries of a type that
 * nothing uses.
 */
#if KV_BEFORE(7, 0)
#include <linux/swap_cgroup.h>

static inline int kv_swap_begin(swp_entry_t entry, unsigned int nr)
{
	return swap_cgroup_swapon(swp_type(entry), swp_offset(entry) + nr);
}

static inline void kv_swap_end(swp_entry_t entry)
{
	swap_cgroup_swapoff(swp_type(entry));
}

static inline void kv_swap_uncharge(swp_entry_t entry, unsigned int nr)
{
	mem_cgroup_uncharge_swap(entry, nr);
}

static inline void kv_memcg_swapout(struct folio *folio, swp_entry_t entry)
{
#if KV_BEFORE(5, 18)
	mem_cgroup_swapout(&folio->page, entry);
#else
	mem_cgroup_swapout(folio, entry);
#endif
}
#else
static inline int kv_swap_begin(swp_entry_t entry, unsigned int nr)
{
	return -EOPNOTSUPP;
}

static inline void kv_swap_end(swp_entry_t entry) { }
static inline void kv_swap_uncharge(swp_entry_t entry, unsigned int nr) { }
static inline void kv_memcg_swapout(struct folio *folio, swp_entry_t entry) { }
#endif

static inline void kv_folios_put(struct folio **folios, int nr)
{
#if KV_BEFORE(5, 16)
	release_pages((struct page **)folios, nr);
#elif KV_BEFORE(6, 9)
	folios_put(folios, nr);
#else
	struct folio_batch batch;
	int i;

	folio_batch_init(&batch);
	for (i = 0; i < nr; i++)
		folio_batch_add(&batch, folios[i]);
	folios_put(&batch);
#endif
}

/*
 * Reclaim a folio that nobody maps, as if its data were no longer wanted.
 * Returns whether it is gone.
 */
static inline bool kv_reclaim(struct folio *folio)
{
	struct page *page = &folio->page;
	LIST_HEAD(list);

#ifdef FOLIO_MAPPING_ANON
	page->mapping = (void *)FOLIO_MAPPING_ANON;
#else
	page->mapping = (void *)PAGE_MAPPING_ANON;
#endif
#if !KV_BEFORE(6, 12)
	mod_mthp_stat(folio_order(folio), MTHP_STAT_NR_ANON, 1);
#endif
	list_add(&page->lru, &list);
#if KV_BEFORE(5, 4)
	mod_node_page_state(page_pgdat(page), NR_ISOLATED_FILE, 1);
	return reclaim_clean_pages_from_list(page_zone(page), &list);
#else
	return reclaim_pages(&list);
#endif
}
#endif /* _LINUX_SWAP_H */

#ifdef _LINUX_MIGRATE_H
/* As migration does with a folio that nobody maps; both are locked. */
static inline int kv_migrate(struct folio *folio, struct folio *to)
{
	int ret;

#if KV_BEFORE(5, 0)
	ret = migrate_page_move_mapping(NULL, &to->page, &folio->page, NULL,
					MIGRATE_SYNC, 0);
#elif KV_BEFORE(5, 16)
	ret = migrate_page_move_mapping(NULL, &to->page, &folio->page, 0);
#else
	ret = folio_migrate_mapping(NULL, to, folio, 0);
#endif
	if (ret)
		return ret;
#if KV_BEFORE(5, 16)
	mem_cgroup_migrate(&folio->page, &to->page);
#else
	mem_cgroup_migrate(folio, to);
#endif
	return 0;
}
#endif /* _LINUX_MIGRATE_H */

#endif /* files of mm/ */

/* KVM */

#endif /* _KUNIT_KERNEL_VERSIONS_H */
