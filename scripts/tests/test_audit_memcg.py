# SPDX-License-Identifier: GPL-2.0-only
"""The rules of memcg-uncharge on small made-up files of each shape, on mutants of them, and on real trees.

What the patches look at is as in those trees, the rest is made up.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from conftest import MakeTree, by_status, coccicheck
from kmendlib.tree import manifest
from kmendlib.tree.audit import FindingAudit, Status, audit
from kmendlib.tree.tree import Tree

BUG = next(bug for bug in manifest.load().bugs if bug.id == "memcg-uncharge")
FIRST = "memcg-uncharge/uncharge-first"
UNQUEUE = "memcg-uncharge/unlocked-unqueue"

FOUR_SITES = "memcg-uncharge/v4.19-four-sites.patch"
RECLAIM_SITES = "memcg-uncharge/v4.19-reclaim-sites.patch"
ACTIVE_LIST = "memcg-uncharge/v4.19-active-list.patch"

HUGE, VMSCAN, SWAP, PAGE_ALLOC = "mm/huge_memory.c", "mm/vmscan.c", "mm/swap.c", "mm/page_alloc.c"
MEMCONTROL, MEMCONTROL_V1 = "mm/memcontrol.c", "mm/memcontrol-v1.c"

UNCHARGE = "mem_cgroup_uncharge(page);"
END = "(*get_compound_page_dtor(page))(page);"

# Whose are the queues? 4.19's, v5.4's, the reported vendor's, and v7.2's.
NODES = """\
void free_transhuge_page(struct page *page)
{
	struct pglist_data *pgdata = NODE_DATA(page_to_nid(page));

	spin_lock(&pgdata->split_queue_lock);
	list_del(page_deferred_list(page));
	spin_unlock(&pgdata->split_queue_lock);
	free_compound_page(page);
}

static struct shrinker deferred_split_shrinker = {
	.flags = SHRINKER_NUMA_AWARE,
};
"""

POINTER = """\
static struct deferred_split *get_deferred_split_queue(struct page *page)
{
	struct mem_cgroup *memcg = compound_head(page)->mem_cgroup;

	if (memcg)
		return &memcg->deferred_split_queue;
	return &NODE_DATA(page_to_nid(page))->deferred_split_queue;
}

void free_transhuge_page(struct page *page)
{
	struct deferred_split *ds_queue = get_deferred_split_queue(page);

	spin_lock(&ds_queue->split_queue_lock);
	list_del(page_deferred_list(page));
	spin_unlock(&ds_queue->split_queue_lock);
	free_compound_page(page);
}
"""

FILLED = """\
static void get_deferred_split_queue(struct page *page, struct deferred_split *ds_queue)
{
	struct mem_cgroup *memcg = compound_head(page)->mem_cgroup;

	ds_queue->split_queue_lock = memcg ? &memcg->split_queue_lock : &page_pgdat(page)->split_queue_lock;
}

void free_transhuge_page(struct page *page)
{
	struct deferred_split ds_queue;

	get_deferred_split_queue(page, &ds_queue);
	spin_lock(ds_queue.split_queue_lock);
	list_del(page_deferred_list(page));
	spin_unlock(ds_queue.split_queue_lock);
	free_compound_page(page);
}
"""

LIST_LRU = """\
static bool split_underused_thp = true;

static int __init thp_shrinker_init(void)
{
	deferred_split_shrinker = shrinker_alloc(SHRINKER_NUMA_AWARE |
						 SHRINKER_MEMCG_AWARE,
						 "thp-deferred_split");
	return 0;
}
"""

EARLY_VMSCAN = """\
static unsigned long shrink_page_list(struct list_head *page_list)
{
	LIST_HEAD(free_pages);

	while (!list_empty(page_list)) {
		struct page *page = lru_to_page(page_list);

		if (page_mapped(page))
			goto activate_locked;

		/*
		 * Is there need to periodically free_page_list? It would
		 * appear not as the counts should be low
		 */
		if (unlikely(PageTransHuge(page))) {
			mem_cgroup_uncharge(page);
			(*get_compound_page_dtor(page))(page);
		} else
			list_add(&page->lru, &free_pages);
		continue;

activate_locked:
		/* Not a candidate for swapping, so reclaim swap space. */
		unlock_page(page);
	}
	mem_cgroup_uncharge_list(&free_pages);
	return 0;
}

