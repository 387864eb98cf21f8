/* SPDX-License-Identifier: GPL-2.0-only */
/* Simulated IEEE 802.15.4 radios, and how the kernel is asked for them. */
#ifndef _KSFT_RADIO_H
#define _KSFT_RADIO_H

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

#define NETS		"/sys/class/net"
#define LOOK_MS		100	/* between looks at the kernel's log */
/* The smallest kmalloc() cache that there is everywhere */
#define SLAB		"/sys/kernel/slab/kmalloc-128"

/* Not in any header for user space; all that the kernel says of it is ABI. */
enum {
	NL802154_CMD_SET_CHANNEL = 9,
	NL802154_CMD_SET_PAN_ID = 10,
	NL802154_CMD_TRIGGER_SCAN = 35,
};

enum {
	NL802154_ATTR_IFINDEX = 3,
	NL802154_ATTR_PAGE = 7,
	NL802154_ATTR_CHANNEL = 8,
	NL802154_ATTR_PAN_ID = 9,
	NL802154_ATTR_SCAN_TYPE = 31,
	NL802154_ATTR_SCAN_DURATION = 36,
};

enum {
	HWSIM_CMD_NEW_RADIO = 3,
	HWSIM_CMD_DEL_RADIO = 4,
	HWSIM_CMD_DEL_EDGE = 7,
};

enum {
	HWSIM_ATTR_RADIO_ID = 1,
	HWSIM_ATTR_RADIO_EDGE = 2,
};

#define HWSIM_EDGE_ATTR_ENDPOINT_ID	1

struct message {
	struct nlmsghdr head;
	char data[512];
};

static struct message msg;
static int generic = -1;
static int hwsim, nl802154;	/* families */

static inline int open_netlink(int protocol)
{
	return ksft_sys(__NR_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC,
			protocol, 0, 0, 0);
}

/* Room for so many bytes behind what the message has already */
static inline void *append(int size)
{
	void *room = (char *)&msg + NLMSG_ALIGN(msg.head.nlmsg_len);

	msg.head.nlmsg_len = NLMSG_ALIGN(msg.head.nlmsg_len) + size;
	return room;
}

static inline void begin(int type)
{
	memset(&msg, 0, sizeof(msg));
	msg.head.nlmsg_len = NLMSG_HDRLEN;
	msg.head.nlmsg_type = type;
	msg.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
}

static inline void begin_generic(int family, int cmd)
{
	struct genlmsghdr *head;

	begin(family);
	head = append(GENL_HDRLEN);
	head->cmd = cmd;
	head->version = 1;
}

static inline void add(int type, const void *data, int size)
{
	struct nlattr *attr = append(NLA_HDRLEN + size);

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + size;
	memcpy((char *)attr + NLA_HDRLEN, data, size);
}

/* Send the message, and receive an answer in its place. */
static inline int receive(int fd)
{
	long len = ksft_sys(__NR_recvfrom, fd, (long)&msg, sizeof(msg), 0, 0, 0);

	if (len < 0)
		return len;
	return len < NLMSG_HDRLEN ? -EIO : 0;
}

static inline int send_message(int fd)
{
	long len = ksft_sys(__NR_sendto, fd, (long)&msg, msg.head.nlmsg_len, 0,
			    0, 0);

	return len < 0 ? len : receive(fd);
}

/* What the kernel answers: a negative errno, 0, or a number. */
static inline int ask(int fd)
{
	int ret = send_message(fd);

	if (ret)
		return ret;
	if (msg.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return ((struct nlmsgerr *)msg.data)->error;
}

/* The id of a family, or a negative errno */
static inline int find_family(const char *name)
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

/* Opens the socket that all asks; returns whether there can be radios. */
static inline int open_radios(void)
{
	generic = open_netlink(NETLINK_GENERIC);
	if (generic < 0)
		return 0;
	hwsim = find_family("MAC802154_HWSIM");
	nl802154 = find_family("nl802154");
	return hwsim >= 0 && nl802154 >= 0;
}

static int newest;	/* index of an interface */

static inline int look_at(const char *name)
{
	int index = ksft_read_number(ksft_text(NETS "/%s/ifindex", name));

	if (index > newest)
		newest = index;
	return 0;
}

static inline int newest_interface(void)
{
	newest = 0;
	ksft_for_each(NETS, look_at);
	return newest;
}

/* Returns the id of a new radio, whose interface is the newest one then. */
static inline int add_radio(void)
{
	int before = newest_interface(), id;

	begin_generic(hwsim, HWSIM_CMD_NEW_RADIO);
	id = ask(generic);
	if (id >= 0 && newest_interface() <= before)
		return -ENODEV;
	return id;
}

static inline int delete_radio(unsigned int id)
{
	begin_generic(hwsim, HWSIM_CMD_DEL_RADIO);
	add(HWSIM_ATTR_RADIO_ID, &id, sizeof(id));
	return ask(generic);
}

/* Says what did not succeed. */
static inline int failed(const char *what, int ret)
{
	if (ret < 0)
		ksft_print_msg("%s: %s\n", what, strerror(-ret));
	return ret < 0;
}

/* Waits until what was freed by RCU is freed; ends early where that is bad. */
static inline int is_clean(struct ksft_klog *klog, int seconds)
{
	long long end = ksft_now_ms() + seconds * 1000LL;
	int faults;

	while (!(faults = ksft_klog_faults(klog)) && ksft_now_ms() < end)
		ksft_pause_ms(LOOK_MS);
	return !faults;
}

/* Does the allocator look at each object that is freed, and at its end? */
static inline int is_watched(void)
{
	return ksft_read_number(SLAB "/sanity_checks") == 1 &&
	       ksft_read_number(SLAB "/red_zone") == 1;
}

#endif /* _KSFT_RADIO_H */
