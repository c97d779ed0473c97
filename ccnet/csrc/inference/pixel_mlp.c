/* The per-pixel base (ccnet/model/base.py) and its sum with a cube, in one pass:
 *
 *     y = cube + D relu(C relu(B relu(A rgb)))
 *
 * A job is a block of pixels, whose hidden features stay in cache: the image's would take more memory than the cube.
 *
 * Layout: cube, y (bands, H, W); rgb (3, H, W); A (hidden, 3); B, C (hidden, hidden); D (bands, hidden).
 */
#include <stdlib.h>
#include <string.h>

#include "common/blocks.h"
#include "common/gemm.h"
#include "inference/operators.h"

#define BLOCK_PIXELS 256 /* a multiple of LANES */

/* NaN stays NaN. */
INLINE void relu(float *x, long count) {
    for (long p = 0; p < count; p++) x[p] = x[p] < 0.f ? 0.f : x[p];
}

/* The product with any number of rows from OUTPUT_ROWS on: the last ones overlap those before them, if need be. */
INLINE void multiply_rows(const float *w, int outer, int inner, const float *from, float *to, long stride) {
    const int rest = outer % OUTPUT_ROWS, last = outer - OUTPUT_ROWS;
    multiply(w, outer - rest, inner, from, stride, to, stride, stride, 0);
    if (rest)
        multiply(w + (long)last * inner, OUTPUT_ROWS, inner, from, stride, to + last * stride, stride, stride, 0);
}

static long plane_of(PixelMlpShape shape) { return (long)shape.height * shape.width; }

long pixel_mlp_jobs(PixelMlpShape shape) { return (plane_of(shape) + BLOCK_PIXELS - 1) / BLOCK_PIXELS; }

CLONES int pixel_mlp_run(PixelMlpShape shape, const float *cube, const float *rgb, const float *first,
                         const float *second, const float *third, const float *last, float *y, long job) {
    const long plane = plane_of(shape);
    const Block block = block_of(plane, BLOCK_PIXELS, job);
    const int hidden = shape.hidden, bands = shape.bands, widest = bands > hidden ? bands : hidden;
    const long count = block.count, stride = round_up_to_lanes(count);
    float *const buffer = malloc(2l * widest * stride * sizeof *buffer);
    if (!buffer) return OUT_OF_MEMORY;
    float *const even = buffer, *const odd = even + widest * stride; /* what an even or odd number of products leaves */
    for (int c = 0; c < RGB_CHANNELS; c++) {
        memcpy(even + c * stride, rgb + c * plane + block.start, count * sizeof *even);
        memset(even + c * stride + count, 0, (stride - count) * sizeof *even);
    }
    multiply(first, hidden, RGB_CHANNELS, even, stride, odd, stride, stride, relu);
    multiply(second, hidden, hidden, odd, stride, even, stride, stride, relu);
    multiply(third, hidden, hidden, even, stride, odd, stride, stride, relu);
    multiply_rows(last, bands, hidden, odd, even, stride);
    for (int band = 0; band < bands; band++) {
        const long start = band * plane + block.start;
        for (long p = 0; p < count; p++) y[start + p] = cube[start + p] + even[band * stride + p];
    }
    free(buffer);
    return 0;
}
