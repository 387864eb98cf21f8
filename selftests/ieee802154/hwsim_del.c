// SPDX-License-Identifier: GPL-2.0-only
/*
 * Delete simulated radios: one that is idle, and one in the midst of a scan.
 *
 * A radio that goes ends its scan, and the end of a scan sets the channel.  What
 * the driver has of a channel is freed by RCU.  Where one such object is freed
 * twice the slab allocator may run in circles and die, or not notice.  It tells so
 * in the kernel log with slub_debug=FZ,kmalloc-*, without which a scan is skipped.
 */
#include "radio.h"

#define INTERFACE_UP	1	/* IFF_UP */
#define NL802154_SCAN_PASSIVE	3
#define SCAN_LONGEST		14	/* minutes on each channel */

/* kfree_rcu() hands what it is given on within 5 seconds, and a grace period. */
static int seconds = 8;
static int route = -1;

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
	if (failed("the radio's end", delete_radio(id)) || !is_clean(klog, seconds))
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
	route = open_netlink(NETLINK_ROUTE);
	if (route < 0 || !open_radios())
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
