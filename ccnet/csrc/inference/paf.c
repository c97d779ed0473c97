/* Patch-wise adaptive fusion (section III-D, Eq. 10-13) behind SIA's pooling, with what it is added to:
 *
 *     compressed = N dw3x3(pooled) + c,   y = x + attended + softmax over k of cos(M attended + b, compressed_k) compressed_k
 *
 * the latter channel by channel, patch by patch.
 *
 * Layout: x, attended, y (C, H, W); pooled (k, mean and maximum, H, W); 3x3 (k, 2, 9) with a bias (k); N (k, k), c (k);
 * M (C, C), b (C); patches of r x r pixels.
 */
#include <math.h>
#include <stdlib.h>

#include "inference/operators.h"
#include "common/gemm.h"
#include "common/tiles.h"

#define MAX_GROUPS 16
#define COLUMNS 64 /* of patches that are worked on at once, so that they stay in cache */

/* Some patches side by side. A buffer has all pixels of a patch together: (channel, patch, r * r). */
typedef struct { int patches, pixels; long width, plane; } Run;

/* The weights that make F_cp. */
typedef struct { const float *aggregate, *aggregate_bias, *compress, *compress_bias; } Compression;

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

/* 1 / ||x||, no norm being less than 1e-6, as ccnet.ops.cosine.EPS has it. */
INLINE float over_norm(float squares) { return 1.f / (squares > 1e-12f ? sqrtf(squares) : 1e-6f); }

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

/* What a run of patches sees of an image, a pixel around it included, zero beyond the image: (row, columns). */
INLINE void surround(PafShape shape, const float *plane, int y, int x, int rows, int columns, float (*to)[COLUMNS + 2]) {
    const int left = x > 0, right = x + columns < shape.width;
    for (int row = 0; row < rows + 2; row++, to++) {
        const int at = y + row - 1, inside = at >= 0 && at < shape.height;
        const float *from = plane + (long)at * shape.width + x - left;
        for (int p = 0; p < columns + left + right && inside; p++) (*to)[!left + p] = from[p];
        for (int p = 0; p < columns + 2 && !inside; p++) (*to)[p] = 0.f;
        if (!left) (*to)[0] = 0.f;
        if (!right) (*to)[columns + 1] = 0.f;
    }
}

/* SIA's convolution of each group's mean and maximum (Eq. 10) and the 1x1 behind it. to: (k, patch, r * r). */
INLINE void compress(const int r, PafShape shape, Run run, Compression with, const float *pooled, int y, int x, float *to) {
    const int groups = shape.groups, columns = run.patches * r;
    float around[2][r + 2][COLUMNS + 2], aggregated[MAX_GROUPS][r][COLUMNS], sum[COLUMNS];
    for (int k = 0; k < groups; k++) {
        float taps[2][TAPS];
        memcpy(taps, with.aggregate + 2 * TAPS * k, sizeof taps);
        for (int kind = 0; kind < 2; kind++)
            surround(shape, pooled + (2 * k + kind) * run.plane, y, x, r, columns, around[kind]);
        for (int row = 0; row < r; row++) {
            const float(*mean)[COLUMNS + 2] = around[0] + row, (*most)[COLUMNS + 2] = around[1] + row;
            for (int p = 0; p < columns; p++)
                aggregated[k][row][p] = with.aggregate_bias[k] + correlation(taps[0], mean[0], mean[1], mean[2], p) +
                                        correlation(taps[1], most[0], most[1], most[2], p);
        }
    }
    for (int o = 0; o < groups; o++)
        for (int row = 0; row < r; row++) {
            for (int p = 0; p < columns; p++) sum[p] = with.compress_bias[o];
            for (int k = 0; k < groups; k++)
                for (int p = 0; p < columns; p++) sum[p] += with.compress[o * groups + k] * aggregated[k][row][p];
            for (int patch = 0; patch < run.patches; patch++)
                memcpy(to + ((long)o * run.patches + patch) * run.pixels + row * r, sum + patch * r, r * sizeof *to);
        }
}

/* memory: of the run's C channels twice, and k. */
INLINE void fuse_run(const int r, PafShape shape, Run run, const float *x, const float *attended, const float *map,
                     const float *bias, float *y, float *memory) {
    const long apart = (long)run.patches * run.pixels;
    float *const seen = memory, *const kept = seen + shape.groups * apart, *const mapped = kept + shape.channels * apart;
    load(r, run, attended, shape.channels, kept);
    product(map, shape.channels, shape.channels, kept, apart, mapped, apart, apart, 0);
    for (int c = 0; c < shape.channels; c++)
        for (long p = 0; p < apart; p++) mapped[c * apart + p] += bias[c];
    for (long p = 0; p < apart; p += run.pixels)
        fuse(run.pixels, apart, shape.channels, shape.groups, mapped + p, seen + p, kept + p);
    add(r, run, x, kept, shape.channels, y);
}

/* A row of patches. */
INLINE void fuse_row(const int r, PafShape shape, Compression with, const float *x, const float *attended,
                     const float *pooled, const float *map, const float *bias, float *y, int top, float *memory) {
    Run run = {0, r * r, shape.width, (long)shape.height * shape.width};
    for (int left = 0; left < shape.width; left += run.patches * r) {
        const long at = (long)top * shape.width + left;
        run.patches = least(COLUMNS / r, (shape.width - left) / r);
        compress(r, shape, run, with, pooled, top, left, memory);
        fuse_run(r, shape, run, x + at, attended + at, map, bias, y + at, memory);
    }
}

long paf_jobs(PafShape shape) { return shape.height / shape.patch; }

/* A job is a row of patches. */
CLONES int paf_run(PafShape shape, const float *x, const float *attended, const float *pooled, const float *aggregate,
                   const float *aggregate_bias, const float *compress, const float *compress_bias, const float *map,
                   const float *bias, float *y, long job) {
    const Compression with = {aggregate, aggregate_bias, compress, compress_bias};
    const int r = shape.patch, top = (int)job * r;
    float *memory = malloc((2l * shape.channels + shape.groups) * r * COLUMNS * sizeof *memory);
    if (!memory) return -1;
    switch (r) { /* known to the compiler: rows of patches are short */
        case 4: fuse_row(4, shape, with, x, attended, pooled, map, bias, y, top, memory); break;
        case 8: fuse_row(8, shape, with, x, attended, pooled, map, bias, y, top, memory); break;
        default: fuse_row(16, shape, with, x, attended, pooled, map, bias, y, top, memory);
    }
    free(memory);
    return 0;
}
