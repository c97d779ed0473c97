/* How the kernels for training are called: on a part of what they make, by as many threads as there are (ccnet/ops/kernels.py).
 *
 * A kernel is given a struct of its own, first its sizes, then its tensors, each 64 bits long.
 */
#pragma once
#include <stdint.h>

#define KERNEL(name, Given) int name(const Given *given, int64_t first, int64_t last) /* whether there was memory */

_Static_assert(sizeof(void *) == sizeof(int64_t), "Python writes sizes and pointers as words of 64 bits");
