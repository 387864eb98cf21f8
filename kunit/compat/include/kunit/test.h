/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A small KUnit, for kernels that have none or too old a one.
 *
 * It has what the suites beside it use, under the names, with the output and
 * with the kernel parameters of KUnit in v6.12.  lib/kunit/test.c is the rest.
 * Suites can be built in only: nothing runs those of a module.
 */
#ifndef _KUNIT_TEST_H
#define _KUNIT_TEST_H

#include <linux/compiler.h>
#include <linux/err.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>

#define KUNIT_PARAM_DESC_SIZE		128
#define KUNIT_STATUS_COMMENT_SIZE	256

#define KUNIT_SUBTEST_INDENT		"    "
#define KUNIT_SUBSUBTEST_INDENT		"        "

struct file;
struct kunit_suite;

enum kunit_status {
	KUNIT_SUCCESS,
	KUNIT_FAILURE,
	KUNIT_SKIPPED,
};

/* A running case; the runner's own members follow the suites'. */
struct kunit {
	void *priv;
	const void *param_value;
	int param_index;

	const char *name;
	enum kunit_status status;
	char status_comment[KUNIT_STATUS_COMMENT_SIZE];
	spinlock_t lock;		/* guards the actions */
	struct list_head actions;	/* the last one added is first */
	bool ended;			/* its thread, and not by a fault */
	bool aborted;
};

struct kunit_case {
	void (*run_case)(struct kunit *test);
	const char *name;
	const void *(*generate_params)(const void *prev, char *desc);
	const char *module_name;
	bool slow;

	enum kunit_status status;
};

struct kunit_suite {
	const char name[256];
	int (*suite_init)(struct kunit_suite *suite);
	void (*suite_exit)(struct kunit_suite *suite);
	int (*init)(struct kunit *test);
	void (*exit)(struct kunit *test);
	struct kunit_case *test_cases;

	struct list_head node;
	bool is_init;
};

