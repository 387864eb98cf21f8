// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of what KVM undoes when it goes: riscv_kvm_exit() and the error
 * paths of riscv_kvm_init().
 *
 * arch/riscv/kvm/main.c includes this file, and names what says how many levels
 * the G-stage has in RKE_GSTAGE_LEVELS where the mode goes by that.  The tests
 * call the module's own exit and init functions, so they make an init suite: it
 * runs right after KVM came up, while init code is still there and nobody can
 * have opened /dev/kvm yet.  Kprobes see the steps and what state each one finds.
 *
 * Every case begins and ends with KVM up.  Up to v6.11 KVM is on the CPUs only
 * while a VM exists: there the order at exit cannot be shown, the rest can.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdesc.h>
#include <linux/irqdomain.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/percpu.h>
#include <linux/string.h>

#define RKE_MAX_EVENTS	64
#define RKE_ROUNDS	10

#ifndef RKE_CPU_OFF_FN
#define RKE_CPU_OFF_FN	kvm_arch_disable_virtualization_cpu
#endif

enum rke_step {
	RKE_CPU_OFF,	/* KVM leaves a CPU */
	RKE_AIA_EXIT,	/* the AIA step frees the interrupt */
	RKE_NACL_EXIT,	/* the NACL step frees what CPUs share with the SBI */
};

/* A step as a probe met it */
struct rke_event {
	enum rke_step step;
	int cpu;		/* where it ran */
	unsigned int irq_on;	/* CPUs with the interrupt enabled by then */
};

static struct rke_event rke_events[RKE_MAX_EVENTS];
static atomic_t rke_nr_events;

static struct irq_desc *rke_desc;	/* of the guest external interrupt */
static unsigned int rke_irq;
static bool rke_kvm_up = true;
static bool rke_at_load;		/* KVM is on the CPUs while it is loaded */
static int rke_offline_cpu = -1;

struct rke_probe {
	struct kprobe kp;
	enum rke_step step;
};

static int rke_note(struct kprobe *kp, struct pt_regs *regs)
{
	int nr = atomic_inc_return(&rke_nr_events) - 1;

	if (nr < RKE_MAX_EVENTS) {
		rke_events[nr].step = container_of(kp, struct rke_probe, kp)->step;
		rke_events[nr].cpu = smp_processor_id();
		rke_events[nr].irq_on = cpumask_weight(rke_desc->percpu_enabled);
	}
	return 0;
}

static struct rke_probe rke_probes[] = {
	{ .step = RKE_CPU_OFF },
	{ .step = RKE_AIA_EXIT },
#ifdef __KVM_NACL_H
	{ .step = RKE_NACL_EXIT },
#endif
};

static void rke_remove_probes(void *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(rke_probes); i++)
		unregister_kprobe(&rke_probes[i].kp);
}

static int rke_set_probes(void)
{
	void *where[] = {
		RKE_CPU_OFF_FN,
		kvm_riscv_aia_exit,
#ifdef __KVM_NACL_H
		kvm_riscv_nacl_exit,
#endif
	};
	int i, err;

	for (i = 0; i < ARRAY_SIZE(rke_probes); i++) {
		rke_probes[i].kp = (struct kprobe) {
			.addr = where[i],
			.pre_handler = rke_note,
		};
		err = register_kprobe(&rke_probes[i].kp);
		if (err) {
			while (i--)
				unregister_kprobe(&rke_probes[i].kp);
			return err;
		}
	}
	return 0;
}

/* The init suite runs before init code is freed, hence __ref here and below. */
static int __ref rke_kvm_init(void)
{
	int err = riscv_kvm_init();

	rke_kvm_up = !err;
	return err;
}

static void __ref rke_kvm_exit(void)
{
	rke_kvm_up = false;
	riscv_kvm_exit();
}

/* Free what a faulty kernel leaves behind when KVM is gone. */
static void rke_clean_up(void)
{
	struct irqaction *left = rke_desc->action;

	kvm_unregister_device_ops(KVM_DEV_TYPE_RISCV_AIA);
	if (left)
		free_percpu_irq(rke_irq, left->percpu_dev_id);
}

/* For the cases about init: what the exit does wrong is none of theirs. */
static void rke_kvm_exit_clean(void)
{
	rke_kvm_exit();
	rke_clean_up();
	atomic_set(&rke_nr_events, 0);
}

#ifdef RKE_GSTAGE_LEVELS
#define rke_gstage_mode	kvm_riscv_gstage_mode_detect

/* In the place of init code, which may write what is read-only later. */
static void rke_unknown_mode(void)
{
	RKE_GSTAGE_LEVELS = 0;
}
#else
#define rke_gstage_mode	kvm_riscv_gstage_mode

