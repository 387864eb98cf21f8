// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unbind the driver of simulated radios while their channels are set.
 *
 * One process sets the channels of both radios, over and over; the other one
 * binds the driver, which brings the radios, and unbinds it.  Each has a CPU of
 * its own.  DEL_RADIO would not do: generic netlink does one command at a time.
 *
 * Whenever the driver is unbound, it has two radios, and the channels of both are
 * set: before the first one is gone every channel can be set.  The radios that are
 * bound here have no edges, so that all that one of them gives to RCU as it goes is
 * what the driver has of its channel.
 */
#include "radio.h"

#define DRIVER		"/sys/bus/platform/drivers/mac802154_hwsim"
#define DEVICE		"mac802154_hwsim"
#define RADIOS		2	/* the driver brings so many */
#define WAIT_MS		30000
/* Channels are set so often before the radios go. */
#define MIN_SET		4
/* kfree_rcu() hands what it is given on within 5 seconds, and a grace period. */
#define RCU_SECONDS	8

static int seconds = 3;

static struct shared {
	int stop;
	unsigned int index[RADIOS];	/* their interfaces; 0 is none */
	unsigned long set;	/* channels, by the other process */
	unsigned long gone;	/* how often there was no such radio */
	int err;
} *shared;

static int set_channel(unsigned int index, unsigned char channel)
{
	unsigned char page = 0;

	begin_generic(nl802154, NL802154_CMD_SET_CHANNEL);
	add(NL802154_ATTR_IFINDEX, &index, sizeof(index));
	add(NL802154_ATTR_PAGE, &page, sizeof(page));
	add(NL802154_ATTR_CHANNEL, &channel, sizeof(channel));
	return ask(generic);
}

static void run_setter(void *arg)
{
	struct shared *me = arg;
	unsigned int i, index, turn;
	int ret;

	me->err = -ksft_stay_on_cpu(0);
	/* Answers go to who has the socket. */
	if (!me->err && !open_radios())
		me->err = EIO;
	for (turn = 0; !me->err && !me->stop; turn++) {
		if (!me->index[0])
			ksft_pause_ms(1);
		for (i = 0; i < RADIOS; i++) {
			index = me->index[i];
			if (!index)
				continue;
			ret = set_channel(index, turn % 2 ? 11 : 12);
			if (!ret)
				me->set++;
			else if (ret == -ENODEV)
				me->gone++;
			else
				me->err = -ret;
		}
	}
}

static unsigned int indices[RADIOS];	/* the newest ones, the oldest first */

static int keep_newest(const char *name)
{
	unsigned int index = ksft_read_number(ksft_text(NETS "/%s/ifindex",
							name));

	if (index > indices[1]) {
		indices[0] = indices[1];
		indices[1] = index;
	} else if (index > indices[0]) {
		indices[0] = index;
	}
	return 0;
}

static int delete_edge(unsigned int from, unsigned int to)
{
	struct nlattr *edge;

	begin_generic(hwsim, HWSIM_CMD_DEL_EDGE);
	add(HWSIM_ATTR_RADIO_ID, &from, sizeof(from));
	edge = append(NLA_HDRLEN);
	edge->nla_type = HWSIM_ATTR_RADIO_EDGE | NLA_F_NESTED;
	edge->nla_len = NLA_HDRLEN + NLA_HDRLEN + sizeof(to);
	add(HWSIM_EDGE_ATTR_ENDPOINT_ID, &to, sizeof(to));
	return ask(generic);
}

/* The channels of the newest radios are set, and the driver is unbound. */
static int set_and_unbind(void)
{
	unsigned long set = shared->set;
	int ok;

	memset(indices, 0, sizeof(indices));
	ksft_for_each(NETS, keep_newest);
	memcpy(shared->index, indices, sizeof(indices));
	ok = ksft_until(shared->err || shared->set >= set + MIN_SET, WAIT_MS) &&
	     !failed("unbind", ksft_write_file(DRIVER "/unbind", DEVICE));
	memset(shared->index, 0, sizeof(shared->index));
	return ok && !shared->err;
}

/* The driver brings radios with this id and the next one, and they go. */
static int come_and_go(unsigned int id)
{
	return !failed("bind", ksft_write_file(DRIVER "/bind", DEVICE)) &&
	       !failed("an edge", delete_edge(id, id + 1)) &&
	       !failed("an edge", delete_edge(id + 1, id)) && set_and_unbind();
}

static int test_unbind(void)
{
	struct ksft_child setter;
	unsigned long rounds = 0;
	long long end;
	int id, ok;

	if (failed("a process", ksft_child_start(&setter, run_setter, shared)))
		return 0;
	/* Ids are never used again: those of the driver's radios come next. */
	id = add_radio();
	if (failed("a new radio", id) ||
	    failed("deleting it", delete_radio(id)) || !set_and_unbind())
		return 0;
	end = ksft_now_ns() + seconds * 1000000000LL;
	do {
		ok = come_and_go(id + 1 + RADIOS * rounds);
		rounds += ok;
	} while (ok && ksft_now_ns() < end);
	shared->stop = 1;
	ksft_child_wait(&setter, WAIT_MS);
	ok &= ksft_child_ended_well(&setter, "the process that sets channels");
	ok &= !failed("bind", ksft_write_file(DRIVER "/bind", DEVICE));
	ksft_print_msg("%lu times unbound, %lu channels set, %lu not any more\n",
		       rounds, shared->set, shared->gone);
	if (shared->err)
		ksft_print_msg("setting: %s\n", strerror(shared->err));
	return ok && !shared->err;
}

static const struct ksft_option options[] = {
	{ "-t", "SECONDS", "how long radios come and go", &seconds, 86400, NULL },
	{ 0 }
};

int main(int argc, char **argv)
{
	const char *clean = "nothing is freed twice";
	struct ksft_klog klog;
	int watched;

	ksft_begin(argc, argv, options);
	ksft_need_root();
	if (ksft_stay_on_cpu(0) || ksft_stay_on_cpu(1))
		ksft_exit_skip("it takes two CPUs\n");
	if (!open_radios() || !ksft_exists(DRIVER "/" DEVICE))
		ksft_exit_skip("no mac802154_hwsim in this kernel\n");
	if (ksft_klog_open(&klog))
		ksft_exit_skip("cannot read /dev/kmsg\n");
	shared = ksft_share(sizeof(*shared));
	ksft_set_plan(2);
	watched = is_watched();
	ksft_test_result(test_unbind(), "radios go while their channels are set\n");
	if (watched)
		ksft_test_result(is_clean(&klog, RCU_SECONDS), "%s\n", clean);
	else
		ksft_skip_case(clean, "not noticed without slub_debug=FZ,kmalloc-*");
	ksft_finished();
}
