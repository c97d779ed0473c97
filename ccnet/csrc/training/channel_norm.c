/* Layer normalisation over the channels of each pixel, and its gradient.
 *
 *     y = scale xhat + shift,   xhat = (x - mean) spread,   spread = 1 / sqrt(variance + epsilon)
 *
 * Pixels are taken in runs that stay in cache with all their channels; the statistics are made again for the gradient.
 *
 * Layout: x, y (B, C, plane). Runs [first, last) are counted over all images.
 */
#include <stdlib.h>

#include "common/simd.h"
#include "common/threads.h"

#define PIXELS 64

typedef float Run[PIXELS];

/* Of all channels; zero behind the last pixel. */
INLINE void load(Run *restrict to, const float *x, long channels, long plane, long count) {
    for (long c = 0; c < channels; c++) {
        if (count < PIXELS) memset(to[c], 0, sizeof *to);
        memcpy(to[c], x + c * plane, count * sizeof **to);
    }
}

/* x becomes xhat. */
INLINE void normalise(Run *x, long channels, float epsilon, float *restrict spread) {
    Run mean = {0};
    memset(spread, 0, sizeof mean);
    for (long c = 0; c < channels; c++)
        for (int p = 0; p < PIXELS; p++) mean[p] += x[c][p];
    for (int p = 0; p < PIXELS; p++) mean[p] /= channels;
    for (long c = 0; c < channels; c++)
        for (int p = 0; p < PIXELS; p++) {
            x[c][p] -= mean[p];
            spread[p] += x[c][p] * x[c][p];
        }
    for (int p = 0; p < PIXELS; p++) spread[p] = 1.f / sqrtf(spread[p] / channels + epsilon);
    for (long c = 0; c < channels; c++)
        for (int p = 0; p < PIXELS; p++) x[c][p] *= spread[p];
}

/* epsilon: one number. */
typedef struct { int64_t channels, plane; const float *epsilon, *x, *scale, *shift; float *y; } Forward;

CLONES KERNEL(ccnet_norm, Forward) {
    const long channels = given->channels, plane = given->plane;
    Run *x = malloc(channels * sizeof *x), spread;
    if (!x) return 0;
    for (long index = first; index < last; index++) {
        const Block run = block_of(plane, PIXELS, index);
        const long at = run.image * channels * plane + run.at;
        load(x, given->x + at, channels, plane, run.count);
        normalise(x, channels, *given->epsilon, spread);
        for (long c = 0; c < channels; c++) {
            for (int p = 0; p < PIXELS; p++) x[c][p] = given->scale[c] * x[c][p] + given->shift[c];
            memcpy(given->y + at + c * plane, x[c], run.count * sizeof **x);
        }
    }
    free(x);
    return 1;
}

/* g_scale, g_shift (runs, C): a sum for each run. */
typedef struct {
    int64_t channels, plane;
    const float *epsilon, *grad, *x, *scale;
    float *g_x, *g_scale, *g_shift;
} Backward;

CLONES KERNEL(ccnet_norm_backward, Backward) {
    const long channels = given->channels, plane = given->plane;
    Run *x = malloc(2 * channels * sizeof *x), *const g = x + channels, spread;
    if (!x) return 0;
    for (long index = first; index < last; index++) {
        const Block run = block_of(plane, PIXELS, index);
        const long at = run.image * channels * plane + run.at;
        load(x, given->x + at, channels, plane, run.count);
        load(g, given->grad + at, channels, plane, run.count);
        normalise(x, channels, *given->epsilon, spread);
        Run mean = {0}, along = {0}; /* of the gradient to xhat: over the channels, and along xhat */
        for (long c = 0; c < channels; c++) {
            float g_scale = 0.f, g_shift = 0.f;
            for (int p = 0; p < PIXELS; p++) {
                g_scale += g[c][p] * x[c][p];
                g_shift += g[c][p];
                g[c][p] *= given->scale[c];
                mean[p] += g[c][p];
                along[p] += g[c][p] * x[c][p];
            }
            given->g_scale[index * channels + c] = g_scale;
            given->g_shift[index * channels + c] = g_shift;
        }
        for (int p = 0; p < PIXELS; p++) mean[p] /= channels, along[p] /= channels;
        for (long c = 0; c < channels; c++) {
            for (int p = 0; p < PIXELS; p++) x[c][p] = spread[p] * (g[c][p] - mean[p] - x[c][p] * along[p]);
            memcpy(given->g_x + at + c * plane, x[c], run.count * sizeof **x);
        }
    }
    free(x);
    return 1;
}