static unsigned long rke_unknown_mode(void)
{
	return HGATP_MODE_OFF;
}
#endif

static void __ref rke_fake_gstage_mode(struct kunit *test)
{
	kunit_activate_static_stub(test, rke_gstage_mode, rke_unknown_mode);
}

static void __ref rke_real_gstage_mode(struct kunit *test)
{
	kunit_deactivate_static_stub(test, rke_gstage_mode);
}

/*
 * What KVM claims, one thing at a time.  Each can be claimed by the test as
 * well: to find out if KVM let go of it, or to make KVM's init fail.
 */
static DEFINE_PER_CPU(int, rke_percpu);

static irqreturn_t rke_handler(int irq, void *dev_id)
{
	return IRQ_NONE;
}

static int rke_claim_irq(void)
{
	return request_percpu_irq(rke_irq, rke_handler, "riscv-kvm-kunit",
				  &rke_percpu);
}

static void rke_release_irq(void)
{
	free_percpu_irq(rke_irq, &rke_percpu);
}

static int rke_claim_device_type(void)
{
	return kvm_register_device_ops(&kvm_riscv_aia_device_ops,
				       KVM_DEV_TYPE_RISCV_AIA);
}

static void rke_release_device_type(void)
{
	kvm_unregister_device_ops(KVM_DEV_TYPE_RISCV_AIA);
}

static const struct file_operations rke_fops = {
	.owner = THIS_MODULE,
};

static struct miscdevice rke_misc = {
	.minor = KVM_MINOR,
	.name = "kvm-kunit",
	.fops = &rke_fops,
};

static int rke_claim_minor(void)
{
	return misc_register(&rke_misc);
}

static void rke_release_minor(void)
{
	misc_deregister(&rke_misc);
}

struct rke_claim {
	const char *name;
	int (*claim)(void);
	void (*release)(void);
	bool aia_up;		/* KVM has the AIA by then, and may be on the CPUs */
};

static const struct rke_claim rke_claims[] = {
	{ "interrupt taken", rke_claim_irq, rke_release_irq, false },
	{ "device type taken", rke_claim_device_type, rke_release_device_type,
	  false },
	{ "minor taken", rke_claim_minor, rke_release_minor, true },
};

static void rke_claim_desc(const struct rke_claim *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(rke_claim, rke_claims, rke_claim_desc);

static void rke_expect_all_free(struct kunit *test)
{
	int i, err;

	for (i = 0; i < ARRAY_SIZE(rke_claims); i++) {
		err = rke_claims[i].claim();
		KUNIT_EXPECT_EQ_MSG(test, err, 0, "KVM is gone, but: %s",
				    rke_claims[i].name);
		if (!err)
			rke_claims[i].release();
	}
}

static void rke_expect_up(struct kunit *test)
{
	const struct cpumask *on = rke_at_load ? cpu_online_mask : cpu_none_mask;

	KUNIT_EXPECT_TRUE_MSG(test, cpumask_equal(rke_desc->percpu_enabled, on),
			      "interrupt enabled on CPUs %*pbl, not %*pbl",
			      cpumask_pr_args(rke_desc->percpu_enabled),
			      cpumask_pr_args(on));
}

static int rke_count(enum rke_step step)
{
	int i, count = 0;

	for (i = 0; i < atomic_read(&rke_nr_events) && i < RKE_MAX_EVENTS; i++)
		count += rke_events[i].step == step;
	return count;
}

/* This step comes once, after KVM has left each online CPU. */
static void rke_expect_last(struct kunit *test, enum rke_step step,
			    const char *name)
{
	cpumask_t off = {};
	int i, cpu;

	for (i = 0; i < atomic_read(&rke_nr_events) && i < RKE_MAX_EVENTS; i++) {
		if (rke_events[i].step == step)
			break;
		if (rke_events[i].step == RKE_CPU_OFF)
			cpumask_set_cpu(rke_events[i].cpu, &off);
	}
	KUNIT_EXPECT_EQ_MSG(test, rke_count(step), 1, "%s steps", name);
	if (!rke_at_load)
		return;
	for_each_online_cpu(cpu)
		KUNIT_EXPECT_TRUE_MSG(test, cpumask_test_cpu(cpu, &off),
				      "the %s step came before KVM left CPU %d",
				      name, cpu);
}

static void rke_expect_cpus_first(struct kunit *test)
{
	rke_expect_last(test, RKE_AIA_EXIT, "AIA");
#ifdef __KVM_NACL_H
	rke_expect_last(test, RKE_NACL_EXIT, "NACL");
#endif
	KUNIT_EXPECT_EQ(test, rke_count(RKE_CPU_OFF),
			rke_at_load ? (int)num_online_cpus() : 0);
}

/* The AIA step finds the interrupt disabled on every CPU. */
static void rke_expect_irq_off_at_aia(struct kunit *test)
{
	int i;

	for (i = 0; i < atomic_read(&rke_nr_events) && i < RKE_MAX_EVENTS; i++)
		if (rke_events[i].step == RKE_AIA_EXIT)
			KUNIT_EXPECT_EQ_MSG(test, rke_events[i].irq_on, 0U,
					    "interrupt still enabled on %u CPUs",
					    rke_events[i].irq_on);
	KUNIT_EXPECT_GT(test, rke_count(RKE_AIA_EXIT), 0);
}

static int rke_set_online(int cpu, bool online)
{
#ifdef CONFIG_HOTPLUG_CPU
	return online ? add_cpu(cpu) : remove_cpu(cpu);
#else
	return -EOPNOTSUPP;
#endif
}

/* A CPU that can go offline; skip if there is none. */
static int rke_spare_cpu(struct kunit *test)
{
	int cpu, spare = -1;

	for_each_online_cpu(cpu)
		if (cpu_is_hotpluggable(cpu))
			spare = cpu;
	if (!IS_ENABLED(CONFIG_HOTPLUG_CPU) || spare < 0 ||
	    num_online_cpus() < 2)
		kunit_skip(test, "no CPU can be taken offline");
	return spare;
}

static void rke_take_offline(struct kunit *test, int cpu)
{
	KUNIT_ASSERT_EQ(test, rke_set_online(cpu, false), 0);
	rke_offline_cpu = cpu;
	KUNIT_EXPECT_FALSE(test, cpumask_test_cpu(cpu, rke_desc->percpu_enabled));
}

static void rke_take_back(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, rke_set_online(rke_offline_cpu, true), 0);
	rke_offline_cpu = -1;
}

