// SPDX-License-Identifier: GPL-2.0-only
/*
 * The suite nfsd_cb_shutdown's way into fs/nfsd/nfs4state.c, which includes this
 * before its own code.
 */
#include "nfsd_cb_shutdown_state.h"

void (*ncs_gate)(struct nfsd4_callback *cb);
bool ncs_accepted;

static void nfsd_break_one_deleg(struct nfs4_delegation *dp);

void ncs_break_one_deleg(struct nfs4_delegation *dp)
{
	nfsd_break_one_deleg(dp);
}

static const struct kv_lease_ops nfsd_lease_mng_ops;
const struct kv_lease_ops *const ncs_lease_ops = &nfsd_lease_mng_ops;

#ifndef NCS_NO_RECALL_ANY
static void deleg_reaper(struct nfsd_net *nn);

void ncs_deleg_reaper(struct nfsd_net *nn)
{
	deleg_reaper(nn);
}
#endif

#ifndef NCS_NO_COURTESY
struct laundry_time;
static void nfs4_get_client_reaplist(struct nfsd_net *nn,
				     struct list_head *reaplist,
				     struct laundry_time *lt);

void ncs_get_client_reaplist(struct nfsd_net *nn, struct list_head *reaplist)
{
	/* Leases that began before the first are over; the second is when. */
	time64_t lt[2] = { ktime_get_boottime_seconds() + 1, 1 };

	nfs4_get_client_reaplist(nn, reaplist, (struct laundry_time *)lt);
}
#endif

static void nfsd4_lm_notify(struct file_lock *fl);

void ncs_lm_notify(struct file_lock *fl)
{
	nfsd4_lm_notify(fl);
}

static void ncs_pass_gate(struct nfsd4_callback *cb)
{
	void (*gate)(struct nfsd4_callback *cb) = READ_ONCE(ncs_gate);

	if (gate)
		gate(cb);
}

#define nfsd4_run_cb(cb)						\
	(ncs_pass_gate(cb), ncs_accepted = kv_nfsd4_run_cb(cb))
#define nfsd4_try_run_cb(cb)	(ncs_pass_gate(cb), nfsd4_try_run_cb(cb))
