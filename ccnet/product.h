/* A matrix times the pixels of a buffer: what a 1x1 convolution is. */
#include "kernels.h"

#define LANES 8
#define PANEL 2 /* vectors of pixels: four rows of a product with so many stay in registers */

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

/* Four rows of a product with so many vectors of pixels: to[o] = sum over i of w[o][i] from[i]. */
INLINE void multiply(const int vectors, const float *w, int inner, const float *from, long stride, float *to,
                     long apart) {
    Vector sums[4][PANEL] = {{{0}}};
    for (int i = 0; i < inner; i++, from += stride)
        for (int v = 0; v < vectors; v++) {
            const Vector x = *(const Vector *)(from + v * LANES);
            for (int o = 0; o < 4; o++) sums[o][v] += w[(long)o * inner + i] * x;
        }
    for (int o = 0; o < 4; o++)
        for (int v = 0; v < vectors; v++) *(Vector *)(to + o * apart + v * LANES) = sums[o][v];
}

/* to (outer, many) = w (outer, inner) from (inner, many); outer by 4, many and from's stride by LANES. then: done to
 * four rows while they are in cache. */
INLINE void product(const float *w, int outer, int inner, const float *from, long stride, float *to, long apart, long many,
                    void (*const then)(float *, long)) {
    for (int o = 0; o < outer; o += 4) {
        const float *rows = w + (long)o * inner;
        float *made = to + o * apart;
        long p = 0;
        for (; p + PANEL * LANES <= many; p += PANEL * LANES)
            multiply(PANEL, rows, inner, from + p, stride, made + p, apart);
        for (; p < many; p += LANES) multiply(1, rows, inner, from + p, stride, made + p, apart);
        for (int row = 0; then && row < 4; row++) then(made + row * apart, many);
    }
}

INLINE long by_lanes(long count) { return (count + LANES - 1) / LANES * LANES; }
