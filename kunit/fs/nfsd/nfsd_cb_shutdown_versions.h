/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What changed, from v4.19 to v7.x, in SUNRPC and in nfsd's callbacks.  See
 * <kunit/kernel_versions.h>.
 */
#ifndef _NFSD_CB_SHUTDOWN_VERSIONS_H
#define _NFSD_CB_SHUTDOWN_VERSIONS_H

#include <kunit/kernel_versions.h>

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

/* How many use the client: it is not expired then. */
#if KV_BEFORE(5, 3)
#define cl_rpc_users		cl_refcount
#endif

/* Does a call that ends with an I/O error say that the channel is down? */
#define KV_NFSD_EIO_MARKS_DOWN	(!KV_BEFORE(5, 4))

/*
 * Does who recalls keep its reference where the queue refuses?  Commit
 * 230ca758453c ("nfsd: put dl_stid if fail to queue dl_recall") is in 6.1.y.
 * A delegation is recalled once there.
 */
#define KV_NFSD_KEEPS_REFUSED	KV_BEFORE(6, 1)

/* Was the callback queued?  Some trees do not say so: then, if it was idle. */
#define kv_nfsd4_run_cb(cb)						\
({									\
	bool __idle = !work_pending(&(cb)->cb_work);			\
									\
	__builtin_choose_expr(						\
		__builtin_types_compatible_p(typeof(nfsd4_run_cb(cb)), void), \
		((void)nfsd4_run_cb(cb), __idle), nfsd4_run_cb(cb));	\
})

/* The program of NFSv4 callbacks, in the file that has it.  Each net has one. */
#if KV_BEFORE(7, 1)
#define kv_cb_program(net)	(&cb_program)
#else
#define kv_cb_program(net) \
	(&((struct nfsd_net *)net_generic(net, nfsd_net_id))->nfsd_cb->program)
#endif

/* Leases have a type of their own. */
#if KV_BEFORE(6, 9)
#define kv_lease		file_lock
#define kv_lease_ops		lock_manager_operations
#define KV_LEASE(fl, member)	((fl)->fl_##member)
#define kv_locks_alloc_lease()	locks_alloc_lock()
#define kv_locks_free_lease(fl)	locks_free_lock(fl)
#else
#include <linux/filelock.h>

#define kv_lease		file_lease
#define kv_lease_ops		lease_manager_operations
#define KV_LEASE(fl, member)	((fl)->c.flc_##member)
#define kv_locks_alloc_lease()	locks_alloc_lease()
#define kv_locks_free_lease(fl)	locks_free_lease(fl)
#endif

/* nfsd gives delegations for writing, and locks.c takes leases for them. */
#define KV_WRITE_DELEGATIONS	(!KV_BEFORE(6, 6))

#ifdef EMPTY_VMA_FLAGS
#define KV_NO_VMA_FLAGS		EMPTY_VMA_FLAGS
#else
#define KV_NO_VMA_FLAGS		0
#endif

#endif /* _NFSD_CB_SHUTDOWN_VERSIONS_H */
