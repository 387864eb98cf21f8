/* SPDX-License-Identifier: GPL-2.0-only */
/* What the suite nfsd_cb_shutdown reaches of fs/nfsd/nfs4state.c. */
#ifndef _NFSD_CB_SHUTDOWN_STATE_H
#define _NFSD_CB_SHUTDOWN_STATE_H

#include "nfsd_cb_shutdown_versions.h"

struct file_lock;
struct nfs4_delegation;
struct nfsd_net;
struct nfsd4_callback;

/* Whatever nfs4state.c runs a callback for comes here first, if this is set. */
extern void (*ncs_gate)(struct nfsd4_callback *cb);

/* Was the last one taken? */
extern bool ncs_accepted;

void ncs_break_one_deleg(struct nfs4_delegation *dp);

/* What nfsd's leases do when they are broken, and when they go. */
extern const struct kv_lease_ops *const ncs_lease_ops;

void ncs_deleg_reaper(struct nfsd_net *nn);

/* What the laundromat does with clients, all of whose leases are over. */
void ncs_get_client_reaplist(struct nfsd_net *nn, struct list_head *reaplist);

void ncs_lm_notify(struct file_lock *fl);

#endif /* _NFSD_CB_SHUTDOWN_STATE_H */
