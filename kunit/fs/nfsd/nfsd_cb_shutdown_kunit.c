// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of how an NFSv4 client's callbacks end: nfsd4_shutdown_callback()
 * returns when none is left, and neither before that nor never.
 *
 * fs/nfsd/nfs4callback.c includes this file, and names its workqueue in
 * NCS_CALLBACK_WQ where it has one for all clients.  NCS_NO_COUNT says that it
 * does not count callbacks, NCS_NO_COURTESY that it knows no courtesy clients,
 * NCS_NO_RECALL_ANY that no client is asked for delegations: what is about these
 * is skipped then.  The clients are made up, and so are the delegations that
 * their callbacks recall.  The callbacks are sent by rpciod through a real RPC
 * client, whose transport takes every call and never answers: a callback stays
 * in flight until the test, or the shutdown, ends it.
 *
 * ->release() of a callback can be parked.  It runs on rpciod, when the task is
 * off the RPC client's list already.  A shutdown that does not wait for the
 * count, but for the callback workqueue and that list alone, returns then.
 *
 * Every wait is bounded.  A client that cannot be shut down is given its count
 * by force, so that the next case starts clean; what a thread may still use is
 * never freed.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/shmem_fs.h>
#include <linux/string.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "nfsd_cb_shutdown_state.h"

#define NCS_TIMEOUT	(10 * HZ)	/* no single step may take longer */
#define NCS_PARK_MAX	(60 * HZ)	/* a parked ->release() goes on by itself */
#define NCS_CALL_MAX	(600 * HZ)	/* no call times out within a case */
#define NCS_SLOTS	16
#define NCS_MAX_DELEGS	8
#define NCS_MAX_CLIENTS	2
#define NCS_THREADS	(NCS_MAX_DELEGS + 4)
#define NCS_OWNER_HASH_SIZE	256		/* nfs4state.c's own */
#define NCS_XPRT_IDENT	0x6e63		/* no real transport has this number */

struct ncs_client;

/* A delegation of a made-up client; its callback is dp.dl_recall. */
struct ncs_deleg {
	struct nfs4_delegation dp;	/* first, as its stateid is */
	struct completion parked;	/* ->release() has come */
	struct completion gate;		/* ->release() may go on */
	atomic_t again;			/* how often ->done() restarts the call */
	atomic_t prepared;
	atomic_t released;
	atomic_t over;			/* ->release() has nothing left to do */
	atomic_t freed;			/* the last reference was put */
	int accepted;			/* how often nfsd4_run_cb() took it */
	bool held;			/* the client's own reference */
};

struct ncs_client {
	struct nfs4_client clp;
	struct nfs4_file file;
	atomic_t sent;			/* calls that the transport has taken */
	struct work_struct blocker;	/* holds up the callback workqueue */
	struct completion blocked;
	struct completion unblock;
	struct task_struct *closer;	/* the thread that shuts down */
	struct completion closed;
	int count_left;			/* what it found when it was done */
	bool stateids_left;
	int nr_delegs;
	struct ncs_deleg *delegs[NCS_MAX_DELEGS];
	struct nfsd_net *nn;		/* on whose list of clients it is */
	spinlock_t *guard;		/* who expires it takes this first */
#ifndef NCS_NO_RECALL_ANY
	struct nfsd4_cb_recall_any ra;
#endif
	struct nfs4_lockowner owner;
	struct nfsd4_blocked_lock lock;	/* one that it waits for */
	int asked;			/* how often nfs4state.c called it back */
	atomic_t answered;		/* how often that was released */
	bool overtaken;			/* expired right before it was run */
	bool late;			/* released after the shutdown */
};

struct ncs_xprt {
	struct rpc_xprt xprt;
	struct ncs_client *nc;
};

struct ncs_ctx {
	int nr_clients;
	struct ncs_client *clients[NCS_MAX_CLIENTS];
};

static struct kmem_cache *ncs_slab;
static bool ncs_lost;			/* something could not be freed */

#ifdef NCS_CALLBACK_WQ
/* One queue for all clients, which lasts. */
static struct workqueue_struct *ncs_wq(struct ncs_client *nc)
{
	return NCS_CALLBACK_WQ;
}

static int ncs_wq_create(struct ncs_client *nc)
{
	if (!NCS_CALLBACK_WQ)
		NCS_CALLBACK_WQ = alloc_ordered_workqueue("nfsd4_callbacks", 0);
	return NCS_CALLBACK_WQ ? 0 : -ENOMEM;
}

static void ncs_wq_destroy(struct ncs_client *nc)
{
}
#else
static struct workqueue_struct *ncs_wq(struct ncs_client *nc)
{
	return nc->clp.cl_callback_wq;
}

static int ncs_wq_create(struct ncs_client *nc)
{
	nc->clp.cl_callback_wq = alloc_ordered_workqueue("nfsd4_callbacks", 0);
	return nc->clp.cl_callback_wq ? 0 : -ENOMEM;
}

static void ncs_wq_destroy(struct ncs_client *nc)
{
	if (nc->clp.cl_callback_wq)
		destroy_workqueue(nc->clp.cl_callback_wq);
}
#endif

/* The transport: connected from the start, takes calls, answers none. */
static int ncs_xprt_send(struct rpc_rqst *req)
{
	struct ncs_xprt *nx = container_of(req->rq_xprt, struct ncs_xprt, xprt);

	req->rq_xtime = ktime_get();
	atomic_inc(&nx->nc->sent);
	return 0;
}

static void ncs_xprt_connect(struct rpc_xprt *xprt, struct rpc_task *task)
{
}

static void ncs_xprt_close(struct rpc_xprt *xprt)
{
}

static void ncs_xprt_destroy(struct rpc_xprt *xprt)
{
	xprt_free(xprt);
}

KV_XPRT_SENDER(ncs_xprt_send)

static const struct rpc_xprt_ops ncs_xprt_ops = {
	.reserve_xprt = xprt_reserve_xprt,
	.release_xprt = xprt_release_xprt,
	.alloc_slot = xprt_alloc_slot,
	.free_slot = xprt_free_slot,
	.connect = ncs_xprt_connect,
	.buf_alloc = rpc_malloc,
	.buf_free = rpc_free,
	KV_XPRT_SEND(ncs_xprt_send),
	.close = ncs_xprt_close,
	.destroy = ncs_xprt_destroy,
};

static const struct rpc_timeout ncs_timeout = {
	.to_initval = NCS_CALL_MAX,
	.to_maxval = NCS_CALL_MAX,
};

static struct xprt_class *ncs_xprt_class(void);

static struct rpc_xprt *ncs_xprt_setup(struct xprt_create *args)
{
	struct rpc_xprt *xprt;

	xprt = xprt_alloc(args->net, sizeof(struct ncs_xprt), NCS_SLOTS,
			  NCS_SLOTS);
	if (!xprt)
		return ERR_PTR(-ENOMEM);
	xprt->ops = &ncs_xprt_ops;
	xprt->timeout = &ncs_timeout;
	kv_xprt_set_class(xprt, ncs_xprt_class());
	xprt->max_payload = PAGE_SIZE;
	xprt->address_strings[RPC_DISPLAY_ADDR] = "nowhere";
	xprt->address_strings[RPC_DISPLAY_PORT] = "0";
	xprt->address_strings[RPC_DISPLAY_PROTO] = "none";
	xprt->address_strings[RPC_DISPLAY_NETID] = "none";
	xprt_set_bound(xprt);
	xprt_set_connected(xprt);
	return xprt;
}

