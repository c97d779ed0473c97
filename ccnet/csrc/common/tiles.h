/* An image in tiles for operators that end in a 3x3: a tile is worked on row by row, with the rows that a 3x3 still reads
 * in a ring of three that stays in cache. What a 3x3 reads beyond the tile, its halo, is computed for it once more. */
#include "common/simd.h"

#define ROWS 32 /* of a tile */

typedef struct { int y, x, rows, columns, left, right; } Tile; /* left, right: columns of the halo that the image has */

/* Of a tile: the width in as few equal parts as are no wider than that. */
INLINE int columns_of(int width, int widest) {
    const int across = (width + widest - 1) / widest;
    return (width + across - 1) / across;
}

INLINE long tiles_of(int height, int width, int widest) {
    const int columns = columns_of(width, widest);
    return (long)((height + ROWS - 1) / ROWS) * ((width + columns - 1) / columns);
}

INLINE Tile tile_of(int height, int width, int widest, int halo, long index) {
    const int columns = columns_of(width, widest), across = (width + columns - 1) / columns;
    const int top = (int)(index / across) * ROWS, left = (int)(index % across) * columns;
    Tile tile = {top, left, least(ROWS, height - top), least(columns, width - left), least(halo, left), 0};
    tile.right = least(halo, width - left - tile.columns);
    return tile;
}

/* Where a row of the image lies in a ring; rows from -6. */
INLINE float *row_of(float *ring, long size, int y) { return ring + (y + 6) % 3 * size; }

/* Columns of a tile for which a row of all channels, and four times as many hidden ones, stay in cache. */
INLINE int widest_of(int channels) { return 8192 / channels > 16 ? 8192 / channels : 16; }

/* gelu of the 3x3 of each channel. rows: of the ring, from the one above, a column before and channels so far apart. */
INLINE void filter(int channels, float *const *rows, long apart, const float *spatial, float *to, long stride, long many) {
    for (int c = 0; c < channels; c++, spatial += TAPS, to += stride) {
        const float *above = rows[0] + c * apart, *centre = rows[1] + c * apart, *below = rows[2] + c * apart;
        float *restrict made = to, k[TAPS];
        memcpy(k, spatial, sizeof k);
        for (long p = 0; p < many; p++) made[p] = gelu_of(correlation(k, above, centre, below, p));
    }
}
