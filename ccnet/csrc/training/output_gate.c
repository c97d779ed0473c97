/* NeSCM's output gates (ccnet/ops/output_gate.py holds the equation): 3x3 convolutions of planes, summed over window slots.
 *
 * A plane is worked on in tiles that stay in cache. A tile lies in its buffer as one run of numbers, rows a STRIDE
 * apart with the gaps at zero, so that every tap of the 3x3 is the same run shifted: the inner loops know no borders,
 * and the compiler vectorises them (with a long index: an int may wrap under Python's own flags, which forbids it).
 * Results in the gaps are never read.
 *
 * Layout: u (B, 4, n, T, H, W), streams ordered as in scan.py; y (B, n, T, H, W); kernel (2, n, n, 3, 3, 3), that is
 * (direction, output head, input head, slot, row, column). Bands [first, last) are counted over all images, B * T.
 */
#include "common/simd.h"
#include "common/threads.h"

HIDDEN const float TANH_END = 9.f, SLOPE_END = 6.f; /* here, where neither is used */

#define COLUMNS 128 /* of a tile, at most */
#define AREA 1024   /* of a tile, gaps included; one row may exceed it no further than COLUMNS allow */

typedef struct { int heads, bands, height, width; } Shape;
typedef struct { int y, x, rows, columns, stride; long count; } Tile; /* count: from the first pixel to the last */
typedef float Run[AREA];
typedef float Haloed[AREA + 2 * (COLUMNS + 2)]; /* a pixel more on every side */

INLINE int tile_rows(Shape shape) {
    const int rows = AREA / (least(shape.width, COLUMNS) + 2);
    return least(rows, shape.height);
}

INLINE Tile tile_at(Shape shape, int y, int x) {
    Tile tile = {y, x, least(tile_rows(shape), shape.height - y), least(COLUMNS, shape.width - x), 0, 0};
    tile.stride = tile.columns + 2;
    tile.count = tile.rows * tile.stride - 2;
    return tile;
}

/* A tile of a plane with the pixels around it, zero outside the plane; all zero where there is no plane. */
INLINE void load_haloed(float *restrict to, const float *restrict plane, Shape shape, Tile tile) {
    const int left = tile.x > 0, right = tile.x + tile.columns < shape.width;
    for (int row = -1; row <= tile.rows; row++, to += tile.stride) {
        const int y = tile.y + row;
        if (!plane || y < 0 || y >= shape.height) {
            memset(to, 0, tile.stride * sizeof *to);
            continue;
        }
        const float *from = plane + (long)y * shape.width + tile.x;
        to[0] = left ? from[-1] : 0.f;
        memcpy(to + 1, from, tile.columns * sizeof *to);
        to[tile.columns + 1] = right ? from[tile.columns] : 0.f;
    }
}

/* A tile of a plane, its gaps zero. */
INLINE void load(float *restrict to, const float *restrict plane, Shape shape, Tile tile) {
    for (int row = 0; row < tile.rows; row++, to += tile.stride) {
        memcpy(to, plane + (long)(tile.y + row) * shape.width + tile.x, tile.columns * sizeof *to);
        if (row + 1 < tile.rows) to[tile.columns] = to[tile.columns + 1] = 0.f;
    }
}

INLINE void store(float *restrict plane, const float *restrict from, Shape shape, Tile tile) {
    for (int row = 0; row < tile.rows; row++, from += tile.stride)
        memcpy(plane + (long)(tile.y + row) * shape.width + tile.x, from, tile.columns * sizeof *from);
}

/* to += the 3x3 correlation of a haloed tile with k. */
INLINE void add_filtered(float *restrict to, const float *restrict above, const float *restrict k, Tile tile) {
    const float *restrict centre = above + tile.stride, *restrict below = centre + tile.stride;
    float taps[TAPS];
    memcpy(taps, k, sizeof taps);
    for (long p = 0; p < tile.count; p++) to[p] += correlation(taps, above, centre, below, p);
}

/* Both gradients of a 3x3 correlation with a kernel, from that of its result, a haloed tile: to += what was read, sums +=
 * the kernel, which saw `seen`. turned: the kernel, as the gradient goes the other way; so do the sums. */
INLINE void add_gradients(float *restrict to, double *restrict sums, const float *restrict seen,
                          const float *restrict above, const float *restrict turned, Tile tile) {
    const float *restrict centre = above + tile.stride, *restrict below = centre + tile.stride;
    float k[TAPS], a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, i = 0;
    memcpy(k, turned, sizeof k);
    for (long p = 0; p < tile.count; p++) {
        const float v = seen[p];
        to[p] += correlation(k, above, centre, below, p);
        a += v * above[p], b += v * above[p + 1], c += v * above[p + 2];
        d += v * centre[p], e += v * centre[p + 1], f += v * centre[p + 2];
        g += v * below[p], h += v * below[p + 1], i += v * below[p + 2];
    }
    sums[8] += a, sums[7] += b, sums[6] += c, sums[5] += d, sums[4] += e, sums[3] += f, sums[2] += g, sums[1] += h;
    sums[0] += i;
}

