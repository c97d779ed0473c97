/* The conventions of all kernels.
 *
 * A kernel returns 0 for success, OUT_OF_MEMORY where it could not allocate its buffers. Its inputs and outputs must
 * not alias.
 *
 * A training kernel (KERNEL) computes items [first, last) of its output, so that several threads can share the work
 * (ccnet/ops/kernels.py starts them). It reads its arguments from a struct of its own, first its sizes, then its
 * tensors, each 64 bits long. An inference operator (inference/operators.h) computes one job of an image, such
 * as a tile or a row of patches; <operator>_jobs says how many there are.
 */
#pragma once
#include <stdint.h>

#include "common/simd.h"

enum { OUT_OF_MEMORY = 1 };

#define KERNEL(name, Args) int name(const Args *args, int64_t first, int64_t last)

/* Export numbers that are fixed when C is compiled, as the array ccnet_<name>, which ends with a 0;
 * ccnet.ops.kernels.limit and limits read them. */
#define LIMIT(name, ...) EXPORT const int64_t ccnet_##name[] = {__VA_ARGS__, 0}

_Static_assert(sizeof(void *) == sizeof(int64_t), "Python writes sizes and pointers as words of 64 bits");
