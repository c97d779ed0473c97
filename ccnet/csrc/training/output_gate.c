/* NeSCM's output gates for training (ccnet/ops/output_gate.py holds the equation), and their gradient: 3x3 filters of
 * planes, summed over the slots of the window.
 *
 * A plane is computed in tiles that stay in cache. A tile lies in its buffer as a single run of numbers, its rows a
 * stride apart with gaps of zeros, so that every tap of the 3x3 reads the same run, shifted: the inner loops have no
 * borders, and the compiler vectorises them. Their index is a long: Python's compiler flags let an int wrap, which
 * would prevent that. Results in the gaps are never read.
 *
 * Layout: u (B, 4, n, T, H, W), streams ordered as in scan.py; y (B, n, T, H, W); kernel (2, n, n, 3, 3, 3), that is
 * (direction, output head, input head, slot, row, column). Bands [first, last) are counted over all images, B * T.
 */
#include <string.h>

#include "common/bands.h"
#include "common/conv3x3.h"
#include "common/kernel.h"
#include "common/tiles.h"

#define MAX_COLUMNS 128 /* of a tile */
#define AREA 1024       /* pixels of a tile with its gaps */

typedef struct { int heads, bands, height, width; } Shape;

/* count: numbers from the first pixel to the last. */
typedef struct { int y, x, rows, columns, stride; long count; } GateTile;
typedef float Area[AREA];
typedef float Haloed[AREA + 2 * (MAX_COLUMNS + 2)]; /* one more pixel on every side */

INLINE int gate_tile_rows(Shape shape) {
    const int rows = AREA / (min_int(shape.width, MAX_COLUMNS) + 2);
    return min_int(rows, shape.height);
}

INLINE GateTile gate_tile_at(Shape shape, int y, int x) {
    GateTile tile = {.y = y, .x = x};
    tile.rows = min_int(gate_tile_rows(shape), shape.height - y);
    tile.columns = min_int(MAX_COLUMNS, shape.width - x);
    tile.stride = tile.columns + 2;
    tile.count = tile.rows * tile.stride - 2;
    return tile;
}