/* The class ends in a list of names, if it has one: here that is empty. */
static struct {
	struct xprt_class class;
	const char *no_name;
} ncs_xprt_type = {
	.class = {
		.list = LIST_HEAD_INIT(ncs_xprt_type.class.list),
		.name = "nfsd_cb_shutdown",
		.owner = THIS_MODULE,
		.ident = NCS_XPRT_IDENT,
		.setup = ncs_xprt_setup,
	},
	.no_name = "",
};

static struct xprt_class *ncs_xprt_class(void)
{
	return &ncs_xprt_type.class;
}

static struct rpc_xprt *ncs_xprt(struct ncs_client *nc)
{
	return rcu_dereference_protected(nc->clp.cl_cb_client->cl_xprt, true);
}

static int ncs_connect(struct ncs_client *nc)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct rpc_create_args args = {
		.net = &init_net,
		.protocol = NCS_XPRT_IDENT,
		.address = (struct sockaddr *)&sin,
		.addrsize = sizeof(sin),
		.servername = "nowhere",
		.program = kv_cb_program(&init_net),
		.version = 1,
		.authflavor = RPC_AUTH_UNIX,
		.flags = RPC_CLNT_CREATE_NOPING | RPC_CLNT_CREATE_QUIET,
		KV_RPC_CREATE_CRED(current_cred())
	};
	struct rpc_clnt *clnt = rpc_create(&args);

	if (IS_ERR(clnt))
		return PTR_ERR(clnt);
	nc->clp.cl_cb_client = clnt;
	nc->clp.cl_cb_cred = kv_rpc_machine_cred();
	container_of(ncs_xprt(nc), struct ncs_xprt, xprt)->nc = nc;
	return 0;
}

/* Poll for a condition; each caller's condition takes a number. */
static bool ncs_until(bool (*cond)(struct ncs_client *nc, int arg),
		      struct ncs_client *nc, int arg)
{
	unsigned long end = jiffies + NCS_TIMEOUT;

	while (!cond(nc, arg)) {
		if (time_after(jiffies, end))
			return cond(nc, arg);
		usleep_range(50, 100);
	}
	return true;
}

static bool ncs_sent(struct ncs_client *nc, int calls)
{
	return atomic_read(&nc->sent) == calls;
}

#ifdef NCS_NO_COUNT
/* What nobody else counts: recalls that were run and are not over yet. */
static int ncs_count(struct ncs_client *nc)
{
	int i, count = 0;

	for (i = 0; i < nc->nr_delegs; i++)
		count += nc->delegs[i]->accepted -
			 atomic_read(&nc->delegs[i]->over);
	return count;
}

/* Is the closer on the wait queue of the client's count? */
static bool ncs_closer_waits(struct ncs_client *nc)
{
	return false;
}

static void ncs_forget_count(struct ncs_client *nc)
{
}

static void ncs_need_count(struct kunit *test)
{
	kunit_skip(test, "callbacks are not counted here");
}
#else
static int ncs_count(struct ncs_client *nc)
{
	return atomic_read(&nc->clp.cl_cb_inflight);
}

/* Is the closer on the wait queue of the client's count? */
static bool ncs_closer_waits(struct ncs_client *nc)
{
	void *var = &nc->clp.cl_cb_inflight;
	wait_queue_head_t *wqh = __var_waitqueue(var);
	struct wait_bit_queue_entry *e;
	unsigned long flags;
	bool found = false;

	spin_lock_irqsave(&wqh->lock, flags);
	list_for_each_entry(e, &wqh->head, wq_entry.entry)
		if (e->key.flags == var && e->wq_entry.private == nc->closer)
			found = true;
	spin_unlock_irqrestore(&wqh->lock, flags);
	return found;
}

static void ncs_forget_count(struct ncs_client *nc)
{
	atomic_set(&nc->clp.cl_cb_inflight, 0);
	wake_up_var(&nc->clp.cl_cb_inflight);
}

/* For a case that is about the count itself. */
static void ncs_need_count(struct kunit *test)
{
}
#endif

#ifdef NCS_NO_COURTESY
static bool ncs_make_expirable(struct ncs_client *nc)
{
	return false;
}

static void ncs_set_active(struct ncs_client *nc)
{
}
#else
/* What nfsd_break_deleg_cb() does with a courtesy client, before it recalls. */
static bool ncs_make_expirable(struct ncs_client *nc)
{
	return try_to_expire_client(&nc->clp);
}

static void ncs_set_active(struct ncs_client *nc)
{
	nc->clp.cl_state = NFSD4_ACTIVE;
}
#endif

static bool ncs_count_is(struct ncs_client *nc, int count)
{
	return ncs_count(nc) == count;
}

/* Does the RPC client know of no task any more?  A release may still run. */
static bool ncs_no_tasks(struct ncs_client *nc, int unused)
{
	struct rpc_clnt *clnt = nc->clp.cl_cb_client;
	bool none;

	spin_lock(&clnt->cl_lock);
	none = list_empty(&clnt->cl_tasks);
	spin_unlock(&clnt->cl_lock);
	return none;
}

/* Do so many calls sleep until their answers come? */
static bool ncs_await_reply(struct ncs_client *nc, int calls)
{
	return READ_ONCE(ncs_xprt(nc)->pending.qlen) == calls;
}

/*
 * End all calls with an error: each ->release() comes on rpciod.  Those of
 * calls that the shutdown kills may come one after the other.
 */
static void ncs_fail_calls(struct ncs_client *nc)
{
	rpc_wake_up_status(&ncs_xprt(nc)->pending, -EIO);
}

/* The callback's operations, as those of a recall. */
static struct ncs_deleg *ncs_deleg(struct nfsd4_callback *cb)
{
	return container_of(cb, struct ncs_deleg, dp.dl_recall);
}

static void ncs_prepare(struct nfsd4_callback *cb)
{
	atomic_inc(&ncs_deleg(cb)->prepared);
}

static int ncs_done(struct nfsd4_callback *cb, struct rpc_task *task)
{
	return atomic_dec_if_positive(&ncs_deleg(cb)->again) < 0;
}

static void ncs_release(struct nfsd4_callback *cb)
{
	struct ncs_deleg *d = ncs_deleg(cb);

	complete(&d->parked);
	wait_for_completion_timeout(&d->gate, NCS_PARK_MAX);
	atomic_inc(&d->released);
	nfs4_put_stid(&d->dp.dl_stid);
	atomic_inc(&d->over);
}

static const struct nfsd4_callback_ops ncs_cb_ops = {
	.prepare = ncs_prepare,
	.done = ncs_done,
	.release = ncs_release,
};

