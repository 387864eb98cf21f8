/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A small KUnit: what other code of newer kernels asks of a case's resources.
 * It finds none.
 */
#ifndef _KUNIT_RESOURCE_H
#define _KUNIT_RESOURCE_H

#include <kunit/test.h>

struct kunit_resource {
	void *data;
};

static inline struct kunit_resource *
kunit_find_named_resource(struct kunit *test, const char *name)
{
	return NULL;
}

static inline void kunit_put_resource(struct kunit_resource *res)
{
}

/* An action that calls @orig, whose argument is no void pointer. */
#define KUNIT_DEFINE_ACTION_WRAPPER(wrapper, orig, arg_type)		\
	static void wrapper(void *in)					\
	{								\
		orig((arg_type)in);					\
	}

#endif /* _KUNIT_RESOURCE_H */
