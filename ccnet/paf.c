/* Patch-wise adaptive fusion (section III-D, Eq. 11-13), with what it is added to:
 *
 *     y = x + attended + softmax over k of cos(M attended + b, compressed_k) compressed_k
 *
 * channel by channel, patch by patch.
 *
 * Layout: x, attended, y (C, H, W); compressed (k, H, W); M (C, C), b (C); patches of r x r pixels.
 */
#include <math.h>
#include <stdlib.h>

#include "kernels.h"
#include "operators.h"
#include "product.h"

#define MAX_GROUPS 16
#define COLUMNS 64 /* of patches that are worked on at once, so that they stay in cache */

/* Some patches side by side. A buffer has all pixels of a patch together: (channel, patch, r * r). */
typedef struct { int patches, pixels; long width, plane; } Run;

INLINE void load(const int r, Run run, const float *from, int channels, float *to) {
    for (int c = 0; c < channels; c++, from += run.plane)
        for (int patch = 0; patch < run.patches; patch++)
            for (int row = 0; row < r; row++, to += r) memcpy(to, from + row * run.width + patch * r, r * sizeof *to);
}

/* to = x + what is in a buffer. */
INLINE void add(const int r, Run run, const float *restrict x, const float *restrict from, int channels,
                float *restrict to) {
    for (int c = 0; c < channels; c++, x += run.plane, to += run.plane)
        for (int patch = 0; patch < run.patches; patch++)
            for (int row = 0; row < r; row++, from += r) {
                const long at = row * run.width + patch * r;
                for (int p = 0; p < r; p++) to[at + p] = x[at + p] + from[p];
            }
}

INLINE float dot(const float *restrict a, const float *restrict b, int count) {
    float sum = 0.f;
    for (int p = 0; p < count; p++) sum += a[p] * b[p];
    return sum;
}

/* 1 / ||x||, no norm being less than 1e-6, as ccnet.modules.EPS has it. */
INLINE float over_norm(float squares) { return 1.f / (squares > 1e-12f ? sqrtf(squares) : 1e-6f); }

/* e^x of a cosine, fitted for the least relative error, 2e-7 before rounding. */
INLINE float exp_of_cosine(float x) {
    const float high = .0416390676f + x * (.0083486949f + x * (.00143653747f + x * 1.9297129e-4f));
    return .999999881f + x * (1.00000105f + x * (.500004857f + x * (.166658251f + x * high)));
}

/* to += the fusion of a patch, for every channel of it; a channel's numbers are so many apart. */
INLINE void fuse(int pixels, long apart, int channels, int groups, const float *mapped, const float *compressed,
                 float *restrict to) {
    float over[MAX_GROUPS], weight[MAX_GROUPS][channels], sum[channels];
    for (int k = 0; k < groups; k++) over[k] = over_norm(dot(compressed + k * apart, compressed + k * apart, pixels));
    for (int c = 0; c < channels; c++, mapped += apart) {
        const float own = over_norm(dot(mapped, mapped, pixels));
        for (int k = 0; k < groups; k++) weight[k][c] = own * over[k] * dot(mapped, compressed + k * apart, pixels);
    }
    memset(sum, 0, sizeof sum);
    for (int k = 0; k < groups; k++)
        for (int c = 0; c < channels; c++) sum[c] += weight[k][c] = exp_of_cosine(weight[k][c]);
    for (int c = 0; c < channels; c++, to += apart)
        for (int k = 0; k < groups; k++) {
            const float *restrict one = compressed + k * apart;
            const float part = weight[k][c] / sum[c];
            for (int p = 0; p < pixels; p++) to[p] += part * one[p];
        }
}

/* memory: of the run's C channels twice, and k. */
INLINE void fuse_run(const int r, PafShape shape, Run run, const float *x, const float *attended,
                     const float *compressed, const float *map, const float *bias, float *y, float *memory) {
    const long apart = (long)run.patches * run.pixels;
    float *const kept = memory, *const mapped = kept + shape.channels * apart, *const seen = mapped + shape.channels * apart;
    load(r, run, attended, shape.channels, kept);
    load(r, run, compressed, shape.groups, seen);
    product(map, shape.channels, shape.channels, kept, apart, mapped, apart, apart, 0);
    for (int c = 0; c < shape.channels; c++)
        for (long p = 0; p < apart; p++) mapped[c * apart + p] += bias[c];
    for (long p = 0; p < apart; p += run.pixels)
        fuse(run.pixels, apart, shape.channels, shape.groups, mapped + p, seen + p, kept + p);
    add(r, run, x, kept, shape.channels, y);
}

long paf_jobs(PafShape shape) { return shape.height / shape.patch; }

/* A job is a row of patches. */
CLONES int paf_run(PafShape shape, const float *x, const float *attended, const float *compressed, const float *map,
                   const float *bias, float *y, long job) {
    const int r = shape.patch, most = COLUMNS / r, across = shape.width / r;
    Run run = {0, r * r, shape.width, (long)shape.height * shape.width};
    float *memory = malloc((2l * shape.channels + shape.groups) * r * COLUMNS * sizeof *memory);
    if (!memory) return -1;
    for (int patch = 0; patch < across; patch += run.patches) {
        const long at = (job * shape.width + patch) * r;
        const float *from = attended + at, *seen = compressed + at;
        run.patches = least(most, across - patch);
        switch (r) { /* known to the compiler: rows of patches are short */
            case 4: fuse_run(4, shape, run, x + at, from, seen, map, bias, y + at, memory); break;
            case 8: fuse_run(8, shape, run, x + at, from, seen, map, bias, y + at, memory); break;
            default: fuse_run(16, shape, run, x + at, from, seen, map, bias, y + at, memory);
        }
    }
    free(memory);
    return 0;
}