/* The test reads the counters later, so the memory stays. */
static void ncs_stid_free(struct nfs4_stid *stid)
{
	struct ncs_deleg *d = container_of(stid, struct ncs_deleg, dp.dl_stid);

	atomic_inc(&d->freed);
}

static void ncs_block_work(struct work_struct *work)
{
	struct ncs_client *nc = container_of(work, struct ncs_client, blocker);

	complete(&nc->blocked);
	wait_for_completion_timeout(&nc->unblock, NCS_PARK_MAX);
}

/* Nothing that is queued on the client's workqueue runs until ncs_unblock(). */
static void ncs_block(struct kunit *test, struct ncs_client *nc)
{
	queue_work(ncs_wq(nc), &nc->blocker);
	KUNIT_ASSERT_TRUE(test, wait_for_completion_timeout(&nc->blocked,
							    NCS_TIMEOUT));
}

static void ncs_unblock(struct ncs_client *nc)
{
	complete_all(&nc->unblock);
}

static struct ncs_client *ncs_client_new(struct kunit *test)
{
	struct ncs_ctx *ctx = test->priv;
	struct nfs4_client *clp;
	struct ncs_client *nc;

	KUNIT_ASSERT_LT(test, ctx->nr_clients, NCS_MAX_CLIENTS);
	/* Not kunit_kzalloc(): freed only when nothing can use it any more. */
	nc = kzalloc(sizeof(*nc), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, nc);
	clp = &nc->clp;
	idr_init(&clp->cl_stateids);
	spin_lock_init(&clp->cl_lock);
	INIT_LIST_HEAD(&clp->cl_delegations);
	INIT_LIST_HEAD(&clp->cl_openowners);
	INIT_LIST_HEAD(&clp->cl_lru);
	INIT_LIST_HEAD(&clp->cl_sessions);
	rpc_init_wait_queue(&clp->cl_cb_waitq, "Backchannel slot table");
	clp->net = &init_net;
	ncs_set_active(nc);
	clp->cl_cb_state = NFSD4_CB_UNKNOWN;
	nfsd4_init_cb(&clp->cl_cb_null, clp, NULL, NFSPROC4_CLNT_CB_NULL);
	refcount_set(&nc->file.fi_ref, 1);
	INIT_WORK(&nc->blocker, ncs_block_work);
	init_completion(&nc->blocked);
	init_completion(&nc->unblock);
	init_completion(&nc->closed);
	ctx->clients[ctx->nr_clients++] = nc;
	KUNIT_ASSERT_EQ(test, ncs_wq_create(nc), 0);
	KUNIT_ASSERT_EQ(test, ncs_connect(nc), 0);
	return nc;
}

/* A delegation, with a reference that its client holds. */
static struct ncs_deleg *ncs_deleg_new(struct kunit *test,
				       struct ncs_client *nc)
{
	struct nfs4_stid *stid;
	struct ncs_deleg *d;

	KUNIT_ASSERT_LT(test, nc->nr_delegs, NCS_MAX_DELEGS);
	stid = nfs4_alloc_stid(&nc->clp, ncs_slab, ncs_stid_free);
	KUNIT_ASSERT_NOT_NULL(test, stid);
	d = container_of(stid, struct ncs_deleg, dp.dl_stid);
	refcount_inc(&nc->file.fi_ref);
	d->dp.dl_stid.sc_file = &nc->file;
	d->held = true;
	init_completion(&d->parked);
	init_completion(&d->gate);
	/* nfsd makes some callbacks in memory that was in use before. */
	memset(&d->dp.dl_recall, 0xff, sizeof(d->dp.dl_recall));
	nfsd4_init_cb(&d->dp.dl_recall, &nc->clp, &ncs_cb_ops,
		      NFSPROC4_CLNT_CB_RECALL);
	nc->delegs[nc->nr_delegs++] = d;
	return d;
}

static void ncs_deleg_put(struct ncs_deleg *d)
{
	d->held = false;
	nfs4_put_stid(&d->dp.dl_stid);
}

/* Recall a delegation. */
static bool ncs_recall(struct ncs_deleg *d)
{
	ncs_accepted = false;
	ncs_break_one_deleg(&d->dp);
	d->accepted += ncs_accepted;
	return ncs_accepted;
}

/* Recall @nr new delegations of a client; each call gets as far as it can. */
static void ncs_recall_new(struct kunit *test, struct ncs_client *nc, int nr)
{
	int i, sent = atomic_read(&nc->sent);

	for (i = 0; i < nr; i++)
		KUNIT_ASSERT_TRUE(test, ncs_recall(ncs_deleg_new(test, nc)));
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_sent, nc, sent + nr));
	/* Older RPC forgets that a task was killed which is just about to. */
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_await_reply, nc, nr));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), nr);
}

static void ncs_let_go(struct ncs_deleg *d)
{
	complete_all(&d->gate);
}

static void ncs_let_all_go(struct ncs_client *nc)
{
	int i;

	for (i = 0; i < nc->nr_delegs; i++)
		ncs_let_go(nc->delegs[i]);
}

/* Plays __destroy_client(), up to what free_client() would find. */
static int ncs_close(void *data)
{
	struct ncs_client *nc = data;

	nfsd4_shutdown_callback(&nc->clp);
	nc->count_left = ncs_count(nc);
	nc->stateids_left = !idr_is_empty(&nc->clp.cl_stateids);
	complete_all(&nc->closed);
	return 0;
}

/* Drop the client's references, and begin to shut it down. */
static bool ncs_start_closing(struct ncs_client *nc)
{
	struct task_struct *task;
	int i;

	for (i = 0; i < nc->nr_delegs; i++)
		if (nc->delegs[i]->held)
			ncs_deleg_put(nc->delegs[i]);
	task = kthread_create(ncs_close, nc, "nfsd_cb_shutdown");
	if (IS_ERR(task))
		return false;
	nc->closer = task;
	wake_up_process(task);
	return true;
}

static bool ncs_closed(struct ncs_client *nc)
{
	return wait_for_completion_timeout(&nc->closed, NCS_TIMEOUT);
}

/* Has the closer come as far as it can: to its end, or to the wait? */
static bool ncs_settled(struct ncs_client *nc, int unused)
{
	return completion_done(&nc->closed) || ncs_closer_waits(nc);
}

/* The closer must wait, and must have been seen at it. */
static bool ncs_expect_waits(struct kunit *test, struct ncs_client *nc)
{
	bool settled = ncs_until(ncs_settled, nc, 0);
	bool closed = completion_done(&nc->closed);

	KUNIT_EXPECT_TRUE_MSG(test, settled, "nobody waits for the count");
	KUNIT_EXPECT_FALSE_MSG(test, closed, "shut down with %d in flight",
			       ncs_count(nc));
	return settled && !closed;
}

static void ncs_expect_parked(struct kunit *test, struct ncs_deleg *d)
{
	KUNIT_ASSERT_TRUE_MSG(test, wait_for_completion_timeout(&d->parked,
								NCS_TIMEOUT),
			      "->release() was not called");
}

/*
 * All that has begun is over: no work is queued, no task of a dead RPC client
 * is left on rpciod.  For when nothing is parked.
 */
