/* An image in tiles for operators whose last step reads three rows: a tile is worked on row by row, with the rows that
 * a 3x3 still reads in a ring of three that stays in cache. Two rows and two columns more than a tile's are computed. */
#include "kernels.h"

#define ROWS 32 /* of a tile */

typedef struct { int y, x, rows, columns, left, right; } Tile; /* left, right: columns of the image beside it, 0 or 1 */

/* Of a tile: the width in as few equal parts as are no wider than that. */
INLINE int columns_of(int width, int widest) {
    const int across = (width + widest - 1) / widest;
    return (width + across - 1) / across;
}

INLINE long tiles_of(int height, int width, int widest) {
    const int columns = columns_of(width, widest);
    return (long)((height + ROWS - 1) / ROWS) * ((width + columns - 1) / columns);
}

INLINE Tile tile_of(int height, int width, int widest, long index) {
    const int columns = columns_of(width, widest), across = (width + columns - 1) / columns;
    const int top = (int)(index / across) * ROWS, left = (int)(index % across) * columns;
    Tile tile = {top, left, least(ROWS, height - top), least(columns, width - left), left > 0, 0};
    tile.right = left + tile.columns < width;
    return tile;
}
