/* A kernel's work, which threads take block by block until none is left. Whose threads these are, Python decides: OpenMP's
 * runtime, which torch may bring, is not linked. */
#include "common/threads.h"

#include <stdatomic.h>

typedef struct {
    KERNEL((*kernel), void);
    const void *given;
    int64_t count, block;
    _Atomic int64_t next, failed;
} Work;

void ccnet_take(Work *work) {
    for (int64_t first; (first = atomic_fetch_add(&work->next, work->block)) < work->count;) {
        const int64_t last = first + work->block < work->count ? first + work->block : work->count;
        if (!work->kernel(work->given, first, last)) atomic_store(&work->failed, 1);
    }
}
