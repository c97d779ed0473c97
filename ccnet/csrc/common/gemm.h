/* A matrix times the pixels of a buffer: what a 1x1 convolution is. */
#include "common/simd.h"

#define LANES 8 /* buffers are padded to so many pixels */

/* Four rows of a product, to[o] = sum over i of w[o][i] from[i], for as many of the pixels as whole vectors have. panel:
 * vectors of pixels whose sums stay in registers together. Gives where it ended. */
#define ROWS_OF_PRODUCT(lanes, panel)                                                                                  \
    typedef float Vector##lanes __attribute__((vector_size(lanes * sizeof(float)), aligned(sizeof(float)), may_alias)); \
                                                                                                                       \
    INLINE void multiply_##lanes(const int vectors, const float *w, int inner, const float *from, long stride,         \
                                 float *to, long apart) {                                                              \
        Vector##lanes sums[4][panel] = {{{0}}};                                                                        \
        for (int i = 0; i < inner; i++, from += stride)                                                                \
            for (int v = 0; v < vectors; v++) {                                                                        \
                const Vector##lanes x = *(const Vector##lanes *)(from + v * lanes);                                    \
                for (int o = 0; o < 4; o++) sums[o][v] += w[(long)o * inner + i] * x;                                  \
            }                                                                                                          \
        for (int o = 0; o < 4; o++)                                                                                    \
            for (int v = 0; v < vectors; v++) *(Vector##lanes *)(to + o * apart + v * lanes) = sums[o][v];             \
    }                                                                                                                  \
                                                                                                                       \
    INLINE long rows_##lanes(const float *w, int inner, const float *from, long stride, float *to, long apart, long p, \
                             long many) {                                                                              \
        for (; p + panel * lanes <= many; p += panel * lanes)                                                          \
            multiply_##lanes(panel, w, inner, from + p, stride, to + p, apart);                                        \
        for (; p + lanes <= many; p += lanes) multiply_##lanes(1, w, inner, from + p, stride, to + p, apart);          \
        return p;                                                                                                      \
    }
ROWS_OF_PRODUCT(16, 2)
ROWS_OF_PRODUCT(8, 2)
ROWS_OF_PRODUCT(4, 4)

/* to (outer, many) = w (outer, inner) from (inner, many); outer by 4, many and from's stride by LANES. then: done to
 * four rows while they are in cache. */
INLINE void product(const float *w, int outer, int inner, const float *from, long stride, float *to, long apart, long many,
                    void (*const then)(float *, long)) {
    const int lanes = REGISTER;
    for (int o = 0; o < outer; o += 4, w += 4l * inner, to += 4 * apart) {
        long p = 0;
        if (lanes == 16) p = rows_16(w, inner, from, stride, to, apart, p, many);
        if (lanes >= 8) p = rows_8(w, inner, from, stride, to, apart, p, many);
        rows_4(w, inner, from, stride, to, apart, p, many);
        for (int row = 0; then && row < 4; row++) then(to + row * apart, many);
    }
}

INLINE long by_lanes(long count) { return (count + LANES - 1) / LANES * LANES; }
