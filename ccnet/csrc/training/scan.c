/* NeSCM's recurrence for training (ccnet/ops/scan.py holds the equations), fused over the bands of a block of pixels.
 *
 * Every pixel is a recurrence of its own, so a block of BLOCK pixels stays in cache through all bands and all four
 * streams: x is read from memory once, u is written once. The backward pass computes the memory again instead of
 * storing it. The inner loops run over pixels; the compiler vectorises them.
 *
 * Letters: s gate (Eq. 5), m memory (Eq. 6), u = tanh(m) + x, the result; g_ before a name is the gradient to it.
 * Layout: x (B, n, T, plane), u (B, 4, n, T, plane), streams ordered as in scan.py. Blocks [first, last) are counted
 * over all images.
 */
#include "common/blocks.h"
#include "common/recurrence.h"
#include "common/kernel.h"

#define BLOCK 128 /* pixels */

LIMIT(scan_block, BLOCK);
LIMIT(heads, 1, 2, 4);
LIMIT(max_bands, MAX_BANDS);

typedef struct { int heads, bands; long plane; } Shape;
typedef float Pixels[BLOCK];

/* Copy pixels, zero after the last. */
INLINE void load(float *restrict to, const float *restrict from, int count) {
    for (int p = 0; p < BLOCK; p++) to[p] = p < count ? from[p] : 0.f;
}

/* Fetch the next band early: bands lie too far apart for the processor to predict them. */
INLINE void prefetch(const float *from, int count) {
    for (int p = 0; p < count; p += 16) __builtin_prefetch(from + p);
}

/* Read all heads of a band, zero for band -1. */
INLINE void load_band(const int n, Shape shape, const float *x, int band, long start, int count, Pixels *to) {
    for (int i = 0; i < n; i++)
        load(to[i], x + ((long)i * shape.bands + (band < 0 ? 0 : band)) * shape.plane + start, band < 0 ? 0 : count);
}

/* One step of Eq. 5 and 6 on a block. */
INLINE void step(const int n, const float *w, const float *b, const Pixels *x, Pixels *m, Pixels *s) {
    const float *rows[MAX_HEADS];
    for (int i = 0; i < n; i++) rows[i] = x[i];
    recurrence_step(n, w, b, rows, m[0], s[0], BLOCK, 0, BLOCK);
}

INLINE void forward_block(const int n, Shape shape, const float *x, const float *w, const float *b, float *u,
                          long start, int count) {
    const int T = shape.bands;
    for (int stream = 0; stream < STREAMS; stream++) {
        const int direction = stream / 2, lead = stream % 2;
        Pixels m[MAX_HEADS] = {{0}}, s[MAX_HEADS], x_t[MAX_HEADS];
        for (int t = 0; t < T; t++) {
            const int band = band_of(T, direction, lead, t), centre = band_of(T, direction, 0, t);
            load_band(n, shape, x, band, start, count, x_t);
            step(n, w + direction * 2 * n * n, b + direction * n, x_t, m, s);
            for (int i = 0; i < n; i++) {
                float *restrict to = u + (((long)stream * n + i) * T + centre) * shape.plane + start;
                if (count == BLOCK)
                    for (int p = 0; p < BLOCK; p++) to[p] = tanh_of(m[i][p]) + x_t[i][p];
                else
                    for (int p = 0; p < count; p++) to[p] = tanh_of(m[i][p]) + x_t[i][p];
            }
        }
    }
}

/* All steps of a stream of a block: x_t, s_t, and m_t from m_0 = 0 on. */
typedef struct { Pixels x[MAX_BANDS][MAX_HEADS], s[MAX_BANDS][MAX_HEADS], m[MAX_BANDS + 1][MAX_HEADS]; } Steps;

/* Compute all steps of a stream again. */
INLINE void run_stream(const int n, Shape shape, const float *x, const float *w, const float *b, int direction,
                       int lead, long start, int count, Steps *steps) {
    for (int i = 0; i < n; i++)
        for (int p = 0; p < BLOCK; p++) steps->m[0][i][p] = 0.f;
    for (int t = 0; t < shape.bands; t++) {
        load_band(n, shape, x, band_of(shape.bands, direction, lead, t), start, count, steps->x[t]);
        for (int i = 0; i < n; i++)
            for (int p = 0; p < BLOCK; p++) steps->m[t + 1][i][p] = steps->m[t][i][p];
        step(n, w, b, steps->x[t], steps->m[t + 1], steps->s[t]);
    }
}

/* Gradients of a stream of a block: of the memory, of the gate's sum g and of x at a step, and sums over the steps for
 * [W_m | W_x] and b, for each pixel. */
typedef struct { Pixels m[MAX_HEADS], g[MAX_HEADS], x[MAX_HEADS], w[MAX_HEADS][2 * MAX_HEADS], b[MAX_HEADS]; } Grads;

/* Eq. 6 and tanh backwards, for one head at a step; g_u: the gradient of u. */
INLINE void memory_backward(const float *g_u, const float *x, const float *s, const float *previous, const float *m,
                            float *g_m, float *g, float *g_x) {
    for (int p = 0; p < BLOCK; p++) {
        const float tanh_m = tanh_of(m[p]);
        const float d = g_m[p] + g_u[p] * (1.f - tanh_m * tanh_m);
        g[p] = d * (previous[p] - x[p]) * s[p] * (1.f - s[p]);
        g_x[p] = g_u[p] + d * (1.f - s[p]);
        g_m[p] = d * s[p];
    }
}

