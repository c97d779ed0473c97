/* NeSCM in one pass (ccnet/ops/scan.py and ccnet/ops/output_gate.py hold the equations): for inference, where nothing is kept.
 *
 * The output gates of a row read the scan of three rows. What is read from memory is x, what is written is y, once each, or what
 * SIA makes of it first.
 * The inner loops run over the pixels of a row; the compiler vectorises them.
 *
 * Layout: x, y (C, H, W) of one image, channels ordered (group, head, band in group); w (2, n, 2n), b (2, n), kernel
 * (2, n, n, 3, 3, 3), bias (n); pooled, y (k, mean and maximum, H, W). A row of the ring is (4 streams, n, T, columns and one more on either side).
 */
#include <stdlib.h>

#include "inference/operators.h"
#include "common/gemm.h"
#include "common/tiles.h"

#define COLUMNS 256 /* of one head; n heads have as many together */

static const float ZEROS[COLUMNS + 2];

INLINE long plane_of(NescmShape shape, int head, int band) {
    const int run = shape.bands / shape.groups;
    return (long)((band / run * shape.heads + head) * run + band % run) * shape.height * shape.width;
}

/* s = sigmoid(W_m m + W_x x + b), m <- s m + (1 - s) x, u = tanh(m) + x   (Eq. 5, 6, and what Eq. 7 reads). */
INLINE void step(const int n, const float *w, const float *b, const float *const *x, float (*restrict m)[COLUMNS + 2],
                 float (*restrict s)[COLUMNS + 2], float *const *u, int count) {
    for (int o = 0; o < n; o++) {
        float *restrict to = s[o];
        for (int p = 0; p < count; p++) {
            float g = b[o];
            for (int i = 0; i < n; i++) g += w[o * 2 * n + i] * m[i][p] + w[o * 2 * n + n + i] * x[i][p];
            to[p] = sigmoid_of(g);
        }
    }
    for (int o = 0; o < n; o++) {
        const float *restrict read = x[o];
        float *restrict kept = m[o], *restrict to = u[o];
        for (int p = 0; p < count; p++) {
            kept[p] = read[p] + s[o][p] * (kept[p] - read[p]);
            to[p] = tanh_of(kept[p]) + read[p];
        }
    }
}

/* The four streams of a row of a tile, with the columns beside it. */
INLINE void scan_row(const int n, NescmShape shape, Tile tile, const float *x, const float *w, const float *b,
                     float *row, int y) {
    const int T = shape.bands, count = tile.left + tile.columns + tile.right;
    const long at = (long)y * shape.width + tile.x - tile.left;
    for (int stream = 0; stream < 4; stream++) {
        const int direction = stream / 2, lead = stream % 2;
        float m[MAX_HEADS][COLUMNS + 2] = {{0}}, s[MAX_HEADS][COLUMNS + 2];
        for (int t = 0; t < T; t++) {
            const int band = band_of(T, direction, lead, t), centre = band_of(T, direction, 0, t);
            const float *from[MAX_HEADS];
            float *to[MAX_HEADS];
            for (int i = 0; i < n; i++) {
                from[i] = band < 0 ? ZEROS : x + plane_of(shape, i, band) + at;
                to[i] = row + (long)((stream * n + i) * T + centre) * (tile.columns + 2) + 1 - tile.left;
            }
            step(n, w + direction * 2 * n * n, b + direction * n, from, m, s, to, count);
        }
    }
}

