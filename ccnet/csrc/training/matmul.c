/* Small matrices times an image's pixels, y = W x + b: what a 1x1 convolution is, and with W^T its gradient to x.
 *
 * Pixels are taken in runs that stay in cache with their channels, and copied together first: planes lie so that their
 * pixels share places in cache.
 *
 * Layout: W (k, outer, inner), b (k, outer) or null, x (B, k, inner, plane), y (B, k, outer, plane). outer is by 4,
 * plane and run by LANES. Runs [first, last) are counted over all groups of all images.
 */
#include <stdlib.h>

#include "common/gemm.h"
#include "common/threads.h"

INLINE void add(float *restrict to, float b, long count) {
    for (long p = 0; p < count; p++) to[p] += b;
}

typedef struct { int64_t groups, outer, inner, plane, run; const float *w, *b, *x; float *y; } Given;

CLONES KERNEL(ccnet_product, Given) {
    const long outer = given->outer, inner = given->inner, plane = given->plane;
    float *from = malloc(inner * given->run * sizeof *from);
    if (!from) return 0;
    for (long index = first; index < last; index++) {
        const Block run = block_of(plane, given->run, index);
        const long many = run.count, group = run.image % given->groups;
        const float *x = given->x + run.image * inner * plane + run.at;
        float *y = given->y + run.image * outer * plane + run.at;
        for (long i = 0; i < inner; i++) memcpy(from + i * many, x + i * plane, many * sizeof *from);
        product(given->w + group * outer * inner, (int)outer, (int)inner, from, many, y, plane, many, 0);
        for (long o = 0; given->b && o < outer; o++) add(y + o * plane, given->b[group * outer + o], many);
    }
    free(from);
    return 1;
}
