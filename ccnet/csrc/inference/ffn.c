/* The intra-spectral feed-forward network and its residual sum in one pass:
 *
 *     y = x + P gelu(dw3x3(gelu(E norm(x))))
 *
 * The hidden tensors are four times as large as x; a row of them is computed, filtered and used while it is in cache.
 * Columns beyond the image are zero in the ring, because E and gelu map a norm(x) of zero to zero: this is the 3x3's
 * padding.
 *
 * Layout: x, y (C, H, W); scale, shift (C) of the norm; E (hidden, C); 3x3 (hidden, 9); P (C, hidden).
 */
#include <stdlib.h>

#include "common/activations.h"
#include "common/conv3x3.h"
#include "common/gemm.h"
#include "common/norm.h"
#include "common/tiles.h"
#include "inference/operators.h"

INLINE void gelu(float *x, long count) {
    for (long p = 0; p < count; p++) x[p] = gelu_of(x[p]);
}

/* norm(x) of `count` pixels of a row, with zeros from there to `stride`. */
INLINE void normalise(FfnShape shape, const float *x, const float *scale, const float *shift, float *to, long stride,
                      long count) {
    const int C = shape.channels;
    const long plane = (long)shape.height * shape.width;
    float mean[stride], inverse_deviation[stride];
    for (int c = 0; c < C; c++) { /* the rows of different planes may compete for the same places in cache: copy them */
        float *row = to + c * stride;
        memcpy(row, x + c * plane, count * sizeof *row);
        memset(row + count, 0, (stride - count) * sizeof *row);
    }
    channel_statistics(to, C, stride, stride, shape.epsilon, mean, inverse_deviation);
    for (int c = 0; c < C; c++) {
        float *restrict row = to + c * stride;
        for (long p = 0; p < stride; p++) row[p] = (row[p] - mean[p]) * inverse_deviation[p] * scale[c] + shift[c];
        memset(row + count, 0, (stride - count) * sizeof *row);
    }
}

long ffn_jobs(FfnShape shape) { return num_tiles(shape.height, shape.width, max_columns_for(shape.channels)); }

CLONES int ffn_run(FfnShape shape, const float *x, const float *scale, const float *shift, const float *expand,
                   const float *spatial, const float *project, float *y, long job) {
    const Tile tile = tile_at(shape.height, shape.width, max_columns_for(shape.channels), 1, job);
    const long plane = (long)shape.height * shape.width, count = tile.left + tile.columns + tile.right;
    const long stride = round_up_to_lanes(count), ring_stride = stride + LANES; /* with the columns beside the image */
    const long size = shape.hidden * ring_stride, out_stride = round_up_to_lanes(tile.columns);
    float *buffer = calloc((RING_ROWS + 1) * size + shape.channels * stride, sizeof *buffer);
    if (!buffer) return OUT_OF_MEMORY;
    float *const ring = buffer, *const filtered = ring + RING_ROWS * size, *const channels = filtered + size;
    for (int row = tile.y - 1; row <= tile.y + tile.rows; row++) {
        float *hidden = ring_row(ring, size, row);
        if (row < 0 || row >= shape.height)
            memset(hidden, 0, size * sizeof *hidden);
        else {
            normalise(shape, x + (long)row * shape.width + tile.x - tile.left, scale, shift, channels, stride, count);
            multiply(expand, shape.hidden, shape.channels, channels, stride, hidden + 1 - tile.left, ring_stride,
                     stride, gelu);
        }
        if (row <= tile.y) continue;
        depthwise_gelu(shape.hidden, rows_around(ring, size, row - 1), ring_stride, spatial, filtered, out_stride,
                       out_stride);
        multiply(project, shape.channels, shape.hidden, filtered, out_stride, channels, out_stride, out_stride, 0);
        for (int c = 0; c < shape.channels; c++) {
            const long to = c * plane + (long)(row - 1) * shape.width + tile.x;
            for (long p = 0; p < tile.columns; p++) y[to + p] = x[to + p] + channels[c * out_stride + p];
        }
    }
    free(buffer);
    return 0;
}
