/* NeSCM for inference in one pass (ccnet/ops/scan.py and ccnet/ops/output_gate.py hold the equations).
 *
 * The output gates of a row read the streams of three rows, which stay in a ring. x is read from memory once; y, or
 * SIA's pooling of it, is written once. The inner loops run over the pixels of a row; the compiler vectorises them.
 *
 * Layout: x, y (C, H, W) of one image, channels ordered (group, head, band in group); w (2, n, 2n), b (2, n), kernel
 * (2, n, n, 3, 3, 3), bias (n); pooled y (k, mean and maximum, H, W). A row of the ring is (4 streams, n, T, columns),
 * with one more column on either side, and zeros from there to whole vectors.
 */
#include <stdlib.h>

#include "common/bands.h"
#include "common/conv3x3.h"
#include "common/gemm.h"
#include "common/recurrence.h"
#include "common/tiles.h"
#include "inference/operators.h"

#define COLUMNS 256 /* of a tile of one head */

#define SLACK 16    /* numbers behind a buffer that a vector may read */

typedef float Row[COLUMNS + LANES];

static const Row ZEROS;

/* Return the columns of a tile: with more heads there are as many streams more, which have to stay in cache. */
INLINE int max_columns(int heads) { return heads == 1 ? COLUMNS : COLUMNS / 2; }

/* Return the index at which the plane of a head and a band begins in x and y. */
INLINE long plane_index(NescmShape shape, int head, int band) {
    const int run = shape.bands / shape.groups;
    return (long)((band / run * shape.heads + head) * run + band % run) * shape.height * shape.width;
}

/* Return the columns of a row of the ring. */
INLINE long ring_columns(Tile tile) { return round_up_to_lanes(tile.columns + 2); }

/* Copy image row y of a tile with the columns beside it, in the order of the bands (n, T, columns of the ring). Columns
 * beyond the image stay zero, and so do their streams. */
INLINE void load_row(const int n, NescmShape shape, Tile tile, const float *x, float *to, int y) {
    const long start = (long)y * shape.width + tile.x - tile.left, columns = ring_columns(tile);
    to += 1 - tile.left;
    for (int head = 0; head < n; head++)
        for (int band = 0; band < shape.bands; band++, to += columns)
            memcpy(to, x + plane_index(shape, head, band) + start,
                   (tile.left + tile.columns + tile.right) * sizeof *to);
}

/* Compute the four streams of a row that load_row has copied into a row of the ring. */
INLINE void scan_row(const int n, NescmShape shape, Tile tile, const float *x, const float *w, const float *b,
                     float *row) {
    const int T = shape.bands;
    const long columns = ring_columns(tile);
    for (int stream = 0; stream < STREAMS; stream++) {
        const int direction = stream / 2, lead = stream % 2;
        Row m[MAX_HEADS] = {{0}}, s[MAX_HEADS];
        for (int t = 0; t < T; t++) {
            const int band = band_of(T, direction, lead, t), centre = band_of(T, direction, 0, t);
            const float *x_t[MAX_HEADS];
            float *u_t[MAX_HEADS];
            for (int i = 0; i < n; i++) {
                x_t[i] = band < 0 ? ZEROS : x + (i * T + band) * columns;
                u_t[i] = row + ((stream * n + i) * T + centre) * columns;
            }
            recurrence_step(n, w + direction * 2 * n * n, b + direction * n, x_t, m[0], s[0], COLUMNS + LANES, u_t,
                            (int)columns);
        }
    }
}

/* Define to[i] += the 3x3 correlation of three rows with the filter k[i], in vectors of `lanes` floats. The rows begin
 * one column before to[i]. */
