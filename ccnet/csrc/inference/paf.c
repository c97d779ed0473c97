/* Patch-wise adaptive fusion (section III-D, Eq. 10-13) after SIA's pooling, with its residual sum:
 *
 *     compressed = N dw3x3(pooled) + c
 *     y = x + attended + sum over k of softmax over k of cos(M attended + b, compressed_k) compressed_k
 *
 * the latter channel by channel, patch by patch.
 *
 * Layout: x, attended, y (C, H, W); pooled (k, mean and maximum, H, W); 3x3 (k, 2, 9) with a bias (k); N (k, k), c (k);
 * M (C, C), b (C); patches of r x r pixels.
 */
#include <stdlib.h>

#include "common/conv3x3.h"
#include "common/fusion.h"
#include "common/gemm.h"
#include "common/tiles.h"
#include "inference/operators.h"

#define COLUMNS 64 /* of patches that are computed together, so that they stay in cache */

/* Patches side by side. Their buffers hold all pixels of a patch together: (channel, patch, r * r). */
typedef struct { int patches, pixels; long width, plane; } Strip;

/* The weights of F_cp. */
typedef struct { const float *aggregate, *aggregate_bias, *compress, *compress_bias; } Compression;

INLINE void load(const int r, Strip strip, const float *from, int channels, float *to) {
    for (int c = 0; c < channels; c++, from += strip.plane)
        for (int patch = 0; patch < strip.patches; patch++)
            for (int row = 0; row < r; row++, to += r) memcpy(to, from + row * strip.width + patch * r, r * sizeof *to);
}

/* to = x + a buffer. */
INLINE void add(const int r, Strip strip, const float *restrict x, const float *restrict from, int channels,
                float *restrict to) {
    for (int c = 0; c < channels; c++, x += strip.plane, to += strip.plane)
        for (int patch = 0; patch < strip.patches; patch++)
            for (int row = 0; row < r; row++, from += r) {
                const long start = row * strip.width + patch * r;
                for (int p = 0; p < r; p++) to[start + p] = x[start + p] + from[p];
            }
}

/* to += the fusion of a patch, for all its channels, which are `stride` apart. */
INLINE void add_fusion(int pixels, long stride, int channels, int groups, const float *mapped, const float *compressed,
                       float *to) {
    float inverse_mapped[channels], inverse_compressed[MAX_GROUPS], weights[MAX_GROUPS * channels], sums[channels];
    for (int k = 0; k < groups; k++) inverse_compressed[k] = 1.f / norm_of(compressed + k * stride, pixels);
    for (int c = 0; c < channels; c++) inverse_mapped[c] = 1.f / norm_of(mapped + c * stride, pixels);
    fusion_weights(pixels, stride, channels, groups, mapped, inverse_mapped, compressed, inverse_compressed, weights,
                   weights, sums);
    for (int c = 0; c < channels; c++, to += stride)
        for (int k = 0; k < groups; k++) add_scaled(to, weights[k * channels + c], compressed + k * stride, pixels);
}

/* Copy some columns of a row of patches with the pixels around them, zero beyond the image. */
INLINE void load_haloed(PafShape shape, const float *plane, int y, int x, int rows, int columns,
                        float (*to)[COLUMNS + 2]) {
    const int left = x > 0, right = x + columns < shape.width;
    for (int row = 0; row < rows + 2; row++, to++) {
        const int from_y = y + row - 1, inside = from_y >= 0 && from_y < shape.height;
        if (!inside) {
            memset(*to, 0, (columns + 2) * sizeof **to);
            continue;
        }
        const float *from = plane + (long)from_y * shape.width + x - left;
        for (int p = 0; p < columns + left + right; p++) (*to)[!left + p] = from[p];
        if (!left) (*to)[0] = 0.f;
        if (!right) (*to)[columns + 1] = 0.f;
    }
}