static void ncs_quiesce(struct ncs_client *nc)
{
	flush_workqueue(rpciod_workqueue);
	flush_workqueue(ncs_wq(nc));
	flush_workqueue(rpciod_workqueue);
}

/* The client is gone, and each callback was released as often as it was run. */
static void ncs_expect_gone(struct kunit *test, struct ncs_client *nc)
{
	struct ncs_deleg *d;
	int i;

	KUNIT_ASSERT_TRUE_MSG(test, ncs_closed(nc),
			      "shutdown hangs, count is %d", ncs_count(nc));
	KUNIT_EXPECT_EQ(test, nc->count_left, 0);
	KUNIT_EXPECT_FALSE_MSG(test, nc->stateids_left,
			       "stateids are left when the client is freed");
	ncs_quiesce(nc);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 0);
	for (i = 0; i < nc->nr_delegs; i++) {
		d = nc->delegs[i];
		KUNIT_EXPECT_EQ(test, atomic_read(&d->released), d->accepted);
		KUNIT_EXPECT_EQ(test, atomic_read(&d->freed), 1);
	}
}

/* Nodes below @entry whose private_list is in use: somebody tracks them. */
static int ncs_tracked_nodes(const void *entry)
{
	const struct xa_node *node;
	int i, tracked;

	if (!xa_is_node(entry))
		return 0;
	node = xa_to_node(entry);
	tracked = !list_empty(&node->private_list);
	for (i = 0; i < XA_CHUNK_SIZE; i++)
		tracked += ncs_tracked_nodes(rcu_dereference_raw(node->slots[i]));
	return tracked;
}

static void ncs_expect_clean_nodes(struct kunit *test, struct ncs_client *nc)
{
	struct nfs4_client *clp = &nc->clp;
	int tracked;

	spin_lock(&clp->cl_lock);
	tracked = ncs_tracked_nodes(kv_idr_head(&clp->cl_stateids));
	spin_unlock(&clp->cl_lock);
	KUNIT_EXPECT_EQ(test, tracked, 0);
}

/* Shutdown does not return while a callback's ->release() is parked. */
static void nfsd_cb_shutdown_test_waits_for_release(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);

	ncs_recall_new(test, nc, 1);
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_parked(test, nc->delegs[0]);

	ncs_expect_waits(test, nc);
	/* A wait that ends by itself would free what is in use. */
	KUNIT_EXPECT_EQ(test, wait_for_completion_timeout(&nc->closed, HZ), 0);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->delegs[0]->freed), 0);

	ncs_let_all_go(nc);
	ncs_expect_gone(test, nc);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->sent), 1);
}

/*
 * free_client() destroys the idr of the stateids.  It must be empty by then,
 * also when they were spread over many nodes.
 */
static void nfsd_cb_shutdown_test_no_stateid_left(struct kunit *test)
{
	static const unsigned int ids[] = { 1, 70, 5000, 300000 };
	struct ncs_client *nc = ncs_client_new(test);
	struct ncs_deleg *d;
	int i;

	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		idr_set_cursor(&nc->clp.cl_stateids, ids[i]);
		d = ncs_deleg_new(test, nc);
		KUNIT_ASSERT_PTR_EQ(test, idr_find(&nc->clp.cl_stateids, ids[i]),
				    (void *)&d->dp.dl_stid);
		KUNIT_ASSERT_TRUE(test, ncs_recall(d));
	}
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_await_reply, nc, ARRAY_SIZE(ids)));
	ncs_fail_calls(nc);
	for (i = 0; i < ARRAY_SIZE(ids); i++)
		ncs_expect_parked(test, nc->delegs[i]);
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_settled, nc, 0));
	ncs_expect_clean_nodes(test, nc);

	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		ncs_let_go(nc->delegs[i]);
		KUNIT_EXPECT_TRUE(test, ncs_until(ncs_count_is, nc,
						  ARRAY_SIZE(ids) - 1 - i));
		ncs_expect_clean_nodes(test, nc);
	}
	ncs_expect_gone(test, nc);
	KUNIT_EXPECT_TRUE(test, idr_is_empty(&nc->clp.cl_stateids));
	KUNIT_EXPECT_NULL(test, kv_idr_head(&nc->clp.cl_stateids));
}

/*
 * A delegation is recalled again while its first recall is in flight, as
 * __break_lease() does; then the first one has to restart.  The workqueue is
 * held up, so that the restart finds the second run queued, where there is one.
 */
static void nfsd_cb_shutdown_test_restart_meets_second_run(struct kunit *test)
{
	struct ncs_client *nc;
	struct ncs_deleg *d;

	ncs_need_count(test);
	nc = ncs_client_new(test);
	ncs_recall_new(test, nc, 1);
	d = nc->delegs[0];
	ncs_let_all_go(nc);

	ncs_block(test, nc);
	ncs_recall(d);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), d->accepted);
	/* The probe has no mark: the queue alone refuses a second one. */
	kv_nfsd4_run_cb(&nc->clp.cl_cb_null);
	kv_nfsd4_run_cb(&nc->clp.cl_cb_null);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), d->accepted + 1);

	rpc_killall_tasks(nc->clp.cl_cb_client);
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_no_tasks, nc, 0));
	flush_workqueue(rpciod_workqueue);
	ncs_unblock(nc);
	/* Once more the recall, and the probe.  Of two runs one is over. */
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_sent, nc, 3));
	KUNIT_EXPECT_EQ(test, atomic_read(&d->released), d->accepted - 1);

	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_settled, nc, 0));
	ncs_expect_parked(test, d);
	ncs_quiesce(nc);
	/* Nothing is queued, nothing is in flight. */
	KUNIT_EXPECT_EQ_MSG(test, ncs_count(nc), 0, "ran %d times, released %d",
			    d->accepted, atomic_read(&d->released));
	KUNIT_EXPECT_EQ(test, atomic_read(&d->released), d->accepted);
	KUNIT_EXPECT_EQ(test, atomic_read(&d->freed), 1);
	if (!ncs_count(nc))
		ncs_expect_gone(test, nc);
}

#ifdef NCS_NO_COURTESY
static void ncs_set_courtesy(struct kunit *test, struct ncs_client *nc)
{
	kunit_skip(test, "no courtesy clients here");
}
#else
static void ncs_net_new(struct kunit *test, struct ncs_client *nc)
{
	nc->nn = kunit_kzalloc(test, sizeof(*nc->nn), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, nc->nn);
	spin_lock_init(&nc->nn->client_lock);
	INIT_LIST_HEAD(&nc->nn->client_lru);
}

