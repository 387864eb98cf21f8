// SPDX-License-Identifier: GPL-2.0-only
/*
 * Delete simulated radios: one that is idle, and one in the midst of a scan.
 *
 * A radio that goes ends its scan, and the end of a scan sets the channel.  What
 * the driver has of a channel is freed by RCU.  Where one such object is freed
 * twice the slab allocator may run in circles and die, or not notice.  It tells so
 * in the kernel log with slub_debug=FZ,kmalloc-*, without which a scan is skipped.
 */
#include "../kselftest_kit.h"

#ifndef NOLIBC
#include <sys/socket.h>
#endif
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

/* nolibc has none of these, and linux/if.h needs a libc. */
#ifdef NOLIBC
#define AF_NETLINK	16
#define SOCK_RAW	3
#define SOCK_CLOEXEC	O_CLOEXEC
#endif
#define INTERFACE_UP	1	/* IFF_UP */

#define NETS		"/sys/class/net"
/* The smallest kmalloc() cache that there is everywhere */
#define SLAB		"/sys/kernel/slab/kmalloc-128"

/* kfree_rcu() hands what it is given on within 5 seconds, and a grace period. */
static int seconds = 8;

/* Not in any header for user space; all that the kernel says of it is ABI. */
enum {
	NL802154_CMD_SET_PAN_ID = 10,
	NL802154_CMD_TRIGGER_SCAN = 35,
};

enum {
	NL802154_ATTR_IFINDEX = 3,
	NL802154_ATTR_PAN_ID = 9,
	NL802154_ATTR_SCAN_TYPE = 31,
	NL802154_ATTR_SCAN_DURATION = 36,
};

#define NL802154_SCAN_PASSIVE	3
#define SCAN_LONGEST		14	/* minutes on each channel */

enum {
	HWSIM_CMD_NEW_RADIO = 3,
	HWSIM_CMD_DEL_RADIO = 4,
};

#define HWSIM_ATTR_RADIO_ID	1

struct message {
	struct nlmsghdr head;
	char data[512];
};

static struct message msg;
static int generic = -1, route = -1;
static int hwsim, nl802154;	/* families */

/*
 * Netlink
 */

static int open_netlink(int protocol)
{
	return ksft_sys(__NR_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC,
			protocol, 0, 0, 0);
}

/* Room for so many bytes behind what the message has already */
static void *append(int size)
{
	void *room = (char *)&msg + NLMSG_ALIGN(msg.head.nlmsg_len);

	msg.head.nlmsg_len = NLMSG_ALIGN(msg.head.nlmsg_len) + size;
	return room;
}

static void begin(int type)
{
	memset(&msg, 0, sizeof(msg));
	msg.head.nlmsg_len = NLMSG_HDRLEN;
	msg.head.nlmsg_type = type;
	msg.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
}

static void begin_generic(int family, int cmd)
{
	struct genlmsghdr *head;

	begin(family);
	head = append(GENL_HDRLEN);
	head->cmd = cmd;
	head->version = 1;
}

static void add(int type, const void *data, int size)
{
	struct nlattr *attr = append(NLA_HDRLEN + size);

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + size;
	memcpy((char *)attr + NLA_HDRLEN, data, size);
}

/* Send the message, and receive an answer in its place. */
static int receive(int fd)
{
	long len = ksft_sys(__NR_recvfrom, fd, (long)&msg, sizeof(msg), 0, 0, 0);

	if (len < 0)
		return len;
	return len < NLMSG_HDRLEN ? -EIO : 0;
}

static int send_message(int fd)
{
	long len = ksft_sys(__NR_sendto, fd, (long)&msg, msg.head.nlmsg_len, 0,
			    0, 0);

	return len < 0 ? len : receive(fd);
}

