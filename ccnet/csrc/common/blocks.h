/* Blocks: runs of consecutive pixels, short enough to stay in cache with all their channels. */
#pragma once

#include "common/simd.h"

/* Pixels [start, start + count) of an image. */
typedef struct { long image, start, count; } Block;

/* Return block `index` of all images, each of which is cut into ceil(plane / size) blocks. */
INLINE Block block_of(long plane, long size, long index) {
    const long blocks = (plane + size - 1) / size, start = index % blocks * size;
    return (Block){index / blocks, start, plane - start < size ? plane - start : size};
}