/* Plane (image, channel, band) of a tensor with so many channels; none before the first band or after the last. */
INLINE const float *plane_of(const float *tensor, Shape shape, long image, int channels, int channel, int band) {
    if (band < 0 || band >= shape.bands) return 0;
    return tensor + ((image * channels + channel) * shape.bands + band) * shape.height * shape.width;
}

INLINE void forward_tile(Shape shape, Tile tile, const float *u, const float *kernel, const float *bias, float *y,
                         long image, int band) {
    const int n = shape.heads;
    Run made[MAX_HEADS];
    Haloed seen;
    for (int o = 0; o < n; o++)
        for (long p = 0; p < tile.count; p++) made[o][p] = bias[o];
    for (int slot = 0; slot < 6; slot++)
        for (int i = 0; i < n; i++) {
            const int stream = SLOTS[slot].stream, from = band + SLOTS[slot].shift;
            const float *plane = plane_of(u, shape, image, 4 * n, stream * n + i, from);
            if (!plane) continue;
            load_haloed(seen, plane, shape, tile);
            for (int o = 0; o < n; o++) add_filtered(made[o], seen, kernel + taps(n, slot, o, i), tile);
        }
    for (int o = 0; o < n; o++) store((float *)plane_of(y, shape, image, n, o, band), made[o], shape, tile);
}

/* The gradient of the four streams at a band, and of the kernel for what it saw there: of the gates of this band and its
 * neighbours, which read it. */
INLINE void backward_tile(Shape shape, Tile tile, const float *gy, const float *u, const float *kernel, float *gu,
                          double *gk, long image, int band) {
    const int n = shape.heads;
    Haloed grads[3][MAX_HEADS]; /* of the bands before, at and after this one */
    Run seen;
    for (int shift = -1; shift <= 1; shift++)
        for (int o = 0; o < n; o++)
            load_haloed(grads[shift + 1][o], plane_of(gy, shape, image, n, o, band + shift), shape, tile);
    for (int stream = 0; stream < 4; stream++)
        for (int i = 0; i < n; i++) {
            Run made = {0};
            load(seen, plane_of(u, shape, image, 4 * n, stream * n + i, band), shape, tile);
            for (int slot = 0; slot < 6; slot++) {
                if (SLOTS[slot].stream != stream) continue;
                for (int o = 0; o < n; o++) {
                    const long at = taps(n, slot, o, i);
                    float turned[TAPS];
                    for (int tap = 0; tap < TAPS; tap++) turned[tap] = kernel[at + TAPS - 1 - tap];
                    add_gradients(made, gk + at, seen, grads[1 - SLOTS[slot].shift][o], turned, tile);
                }
            }
            store((float *)plane_of(gu, shape, image, 4 * n, stream * n + i, band), made, shape, tile);
        }
}

typedef struct { int64_t heads, bands, height, width; const float *u, *kernel, *bias; float *y; } Forward;

CLONES KERNEL(ccnet_gates, Forward) {
    const Shape shape = {(int)given->heads, (int)given->bands, (int)given->height, (int)given->width};
    for (long at = first; at < last; at++)
        for (int top = 0; top < shape.height; top += tile_rows(shape))
            for (int left = 0; left < shape.width; left += COLUMNS)
                forward_tile(shape, tile_at(shape, top, left), given->u, given->kernel, given->bias, given->y,
                             at / shape.bands, (int)(at % shape.bands));
    return 1;
}

/* gk (B, T, 2, n, n, 3, 3, 3), a sum for every band, must start at zero. */
typedef struct { int64_t heads, bands, height, width; const float *gy, *u, *kernel; float *gu; double *gk; } Backward;

CLONES KERNEL(ccnet_gates_backward, Backward) {
    const Shape shape = {(int)given->heads, (int)given->bands, (int)given->height, (int)given->width};
    for (long at = first; at < last; at++)
        for (int top = 0; top < shape.height; top += tile_rows(shape))
            for (int left = 0; left < shape.width; left += COLUMNS)
                backward_tile(shape, tile_at(shape, top, left), given->gy, given->u, given->kernel, given->gu,
                              given->gk + at * 2 * shape.heads * shape.heads * 3 * TAPS, at / shape.bands,
                              (int)(at % shape.bands));
    return 1;
}