#define KUNIT_CASE(fn) \
	{ .run_case = fn, .name = #fn, .module_name = KBUILD_MODNAME }
#define KUNIT_CASE_SLOW(fn) \
	{ .run_case = fn, .name = #fn, .module_name = KBUILD_MODNAME, .slow = true }
#define KUNIT_CASE_PARAM(fn, gen) \
	{ .run_case = fn, .name = #fn, .module_name = KBUILD_MODNAME, \
	  .generate_params = gen }

/* Gives the elements of an array one after the other, each with its name. */
#define KUNIT_ARRAY_PARAM(id, array, get_desc)				\
	static const void *id##_gen_params(const void *prev, char *desc)\
	{								\
		typeof(&(array)[0]) elem = (typeof(elem))prev;		\
		void (*describe)(typeof(elem), char *) = get_desc;	\
									\
		elem = elem ? elem + 1 : array;				\
		if (elem - (array) >= ARRAY_SIZE(array))		\
			return NULL;					\
		if (describe)						\
			describe(elem, desc);				\
		return elem;						\
	}

/*
 * Suites put themselves on the runner's list, for which no linker script has
 * to know of them; it runs them when all other initcalls are done.
 */
void kunit_add_suites(struct kunit_suite **suites, int nr, bool is_init);

#ifdef MODULE
#define kunit_initcall(fn)
#else
#define kunit_initcall(fn)	late_initcall(fn)
#endif
#define __kunit_test_suites(is_init, suites...)				\
	static struct kunit_suite *kunit_test_suite_array[] = { suites };\
	static int __init __maybe_unused kunit_test_suite_add(void)	\
	{								\
		kunit_add_suites(kunit_test_suite_array,		\
				 ARRAY_SIZE(kunit_test_suite_array), is_init); \
		return 0;						\
	}								\
	kunit_initcall(kunit_test_suite_add)
#define kunit_test_suites(suites...) \
	__kunit_test_suites(false, suites)
#define kunit_test_suite(suite) \
	kunit_test_suites(&(suite))
#define kunit_test_init_section_suites(suites...) \
	__kunit_test_suites(true, suites)
#define kunit_test_init_section_suite(suite) \
	kunit_test_init_section_suites(&(suite))

/* Where init/main.c runs the suites, the runner has done so before. */
static inline int kunit_run_all_tests(void)
{
	return 0;
}

/* Print a line of diagnostics, about a case or a suite. */
void __printf(2, 3) kunit_say(const char *name, const char *fmt, ...);

#define kunit_info(test, fmt, ...) \
	kunit_say((test)->name, fmt, ##__VA_ARGS__)
#define kunit_warn(test, fmt, ...) \
	kunit_say((test)->name, fmt, ##__VA_ARGS__)
#define kunit_err(test, fmt, ...) \
	kunit_say((test)->name, fmt, ##__VA_ARGS__)

static inline void kunit_set_failure(struct kunit *test)
{
	WRITE_ONCE(test->status, KUNIT_FAILURE);
}

/* Skip the rest of the case.  This does not return: the case's thread exits. */
void __printf(2, 3) kunit_skip(struct kunit *test, const char *fmt, ...);

/* Undone when the case is over, the last one first. */
typedef void (kunit_action_t)(void *);

int kunit_add_action(struct kunit *test, kunit_action_t *action, void *ctx);
int kunit_add_action_or_reset(struct kunit *test, kunit_action_t *action,
			      void *ctx);
void *kunit_kmalloc_array(struct kunit *test, size_t n, size_t size, gfp_t gfp);

static inline void *kunit_kmalloc(struct kunit *test, size_t size, gfp_t gfp)
{
	return kunit_kmalloc_array(test, 1, size, gfp);
}

static inline void *kunit_kzalloc(struct kunit *test, size_t size, gfp_t gfp)
{
	return kunit_kmalloc(test, size, gfp | __GFP_ZERO);
}

static inline void *kunit_kcalloc(struct kunit *test, size_t n, size_t size,
				  gfp_t gfp)
{
	return kunit_kmalloc_array(test, n, size, gfp | __GFP_ZERO);
}

/* Gives the case's thread an address space, which goes with it. */
unsigned long kunit_vm_mmap(struct kunit *test, struct file *file,
			    unsigned long addr, unsigned long len,
			    unsigned long prot, unsigned long flag,
			    unsigned long offset);

/*
 * What was expected, in the words of the source.  What @left and @right name
 * is printed with its value, unless they are NULL.
 */
struct kunit_expectation {
	const char *file;
	int line;
	bool fatal;
	const char *text;
	const char *left;
	const char *right;
};

void __printf(5, 6) kunit_failed(struct kunit *test,
				 const struct kunit_expectation *e,
				 long long left, long long right,
				 const char *fmt, ...);

#define KUNIT_FAILED(test, is_fatal, words, l, lval, r, rval, fmt, ...)	\
	do {								\
		static const struct kunit_expectation __e = {		\
			.file = __FILE__,				\
			.line = __LINE__,				\
			.fatal = is_fatal,				\
			.text = words,					\
			.left = l,					\
			.right = r,					\
		};							\
									\
		kunit_failed(test, &__e, lval, rval, fmt, ##__VA_ARGS__);\
	} while (0)

#define KUNIT_TRUTH(test, fatal, cond, truth, words, fmt, ...)		\
	do {								\
		if (unlikely(!!(cond) != (truth)))			\
			KUNIT_FAILED(test, fatal, "Expected " #cond words,\
				     NULL, 0, NULL, 0, fmt, ##__VA_ARGS__);\
	} while (0)

/* @type is what a pointer is printed as. */
#define KUNIT_BINARY(test, fatal, type, l, op, r, fmt, ...)		\
	do {								\
		const typeof(l) __l = (l);				\
		const typeof(r) __r = (r);				\
									\
		if (unlikely(!(__l op __r)))				\
			KUNIT_FAILED(test, fatal,			\
				     "Expected " #l " " #op " " #r ", but",\
				     #l, (type)__l, #r, (type)__r,	\
				     fmt, ##__VA_ARGS__);		\
	} while (0)

#define KUNIT_MEM(test, fatal, l, op, r, size, fmt, ...)		\
	do {								\
		int __cmp = memcmp(l, r, size);				\
									\
		if (unlikely(!(__cmp op 0)))				\
			KUNIT_FAILED(test, fatal,			\
				     "Expected " #l " " #op " " #r ", but",\
				     "memcmp()", __cmp, NULL, 0,	\
				     fmt, ##__VA_ARGS__);		\
	} while (0)

#define KUNIT_POINTER(test, fatal, ptr, fmt, ...)			\
	do {								\
		const void *__ptr = (ptr);				\
									\
		if (IS_ERR_OR_NULL(__ptr))				\
			KUNIT_FAILED(test, fatal,			\
				     "Expected " #ptr " is a pointer, but",\
				     #ptr, (long)__ptr, NULL, 0,	\
				     fmt, ##__VA_ARGS__);		\
	} while (0)

#define KUNIT_FAIL(test, fmt, ...) \
	KUNIT_FAILED(test, false, NULL, NULL, 0, NULL, 0, fmt, ##__VA_ARGS__)
#define KUNIT_FAIL_AND_ABORT(test, fmt, ...) \
	KUNIT_FAILED(test, true, NULL, NULL, 0, NULL, 0, fmt, ##__VA_ARGS__)

#define KUNIT_EXPECT_TRUE_MSG(test, cond, ...) \
	KUNIT_TRUTH(test, false, cond, true, " to be true, but is false", ##__VA_ARGS__)
#define KUNIT_EXPECT_TRUE(test, cond) \
	KUNIT_EXPECT_TRUE_MSG(test, cond, NULL)
#define KUNIT_ASSERT_TRUE_MSG(test, cond, ...) \
	KUNIT_TRUTH(test, true, cond, true, " to be true, but is false", ##__VA_ARGS__)
#define KUNIT_ASSERT_TRUE(test, cond) \
	KUNIT_ASSERT_TRUE_MSG(test, cond, NULL)

#define KUNIT_EXPECT_FALSE_MSG(test, cond, ...) \
	KUNIT_TRUTH(test, false, cond, false, " to be false, but is true", ##__VA_ARGS__)
#define KUNIT_EXPECT_FALSE(test, cond) \
	KUNIT_EXPECT_FALSE_MSG(test, cond, NULL)
#define KUNIT_ASSERT_FALSE_MSG(test, cond, ...) \
	KUNIT_TRUTH(test, true, cond, false, " to be false, but is true", ##__VA_ARGS__)
#define KUNIT_ASSERT_FALSE(test, cond) \
	KUNIT_ASSERT_FALSE_MSG(test, cond, NULL)

#define KUNIT_EXPECT_EQ_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, false, long long, l, ==, r, ##__VA_ARGS__)
#define KUNIT_EXPECT_EQ(test, l, r) \
	KUNIT_EXPECT_EQ_MSG(test, l, r, NULL)
#define KUNIT_ASSERT_EQ_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, true, long long, l, ==, r, ##__VA_ARGS__)
#define KUNIT_ASSERT_EQ(test, l, r) \
	KUNIT_ASSERT_EQ_MSG(test, l, r, NULL)

#define KUNIT_EXPECT_NE_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, false, long long, l, !=, r, ##__VA_ARGS__)
#define KUNIT_EXPECT_NE(test, l, r) \
	KUNIT_EXPECT_NE_MSG(test, l, r, NULL)
#define KUNIT_ASSERT_NE_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, true, long long, l, !=, r, ##__VA_ARGS__)
#define KUNIT_ASSERT_NE(test, l, r) \
	KUNIT_ASSERT_NE_MSG(test, l, r, NULL)

#define KUNIT_EXPECT_LT_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, false, long long, l, <, r, ##__VA_ARGS__)
#define KUNIT_EXPECT_LT(test, l, r) \
	KUNIT_EXPECT_LT_MSG(test, l, r, NULL)
#define KUNIT_ASSERT_LT_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, true, long long, l, <, r, ##__VA_ARGS__)
#define KUNIT_ASSERT_LT(test, l, r) \
	KUNIT_ASSERT_LT_MSG(test, l, r, NULL)

#define KUNIT_EXPECT_LE_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, false, long long, l, <=, r, ##__VA_ARGS__)
#define KUNIT_EXPECT_LE(test, l, r) \
	KUNIT_EXPECT_LE_MSG(test, l, r, NULL)
#define KUNIT_ASSERT_LE_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, true, long long, l, <=, r, ##__VA_ARGS__)
#define KUNIT_ASSERT_LE(test, l, r) \
	KUNIT_ASSERT_LE_MSG(test, l, r, NULL)

#define KUNIT_EXPECT_GT_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, false, long long, l, >, r, ##__VA_ARGS__)
#define KUNIT_EXPECT_GT(test, l, r) \
	KUNIT_EXPECT_GT_MSG(test, l, r, NULL)
#define KUNIT_ASSERT_GT_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, true, long long, l, >, r, ##__VA_ARGS__)
#define KUNIT_ASSERT_GT(test, l, r) \
	KUNIT_ASSERT_GT_MSG(test, l, r, NULL)

#define KUNIT_EXPECT_GE_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, false, long long, l, >=, r, ##__VA_ARGS__)
#define KUNIT_EXPECT_GE(test, l, r) \
	KUNIT_EXPECT_GE_MSG(test, l, r, NULL)
#define KUNIT_ASSERT_GE_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, true, long long, l, >=, r, ##__VA_ARGS__)
#define KUNIT_ASSERT_GE(test, l, r) \
	KUNIT_ASSERT_GE_MSG(test, l, r, NULL)

#define KUNIT_EXPECT_PTR_EQ_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, false, unsigned long, l, ==, r, ##__VA_ARGS__)
#define KUNIT_EXPECT_PTR_EQ(test, l, r) \
	KUNIT_EXPECT_PTR_EQ_MSG(test, l, r, NULL)
#define KUNIT_ASSERT_PTR_EQ_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, true, unsigned long, l, ==, r, ##__VA_ARGS__)
#define KUNIT_ASSERT_PTR_EQ(test, l, r) \
	KUNIT_ASSERT_PTR_EQ_MSG(test, l, r, NULL)

#define KUNIT_EXPECT_PTR_NE_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, false, unsigned long, l, !=, r, ##__VA_ARGS__)
#define KUNIT_EXPECT_PTR_NE(test, l, r) \
	KUNIT_EXPECT_PTR_NE_MSG(test, l, r, NULL)
#define KUNIT_ASSERT_PTR_NE_MSG(test, l, r, ...) \
	KUNIT_BINARY(test, true, unsigned long, l, !=, r, ##__VA_ARGS__)
#define KUNIT_ASSERT_PTR_NE(test, l, r) \
	KUNIT_ASSERT_PTR_NE_MSG(test, l, r, NULL)

#define KUNIT_EXPECT_NULL_MSG(test, ptr, ...) \
	KUNIT_BINARY(test, false, unsigned long, ptr, ==, NULL, ##__VA_ARGS__)
#define KUNIT_EXPECT_NULL(test, ptr) \
	KUNIT_EXPECT_NULL_MSG(test, ptr, NULL)
#define KUNIT_ASSERT_NULL_MSG(test, ptr, ...) \
	KUNIT_BINARY(test, true, unsigned long, ptr, ==, NULL, ##__VA_ARGS__)
#define KUNIT_ASSERT_NULL(test, ptr) \
	KUNIT_ASSERT_NULL_MSG(test, ptr, NULL)

#define KUNIT_EXPECT_NOT_NULL_MSG(test, ptr, ...) \
	KUNIT_BINARY(test, false, unsigned long, ptr, !=, NULL, ##__VA_ARGS__)
#define KUNIT_EXPECT_NOT_NULL(test, ptr) \
	KUNIT_EXPECT_NOT_NULL_MSG(test, ptr, NULL)
#define KUNIT_ASSERT_NOT_NULL_MSG(test, ptr, ...) \
	KUNIT_BINARY(test, true, unsigned long, ptr, !=, NULL, ##__VA_ARGS__)
#define KUNIT_ASSERT_NOT_NULL(test, ptr) \
	KUNIT_ASSERT_NOT_NULL_MSG(test, ptr, NULL)

#define KUNIT_EXPECT_NOT_ERR_OR_NULL_MSG(test, ptr, ...) \
	KUNIT_POINTER(test, false, ptr, ##__VA_ARGS__)
#define KUNIT_EXPECT_NOT_ERR_OR_NULL(test, ptr) \
	KUNIT_EXPECT_NOT_ERR_OR_NULL_MSG(test, ptr, NULL)
#define KUNIT_ASSERT_NOT_ERR_OR_NULL_MSG(test, ptr, ...) \
	KUNIT_POINTER(test, true, ptr, ##__VA_ARGS__)
#define KUNIT_ASSERT_NOT_ERR_OR_NULL(test, ptr) \
	KUNIT_ASSERT_NOT_ERR_OR_NULL_MSG(test, ptr, NULL)

#define KUNIT_EXPECT_MEMEQ_MSG(test, l, r, size, ...) \
	KUNIT_MEM(test, false, l, ==, r, size, ##__VA_ARGS__)
#define KUNIT_EXPECT_MEMEQ(test, l, r, size) \
	KUNIT_EXPECT_MEMEQ_MSG(test, l, r, size, NULL)
#define KUNIT_ASSERT_MEMEQ_MSG(test, l, r, size, ...) \
	KUNIT_MEM(test, true, l, ==, r, size, ##__VA_ARGS__)
#define KUNIT_ASSERT_MEMEQ(test, l, r, size) \
	KUNIT_ASSERT_MEMEQ_MSG(test, l, r, size, NULL)

#include <kunit/resource.h>

#endif /* _KUNIT_TEST_H */
