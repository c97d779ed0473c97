/* The spectral difference (Eq. 15) of each pixel, and its gradient to the estimate:
 *
 *     sum over i < j of | |e_j - e_i| - |t_j - t_i| |
 *
 * Layout: truth, estimate, gradient (B, bands, plane). Blocks [first, last) are counted over all images.
 */
#include <math.h>
#include <string.h>

#include "common/bands.h"
#include "common/blocks.h"
#include "common/kernel.h"

#define BLOCK 64 /* pixels */

LIMIT(spectral_block, BLOCK);

typedef float Pixels[BLOCK];

INLINE float sign_of(float x) { return (float)((x > 0.f) - (x < 0.f)); }

/* Return the sum over all pairs of bands and the block's pixels; g grows by its gradient to the estimate e. */
INLINE float difference(long bands, const Pixels *t, const Pixels *e, Pixels *g) {
    Pixels sum = {0};
    for (long j = 1; j < bands; j++)
        for (long i = 0; i < j; i++)
            for (int p = 0; p < BLOCK; p++) {
                const float gap = e[j][p] - e[i][p], excess = fabsf(gap) - fabsf(t[j][p] - t[i][p]);
                const float slope = sign_of(excess) * sign_of(gap);
                sum[p] += fabsf(excess);
                g[j][p] += slope;
                g[i][p] -= slope;
            }
    float total = 0.f;
    for (int p = 0; p < BLOCK; p++) total += sum[p];
    return total;
}

/* bands: at most MAX_BANDS; totals (blocks). */
typedef struct { int64_t bands, plane; const float *truth, *estimate; float *gradient, *totals; } Args;

CLONES KERNEL(ccnet_spectral, Args) {
    const long bands = args->bands, plane = args->plane;
    Pixels t[MAX_BANDS], e[MAX_BANDS], g[MAX_BANDS];
    for (long index = first; index < last; index++) {
        const Block block = block_of(plane, BLOCK, index);
        const long start = block.image * bands * plane + block.start;
        const size_t size = block.count * sizeof(float);
        memset(t, 0, sizeof t), memset(e, 0, sizeof e), memset(g, 0, sizeof g); /* pixels beyond the plane add 0 */
        for (long b = 0; b < bands; b++) {
            memcpy(t[b], args->truth + start + b * plane, size);
            memcpy(e[b], args->estimate + start + b * plane, size);
        }
        args->totals[index] = difference(bands, t, e, g);
        for (long b = 0; b < bands; b++) memcpy(args->gradient + start + b * plane, g[b], size);
    }
    return 0;
}
