/* NeSCM's recurrence (ccnet/ops/scan.py holds the equations), fused over the bands of a run of pixels.
 *
 * Every pixel is a recurrence of its own, so a block of PIXELS of them stays in cache through all
 * bands and all four streams: x is read once from memory and u written once. The backward pass
 * recomputes the memory instead of storing it. The inner loops run over pixels; the compiler
 * vectorises them.
 *
 * Layout: x (B, n, T, plane), u (B, 4, n, T, plane), streams ordered as in scan.py. Blocks [first, last) are counted
 * over all images.
 */
#include "common/simd.h"
#include "common/threads.h"

#define PIXELS 128

typedef struct { int heads, bands; long plane; } Shape;

INLINE void load(float *restrict to, const float *restrict from, int count) {
    for (int p = 0; p < PIXELS; p++) to[p] = p < count ? from[p] : 0.f;
}

/* Bands lie too far apart for the processor to see what is read next. */
INLINE void prefetch(const float *from, int count) {
    for (int p = 0; p < count; p += 16) __builtin_prefetch(from + p);
}

/* One step for all heads: s = sigmoid(W_m m + W_x x + b), m <- s m + (1 - s) x   (Eq. 5, 6). */
INLINE void step_forward(int n, const float *restrict w, const float *restrict b, float (*restrict x)[PIXELS],
                         float (*restrict m)[PIXELS], float (*restrict s)[PIXELS]) {
    for (int o = 0; o < n; o++)
        for (int p = 0; p < PIXELS; p++) {
            float g = b[o];
            for (int i = 0; i < n; i++) g += w[o * 2 * n + i] * m[i][p] + w[o * 2 * n + n + i] * x[i][p];
            s[o][p] = sigmoid_of(g);
        }
    for (int o = 0; o < n; o++)
        for (int p = 0; p < PIXELS; p++) m[o][p] = x[o][p] + s[o][p] * (m[o][p] - x[o][p]);
}

INLINE void forward_block(const int n, Shape shape, const float *x, const float *w, const float *b, float *u,
                          long at, int count) {
    const int T = shape.bands;
    for (int stream = 0; stream < 4; stream++) {
        const int direction = stream / 2, lead = stream % 2;
        float m[MAX_HEADS][PIXELS] = {{0}}, s[MAX_HEADS][PIXELS], xt[MAX_HEADS][PIXELS];
        for (int step = 0; step < T; step++) {
            const int band = band_of(T, direction, lead, step), out = band_of(T, direction, 0, step);
            for (int i = 0; i < n; i++)
                load(xt[i], x + ((long)i * T + (band < 0 ? 0 : band)) * shape.plane + at, band < 0 ? 0 : count);
            step_forward(n, w + direction * 2 * n * n, b + direction * n, xt, m, s);
            for (int i = 0; i < n; i++) {
                float *restrict to = u + (((long)stream * n + i) * T + out) * shape.plane + at;
                if (count == PIXELS)
                    for (int p = 0; p < PIXELS; p++) to[p] = tanh_of(m[i][p]) + xt[i][p];
                else
                    for (int p = 0; p < count; p++) to[p] = tanh_of(m[i][p]) + xt[i][p];
            }
        }
    }
}

