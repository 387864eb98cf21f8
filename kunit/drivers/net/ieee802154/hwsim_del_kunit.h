/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What becomes of a radio's pib, for the suite hwsim_del.
 *
 * mac802154_hwsim.c includes this above its functions.  While the suite looks,
 * a pib that they free is noted and kept: its memory goes to nobody else, so
 * one that is freed twice is seen, and does no harm.
 */
#ifndef _HWSIM_DEL_KUNIT_H
#define _HWSIM_DEL_KUNIT_H

#include <linux/rtnetlink.h>
#include <linux/slab.h>

#define HDK_MAX_GIVEN	16

static struct hdk {
	bool looks;
	struct hwsim_pib *given[HDK_MAX_GIVEN];
	int nr_given;
	struct hwsim_phy *phy;	/* of this radio a channel is set */
	int sets;		/* how often */
	int nr_set;		/* how often it was */
	int nr_stale;		/* a pib in use that was freed already */
	struct hwsim_pib *last;
} hdk;

static int hwsim_hw_channel(struct ieee802154_hw *hw, u8 page, u8 channel);
static int hwsim_subscribe_all_others(struct hwsim_phy *phy);

static void hdk_give(struct hwsim_pib *pib)
{
	if (!hdk.looks)
		kfree_rcu(pib, rcu);
	else if (hdk.nr_given < HDK_MAX_GIVEN)
		hdk.given[hdk.nr_given++] = pib;
}

static void hdk_give_edge(struct hwsim_edge *e)
{
	kfree_rcu(e, rcu);
}

static void hdk_give_einfo(struct hwsim_edge_info *einfo)
{
	kfree_rcu(einfo, rcu);
}

static inline void hdk_kfree(const void *object)
{
	kfree(object);
}

#undef kfree_rcu
#define kfree_rcu(ptr, ...)						\
do {									\
	typeof(ptr) hdk_ptr = (ptr);					\
									\
	if (__same_type(*hdk_ptr, struct hwsim_pib))			\
		hdk_give((void *)hdk_ptr);				\
	else if (__same_type(*hdk_ptr, struct hwsim_edge))		\
		hdk_give_edge((void *)hdk_ptr);				\
	else								\
		hdk_give_einfo((void *)hdk_ptr);			\
} while (0)

#undef kfree
#define kfree(ptr)							\
do {									\
	typeof(ptr) hdk_ptr = (ptr);					\
									\
	if (__same_type(*hdk_ptr, struct hwsim_pib))			\
		hdk_give((void *)hdk_ptr);				\
	else								\
		hdk_kfree(hdk_ptr);					\
} while (0)

static int hdk_times_given(const struct hwsim_pib *pib)
{
	int i, times = 0;

	for (i = 0; i < hdk.nr_given; i++)
		times += hdk.given[i] == pib;
	return times;
}

/* Do what the stack does with a radio, under RTNL: set its channel. */
static void hdk_set_channels(struct hwsim_phy *phy)
{
	int i;

	hdk.last = rcu_access_pointer(phy->pib);
	for (i = 0; i <= hdk.sets; i++) {
		hdk.nr_stale += !!hdk_times_given(hdk.last);
		if (i == hdk.sets)
			break;
		hdk.nr_set += !hwsim_hw_channel(phy->hw, 0, 11 + i);
		hdk.last = rcu_access_pointer(phy->pib);
	}
}

/* A radio that the suite adds cannot be made known to the others. */
static int hdk_subscribe(struct hwsim_phy *phy)
{
	if (!hdk.looks)
		return hwsim_subscribe_all_others(phy);
	rtnl_lock();
	hdk_set_channels(phy);
	rtnl_unlock();
	return -ENOMEM;
}

#endif /* _HWSIM_DEL_KUNIT_H */