/* Its lease is over, and nobody waits for what it has: it has a delegation. */
static void ncs_set_courtesy(struct kunit *test, struct ncs_client *nc)
{
	struct nfs4_client *clp = &nc->clp;
	LIST_HEAD(reaplist);
	int i;

	clp->cl_ownerstr_hashtbl = kunit_kcalloc(test, NCS_OWNER_HASH_SIZE,
						 sizeof(struct list_head),
						 GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, clp->cl_ownerstr_hashtbl);
	for (i = 0; i < NCS_OWNER_HASH_SIZE; i++)
		INIT_LIST_HEAD(&clp->cl_ownerstr_hashtbl[i]);
	ncs_net_new(test, nc);
	nc->nn->nfs4_max_clients = 2;
	atomic_set(&nc->nn->nfs4_client_count, 1);
	clp->cl_time = ktime_get_boottime_seconds();
	list_add(&ncs_deleg_new(test, nc)->dp.dl_perclnt, &clp->cl_delegations);
	list_add(&clp->cl_lru, &nc->nn->client_lru);
	ncs_get_client_reaplist(nc->nn, &reaplist);
	KUNIT_ASSERT_TRUE(test, list_empty(&reaplist));
	KUNIT_ASSERT_EQ(test, (int)clp->cl_state, (int)NFSD4_COURTESY);
	list_del_init(&clp->cl_lru);
}
#endif

/* Nothing is sent to a courtesy client: nobody would answer. */
static void nfsd_cb_shutdown_test_courtesy_client(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);

	ncs_set_courtesy(test, nc);
	ncs_let_go(nc->delegs[0]);
	KUNIT_ASSERT_TRUE(test, ncs_recall(nc->delegs[0]));
	flush_workqueue(ncs_wq(nc));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->delegs[0]->released), 1);
	KUNIT_EXPECT_TRUE(test, ncs_no_tasks(nc, 0));
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->sent), 0);

	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
}

/*
 * A client whose delegation is wanted is in courtesy no more, but expirable: it
 * may be back before it is expired.  So its recall is sent, and its delegation
 * is one of those that are revoked in time; the shutdown ends what is in flight.
 */
static void nfsd_cb_shutdown_test_expirable_client(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);

	ncs_set_courtesy(test, nc);
	KUNIT_ASSERT_TRUE(test, ncs_make_expirable(nc));
	ncs_let_go(nc->delegs[0]);
	KUNIT_ASSERT_TRUE(test, ncs_recall(nc->delegs[0]));
	KUNIT_EXPECT_TRUE_MSG(test, ncs_until(ncs_await_reply, nc, 1),
			      "its recall is not sent");
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->delegs[0]->prepared), 1);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);

	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->sent), 1);
}

/* With nothing in flight, shutdown returns: nobody would wake it. */
static void nfsd_cb_shutdown_test_idle_client(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);

	ncs_deleg_new(test, nc);
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
	KUNIT_EXPECT_NULL(test, nc->clp.cl_cb_client);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->sent), 0);
}

struct ncs_order {
	const char *name;
	int order[NCS_MAX_DELEGS];
};

static const struct ncs_order ncs_orders[] = {
	{ "first to last", { 0, 1, 2, 3, 4, 5, 6, 7 } },
	{ "last to first", { 7, 6, 5, 4, 3, 2, 1, 0 } },
	{ "mixed", { 3, 0, 6, 5, 1, 7, 4, 2 } },
};

static void ncs_order_desc(const struct ncs_order *o, char *desc)
{
	strscpy(desc, o->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(ncs_order, ncs_orders, ncs_order_desc);

/* Shutdown waits for the last of many, whichever that is. */
static void nfsd_cb_shutdown_test_last_of_many(struct kunit *test)
{
	const struct ncs_order *o = test->param_value;
	struct ncs_client *nc = ncs_client_new(test);
	int i;

	ncs_recall_new(test, nc, NCS_MAX_DELEGS);
	ncs_fail_calls(nc);
	for (i = 0; i < NCS_MAX_DELEGS; i++)
		ncs_expect_parked(test, nc->delegs[i]);
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	for (i = 0; i < NCS_MAX_DELEGS; i++) {
		KUNIT_ASSERT_TRUE(test, ncs_until(ncs_count_is, nc,
						  NCS_MAX_DELEGS - i));
		if (!ncs_expect_waits(test, nc))
			break;
		ncs_let_go(nc->delegs[o->order[i]]);
	}
	ncs_let_all_go(nc);
	ncs_expect_gone(test, nc);
}

/* A callback whose task is killed, with the client alive, is sent once more. */
static void nfsd_cb_shutdown_test_restarted_once(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);
	struct ncs_deleg *d;

	ncs_recall_new(test, nc, 1);
	d = nc->delegs[0];
	rpc_killall_tasks(nc->clp.cl_cb_client);
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_sent, nc, 2));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
	KUNIT_EXPECT_FALSE(test, completion_done(&d->parked));
	KUNIT_EXPECT_EQ(test, atomic_read(&d->prepared), 1);

	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_parked(test, d);
	ncs_expect_waits(test, nc);
	ncs_let_all_go(nc);
	ncs_expect_gone(test, nc);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->sent), 2);
}

/* ->done() has the call sent again; then the callback ends, with no shutdown. */
static void nfsd_cb_shutdown_test_ends_by_itself(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);
	struct ncs_deleg *d;
	int i;

	ncs_recall_new(test, nc, 1);
	d = nc->delegs[0];
	atomic_set(&d->again, 2);
	for (i = 0; i < 3; i++) {
		KUNIT_ASSERT_TRUE(test, ncs_until(ncs_sent, nc, i + 1));
		KUNIT_ASSERT_TRUE(test, ncs_until(ncs_await_reply, nc, 1));
		KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
		ncs_fail_calls(nc);
	}
	ncs_expect_parked(test, d);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
	if (KV_NFSD_EIO_MARKS_DOWN)
		KUNIT_EXPECT_EQ(test, nc->clp.cl_cb_state, NFSD4_CB_DOWN);

	/* It can be run anew from ->release() on, and is counted anew. */
	KUNIT_EXPECT_TRUE(test, ncs_recall(d));
	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_sent, nc, 4));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 2);
	ncs_let_all_go(nc);
	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_count_is, nc, 1));
	KUNIT_EXPECT_EQ(test, atomic_read(&d->released), 1);
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
}

/* A callback that is on the queue already is not counted twice. */
static void nfsd_cb_shutdown_test_unqueued_gives_count_back(struct kunit *test)
{
	struct nfsd4_callback *null;
	struct ncs_client *nc;
	struct ncs_deleg *d;

	ncs_need_count(test);
	nc = ncs_client_new(test);
	null = &nc->clp.cl_cb_null;
	d = ncs_deleg_new(test, nc);
	ncs_let_go(d);
	ncs_block(test, nc);
	KUNIT_EXPECT_TRUE(test, ncs_recall(d));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
	if (KV_NFSD_KEEPS_REFUSED)
		KUNIT_EXPECT_FALSE(test, kv_nfsd4_run_cb(&d->dp.dl_recall));
	else
		KUNIT_EXPECT_FALSE(test, ncs_recall(d));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
	KUNIT_EXPECT_TRUE(test, kv_nfsd4_run_cb(null));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 2);
	KUNIT_EXPECT_FALSE(test, kv_nfsd4_run_cb(null));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 2);
	ncs_unblock(nc);

	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_sent, nc, 2));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 2);
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
}

