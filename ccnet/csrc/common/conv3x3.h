/* 3x3 filters over rows of pixels, and the ring buffer that keeps the three rows that a 3x3 reads. */
#pragma once
#include <string.h>

#include "common/activations.h"
#include "common/simd.h"

#define TAPS 9
#define RING_ROWS 3

/* Return the place of image row y in a ring of RING_ROWS rows of `size` numbers; y >= -6. */
INLINE float *ring_row(float *ring, long size, int y) { return ring + (y + 2 * RING_ROWS) % RING_ROWS * size; }

/* The three rows that a 3x3 reads. */
typedef struct { const float *above, *centre, *below; } Rows;

/* Return the rows y - 1, y and y + 1 of a ring; y >= -5. */
INLINE Rows rows_around(float *ring, long size, int y) {
    return (Rows){ring_row(ring, size, y - 1), ring_row(ring, size, y), ring_row(ring, size, y + 1)};
}

/* Return the rows from `offset` on. */
INLINE Rows rows_from(Rows rows, long offset) {
    return (Rows){rows.above + offset, rows.centre + offset, rows.below + offset};
}

/* The 3x3 correlation of columns p, p + 1 and p + 2 of three rows with the filter k. */
INLINE float correlation(const float *k, const float *above, const float *centre, const float *below, long p) {
    return k[0] * above[p] + k[1] * above[p + 1] + k[2] * above[p + 2] + k[3] * centre[p] + k[4] * centre[p + 1] +
           k[5] * centre[p + 2] + k[6] * below[p] + k[7] * below[p + 1] + k[8] * below[p + 2];
}

/* Filter each channel of `count` pixels by its own 3x3, then apply gelu. rows: channels `row_stride` apart, beginning
 * one column before the first pixel; filters (channels, 9). */
INLINE void depthwise_gelu(int channels, Rows rows, long row_stride, const float *filters, float *to, long to_stride,
                           long count) {
    for (int c = 0; c < channels; c++, filters += TAPS, to += to_stride) {
        const Rows from = rows_from(rows, c * row_stride);
        float *restrict y = to, k[TAPS];
        memcpy(k, filters, sizeof k);
        for (long p = 0; p < count; p++) y[p] = gelu_of(correlation(k, from.above, from.centre, from.below, p));
    }
}
