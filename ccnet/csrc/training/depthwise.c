/* A 3x3 of each channel by itself, with GELU before or behind it where that is asked for, and its gradient:
 *
 *     y = gelu(dw3x3(gelu(x)))
 *
 * A plane is done row by row, with the rows that a 3x3 still reads in a ring of three that stays in cache. Nothing is
 * kept for the gradient but x: to do it again is cheaper than to read it from memory.
 *
 * Layout: x, y (B, C, H, W); kernel (C, 3, 3). Planes [first, last) are counted over all images, B * C.
 */
#include <stdlib.h>

#include "common/simd.h"
#include "common/threads.h"

/* Of a plane; a row of a ring has a column more on either side, which is zero. before, behind: whether GELU is. */
typedef struct { int before, behind, height, width; long row; } Shape;

INLINE float *row_of(float *ring, Shape shape, int y) { return ring + (y + 3) % 3 * shape.row; }

/* What the 3x3 reads of a row of x, zero beyond the plane. */
INLINE void activate(float *restrict to, const float *restrict x, Shape shape, int y) {
    if (y < 0 || y >= shape.height) {
        memset(to, 0, shape.row * sizeof *to);
        return;
    }
    x += (long)y * shape.width;
    if (shape.before)
        for (long p = 0; p < shape.width; p++) to[1 + p] = gelu_of(x[p]);
    else
        memcpy(to + 1, x, shape.width * sizeof *to);
}

INLINE void plane_forward(Shape shape, const float *x, const float *kernel, float *restrict y, float *ring) {
    float k[TAPS];
    memcpy(k, kernel, sizeof k);
    activate(row_of(ring, shape, -1), x, shape, -1);
    activate(row_of(ring, shape, 0), x, shape, 0);
    for (int at = 0; at < shape.height; at++, y += shape.width) {
        activate(row_of(ring, shape, at + 1), x, shape, at + 1);
        const float *above = row_of(ring, shape, at - 1), *centre = row_of(ring, shape, at),
                    *below = row_of(ring, shape, at + 1);
        for (long p = 0; p < shape.width; p++) {
            const float made = correlation(k, above, centre, below, p);
            y[p] = shape.behind ? gelu_of(made) : made;
        }
    }
}

/* The gradient of a row of the 3x3's result, zero beyond the plane; each tap's sum grows by what it saw there. */
INLINE void filter_backward(float *restrict to, Shape shape, const float *grad, const float *k, float *ring, int y,
                            double *sums) {
    if (y < 0 || y >= shape.height) {
        memset(to, 0, shape.row * sizeof *to);
        return;
    }
    const float *above = row_of(ring, shape, y - 1), *centre = row_of(ring, shape, y), *below = row_of(ring, shape, y + 1);
    float a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, i = 0;
    for (long p = 0; p < shape.width; p++) {
        float v = grad[(long)y * shape.width + p];
        if (shape.behind) v *= gelu_slope_of(correlation(k, above, centre, below, p));
        to[1 + p] = v;
        a += v * above[p], b += v * above[p + 1], c += v * above[p + 2];
        d += v * centre[p], e += v * centre[p + 1], f += v * centre[p + 2];
        g += v * below[p], h += v * below[p + 1], i += v * below[p + 2];
    }
    sums[0] += a, sums[1] += b, sums[2] += c, sums[3] += d, sums[4] += e, sums[5] += f, sums[6] += g, sums[7] += h;
    sums[8] += i;
}

INLINE void plane_backward(Shape shape, const float *grad, const float *x, const float *kernel, float *restrict gx,
                           float *gk, float *seen, float *grads) {
    float k[TAPS], turned[TAPS];
    double sums[TAPS] = {0};
    memcpy(k, kernel, sizeof k);
    for (int tap = 0; tap < TAPS; tap++) turned[tap] = k[TAPS - 1 - tap];
    for (int at = -1; at <= 1; at++) activate(row_of(seen, shape, at), x, shape, at);
    filter_backward(row_of(grads, shape, -1), shape, grad, k, seen, -1, sums);
    filter_backward(row_of(grads, shape, 0), shape, grad, k, seen, 0, sums);
    for (int at = 0; at < shape.height; at++, x += shape.width, gx += shape.width) {
        activate(row_of(seen, shape, at + 2), x - (long)at * shape.width, shape, at + 2);
        filter_backward(row_of(grads, shape, at + 1), shape, grad, k, seen, at + 1, sums);
        const float *above = row_of(grads, shape, at - 1), *centre = row_of(grads, shape, at),
                    *below = row_of(grads, shape, at + 1);
        for (long p = 0; p < shape.width; p++) {
            const float made = correlation(turned, above, centre, below, p);
            gx[p] = shape.before ? gelu_slope_of(x[p]) * made : made;
        }
    }
    for (int tap = 0; tap < TAPS; tap++) gk[tap] = (float)sums[tap];
}

typedef struct { int64_t before, behind, channels, height, width; const float *x, *kernel; float *y; } Forward;

INLINE int forward(const int before, const int behind, const Forward *given, long first, long last) {
    const Shape shape = {before, behind, (int)given->height, (int)given->width, given->width + 2};
    const long plane = given->height * given->width;
    float *ring = calloc(3 * shape.row, sizeof *ring);
    if (!ring) return 0;
    for (long at = first; at < last; at++)
        plane_forward(shape, given->x + at * plane, given->kernel + at % given->channels * TAPS, given->y + at * plane, ring);
    free(ring);
    return 1;
}

CLONES KERNEL(ccnet_depthwise, Forward) {
    if (given->before) return given->behind ? forward(1, 1, given, first, last) : forward(1, 0, given, first, last);
    return given->behind ? forward(0, 1, given, first, last) : forward(0, 0, given, first, last);
}

/* gk (B, C, 3, 3): a kernel's gradient for every image. */
typedef struct {
    int64_t before, behind, channels, height, width;
    const float *grad, *x, *kernel;
    float *gx, *gk;
} Backward;

INLINE int backward(const int before, const int behind, const Backward *given, long first, long last) {
    const Shape shape = {before, behind, (int)given->height, (int)given->width, given->width + 2};
    const long plane = given->height * given->width;
    float *rings = calloc(6 * shape.row, sizeof *rings);
    if (!rings) return 0;
    for (long at = first; at < last; at++)
        plane_backward(shape, given->grad + at * plane, given->x + at * plane, given->kernel + at % given->channels * TAPS,
                       given->gx + at * plane, given->gk + at * TAPS, rings, rings + 3 * shape.row);
    free(rings);
    return 1;
}

CLONES KERNEL(ccnet_depthwise_backward, Backward) {
    if (given->before) return given->behind ? backward(1, 1, given, first, last) : backward(1, 0, given, first, last);
    return given->behind ? backward(0, 1, given, first, last) : backward(0, 0, given, first, last);
}
