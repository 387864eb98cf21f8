// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bind and unbind flow blocks of one driver in two namespaces at once.
 *
 * A chain with "flags offload" binds a block of its device when it is added, and
 * unbinds it when it is deleted.  The driver, netdevsim, has one list of all that
 * is bound to its devices.  Each of two processes has a namespace of its own with
 * one of them, and a CPU.  Nothing of this goes through rtnl.
 */
#include "../kselftest_kit.h"

#ifndef NOLIBC
#include <sys/socket.h>
#endif
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

/* nolibc has none of these. */
#ifdef NOLIBC
#define AF_NETLINK	16
#define SOCK_RAW	3
#define SOCK_CLOEXEC	O_CLOEXEC
#define MSG_DONTWAIT	0x40
#endif

#define NEWNET		0x40000000	/* CLONE_NEWNET */
#define NETDEV		5		/* NFPROTO_NETDEV */
#define OFFLOAD		2		/* NFT_CHAIN_HW_OFFLOAD */

#define DEVICES		"/sys/bus/netdevsim"
#define FIRST_ID	4770		/* of a device; nobody counts up to there */
#define SIDES		2
#define WAIT_MS		30000

static int seconds = 3;

static struct side {
	int number;		/* and its CPU */
	unsigned long chains;	/* added and deleted */
	int busy;		/* what a second chain is told */
	int err;
	const char *what;	/* that was to be done then */
} *sides;

static struct {
	struct nlmsghdr head;
	char data[2048];
} msg;
static struct nlmsghdr *last;	/* of the messages that are sent at once */
static int end, nft = -1;

static void *append(int size)
{
	void *room = (char *)&msg + end;

	memset(room, 0, NLMSG_ALIGN(size));
	end += NLMSG_ALIGN(size);
	return room;
}

static void begin(int type, int flags, int family, int resource)
{
	struct nfgenmsg *gen;

	last = append(NLMSG_HDRLEN);
	last->nlmsg_type = type;
	last->nlmsg_flags = NLM_F_REQUEST | flags;
	gen = append(sizeof(*gen));
	gen->nfgen_family = family;
	gen->res_id = __builtin_bswap16(resource);
	last->nlmsg_len = (char *)&msg + end - (char *)last;
}

static void add(int type, const void *data, int size)
{
	struct nlattr *attr = append(NLA_HDRLEN + size);

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + size;
	memcpy(attr + 1, data, size);
	last->nlmsg_len = (char *)&msg + end - (char *)last;
}

static void add_text(int type, const char *text)
{
	add(type, text, strlen(text) + 1);
}

/* As all numbers of nf_tables, it is big-endian. */
static void add_number(int type, unsigned int number)
{
	unsigned char bytes[] = { number >> 24, number >> 16, number >> 8,
				  number };

	add(type, bytes, sizeof(bytes));
}

static void begin_batch(int type, int flags)
{
	end = 0;
	begin(NFNL_MSG_BATCH_BEGIN, 0, 0, NFNL_SUBSYS_NFTABLES);
	begin(NFNL_SUBSYS_NFTABLES << 8 | type, NLM_F_ACK | flags, NETDEV, 0);
}

static long receive(int flags)
{
	return ksft_sys(__NR_recvfrom, nft, (long)&msg, sizeof(msg), flags, 0,
			0);
}

/* What the kernel says of the batch first: 0 or a negative errno */
static int commit(void)
{
	long len;
	int ret;

	begin(NFNL_MSG_BATCH_END, 0, 0, NFNL_SUBSYS_NFTABLES);
	len = ksft_sys(__NR_sendto, nft, (long)&msg, end, 0, 0, 0);
	if (len >= 0)
		len = receive(0);
	if (len < 0)
		return len;
	ret = msg.head.nlmsg_type != NLMSG_ERROR ? -EPROTO :
	      ((struct nlmsgerr *)msg.data)->error;
	/* Where the commit fails, an acknowledgment comes all the same. */
	while (receive(MSG_DONTWAIT) >= 0)
		;
	return ret;
}