/* What the queue has refused can be run later. */
static void nfsd_cb_shutdown_test_refused_by_queue(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);
	struct ncs_deleg *d = ncs_deleg_new(test, nc);
	unsigned long *data = work_data_bits(&d->dp.dl_recall.cb_work);

	ncs_let_go(d);
	/* As if it were on the queue; nobody runs it.  Who recalls would warn. */
	KUNIT_ASSERT_FALSE(test, test_and_set_bit(WORK_STRUCT_PENDING_BIT, data));
	KUNIT_EXPECT_FALSE(test, kv_nfsd4_run_cb(&d->dp.dl_recall));
	clear_bit(WORK_STRUCT_PENDING_BIT, data);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 0);
	KUNIT_EXPECT_TRUE_MSG(test, ncs_recall(d), "it can never be run again");
	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_sent, nc, 1));

	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
}

/* A parked release holds up the shutdown of its own client alone. */
static void nfsd_cb_shutdown_test_two_clients(struct kunit *test)
{
	struct ncs_client *slow = ncs_client_new(test);
	struct ncs_client *quick = ncs_client_new(test);

	ncs_recall_new(test, slow, 1);
	ncs_recall_new(test, quick, 1);
	ncs_fail_calls(slow);
	ncs_expect_parked(test, slow->delegs[0]);
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(slow));
	ncs_expect_waits(test, slow);

	/* ncs_expect_gone() would flush what is parked. */
	ncs_let_all_go(quick);
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(quick));
	KUNIT_EXPECT_TRUE_MSG(test, ncs_closed(quick),
			      "waits for another client");
	KUNIT_EXPECT_EQ(test, quick->count_left, 0);
	KUNIT_EXPECT_FALSE(test, quick->stateids_left);
	KUNIT_EXPECT_EQ(test, ncs_count(slow), 1);
	ncs_expect_waits(test, slow);

	ncs_let_all_go(slow);
	ncs_expect_gone(test, slow);
	ncs_expect_gone(test, quick);
}

/* What is queued when the client dies, or later, is released but not sent. */
static void nfsd_cb_shutdown_test_queued_is_not_sent(struct kunit *test)
{
	struct ncs_deleg *late, *d;
	struct ncs_client *nc;

	ncs_need_count(test);
	nc = ncs_client_new(test);
	d = ncs_deleg_new(test, nc);
	ncs_let_go(d);
	ncs_block(test, nc);
	KUNIT_EXPECT_TRUE(test, ncs_recall(d));
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	/* One for the recall, one for the shutdown. */
	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_count_is, nc, 2));
	ncs_unblock(nc);
	ncs_expect_gone(test, nc);

	late = ncs_deleg_new(test, nc);
	ncs_let_go(late);
	KUNIT_EXPECT_TRUE(test, ncs_recall(late));
	ncs_deleg_put(late);
	flush_workqueue(ncs_wq(nc));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&late->released), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&late->freed), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->sent), 0);
}

/* The null probe is counted while it is in flight; from v4.1 on none is sent. */
static void nfsd_cb_shutdown_test_probe(struct kunit *test)
{
	struct ncs_client *nc;

	ncs_need_count(test);
	nc = ncs_client_new(test);
	nc->clp.cl_minorversion = 1;
	KUNIT_EXPECT_TRUE(test, kv_nfsd4_run_cb(&nc->clp.cl_cb_null));
	flush_workqueue(ncs_wq(nc));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 0);
	KUNIT_EXPECT_EQ(test, nc->clp.cl_cb_state, NFSD4_CB_UP);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->sent), 0);

	nc->clp.cl_minorversion = 0;
	KUNIT_EXPECT_TRUE(test, kv_nfsd4_run_cb(&nc->clp.cl_cb_null));
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_sent, nc, 1));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
	/* While the first is in flight, a second one must get queued. */
	KUNIT_EXPECT_TRUE(test, kv_nfsd4_run_cb(&nc->clp.cl_cb_null));
	KUNIT_ASSERT_TRUE(test, ncs_until(ncs_sent, nc, 2));
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 2);

	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
	KUNIT_EXPECT_EQ(test, nc->clp.cl_cb_state, NFSD4_CB_DOWN);
}

/* A callback of nfs4state.c's own was released. */
static void ncs_answer(struct nfsd4_callback *cb)
{
	struct ncs_client *nc = container_of(cb->cb_clp, struct ncs_client, clp);

	if (completion_done(&nc->closed))
		nc->late = true;
	atomic_inc(&nc->answered);
}

/* Without a channel, what comes off the client's workqueue is released at once. */
static void ncs_disconnect(struct ncs_client *nc)
{
	rpc_shutdown_client(nc->clp.cl_cb_client);
	nc->clp.cl_cb_client = NULL;
	put_cred(nc->clp.cl_cb_cred);
	nc->clp.cl_cb_cred = NULL;
	nc->clp.cl_minorversion = 1;
	nc->clp.cl_cb_state = NFSD4_CB_UP;
}

/*
 * Right before nfs4state.c runs a callback: expire its client if that is possible
 * now.  It is not if the lock is held which whoever does so takes first, or if the
 * client is in use.
 */
static void ncs_expire_at_gate(struct nfsd4_callback *cb)
{
	struct ncs_client *nc = container_of(cb->cb_clp, struct ncs_client, clp);

	nc->asked++;
	if (!spin_trylock(nc->guard))
		return;
	if (!atomic_read(&nc->clp.cl_rpc_users)) {
		list_del_init(&nc->clp.cl_lru);
		nc->overtaken = true;
	}
	spin_unlock(nc->guard);
	if (nc->overtaken) {
		ncs_unblock(nc);
		if (ncs_start_closing(nc))
			ncs_closed(nc);
	}
}

/*
 * nfs4state.c ran one callback of a client whose workqueue is held up: while the
 * client could not be expired, so that the shutdown finds it counted.
 */
static void ncs_expect_in_time(struct kunit *test, struct ncs_client *nc)
{
	KUNIT_ASSERT_EQ(test, nc->asked, 1);
	KUNIT_EXPECT_FALSE_MSG(test, nc->overtaken,
			       "the client was shut down, then its callback run");
	if (!nc->overtaken) {
		KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
		KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
		/* One for the callback, one for the shutdown. */
		KUNIT_EXPECT_TRUE(test, ncs_until(ncs_count_is, nc, 2));
		KUNIT_EXPECT_FALSE(test, completion_done(&nc->closed));
		ncs_unblock(nc);
	}
	ncs_expect_gone(test, nc);
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->answered), 1);
	KUNIT_EXPECT_FALSE_MSG(test, nc->late,
			       "->release() after the client was shut down");
}

static const struct nfsd4_callback_ops ncs_notify_ops = {
	.release = ncs_answer,
};

/*
 * nfsd4_lm_notify() tells a client of a lock that it waited for.  Who expires the
 * client takes such locks off their lists first, as remove_blocked_locks() does.
 */
