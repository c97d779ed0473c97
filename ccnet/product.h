/* A matrix times the pixels of a buffer: what a 1x1 convolution is. */
#include "kernels.h"

#define LANES 8
#define PANEL 2 /* vectors of pixels: four rows of a product with so many stay in registers */

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

/* Four rows of a product with so many vectors of pixels: to[o] = sum over i of w[o][i] from[i]. */
INLINE void multiply(const int vectors, const float *w, int inner, const float *from, float *to, long stride) {
    Vector sums[4][PANEL] = {{{0}}};
    for (int i = 0; i < inner; i++, from += stride)
        for (int v = 0; v < vectors; v++) {
            const Vector x = *(const Vector *)(from + v * LANES);
            for (int o = 0; o < 4; o++) sums[o][v] += w[(long)o * inner + i] * x;
        }
    for (int o = 0; o < 4; o++)
        for (int v = 0; v < vectors; v++) *(Vector *)(to + o * stride + v * LANES) = sums[o][v];
}

/* to (outer, stride) = w (outer, inner) from (inner, stride); outer by 4, stride by LANES. then: done to four rows while
 * they are in cache. */
INLINE void product(const float *w, int outer, int inner, const float *from, float *to, long stride,
                    void (*const then)(float *, long)) {
    for (int o = 0; o < outer; o += 4) {
        const float *rows = w + (long)o * inner;
        float *made = to + o * stride;
        long p = 0;
        for (; p + PANEL * LANES <= stride; p += PANEL * LANES) multiply(PANEL, rows, inner, from + p, made + p, stride);
        for (; p < stride; p += LANES) multiply(1, rows, inner, from + p, made + p, stride);
        if (then) then(made, 4 * stride);
    }
}
