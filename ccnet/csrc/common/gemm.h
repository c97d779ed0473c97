/* Matrix products with the pixels of a buffer, which is what a 1x1 convolution computes. */
#pragma once

#include "common/simd.h"

#define LANES 8       /* buffers are padded to multiples of this many pixels */
#define OUTPUT_ROWS 4 /* rows of a product that are computed together; output channels are multiples of it */

INLINE long round_up_to_lanes(long count) { return (count + LANES - 1) / LANES * LANES; }

#define VECTOR(lanes) \
    typedef float Vector##lanes \
        __attribute__((vector_size(lanes * sizeof(float)), aligned(sizeof(float)), may_alias));

/* Define functions that compute some rows of a product, to[o] = sum over i of w[o][i] from[i], in vectors of `lanes`
 * floats. panel: vectors of pixels whose sums stay in registers together.
 *
 * multiply_<rows>x<lanes> computes `vectors` vectors of pixels. rows_<rows>x<lanes> computes pixels [p, count) as far as
 * whole vectors go and returns the first pixel that is left over. */
#define ROWS_OF_PRODUCT(rows, lanes, panel) \
    INLINE void multiply_##rows##x##lanes(const int vectors, const float *w, int inner, const float *from, \
                                          long from_stride, float *to, long to_stride) { \
        Vector##lanes sums[rows][panel] = {{{0}}}; \
        for (int i = 0; i < inner; i++, from += from_stride) { \
            Vector##lanes x[panel]; \
            for (int v = 0; v < vectors; v++) x[v] = *(const Vector##lanes *)(from + v * lanes); \
            for (int o = 0; o < rows; o++) \
                for (int v = 0; v < vectors; v++) sums[o][v] += w[(long)o * inner + i] * x[v]; \
        } \
        for (int o = 0; o < rows; o++) \
            for (int v = 0; v < vectors; v++) *(Vector##lanes *)(to + o * to_stride + v * lanes) = sums[o][v]; \
    } \
    \
    INLINE long rows_##rows##x##lanes(const float *w, int inner, const float *from, long from_stride, float *to, \
                                      long to_stride, long p, long count) { \
        for (; p + panel * lanes <= count; p += panel * lanes) \
            multiply_##rows##x##lanes(panel, w, inner, from + p, from_stride, to + p, to_stride); \
        for (; p + lanes <= count; p += lanes) \
            multiply_##rows##x##lanes(1, w, inner, from + p, from_stride, to + p, to_stride); \
        return p; \
    }
VECTOR(16)
VECTOR(8)
VECTOR(4)
ROWS_OF_PRODUCT(8, 16, 2)
ROWS_OF_PRODUCT(8, 8, 2)
ROWS_OF_PRODUCT(4, 16, 2)
ROWS_OF_PRODUCT(4, 8, 2)
ROWS_OF_PRODUCT(4, 4, 4)

/* to (outer, count) = w (outer, inner) from (inner, count). outer is a multiple of OUTPUT_ROWS; count and from_stride
 * are multiples of LANES. then: null, or a function that is applied to each row while it is in cache. */
INLINE void multiply(const float *w, int outer, int inner, const float *from, long from_stride, float *to,
                     long to_stride, long count, void (*const then)(float *, long)) {
    const int lanes = REGISTER;
    for (int o = 0, rows; o < outer; o += rows, w += (long)rows * inner, to += rows * to_stride) {
        long p = 0;
        rows = lanes == 16 && outer - o >= 8 ? 8 : OUTPUT_ROWS;
        if (rows == 8) {
            p = rows_8x16(w, inner, from, from_stride, to, to_stride, p, count);
            p = rows_8x8(w, inner, from, from_stride, to, to_stride, p, count);
        } else {
            if (lanes == 16) p = rows_4x16(w, inner, from, from_stride, to, to_stride, p, count);
            if (lanes >= 8) p = rows_4x8(w, inner, from, from_stride, to, to_stride, p, count);
            rows_4x4(w, inner, from, from_stride, to, to_stride, p, count);
        }
        for (int row = 0; then && row < rows; row++) then(to + row * to_stride, count);
    }
}
