/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the suite flow_block_list stops an actor.
 *
 * flow_offload.c includes this right above flow_block_cb_setup_simple().  What
 * that does with a driver's list goes through here: an actor can be held before
 * each step, and get no memory.  For all others nothing changes.
 */
#ifndef _FLOW_BLOCK_LIST_KUNIT_H
#define _FLOW_BLOCK_LIST_KUNIT_H

#include <kunit/actors.h>

enum fbl_place {
	FBL_WALK,	/* before the list is walked */
	FBL_ADD,	/* before something is added to it */
	FBL_DEL,	/* before something is deleted from it */
	FBL_ALLOC,	/* where memory is allocated, and there is none */
};

static struct fbl {
	struct kunit_actor *actor;
	enum fbl_place place;	/* there this actor is stopped, */
	bool came;		/* and it was there */
} fbl;

static bool fbl_is_at(enum fbl_place place)
{
	if (!fbl.actor || fbl.actor->task != current || fbl.place != place)
		return false;
	fbl.came = true;
	return true;
}

static void fbl_stop_at(enum fbl_place place)
{
	if (fbl_is_at(place))
		kunit_actor_pause(fbl.actor);
}

/* A macro is not expanded in itself: these names are the functions'. */
#define flow_block_cb_is_busy(cb, ident, list)				\
	(fbl_stop_at(FBL_WALK), flow_block_cb_is_busy(cb, ident, list))
#define list_add_tail(new, head)					\
	(fbl_stop_at(FBL_ADD), list_add_tail(new, head))
#define list_del(entry)							\
	(fbl_stop_at(FBL_DEL), list_del(entry))
#define flow_block_cb_alloc(cb, ident, priv, release)			\
	(fbl_is_at(FBL_ALLOC) ? ERR_PTR(-ENOMEM) :			\
	 flow_block_cb_alloc(cb, ident, priv, release))

#endif /* _FLOW_BLOCK_LIST_KUNIT_H */
