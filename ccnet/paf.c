/* Patch-wise adaptive fusion (section III-D, Eq. 11-13), with what it is added to:
 *
 *     y = x + attended + softmax over k of cos(M attended + b, compressed_k) compressed_k
 *
 * channel by channel, patch by patch. Some patches side by side are worked on at once: a run of COLUMNS pixels and r rows.
 *
 * Layout: x, attended, y (C, H, W); compressed (k, H, W); M (C, C), b (C); patches of r x r pixels.
 */
#include <math.h>
#include <stdlib.h>

#include "kernels.h"
#include "operators.h"
#include "product.h"

#define MAX_GROUPS 16
#define COLUMNS 64

typedef struct { int r, columns; long plane, width; } Run; /* in the buffers rows are columns apart, channels r rows */

/* So many channels of a run of the image, into a buffer or added to the image from one. */
INLINE void load(Run run, const float *from, int channels, float *to) {
    for (int c = 0; c < channels; c++)
        for (int row = 0; row < run.r; row++)
            memcpy(to + ((long)c * run.r + row) * run.columns, from + c * run.plane + row * run.width,
                   run.columns * sizeof *to);
}

INLINE void add(Run run, float *to, const float *x, int channels, const float *from) {
    for (int c = 0; c < channels; c++)
        for (int row = 0; row < run.r; row++) {
            const float *made = from + ((long)c * run.r + row) * run.columns;
            const long at = c * run.plane + row * run.width;
            for (int p = 0; p < run.columns; p++) to[at + p] = x[at + p] + made[p];
        }
}

INLINE float dot(Run run, const float *a, const float *b) {
    float sum = 0.f;
    for (int row = 0; row < run.r; row++, a += run.columns, b += run.columns)
        for (int p = 0; p < run.r; p++) sum += a[p] * b[p];
    return sum;
}

/* 1 / ||x||, no norm being less than 1e-6, as ccnet.modules.EPS has it. */
INLINE float over_norm(float squares) { return 1.f / (squares > 1e-12f ? sqrtf(squares) : 1e-6f); }

/* Cosines -> their softmax. */
INLINE void softmax(float *weight, int count) {
    float sum = 0.f;
    for (int k = 0; k < count; k++) {
        const float half = tanh_of(.5f * weight[k]); /* e^x = (1 + half) / (1 - half), exact enough for |x| <= 1 */
        sum += weight[k] = (1.f + half) / (1.f - half);
    }
    for (int k = 0; k < count; k++) weight[k] /= sum;
}

/* to += the fusion of a patch, for every channel of it. */
INLINE void fuse(Run run, int channels, int groups, const float *mapped, const float *compressed, float *to) {
    const long size = (long)run.r * run.columns;
    float over[MAX_GROUPS], weight[MAX_GROUPS];
    for (int k = 0; k < groups; k++) over[k] = over_norm(dot(run, compressed + k * size, compressed + k * size));
    for (int c = 0; c < channels; c++, mapped += size, to += size) {
        const float own = over_norm(dot(run, mapped, mapped));
        for (int k = 0; k < groups; k++) weight[k] = own * over[k] * dot(run, mapped, compressed + k * size);
        softmax(weight, groups);
        for (int k = 0; k < groups; k++)
            for (int row = 0; row < run.r; row++)
                for (int p = 0; p < run.r; p++)
                    to[row * run.columns + p] += weight[k] * compressed[k * size + row * run.columns + p];
    }
}

/* A run of patches. memory: of the run's C channels twice, and k. */
INLINE void fuse_run(const int r, PafShape shape, Run run, const float *x, const float *attended,
                     const float *compressed, const float *map, const float *bias, float *y, float *memory) {
    run.r = r; /* known to the compiler */
    const long size = (long)r * run.columns;
    float *const kept = memory, *const mapped = kept + shape.channels * size, *const seen = mapped + shape.channels * size;
    load(run, attended, shape.channels, kept);
    load(run, compressed, shape.groups, seen);
    product(map, shape.channels, shape.channels, kept, mapped, size);
    for (int c = 0; c < shape.channels; c++)
        for (long p = 0; p < size; p++) mapped[c * size + p] += bias[c];
    for (int p = 0; p < run.columns; p += r) fuse(run, shape.channels, shape.groups, mapped + p, seen + p, kept + p);
    add(run, y, x, shape.channels, kept);
}

long paf_jobs(PafShape shape) { return shape.height / shape.patch; }

/* A job is a row of patches. */
CLONES int paf_run(PafShape shape, const float *x, const float *attended, const float *compressed, const float *map,
                   const float *bias, float *y, long job) {
    const int r = shape.patch, widest = COLUMNS / r * r;
    Run run = {r, 0, (long)shape.height * shape.width, shape.width};
    float *memory = malloc((2l * shape.channels + shape.groups) * r * widest * sizeof *memory);
    if (!memory) return -1;
    for (int p = 0; p < shape.width; p += run.columns) {
        const long at = job * r * shape.width + p;
        run.columns = least(widest, shape.width - p);
        switch (r) {
            case 4: fuse_run(4, shape, run, x + at, attended + at, compressed + at, map, bias, y + at, memory); break;
            case 8: fuse_run(8, shape, run, x + at, attended + at, compressed + at, map, bias, y + at, memory); break;
            default: fuse_run(16, shape, run, x + at, attended + at, compressed + at, map, bias, y + at, memory);
        }
    }
    free(memory);
    return 0;
}