static void putback_inactive_pages(struct lruvec *lruvec, struct list_head *page_list)
{
	while (!list_empty(page_list)) {
		struct page *page = lru_to_page(page_list);

		if (put_page_testzero(page)) {
			__ClearPageLRU(page);
			__ClearPageActive(page);
			del_page_from_lru_list(page, lruvec, lru);

			if (unlikely(PageCompound(page))) {
				spin_unlock_irq(&pgdat->lru_lock);
				mem_cgroup_uncharge(page);
				(*get_compound_page_dtor(page))(page);
				spin_lock_irq(&pgdat->lru_lock);
			} else
				list_add(&page->lru, &pages_to_free);
		}
	}
}

static void move_active_pages_to_lru(struct lruvec *lruvec, struct list_head *list)
{
	while (!list_empty(list)) {
		page = lru_to_page(list);

		if (put_page_testzero(page)) {
			__ClearPageLRU(page);
			__ClearPageActive(page);
			del_page_from_lru_list(page, lruvec, lru);

			if (unlikely(PageCompound(page))) {
				spin_unlock_irq(&pgdat->lru_lock);
				mem_cgroup_uncharge(page);
				(*get_compound_page_dtor(page))(page);
				spin_lock_irq(&pgdat->lru_lock);
			} else
				list_add(&page->lru, pages_to_free);
		} else {
			nr_moved += nr_pages;
		}
	}
}
"""

EARLY_SWAP = """\
static void __page_cache_release(struct page *page)
{
	if (PageLRU(page)) {
		del_page_from_lru_list(page, lruvec, page_off_lru(page));
		spin_unlock_irqrestore(zone_lru_lock(zone), flags);
	}
	__ClearPageWaiters(page);
	mem_cgroup_uncharge(page);
}

static void __put_single_page(struct page *page)
{
	__page_cache_release(page);
	free_unref_page(page);
}

static void __put_compound_page(struct page *page)
{
	compound_page_dtor *dtor;

	if (!PageHuge(page))
		__page_cache_release(page);
	dtor = get_compound_page_dtor(page);
	(*dtor)(page);
}
"""

LATE_SWAP = """\
static void __page_cache_release(struct page *page)
{
	__ClearPageWaiters(page);
}

static void __put_single_page(struct page *page)
{
	__page_cache_release(page);
	mem_cgroup_uncharge(page);
	free_unref_page(page);
}

static void __put_compound_page(struct page *page)
{
	if (!PageHuge(page))
		__page_cache_release(page);
	destroy_compound_page(page);
}
"""

IDLE_PAGE_ALLOC = """\
/*
 * This usage means that zero-order pages may not be compound.
 */

void free_compound_page(struct page *page)
{
	__free_pages_ok(page, compound_order(page));
}

void prep_compound_page(struct page *page, unsigned int order)
{
}
"""


def edit(text: str, old: str, new: str, which: int | None = None) -> str:
    """Replace all of `old`, or only its `which`-th occurrence."""
    parts = text.split(old)
    assert len(parts) > 1
    if which is None:
        return new.join(parts)
    return old.join(parts[: which + 1]) + new + old.join(parts[which + 1 :])


LATE_VMSCAN = edit(EARLY_VMSCAN, UNCHARGE, "")
LATE_PAGE_ALLOC = edit(IDLE_PAGE_ALLOC, "\t__free", f"\t{UNCHARGE}\n\t__free")

FOLIO_VMSCAN = """\
static unsigned int shrink_folio_list(struct list_head *folio_list)
{
	while (!list_empty(folio_list)) {
		struct folio *folio = lru_to_folio(folio_list);

		folio_unqueue_deferred_split(folio);
		if (folio_batch_add(&free_folios, folio) == 0) {
			mem_cgroup_uncharge_folios(&free_folios);
			try_to_unmap_flush();
			free_unref_folios(&free_folios);
		}
	}
	mem_cgroup_uncharge_folios(&free_folios);
	free_unref_folios(&free_folios);
	return 0;
}

