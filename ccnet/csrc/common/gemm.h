/* Matrix products with the pixels of a buffer, which is what a 1x1 convolution computes. */
#pragma once

#include "common/simd.h"

#define LANES 8       /* buffers are padded to multiples of this many pixels */
#define OUTPUT_ROWS 4 /* rows of a product that are computed together; output channels are multiples of it */

INLINE long round_up_to_lanes(long count) { return (count + LANES - 1) / LANES * LANES; }

/* Define functions that compute four rows of a product, to[o] = sum over i of w[o][i] from[i], in vectors of `lanes`
 * floats. panel: vectors of pixels whose sums stay in registers together.
 *
 * multiply_N computes `vectors` vectors of pixels. rows_N computes pixels [p, count) as far as whole vectors go and
 * returns the first pixel that is left over. */
#define ROWS_OF_PRODUCT(lanes, panel) \
    typedef float Vector##lanes \
        __attribute__((vector_size(lanes * sizeof(float)), aligned(sizeof(float)), may_alias)); \
    \
    INLINE void multiply_##lanes(const int vectors, const float *w, int inner, const float *from, long from_stride, \
                                 float *to, long to_stride) { \
        Vector##lanes sums[OUTPUT_ROWS][panel] = {{{0}}}; \
        for (int i = 0; i < inner; i++, from += from_stride) \
            for (int v = 0; v < vectors; v++) { \
                const Vector##lanes x = *(const Vector##lanes *)(from + v * lanes); \
                for (int o = 0; o < OUTPUT_ROWS; o++) sums[o][v] += w[(long)o * inner + i] * x; \
            } \
        for (int o = 0; o < OUTPUT_ROWS; o++) \
            for (int v = 0; v < vectors; v++) *(Vector##lanes *)(to + o * to_stride + v * lanes) = sums[o][v]; \
    } \
    \
    INLINE long rows_##lanes(const float *w, int inner, const float *from, long from_stride, float *to, \
                             long to_stride, long p, long count) { \
        for (; p + panel * lanes <= count; p += panel * lanes) \
            multiply_##lanes(panel, w, inner, from + p, from_stride, to + p, to_stride); \
        for (; p + lanes <= count; p += lanes) \
            multiply_##lanes(1, w, inner, from + p, from_stride, to + p, to_stride); \
        return p; \
    }
ROWS_OF_PRODUCT(16, 2)
ROWS_OF_PRODUCT(8, 2)
ROWS_OF_PRODUCT(4, 4)

/* to (outer, count) = w (outer, inner) from (inner, count). outer is a multiple of OUTPUT_ROWS; count and from_stride
 * are multiples of LANES. then: null, or a function that is applied to each row while it is in cache. */
INLINE void multiply(const float *w, int outer, int inner, const float *from, long from_stride, float *to,
                     long to_stride, long count, void (*const then)(float *, long)) {
    const int lanes = REGISTER;
    for (int o = 0; o < outer; o += OUTPUT_ROWS, w += (long)OUTPUT_ROWS * inner, to += OUTPUT_ROWS * to_stride) {
        long p = 0;
        if (lanes == 16) p = rows_16(w, inner, from, from_stride, to, to_stride, p, count);
        if (lanes >= 8) p = rows_8(w, inner, from, from_stride, to, to_stride, p, count);
        rows_4(w, inner, from, from_stride, to, to_stride, p, count);
        for (int row = 0; then && row < OUTPUT_ROWS; row++) then(to + row * to_stride, count);
    }
}
