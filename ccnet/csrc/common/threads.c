/* The worker that every thread of a kernel runs. Python decides whose threads these are: OpenMP's runtime, which torch
 * may bring, is not linked. */
#include "common/kernel.h"

#include "common/simd.h"

#include <stdatomic.h>

/* Items [0, count) of a kernel's output, which workers take in chunks. _Work in ccnet/ops/kernels.py mirrors it. */
typedef struct {
    KERNEL((*kernel), void);
    const void *args;
    int64_t count, chunk;
    _Atomic int64_t next, failed;
} Work;

LIMIT(work_size, sizeof(Work));

/* Take chunks until none is left. */
void ccnet_worker(Work *work) {
    for (int64_t first; (first = atomic_fetch_add(&work->next, work->chunk)) < work->count;) {
        const int64_t last = first + work->chunk < work->count ? first + work->chunk : work->count;
        if (work->kernel(work->args, first, last)) atomic_store(&work->failed, 1);
    }
}

/* The floats in a vector register of this processor for which this library has code, for reports. */
int ccnet_simd_floats(void) { return REGISTER; }
