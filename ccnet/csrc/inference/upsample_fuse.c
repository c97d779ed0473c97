/* The U-Net's step from a coarser to a finer scale, fuse(concat(up(below), beside)), which is linear, in one pass:
 *
 *     y = U below + S beside + b
 *
 * U is the up-convolution (2x2, stride 2) followed by the first half of the 1x1 convolution, S the 1x1's second half.
 *
 * Layout: beside, y (C, 2H, 2W); below (I, H, W); U (row, column, C, I) of the 2x2; S (C, C); b (C).
 */
#include <stdlib.h>
#include <string.h>

#include "common/gemm.h"
#include "common/tiles.h"
#include "inference/operators.h"

/* Copy `count` pixels of a row of all channels side by side. */
INLINE void gather(int channels, long plane, const float *from, float *to, long stride, long count) {
    for (int c = 0; c < channels; c++, from += plane, to += stride) memcpy(to, from, count * sizeof *to);
}

/* y = beside + bias + the even and the odd columns in turn. */
INLINE void interleave(const float *restrict beside, const float *restrict even, const float *restrict odd, float bias,
                       float *restrict y, long count) {
    for (long p = 0; p < count; p++) {
        y[2 * p] = beside[2 * p] + even[p] + bias;
        y[2 * p + 1] = beside[2 * p + 1] + odd[p] + bias;
    }
}

INLINE int max_columns(UpsampleFuseShape shape) {
    return max_columns_for(shape.inner > shape.channels ? shape.inner : shape.channels);
}

long upsample_fuse_jobs(UpsampleFuseShape shape) { return num_tiles(shape.height, shape.width, max_columns(shape)); }

CLONES int upsample_fuse_run(UpsampleFuseShape shape, const float *beside, const float *below, const float *up,
                             const float *skip, const float *bias, float *y, long job) {
    const Tile tile = tile_at(shape.height, shape.width, max_columns(shape), 0, job);
    const int C = shape.channels, I = shape.inner;
    const long plane = (long)shape.height * shape.width, matrix = (long)C * I;
    const long stride = round_up_to_lanes(tile.columns);
    float *buffer = calloc((I + 6l * C) * stride, sizeof *buffer);
    if (!buffer) return OUT_OF_MEMORY;
    float *const low = buffer, *const even = low + I * stride, *const odd = even + C * stride;
    float *const high = odd + C * stride, *const skipped = high + 2 * C * stride;
    for (int row = tile.y; row < tile.y + tile.rows; row++) {
        gather(I, plane, below + (long)row * shape.width + tile.x, low, stride, tile.columns);
        for (int half = 0; half < 2; half++) {
            const long start = 2 * ((2l * row + half) * shape.width + tile.x);
            multiply(up + 2 * half * matrix, C, I, low, stride, even, stride, stride, 0);
            multiply(up + (2 * half + 1) * matrix, C, I, low, stride, odd, stride, stride, 0);
            gather(C, 4 * plane, beside + start, high, 2 * stride, 2l * tile.columns);
            multiply(skip, C, C, high, 2 * stride, skipped, 2 * stride, 2 * stride, 0);
            for (int c = 0; c < C; c++)
                interleave(skipped + 2 * c * stride, even + c * stride, odd + c * stride, bias[c],
                           y + 4 * c * plane + start, tile.columns);
        }
    }
    free(buffer);
    return 0;
}