/* Copy a tile of a plane with the pixels around it, zero outside the plane; all zero where plane is null. */
INLINE void load_haloed(float *restrict to, const float *restrict plane, Shape shape, GateTile tile) {
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

/* Copy a tile of a plane, with zeros in its gaps. */
INLINE void load(float *restrict to, const float *restrict plane, Shape shape, GateTile tile) {
    for (int row = 0; row < tile.rows; row++, to += tile.stride) {
        memcpy(to, plane + (long)(tile.y + row) * shape.width + tile.x, tile.columns * sizeof *to);
        if (row + 1 < tile.rows) to[tile.columns] = to[tile.columns + 1] = 0.f;
    }
}

INLINE void store(float *restrict plane, const float *restrict from, Shape shape, GateTile tile) {
    for (int row = 0; row < tile.rows; row++, from += tile.stride)
        memcpy(plane + (long)(tile.y + row) * shape.width + tile.x, from, tile.columns * sizeof *from);
}

/* to += the 3x3 correlation of a haloed tile with k. */
INLINE void add_filtered(float *restrict to, const float *restrict above, const float *restrict k, GateTile tile) {
    const float *restrict centre = above + tile.stride, *restrict below = centre + tile.stride;
    float taps[TAPS];
    memcpy(taps, k, sizeof taps);
    for (long p = 0; p < tile.count; p++) to[p] += correlation(taps, above, centre, below, p);
}

/* Both gradients of a 3x3 correlation: to += the gradient of its input, sums += the gradient of its filter.
 *
 * grad: the gradient of its result, a haloed tile, from the row above. turned: the filter, turned by 180 degrees,
 * because gradients go the opposite way; the sums are turned back. */
INLINE void add_gradients(float *restrict to, double *restrict sums, const float *restrict input,
                          const float *restrict grad, const float *restrict turned, GateTile tile) {
    const float *restrict above = grad, *restrict centre = above + tile.stride, *restrict below = centre + tile.stride;
    float k[TAPS], a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, i = 0;
    memcpy(k, turned, sizeof k);
    for (long p = 0; p < tile.count; p++) {
        const float v = input[p];
        to[p] += correlation(k, above, centre, below, p);
        a += v * above[p], b += v * above[p + 1], c += v * above[p + 2];
        d += v * centre[p], e += v * centre[p + 1], f += v * centre[p + 2];
        g += v * below[p], h += v * below[p + 1], i += v * below[p + 2];
    }
    sums[8] += a, sums[7] += b, sums[6] += c, sums[5] += d, sums[4] += e, sums[3] += f, sums[2] += g, sums[1] += h;
    sums[0] += i;
}

/* Return plane (image, channel, band) of a tensor, null before the first band and after the last. */
INLINE const float *plane_of(const float *tensor, Shape shape, long image, int channels, int channel, int band) {
    if (band < 0 || band >= shape.bands) return 0;
    return tensor + ((image * channels + channel) * shape.bands + band) * shape.height * shape.width;
}

INLINE void forward_tile(Shape shape, GateTile tile, const float *u, const float *kernel, const float *bias, float *y,
                         long image, int band) {
    const int n = shape.heads;
    Area sums[MAX_HEADS];
    Haloed input;
    for (int o = 0; o < n; o++)
        for (long p = 0; p < tile.count; p++) sums[o][p] = bias[o];
    for (int slot = 0; slot < 6; slot++)
        for (int i = 0; i < n; i++) {
            const int stream = SLOTS[slot].stream, from = band + SLOTS[slot].shift;
            const float *plane = plane_of(u, shape, image, STREAMS * n, stream * n + i, from);
            if (!plane) continue;
            load_haloed(input, plane, shape, tile);
            for (int o = 0; o < n; o++) add_filtered(sums[o], input, kernel + filter_index(n, slot, o, i), tile);
        }
    for (int o = 0; o < n; o++) store((float *)plane_of(y, shape, image, n, o, band), sums[o], shape, tile);
}

/* Compute the gradient of the four streams at a band, and add this band's share to the gradient of the kernel. Both
 * follow from the gradients of the gates that read the band: its own and those of its neighbours. */
INLINE void backward_tile(Shape shape, GateTile tile, const float *g_y, const float *u, const float *kernel, float *g_u,
                          double *g_kernel, long image, int band) {
    const int n = shape.heads;
    Haloed grads[3][MAX_HEADS]; /* of the band before, the band and the band after */
    Area input;
    for (int shift = -1; shift <= 1; shift++)
        for (int o = 0; o < n; o++)
            load_haloed(grads[shift + 1][o], plane_of(g_y, shape, image, n, o, band + shift), shape, tile);
    for (int stream = 0; stream < STREAMS; stream++)
        for (int i = 0; i < n; i++) {
            Area sum = {0};
            load(input, plane_of(u, shape, image, STREAMS * n, stream * n + i, band), shape, tile);
            for (int slot = 0; slot < 6; slot++) {
                if (SLOTS[slot].stream != stream) continue;
                for (int o = 0; o < n; o++) {
                    const long filter = filter_index(n, slot, o, i);
                    float turned[TAPS];
                    for (int tap = 0; tap < TAPS; tap++) turned[tap] = kernel[filter + TAPS - 1 - tap];
                    add_gradients(sum, g_kernel + filter, input, grads[1 - SLOTS[slot].shift][o], turned, tile);
                }
            }
            store((float *)plane_of(g_u, shape, image, STREAMS * n, stream * n + i, band), sum, shape, tile);
        }
}

typedef struct { int64_t heads, bands, height, width; const float *u, *kernel, *bias; float *y; } ForwardArgs;

CLONES KERNEL(ccnet_gates, ForwardArgs) {
    const Shape shape = {(int)args->heads, (int)args->bands, (int)args->height, (int)args->width};
    for (long index = first; index < last; index++)
        for (int top = 0; top < shape.height; top += gate_tile_rows(shape))
            for (int left = 0; left < shape.width; left += MAX_COLUMNS)
                forward_tile(shape, gate_tile_at(shape, top, left), args->u, args->kernel, args->bias, args->y,
                             index / shape.bands, (int)(index % shape.bands));
    return 0;
}

/* g_kernel (B, T, 2, n, n, 3, 3, 3), a sum for each band, must start at zero. */
typedef struct {
    int64_t heads, bands, height, width;
    const float *g_y, *u, *kernel;
    float *g_u;
    double *g_kernel;
} BackwardArgs;

CLONES KERNEL(ccnet_gates_backward, BackwardArgs) {
    const Shape shape = {(int)args->heads, (int)args->bands, (int)args->height, (int)args->width};
    for (long index = first; index < last; index++)
        for (int top = 0; top < shape.height; top += gate_tile_rows(shape))
            for (int left = 0; left < shape.width; left += MAX_COLUMNS)
                backward_tile(shape, gate_tile_at(shape, top, left), args->g_y, args->u, args->kernel, args->g_u,
                              args->g_kernel + index * 2 * shape.heads * shape.heads * 3 * TAPS, index / shape.bands,
                              (int)(index % shape.bands));
    return 0;
}