static void nfsd_cb_shutdown_test_notify_meets_expiry(struct kunit *test)
{
	struct nfsd_net *nn = net_generic(&init_net, nfsd_net_id);
	struct ncs_client *nc = ncs_client_new(test);
	struct nfsd4_blocked_lock *nbl = &nc->lock;
	LIST_HEAD(lru);

	ncs_disconnect(nc);
	nc->guard = &nn->blocked_locks_lock;
	nc->owner.lo_owner.so_client = &nc->clp;
	INIT_LIST_HEAD(&nc->owner.lo_blocked);
	KV_LEASE(&nbl->nbl_lock, owner) = (fl_owner_t)&nc->owner;
	nfsd4_init_cb(&nbl->nbl_cb, &nc->clp, &ncs_notify_ops,
		      NFSPROC4_CLNT_CB_NOTIFY_LOCK);
	list_add(&nbl->nbl_list, &nc->owner.lo_blocked);
	list_add(&nbl->nbl_lru, &lru);

	ncs_block(test, nc);
	WRITE_ONCE(ncs_gate, ncs_expire_at_gate);
	ncs_lm_notify(&nbl->nbl_lock);
	WRITE_ONCE(ncs_gate, NULL);
	KUNIT_EXPECT_TRUE(test, list_empty(&nc->owner.lo_blocked));
	KUNIT_EXPECT_TRUE(test, list_empty(&lru));
	ncs_expect_in_time(test, nc);
}

#ifdef NCS_NO_RECALL_ANY
static void nfsd_cb_shutdown_test_reaper_meets_expiry(struct kunit *test)
{
	kunit_skip(test, "clients are not asked for delegations here");
}

static void nfsd_cb_shutdown_test_recall_any_once(struct kunit *test)
{
	kunit_skip(test, "clients are not asked for delegations here");
}
#else
static void ncs_any_release(struct nfsd4_callback *cb)
{
#ifdef NFSD4_CLIENT_CB_RECALL_ANY
	clear_bit(NFSD4_CLIENT_CB_RECALL_ANY, &cb->cb_clp->cl_flags);
#endif
	ncs_answer(cb);
}

static const struct nfsd4_callback_ops ncs_any_ops = {
	.release = ncs_any_release,
};

/* deleg_reaper() asks a client once in 5 seconds: those are over. */
static void ncs_age(struct ncs_client *nc)
{
	nc->clp.cl_ra_time = ktime_get_boottime_seconds() - 10;
}

/* A client with a delegation that deleg_reaper() asks for it. */
static struct ncs_client *ncs_reapable_new(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);
	struct nfs4_client *clp = &nc->clp;

	ncs_net_new(test, nc);
	nc->guard = &nc->nn->client_lock;
	ncs_disconnect(nc);
	kref_init(&clp->cl_nfsdfs.cl_ref);
	clp->cl_ra = &nc->ra;
	nfsd4_init_cb(&nc->ra.ra_cb, clp, &ncs_any_ops,
		      NFSPROC4_CLNT_CB_RECALL_ANY);
	ncs_age(nc);
	list_add(&ncs_deleg_new(test, nc)->dp.dl_perclnt, &clp->cl_delegations);
	list_add(&clp->cl_lru, &nc->nn->client_lru);
	return nc;
}

/* deleg_reaper() holds client_lock, as mark_client_expired_locked() must. */
static void nfsd_cb_shutdown_test_reaper_meets_expiry(struct kunit *test)
{
	struct ncs_client *nc = ncs_reapable_new(test);

	ncs_block(test, nc);
	WRITE_ONCE(ncs_gate, ncs_expire_at_gate);
	ncs_deleg_reaper(nc->nn);
	WRITE_ONCE(ncs_gate, NULL);
	ncs_expect_in_time(test, nc);
}

static void ncs_expect_answers(struct kunit *test, struct ncs_client *nc, int nr)
{
	ncs_deleg_reaper(nc->nn);
	flush_workqueue(ncs_wq(nc));
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->answered), nr);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 0);
}

/* One CB_RECALL_ANY at a time; who is passed over is asked the next time. */
static void nfsd_cb_shutdown_test_recall_any_once(struct kunit *test)
{
	struct ncs_client *nc = ncs_reapable_new(test);
	struct nfs4_client *clp = &nc->clp;

	clp->cl_ra_time = ktime_get_boottime_seconds();
	ncs_expect_answers(test, nc, 0);
	ncs_age(nc);
	atomic_set(&clp->cl_delegs_in_recall, 1);
	ncs_expect_answers(test, nc, 0);
	atomic_set(&clp->cl_delegs_in_recall, 0);
	ncs_expect_answers(test, nc, 1);
	/* It was asked just now. */
	ncs_expect_answers(test, nc, 1);
	ncs_age(nc);
	ncs_expect_answers(test, nc, 2);

	ncs_age(nc);
	ncs_block(test, nc);
	ncs_deleg_reaper(nc->nn);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
	ncs_age(nc);
	ncs_deleg_reaper(nc->nn);
	KUNIT_EXPECT_EQ(test, ncs_count(nc), 1);
	ncs_unblock(nc);
	flush_workqueue(ncs_wq(nc));
	KUNIT_EXPECT_EQ(test, atomic_read(&nc->answered), 3);
	/* A reference for each, which the made-up release leaves, and one. */
	KUNIT_EXPECT_EQ(test, kref_read(&clp->cl_nfsdfs.cl_ref) +
			      atomic_read(&clp->cl_rpc_users), 4);

	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
}
#endif

#if KV_WRITE_DELEGATIONS
/* The lease of a delegation for writing, as nfsd has it. */
static int ncs_lease_new(struct ncs_deleg *d, struct file *file)
{
	struct kv_lease *fl = kv_locks_alloc_lease();
	int err;

	if (!fl)
		return -ENOMEM;
	fl->fl_lmops = ncs_lease_ops;
	KV_LEASE(fl, flags) = FL_DELEG;
	KV_LEASE(fl, type) = F_WRLCK;
	KV_LEASE(fl, owner) = (fl_owner_t)&d->dp;
	KV_LEASE(fl, pid) = current->tgid;
	KV_LEASE(fl, file) = file;
	err = vfs_setlease(file, F_WRLCK, &fl, NULL);
	if (err)
		kv_locks_free_lease(fl);
	return err;
}

static int ncs_in_recall(struct ncs_client *nc)
{
	return atomic_read(&nc->clp.cl_delegs_in_recall);
}

/*
 * A delegation that is broken for a reader and then for a writer is one that is
 * in recall, and none when its lease has gone.
 */
