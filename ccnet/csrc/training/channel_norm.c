/* Layer normalisation over the channels of each pixel, and its gradient:
 *
 *     y = scale xhat + shift,   xhat = (x - mean) / deviation,   deviation = sqrt(variance + epsilon)
 *
 * Blocks of pixels stay in cache with all their channels; the gradient computes the statistics again.
 *
 * Layout: x, y (B, C, plane). Blocks [first, last) are counted over all images.
 */
#include <stdlib.h>

#include "common/blocks.h"
#include "common/norm.h"
#include "common/kernel.h"

#define BLOCK 64 /* pixels */

LIMIT(norm_block, BLOCK);

typedef float Pixels[BLOCK];

/* Copy all channels of a block, zero after its last pixel. */
INLINE void load(Pixels *restrict to, const float *x, long channels, long plane, long count) {
    for (long c = 0; c < channels; c++) {
        if (count < BLOCK) memset(to[c], 0, sizeof *to);
        memcpy(to[c], x + c * plane, count * sizeof **to);
    }
}

/* Replace x by xhat. */
INLINE void normalise(Pixels *x, long channels, float epsilon, float *inverse_deviation) {
    Pixels mean;
    channel_statistics(x[0], (int)channels, BLOCK, BLOCK, epsilon, mean, inverse_deviation);
    for (long c = 0; c < channels; c++)
        for (int p = 0; p < BLOCK; p++) x[c][p] = (x[c][p] - mean[p]) * inverse_deviation[p];
}

/* epsilon: a single number. */
typedef struct { int64_t channels, plane; const float *epsilon, *x, *scale, *shift; float *y; } ForwardArgs;

CLONES KERNEL(ccnet_norm, ForwardArgs) {
    const long channels = args->channels, plane = args->plane;
    Pixels *x = malloc(channels * sizeof *x), inverse_deviation;
    if (!x) return OUT_OF_MEMORY;
    for (long index = first; index < last; index++) {
        const Block block = block_of(plane, BLOCK, index);
        const long start = block.image * channels * plane + block.start;
        load(x, args->x + start, channels, plane, block.count);
        normalise(x, channels, *args->epsilon, inverse_deviation);
        for (long c = 0; c < channels; c++) {
            for (int p = 0; p < BLOCK; p++) x[c][p] = args->scale[c] * x[c][p] + args->shift[c];
            memcpy(args->y + start + c * plane, x[c], block.count * sizeof **x);
        }
    }
    free(x);
    return 0;
}

/* g_scale, g_shift (blocks, C): a sum for each block. */
typedef struct {
    int64_t channels, plane;
    const float *epsilon, *grad, *x, *scale;
    float *g_x, *g_scale, *g_shift;
} BackwardArgs;

/* Turn g, the gradient of y, into the gradient of xhat, and sum up the gradients of scale and shift.
 *
 * mean, projection: the means over the channels of the gradient of xhat, and of its product with xhat. */
INLINE void scale_backward(const Pixels *x, Pixels *g, long channels, const float *scale, float *g_scale,
                           float *g_shift, float *mean, float *projection) {
    memset(mean, 0, sizeof(Pixels));
    memset(projection, 0, sizeof(Pixels));
    for (long c = 0; c < channels; c++) {
        float of_scale = 0.f, of_shift = 0.f;
        for (int p = 0; p < BLOCK; p++) {
            of_scale += g[c][p] * x[c][p];
            of_shift += g[c][p];
            g[c][p] *= scale[c];
            mean[p] += g[c][p];
            projection[p] += g[c][p] * x[c][p];
        }
        g_scale[c] = of_scale;
        g_shift[c] = of_shift;
    }
    for (int p = 0; p < BLOCK; p++) mean[p] /= channels, projection[p] /= channels;
}

CLONES KERNEL(ccnet_norm_backward, BackwardArgs) {
    const long channels = args->channels, plane = args->plane;
    Pixels *x = malloc(2 * channels * sizeof *x), inverse_deviation, mean, projection;
    if (!x) return OUT_OF_MEMORY;
    Pixels *const g = x + channels;
    for (long index = first; index < last; index++) {
        const Block block = block_of(plane, BLOCK, index);
        const long start = block.image * channels * plane + block.start;
        load(x, args->x + start, channels, plane, block.count);
        load(g, args->grad + start, channels, plane, block.count);
        normalise(x, channels, *args->epsilon, inverse_deviation);
        scale_backward(x, g, channels, args->scale, args->g_scale + index * channels, args->g_shift + index * channels,
                       mean, projection);
        for (long c = 0; c < channels; c++) {
            for (int p = 0; p < BLOCK; p++)
                x[c][p] = inverse_deviation[p] * (g[c][p] - mean[p] - x[c][p] * projection[p]);
            memcpy(args->g_x + start + c * plane, x[c], block.count * sizeof **x);
        }
    }
    free(x);
    return 0;
}
