/* Small matrices times an image's pixels, y = W x + b: a 1x1 convolution, and with W^T its gradient to x.
 *
 * Blocks of pixels stay in cache with all their channels. They are copied together first, because the pixels of
 * different planes may compete for the same places in cache.
 *
 * Layout: W (k, outer, inner), b (k, outer) or null, x (B, k, inner, plane), y (B, k, outer, plane). outer is a
 * multiple of OUTPUT_ROWS, plane and block are multiples of LANES. Blocks [first, last) are counted over all groups of
 * all images.
 */
#include <stdlib.h>
#include <string.h>

#include "common/blocks.h"
#include "common/gemm.h"
#include "common/kernel.h"

LIMIT(matmul_outputs, OUTPUT_ROWS);
LIMIT(matmul_pixels, LANES);

INLINE void add(float *restrict to, float b, long count) {
    for (long p = 0; p < count; p++) to[p] += b;
}

typedef struct { int64_t groups, outer, inner, plane, block; const float *w, *b, *x; float *y; } Args;

CLONES KERNEL(ccnet_product, Args) {
    const long outer = args->outer, inner = args->inner, plane = args->plane;
    float *from = malloc(inner * args->block * sizeof *from);
    if (!from) return OUT_OF_MEMORY;
    for (long index = first; index < last; index++) {
        const Block block = block_of(plane, args->block, index);
        const long count = block.count, group = block.image % args->groups;
        const float *x = args->x + block.image * inner * plane + block.start;
        float *y = args->y + block.image * outer * plane + block.start;
        for (long i = 0; i < inner; i++) memcpy(from + i * count, x + i * plane, count * sizeof *from);
        multiply(args->w + group * outer * inner, (int)outer, (int)inner, from, count, y, plane, count, 0);
        for (long o = 0; args->b && o < outer; o++) add(y + o * plane, args->b[group * outer + o], count);
    }
    free(from);
    return 0;
}