static unsigned int move_folios_to_lru(struct lruvec *lruvec, struct list_head *list)
{
	while (!list_empty(list)) {
		struct folio *folio = lru_to_folio(list);

		if (unlikely(folio_put_testzero(folio))) {
			folio_unqueue_deferred_split(folio);
			if (folio_batch_add(&free_folios, folio) == 0) {
				mem_cgroup_uncharge_folios(&free_folios);
				free_unref_folios(&free_folios);
			}
		}
	}
	return 0;
}
"""

FOLIO_SWAP = """\
void __folio_put(struct folio *folio)
{
	page_cache_release(folio);
	folio_unqueue_deferred_split(folio);
	mem_cgroup_uncharge(folio);
	free_unref_page(&folio->page, folio_order(folio));
}

void folios_put_refs(struct folio_batch *folios, unsigned int *refs)
{
	for (i = 0, j = 0; i < folios->nr; i++) {
		struct folio *folio = folios->folios[i];

		folio_unqueue_deferred_split(folio);
		__page_cache_release(folio, &lruvec, &flags);
	}
	mem_cgroup_uncharge_folios(folios);
	free_unref_folios(folios);
}
"""

FREE_UNREF = """\
void free_unref_folios(struct folio_batch *folios)
{
	for (i = 0; i < folios->nr; i++) {
		struct folio *folio = folios->folios[i];

		free_pages_prepare(&folio->page, folio_order(folio));
	}
}
"""

DESTROY_SWAP = """\
static void __folio_put_large(struct folio *folio)
{
	if (!folio_test_hugetlb(folio))
		__page_cache_release(folio);
	destroy_large_folio(folio);
}
"""

DESTROY_VMSCAN = edit(
    edit(edit(LATE_VMSCAN, END, "destroy_large_folio(folio);"), "shrink_page_list", "shrink_folio_list"),
    "move_active_pages_to_lru",
    "move_folios_to_lru",
)

DESTROY_PAGE_ALLOC = """\
void destroy_large_folio(struct folio *folio)
{
	if (folio_test_large_rmappable(folio))
		folio_undo_large_rmappable(folio);

	mem_cgroup_uncharge(folio);
	free_the_page(&folio->page, folio_order(folio));
}
"""

Files = dict[str, str]


def v419(huge: str, **other: str) -> Files:
    """4.19 that uncharges first, with the given queues; other files by their names without dots."""
    files = {HUGE: huge, VMSCAN: EARLY_VMSCAN, SWAP: EARLY_SWAP, PAGE_ALLOC: IDLE_PAGE_ALLOC}
    return files | {f"mm/{name}.c": text for name, text in other.items()}


def v54(huge: str = POINTER, **other: str) -> Files:
    """v5.4 to v6.5: the destructor uncharges."""
    return v419(huge, vmscan=LATE_VMSCAN, swap=LATE_SWAP, page_alloc=LATE_PAGE_ALLOC) | {
        f"mm/{name}.c": text for name, text in other.items()
    }


def v66(**other: str) -> Files:
    """v6.6: the same with folios."""
    return v419(POINTER, vmscan=DESTROY_VMSCAN, swap=DESTROY_SWAP, page_alloc=DESTROY_PAGE_ALLOC) | {
        f"mm/{name}.c": text for name, text in other.items()
    }


def v612(huge: str = LIST_LRU, **other: str) -> Files:
    """v6.10 and later: no destructors."""
    return v419(huge, vmscan=FOLIO_VMSCAN, swap=FOLIO_SWAP, page_alloc=FREE_UNREF) | {
        f"mm/{name}.c": text for name, text in other.items()
    }


def look(root: Path, files: Files, id: str = FIRST) -> FindingAudit:
    (root / "mm").mkdir()
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    finding = next(finding for finding in BUG.findings if finding.id == id)
    return audit(Tree.open(root), [dataclasses.replace(BUG, findings=(finding,))]).bugs[0].findings[0]


def only(which: int) -> str:
    """vmscan.c in which one of three places uncharges first."""
    return edit(edit(edit(EARLY_VMSCAN, UNCHARGE, "KEEP", which), UNCHARGE, ""), "KEEP", UNCHARGE)


MOVED = {"swap": LATE_SWAP, "page_alloc": LATE_PAGE_ALLOC}

AFFECTED: dict[str, tuple[Files, str | None]] = {
    "four places": (v419(POINTER), FOUR_SITES),
    "four places, the reported vendor's queues": (v419(FILLED), FOUR_SITES),
    "four places, queues known by the shrinker alone": (v419(LIST_LRU), FOUR_SITES),
    "reclaim alone": (v419(FILLED, **MOVED), RECLAIM_SITES),
    "active list alone": (v419(FILLED, vmscan=only(2), **MOVED), ACTIVE_LIST),
    "inactive list alone": (v54(vmscan=only(1)), None),
    "shrink_page_list() alone": (v54(vmscan=only(0)), None),
    "put_page() alone": (v54(swap=EARLY_SWAP), None),
    "on one path only": (v54(vmscan=edit(LATE_VMSCAN, END, f"if (x)\n\t{UNCHARGE}\n\t{END}", 2)), None),
    "in a helper": (
        v54(
            vmscan="static void drop(struct page *page)\n{\n\tmem_cgroup_uncharge(page);\n}\n\n"
            + edit(LATE_VMSCAN, END, f"drop(page);\n\t{END}", 2)
        ),
        None,
    ),
    "in the destructor of large folios": (
        v66(page_alloc=edit(DESTROY_PAGE_ALLOC, "{\n", "{\n\tmem_cgroup_uncharge(folio);\n")),
        None,
    ),
    "in free_transhuge_page()": (
        v54(edit(POINTER, "\tfree_compound", f"\t{UNCHARGE}\n\tfree_compound")),
        None,
    ),
    "folio, other way round": (
        v612(
            swap=edit(
                edit(FOLIO_SWAP, "\tmem_cgroup_uncharge(folio);\n", ""),
                "\tpage_cache",
                "\tmem_cgroup_uncharge(folio);\n\tpage_cache",
            )
        ),
        None,
    ),
    "batch before its folios": (
        v612(
            swap=edit(
                edit(FOLIO_SWAP, "\tmem_cgroup_uncharge_folios(folios);\n", ""),
                "\tfor (",
                "\tmem_cgroup_uncharge_folios(folios);\n\tfor (",
            )
        ),
        None,
    ),
    "batch unqueued where it is freed": (
        v612(
            swap=edit(FOLIO_SWAP, "\t\tfolio_unqueue_deferred_split(folio);\n", ""),
            page_alloc=edit(FREE_UNREF, "\t\tfree_", "\t\tfolio_unqueue_deferred_split(folio);\n\t\tfree_"),
        ),
        None,
    ),
}

FIXED = {
    "the destructor uncharges": v54(),
    "the reported vendor's queues": v54(FILLED),
    "large folios": v66(),
    "no destructors": v612(),
    "uncharge of another page before": v54(
        vmscan=edit(LATE_VMSCAN, END, f"mem_cgroup_uncharge(other);\n\tfree_unref_page(other);\n\t{END}", 2)
    ),
}

UNKNOWN = {
    "nobody uncharges": v54(page_alloc=IDLE_PAGE_ALLOC),
    "nobody is seen to uncharge": {name: text for name, text in v54().items() if name != PAGE_ALLOC},
    "no queue in sight": v54("void f(void)\n{\n}\n"),
    "no reclaim in sight": v54(vmscan="void f(void)\n{\n}\n"),
    "no put_page() in sight": v54(swap="void f(void)\n{\n}\n"),
    "a path of reclaim renamed": v54(vmscan=edit(LATE_VMSCAN, "move_active_pages_to_lru", "move_some")),
    "a path of reclaim that does not parse": v54(vmscan=edit(LATE_VMSCAN, "nr_moved += nr_pages;", "%% (( nr_moved;")),
    "put_page() renamed": v54(swap=edit(LATE_SWAP, "__put_compound_page", "put_it")),
    "destructor behind a helper": v54(vmscan=edit(only(2), END, "free_huge(page);", 2)),
    "uncharge behind a pointer": v54(
        vmscan=edit(LATE_VMSCAN, END, f"f = mem_cgroup_uncharge;\n\tf(page);\n\t{END}", 2)
    ),
    "batch that nobody unqueues": v612(swap=edit(FOLIO_SWAP, "folio_unqueue_deferred_split(folio);", "", 1)),
    "empty": v54(vmscan=""),
}


@pytest.mark.parametrize("name", AFFECTED)
def test_affected(make_tree: MakeTree, name: str) -> None:
    files, fix = AFFECTED[name]
    found = look(make_tree(), files)
    assert found.status is Status.AFFECTED, found
    assert found.fix == ((fix,) if fix else ())


@pytest.mark.parametrize(("files", "status"), by_status(FIXED=FIXED, UNKNOWN=UNKNOWN))
def test_not_affected(make_tree: MakeTree, files: Files, status: Status) -> None:
    found = look(make_tree(), files)
    assert found.status is status, found


@pytest.mark.parametrize("name", [HUGE, VMSCAN, SWAP])
def test_file_missing(make_tree: MakeTree, name: str) -> None:
    found = look(make_tree(), {other: text for other, text in v54().items() if other != name})
    assert found.status is Status.UNKNOWN
    assert "the file is not there" in {item.reason for item in found.evidence}


def test_each_path_is_named(make_tree: MakeTree) -> None:
    files = v419(POINTER)
    found = look(make_tree(), files)
    named = {(item.file, item.line) for item in found.evidence}
    for name, call in ((VMSCAN, UNCHARGE), (SWAP, "\t__page_cache_release(page);\n\tdtor")):
        text = files[name]
        at = [text[: start + 1].count("\n") + 1 for start in range(len(text)) if text.startswith(call, start)]
        assert at and {(name, line) for line in at} <= named
    assert len([item for item in found.evidence if item.file != HUGE]) == 4


def test_latent_without_memcg_queues(make_tree: MakeTree) -> None:
    found = look(make_tree(), v419(NODES))
    assert found.status is Status.LATENT
    assert all("belong to the nodes" in item.reason for item in found.evidence)


def test_not_applicable_with_neither(make_tree: MakeTree) -> None:
    assert look(make_tree(), v54(NODES)).status is Status.NOT_APPLICABLE


@pytest.mark.parametrize("version", ["3.18.1", "6.12.1"])
def test_older_than_the_queues(make_tree: MakeTree, version: str) -> None:
    """The source tells, whatever the Makefile says."""
    files = v419("static void __split_huge_page_refcount(struct page *page)\n{\n}\n")
    assert look(make_tree(version=version), files).status is Status.NOT_APPLICABLE


# The memcg of a page that is not free yet.

SWAPOUT = """\
void mem_cgroup_swapout(struct folio *folio, swp_entry_t entry)
{
	if (!do_memsw_account())
		return;

	mod_memcg_state(swap_memcg, MEMCG_SWAP, nr_entries);

	folio_unqueue_deferred_split(folio);
	folio->memcg_data = 0;

	if (!mem_cgroup_is_root(memcg))
		page_counter_uncharge(&memcg->memory, nr_entries);
}
"""

MIGRATE = """\
void mem_cgroup_migrate(struct folio *old, struct folio *new)
{
	commit_charge(new, memcg);

	WARN_ON_ONCE(folio_unqueue_deferred_split(old));
	old->memcg_data = 0;
}
"""

MOVE = """\
static int mem_cgroup_move_account(struct page *page, struct mem_cgroup *to)
{
	if (compound && page_deferred_split_queued(page))
		return -EBUSY;
	page->mem_cgroup = to;
	return 0;
}
"""

UNRELATED = "static void commit_charge(struct folio *folio)\n{\n\tfolio->memcg_data = x;\n}\n"
CALL = "\tfolio_unqueue_deferred_split(folio);\n"
LARGE = "\tif (folio_test_large(folio) && folio_test_large_rmappable(folio))\n\t\tfolio_undo_large_rmappable(folio);\n"
WHOLE = "static bool thp_underused(struct folio *folio)\n{\n\treturn split_underused_thp;\n}\n"


def control(swapout: str = SWAPOUT, migrate: str = MIGRATE, huge: str = POINTER + WHOLE) -> Files:
    return {HUGE: huge, MEMCONTROL: UNRELATED + swapout + migrate}


@pytest.mark.parametrize(
    ("files", "status"),
    [
        (control(), Status.FIXED),
        (control(huge=POINTER), Status.FIXED),
        (control(edit(SWAPOUT, CALL, "")), Status.AFFECTED),
        (control(edit(SWAPOUT, CALL, ""), huge=LIST_LRU + WHOLE), Status.AFFECTED),
        (control(edit(SWAPOUT, CALL, ""), huge=POINTER), Status.LATENT),
        (control(edit(SWAPOUT, CALL, ""), huge=NODES), Status.NOT_APPLICABLE),
        (control(migrate=edit(MIGRATE, "\tWARN_ON_ONCE(folio_unqueue_deferred_split(old));\n", "")), Status.AFFECTED),
        (control(edit(SWAPOUT, CALL, "\t/* folio_unqueue_deferred_split(folio); */\n")), Status.AFFECTED),
        (control(edit(SWAPOUT, CALL, "\tif (x)\n\t" + CALL)), Status.AFFECTED),
        (control(edit(SWAPOUT, CALL, LARGE)), Status.FIXED),
        (control(edit(SWAPOUT, CALL, edit(LARGE, "_rmappable(folio))", "_rmappable(other))"))), Status.AFFECTED),
        (control(edit(SWAPOUT, CALL, "\tfolio_unqueue_deferred_split(other);\n")), Status.AFFECTED),
        (control(edit(edit(SWAPOUT, CALL, ""), "memcg_data = 0;\n", "memcg_data = 0;\n" + CALL)), Status.AFFECTED),
        (control(migrate=MOVE), Status.FIXED),
        (control(migrate=edit(MOVE, "compound && page_deferred_split_queued(page)", "busy")), Status.AFFECTED),
        (control(migrate=""), Status.FIXED),
        (control(edit(SWAPOUT, "mem_cgroup_swapout", "swap_it_out")), Status.UNKNOWN),
        (control(edit(SWAPOUT, "folio_unqueue_deferred_split", "take_it_off")), Status.UNKNOWN),
        (control(migrate=edit(MIGRATE, "folio_unqueue_deferred_split", "take_it_off")), Status.UNKNOWN),
        (control("", ""), Status.UNKNOWN),
        (control(huge="void f(void)\n{\n}\n"), Status.UNKNOWN),
        (control(SWAPOUT.replace("{\n", "{\n\t%% ((\n", 1)), Status.UNKNOWN),
        (control("") | {MEMCONTROL_V1: SWAPOUT.replace("mem_cgroup_swapout", "__memcg1_swapout")}, Status.FIXED),
        (control("") | {MEMCONTROL_V1: edit(SWAPOUT, CALL, "")}, Status.AFFECTED),
    ],
    ids=[
        "unqueued first",
        "unqueued first, whole pages not queued",
        "swapout of a queued folio",
        "swapout of a queued folio, list_lru",
        "queued folios are split before",
        "queues of the nodes",
        "migration of a queued folio",
        "unqueue in a comment",
        "unqueue on one path",
        "unqueue of a large folio",
        "unqueue where another folio is large",
        "unqueue of another folio",
        "unqueue too late",
        "queued page not moved",
        "queued page moved",
        "no migration",
        "swapout renamed",
        "unqueued by another name, perhaps",
        "unqueued by another name for a migration, perhaps",
        "nothing in sight",
        "no queue in sight",
        "swapout does not parse",
        "swapout in memcontrol-v1.c",
        "faulty swapout in memcontrol-v1.c",
    ],
)
def test_memcg_changes(make_tree: MakeTree, files: Files, status: Status) -> None:
    found = look(make_tree(), files, UNQUEUE)
    assert found.status is status, found


# As "make coccicheck" runs them, over a folder.
@pytest.mark.parametrize(
    ("files", "lines"),
    [(v419(POINTER), 5), (v419(NODES), 0), (v54(), 0), (v612(), 0)],
    ids=["affected", "latent", "fixed", "folios"],
)
def test_report_mode_names_faults_alone(make_tree: MakeTree, files: Files, lines: int) -> None:
    root = make_tree()
    look(root, files)
    said = coccicheck("memcg-uncharge", "--dir", root / "mm")
    assert len(said) == lines
    assert all(f"{FIRST}: affected: " in line for line in said)