/* to[i] += the 3x3 correlation with k[i] of three rows, which begin a column before it. */
#define ADD_FILTERED(lanes)                                                                                          \
    INLINE void add_filtered_##lanes(const int outputs, float *const *to, const float (*k)[TAPS], const float *above, \
                                     const float *centre, const float *below, long count) {                         \
        for (long p = 0; p < count; p += lanes) {                                                                    \
            Vector##lanes seen[TAPS];                                                                                \
            for (int column = 0; column < 3; column++) {                                                             \
                seen[column] = *(const Vector##lanes *)(above + p + column);                                         \
                seen[3 + column] = *(const Vector##lanes *)(centre + p + column);                                    \
                seen[6 + column] = *(const Vector##lanes *)(below + p + column);                                     \
            }                                                                                                        \
            for (int i = 0; i < outputs; i++) {                                                                      \
                Vector##lanes sum = *(Vector##lanes *)(to[i] + p);                                                   \
                for (int tap = 0; tap < TAPS; tap++) sum += k[i][tap] * seen[tap];                                   \
                *(Vector##lanes *)(to[i] + p) = sum;                                                                 \
            }                                                                                                        \
        }                                                                                                            \
    }
ADD_FILTERED(8)
ADD_FILTERED(4)

/* Adds to the output gates (Eq. 7) of the bands around one what they read of its plane of a stream, in so many slots. */
INLINE void add_band(const int n, const int slots, NescmShape shape, Tile tile, float *const *rows, const float *kernel,
                     float (*made)[MAX_HEADS][COLUMNS], int stream, int band) {
    for (int i = 0; i < n; i++) {
        const long seen = (long)((stream * n + i) * shape.bands + band) * (tile.columns + 2);
        float k[2 * MAX_HEADS][TAPS], *to[2 * MAX_HEADS];
        int outputs = 0;
        for (int slot = 0; slot < 6; slot++)
            for (int o = 0; o < n && SLOTS[slot].stream == stream; o++, outputs++) {
                memcpy(k[outputs], kernel + taps(n, slot, o, i), sizeof *k);
                to[outputs] = made[(band - SLOTS[slot].shift) & 3][o];
            }
        const float *above = rows[0] + seen, *centre = rows[1] + seen, *below = rows[2] + seen;
        if (REGISTER >= 8) /* 16 are no faster: their loads cross two lines of cache */
            add_filtered_8(slots * n, to, k, above, centre, below, tile.columns);
        else
            add_filtered_4(slots * n, to, k, above, centre, below, tile.columns);
    }
}

/* The mean and the maximum of each group's channels (Eq. 8, 9) so far, a band more: y is (mean and maximum of k groups). */
INLINE void pool(const int n, NescmShape shape, const float (*made)[COLUMNS], float (*pooled)[COLUMNS], float *y,
                 int columns, int band) {
    const int run = shape.bands / shape.groups, first = band % run == 0, last = band % run == run - 1;
    const long plane = (long)shape.height * shape.width;
    float *restrict mean = pooled[0], *restrict most = pooled[1];
    for (int o = 0; o < n; o++)
        for (int p = 0; p < columns; p++) {
            const float one = made[o][p];
            const int fresh = first && !o;
            mean[p] = fresh ? one : mean[p] + one;
            most[p] = fresh || one > most[p] || one != one ? one : most[p]; /* a NaN stays one */
        }
    if (!last) return;
    for (int p = 0; p < columns; p++) mean[p] /= (float)(n * run);
    for (int kind = 0; kind < 2; kind++)
        memcpy(y + (2l * (band / run) + kind) * plane, pooled[kind], columns * sizeof *y);
}

/* The output gates of a row of a tile (Eq. 7), both directions. rows: the ring, from the row above. */
INLINE void gates_row(const int n, NescmShape shape, Tile tile, float *const *rows, const float *kernel,
                      const float *bias, float *y, int at) {
    const int T = shape.bands, columns = tile.columns;
    const long to = (long)at * shape.width + tile.x;
    float made[4][MAX_HEADS][COLUMNS] = {{{0}}}; /* of the band, the one before and the one after; in turn */
    float pooled[2][COLUMNS];
    for (int band = -1; band <= T; band++) {
        for (int o = 0; o < n; o++)
            for (int p = 0; p < columns; p++) made[(band + 1) & 3][o][p] = bias[o];
        if (band >= 0 && band < T) {
            add_band(n, 2, shape, tile, rows, kernel, made, 0, band);
            add_band(n, 1, shape, tile, rows, kernel, made, 1, band);
            add_band(n, 2, shape, tile, rows, kernel, made, 2, band);
            add_band(n, 1, shape, tile, rows, kernel, made, 3, band);
        }
        if (band < 1) continue;
        const float(*finished)[COLUMNS] = made[(band - 1) & 3];
        if (shape.pooled)
            pool(n, shape, finished, pooled, y + to, columns, band - 1);
        else
            for (int o = 0; o < n; o++)
                memcpy(y + plane_of(shape, o, band - 1) + to, finished[o], columns * sizeof *y);
    }
}

INLINE int run_tile(const int n, NescmShape shape, Tile tile, const float *x, const float *w, const float *b,
                    const float *kernel, const float *bias, float *y) {
    const long size = 4l * n * shape.bands * (tile.columns + 2);
    float *ring = calloc(3 * size + LANES, sizeof *ring); /* columns beyond the image stay zero */
    if (!ring) return -1;
    for (int at = tile.y - 1; at <= tile.y + tile.rows; at++) {
        float *row = row_of(ring, size, at);
        if (at < 0 || at >= shape.height)
            memset(row, 0, size * sizeof *row);
        else
            scan_row(n, shape, tile, x, w, b, row, at);
        if (at > tile.y) {
            float *const rows[3] = {row_of(ring, size, at - 2), row_of(ring, size, at - 1), row};
            gates_row(n, shape, tile, rows, kernel, bias, y, at - 1);
        }
    }
    free(ring);
    return 0;
}

long nescm_jobs(NescmShape shape) { return tiles_of(shape.height, shape.width, COLUMNS / shape.heads); }

CLONES int nescm_run(NescmShape shape, const float *x, const float *w, const float *b, const float *kernel,
                     const float *bias, float *y, long job) {
    const Tile tile = tile_of(shape.height, shape.width, COLUMNS / shape.heads, 1, job);
    switch (shape.heads) {
        case 1: return run_tile(1, shape, tile, x, w, b, kernel, bias, y);
        case 2: return run_tile(2, shape, tile, x, w, b, kernel, bias, y);
        case 4: return run_tile(4, shape, tile, x, w, b, kernel, bias, y);
    }
    return -1;
}