static void rke_need_load(struct kunit *test)
{
	if (!rke_at_load)
		kunit_skip(test, "KVM is on the CPUs only while a VM exists");
}

/* KVM leaves the CPUs first, then AIA is taken down. */
static void riscv_kvm_exit_test_aia_after_cpus(struct kunit *test)
{
	rke_need_load(test);
	rke_kvm_exit();
	rke_expect_cpus_first(test);
}

/* The per-CPU interrupt is off everywhere when it is to be freed. */
static void riscv_kvm_exit_test_irq_off_at_aia(struct kunit *test)
{
	rke_need_load(test);
	rke_expect_up(test);
	rke_kvm_exit();
	rke_expect_irq_off_at_aia(test);
}

/* All that KVM claimed is free again, and KVM can come back. */
static void riscv_kvm_exit_test_all_free(struct kunit *test)
{
	rke_kvm_exit();
	KUNIT_EXPECT_TRUE(test, cpumask_empty(rke_desc->percpu_enabled));
	rke_expect_all_free(test);
	KUNIT_EXPECT_EQ(test, rke_kvm_init(), 0);
	rke_expect_up(test);
}

/* An offline CPU does not hold up the exit, and stays off when it is back. */
static void riscv_kvm_exit_test_cpu_offline(struct kunit *test)
{
	rke_take_offline(test, rke_spare_cpu(test));
	atomic_set(&rke_nr_events, 0);
	rke_kvm_exit();
	rke_expect_cpus_first(test);
	rke_expect_irq_off_at_aia(test);
	rke_expect_all_free(test);
	rke_take_back(test);
	KUNIT_EXPECT_TRUE(test, cpumask_empty(rke_desc->percpu_enabled));
	KUNIT_EXPECT_EQ(test, rke_kvm_init(), 0);
	rke_expect_up(test);
}

/* A mode that KVM does not know: no CPU has one yet, so a stub gives it. */
static void riscv_kvm_exit_test_init_unknown_gstage_mode(struct kunit *test)
{
	rke_kvm_exit_clean();
	rke_fake_gstage_mode(test);
	KUNIT_EXPECT_EQ(test, rke_kvm_init(), -ENODEV);
	rke_real_gstage_mode(test);

	KUNIT_EXPECT_EQ(test, rke_count(RKE_CPU_OFF), 0);
	rke_expect_all_free(test);
	KUNIT_EXPECT_EQ(test, rke_kvm_init(), 0);
	rke_expect_up(test);
}

