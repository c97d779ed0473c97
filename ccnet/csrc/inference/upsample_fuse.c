/* Where the U-Net comes back from a coarser scale: fuse(concat(up(below), beside)), which is linear, in one pass:
 *
 *     y = U below + S beside + b
 *
 * U is the up-convolution (2x2, stride 2) with the 1x1 behind it, S the 1x1's other half.
 *
 * Layout: beside, y (C, 2H, 2W); below (I, H, W); U (row, column, C, I) of the 2x2; S (C, C); b (C).
 */
#include <stdlib.h>

#include "inference/operators.h"
#include "common/gemm.h"
#include "common/tiles.h"

/* So many pixels of a row of all channels side by side. */
INLINE void gather(int channels, long plane, const float *from, float *to, long stride, long count) {
    for (int c = 0; c < channels; c++, from += plane, to += stride) memcpy(to, from, count * sizeof *to);
}

/* y = beside + even and odd columns in turn + b. */
INLINE void weave(const float *restrict beside, const float *restrict even, const float *restrict odd, float bias,
                  float *restrict y, long count) {
    for (long p = 0; p < count; p++) {
        y[2 * p] = beside[2 * p] + even[p] + bias;
        y[2 * p + 1] = beside[2 * p + 1] + odd[p] + bias;
    }
}

INLINE int widest(JoinShape shape) { return widest_of(shape.inner > shape.channels ? shape.inner : shape.channels); }

long join_jobs(JoinShape shape) { return tiles_of(shape.height, shape.width, widest(shape)); }

CLONES int join_run(JoinShape shape, const float *beside, const float *below, const float *up, const float *skip,
                    const float *bias, float *y, long job) {
    const Tile tile = tile_of(shape.height, shape.width, widest(shape), 0, job);
    const int C = shape.channels, I = shape.inner;
    const long plane = (long)shape.height * shape.width, taps = (long)C * I, stride = by_lanes(tile.columns);
    float *memory = calloc((I + 6l * C) * stride, sizeof *memory);
    if (!memory) return -1;
    float *const low = memory, *const even = low + I * stride, *const odd = even + C * stride;
    float *const seen = odd + C * stride, *const made = seen + 2 * C * stride;
    for (int row = tile.y; row < tile.y + tile.rows; row++) {
        gather(I, plane, below + (long)row * shape.width + tile.x, low, stride, tile.columns);
        for (int half = 0; half < 2; half++) {
            const long at = 2 * ((2l * row + half) * shape.width + tile.x);
            product(up + 2 * half * taps, C, I, low, stride, even, stride, stride, 0);
            product(up + (2 * half + 1) * taps, C, I, low, stride, odd, stride, stride, 0);
            gather(C, 4 * plane, beside + at, seen, 2 * stride, 2l * tile.columns);
            product(skip, C, C, seen, 2 * stride, made, 2 * stride, 2 * stride, 0);
            for (int c = 0; c < C; c++)
                weave(made + 2 * c * stride, even + c * stride, odd + c * stride, bias[c], y + 4 * c * plane + at,
                      tile.columns);
        }
    }
    free(memory);
    return 0;
}