#define ADD_FILTERED(lanes) \
    INLINE void add_filtered_##lanes(const int outputs, float *const *to, const float (*k)[TAPS], const float *above, \
                                     const float *centre, const float *below, long count) { \
        for (long p = 0; p < count; p += lanes) { \
            Vector##lanes read[TAPS]; \
            for (int column = 0; column < 3; column++) { \
                read[column] = *(const Vector##lanes *)(above + p + column); \
                read[3 + column] = *(const Vector##lanes *)(centre + p + column); \
                read[6 + column] = *(const Vector##lanes *)(below + p + column); \
            } \
            for (int i = 0; i < outputs; i++) { \
                Vector##lanes sum = *(Vector##lanes *)(to[i] + p); \
                for (int tap = 0; tap < TAPS; tap++) sum += k[i][tap] * read[tap]; \
                *(Vector##lanes *)(to[i] + p) = sum; \
            } \
        } \
    }
ADD_FILTERED(16)
ADD_FILTERED(8)
ADD_FILTERED(4)

/* Add to the output gates (Eq. 7), sums, what they read of a band of a stream. Three bands' gates read it, in `slots`
 * slots; sums holds the gates of four bands in turn. */
INLINE void add_band(const int n, const int slots, NescmShape shape, Tile tile, Rows rows, const float *kernel,
                     float (*sums)[MAX_HEADS][COLUMNS], int stream, int band) {
    for (int i = 0; i < n; i++) {
        float k[2 * MAX_HEADS][TAPS], *to[2 * MAX_HEADS];
        int outputs = 0;
        for (int slot = 0; slot < 6; slot++)
            for (int o = 0; o < n && SLOTS[slot].stream == stream; o++, outputs++) {
                memcpy(k[outputs], kernel + filter_index(n, slot, o, i), sizeof *k);
                to[outputs] = sums[(band - SLOTS[slot].shift) & 3][o];
            }
        const Rows from = rows_from(rows, (long)((stream * n + i) * shape.bands + band) * ring_columns(tile));
        if (REGISTER == 16)
            add_filtered_16(slots * n, to, k, from.above, from.centre, from.below, tile.columns);
        else if (REGISTER == 8)
            add_filtered_8(slots * n, to, k, from.above, from.centre, from.below, tile.columns);
        else
            add_filtered_4(slots * n, to, k, from.above, from.centre, from.below, tile.columns);
    }
}

/* Include a band's gates in the mean and the maximum of its group's channels (Eq. 8, 9); after the last band of the
 * group write them to y (k, mean and maximum, plane). */
INLINE void pool(const int n, NescmShape shape, const float (*gates)[COLUMNS], float (*pooled)[COLUMNS], float *y,
                 int columns, int band) {
    const int run = shape.bands / shape.groups, first = band % run == 0, last = band % run == run - 1;
    const long plane = (long)shape.height * shape.width;
    float *restrict mean = pooled[0], *restrict maximum = pooled[1];
    for (int o = 0; o < n; o++)
        for (int p = 0; p < columns; p++) {
            const float gate = gates[o][p];
            const int start = first && !o;
            mean[p] = start ? gate : mean[p] + gate;
            maximum[p] = start || gate > maximum[p] || gate != gate ? gate : maximum[p]; /* keeps a NaN */
        }
    if (!last) return;
    for (int p = 0; p < columns; p++) mean[p] /= (float)(n * run);
    for (int kind = 0; kind < 2; kind++)
        memcpy(y + (2l * (band / run) + kind) * plane, pooled[kind], columns * sizeof *y);
}

/* Compute the output gates of row y of a tile (Eq. 7), both directions; rows: the streams of the rows around it. */
INLINE void gates_row(const int n, NescmShape shape, Tile tile, Rows rows, const float *kernel, const float *bias,
                      float *to, int y) {
    const int T = shape.bands, columns = tile.columns;
    const long start = (long)y * shape.width + tile.x;
    float sums[4][MAX_HEADS][COLUMNS] = {{{0}}}; /* of a band, the band before and the band after, in turn */
    float pooled[2][COLUMNS];
    for (int band = -1; band <= T; band++) {
        for (int o = 0; o < n; o++)
            for (int p = 0; p < columns; p++) sums[(band + 1) & 3][o][p] = bias[o];
        if (band >= 0 && band < T) {
            add_band(n, 2, shape, tile, rows, kernel, sums, 0, band);
            add_band(n, 1, shape, tile, rows, kernel, sums, 1, band);
            add_band(n, 2, shape, tile, rows, kernel, sums, 2, band);
            add_band(n, 1, shape, tile, rows, kernel, sums, 3, band);
        }
        if (band < 1) continue;
        const float(*gates)[COLUMNS] = sums[(band - 1) & 3];
        if (shape.pooled)
            pool(n, shape, gates, pooled, to + start, columns, band - 1);
        else
            for (int o = 0; o < n; o++)
                memcpy(to + plane_index(shape, o, band - 1) + start, gates[o], columns * sizeof *to);
    }
}

INLINE int run_tile(const int n, NescmShape shape, Tile tile, const float *x, const float *w, const float *b,
                    const float *kernel, const float *bias, float *y) {
    const long row_size = n * shape.bands * ring_columns(tile), size = STREAMS * row_size;
    float *x_row = calloc(row_size + RING_ROWS * size + SLACK, sizeof *x_row), *const ring = x_row + row_size;
    if (!x_row) return OUT_OF_MEMORY;
    for (int row = tile.y - 1; row <= tile.y + tile.rows; row++) {
        float *streams = ring_row(ring, size, row);
        if (row < 0 || row >= shape.height)
            memset(streams, 0, size * sizeof *streams);
        else {
            load_row(n, shape, tile, x, x_row, row);
            scan_row(n, shape, tile, x_row, w, b, streams);
        }
        if (row > tile.y)
            gates_row(n, shape, tile, rows_around(ring, size, row - 1), kernel, bias, y, row - 1);
    }
    free(x_row);
    return 0;
}

long nescm_jobs(NescmShape shape) { return num_tiles(shape.height, shape.width, max_columns(shape.heads)); }

CLONES int nescm_run(NescmShape shape, const float *x, const float *w, const float *b, const float *kernel,
                     const float *bias, float *y, long job) {
    const Tile tile = tile_at(shape.height, shape.width, max_columns(shape.heads), 1, job);
    if (shape.heads == 1) return run_tile(1, shape, tile, x, w, b, kernel, bias, y);
    if (shape.heads == 2) return run_tile(2, shape, tile, x, w, b, kernel, bias, y);
    return run_tile(4, shape, tile, x, w, b, kernel, bias, y);
}