/* Init fails half-way and undoes what it did, last things first. */
static void riscv_kvm_exit_test_init_undone(struct kunit *test)
{
	const struct rke_claim *c = test->param_value;

	rke_kvm_exit_clean();
	KUNIT_ASSERT_EQ(test, c->claim(), 0);
	KUNIT_EXPECT_LT(test, rke_kvm_init(), 0);
	c->release();

	if (c->aia_up) {
		rke_expect_cpus_first(test);
		rke_expect_irq_off_at_aia(test);
	} else {
		KUNIT_EXPECT_EQ(test, rke_count(RKE_CPU_OFF), 0);
		KUNIT_EXPECT_EQ(test, rke_count(RKE_AIA_EXIT), 0);
	}
	KUNIT_EXPECT_TRUE(test, cpumask_empty(rke_desc->percpu_enabled));
	rke_expect_all_free(test);
	KUNIT_EXPECT_EQ(test, rke_kvm_init(), 0);
	rke_expect_up(test);
}

/* A CPU that comes and goes while KVM is up takes part in the exit. */
static void riscv_kvm_exit_test_cpu_came_back(struct kunit *test)
{
	rke_take_offline(test, rke_spare_cpu(test));
	rke_take_back(test);
	rke_expect_up(test);
	atomic_set(&rke_nr_events, 0);
	rke_kvm_exit();
	rke_expect_cpus_first(test);
	rke_expect_irq_off_at_aia(test);
	rke_expect_all_free(test);
}

/* KVM comes up without a CPU, and takes it in when it is back. */
static void riscv_kvm_exit_test_cpu_late(struct kunit *test)
{
	int cpu = rke_spare_cpu(test);

	rke_kvm_exit_clean();
	rke_take_offline(test, cpu);
	KUNIT_ASSERT_EQ(test, rke_kvm_init(), 0);
	rke_expect_up(test);
	rke_take_back(test);
	rke_expect_up(test);
	atomic_set(&rke_nr_events, 0);
	rke_kvm_exit();
	rke_expect_cpus_first(test);
	rke_expect_all_free(test);
}

static void riscv_kvm_exit_test_again_and_again(struct kunit *test)
{
	int i;

	for (i = 0; i < RKE_ROUNDS; i++) {
		atomic_set(&rke_nr_events, 0);
		rke_kvm_exit();
		rke_expect_cpus_first(test);
		rke_expect_irq_off_at_aia(test);
		KUNIT_ASSERT_EQ_MSG(test, rke_kvm_init(), 0, "round %d", i);
		rke_expect_up(test);
	}
}

static unsigned int rke_find_irq(void)
{
	struct irq_domain *domain;

	domain = irq_find_matching_fwnode(riscv_get_intc_hwnode(),
					  DOMAIN_BUS_ANY);
	return domain ? irq_find_mapping(domain, IRQ_S_GEXT) : 0;
}

static int rke_test_init(struct kunit *test)
{
	int err;

	if (!kvm_riscv_aia_available())
		kunit_skip(test, "this machine has no AIA");
	KUNIT_ASSERT_TRUE_MSG(test, rke_kvm_up,
			      "KVM did not come up again after another case");
	rke_irq = rke_find_irq();
	KUNIT_ASSERT_NE(test, rke_irq, 0U);
	rke_desc = irq_data_to_desc(irq_get_irq_data(rke_irq));
	rke_at_load = !cpumask_empty(rke_desc->percpu_enabled);

	err = rke_set_probes();
	if (err)
		return err;
	err = kunit_add_action_or_reset(test, rke_remove_probes, NULL);
	atomic_set(&rke_nr_events, 0);
	return err;
}

/* Bring KVM up again, even where a faulty kernel left something behind. */
static void rke_test_exit(struct kunit *test)
{
	if (rke_offline_cpu >= 0)
		rke_take_back(test);
	if (rke_kvm_up || !rke_desc)
		return;
	rke_clean_up();
	KUNIT_EXPECT_EQ(test, rke_kvm_init(), 0);
}

static struct kunit_case riscv_kvm_exit_test_cases[] = {
	KUNIT_CASE(riscv_kvm_exit_test_aia_after_cpus),
	KUNIT_CASE(riscv_kvm_exit_test_irq_off_at_aia),
	KUNIT_CASE(riscv_kvm_exit_test_all_free),
	KUNIT_CASE(riscv_kvm_exit_test_cpu_offline),
	KUNIT_CASE(riscv_kvm_exit_test_init_unknown_gstage_mode),
	KUNIT_CASE_PARAM(riscv_kvm_exit_test_init_undone, rke_claim_gen_params),
	KUNIT_CASE(riscv_kvm_exit_test_cpu_came_back),
	KUNIT_CASE(riscv_kvm_exit_test_cpu_late),
	KUNIT_CASE(riscv_kvm_exit_test_again_and_again),
	{}
};

static struct kunit_suite riscv_kvm_exit_test_suite = {
	.name = "riscv_kvm_exit",
	.init = rke_test_init,
	.exit = rke_test_exit,
	.test_cases = riscv_kvm_exit_test_cases,
};

kunit_test_init_section_suite(riscv_kvm_exit_test_suite);