/* gx must start at zero; gw (2, n, 2n) and gb (2, n) are added to. */
INLINE void backward_block(const int n, Shape shape, const float *x, const float *w, const float *b, const float *gu,
                           float *gx, double *gw, double *gb, long at, int count) {
    const int T = shape.bands;
    for (int stream = 0; stream < 4; stream++) {
        const int direction = stream / 2, lead = stream % 2;
        const float *wd = w + direction * 2 * n * n;
        static _Thread_local float xs[MAX_BANDS][MAX_HEADS][PIXELS], ss[MAX_BANDS][MAX_HEADS][PIXELS];
        static _Thread_local float ms[MAX_BANDS + 1][MAX_HEADS][PIXELS];
        for (int i = 0; i < n; i++)
            for (int p = 0; p < PIXELS; p++) ms[0][i][p] = 0.f;
        for (int step = 0; step < T; step++) {
            const int band = band_of(T, direction, lead, step);
            for (int i = 0; i < n; i++) {
                load(xs[step][i], x + ((long)i * T + (band < 0 ? 0 : band)) * shape.plane + at, band < 0 ? 0 : count);
                for (int p = 0; p < PIXELS; p++) ms[step + 1][i][p] = ms[step][i][p];
            }
            step_forward(n, wd, b + direction * n, xs[step], ms[step + 1], ss[step]);
        }
        float gm[MAX_HEADS][PIXELS] = {{0}}, g[MAX_HEADS][PIXELS], gxt[MAX_HEADS][PIXELS], go[PIXELS];
        float aw[MAX_HEADS][2 * MAX_HEADS][PIXELS] = {{{0}}}, ab[MAX_HEADS][PIXELS] = {{0}};
        for (int step = T - 1; step >= 0; step--) {
            const int band = band_of(T, direction, lead, step), out = band_of(T, direction, 0, step);
            const long towards = direction ? shape.plane : -shape.plane; /* the next step's band */
            for (int i = 0; i < n; i++) {
                const float *from = gu + (((long)stream * n + i) * T + out) * shape.plane + at;
                load(go, from, count);
                if (step) prefetch(from + towards, count);
                for (int p = 0; p < PIXELS; p++) {
                    const float th = tanh_of(ms[step + 1][i][p]), s = ss[step][i][p];
                    const float d = gm[i][p] + go[p] * (1.f - th * th);
                    g[i][p] = d * (ms[step][i][p] - xs[step][i][p]) * s * (1.f - s);
                    gxt[i][p] = go[p] + d * (1.f - s);
                    gm[i][p] = d * s;
                }
            }
            for (int o = 0; o < n; o++) {
                for (int p = 0; p < PIXELS; p++) ab[o][p] += g[o][p];
                for (int i = 0; i < n; i++)
                    for (int p = 0; p < PIXELS; p++) {
                        gm[i][p] += wd[o * 2 * n + i] * g[o][p];
                        gxt[i][p] += wd[o * 2 * n + n + i] * g[o][p];
                        aw[o][i][p] += g[o][p] * ms[step][i][p];
                        aw[o][n + i][p] += g[o][p] * xs[step][i][p];
                    }
            }
            if (band >= 0)
                for (int i = 0; i < n; i++) {
                    float *restrict to = gx + ((long)i * T + band) * shape.plane + at;
                    for (int p = 0; p < count; p++) to[p] += gxt[i][p];
                }
        }
        /* Padding pixels of the last block had x = 0 and no gradient from above: they add nothing. */
        for (int o = 0; o < n; o++) {
            for (int p = 0; p < PIXELS; p++) gb[direction * n + o] += ab[o][p];
            for (int i = 0; i < 2 * n; i++)
                for (int p = 0; p < PIXELS; p++) gw[(direction * n + o) * 2 * n + i] += aw[o][i][p];
        }
    }
}

/* heads: 1, 2 or 4; bands: at most MAX_BANDS. */
typedef struct { int64_t heads, bands, plane; const float *x, *w, *b; float *u; } Forward;

CLONES KERNEL(ccnet_scan, Forward) {
    const Shape shape = {(int)given->heads, (int)given->bands, (long)given->plane};
    const long size = shape.heads * shape.bands * shape.plane;
    for (long index = first; index < last; index++) {
        const Block block = block_of(shape.plane, PIXELS, index);
        const float *x = given->x + block.image * size, *w = given->w, *b = given->b;
        float *u = given->u + block.image * 4 * size;
        if (shape.heads == 1) forward_block(1, shape, x, w, b, u, block.at, (int)block.count);
        else if (shape.heads == 2) forward_block(2, shape, x, w, b, u, block.at, (int)block.count);
        else forward_block(4, shape, x, w, b, u, block.at, (int)block.count);
    }
    return 1;
}

/* gx, and gw (blocks, 2, n, 2n), gb (blocks, 2, n), sums for every block, must start at zero. */
typedef struct { int64_t heads, bands, plane; const float *x, *w, *b, *gu; float *gx; double *gw, *gb; } Backward;

CLONES KERNEL(ccnet_scan_backward, Backward) {
    const Shape shape = {(int)given->heads, (int)given->bands, (long)given->plane};
    const long n = shape.heads, size = n * shape.bands * shape.plane;
    for (long index = first; index < last; index++) {
        const Block block = block_of(shape.plane, PIXELS, index);
        const float *x = given->x + block.image * size, *w = given->w, *b = given->b, *gu = given->gu + block.image * 4 * size;
        float *gx = given->gx + block.image * size;
        double *gw = given->gw + index * 4 * n * n, *gb = given->gb + index * 2 * n;
        if (n == 1) backward_block(1, shape, x, w, b, gu, gx, gw, gb, block.at, (int)block.count);
        else if (n == 2) backward_block(2, shape, x, w, b, gu, gx, gw, gb, block.at, (int)block.count);
        else backward_block(4, shape, x, w, b, gu, gx, gw, gb, block.at, (int)block.count);
    }
    return 1;
}
