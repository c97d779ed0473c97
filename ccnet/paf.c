/* Patch-wise adaptive fusion (section III-D, Eq. 11-13) of what its convolutions made:
 *
 *     y = attended + softmax over k of cos(mapped, compressed_k) compressed_k,    channel by channel, patch by patch.
 *
 * Layout: attended, mapped, y (C, H, W); compressed (k, H, W); patches of r x r pixels.
 */
#include <math.h>

#include "kernels.h"
#include "operators.h"

#define MAX_GROUPS 16
#define MAX_PIXELS 256 /* of a patch */

typedef struct { float value[MAX_PIXELS]; } Patch;

INLINE void load(Patch *restrict to, const float *from, int r, int width) {
    for (int row = 0; row < r; row++) memcpy(to->value + row * r, from + (long)row * width, r * sizeof *from);
}

INLINE float dot(const Patch *restrict a, const Patch *restrict b, int pixels) {
    float sum = 0.f;
    for (int p = 0; p < pixels; p++) sum += a->value[p] * b->value[p];
    return sum;
}

/* 1 / ||x||, no norm being less than 1e-6, as ccnet.modules.EPS has it. */
INLINE float over_norm(float squares) { return 1.f / (squares > 1e-12f ? sqrtf(squares) : 1e-6f); }

/* cosines -> their softmax; they are at most 1, so that nothing overflows. */
INLINE void softmax(float *weight, int count) {
    float sum = 0.f;
    for (int k = 0; k < count; k++) sum += weight[k] = exp_of(weight[k]);
    for (int k = 0; k < count; k++) weight[k] /= sum;
}

long paf_jobs(PafShape shape) { return shape.height / shape.patch; }

/* A job is a row of patches. */
CLONES int paf_run(PafShape shape, const float *attended, const float *mapped, const float *compressed, float *y,
                   long job) {
    const int r = shape.patch, pixels = r * r, groups = shape.groups;
    const long plane = (long)shape.height * shape.width;
    Patch of[MAX_GROUPS], channel;
    float over[MAX_GROUPS], weight[MAX_GROUPS];
    for (long at = job * r * shape.width; at < job * r * shape.width + shape.width; at += r) {
        for (int k = 0; k < groups; k++) {
            load(&of[k], compressed + k * plane + at, r, shape.width);
            over[k] = over_norm(dot(&of[k], &of[k], pixels));
        }
        for (long c = 0; c < shape.channels; c++) {
            load(&channel, mapped + c * plane + at, r, shape.width);
            const float own = over_norm(dot(&channel, &channel, pixels));
            for (int k = 0; k < groups; k++) weight[k] = own * over[k] * dot(&channel, &of[k], pixels);
            softmax(weight, groups);
            memset(channel.value, 0, pixels * sizeof *channel.value);
            for (int k = 0; k < groups; k++)
                for (int p = 0; p < pixels; p++) channel.value[p] += weight[k] * of[k].value[p];
            for (int row = 0; row < r; row++) {
                const long to = c * plane + at + (long)row * shape.width;
                for (int p = 0; p < r; p++) y[to + p] = attended[to + p] + channel.value[row * r + p];
            }
        }
    }
    return 0;
}
