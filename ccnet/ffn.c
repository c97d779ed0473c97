/* The intra-spectral feed-forward network with what it is added to, in one pass:
 *
 *     y = x + P gelu(dw3x3(gelu(E norm(x))))
 *
 * Its hidden tensors are four times x; a row of them is made, filtered and used up while it is in cache. Columns beyond
 * the image are zeros of norm(x), which E and gelu leave at zero: that is the 3x3's padding.
 *
 * Layout: x, y (C, H, W); scale, shift (C) of the norm; E (hidden, C); 3x3 (hidden, 9); P (C, hidden).
 */
#include <math.h>
#include <stdlib.h>

#include "operators.h"
#include "product.h"
#include "tiles.h"

/* x Phi(x); Phi as 1/2 + x P(x^2) / Q(x^2), fitted for the least error, 7e-9, up to 5.5, beyond which it is 0 or 1. */
INLINE float gelu_of(float x) {
    const float c = x < -5.5f ? -5.5f : x > 5.5f ? 5.5f : x, u = c * c;
    const float p = .398942235f + u * (.0338527023f + u * (.00467726414f + u * (1.68826239e-4f + u * (6.35212101e-6f +
                    u * 2.27493581e-8f))));
    const float q = 1.f + u * (.251522059f + u * (.0286459036f + u * (.00188444808f + u * (7.36476788e-5f +
                    u * 1.19750396e-6f))));
    return unless_nan(x < -5.5f ? 0.f : x * (.5f + c * p / q), x);
}

INLINE void gelu(float *x, long count) {
    for (long p = 0; p < count; p++) x[p] = gelu_of(x[p]);
}

/* norm(x) of a row of a tile with the columns beside it; zero where there are none. */
INLINE void normalise(FfnShape shape, Tile tile, const float *x, const float *scale, const float *shift, float *to,
                      long stride, int y) {
    const int C = shape.channels, first = 1 - tile.left, count = tile.left + tile.columns + tile.right;
    const long plane = (long)shape.height * shape.width, at = (long)y * shape.width + tile.x - tile.left;
    float mean[stride], spread[stride];
    memset(mean, 0, stride * sizeof *mean);
    memset(spread, 0, stride * sizeof *spread);
    for (int c = 0; c < C; c++) { /* planes lie so that their rows share places in cache: each is read once */
        float *restrict row = to + c * stride;
        memset(row, 0, stride * sizeof *row);
        for (long p = 0; p < count; p++) mean[p] += row[first + p] = x[c * plane + at + p];
    }
    for (long p = 0; p < count; p++) mean[p] /= C;
    for (int c = 0; c < C; c++)
        for (long p = 0; p < count; p++) {
            const float apart = to[c * stride + first + p] - mean[p];
            spread[p] += apart * apart;
        }
    for (long p = 0; p < count; p++) spread[p] = 1.f / sqrtf(spread[p] / C + shape.epsilon);
    for (int c = 0; c < C; c++) {
        float *restrict row = to + c * stride + first;
        for (long p = 0; p < count; p++) row[p] = (row[p] - mean[p]) * spread[p] * scale[c] + shift[c];
    }
}

/* gelu of the 3x3 of each hidden channel; rows: the ring, from the row above. */
INLINE void filter(FfnShape shape, float *const *rows, const float *spatial, float *to, long stride) {
    for (int h = 0; h < shape.hidden; h++) {
        const float *restrict above = rows[0] + h * stride, *restrict centre = rows[1] + h * stride;
        const float *restrict below = rows[2] + h * stride, *k = spatial + h * TAPS;
        float *restrict made = to + h * stride;
        const float a = k[0], b = k[1], c = k[2], d = k[3], e = k[4], f = k[5], g = k[6], h_ = k[7], i = k[8];
        for (long p = 0; p < stride - 2; p++)
            made[p] = gelu_of(a * above[p] + b * above[p + 1] + c * above[p + 2] + d * centre[p] + e * centre[p + 1] +
                              f * centre[p + 2] + g * below[p] + h_ * below[p + 1] + i * below[p + 2]);
    }
}

static int widest_of(FfnShape shape) { return 4096 / shape.channels > 16 ? 4096 / shape.channels - 2 : 14; }

long ffn_jobs(FfnShape shape) { return tiles_of(shape.height, shape.width, widest_of(shape)); }

CLONES int ffn_run(FfnShape shape, const float *x, const float *scale, const float *shift, const float *expand,
                   const float *spatial, const float *project, float *y, long job) {
    const Tile tile = tile_of(shape.height, shape.width, widest_of(shape), job);
    const long stride = (tile.columns + 2 + LANES - 1) / LANES * LANES, plane = (long)shape.height * shape.width;
    const long size = shape.hidden * stride, narrow = shape.channels * stride;
    float *memory = calloc(4 * size + narrow, sizeof *memory);
    if (!memory) return -1;
    float *const ring = memory, *const filtered = ring + 3 * size, *const row = filtered + size;
    for (int at = tile.y - 1; at <= tile.y + tile.rows; at++) {
        float *made = ring + (at + 3) % 3 * size;
        if (at < 0 || at >= shape.height)
            memset(made, 0, size * sizeof *made);
        else {
            normalise(shape, tile, x, scale, shift, row, stride, at);
            product(expand, shape.hidden, shape.channels, row, made, stride, gelu);
        }
        if (at <= tile.y) continue;
        float *const rows[3] = {ring + (at + 1) % 3 * size, ring + (at + 2) % 3 * size, made};
        filter(shape, rows, spatial, filtered, stride);
        product(project, shape.channels, shape.hidden, filtered, row, stride, 0);
        for (int c = 0; c < shape.channels; c++) {
            const long to = c * plane + (long)(at - 1) * shape.width + tile.x;
            for (long p = 0; p < tile.columns; p++) y[to + p] = x[to + p] + row[c * stride + p];
        }
    }
    free(memory);
    return 0;
}
