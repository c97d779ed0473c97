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
#include "tiles.h"

#define LANES 8
#define PANEL 2 /* vectors of pixels: four rows of a product with so many stay in registers */

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

/* x Phi(x); Phi by 7.1.26 of Abramowitz and Stegun's handbook, to 1e-7. */
INLINE float gelu_of(float x) {
    const float away = x < 0.f ? -x : x, t = 1.f / (1.f + .231641888f * away); /* 0.3275911 / sqrt(2) */
    const float tail = t * (.127414796f + t * (-.142248368f + t * (.710706871f + t * (-.726576014f + t * .530702715f))));
    const float beyond = tail * exp_of(-.5f * x * x); /* of the normal distribution's mass, what lies beyond |x| */
    return x * (x < 0.f ? beyond : 1.f - beyond);
}

/* Four rows of a product with so many vectors of pixels: to[o] = sum over i of w[o][i] from[i]. */
INLINE void multiply(const int vectors, const float *w, int inner, const float *from, float *to, long stride) {
    Vector sums[4][PANEL] = {{{0}}};
    for (int i = 0; i < inner; i++, from += stride)
        for (int v = 0; v < vectors; v++) {
            const Vector x = *(const Vector *)(from + v * LANES);
            for (int o = 0; o < 4; o++) sums[o][v] += w[(long)o * inner + i] * x;
        }
    for (int o = 0; o < 4; o++)
        for (int v = 0; v < vectors; v++) *(Vector *)(to + o * stride + v * LANES) = sums[o][v];
}

/* to (outer, stride) = w (outer, inner) from (inner, stride); outer by 4, stride by LANES. */
INLINE void product(const float *w, int outer, int inner, const float *from, float *to, long stride) {
    for (int o = 0; o < outer; o += 4) {
        const float *rows = w + (long)o * inner;
        float *made = to + o * stride;
        long p = 0;
        for (; p + PANEL * LANES <= stride; p += PANEL * LANES) multiply(PANEL, rows, inner, from + p, made + p, stride);
        for (; p < stride; p += LANES) multiply(1, rows, inner, from + p, made + p, stride);
    }
}

/* norm(x) of a row of a tile with the columns beside it; zero where there are none. */
INLINE void normalise(FfnShape shape, Tile tile, const float *x, const float *scale, const float *shift, float *to,
                      long stride, int y) {
    const int C = shape.channels, first = 1 - tile.left, count = tile.left + tile.columns + tile.right;
    const long plane = (long)shape.height * shape.width, at = (long)y * shape.width + tile.x - tile.left;
    float mean[stride], spread[stride];
    memset(mean, 0, stride * sizeof *mean);
    memset(spread, 0, stride * sizeof *spread);
    for (int c = 0; c < C; c++)
        for (long p = 0; p < count; p++) mean[p] += x[c * plane + at + p] / C;
    for (int c = 0; c < C; c++)
        for (long p = 0; p < count; p++) {
            const float apart = x[c * plane + at + p] - mean[p];
            spread[p] += apart * apart / C;
        }
    for (long p = 0; p < count; p++) spread[p] = 1.f / sqrtf(spread[p] + shape.epsilon);
    for (int c = 0; c < C; c++) {
        float *restrict row = to + c * stride;
        memset(row, 0, stride * sizeof *row);
        for (long p = 0; p < count; p++)
            row[first + p] = (x[c * plane + at + p] - mean[p]) * spread[p] * scale[c] + shift[c];
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
            product(expand, shape.hidden, shape.channels, row, made, stride);
            for (long p = 0; p < size; p++) made[p] = gelu_of(made[p]);
        }
        if (at <= tile.y) continue;
        float *const rows[3] = {ring + (at + 1) % 3 * size, ring + (at + 2) % 3 * size, made};
        filter(shape, rows, spatial, filtered, stride);
        product(project, shape.channels, shape.hidden, filtered, row, stride);
        for (int c = 0; c < shape.channels; c++) {
            const long to = c * plane + (long)(at - 1) * shape.width + tile.x;
            for (long p = 0; p < tile.columns; p++) y[to + p] = x[to + p] + row[c * stride + p];
        }
    }
    free(memory);
    return 0;
}