static int add_chain(const char *name, const char *dev, int flags)
{
	struct nlattr *hook;

	begin_batch(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	add_text(NFTA_CHAIN_TABLE, "flow_block_list");
	add_text(NFTA_CHAIN_NAME, name);
	hook = append(NLA_HDRLEN);
	hook->nla_type = NFTA_CHAIN_HOOK | NLA_F_NESTED;
	add_number(NFTA_HOOK_HOOKNUM, 0 /* NF_NETDEV_INGRESS */);
	add_number(NFTA_HOOK_PRIORITY, 1);
	add_text(NFTA_HOOK_DEV, dev);
	hook->nla_len = (char *)&msg + end - (char *)hook;
	add_text(NFTA_CHAIN_TYPE, "filter");
	add_number(NFTA_CHAIN_FLAGS, flags);
	return commit();
}

static int delete_chain(const char *name)
{
	begin_batch(NFT_MSG_DELCHAIN, 0);
	add_text(NFTA_CHAIN_TABLE, "flow_block_list");
	add_text(NFTA_CHAIN_NAME, name);
	return commit();
}

static int open_table(void)
{
	nft = ksft_sys(__NR_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC,
		       NETLINK_NETFILTER, 0, 0, 0);
	if (nft < 0)
		return nft;
	begin_batch(NFT_MSG_NEWTABLE, NLM_F_CREATE);
	add_text(NFTA_TABLE_NAME, "flow_block_list");
	return commit();
}

/* Returns whether it did not succeed, and notes that. */
static int failed(struct side *me, const char *what, int ret)
{
	if (ret < 0) {
		me->err = -ret;
		me->what = what;
	}
	return ret < 0;
}

/* In a namespace where the one device is called so, as it is the first one. */
static void bind_and_unbind(struct side *me)
{
	long long stop;

	if (failed(me, "a table", open_table()) ||
	    failed(me, "a chain", add_chain("first", "eth0", OFFLOAD)))
		return;
	me->busy = -add_chain("second", "eth0", OFFLOAD);
	stop = ksft_now_ms() + seconds * 1000LL;
	do {
		if (failed(me, "deleting a chain", delete_chain("first")) ||
		    failed(me, "a chain", add_chain("first", "eth0", OFFLOAD)))
			return;
		me->chains++;
	} while (ksft_now_ms() < stop);
	failed(me, "deleting a chain", delete_chain("first"));
}

static void run_side(void *arg)
{
	struct side *me = arg;
	char *id = ksft_text("%d", FIRST_ID + me->number);

	/* A new device is in the namespace of who asks for it. */
	if (failed(me, "a CPU", ksft_stay_on_cpu(me->number)) ||
	    failed(me, "a namespace", ksft_sys(__NR_unshare, NEWNET, 0, 0, 0, 0,
					       0)) ||
	    failed(me, "a device", ksft_write_file(DEVICES "/new_device",
						   ksft_text("%s 1", id))))
		return;
	bind_and_unbind(me);
	failed(me, "deleting a device",
	       ksft_write_file(DEVICES "/del_device", id));
}

static int ended_well(struct side *me, struct ksft_child *child)
{
	int ok = ksft_child_ended_well(child, ksft_text("side %d", me->number));

	ksft_print_msg("side %d: %lu chains\n", me->number, me->chains);
	if (me->err)
		ksft_print_msg("side %d: %s: %s\n", me->number, me->what,
			       strerror(me->err));
	if (ok && !me->err && me->busy != EBUSY)
		ksft_print_msg("side %d: a second chain got %d\n", me->number,
			       me->busy);
	return ok && !me->err && me->busy == EBUSY && me->chains;
}

static int test_both(void)
{
	struct ksft_child child[SIDES];
	int i, ok = 1;

	for (i = 0; i < SIDES; i++) {
		sides[i].number = i;
		if (ksft_child_start(&child[i], run_side, &sides[i]))
			ksft_exit_fail_msg("no process to be had\n");
	}
	for (i = 0; i < SIDES; i++)
		ksft_child_wait(&child[i], seconds * 1000LL + WAIT_MS);
	for (i = 0; i < SIDES; i++)
		ok &= ended_well(&sides[i], &child[i]);
	return ok;
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long chains come and go", &seconds, 86400, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	struct ksft_klog klog;
	int ret;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	if (ksft_stay_on_cpu(0) || ksft_stay_on_cpu(1))
		ksft_exit_skip("it takes two CPUs\n");
	if (!ksft_can_open(DEVICES "/new_device", O_WRONLY))
		ksft_exit_skip("no netdevsim in this kernel\n");
	/*
	 * With a chain that stays the kernel's code is not patched whenever the
	 * first one comes and the last one goes.
	 */
	ret = open_table();
	if (!ret)
		ret = add_chain("stays", "lo", 0);
	if (ret)
		ksft_exit_skip("no ingress chain: %s\n", strerror(-ret));
	sides = ksft_share(SIDES * sizeof(*sides));
	ksft_set_plan(2);
	ksft_klog_open(&klog);
	ksft_test_result(test_both(), "blocks are bound in two namespaces\n");
	ksft_klog_test_result(&klog, "kernel log stays clean");
	delete_chain("stays");
	ksft_finished();
}
