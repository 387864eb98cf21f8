// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of what a radio of mac802154_hwsim leaves behind.
 *
 * drivers/net/ieee802154/mac802154_hwsim.c includes this file.  The radios are
 * real ones, registered with mac802154 and taken away again.  When the
 * interface of one goes, which is in the midst of ieee802154_unregister_hw(),
 * its channel is set, as the end of a scan does it there.  Each pib that a radio
 * ever had must be freed once: not twice, not never, and not while it is in use.
 */
#include <kunit/test.h>
#include <linux/netdevice.h>
#include <net/cfg802154.h>

static int hdk_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	struct net_device *dev = netdev_notifier_info_to_dev(ptr);
	struct wpan_dev *wpan_dev = dev->ieee802154_ptr;

	if (event == NETDEV_UNREGISTER && hdk.phy && wpan_dev &&
	    wpan_dev->wpan_phy == hdk.phy->hw->phy)
		hdk_set_channels(hdk.phy);
	return NOTIFY_DONE;
}

static struct notifier_block hdk_notifier = {
	.notifier_call = hdk_event,
};

static struct hwsim_phy *hdk_add_radio(struct kunit *test)
{
	int idx = hwsim_add_one(NULL, &mac802154hwsim_dev->dev, false);
	struct hwsim_phy *phy;

	KUNIT_ASSERT_GE(test, idx, 0);
	mutex_lock(&hwsim_phys_lock);
	phy = hwsim_get_radio_by_id(idx);
	mutex_unlock(&hwsim_phys_lock);
	KUNIT_ASSERT_TRUE(test, phy);
	return phy;
}

/* Take a radio away whose channel is set so often when its interface goes. */
static void hdk_del_radio(struct kunit *test, int sets)
{
	hdk.sets = sets;
	hdk.phy = hdk_add_radio(test);
	hdk.looks = true;
	mutex_lock(&hwsim_phys_lock);
	hwsim_del(hdk.phy);
	mutex_unlock(&hwsim_phys_lock);
	hdk.phy = NULL;
	hdk.looks = false;
	KUNIT_ASSERT_TRUE_MSG(test, hdk.last, "the interface has not gone");
	KUNIT_EXPECT_EQ(test, hdk.nr_set, sets);
}

static void hdk_expect_each_once(struct kunit *test)
{
	int i;

	KUNIT_EXPECT_LT(test, hdk.nr_given, HDK_MAX_GIVEN);
	for (i = 0; i < hdk.nr_given; i++)
		KUNIT_EXPECT_EQ_MSG(test, hdk_times_given(hdk.given[i]), 1,
				    "pib %d of %d is freed again", i + 1,
				    hdk.nr_given);
	KUNIT_EXPECT_EQ_MSG(test, hdk_times_given(hdk.last), 1,
			    "the last pib leaks");
	/* The first one, and one for each channel. */
	KUNIT_EXPECT_EQ(test, hdk.nr_given, hdk.sets + 1);
}

static const int hdk_sets_cases[] = { 0, 1, 3 };

static void hdk_sets_desc(const int *sets, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "channels %d", *sets);
}

KUNIT_ARRAY_PARAM(hdk_sets, hdk_sets_cases, hdk_sets_desc);

/* Whatever was set while the radio went, each pib is freed once. */
static void hwsim_del_test_each_freed_once(struct kunit *test)
{
	hdk_del_radio(test, *(const int *)test->param_value);
	hdk_expect_each_once(test);
}

/* As long as the radio is registered, its pib is not one that was freed. */
static void hwsim_del_test_not_freed_in_use(struct kunit *test)
{
	hdk_del_radio(test, 1);
	KUNIT_EXPECT_EQ_MSG(test, hdk.nr_stale, 0,
			    "the interface is there, and its pib is freed");
}

/* A radio that cannot be added leaves nothing, and frees nothing twice. */
static void hwsim_del_test_add_undone(struct kunit *test)
{
	hdk.sets = *(const int *)test->param_value;
	hdk.looks = true;
	KUNIT_EXPECT_EQ(test,
			hwsim_add_one(NULL, &mac802154hwsim_dev->dev, true),
			-ENOMEM);
	hdk.looks = false;
	KUNIT_ASSERT_TRUE_MSG(test, hdk.last, "it was not registered");
	KUNIT_EXPECT_EQ(test, hdk.nr_set, hdk.sets);
	KUNIT_EXPECT_EQ(test, hdk.nr_stale, 0);
	hdk_expect_each_once(test);
}

static int hdk_test_init(struct kunit *test)
{
	if (IS_ERR_OR_NULL(mac802154hwsim_dev)) {
		kunit_err(test, "the driver has no device");
		return -ENODEV;
	}
	memset(&hdk, 0, sizeof(hdk));
	return register_netdevice_notifier(&hdk_notifier);
}

static void hdk_test_exit(struct kunit *test)
{
	int i;

	hdk.phy = NULL;
	hdk.looks = false;
	unregister_netdevice_notifier(&hdk_notifier);
	if (!hdk_times_given(hdk.last))
		hdk_kfree(hdk.last);
	/* Each one once, however often it was freed. */
	while (hdk.nr_given) {
		i = --hdk.nr_given;
		if (!hdk_times_given(hdk.given[i]))
			hdk_kfree(hdk.given[i]);
	}
}

static struct kunit_case hwsim_del_test_cases[] = {
	KUNIT_CASE_PARAM(hwsim_del_test_each_freed_once, hdk_sets_gen_params),
	KUNIT_CASE(hwsim_del_test_not_freed_in_use),
	KUNIT_CASE_PARAM(hwsim_del_test_add_undone, hdk_sets_gen_params),
	{}
};

static struct kunit_suite hwsim_del_test_suite = {
	.name = "hwsim_del",
	.init = hdk_test_init,
	.exit = hdk_test_exit,
	.test_cases = hwsim_del_test_cases,
};

kunit_test_suite(hwsim_del_test_suite);
