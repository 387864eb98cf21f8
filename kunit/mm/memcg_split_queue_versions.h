/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What changed, from v4.19 to v7.x, in huge pages and in what memory cgroups
 * know of them, for mm/huge_memory.c.  See <kunit/kernel_versions.h>.
 */
#ifndef _MEMCG_SPLIT_QUEUE_VERSIONS_H
#define _MEMCG_SPLIT_QUEUE_VERSIONS_H

#include <kunit/kernel_versions.h>

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

/* mem_cgroup_shrink_node() looks at active pages as well. */
#define KV_SHRINK_NODE_ACTIVE	KV_BEFORE(5, 8)

#if KV_BEFORE(6, 3)
#define folio_mark_lazyfree(folio)	mark_page_lazyfree(&(folio)->page)
#endif

#if KV_BEFORE(5, 16)
#define folio_add_lru(folio)		lru_cache_add(&(folio)->page)
#define folio_mark_accessed(folio)	mark_page_accessed(&(folio)->page)
#define folio_ref_count(folio)		page_ref_count(&(folio)->page)
#endif

/* Before it takes a folio with private data, reclaim asks its mapping. */
#if KV_BEFORE(5, 19)
#define KV_RELEASE_FOLIO(fn)
static inline void kv_join_mapping(struct folio *folio,
				   struct address_space *mapping)
{
}

static inline struct address_space *kv_leave_mapping(struct folio *folio)
{
	return NULL;
}
#else
#define KV_RELEASE_FOLIO(fn)	.release_folio = fn,

static inline void kv_join_mapping(struct folio *folio,
				   struct address_space *mapping)
{
	folio->mapping = mapping;
	folio_set_private(folio);
}

static inline struct address_space *kv_leave_mapping(struct folio *folio)
{
	struct address_space *mapping = folio->mapping;

	folio_clear_private(folio);
	folio->mapping = NULL;
	return mapping;
}
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
 * the feature for 4.19, and v6.1 and v6.6 with their fixes.  Others split it before
 * they swap it out.
 */
#define KV_SWAPOUT_TAKES_OFF \
	(KV_BEFORE(5, 4) || !KV_BEFORE(6, 12) || \
	 (!KV_BEFORE(6, 1) && KV_BEFORE(6, 2)) || \
	 (!KV_BEFORE(6, 6) && KV_BEFORE(6, 7)))

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

/* Does migration take a folio off its queue that is in a mapping, as in the swap cache? */
#define KV_MIGRATION_TAKES_OFF	(!KV_BEFORE(6, 12))

/* Put a folio into a mapping that is all zeroes, migrate it there, and take it out. */
static inline int kv_migrate_in(struct address_space *mapping,
				struct folio *folio, struct folio *to)
{
#if KV_BEFORE(6, 12)
	return -EOPNOTSUPP;
#else
	int ret;

	xa_init_flags(&mapping->i_pages, XA_FLAGS_LOCK_IRQ);
	ret = xa_err(xa_store_irq(&mapping->i_pages, 0, folio, GFP_KERNEL));
	if (ret)
		return ret;
	folio->mapping = mapping;
	folio->index = 0;
	folio_ref_add(folio, folio_nr_pages(folio));
	ret = folio_migrate_mapping(mapping, to, folio, 0);
	folio_ref_sub(ret ? folio : to, folio_nr_pages(folio));
	folio->mapping = NULL;
	to->mapping = NULL;
	xa_destroy(&mapping->i_pages);
	return ret;
#endif
}

#endif /* _MEMCG_SPLIT_QUEUE_VERSIONS_H */