/* What the kernel answers: a negative errno, 0, or a number. */
static int ask(int fd)
{
	int ret = send_message(fd);

	if (ret)
		return ret;
	if (msg.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return ((struct nlmsgerr *)msg.data)->error;
}

/* The id of a family, or a negative errno */
static int find_family(const char *name)
{
	int ret, pos, id = -ENOENT;
	struct nlattr *attr;

	begin_generic(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	add(CTRL_ATTR_FAMILY_NAME, name, strlen(name) + 1);
	ret = send_message(generic);
	if (ret)
		return ret;
	if (msg.head.nlmsg_type == NLMSG_ERROR)
		return ((struct nlmsgerr *)msg.data)->error;
	for (pos = GENL_HDRLEN; pos + NLA_HDRLEN <= (int)sizeof(msg.data) &&
	     NLMSG_HDRLEN + pos < (int)msg.head.nlmsg_len;
	     pos += NLA_ALIGN(attr->nla_len)) {
		attr = (struct nlattr *)(msg.data + pos);
		if (attr->nla_len < NLA_HDRLEN)
			break;
		if (attr->nla_type == CTRL_ATTR_FAMILY_ID)
			id = *(unsigned short *)((char *)attr + NLA_HDRLEN);
	}
	/* The acknowledgment */
	ret = receive(generic);
	return ret ? ret : id;
}

/*
 * Radios
 */

static int newest;	/* index of an interface */

static int look_at(const char *name)
{
	int index = ksft_read_number(ksft_text(NETS "/%s/ifindex", name));

	if (index > newest)
		newest = index;
	return 0;
}

static int newest_interface(void)
{
	newest = 0;
	ksft_for_each(NETS, look_at);
	return newest;
}

/* Returns the id of a new radio, whose interface is the newest one then. */
static int add_radio(void)
{
	int before = newest_interface(), id;

	begin_generic(hwsim, HWSIM_CMD_NEW_RADIO);
	id = ask(generic);
	if (id >= 0 && newest_interface() <= before)
		return -ENODEV;
	return id;
}

static int delete_radio(unsigned int id)
{
	begin_generic(hwsim, HWSIM_CMD_DEL_RADIO);
	add(HWSIM_ATTR_RADIO_ID, &id, sizeof(id));
	return ask(generic);
}

static int set_pan_id(unsigned int index)
{
	unsigned short pan_id = 0xbeef;

	begin_generic(nl802154, NL802154_CMD_SET_PAN_ID);
	add(NL802154_ATTR_IFINDEX, &index, sizeof(index));
	add(NL802154_ATTR_PAN_ID, &pan_id, sizeof(pan_id));
	return ask(generic);
}

static int take_up(int index)
{
	struct ifinfomsg *info;

	begin(RTM_NEWLINK);
	info = append(sizeof(*info));
	info->ifi_index = index;
	info->ifi_flags = INTERFACE_UP;
	info->ifi_change = INTERFACE_UP;
	return ask(route);
}

static int scan(unsigned int index)
{
	unsigned char type = NL802154_SCAN_PASSIVE, duration = SCAN_LONGEST;

	begin_generic(nl802154, NL802154_CMD_TRIGGER_SCAN);
	add(NL802154_ATTR_IFINDEX, &index, sizeof(index));
	add(NL802154_ATTR_SCAN_TYPE, &type, sizeof(type));
	add(NL802154_ATTR_SCAN_DURATION, &duration, sizeof(duration));
	return ask(generic);
}

/*
 * Cases
 */

static int failed(const char *what, int ret)
{
	if (ret < 0)
		ksft_print_msg("%s: %s\n", what, strerror(-ret));
	return ret < 0;
}

/* Waits until what was freed by RCU is freed; ends early where that is bad. */
static int is_clean(struct ksft_klog *klog)
{
	int faults = 0;

	ksft_until((faults = ksft_klog_faults(klog)), seconds * 1000LL);
	return !faults;
}

/* Does the allocator look at each object that is freed, and at its end? */
static int is_watched(void)
{
	return ksft_read_number(SLAB "/sanity_checks") == 1 &&
	       ksft_read_number(SLAB "/red_zone") == 1;
}

/*
 * A radio comes, its interface is up, and it goes.  Returns 1 if all that
 * succeeds and the kernel log stays clean, or -1 if it cannot scan.
 */
static int come_and_go(struct ksft_klog *klog, int scans)
{
	int id = add_radio(), index = newest, ret;

	if (failed("a new radio", id) ||
	    failed("its PAN id", set_pan_id(index)) ||
	    failed("its interface", take_up(index)))
		return 0;
	ret = scans ? scan(index) : 0;
	if (failed("a scan", ret) && ret != -EOPNOTSUPP)
		return 0;
	if (failed("the radio's end", delete_radio(id)) || !is_clean(klog))
		return 0;
	if (newest_interface() >= index) {
		ksft_print_msg("its interface is still there\n");
		return 0;
	}
	return ret ? -1 : 1;
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long RCU may take to free what it is given",
	  &seconds, 86400, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	const char *in_scan = "a radio goes in the midst of a scan";
	struct ksft_klog klog;
	int watched, ret;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	generic = open_netlink(NETLINK_GENERIC);
	route = open_netlink(NETLINK_ROUTE);
	if (generic < 0 || route < 0)
		ksft_exit_skip("no netlink\n");
	hwsim = find_family("MAC802154_HWSIM");
	nl802154 = find_family("nl802154");
	if (hwsim < 0 || nl802154 < 0)
		ksft_exit_skip("no mac802154_hwsim in this kernel\n");
	/* Each CPU has its own list of what RCU is to free. */
	ksft_stay_on_cpu(0);

	ksft_set_plan(2);
	if (ksft_klog_open(&klog))
		ksft_exit_skip("cannot read /dev/kmsg\n");
	ksft_test_result(come_and_go(&klog, 0) > 0, "an idle radio goes\n");
	watched = is_watched();
	ret = watched ? come_and_go(&klog, 1) : -1;
	if (!watched)
		ksft_skip_case(in_scan, "not noticed without slub_debug=FZ,kmalloc-*");
	else if (ret < 0)
		ksft_skip_case(in_scan, "this kernel cannot scan");
	else
		ksft_test_result(ret, "%s\n", in_scan);
	ksft_finished();
}
