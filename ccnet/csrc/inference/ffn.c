/* The intra-spectral feed-forward network with what it is added to, in one pass:
 *
 *     y = x + P gelu(dw3x3(gelu(E norm(x))))
 *
 * Its hidden tensors are four times x; a row of them is made, filtered and used up while it is in cache. Columns beyond
 * the image are zero in the ring, as E and gelu leave a norm(x) of zero: that is the 3x3's padding.
 *
 * Layout: x, y (C, H, W); scale, shift (C) of the norm; E (hidden, C); 3x3 (hidden, 9); P (C, hidden).
 */
#include <stdlib.h>

#include "inference/operators.h"
#include "common/gemm.h"
#include "common/tiles.h"

INLINE void gelu(float *x, long count) {
    for (long p = 0; p < count; p++) x[p] = gelu_of(x[p]);
}

/* norm(x) of so many pixels of a row; zero behind them, as long as a row is. */
INLINE void normalise(FfnShape shape, const float *x, const float *scale, const float *shift, float *to, long stride,
                      long count) {
    const int C = shape.channels;
    const long plane = (long)shape.height * shape.width;
    float mean[stride], spread[stride];
    memset(mean, 0, stride * sizeof *mean);
    memset(spread, 0, stride * sizeof *spread);
    for (int c = 0; c < C; c++) { /* planes lie so that their rows share places in cache: each is read once */
        float *restrict row = to + c * stride;
        memcpy(row, x + c * plane, count * sizeof *row);
        memset(row + count, 0, (stride - count) * sizeof *row);
        for (long p = 0; p < stride; p++) mean[p] += row[p];
    }
    for (long p = 0; p < stride; p++) mean[p] /= C;
    for (int c = 0; c < C; c++)
        for (long p = 0; p < stride; p++) {
            const float apart = to[c * stride + p] - mean[p];
            spread[p] += apart * apart;
        }
    for (long p = 0; p < stride; p++) spread[p] = 1.f / sqrtf(spread[p] / C + shape.epsilon);
    for (int c = 0; c < C; c++) {
        float *restrict row = to + c * stride;
        for (long p = 0; p < stride; p++) row[p] = (row[p] - mean[p]) * spread[p] * scale[c] + shift[c];
        memset(row + count, 0, (stride - count) * sizeof *row);
    }
}

long ffn_jobs(FfnShape shape) { return tiles_of(shape.height, shape.width, widest_of(shape.channels)); }

CLONES int ffn_run(FfnShape shape, const float *x, const float *scale, const float *shift, const float *expand,
                   const float *spatial, const float *project, float *y, long job) {
    const Tile tile = tile_of(shape.height, shape.width, widest_of(shape.channels), 1, job);
    const long plane = (long)shape.height * shape.width, count = tile.left + tile.columns + tile.right;
    const long stride = by_lanes(count), apart = stride + LANES, size = shape.hidden * apart; /* columns beside it */
    float *memory = calloc(4 * size + shape.channels * stride, sizeof *memory);
    if (!memory) return -1;
    float *const ring = memory, *const filtered = ring + 3 * size, *const row = filtered + size;
    for (int at = tile.y - 1; at <= tile.y + tile.rows; at++) {
        float *made = row_of(ring, size, at);
        if (at < 0 || at >= shape.height)
            memset(made, 0, size * sizeof *made);
        else {
            normalise(shape, x + (long)at * shape.width + tile.x - tile.left, scale, shift, row, stride, count);
            product(expand, shape.hidden, shape.channels, row, stride, made + 1 - tile.left, apart, stride, gelu);
        }
        if (at <= tile.y) continue;
        float *const rows[3] = {row_of(ring, size, at - 2), row_of(ring, size, at - 1), made};
        const long wide = by_lanes(tile.columns);
        filter(shape.hidden, rows, apart, spatial, filtered, wide, wide);
        product(project, shape.channels, shape.hidden, filtered, wide, row, wide, wide, 0);
        for (int c = 0; c < shape.channels; c++) {
            const long to = c * plane + (long)(at - 1) * shape.width + tile.x;
            for (long p = 0; p < tile.columns; p++) y[to + p] = x[to + p] + row[c * wide + p];
        }
    }
    free(memory);
    return 0;
}