static void nfsd_cb_shutdown_test_broken_twice(struct kunit *test)
{
	struct ncs_client *nc = ncs_client_new(test);
	struct ncs_deleg *d = ncs_deleg_new(test, nc);
	void *owner = &d->dp;
	struct inode *inode;
	struct file *file;

	ncs_let_go(d);
	file = shmem_file_setup("nfsd_cb_shutdown", 0, KV_NO_VMA_FLAGS);
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	inode = file_inode(file);
	KUNIT_EXPECT_EQ(test, ncs_lease_new(d, file), 0);
	KUNIT_EXPECT_EQ(test, break_lease(inode, O_RDONLY | O_NONBLOCK),
			-EWOULDBLOCK);
	KUNIT_EXPECT_EQ(test, ncs_in_recall(nc), 1);
	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_await_reply, nc, 1));
	KUNIT_EXPECT_EQ(test, break_lease(inode, O_WRONLY | O_NONBLOCK),
			-EWOULDBLOCK);
	KUNIT_EXPECT_EQ_MSG(test, ncs_in_recall(nc), 1, "one delegation");
	/* Where two recalls may run at a time, two do. */
	d->accepted = ncs_count(nc);
	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_await_reply, nc, d->accepted));
	ncs_fail_calls(nc);
	KUNIT_EXPECT_TRUE(test, ncs_until(ncs_count_is, nc, 0));

	KUNIT_EXPECT_EQ(test, vfs_setlease(file, F_UNLCK, NULL, &owner), 0);
	fput(file);
	KUNIT_EXPECT_EQ_MSG(test, ncs_in_recall(nc), 0, "its lease has gone");
	KUNIT_ASSERT_TRUE(test, ncs_start_closing(nc));
	ncs_expect_gone(test, nc);
}
#else
static void nfsd_cb_shutdown_test_broken_twice(struct kunit *test)
{
	kunit_skip(test, "no delegations for writing here");
}
#endif

static int ncs_init(struct kunit *test)
{
	struct ncs_ctx *ctx = kunit_kzalloc(test, sizeof(*ctx), GFP_KERNEL);

	if (!ctx)
		return -ENOMEM;
	test->priv = ctx;
	return 0;
}

/* Shut the client down whatever it takes; true when nothing uses it any more. */
static bool ncs_client_end(struct ncs_client *nc)
{
	ncs_unblock(nc);
	ncs_let_all_go(nc);
	if (!ncs_wq(nc))
		return true;
	if (!nc->closer && !ncs_start_closing(nc))
		return false;
	if (!ncs_until(ncs_settled, nc, 0))
		return false;
	ncs_quiesce(nc);
	/* All have ended: who still waits was not woken, or never will be. */
	if (!completion_done(&nc->closed))
		ncs_forget_count(nc);
	return ncs_closed(nc);
}

static void ncs_exit(struct kunit *test)
{
	struct ncs_ctx *ctx = test->priv;
	struct ncs_client *nc;
	int i;

	WRITE_ONCE(ncs_gate, NULL);
	while (ctx && ctx->nr_clients) {
		nc = ctx->clients[--ctx->nr_clients];
		if (!ncs_client_end(nc)) {
			/* Threads may still use it: let it leak. */
			ncs_lost = true;
			KUNIT_FAIL(test, "a client could not be shut down");
			continue;
		}
		ncs_wq_destroy(nc);
		idr_destroy(&nc->clp.cl_stateids);
		for (i = 0; i < nc->nr_delegs; i++)
			kmem_cache_free(ncs_slab, nc->delegs[i]);
		kfree(nc);
	}
}

static atomic_t ncs_there;
static unsigned long ncs_round_end;

static void ncs_be_there(struct work_struct *work)
{
	atomic_inc(&ncs_there);
	while (atomic_read(&ncs_there) < NCS_THREADS &&
	       time_before(jiffies, ncs_round_end))
		usleep_range(50, 100);
}

/*
 * Each ->release() that is parked holds up a thread of rpciod's.  On a slow
 * machine it may take too long to start one: then a single rescuer does all that
 * is queued, one after the other, and what waits behind the first is not parked.
 * So have the threads started before; idle ones stay for minutes.
 */
static int ncs_start_threads(void)
{
	struct work_struct *works;
	int cpu, i, tries, there = 0;

	works = kcalloc(NCS_THREADS, sizeof(*works), GFP_KERNEL);
	if (!works)
		return -ENOMEM;
	for_each_online_cpu(cpu) {
		for (tries = 0; tries < 20; tries++) {
			atomic_set(&ncs_there, 0);
			ncs_round_end = jiffies + HZ / 2;
			for (i = 0; i < NCS_THREADS; i++) {
				INIT_WORK(&works[i], ncs_be_there);
				queue_work_on(cpu, rpciod_workqueue, &works[i]);
			}
			flush_workqueue(rpciod_workqueue);
			/* Those that gave up went on before the last one came. */
			there = time_before(jiffies, ncs_round_end);
			if (there)
				break;
		}
		if (!there)
			break;
	}
	kfree(works);
	return there ? 0 : -EBUSY;
}

static int ncs_suite_init(struct kunit_suite *suite)
{
	int err = ncs_start_threads();
	struct nfsd_net *nn = net_generic(&init_net, nfsd_net_id);

	/* The first server sets these up. */
	if (!nn->conf_id_hashtbl) {
		kv_nfsd_init_s2s_lock(nn);
		spin_lock_init(&nn->blocked_locks_lock);
	}
	if (err)
		return err;
	ncs_slab = kmem_cache_create("nfsd_cb_shutdown_test",
				     sizeof(struct ncs_deleg), 0, 0, NULL);
	if (!ncs_slab)
		return -ENOMEM;
	return xprt_register_transport(ncs_xprt_class());
}

static void ncs_suite_exit(struct kunit_suite *suite)
{
	xprt_unregister_transport(ncs_xprt_class());
	if (!ncs_lost)
		kmem_cache_destroy(ncs_slab);
}

static struct kunit_case nfsd_cb_shutdown_test_cases[] = {
	KUNIT_CASE(nfsd_cb_shutdown_test_waits_for_release),
	KUNIT_CASE(nfsd_cb_shutdown_test_no_stateid_left),
	KUNIT_CASE(nfsd_cb_shutdown_test_restart_meets_second_run),
	KUNIT_CASE(nfsd_cb_shutdown_test_courtesy_client),
	KUNIT_CASE(nfsd_cb_shutdown_test_reaper_meets_expiry),
	KUNIT_CASE(nfsd_cb_shutdown_test_broken_twice),
	KUNIT_CASE(nfsd_cb_shutdown_test_notify_meets_expiry),
	KUNIT_CASE(nfsd_cb_shutdown_test_recall_any_once),
	KUNIT_CASE(nfsd_cb_shutdown_test_expirable_client),
	KUNIT_CASE(nfsd_cb_shutdown_test_idle_client),
	KUNIT_CASE_PARAM(nfsd_cb_shutdown_test_last_of_many,
			 ncs_order_gen_params),
	KUNIT_CASE(nfsd_cb_shutdown_test_restarted_once),
	KUNIT_CASE(nfsd_cb_shutdown_test_ends_by_itself),
	KUNIT_CASE(nfsd_cb_shutdown_test_unqueued_gives_count_back),
	KUNIT_CASE(nfsd_cb_shutdown_test_refused_by_queue),
	KUNIT_CASE(nfsd_cb_shutdown_test_two_clients),
	KUNIT_CASE(nfsd_cb_shutdown_test_queued_is_not_sent),
	KUNIT_CASE(nfsd_cb_shutdown_test_probe),
	{}
};

static struct kunit_suite nfsd_cb_shutdown_test_suite = {
	.name = "nfsd_cb_shutdown",
	.suite_init = ncs_suite_init,
	.suite_exit = ncs_suite_exit,
	.init = ncs_init,
	.exit = ncs_exit,
	.test_cases = nfsd_cb_shutdown_test_cases,
};

kunit_test_suite(nfsd_cb_shutdown_test_suite);
