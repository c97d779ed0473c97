/* Tiles of an image for operators that end in a 3x3. A tile is computed row by row, with the rows that a 3x3 reads in a
 * ring (conv3x3.h). The halo, the pixels around the tile that its 3x3s read, is computed again for every tile. */
#pragma once

#include "common/simd.h"

#define TILE_ROWS 32 /* at most */
#define MIN_TILES 4  /* of an image, if its height allows, so that several threads have work */

/* left, right: columns of the halo that lie inside the image. */
typedef struct { int y, x, rows, columns, left, right; } Tile;

INLINE int min_int(int a, int b) { return a < b ? a : b; }

/* Return the width of a tile: the image's width in as few equal parts as are no wider than max_columns. */
INLINE int tile_columns(int width, int max_columns) {
    const int across = (width + max_columns - 1) / max_columns;
    return (width + across - 1) / across;
}

/* Return the number of tiles side by side. */
INLINE int tiles_across(int width, int max_columns) {
    const int columns = tile_columns(width, max_columns);
    return (width + columns - 1) / columns;
}

/* Return the height of a tile, a power of two from 8 to TILE_ROWS. */
INLINE int tile_rows(int height, int across) {
    int rows = TILE_ROWS;
    while (rows > 8 && (height + rows - 1) / rows * across < MIN_TILES) rows /= 2;
    return rows;
}

INLINE long num_tiles(int height, int width, int max_columns) {
    const int across = tiles_across(width, max_columns), rows = tile_rows(height, across);
    return (long)((height + rows - 1) / rows) * across;
}

INLINE Tile tile_at(int height, int width, int max_columns, int halo, long index) {
    const int columns = tile_columns(width, max_columns), across = tiles_across(width, max_columns);
    const int rows = tile_rows(height, across);
    const int top = (int)(index / across) * rows, left = (int)(index % across) * columns;
    Tile tile = {top, left, min_int(rows, height - top), min_int(columns, width - left), min_int(halo, left), 0};
    tile.right = min_int(halo, width - left - tile.columns);
    return tile;
}

/* Return the columns of a tile for which a row of all channels, and of four times as many hidden channels, stays in
 * cache. */
INLINE int max_columns_for(int channels) { return 8192 / channels > 16 ? 8192 / channels : 16; }