/* The convolution of each group's mean and maximum (Eq. 10): to (k, r, COLUMNS). */
INLINE void aggregate(const int r, PafShape shape, Strip strip, Compression weights, const float *pooled, int y, int x,
                      float (*to)[r][COLUMNS]) {
    const int columns = strip.patches * r;
    float pixels[2][r + 2][COLUMNS + 2];
    for (int k = 0; k < shape.groups; k++) {
        float filters[2][TAPS];
        memcpy(filters, weights.aggregate + 2 * TAPS * k, sizeof filters);
        for (int kind = 0; kind < 2; kind++)
            load_haloed(shape, pooled + (2 * k + kind) * strip.plane, y, x, r, columns, pixels[kind]);
        for (int row = 0; row < r; row++) {
            const float(*mean)[COLUMNS + 2] = pixels[0] + row, (*maximum)[COLUMNS + 2] = pixels[1] + row;
            for (int p = 0; p < columns; p++)
                to[k][row][p] = weights.aggregate_bias[k] + correlation(filters[0], mean[0], mean[1], mean[2], p) +
                                correlation(filters[1], maximum[0], maximum[1], maximum[2], p);
        }
    }
}

/* F_cp of a strip: Eq. 10 and the 1x1 convolution after it. to: (k, patch, r * r). */
INLINE void compress(const int r, PafShape shape, Strip strip, Compression weights, const float *pooled, int y, int x,
                     float *to) {
    const int groups = shape.groups, columns = strip.patches * r;
    float aggregated[MAX_GROUPS][r][COLUMNS], sum[COLUMNS];
    aggregate(r, shape, strip, weights, pooled, y, x, aggregated);
    for (int o = 0; o < groups; o++)
        for (int row = 0; row < r; row++) {
            for (int p = 0; p < columns; p++) sum[p] = weights.compress_bias[o];
            for (int k = 0; k < groups; k++)
                for (int p = 0; p < columns; p++) sum[p] += weights.compress[o * groups + k] * aggregated[k][row][p];
            for (int patch = 0; patch < strip.patches; patch++)
                memcpy(to + ((long)o * strip.patches + patch) * strip.pixels + row * r, sum + patch * r,
                       r * sizeof *to);
        }
}

/* buffer: F_cp of the strip's k groups, then room for its C channels twice. */
INLINE void fuse_strip(const int r, PafShape shape, Strip strip, const float *x, const float *attended,
                       const float *map, const float *bias, float *y, float *buffer) {
    const long stride = (long)strip.patches * strip.pixels;
    float *const compressed = buffer, *const sum = compressed + shape.groups * stride;
    float *const mapped = sum + shape.channels * stride;
    load(r, strip, attended, shape.channels, sum);
    multiply(map, shape.channels, shape.channels, sum, stride, mapped, stride, stride, 0);
    for (int c = 0; c < shape.channels; c++)
        for (long p = 0; p < stride; p++) mapped[c * stride + p] += bias[c];
    for (long p = 0; p < stride; p += strip.pixels)
        add_fusion(strip.pixels, stride, shape.channels, shape.groups, mapped + p, compressed + p, sum + p);
    add(r, strip, x, sum, shape.channels, y);
}

/* Compute a row of patches, strip by strip. */
INLINE void fuse_row(const int r, PafShape shape, Compression weights, const float *x, const float *attended,
                     const float *pooled, const float *map, const float *bias, float *y, int top, float *buffer) {
    Strip strip = {0, r * r, shape.width, (long)shape.height * shape.width};
    for (int left = 0; left < shape.width; left += strip.patches * r) {
        const long start = (long)top * shape.width + left;
        strip.patches = min_int(COLUMNS / r, (shape.width - left) / r);
        compress(r, shape, strip, weights, pooled, top, left, buffer);
        fuse_strip(r, shape, strip, x + start, attended + start, map, bias, y + start, buffer);
    }
}

long paf_jobs(PafShape shape) { return shape.height / shape.patch; }

/* A job is a row of patches. */
CLONES int paf_run(PafShape shape, const float *x, const float *attended, const float *pooled, const float *aggregate,
                   const float *aggregate_bias, const float *compress, const float *compress_bias, const float *map,
                   const float *bias, float *y, long job) {
    const Compression weights = {aggregate, aggregate_bias, compress, compress_bias};
    const int r = shape.patch, top = (int)job * r;
    float *buffer = malloc((2l * shape.channels + shape.groups) * r * COLUMNS * sizeof *buffer);
    if (!buffer) return OUT_OF_MEMORY;
    switch (r) { /* a constant for the compiler, because rows of patches are short */
        case 4: fuse_row(4, shape, weights, x, attended, pooled, map, bias, y, top, buffer); break;
        case 8: fuse_row(8, shape, weights, x, attended, pooled, map, bias, y, top, buffer); break;
        default: fuse_row(16, shape, weights, x, attended, pooled, map, bias, y, top, buffer);
    }
    free(buffer);
    return 0;
}
