/* Group-wise Spectral Correlation Modeling (section III-B) of a frame whose attention is known, in one pass:
 *
 *     v = W_v x,   y = M v + b + dw3x3(gelu(dw3x3(v)))
 *
 * M is the product of the output projection and the attention. Both 3x3s pad with zeros: v and gelu(dw3x3(v)) are zero
 * beyond the image.
 *
 * Layout: x, y (C, H, W); W_v (C, C / k), which maps each group's channels to themselves; M (C, C); b (C); 3x3s (C, 9).
 */
#include <stdlib.h>

#include "common/conv3x3.h"
#include "common/gemm.h"
#include "common/tiles.h"
#include "inference/operators.h"

enum { HALO = 2 };

/* Compute v of row y of a tile with its halo. from: a buffer for the row's pixels of all channels. */
INLINE void compute_values(GrscmShape shape, Tile tile, const float *x, const float *values, float *from, long stride,
                           float *to, long ring_stride, int y) {
    const int C = shape.channels, group = C / shape.groups;
    const long count = tile.left + tile.columns + tile.right, plane = (long)shape.height * shape.width;
    x += (long)y * shape.width + tile.x - tile.left;
    for (int c = 0; c < C; c++) {
        memcpy(from + c * stride, x + c * plane, count * sizeof *from);
        memset(from + c * stride + count, 0, (stride - count) * sizeof *from);
    }
    for (int c = 0; c < C; c += group)
        multiply(values + (long)c * group, group, group, from + c * stride, stride,
                 to + c * ring_stride + HALO - tile.left, ring_stride, stride, 0);
}

/* Compute gelu(dw3x3(v)) of a row of a tile and of one column on either side. */
INLINE void compute_position(GrscmShape shape, Tile tile, Rows v, const float *first, float *to, long ring_stride) {
    depthwise_gelu(shape.channels, v, ring_stride, first, to, ring_stride, round_up_to_lanes(tile.columns + 2));
    for (int c = 0; c < shape.channels; c++) {
        if (!tile.left) to[c * ring_stride] = 0.f;
        if (!tile.right) to[c * ring_stride + tile.columns + 1] = 0.f;
    }
}

/* Compute y of a row of a tile from its v and the rows of gelu(dw3x3(v)) around it. result: a buffer. */
INLINE void compute_result(GrscmShape shape, Tile tile, const float *v, Rows position, long ring_stride,
                           const float *matrix, const float *bias, const float *second, float *result, float *y) {
    const int C = shape.channels;
    const long stride = round_up_to_lanes(tile.columns), plane = (long)shape.height * shape.width;
    multiply(matrix, C, C, v + HALO, ring_stride, result, stride, stride, 0);
    for (int c = 0; c < C; c++, result += stride, second += TAPS) {
        const Rows rows = rows_from(position, c * ring_stride);
        float *restrict sum = result, k[TAPS];
        memcpy(k, second, sizeof k);
        for (long p = 0; p < stride; p++) sum[p] += bias[c] + correlation(k, rows.above, rows.centre, rows.below, p);
        memcpy(y + c * plane, result, tile.columns * sizeof *y);
    }
}

long grscm_jobs(GrscmShape shape) { return num_tiles(shape.height, shape.width, max_columns_for(shape.channels)); }

CLONES int grscm_run(GrscmShape shape, const float *x, const float *values, const float *matrix, const float *bias,
                     const float *first, const float *second, float *y, long job) {
    const Tile tile = tile_at(shape.height, shape.width, max_columns_for(shape.channels), HALO, job);
    const long stride = round_up_to_lanes(tile.left + tile.columns + tile.right);
    const long ring_stride = round_up_to_lanes(tile.columns + 2 * HALO) + LANES, size = shape.channels * ring_stride;
    float *buffer = calloc(2 * RING_ROWS * size + shape.channels * stride, sizeof *buffer);
    if (!buffer) return OUT_OF_MEMORY;
    float *const v = buffer, *const position = v + RING_ROWS * size, *const channels = position + RING_ROWS * size;
    for (int row = tile.y - HALO; row < tile.y + tile.rows + HALO; row++) { /* v leads the result by HALO rows */
        float *const v_row = ring_row(v, size, row), *const position_row = ring_row(position, size, row - 1);
        if (row < 0 || row >= shape.height)
            memset(v_row, 0, size * sizeof *v_row);
        else
            compute_values(shape, tile, x, values, channels, stride, v_row, ring_stride, row);
        if (row < tile.y) continue;
        if (row - 1 < 0 || row - 1 >= shape.height)
            memset(position_row, 0, size * sizeof *position_row);
        else
            compute_position(shape, tile, rows_around(v, size, row - 1), first, position_row, ring_stride);
        if (row < tile.y + HALO) continue;
        compute_result(shape, tile, ring_row(v, size, row - HALO), rows_around(position, size, row - HALO), ring_stride,
                       matrix, bias, second, channels, y + (long)(row - HALO) * shape.width + tile.x);
    }
    free(buffer);
    return 0;
}
