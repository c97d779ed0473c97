/* A 3x3 of each channel by itself, optionally with GELU at its input and output, and its gradient:
 *
 *     y = gelu(dw3x3(gelu(x)))
 *
 * A plane is computed row by row, with the rows that a 3x3 reads in a ring that stays in cache. Only x is kept for the
 * gradient: to compute the rest again is cheaper than to read it from memory.
 *
 * Layout: x, y (B, C, H, W); filters (C, 3, 3). Planes [first, last) are counted over all images, B * C.
 */
#include <stdlib.h>

#include "common/activations.h"
#include "common/conv3x3.h"
#include "common/kernel.h"

/* row: the size of a ring's row, which has one more column on either side, at zero. */
typedef struct { int gelu_input, gelu_output, height, width; long row; } Shape;

/* Write row y of the 3x3's input into the ring, zero beyond the plane. */
INLINE void load_row(float *ring, const float *restrict x, Shape shape, int y) {
    float *restrict to = ring_row(ring, shape.row, y);
    if (y < 0 || y >= shape.height) {
        memset(to, 0, shape.row * sizeof *to);
        return;
    }
    x += (long)y * shape.width;
    if (shape.gelu_input)
        for (long p = 0; p < shape.width; p++) to[1 + p] = gelu_of(x[p]);
    else
        memcpy(to + 1, x, shape.width * sizeof *to);
}

INLINE void plane_forward(Shape shape, const float *x, const float *filter, float *restrict y, float *ring) {
    float k[TAPS];
    memcpy(k, filter, sizeof k);
    load_row(ring, x, shape, -1);
    load_row(ring, x, shape, 0);
    for (int row = 0; row < shape.height; row++, y += shape.width) {
        load_row(ring, x, shape, row + 1);
        const Rows rows = rows_around(ring, shape.row, row);
        for (long p = 0; p < shape.width; p++) {
            const float sum = correlation(k, rows.above, rows.centre, rows.below, p);
            y[p] = shape.gelu_output ? gelu_of(sum) : sum;
        }
    }
}

/* Write row y of the gradient of the 3x3's result, zero beyond the plane; add this row's share to sums, the filter's
 * gradient. to: the row's place in a ring; inputs: the ring of the 3x3's input. */
INLINE void row_backward(float *restrict to, Shape shape, const float *grad, const float *k, float *inputs, int y,
                         double *sums) {
    if (y < 0 || y >= shape.height) {
        memset(to, 0, shape.row * sizeof *to);
        return;
    }
    const Rows rows = rows_around(inputs, shape.row, y);
    const float *above = rows.above, *centre = rows.centre, *below = rows.below;
    float a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, i = 0;
    for (long p = 0; p < shape.width; p++) {
        float v = grad[(long)y * shape.width + p];
        if (shape.gelu_output) v *= gelu_slope_of(correlation(k, above, centre, below, p));
        to[1 + p] = v;
        a += v * above[p], b += v * above[p + 1], c += v * above[p + 2];
        d += v * centre[p], e += v * centre[p + 1], f += v * centre[p + 2];
        g += v * below[p], h += v * below[p + 1], i += v * below[p + 2];
    }
    sums[0] += a, sums[1] += b, sums[2] += c, sums[3] += d, sums[4] += e, sums[5] += f, sums[6] += g, sums[7] += h;
    sums[8] += i;
}

/* inputs, grads: rings. */
INLINE void plane_backward(Shape shape, const float *grad, const float *x, const float *filter, float *restrict g_x,
                           float *g_filter, float *inputs, float *grads) {
    float k[TAPS], turned[TAPS];
    double sums[TAPS] = {0};
    memcpy(k, filter, sizeof k);
    for (int tap = 0; tap < TAPS; tap++) turned[tap] = k[TAPS - 1 - tap];
    for (int row = -1; row <= 1; row++) load_row(inputs, x, shape, row);
    for (int row = -1; row <= 0; row++)
        row_backward(ring_row(grads, shape.row, row), shape, grad, k, inputs, row, sums);
    const float *x_row = x;
    for (int row = 0; row < shape.height; row++, x_row += shape.width, g_x += shape.width) {
        load_row(inputs, x, shape, row + 2);
        row_backward(ring_row(grads, shape.row, row + 1), shape, grad, k, inputs, row + 1, sums);
        const Rows rows = rows_around(grads, shape.row, row);
        for (long p = 0; p < shape.width; p++) {
            const float sum = correlation(turned, rows.above, rows.centre, rows.below, p);
            g_x[p] = shape.gelu_input ? gelu_slope_of(x_row[p]) * sum : sum;
        }
    }
    for (int tap = 0; tap < TAPS; tap++) g_filter[tap] = (float)sums[tap];
}

typedef struct {
    int64_t gelu_input, gelu_output, channels, height, width;
    const float *x, *filters;
    float *y;
} ForwardArgs;

INLINE int forward(const int gelu_input, const int gelu_output, const ForwardArgs *args, long first, long last) {
    const Shape shape = {gelu_input, gelu_output, (int)args->height, (int)args->width, args->width + 2};
    const long plane = args->height * args->width;
    float *ring = calloc(RING_ROWS * shape.row, sizeof *ring);
    if (!ring) return OUT_OF_MEMORY;
    for (long index = first; index < last; index++)
        plane_forward(shape, args->x + index * plane, args->filters + index % args->channels * TAPS,
                      args->y + index * plane, ring);
    free(ring);
    return 0;
}

CLONES KERNEL(ccnet_depthwise, ForwardArgs) {
    if (args->gelu_input)
        return args->gelu_output ? forward(1, 1, args, first, last) : forward(1, 0, args, first, last);
    return args->gelu_output ? forward(0, 1, args, first, last) : forward(0, 0, args, first, last);
}

/* g_filters (B, C, 3, 3): the gradient of the filters for each image. */
typedef struct {
    int64_t gelu_input, gelu_output, channels, height, width;
    const float *grad, *x, *filters;
    float *g_x, *g_filters;
} BackwardArgs;

INLINE int backward(const int gelu_input, const int gelu_output, const BackwardArgs *args, long first, long last) {
    const Shape shape = {gelu_input, gelu_output, (int)args->height, (int)args->width, args->width + 2};
    const long plane = args->height * args->width;
    float *rings = calloc(2 * RING_ROWS * shape.row, sizeof *rings);
    if (!rings) return OUT_OF_MEMORY;
    for (long index = first; index < last; index++)
        plane_backward(shape, args->grad + index * plane, args->x + index * plane,
                       args->filters + index % args->channels * TAPS, args->g_x + index * plane,
                       args->g_filters + index * TAPS, rings, rings + RING_ROWS * shape.row);
    free(rings);
    return 0;
}

CLONES KERNEL(ccnet_depthwise_backward, BackwardArgs) {
    if (args->gelu_input)
        return args->gelu_output ? backward(1, 1, args, first, last) : backward(1, 0, args, first, last);
    return args->gelu_output ? backward(0, 1, args, first, last) : backward(0, 0, args, first, last);
}
