/* Group-wise Spectral Correlation Modeling (section III-B) in a frame whose attention is known, in one pass:
 *
 *     v = W_v x,   y = M v + b + dw3x3(gelu(dw3x3(v)))
 *
 * M holds the attention and the projection behind it. The 3x3s' padding is of zeros, each time: v and gelu(dw3x3(v))
 * are zero beyond the image.
 *
 * Layout: x, y (C, H, W); W_v (C, C / k), a group's channels from its own; M (C, C); b (C); 3x3s (C, 9).
 */
#include <stdlib.h>

#include "inference/operators.h"
#include "common/gemm.h"
#include "common/tiles.h"

enum { HALO = 2 };

/* v of a row of a tile with its halo. from: room for the row's pixels of all channels. */
INLINE void make_values(GrscmShape shape, Tile tile, const float *x, const float *values, float *from, long stride,
                       float *to, long apart, int y) {
    const int C = shape.channels, run = C / shape.groups;
    const long count = tile.left + tile.columns + tile.right, plane = (long)shape.height * shape.width;
    x += (long)y * shape.width + tile.x - tile.left;
    for (int c = 0; c < C; c++) {
        memcpy(from + c * stride, x + c * plane, count * sizeof *from);
        memset(from + c * stride + count, 0, (stride - count) * sizeof *from);
    }
    for (int c = 0; c < C; c += run)
        product(values + (long)c * run, run, run, from + c * stride, stride, to + c * apart + HALO - tile.left, apart,
                stride, 0);
}

/* gelu(dw3x3(v)) of a row of a tile and a column on either side. */
INLINE void make_position(GrscmShape shape, Tile tile, float *const *v, const float *first, float *to, long apart) {
    filter(shape.channels, v, apart, first, to, apart, by_lanes(tile.columns + 2));
    for (int c = 0; c < shape.channels; c++) {
        if (!tile.left) to[c * apart] = 0.f;
        if (!tile.right) to[c * apart + tile.columns + 1] = 0.f;
    }
}

/* y of a row of a tile. rows: of gelu(dw3x3(v)), from the row above. */
INLINE void make_result(GrscmShape shape, Tile tile, const float *v, float *const *rows, long apart, const float *matrix,
                       const float *bias, const float *second, float *made, float *y) {
    const int C = shape.channels;
    const long wide = by_lanes(tile.columns), plane = (long)shape.height * shape.width;
    product(matrix, C, C, v + HALO, apart, made, wide, wide, 0);
    for (int c = 0; c < C; c++, made += wide, second += TAPS) {
        const float *above = rows[0] + c * apart, *centre = rows[1] + c * apart, *below = rows[2] + c * apart;
        float *restrict sum = made, k[TAPS];
        memcpy(k, second, sizeof k);
        for (long p = 0; p < wide; p++) sum[p] += bias[c] + correlation(k, above, centre, below, p);
        memcpy(y + c * plane, made, tile.columns * sizeof *y);
    }
}

long grscm_jobs(GrscmShape shape) { return tiles_of(shape.height, shape.width, widest_of(shape.channels)); }

CLONES int grscm_run(GrscmShape shape, const float *x, const float *values, const float *matrix, const float *bias,
                     const float *first, const float *second, float *y, long job) {
    const Tile tile = tile_of(shape.height, shape.width, widest_of(shape.channels), HALO, job);
    const long stride = by_lanes(tile.left + tile.columns + tile.right), apart = by_lanes(tile.columns + 2 * HALO) + LANES;
    const long size = shape.channels * apart;
    float *memory = calloc(6 * size + shape.channels * stride, sizeof *memory);
    if (!memory) return -1;
    float *const v = memory, *const position = v + 3 * size, *const row = position + 3 * size;
    for (int at = tile.y - HALO; at < tile.y + tile.rows + HALO; at++) {
        float *const v_row = row_of(v, size, at), *const position_row = row_of(position, size, at - 1);
        if (at < 0 || at >= shape.height)
            memset(v_row, 0, size * sizeof *v_row);
        else
            make_values(shape, tile, x, values, row, stride, v_row, apart, at);
        if (at < tile.y) continue;
        float *const v_rows[3] = {row_of(v, size, at - 2), row_of(v, size, at - 1), v_row};
        if (at - 1 < 0 || at - 1 >= shape.height)
            memset(position_row, 0, size * sizeof *position_row);
        else
            make_position(shape, tile, v_rows, first, position_row, apart);
        if (at < tile.y + HALO) continue;
        float *const rows[3] = {row_of(position, size, at - 3), row_of(position, size, at - 2), position_row};
        make_result(shape, tile, v_rows[0], rows, apart, matrix, bias, second, row,
                    y + (long)(at - HALO) * shape.width + tile.x);
    }
    free(memory);
    return 0;
}