/* Eq. 5 backwards, for all heads at a step; g: the gradient of the gate's sum. g_w, g_b: sums over the steps. */
INLINE void gate_backward(const int n, const float *w, const Pixels *x, const Pixels *previous,
                          const Pixels *restrict g, Pixels *restrict g_m, Pixels *restrict g_x,
                          Pixels (*restrict g_w)[2 * MAX_HEADS], Pixels *restrict g_b) {
    for (int o = 0; o < n; o++) {
        for (int p = 0; p < BLOCK; p++) g_b[o][p] += g[o][p];
        for (int i = 0; i < n; i++)
            for (int p = 0; p < BLOCK; p++) {
                g_m[i][p] += w[o * 2 * n + i] * g[o][p];
                g_x[i][p] += w[o * 2 * n + n + i] * g[o][p];
                g_w[o][i][p] += g[o][p] * previous[i][p];
                g_w[o][n + i][p] += g[o][p] * x[i][p];
            }
    }
}

/* g_x must start at zero; g_w (2, n, 2n) and g_b (2, n) are added to. */
INLINE void backward_block(const int n, Shape shape, const float *x, const float *w, const float *b, const float *g_u,
                           float *g_x, double *g_w, double *g_b, long start, int count) {
    const int T = shape.bands;
    static _Thread_local Steps steps;
    for (int stream = 0; stream < STREAMS; stream++) {
        const int direction = stream / 2, lead = stream % 2;
        const float *w_d = w + direction * 2 * n * n;
        const long to_previous_step = direction ? shape.plane : -shape.plane; /* in floats */
        run_stream(n, shape, x, w_d, b + direction * n, direction, lead, start, count, &steps);
        Grads grads;
        memset(&grads, 0, sizeof grads);
        for (int t = T - 1; t >= 0; t--) {
            const int band = band_of(T, direction, lead, t), centre = band_of(T, direction, 0, t);
            for (int i = 0; i < n; i++) {
                const float *from = g_u + (((long)stream * n + i) * T + centre) * shape.plane + start;
                Pixels g_u_t;
                load(g_u_t, from, count);
                if (t) prefetch(from + to_previous_step, count);
                memory_backward(g_u_t, steps.x[t][i], steps.s[t][i], steps.m[t][i], steps.m[t + 1][i], grads.m[i],
                                grads.g[i], grads.x[i]);
            }
            gate_backward(n, w_d, steps.x[t], steps.m[t], grads.g, grads.m, grads.x, grads.w, grads.b);
            for (int i = 0; i < n && band >= 0; i++) {
                float *restrict to = g_x + ((long)i * T + band) * shape.plane + start;
                for (int p = 0; p < count; p++) to[p] += grads.x[i][p];
            }
        }
        /* Pixels beyond the plane have x = 0 and no gradient from above: they add nothing. */
        for (int o = 0; o < n; o++) {
            for (int p = 0; p < BLOCK; p++) g_b[direction * n + o] += grads.b[o][p];
            for (int i = 0; i < 2 * n; i++)
                for (int p = 0; p < BLOCK; p++) g_w[(direction * n + o) * 2 * n + i] += grads.w[o][i][p];
        }
    }
}

/* heads: 1, 2 or 4; bands: at most MAX_BANDS. */
typedef struct { int64_t heads, bands, plane; const float *x, *w, *b; float *u; } ForwardArgs;

CLONES KERNEL(ccnet_scan, ForwardArgs) {
    const Shape shape = {(int)args->heads, (int)args->bands, (long)args->plane};
    const long size = shape.heads * shape.bands * shape.plane;
    for (long index = first; index < last; index++) {
        const Block block = block_of(shape.plane, BLOCK, index);
        const float *x = args->x + block.image * size, *w = args->w, *b = args->b;
        float *u = args->u + block.image * STREAMS * size;
        /* The number of heads is a constant in each call, so that the compiler unrolls the loops over heads */
        if (shape.heads == 1) forward_block(1, shape, x, w, b, u, block.start, (int)block.count);
        else if (shape.heads == 2) forward_block(2, shape, x, w, b, u, block.start, (int)block.count);
        else forward_block(4, shape, x, w, b, u, block.start, (int)block.count);
    }
    return 0;
}

/* g_x, and the sums of each block g_w (blocks, 2, n, 2n) and g_b (blocks, 2, n), must start at zero. */
typedef struct {
    int64_t heads, bands, plane;
    const float *x, *w, *b, *g_u;
    float *g_x;
    double *g_w, *g_b;
} BackwardArgs;

CLONES KERNEL(ccnet_scan_backward, BackwardArgs) {
    const Shape shape = {(int)args->heads, (int)args->bands, (long)args->plane};
    const long n = shape.heads, size = n * shape.bands * shape.plane;
    for (long index = first; index < last; index++) {
        const Block block = block_of(shape.plane, BLOCK, index);
        const float *x = args->x + block.image * size, *w = args->w, *b = args->b;
        const float *g_u = args->g_u + block.image * STREAMS * size;
        float *g_x = args->g_x + block.image * size;
        double *g_w = args->g_w + index * 4 * n * n, *g_b = args->g_b + index * 2 * n;
        if (n == 1) backward_block(1, shape, x, w, b, g_u, g_x, g_w, g_b, block.start, (int)block.count);
        else if (n == 2) backward_block(2, shape, x, w, b, g_u, g_x, g_w, g_b, block.start, (int)block.count);
        else backward_block(4, shape, x, w, b, g_u, g_x, g_w, g_b, block.start, (int)block.count);
    }
    return 0;
}
